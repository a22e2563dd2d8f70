//! A data disk: what reads return (live), what a power cut leaves (durable), and what is on its
//! way. Content is one tag per block of 512 bytes; 0 is zeros.
//!
//! A disk tears only between blocks. After kill -9, completed writes survive and writes in
//! flight land in any subset of their blocks; after a power cut each block that was not made
//! durable holds any of its versions since.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use engine_core::event::DiskError;
use engine_core::units::Extent;

use crate::rng::Rng;

/// Blocks of one granule.
pub const BLOCKS_PER_GRANULE: u64 = 8;
/// Bytes of a block.
pub const BLOCK: u64 = 512;

/// Content of a granule.
pub type Granule = [u64; BLOCKS_PER_GRANULE as usize];

/// Sparse content; what is absent reads as zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image(BTreeMap<u64, Granule>);

impl Image {
    /// Tag of one block.
    pub fn block(&self, block: u64) -> u64 {
        self.0
            .get(&(block / BLOCKS_PER_GRANULE))
            .map_or(0, |g| g[(block % BLOCKS_PER_GRANULE) as usize])
    }

    /// Tags of one granule.
    pub fn granule(&self, granule: u64) -> Granule {
        self.0.get(&granule).copied().unwrap_or_default()
    }

    /// Stores one block.
    pub fn set(&mut self, block: u64, tag: u64) {
        let granule = block / BLOCKS_PER_GRANULE;
        let slot = (block % BLOCKS_PER_GRANULE) as usize;
        match self.0.get_mut(&granule) {
            Some(content) => {
                content[slot] = tag;
                if *content == Granule::default() {
                    self.0.remove(&granule);
                }
            }
            None if tag != 0 => {
                let mut content = Granule::default();
                content[slot] = tag;
                self.0.insert(granule, content);
            }
            None => {}
        }
    }

    /// Granules inside that are not zeros, lowest first, with their content.
    pub fn written(&self, extent: Extent) -> impl Iterator<Item = (u64, Granule)> + '_ {
        let inside = self.0.range(extent.start..extent.end);
        inside.map(|(granule, content)| (*granule, *content))
    }

    /// Tags of an extent, in order.
    pub fn read(&self, extent: Extent) -> Vec<u64> {
        let mut tags = vec![0; (extent.granules() * BLOCKS_PER_GRANULE) as usize];
        for (granule, content) in self.0.range(extent.start..extent.end) {
            let at = ((granule - extent.start) * BLOCKS_PER_GRANULE) as usize;
            tags[at..at + content.len()].copy_from_slice(content);
        }
        tags
    }

    /// Blocks inside that are not zeros.
    pub fn nonzero(&self, extent: Extent) -> Vec<u64> {
        self.0
            .range(extent.start..extent.end)
            .flat_map(|(g, content)| {
                content
                    .iter()
                    .enumerate()
                    .filter(|(_, tag)| **tag != 0)
                    .map(move |(i, _)| g * BLOCKS_PER_GRANULE + i as u64)
            })
            .collect()
    }

    /// Granules that are not zeros, lowest first.
    pub fn granules(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.keys().copied()
    }
}

/// Blocks of an extent.
pub fn blocks(extent: Extent) -> std::ops::Range<u64> {
    extent.start * BLOCKS_PER_GRANULE..extent.end * BLOCKS_PER_GRANULE
}

#[derive(Clone, Copy, Debug)]
struct Version {
    stamp: u64,
    tag: u64,
}

/// What an operation does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Content as it was when the read began; mixed at the end with what came meanwhile.
    Read {
        /// Where.
        extent: Extent,
        /// What was not zeros at the start.
        before: Vec<(u64, Granule)>,
    },
    /// Store these tags.
    Write {
        /// Where.
        extent: Extent,
        /// One per block.
        tags: Rc<Vec<u64>>,
        /// Through to stable storage.
        durable: bool,
    },
    /// Make zeros.
    Zero {
        /// Where.
        extent: Extent,
        /// Through to stable storage.
        durable: bool,
    },
    /// What completed before the stamp becomes durable.
    Flush {
        /// Clock when it began.
        upto: u64,
    },
}

impl Work {
    /// What it changes, if it changes something.
    fn target(&self) -> Option<Extent> {
        match self {
            Work::Write { extent, .. } | Work::Zero { extent, .. } => Some(*extent),
            Work::Read { .. } | Work::Flush { .. } => None,
        }
    }
}

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

