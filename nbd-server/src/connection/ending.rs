//! How a connection ends, and the one timer it has.
//!
//! ```text
//!  Serving ── DISC, drain, volume left ──► Leaving ── all answered and sent ──┐
//!     └── end of stream, error, breach, no progress ──────────────────────────┴─► Ended
//!  Ended ── on_quiet ──► Quiet ── all sent, or too slow, or broken ──► Finished
//! ```
//! A connection that another process goes on with is `Ended` at once: see [`super::moving`].
//!
//! From `Leaving` on nothing is read: a request whose payload is not complete never happened. From
//! `Ended` on the core drops what it has not dispatched, so that nothing of this session takes
//! effect after it was closed (law B3).

use std::time::Duration;

use engine_ring::Class;
use nbd_proto::NbdError;

use super::host::Host;
use super::intake::{Flight, Stalled};
use super::table::Reply;
use super::{NbdConnection, RETRY};

/// Silence after which a connection gives back what it holds only for speed.
const IDLE: Duration = Duration::from_secs(10);
/// Free bytes below which whoever keeps others waiting is let go sooner ...
const SCARCE: usize = 48 << 20;
/// ... after this part of its time.
const SCARCE_PART: u32 = 8;
/// How long the last replies may take once the session is closed. Less than the engine allows, so
/// that buffers are given back in order.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Reading and answering.
    Serving,
    /// Reads no more, answers what was submitted.
    Leaving,
    /// The core was told.
    Ended,
    /// The core is done.
    Quiet,
    /// Nothing is held any more.
    Finished,
}

impl NbdConnection {
    /// Reads no more, answers what was submitted, then ends.
    pub(super) fn leave(&mut self, host: &mut impl Host) {
        if self.life == Life::Serving {
            self.moved = host.now();
            self.life = Life::Leaving;
            self.stop_reading(host);
        }
    }

    /// The client is gone, or broke the protocol: ends at once.
    pub(super) fn close(&mut self, host: &mut impl Host) {
        if matches!(self.life, Life::Serving | Life::Leaving) {
            self.life = Life::Ended;
            self.stop_reading(host);
            host.end();
        }
    }

    /// Nothing can be sent, or it is not worth waiting for: ends at once, without replies.
    pub(super) fn cut_off(&mut self, host: &mut impl Host) {
        self.stay(host);
        self.is_broken = true;
        self.replies.abandon();
        while let Some(slot) = self.replies.pop() {
            self.forget(host, slot);
        }
        self.close(host);
    }

    /// Discards what is not submitted, in the order of arrival.
    pub(super) fn stop_reading(&mut self, host: &mut impl Host) {
        while let Some(slot) = self.busy.pop_front() {
            self.turn_away(host, slot);
        }
        match self.intake.stalled.take() {
            Some(Stalled::Write(slot)) => self.turn_away(host, slot),
            Some(Stalled::Command(..)) | None => {}
        }
        if let Some(slot) = self.intake.write.take() {
            self.turn_away(host, slot);
        }
        if self.intake.flight != Flight::None {
            host.cancel_receive();
        }
        self.intake.release(host);
    }

    /// A request the volume does not have: says that the volume is gone, or nothing.
    fn turn_away(&mut self, host: &mut impl Host, slot: u16) {
        if self.is_gone {
            let text = "the volume is no longer served here";
            self.answer(host, slot, Reply::Error(NbdError::Shutdown, text));
        } else {
            self.forget(host, slot);
        }
    }

    pub(super) fn quiet_came(&mut self, host: &mut impl Host) {
        if self.life != Life::Finished {
            self.close(host);
            self.life = Life::Quiet;
            self.moved = host.now();
            self.timer = None;
            self.settle(host);
        }
    }

    /// Takes the next step of an ending, if it is due.
    pub(super) fn settle(&mut self, host: &mut impl Host) {
        if self.life == Life::Leaving && self.table.used() == 0 {
            self.life = Life::Ended;
            host.end();
        }
        if self.life == Life::Quiet && self.is_moving {
            return self.settle_move(host);
        }
        if self.life == Life::Quiet && self.replies.is_empty() {
            self.life = Life::Finished;
            // What is left are questions that the volume never answered.
            while let Some(slot) = self.table.first() {
                self.drop_slot(host, slot);
            }
            self.replies.release_headers(host);
            host.finish();
        }
    }

    /// Sets the timer if it is needed earlier than it would fire.
    pub(super) fn set_timer(&mut self, host: &mut impl Host) {
        let now = host.now();
        let at = match self.life {
            Life::Finished => return,
            Life::Quiet => self.moved.after(LAST_WORDS),
            _ if self.is_starved => now.after(RETRY),
            // Buffers may become scarce before the time is over.
            _ if self.is_waiting() && self.held > 0 => {
                let part = self.limits.stalled_max / SCARCE_PART;
                let parts = now.since(self.moved).as_micros() / part.as_micros().max(1) + 1;
                self.moved
                    .after(part * parts.min(u128::from(SCARCE_PART)) as u32)
            }
            _ if self.is_waiting() => self.moved.after(self.limits.stalled_max),
            Life::Serving if self.holds_luxury() => self.moved.after(IDLE),
            _ => return,
        };
        if self.timer.is_none_or(|set| at < set) {
            self.timer = Some(at);
            host.set_timer(at);
        }
    }

    pub(super) fn timer_fired(&mut self, host: &mut impl Host) {
        self.timer = None;
        if self.life == Life::Quiet {
            self.cut_off(host);
            return self.settle(host);
        }
        if std::mem::take(&mut self.is_starved) {
            self.take_early(host);
            self.take(host);
        }
        let silence = host.now().since(self.moved);
        if self.is_waiting() {
            if silence >= self.patience(host) {
                self.log(format_args!(
                    "no progress for {:.1} s",
                    silence.as_secs_f32()
                ));
                self.cut_off(host);
            }
        } else if silence >= IDLE && self.life == Life::Serving {
            self.rest(host);
        }
    }

    /// How long this client may be waited for: less while it holds what others wait for.
    fn patience(&self, host: &mut impl Host) -> Duration {
        let is_scarce = host.arena().available(Class::Client) < SCARCE;
        match is_scarce && self.held > 0 {
            true => self.limits.stalled_max / SCARCE_PART,
            false => self.limits.stalled_max,
        }
    }

    /// The client must act: read replies, complete a payload, go away.
    fn is_waiting(&self) -> bool {
        let is_arriving = self.intake.write.is_some() && self.intake.flight != Flight::None;
        self.replies.is_sending() || is_arriving || self.life == Life::Leaving
    }

    fn holds_luxury(&self) -> bool {
        (self.intake.is_large() && !self.intake.is_shrinking) || self.replies.has_headers()
    }

    /// Gives back what only speed needs.
    fn rest(&mut self, host: &mut impl Host) {
        if !self.replies.is_sending() {
            self.replies.release_headers(host);
        }
        if self.intake.is_large() && matches!(self.intake.flight, Flight::Buffer(_)) {
            self.intake.is_shrinking = true;
            host.cancel_receive();
        }
    }
}
