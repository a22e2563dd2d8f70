//! How much a sync target asks for at once, fitted to the link: enough to keep it busy, and no
//! queue in front of the writes of clients that use the same one.
//!
//! A request that is answered much later than the quickest one waited behind others; then less is
//! asked for. Otherwise a little more. Pure: times are arguments.

use std::time::Duration;

use crate::message::RESYNC_PIECE_GRANULES;
use crate::units::GRANULE;

/// Bytes of the largest request.
pub(super) const PIECE: u64 = RESYNC_PIECE_GRANULES * GRANULE;
/// Never less than this: one is written while one travels.
const LEAST: u64 = 2 * PIECE;
/// Never more than this, of all that a reactor keeps for resync.
const MOST: u64 = 16 * PIECE;
/// A request may wait so long behind others.
const QUEUE: Duration = Duration::from_millis(25);

/// What a request asks: they take different times where nothing waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Compare = 0,
    Data = 1,
}

/// After so many answers little is asked for, for a while, to learn anew what the quickest takes.
const LEARN_EVERY: u32 = 256;

/// Bytes that may be asked for and not yet stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    bytes: u64,
    /// The quickest answer lately, by what was asked.
    least: [Option<Duration>; 2],
    /// Answers to pass before it shrinks again: those were asked for before the last time.
    grace: u32,
    /// Answers since it last learned, and those left of learning.
    since: u32,
    learning: u32,
}

impl Default for Window {
    fn default() -> Window {
        Window {
            bytes: LEAST,
            least: [None; 2],
            grace: 0,
            since: 0,
            learning: 0,
        }
    }
}

impl Window {
    pub fn bytes(&self) -> u64 {
        match self.learning {
            0 => self.bytes,
            _ => LEAST,
        }
    }

    /// A request of about a piece was answered after `took`.
    pub fn answered(&mut self, ask: Ask, took: Duration) {
        let least = &mut self.least[ask as usize];
        let known = least.map_or(took, |least| least.min(took));
        *least = Some(known);
        if self.learning > 0 {
            self.learning -= 1;
            // Those that were asked for before are answered; the next ones waited for nobody.
            if self.learning == 2 * (LEAST / PIECE) as u32 {
                self.least = [None; 2];
            }
            return;
        }
        self.since += 1;
        if self.since == LEARN_EVERY {
            self.since = 0;
            self.learning = ((self.bytes + 2 * LEAST) / PIECE) as u32 + 1;
        }
        self.grace = self.grace.saturating_sub(1);
        if took.saturating_sub(known) <= QUEUE {
            self.bytes = (self.bytes + PIECE / 4).min(MOST);
        } else if self.grace == 0 {
            self.grace = (self.bytes / PIECE) as u32;
            self.bytes = (self.bytes - self.bytes / 4).max(LEAST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link that carries one piece in `piece_ms`, `way_ms` long: what waits is what is out.
    fn after_many(piece_ms: u64, way_ms: u64) -> u64 {
        let mut window = Window::default();
        for _ in 0..2000 {
            let queued = (window.bytes() / PIECE) * piece_ms;
            let took = Duration::from_millis(queued.max(way_ms + piece_ms));
            window.answered(Ask::Data, took);
        }
        window.bytes()
    }

    #[test]
    fn a_slow_link_gets_a_short_queue_and_a_long_one_is_filled() {
        // 1 Gbit/s: 8 ms each.
        assert!(after_many(8, 0) <= 6 * PIECE, "{}", after_many(8, 0));
        // The same rate, 100 ms away: 13 pieces are on their way at once.
        assert!(after_many(8, 100) >= 12 * PIECE, "{}", after_many(8, 100));
        // Faster than anybody waits for.
        assert_eq!(after_many(0, 0), MOST);
    }

    #[test]
    fn it_is_never_less_than_two_pieces() {
        let mut window = Window::default();
        window.answered(Ask::Data, Duration::from_millis(1));
        for _ in 0..100 {
            window.answered(Ask::Data, Duration::from_secs(3));
        }
        assert_eq!(window.bytes(), LEAST);
    }
}
