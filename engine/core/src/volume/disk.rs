//! Ends of disk operations and jobs, and what a failing disk means (F4, F5, F6, F12).

use crate::action::{Action, Notice, Outcome};
use crate::event::{DiskError, DiskResult, JobOutcome, Token};
use crate::message::{Disk, Message, Status};
use crate::units::{BufId, Extent, NodeSet};

use super::ops::{Kind, Phase, Purpose, parts};
use super::{Volume, planted};

impl Volume {
    pub(super) fn disk_done(
        &mut self,
        token: Token,
        result: DiskResult,
        buf: Option<BufId>,
        is_zero: bool,
    ) {
        let Some((purpose, generation, slot)) = parts(token) else {
            return;
        };
        // A flush that ends well after another one failed says nothing of what that one lost (F4).
        let flushed = match self.is_disk_usable() {
            true => result,
            false => Err(DiskError::Io),
        };
        match purpose {
            Purpose::Disk => {}
            Purpose::Round => return self.round_flushed(generation, result),
            Purpose::MemberFlush => return self.member_flushed(generation, slot, flushed),
            Purpose::ResyncFlush => return self.resync_flushed(generation, slot, flushed),
            Purpose::StopFlush => return self.stop_flushed(result),
            Purpose::RecoveryFlush => return self.recovery_flushed(result),
            _ => return,
        }
        let Some(op) = self.ops.find(generation, slot) else {
            // A late answer of a disk that was given up: its buffer must not leak.
            if let Some(buf) = buf {
                self.actions.push(Action::Release { buf });
            }
            return;
        };
        let kind = op.kind;
        let buf = match result {
            Err(DiskError::Checksum(extent)) => self.mismatched(kind, extent, buf),
            _ => buf,
        };
        // What a failed disk still reads may be older than what it confirmed (F4).
        let read = if matches!(result, Err(DiskError::Checksum(_)))
            && matches!(kind, Kind::Read { .. })
            && planted!(self, ReadGivesBadBlocks)
        {
            Ok(())
        } else if self.is_disk_usable() {
            result
        } else {
            Err(DiskError::Io)
        };
        match kind {
            Kind::Read { .. } => self.read_done(slot, read),
            Kind::Write { .. } | Kind::Zero { .. } => self.local_leg_done(slot, result),
            Kind::MemberData { .. } | Kind::MemberZero { .. } => {
                self.member_write_done(slot, result);
            }
            Kind::Serve { id } => self.serve_read(slot, id, read, buf, is_zero),
            Kind::ServeRead { id } => self.serve_read_done(slot, id, read, buf),
            Kind::Store { id, .. } => self.stored(slot, id, result),
            Kind::Repair => self.repair_written(slot, result),
            Kind::Salvage { number } => {
                self.end(slot);
                self.salvage_read(number, result, buf, is_zero);
            }
            _ => {}
        }
    }

    /// What was read does not match its checksums: nobody is given it (laws B12, F10).
    fn mismatched(&mut self, kind: Kind, extent: Extent, buf: Option<BufId>) -> Option<BufId> {
        // What a failed disk lost is told already.
        if self.is_disk_usable() {
            self.note_bad(extent);
        }
        if matches!(kind, Kind::Serve { .. }) && planted!(self, ResyncSendsBadBlocks) {
            return buf;
        }
        self.release(buf);
        None
    }

    #[inline]
    fn local_leg_done(&mut self, slot: u32, result: DiskResult) {
        let status = result.map_or_else(Status::from, |()| Status::Ok);
        match result {
            Ok(()) => self.leg_done(slot, self.me, status),
            Err(error) => {
                // First the state of the disk, then the leg: so the verdict sees both.
                let is_last = self.is_last_member();
                self.leg_done_quietly(slot, status);
                self.local_failed(error, is_last);
                if self.is_disk_usable() {
                    self.refused_here_only(slot);
                }
                self.evaluate(slot);
            }
        }
    }

    /// The last member is full and stays, and a sync target took what it refused: they differ in
    /// this piece, and the next handshake settles it.
    fn refused_here_only(&mut self, slot: u32) {
        let piece = self.ops.get(slot).piece;
        for node in self.peers.nodes() {
            let peer = self.peers.get_mut(node);
            peer.dirty.set(piece);
            if peer.takes_data() {
                self.drop_link(node);
            }
        }
    }

    fn leg_done_quietly(&mut self, slot: u32, status: Status) {
        let op = self.ops.get_mut(slot);
        op.pending = op.pending.without(self.me);
        op.failed = op.failed.with(self.me);
        op.no_space |= status == Status::NoSpace;
    }

    /// No other member could take over.
    pub(super) fn is_last_member(&self) -> bool {
        let others = self.in_sync().without(self.me);
        !others
            .iter()
            .any(|n| self.peers.find(n).is_some_and(|p| p.takes_data()))
    }

