//! Disk operations that go to the kernel while a turn is still being prepared.

/// Disk operations that wait for the end of the turn at most; then they go to the kernel at once,
/// so that the device works on the first of them while the rest is prepared. The limit begins low,
/// and doubles with each call of a turn.
const EARLY_FIRST: u32 = 4;
const EARLY_MAX: u32 = 16;

/// When disk operations go to the kernel before the turn ends.
pub(super) struct Early {
    waiting: u32,
    limit: u32,
}

impl Early {
    pub(super) const START: Early = Early {
        waiting: 0,
        limit: EARLY_FIRST,
    };

    /// One more; true when it is time to hand them over.
    pub(super) fn is_due(&mut self) -> bool {
        self.waiting += 1;
        let is_due = self.waiting >= self.limit;
        if is_due {
            self.waiting = 0;
            self.limit = (self.limit * 2).min(EARLY_MAX);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_operations_go_out_in_growing_parts_of_a_turn() {
        let mut early = Early::START;
        let handed: Vec<u32> = (1..=64).filter(|_| early.is_due()).collect();
        assert_eq!(handed, [4, 12, 28, 44, 60]);
    }
}
