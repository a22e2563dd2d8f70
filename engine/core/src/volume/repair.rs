//! Blocks whose checksum does not hold: found, fetched from another member of S, written again
//! (table F6 and F10, law S10).
//!
//! ```text
//!  primary:   hold the range ─► ask a member ─► its bytes ─► own disk
//!  secondary:                   ask the primary ─► its bytes ─► hold the range ─► own disk
//! ```
//!
//! A primary holds the range first, so that no write of its own passes the answer. A secondary
//! asks first: the answer comes in the primary's stream, behind every write before it and before
//! every write after it, so it is put in order as a frame is. Holding the range first, it would
//! wait for a primary that waits for its confirmation.

use std::time::Duration;

use crate::action::{Action, Job, Notice};
use crate::event::{DiskError, DiskResult, JobOutcome, LinkId};
use crate::message::{Disk, Message, RESYNC_PIECE_GRANULES, Status};
use crate::session::Session;
use crate::time::Instant;
use crate::units::{BufId, Extent, NodeIdx, NodeSet, Term};

use super::ops::{Kind, Phase, Purpose};
use super::{Volume, planted};

/// Runs remembered; a scrub finds the others again.
const BAD_MAX: usize = 64;
/// Runs fetched at once.
const REPAIRS_MAX: usize = 4;
/// Granules around one request that are repaired for it, before it fails.
const REMERGES_MAX: u8 = 4;
/// Between two attempts at one run.
const RETRY: Duration = Duration::from_secs(1);

/// Runs of this copy that do not match their checksums, and what became of others.
#[derive(Default)]
pub(super) struct Repairs {
    bad: Vec<Bad>,
    /// Granules found not to match.
    pub errors: u64,
    /// Granules written again with what another member had.
    pub repaired: u64,
    /// Pages of checksums that could not be read.
    pub lost_pages: u64,
}

#[derive(Clone, Copy)]
struct Bad {
    extent: Extent,
    is_out: bool,
    retry_at: Instant,
    attempts: u8,
    /// An operator was told that nobody has it.
    is_told: bool,
}

impl Repairs {
    /// Granules known to be bad and not repaired yet.
    pub fn unrepaired(&self) -> u64 {
        self.bad.iter().map(|b| b.extent.granules()).sum()
    }

    /// Of these, what nobody could be asked for.
    pub fn hopeless(&self) -> u64 {
        let told = self.bad.iter().filter(|b| b.is_told);
        told.map(|b| b.extent.granules()).sum()
    }

    /// Nobody has all of a run: each half may be whole at somebody.
    fn split(&mut self, extent: Extent) {
        let has_room = self.bad.len() < BAD_MAX && extent.granules() > 1;
        let Some(bad) = self.bad.iter_mut().find(|b| b.extent == extent) else {
            return;
        };
        if has_room {
            let middle = extent.start + extent.granules() / 2;
            bad.extent = Extent::new(extent.start, middle);
            let other = Bad {
                extent: Extent::new(middle, extent.end),
                ..*bad
            };
            self.bad.push(other);
        }
    }

    /// All of it was written since, or found to match: nothing is left to repair there. What is under
    /// way ends by itself.
    pub fn overwritten(&mut self, extent: Extent) {
        for index in (0..self.bad.len()).rev() {
            let bad = self.bad[index];
            if bad.is_out || !bad.extent.overlaps(extent) {
                continue;
            }
            let (before, after) = bad.extent.without(extent);
            if before.is_some() && after.is_some() && self.bad.len() == BAD_MAX {
                // As one run it is repaired too.
                continue;
            }
            self.bad.swap_remove(index);
            let left = before.into_iter().chain(after);
            self.bad.extend(left.map(|extent| Bad { extent, ..bad }));
        }
    }

    /// Something waits for its next attempt.
    pub fn is_waiting(&self) -> bool {
        !self.bad.is_empty()
    }
}

impl Volume {
    /// What does not match may be no damage: an earlier process of a sync target wrote without a log
    /// slot, and died before the checksums were on disk. The resync that is owed settles it.
    pub(super) fn may_mismatch(&self) -> bool {
        self.disk() == Disk::Inconsistent
    }

