//! Parts of buffers with a name of their own.

use super::{BufId, BufSlice, GRANULE};

/// Most views at a time.
pub(super) const VIEWS_MAX: usize = 8192;

/// A part of a buffer.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub(super) base: BufId,
    pub(super) offset: u32,
    pub(super) len: u32,
}

impl View {
    /// Distance of its first byte from the start of the arena.
    pub(super) fn at(&self) -> usize {
        self.base.slot() * GRANULE + self.offset as usize
    }
}

/// All views; their slots come after those of buffers.
pub(super) struct Views {
    /// Slot of the first view.
    first: usize,
    all: Vec<View>,
    free: Vec<u32>,
}

impl Views {
    pub(super) fn new(first: usize) -> Views {
        Views {
            first,
            all: Vec::with_capacity(VIEWS_MAX),
            free: Vec::with_capacity(VIEWS_MAX),
        }
    }

    /// The view in this slot; `None` for the slot of a buffer.
    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<&View> {
        if slot < self.first {
            return None;
        }
        self.all.get(slot - self.first)
    }

    /// The slot of a new view of `slice`; `None` when there are too many.
    pub(super) fn insert(&mut self, slice: BufSlice) -> Option<usize> {
        let view = View {
            base: slice.buf,
            offset: slice.offset,
            len: slice.len,
        };
        if let Some(index) = self.free.pop() {
            self.all[index as usize] = view;
            return Some(self.first + index as usize);
        }
        if self.all.len() == VIEWS_MAX {
            return None;
        }
        self.all.push(view);
        Some(self.first + self.all.len() - 1)
    }

    /// Frees the slot if it is that of a view.
    pub(super) fn remove(&mut self, slot: usize) -> Option<View> {
        let view = *self.get(slot)?;
        self.free.push((slot - self.first) as u32);
        Some(view)
    }
}
