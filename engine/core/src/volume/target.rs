//! Resync, the side that lacks data: marks itself Inconsistent, pulls what the source names,
//! writes it under a hold, and confirms what is durable (laws S7, S8, S9).
//!
//! ```text
//!  Offer ─► Inconsistent durable ─► MapRequest ─► Map ─► [sums] ─► ResyncRequest … ─► Data/Zero/Equal
//!     ▲                                                                │ stored, flushed
//!     └── MapRequest{0} again until the source has nothing left ◄──────┴─► ResyncAck
//! ```

use std::collections::VecDeque;

use crate::action::{Action, Answer, CommandError, Notice};
use crate::event::{CommandId, DiskResult, JobOutcome};
use crate::message::{Disk, Message, RESYNC_PIECE_GRANULES, RUNS_MAX, Status, Zeroing};
use crate::session::Session;
use crate::time::Instant;
use crate::units::{BufId, Extent, GRANULE, NodeIdx};

use super::ops::{Kind, Phase, Purpose, token};
use super::{Volume, planted};

/// Pieces under way at once: 16 MiB cover a round trip on any LAN.
const PULLS_MAX: usize = 16;
/// How long a pass that could not read something waits before it is tried again.
const RETRY_PASS: std::time::Duration = std::time::Duration::from_secs(1);

/// What a target knows of its pull.
#[derive(Default)]
pub(super) struct Target {
    offer: Option<Offer>,
    map: VecDeque<Extent>,
    map_is_last: bool,
    map_asked: bool,
    next_from: u64,
    /// A pass over the map has begun.
    in_pass: bool,
    pass_failed: bool,
    wait_until: Option<Instant>,
    newest: u64,
    pulls: VecDeque<Pull>,
    /// Numbers up to here were asked for; later ones whose sums came early wait their turn.
    asked: u64,
    ready: Vec<(u64, Extent, Vec<u64>)>,
    /// A flush under way: its number, and the newest piece it covers.
    flushing: Option<(u32, u64)>,
    /// Bytes the rate limit has paid for, and when it last paid.
    budget: u64,
    paid_at: Instant,
    pub progress: Progress,
}

/// Figures for people.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Granules to move at the start of this session.
    pub total: u64,
    /// Granules moved in this session.
    pub moved: u64,
}

#[derive(Clone, Copy)]
struct Offer {
    by_checksum: bool,
    /// Superblock version that says Inconsistent.
    gate: u64,
}

struct Pull {
    id: u64,
    extent: Extent,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Our own sums are being taken.
    Summing,
    Asked,
    Storing,
    Stored,
}

impl Volume {
    pub(super) fn resync_offer(&mut self, node: NodeIdx, dirty: u64, by_checksum: bool) {
        if !matches!(self.peers.get(node).session, Session::Target(_)) {
            return self.breach(node);
        }
        // Nothing differs: the copy stays whole until the record names it again.
        if dirty > 0 && self.disk() != Disk::Inconsistent && !planted!(self, TargetNotInconsistent)
        {
            self.durable.sb.disk = Disk::Inconsistent;
            self.durable.touch();
        }
        let gate = self.durable.newest_version();
        let now = self.now;
        let target = &mut self.peers.get_mut(node).target;
        target.offer = Some(Offer { by_checksum, gate });
        target.progress = Progress {
            total: dirty,
            moved: 0,
        };
        target.paid_at = now;
        self.notice(Notice::ResyncBegan {
            peer: node,
            is_target: true,
            dirty,
        });
    }

    pub(super) fn map(&mut self, node: NodeIdx, runs: Vec<Extent>, last: bool) {
        let size = self.size;
        let target = &mut self.peers.get_mut(node).target;
        if !target.map_asked || runs.len() > RUNS_MAX || runs.iter().any(|r| r.end > size) {
            return self.breach(node);
        }
        target.map_asked = false;
        target.map_is_last = last;
        target.next_from = runs.last().map_or(size, |r| r.end);
        target.map.extend(runs);
    }

