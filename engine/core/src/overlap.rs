//! Range holds: overlapping operations take effect in arrival order (law B10).
//!
//! A fixed slab of holders, hashed by 128 KiB units: an operation of up to two units stands in
//! one or two buckets, a wider one in the list of all holders that every wide or wide-meeting
//! search walks. No tree, no allocation. Shared holds (reads) do not exclude each other.
//!
//! A holder counts the earlier overlapping holders that are still active (`blockers`); it is
//! granted at zero. `remove` counts down exactly the holders whose count it had raised.

use crate::units::Extent;

const UNIT_GRANULES: u64 = 32;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Holder {
    extent: Extent,
    arrival: u64,
    blockers: u32,
    exclusive: bool,
    active: bool,
    /// Next holder in the bucket of the first and of the second unit.
    next: [u32; 2],
    /// Neighbours in the list of all holders, or of wide holders.
    before: u32,
    after: u32,
}

impl Holder {
    const NOBODY: Holder = Holder {
        extent: Extent { start: 0, end: 1 },
        arrival: 0,
        blockers: 0,
        exclusive: false,
        active: false,
        next: [NONE; 2],
        before: NONE,
        after: NONE,
    };

    fn first_unit(&self) -> u64 {
        self.extent.start / UNIT_GRANULES
    }

    fn last_unit(&self) -> u64 {
        (self.extent.end - 1) / UNIT_GRANULES
    }

    fn is_wide(&self) -> bool {
        self.last_unit() - self.first_unit() > 1
    }

    fn conflicts(&self, other: &Holder) -> bool {
        (self.exclusive || other.exclusive) && self.extent.overlaps(other.extent)
    }
}

/// All range holds of a volume. Holders are named by their slot in the operation table.
pub struct Overlap {
    holders: Vec<Holder>,
    /// Heads of bucket chains; an entry is `slot * 2 + which unit`.
    buckets: Vec<u32>,
    narrow: u32,
    wide: u32,
    next_arrival: u64,
}

impl Overlap {
    /// Room for `slots` holders.
    pub fn new(slots: usize) -> Overlap {
        Overlap {
            holders: vec![Holder::NOBODY; slots],
            buckets: vec![NONE; (slots * 2).next_power_of_two()],
            narrow: NONE,
            wide: NONE,
            next_arrival: 0,
        }
    }

    /// Queues `slot` for `extent`; true if it is granted at once.
    pub fn insert(&mut self, slot: u32, extent: Extent, exclusive: bool) -> bool {
        let index = slot as usize;
        assert!(!self.holders[index].active, "slot {slot} holds nothing yet");
        let mut holder = Holder {
            extent,
            arrival: self.next_arrival,
            blockers: 0,
            exclusive,
            active: true,
            next: [NONE; 2],
            before: NONE,
            after: NONE,
        };
        self.next_arrival += 1;
        let mut blockers = 0;
        self.each_overlapping(&holder, |other| {
            blockers += u32::from(other.conflicts(&holder));
        });
        holder.blockers = blockers;
        self.holders[index] = holder;
        self.link(slot);
        blockers == 0
    }

    /// Ends the hold of `slot`; `granted` receives the slots that may go on now.
    pub fn remove(&mut self, slot: u32, granted: &mut Vec<u32>) {
        let holder = self.holders[slot as usize];
        assert!(holder.active, "slot {slot} holds its range");
        self.unlink(slot);
        self.holders[slot as usize].active = false;
        let first = granted.len();
        self.each_overlapping_slot(&holder, |other_slot, other| {
            if other.arrival > holder.arrival && other.conflicts(&holder) {
                granted.push(other_slot);
            }
        });
        let mut kept = first;
        for i in first..granted.len() {
            let other = granted[i];
            let blocked = &mut self.holders[other as usize].blockers;
            assert!(*blocked > 0, "slot {other} was counted as blocked");
            *blocked -= 1;
            if *blocked == 0 {
                granted[kept] = other;
                kept += 1;
            }
        }
        granted.truncate(kept);
    }

