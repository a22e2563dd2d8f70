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

    /// Forgets the newest reign: a forced promotion breaks with everybody who shares it.
    pub fn pop(&mut self) -> Option<Entry> {
        self.entries.pop()
    }
}

/// Compares two histories. Pure and symmetric: `judge(a, b)` mirrors `judge(b, a)`.
///
/// A chain that fell off the front still compares by what is kept: "their newest lies in mine".
pub fn judge(mine: &Chain, theirs: &Chain) -> Verdict {
    let (Some(my_newest), Some(their_newest)) = (mine.newest(), theirs.newest()) else {
        return match (mine.newest(), theirs.newest()) {
            (None, None) => Verdict::Equal,
            (None, Some(_)) => Verdict::Behind,
            _ => Verdict::Ahead,
        };
    };
    if my_newest == their_newest {
        return Verdict::Equal;
    }
    if theirs.entries.contains(&my_newest) {
        return Verdict::Behind;
    }
    if mine.entries.contains(&their_newest) {
        return Verdict::Ahead;
    }
    if mine.entries.iter().any(|e| theirs.entries.contains(e)) {
        return Verdict::Diverged;
    }
    Verdict::Unrelated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(terms: &[u64]) -> Chain {
        let mut chain = Chain::default();
        terms.iter().for_each(|t| {
            chain.push(Entry {
                branch: 1,
                term: Term(*t),
            });
        });
        chain
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
    fn both_sides_reach_the_mirrored_verdict() {
        let pool: Vec<Chain> = [&[][..], &[1], &[1, 2], &[1, 3], &[2], &[1, 2, 3], &[4, 5]]
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
