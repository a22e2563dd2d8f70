//! Resync, the side that has the data: answers what the target pulls, clears bits only on its
//! word, and takes it into S when nothing is left (laws S4, S6, S7).

use std::collections::VecDeque;

use crate::action::{Action, Notice, ReadInto};
use crate::event::{DiskResult, JobOutcome};
use crate::message::{Message, RESYNC_PIECE_GRANULES, RUNS_MAX, Status};
use crate::session::{Session, SessionEvent};
use crate::units::{BufId, Extent, NodeIdx, Term};

use super::ops::{Kind, Phase, Purpose};
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
    /// Granules confirmed in this session.
    pub moved: u64,
}

struct Request {
    id: u64,
    extent: Extent,
    sums: Vec<u64>,
    /// We could not read it: its bits stay.
    failed: bool,
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

impl Source {
    /// The record that takes it into S was offered.
    pub fn is_joining(&self) -> bool {
        matches!(self.join, Some(Join::Proposed | Join::Told))
    }
}

impl Volume {
    pub(super) fn offer_resync(&mut self, node: NodeIdx) {
        if self.durable.sb.held.has(node) {
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

    pub(super) fn resync_request(
        &mut self,
        node: NodeIdx,
        id: u64,
        extent: Extent,
        sums: Vec<u64>,
    ) {
        let size = self.size;
        let peer = self.peers.get_mut(node);
        let (session, source) = (peer.session, &mut peer.source);
        let is_sound = extent.end <= size
            && extent.granules() <= RESYNC_PIECE_GRANULES
            && (sums.is_empty() || sums.len() as u64 == extent.granules())
            && id == source.newest + 1
            && source.requests.len() < REQUESTS_MAX;
        let Session::Source(link) = session else {
            return self.breach(node);
        };
        if !is_sound {
            return self.breach(node);
        }
        source.newest = id;
        source.requests.push_back(Request {
            id,
            extent,
            sums,
            failed: false,
        });
        match self.take_internal(Kind::Serve { id }, extent, link) {
            Some(slot) => self.order(slot, false),
            None => self.serve_failed(node, id),
        }
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
        match request.sums.is_empty() {
            true => self.read_to_serve(slot, op.extent),
            false => self.start_sums(slot),
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

    /// Our sums beside the target's: equal, or only what differs is read.
    pub(super) fn serve_sums(&mut self, slot: u32, id: u64, outcome: JobOutcome) {
        let op = *self.ops.get(slot);
        let Some(node) = self.peers.by_link(op.link) else {
            return self.end(slot);
        };
        let JobOutcome::Sums(mine) = outcome else {
            self.serve_failed(node, id);
            return self.end(slot);
        };
        let requests = &self.peers.get(node).source.requests;
        let Some(request) = requests.iter().find(|r| r.id == id) else {
            return self.end(slot);
        };
        let differs = |(at, (a, b)): (usize, (&u64, &u64))| (a != b).then_some(at as u64);
        let mut different = mine
            .iter()
            .zip(&request.sums)
            .enumerate()
            .filter_map(differs);
        let (first, start) = (different.next(), op.extent.start);
        let Some(first) = first else {
            self.say(node, Message::ResyncEqual { id });
            return self.end(slot);
        };
        let last = different.next_back().unwrap_or(first);
        self.read_to_serve(slot, Extent::new(start + first, start + last + 1));
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
        if let Some(node) = self.peers.by_link(op.link) {
            let (link, extent) = (op.link, op.piece);
            match (result, buf) {
                (Ok(()), _) if is_zero => self.say(node, Message::ResyncZero { id, extent }),
                (Ok(()), Some(_)) => {
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
        while peer.source.requests.front().is_some_and(|r| r.id <= id) {
            let Some(request) = peer.source.requests.pop_front() else {
                break;
            };
            if !request.failed {
                peer.source.moved += peer.dirty.clear(request.extent);
            }
        }
    }

    /// Nothing is dirty: from here on its confirmation is needed; what was sent before becomes
    /// durable there by one more round, then S takes it in (law S6).
    fn begin_join(&mut self, node: NodeIdx) {
        if !self.reigns() {
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
            // Its disk failed on the way in: nothing may wait for it.
            Some(Join::Draining | Join::Flushing(_))
                if peer.disk == crate::message::Disk::Failed =>
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
                } else if self.durable.change.is_none() && self.role.may_change_set() {
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
            peer.source = Source::default();
            self.notice(Notice::ResyncDone { peer: node });
        }
    }
}
