//! Stored checksums: which pages are in memory, and when they are read and written.
//!
//! ```text
//!  range granted ─► pin: pages in memory? no → SumsRead … ─► merge, log, disk ─► unpin
//!                                                            it changed data → page is dirty
//!  extent closes, resync is confirmed, room is needed ─► SumsWrite … MetaDone ─► clean
//! ```
//!
//! The values themselves lie with the shell, in [`crate::checksums::Table`]: it changes them when
//! a write is done and compares when a read is. A page is durable before an extent it covers
//! closes, so after a crash a value on disk is right or its extent is open; those of open extents
//! are forgotten and taken from the data again (`operation.md` 6).

use std::collections::VecDeque;

use crate::action::{Action, PageRead};
use crate::checksums::{PageMap, granules_of, pages_of};
use crate::event::{SumsFound, Token};
use crate::meta::SumRegion;
use crate::units::{Extent, GRANULES_PER_AL_EXTENT};

use super::Volume;
use super::ops::{Kind, Phase, Purpose, parts, token};

/// Pages written at once.
const WRITES_MAX: usize = 16;

/// Pages of checksums on this node; without a region there are none, and nothing is done.
pub(super) struct Checksums {
    region: Option<SumRegion>,
    map: PageMap,
    slots: Vec<Slot>,
    hand: usize,
    /// Operations whose pages are not all in memory, in order of arrival.
    waiting: VecDeque<u32>,
    writing: usize,
    /// Some slot is wanted on disk.
    has_wanted: bool,
    /// Grows with every change of a page.
    clock: u64,
    /// What lay in open extents when an earlier process ended and was not taken from the data yet.
    pub untrusted: VecDeque<Extent>,
    /// Pages written since attach, one bit each: what an earlier process left in them is gone. Empty
    /// where all is trusted.
    rewritten: Vec<u64>,
    /// Every page that differs from disk is to be written.
    pub wants_all: bool,
}

#[derive(Clone, Copy)]
struct Slot {
    page: u64,
    users: u32,
    state: State,
    /// Last change, for each of the two activity-log extents a page may touch.
    changed: [u64; 2],
    /// Changes up to here are on disk, and up to there once the write under way is.
    durable: u64,
    writing: Option<u64>,
    wanted: bool,
    referenced: bool,
    counter: u64,
    is_second: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Loading,
    Ready,
}

impl Slot {
    fn is_dirty(&self) -> bool {
        self.changed[0].max(self.changed[1]) > self.durable
    }
}

/// Which of the two extents a page may touch holds this granule.
fn half(page: u64, extent: u64) -> usize {
    usize::from(granules_of(page).start / GRANULES_PER_AL_EXTENT != extent)
}

impl Checksums {
    pub fn new(region: Option<SumRegion>, slots: usize) -> Checksums {
        let count = if region.is_some() { slots } else { 0 };
        let free = Slot {
            page: 0,
            users: 0,
            state: State::Free,
            changed: [0; 2],
            durable: 0,
            writing: None,
            wanted: false,
            referenced: false,
            counter: 0,
            is_second: true,
        };
        Checksums {
            region,
            map: PageMap::new(count),
            slots: vec![free; count],
            hand: 0,
            waiting: VecDeque::new(),
            writing: 0,
            has_wanted: false,
            clock: 0,
            untrusted: VecDeque::new(),
            rewritten: Vec::new(),
            wants_all: false,
        }
    }

