//! Which parts of a file or device are known to read as zeros, without asking it again.
//!
//! ```text
//!  Unknown ── a scan finds a hole ──► Zeros ◄── zeroed whole, done ── any
//!     │  └─── a scan finds data ───► Data  ◄── a write begins ─────── any
//!     └ first_hole meets it: a scan is wanted
//! ```
//!
//! One state per chunk of [`CHUNK`] bytes. A chunk counts as zeros only while nothing but this
//! volume changes its store, which the lock on it assures. What is here: memory of two bits per
//! chunk, touched as it is used. Not here: looking at the file, and writes in flight: who asks
//! leaves out the ranges that are being written.

use engine_core::units::{ByteRange, Extent};

use crate::front_end::BlockExtent;

/// Bytes of one chunk: what file systems allocate for a file that is written in any order, and
/// the shortest read for which holes are told.
const CHUNK: u64 = 64 << 10;
/// Chunks that one scan looks at: 256 MiB.
const SCAN_CHUNKS: u64 = 4096;

const UNKNOWN: u8 = 0;
const ZEROS: u8 = 1;
const DATA: u8 = 2;
const PER_BYTE: u64 = 4;

/// The states of all chunks of a store.
#[derive(Debug)]
pub(crate) struct HoleMap {
    states: Box<[u8]>,
    size: u64,
    /// The store can be asked where its holes are.
    scans: bool,
    wanted: Option<u64>,
    is_scanning: bool,
}

impl HoleMap {
    /// Nothing is known of a store of `size` bytes; `scans` if it can tell its holes.
    pub(crate) fn new(size: u64, scans: bool) -> HoleMap {
        let bytes = size.div_ceil(CHUNK).div_ceil(PER_BYTE) as usize;
        HoleMap {
            // Zeroed by the kernel: pages that are never touched take no memory.
            states: vec![UNKNOWN; bytes].into_boxed_slice(),
            size,
            scans,
            wanted: None,
            is_scanning: false,
        }
    }

    /// The store has `size` bytes from now on. Nothing is known of what is new.
    pub(crate) fn grow(&mut self, size: u64) {
        // Its last chunk now ends in what is new.
        if !self.size.is_multiple_of(CHUNK) && size > self.size {
            let last = self.size / CHUNK;
            let is_data = self.get(last) == DATA;
            self.set(last, if is_data { DATA } else { UNKNOWN });
        }
        let bytes = size.div_ceil(CHUNK).div_ceil(PER_BYTE) as usize;
        let mut states = std::mem::take(&mut self.states).into_vec();
        states.resize(bytes.max(states.len()), UNKNOWN);
        self.states = states.into_boxed_slice();
        self.size = self.size.max(size);
    }

    /// What lies beyond the size it was made for is data.
    fn get(&self, chunk: u64) -> u8 {
        let states = self.states.get((chunk / PER_BYTE) as usize);
        states.map_or(DATA, |byte| byte >> (chunk % PER_BYTE * 2) & 3)
    }

    fn set(&mut self, chunk: u64, state: u8) {
        if let Some(byte) = self.states.get_mut((chunk / PER_BYTE) as usize) {
            let shift = chunk % PER_BYTE * 2;
            *byte = *byte & !(3 << shift) | state << shift;
        }
    }

    /// A write of these bytes begins.
    pub(crate) fn writes(&mut self, extent: Extent) {
        let last = (extent.offset() + extent.bytes() - 1) / CHUNK;
        for chunk in extent.offset() / CHUNK..=last {
            self.set(chunk, DATA);
        }
    }

    /// All of these bytes were made zeros, and no write of them has begun since.
    pub(crate) fn zeroed(&mut self, extent: Extent) {
        let end = extent.offset() + extent.bytes();
        let end = if end >= self.size {
            self.size.div_ceil(CHUNK)
        } else {
            end / CHUNK
        };
        for chunk in extent.offset().div_ceil(CHUNK)..end {
            self.set(chunk, ZEROS);
        }
    }

