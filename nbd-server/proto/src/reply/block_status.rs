//! Extents of a meta context.

use super::chunk::{ChunkHeader, done_if};
use crate::codes::{ChunkKind, Cookie};

/// Most extents of one chunk: 2^20, as the protocol recommends.
pub const STATUS_EXTENTS_MAX: usize = 1 << 20;

/// Longest extent of 32 bits that keeps the next one aligned to 64 KiB.
const LENGTH_MAX: u64 = 0xffff_0000;

/// Status of a run in a meta context; what the bits mean is the context's matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct StatusFlags(pub u32);

impl StatusFlags {
    /// Data, or not known to be anything else.
    pub const DATA: StatusFlags = StatusFlags(0);
    /// `base:allocation`: not allocated; a write may meet ENOSPC.
    pub const HOLE: StatusFlags = StatusFlags(1);
    /// `base:allocation`: reads as zeroes.
    pub const ZERO: StatusFlags = StatusFlags(2);
    /// `base:allocation`: not allocated, and reads as zeroes.
    pub const HOLE_ZERO: StatusFlags = StatusFlags(3);
}

/// One run of equal status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusExtent {
    /// Bytes, not 0.
    pub length: u32,
    /// Their status.
    pub flags: StatusFlags,
}

/// Writes a BLOCK_STATUS chunk, server to client, big-endian, run by run.
///
/// `0: chunk header with kind 5 and length 4 + 8n | 20: context id u32 |
/// 24: n × { length u32, flags u32 }`
/// Source: NBD protocol, `NBD_REPLY_TYPE_BLOCK_STATUS`.
///
/// Runs are pushed in order from the request's offset. Equal neighbours become one extent; the
/// chunk is complete once the request is covered, and stops early, as the protocol allows, when
/// buffer or limit are exhausted. Only the last extent may reach beyond the request; with REQ_ONE
/// there is one, and it does not.
#[derive(Debug)]
pub struct BlockStatusWriter<'a> {
    out: &'a mut [u8],
    cookie: Cookie,
    context: u32,
    requested: u64,
    one: bool,
    /// Most extents that fit.
    room: usize,
    /// Extents written to `out`, without `last`.
    written: usize,
    /// Bytes they cover.
    covered: u64,
    /// The extent that may still grow.
    last: Option<(u64, StatusFlags)>,
    /// An extent was turned away.
    full: bool,
}

impl<'a> BlockStatusWriter<'a> {
    /// Shortest chunk: one extent.
    pub const LEN_MIN: usize = ChunkHeader::LEN + 4 + 8;

    /// A chunk for a request of `requested` bytes, of at most `extents_max` extents.
    ///
    /// # Panics
    /// If `out` is shorter than [`BlockStatusWriter::LEN_MIN`], or `requested` or `extents_max` is
    /// 0.
    pub fn new(
        cookie: Cookie,
        context: u32,
        requested: u64,
        one: bool,
        extents_max: usize,
        out: &'a mut [u8],
    ) -> Self {
        assert!(
            out.len() >= Self::LEN_MIN,
            "a status chunk does not fit {} bytes",
            out.len()
        );
        assert!(
            requested > 0 && extents_max > 0,
            "a status chunk holds an extent"
        );
        let limit = if one {
            1
        } else {
            extents_max.min(STATUS_EXTENTS_MAX)
        };
        let room = ((out.len() - ChunkHeader::LEN - 4) / 8).min(limit);
        BlockStatusWriter {
            out,
            cookie,
            context,
            requested,
            one,
            room,
            written: 0,
            covered: 0,
            last: None,
            full: false,
        }
    }

    /// Adds the next `length` bytes of status `flags`, and says whether more would be taken. An
    /// empty run is ignored.
    pub fn push(&mut self, length: u64, flags: StatusFlags) -> bool {
        if length == 0 {
            return self.wants_more();
        }
        if !self.wants_more() {
            return false;
        }
        match self.last {
            Some((before, same)) if same == flags => {
                self.last = Some((before.saturating_add(length), flags));
            }
            Some((before, _)) if self.written + 1 < self.room => {
                self.write(before);
                self.last = Some((length, flags));
            }
            // No room for another extent: what is there is the answer.
            Some(_) => self.full = true,
            None => self.last = Some((length, flags)),
        }
        self.wants_more()
    }

    /// Completes the chunk and gives its length; `None` if nothing was pushed.
    pub fn finish(mut self, done: bool) -> Option<usize> {
        let (length, _) = self.last?;
        // Only an extent that is the last can be too long, and may be cut anywhere.
        let length = if self.one {
            length.min(self.requested)
        } else {
            length
        };
        self.write(length.min(LENGTH_MAX));
        let header = ChunkHeader {
            flags: done_if(done),
            kind: ChunkKind::BLOCK_STATUS,
            cookie: self.cookie,
            length: (4 + 8 * self.written) as u32,
        };
        self.out[..20].copy_from_slice(&header.encode());
        self.out[20..24].copy_from_slice(&self.context.to_be_bytes());
        Some(24 + 8 * self.written)
    }