    /// Checksums are stored.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.region.is_some()
    }

    /// The largest volume they have room for.
    pub fn size_granules_max(&self) -> u64 {
        self.region.map_or(u64::MAX, |r| r.size_granules_max())
    }

    /// Newest change: what is durable from here on covers everything before.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Everything is on disk.
    pub fn is_settled(&self) -> bool {
        self.writing == 0 && self.slots.iter().all(|s| !s.is_dirty())
    }

    fn slot_of(&self, page: u64) -> Option<usize> {
        self.map.find(page)
    }

    /// Pages of the extent that changed up to `mark` are on disk; asks for those that are not.
    pub fn is_durable_since(&mut self, extent: Extent, mark: u64) -> bool {
        let mut is_durable = true;
        for page in pages_of(extent) {
            let Some(slot) = self.slot_of(page).map(|s| &mut self.slots[s]) else {
                continue;
            };
            if slot.durable < mark && slot.is_dirty() {
                slot.wanted = true;
                is_durable = false;
            }
        }
        self.has_wanted |= !is_durable;
        is_durable
    }

    /// Nothing of this run of the activity log would be lost with memory: what changed in it is on
    /// disk, and nothing waits to be taken from the data. Asks for the pages that are not.
    pub fn may_close(&mut self, extent: Extent) -> bool {
        if self.slots.is_empty() {
            return true;
        }
        if self.untrusted.iter().any(|u| u.intersect(extent).is_some()) {
            return false;
        }
        let pages = pages_of(extent);
        let is_one = extent.granules() <= GRANULES_PER_AL_EXTENT;
        let first = extent.start / GRANULES_PER_AL_EXTENT;
        let mut may_close = true;
        let mut judge = |slot: &mut Slot| {
            // A neighbour that is written all the time keeps its own extent open, not this one.
            let changed = match is_one {
                true => slot.changed[half(slot.page, first)],
                false => slot.changed[0].max(slot.changed[1]),
            };
            if changed > slot.durable {
                slot.wanted = true;
                may_close = false;
            }
        };
        if pages.end - pages.start > self.slots.len() as u64 {
            let inside = self.slots.iter_mut().filter(|s| pages.contains(&s.page));
            inside.for_each(judge);
        } else {
            for page in pages {
                if let Some(slot) = self.map.find(page) {
                    judge(&mut self.slots[slot]);
                }
            }
        }
        self.has_wanted |= !may_close;
        may_close
    }

    fn is_rewritten(&self, page: u64) -> bool {
        let word = self.rewritten.get(page as usize / 64);
        word.is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    /// The part of a page that is not trusted any more.
    fn forgotten(&self, page: u64) -> Option<Extent> {
        if self.is_rewritten(page) {
            return None;
        }
        let own = granules_of(page);
        // Two extents at most, side by side: what lies between two parts is untrusted too.
        let parts = self.untrusted.iter().filter_map(|u| u.intersect(own));
        parts.reduce(|a, b| Extent::new(a.start.min(b.start), a.end.max(b.end)))
    }

    /// A slot that may take another page; asks for room if there is none.
    fn victim(&mut self) -> Option<usize> {
        let count = self.slots.len();
        for _ in 0..2 * count {
            let index = self.hand;
            self.hand = (self.hand + 1) % count;
            let slot = &mut self.slots[index];
            if slot.users > 0 || slot.state == State::Loading || slot.writing.is_some() {
                continue;
            }
            if slot.is_dirty() {
                slot.wanted = true;
                self.has_wanted = true;
            } else if !std::mem::take(&mut slot.referenced) {
                return Some(index);
            }
        }
        None
    }

    /// An operation that waits is dropped.
    pub fn forget(&mut self, slot: u32) {
        self.waiting.retain(|s| *s != slot);
    }
}

impl Volume {
    /// Attach: what an earlier process had open is not trusted, unless it ended in order.
    pub(super) fn recover_checksums(&mut self, extents: &[Extent]) {
        if self.checksums.is_on() && !self.durable.sb.clean {
            self.checksums.untrusted = extents.iter().copied().collect();
            let pages = extents.iter().map(|e| pages_of(*e).end).max().unwrap_or(0);
            self.checksums.rewritten = vec![0; pages.div_ceil(64) as usize];
        }
    }

    /// Checksums of the data are stored.
    pub fn has_checksums(&self) -> bool {
        self.checksums.is_on()
    }