    /// Asks for as much as window, rate and map allow.
    pub(super) fn settle_target(&mut self, node: NodeIdx) {
        let peer = self.peers.get(node);
        if !matches!(peer.session, Session::Target(_)) {
            return;
        }
        let is_paused = self.resync_paused || peer.wish.paused;
        let Some(offer) = self.peers.get(node).target.offer else {
            return;
        };
        if !self.durable.is_durable(offer.gate) || self.disk() == Disk::Failed {
            return;
        }
        self.pay(node);
        while !is_paused && self.pull_one(node, offer) {}
        self.flush_stored(node);
    }

    fn pay(&mut self, node: NodeIdx) {
        let now = self.now;
        let rate = match (self.resync_rate, self.peers.get(node).wish.rate) {
            (0, rate) | (rate, 0) => rate,
            (mine, theirs) => mine.min(theirs),
        };
        let target = &mut self.peers.get_mut(node).target;
        let piece = RESYNC_PIECE_GRANULES * GRANULE;
        if rate == 0 {
            target.budget = u64::MAX / 2;
        } else {
            let nanos = now.since(target.paid_at).as_nanos();
            let paid = u128::from(rate) * nanos / 1_000_000_000;
            let paid = u64::try_from(paid).unwrap_or(u64::MAX);
            // At most a quarter of a second ahead, and always one piece.
            let most = (rate / 4).max(piece);
            target.budget = target.budget.saturating_add(paid).min(most);
        }
        target.paid_at = now;
    }

    fn pull_one(&mut self, node: NodeIdx, offer: Offer) -> bool {
        let now = self.now;
        let target = &mut self.peers.get_mut(node).target;
        let piece = RESYNC_PIECE_GRANULES * GRANULE;
        if target.pulls.len() >= PULLS_MAX || target.budget < piece || target.map_asked {
            return false;
        }
        let Some(run) = target.map.pop_front() else {
            return self.next_map(node, now);
        };
        let end = run.end.min(run.start + RESYNC_PIECE_GRANULES);
        let extent = Extent::new(run.start, end);
        if end < run.end {
            target.map.push_front(Extent::new(end, run.end));
        }
        target.newest += 1;
        target.budget -= extent.bytes();
        let id = target.newest;
        let state = if offer.by_checksum {
            State::Summing
        } else {
            State::Asked
        };
        target.pulls.push_back(Pull { id, extent, state });
        if !offer.by_checksum {
            self.request_with(node, id, extent, Vec::new());
            return true;
        }
        let Some(link) = self.peers.get(node).session.link() else {
            return false;
        };
        match self.take_internal(Kind::Pull { id }, extent, link) {
            Some(slot) => self.order(slot, false),
            None => self.request_with(node, id, extent, Vec::new()),
        }
        true
    }

    /// The map is worked off: the next part of it, or the next pass once all is confirmed.
    fn next_map(&mut self, node: NodeIdx, now: Instant) -> bool {
        let target = &mut self.peers.get_mut(node).target;
        if target.in_pass && target.map_is_last {
            if !target.pulls.is_empty() {
                return false;
            }
            target.in_pass = false;
            if std::mem::take(&mut target.pass_failed) {
                target.wait_until = Some(now.after(RETRY_PASS));
            }
        }
        if target.wait_until.is_some_and(|at| at > now) {
            return false;
        }
        target.wait_until = None;
        let from = if target.in_pass { target.next_from } else { 0 };
        (target.in_pass, target.map_asked, target.map_is_last) = (true, true, false);
        self.say(node, Message::MapRequest { from });
        false
    }

    pub(super) fn pull_with_sums(&mut self, slot: u32, id: u64, outcome: JobOutcome) {
        let op = *self.ops.get(slot);
        self.end(slot);
        self.ops.attention = true;
        let Some(node) = self.peers.by_link(op.link) else {
            return;
        };
        match outcome {
            JobOutcome::Sums(sums) => self.request_with(node, id, op.extent, sums),
            // Unreadable here: the source's bytes go over it, or the write fails the disk.
            _ => self.request_with(node, id, op.extent, Vec::new()),
        }
    }

