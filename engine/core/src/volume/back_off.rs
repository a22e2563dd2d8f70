//! A member that was too late is let in again after a pause that doubles (laws L4, L6).
//!
//! ```text
//!  late ─► leaves S ─► pause: its link stands, writes are marked for it, nothing is sent
//!       ─► resync ─► S             late again soon: the pause doubles, up to 64 × member_timeout
//! ```
//!
//! A disk that hangs now and then would else cost clients `member_timeout` each time it came back:
//! so it costs them that at most once per pause.

use std::time::Duration;

use crate::action::Notice;
use crate::time::Instant;
use crate::units::NodeIdx;

use super::{Volume, planted};

/// Longest pause, in units of `member_timeout`.
const LONGEST: u32 = 64;
/// Who was good for so many pauses begins anew with the shortest.
const FORGIVEN_AFTER: u32 = 8;

/// What a primary remembers of a member that was late.
#[derive(Clone, Copy, Default)]
pub(super) struct BackOff {
    pause: Duration,
    until: Instant,
}

impl BackOff {
    /// It was late now. `unit`: the shortest pause; `jitter` comes on top.
    fn extend(&mut self, now: Instant, unit: Duration, jitter: Duration) -> Duration {
        let is_forgiven = now.since(self.until) > self.pause * FORGIVEN_AFTER;
        let last = match is_forgiven {
            true => Duration::ZERO,
            false => self.pause,
        };
        self.pause = (last * 2).clamp(unit, unit * LONGEST);
        let pause = self.pause + jitter;
        self.until = now.after(pause);
        pause
    }
}

impl Volume {
    /// It left S because it was too late.
    pub(super) fn member_was_late(&mut self, node: NodeIdx) {
        let unit = self.setup.member_timeout;
        let jitter = self.draw(unit / 4);
        let now = self.now;
        let pause = self.peers.get_mut(node).back_off.extend(now, unit, jitter);
        self.notice(Notice::MemberLate { peer: node, pause });
    }

    /// It has to wait before it is given what it lacks.
    pub(super) fn holds_back(&mut self, node: NodeIdx) -> bool {
        let may_wait = !planted!(self, LateIsLetInAtOnce);
        let now = self.now;
        let peer = self.peers.get_mut(node);
        let waits = may_wait && now < peer.back_off.until;
        if std::mem::replace(&mut peer.is_held_back, waits) && !waits {
            // Writes of the pause are in marks that it was told before.
            self.begin_mark_pages(node);
        }
        waits
    }

    /// An operator says that it is good again.
    pub(super) fn forgive_lateness(&mut self, node: NodeIdx) {
        let peer = self.peers.get_mut(node);
        peer.back_off = BackOff::default();
        if peer.is_held_back {
            self.offer_resync(node);
        }
    }

    /// Begins what was held back for long enough.
    pub(super) fn end_pauses(&mut self) {
        for node in self.peers.nodes() {
            let peer = self.peers.get(node);
            if peer.is_held_back && self.now >= peer.back_off.until {
                self.offer_resync(node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Duration = Duration::from_secs(5);

    #[test]
    fn the_pause_doubles_up_to_a_bound_and_begins_anew_after_good_behaviour() {
        let mut back_off = BackOff::default();
        let mut now = Instant(1);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            pauses.push(back_off.extend(now, UNIT, Duration::ZERO) / UNIT.as_secs() as u32);
            now = back_off.until.after(UNIT);
        }
        let seconds: Vec<u64> = pauses.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        now = back_off.until.after(UNIT * LONGEST * FORGIVEN_AFTER + UNIT);
        assert_eq!(back_off.extend(now, UNIT, Duration::ZERO), UNIT);
    }
}
