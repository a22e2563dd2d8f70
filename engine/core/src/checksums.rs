//! Stored checksums of the data, page by page: what a shell holds of them in memory.
//!
//! ```text
//!  core: which page lies in which slot, when it is read and written     Table: its values
//!  DiskWrite done ─► Table::set       read ended ─► Table::check ─► answer, or the bad granules
//! ```
//!
//! A value is not only of the data. It covers the granule's address and the replica's life
//! (law M6): the data of another place, or of a disk that belonged to another replica, never
//! fits. Values lie apart from the data, in the metadata, so a write that the disk lost leaves a
//! value that the old data does not match. 0 says that no checksum is known.

use crate::units::Extent;

/// Values of one page: 504 × 8 = 4032 bytes.
pub const VALUES_PER_PAGE: usize = 504;

const NONE: u32 = u32::MAX;
const FREE: u64 = u64::MAX;

/// Pages that cover so many granules.
pub const fn pages_for(size_granules: u64) -> u64 {
    size_granules.div_ceil(VALUES_PER_PAGE as u64)
}

/// The pages that an extent touches.
pub fn pages_of(extent: Extent) -> std::ops::Range<u64> {
    let per_page = VALUES_PER_PAGE as u64;
    extent.start / per_page..(extent.end - 1) / per_page + 1
}

/// The granules of a page.
pub fn granules_of(page: u64) -> Extent {
    let first = page * VALUES_PER_PAGE as u64;
    Extent::new(first, first + VALUES_PER_PAGE as u64)
}

