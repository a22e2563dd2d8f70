//! Bytes that a rate pays for: at most a quarter of a second ahead, and always one piece.

use crate::time::Instant;

use super::window::PIECE;

/// What a rate has paid for and nobody took yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    bytes: u64,
    paid_at: Instant,
}

impl Allowance {
    /// Nothing yet.
    pub fn new(now: Instant) -> Allowance {
        Allowance {
            bytes: 0,
            paid_at: now,
        }
    }

    /// Pays for the time since the last time, at `rate` bytes per second; 0 is no limit.
    pub fn pay(&mut self, now: Instant, rate: u64) {
        let nanos = now.since(self.paid_at).as_nanos();
        self.paid_at = now;
        if rate == 0 {
            self.bytes = u64::MAX / 2;
            return;
        }
        let paid = u128::from(rate) * nanos / 1_000_000_000;
        let paid = u64::try_from(paid).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(paid).min((rate / 4).max(PIECE));
    }

    /// So much may be taken.
    pub fn has(&self, bytes: u64) -> bool {
        self.bytes >= bytes
    }

    pub fn take(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}
