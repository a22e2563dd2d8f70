//! The metadata area of a replica: 4096-byte blocks that are durable once reported done. A write
//! under way at a crash leaves the old block, the new one, or one torn at a 512-byte border.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use engine_core::action::{META_BLOCK, MetaBlock};

use crate::rng::Rng;

/// One metadata area.
pub struct MetaDisk {
    area: Vec<u8>,
    in_flight: BTreeMap<u64, (u64, Box<MetaBlock>)>,
    next_io: u64,
    version: u64,
    /// Blocks written since somebody last asked, unless all were.
    changed: Option<BTreeSet<u64>>,
    rng: Rng,
    /// Every write fails.
    pub has_failed: bool,
    /// Nothing completes.
    pub is_hung: bool,
}

fn place(block: u64) -> Range<usize> {
    let at = block as usize * META_BLOCK;
    at..at + META_BLOCK
}

impl MetaDisk {
    /// An area that was never written.
    pub fn new(rng: Rng) -> MetaDisk {
        MetaDisk {
            area: Vec::new(),
            in_flight: BTreeMap::new(),
            next_io: 1,
            version: 0,
            changed: None,
            rng,
            has_failed: false,
            is_hung: false,
        }
    }

    /// What a read of the whole area finds; zeros come after its end.
    pub fn area(&self) -> &[u8] {
        &self.area
    }

    /// Grows with each change of the durable content.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Blocks that changed since the last call; `None`: any may have.
    pub fn take_changed(&mut self) -> Option<BTreeSet<u64>> {
        self.changed.replace(BTreeSet::new())
    }

    /// Writes under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// A write to this block is under way.
    pub fn is_writing(&self, block: u64) -> bool {
        self.in_flight.values().any(|(b, _)| *b == block)
    }

    /// Begins a write.
    pub fn begin(&mut self, block: u64, bytes: Box<MetaBlock>) -> u64 {
        let io = self.next_io;
        self.next_io += 1;
        self.in_flight.insert(io, (block, bytes));
        io
    }

    /// Ends a write; true if it is durable.
    pub fn finish(&mut self, io: u64) -> bool {
        let (block, bytes) = self.in_flight.remove(&io).expect("a write finishes once");
        if self.has_failed {
            self.land_torn(block, &bytes);
            return false;
        }
        self.put(block, &bytes);
        true
    }

    /// A block as it lies there, for writing.
    fn block(&mut self, block: u64) -> &mut [u8] {
        self.version += 1;
        if let Some(changed) = &mut self.changed {
            changed.insert(block);
        }
        let place = place(block);
        if self.area.len() < place.end {
            self.area.resize(place.end, 0);
        }
        &mut self.area[place]
    }

    fn put(&mut self, block: u64, bytes: &MetaBlock) {
        self.block(block).copy_from_slice(bytes);
    }

    fn land_torn(&mut self, block: u64, bytes: &MetaBlock) {
        for sector in 0..META_BLOCK / 512 {
            if self.rng.coin() {
                let at = sector * 512..(sector + 1) * 512;
                self.block(block)[at.clone()].copy_from_slice(&bytes[at]);
            }
        }
        self.version += 1;
    }

    /// A crash: each write under way leaves the old block, the new one or a torn one. True if one
    /// was torn.
    pub fn crash(&mut self) -> bool {
        let mut is_torn = false;
        for (block, bytes) in std::mem::take(&mut self.in_flight).into_values() {
            match self.rng.below(3) {
                0 => {}
                1 => self.put(block, &bytes),
                _ => {
                    self.land_torn(block, &bytes);
                    is_torn = true;
                }
            }
        }
        self.is_hung = false;
        is_torn
    }

    /// The area is made anew of these blocks.
    pub fn format(&mut self, blocks: impl Iterator<Item = (u64, Box<MetaBlock>)>) {
        self.exchange(Vec::new());
        for (block, bytes) in blocks {
            self.put(block, &bytes);
        }
    }

    /// The area is exchanged for this content.
    pub fn exchange(&mut self, area: Vec<u8>) {
        self.in_flight.clear();
        self.area = area;
        self.version += 1;
        self.changed = None;
        self.has_failed = false;
        self.is_hung = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_leaves_old_new_or_torn() {
        let mut seen = [false; 3];
        for seed in 0..60 {
            let mut disk = MetaDisk::new(Rng::new(seed));
            let io = disk.begin(0, Box::new([1; META_BLOCK]));
            assert!(disk.finish(io));
            disk.begin(0, Box::new([2; META_BLOCK]));
            disk.crash();
            let block = &disk.area()[..META_BLOCK];
            let (ones, twos) = (block.contains(&1), block.contains(&2));
            seen[usize::from(ones) + 2 * usize::from(twos) - 1] = true;
        }
        assert_eq!(seen, [true; 3]);
    }
}
