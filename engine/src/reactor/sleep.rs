//! How a reactor waits: it spins a bounded, adaptive time before it sleeps (DESIGN §5).
//!
//! ```text
//!  idle ─► predicted gap ≤ budget and nobody disturbs? ─ yes ─► spin up to the budget ─► sleep
//!                                     └ no ─► sleep at once; the gap that follows is the next
//!                                             prediction, so sleeping reactors learn too
//! ```
//! A wake-up from sleep costs both sides about 20 µs; spinning trades CPU for it. It never pays
//! where somebody else wants the CPU: involuntary context switches switch it off for a while, and
//! it stays off where CPUs are scarce.

use std::time::Duration;

use engine_core::time::Instant;

use crate::control::Polling;

/// What to do with nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Look for completions without sleeping until this moment, then sleep.
    SpinUntil(Instant),
    /// Sleep.
    Sleep,
}

/// The policy of one reactor.
#[derive(Debug)]
pub(crate) struct Sleep {
    budget: Duration,
    /// Mean of recent idle gaps in nanoseconds, each clamped to a multiple of the budget.
    gap_ns: u64,
    is_allowed: bool,
    /// Spinning is off until then, and how long the next ban lasts.
    banned_until: Instant,
    ban: Duration,
    switches: u64,
    look_at: Instant,
}

const BAN_MIN: Duration = Duration::from_millis(50);
const BAN_MAX: Duration = Duration::from_secs(5);
/// How often the count of context switches is read while spinning.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Involuntary switches between two looks that mean that the CPU is shared.
const SWITCHES_MAX: u64 = 4;
/// Gaps are clamped to this many budgets: one long pause is forgotten within a few requests.
const CLAMP: u64 = 4;

impl Sleep {
    /// `is_allowed` is false where CPUs are fewer than reactors.
    pub(crate) fn new(polling: Polling, is_allowed: bool) -> Sleep {
        let budget = budget(polling);
        Sleep {
            budget,
            gap_ns: budget.as_nanos() as u64 * CLAMP,
            is_allowed,
            banned_until: Instant(0),
            ban: BAN_MIN,
            switches: 0,
            look_at: Instant(0),
        }
    }

    /// The most eager of the reactor's volumes decides.
    pub(crate) fn set_polling(&mut self, polling: impl Iterator<Item = Polling>) {
        self.budget = polling.map(budget).max().unwrap_or_default();
    }

    /// What to do at `now`.
    pub(crate) fn plan(&self, now: Instant) -> Plan {
        let pays = self.gap_ns <= self.budget.as_nanos() as u64;
        if self.is_allowed && pays && now >= self.banned_until && !self.budget.is_zero() {
            Plan::SpinUntil(now.after(self.budget))
        } else {
            Plan::Sleep
        }
    }

    /// Something came after this long.
    pub(crate) fn ended(&mut self, gap: Duration) {
        let gap = (gap.as_nanos() as u64).min(self.budget.as_nanos() as u64 * CLAMP);
        self.gap_ns = (self.gap_ns * 7 + gap) / 8;
    }

    /// Whether it is time to read the thread's count of involuntary context switches.
    pub(crate) fn wants_look(&self, now: Instant) -> bool {
        self.is_allowed && now >= self.look_at
    }

    /// The count as it stands: many new ones mean that somebody else needs this CPU.
    pub(crate) fn look(&mut self, now: Instant, switches: u64) {
        let is_first = self.look_at == Instant(0);
        let fresh = switches.saturating_sub(self.switches);
        (self.switches, self.look_at) = (switches, now.after(LOOK_EVERY));
        if !is_first && fresh > SWITCHES_MAX {
            self.banned_until = now.after(self.ban);
            self.ban = (self.ban * 2).min(BAN_MAX);
        } else if now >= self.banned_until {
            self.ban = (self.ban / 2).max(BAN_MIN);
        }
    }
}

fn budget(polling: Polling) -> Duration {
    match polling {
        Polling::Latency => Duration::from_micros(200),
        Polling::Balanced => Duration::from_micros(50),
        Polling::Cpu => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    fn trained(polling: Polling, gap: Duration) -> Sleep {
        let mut sleep = Sleep::new(polling, true);
        (0..64).for_each(|_| sleep.ended(gap));
        sleep
    }

    #[test]
    fn spinning_begins_when_gaps_are_short_and_ends_when_they_are_long() {
        let now = Instant(1);
        assert_eq!(Sleep::new(Polling::Balanced, true).plan(now), Plan::Sleep);
        let mut sleep = trained(Polling::Balanced, 20 * MICRO);
        assert_eq!(sleep.plan(now), Plan::SpinUntil(now.after(50 * MICRO)));
        (0..8).for_each(|_| sleep.ended(Duration::from_millis(10)));
        assert_eq!(sleep.plan(now), Plan::Sleep);
    }

    #[test]
    fn latency_spins_for_gaps_that_balanced_sleeps_through() {
        let gap = 120 * MICRO;
        assert!(matches!(
            trained(Polling::Latency, gap).plan(Instant(1)),
            Plan::SpinUntil(_)
        ));
        assert_eq!(
            trained(Polling::Balanced, gap).plan(Instant(1)),
            Plan::Sleep
        );
        assert_eq!(
            trained(Polling::Cpu, Duration::ZERO).plan(Instant(1)),
            Plan::Sleep
        );
    }

    #[test]
    fn scarce_cpus_never_spin() {
        let mut sleep = Sleep::new(Polling::Latency, false);
        (0..64).for_each(|_| sleep.ended(MICRO));
        assert_eq!(sleep.plan(Instant(1)), Plan::Sleep);
        assert!(!sleep.wants_look(Instant(1)));
    }

    #[test]
    fn a_shared_cpu_bans_spinning_for_longer_each_time() {
        let mut sleep = trained(Polling::Balanced, MICRO);
        let mut now = Instant(1);
        sleep.look(now, 100);
        assert!(matches!(sleep.plan(now), Plan::SpinUntil(_)));
        for expected in [BAN_MIN, BAN_MIN * 2, BAN_MIN * 4] {
            now = now.after(LOOK_EVERY);
            assert!(sleep.wants_look(now));
            sleep.look(now, sleep.switches + 50);
            assert_eq!(sleep.plan(now), Plan::Sleep);
            assert_eq!(sleep.banned_until, now.after(expected));
        }
    }
}
