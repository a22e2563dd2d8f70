//! Verify: compares the copies by a tree of hashes while writes go on (law S10).
//!
//! ```text
//!  piece 1 MiB: one hash ── differs ─► 16 of 64 KiB ── differ ─► 16 of 4 KiB each: what is marked
//! ```
//!
//! Each piece is held shared on the primary until it is decided, so only stable blocks are
//! compared: a write in flight ends before, a later one waits. Pieces are begun at the pace that
//! leaves clients theirs (`pace.rs`), and within the rate of resyncs. What differs is marked, and
//! the peer leaves S: until an operator says whose data is kept, or to be repaired at once where
//! that was said before. A peer of an earlier version is asked for CRC-64 of every granule.

use crate::action::{Action, Answer, CommandError, Job, Notice, VerifyFigures};
use crate::event::{CommandId, JobOutcome, Repair};
use crate::message::{Message, RESYNC_PIECE_GRANULES, Status};
use crate::session::Session;
use crate::units::{Extent, NodeIdx, NodeSet};

use super::allowance::Allowance;
use super::majority::is_minority_anywhere;
use super::meter::Meter;
use super::ops::{Kind, Phase, Purpose};
use super::peer::Peer;
use super::source::differing;
use super::{Volume, planted};

/// Pieces compared at once.
const PIECES_MAX: usize = 4;
/// Granules of the nodes of the tree, from the root of a piece to its leaves.
const LEVELS: [u64; 3] = [RESYNC_PIECE_GRANULES, 16, 1];
/// Differing runs named in the figures.
const RUNS_NAMED: usize = 16;

/// A verify under way, and the figures of the last one.
#[derive(Default)]
pub(super) struct Verifying {
    run: Option<Run>,
    pub figures: VerifyFigures,
    pub failure: Option<CommandError>,
    /// Verifies that compared everything, since this process began.
    pub completed: u64,
    /// Copies that were found to differ, and leave S as soon as it may change.
    leaving: NodeSet,
}

struct Run {
    id: CommandId,
    repair: Repair,
    peers: Vec<NodeIdx>,
    next: u64,
    /// Peers that are still to be asked about the newest piece.
    asking: NodeSet,
    pieces: Vec<Piece>,
    differing: NodeSet,
    next_id: u64,
    allowance: Allowance,
    meter: Meter,
}

struct Piece {
    id: u64,
    peer: NodeIdx,
    extent: Extent,
    /// What is compared now: this part of it, by hashes of so many granules each.
    asked: (Extent, u64),
    mine: Option<Vec<u128>>,
    theirs: Option<Vec<u128>>,
    /// Parts that differ, to be looked at more closely.
    todo: Vec<(Extent, u64)>,
    /// Runs of granules that differ.
    runs: Vec<Extent>,
}

impl Verifying {
    /// Figures while one runs or after it: whether it runs, and what it found.
    pub fn state(&self) -> (bool, &VerifyFigures) {
        (self.run.is_some(), &self.figures)
    }

    /// One runs.
    pub fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// Granules per second of the one that runs; `None` without one, or while it is too early.
    pub fn rate(&self) -> Option<u64> {
        self.run.as_ref()?.meter.rate()
    }
}

