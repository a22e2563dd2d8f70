//! Why metadata is not taken. Each refusal touches nothing.

use thiserror::Error;

use crate::meta::block::{Finding, Kind, VERSION};
use crate::meta::superblock::Backing;

/// Why a replica cannot be formatted as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParamsError {
    /// Empty, or over 255 bytes.
    #[error("volume name of {len} bytes is not 1 to 255")]
    VolumeName {
        /// Its length.
        len: usize,
    },
    /// Empty, or over 16 PiB.
    #[error("size of {size_granules} granules is not 1 to 2^42")]
    Size {
        /// Size asked for.
        size_granules: u64,
    },
    /// No node, over eight, or this node is not among them.
    #[error("node {self_node} of {node_count} replicas: 1 to 8 nodes")]
    Nodes {
        /// Index of this node.
        self_node: u8,
        /// Configured nodes.
        node_count: u8,
    },
    /// No power of two up to 1024.
    #[error("grain of {grain} granules is not a power of two up to 1024")]
    Grain {
        /// Granules per bit.
        grain: u32,
    },
    /// None, or over 65536.
    #[error("activity log of {slots} slots is not 1 to 65536")]
    ActivityLogSlots {
        /// Slots asked for.
        slots: u32,
    },
    /// Zero means "unknown" where peers remember each other.
    #[error("incarnation 0 names no replica")]
    Incarnation,
}

/// A field of a whole record that says something no version of this format writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// A name is not UTF-8, empty or too long.
    VolumeName,
    /// Size, grain, node list or log length out of range.
    Geometry,
    /// A state of the copy that has no name.
    Disk,
    /// A backing kind that has no name.
    BackingKind,
    /// A flag is neither 0 nor 1.
    Flag,
    /// A term that is out of range or names no node.
    Term,
    /// The record names no node or an empty set.
    Record,
    /// The chain is too long or does not grow.
    Chain,
    /// A region lies outside, overlaps another, or has the wrong length.
    Regions,
    /// An activity-log slot lies past the volume's end.
    ActivityLogSlot,
    /// The table of attributes contradicts itself, or a page of it is missing.
    Attributes,
}

/// Why metadata cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// The area ends before what it must hold.
    #[error("metadata area holds {found} blocks, not {expected}")]
    Short {
        /// Whole blocks found.
        found: u64,
        /// Blocks needed.
        expected: u64,
    },
    /// Both superblock slots are zeros.
    #[error("metadata was never formatted")]
    NotFormatted,
    /// No pair of slots to trust (law M5).
    #[error("{kind:?} page {page} at block {block} is lost ({row}): {a:?} and {b:?}")]
    Damaged {
        /// What it should be.
        kind: Kind,
        /// Page within its region.
        page: u64,
        /// Its first slot.
        block: u64,
        /// Found in the first slot.
        a: Finding,
        /// Found in the second.
        b: Finding,
        /// Row of the recovery table.
        row: &'static str,
        /// Which crash leads there, or why none does.
        cause: &'static str,
    },
    /// Written by a version this build does not know (law M4).
    #[error("{kind:?} has version {found}; this build knows {expected}")]
    Version {
        /// Of what.
        kind: Kind,
        /// Version found.
        found: u32,
        /// Version known.
        expected: u32,
    },
    /// Needs features this build does not know (law M4).
    #[error("incompatible features {found:#x}; this build knows {expected:#x}")]
    Feature {
        /// Bits found.
        found: u64,
        /// Bits known.
        expected: u64,
    },
    /// A whole record that contradicts itself.
    #[error("block {block} holds an impossible {field:?}")]
    Invalid {
        /// Where.
        block: u64,
        /// What.
        field: Field,
    },
    /// Another volume's.
    #[error("metadata belongs to volume `{found}`, not `{expected}`")]
    Volume {
        /// Name found.
        found: String,
        /// Name expected.
        expected: String,
    },
    /// Another slice's.
    #[error("metadata belongs to slice {found}, not {expected}")]
    Slice {
        /// Slice found.
        found: u32,
        /// Slice expected.
        expected: u32,
    },
    /// Another node's.
    #[error("metadata belongs to node {found}, not {expected}")]
    Node {
        /// Index found.
        found: u8,
        /// Index expected.
        expected: u8,
    },
    /// Made for other replicas, or in another order.
    #[error(
        "metadata was made for {found} nodes {found_digest:016x}, not {expected} nodes {expected_digest:016x}"
    )]
    Nodes {
        /// Nodes found.
        found: u8,
        /// Nodes expected.
        expected: u8,
        /// Digest of their names found.
        found_digest: u64,
        /// Digest of their names expected.
        expected_digest: u64,
    },
    /// Made for another size.
    #[error("metadata is for {found} granules, not {expected}")]
    Size {
        /// Size found.
        found: u64,
        /// Size expected.
        expected: u64,
    },
    /// Made for another granule.
    #[error("metadata is for granules of {found} bytes, not {expected}")]
    Granule {
        /// Bytes found.
        found: u32,
        /// Bytes expected.
        expected: u32,
    },
    /// The data it describes is not the data that is there: join as blank (DESIGN D10).
    #[error("metadata describes another backing: {found:?}, not {expected:?}")]
    Backing {
        /// Backing found in the superblock.
        found: Backing,
        /// Backing that is there.
        expected: Backing,
    },
}

impl LoadError {
    /// The refusal of a record of an unknown version.
    pub(super) fn version(kind: Kind, found: u32) -> LoadError {
        LoadError::Version {
            kind,
            found,
            expected: VERSION,
        }
    }
}
