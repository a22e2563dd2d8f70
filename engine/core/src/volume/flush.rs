//! Flush rounds: one barrier on every disk at a time, shared by all who ask meanwhile.
//!
//! ```text
//!  client FLUSH ─┐
//!  log needs room ├─► round n: DiskFlush here, Flush{n} to every peer that takes data
//!  1 s of writes ─┘      all of S durable ─► clients answered (laws B4, R3)
//!                        everybody durable ─► log slots touched before round n may close (S3)
//! ```
//!
//! A round covers what was completed before it began, so a flush that arrives while one is under
//! way belongs to the next. A failed flush is final (law F4, DESIGN D11).

use crate::action::{Action, Outcome};
use crate::event::{DiskError, DiskResult, LinkId, ReqId, SessionId};
use crate::message::{Disk, Message, Status};
use crate::session::Session;
use crate::time::Instant;
use crate::units::{Extent, NodeIdx, NodeSet, Seq};

use super::ops::{Kind, Operation, Purpose, token};
use super::peer::Peer;
use super::{Volume, planted};

/// State of the rounds.
#[derive(Default)]
pub(super) struct Flushing {
    waiting: Vec<u32>,
    round: Option<Round>,
    /// Somebody inside needs a round: the log, or the clock.
    pub wanted: bool,
    /// Rounds begun, from 1 on; a log slot touched now closes after a later round than this. Slots
    /// that an earlier process left open are of round 0.
    pub started: u64,
    /// Rounds after which everybody was durable.
    pub completed: u64,
    /// First write since the last round began.
    pub dirty_since: Option<Instant>,
    has_written: bool,
    writes: u64,
}

struct Round {
    clients: Vec<u32>,
    pending: NodeSet,
    durable: NodeSet,
    answered: bool,
    /// Stored by all it asks when it began: durable there when it ends.
    stored: Seq,
    since: Instant,
}

impl Flushing {
    pub fn new() -> Flushing {
        Flushing {
            started: 1,
            completed: 1,
            ..Flushing::default()
        }
    }

    /// A mutation was dispatched in this epoch.
    #[inline]
    pub fn note_write(&mut self) {
        self.has_written = true;
        self.writes += 1;
    }

    /// A client's flush is dropped; a round under way goes on without it.
    pub fn forget(&mut self, slot: u32) {
        self.waiting.retain(|s| *s != slot);
        if let Some(round) = &mut self.round {
            round.clients.retain(|s| *s != slot);
        }
    }

    /// A round runs or should.
    pub fn has_work(&self) -> bool {
        self.has_written || self.round.is_some() || self.wanted
    }

    /// Nodes that did not answer the round in time.
    pub fn late(&self, now: Instant, limit: std::time::Duration) -> NodeSet {
        let late = self.round.as_ref().filter(|r| now.since(r.since) >= limit);
        late.map_or(NodeSet::EMPTY, |r| r.pending)
    }

    /// The round is not late by time in which this process stood still.
    pub fn forgive(&mut self, absence: std::time::Duration, now: Instant) {
        if let Some(round) = &mut self.round {
            round.since = round.since.after(absence).min(now);
        }
    }

    /// Starts the clock of the epoch at its first write.
    pub fn note_time(&mut self, now: Instant) {
        if self.has_written && self.dirty_since.is_none() {
            self.dirty_since = Some(now);
        }
    }
}

impl Volume {
    pub(super) fn submit_flush(&mut self, session: SessionId, req: ReqId) {
        let nowhere = Extent { start: 0, end: 1 };
        match self
            .ops
            .take_client(Kind::Flush, nowhere, session, req, self.now)
        {
            Some(slot) => self.flush.waiting.push(slot),
            None => self.complete(session, req, Outcome::Busy),
        }
        self.ops.attention = true;
    }

