//! Activity-log and bitmap pages: which are written when, and when log slots may close.
//!
//! Order is the whole point (laws S2, S3): a slot's opening is durable before the disk is given
//! the write; bits of those who lack an extent are durable before the extent closes.

use crate::action::Action;
use crate::activity_log::{NEVER, Run, granules_of};
use crate::event::{DiskError, DiskResult};
use crate::message::Disk;
use crate::meta::{PageWriter, encode_activity_log_page, encode_bitmap_page};
use crate::units::{Extent, NodeIdx};

use super::ops::{Operation, Phase, Purpose, token};
use super::{Volume, planted};

/// Bitmap pages written at once.
const BITMAP_WRITES_MAX: usize = 8;
/// Slots closed at once, so that one flush and few page writes serve many openings.
const CLOSE_BATCH: usize = 64;

/// Page writes under way and wanted.
pub(super) struct PageWrites {
    log_writer: PageWriter,
    in_flight: Vec<(NodeIdx, usize)>,
    wanted: Vec<(NodeIdx, usize)>,
    /// Every page that differs from disk.
    pub wants_all: bool,
    /// Slots found open at attach are not in durable bits yet, or what they cover is not durable.
    pub is_recovering: bool,
    /// This disk was flushed since attach.
    is_flushed: bool,
}

impl PageWrites {
    pub fn new(log_writer: PageWriter, peers: usize) -> PageWrites {
        let capacity = CLOSE_BATCH * peers.max(1) * 2;
        PageWrites {
            log_writer,
            in_flight: Vec::with_capacity(BITMAP_WRITES_MAX),
            wanted: Vec::with_capacity(capacity),
            wants_all: false,
            is_recovering: false,
            is_flushed: false,
        }
    }
}

/// `peer: 3 | page: 29` as index of a token.
fn page_index(node: NodeIdx, page: usize) -> u32 {
    u32::from(node.0) << 29 | page as u32
}

impl Volume {
    /// Attach: extents that were being written when we stopped may differ from every other
    /// replica; they become dirty bits for all, and the slots stay open until those are durable.
    pub(super) fn recover(&mut self) {
        if planted!(self, SkipLogRecovery) {
            return;
        }
        let runs: Vec<Run> = self.log.open().collect();
        let size = self.size;
        let extents: Vec<Extent> = runs.iter().filter_map(|r| granules_of(*r, size)).collect();
        self.recover_marks(&extents);
        self.recover_checksums(&extents);
        self.pages.is_recovering = !runs.is_empty();
        for extent in extents {
            for peer in self.peers.iter_mut() {
                peer.dirty.set(extent);
            }
        }
    }

    /// The mark below which idle slots may close: a round, or a seq of our primary.
    fn closing_mark(&self) -> u64 {
        if planted!(self, LogClosesEarly) {
            return NEVER;
        }
        if self.role.is_serving() {
            return self.flush.completed;
        }
        if self.pages.is_recovering {
            return 0;
        }
        let primary = self.peers.iter().find(|p| p.is_primary && p.is_connected());
        primary.map_or(1, |p| p.durable.0 + 1)
    }

    /// What an operation leaves on its slots when it ends: in the unit in which they close now. A
    /// write of an earlier primary may end after this node was promoted.
    pub(super) fn touch_mark(&self, op: &Operation) -> u64 {
        if op.is_client() || self.role.is_serving() {
            self.flush.started
        } else {
            op.seq.0
        }
    }

    pub(super) fn settle_log(&mut self) {
        self.settle_recovered();
        self.open_waiting();
        self.write_pages();
    }

    /// What an earlier process wrote may still be in the cache of the disk. Bits alone do not cover
    /// that: they are cleared once the peer is durable, whatever this disk loses afterwards.
    pub(super) fn flush_recovered(&mut self) {
        if self.pages.is_recovering && self.is_disk_usable() {
            let token = token(Purpose::RecoveryFlush, 0, 0);
            self.actions.push(Action::DiskFlush { token });
        }
    }

    pub(super) fn recovery_flushed(&mut self, result: DiskResult) {
        self.pages.is_flushed = true;
        self.ops.attention = true;
        if result.is_err() && !self.may_forget_failed_flush() {
            self.local_failed(DiskError::Io, false);
        }
    }

    /// What the log said at attach is in the bits once those are durable, and on this disk: the
    /// slots may go.
    fn settle_recovered(&mut self) {
        if !self.pages.is_recovering {
            return;
        }
        self.pages.wants_all = true;
        let bits = self.peers.nodes().all(|node| self.are_bits_durable(node));
        let is_flushed = self.pages.is_flushed && self.is_disk_usable();
        if bits && is_flushed && self.marks.is_swept() {
            self.pages.is_recovering = false;
            let (log, sums, size) = (&mut self.log, &mut self.checksums, self.size);
            let mut may_close = |run| granules_of(run, size).is_none_or(|e| sums.may_close(e));
            while log.close(CLOSE_BATCH, 1, &mut may_close) > 0 {}
            self.log.want_all();
        }
    }

