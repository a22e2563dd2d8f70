//! When to try again: backoff with jitter, so that load after healing is load before (law L6).

use std::time::Duration;

/// First pause.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(2);

/// Growing pauses between attempts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    next: Duration,
    /// State of a small generator: jitter needs no more.
    seed: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Backoff {
        Backoff {
            next: FIRST,
            seed: seed | 1,
        }
    }

    /// The pause before the next attempt: between half and all of a growing bound.
    pub(super) fn pause(&mut self) -> Duration {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let bound = self.next;
        self.next = (self.next * 2).min(LONGEST);
        let half = bound / 2;
        half + half.mul_f64((self.seed >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// It worked: the next failure begins anew.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::new(7);
        let mut bound = FIRST;
        for _ in 0..10 {
            let pause = backoff.pause();
            assert!(
                bound / 2 <= pause && pause <= bound,
                "{pause:?} within {bound:?}"
            );
            bound = (bound * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }

    #[test]
    fn two_nodes_do_not_try_in_step() {
        let pauses = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..5).map(|_| backoff.pause()).collect::<Vec<_>>()
        };
        assert_ne!(pauses(1), pauses(2));
    }
}
