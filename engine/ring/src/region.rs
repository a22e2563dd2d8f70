//! A memory volume: anonymous memory addressed by byte offset.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::mapping::{HUGE, Mapping, Pages};
use crate::streaming;

/// Zeroed memory of a fixed size, untouched pages cost nothing. Private to its owner, except that
/// a ring it was lent to may read from it.
pub struct Region {
    memory: Arc<Mapping>,
    len: u64,
}

impl Region {
    /// A region of `len` bytes, all zero. Errors: no address space or memory.
    pub fn new(len: u64) -> io::Result<Region> {
        let bytes = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Region {
            memory: Arc::new(Mapping::new(bytes, false)?),
            len,
        })
    }

    /// Gives all of it memory now, so that no later write waits for a page (about 0.5 ms for each
    /// 2 MiB). Takes as long as that takes. Errors: out of memory; kernels before 5.14 do nothing.
    pub fn populate(&self) -> io::Result<()> {
        self.memory.populate(self.len as usize)
    }

    /// As [`Region::new`], with room to grow to `room` bytes where the system has it.
    pub fn with_room(len: u64, room: u64) -> io::Result<Region> {
        let bytes = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let room = usize::try_from(room).unwrap_or(bytes);
        Ok(Region {
            memory: Arc::new(Mapping::with_room(bytes, room)?),
            len,
        })
    }

    /// Has `len` bytes from now on; what is new is zero. False, and nothing changed, where there
    /// is no room for it or it would shrink.
    #[must_use]
    pub fn grow(&mut self, len: u64) -> bool {
        let fits = (self.len..=self.memory.len() as u64).contains(&len);
        if fits {
            self.len = len;
        }
        fits
    }

    /// Bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Which pages back it.
    pub fn pages(&self) -> Pages {
        self.memory.pages()
    }

    /// The bytes at `offset`. Panics when the range passes the end.
    pub fn slice(&self, offset: u64, len: usize) -> &[u8] {
        let range = self.range(offset, len as u64);
        // SAFETY: `range` was checked against the length; the memory is initialised (zeroed by
        // mmap) and lives as long as `self`; writers need `&mut self`, the kernel only reads.
        unsafe { std::slice::from_raw_parts(self.memory.base().as_ptr().add(range.start), len) }
    }

    /// The bytes at `offset`, to be changed. Panics when the range passes the end.
    pub fn slice_mut(&mut self, offset: u64, len: usize) -> &mut [u8] {
        let range = self.range(offset, len as u64);
        // SAFETY: as in `slice`, and `&mut self` excludes every other reference. The kernel may
        // read these bytes for a lent send; it holds no Rust reference.
        unsafe { std::slice::from_raw_parts_mut(self.memory.base().as_ptr().add(range.start), len) }
    }

    /// Copies bytes out. Panics when the range passes the end.
    pub fn read(&self, offset: u64, dst: &mut [u8]) {
        dst.copy_from_slice(self.slice(offset, dst.len()));
    }

    /// Begins to fetch bytes into the cache, for a read that follows soon. Panics when the range
    /// passes the end.
    pub fn prefetch(&self, offset: u64, len: usize) {
        streaming::prefetch(self.slice(offset, len));
    }

    /// Copies bytes in, whole blocks past the cache. Panics when the range passes the end.
    pub fn write(&mut self, offset: u64, src: &[u8]) {
        streaming::copy(self.slice_mut(offset, src.len()), src);
    }

    /// Makes a range read as zeroes. Whole huge pages (2 MiB, aligned) inside it are given back to
    /// the system, the rest is overwritten. Panics when the range passes the end.
    pub fn zero(&mut self, offset: u64, len: u64) {
        let Range { start, end } = self.range(offset, len);
        let (first, last) = (start.next_multiple_of(HUGE), end / HUGE * HUGE);
        // SAFETY: first..last are whole huge pages inside the mapping; `&mut self` excludes
        // references to them.
        if first < last && unsafe { self.memory.discard(first, last - first) } {
            self.slice_mut(start as u64, first - start).fill(0);
            self.slice_mut(last as u64, end - last).fill(0);
        } else {
            self.slice_mut(start as u64, end - start).fill(0);
        }
    }

    pub(crate) fn memory(&self) -> &Arc<Mapping> {
        &self.memory
    }

    fn range(&self, offset: u64, len: u64) -> Range<usize> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        let end = end.unwrap_or_else(|| {
            panic!(
                "{len} bytes at {offset} pass the end of a region of {}",
                self.len
            )
        });
        // `len` fitted in usize when the region was made, so offsets below it do too.
        offset as usize..end as usize
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({} bytes, {:?})", self.len, self.pages())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_region_reads_as_zeroes() {
        let region = Region::new(3 << 20).unwrap();
        assert!(region.slice(0, 3 << 20).iter().all(|b| *b == 0));
    }

    #[cfg(not(miri))]
    #[test]
    fn a_populated_region_has_its_memory_and_still_reads_as_zeroes() {
        let pages = |region: &Region| {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let start = format!("{:x}-", region.slice(0, 1).as_ptr().addr());
            let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&start));
            let line = lines.find(|line| line.starts_with("Rss:")).unwrap();
            let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            kib << 10
        };
        let region = Region::new(64 << 20).unwrap();
        if region.pages() == Pages::Hugetlb {
            return;
        }
        region.populate().unwrap();
        assert!(pages(&region) >= 64 << 20);
        assert!(region.slice(0, 64 << 20).iter().all(|b| *b == 0));
    }

    #[test]
    fn what_was_written_is_read() {
        let mut region = Region::new(10_000).unwrap();
        region.write(4_095, b"across a page");
        let mut back = [0; 13];
        region.read(4_095, &mut back);
        assert_eq!(&back, b"across a page");
    }

    #[test]
    fn zeroing_clears_the_range_and_nothing_else() {
        let size = 4 * HUGE;
        for (offset, len) in [
            (0, size),
            (1, size - 2),
            (HUGE, HUGE),
            (HUGE - 5, HUGE + 10),
            (100, 200),
            (7, 0),
        ] {
            let mut region = Region::new(size as u64).unwrap();
            region.slice_mut(0, size).fill(0xA5);
            region.zero(offset as u64, len as u64);
            let all = region.slice(0, size);
            assert!(
                all[offset..offset + len].iter().all(|b| *b == 0),
                "{offset}+{len}"
            );
            assert!(all[..offset].iter().all(|b| *b == 0xA5), "{offset}+{len}");
            assert!(
                all[offset + len..].iter().all(|b| *b == 0xA5),
                "{offset}+{len}"
            );
        }
    }

    #[test]
    fn a_region_grows_where_it_has_room_and_keeps_what_it_holds() {
        let mut region = Region::with_room(10_000, 3 * HUGE as u64).unwrap();
        region.write(9_990, b"0123456789");
        if region.pages() != Pages::Hugetlb {
            assert!(region.grow(3 * HUGE as u64));
            assert_eq!(region.slice(9_990, 12), b"0123456789\0\0");
            assert!(region.slice(2 * HUGE as u64, HUGE).iter().all(|b| *b == 0));
        }
        let len = region.len();
        assert!(!region.grow(len - 1) && !region.grow(64 * HUGE as u64));
        assert_eq!(region.len(), len);
    }

    #[test]
    #[should_panic(expected = "pass the end")]
    fn a_read_past_the_end_is_refused() {
        Region::new(100).unwrap().slice(90, 11);
    }
}
