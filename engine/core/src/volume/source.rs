//! Resync, the side that has the data: answers what the target pulls, clears bits only on its
//! word, and takes it into S when nothing is left (laws S4, S6, S7).

use std::collections::VecDeque;

use crate::action::{Action, Notice, ReadInto};
use crate::bitmap::Bitmap;
use crate::event::{DiskResult, JobOutcome, LinkId};
use crate::message::{Message, RESYNC_PIECE_GRANULES, RUNS_MAX, Status};
use crate::session::{Session, SessionEvent};
use crate::units::{BufId, Extent, NodeIdx, Term};

use super::meter::Meter;
use super::ops::{Kind, Phase, Purpose};
use super::status::{ResyncFigures, ResyncState};
use super::{Volume, planted};

/// Pieces a target may have asked for and not confirmed.
pub(super) const REQUESTS_MAX: usize = 64;

/// What a source knows of its target.
#[derive(Default)]
pub(super) struct Source {
    requests: VecDeque<Request>,
    newest: u64,
    join: Option<Join>,
    offered: bool,
    pub figures: ResyncFigures,
    pub meter: Meter,
    /// Granules cleared since the bits were last written down.
    unsaved: u64,
}

struct Request {
    id: u64,
    extent: Extent,
    theirs: Held,
    /// It was given to the disk, within the pace.
    is_begun: bool,
    /// We could not read it: its bits stay.
    failed: bool,
    /// These runs of it differ: their bits stay, and they are asked for by themselves.
    differing: Vec<Extent>,
}

/// What the target holds, as it told with its request.
pub(super) enum Held {
    /// Nothing was told: the bytes are wanted.
    Unknown,
    /// One CRC-64/NVME per granule.
    Sums(Vec<u64>),
    /// One strong hash per granule.
    Hashes(Vec<u128>),
}

