//! Extents of a meta context.

use super::chunk::{ChunkHeader, ExtendedChunkHeader, Framing};
use crate::codes::{ChunkKind, Cookie};

/// Most extents of one chunk: 2^20, as the protocol recommends.
pub const STATUS_EXTENTS_MAX: usize = 1 << 20;

/// Longest extent of 32 bits that keeps the next one aligned to 64 KiB.
const LENGTH_MAX: u64 = 0xffff_0000;

/// Status of a run in a meta context; what the bits mean is the context's matter. Compact headers
/// carry the lower 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct StatusFlags(pub u64);

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
    pub length: u64,
    /// Their status.
    pub flags: StatusFlags,
}

/// Writes a BLOCK_STATUS chunk, server to client, big-endian, run by run.
///
/// `0: chunk header with kind 5 and length 4 + 8n | 20: context id u32 |
/// 24: n × { length u32, flags u32 }`
/// Source: NBD protocol, `NBD_REPLY_TYPE_BLOCK_STATUS`.
///
/// In extended headers it is a BLOCK_STATUS_EXT chunk:
/// `0: extended chunk header with kind 6 and length 8 + 16n | 32: context id u32 | 36: n u32 |
/// 40: n × { length u64, flags u64 }`
/// Source: NBD protocol, `NBD_REPLY_TYPE_BLOCK_STATUS_EXT`.
///
/// Runs are pushed in order from the request's offset. Equal neighbours become one extent; the
/// chunk is complete once the request is covered, and stops early, as the protocol allows, when
/// buffer or limit are exhausted. Only the last extent may reach beyond the request; with REQ_ONE
/// there is one, and it does not.
#[derive(Debug)]
pub struct BlockStatusWriter<'a> {
    out: &'a mut [u8],
    framing: Framing,
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
    /// Shortest chunk in extended headers.
    pub const EXTENDED_LEN_MIN: usize = ExtendedChunkHeader::LEN + 8 + 16;

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
        let framing = Framing::Compact;
        Self::open(framing, cookie, context, requested, one, extents_max, out)
    }

    /// As [`BlockStatusWriter::new`], in extended headers, for a request at `offset`.
    ///
    /// # Panics
    /// If `out` is shorter than [`BlockStatusWriter::EXTENDED_LEN_MIN`], or `requested` or
    /// `extents_max` is 0.
    pub fn new_extended(
        cookie: Cookie,
        offset: u64,
        context: u32,
        requested: u64,
        one: bool,
        extents_max: usize,
        out: &'a mut [u8],
    ) -> Self {
        let framing = Framing::Extended(offset);
        Self::open(framing, cookie, context, requested, one, extents_max, out)
    }

    fn open(
        framing: Framing,
        cookie: Cookie,
        context: u32,
        requested: u64,
        one: bool,
        extents_max: usize,
        out: &'a mut [u8],
    ) -> Self {
        let (begin, step) = layout(framing);
        assert!(
            out.len() >= begin + step,
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
        let room = ((out.len() - begin) / step).min(limit);
        BlockStatusWriter {
            out,
            framing,
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
        self.write(length.min(self.length_max()));
        let (begin, step) = layout(self.framing);
        let end = begin + step * self.written;
        let kind = match self.framing {
            Framing::Compact => ChunkKind::BLOCK_STATUS,
            Framing::Extended(_) => ChunkKind::BLOCK_STATUS_EXT,
        };
        let payload = (end - self.framing.header()) as u32;
        let at = self
            .framing
            .write(self.cookie, kind, done, payload, self.out);
        self.out[at..at + 4].copy_from_slice(&self.context.to_be_bytes());
        if let Framing::Extended(_) = self.framing {
            self.out[at + 4..at + 8].copy_from_slice(&(self.written as u32).to_be_bytes());
        }
        Some(end)
    }

    /// Bytes covered so far.
    pub fn total(&self) -> u64 {
        self.covered
            .saturating_add(self.last.map_or(0, |(length, _)| length))
    }

    fn wants_more(&self) -> bool {
        let cut = self
            .last
            .is_some_and(|(length, _)| length > self.length_max());
        !self.full && !cut && self.total() < self.requested
    }

    fn write(&mut self, length: u64) {
        let (_, flags) = self.last.expect("an extent is being written");
        let (begin, step) = layout(self.framing);
        let out = &mut self.out[begin + step * self.written..][..step];
        match self.framing {
            Framing::Compact => {
                out[..4].copy_from_slice(&(length as u32).to_be_bytes());
                out[4..].copy_from_slice(&(flags.0 as u32).to_be_bytes());
            }
            Framing::Extended(_) => {
                out[..8].copy_from_slice(&length.to_be_bytes());
                out[8..].copy_from_slice(&flags.0.to_be_bytes());
            }
        }
        self.written += 1;
        self.covered += length;
    }

    fn length_max(&self) -> u64 {
        match self.framing {
            Framing::Compact => LENGTH_MAX,
            Framing::Extended(_) => u64::MAX,
        }
    }
}

/// Where extents begin, and the length of one.
fn layout(framing: Framing) -> (usize, usize) {
    match framing {
        Framing::Compact => (ChunkHeader::LEN + 4, 8),
        Framing::Extended(_) => (ExtendedChunkHeader::LEN + 8, 16),
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
                (word(0), F(word(4).into()))
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

    #[test]
    fn extended_block_status_chunk_is_these_bytes() {
        let mut out = [0; 72];
        let mut writer =
            BlockStatusWriter::new_extended(Cookie(9), 512, 1, 1 << 40, false, 8, &mut out);
        assert!(writer.push(4096, F::DATA));
        assert!(!writer.push(1 << 40, F::HOLE_ZERO));
        assert_eq!(writer.finish(true), Some(72));
        assert_eq!(
            out,
            *b"\x6e\x8a\x27\x8c\x00\x01\x00\x06\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\x02\0\
               \0\0\0\0\0\0\0\x28\0\0\0\x01\0\0\0\x02\
               \0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\0\
               \0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\x03"
        );
    }

    #[test]
    fn one_extended_extent_stays_inside_the_request() {
        let mut out = [0; 56];
        let mut writer =
            BlockStatusWriter::new_extended(Cookie(9), 0, 1, 1 << 35, true, 8, &mut out);
        assert!(!writer.push(1 << 41, F::ZERO));
        assert_eq!(writer.finish(false), Some(56));
        assert_eq!(out[40..48], (1u64 << 35).to_be_bytes());
    }
}
