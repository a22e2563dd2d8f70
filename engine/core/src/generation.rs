//! Histories and how two of them compare: [`judge`].
//!
//! A history is the chain of reigns whose data a replica holds whole: each entry one
//! (branch, term), the author being part of the term. Only *behind* is resynced without an
//! operator (law T9).

use crate::units::Term;

/// Most entries kept; older ones fall off the front.
pub const CHAIN_MAX: usize = 64;

/// One reign whose writes a replica holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Branch id; changes only at founding and force.
    pub branch: u128,
    /// Term; carries its author.
    pub term: Term,
    /// Its author knows that nothing was written in it: a candidacy that was offered to a member
    /// and never began.
    pub is_empty: bool,
}

/// Highest bit of an entry's term where it is stored or sent: the reign is empty.
const EMPTY: u64 = 1 << 63;

impl Entry {
    /// A reign that may have served.
    pub fn new(branch: u128, term: Term) -> Entry {
        Entry {
            branch,
            term,
            is_empty: false,
        }
    }

    /// Term and emptiness in one word, as on disk and on the wire.
    pub fn word(&self) -> u64 {
        self.term.0 | if self.is_empty { EMPTY } else { 0 }
    }

    /// The entry of a branch and a [`word`](Entry::word).
    pub fn from_word(branch: u128, word: u64) -> Entry {
        Entry {
            branch,
            term: Term(word & !EMPTY),
            is_empty: word & EMPTY != 0,
        }
    }

    fn is_same_reign(&self, other: &Entry) -> bool {
        self.branch == other.branch && self.term == other.term
    }
}

/// Reigns, oldest first; the newest is the data's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    entries: Vec<Entry>,
}

/// How one history relates to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same.
    Equal,
    /// Theirs continues mine.
    Behind,
    /// Mine continues theirs.
    Ahead,
    /// A common past, then two futures: split brain.
    Diverged,
    /// Nothing in common.
    Unrelated,
}

impl Chain {
    /// The chain with these entries, oldest first; `None` if there are more than [`CHAIN_MAX`].
    pub fn from_entries(entries: Vec<Entry>) -> Option<Chain> {
        (entries.len() <= CHAIN_MAX).then_some(Chain { entries })
    }

    /// Oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The newest entry.
    pub fn newest(&self) -> Option<Entry> {
        self.entries.last().copied()
    }

    /// Adds a reign; the oldest falls off when full.
    pub fn push(&mut self, entry: Entry) {
        assert!(
            self.newest().is_none_or(|n| n.term < entry.term),
            "terms grow along a chain"
        );
        if self.entries.len() == CHAIN_MAX {
            self.entries.remove(0);
        }
        self.entries.push(entry);
    }

    fn knows(&self, reign: &Entry) -> bool {
        self.entries.iter().any(|e| e.is_same_reign(reign))
    }

    fn knows_empty(&self, reign: &Entry) -> bool {
        (self.entries.iter()).any(|e| e.is_empty && e.is_same_reign(reign))
    }

    /// Forgets what is shared with `theirs` at its end, where this chain goes on: two that ought to
    /// compare as ahead compare as diverged from then on, or as unrelated.
    pub fn part_from(&mut self, theirs: &Chain) {
        while judge(self, theirs) == Verdict::Ahead {
            let counts = |e: &&Entry| !self.knows_empty(e) && !theirs.knows_empty(e);
            let Some(newest) = theirs.entries.iter().rev().find(counts).copied() else {
                return;
            };
            self.entries.retain(|e| !e.is_same_reign(&newest));
        }
    }

    /// Forgets the newest reign that may hold data, and empty ones after it: a forced promotion
    /// breaks with everybody who shares it.
    pub fn pop(&mut self) -> Option<Entry> {
        while let Some(last) = self.entries.pop() {
            if !last.is_empty {
                return Some(last);
            }
        }
        None
    }
}