impl Volume {
    pub(super) fn start_verify(&mut self, id: CommandId, repair: Repair) {
        let is_in_sync = |p: &&Peer| p.takes_data() && matches!(p.session, Session::InSync(_));
        let in_sync = self.peers.iter().filter(is_in_sync);
        let in_sync: Vec<NodeIdx> = in_sync.map(|p| p.node).collect();
        let missing = self
            .peers
            .iter()
            .map(|p| p.node)
            .find(|n| !in_sync.contains(n));
        let is_foreign = matches!(repair, Repair::From(node) if node != self.me);
        let refusal = match (self.verify.run.is_some(), self.role.is_primary(), missing) {
            (true, ..) => Some(CommandError::InProgress),
            (_, false, _) => Some(CommandError::NotPrimary),
            _ if is_foreign => Some(CommandError::NotPrimary),
            _ if !self.is_disk_usable() => Some(CommandError::DiskFailed),
            (_, _, Some(node)) if self.peers.get(node).session.data_link().is_some() => {
                Some(CommandError::NotInSync(node))
            }
            (_, _, Some(node)) => Some(CommandError::NotConnected(node)),
            _ if in_sync.is_empty() => Some(CommandError::NothingToDo),
            _ if repair == Repair::Majority && in_sync.len() < 2 => Some(CommandError::NoMajority),
            _ => None,
        };
        if let Some(refusal) = refusal {
            return self.reply(id, Err(refusal));
        }
        self.verify.figures = VerifyFigures::default();
        self.verify.failure = None;
        self.verify.run = Some(Run {
            id,
            repair,
            peers: in_sync,
            next: 0,
            asking: NodeSet::EMPTY,
            pieces: Vec::with_capacity(PIECES_MAX),
            differing: NodeSet::EMPTY,
            next_id: 1,
            allowance: Allowance::new(self.now),
            meter: Meter::default(),
        });
        self.ops.attention = true;
    }

    pub(super) fn settle_verify(&mut self) {
        // A copy that failed on the way proves nothing about the others.
        if self.verify.run.is_some() && !self.is_disk_usable() {
            self.verify_failed(CommandError::DiskFailed);
        }
        if self.verify.run.is_some() && !self.role.is_primary() {
            self.verify_failed(CommandError::NotPrimary);
        }
        while self.begin_piece() {}
        self.settle_leaving();
    }

    /// Begins to compare one more piece with one peer, if there is one and it may.
    fn begin_piece(&mut self) -> bool {
        let (size, now, rate) = (self.client_size(), self.now, self.resync_rate);
        let Some(run) = &mut self.verify.run else {
            return false;
        };
        if run.pieces.len() >= PIECES_MAX * run.peers.len() {
            return false;
        }
        if run.asking.is_empty() && run.next >= size {
            if run.pieces.is_empty() {
                self.verify_done();
            }
            return false;
        }
        let start = match run.asking.is_empty() {
            true => run.next,
            false => run.next - 1 - (run.next - 1) % RESYNC_PIECE_GRANULES,
        };
        let extent = Extent::new(start, (start + RESYNC_PIECE_GRANULES).min(size));
        run.allowance.pay(now, rate);
        if !run.allowance.is_open() || !self.may_work(extent.bytes()) {
            return false;
        }
        let Some(run) = &mut self.verify.run else {
            return false;
        };
        run.allowance.take(extent.bytes());
        if run.asking.is_empty() {
            run.next = extent.end;
            run.asking = run.peers.iter().copied().collect();
        }
        if let Some(node) = run.asking.iter().next() {
            run.asking = run.asking.without(node);
            self.compare_piece(node, extent);
        }
        true
    }

    fn compare_piece(&mut self, peer: NodeIdx, extent: Extent) {
        let is_strong = self.peers.get(peer).knows_hashes();
        let Some(run) = &mut self.verify.run else {
            return;
        };
        let id = run.next_id;
        run.next_id += 1;
        let first = if is_strong { LEVELS[0] } else { LEVELS[2] };
        run.pieces.push(Piece {
            id,
            peer,
            extent,
            asked: (extent, first),
            mine: None,
            theirs: None,
            todo: Vec::new(),
            runs: Vec::new(),
        });
        let link = self
            .peers
            .get(peer)
            .session
            .link()
            .unwrap_or(crate::event::LinkId(0));
        match self.take_internal(Kind::Compare { peer, id }, extent, link) {
            Some(slot) => self.order(slot, false),
            None => self.verify_failed(CommandError::InProgress),
        }
    }