/// Faults switched on now.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Every write ends in EIO, landing in part.
    pub write_error: bool,
    /// The next flush fails, later ones "succeed".
    pub flush_error_once: bool,
    /// Every read ends in EIO.
    pub read_error: bool,
    /// Every write ends in ENOSPC.
    pub is_full: bool,
    /// Nothing completes.
    pub is_hung: bool,
    /// Latency is multiplied.
    pub slowness: u64,
}

/// One data disk.
pub struct Disk {
    live: Image,
    granules: u64,
    /// Per block that is not durable: the durable version first, then all since.
    unsynced: BTreeMap<u64, Vec<Version>>,
    has_volatile_cache: bool,
    in_flight: BTreeMap<u64, Work>,
    clock: u64,
    next_io: u64,
    rng: Rng,
    touched: BTreeSet<u64>,
    /// What reads return of damaged granules, instead of what was stored and is `live`.
    damaged: BTreeMap<u64, Granule>,
    was_damaged: BTreeSet<u64>,
    /// Damage that the process that runs was given.
    met: BTreeSet<u64>,
    rotten: u64,
    /// The next write is lost or lands elsewhere.
    pub trick: Option<Trick>,
    /// Faults switched on now.
    pub faults: Faults,
}

impl Disk {
    /// An empty disk of so many granules.
    pub fn new(granules: u64, has_volatile_cache: bool, rng: Rng) -> Disk {
        Disk {
            live: Image::default(),
            granules,
            unsynced: BTreeMap::new(),
            has_volatile_cache,
            in_flight: BTreeMap::new(),
            clock: 1,
            next_io: 1,
            rng,
            touched: BTreeSet::new(),
            damaged: BTreeMap::new(),
            was_damaged: BTreeSet::new(),
            met: BTreeSet::new(),
            rotten: ROTTEN,
            trick: None,
            faults: Faults {
                slowness: 1,
                ..Faults::default()
            },
        }
    }

    /// What reads return.
    pub fn live(&self) -> &Image {
        &self.live
    }

    /// How long it is.
    pub fn granules(&self) -> u64 {
        self.granules
    }

    /// It is longer from now on, durably, and holds these blocks in what is new.
    pub fn lengthen(&mut self, granules: u64, held: &[(u64, u64)]) {
        let old = std::mem::replace(&mut self.granules, granules);
        assert!(granules >= old, "{granules} granules after {old}");
        for (block, tag) in held {
            self.replace(*block, *tag);
        }
    }

    /// Nothing but zeros in these granules from now on, durably.
    pub fn clear(&mut self, extent: Extent) {
        for block in self.live.nonzero(extent) {
            self.replace(block, 0);
        }
        for block in blocks(extent) {
            self.unsynced.remove(&block);
        }
        self.damaged
            .retain(|g, _| !(extent.start..extent.end).contains(g));
    }

    /// A power cut loses what was not flushed.
    pub fn has_volatile_cache(&self) -> bool {
        self.has_volatile_cache
    }

    /// What a block holds after the worst power cut: its last durable version.
    pub fn durable_block(&self, block: u64) -> u64 {
        self.unsynced
            .get(&block)
            .map_or_else(|| self.live.block(block), |v| v[0].tag)
    }

