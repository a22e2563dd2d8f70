//! How fast a resync or a verify moves: a mean over time in which it could move.
//!
//! Time in which it was held back and nothing moved is not counted. Nothing is said of the rate
//! for the first seconds. Pure: times and figures are arguments.

use std::time::Duration;

use crate::time::Instant;

/// No rate is told before there was so much time to move in.
const ESTIMATING: Duration = Duration::from_secs(5);
/// Time over which the mean is taken.
const MEAN: Duration = Duration::from_secs(30);
/// Between two looks.
const STEP: Duration = Duration::from_millis(500);
/// Nothing moved for so long, and nothing is known to hold it: it is stalled.
const STALLED: Duration = Duration::from_secs(10);

/// The meter of one resync or verify.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    looked: Option<Instant>,
    moved: u64,
    /// Time that counts.
    active: Duration,
    /// Time that counts in which nothing moved, up to now.
    still: Duration,
    per_second: f64,
}

impl Meter {
    /// `moved` so far, in any unit; `is_held`: somebody wants it to wait.
    pub fn look(&mut self, now: Instant, moved: u64, is_held: bool) {
        let Some(looked) = self.looked else {
            (self.looked, self.moved) = (Some(now), moved);
            return;
        };
        let past = now.since(looked);
        if past < STEP {
            return;
        }
        let fresh = moved.saturating_sub(self.moved);
        (self.looked, self.moved) = (Some(now), moved);
        if fresh == 0 && is_held {
            self.still = Duration::ZERO;
            return;
        }
        self.still = match fresh {
            0 => self.still + past,
            _ => Duration::ZERO,
        };
        self.active += past;
        let seconds = past.as_secs_f64();
        let mean = self.active.min(MEAN).as_secs_f64();
        // Until there is a mean, all the time since the beginning is one.
        let weight = (seconds / mean).min(1.0);
        self.per_second += (fresh as f64 / seconds - self.per_second) * weight;
    }

    /// Units per second; `None` while it is too early to say.
    pub fn rate(&self) -> Option<u64> {
        (self.active >= ESTIMATING).then_some(self.per_second as u64)
    }

    /// It could have moved for a while and did not.
    pub fn is_stalled(&self) -> bool {
        self.still >= STALLED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(1).after(Duration::from_secs(seconds))
    }

    #[test]
    fn the_first_seconds_say_nothing_and_then_a_mean() {
        let mut meter = Meter::default();
        for second in 0..5 {
            meter.look(at(second), second * 100, false);
            assert_eq!(meter.rate(), None, "after {second} s");
        }
        meter.look(at(5), 500, false);
        assert_eq!(meter.rate(), Some(100));
    }

    #[test]
    fn a_pause_is_not_counted_and_a_stall_is() {
        let mut meter = Meter::default();
        for second in 0..20 {
            meter.look(at(second), second * 100, false);
        }
        for second in 20..90 {
            meter.look(at(second), 1900, true);
        }
        assert_eq!(meter.rate(), Some(100));
        assert!(!meter.is_stalled());
        for second in 90..110 {
            meter.look(at(second), 1900, false);
        }
        assert!(meter.rate().is_some_and(|rate| rate < 60));
        assert!(meter.is_stalled());
        meter.look(at(111), 2000, false);
        assert!(!meter.is_stalled());
    }

    #[test]
    fn the_mean_follows_a_change_within_about_thirty_seconds() {
        let mut meter = Meter::default();
        let mut moved = 0;
        for second in 0..60 {
            moved += 1000;
            meter.look(at(second), moved, false);
        }
        for second in 60..90 {
            moved += 100;
            meter.look(at(second), moved, false);
        }
        let rate = meter.rate().unwrap();
        assert!((300..550).contains(&rate), "{rate}");
    }
}
