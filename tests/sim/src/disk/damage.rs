//! Content that is not what was stored: rot, lost and misdirected writes, what reads return of it,
//! and who knows.

use std::collections::BTreeMap;

use engine_core::units::Extent;

use super::{BLOCKS_PER_GRANULE, Disk, Granule, Work};

/// What becomes of the next write, which ends well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// It never lands.
    Lost,
    /// It lands so many granules further on.
    Misdirected(u64),
}

/// Tags from here on were never written by anybody.
pub const ROTTEN: u64 = 1 << 62;

impl Disk {
    /// A durable block changes by itself; nobody is told.
    pub fn rot(&mut self, block: u64, tag: u64) {
        self.unsynced.remove(&block);
        self.live.set(block, tag);
    }

    /// What reads return.
    pub(super) fn seen(&self, extent: Extent) -> Vec<u64> {
        let mut tags = self.live.read(extent);
        for (granule, content) in self.damaged.range(extent.start..extent.end) {
            let at = ((granule - extent.start) * BLOCKS_PER_GRANULE) as usize;
            tags[at..at + content.len()].copy_from_slice(content);
        }
        tags
    }

    /// Granules of which reads return something else than zeros, and what.
    pub(super) fn seen_written(&self, extent: Extent) -> Vec<(u64, Granule)> {
        let mut written: BTreeMap<u64, Granule> = self.live.written(extent).collect();
        let damaged = self.damaged.range(extent.start..extent.end);
        written.extend(damaged.map(|(granule, content)| (*granule, *content)));
        written.into_iter().collect()
    }

    /// What reads return of one granule.
    fn seen_granule(&self, granule: u64) -> Granule {
        let damaged = self.damaged.get(&granule).copied();
        damaged.unwrap_or_else(|| self.live.granule(granule))
    }

    /// The disk says that it stored this, and did something else.
    pub(super) fn deceive(&mut self, work: &Work, trick: Trick) {
        let (Some(extent), Work::Write { tags, .. }) = (work.target(), work) else {
            return self.land(work);
        };
        let old: Vec<(u64, Granule)> = (extent.start..extent.end)
            .map(|g| (g, self.seen_granule(g)))
            .collect();
        self.land(work);
        for (granule, content) in old {
            self.damage(granule, content);
        }
        let Trick::Misdirected(by) = trick else {
            return;
        };
        for (index, written) in tags.chunks_exact(BLOCKS_PER_GRANULE as usize).enumerate() {
            let granule = extent.start + index as u64 + by;
            let is_calm = !self.writing().any(|w| (w.start..w.end).contains(&granule));
            let is_other = granule >= extent.end && granule < self.granules;
            if is_other && is_calm {
                let written = written.try_into().expect("a chunk is a granule");
                self.damage(granule, written);
            }
        }
    }

    fn damage(&mut self, granule: u64, content: Granule) {
        self.was_damaged.insert(granule);
        self.met.remove(&granule);
        match content == self.live.granule(granule) {
            true => self.damaged.remove(&granule),
            false => self.damaged.insert(granule, content),
        };
    }

    /// Bits of a granule flip, unless it is being written.
    pub fn flip_bits(&mut self, granule: u64) {
        if self.writing().any(|w| (w.start..w.end).contains(&granule)) || granule >= self.granules {
            return;
        }
        let mut content = self.seen_granule(granule);
        self.rotten += 1;
        content[(self.rotten % BLOCKS_PER_GRANULE) as usize] = self.rotten;
        self.damage(granule, content);
    }

    /// Granules of which reads return something else than was stored.
    pub fn damaged(&self) -> impl Iterator<Item = u64> + '_ {
        self.damaged.keys().copied()
    }

    /// The process that runs saw that these granules are damaged.
    pub fn damage_met(&mut self, extent: Extent) {
        let there = self.damaged.range(extent.start..extent.end);
        self.met.extend(there.map(|(granule, _)| granule));
    }

    /// Damaged as it was when the process that runs saw it.
    pub fn left(&self) -> Option<u64> {
        self.met
            .iter()
            .copied()
            .find(|g| self.damaged.contains_key(g))
    }

    /// Another process begins.
    pub fn forget_met(&mut self) {
        self.met.clear();
    }

    /// Granules of the extent of which reads once returned something else than was stored.
    pub fn was_damaged(&self, extent: Extent) -> Vec<u64> {
        let inside = self.was_damaged.range(extent.start..extent.end);
        inside.copied().collect()
    }

    /// The damage of these granules never happened: it was more than the plan may do.
    pub fn undo_damage(&mut self, granules: &[u64]) {
        granules.iter().for_each(|g| {
            self.damaged.remove(g);
        });
    }
}