    /// Blocks with versions that a power cut may take back, and how many versions each.
    pub fn unsynced(&self) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.unsynced.iter().map(|(b, v)| (*b, v.len()))
    }

    /// Granules whose live content changed since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.touched)
    }

    /// Something was touched since the last `take_touched`.
    pub fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Extents being written now.
    pub fn writing(&self) -> impl Iterator<Item = Extent> + '_ {
        self.in_flight.values().filter_map(Work::target)
    }

    /// Operations under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Begins a read.
    pub fn read(&mut self, extent: Extent) -> u64 {
        let before = self.seen_written(extent);
        self.begin(Work::Read { extent, before })
    }

    /// Begins anything; the number names it until [`Disk::finish`].
    pub fn begin(&mut self, work: Work) -> u64 {
        let io = self.next_io;
        self.next_io += 1;
        self.in_flight.insert(io, work);
        io
    }

    /// Begins a flush of what completed so far.
    pub fn flush(&mut self) -> u64 {
        let upto = self.clock;
        self.begin(Work::Flush { upto })
    }

    /// Ends an operation. The tags are those a read returned.
    pub fn finish(&mut self, io: u64) -> (Result<(), DiskError>, Vec<u64>) {
        let work = self
            .in_flight
            .remove(&io)
            .expect("an operation finishes once");
        match work {
            Work::Read { .. } if self.faults.read_error => (Err(DiskError::Io), Vec::new()),
            Work::Read { extent, before } => (Ok(()), self.mixed(extent, &before)),
            Work::Write { .. } | Work::Zero { .. } if self.faults.is_full => {
                self.land_partly(&work);
                (Err(DiskError::NoSpace), Vec::new())
            }
            Work::Write { .. } | Work::Zero { .. } if self.faults.write_error => {
                self.land_partly(&work);
                (Err(DiskError::Io), Vec::new())
            }
            Work::Write { .. } | Work::Zero { .. } => {
                match self.trick.take() {
                    Some(trick) => self.deceive(&work, trick),
                    None => self.land(&work),
                }
                (Ok(()), Vec::new())
            }
            Work::Flush { .. } if self.faults.flush_error_once => {
                self.faults.flush_error_once = false;
                self.lose_at_will();
                (Err(DiskError::Io), Vec::new())
            }
            Work::Flush { upto } => {
                self.sync(upto);
                (Ok(()), Vec::new())
            }
        }
    }

    /// Old content, new content or content on its way: a read that meets a write sees any.
    fn mixed(&mut self, extent: Extent, before: &[(u64, Granule)]) -> Vec<u64> {
        let mut tags = self.seen(extent);
        let first = blocks(extent).start;
        let now = self.seen_written(extent);
        if now != before {
            let old: Image = Image(before.iter().copied().collect());
            let now = now.iter().map(|(granule, _)| *granule);
            let all: BTreeSet<u64> = now.chain(old.granules()).collect();
            for block in all.into_iter().flat_map(|g| blocks(Extent::new(g, g + 1))) {
                let tag = &mut tags[(block - first) as usize];
                if *tag != old.block(block) && self.rng.coin() {
                    *tag = old.block(block);
                }
            }
        }
        for work in self.in_flight.values() {
            let Some(common) = work.target().and_then(|at| at.intersect(extent)) else {
                continue;
            };
            for block in blocks(common) {
                if self.rng.coin() {
                    tags[(block - first) as usize] = match work {
                        Work::Write {
                            extent: at, tags, ..
                        } => tags[(block - blocks(*at).start) as usize],
                        _ => 0,
                    };
                }
            }
        }
        tags
    }

    fn store(&mut self, block: u64, tag: u64, durable: bool) {
        let old = self.live.block(block);
        self.clock += 1;
        if durable || !self.has_volatile_cache {
            self.unsynced.remove(&block);
        } else {
            let stamp = self.clock;
            let versions = self
                .unsynced
                .entry(block)
                .or_insert_with(|| vec![Version { stamp: 0, tag: old }]);
            versions.push(Version { stamp, tag });
        }
        if old != tag {
            self.live.set(block, tag);
            self.touched.insert(block / BLOCKS_PER_GRANULE);
        }
        let granule = block / BLOCKS_PER_GRANULE;
        if let Some(damaged) = self.damaged.get_mut(&granule) {
            damaged[(block % BLOCKS_PER_GRANULE) as usize] = tag;
            if *damaged == self.live.granule(granule) {
                self.damaged.remove(&granule);
            }
        }
    }

    fn changes(&self, work: &Work) -> (Vec<(u64, u64)>, bool) {
        match work {
            Work::Write {
                extent,
                tags,
                durable,
            } => (
                blocks(*extent).zip(tags.iter().copied()).collect(),
                *durable,
            ),
            Work::Zero { extent, durable } => {
                let mut changed: BTreeSet<u64> = self.live.nonzero(*extent).into_iter().collect();
                // A block that reads as zeros may still have an older durable version.
                changed.extend(self.unsynced.range(blocks(*extent)).map(|(b, _)| *b));
                (changed.into_iter().map(|b| (b, 0)).collect(), *durable)
            }
            Work::Read { .. } | Work::Flush { .. } => (Vec::new(), false),
        }
    }

    fn land(&mut self, work: &Work) {
        if let Work::Zero { extent, .. } = work {
            self.damaged
                .retain(|g, _| !(extent.start..extent.end).contains(g));
        }
        let (changes, durable) = self.changes(work);
        changes
            .into_iter()
            .for_each(|(block, tag)| self.store(block, tag, durable));
    }

    fn land_partly(&mut self, work: &Work) {
        let (changes, _) = self.changes(work);
        for (block, tag) in changes {
            if self.rng.coin() {
                self.store(block, tag, false);
            }
        }
    }

    fn sync(&mut self, upto: u64) {
        self.unsynced.retain(|_, versions| {
            let covered = versions.iter().rposition(|v| v.stamp <= upto).unwrap_or(0);
            versions.drain(..covered);
            versions.len() > 1
        });
    }

    /// A failed flush: the cache forgets pages at will, and calls the rest clean.
    fn lose_at_will(&mut self) {
        for (block, versions) in std::mem::take(&mut self.unsynced) {
            let chosen = versions[self.rng.below(versions.len() as u64) as usize].tag;
            self.replace(block, chosen);
        }
    }

    fn replace(&mut self, block: u64, tag: u64) {
        if self.live.block(block) != tag {
            self.live.set(block, tag);
            self.touched.insert(block / BLOCKS_PER_GRANULE);
        }
    }

    /// A durable block changes by itself; nobody is told.
    pub fn rot(&mut self, block: u64, tag: u64) {
        self.unsynced.remove(&block);
        self.live.set(block, tag);
    }

    /// The process was killed: writes under way land wholly, in part or not.
    pub fn kill(&mut self) {
        let order: Vec<u64> = self.in_flight.keys().copied().collect();
        for io in order {
            let Some(work) = self.in_flight.remove(&io) else {
                continue;
            };
            match self.rng.below(3) {
                0 => {}
                1 => self.land(&work),
                _ => self.land_partly(&work),
            }
        }
        self.faults.is_hung = false;
    }

    /// The power failed: as [`Disk::kill`], then every block that was not durable holds any of
    /// its versions.
    pub fn cut_power(&mut self) {
        self.kill();
        self.lose_at_will();
    }

    /// As [`Disk::cut_power`] with the outcome chosen: what is in flight is lost, and bit *i* of
    /// `keep` says whether the *i*-th block that was not durable keeps its newest version.
    pub fn cut_power_exactly(&mut self, keep: u64) {
        self.in_flight.clear();
        self.faults.is_hung = false;
        for (i, (block, versions)) in std::mem::take(&mut self.unsynced).into_iter().enumerate() {
            let keeps = i < 64 && keep >> i & 1 == 1;
            let chosen = if keeps {
                versions.last()
            } else {
                versions.first()
            };
            self.replace(block, chosen.map_or(0, |v| v.tag));
        }
    }

    /// What a power cut now may leave in either of two versions: blocks that writes on their way
    /// would change, then blocks whose newest version is not durable; with the tag that is kept
    /// and the one that is left if it is not, where there is one.
    pub fn open_blocks(&self) -> impl Iterator<Item = (u64, u64, Option<u64>)> + '_ {
        let lands = self.in_flight.values().flat_map(|work| {
            let (changes, _) = self.changes(work);
            changes
                .into_iter()
                .filter(|(block, tag)| self.live.block(*block) != *tag)
                .map(|(block, tag)| (block, tag, None))
        });
        let cached = self.unsynced.iter().map(|(block, versions)| {
            let (first, last) = (versions[0], versions[versions.len() - 1]);
            (*block, last.tag, Some(first.tag))
        });
        lands.chain(cached.filter(|(_, last, first)| Some(*last) != *first))
    }

    /// As [`Disk::cut_power`] with the outcome chosen: bit *i* of `keep` says whether the *i*-th of
    /// the open blocks is kept.
    pub fn cut_power_in_flight(&mut self, keep: u64) {
        let open: Vec<_> = self.open_blocks().collect();
        let keeps = |i: usize| i < 64 && keep >> i & 1 == 1;
        // What the cache loses goes first: what lands is newer than all of it.
        let cached = open
            .iter()
            .enumerate()
            .filter(|(_, (.., old))| old.is_some());
        for (_, (block, _, old)) in cached.filter(|(i, _)| !keeps(*i)) {
            self.replace(*block, old.unwrap_or_default());
        }
        let lands = open
            .iter()
            .enumerate()
            .filter(|(_, (.., old))| old.is_none());
        for (_, (block, tag, _)) in lands.filter(|(i, _)| keeps(*i)) {
            self.replace(*block, *tag);
        }
        self.in_flight.clear();
        self.unsynced.clear();
        self.faults.is_hung = false;
    }

    /// What reads return.
    fn seen(&self, extent: Extent) -> Vec<u64> {
        let mut tags = self.live.read(extent);
        for (granule, content) in self.damaged.range(extent.start..extent.end) {
            let at = ((granule - extent.start) * BLOCKS_PER_GRANULE) as usize;
            tags[at..at + content.len()].copy_from_slice(content);
        }
        tags
    }

    /// Granules of which reads return something else than zeros, and what.
    fn seen_written(&self, extent: Extent) -> Vec<(u64, Granule)> {
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
    fn deceive(&mut self, work: &Work, trick: Trick) {
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

    /// Content and durability as they are now, for bringing an old disk back.
    pub fn snapshot(&self) -> Image {
        self.live.clone()
    }

    /// The disk is exchanged for one with this content.
    pub fn exchange(&mut self, content: Image) {
        self.in_flight.clear();
        self.unsynced.clear();
        let old: Vec<u64> = self.live.granules().chain(content.granules()).collect();
        self.touched.extend(old);
        self.live = content;
        self.damaged.clear();
        self.trick = None;
        self.faults = Faults {
            slowness: 1,
            ..Faults::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(disk: &mut Disk, granule: u64, tag: u64, durable: bool) {
        let extent = Extent::new(granule, granule + 1);
        let io = disk.begin(Work::Write {
            extent,
            tags: vec![tag; 8].into(),
            durable,
        });
        assert_eq!(disk.finish(io).0, Ok(()));
    }

    #[test]
    fn a_power_cut_keeps_what_was_flushed() {
        for seed in 0..50 {
            let mut disk = Disk::new(8, true, Rng::new(seed));
            written(&mut disk, 0, 1, false);
            let flush = disk.flush();
            written(&mut disk, 0, 2, false);
            assert_eq!(disk.finish(flush).0, Ok(()));
            assert_eq!(disk.durable_block(0), 1);
            disk.cut_power();
            let after = disk.live().granule(0);
            assert!(after.iter().all(|t| [1, 2].contains(t)), "{after:?}");
        }
    }

    #[test]
    fn a_durable_write_is_durable_when_it_completes() {
        let mut disk = Disk::new(8, true, Rng::new(1));
        written(&mut disk, 3, 7, false);
        written(&mut disk, 3, 8, true);
        disk.cut_power();
        assert_eq!(disk.live().granule(3), [8; 8]);
    }

    #[test]
    fn a_kill_keeps_completed_writes() {
        let mut disk = Disk::new(8, true, Rng::new(1));
        written(&mut disk, 1, 5, false);
        disk.kill();
        assert_eq!(disk.live().granule(1), [5; 8]);
    }

    #[test]
    fn a_failed_flush_may_lose_pages_and_the_next_one_succeeds() {
        let lost = (0..50).filter(|seed| {
            let mut disk = Disk::new(8, true, Rng::new(*seed));
            written(&mut disk, 0, 1, false);
            disk.faults.flush_error_once = true;
            let first = disk.flush();
            assert_eq!(disk.finish(first).0, Err(DiskError::Io));
            let second = disk.flush();
            assert_eq!(disk.finish(second).0, Ok(()));
            disk.live().block(0) == 0
        });
        assert!(lost.count() > 5);
    }

    #[test]
    fn a_read_that_meets_a_write_sees_old_or_new_blocks() {
        let mut disk = Disk::new(8, false, Rng::new(3));
        written(&mut disk, 0, 1, false);
        let extent = Extent::new(0, 1);
        let write = disk.begin(Work::Write {
            extent,
            tags: vec![2; 8].into(),
            durable: false,
        });
        let read = disk.read(extent);
        let (_, tags) = disk.finish(read);
        assert!(tags.iter().all(|t| [1, 2].contains(t)));
        assert!(tags.contains(&1) && tags.contains(&2), "{tags:?}");
        assert_eq!(disk.finish(write).0, Ok(()));
    }
}
