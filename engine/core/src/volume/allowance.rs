//! Bytes that a rate pays for, at most a quarter of a second or one piece ahead.
//!
//! What is taken may be paid for later: a piece is taken as soon as the last one is paid for. Who had to
//! have a whole piece first would lose what is paid between the moment it has and the next look.

use crate::time::Instant;

use super::window::PIECE;

const BILLION: u128 = 1_000_000_000;

/// What a rate has paid for and nobody took yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    /// Below zero: taken, and not paid for yet.
    bytes: i64,
    /// Paid of the next byte: looks may come more often than bytes are paid for.
    billionths: u64,
    paid_at: Instant,
}

impl Allowance {
    /// Nothing yet.
    pub fn new(now: Instant) -> Allowance {
        Allowance {
            bytes: 0,
            billionths: 0,
            paid_at: now,
        }
    }

    /// Pays for the time since the last time, at `rate` bytes per second; 0 is no limit.
    pub fn pay(&mut self, now: Instant, rate: u64) {
        let nanos = now.since(self.paid_at).as_nanos();
        self.paid_at = now;
        if rate == 0 {
            (self.bytes, self.billionths) = (i64::MAX / 2, 0);
            return;
        }
        let paid = (u128::from(rate) * nanos).saturating_add(self.billionths.into());
        // A remainder of a billion fits.
        self.billionths = (paid % BILLION) as u64;
        let paid = i64::try_from(paid / BILLION).unwrap_or(i64::MAX);
        let most = i64::try_from((rate / 4).max(PIECE)).unwrap_or(i64::MAX);
        self.bytes = self.bytes.saturating_add(paid).min(most);
    }

    /// A piece may be taken.
    pub fn is_open(&self) -> bool {
        self.bytes > 0
    }

    /// Takes a piece of so many bytes.
    pub fn take(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Bytes taken in `time` by somebody who looks every `step`, and takes all he may.
    fn taken(rate: u64, step: Duration, time: Duration) -> u64 {
        let begin = Instant(1);
        let mut allowance = Allowance::new(begin);
        let (mut now, mut taken) = (begin, 0);
        while now.since(begin) < time {
            now = now.after(step);
            allowance.pay(now, rate);
            while allowance.is_open() {
                allowance.take(PIECE);
                taken += PIECE;
            }
        }
        taken
    }

    #[test]
    fn a_rate_is_reached_and_not_passed_however_often_somebody_looks() {
        let time = Duration::from_secs(200);
        for rate in [100_000, 2 << 20, 3_000_000, 64 << 20, 1 << 30] {
            for step in [700, 100_000, 100_000_000, 130_000_000, 240_000_000] {
                // A billion looks take too long to try.
                let time = time.min(Duration::from_nanos(step) * 2_000_000);
                let found = taken(rate, Duration::from_nanos(step), time);
                let most = rate as f64 * time.as_secs_f64();
                let ahead = ((rate / 4).max(PIECE) + PIECE) as f64;
                let text = format!("{rate} per second, a look each {step} ns: {found}");
                assert!(found as f64 <= most + ahead, "{text}");
                assert!(found as f64 >= most - 1.0, "{text}");
            }
        }
    }

    #[test]
    fn what_nobody_took_is_kept_for_a_quarter_of_a_second() {
        let rate = 64 << 20;
        let mut allowance = Allowance::new(Instant(1));
        allowance.pay(Instant(1).after(Duration::from_secs(3600)), rate);
        assert_eq!(allowance.bytes, 16 << 20);
    }

    #[test]
    fn without_a_rate_all_may_be_taken_until_there_is_one() {
        let mut allowance = Allowance::new(Instant(1));
        allowance.pay(Instant(2), 0);
        allowance.take(1 << 50);
        assert!(allowance.is_open());
        allowance.pay(Instant(3), 1 << 20);
        allowance.take(PIECE);
        assert!(!allowance.is_open());
    }
}
