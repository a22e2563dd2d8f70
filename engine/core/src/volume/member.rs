//! The secondary's side of a write: order · warm · write · confirm.
//!
//! Frames arrive in seq order; overlapping ones wait for each other in that order (law B10), the
//! own activity log opens first (law S2), and a confirmation says exactly what happened here.

use crate::action::{Action, Notice};
use crate::event::{DiskResult, LinkId, Payload};
use crate::message::{Disk, Message, Refusal, Stamp, Status};
use crate::session::Session;
use crate::units::{BufId, Extent, NodeIdx, NodeSet};

use super::ops::{Kind, Phase};
use super::{Volume, planted};

/// What a frame of a primary asks for.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub link: LinkId,
    pub stamp: Stamp,
    pub extent: Extent,
    pub kind: Kind,
    pub buf: Option<BufId>,
    pub durable: bool,
}

impl Volume {
    /// A primary stamped a write for us.
    pub(super) fn member_frame(&mut self, node: NodeIdx, frame: Frame) {
        let promised = self.has_votes() && frame.stamp.term < self.durable.sb.promised;
        let is_stale = promised || self.record().is_none_or(|r| frame.stamp.term < r.term);
        if !self.peers.get(node).session.is_fed()
            || self.role.is_serving()
            || frame.extent.end > self.size
        {
            self.release(frame.buf);
            return self.breach(node);
        }
        let is_target = matches!(self.peers.get(node).session, Session::Target(_));
        if !self.is_disk_usable() || promised || (is_stale && !is_target) {
            // A disk that failed or a reign that is over: nothing is done, and it is said.
            self.release(frame.buf);
            let status = if is_stale {
                Status::Refused
            } else {
                Status::Io
            };
            return self.confirm(frame.link, frame.stamp.seq, status);
        }
        let has_room = self.peers.get(node).unstable.len() < self.ops.window_len();
        let slot = match has_room {
            true => self.take_internal(frame.kind, frame.extent, frame.link),
            false => None,
        };
        let Some(slot) = slot else {
            // It had no credit for this.
            self.release(frame.buf);
            return self.breach(node);
        };
        let op = self.ops.get_mut(slot);
        (op.seq, op.term, op.fua) = (frame.stamp.seq, frame.stamp.term, frame.durable);
        (op.piece_buf, op.piece_buf_owned) = (frame.buf, frame.buf.is_some());
        let peer = self.peers.get_mut(node);
        peer.unstable.push_back((frame.stamp.seq, frame.extent));
        self.mark_for_absent(node, frame.extent);
        self.note_progress(node, &frame.stamp);
        // By its place in the stream: what was stamped before a mark is not in it.
        if !planted!(self, MarkMissesMemberWrites) {
            self.marks.set(frame.extent);
        }
        self.order(slot, true);
    }

    /// Law S1 at every member: who is not in S lacks what is written now, whatever the primary
    /// knows of it.
    fn mark_for_absent(&mut self, primary: NodeIdx, extent: Extent) {
        if planted!(self, MembersForgetThirdNodes) {
            return;
        }
        let in_sync = self.durable.sb.record.map_or(NodeSet::EMPTY, |r| r.in_sync);
        for peer in self.peers.iter_mut() {
            if peer.node != primary && !in_sync.has(peer.node) {
                peer.dirty.set(extent);
            }
        }
    }

    pub(super) fn start_member_write(&mut self, slot: u32) {
        if self.may_write_as_member(slot) && self.wait_dispatch.is_empty() {
            return self.warm(slot);
        }
        self.ops.get_mut(slot).phase = Phase::Dispatch;
        self.wait_dispatch.push_back(slot);
        self.ops.attention = true;
    }

    /// Nothing of a reign is written or confirmed before its record is durable here. A sync
    /// target is no member: its history is written down when it joins.
    pub(super) fn may_write_as_member(&self, slot: u32) -> bool {
        let op = self.ops.get(slot);
        let is_target = self
            .peers
            .iter()
            .any(|p| p.session == Session::Target(op.link));
        is_target || self.record().is_some_and(|r| op.term <= r.term)
    }

    pub(super) fn write_as_member(&mut self, slot: u32) {
        let durable = self.ops.get(slot).fua;
        self.ops.get_mut(slot).phase = Phase::Out;
        self.disk_leg(slot, durable);
    }

