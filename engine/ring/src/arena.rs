//! The buffers of one reactor: one mapping, a buddy allocator, counted references, budgets.
//!
//! ```text
//!  alloc(class, bytes) ─► budget? ─► buddy (4 KiB … 64 MiB) ─► BufId{reactor, slot, generation}
//!  retain / release ──► count 0 and no operation in the ring ─► back to the free list
//!  bytes, bytes_mut, slice… : refused where the kernel writes (or, to change, where it reads)
//! ```
//! Nothing here allocates after construction. A stale or foreign id is our own bug and stops the
//! process. The arena does not clear memory: a new buffer holds whatever was there.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

mod buddy;
mod hold;
mod id;
#[cfg(test)]
mod tests;
mod view;

pub use crate::mapping::Pages;
use crate::mapping::{HUGE, Mapping};
use crate::streaming;
use buddy::Buddy;
use hold::Hold;
pub use id::{BufId, BufSlice};
use id::{GENERATION_BITS, SLOT_BITS};
use view::{VIEWS_MAX, Views};

/// Bytes of the smallest buffer, and of a granule: what one checksum covers.
pub const GRANULE: usize = 4096;
/// Bytes of the largest buffer.
pub const BUFFER_MAX: usize = 64 << 20;

/// Who a buffer is for. Each class has a share that the others cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Payload of clients' requests.
    Client,
    /// Payload arriving from peers.
    PeerIn,
    /// Resync and verify.
    Resync,
    /// Metadata and journal records.
    Meta,
    /// Receive and header buffers of connections.
    Net,
}

impl Class {
    /// How many there are.
    pub const COUNT: usize = 5;
    /// All of them, in order of their index.
    pub const ALL: [Class; Class::COUNT] = [
        Class::Client,
        Class::PeerIn,
        Class::Resync,
        Class::Meta,
        Class::Net,
    ];
}

/// Sizes of an arena.
#[derive(Clone, Debug)]
pub struct ArenaConfig {
    /// Part of every `BufId`; unique among the reactors of a process. Below 4096.
    pub reactor: u16,
    /// Bytes, rounded up to 2 MiB; at most 63 GiB.
    pub bytes: usize,
    /// Bytes reserved for each class, by index; their sum is at most `bytes`. What is not
    /// reserved goes to whoever asks first.
    pub guaranteed: [usize; Class::COUNT],
}

impl ArenaConfig {
    /// `bytes`, of which a tenth is reserved for each class.
    pub fn with_bytes(reactor: u16, bytes: usize) -> ArenaConfig {
        ArenaConfig {
            reactor,
            bytes,
            guaranteed: [bytes / 10; Class::COUNT],
        }
    }
}

/// How an operation in the ring touches its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The kernel writes into it.
    Fill,
    /// The kernel reads from it.
    Drain,
}

/// Where a pinned slice lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pinned {
    pub(crate) ptr: *mut u8,
    /// Distance from the start of the arena.
    pub(crate) at: usize,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    generation: u32,
    /// References of owners and of operations in flight.
    refs: u32,
    order: u8,
    class: u8,
    /// How many checksums are valid, 0 for none.
    sums: u16,
    fills: Hold,
    drains: Hold,
}

/// The buffers of one reactor.
pub struct Arena {
    memory: Arc<Mapping>,
    identity: u64,
    reactor: u16,
    buddy: Buddy,
    /// One for each granule, where buffers begin; then one for each view.
    slots: Box<[Slot]>,
    views: Views,
    sums: Box<[u64]>,
    guaranteed: [usize; Class::COUNT],
    used: [usize; Class::COUNT],
    /// Bytes no class has reserved.
    common: usize,
}

