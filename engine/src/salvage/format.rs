//! Bytes of a salvage: a head, records, an end.
//!
//! ```text
//! head, 4096 bytes                         record, 32 bytes, then its data
//!   0 magic          8  "POLLUXSV"           0 kind      u32  1 data, 2 zeros, 3 end
//!   8 version      u32  1                    4 crc       u32  CRC-32C of these 32 bytes, this as zero
//!  12 crc          u32  CRC-32C, as zero     8 offset    u64  bytes; end: number of records
//!  16 volume id   u128                      16 length    u64  bytes; end: sum of their lengths
//!  32 size         u64  bytes               24 checksum  u64  data: CRC-64/NVME of it, else 0
//!  40 created      u64  ms since 1970
//!  48 branch      u128  given up
//!  64 term         u64  newest given up
//!  72 lengths of volume, node, kept 3×u8, 0
//!  76 zero           4
//!  80 the three names, zeros
//! ```
//! Little-endian. Records lie in order of their offsets and do not overlap.

use crc_fast::{CrcAlgorithm, checksum};

/// Bytes of the head.
pub(super) const HEAD: usize = 4096;
/// Bytes of a record's head.
pub(super) const RECORD: usize = 32;
/// Most bytes of one record's data.
pub(super) const PIECE_MAX: u64 = 1 << 20;
const MAGIC: &[u8; 8] = b"POLLUXSV";
const VERSION: u32 = 1;
const NAMES_AT: usize = 80;

/// Whose copy it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Name of the volume.
    pub volume: String,
    /// Node whose copy was given up.
    pub node: String,
    /// Node whose copy was kept.
    pub kept: String,
    /// Identity of the volume.
    pub volume_id: u128,
    /// Its size.
    pub size_bytes: u64,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Branch that was given up.
    pub branch: u128,
    /// Its newest term.
    pub term: u64,
}

/// Head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: u32,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) checksum: u64,
}

pub(super) const DATA: u32 = 1;
pub(super) const ZEROS: u32 = 2;
pub(super) const END: u32 = 3;

fn crc(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[at + index])
}

impl Head {
    /// `None` if the names do not fit.
    pub(super) fn encode(&self) -> Option<[u8; HEAD]> {
        let names = [&self.volume, &self.node, &self.kept];
        let mut bytes = [0; HEAD];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.volume_id.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.size_bytes.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.created_ms.to_le_bytes());
        bytes[48..64].copy_from_slice(&self.branch.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.term.to_le_bytes());
        let mut at = NAMES_AT;
        for (index, name) in names.into_iter().enumerate() {
            bytes[72 + index] = u8::try_from(name.len()).ok()?;
            bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
            at += name.len();
        }
        let sum = crc(&bytes);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        Some(bytes)
    }

    /// `None`: no head of a version that is known, or a damaged one.
    pub(super) fn decode(mut bytes: [u8; HEAD]) -> Option<Head> {
        let sum = u32::from_le_bytes(array(&bytes, 12));
        bytes[12..16].fill(0);
        let is_ours = &bytes[..8] == MAGIC && u32::from_le_bytes(array(&bytes, 8)) == VERSION;
        if !is_ours || crc(&bytes) != sum {
            return None;
        }
        let mut at = NAMES_AT;
        let mut name = |index: usize| {
            let length = usize::from(bytes[72 + index]);
            let text = str::from_utf8(&bytes[at..at + length]).ok()?.to_owned();
            at += length;
            Some(text)
        };
        Some(Head {
            volume: name(0)?,
            node: name(1)?,
            kept: name(2)?,
            volume_id: u128::from_le_bytes(array(&bytes, 16)),
            size_bytes: u64::from_le_bytes(array(&bytes, 32)),
            created_ms: u64::from_le_bytes(array(&bytes, 40)),
            branch: u128::from_le_bytes(array(&bytes, 48)),
            term: u64::from_le_bytes(array(&bytes, 64)),
        })
    }
}

impl Record {
    pub(super) fn encode(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..4].copy_from_slice(&self.kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.length.to_le_bytes());
        bytes[24..].copy_from_slice(&self.checksum.to_le_bytes());
        let sum = crc(&bytes);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None`: damaged.
    pub(super) fn decode(mut bytes: [u8; RECORD]) -> Option<Record> {
        let sum = u32::from_le_bytes(array(&bytes, 4));
        bytes[4..8].fill(0);
        (crc(&bytes) == sum).then(|| Record {
            kind: u32::from_le_bytes(array(&bytes, 0)),
            offset: u64::from_le_bytes(array(&bytes, 8)),
            length: u64::from_le_bytes(array(&bytes, 16)),
            checksum: u64::from_le_bytes(array(&bytes, 24)),
        })
    }
}
