//! Deadlines: one coarse tick while anything can time out (laws L3, L4).

use std::time::Duration;

use crate::message::Refusal;
use crate::session::Session;
use crate::time::Instant;
use crate::units::NodeSet;

use super::Volume;
use super::ops::{Kind, Phase};

/// Between two asks of a control store that could not be asked.
pub(super) const RETRY: Duration = Duration::from_millis(200);
/// Longest drain of a demotion or stop; then it is a crash and nothing worse (law O4).
pub(super) const DRAIN: Duration = Duration::from_secs(10);
/// Longest handshake and exchange without a word of progress.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest epoch: after this the next round begins by itself.
const EPOCH: Duration = Duration::from_secs(1);
/// While requests or sessions can time out.
const TICK: Duration = Duration::from_millis(100);
/// While only the log ages.
const SLOW_TICK: Duration = Duration::from_secs(2);

impl Volume {
    pub(super) fn deadline(&self) -> Option<Instant> {
        match (self.tick_at, self.pace_at) {
            (Some(tick), Some(pace)) => Some(tick.min(pace)),
            (tick, pace) => tick.or(pace),
        }
    }

    pub(super) fn tick(&mut self) {
        if self.pace_at.take_if(|at| *at <= self.now).is_some() {
            self.ops.attention = true;
        }
        let Some(due) = self.tick_at.filter(|at| *at <= self.now) else {
            return;
        };
        (self.tick_at, self.is_tick_slow) = (None, false);
        let absence = self.now.since(due);
        if absence > TICK {
            self.forgive(absence);
        }
        self.ops.attention = true;
        self.retry_record();
        self.tick_register();
        self.tick_lease();
        self.tick_handed();
        self.consider_election();
        self.flush.note_time(self.now);
        // A drain does not wait for members whose full logs wait for a round.
        let epoch = match self.role.waits_for_drain() {
            true => TICK / 2,
            false => EPOCH,
        };
        let dirty_since = self.flush.dirty_since;
        if dirty_since.is_some_and(|since| self.now.since(since) >= epoch) {
            self.flush.wanted = true;
        }
        self.look_at_pace();
        self.watch_metadata();
        self.time_out_sessions();
        self.end_pauses();
        self.time_out_legs();
        self.time_out_reads();
        self.time_out_repairs();
        self.age_log();
    }

    /// Arms the tick if something can time out and none is armed, or only one for the log.
    pub(super) fn arm_tick(&mut self) {
        if (self.tick_at.is_some() && !self.is_tick_slow) || self.is_bare() {
            return;
        }
        let is_moving = self.ops.each().next().is_some()
            || self.peers.iter().any(|p| {
                !matches!(
                    p.session,
                    Session::Standalone(_)
                        | Session::Parted(..)
                        | Session::Connecting
                        | Session::InSync(_)
                )
            })
            || !self.role.is_quiet()
            || self.giving_up.is_some()
            || self.flush.has_work()
            || self.durable.retry_at.is_some()
            || self.marks.is_setting()
            || self.growing.is_some()
            || self.verify.is_running()
            || self.scrub.is_running()
            || self.repairs.is_waiting()
            || self.peers.iter().any(|p| !p.told.is_settled())
            || (self.has_votes() && self.durable.sb.voted.is_some())
            || (self.has_register() && self.durable.sb.volume_id != 0);
        if is_moving {
            let soon = self.now.after(TICK);
            self.tick_at = Some(self.tick_at.map_or(soon, |at| at.min(soon)));
            self.is_tick_slow = false;
        } else if self.tick_at.is_none() && !self.log.is_empty() {
            self.tick_at = Some(self.now.after(SLOW_TICK));
            self.is_tick_slow = true;
        }
    }

    /// Nothing of it can time out or age.
    fn is_bare(&self) -> bool {
        !self.keeps_log() && self.log.is_empty() && self.role.is_primary()
    }

    /// How clients fare beside resync and verify, and how those move.
    fn look_at_pace(&mut self) {
        let oldest = self.oldest_waiting();
        self.pace.look(self.now, oldest);
        for node in self.peers.nodes() {
            self.meter_resync(node);
        }
        self.meter_verify();
    }

    /// How long the read or write of a client waits that waits longest.
    fn oldest_waiting(&self) -> Option<Duration> {
        let waits = |op: &super::ops::Operation| {
            // What waits for a copy, a lease or credit waits for no disk; it may wait for a resync.
            let is_held = matches!(op.phase, Phase::Dispatch | Phase::Lease);
            op.is_client() && !op.answered && !is_held && !matches!(op.kind, Kind::Flush)
        };
        let arrivals = self.ops.each().filter(|(_, op)| waits(op));
        let oldest = arrivals.map(|(_, op)| op.arrived).min();
        oldest.map(|at| self.now.since(at))
    }

    fn time_out_sessions(&mut self) {
        for node in self.peers.nodes() {
            let peer = self.peers.get(node);
            let is_young = matches!(peer.session, Session::Handshake(_) | Session::Exchange(..));
            if is_young && self.now.since(peer.since) > HANDSHAKE {
                self.refuse(node, Refusal::Breach);
            }
        }
    }

    /// This process stood still for so long (F23): what was answered meanwhile may still lie
    /// unread, so nobody is late by time in which nobody listened.
    fn forgive(&mut self, absence: Duration) {
        for slot in self.ops.slots() {
            let op = self.ops.get_mut(slot);
            op.since = op.since.after(absence).min(self.now);
        }
        for peer in self.peers.iter_mut() {
            if let Some(since) = &mut peer.told.since {
                *since = since.after(absence).min(self.now);
            }
        }
        self.meta_watch.forgive(absence, self.now);
        self.flush.forgive(absence, self.now);
    }

    /// A hung member leaves S (law L4): its link is dropped; a hung disk of ours is given up, if
    /// somebody is left who is not hung.
    fn time_out_legs(&mut self) {
        let limit = self.setup.member_timeout;
        let mut late = NodeSet::EMPTY;
        for (_, op) in self.ops.each() {
            if op.phase != Phase::Out || !op.is_mutation() || self.now.since(op.since) < limit {
                continue;
            }
            late = late.or(op.pending);
        }
        late = late.or(self.flush.late(self.now, limit));
        for peer in self.peers.iter() {
            if peer
                .told
                .since
                .is_some_and(|at| self.now.since(at) >= limit)
            {
                late = late.with(peer.node);
            }
        }
        for node in late.without(self.me).iter() {
            self.member_was_late(node);
            self.drop_link(node);
        }
        if late.has(self.me) && !self.is_last_member() {
            self.local_failed(crate::event::DiskError::Io, false);
        }
    }

    /// Slots nobody used for a while close by themselves: a crash then has less to reconcile.
    fn age_log(&mut self) {
        if !self.log.is_empty() && self.now >= self.aged_at.after(SLOW_TICK) {
            self.aged_at = self.now;
            if self.close_idle() > 0 {
                self.log.want_all();
            }
        }
    }
}