impl Arena {
    /// Maps the memory. Errors: out of memory, or sizes that cannot be (`InvalidInput`).
    pub fn new(config: &ArenaConfig) -> io::Result<Arena> {
        let reserved = config
            .guaranteed
            .iter()
            .try_fold(0usize, |sum, g| sum.checked_add(*g));
        let granules_max = (1usize << SLOT_BITS) - VIEWS_MAX;
        let common = reserved.and_then(|r| config.bytes.checked_sub(r));
        let fits = config.bytes > 0
            && config.bytes <= granules_max / (HUGE / GRANULE) * HUGE
            && u32::from(config.reactor) < 1 << 12;
        let Some(common) = common.filter(|_| fits) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "arena sizes do not fit",
            ));
        };
        static IDENTITY: AtomicU64 = AtomicU64::new(1);
        let memory = Arc::new(Mapping::new(config.bytes, true)?);
        let granules = memory.len() / GRANULE;
        Ok(Arena {
            identity: IDENTITY.fetch_add(1, Ordering::Relaxed),
            reactor: config.reactor,
            buddy: Buddy::new(granules),
            slots: vec![Slot::default(); granules + VIEWS_MAX].into_boxed_slice(),
            views: Views::new(granules),
            sums: vec![0; granules].into_boxed_slice(),
            guaranteed: config.guaranteed,
            used: [0; Class::COUNT],
            common: common + (memory.len() - config.bytes),
            memory,
        })
    }

    /// A buffer of at least `bytes` (its size is the next power of two, 4 KiB or more), with one
    /// reference, aligned to its size up to 2 MiB. `None` when the class has used its share and
    /// the common part is taken, or no piece is large enough. Contents are whatever was there.
    pub fn alloc(&mut self, class: Class, bytes: usize) -> Option<BufId> {
        let order = order_for(bytes)?;
        let size = GRANULE << order;
        if size > self.available(class) {
            return None;
        }
        let index = self.buddy.alloc(order)?;
        self.used[class as usize] += size;
        let slot = &mut self.slots[index];
        assert_eq!(slot.refs, 0, "a buffer in use was on a free list");
        slot.refs = 1;
        slot.order = order;
        slot.class = class as u8;
        slot.sums = 0;
        Some(BufId::new(self.reactor, index as u32, slot.generation))
    }

    /// Bytes that this class's budget still allows; one piece of that size may not exist.
    pub fn available(&self, class: Class) -> usize {
        let over = |c: usize| self.used[c].saturating_sub(self.guaranteed[c]);
        let taken: usize = (0..Class::COUNT).map(over).sum();
        let own = self.guaranteed[class as usize].saturating_sub(self.used[class as usize]);
        own + (self.common - taken)
    }

    /// Bytes this class holds.
    pub fn used(&self, class: Class) -> usize {
        self.used[class as usize]
    }

    /// Bytes of the whole arena.
    pub fn capacity_bytes(&self) -> usize {
        self.memory.len()
    }

    /// Which pages back it.
    pub fn pages(&self) -> Pages {
        self.memory.pages()
    }

    /// A name of its own for a part of a buffer, which may begin anywhere in it. It is used like a
    /// buffer of that length and holds a reference to the one it is a part of; the budget counts
    /// only the latter. `None` when there are too many views.
    ///
    /// Only one of two views of the same granules may keep checksums. Panics when the slice passes
    /// its buffer's end, or is a part of a view.
    pub fn view(&mut self, slice: BufSlice) -> Option<BufId> {
        self.check(slice);
        let is_buffer = self.views.get(slice.buf.slot()).is_none();
        assert!(is_buffer, "{slice:?} is a part of a buffer");
        let index = self.views.insert(slice)?;
        self.retain(slice.buf);
        let slot = &mut self.slots[index];
        assert_eq!(slot.refs, 0, "a view in use was free");
        (slot.refs, slot.sums) = (1, 0);
        Some(BufId::new(self.reactor, index as u32, slot.generation))
    }

    /// Adds a reference.
    pub fn retain(&mut self, buf: BufId) {
        let slot = self.slot_mut(buf);
        slot.refs += 1;
    }

    /// Drops a reference; the last one (operations in the ring hold theirs) frees the buffer and
    /// makes the id stale.
    pub fn release(&mut self, buf: BufId) {
        let slot = self.slot_mut(buf);
        slot.refs -= 1;
        if slot.refs > 0 {
            return;
        }
        assert!(
            slot.fills.count + slot.drains.count == 0,
            "{buf:?} freed while in the ring"
        );
        slot.generation = (slot.generation + 1) & ((1 << GENERATION_BITS) - 1);
        let (order, class) = (slot.order, slot.class);
        if let Some(view) = self.views.remove(buf.slot()) {
            return self.release(view.base);
        }
        self.used[usize::from(class)] -= GRANULE << order;
        self.buddy.free(buf.slot(), order);
    }

    /// References held now, by owners and by operations in the ring.
    pub fn references(&self, buf: BufId) -> u32 {
        self.slot(buf).refs
    }

    /// Bytes of the buffer: the power of two it was rounded up to; of a view: its length.
    pub fn capacity(&self, buf: BufId) -> usize {
        let order = self.slot(buf).order;
        match self.views.get(buf.slot()) {
            None => GRANULE << order,
            Some(view) => view.len as usize,
        }
    }

    /// Whether any operation in the ring uses it, or the buffer it is a view of.
    pub fn in_ring(&self, buf: BufId) -> bool {
        self.slot(buf);
        let base = self.views.get(buf.slot()).map_or(buf, |view| view.base);
        let slot = self.slot(base);
        slot.fills.count + slot.drains.count > 0
    }

    /// All bytes. Panics while the kernel writes to any of them.
    pub fn bytes(&self, buf: BufId) -> &[u8] {
        self.slice(buf.slice(0, self.capacity(buf) as u32))
    }

    /// All bytes, to be changed; forgets the checksums. Panics while the ring uses any of them.
    pub fn bytes_mut(&mut self, buf: BufId) -> &mut [u8] {
        let len = self.capacity(buf) as u32;
        self.slice_mut(buf.slice(0, len))
    }

    /// Some bytes. Panics when they pass the buffer's end, or while the kernel writes within the
    /// smallest range that covers all its writes to this buffer.
    pub fn slice(&self, slice: BufSlice) -> &[u8] {
        let (base, start, end) = self.place(slice);
        assert!(
            !self.slots[base].fills.overlaps(start, end),
            "{slice:?} is being filled"
        );
        // SAFETY: `place` proved the range inside the buffer, which lies inside the mapping that
        // `self` holds. The kernel writes none of these bytes: every fill in flight is counted in
        // `fills` by `pin`, which needs `&mut self`. Other writers need `&mut self` too.
        unsafe { std::slice::from_raw_parts(self.address(slice), slice.len as usize) }
    }

    /// Some bytes, to be changed; forgets the checksums. Panics when they pass the buffer's end,
    /// or while operations in the ring use a range around them.
    pub fn slice_mut(&mut self, slice: BufSlice) -> &mut [u8] {
        let (base, start, end) = self.place(slice);
        let slot = &self.slots[base];
        assert!(
            !slot.fills.overlaps(start, end),
            "{slice:?} is being filled"
        );
        assert!(
            !slot.drains.overlaps(start, end),
            "{slice:?} is being sent or written"
        );
        self.slots[slice.buf.slot()].sums = 0;
        // SAFETY: in range as in `slice`; `&mut self` excludes other references, and no operation
        // in the ring touches the range.
        unsafe { std::slice::from_raw_parts_mut(self.address(slice), slice.len as usize) }
    }

    /// Copies `from` over `to` (equal lengths, different buffers or ranges that may overlap);
    /// forgets the checksums of `to`. Panics as [`Arena::slice`] and [`Arena::slice_mut`] do.
    pub fn copy(&mut self, from: BufSlice, to: BufSlice) {
        assert_eq!(from.len, to.len, "a copy keeps the length");
        let source = self.slice(from).as_ptr();
        let target = self.slice_mut(to).as_mut_ptr();
        // SAFETY: both ranges were checked just above and lie in our mapping; `copy` allows them
        // to overlap; no reference is alive, `&mut self` excludes others.
        unsafe { std::ptr::copy(source, target, to.len as usize) };
    }

    /// As [`Arena::copy`], past the cache: for bytes that only a device will read. `from` and `to`
    /// lie in different buffers. Panics as [`Arena::copy`] does, and when they lie in one.
    pub fn copy_past_cache(&mut self, from: BufSlice, to: BufSlice) {
        let (source, target) = (self.place(from).0, self.place(to).0);
        assert_ne!(source, target, "a copy past the cache does not overlap");
        assert_eq!(from.len, to.len, "a copy keeps the length");
        let (source, len) = (self.slice(from).as_ptr(), from.len as usize);
        let target = self.slice_mut(to);
        // SAFETY: checked just above by `slice`; another buffer than `target`, so they do not
        // overlap, and `&mut self` excludes everybody else.
        let source = unsafe { std::slice::from_raw_parts(source, len) };
        streaming::copy(target, source);
    }

    /// The cached checksums of the buffer's first granules, `None` when none were set since it
    /// was allocated or last changed.
    pub fn sums(&self, buf: BufId) -> Option<&[u64]> {
        let count = usize::from(self.slot(buf).sums);
        let at = self.sums_at(buf);
        (count > 0).then(|| &self.sums[at..at + count])
    }

    /// Stores one checksum per granule, from the first on. Panics when there are more than the
    /// buffer has granules.
    pub fn set_sums(&mut self, buf: BufId, sums: &[u64]) {
        assert!(
            sums.len() * GRANULE <= self.capacity(buf),
            "more checksums than granules"
        );
        let at = self.sums_at(buf);
        self.sums[at..at + sums.len()].copy_from_slice(sums);
        self.slot_mut(buf).sums = sums.len() as u16;
    }

    /// Computes and stores the checksums of the first `len` bytes, a whole number of granules,
    /// with `sum` called on each. Panics as [`Arena::slice`] does.
    pub fn fill_sums(
        &mut self,
        buf: BufId,
        len: usize,
        mut sum: impl FnMut(&[u8]) -> u64,
    ) -> &[u64] {
        assert!(
            len.is_multiple_of(GRANULE) && len <= self.capacity(buf),
            "{len} bytes are no granules"
        );
        let (at, count) = (self.sums_at(buf), len / GRANULE);
        for i in 0..count {
            let granule = buf.slice((i * GRANULE) as u32, GRANULE as u32);
            self.sums[at + i] = sum(self.slice(granule));
        }
        self.slot_mut(buf).sums = count as u16;
        &self.sums[at..at + count]
    }

    /// Forgets the checksums.
    pub fn clear_sums(&mut self, buf: BufId) {
        self.slot_mut(buf).sums = 0;
    }

    /// Takes a reference for an operation in the ring and fences the bytes off.
    pub(crate) fn pin(&mut self, slice: BufSlice, access: Access) -> Pinned {
        let (base, start, end) = self.place(slice);
        let slot = self.slot_mut(slice.buf);
        slot.refs += 1;
        match access {
            Access::Fill => {
                slot.sums = 0;
                self.slots[base].fills.add(start, end);
            }
            Access::Drain => self.slots[base].drains.add(start, end),
        }
        let ptr = self.address(slice);
        Pinned {
            ptr,
            at: ptr as usize - self.memory.base().as_ptr() as usize,
        }
    }

    /// Ends what `pin` began.
    pub(crate) fn unpin(&mut self, buf: BufId, access: Access) {
        self.slot(buf);
        let base = self.views.get(buf.slot()).map_or(buf, |view| view.base);
        let slot = self.slot_mut(base);
        match access {
            Access::Fill => slot.fills.remove(),
            Access::Drain => slot.drains.remove(),
        }
        self.release(buf);
    }

    pub(crate) fn memory(&self) -> &Arc<Mapping> {
        &self.memory
    }

    /// Unique in the process.
    pub(crate) fn identity(&self) -> u64 {
        self.identity
    }

    fn address(&self, slice: BufSlice) -> *mut u8 {
        let start = match self.views.get(slice.buf.slot()) {
            None => slice.buf.slot() * GRANULE,
            Some(view) => view.at(),
        };
        let at = start + slice.offset as usize;
        // SAFETY: callers checked the slice; the slot's buffer lies inside the mapping, and a view
        // inside its buffer.
        unsafe { self.memory.base().as_ptr().add(at) }
    }

    /// Where the slice lies: slot of the buffer, start and end in it.
    fn place(&self, slice: BufSlice) -> (usize, u32, u32) {
        let end = self.check(slice);
        match self.views.get(slice.buf.slot()) {
            None => (slice.buf.slot(), slice.offset, end),
            Some(view) => {
                let start = view.offset + slice.offset;
                (view.base.slot(), start, view.offset + end)
            }
        }
    }

    /// Index of the first checksum. Views begin a granule and more apart, so theirs do not meet.
    fn sums_at(&self, buf: BufId) -> usize {
        let view = self.views.get(buf.slot());
        view.map_or(buf.slot(), |view| view.at() / GRANULE)
    }

    /// The end of the slice inside its buffer.
    fn check(&self, slice: BufSlice) -> u32 {
        let end = slice.offset.checked_add(slice.len);
        let capacity = self.capacity(slice.buf);
        let end = end.filter(|end| *end as usize <= capacity);
        end.unwrap_or_else(|| panic!("{slice:?} passes its buffer's end at {capacity}"))
    }

    fn slot(&self, buf: BufId) -> &Slot {
        let slot = self
            .slots
            .get(buf.slot())
            .filter(|_| buf.reactor() == self.reactor);
        let slot = slot.unwrap_or_else(|| panic!("{buf:?} is not of arena {}", self.reactor));
        assert!(
            slot.generation == buf.generation() && slot.refs > 0,
            "{buf:?} is stale"
        );
        slot
    }

    fn slot_mut(&mut self, buf: BufId) -> &mut Slot {
        self.slot(buf);
        &mut self.slots[buf.slot()]
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Arena");
        out.field("bytes", &self.memory.len())
            .field("pages", &self.pages());
        for class in Class::ALL {
            out.field(&format!("{class:?}"), &self.used(class));
        }
        out.finish()
    }
}

/// The order whose size holds `bytes`: 0 for a granule, one more for each doubling.
fn order_for(bytes: usize) -> Option<u8> {
    if bytes > BUFFER_MAX {
        return None;
    }
    let granules = bytes.max(1).div_ceil(GRANULE).next_power_of_two();
    Some(granules.trailing_zeros() as u8)
}

const _: () = assert!(
    BUFFER_MAX / GRANULE <= u16::MAX as usize,
    "checksum counts are u16"
);
const _: () = assert!(HUGE.is_multiple_of(GRANULE));