    pub(super) fn member_write_done(&mut self, slot: u32, result: DiskResult) {
        let op = *self.ops.get(slot);
        if let Err(error) = result {
            self.member_disk_failed(error);
        }
        let status = result.map_or_else(Status::from, |()| Status::Ok);
        self.confirm(op.link, op.seq, status);
        self.end_member(slot);
    }

    pub(super) fn end_member(&mut self, slot: u32) {
        let op = *self.ops.get(slot);
        self.release(op.piece_buf.filter(|_| op.piece_buf_owned));
        self.end(slot);
    }

    fn confirm(&mut self, link: LinkId, seq: crate::units::Seq, status: Status) {
        if self.peers.by_link(link).is_some() {
            let message = Message::Ack { seq, status };
            self.actions.push(Action::Send {
                link,
                message,
                payload: None,
            });
        }
    }

    /// What the primary says of its progress: what is stable cannot differ any more, and what is
    /// durable everywhere need not stay in the log.
    pub(super) fn note_progress(&mut self, node: NodeIdx, stamp: &Stamp) {
        let waits = !self.wait_log.is_empty();
        let peer = self.peers.get_mut(node);
        peer.seen = peer.seen.max(stamp.seq);
        while peer
            .unstable
            .front()
            .is_some_and(|(seq, _)| *seq <= stamp.stable)
        {
            peer.unstable.pop_front();
        }
        if stamp.durable > peer.durable {
            peer.durable = stamp.durable;
            self.ops.attention |= waits;
        }
    }

    /// Progress after a round that we took part in: whatever was open from before this session
    /// is durable everywhere too, once this much is.
    pub(super) fn member_progress(&mut self, node: NodeIdx, stamp: &Stamp) {
        self.note_progress(node, stamp);
        let peer = self.peers.get(node);
        if peer.flushed_here && matches!(peer.session, Session::InSync(_)) {
            self.log.settle_never(stamp.seq.0);
        }
    }

    /// Drops what a vanished primary asked for and no disk was given; the rest runs out.
    pub(super) fn drop_member_ops(&mut self, link: LinkId) {
        for slot in self.ops.slots() {
            let op = self.ops.get(slot);
            let is_data = matches!(
                op.kind,
                Kind::MemberData { .. } | Kind::MemberZero { .. } | Kind::Store { .. }
            );
            if is_data && op.link == link && op.phase != Phase::Out {
                self.wait_log.retain(|s| *s != slot);
                self.wait_dispatch.retain(|s| *s != slot);
                self.end_member(slot);
            }
        }
    }

    pub(super) fn release(&mut self, buf: Option<BufId>) {
        if let Some(buf) = buf {
            self.actions.push(Action::Release { buf });
        }
    }

    /// The peer broke the protocol or sent damaged bytes: its session ends, nothing is applied.
    pub(super) fn breach(&mut self, node: NodeIdx) {
        self.notice(Notice::PeerRefused {
            peer: node,
            why: Refusal::Breach,
            by_us: true,
        });
        if let Some(link) = self.peers.get(node).session.link() {
            let message = Message::Refuse(Refusal::Breach);
            self.actions.push(Action::Send {
                link,
                message,
                payload: None,
            });
        }
        self.drop_link(node);
    }

    /// The peer's copy failed: it is out of the game until replaced, the link may stay.
    pub(super) fn member_lost(&mut self, node: NodeIdx) {
        for slot in self.ops.slots() {
            let op = self.ops.get_mut(slot);
            if op.phase == Phase::Out && op.is_mutation() && op.pending.has(node) {
                op.pending = op.pending.without(node);
                op.failed = op.failed.with(node);
                let piece = op.piece;
                self.peers.get_mut(node).dirty.set(piece);
            }
        }
        self.round_lost(node);
        self.settle_membership();
        self.reconsider_all();
    }

    pub(super) fn payload_or_breach(
        &mut self,
        node: NodeIdx,
        payload: Option<Payload>,
    ) -> Option<BufId> {
        if payload.is_none() {
            self.breach(node);
        }
        payload.map(|p| p.buf)
    }

    /// The state of the peer's copy as it says.
    pub(super) fn peer_state(&mut self, node: NodeIdx, is_primary: bool, disk: Disk) {
        let peer = self.peers.get_mut(node);
        peer.is_primary = is_primary;
        if disk == Disk::Failed && peer.disk != Disk::Failed {
            return self.peer_disk_failed(node);
        }
        peer.disk = disk;
        self.ops.attention = true;
    }
}