    /// Bytes covered so far.
    pub fn total(&self) -> u64 {
        self.covered
            .saturating_add(self.last.map_or(0, |(length, _)| length))
    }

    fn wants_more(&self) -> bool {
        let cut = self.last.is_some_and(|(length, _)| length > LENGTH_MAX);
        !self.full && !cut && self.total() < self.requested
    }

    fn write(&mut self, length: u64) {
        let (_, flags) = self.last.expect("an extent is being written");
        let at = 24 + 8 * self.written;
        self.out[at..at + 4].copy_from_slice(&(length as u32).to_be_bytes());
        self.out[at + 4..at + 8].copy_from_slice(&flags.0.to_be_bytes());
        self.written += 1;
        self.covered += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StatusFlags as F;

    /// The extents of a chunk for `runs`.
    fn extents(requested: u64, one: bool, max: usize, runs: &[(u64, F)]) -> Vec<(u32, F)> {
        let mut out = vec![0; 4096];
        let mut writer = BlockStatusWriter::new(Cookie(9), 1, requested, one, max, &mut out);
        for (length, flags) in runs {
            if !writer.push(*length, *flags) {
                break;
            }
        }
        let length = writer.finish(true).unwrap();
        out[24..length]
            .chunks(8)
            .map(|raw| {
                let word = |at| u32::from_be_bytes(raw[at..at + 4].try_into().unwrap());
                (word(0), F(word(4)))
            })
            .collect()
    }

    #[test]
    fn block_status_chunk_is_these_bytes() {
        let mut out = [0; 64];
        let mut writer = BlockStatusWriter::new(Cookie(9), 1, 8192, false, 8, &mut out);
        assert!(writer.push(4096, F::DATA));
        assert!(!writer.push(8192, F::HOLE_ZERO));
        assert_eq!(writer.finish(true), Some(40));
        assert_eq!(
            out[..40],
            *b"\x66\x8e\x33\xef\x00\x01\x00\x05\0\0\0\0\0\0\0\x09\0\0\0\x14\0\0\0\x01\
               \0\0\x10\0\0\0\0\0\0\0\x20\0\0\0\0\x03"
        );
    }

    #[test]
    fn equal_neighbours_become_one_extent() {
        let runs = [
            (512, F::DATA),
            (512, F::DATA),
            (0, F::HOLE),
            (512, F::DATA),
            (512, F::ZERO),
        ];
        assert_eq!(
            extents(2048, false, 9, &runs),
            [(1536, F::DATA), (512, F::ZERO)]
        );
    }

    #[test]
    fn only_the_last_extent_reaches_beyond_the_request() {
        let runs = [(512, F::DATA), (1 << 20, F::ZERO), (512, F::DATA)];
        assert_eq!(
            extents(4096, false, 9, &runs),
            [(512, F::DATA), (1 << 20, F::ZERO)]
        );
    }

    #[test]
    fn one_extent_stays_inside_the_request() {
        assert_eq!(
            extents(4096, true, 9, &[(1 << 20, F::ZERO)]),
            [(4096, F::ZERO)]
        );
        let runs = [(512, F::DATA), (512, F::DATA), (1 << 20, F::ZERO)];
        assert_eq!(extents(4096, true, 9, &runs), [(1024, F::DATA)]);
    }

    #[test]
    fn the_number_of_extents_is_capped_by_limit_and_by_room() {
        let runs: Vec<_> = (0..1000).map(|i| (512, F(i % 2))).collect();
        assert_eq!(extents(1 << 20, false, 3, &runs).len(), 3);
        assert_eq!(extents(1 << 20, false, 9999, &runs).len(), (4096 - 24) / 8);
    }

    #[test]
    fn an_extent_beyond_32_bits_is_cut_to_an_aligned_length() {
        assert_eq!(
            extents(1 << 31, false, 9, &[(1 << 40, F::ZERO)]),
            [(0xffff_0000, F::ZERO)]
        );
        let runs = [(u64::MAX, F::ZERO), (u64::MAX, F::ZERO)];
        assert_eq!(extents(u64::MAX, false, 9, &runs), [(0xffff_0000, F::ZERO)]);
        let runs = [(1 << 31, F::ZERO), (1 << 31, F::ZERO), (512, F::DATA)];
        assert_eq!(extents(u64::MAX, false, 9, &runs), [(0xffff_0000, F::ZERO)]);
    }

    #[test]
    fn nothing_pushed_is_no_chunk() {
        let mut out = [0; 64];
        let mut writer = BlockStatusWriter::new(Cookie(9), 1, 8192, false, 8, &mut out);
        assert!(writer.push(0, F::DATA));
        assert_eq!(writer.finish(true), None);
    }
}
