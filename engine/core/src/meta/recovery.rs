//! What a pair of slots means: one table, total over everything that can be found (law M3).
//!
//! Recovery only reads, so crashing in it and repeating it changes nothing. The next write goes
//! to the slot that was not chosen, so the chosen one stands until its successor is durable.

use std::cmp::Ordering;

use crate::meta::block::{Finding, Kind};
use crate::meta::pages::Slot;

/// What to do with a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The state is what this slot says.
    Use(Slot),
    /// There is no state to trust; nothing is touched.
    Refuse(Why),
}

/// Why a pair is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Both slots are zeros.
    NeverWritten,
    /// No slot holds a record of this life for this place (law M5).
    BothBad,
    /// Something that no crash writes stands where the newest state may have been.
    Overwritten,
    /// Both claim the same turn.
    SameTurn,
    /// Written by a version this build does not know (law M4).
    NewerVersion,
}

/// Which records a row speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// The superblock, whose two slots are the last writes of a format.
    Superblock,
    /// Any page of a region, both slots of which stand before a superblock does.
    Page,
}

/// A finding without its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Valid,
    /// Valid, with the counter that only format writes, and only to slot A.
    Fresh,
    Torn,
    Foreign,
    Misplaced,
    Unknown,
    Blank,
}

/// One line of the table.
pub(super) struct Row {
    pub(super) label: &'static str,
    of: &'static [Of],
    a: &'static [Class],
    b: &'static [Class],
    /// Counter of A against B; empty where it does not matter or does not exist.
    turn: &'static [Ordering],
    pub(super) decision: Decision,
    /// Which crash leads here.
    pub(super) crash: &'static str,
}

use Class::{Blank, Foreign, Fresh, Misplaced, Torn, Unknown, Valid};
use Decision::{Refuse, Use};

/// Format writes slot A with this turn, and nothing does so again.
const FRESH_COUNTER: u64 = 1;

const ANY: &[Of] = &[Of::Superblock, Of::Page];
const KNOWN: &[Class] = &[Valid, Fresh, Torn, Foreign, Misplaced, Blank];
const EVERY: &[Class] = &[Valid, Fresh, Torn, Foreign, Misplaced, Unknown, Blank];
const WHOLE: &[Class] = &[Valid, Fresh];
const NOT_CRASHED: &[Class] = &[Foreign, Misplaced];