    fn open_waiting(&mut self) {
        let mut may_close = true;
        while let Some(slot) = self.wait_log.front().copied() {
            if self.ops.get(slot).is_client() && self.has_lost_last_copy() {
                // No disk is given it: it fails at once, where a full log might never open again.
                self.wait_log.pop_front();
                self.warmed(slot);
                continue;
            }
            let extent = self.ops.get(slot).extent;
            match self.log.acquire(extent) {
                Ok(held) => {
                    self.wait_log.pop_front();
                    self.ops.get_mut(slot).held = held;
                    self.warmed(slot);
                }
                Err(_) if may_close => {
                    may_close = false;
                    if self.close_idle() == 0 {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    /// Closes a batch of idle slots, or starts what that needs.
    pub(super) fn close_idle(&mut self) -> usize {
        let mark = self.closing_mark();
        let past_marks = planted!(self, LogClosesPastMarks);
        let past_sums = planted!(self, LogClosesPastChecksums);
        let (log, peers, pages) = (&mut self.log, &self.peers, &mut self.pages);
        let (marks, sums, size) = (&mut self.marks, &mut self.checksums, self.size);
        let mut mark_room = CLOSE_BATCH;
        let mut asked = 0;
        let closed = log.close(CLOSE_BATCH, mark, |run| {
            let Some(extent) = granules_of(run, size) else {
                return true;
            };
            let mut is_marked = past_marks || marks.is_durable(extent, &mut mark_room);
            is_marked &= past_sums || sums.may_close(extent);
            for peer in peers.iter() {
                for page in peer.dirty.pages_of(extent) {
                    let id = (peer.node, page);
                    if !peer.dirty.page_is_dirty(page) && !pages.in_flight.contains(&id) {
                        continue;
                    }
                    is_marked = false;
                    if asked < CLOSE_BATCH && !pages.wanted.contains(&id) {
                        pages.wanted.push(id);
                        asked += 1;
                    }
                }
            }
            is_marked
        });
        let asked = asked + CLOSE_BATCH - mark_room;
        let waits = closed == 0 && asked == 0 && log.waits_for_durability(mark);
        if waits && self.role.is_serving() && !self.has_lost_last_copy() {
            self.flush.wanted = true;
        }
        closed
    }

    pub(super) fn write_pages(&mut self) {
        if self.durable.has_failed {
            return;
        }
        let incarnation = self.durable.sb.incarnation;
        while let Some(page) = self.log.next_page() {
            let (block, counter) = self.pages.log_writer.next_block(page);
            let runs = self.log.page_runs(page);
            let bytes = encode_activity_log_page(incarnation, &runs, block, counter);
            let token = token(Purpose::LogPage, 0, page as u32);
            self.write_metadata(token, block, bytes);
        }
        self.write_mark_pages();
        while self.pages.in_flight.len() < BITMAP_WRITES_MAX {
            let Some((node, page)) = self.next_bitmap_page() else {
                break;
            };
            self.pages.in_flight.push((node, page));
            let peer = self.peers.get_mut(node);
            let (block, counter) = peer.writer.next_block(page);
            let bytes =
                encode_bitmap_page(incarnation, peer.dirty.page_words(page), block, counter);
            peer.dirty.mark_page_clean(page);
            let token = token(Purpose::BitmapPage, 0, page_index(node, page));
            self.write_metadata(token, block, bytes);
        }
    }

    fn next_bitmap_page(&mut self) -> Option<(NodeIdx, usize)> {
        let pages = &mut self.pages;
        while let Some(id) = pages.wanted.pop() {
            if !pages.in_flight.contains(&id) && self.peers.get(id.0).dirty.page_is_dirty(id.1) {
                return Some(id);
            }
        }
        if !pages.wants_all {
            return None;
        }
        for peer in self.peers.iter() {
            let busy = |page: &usize| !pages.in_flight.contains(&(peer.node, *page));
            if let Some(page) = peer.dirty.dirty_pages().find(busy) {
                return Some((peer.node, page));
            }
        }
        None
    }

    /// Every bit of this peer is on disk as it is in memory.
    pub(super) fn are_bits_durable(&self, node: NodeIdx) -> bool {
        self.peers.get(node).dirty.next_dirty_page(0).is_none()
            && self.pages.in_flight.iter().all(|(n, _)| *n != node)
    }

    pub(super) fn meta_done(&mut self, token: crate::event::Token, result: DiskResult) {
        self.meta_watch.writes.ended();
        let Some((purpose, _, index)) = super::ops::parts(token) else {
            return;
        };
        self.ops.attention = true;
        if let Err(error) = result {
            return self.metadata_failed(error);
        }
        match purpose {
            Purpose::Superblock => self.superblock_done(),
            Purpose::LogPage => self.log_page_done(index as usize),
            Purpose::AttributePage => self.attribute_page_done(index),
            Purpose::MarkPage => self.mark_page_done(index),
            Purpose::SumsPage => self.sums_written(index),
            Purpose::BitmapPage => {
                let id = (NodeIdx((index >> 29) as u8), (index & 0x1FFF_FFFF) as usize);
                self.pages.in_flight.retain(|p| *p != id);
                if self.pages.in_flight.is_empty() && self.next_is_clean() {
                    self.pages.wants_all = false;
                }
            }
            _ => {}
        }
    }

    fn next_is_clean(&self) -> bool {
        self.peers
            .iter()
            .all(|p| p.dirty.next_dirty_page(0).is_none())
    }

    fn log_page_done(&mut self, page: usize) {
        self.log.written(page);
        for slot in self.ops.slots() {
            let op = self.ops.get(slot);
            let waits = op.phase == Phase::Log && !op.held.is_empty();
            if waits && op.kind != super::ops::Kind::Free && self.log.is_durable(&op.held) {
                self.warmed(slot);
            }
        }
    }

    /// Is anything open that a crash would have to reconcile?
    pub(super) fn is_log_closed(&self) -> bool {
        self.log.is_empty() && self.log.is_settled()
    }

    /// This copy takes part no more: its log says nothing about it.
    pub(super) fn member_disk_failed(&mut self, error: DiskError) {
        if self.disk() == Disk::Failed {
            return;
        }
        let _ = error;
        self.durable.sb.disk = Disk::Failed;
        self.durable.touch();
        self.notice(crate::action::Notice::DiskFailed);
        self.tell_state();
        self.ops.attention = true;
    }
}
