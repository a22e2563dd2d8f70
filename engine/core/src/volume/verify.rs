//! Verify: compares the copies granule by granule while writes go on (law S10).
//!
//! Each piece is held shared on the primary until both sums are there, so only stable blocks are
//! compared: a write in flight ends before, a later one waits. What differs is marked, and the
//! peer leaves S until an operator says whose data is kept.

use crate::action::{Answer, CommandError, Notice, VerifyFigures};
use crate::event::{CommandId, JobOutcome};
use crate::message::{Message, RESYNC_PIECE_GRANULES, Status};
use crate::session::Session;
use crate::units::{Extent, NodeIdx, NodeSet};

use super::Volume;
use super::ops::{Kind, Phase};

/// Pieces compared at once.
const PIECES_MAX: usize = 4;
/// Differing runs named in the figures.
const RUNS_NAMED: usize = 16;

/// A verify under way, and the figures of the last one.
#[derive(Default)]
pub(super) struct Verifying {
    run: Option<Run>,
    pub figures: VerifyFigures,
    pub failure: Option<CommandError>,
}

struct Run {
    id: CommandId,
    peers: Vec<NodeIdx>,
    next: u64,
    pieces: Vec<Piece>,
    differing: NodeSet,
    next_id: u64,
}

struct Piece {
    id: u64,
    peer: NodeIdx,
    extent: Extent,
    mine: Option<Vec<u64>>,
    theirs: Option<Vec<u64>>,
}

impl Verifying {
    /// Figures while one runs or after it: whether it runs, and what it found.
    pub fn state(&self) -> (bool, &VerifyFigures) {
        (self.run.is_some(), &self.figures)
    }
}

impl Volume {
    pub(super) fn start_verify(&mut self, id: CommandId) {
        let peers: Vec<NodeIdx> = self
            .peers
            .iter()
            .filter(|p| p.takes_data())
            .map(|p| p.node)
            .collect();
        let in_sync: Vec<NodeIdx> = peers
            .into_iter()
            .filter(|n| matches!(self.peers.get(*n).session, Session::InSync(_)))
            .collect();
        let missing = self
            .peers
            .iter()
            .map(|p| p.node)
            .find(|n| !in_sync.contains(n));
        let refusal = match (self.verify.run.is_some(), self.role.is_primary(), missing) {
            (true, ..) => Some(CommandError::InProgress),
            (_, false, _) => Some(CommandError::NotPrimary),
            _ if !self.is_disk_usable() => Some(CommandError::DiskFailed),
            (_, _, Some(node)) => Some(CommandError::NotConnected(node)),
            _ if in_sync.is_empty() => Some(CommandError::NothingToDo),
            _ => None,
        };
        if let Some(refusal) = refusal {
            return self.reply(id, Err(refusal));
        }
        self.verify.figures = VerifyFigures::default();
        self.verify.failure = None;
        self.verify.run = Some(Run {
            id,
            peers: in_sync,
            next: 0,
            pieces: Vec::with_capacity(PIECES_MAX),
            differing: NodeSet::EMPTY,
            next_id: 1,
        });
        self.ops.attention = true;
    }

    pub(super) fn settle_verify(&mut self) {
        // A copy that failed on the way proves nothing about the others.
        if self.verify.run.is_some() && !self.is_disk_usable() {
            return self.verify_failed(CommandError::DiskFailed);
        }
        let size = self.client_size();
        while let Some(run) = &mut self.verify.run {
            if run.pieces.len() >= PIECES_MAX * run.peers.len() {
                return;
            }
            if run.next >= size {
                if run.pieces.is_empty() {
                    self.verify_done();
                }
                return;
            }
            let extent = Extent::new(run.next, (run.next + RESYNC_PIECE_GRANULES).min(size));
            run.next = extent.end;
            for node in run.peers.clone() {
                self.compare_piece(node, extent);
            }
        }
    }

    fn compare_piece(&mut self, peer: NodeIdx, extent: Extent) {
        let Some(run) = &mut self.verify.run else {
            return;
        };
        let id = run.next_id;
        run.next_id += 1;
        run.pieces.push(Piece {
            id,
            peer,
            extent,
            mine: None,
            theirs: None,
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
        let extent = self.ops.get(slot).extent;
        self.start_sums(slot);
        self.say(peer, Message::SumRequest { id, extent });
    }

    pub(super) fn compared_here(&mut self, slot: u32, peer: NodeIdx, outcome: JobOutcome) {
        let Kind::Compare { id, .. } = self.ops.get(slot).kind else {
            return;
        };
        self.ops.get_mut(slot).phase = Phase::Out;
        match outcome {
            JobOutcome::Sums(sums) if self.piece(id).is_some() => {
                if let Some(piece) = self.piece(id) {
                    piece.mine = Some(sums);
                }
                self.judge_piece(id);
            }
            _ => {
                self.verify_failed(CommandError::DiskFailed);
                self.end_compare(id, peer);
            }
        }
    }

    pub(super) fn sums_told(&mut self, node: NodeIdx, id: u64, status: Status, sums: Vec<u64>) {
        let Some(piece) = self.piece(id).filter(|p| p.peer == node) else {
            return;
        };
        if status != Status::Ok || sums.len() as u64 != piece.extent.granules() {
            return self.verify_failed(CommandError::NotConnected(node));
        }
        piece.theirs = Some(sums);
        self.judge_piece(id);
    }

    fn piece(&mut self, id: u64) -> Option<&mut Piece> {
        self.verify
            .run
            .as_mut()?
            .pieces
            .iter_mut()
            .find(|p| p.id == id)
    }

    fn judge_piece(&mut self, id: u64) {
        let Some(piece) = self.piece(id) else { return };
        let (Some(mine), Some(theirs)) = (&piece.mine, &piece.theirs) else {
            return;
        };
        let (peer, extent) = (piece.peer, piece.extent);
        let mut runs: Vec<Extent> = Vec::new();
        for (at, _) in mine
            .iter()
            .zip(theirs)
            .enumerate()
            .filter(|(_, (a, b))| a != b)
        {
            let granule = extent.start + at as u64;
            match runs.last_mut() {
                Some(run) if run.end == granule => run.end += 1,
                _ => runs.push(Extent::new(granule, granule + 1)),
            }
        }
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
        let kind = Kind::Compare { peer, id };
        let found = self
            .ops
            .each()
            .find(|(_, op)| op.kind == kind)
            .map(|(slot, _)| slot);
        if let Some(slot) = found {
            self.end(slot);
        }
        self.ops.attention = true;
    }

    /// Bits are set; whoever differs leaves S and waits for an operator.
    fn verify_done(&mut self) {
        if self.durable.change.is_some() {
            return;
        }
        let Some(run) = self.verify.run.take() else {
            return;
        };
        let mut next = self.in_sync();
        for node in run.differing.iter() {
            next = next.without(node);
            self.durable.sb.held = self.durable.sb.held.with(node);
        }
        if next != self.in_sync() {
            self.durable.touch();
            self.propose(next);
        }
        let figures = self.verify.figures.clone();
        self.reply(run.id, Ok(Answer::Verify(figures)));
    }

    fn verify_failed(&mut self, why: CommandError) {
        let Some(run) = self.verify.run.take() else {
            return;
        };
        self.verify.failure = Some(why.clone());
        for piece in run.pieces {
            self.end_compare(piece.id, piece.peer);
        }
        self.reply(run.id, Err(why));
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
