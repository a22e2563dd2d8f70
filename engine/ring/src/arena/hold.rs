//! What the kernel is doing to a buffer.

/// Operations of one kind in flight on a buffer, and the smallest range that covers them all.
#[derive(Clone, Copy, Default)]
pub(super) struct Hold {
    pub(super) count: u32,
    start: u32,
    end: u32,
}

impl Hold {
    pub(super) fn add(&mut self, start: u32, end: u32) {
        if self.count == 0 {
            (self.start, self.end) = (start, end);
        } else {
            (self.start, self.end) = (self.start.min(start), self.end.max(end));
        }
        self.count += 1;
    }

    pub(super) fn remove(&mut self) {
        assert!(self.count > 0, "an operation ended that was not counted");
        self.count -= 1;
    }

    pub(super) fn overlaps(&self, start: u32, end: u32) -> bool {
        self.count > 0 && start < self.end && self.start < end
    }
}
