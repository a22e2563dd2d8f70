//! A memory volume: copied inline by the driver, never through the ring.

use std::io;

use engine_core::units::{ByteRange, Extent, GRANULE};
use engine_ring::Region;

use crate::front_end::BlockExtent;

/// Bytes of a read that are fetched ahead: the processor itself finds the rest of a long one.
const PREFETCH_MAX: u64 = 4096;

/// Memory and which granules of it were written.
#[derive(Debug)]
pub(crate) struct Memory {
    region: Region,
    /// One bit per granule: written since it was last zeroed.
    allocated: Box<[u64]>,
}

impl Memory {
    /// `len` bytes of zeros, with room for `room` where the system has it. Errors: no address
    /// space or memory.
    pub(crate) fn new(len: u64, room: u64) -> io::Result<Memory> {
        let words = len.div_ceil(GRANULE).div_ceil(64) as usize;
        Ok(Memory {
            region: Region::with_room(len, room)?,
            allocated: vec![0; words].into_boxed_slice(),
        })
    }

    /// As [`Memory::new`], and all of it is there from the start: no write waits for a page. Takes
    /// about a quarter of a second for each GiB. Errors: also when that much memory is not free.
    pub(crate) fn full(len: u64, room: u64) -> io::Result<Memory> {
        if let Some(available) = available_bytes().filter(|available| *available < len) {
            let text = format!("{len} bytes are wanted and {available} available");
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
        }
        let memory = Memory::new(len, room)?;
        memory.region.populate()?;
        Ok(memory)
    }

    /// Has `len` bytes from now on; false where there is no room for them. What is new gets its
    /// pages as it is written, also where the rest had them from the start.
    #[must_use]
    pub(crate) fn grow(&mut self, len: u64) -> bool {
        if !self.region.grow(len) {
            return false;
        }
        let words = len.div_ceil(GRANULE).div_ceil(64) as usize;
        let mut allocated = std::mem::take(&mut self.allocated).into_vec();
        allocated.resize(words, 0);
        self.allocated = allocated.into_boxed_slice();
        true
    }

    /// Fills `into`, which covers the bytes from `offset` on.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) {
        self.region.read(offset, into);
    }

    /// Begins to fetch what a read that follows soon will copy; of long reads the beginning. A range
    /// that is not there is nothing to fetch.
    ///
    /// It is asked for when a request is submitted, and again just before its turn to be copied.
    /// Neither is enough: of 64 random reads at once half end within 101 µs; within 105 with only
    /// the second, 110 with only the first, 116 without (perf nbd, 4 KiB of 3 GiB).
    pub(crate) fn prefetch(&self, range: ByteRange) {
        let len = range.len.min(PREFETCH_MAX);
        let end = range.offset.checked_add(len);
        if end.is_some_and(|end| end <= self.region.len()) {
            self.region.prefetch(range.offset, len as usize);
        }
    }

    /// The bytes themselves.
    pub(crate) fn slice(&self, offset: u64, len: usize) -> &[u8] {
        self.region.slice(offset, len)
    }

    /// Stores whole granules.
    pub(crate) fn write(&mut self, extent: Extent, from: &[u8]) {
        self.region.write(extent.offset(), from);
        self.mark(extent, true);
    }

    /// Makes zeros; `allocate` keeps the granules counted as allocated.
    pub(crate) fn zero(&mut self, extent: Extent, allocate: bool) {
        self.region.zero(extent.offset(), extent.bytes());
        self.mark(extent, allocate);
    }

    fn mark(&mut self, extent: Extent, value: bool) {
        for word in extent.start / 64..extent.end.div_ceil(64) {
            let low = extent.start.saturating_sub(word * 64).min(63);
            let high = (extent.end - word * 64).min(64);
            let bits = (u64::MAX >> (64 - (high - low))) << low;
            let held = &mut self.allocated[word as usize];
            *held = if value { *held | bits } else { *held & !bits };
        }
    }

    /// The next granule at or after `from` whose bit is not `value`.
    fn end_of_run(&self, from: u64, value: bool) -> u64 {
        let mut at = from;
        while let Some(word) = self.allocated.get((at / 64) as usize) {
            let differs = (if value { !word } else { *word }) >> (at % 64);
            if differs != 0 {
                return at + u64::from(differs.trailing_zeros());
            }
            at = (at / 64 + 1) * 64;
        }
        at
    }

    /// The first run of at least `min` bytes in the range that was not written.
    pub(crate) fn first_hole(&self, range: ByteRange, min: u64) -> Option<ByteRange> {
        let end = range
            .offset
            .saturating_add(range.len)
            .min(self.region.len());
        let mut granule = range.offset / GRANULE;
        while granule * GRANULE + min <= end {
            let start = self.end_of_run(granule, true);
            let stop = self.end_of_run(start, false);
            let from = (start * GRANULE).max(range.offset);
            let to = (stop * GRANULE).min(end);
            if from + min <= to {
                return Some(ByteRange {
                    offset: from,
                    len: to - from,
                });
            }
            granule = stop;
        }
        None
    }

    /// Runs from the start of `range` on, at most `max`.
    pub(crate) fn extents(&self, range: ByteRange, max: usize) -> Vec<BlockExtent> {
        let end = range
            .offset
            .saturating_add(range.len)
            .min(self.region.len());
        let (mut at, mut runs) = (range.offset, Vec::new());
        while at < end && runs.len() < max {
            let granule = at / GRANULE;
            let value = self.allocated[(granule / 64) as usize] >> (granule % 64) & 1 == 1;
            let stop = (self.end_of_run(granule, value) * GRANULE).min(end);
            runs.push(BlockExtent {
                len: stop - at,
                flags: if value {
                    0
                } else {
                    BlockExtent::HOLE | BlockExtent::ZERO
                },
            });
            at = stop;
        }
        runs
    }
}

