//! Resync, the side that lacks data: marks itself Inconsistent, pulls what the source names,
//! writes it under a hold, and confirms what is durable (laws S7, S8, S9).
//!
//! ```text
//!  Offer ─► Inconsistent durable ─► MapRequest ─► Map ─► hashes ─► ResyncAsk … ─► Equal ──┐
//!     ▲                                              │ one granule        └─► Differ{runs} │
//!     │                                              └─► ResyncRequest ◄─────────┘         │
//!     │                                                    └─► Data / Zero ── stored ──────┤
//!     └── MapRequest{0} again until the source has nothing left ◄── ResyncAck ◄── flushed ─┘
//! ```
//!
//! Equal blocks never travel, and holes stay holes: what both sides hold is compared first, by
//! strong hashes, and only the runs that differ are asked for. A source of an earlier version
//! compares by CRC-64 and answers with all from the first granule that differs to the last.

use std::collections::VecDeque;

use crate::action::{Action, Notice};
use crate::event::{DiskResult, JobOutcome};
use crate::message::{Disk, Message, RESYNC_PIECE_GRANULES, RUNS_MAX, Status, Zeroing};
use crate::session::Session;
use crate::time::Instant;
use crate::units::{BufId, Extent, NodeIdx};

use super::allowance::Allowance;
use super::meter::Meter;
use super::ops::{Kind, Phase, Purpose, token};
use super::status::{ResyncFigures, ResyncState};
use super::window::{Ask, PIECE, Window};
use super::{Volume, planted};

/// Requests under way at once, however small; their bytes are bounded by the window.
const PULLS_MAX: usize = super::source::REQUESTS_MAX;
/// A compared byte counts as so much less than one that travels, where a rate is set.
const COMPARED: u64 = 16;
/// How long a pass that could not read something waits before it is tried again.
const RETRY_PASS: std::time::Duration = std::time::Duration::from_secs(1);

/// What a target knows of its pull.
#[derive(Default)]
pub(super) struct Target {
    offer: Option<Offer>,
    map: VecDeque<Extent>,
    /// Runs that were compared and differ: asked for before the map goes on.
    differing: VecDeque<Extent>,
    window: Window,
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
    ready: Vec<(u64, Message)>,
    /// A flush under way: its number, and the newest piece it covers.
    flushing: Option<(u32, u64)>,
    allowance: Allowance,
    pub progress: Progress,
    pub meter: Meter,
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

#[derive(Clone, Copy)]
struct Pull {
    id: u64,
    extent: Extent,
    state: State,
    ask: Ask,
    asked_at: Instant,
    /// Its checksums are on disk once all that changed up to here is.
    sums: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Our own sums are being taken.
    Summing,
    Asked,
    Storing,
    Stored,
}

impl Target {
    /// Bytes asked for and not yet stored and durable.
    fn bytes_out(&self) -> u64 {
        self.pulls.iter().map(Pull::bytes).sum()
    }

    /// What it knows of what it took.
    pub fn figures(&self) -> ResyncFigures {
        ResyncFigures {
            moved: self.progress.moved,
            ..ResyncFigures::default()
        }
    }

    /// What it does, as long as nobody paused it.
    pub fn state(&self) -> ResyncState {
        match self.meter.rate() {
            _ if !self.allowance.is_open() => ResyncState::HeldByRate,
            _ if self.progress.moved >= self.progress.total && self.pulls.is_empty() => {
                ResyncState::Joining
            }
            _ if self.wait_until.is_some() || self.meter.is_stalled() => ResyncState::Stalled,
            None => ResyncState::Estimating,
            Some(_) => ResyncState::Moving,
        }
    }
}

impl Pull {
    fn bytes(&self) -> u64 {
        self.extent.bytes()
    }

    fn is_asked(&self, id: u64) -> bool {
        self.id == id && self.state == State::Asked
    }

