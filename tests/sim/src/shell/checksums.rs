//! Checksums and hashes of content, and what is compared with those that are stored: pages of them
//! read, data read and data written.

use engine_core::action::PageRead;
use engine_core::event::{DiskError, Event, SumsFound};
use engine_core::meta;
use engine_core::units::{ByteRange, Extent, GRANULE};

use crate::disk::{BLOCKS_PER_GRANULE, Granule};
use crate::engine::block_of;
use crate::rng::mix;
use crate::world::{Pending, World};

/// The simulator's checksum of each granule.
pub fn sums(tags: &[u64]) -> Vec<u64> {
    let sum = |granule: &[u64]| mix(granule.iter().fold(7, sum_with));
    // Most of a large payload is zeros.
    let of_zeros = sum(&Granule::default());
    tags.chunks(BLOCKS_PER_GRANULE as usize)
        .map(|granule| match granule == Granule::default() {
            true => of_zeros,
            false => sum(granule),
        })
        .collect()
}

/// The simulator's strong hash of every `each` granules.
pub fn hashes(tags: &[u64], each: u32) -> Vec<u128> {
    let blocks = BLOCKS_PER_GRANULE as usize * each as usize;
    let hash = |tags: &[u64]| mix(tags.iter().fold(11, sum_with));
    // Both halves of one sum: what tells two of them apart are 64 bits.
    let widen = |low: u64| u128::from(mix(low ^ 13)) << 64 | u128::from(low);
    tags.chunks(blocks).map(|tags| widen(hash(tags))).collect()
}

fn sum_with(sum: u64, tag: &u64) -> u64 {
    (sum.rotate_left(5) ^ tag).wrapping_mul(0x517c_c1b7_2722_0a95)
}

impl World {
    /// A page of checksums was read: tells the core.
    pub fn sums_read(&mut self, node: usize, read: PageRead) {
        let machine = &mut self.nodes[node];
        let life = machine.engine.as_ref().map_or(0, |e| e.sums_life());
        let area = machine.meta.area();
        let (a, b) = (block_of(area, read.block), block_of(area, read.block + 1));
        let found = meta::judge_sums(&a, &b, read.block, life);
        if let Some(table) = &mut machine.sums {
            let (values, is_lost) = (found.values.as_ref(), found.is_lost);
            table.load(read.slot, read.page, values, is_lost, read.forget);
        }
        let found = SumsFound {
            counter: found.counter,
            is_second: found.is_second,
            is_lost: found.is_lost,
        };
        let token = read.token;
        self.feed(node, Event::SumsRead { token, found });
    }

    /// What was read, compared with the checksums.
    pub(super) fn check(
        &mut self,
        node: usize,
        pending: &Pending,
        tags: &[u64],
    ) -> Result<(), DiskError> {
        let per = BLOCKS_PER_GRANULE as usize;
        let part = |range: ByteRange, is_last: bool| {
            let cover = range.cover().expect("a merge covers something");
            let (from, is_needed) = match is_last {
                true => (
                    cover.end - 1,
                    !(range.offset + range.len).is_multiple_of(GRANULE),
                ),
                false => (cover.start, !range.offset.is_multiple_of(GRANULE)),
            };
            let at = (from - cover.start) as usize * per;
            is_needed.then(|| (Extent::new(from, from + 1), &tags[at..at + per]))
        };
        let whole = |extent| [Some((extent, tags)), None];
        let parts = match *pending {
            Pending::Read(_, _, extent)
            | Pending::ReadAlloc(_, extent)
            | Pending::Hashes(_, extent, _)
            | Pending::Sums(_, extent) => whole(extent),
            Pending::Merge(_, _, range) | Pending::MergeZeros(_, range) => {
                [part(range, false), part(range, true)]
            }
            _ => [None, None],
        };
        for (extent, tags) in parts.into_iter().flatten() {
            let Some(table) = &self.nodes[node].sums else {
                return Ok(());
            };
            if let Err(bad) = table.check(extent, &sums(tags)) {
                self.note_mismatch(node, bad);
                return Err(DiskError::Checksum(bad));
            }
        }
        Ok(())
    }

    /// What was written has these checksums from now on; of what failed in part nobody knows.
    pub(super) fn keep_sums(
        &mut self,
        node: usize,
        pending: &Pending,
        written: &[u64],
        is_ok: bool,
    ) {
        let Some(table) = &mut self.nodes[node].sums else {
            return;
        };
        match *pending {
            Pending::Write(_, _, extent) | Pending::Zero(_, extent) if !is_ok => {
                table.forget(extent);
            }
            Pending::Write(_, _, extent) => table.set(extent, &sums(written)),
            Pending::Zero(_, extent) => table.set_zeros(extent),
            _ => {}
        }
    }
}