/// Compares two histories. Pure and symmetric: `judge(a, b)` mirrors `judge(b, a)`.
///
/// A chain that fell off the front still compares by what is kept: "their newest lies in mine".
/// A reign that either side knows to be empty is no data, so it separates nobody.
pub fn judge(mine: &Chain, theirs: &Chain) -> Verdict {
    let counts = |e: &&Entry| !mine.knows_empty(e) && !theirs.knows_empty(e);
    let newest = |chain: &Chain| chain.entries.iter().rev().find(counts).copied();
    let (Some(my_newest), Some(their_newest)) = (newest(mine), newest(theirs)) else {
        return match (newest(mine), newest(theirs)) {
            (None, None) => Verdict::Equal,
            (None, Some(_)) => Verdict::Behind,
            _ => Verdict::Ahead,
        };
    };
    if my_newest.is_same_reign(&their_newest) {
        return Verdict::Equal;
    }
    if theirs.knows(&my_newest) {
        return Verdict::Behind;
    }
    if mine.knows(&their_newest) {
        return Verdict::Ahead;
    }
    if (mine.entries.iter().filter(counts)).any(|e| theirs.knows(e)) {
        return Verdict::Diverged;
    }
    Verdict::Unrelated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(terms: &[u64]) -> Chain {
        let mut chain = Chain::default();
        terms
            .iter()
            .for_each(|t| chain.push(Entry::from_word(1, *t)));
        chain
    }

    const fn empty(term: u64) -> u64 {
        EMPTY | term
    }

    #[test]
    fn candidacies_that_never_began_separate_nobody() {
        let cases = [
            (&[1, empty(2)][..], &[1, empty(3)][..], Verdict::Equal),
            (&[1, empty(2)], &[1, 2], Verdict::Equal),
            (&[1, empty(2)], &[1, 2, 3], Verdict::Behind),
            (&[1, empty(2), 4], &[1, 2], Verdict::Ahead),
            (&[1, empty(2), 4], &[1, empty(3), 5], Verdict::Diverged),
            (&[1, 2], &[1, 3], Verdict::Diverged),
        ];
        for (mine, theirs, expected) in cases {
            assert_eq!(
                judge(&chain(mine), &chain(theirs)),
                expected,
                "{mine:x?} / {theirs:x?}"
            );
        }
    }

    #[test]
    fn histories_compare_by_whole_entries() {
        let cases = [
            (&[1, 2][..], &[1, 2][..], Verdict::Equal),
            (&[1], &[1, 2], Verdict::Behind),
            (&[1, 2, 3], &[1, 2], Verdict::Ahead),
            (&[1, 2], &[1, 3], Verdict::Diverged),
            (&[1, 2], &[3, 4], Verdict::Unrelated),
            (&[], &[1], Verdict::Behind),
            (&[], &[], Verdict::Equal),
        ];
        for (mine, theirs, expected) in cases {
            assert_eq!(
                judge(&chain(mine), &chain(theirs)),
                expected,
                "{mine:?} / {theirs:?}"
            );
        }
    }

    #[test]
    fn a_chain_that_parts_is_ahead_no_more() {
        let cases = [
            (&[1, 2, 3][..], &[1, 2][..], Verdict::Diverged),
            (&[2, 3], &[2], Verdict::Unrelated),
            (&[1, 2, empty(3), 4], &[1, 2, empty(5)], Verdict::Diverged),
            (&[1, 2], &[1, 2], Verdict::Equal),
            (&[1], &[], Verdict::Ahead),
        ];
        for (mine, theirs, expected) in cases {
            let (mut mine, theirs) = (chain(mine), chain(theirs));
            mine.part_from(&theirs);
            assert_eq!(judge(&mine, &theirs), expected, "{mine:x?} / {theirs:x?}");
        }
    }

    #[test]
    fn both_sides_reach_the_mirrored_verdict() {
        let pool: Vec<Chain> = [
            &[][..],
            &[1],
            &[1, 2],
            &[1, 3],
            &[2],
            &[1, 2, 3],
            &[4, 5],
            &[1, empty(2)],
            &[1, empty(3)],
            &[1, empty(2), 3],
        ]
        .map(chain)
        .into();
        for a in &pool {
            for b in &pool {
                let mirrored = match judge(a, b) {
                    Verdict::Behind => Verdict::Ahead,
                    Verdict::Ahead => Verdict::Behind,
                    same => same,
                };
                assert_eq!(judge(b, a), mirrored, "{a:?} / {b:?}");
            }
        }
    }

    #[test]
    fn a_full_chain_forgets_its_oldest_reign() {
        let long: Vec<u64> = (1..=CHAIN_MAX as u64 + 3).collect();
        let chain = chain(&long);
        assert_eq!(chain.entries().len(), CHAIN_MAX);
        assert_eq!(chain.entries()[0].term, Term(4));
    }
}
