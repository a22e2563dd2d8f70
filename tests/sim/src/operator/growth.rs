//! The volume grows: first its backing, then the volume.

use engine_core::event::{Command, DiskError, Event};
use engine_core::units::{Extent, GRANULE};

use super::Purpose;
use crate::disk::BLOCKS_PER_GRANULE;
use crate::world::{Happening, World};

impl World {
    /// Asks whether it may grow, and makes the backing longer if so.
    pub(super) fn grow(&mut self, size: u64, is_held: bool) {
        let node = self.primaries().first().copied().unwrap_or(0);
        if !self.is_alive(node) {
            return;
        }
        let engine = self.nodes[node].engine.as_ref().expect("it is alive");
        if let Err(why) = engine.may_grow(size) {
            self.count("growths refused");
            if !self.is_rightly_refused(node, size, &why) {
                let text = format!("node {node} refuses to grow to {size}: {why:?}");
                self.fail("B13", text);
            }
            return;
        }
        // A crash meanwhile leaves the old length or the new one.
        if self.operator.rng.coin() {
            self.lengthen(node, size, is_held);
        }
        let (life, delay) = (
            self.nodes[node].life,
            self.operator.rng.between(1_000, 2_000_000),
        );
        self.schedule(
            delay,
            Happening::Lengthened {
                node,
                life,
                size,
                is_held,
            },
        );
    }

    fn lengthen(&mut self, node: usize, size: u64, is_held: bool) {
        let old = self.nodes[node].disk.granules();
        if !self.is_alone() {
            let from = self.granules_on(node);
            return self.lengthen_with_zeros(node, from, size);
        }
        if size <= old {
            return;
        }
        let held = match is_held {
            true => self.held_before(&(old * BLOCKS_PER_GRANULE..size * BLOCKS_PER_GRANULE)),
            false => Vec::new(),
        };
        self.nodes[node].disk.lengthen(size, &held);
        self.note_disk(node);
    }

    /// In a mirror what is new is zeros, whatever lay there.
    fn lengthen_with_zeros(&mut self, node: usize, from: u64, size: u64) {
        let disk = &mut self.nodes[node].disk;
        let size = size.max(disk.granules());
        if from < size {
            disk.lengthen(size, &[]);
            disk.clear(Extent::new(from, size));
        }
        self.note_disk(node);
    }

    /// A core wants its backing longer.
    pub fn grow_backing(&mut self, node: usize, from: u64, size: u64) {
        let has = self.found(node).map_or(0, |f| f.granules);
        let life = self.nodes[node].life;
        if from != has || size <= from {
            let text = format!("node {node} has {has} granules, and grows from {from} to {size}");
            return self.fail("B13", text);
        }
        self.count("backings grown");
        let delay = self.nodes[node].rng.between(1_000, 3_000_000);
        self.schedule(
            delay,
            Happening::BackingGrown {
                node,
                life,
                from,
                size,
            },
        );
    }

    /// The shell is done with it.
    pub fn backing_grown(&mut self, node: usize, from: u64, size: u64) {
        let faults = &self.nodes[node].disk.faults;
        let result = match (faults.is_full, faults.write_error) {
            (true, _) => Err(DiskError::NoSpace),
            (_, true) => Err(DiskError::Io),
            _ => {
                self.lengthen_with_zeros(node, from, size);
                Ok(self.nodes[node].disk.granules() * GRANULE)
            }
        };
        self.feed(node, Event::BackingGrown { size, result });
    }

    /// The backing is long enough: the volume may follow.
    pub fn lengthened(&mut self, node: usize, size: u64, is_held: bool) {
        self.lengthen(node, size, is_held);
        let backing_bytes = self.nodes[node].disk.granules() * GRANULE;
        self.growth_asked(size);
        let command = Command::Grow {
            size,
            backing_bytes,
        };
        self.ask_node(node, command, Purpose::Grow(size));
    }

    /// The only copy's metadata could not be written: its disk is mended, and it starts again.
    pub(super) fn restart_failed(&mut self) {
        let has_failed = |n: &usize| {
            let engine = self.nodes[*n].engine.as_ref();
            engine.is_some_and(|e| e.has_meta_failed())
        };
        let failed = self.all().find(has_failed);
        if let Some(node) = failed
            && self.operator.rng.one_in(3)
        {
            self.count("starts after metadata failed");
            self.nodes[node].meta.has_failed = false;
            self.kill(node, Some(0));
        }
    }
}
