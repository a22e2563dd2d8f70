//! Which 4 MiB extents may differ between replicas after a crash (DESIGN D10, laws S2, S3).
//!
//! A slot is a run (start, count) of extents, as it stands on disk. Single extents are found through a hash, runs
//! through a short list. Group commit: a page's write carries every opening queued while the
//! page's last write was in flight; closings ride along with the next write of their page.
//!
//! This module decides; it writes nothing. `touched` is a mark of the caller (number of a flush
//! round, or a seq) that says from which durable mark on a slot may close.

pub use crate::meta::LogSlot as Run;
use crate::meta::{LOG_SLOTS_PER_PAGE as SLOTS_PER_PAGE, LogPage};
use crate::units::{Extent, GRANULES_PER_AL_EXTENT};

/// Most slots one operation holds: 32 MiB, unaligned to extents.
pub const SLOTS_PER_OP: usize = 10;
/// Fewest slots a log may have, so that every operation fits several times.
pub const SLOTS_MIN: usize = 64;
/// `touched` of a slot that may not close until it is touched anew.
pub const NEVER: u64 = u64::MAX;

const NONE: u32 = u32::MAX;

/// The granules a run covers, clipped to the volume.
pub fn granules_of(run: Run, size_granules: u64) -> Option<Extent> {
    let start = u64::from(run.start) * GRANULES_PER_AL_EXTENT;
    let end = (u64::from(run.start) + u64::from(run.count)) * GRANULES_PER_AL_EXTENT;
    let end = end.min(size_granules);
    (start < end).then_some(Extent { start, end })
}

fn covers(run: Run, first: u64, end: u64) -> bool {
    u64::from(run.start) <= first && end <= u64::from(run.start) + u64::from(run.count)
}

#[derive(Clone, Copy)]
struct Slot {
    run: Run,
    users: u32,
    touched: u64,
    /// Page version that carries the opening.
    version: u64,
    referenced: bool,
    next: u32,
}

#[derive(Clone, Copy, Default)]
struct Page {
    /// Grows with every change of a slot in it.
    version: u64,
    writing: Option<u64>,
    durable: u64,
    wanted: bool,
}

/// The slots one operation holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    slots: [u32; SLOTS_PER_OP],
    count: u8,
}

impl Held {
    /// None.
    pub const NONE: Held = Held {
        slots: [NONE; SLOTS_PER_OP],
        count: 0,
    };

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.slots[..usize::from(self.count)]
            .iter()
            .map(|s| *s as usize)
    }

    /// Holds nothing.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn push(&mut self, slot: u32) {
        self.slots[usize::from(self.count)] = slot;
        self.count += 1;
    }
}

/// The log could not give the slots asked for; something must close first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Open runs of one replica's disk.
pub struct ActivityLog {
    slots: Vec<Slot>,
    pages: Vec<Page>,
    buckets: Vec<u32>,
    /// Slots with more than one extent.
    runs: Vec<u32>,
    free: Vec<u32>,
    hand: usize,
}

impl ActivityLog {
    /// A log with the slots found on disk; those open there stay open until they may close.
    pub fn new(recovered: &[Run]) -> ActivityLog {
        let count = recovered.len();
        assert!(count >= SLOTS_MIN, "{count} slots are at least {SLOTS_MIN}");
        let slot = |run: &Run| Slot {
            run: *run,
            users: 0,
            touched: 0,
            version: 0,
            referenced: false,
            next: NONE,
        };
        let mut log = ActivityLog {
            slots: recovered.iter().map(slot).collect(),
            pages: vec![Page::default(); count.div_ceil(SLOTS_PER_PAGE)],
            buckets: vec![NONE; (count * 2).next_power_of_two()],
            runs: Vec::with_capacity(count),
            free: Vec::with_capacity(count),
            hand: 0,
        };
        for index in (0..count).rev() {
            match log.slots[index].run.count {
                0 => log.free.push(index as u32),
                _ => log.link(index),
            }
        }
        log
    }

    /// Open runs: what a crash now would have to reconcile.
    pub fn open(&self) -> impl Iterator<Item = Run> {
        self.slots.iter().map(|s| s.run).filter(|r| r.count > 0)
    }

    /// Nothing is open.
    pub fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Takes hold of the slots that cover `extent`, opening what is missing, all or nothing.
    /// More than [`SLOTS_PER_OP`] extents take one run slot.
    pub fn acquire(&mut self, extent: Extent) -> Result<Held, Full> {
        let (first, end) = extent.al_extents();
        if let Some(slot) = self.find_run(first, end) {
            return Ok(self.hold_one(slot));
        }
        if end - first > SLOTS_PER_OP as u64 {
            let count = u32::try_from(end - first).unwrap_or(u32::MAX);
            let slot = self
                .open_slot(Run {
                    start: first as u32,
                    count,
                })
                .ok_or(Full)?;
            return Ok(self.hold_one(slot));
        }
        let missing = (first..end).filter(|e| self.find(*e).is_none()).count();
        if missing > self.free.len() {
            return Err(Full);
        }
        let mut held = Held::NONE;
        for extent in first..end {
            let run = Run {
                start: extent as u32,
                count: 1,
            };
            let slot = match self.find(extent) {
                Some(slot) => slot,
                None => self.open_slot(run).ok_or(Full)?,
            };
            self.hold(slot);
            held.push(slot);
        }
        Ok(held)
    }

    fn hold_one(&mut self, slot: u32) -> Held {
        self.hold(slot);
        let mut held = Held::NONE;
        held.push(slot);
        held
    }

    fn hold(&mut self, slot: u32) {
        let slot = &mut self.slots[slot as usize];
        slot.users += 1;
        slot.referenced = true;
    }

