//! How fast resync and verify may read here while clients are served (law L5: never nothing).
//!
//! ```text
//!  requests of clients ─► mean of their time, ten times a second ─┐ more than twice the usual?
//!  usual time: learned while little else runs ────────────────────┘ slower : a little faster
//! ```
//!
//! Whoever serves clients has the data and is asked for it, so here the two meet. The usual time
//! is learned while nothing else runs, and again and again in short breaks. Nobody to disturb: no
//! limit. Pure: times and figures are arguments; one for all targets and the verify.

use std::time::Duration;

use super::window::PIECE;
use crate::time::Instant;

/// It is never slower than this, in bytes per second: a resync ends whatever clients do (law L5).
pub(super) const LEAST: u64 = 4 << 20;
/// As good as no limit.
const MOST: u64 = 64 << 30;
/// Times of clients are looked at this often.
const INTERVAL: Duration = Duration::from_millis(100);
/// While clients are there: after so many intervals of work two are a break.
const BREAK_EVERY: u32 = 50;
const BREAK: u32 = 2;
/// Requests are slower than usual by more than this, besides being twice as slow.
const SLACK: u64 = 500_000;

/// The pace of all background work of a volume on this node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Bytes per second allowed now.
    rate: u64,
    /// Bytes that may be read at once; one piece may overdraw it.
    budget: i64,
    paid_at: Instant,
    /// The interval under way: when it began, requests answered, the nanoseconds they took
    /// together, bytes of background work.
    began: Instant,
    answered: u64,
    nanos: u64,
    moved: u64,
    /// What a request usually takes, in nanoseconds.
    usual: Option<u64>,
    /// Intervals of work since the last break.
    worked: u32,
    /// Intervals left of a break.
    resting: u32,
    /// Somebody was told to wait in this interval or the last.
    has_waited: bool,
    waited_before: bool,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            rate: MOST,
            budget: 0,
            paid_at: Instant(0),
            began: Instant(0),
            answered: 0,
            nanos: 0,
            moved: 0,
            usual: None,
            worked: 0,
            resting: 0,
            has_waited: false,
            waited_before: false,
        }
    }
}

impl Pace {
    /// A request of a client was answered.
    #[inline]
    pub fn answered(&mut self, took: Duration) {
        self.answered += 1;
        self.nanos = self.nanos.saturating_add(took.as_nanos() as u64);
    }

    /// So many bytes may be read now; they are taken off.
    pub fn may_spend(&mut self, now: Instant, bytes: u64) -> bool {
        let nanos = now.since(self.paid_at).as_nanos();
        let earned = u128::from(self.allowed()) * nanos / 1_000_000_000;
        let most = (self.allowed() / 20).max(PIECE) as i64;
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        self.budget = self.budget.saturating_add(earned).min(most);
        self.paid_at = now;
        if self.budget <= 0 {
            self.has_waited = true;
            return false;
        }
        self.budget -= bytes as i64;
        self.moved += bytes;
        true
    }

    /// When the next piece may be read, for whoever was told to wait.
    pub fn ready_at(&self) -> Instant {
        let missing = u64::try_from(1 - self.budget.min(0)).unwrap_or(u64::MAX);
        let nanos = u128::from(missing) * 1_000_000_000 / u128::from(self.allowed());
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        // A thousand times a second is often enough.
        self.paid_at
            .after(Duration::from_nanos(nanos.max(1_000_000)))
    }

    /// Clients hold it back now.
    pub fn is_limiting(&self) -> bool {
        self.has_waited || self.waited_before
    }

    fn allowed(&self) -> u64 {
        match self.resting {
            0 => self.rate,
            _ => LEAST,
        }
    }

    /// Looks at the interval, if it is over. `oldest`: age of the request of a client that waits
    /// longest.
    pub fn look(&mut self, now: Instant, oldest: Option<Duration>) {
        let past = now.since(self.began);
        if past < INTERVAL {
            return;
        }
        if past > 2 * INTERVAL && self.moved > 0 {
            // Nobody looked for a while: what moved when cannot be told.
            return self.begin(now);
        }
        let age = oldest.map_or(0, |age| age.as_nanos() as u64);
        // Who waits for longer than those took that were answered counts, too.
        let mean = match self.answered {
            0 if oldest.is_none() => None,
            0 => Some(age),
            n => Some((self.nanos / n).max(age / 4)),
        };
        let per_second = u128::from(self.moved) * 1_000_000_000 / past.as_nanos().max(1);
        let per_second = u64::try_from(per_second).unwrap_or(MOST);
        match mean {
            None => (self.rate, self.resting) = (self.rate.saturating_mul(2).min(MOST), 0),
            Some(mean) if per_second <= 2 * LEAST => self.learn(mean),
            Some(mean) => self.judge(mean, per_second),
        }
        self.begin(now);
    }

