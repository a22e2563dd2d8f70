//! One record: a block that says what it is, whose, where, which turn, and proves it.
//!
//! ```text
//!   0 magic "POLLUXMD"        32 block number of its own place   u64
//!   8 kind            u32     40 counter of the pair's writes    u64
//!  12 version         u32     48 CRC-32 of the block, this 0     u32
//!  16 incarnation    u128     52 zero                        12 bytes
//!  64 body of the kind, 4032 bytes
//! ```
//!
//! These 64 bytes mean the same in every version.

use crate::action::{META_BLOCK, MetaBlock};
use crate::meta::bytes::{get, get_u32, get_u64, get_u128, put};

/// First bytes of every record.
pub const MAGIC: [u8; 8] = *b"POLLUXMD";
/// Bytes before the body.
pub const HEADER_LEN: usize = 64;
/// Version of every kind of record this build writes, and the only one it reads.
pub const VERSION: u32 = 1;
/// Highest counter a record may carry; no disk lives long enough to get there.
pub const COUNTER_MAX: u64 = 1 << 62;

const CRC_AT: usize = 48;
const _: () = assert!(META_BLOCK - HEADER_LEN == 4032);

/// What a record holds. The numbers stand on disk, here and in region tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    /// Identity, geometry, record and history.
    Superblock = 1,
    /// Extents being written.
    ActivityLog = 2,
    /// What one other node lacks.
    Bitmap = 3,
    /// What `SetAttr` set.
    Attributes = 4,
    /// What changed since a mark. Its pages carry another life than the rest, see
    /// [`super::mark_life`].
    Mark = 5,
    /// Checksums of the data.
    Sums = 6,
}

/// What lies in one slot. Every block is exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A record of this life at its own place.
    Valid {
        /// Turn in which it was written.
        counter: u64,
    },
    /// No record, or one whose checksum does not hold.
    Torn,
    /// Whole, but of another replica's life.
    Foreign {
        /// Whose.
        incarnation: u128,
    },
    /// Whole, but written for another place or as another kind.
    Misplaced {
        /// Kind it says it is.
        kind: u32,
        /// Place it says it belongs to.
        block: u64,
    },
    /// Whole and in place, of a version this build does not know.
    UnknownVersion {
        /// Version found.
        version: u32,
    },
    /// Nothing but zeros: never written.
    Blank,
}

/// Puts a record together: header, body by `fill` (whole block, from [`HEADER_LEN`] on), CRC.
pub(super) fn seal(
    kind: Kind,
    incarnation: u128,
    block: u64,
    counter: u64,
    fill: impl FnOnce(&mut MetaBlock),
) -> Box<MetaBlock> {
    assert!(
        (1..=COUNTER_MAX).contains(&counter),
        "counter {counter} names a turn"
    );
    let mut bytes = Box::new([0; META_BLOCK]);
    fill(&mut bytes);
    put(&mut bytes, 0, &MAGIC);
    put(&mut bytes, 8, &(kind as u32).to_le_bytes());
    put(&mut bytes, 12, &VERSION.to_le_bytes());
    put(&mut bytes, 16, &incarnation.to_le_bytes());
    put(&mut bytes, 32, &block.to_le_bytes());
    put(&mut bytes, 40, &counter.to_le_bytes());
    put(&mut bytes, CRC_AT, &[0; HEADER_LEN - CRC_AT]);
    let crc = crc(&bytes);
    put(&mut bytes, CRC_AT, &crc.to_le_bytes());
    bytes
}

/// CRC-32 (IEEE) of the block with its own field read as zero.
fn crc(bytes: &MetaBlock) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_AT]);
    hasher.update(&[0; 4]);
    hasher.update(&bytes[CRC_AT + 4..]);
    hasher.finalize()
}

/// Judges what was read from place `block`, where a record of `kind` belongs. Without an
/// `incarnation` any life is accepted: the superblock is the record that tells whose it is.
pub fn examine(bytes: &MetaBlock, kind: Kind, block: u64, incarnation: Option<u128>) -> Finding {
    if bytes.iter().all(|b| *b == 0) {
        return Finding::Blank;
    }
    let counter = get_u64(bytes, 40);
    let is_whole = has_magic(bytes) && get_u32(bytes, CRC_AT) == crc(bytes);
    if !is_whole || !(1..=COUNTER_MAX).contains(&counter) {
        return Finding::Torn;
    }
    let found = incarnation_of(bytes);
    if incarnation.is_some_and(|expected| expected != found) {
        return Finding::Foreign { incarnation: found };
    }
    let (found_kind, found_block) = (get_u32(bytes, 8), get_u64(bytes, 32));
    if (found_kind, found_block) != (kind as u32, block) {
        return Finding::Misplaced {
            kind: found_kind,
            block: found_block,
        };
    }
    match get_u32(bytes, 12) {
        VERSION => Finding::Valid { counter },
        version => Finding::UnknownVersion { version },
    }
}

/// Begins like a record, whole or not.
pub(super) fn has_magic(bytes: &MetaBlock) -> bool {
    get(bytes, 0) == MAGIC
}

/// The life a record belongs to.
pub(super) fn incarnation_of(bytes: &MetaBlock) -> u128 {
    get_u128(bytes, 16)
}