    /// The first run of at least `min` bytes of the range that is known to be zeros. Of what is
    /// not known a scan is wanted.
    pub(crate) fn first_hole(&mut self, range: ByteRange, min: u64) -> Option<ByteRange> {
        let end = range.offset.saturating_add(range.len).min(self.size);
        let mut start = None;
        for chunk in range.offset / CHUNK..end.div_ceil(CHUNK) {
            let state = self.get(chunk);
            if state == UNKNOWN && self.scans {
                self.wanted.get_or_insert(chunk);
            }
            let from = (chunk * CHUNK).max(range.offset);
            match (state, start) {
                (ZEROS, None) => start = Some(from),
                (ZEROS, Some(_)) => {}
                (_, Some(begin)) if from - begin >= min => {
                    return Some(ByteRange {
                        offset: begin,
                        len: from - begin,
                    });
                }
                (_, _) => start = None,
            }
        }
        let begin = start.filter(|begin| end - begin >= min)?;
        Some(ByteRange {
            offset: begin,
            len: end - begin,
        })
    }

    /// The range to be scanned now, if any; [`HoleMap::scanned`] follows.
    pub(crate) fn begin_scan(&mut self) -> Option<ByteRange> {
        if self.is_scanning {
            return None;
        }
        let first = self.wanted.take()?;
        self.is_scanning = true;
        let offset = first * CHUNK;
        let len = (SCAN_CHUNKS * CHUNK).min(self.size - offset);
        Some(ByteRange { offset, len })
    }

