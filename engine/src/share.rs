//! What one connection may have of a turn: deficit round robin.
//!
//! ```text
//!  turn begins ─► each connection has a quantum ─► spends it by submitting ─► spent: on_room in the
//!                 next turn, which does not sleep; a request larger than the quantum is paid off
//! ```
//! A request costs its bytes and a bit for itself, so that neither a deep queue of small requests
//! nor one of large ones makes everybody else wait for longer than a turn. A connection that is
//! alone loses nothing: its next turn comes at once.

use engine_core::event::Op;

/// Cost of a request besides its bytes: what a request costs in time beside 4 KiB of payload.
const REQUEST: i64 = 4096;
/// Cost that all connections together may cause in a turn: about 150 µs from memory.
const TURN: i64 = 1 << 20;
/// A quantum is at least this: 8 requests of 4 KiB, however many connections there are.
const QUANTUM_MIN: i64 = 8 * (REQUEST + 4096);
/// And at most this: 64 of them, so that a common queue depth is one batch.
const QUANTUM_MAX: i64 = 64 * (REQUEST + 4096);

/// The quantum of a connection that has the reactor to itself: nobody waits for it, and large
/// batches are cheaper (1 MiB reads by a sixth).
const ALONE: i64 = 8 << 20;

/// A connection's part of the current turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Negative after a request larger than the quantum.
    left: i64,
    turn: u64,
}

/// The quantum when the reactor has so many connections, of which so many were busy in the turn
/// before.
pub(crate) fn quantum(connections: usize, busy: usize) -> i64 {
    if connections <= 1 {
        return ALONE;
    }
    (TURN / busy.max(1) as i64).clamp(QUANTUM_MIN, QUANTUM_MAX)
}

impl Share {
    /// A full share of this turn.
    pub(crate) fn new(turn: u64) -> Share {
        Share {
            left: QUANTUM_MAX,
            turn,
        }
    }

    /// Adds what the turns since the last call brought; nothing is saved up beyond one quantum.
    pub(crate) fn refill(&mut self, turn: u64, quantum: i64) {
        let turns = i64::try_from(turn - self.turn).unwrap_or(i64::MAX);
        self.turn = turn;
        if turns > 0 {
            let more = quantum.saturating_mul(turns);
            self.left = self.left.saturating_add(more).min(quantum);
        }
    }

    /// Nothing more may be submitted in this turn.
    pub(crate) fn is_spent(&self) -> bool {
        self.left <= 0
    }

    /// Pays for a request.
    pub(crate) fn pay(&mut self, op: &Op) {
        // Zeros and flushes move no bytes through this process.
        let bytes = match op {
            Op::Read { range, .. } | Op::Write { range, .. } => range.len,
            Op::Zero { .. } | Op::Flush => 0,
        };
        let cost = i64::try_from(bytes).unwrap_or(i64::MAX / 2) + REQUEST;
        self.left = self.left.saturating_sub(cost);
    }
}

#[cfg(test)]
mod tests {
    use engine_core::units::{BufId, ByteRange};

    use super::*;

    fn read(len: u64) -> Op {
        let range = ByteRange { offset: 0, len };
        Op::Read {
            range,
            buf: BufId(0),
        }
    }

    /// Requests of this length that go into one turn.
    fn per_turn(share: &mut Share, len: u64) -> usize {
        let mut count = 0;
        while !share.is_spent() {
            share.pay(&read(len));
            count += 1;
        }
        count
    }

    #[test]
    fn the_only_busy_connection_has_64_small_requests_in_a_turn() {
        let mut share = Share::new(1);
        assert_eq!(per_turn(&mut share, 4096), 64);
        share.refill(2, quantum(2, 1));
        assert_eq!(per_turn(&mut share, 4096), 64);
    }

    #[test]
    fn a_large_request_is_paid_off_over_the_next_turns() {
        let mut share = Share::new(0);
        assert_eq!(per_turn(&mut share, 1 << 20), 1);
        let turns = (1..).find(|turn| {
            share.refill(*turn, quantum(2, 1));
            !share.is_spent()
        });
        assert_eq!(turns, Some(2));
    }

    #[test]
    fn nothing_is_saved_up_and_many_connections_have_less_each() {
        let mut share = Share::new(0);
        share.refill(1_000_000, quantum(4, 4));
        assert_eq!(per_turn(&mut share, 4096), 32);
        assert_eq!(quantum(10_000, 10_000), QUANTUM_MIN);
        assert_eq!(quantum(2, 0), QUANTUM_MAX);
    }

    #[test]
    fn bytes_are_shared_evenly_between_small_and_large_requests() {
        let (mut small, mut large) = (Share::new(0), Share::new(0));
        let (mut small_cost, mut large_cost) = (0, 0);
        for turn in 1..=300 {
            for (share, len, cost) in [
                (&mut small, 4096, &mut small_cost),
                (&mut large, 3 << 20, &mut large_cost),
            ] {
                share.refill(turn, quantum(2, 2));
                if !share.is_spent() {
                    *cost += per_turn(share, len) as i64 * (len as i64 + REQUEST);
                }
            }
        }
        let difference = (small_cost - large_cost).abs();
        assert!(difference <= 3 << 20, "{small_cost} {large_cost}");
    }
}