    /// It reads or changes the own disk, and checksums of that are stored.
    #[inline]
    pub(super) fn needs_pages(&self, slot: u32) -> bool {
        if !self.checksums.is_on() || !self.is_disk_usable() {
            return false;
        }
        // A repair by a primary has to hold its range first, and to ask.
        let op = self.ops.get(slot);
        op.kind != Kind::Repair || op.piece_buf.is_some() || self.role.is_serving()
    }

    /// Nothing is being read for them, nothing is left to take from the data, and all is on disk:
    /// the next attach may trust them.
    pub(super) fn are_checksums_settled(&self) -> bool {
        let is_quiet = self.ops.each().next().is_none();
        is_quiet && self.checksums.untrusted.is_empty() && self.checksums.is_settled()
    }

    /// The granules whose checksums it needs: of a zeroing those of its piece.
    fn granules_needed(&self, slot: u32) -> Extent {
        let op = self.ops.get(slot);
        match op.kind {
            Kind::Zero { .. } => op.piece,
            _ => op.extent,
        }
    }

    /// Its pages are pinned and in memory; otherwise it waits for them.
    pub(super) fn has_pages(&mut self, slot: u32) -> bool {
        let may_pin = self.checksums.waiting.is_empty();
        if may_pin && self.pin(slot) && self.are_pages_ready(slot) {
            return true;
        }
        self.ops.get_mut(slot).phase = Phase::Sums;
        self.checksums.waiting.push_back(slot);
        self.ops.attention = true;
        false
    }

    fn are_pages_ready(&self, slot: u32) -> bool {
        let sums = &self.checksums;
        pages_of(self.granules_needed(slot)).all(|page| {
            let found = sums.slot_of(page);
            found.is_some_and(|s| sums.slots[s].state == State::Ready)
        })
    }

    /// Takes hold of all its pages, reading those that are missing; all or nothing.
    fn pin(&mut self, slot: u32) -> bool {
        let extent = self.granules_needed(slot);
        for page in pages_of(extent) {
            let found = self.checksums.slot_of(page);
            let Some(at) = found.or_else(|| self.load_page(page)) else {
                self.unpin_pages(pages_of(extent).start..page);
                return false;
            };
            let held = &mut self.checksums.slots[at];
            held.users += 1;
            held.referenced = true;
        }
        self.ops.get_mut(slot).pinned = Some(extent);
        true
    }

    fn unpin_pages(&mut self, pages: std::ops::Range<u64>) {
        for page in pages {
            let at = self.checksums.slot_of(page);
            let slot = &mut self.checksums.slots[at.expect("a pinned page stays in memory")];
            slot.users -= 1;
        }
    }

    fn load_page(&mut self, page: u64) -> Option<usize> {
        let region = self.checksums.region?;
        let at = self.checksums.victim()?;
        let forget = self.checksums.forgotten(page);
        self.checksums.map.put(at, page);
        self.checksums.slots[at] = Slot {
            page,
            state: State::Loading,
            durable: self.checksums.clock,
            changed: [0; 2],
            users: 0,
            wanted: false,
            ..self.checksums.slots[at]
        };
        self.meta_watch.reads.began();
        self.actions.push(Action::SumsRead(PageRead {
            token: token(Purpose::SumsRead, 0, at as u32),
            slot: at,
            page,
            block: region.block(page),
            forget,
        }));
        Some(at)
    }

    /// A page is in memory, whatever was found of it.
    pub(super) fn sums_read(&mut self, token: Token, found: SumsFound) {
        self.meta_watch.reads.ended();
        self.ops.attention = true;
        let index = parts(token).map(|(_, _, index)| index as usize);
        let Some(slot) = index.and_then(|i| self.checksums.slots.get_mut(i)) else {
            return;
        };
        slot.state = State::Ready;
        (slot.counter, slot.is_second) = (found.counter, found.is_second);
        if found.is_lost {
            let page = slot.page;
            self.page_lost(page);
        }
    }

    /// It ends: it waits for no pages, and holds none.
    pub(super) fn let_go_of_pages(&mut self, slot: u32) {
        if self.ops.get(slot).phase == Phase::Sums {
            self.checksums.forget(slot);
        }
        self.unpin(slot);
    }