    fn begin(&mut self, now: Instant) {
        (self.began, self.answered, self.nanos, self.moved) = (now, 0, 0, 0);
        self.waited_before = std::mem::take(&mut self.has_waited);
    }

    /// Little else ran: this is what requests usually take.
    fn learn(&mut self, mean: u64) {
        self.usual = Some(match self.usual {
            Some(usual) if mean > usual => usual + (mean - usual) / 4,
            _ => mean,
        });
        if self.resting > 0 {
            self.resting -= 1;
        } else if self.rate < MOST && self.has_waited {
            // Held at the least: it goes up from there.
            self.speed_up();
        }
    }

    fn judge(&mut self, mean: u64, per_second: u64) {
        self.resting = self.resting.saturating_sub(1);
        self.worked += 1;
        let Some(usual) = self.usual else {
            return self.rest();
        };
        if mean > usual.saturating_mul(2).saturating_add(SLACK) {
            self.rate = (self.rate.min(per_second) / 10 * 7).max(LEAST);
        } else if self.resting == 0 {
            self.speed_up();
        }
        if self.worked >= BREAK_EVERY {
            self.rest();
        }
    }

    fn rest(&mut self) {
        (self.worked, self.resting) = (0, BREAK);
    }

    fn speed_up(&mut self) {
        self.rate = (self.rate + self.rate / 8).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose requests take 200 µs, and longer the more of `capacity` bytes per second
    /// background work takes. Answers the bytes moved in each second.
    fn run(pace: &mut Pace, seconds: u64, capacity: u64, has_clients: bool) -> Vec<u64> {
        let mut now = pace.began.max(Instant(1_000_000_000));
        let (mut moved, mut in_interval) = (Vec::new(), 0u64);
        for step in 0..seconds * 1000 {
            now = now.after(Duration::from_millis(1));
            let mut room = capacity / 1000;
            while room > 0 && pace.may_spend(now, PIECE / 16) {
                room = room.saturating_sub(PIECE / 16);
                in_interval += PIECE / 16;
            }
            let load = (capacity / 1000 - room) as f64 / (capacity / 1000) as f64;
            if has_clients {
                let micros = 200.0 + 4000.0 * load * load;
                pace.answered(Duration::from_micros(micros as u64));
            }
            pace.look(now, None);
            if step % 1000 == 999 {
                moved.push(std::mem::take(&mut in_interval));
            }
        }
        moved
    }

    #[test]
    fn without_clients_nothing_is_held_back() {
        let mut pace = Pace::default();
        let moved = run(&mut pace, 3, 1 << 30, false);
        assert!(moved.iter().all(|m| *m > 900 << 20), "{moved:?}");
        assert!(!pace.is_limiting());
    }

    #[test]
    fn clients_that_suffer_slow_it_and_it_never_stops() {
        let mut pace = Pace::default();
        let moved = run(&mut pace, 60, 1 << 30, true);
        let late = &moved[10..];
        assert!(late.iter().all(|m| *m >= LEAST / 2), "{moved:?}");
        let mean = late.iter().sum::<u64>() / late.len() as u64;
        assert!(mean < 500 << 20, "half of the machine is theirs: {moved:?}");
        assert!(mean > 50 << 20, "and not all of it: {moved:?}");
    }

    #[test]
    fn it_is_fast_again_soon_after_they_left() {
        let mut pace = Pace::default();
        run(&mut pace, 30, 1 << 30, true);
        let moved = run(&mut pace, 5, 1 << 30, false);
        assert!(moved[4] > 900 << 20, "{moved:?}");
    }

    #[test]
    fn a_request_that_never_ends_does_not_stop_it() {
        let mut pace = Pace::default();
        let mut now = Instant(1_000_000_000);
        let mut moved = 0;
        for _ in 0..100_000 {
            now = now.after(Duration::from_millis(1));
            if pace.may_spend(now, PIECE) {
                moved += PIECE;
            }
            pace.look(now, Some(Duration::from_secs(100)));
        }
        assert!(moved >= 90 * LEAST, "{moved}");
    }
}