    /// The disk gave back something else than it was given.
    pub(super) fn note_bad(&mut self, extent: Extent) {
        self.ops.attention = true;
        if self.may_mismatch() {
            return;
        }
        let skips = planted!(self, FoundIsNotRepaired);
        let mut start = extent.start;
        while start < extent.end {
            let piece = Extent::new(start, extent.end.min(start + RESYNC_PIECE_GRANULES));
            start = piece.end;
            let repairs = &mut self.repairs;
            if repairs.bad.iter().any(|b| b.extent.contains(piece)) {
                continue;
            }
            repairs.errors += piece.granules();
            if repairs.bad.len() < BAD_MAX && !skips {
                repairs.bad.push(Bad {
                    extent: piece,
                    is_out: false,
                    retry_at: self.now,
                    attempts: 0,
                    is_told: false,
                });
            }
            self.notice(Notice::ChecksumError { extent: piece });
        }
    }

    /// Checksums of these granules cannot be read: they go unchecked until a scrub.
    pub(super) fn page_lost(&mut self, page: u64) {
        self.repairs.lost_pages += 1;
        let extent = crate::checksums::granules_of(page);
        self.notice(Notice::ChecksumsLost { extent });
    }

    /// Somebody who has what this copy lost, and can be asked by this node in its role: after so many
    /// attempts that failed, each in turn.
    fn good_copy(&self, attempts: u8) -> Option<(NodeIdx, LinkId)> {
        let serves = self.role.is_serving();
        if !self.start_read_from() || !self.in_sync().has(self.me) {
            return None;
        }
        let others = self.in_sync().without(self.me);
        let good = |node| {
            let peer = self.peers.find(node)?;
            let Session::InSync(link) = peer.session else {
                return None;
            };
            let is_good = peer.disk == Disk::UpToDate && peer.is_primary != serves;
            is_good.then_some((node, link))
        };
        let count = others.iter().filter_map(good).count();
        let turn = usize::from(attempts).checked_rem(count)?;
        others.iter().filter_map(good).nth(turn)
    }

    /// Begins what can be repaired now.
    pub(super) fn settle_repairs(&mut self) {
        if self.repairs.bad.is_empty() {
            return;
        }
        self.drop_old_repairs();
        let may_run = !self.role.waits_for_drain() && self.is_disk_usable();
        if !may_run || self.good_copy(0).is_none() {
            return self.tell_unrepaired();
        }
        let mut room = REPAIRS_MAX - self.repairs.bad.iter().filter(|b| b.is_out).count();
        for index in 0..self.repairs.bad.len() {
            let bad = &self.repairs.bad[index];
            if room == 0 || bad.is_out || bad.retry_at > self.now {
                continue;
            }
            let (extent, attempts) = (bad.extent, bad.attempts);
            let Some((node, link)) = self.good_copy(attempts) else {
                return;
            };
            let serves = self.role.is_serving();
            let own = if serves { LinkId(0) } else { link };
            let Some(slot) = self.take_internal(Kind::Repair, extent, own) else {
                return;
            };
            room -= 1;
            self.repairs.bad[index].is_out = true;
            let term = self.record().map_or(Term(0), |r| r.term);
            let op = self.ops.get_mut(slot);
            (op.term, op.attempts) = (term, attempts);
            match serves {
                true => self.order(slot, true),
                false => self.ask_for_repair(slot, node, link),
            }
        }
    }

    /// Those that ask in the order of a role which this node has no more.
    fn drop_old_repairs(&mut self) {
        let serves = self.role.is_serving();
        for slot in self.ops.slots() {
            let op = self.ops.get(slot);
            let asks = op.kind == Kind::Repair && op.piece_buf.is_none();
            if asks && op.held_range != serves && op.phase == Phase::Out {
                self.repair_failed(slot);
            }
        }
    }

    fn tell_unrepaired(&mut self) {
        let now = self.now;
        let mut told = Vec::new();
        for bad in &mut self.repairs.bad {
            let is_late = !bad.is_out && bad.retry_at <= now;
            if is_late && !std::mem::replace(&mut bad.is_told, true) {
                told.push(bad.extent);
            }
        }
        for extent in told {
            self.notice(Notice::NotRepaired { extent });
        }
    }

    fn ask_for_repair(&mut self, slot: u32, node: NodeIdx, link: LinkId) {
        let now = self.now;
        let op = self.ops.get_mut(slot);
        (op.phase, op.link, op.since) = (Phase::Out, link, now);
        op.pending = NodeSet::only(node);
        let (id, extent) = (u64::from(op.generation) << 32 | u64::from(slot), op.extent);
        self.say(node, Message::ReadRequest { id, extent });
    }

