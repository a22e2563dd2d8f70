//! A linearizable register outside of the nodes, in the place of voters (DESIGN D4: etcd).
//!
//! ```text
//!  Register{Read}           ─► Stands{revision, holding}
//!  Register{Swap{expected}} ─► Swapped{revision}         it stood at `expected`: nobody was between
//!                            ├► Stands{revision, holding} it did not: this is what stands
//!                            └► Unknown                   it may happen still, or never
//! ```
//!
//! What voters keep on their disks (a promise, a record, a grant) one register keeps for all. It
//! has no clock and judges nothing: whoever asks reads it, judges as a voter would (`volume/register.rs`),
//! and swaps.

use std::time::Duration;

use crate::record::Record;
use crate::units::{NODES_MAX, NodeIdx, NodeSet, Term};
use crate::wire::{WireError, parse_holding, put_holding};

/// The register's place among voters: behind every node that a volume can have.
pub const REGISTER: NodeIdx = NodeIdx(NODES_MAX as u8 - 1);

/// The list of voters of a volume whose records a register chooses.
pub const REGISTER_ALONE: NodeSet = NodeSet(1 << REGISTER.0);

/// The newest renewal of a lease. It holds for `length` from when its holder asked; whoever would
/// serve next waits so long from when it first saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Reign it belongs to.
    pub term: Term,
    /// Number of the renewal, dense within the holder's process.
    pub number: u64,
    /// How long it holds, at most 60 s.
    pub length: Duration,
    /// Its holder gave it back.
    pub is_released: bool,
}

/// What a register holds of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Identity of the volume.
    pub volume_id: u128,
    /// Digest of the names of all nodes in order, 24 bits: sets of nodes mean the same to all.
    pub nodes: u32,
    /// Highest term promised to a candidate (law T2).
    pub promised: Term,
    /// The record that is chosen.
    pub record: Record,
    /// Who may answer reads.
    pub lease: Stamp,
}

impl Holding {
    /// Its bytes, as `docs/format.md` draws them.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_holding(self, &mut out);
        out
    }

    /// Reads what [`Holding::encode`] wrote. Errors: damaged, or of an unknown version.
    pub fn parse(bytes: &[u8]) -> Result<Holding, WireError> {
        parse_holding(bytes)
    }
}

/// What is asked of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// What does it hold?
    Read,
    /// Hold `next` from now on, if nothing changed since `expected`.
    Swap {
        /// Revision it must stand at; 0: it holds nothing.
        expected: u64,
        /// What it is to hold.
        next: Holding,
    },
}

/// What a register answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The swap happened.
    Swapped {
        /// Revision it stands at now.
        revision: u64,
    },
    /// The answer to a read, or to a swap that came too late.
    Stands {
        /// Revision; 0: it holds nothing.
        revision: u64,
        /// What it holds.
        holding: Option<Holding>,
    },
    /// It could not be asked, or its answer was lost: a swap may happen still, or may have.
    Unknown,
}