    /// Every slot held is durable on disk: the write it covers may be given to the disk.
    #[inline]
    pub fn is_durable(&self, held: &Held) -> bool {
        held.iter()
            .all(|i| self.slots[i].version <= self.pages[i / SLOTS_PER_PAGE].durable)
    }

    /// The operation is over; the slots may close once the caller's durable mark passes `touched`.
    #[inline]
    pub fn release(&mut self, held: &Held, touched: u64) {
        for index in held.iter() {
            let slot = &mut self.slots[index];
            assert!(slot.users > 0, "slot {index} is held");
            slot.users -= 1;
            slot.touched = slot.touched.max(touched);
        }
    }

    /// Sets the mark of every open slot: at a change of role the marks change their meaning.
    pub fn retouch(&mut self, touched: u64) {
        self.slots
            .iter_mut()
            .filter(|s| s.run.count > 0)
            .for_each(|s| s.touched = touched);
    }

    /// Slots that were to stay open until a new mark get one: their writes are covered by it.
    pub fn settle_never(&mut self, touched: u64) {
        self.slots
            .iter_mut()
            .filter(|s| s.touched == NEVER)
            .for_each(|s| s.touched = touched);
    }

    /// Marks of the slots that nobody holds and that are not yet below `durable`: is there any?
    pub fn waits_for_durability(&self, durable: u64) -> bool {
        self.slots
            .iter()
            .any(|s| s.run.count > 0 && s.users == 0 && s.touched >= durable)
    }

    /// Closes up to `limit` idle slots whose mark lies below `durable` and whose bits
    /// `is_marked` says are durable for everybody who lacks them. Second chance to recently used
    /// ones. Returns how many closed.
    pub fn close(
        &mut self,
        limit: usize,
        durable: u64,
        mut is_marked: impl FnMut(Run) -> bool,
    ) -> usize {
        let mut closed = 0;
        for _ in 0..self.slots.len() * 2 {
            if closed == limit {
                break;
            }
            let index = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[index];
            if slot.run.count == 0 || slot.users > 0 || slot.touched >= durable {
                continue;
            }
            if std::mem::take(&mut slot.referenced) || !is_marked(slot.run) {
                continue;
            }
            self.unlink(index);
            self.free.push(index as u32);
            // Not wanted at once: a slot that is open only on disk costs a resync, never data.
            self.pages[index / SLOTS_PER_PAGE].version += 1;
            closed += 1;
        }
        closed
    }

    /// Makes every page that differs from disk be written, closings included.
    pub fn want_all(&mut self) {
        for page in &mut self.pages {
            page.wanted |= page.version != page.durable;
        }
    }

    /// Every page on disk says what memory says.
    pub fn is_settled(&self) -> bool {
        self.pages
            .iter()
            .all(|p| p.version == p.durable && p.writing.is_none())
    }

    /// The next page to write now, if any; it counts as in flight until [`Self::written`].
    pub fn next_page(&mut self) -> Option<usize> {
        let page = self
            .pages
            .iter()
            .position(|p| p.wanted && p.writing.is_none())?;
        self.pages[page].wanted = false;
        self.pages[page].writing = Some(self.pages[page].version);
        Some(page)
    }

    /// What a page says now.
    pub fn page_runs(&self, page: usize) -> LogPage {
        let first = page * SLOTS_PER_PAGE;
        std::array::from_fn(|i| self.slots.get(first + i).map_or(Run::FREE, |s| s.run))
    }

    /// The page's write is durable: everything it carried counts.
    pub fn written(&mut self, page: usize) {
        let page = &mut self.pages[page];
        page.durable = page
            .writing
            .take()
            .expect("a page is written once it was given out");
    }

    fn bucket(&self, extent: u64) -> usize {
        (extent.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize & (self.buckets.len() - 1)
    }

    fn find(&self, extent: u64) -> Option<u32> {
        let mut slot = self.buckets[self.bucket(extent)];
        while slot != NONE {
            let found = &self.slots[slot as usize];
            if u64::from(found.run.start) == extent {
                return Some(slot);
            }
            slot = found.next;
        }
        None
    }

    fn find_run(&self, first: u64, end: u64) -> Option<u32> {
        self.runs
            .iter()
            .copied()
            .find(|s| covers(self.slots[*s as usize].run, first, end))
    }

    fn open_slot(&mut self, run: Run) -> Option<u32> {
        let slot = self.free.pop()?;
        let page = &mut self.pages[slot as usize / SLOTS_PER_PAGE];
        page.version += 1;
        page.wanted = true;
        self.slots[slot as usize] = Slot {
            run,
            users: 0,
            touched: 0,
            version: page.version,
            referenced: true,
            next: NONE,
        };
        self.link(slot as usize);
        Some(slot)
    }

    fn link(&mut self, index: usize) {
        let run = self.slots[index].run;
        if run.count > 1 {
            self.runs.push(index as u32);
            return;
        }
        let bucket = self.bucket(u64::from(run.start));
        self.slots[index].next = self.buckets[bucket];
        self.buckets[bucket] = index as u32;
    }

    fn unlink(&mut self, index: usize) {
        let run = std::mem::take(&mut self.slots[index].run);
        if run.count > 1 {
            self.runs.retain(|s| *s != index as u32);
            return;
        }
        let bucket = self.bucket(u64::from(run.start));
        let after = self.slots[index].next;
        let mut slot = self.buckets[bucket];
        if slot == index as u32 {
            self.buckets[bucket] = after;
            return;
        }
        while self.slots[slot as usize].next != index as u32 {
            slot = self.slots[slot as usize].next;
            assert!(slot != NONE, "slot {index} stands in its bucket");
        }
        self.slots[slot as usize].next = after;
    }
}

#[cfg(test)]
mod tests;