    /// `slot` stands in line or holds its range.
    pub fn holds(&self, slot: u32) -> bool {
        self.holders[slot as usize].active
    }

    /// Nothing earlier overlaps `slot` any more.
    pub fn is_granted(&self, slot: u32) -> bool {
        let holder = &self.holders[slot as usize];
        holder.active && holder.blockers == 0
    }

    /// The part inside `within` of every exclusive range that is held or stands in line, each once.
    pub fn each_exclusive(&self, within: Extent, mut visit: impl FnMut(Extent)) {
        let holder = Holder {
            extent: within,
            ..Holder::NOBODY
        };
        self.each_overlapping(&holder, |other| {
            if let Some(common) = other.extent.intersect(within).filter(|_| other.exclusive) {
                visit(common);
            }
        });
    }

    fn bucket(&self, unit: u64) -> usize {
        (unit.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & (self.buckets.len() - 1)
    }

    fn each_overlapping(&self, holder: &Holder, mut visit: impl FnMut(&Holder)) {
        self.each_overlapping_slot(holder, |_, other| visit(other));
    }

    /// Visits every active holder that may overlap `holder`, each once.
    #[inline]
    fn each_overlapping_slot(&self, holder: &Holder, mut visit: impl FnMut(u32, &Holder)) {
        self.walk(self.wide, &mut visit);
        if holder.is_wide() {
            self.walk(self.narrow, &mut visit);
            return;
        }
        for unit in holder.first_unit()..=holder.last_unit() {
            let mut entry = self.buckets[self.bucket(unit)];
            while entry != NONE {
                let (slot, which) = (entry >> 1, (entry & 1) as usize);
                let other = &self.holders[slot as usize];
                entry = other.next[which];
                // Two holders that share both units meet twice: the first common unit counts.
                let common = holder.first_unit().max(other.first_unit());
                if other.first_unit() + which as u64 == unit && unit == common {
                    visit(slot, other);
                }
            }
        }
    }

    fn walk(&self, head: u32, visit: &mut impl FnMut(u32, &Holder)) {
        let mut slot = head;
        while slot != NONE {
            let other = &self.holders[slot as usize];
            visit(slot, other);
            slot = other.after;
        }
    }

    fn head(&mut self, wide: bool) -> &mut u32 {
        if wide {
            &mut self.wide
        } else {
            &mut self.narrow
        }
    }

    fn link(&mut self, slot: u32) {
        let holder = self.holders[slot as usize];
        let wide = holder.is_wide();
        let after = std::mem::replace(self.head(wide), slot);
        self.holders[slot as usize].after = after;
        if after != NONE {
            self.holders[after as usize].before = slot;
        }
        if wide {
            return;
        }
        for which in 0..=(holder.last_unit() - holder.first_unit()) {
            let bucket = self.bucket(holder.first_unit() + which);
            self.holders[slot as usize].next[which as usize] = self.buckets[bucket];
            self.buckets[bucket] = slot << 1 | which as u32;
        }
    }

    fn unlink(&mut self, slot: u32) {
        let holder = self.holders[slot as usize];
        let wide = holder.is_wide();
        match holder.before {
            NONE => *self.head(wide) = holder.after,
            before => self.holders[before as usize].after = holder.after,
        }
        if holder.after != NONE {
            self.holders[holder.after as usize].before = holder.before;
        }
        if wide {
            return;
        }
        for which in 0..=(holder.last_unit() - holder.first_unit()) {
            let bucket = self.bucket(holder.first_unit() + which);
            let wanted = slot << 1 | which as u32;
            let after = holder.next[which as usize];
            let mut entry = self.buckets[bucket];
            if entry == wanted {
                self.buckets[bucket] = after;
                continue;
            }
            loop {
                assert!(entry != NONE, "slot {slot} stands in its bucket");
                let next = &mut self.holders[(entry >> 1) as usize].next[(entry & 1) as usize];
                if *next == wanted {
                    *next = after;
                    break;
                }
                entry = *next;
            }
        }
    }
}

#[cfg(test)]
mod tests;
