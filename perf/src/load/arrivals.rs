//! When requests are meant to begin, in an open loop.
//!
//! Request k is due k / rate seconds after the first, whatever the server does. Its latency counts
//! from there: a server that stalls delays all that were due meanwhile, and every one of them
//! shows it (no coordinated omission).

/// The schedule of an open loop.
#[derive(Clone, Debug)]
pub struct Arrivals {
    /// When the first is due, nanoseconds.
    begun: u64,
    /// Requests per second, at least 1.
    rate: u64,
    /// How many were handed out.
    taken: u64,
    /// Nothing is due from then on.
    until: u64,
}

impl Arrivals {
    /// `rate` requests each second, from `begun` on. A rate of 0 counts as 1.
    pub fn new(rate: u64, begun: u64) -> Arrivals {
        Arrivals {
            begun,
            rate: rate.max(1),
            taken: 0,
            until: u64::MAX,
        }
    }

    /// When the next one is due; `None` if no more come.
    #[inline]
    pub fn due(&self) -> Option<u64> {
        let after = u128::from(self.taken) * 1_000_000_000 / u128::from(self.rate);
        let due = u128::from(self.begun) + after;
        // What lies beyond the clock never comes.
        u64::try_from(due).ok().filter(|due| *due < self.until)
    }

    /// Hands out the next one if it is due by `now`: the moment it was meant to begin.
    #[inline]
    pub fn take(&mut self, now: u64) -> Option<u64> {
        let due = self.due().filter(|due| *due <= now)?;
        self.taken += 1;
        Some(due)
    }

    /// Nothing that is due at `until` or later is handed out any more.
    pub fn stop_at(&mut self, until: u64) {
        self.until = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_even_distances_without_drift() {
        let mut arrivals = Arrivals::new(3, 1000);
        let all: Vec<u64> = (0..7)
            .map(|_| arrivals.take(u64::MAX - 1).unwrap())
            .collect();
        let third = |k: u64| 1000 + k * 1_000_000_000 / 3;
        assert_eq!(all, (0..7).map(third).collect::<Vec<_>>());
        assert_eq!(all[6], 2_000_001_000);
    }

    #[test]
    fn what_was_due_during_a_stall_keeps_its_time() {
        let mut arrivals = Arrivals::new(1000, 0);
        assert_eq!(arrivals.take(0), Some(0));
        assert_eq!(arrivals.take(500_000), None);
        // Nothing was handed out for 10 ms.
        let late: Vec<u64> = std::iter::from_fn(|| arrivals.take(10_000_000)).collect();
        assert_eq!(late.len(), 10);
        assert_eq!((late[0], late[9]), (1_000_000, 10_000_000));
        assert_eq!(arrivals.due(), Some(11_000_000));
    }

    #[test]
    fn nothing_comes_after_the_end() {
        let mut arrivals = Arrivals::new(1000, 0);
        arrivals.stop_at(2_000_000);
        assert_eq!(std::iter::from_fn(|| arrivals.take(u64::MAX)).count(), 2);
        assert_eq!(arrivals.due(), None);
    }
}