    /// This node's disk did not do it. One failed write or flush fails the replica (DESIGN D11),
    /// except that the last copy being full is only said (`operation.md` 5).
    pub(super) fn local_failed(&mut self, error: DiskError, is_last: bool) {
        if error == DiskError::NoSpace && is_last {
            if !std::mem::replace(&mut self.is_full, true) {
                self.notice(Notice::DiskFull);
            }
            return;
        }
        if self.disk() == Disk::Failed {
            return;
        }
        self.durable.sb.disk = Disk::Failed;
        self.durable.touch();
        self.notice(Notice::DiskFailed);
        self.tell_state();
        // What is still with the disk will not count, whenever it comes back (F13); what was
        // stored since the last good flush may be lost, so it counts no more (F4). S shrinks
        // before any of it is acknowledged.
        for slot in self.ops.slots() {
            let op = self.ops.get_mut(slot);
            if op.phase == Phase::Out && op.is_mutation() && op.is_undecided() {
                op.pending = op.pending.without(self.me);
                op.confirmed = op.confirmed.without(self.me);
                op.failed = op.failed.with(self.me);
            } else if op.phase == Phase::Out && op.is_mutation() {
                op.pending = op.pending.without(self.me);
            } else if matches!(op.phase, Phase::Log | Phase::Dispatch) {
                self.drop_merged(slot);
            }
        }
        self.round_lost(self.me);
        self.settle_membership();
        self.reconsider_all();
    }

    /// The own disk may answer reads.
    pub(super) fn start_read_from(&self) -> bool {
        self.is_disk_usable() && matches!(self.disk(), Disk::UpToDate)
    }

    /// Bytes merged from a disk that failed meanwhile may be older than what it confirmed: the
    /// request fails before anybody is sent them.
    fn drop_merged(&mut self, slot: u32) {
        let op = *self.ops.get(slot);
        let is_merged = match op.kind {
            Kind::Write { range, .. } => !range.is_aligned(),
            Kind::Zero { .. } => op.piece_buf_owned,
            _ => false,
        };
        if !is_merged {
            return;
        }
        if let Some(buf) = op.piece_buf.filter(|_| op.piece_buf_owned) {
            self.actions.push(Action::Release { buf });
        }
        self.wait_log.retain(|s| *s != slot);
        self.wait_dispatch.retain(|s| *s != slot);
        self.fail_before_dispatch(slot, Outcome::Io);
    }

    pub(super) fn start_read(&mut self, slot: u32) {
        if !self.start_read_from() {
            return self.read_remotely(slot);
        }
        match self.reader_for(self.ops.get(slot).extent) {
            Some((node, link)) => self.ask_to_read(slot, node, link),
            None => self.read_here(slot),
        }
    }

    /// Asks the own disk.
    pub(super) fn read_here(&mut self, slot: u32) {
        let Kind::Read { buf, .. } = self.ops.get(slot).kind else {
            unreachable!("a read has a buffer");
        };
        let (token, now) = (self.ops.token(Purpose::Disk, slot), self.now);
        self.note_local_read();
        let op = self.ops.get_mut(slot);
        (op.phase, op.pending, op.since) = (Phase::Out, NodeSet::only(self.me), now);
        let (extent, into) = (op.extent, crate::action::ReadInto::Buf(buf));
        self.actions.push(Action::DiskRead {
            token,
            extent,
            into,
        });
    }

    #[inline]
    fn read_done(&mut self, slot: u32, result: DiskResult) {
        self.read_left(slot, self.me);
        if result.is_err() {
            let op = self.ops.get_mut(slot);
            op.failed = op.failed.with(self.me);
            let extent = op.extent;
            self.notice(Notice::ReadError { extent });
            return self.read_remotely(slot);
        }
        self.answer_read(slot);
    }

    pub(super) fn job_done(&mut self, token: Token, outcome: JobOutcome) {
        let found = parts(token).filter(|(purpose, ..)| *purpose == Purpose::Job);
        let found =
            found.filter(|(_, generation, slot)| self.ops.find(*generation, *slot).is_some());
        let Some((.., slot)) = found else {
            if let JobOutcome::Buffer(buf) = outcome {
                self.actions.push(Action::Release { buf });
            }
            return;
        };
        let is_copy = matches!(self.ops.get(slot).kind, Kind::Read { .. });
        let outcome = match outcome {
            _ if is_copy || self.is_disk_usable() => outcome,
            JobOutcome::Buffer(buf) => {
                self.actions.push(Action::Release { buf });
                JobOutcome::Failed(DiskError::Io)
            }
            _ => JobOutcome::Failed(DiskError::Io),
        };
        if let JobOutcome::Failed(DiskError::Checksum(extent)) = outcome {
            self.note_bad(extent);
        }
        match self.ops.get(slot).kind {
            Kind::Write { .. } | Kind::Zero { .. } => self.merged(slot, &outcome),
            Kind::Read { .. } => self.remote_copied(slot, &outcome),
            Kind::Serve { id } => self.serve_compared(slot, id, outcome),
            Kind::ServeHashes { id, .. } => self.hashes_served(slot, id, outcome),
            Kind::ServeSums { id } => self.sums_served(slot, id, outcome),
            Kind::Pull { id, .. } => self.pull_compared(slot, id, outcome),
            Kind::Compare { peer, .. } => self.compared_here(slot, peer, outcome),
            Kind::Scrub { is_sweep, .. } => self.scrubbed(slot, is_sweep, &outcome),
            Kind::Repair => self.repair_covers(slot, &outcome),
            _ => {}
        }
    }