    /// The piece is held: both sides look at it now.
    pub(super) fn start_compare(&mut self, slot: u32, peer: NodeIdx, id: u64) {
        let is_strong = self.peers.get(peer).knows_hashes();
        let Some((extent, each)) = self.piece(id).map(|piece| piece.asked) else {
            return self.end(slot);
        };
        let token = self.ops.token(Purpose::Job, slot);
        self.ops.get_mut(slot).phase = Phase::Job;
        let (job, message) = match is_strong {
            true => {
                let each = each as u32;
                let message = Message::HashRequest { id, extent, each };
                (Job::Hashes { extent, each }, message)
            }
            false => (Job::Sums { extent }, Message::SumRequest { id, extent }),
        };
        self.actions.push(Action::Job { token, job });
        self.say(peer, message);
    }

    pub(super) fn compared_here(&mut self, slot: u32, peer: NodeIdx, outcome: JobOutcome) {
        let Kind::Compare { id, .. } = self.ops.get(slot).kind else {
            return;
        };
        self.ops.get_mut(slot).phase = Phase::Out;
        let mine = match outcome {
            JobOutcome::Hashes(hashes) => Some(hashes),
            JobOutcome::Sums(sums) => Some(sums.into_iter().map(u128::from).collect()),
            _ => None,
        };
        match (mine, self.piece(id)) {
            (Some(mine), Some(piece)) => {
                piece.mine = Some(mine);
                self.judge_piece(slot, id);
            }
            _ => {
                self.verify_failed(CommandError::DiskFailed);
                self.end_compare(id, peer);
            }
        }
    }

    pub(super) fn sums_told(&mut self, node: NodeIdx, id: u64, status: Status, sums: Vec<u64>) {
        let hashes = sums.into_iter().map(u128::from).collect();
        self.hashes_told(node, id, status, hashes);
    }

    pub(super) fn hashes_told(
        &mut self,
        node: NodeIdx,
        id: u64,
        status: Status,
        hashes: Vec<u128>,
    ) {
        let Some(piece) = self.piece(id).filter(|p| p.peer == node) else {
            return;
        };
        let (extent, each) = piece.asked;
        if status != Status::Ok || hashes.len() as u64 != extent.granules().div_ceil(each) {
            return self.verify_failed(CommandError::NotConnected(node));
        }
        piece.theirs = Some(hashes);
        let kind = Kind::Compare { peer: node, id };
        if let Some(slot) = self.slot_of(kind) {
            self.judge_piece(slot, id);
        }
    }

    fn piece(&mut self, id: u64) -> Option<&mut Piece> {
        self.verify
            .run
            .as_mut()?
            .pieces
            .iter_mut()
            .find(|p| p.id == id)
    }

    fn slot_of(&self, kind: Kind) -> Option<u32> {
        let found = self.ops.each().find(|(_, op)| op.kind == kind);
        found.map(|(slot, _)| slot)
    }

    /// Both sides told: what differs is looked at more closely, still held, until it is granules.
    fn judge_piece(&mut self, slot: u32, id: u64) {
        let misses_leaves = planted!(self, VerifyTrustsInnerNodes);
        let Some(piece) = self.piece(id) else { return };
        if piece.mine.is_none() || piece.theirs.is_none() {
            return;
        }
        let mine = piece.mine.take().unwrap_or_default();
        let theirs = piece.theirs.take().unwrap_or_default();
        let (extent, each) = piece.asked;
        let nodes = differing(0, &mine, &theirs);
        let parts = nodes.into_iter().map(|run| {
            let (start, end) = (run.start * each, run.end * each);
            Extent::new(extent.start + start, (extent.start + end).min(extent.end))
        });
        if each == 1 {
            piece.runs.extend(parts);
        } else if !misses_leaves {
            let finer = LEVELS.iter().find(|level| **level < each);
            let finer = *finer.expect("the last level is one granule");
            piece.todo.extend(parts.map(|part| (part, finer)));
        }
        if let Some(next) = piece.todo.pop() {
            let peer = piece.peer;
            piece.asked = next;
            return self.start_compare(slot, peer, id);
        }
        self.decide_piece(id);
    }