    /// It was answered: what that took says how much to ask for.
    fn tell(&self, window: &mut Window, now: Instant) {
        if self.bytes() >= PIECE / 2 {
            window.answered(self.ask, now.since(self.asked_at));
        }
    }
}

/// Takes at most a piece off the front.
fn cut_piece(queue: &mut VecDeque<Extent>) -> Option<Extent> {
    let run = queue.pop_front()?;
    let end = run.end.min(run.start + RESYNC_PIECE_GRANULES);
    if end < run.end {
        queue.push_front(Extent::new(end, run.end));
    }
    Some(Extent::new(run.start, end))
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
        target.allowance = Allowance::new(now);
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

    /// Bytes per second that operators of both nodes allow; 0 is no limit.
    pub(super) fn resync_limit(&self, node: NodeIdx) -> u64 {
        match (self.resync_rate, self.peers.get(node).wish.rate) {
            (0, rate) | (rate, 0) => rate,
            (mine, theirs) => mine.min(theirs),
        }
    }

    fn pay(&mut self, node: NodeIdx) {
        let rate = self.resync_limit(node);
        let now = self.now;
        self.peers.get_mut(node).target.allowance.pay(now, rate);
    }

    fn pull_one(&mut self, node: NodeIdx, offer: Offer) -> bool {
        let now = self.now;
        let peer = self.peers.get_mut(node);
        let (session, is_strong) = (peer.session, peer.knows_hashes());
        let target = &mut peer.target;
        let is_full =
            target.pulls.len() >= PULLS_MAX || target.bytes_out() >= target.window.bytes();
        if is_full || !target.allowance.is_open() || target.map_asked {
            return false;
        }
        let (queue, ask) = match (target.differing.is_empty(), target.map.front()) {
            (false, _) => (&mut target.differing, Ask::Data),
            // One granule was marked because it was written: it differs.
            (true, Some(run)) if is_strong && run.granules() > 1 => (&mut target.map, Ask::Compare),
            (true, Some(_)) if !is_strong && offer.by_checksum => (&mut target.map, Ask::Compare),
            (true, Some(_)) => (&mut target.map, Ask::Data),
            (true, None) => return self.next_map(node, now),
        };
        let Some(extent) = cut_piece(queue) else {
            return false;
        };
        target.newest += 1;
        // What is only compared does not travel; it is read on both sides.
        target.allowance.take(match ask {
            Ask::Compare => extent.bytes() / COMPARED,
            Ask::Data => extent.bytes(),
        });
        let id = target.newest;
        target.pulls.push_back(Pull {
            id,
            extent,
            state: match ask {
                Ask::Compare => State::Summing,
                Ask::Data => State::Asked,
            },
            ask,
            asked_at: now,
            sums: 0,
        });
        let plain = Message::ResyncRequest {
            id,
            extent,
            sums: Vec::new(),
        };
        let link = session.link().filter(|_| ask == Ask::Compare);
        let kind = Kind::Pull {
            id,
            is_old: !is_strong,
        };
        match link.and_then(|link| self.take_internal(kind, extent, link)) {
            Some(slot) => self.order(slot, false),
            None => self.request_in_turn(node, id, plain),
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

    pub(super) fn pull_compared(&mut self, slot: u32, id: u64, outcome: JobOutcome) {
        let op = *self.ops.get(slot);
        self.end(slot);
        self.ops.attention = true;
        let Some(node) = self.peers.by_link(op.link) else {
            return;
        };
        let extent = op.extent;
        let message = match outcome {
            JobOutcome::Hashes(hashes) => Message::ResyncAsk { id, extent, hashes },
            JobOutcome::Sums(sums) => Message::ResyncRequest { id, extent, sums },
            // Unreadable here: the source's bytes go over it, or the write fails the disk.
            _ => Message::ResyncRequest {
                id,
                extent,
                sums: Vec::new(),
            },
        };
        self.request_in_turn(node, id, message);
    }

    /// Requests go out in the order of their numbers: hashes may be taken out of order.
    fn request_in_turn(&mut self, node: NodeIdx, id: u64, message: Message) {
        let now = self.now;
        let target = &mut self.peers.get_mut(node).target;
        target.ready.push((id, message));
        target.ready.sort_unstable_by_key(|(id, _)| *id);
        let mut due = Vec::new();
        while target
            .ready
            .first()
            .is_some_and(|(id, _)| *id == target.asked + 1)
        {
            target.asked += 1;
            due.push(target.ready.remove(0).1);
            let asked = target.asked;
            if let Some(pull) = target.pulls.iter_mut().find(|p| p.id == asked) {
                (pull.state, pull.asked_at) = (State::Asked, now);
            }
        }
        for message in due {
            self.say(node, message);
        }
    }

    pub(super) fn resync_data(
        &mut self,
        node: NodeIdx,
        id: u64,
        extent: Extent,
        buf: Option<BufId>,
    ) {
        let now = self.now;
        let peer = self.peers.get_mut(node);
        let target = &mut peer.target;
        let pull = target.pulls.iter_mut().find(|p| p.is_asked(id));
        let pull = pull.filter(|p| p.extent.contains(extent));
        let (Session::Target(link), Some(pull)) = (peer.session, pull) else {
            self.release(buf);
            return self.breach(node);
        };
        pull.state = State::Storing;
        pull.tell(&mut target.window, now);
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
        let now = self.now;
        let target = &mut self.peers.get_mut(node).target;
        let Some(pull) = target.pulls.iter().find(|p| p.is_asked(id)).copied() else {
            return self.breach(node);
        };
        pull.tell(&mut target.window, now);
        target.pass_failed |= !is_equal;
        let extent = pull.extent;
        self.pull_ended(node, id);
        if !is_equal {
            let progress = &mut self.peers.get_mut(node).target.progress;
            progress.moved = progress.moved.saturating_sub(extent.granules());
        }
    }

    /// The source holds something else in these runs: they are asked for next.
    pub(super) fn resync_differ(&mut self, node: NodeIdx, id: u64, runs: &[Extent]) {
        let now = self.now;
        let target = &mut self.peers.get_mut(node).target;
        let asked = |p: &&Pull| p.is_asked(id) && p.ask == Ask::Compare;
        let Some(pull) = target.pulls.iter().find(asked) else {
            return self.breach(node);
        };
        let is_sound = runs.iter().all(|run| pull.extent.contains(*run))
            && runs.windows(2).all(|pair| pair[0].end < pair[1].start);
        if !is_sound {
            return self.breach(node);
        }
        pull.tell(&mut target.window, now);
        target.differing.extend(runs);
        // What differs is moved by its own request.
        let later: u64 = runs.iter().map(|run| run.granules()).sum();
        self.pull_ended(node, id);
        let progress = &mut self.peers.get_mut(node).target.progress;
        progress.moved = progress.moved.saturating_sub(later);
    }

    fn pull_ended(&mut self, node: NodeIdx, id: u64) {
        let sums = self.checksums.clock();
        let target = &mut self.peers.get_mut(node).target;
        if let Some(pull) = target.pulls.iter_mut().find(|p| p.id == id) {
            (pull.state, pull.sums) = (State::Stored, sums);
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
        let bytes: u64 = target.pulls.iter().take(stored).map(Pull::bytes).sum();
        let is_enough = stored * 2 >= PULLS_MAX
            || bytes * 2 >= target.window.bytes()
            || stored == target.pulls.len();
        if stored == 0 || !is_enough || target.flushing.is_some() {
            return;
        }
        let upto = target.pulls[stored - 1].id;
        // What it reports durable is so with its checksums: no log speaks of these blocks.
        let sums = &mut self.checksums;
        let pulls = target.pulls.iter().take(stored);
        // Each is looked at, so that all missing pages are written at once.
        let late = pulls.filter(|p| !sums.is_durable_since(p.extent, p.sums));
        if late.count() > 0 {
            return;
        }
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

    /// Looks how far the resync with this peer is.
    pub(super) fn meter_resync(&mut self, node: NodeIdx) {
        let is_paused = self.is_resync_paused(node);
        let (now, is_limiting) = (self.now, self.pace.is_limiting());
        let peer = self.peers.get_mut(node);
        match peer.session {
            Session::Source(_) => {
                let source = &mut peer.source;
                let is_held = is_paused || source.state(is_limiting).is_held();
                source.meter.look(now, source.figures.moved, is_held);
            }
            Session::Target(_) => {
                let target = &mut peer.target;
                let is_held = is_paused || target.state().is_held();
                target.meter.look(now, target.progress.moved, is_held);
            }
            _ => {}
        }
    }
}