    /// Requests go out in the order of their numbers: sums may be taken out of order.
    fn request_with(&mut self, node: NodeIdx, id: u64, extent: Extent, sums: Vec<u64>) {
        let target = &mut self.peers.get_mut(node).target;
        let Some(pull) = target.pulls.iter_mut().find(|p| p.id == id) else {
            return;
        };
        pull.state = State::Asked;
        target.ready.push((id, extent, sums));
        target.ready.sort_unstable_by_key(|(id, ..)| *id);
        let mut due = Vec::new();
        while target
            .ready
            .first()
            .is_some_and(|(id, ..)| *id == target.asked + 1)
        {
            target.asked += 1;
            due.push(target.ready.remove(0));
        }
        for (id, extent, sums) in due {
            self.say(node, Message::ResyncRequest { id, extent, sums });
        }
    }

    pub(super) fn resync_data(
        &mut self,
        node: NodeIdx,
        id: u64,
        extent: Extent,
        buf: Option<BufId>,
    ) {
        let peer = self.peers.get_mut(node);
        let pull = peer
            .target
            .pulls
            .iter_mut()
            .find(|p| p.id == id && p.state == State::Asked);
        let pull = pull.filter(|p| p.extent.contains(extent));
        let (Session::Target(link), Some(pull)) = (peer.session, pull) else {
            self.release(buf);
            return self.breach(node);
        };
        pull.state = State::Storing;
        let Some(slot) = self.take_internal(Kind::Store { id, buf }, extent, link) else {
            self.release(buf);
            return self.breach(node);
        };
        let op = self.ops.get_mut(slot);
        (op.piece_buf, op.piece_buf_owned) = (buf, buf.is_some());
        self.order(slot, true);
    }

    pub(super) fn start_store(&mut self, slot: u32) {
        let op = *self.ops.get(slot);
        let token = self.ops.token(Purpose::Disk, slot);
        self.ops.get_mut(slot).phase = Phase::Out;
        let (extent, durable) = (op.extent, false);
        self.actions.push(match op.piece_buf {
            Some(buf) => Action::DiskWrite {
                token,
                extent,
                buf,
                durable,
            },
            None => Action::DiskZero {
                token,
                extent,
                zeroing: Zeroing::MayTrim,
                durable,
            },
        });
    }

    pub(super) fn stored(&mut self, slot: u32, id: u64, result: DiskResult) {
        let link = self.ops.get(slot).link;
        self.end_member(slot);
        self.ops.attention = true;
        if let Err(error) = result {
            self.member_disk_failed(error);
        }
        let Some(node) = self.peers.by_link(link) else {
            return;
        };
        if let Err(error) = result {
            return self.say(
                node,
                Message::ResyncAck {
                    id: 0,
                    status: Status::from(error),
                },
            );
        }
        self.pull_ended(node, id);
    }

    /// The source holds the same, or could not read it.
    pub(super) fn resync_equal(&mut self, node: NodeIdx, id: u64, is_equal: bool) {
        let target = &mut self.peers.get_mut(node).target;
        if !target
            .pulls
            .iter()
            .any(|p| p.id == id && p.state == State::Asked)
        {
            return self.breach(node);
        }
        target.pass_failed |= !is_equal;
        self.pull_ended(node, id);
    }

    fn pull_ended(&mut self, node: NodeIdx, id: u64) {
        let target = &mut self.peers.get_mut(node).target;
        if let Some(pull) = target.pulls.iter_mut().find(|p| p.id == id) {
            pull.state = State::Stored;
            target.progress.moved += pull.extent.granules();
        }
    }

