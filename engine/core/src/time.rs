//! Time as the core knows it: nanoseconds on CLOCK_BOOTTIME, an argument and never a call.

use std::time::Duration;

/// A moment on CLOCK_BOOTTIME, in nanoseconds. Virtual in the simulator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// `duration` later; saturates.
    #[must_use]
    pub fn after(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(duration.as_nanos() as u64))
    }

    /// Time since `earlier`, zero if that lies ahead.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