    /// It needs its pages no more. What it changed is not on disk yet.
    pub(super) fn unpin(&mut self, slot: u32) {
        let Some(extent) = self.ops.get_mut(slot).pinned.take() else {
            return;
        };
        let op = self.ops.get(slot);
        let is_out = op.phase == Phase::Out;
        let changes = match op.kind {
            Kind::Write { .. } | Kind::Zero { .. } | Kind::Store { .. } => is_out,
            // Until somebody told it what to write, it only asks.
            Kind::Repair => is_out && op.piece_buf.is_some(),
            Kind::MemberData { .. } | Kind::MemberZero { .. } => is_out,
            Kind::Scrub { adopted, .. } => adopted,
            _ => false,
        };
        if changes {
            self.repairs.overwritten(extent);
            self.note_changed(extent);
        }
        let pages = pages_of(extent);
        self.unpin_pages(pages);
        self.ops.attention |= !self.checksums.waiting.is_empty();
    }

    fn note_changed(&mut self, extent: Extent) {
        let sums = &mut self.checksums;
        sums.clock += 1;
        for page in pages_of(extent) {
            let Some(at) = sums.map.find(page) else {
                continue;
            };
            let Some(part) = extent.intersect(granules_of(page)) else {
                continue;
            };
            let (first, end) = part.al_extents();
            for al_extent in first..end {
                sums.slots[at].changed[half(page, al_extent)] = sums.clock;
            }
        }
    }

    /// Lets those go on whose pages are in memory now, and pins for those that wait, in order.
    pub(super) fn settle_checksums(&mut self) {
        if !self.checksums.is_on() {
            return;
        }
        let mut may_pin = true;
        for _ in 0..self.checksums.waiting.len() {
            let Some(slot) = self.checksums.waiting.pop_front() else {
                break;
            };
            if self.ops.get(slot).pinned.is_none() {
                may_pin = may_pin && self.pin(slot);
            }
            match self.ops.get(slot).pinned.is_some() && self.are_pages_ready(slot) {
                true => self.start_with_pages(slot),
                false => self.checksums.waiting.push_back(slot),
            }
        }
    }

    /// Writes what somebody waits for.
    pub(super) fn write_sums(&mut self) {
        let Some(region) = self.checksums.region else {
            return;
        };
        let sums = &mut self.checksums;
        if !sums.has_wanted && !sums.wants_all {
            return;
        }
        for (index, slot) in sums.slots.iter_mut().enumerate() {
            if sums.writing >= WRITES_MAX || self.durable.has_failed {
                return;
            }
            let is_due = (slot.wanted || sums.wants_all) && slot.is_dirty();
            if !is_due || slot.writing.is_some() || slot.state != State::Ready {
                continue;
            }
            slot.wanted = false;
            slot.writing = Some(slot.changed[0].max(slot.changed[1]));
            slot.is_second = !slot.is_second;
            slot.counter += 1;
            sums.writing += 1;
            self.meta_watch.writes.began();
            self.actions.push(Action::SumsWrite {
                token: token(Purpose::SumsPage, 0, index as u32),
                slot: index,
                block: region.block(slot.page) + u64::from(slot.is_second),
                counter: slot.counter,
            });
        }
        // What is on its way is looked at again when it is there.
        sums.has_wanted = false;
        if sums.wants_all && sums.is_settled() {
            sums.wants_all = false;
        }
    }

    pub(super) fn sums_written(&mut self, index: u32) {
        if let Some(slot) = self.checksums.slots.get_mut(index as usize)
            && let Some(upto) = slot.writing.take()
        {
            slot.durable = upto;
            let (word, bit) = (slot.page as usize / 64, slot.page % 64);
            if let Some(word) = self.checksums.rewritten.get_mut(word) {
                *word |= 1 << bit;
            }
            self.checksums.writing -= 1;
            self.checksums.has_wanted = true;
        }
    }
}