    /// One flush confirms many pieces: when half the window is stored, or nothing else moves.
    fn flush_stored(&mut self, node: NodeIdx) {
        let skip = planted!(self, JoinBeforeDurable);
        let target = &mut self.peers.get_mut(node).target;
        let stored = target
            .pulls
            .iter()
            .take_while(|p| p.state == State::Stored)
            .count();
        let is_enough = stored * 2 >= PULLS_MAX || stored == target.pulls.len();
        if stored == 0 || !is_enough || target.flushing.is_some() {
            return;
        }
        let upto = target.pulls[stored - 1].id;
        // Numbers outlive sessions: one that was begun for an earlier session proves nothing here.
        self.resync_flushes = (self.resync_flushes + 1) & 0xFF_FFFF;
        let number = self.resync_flushes;
        self.peers.get_mut(node).target.flushing = Some((number, upto));
        if skip {
            return self.resync_flushed(number, u32::from(node.0), Ok(()));
        }
        let token = token(Purpose::ResyncFlush, number, u32::from(node.0));
        self.actions.push(Action::DiskFlush { token });
    }

    pub(super) fn resync_flushed(&mut self, number: u32, index: u32, result: DiskResult) {
        let node = NodeIdx(index as u8);
        self.ops.attention = true;
        if let Err(error) = result {
            self.member_disk_failed(error);
        }
        let Some(peer) = self.peers.find_mut(node) else {
            return;
        };
        let Some((_, upto)) = peer.target.flushing.take_if(|(n, _)| *n == number) else {
            return;
        };
        while peer.target.pulls.front().is_some_and(|p| p.id <= upto) {
            peer.target.pulls.pop_front();
        }
        let status = result.map_or_else(Status::from, |()| Status::Ok);
        self.say(node, Message::ResyncAck { id: upto, status });
    }

    /// Pause and rate hold wherever they are asked: the target obeys its own and its source's.
    pub(super) fn resync_pause(&mut self, id: CommandId, paused: bool) {
        let was = std::mem::replace(&mut self.resync_paused, paused);
        self.tell_wishes();
        self.reply(
            id,
            Ok(if was == paused {
                Answer::Already
            } else {
                Answer::Ok
            }),
        );
    }

    pub(super) fn set_resync_rate(&mut self, id: CommandId, rate: u64) {
        self.resync_rate = rate;
        self.tell_wishes();
        self.reply(id, Ok(Answer::Ok));
    }

    fn tell_wishes(&mut self) {
        for node in self.peers.nodes() {
            if matches!(
                self.peers.get(node).session,
                Session::Source(_) | Session::Target(_)
            ) {
                self.say_wish(node);
            }
        }
        self.ops.attention = true;
    }

    /// A session of a resync begins: the other side knows only the usual wishes.
    pub(super) fn tell_wish(&mut self, node: NodeIdx) {
        let is_resync = matches!(
            self.peers.get(node).session,
            Session::Source(_) | Session::Target(_)
        );
        if is_resync && (self.resync_paused || self.resync_rate != 0) {
            self.say_wish(node);
        }
    }

    fn say_wish(&mut self, node: NodeIdx) {
        let (paused, rate) = (self.resync_paused, self.resync_rate);
        self.say(node, Message::ResyncPause { paused, rate });
    }

    /// An operator decided whose data is kept after a verify.
    pub(super) fn resync_start(&mut self, id: CommandId, from: NodeIdx) {
        if from != self.me {
            return self.reply(id, Err(CommandError::NotPrimary));
        }
        let held = self.durable.sb.held;
        if held.is_empty() {
            return self.reply(id, Err(CommandError::NothingToDo));
        }
        self.durable.sb.held = crate::units::NodeSet::EMPTY;
        self.durable.touch();
        for node in held.iter() {
            let is_source = |p: &super::peer::Peer| matches!(p.session, Session::Source(_));
            if self.peers.find(node).is_some_and(is_source) {
                self.offer_resync(node);
            }
        }
        self.ops.attention = true;
        self.reply(id, Ok(Answer::Ok));
    }
}