    /// Begins the next round if somebody waits for one.
    pub(super) fn begin_round(&mut self) {
        let is_needed = !self.flush.waiting.is_empty() || self.flush.wanted;
        let may_run = self.role.is_serving() || self.reigns();
        if self.flush.round.is_some() || !is_needed || !may_run {
            return;
        }
        let flush = &mut self.flush;
        flush.started += 1;
        flush.wanted = false;
        flush.dirty_since = None;
        let writes = std::mem::take(&mut flush.writes);
        let round = flush.started;
        let mut pending = NodeSet::EMPTY;
        if self.is_disk_usable() {
            pending = pending.with(self.me);
            let token = token(Purpose::Round, round as u32, 0);
            self.actions.push(Action::DiskFlush { token });
        }
        for peer in self.peers.iter().filter(|p| p.takes_data()) {
            let Some(link) = peer.session.data_link() else {
                continue;
            };
            pending = pending.with(peer.node);
            let message = Message::Flush {
                round,
                epoch: round,
                writes,
            };
            self.actions.push(Action::Send {
                link,
                message,
                payload: None,
            });
        }
        let stored = self.stored_by_all();
        // What it does not cover needs another one: peers cannot ask, and may wait for log slots.
        self.flush.has_written = stored < self.seq;
        self.flush.round = Some(Round {
            clients: std::mem::take(&mut self.flush.waiting),
            pending,
            durable: NodeSet::EMPTY,
            answered: false,
            stored,
            since: self.now,
        });
        self.settle_round();
    }

    /// Everything up to here is confirmed by all of S and by connected sync targets: those may
    /// be behind S, and close their logs by what they are told is durable (law S3).
    fn stored_by_all(&self) -> Seq {
        let is_target = |p: &Peer| matches!(p.session, Session::Source(_)) && p.takes_data();
        let behind = self.peers.iter().filter(|p| is_target(p));
        let targets: NodeSet = behind.map(|p| p.node).collect();
        if targets.is_empty() {
            return self.stable;
        }
        let is_owed = |op: &Operation| op.is_mutation() && op.pending.0 & targets.0 != 0;
        let owed = self.ops.each().filter(|(_, op)| is_owed(op));
        owed.fold(self.stable, |upto, (_, op)| upto.min(Seq(op.seq.0 - 1)))
    }

    pub(super) fn round_flushed(&mut self, generation: u32, result: DiskResult) {
        if generation != self.flush.started as u32 & 0xFF_FFFF {
            return;
        }
        match result {
            Ok(()) => self.round_leg(self.me, true),
            Err(_) if self.may_forget_failed_flush() => self.round_leg(self.me, false),
            Err(_) => {
                self.round_leg(self.me, false);
                // What was since the last good flush is lost or not: nobody knows.
                self.local_failed(DiskError::Io, false);
            }
        }
    }

    pub(super) fn round_answer(&mut self, node: NodeIdx, round: u64, status: Status) {
        if status != Status::Ok {
            self.peer_disk_failed(node);
        }
        if round == self.flush.started {
            self.round_leg(node, status == Status::Ok);
        }
    }

    fn round_leg(&mut self, node: NodeIdx, is_durable: bool) {
        if let Some(round) = &mut self.flush.round {
            round.pending = round.pending.without(node);
            if is_durable {
                round.durable = round.durable.with(node);
            }
        }
        self.settle_round();
    }

    /// The node will not answer this round any more.
    pub(super) fn round_lost(&mut self, node: NodeIdx) {
        if let Some(round) = &mut self.flush.round {
            round.pending = round.pending.without(node);
        }
    }

