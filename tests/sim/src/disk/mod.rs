//! A data disk: what reads return (live), what a power cut leaves (durable), and what is on its
//! way. Content is one tag per block of 512 bytes; 0 is zeros.
//!
//! A disk tears only between blocks. After kill -9, completed writes survive and writes in
//! flight land in any subset of their blocks; after a power cut each block that was not made
//! durable holds any of its versions since.
//!
//! ```text
//!  work.rs: begin … finish ─► here: store, sync ─► image.rs: content
//!   ├ damage.rs  what reads return instead of it: rot, lost and misdirected writes
//!   └ crash.rs   what is left of it by a kill, a power cut or a failed flush
//! ```

mod crash;
mod damage;
mod image;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use engine_core::units::Extent;

pub use damage::{ROTTEN, Trick};
pub use image::{BLOCK, BLOCKS_PER_GRANULE, Granule, Image, blocks};
pub use work::Work;

use crate::rng::Rng;

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

#[derive(Clone, Copy, Debug)]
struct Version {
    stamp: u64,
    tag: u64,
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

    fn sync(&mut self, upto: u64) {
        self.unsynced.retain(|_, versions| {
            let covered = versions.iter().rposition(|v| v.stamp <= upto).unwrap_or(0);
            versions.drain(..covered);
            versions.len() > 1
        });
    }

    fn replace(&mut self, block: u64, tag: u64) {
        if self.live.block(block) != tag {
            self.live.set(block, tag);
            self.touched.insert(block / BLOCKS_PER_GRANULE);
        }
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
mod tests;