impl Held {
    fn fits(&self, extent: Extent) -> bool {
        let len = match self {
            Held::Unknown => return true,
            Held::Sums(sums) => sums.len(),
            Held::Hashes(hashes) => hashes.len(),
        };
        len as u64 == extent.granules()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Join {
    /// The attributes and marks of the volume are not all durable there.
    Telling,
    /// What was confirmed without it is still on its way there.
    Draining,
    /// Everything sent so far becomes durable there, by this round.
    Flushing(u64),
    /// The record that names it is on its way.
    Proposed,
    /// In force here; the target writes it down.
    Told,
}

/// Granules (256 MiB) after which cleared bits are written down.
const SAVE_EVERY: u64 = 1 << 16;

/// Runs of granules from `start` on where two lists differ.
pub(super) fn differing<T: PartialEq>(start: u64, mine: &[T], theirs: &[T]) -> Vec<Extent> {
    let mut runs: Vec<Extent> = Vec::new();
    for (at, (a, b)) in (start..).zip(mine.iter().zip(theirs)) {
        match runs.last_mut() {
            _ if a == b => {}
            Some(run) if run.end == at => run.end += 1,
            _ => runs.push(Extent::new(at, at + 1)),
        }
    }
    runs
}

/// The same runs in whole grains of the bitmap, inside the piece.
fn in_grains(runs: &[Extent], grain: u64, within: Extent) -> Vec<Extent> {
    let mut whole: Vec<Extent> = Vec::new();
    for run in runs {
        let start = (run.start - run.start % grain).max(within.start);
        let end = run.end.next_multiple_of(grain).min(within.end);
        match whole.last_mut() {
            Some(last) if last.end >= start => last.end = end,
            _ => whole.push(Extent::new(start, end)),
        }
    }
    whole
}

/// Clears what lies between `kept`, which are runs of the extent in order. Answers the granules
/// that were dirty.
fn clear_around(dirty: &mut Bitmap, extent: Extent, kept: &[Extent]) -> u64 {
    let (mut from, mut cleared) = (extent.start, 0);
    let end = Extent::new(extent.end, extent.end + 1);
    for run in kept.iter().chain([&end]) {
        if from < run.start {
            cleared += dirty.clear(Extent::new(from, run.start));
        }
        from = run.end;
    }
    cleared
}

impl Source {
    /// The oldest request that was not begun.
    fn waiting(&self) -> Option<(u64, Extent)> {
        let found = self.requests.iter().find(|r| !r.is_begun);
        found.map(|r| (r.id, r.extent))
    }

    /// The next confirmation writes the bits down.
    #[cfg(test)]
    pub fn save_soon(&mut self) {
        self.unsaved = SAVE_EVERY;
    }

    /// What it does, as long as nobody paused it.
    pub fn state(&self, is_limited: bool) -> ResyncState {
        match self.meter.rate() {
            _ if self.join.is_some() => ResyncState::Joining,
            _ if is_limited && self.waiting().is_some() => ResyncState::HeldByClients,
            _ if self.meter.is_stalled() => ResyncState::Stalled,
            None => ResyncState::Estimating,
            Some(_) => ResyncState::Moving,
        }
    }

    /// The record that takes it into S was offered.
    pub fn is_joining(&self) -> bool {
        matches!(self.join, Some(Join::Proposed | Join::Told))
    }
}

impl Volume {
    pub(super) fn offer_resync(&mut self, node: NodeIdx) {
        if self.durable.sb.held.has(node) || self.holds_back(node) {
            return;
        }
        let size = self.size;
        let peer = self.peers.get_mut(node);
        peer.source.offered = true;
        let dirty = peer.dirty.count_granules();
        // Comparing pays where much is marked and little may differ.
        let by_checksum = dirty > size / 4 || dirty > 1 << 14;
        self.notice(Notice::ResyncBegan {
            peer: node,
            is_target: false,
            dirty,
        });
        self.say(node, Message::ResyncOffer { dirty, by_checksum });
    }

    pub(super) fn map_request(&mut self, node: NodeIdx, from: u64) {
        let peer = self.peers.get_mut(node);
        if !matches!(peer.session, Session::Source(_)) || !peer.source.offered {
            return self.breach(node);
        }
        if peer.source.join.is_some() {
            return;
        }
        if peer.dirty.is_empty() && peer.source.requests.is_empty() {
            return self.begin_join(node);
        }
        let mut runs = Vec::new();
        let mut next = from;
        while runs.len() < RUNS_MAX {
            let Some(run) = peer.dirty.next_run(next, u64::MAX - next) else {
                break;
            };
            next = run.end;
            runs.push(run);
        }
        let last = runs.len() < RUNS_MAX;
        self.say(node, Message::Map { runs, last });
    }

    pub(super) fn resync_request(&mut self, node: NodeIdx, id: u64, extent: Extent, theirs: Held) {
        let size = self.size;
        let peer = self.peers.get_mut(node);
        let (session, source) = (peer.session, &mut peer.source);
        let is_sound = extent.end <= size
            && extent.granules() <= RESYNC_PIECE_GRANULES
            && theirs.fits(extent)
            && id == source.newest + 1
            && source.requests.len() < REQUESTS_MAX;
        if !matches!(session, Session::Source(_)) || !is_sound {
            return self.breach(node);
        }
        source.newest = id;
        source.requests.push_back(Request {
            id,
            extent,
            theirs,
            is_begun: false,
            failed: false,
            differing: Vec::new(),
        });
        self.ops.attention = true;
    }

    /// Begins what the pace allows, one piece of each target in turn.
    pub(super) fn settle_sources(&mut self) {
        let count = self.peers.nodes().count();
        let mut idle = 0;
        while idle < count {
            let turn = self.source_turn % count;
            let Some(node) = self.peers.nodes().nth(turn) else {
                return;
            };
            let waiting = self.peers.get(node).source.waiting();
            let Some((link, (id, extent))) = self.peers.get(node).source_link().zip(waiting) else {
                self.source_turn += 1;
                idle += 1;
                continue;
            };
            if !self.may_work(extent.bytes()) {
                return;
            }
            self.source_turn += 1;
            idle = 0;
            self.begin_serving(node, id, extent, link);
        }
    }

    fn begin_serving(&mut self, node: NodeIdx, id: u64, extent: Extent, link: LinkId) {
        let requests = &mut self.peers.get_mut(node).source.requests;
        if let Some(request) = requests.iter_mut().find(|r| r.id == id) {
            request.is_begun = true;
        }
        match self.take_internal(Kind::Serve { id }, extent, link) {
            Some(slot) => self.order(slot, false),
            None => self.serve_failed(node, id),
        }
    }

    /// So much background work may be done now (law L5); if not, there will be another look.
    pub(super) fn may_work(&mut self, bytes: u64) -> bool {
        let may = self.pace.may_spend(self.now, bytes);
        if !may {
            self.pace_at = Some(self.pace.ready_at());
        }
        may
    }

    fn serve_failed(&mut self, node: NodeIdx, id: u64) {
        let source = &mut self.peers.get_mut(node).source;
        if let Some(request) = source.requests.iter_mut().find(|r| r.id == id) {
            request.failed = true;
        }
        self.say(node, Message::ResyncFailed { id });
    }

    /// The hold is shared: writes that come later wait, go out behind this answer, and win (S7).
    pub(super) fn start_serving(&mut self, slot: u32) {
        let op = *self.ops.get(slot);
        let Kind::Serve { id } = op.kind else {
            unreachable!("only pieces are served")
        };
        let node = self.peers.by_link(op.link);
        let request = node.and_then(|n| {
            self.peers
                .get(n)
                .source
                .requests
                .iter()
                .find(|r| r.id == id)
        });
        let Some(request) = request else {
            return self.end(slot);
        };
        match request.theirs {
            Held::Unknown => self.read_to_serve(slot, op.extent),
            Held::Sums(_) => self.start_sums(slot),
            Held::Hashes(_) => self.start_hashes(slot, 1),
        }
    }

    fn read_to_serve(&mut self, slot: u32, extent: Extent) {
        let token = self.ops.token(Purpose::Disk, slot);
        let op = self.ops.get_mut(slot);
        (op.phase, op.piece) = (Phase::Out, extent);
        self.actions.push(Action::DiskRead {
            token,
            extent,
            into: ReadInto::Alloc,
        });
    }

    /// What we hold beside what the target holds.
    pub(super) fn serve_compared(&mut self, slot: u32, id: u64, outcome: JobOutcome) {
        let op = *self.ops.get(slot);
        let Some(node) = self.peers.by_link(op.link) else {
            return self.end(slot);
        };
        let peer = self.peers.get_mut(node);
        let grain = peer.dirty.grain();
        let Some(request) = peer.source.requests.iter_mut().find(|r| r.id == id) else {
            return self.end(slot);
        };
        let start = op.extent.start;
        let (runs, is_old) = match (outcome, &request.theirs) {
            (JobOutcome::Sums(mine), Held::Sums(theirs)) => (differing(start, &mine, theirs), true),
            (JobOutcome::Hashes(mine), Held::Hashes(theirs)) => {
                (differing(start, &mine, theirs), false)
            }
            _ => {
                self.serve_failed(node, id);
                return self.end(slot);
            }
        };
        match (runs.first(), runs.last()) {
            (Some(first), Some(last)) if is_old => {
                // It takes one answer: all from the first that differs to the last.
                let extent = Extent::new(first.start, last.end);
                self.read_to_serve(slot, extent);
            }
            (Some(_), _) => {
                let runs = in_grains(&runs, grain, op.extent);
                request.differing.clone_from(&runs);
                self.say(node, Message::ResyncDiffer { id, runs });
                self.end(slot);
            }
            _ => {
                self.say(node, Message::ResyncEqual { id });
                self.end(slot);
            }
        }
    }

    pub(super) fn serve_read(
        &mut self,
        slot: u32,
        id: u64,
        result: DiskResult,
        buf: Option<BufId>,
        is_zero: bool,
    ) {
        let op = *self.ops.get(slot);
        // A buffer comes with an error only where what was read does not match.
        let result = match planted!(self, ResyncSendsBadBlocks) && buf.is_some() {
            true => Ok(()),
            false => result,
        };
        if let Some(node) = self.peers.by_link(op.link) {
            let (link, extent) = (op.link, op.piece);
            match (result, buf) {
                (Ok(()), _) if is_zero => {
                    self.peers.get_mut(node).source.figures.zeroed += extent.granules();
                    self.say(node, Message::ResyncZero { id, extent });
                }
                (Ok(()), Some(_)) => {
                    self.peers.get_mut(node).source.figures.sent += extent.granules();
                    let message = Message::ResyncData { id, extent };
                    self.actions.push(Action::Send {
                        link,
                        message,
                        payload: buf,
                    });
                }
                _ => self.serve_failed(node, id),
            }
            if planted!(self, ClearDirtyOnSend) {
                self.peers.get_mut(node).dirty.clear(op.extent);
            }
        }
        self.release(buf);
        self.end(slot);
    }

    /// The target says: durable and equal. Only now are bits cleared (law S4). A write that came
    /// in between went to the target behind the piece, and stands in both logs.
    pub(super) fn resync_ack(&mut self, node: NodeIdx, id: u64, status: Status) {
        let peer = self.peers.get_mut(node);
        if !matches!(peer.session, Session::Source(_)) || id > peer.source.newest {
            return self.breach(node);
        }
        if status != Status::Ok {
            return self.peer_disk_failed(node);
        }
        let skips = planted!(self, ComparedIsCleared);
        let peer = self.peers.get_mut(node);
        while peer.source.requests.front().is_some_and(|r| r.id <= id) {
            let Some(request) = peer.source.requests.pop_front() else {
                break;
            };
            if request.failed {
                continue;
            }
            let kept = if skips { &[][..] } else { &request.differing };
            let cleared = clear_around(&mut peer.dirty, request.extent, kept);
            peer.source.figures.moved += cleared;
            peer.source.unsaved += cleared;
        }
    }

    /// What is known to be equal is durable now and then, so that a crash of this node does not
    /// begin from the beginning.
    pub(super) fn save_cleared(&mut self, node: NodeIdx) {
        let source = &mut self.peers.get_mut(node).source;
        if source.unsaved >= SAVE_EVERY {
            source.unsaved = 0;
            self.pages.wants_all = true;
            self.ops.attention = true;
        }
    }

    /// Nothing is dirty: from here on its confirmation is needed; what was sent before becomes
    /// durable there by one more round, then S takes it in (law S6).
    fn begin_join(&mut self, node: NodeIdx) {
        if !self.reigns() || self.leaving().has(node) {
            return;
        }
        if !self.knows_marks(node) {
            self.peers.get_mut(node).source.join = Some(Join::Telling);
            return;
        }
        self.joining = self.joining.with(node);
        self.peers.get_mut(node).source.join = Some(match planted!(self, JoinBeforeDurable) {
            true => Join::Flushing(0),
            false => Join::Draining,
        });
        self.ops.attention = true;
    }

    pub(super) fn settle_join(&mut self, node: NodeIdx) {
        let peer = self.peers.get(node);
        match peer.source.join {
            Some(Join::Telling) if self.knows_marks(node) => {
                let is_clean = peer.dirty.is_empty() && peer.disk != crate::message::Disk::Failed;
                self.peers.get_mut(node).source.join = None;
                if is_clean {
                    return self.begin_join(node);
                }
                // What came up meanwhile is pulled first.
                let (runs, last) = (Vec::new(), true);
                self.say(node, Message::Map { runs, last });
            }
            // Its disk failed on the way in, or it is taken away: nothing may wait for it.
            Some(Join::Draining | Join::Flushing(_))
                if peer.disk == crate::message::Disk::Failed || self.leaving().has(node) =>
            {
                self.joining = self.joining.without(node);
                self.peers.get_mut(node).source.join = None;
                self.reconsider_all();
            }
            // The round that makes it durable begins after its last confirmation.
            Some(Join::Draining) if !self.owes_confirmed(node) => {
                self.flush.wanted = true;
                let round = self.flush.started + 1;
                self.peers.get_mut(node).source.join = Some(Join::Flushing(round));
            }
            Some(Join::Flushing(round)) => {
                if self.flush.completed < round {
                    self.flush.wanted |= self.flush.started < round;
                } else if self.durable.change.is_none()
                    && self.role.may_change_set()
                    && self.has_vote_of(node)
                {
                    self.propose(self.in_sync().with(node));
                    self.peers.get_mut(node).source.join = Some(Join::Proposed);
                }
            }
            Some(Join::Proposed) if self.in_sync().has(node) && self.durable.change.is_none() => {
                self.joining = self.joining.without(node);
                self.peers.get_mut(node).source.join = Some(Join::Told);
            }
            _ => {}
        }
    }

    /// Something that counts as confirmed by all of S is not confirmed by `node`: clients were
    /// told of it, or it is a piece of a request whose later pieces are still to come.
    fn owes_confirmed(&self, node: NodeIdx) -> bool {
        self.ops.each().any(|(_, op)| {
            let is_over = op.answered || self.ops.is_confirmed(op.seq);
            op.is_mutation() && is_over && op.pending.has(node)
        })
    }

    /// A member wrote the record down.
    pub(super) fn record_acked(&mut self, node: NodeIdx, term: Term, step: u32) {
        self.offer_acked(node, term, step);
        let is_current = self
            .record()
            .is_some_and(|r| r.term == term && r.step == step);
        if !is_current {
            return;
        }
        let peer = self.peers.get_mut(node);
        peer.record_pending = false;
        if matches!(peer.session, Session::Source(_)) && peer.source.join == Some(Join::Told) {
            let next = peer
                .session
                .next(SessionEvent::Joined)
                .expect("a source may join");
            (peer.session, peer.disk) = (next, crate::message::Disk::UpToDate);
            let figures = std::mem::take(&mut peer.source).figures;
            peer.last_resync = Some(figures);
            self.notice(Notice::ResyncDone {
                peer: node,
                figures,
            });
        }
    }
}
