//! Anonymous memory, on huge pages where the system has them.

use std::io;
use std::ptr::NonNull;

/// Size of a huge page here; alignment of every mapping.
pub(crate) const HUGE: usize = 2 << 20;

/// Which pages back a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Reserved huge pages (`vm.nr_hugepages`).
    Hugetlb,
    /// Transparent huge pages, as far as the kernel finds them.
    Transparent,
    /// Ordinary pages.
    Small,
}

/// An owned anonymous mapping, zeroed, aligned to 2 MiB. Shared by `Arc` with whatever lets the
/// kernel touch it, so that it outlives every such use.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    pages: Pages,
}

// SAFETY: the mapping is plain memory without thread affinity; `Mapping` itself only hands out
// its address. Who may touch which bytes when is decided by `Arena` and `Region`.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives no access to the bytes but by raw pointer.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// At least `bytes` (rounded up to 2 MiB). `reserve` asks for a commitment of the memory now,
    /// which a sparse memory volume does not want.
    pub(crate) fn new(bytes: usize, reserve: bool) -> io::Result<Mapping> {
        let len = bytes.max(1).checked_next_multiple_of(HUGE);
        let len = len.filter(|len| isize::try_from(*len).is_ok());
        let len = len.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        sys::map(len, reserve)
    }

    /// As [`Mapping::new`], with address space for `room` bytes where that is to be had and the
    /// pages are not reserved ones.
    pub(crate) fn with_room(bytes: usize, room: usize) -> io::Result<Mapping> {
        let least = Mapping::new(bytes, false)?;
        if least.pages == Pages::Hugetlb || room <= least.len {
            return Ok(least);
        }
        // Untouched pages cost nothing; a system that counts them all may refuse.
        match Mapping::new(room, false) {
            Ok(roomy) if roomy.pages != Pages::Hugetlb => Ok(roomy),
            _ => Ok(least),
        }
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn pages(&self) -> Pages {
        self.pages
    }

    /// Gives its first `bytes` pages now, without changing one. Errors: out of memory.
    pub(crate) fn populate(&self, bytes: usize) -> io::Result<()> {
        let len = bytes.next_multiple_of(HUGE).min(self.len);
        sys::populate(self, len)
    }

    /// Gives whole huge pages back; they read as zeroes afterwards. False when the kernel
    /// refuses, then nothing is known about the bytes.
    ///
    /// # Safety
    /// `start` and `len` are multiples of [`HUGE`] inside the mapping, and no reference to these
    /// bytes exists.
    pub(crate) unsafe fn discard(&self, start: usize, len: usize) -> bool {
        // SAFETY: passed on from the caller.
        unsafe { sys::discard(self, start, len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        sys::unmap(self);
    }
}

#[cfg(not(miri))]
mod sys {
    use super::{HUGE, Mapping, Pages};
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
    use std::io;
    use std::ptr::{NonNull, null_mut};

    pub(super) fn map(len: usize, reserve: bool) -> io::Result<Mapping> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let huge = MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing
        // that exists. Without NORESERVE the huge pages are set aside now, so no later fault fails.
        if let Ok(base) = unsafe { mmap_anonymous(null_mut(), len, protection, huge) } {
            let base = NonNull::new(base.cast()).expect("mmap never returns null on success");
            return Ok(Mapping {
                base,
                len,
                pages: Pages::Hugetlb,
            });
        }
        let mut flags = MapFlags::PRIVATE;
        flags.set(MapFlags::NORESERVE, !reserve);
        let padded = len + HUGE;
        // SAFETY: as above.
        let raw = unsafe { mmap_anonymous(null_mut(), padded, protection, flags) }?.cast::<u8>();
        let head = raw.align_offset(HUGE);
        // SAFETY: head < HUGE, so both cut-off ends lie inside the padded mapping, page aligned,
        // and nobody knows these addresses yet. `base` stays inside it.
        let base = unsafe {
            if head > 0 {
                munmap(raw.cast(), head)?;
            }
            let base = raw.add(head);
            munmap(base.add(len).cast(), HUGE - head)?;
            base
        };
        // SAFETY: advice over our own whole mapping; it changes page sizes, not contents.
        let advised = unsafe { madvise(base.cast(), len, Advice::LinuxHugepage) };
        let pages = match advised {
            Ok(()) if transparent_pages_on() => Pages::Transparent,
            _ => Pages::Small,
        };
        let base = NonNull::new(base).expect("mmap never returns null on success");
        Ok(Mapping { base, len, pages })
    }

    /// The kernel accepts the advice also when the administrator has switched the pages off.
    fn transparent_pages_on() -> bool {
        std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
            .is_ok_and(|text| !text.contains("[never]"))
    }

    pub(super) fn populate(mapping: &Mapping, len: usize) -> io::Result<()> {
        let base = mapping.base.as_ptr();
        // SAFETY: the range lies in our own mapping, `len` is at most its length; the advice makes pages present and writable and
        // changes no byte.
        match unsafe { madvise(base.cast(), len, Advice::LinuxPopulateWrite) } {
            // Before Linux 5.14: it comes by page faults, as without this.
            Err(rustix::io::Errno::INVAL) => Ok(()),
            other => Ok(other?),
        }
    }

    pub(super) unsafe fn discard(mapping: &Mapping, start: usize, len: usize) -> bool {
        // SAFETY: the range lies in the mapping and is not referenced, by the caller's contract;
        // private anonymous pages read as zeroes after MADV_DONTNEED.
        unsafe {
            let at = mapping.base.as_ptr().add(start);
            madvise(at.cast(), len, Advice::LinuxDontNeed).is_ok()
        }
    }

    pub(super) fn unmap(mapping: &Mapping) {
        // SAFETY: the range is exactly what `map` kept, and the last owner is being dropped.
        // It cannot fail for a range that is mapped; if it did, the memory would merely stay.
        let _ = unsafe { munmap(mapping.base.as_ptr().cast(), mapping.len) };
    }
}

/// Heap memory under Miri, which has no mmap with huge pages.
#[cfg(miri)]
mod sys {
    use super::{HUGE, Mapping, Pages};
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::io;
    use std::ptr::NonNull;

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, HUGE).expect("HUGE is a power of two, len was checked")
    }

    pub(super) fn map(len: usize, _reserve: bool) -> io::Result<Mapping> {
        // SAFETY: the layout has a non-zero size.
        let base = NonNull::new(unsafe { alloc_zeroed(layout(len)) });
        let base = base.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Mapping {
            base,
            len,
            pages: Pages::Small,
        })
    }

    pub(super) fn populate(_mapping: &Mapping, _len: usize) -> io::Result<()> {
        Ok(())
    }

    pub(super) unsafe fn discard(mapping: &Mapping, start: usize, len: usize) -> bool {
        // SAFETY: in range and unreferenced by the caller's contract.
        unsafe { mapping.base.as_ptr().add(start).write_bytes(0, len) };
        true
    }

    pub(super) fn unmap(mapping: &Mapping) {
        // SAFETY: allocated by `map` with the same layout.
        unsafe { dealloc(mapping.base.as_ptr(), layout(mapping.len)) };
    }
}