/// The whole of recovery. Every combination of findings matches exactly one row.
pub(super) const TABLE: &[Row] = &[
    Row {
        label: "A is newer",
        of: ANY,
        a: WHOLE,
        b: WHOLE,
        turn: &[Ordering::Greater],
        decision: Use(Slot::A),
        crash: "none, or one between two writes: the last write, to A, is whole",
    },
    Row {
        label: "B is newer",
        of: ANY,
        a: WHOLE,
        b: WHOLE,
        turn: &[Ordering::Less],
        decision: Use(Slot::B),
        crash: "none, or one between two writes: the last write, to B, is whole",
    },
    Row {
        label: "same turn twice",
        of: ANY,
        a: WHOLE,
        b: WHOLE,
        turn: &[Ordering::Equal],
        decision: Refuse(Why::SameTurn),
        crash: "none: counters grow with each write of the pair; a copied block or two writers",
    },
    Row {
        label: "B torn",
        of: ANY,
        a: WHOLE,
        b: &[Torn],
        turn: &[],
        decision: Use(Slot::A),
        crash: "while B was written: the state before that write, which nobody was told of",
    },
    Row {
        label: "A torn",
        of: ANY,
        a: &[Torn],
        b: WHOLE,
        turn: &[],
        decision: Use(Slot::B),
        crash: "while A was written: the state before that write, which nobody was told of",
    },
    Row {
        label: "superblock B not written yet",
        of: &[Of::Superblock],
        a: &[Fresh],
        b: &[Blank],
        turn: &[],
        decision: Use(Slot::A),
        crash: "during format, between its last two writes: all regions were durable before them",
    },
    Row {
        label: "superblock B blanked",
        of: &[Of::Superblock],
        a: &[Valid],
        b: &[Blank],
        turn: &[],
        decision: Refuse(Why::Overwritten),
        crash: "during a format over an old area, which blanks both slots first: the old replica \
                was given up, and B may have been the newer",
    },
    Row {
        label: "superblock A blanked",
        of: &[Of::Superblock],
        a: &[Blank],
        b: WHOLE,
        turn: &[],
        decision: Refuse(Why::Overwritten),
        crash: "during a format over an old area, as above; or during format, whose last two writes \
                are not ordered: nobody was told that it ended",
    },
    Row {
        label: "half of a page blank",
        of: &[Of::Page],
        a: WHOLE,
        b: &[Blank],
        turn: &[],
        decision: Refuse(Why::Overwritten),
        crash: "none: format wrote both slots before a superblock stood; B was erased and may \
                have been the newer",
    },
    Row {
        label: "other half of a page blank",
        of: &[Of::Page],
        a: &[Blank],
        b: WHOLE,
        turn: &[],
        decision: Refuse(Why::Overwritten),
        crash: "none: format wrote both slots before a superblock stood; A was erased and may \
                have been the newer",
    },
    Row {
        label: "B overwritten",
        of: ANY,
        a: WHOLE,
        b: NOT_CRASHED,
        turn: &[],
        decision: Refuse(Why::Overwritten),
        crash: "none: a whole record of another place or life landed on B (a misdirected write), \
                and B may have been the newer; going on with A could forget dirty bits",
    },
    Row {
        label: "A overwritten",
        of: ANY,
        a: NOT_CRASHED,
        b: WHOLE,
        turn: &[],
        decision: Refuse(Why::Overwritten),
        crash: "none: a whole record of another place or life landed on A (a misdirected write), \
                and A may have been the newer; going on with B could forget dirty bits",
    },
    Row {
        label: "never written",
        of: ANY,
        a: &[Blank],
        b: &[Blank],
        turn: &[],
        decision: Refuse(Why::NeverWritten),
        crash: "superblock: before or during format, which blanks it first and writes it last; \
                page: none, a hole where format wrote",
    },
    Row {
        label: "A bad, B bad",
        of: ANY,
        a: &[Torn, Foreign, Misplaced],
        b: &[Torn, Foreign, Misplaced, Blank],
        turn: &[],
        decision: Refuse(Why::BothBad),
        crash: "superblock: during format, while its first slot was written; otherwise none: one \
                write tears one slot, so both are damaged or of another life (format over an old \
                area blanks the superblocks first)",
    },
    Row {
        label: "A blank, B bad",
        of: ANY,
        a: &[Blank],
        b: &[Torn, Foreign, Misplaced],
        turn: &[],
        decision: Refuse(Why::BothBad),
        crash: "superblock: during format, whose last two writes are not ordered; otherwise none",
    },
    Row {
        label: "A of an unknown version",
        of: ANY,
        a: &[Unknown],
        b: EVERY,
        turn: &[],
        decision: Refuse(Why::NewerVersion),
        crash: "a crash or stop of a newer version, before it was replaced by this one",
    },
    Row {
        label: "B of an unknown version",
        of: ANY,
        a: KNOWN,
        b: &[Unknown],
        turn: &[],
        decision: Refuse(Why::NewerVersion),
        crash: "a crash or stop of a newer version, before it was replaced by this one",
    },
];

impl Row {
    pub(super) fn matches(&self, of: Of, a: Finding, b: Finding) -> bool {
        let is_turn = self.turn.is_empty() || turn(a, b).is_some_and(|t| self.turn.contains(&t));
        self.of.contains(&of) && self.a.contains(&class(a)) && self.b.contains(&class(b)) && is_turn
    }
}