    /// All of the piece is compared: what differs is counted and marked.
    fn decide_piece(&mut self, id: u64) {
        let Some(piece) = self.piece(id) else { return };
        let (peer, extent) = (piece.peer, piece.extent);
        let runs = std::mem::take(&mut piece.runs);
        self.verify.figures.compared += extent.granules();
        for run in runs {
            self.verify.figures.different += run.granules();
            if self.verify.figures.runs.len() < RUNS_NAMED {
                self.verify.figures.runs.push(run);
            }
            if let Some(verify) = &mut self.verify.run {
                verify.differing = verify.differing.with(peer);
            }
            self.peers.get_mut(peer).dirty.set(run);
            self.notice(Notice::Difference { peer, extent: run });
        }
        self.end_compare(id, peer);
    }

    fn end_compare(&mut self, id: u64, peer: NodeIdx) {
        if let Some(run) = &mut self.verify.run {
            run.pieces.retain(|p| p.id != id);
        }
        if let Some(slot) = self.slot_of(Kind::Compare { peer, id }) {
            self.end(slot);
        }
        self.ops.attention = true;
    }

    /// Looks how far it is.
    pub(super) fn meter_verify(&mut self) {
        let (now, compared) = (self.now, self.verify.figures.compared);
        let is_limiting = self.pace.is_limiting();
        if let Some(run) = &mut self.verify.run {
            run.meter.look(now, compared, is_limiting);
        }
    }

    /// Bits are set; whoever differs leaves S, to be repaired or to wait for an operator.
    fn verify_done(&mut self) {
        if self.durable.change.is_some() {
            return;
        }
        let Some(run) = self.verify.run.take() else {
            return;
        };
        let is_repaired = match run.repair {
            Repair::No => false,
            Repair::From(_) => true,
            Repair::Majority => {
                let bits = run.peers.iter().map(|node| &self.peers.get(*node).dirty);
                !is_minority_anywhere(&bits.collect::<Vec<_>>())
            }
        };
        self.set_apart(run.differing, is_repaired);
        self.settle_leaving();
        self.verify.figures.is_repairing = is_repaired && !run.differing.is_empty();
        self.verify.completed += 1;
        let figures = self.verify.figures.clone();
        self.reply(run.id, Ok(Answer::Verify(figures)));
    }

    /// It ends without having compared everything. What it found until then stands: such a copy
    /// stays in S no longer.
    fn verify_failed(&mut self, why: CommandError) {
        let Some(run) = self.verify.run.take() else {
            return;
        };
        self.verify.failure = Some(why.clone());
        for piece in run.pieces {
            self.end_compare(piece.id, piece.peer);
        }
        // Where not every copy was compared nobody knows a majority.
        let is_repaired = matches!(run.repair, Repair::From(_));
        self.set_apart(run.differing, is_repaired);
        self.reply(run.id, Err(why));
    }

    /// These copies differ from this one, which is good for all anybody knows.
    fn set_apart(&mut self, differing: NodeSet, is_repaired: bool) {
        if differing.is_empty() || !self.may_set_apart() {
            return;
        }
        if !is_repaired {
            self.durable.sb.held = self.durable.sb.held.or(differing);
            self.durable.touch();
        }
        self.verify.leaving = self.verify.leaving.or(differing);
        self.ops.attention = true;
    }

    /// One change of S at a time (law T4): whoever differs leaves with the next one.
    fn settle_leaving(&mut self) {
        if self.verify.leaving.is_empty() || self.durable.change.is_some() {
            return;
        }
        let leaving = std::mem::take(&mut self.verify.leaving);
        let next = self.in_sync().minus(leaving);
        if self.may_set_apart() && next != self.in_sync() && next.has(self.me) {
            self.propose(next);
        }
    }

    /// It reigns, and its own copy is one of those that stay.
    fn may_set_apart(&self) -> bool {
        self.reigns() && self.role.is_serving() && self.is_disk_usable()
    }

    pub(super) fn verify_lost(&mut self, node: NodeIdx) {
        if self
            .verify
            .run
            .as_ref()
            .is_some_and(|r| r.peers.contains(&node))
        {
            self.verify_failed(CommandError::NotConnected(node));
        }
    }
}