    /// Its range is granted: a primary asks now, a secondary has what it writes.
    pub(super) fn start_repair(&mut self, slot: u32) {
        let serves = self.role.is_serving();
        let op = self.ops.get_mut(slot);
        if op.piece_buf.is_some() {
            return self.write_repair(slot);
        }
        op.held_range = true;
        let attempts = op.attempts;
        match self.good_copy(attempts).filter(|_| serves) {
            Some((node, link)) => self.ask_for_repair(slot, node, link),
            None => self.repair_failed(slot),
        }
    }

    /// What a member sent for a bad run.
    pub(super) fn repair_told(
        &mut self,
        slot: u32,
        node: NodeIdx,
        status: Status,
        buf: Option<BufId>,
    ) {
        let op = *self.ops.get(slot);
        let peer = self.peers.get(node);
        let serves = self.role.is_serving();
        // A word of a reign that is over may be older than what was written since.
        let is_current = self.record().is_some_and(|r| r.term == op.term)
            && matches!(peer.session, Session::InSync(_))
            && op.held_range == serves
            && peer.is_primary != serves;
        let Some(buf) = buf.filter(|_| status == Status::Ok && is_current) else {
            self.release(buf);
            if status != Status::Ok {
                self.ops.get_mut(slot).failed = NodeSet::only(node);
            }
            return self.repair_failed(slot);
        };
        let op = self.ops.get_mut(slot);
        (op.piece_buf, op.piece_buf_owned) = (Some(buf), true);
        op.pending = NodeSet::EMPTY;
        op.confirmed = NodeSet::only(node);
        match op.held_range || planted!(self, RepairPassesWrites) {
            true => self.write_repair(slot),
            false => self.order(slot, true),
        }
    }

    fn write_repair(&mut self, slot: u32) {
        let token = self.ops.token(Purpose::Job, slot);
        let op = self.ops.get_mut(slot);
        op.phase = Phase::Job;
        let (extent, buf) = (op.extent, op.piece_buf.expect("what was told is written"));
        self.actions.push(Action::Job {
            token,
            job: Job::Covers { buf, extent },
        });
    }

    /// The payload is as long as it has to be, or not.
    pub(super) fn repair_covers(&mut self, slot: u32, outcome: &JobOutcome) {
        if matches!(outcome, JobOutcome::Failed(_)) {
            return self.repair_failed(slot);
        }
        let token = self.ops.token(Purpose::Disk, slot);
        let op = self.ops.get_mut(slot);
        op.phase = Phase::Out;
        let (extent, buf) = (op.extent, op.piece_buf.expect("it is held until the end"));
        self.actions.push(Action::DiskWrite {
            token,
            extent,
            buf,
            durable: true,
        });
    }

    pub(super) fn repair_written(&mut self, slot: u32, result: DiskResult) {
        let op = *self.ops.get(slot);
        if let Err(error) = result {
            let is_last = self.is_last_member();
            self.local_failed(error, is_last);
            return self.repair_failed(slot);
        }
        let extent = op.extent;
        let known = self.repairs.bad.len();
        self.repairs.bad.retain(|b| !extent.contains(b.extent));
        // It may have been repaired for a request that could not wait.
        let is_first = self.repairs.bad.len() < known;
        if let Some(from) = op.confirmed.iter().next().filter(|_| is_first) {
            self.repairs.repaired += extent.granules();
            self.notice(Notice::Repaired { extent, from });
        }
        self.end_member(slot);
        self.ops.attention = true;
        self.merge_again(op.waiter);
    }

    /// Later again, if there is somebody to ask then.
    pub(super) fn repair_failed(&mut self, slot: u32) {
        let (extent, waiter) = (self.ops.get(slot).extent, self.ops.get(slot).waiter);
        let retry_at = self.now.after(RETRY);
        if let Some(bad) = self.repairs.bad.iter_mut().find(|b| b.extent == extent) {
            (bad.is_out, bad.retry_at) = (false, retry_at);
            bad.attempts = bad.attempts.wrapping_add(1);
        }
        if !self.ops.get(slot).failed.is_empty() {
            self.repairs.split(extent);
        }
        self.end_member(slot);
        self.ops.attention = true;
        self.merge_again(waiter);
    }

