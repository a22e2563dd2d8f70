//! The metadata area of a replica: 4096-byte blocks that are durable once reported done. A write
//! under way at a crash leaves the old block, the new one, or one torn at a 512-byte border.

use std::collections::BTreeMap;

use engine_core::action::{META_BLOCK, MetaBlock};

use crate::rng::Rng;

/// One metadata area.
pub struct MetaDisk {
    blocks: BTreeMap<u64, Box<MetaBlock>>,
    in_flight: BTreeMap<u64, (u64, Box<MetaBlock>)>,
    next_io: u64,
    version: u64,
    rng: Rng,
    /// Every write fails.
    pub has_failed: bool,
    /// Nothing completes.
    pub is_hung: bool,
}

impl MetaDisk {
    /// An area that was never written.
    pub fn new(rng: Rng) -> MetaDisk {
        MetaDisk {
            blocks: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            next_io: 1,
            version: 0,
            rng,
            has_failed: false,
            is_hung: false,
        }
    }

    /// What a read of the whole area finds; absent blocks are zeros.
    pub fn blocks(&self) -> &BTreeMap<u64, Box<MetaBlock>> {
        &self.blocks
    }

    /// Grows with each change of the durable content.
    pub fn version(&self) -> u64 {
        self.version
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
        self.put(block, bytes);
        true
    }

    fn put(&mut self, block: u64, bytes: Box<MetaBlock>) {
        self.version += 1;
        self.blocks.insert(block, bytes);
    }

    fn land_torn(&mut self, block: u64, bytes: &MetaBlock) {
        let mut torn = self
            .blocks
            .get(&block)
            .cloned()
            .unwrap_or_else(|| Box::new([0; META_BLOCK]));
        for sector in 0..META_BLOCK / 512 {
            if self.rng.coin() {
                let at = sector * 512..(sector + 1) * 512;
                torn[at.clone()].copy_from_slice(&bytes[at]);
            }
        }
        self.put(block, torn);
    }

    /// A crash: each write under way leaves the old block, the new one or a torn one.
    pub fn crash(&mut self) {
        for (block, bytes) in std::mem::take(&mut self.in_flight).into_values() {
            match self.rng.below(3) {
                0 => {}
                1 => self.put(block, bytes),
                _ => self.land_torn(block, &bytes),
            }
        }
        self.is_hung = false;
    }

    /// The area is exchanged for this content.
    pub fn exchange(&mut self, blocks: BTreeMap<u64, Box<MetaBlock>>) {
        self.in_flight.clear();
        self.blocks = blocks;
        self.version += 1;
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
            let block = &disk.blocks()[&0];
            let (ones, twos) = (block.contains(&1), block.contains(&2));
            seen[usize::from(ones) + 2 * usize::from(twos) - 1] = true;
        }
        assert_eq!(seen, [true; 3]);
    }
}