pub(super) fn class(finding: Finding) -> Class {
    match finding {
        Finding::Valid {
            counter: FRESH_COUNTER,
        } => Fresh,
        Finding::Valid { .. } => Valid,
        Finding::Torn => Torn,
        Finding::Foreign { .. } => Foreign,
        Finding::Misplaced { .. } => Misplaced,
        Finding::UnknownVersion { .. } => Unknown,
        Finding::Blank => Blank,
    }
}

fn turn(a: Finding, b: Finding) -> Option<Ordering> {
    match (a, b) {
        (Finding::Valid { counter: a }, Finding::Valid { counter: b }) => Some(a.cmp(&b)),
        _ => None,
    }
}

/// The row for a pair of `kind`.
pub(super) fn decide(kind: Kind, a: Finding, b: Finding) -> &'static Row {
    let of = if kind == Kind::Superblock {
        Of::Superblock
    } else {
        Of::Page
    };
    let row = TABLE.iter().find(|row| row.matches(of, a, b));
    row.expect("the table is total: a test walks every combination")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> [Finding; 9] {
        [
            Finding::Valid { counter: 1 },
            Finding::Valid { counter: 2 },
            Finding::Valid { counter: 7 },
            Finding::Valid { counter: 8 },
            Finding::Torn,
            Finding::Foreign { incarnation: 9 },
            Finding::Misplaced { kind: 2, block: 5 },
            Finding::UnknownVersion { version: 2 },
            Finding::Blank,
        ]
    }

    #[test]
    fn every_combination_of_findings_matches_exactly_one_row() {
        let mut used = vec![0; TABLE.len()];
        for of in [Of::Superblock, Of::Page] {
            for a in findings() {
                for b in findings() {
                    let rows: Vec<usize> = (0..TABLE.len())
                        .filter(|i| TABLE[*i].matches(of, a, b))
                        .collect();
                    assert_eq!(rows.len(), 1, "{of:?} {a:?} {b:?} matches {rows:?}");
                    used[rows[0]] += 1;
                }
            }
        }
        let idle: Vec<_> = TABLE.iter().zip(&used).filter(|(_, n)| **n == 0).collect();
        assert!(
            idle.is_empty(),
            "every row is reachable: {:?}",
            idle.first().map(|r| r.0.label)
        );
    }

    #[test]
    fn every_row_names_its_crash_and_has_its_own_label() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(row.crash.len() > 20, "{}", row.label);
            assert!(
                TABLE[..index].iter().all(|r| r.label != row.label),
                "{}",
                row.label
            );
        }
    }

    #[test]
    fn but_for_a_format_cut_short_the_slots_are_alike() {
        let mirror = |decision| match decision {
            Use(Slot::A) => Use(Slot::B),
            Use(Slot::B) => Use(Slot::A),
            refuse => refuse,
        };
        for kind in [Kind::Superblock, Kind::Bitmap] {
            for a in findings() {
                for b in findings() {
                    let are = |x, y| (class(a), class(b)) == (x, y);
                    if kind == Kind::Superblock && (are(Fresh, Blank) || are(Blank, Fresh)) {
                        continue;
                    }
                    let (ab, ba) = (decide(kind, a, b).decision, decide(kind, b, a).decision);
                    assert_eq!(ab, mirror(ba), "{a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn only_a_valid_slot_is_ever_used() {
        for kind in [
            Kind::Superblock,
            Kind::ActivityLog,
            Kind::Bitmap,
            Kind::Attributes,
        ] {
            for a in findings() {
                for b in findings() {
                    let used = match decide(kind, a, b).decision {
                        Use(Slot::A) => a,
                        Use(Slot::B) => b,
                        Refuse(_) => continue,
                    };
                    assert!(
                        matches!(used, Finding::Valid { .. }),
                        "{kind:?} {a:?} {b:?}"
                    );
                }
            }
        }
    }
}