    /// A member that does not answer is not waited for: another may, or the same one later.
    pub(super) fn time_out_repairs(&mut self) {
        let patience = self.setup.member_timeout / 2;
        for slot in self.ops.slots() {
            let op = self.ops.get(slot);
            let asks = op.kind == Kind::Repair && op.piece_buf.is_none();
            if asks && op.phase == Phase::Out && self.now.since(op.since) >= patience {
                self.repair_failed(slot);
            }
        }
    }

    /// Its connection is gone, and with it the answer.
    pub(super) fn repairs_lost(&mut self, node: NodeIdx) {
        for slot in self.ops.slots() {
            let op = self.ops.get(slot);
            let waits = op.kind == Kind::Repair && op.piece_buf.is_none();
            if waits && op.phase == Phase::Out && op.pending.has(node) {
                self.repair_failed(slot);
            }
        }
    }

    /// The bytes around an unaligned request do not match: they are repaired under its own hold, so
    /// that no later request passes it, and merged again. False: nobody has them.
    pub(super) fn repair_to_merge(&mut self, slot: u32, bad: Extent) -> bool {
        let op = *self.ops.get(slot);
        let extent = bad.intersect(op.extent);
        let is_hopeless = op.attempts == REMERGES_MAX || !self.role.is_serving();
        let Some(extent) = extent.filter(|_| !is_hopeless && self.good_copy(0).is_some()) else {
            return false;
        };
        let Some(repair) = self.take_internal(Kind::Repair, extent, LinkId(0)) else {
            return false;
        };
        self.ops.get_mut(slot).attempts += 1;
        let term = self.record().map_or(Term(0), |r| r.term);
        let repair_op = self.ops.get_mut(repair);
        (repair_op.waiter, repair_op.term) = (Some(slot), term);
        repair_op.attempts = op.attempts;
        self.start(repair);
        true
    }

    /// A repair ended, well or not: what waits for its bytes takes them from the disk again.
    fn merge_again(&mut self, waiter: Option<u32>) {
        let Some(slot) = waiter else { return };
        if !self.is_disk_usable() {
            return self.merged(slot, &JobOutcome::Failed(DiskError::Io));
        }
        match self.ops.get(slot).kind {
            Kind::Write { range, buf } => self.merge(slot, range, buf),
            _ => self.start_piece(slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(runs: &[(u64, u64)]) -> Repairs {
        let bad = |&(start, end): &(u64, u64)| Bad {
            extent: Extent::new(start, end),
            is_out: false,
            retry_at: Instant(0),
            attempts: 0,
            is_told: false,
        };
        Repairs {
            bad: runs.iter().map(bad).collect(),
            ..Repairs::default()
        }
    }

    fn left(repairs: &Repairs) -> Vec<(u64, u64)> {
        let mut runs: Vec<_> = repairs.bad.iter().map(|b| b.extent).collect();
        runs.sort_by_key(|run| run.start);
        runs.iter().map(|run| (run.start, run.end)).collect()
    }

    #[test]
    fn what_was_written_piece_by_piece_is_not_bad_any_more() {
        let mut repairs = found(&[(4, 12), (20, 24)]);
        repairs.overwritten(Extent::new(6, 8));
        assert_eq!(left(&repairs), [(4, 6), (8, 12), (20, 24)]);
        repairs.overwritten(Extent::new(0, 5));
        repairs.overwritten(Extent::new(9, 22));
        assert_eq!(left(&repairs), [(5, 6), (8, 9), (22, 24)]);
        repairs.overwritten(Extent::new(0, 64));
        assert_eq!(repairs.unrepaired(), 0);
    }

    #[test]
    fn no_more_runs_are_remembered_than_there_is_room_for() {
        let runs: Vec<_> = (0..BAD_MAX as u64).map(|n| (n * 8, n * 8 + 4)).collect();
        let mut repairs = found(&runs);
        repairs.overwritten(Extent::new(1, 2));
        assert_eq!(left(&repairs), runs);
        repairs.overwritten(Extent::new(0, 2));
        assert_eq!(left(&repairs)[0], (2, 4));
        assert_eq!(repairs.bad.len(), BAD_MAX);
    }

    #[test]
    fn what_is_fetched_now_is_not_taken_away() {
        let mut repairs = found(&[(4, 12)]);
        repairs.bad[0].is_out = true;
        repairs.overwritten(Extent::new(0, 64));
        assert_eq!(left(&repairs), [(4, 12)]);
    }
}