    /// The bytes of an unaligned request are whole granules now.
    pub(super) fn merged(&mut self, slot: u32, outcome: &JobOutcome) {
        if let JobOutcome::Buffer(buf) = *outcome {
            let op = self.ops.get_mut(slot);
            (op.piece_buf, op.piece_buf_owned) = (Some(buf), true);
        }
        let op = *self.ops.get(slot);
        let aborted = op.aborted || op.answered;
        let failed = matches!(outcome, JobOutcome::Failed(_));
        if let JobOutcome::Failed(DiskError::Checksum(bad)) = *outcome
            && !aborted
            && self.repair_to_merge(slot, bad)
        {
            return;
        }
        if aborted || failed {
            if let Some(buf) = op.piece_buf.filter(|_| op.piece_buf_owned) {
                self.actions.push(Action::Release { buf });
            }
            let outcome = if aborted {
                Outcome::Aborted
            } else {
                Outcome::Io
            };
            return self.fail_before_dispatch(slot, outcome);
        }
        self.warm(slot);
    }

    /// Says role and disk state to everybody who listens.
    pub(super) fn tell_state(&mut self) {
        let (is_primary, disk) = (self.role.is_serving(), self.disk());
        for peer in self.peers.iter().filter(|p| p.is_connected()) {
            let Some(link) = peer.session.link() else {
                continue;
            };
            let message = Message::State { is_primary, disk };
            self.actions.push(Action::Send {
                link,
                message,
                payload: None,
            });
        }
    }

    /// Metadata is gone: nobody gets a confirmation any more, as if this node had crashed.
    pub(super) fn fail_everything(&mut self) {
        self.drop_requests(Outcome::Io);
        for node in self.peers.nodes() {
            self.drop_link(node);
        }
        self.fail_marks();
        self.fail_growth();
        self.ops.attention = true;
    }

    /// Ends every request of a client: those that were dispatched run out unanswered.
    pub(super) fn drop_requests(&mut self, outcome: Outcome) {
        for slot in self.ops.slots() {
            // The reign is over: nobody decides it any more.
            self.ops.get_mut(slot).is_given_up = false;
            if self.is_owed(slot) && !self.drop_undispatched(slot, outcome) {
                self.answer(slot, outcome);
            }
        }
    }

    /// Answers every request that a lost majority holds up. What was dispatched goes on, holds its
    /// range, and is decided as it would have been (laws B3, R5); reads are answered when their
    /// bytes are there.
    pub(super) fn give_requests_up(&mut self) {
        for slot in self.ops.slots() {
            if !self.is_owed(slot) || self.drop_undispatched(slot, Outcome::Io) {
                continue;
            }
            let op = self.ops.get_mut(slot);
            if matches!(op.kind, Kind::Read { .. }) {
                continue;
            }
            op.is_given_up = op.phase == Phase::Out;
            if planted!(self, GivenUpIsDecided) {
                self.ops.get_mut(slot).is_given_up = false;
            }
            self.answer(slot, Outcome::Io);
        }
    }

    /// A client waits for this entry.
    fn is_owed(&self, slot: u32) -> bool {
        let op = self.ops.get(slot);
        op.is_client() && !op.answered
    }

    /// Ends a request that no disk was given; false if one was.
    fn drop_undispatched(&mut self, slot: u32, outcome: Outcome) -> bool {
        let waits = matches!(
            self.ops.get(slot).phase,
            Phase::Ordered | Phase::Sums | Phase::Log | Phase::Dispatch | Phase::Lease
        );
        if waits {
            self.wait_lease.retain(|s| *s != slot);
            self.wait_log.retain(|s| *s != slot);
            self.wait_dispatch.retain(|s| *s != slot);
            self.flush.forget(slot);
            self.fail_before_dispatch(slot, outcome);
        }
        waits
    }

    pub(super) fn may_forget_failed_flush(&self) -> bool {
        planted!(self, FailedFlushForgotten)
    }
}
