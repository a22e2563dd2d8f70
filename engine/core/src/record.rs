//! The record: who may be primary, and who holds every acknowledged write.

use crate::units::{NodeIdx, NodeSet, Term};

/// (term, step, primary, S, branch), ordered by (term, step). Laws T3, T4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Number of the reign; unique to its primary.
    pub term: Term,
    /// Grows with each change of S within the term.
    pub step: u32,
    /// Who reigns.
    pub primary: NodeIdx,
    /// The in-sync set; never empty.
    pub in_sync: NodeSet,
    /// Branch id.
    pub branch: u128,
    /// Whose votes choose records (law T1); nobody's with `quorum = "off"`.
    pub voters: NodeSet,
    /// Its primary laid the role down on an operator's word: nobody promotes itself after it.
    pub is_released: bool,
}

impl Record {
    /// The first record of the reign `term`.
    pub fn first(term: Term, in_sync: NodeSet, branch: u128, voters: NodeSet) -> Record {
        Record {
            term,
            step: 0,
            primary: term.author(),
            in_sync,
            branch,
            voters,
            is_released: false,
        }
    }

    /// The next record of the same reign, as yet with nothing changed.
    #[must_use]
    pub fn next(self) -> Record {
        Record {
            step: self.step + 1,
            ..self
        }
    }

    /// Newer than `other`, by (term, step).
    pub fn is_newer_than(&self, other: &Record) -> bool {
        (self.term, self.step) > (other.term, other.step)
    }
}

/// What the control store says of a proposal. Unknown counts as not chosen until read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The proposed record is chosen.
    Chosen,
    /// Another record stands.
    Conflict(Record),
    /// The store cannot be asked now.
    Unknown,
}
