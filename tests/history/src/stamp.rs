//! Instants that cannot be confused across a crash.

/// A moment: first the *segment* (number of crashes before it), then the time. A reply and the
/// crash after it may carry the same clock value; as stamps they are still strictly ordered, and
/// everything before a crash lies before everything after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Stamp {
    pub segment: u64,
    /// Time + 1; zero is the start of the segment.
    tick: u64,
}

impl Stamp {
    /// After everything: the end of a request that was never answered.
    pub const NEVER: Self = Self {
        segment: u64::MAX,
        tick: u64::MAX,
    };
    /// Before everything.
    pub const FIRST: Self = Self {
        segment: 0,
        tick: 0,
    };

    /// `time` within `segment`.
    pub fn at(segment: u64, time: u64) -> Self {
        Self {
            segment,
            tick: time.saturating_add(1).min(u64::MAX - 1),
        }
    }

    /// Before every request of the segment.
    pub fn start_of(segment: u64) -> Self {
        Self { segment, tick: 0 }
    }

    /// After every answer of the segment: the moment of the crash that ends it.
    pub fn end_of(segment: u64) -> Self {
        Self {
            segment,
            tick: u64::MAX,
        }
    }

    /// A number that grows with the stamp; the sum of 2^20 of them fits.
    pub fn weight(self) -> u128 {
        u128::from(self.segment.min(1 << 40)) << 64 | u128::from(self.tick)
    }

    /// The clock value, for people.
    pub fn time(self) -> u64 {
        self.tick.saturating_sub(1)
    }
}