    pub(super) fn settle_round(&mut self) {
        let required = match planted!(self, FlushOnlyLocal) {
            true => NodeSet::only(self.me),
            false => self.required(),
        };
        let usable = self.is_disk_usable();
        let Some(round) = &mut self.flush.round else {
            return;
        };
        if !round.answered {
            let lost = !round.durable.contains(required) && round.pending.is_empty();
            let is_last = required == NodeSet::only(self.me) && !usable;
            let outcome = match (round.durable.contains(required), lost && is_last) {
                (true, _) => Outcome::Ok,
                (_, true) => Outcome::Io,
                // A member is gone and S has not shrunk yet: its removal decides.
                _ if !lost => return,
                _ => {
                    let missing = required.minus(round.durable);
                    return self.round_missed(missing);
                }
            };
            round.answered = true;
            for slot in std::mem::take(&mut round.clients) {
                self.answer(slot, outcome);
                self.end(slot);
            }
        }
        let Some(round) = self
            .flush
            .round
            .take_if(|r| r.pending.is_empty() && r.answered)
        else {
            return;
        };
        self.ops.attention = true;
        if round.durable.contains(self.in_sync()) {
            self.flush.completed = self.flush.started;
            self.durable_seq = round.stored;
            self.tell_progress();
        }
    }

    /// The round ended without nodes that are needed now.
    fn round_missed(&mut self, missing: NodeSet) {
        let began_without = missing
            .iter()
            .all(|n| self.peers.find(n).is_some_and(|p| p.takes_data()));
        if !began_without {
            return self.flush_failed_once();
        }
        // They began to join after it did: the next round asks them too.
        let Some(round) = self.flush.round.take() else {
            return;
        };
        self.flush.waiting.splice(0..0, round.clients);
        self.flush.wanted = true;
        self.ops.attention = true;
    }

    /// With the fault planted a failed flush is an error once, and then forgotten.
    fn flush_failed_once(&mut self) {
        if !self.may_forget_failed_flush() {
            return;
        }
        let Some(round) = self.flush.round.take() else {
            return;
        };
        for slot in round.clients {
            self.answer(slot, Outcome::Io);
            self.end(slot);
        }
        self.flush.completed = self.flush.started;
        self.ops.attention = true;
    }

    /// Says progress to every peer that takes data, so that it can close log slots.
    fn tell_progress(&mut self) {
        let stamp = self.stamp(self.seq);
        for peer in self.peers.iter().filter(|p| p.takes_data()) {
            let Some(link) = peer.session.data_link() else {
                continue;
            };
            self.actions.push(Action::Send {
                link,
                message: Message::Progress { stamp },
                payload: None,
            });
        }
    }

    /// A primary wants everything confirmed before on stable storage.
    pub(super) fn member_flush(&mut self, link: LinkId, round: u64) {
        if !self.is_disk_usable() {
            let message = Message::FlushAck {
                round,
                status: Status::Io,
            };
            return self.actions.push(Action::Send {
                link,
                message,
                payload: None,
            });
        }
        let index = self.flushes.push(link, round);
        let token = token(Purpose::MemberFlush, 0, index);
        self.actions.push(Action::DiskFlush { token });
    }

    pub(super) fn member_flushed(&mut self, _generation: u32, index: u32, result: DiskResult) {
        let Some((link, round)) = self.flushes.take(index) else {
            return;
        };
        let status = result.map_or_else(Status::from, |()| Status::Ok);
        if let Err(error) = result {
            self.member_disk_failed(error);
        }
        if let Some(node) = self.peers.by_link(link) {
            self.peers.get_mut(node).flushed_here |= status == Status::Ok;
            let message = Message::FlushAck { round, status };
            self.actions.push(Action::Send {
                link,
                message,
                payload: None,
            });
        }
    }

    pub(super) fn peer_disk_failed(&mut self, node: NodeIdx) {
        self.peers.get_mut(node).disk = Disk::Failed;
        self.member_lost(node);
    }
}

/// Flushes under way for a primary: few, found by a small index.
#[derive(Default)]
pub(super) struct MemberFlushes {
    next: u32,
    running: Vec<(u32, LinkId, u64)>,
}

impl MemberFlushes {
    fn push(&mut self, link: LinkId, round: u64) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.running.push((self.next, link, round));
        self.next
    }

    fn take(&mut self, index: u32) -> Option<(LinkId, u64)> {
        let at = self.running.iter().position(|(i, ..)| *i == index)?;
        let (_, link, round) = self.running.swap_remove(at);
        Some((link, round))
    }
}