/// The value stored for a granule whose data has the checksum `crc`; never 0. For one place and
/// life it differs wherever the checksum does (two of 2^64 values fall together on 1).
#[inline]
pub fn value(crc: u64, granule: u64, life: u128) -> u64 {
    let life = (life as u64) ^ ((life >> 64) as u64).rotate_left(32);
    let place = granule.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ life;
    let place = (place ^ (place >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (crc ^ place ^ (place >> 29)).max(1)
}

/// Which slot holds which page.
pub(crate) struct PageMap {
    buckets: Vec<u32>,
    slots: Vec<(u64, u32)>,
}

impl PageMap {
    pub(crate) fn new(slots: usize) -> PageMap {
        PageMap {
            buckets: vec![NONE; (2 * slots).next_power_of_two()],
            slots: vec![(FREE, NONE); slots],
        }
    }

    fn bucket(&self, page: u64) -> usize {
        (page.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & (self.buckets.len() - 1)
    }

    #[inline]
    pub(crate) fn find(&self, page: u64) -> Option<usize> {
        let mut slot = self.buckets[self.bucket(page)];
        while slot != NONE {
            let (found, next) = self.slots[slot as usize];
            if found == page {
                return Some(slot as usize);
            }
            slot = next;
        }
        None
    }

    /// The slot holds this page from now on, and no other.
    pub(crate) fn put(&mut self, slot: usize, page: u64) {
        self.take(slot);
        let bucket = self.bucket(page);
        self.slots[slot] = (page, self.buckets[bucket]);
        self.buckets[bucket] = slot as u32;
    }

    /// The slot holds nothing.
    fn take(&mut self, slot: usize) {
        let (page, after) = std::mem::replace(&mut self.slots[slot], (FREE, NONE));
        if page == FREE {
            return;
        }
        let bucket = self.bucket(page);
        let mut at = self.buckets[bucket];
        if at == slot as u32 {
            self.buckets[bucket] = after;
            return;
        }
        while self.slots[at as usize].1 != slot as u32 {
            at = self.slots[at as usize].1;
            assert!(at != NONE, "slot {slot} stands in its bucket");
        }
        self.slots[at as usize].1 = after;
    }
}

/// Values of the pages that are in memory. What it is told of other pages it forgets, and it
/// vouches for nothing of them.
pub struct Table {
    life: u128,
    zero_crc: u64,
    zeroed: Option<Extent>,
    map: PageMap,
    values: Vec<[u64; VALUES_PER_PAGE]>,
}

/// What a scrub found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// From the first granule that does not match to the last.
    pub bad: Option<Extent>,
    /// Granules of which no checksum was known; now it is.
    pub adopted: u64,
}

impl Table {
    /// Room for so many pages. `zero_crc` is the checksum of a granule of zeros; `zeroed` is what
    /// reads as zeros where no page says otherwise.
    pub fn new(slots: usize, life: u128, zero_crc: u64, zeroed: Option<Extent>) -> Table {
        Table {
            life,
            zero_crc,
            zeroed,
            map: PageMap::new(slots),
            values: vec![[0; VALUES_PER_PAGE]; slots],
        }
    }

    /// A page was read into `slot`: these values, or what the replica was formatted over. Of
    /// `forget` nothing counts.
    pub fn load(
        &mut self,
        slot: usize,
        page: u64,
        values: Option<&[u64; VALUES_PER_PAGE]>,
        is_lost: bool,
        forget: Option<Extent>,
    ) {
        self.map.put(slot, page);
        let own = granules_of(page);
        self.values[slot] = match values {
            Some(values) => *values,
            None => [0; VALUES_PER_PAGE],
        };
        let zeroed = self.zeroed.and_then(|z| z.intersect(own));
        if let (None, false, Some(zeroed)) = (values, is_lost, zeroed) {
            self.set_zeros(zeroed);
        }
        if let Some(forget) = forget.and_then(|f| f.intersect(own)) {
            self.forget(forget);
        }
    }

    /// The values of a slot, to be written.
    pub fn values(&self, slot: usize) -> &[u64; VALUES_PER_PAGE] {
        &self.values[slot]
    }

    /// The value of a granule, 0 where no checksum is known; `None`: its page is not in memory.
    pub fn stored(&self, granule: u64) -> Option<u64> {
        let page = granule / VALUES_PER_PAGE as u64;
        let slot = self.map.find(page)?;
        Some(self.values[slot][(granule - granules_of(page).start) as usize])
    }

    fn each(&mut self, extent: Extent, mut to: impl FnMut(u64, u128) -> u64) {
        for page in pages_of(extent) {
            let (Some(slot), Some(part)) =
                (self.map.find(page), extent.intersect(granules_of(page)))
            else {
                continue;
            };
            let first = granules_of(page).start;
            for granule in part.start..part.end {
                self.values[slot][(granule - first) as usize] = to(granule, self.life);
            }
        }
    }

    /// The disk holds data with these checksums, one per granule of `extent`.
    pub fn set(&mut self, extent: Extent, crcs: &[u64]) {
        assert!(
            crcs.len() as u64 >= extent.granules(),
            "one for each granule"
        );
        self.each(extent, |granule, life| {
            value(crcs[(granule - extent.start) as usize], granule, life)
        });
    }

    /// The disk holds zeros there.
    pub fn set_zeros(&mut self, extent: Extent) {
        let zero_crc = self.zero_crc;
        self.each(extent, |granule, life| value(zero_crc, granule, life));
    }

    /// Nobody knows what the disk holds there.
    pub fn forget(&mut self, extent: Extent) {
        self.each(extent, |_, _| 0);
    }

    /// Compares what was read with what is stored: the run from the first granule that does not
    /// match to the last, or that is of a page that is not in memory.
    pub fn check(&self, extent: Extent, crcs: &[u64]) -> Result<(), Extent> {
        let mut bad: Option<Extent> = None;
        for page in pages_of(extent) {
            let Some(part) = extent.intersect(granules_of(page)) else {
                continue;
            };
            let slot = self.map.find(page);
            for granule in part.start..part.end {
                let is_good = slot.is_some_and(|slot| {
                    let stored = self.values[slot][(granule - granules_of(page).start) as usize];
                    let crc = crcs.get((granule - extent.start) as usize);
                    stored == 0 || crc.is_some_and(|crc| value(*crc, granule, self.life) == stored)
                });
                if !is_good {
                    let first = bad.map_or(granule, |run| run.start);
                    bad = Some(Extent::new(first, granule + 1));
                }
            }
        }
        bad.map_or(Ok(()), Err)
    }

    /// As [`Table::check`], and takes over what was read where no checksum was known.
    pub fn scrub(&mut self, extent: Extent, crcs: &[u64]) -> Scrubbed {
        let bad = self.check(extent, crcs).err();
        let mut adopted = 0;
        for (granule, crc) in (extent.start..extent.end).zip(crcs) {
            let page = granule / VALUES_PER_PAGE as u64;
            let Some(slot) = self.map.find(page) else {
                continue;
            };
            let stored = &mut self.values[slot][(granule - granules_of(page).start) as usize];
            if *stored == 0 {
                *stored = value(*crc, granule, self.life);
                adopted += 1;
            }
        }
        Scrubbed { bad, adopted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: u128 = 0x1234;

    fn table() -> Table {
        let mut table = Table::new(2, LIFE, 77, Some(Extent::new(0, 600)));
        table.load(0, 0, None, false, None);
        table.load(1, 1, None, false, None);
        table
    }

    #[test]
    fn data_of_another_place_or_life_does_not_match() {
        assert_ne!(value(5, 1, LIFE), value(5, 2, LIFE));
        assert_ne!(value(5, 1, LIFE), value(5, 1, LIFE + 1));
        assert_ne!(value(5, 1, LIFE), value(6, 1, LIFE));
        let mut table = table();
        table.set(Extent::new(10, 12), &[5, 6]);
        assert_eq!(table.check(Extent::new(10, 12), &[5, 6]), Ok(()));
        assert_eq!(
            table.check(Extent::new(10, 12), &[6, 5]),
            Err(Extent::new(10, 12))
        );
    }

    #[test]
    fn a_fresh_replica_knows_its_zeros_and_nothing_behind_them() {
        let mut table = table();
        assert_eq!(table.check(Extent::new(500, 600), &[77; 100]), Ok(()));
        assert_eq!(
            table.check(Extent::new(500, 600), &[78; 100]),
            Err(Extent::new(500, 600))
        );
        assert_eq!(table.check(Extent::new(600, 602), &[1, 2]), Ok(()));
        let scrubbed = table.scrub(Extent::new(599, 602), &[77, 1, 2]);
        assert_eq!((scrubbed.bad, scrubbed.adopted), (None, 2));
        assert_eq!(
            table.check(Extent::new(600, 602), &[1, 3]),
            Err(Extent::new(601, 602))
        );
    }

    #[test]
    fn what_is_not_in_memory_is_vouched_for_by_nobody() {
        let mut table = table();
        table.load(0, 7, Some(&[0; VALUES_PER_PAGE]), false, None);
        assert_eq!(
            table.check(Extent::new(3, 5), &[77, 77]),
            Err(Extent::new(3, 5))
        );
        // Told of it, it forgets it.
        table.set(Extent::new(3, 5), &[77, 77]);
        table.load(0, 0, None, false, Some(Extent::new(4, 9)));
        assert_eq!(
            table.check(Extent::new(3, 10), &[77, 1, 2, 3, 4, 5, 77]),
            Ok(())
        );
    }

    #[test]
    fn a_slot_that_takes_another_page_leaves_its_chain_whole() {
        let mut map = PageMap::new(4);
        for round in 0..50u64 {
            for slot in 0..4 {
                map.put(slot, round * 3 + slot as u64);
            }
            for slot in 0..4 {
                assert_eq!(map.find(round * 3 + slot as u64), Some(slot));
            }
            assert_eq!(map.find(round * 3 + 4), None);
        }
    }
}