/// Bytes that can be had without swapping, as far as the system tells.
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(len: u64, is_data: bool) -> BlockExtent {
        BlockExtent {
            len,
            flags: if is_data {
                0
            } else {
                BlockExtent::HOLE | BlockExtent::ZERO
            },
        }
    }

    #[test]
    fn memory_in_full_is_refused_when_it_is_not_there() {
        let available = available_bytes().unwrap();
        let error = Memory::full(available + (64 << 30), 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        let memory = Memory::full(4 << 20, 64 << 20).unwrap();
        // Its blocks still count as unwritten.
        let all = ByteRange {
            offset: 0,
            len: 4 << 20,
        };
        assert_eq!(memory.extents(all, 9), [run(4 << 20, false)]);
    }

    #[test]
    fn only_written_granules_are_allocated() {
        let mut memory = Memory::new(200 * GRANULE, 0).unwrap();
        let all = ByteRange {
            offset: 0,
            len: 200 * GRANULE,
        };
        assert_eq!(memory.extents(all, 9), [run(200 * GRANULE, false)]);
        memory.write(Extent::new(60, 130), &vec![7; 70 * GRANULE as usize]);
        let expected = [
            run(60 * GRANULE, false),
            run(70 * GRANULE, true),
            run(70 * GRANULE, false),
        ];
        assert_eq!(memory.extents(all, 9), expected);
        assert_eq!(memory.extents(all, 2), expected[..2]);
        let odd = ByteRange {
            offset: 100 * GRANULE + 5,
            len: 10,
        };
        assert_eq!(memory.extents(odd, 9), [run(10, true)]);
    }

    #[test]
    fn the_first_long_run_that_was_not_written_is_found() {
        let mut memory = Memory::new(200 * GRANULE, 0).unwrap();
        let range = |offset, len| ByteRange { offset, len };
        memory.write(Extent::new(4, 5), &[7; GRANULE as usize]);
        memory.write(Extent::new(100, 101), &[7; GRANULE as usize]);
        let all = range(GRANULE / 2, 150 * GRANULE);
        let first = |min| memory.first_hole(all, min);
        assert_eq!(first(GRANULE), Some(range(GRANULE / 2, 7 * GRANULE / 2)));
        assert_eq!(first(4 * GRANULE), Some(range(5 * GRANULE, 95 * GRANULE)));
        assert_eq!(first(96 * GRANULE), None);
        let end = range(101 * GRANULE, 99 * GRANULE);
        assert_eq!(memory.first_hole(end, 64), Some(end));
        assert_eq!(memory.first_hole(range(4 * GRANULE, GRANULE), 1), None);
    }

    #[test]
    fn zeroing_releases_unless_told_to_allocate() {
        let mut memory = Memory::new(128 * GRANULE, 0).unwrap();
        let all = ByteRange {
            offset: 0,
            len: 128 * GRANULE,
        };
        memory.zero(Extent::new(0, 128), true);
        assert_eq!(memory.extents(all, 9), [run(128 * GRANULE, true)]);
        memory.zero(Extent::new(64, 65), false);
        assert_eq!(memory.extents(all, 9).len(), 3);
        assert!(
            memory
                .slice(64 * GRANULE, GRANULE as usize)
                .iter()
                .all(|b| *b == 0)
        );
    }

    #[test]
    fn memory_that_has_grown_is_unallocated_at_its_end() {
        let mut memory = Memory::new(100 * GRANULE, 300 * GRANULE).unwrap();
        memory.write(Extent::new(98, 100), &[7; 2 * GRANULE as usize]);
        assert!(memory.grow(300 * GRANULE));
        let end = ByteRange {
            offset: 98 * GRANULE,
            len: 202 * GRANULE,
        };
        let runs = [run(2 * GRANULE, true), run(200 * GRANULE, false)];
        assert_eq!(memory.extents(end, 9), runs);
        memory.write(Extent::new(299, 300), &[9; GRANULE as usize]);
        assert_eq!(memory.slice(300 * GRANULE - 1, 1), [9]);
    }

    #[test]
    fn what_was_written_is_read() {
        let mut memory = Memory::new(8 * GRANULE, 0).unwrap();
        memory.write(Extent::new(3, 4), &[9; GRANULE as usize]);
        let mut back = [0; 2];
        memory.read(3 * GRANULE - 1, &mut back);
        assert_eq!(back, [0, 9]);
    }
}