    /// A scan of `range` found these runs from its start on, or failed. What is known by now stays:
    /// it may be newer.
    pub(crate) fn scanned(&mut self, range: ByteRange, runs: std::io::Result<Vec<BlockExtent>>) {
        self.is_scanning = false;
        let Ok(runs) = runs else {
            // It cannot be asked.
            self.scans = false;
            return;
        };
        let mut at = range.offset;
        for run in runs {
            let end = at + run.len;
            let is_zero = run.flags & BlockExtent::ZERO != 0;
            // Of a hole the chunks that lie inside it, of data all that it touches.
            let chunks = match is_zero {
                true if end >= self.size => at.div_ceil(CHUNK)..end.div_ceil(CHUNK),
                true => at.div_ceil(CHUNK)..end / CHUNK,
                false => at / CHUNK..end.div_ceil(CHUNK),
            };
            for chunk in chunks {
                if self.get(chunk) == UNKNOWN {
                    self.set(chunk, if is_zero { ZEROS } else { DATA });
                }
            }
            at = end;
        }
        // Two short holes that share a chunk with nothing between them: not worth another look.
        for chunk in range.offset.div_ceil(CHUNK)..at / CHUNK {
            if self.get(chunk) == UNKNOWN {
                self.set(chunk, DATA);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_core::units::GRANULE;

    const MIB: u64 = 1 << 20;
    const HOLE: u32 = BlockExtent::HOLE | BlockExtent::ZERO;

    fn range(offset: u64, len: u64) -> ByteRange {
        ByteRange { offset, len }
    }

    fn extent(offset: u64, len: u64) -> Extent {
        Extent::new(offset / GRANULE, (offset + len) / GRANULE)
    }

    fn run(len: u64, flags: u32) -> BlockExtent {
        BlockExtent { len, flags }
    }

    fn scanned(runs: Vec<BlockExtent>) -> HoleMap {
        let mut map = HoleMap::new(10 * MIB, true);
        assert_eq!(map.first_hole(range(0, MIB), 1), None);
        let all = map.begin_scan().unwrap();
        assert_eq!(all, range(0, 10 * MIB));
        map.scanned(all, Ok(runs));
        map
    }

    #[test]
    fn nothing_is_known_before_a_scan_and_one_runs_at_a_time() {
        let mut map = HoleMap::new(10 * MIB, true);
        assert_eq!(map.begin_scan(), None);
        assert_eq!(map.first_hole(range(3 * MIB, MIB), 1), None);
        assert_eq!(map.begin_scan(), Some(range(3 * MIB, 7 * MIB)));
        assert_eq!(map.first_hole(range(0, MIB), 1), None);
        assert_eq!(map.begin_scan(), None);
        map.scanned(range(3 * MIB, 7 * MIB), Ok(vec![run(7 * MIB, HOLE)]));
        assert_eq!(map.begin_scan(), Some(range(0, 10 * MIB)));
    }

    #[test]
    fn holes_are_found_whole_and_cut_to_the_range() {
        let mut map = scanned(vec![run(MIB, 0), run(4 * MIB, HOLE), run(5 * MIB, 0)]);
        assert_eq!(
            map.first_hole(range(0, 10 * MIB), 4096),
            Some(range(MIB, 4 * MIB))
        );
        assert_eq!(
            map.first_hole(range(2 * MIB + 512, MIB), 512),
            Some(range(2 * MIB + 512, MIB))
        );
        assert_eq!(map.first_hole(range(0, 10 * MIB), 5 * MIB), None);
        assert_eq!(map.first_hole(range(5 * MIB, MIB), 1), None);
        assert_eq!(map.begin_scan(), None, "all is known");
    }

    #[test]
    fn nothing_is_known_of_what_a_store_grows_by() {
        let mut map = scanned(vec![run(10 * MIB, HOLE)]);
        map.grow(10 * MIB + 4096);
        let all = range(9 * MIB, 2 * MIB);
        assert_eq!(map.first_hole(all, 1), Some(range(9 * MIB, MIB)));
        assert!(map.begin_scan().is_some(), "of the new end");
        let mut odd = HoleMap::new(CHUNK + 4096, true);
        odd.zeroed(extent(0, CHUNK + 4096));
        odd.grow(2 * CHUNK);
        assert_eq!(
            odd.first_hole(range(0, 2 * CHUNK), 1),
            Some(range(0, CHUNK))
        );
    }

    #[test]
    fn a_write_ends_a_hole_and_zeroing_makes_one() {
        let mut map = scanned(vec![run(10 * MIB, HOLE)]);
        map.writes(extent(4 * MIB + 8192, 4096));
        let before = Some(range(3 * MIB, MIB));
        assert_eq!(map.first_hole(range(3 * MIB, 2 * MIB), MIB), before);
        assert_eq!(map.first_hole(range(4 * MIB, 4096), 1), None);
        map.zeroed(extent(4 * MIB + 4096, 8192));
        assert_eq!(
            map.first_hole(range(4 * MIB, 4096), 1),
            None,
            "a part of a chunk"
        );
        map.zeroed(extent(4 * MIB, 64 << 10));
        assert_eq!(
            map.first_hole(range(0, 10 * MIB), MIB),
            Some(range(0, 10 * MIB))
        );
    }

    #[test]
    fn a_scan_does_not_undo_what_was_written_beside_it() {
        let mut map = HoleMap::new(10 * MIB, true);
        map.first_hole(range(0, MIB), 1);
        let all = map.begin_scan().unwrap();
        map.writes(extent(MIB, 4096));
        map.zeroed(extent(2 * MIB, MIB));
        map.scanned(all, Ok(vec![run(MIB + 512, HOLE), run(9 * MIB - 512, 0)]));
        assert_eq!(map.first_hole(range(0, 10 * MIB), 1), Some(range(0, MIB)));
        assert_eq!(
            map.first_hole(range(MIB, 9 * MIB), 1),
            Some(range(2 * MIB, MIB))
        );
    }

    #[test]
    fn a_store_that_cannot_be_asked_is_not_asked_again() {
        let mut map = HoleMap::new(MIB, true);
        map.first_hole(range(0, MIB), 1);
        let all = map.begin_scan().unwrap();
        map.scanned(all, Err(std::io::ErrorKind::Unsupported.into()));
        map.first_hole(range(0, MIB), 1);
        assert_eq!(map.begin_scan(), None);
        map.zeroed(extent(0, MIB));
        assert_eq!(map.first_hole(range(0, MIB), 1), Some(range(0, MIB)));
    }

    #[test]
    fn the_end_of_a_volume_may_cut_a_chunk() {
        let mut map = HoleMap::new(MIB + 4096, true);
        map.zeroed(extent(0, MIB + 4096));
        let all = range(0, MIB + 4096);
        assert_eq!(map.first_hole(all, 1), Some(all));
        map.writes(extent(8 * MIB, 4096));
        assert_eq!(
            map.first_hole(range(8 * MIB, MIB), 1),
            None,
            "it grew since"
        );
    }
}
