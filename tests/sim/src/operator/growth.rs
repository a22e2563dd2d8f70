//! A volume with one replica grows: first its backing, then the volume.

use engine_core::event::Command;
use engine_core::units::GRANULE;

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
            if !self.is_rightly_refused(size, &why) {
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
