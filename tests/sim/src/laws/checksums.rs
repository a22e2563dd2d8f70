//! Stored checksums and damage on one copy (laws M6, F10): what the metadata says of closed extents
//! is what the disk was given, damage is found and repaired, and never passed on.
//!
//! A plan damages one copy only. What it cannot promise to survive is undone, as if the fault had
//! not happened: damage whose only good copy is gone, and damage where no checksum is known, as in an
//! extent that is open in the activity log when the process dies.

use std::ops::Range;

use engine_core::message::Disk as State;
use engine_core::units::{Extent, NodeIdx};

use crate::disk::{BLOCKS_PER_GRANULE, Disk};
use crate::shell::sums;
use crate::world::World;

/// Checksum of a granule of zeros.
fn zeros() -> u64 {
    sums(&[0; BLOCKS_PER_GRANULE as usize])[0]
}

impl World {
    /// Does something to a disk, where checksums are stored. That no other copy may be as good is
    /// part of it: then reads fail, and a resync waits.
    pub fn damage(&mut self, node: usize, what: impl FnOnce(&mut Disk)) {
        let has_sums = self.plan.settings.sum_pages > 0 && !self.is_witness(node);
        if has_sums {
            self.count("damage");
            what(&mut self.nodes[node].disk);
            self.undo_damage_nobody_could_find(node);
        }
    }

    /// Where no checksum is known there is nothing to compare with: also of what a process that died
    /// had open, or had not written down.
    pub fn undo_damage_nobody_could_find(&mut self, node: usize) {
        let damaged: Vec<u64> = self.nodes[node].disk.damaged().collect();
        if damaged.is_empty() {
            return;
        }
        let Ok(found) = self.found(node) else { return };
        let machine = &self.nodes[node];
        let is_known = |g: &u64| match machine.sums.as_ref().map(|t| t.stored(*g)) {
            Some(Some(value)) => value != 0,
            // Not in memory: as it lies on disk, if that is trusted.
            _ => {
                let stored = found.stored_value(machine.meta.area(), *g, zeros());
                stored.is_some() && !found.is_open(*g)
            }
        };
        let unknown: Vec<u64> = damaged.into_iter().filter(|g| !is_known(g)).collect();
        self.nodes[node].disk.undo_damage(&unknown);
    }

    /// Other members of S that a repair could ask now or later.
    fn good_copies(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let in_sync = self.newest_record().map(|r| r.in_sync);
        self.all().filter(move |n| {
            let machine = &self.nodes[*n];
            let is_lost = machine.is_gone || machine.is_condemned || machine.is_rolled_back;
            let is_member = in_sync.is_some_and(|s| s.has(NodeIdx(*n as u8)));
            let is_good = self.peek(*n).is_some_and(|f| f.disk == State::UpToDate);
            *n != node && is_member && is_good && !is_lost
        })
    }

    /// When all is to be well again: damage that no other copy can mend, or that met the last member,
    /// did not happen.
    pub fn undo_hopeless_damage(&mut self) {
        let has_sums = self.plan.settings.sum_pages > 0;
        if self.is_alone() || !has_sums || !self.operator.is_healing {
            return;
        }
        for node in self.all() {
            let disk = &self.nodes[node].disk;
            let has_copy = |g: &u64| {
                let is_equal =
                    |n: usize| self.nodes[n].disk.live().granule(*g) == disk.live().granule(*g);
                self.good_copies(node).any(is_equal)
            };
            let hopeless: Vec<u64> = disk.damaged().filter(|g| !has_copy(g)).collect();
            if !hopeless.is_empty() {
                self.count("damage undone");
                self.nodes[node].disk.undo_damage(&hopeless);
            }
        }
    }

    /// No damage of the plan counts from here on.
    pub fn undo_all_damage(&mut self) {
        for node in self.all() {
            let damaged: Vec<u64> = self.nodes[node].disk.damaged().collect();
            self.nodes[node].disk.undo_damage(&damaged);
        }
    }

    /// M6: a checksum that would be found after a crash now is that of what the disk was given,
    /// or its extent is open.
    pub(super) fn law_checksums_are_right(&mut self, node: usize) {
        if self.plan.settings.sum_pages == 0 || self.is_witness(node) {
            return;
        }
        let Ok(found) = self.found(node) else { return };
        if found.disk != State::UpToDate || self.nodes[node].is_condemned {
            return;
        }
        let hot = self.hot();
        let machine = &self.nodes[node];
        let is_closed = |g: &u64| *g < found.granules && !found.is_open(*g);
        for granule in hot.iter().copied().filter(is_closed) {
            let Some(stored) = found.stored_value(machine.meta.area(), granule, zeros()) else {
                continue;
            };
            let content = machine.disk.live().granule(granule);
            if stored != found.value_of(sums(&content)[0], granule) {
                let text = format!(
                    "node {node} holds {content:x?} in granule {granule}, its extent is closed, \
                     and the checksum is that of something else"
                );
                return self.fail("M6", text);
            }
        }
    }

    /// F10: what resync sends is what the disk was given, whatever it became there.
    pub(super) fn law_damage_is_not_spread(
        &mut self,
        node: usize,
        extent: Extent,
        tags: Option<&[u64]>,
    ) {
        let disk = &self.nodes[node].disk;
        let per = BLOCKS_PER_GRANULE as usize;
        let is_wrong = |g: &u64| {
            let at = (g - extent.start) as usize * per;
            tags.is_some_and(|t| t[at..at + per] != disk.live().granule(*g))
        };
        let inside = |g: &u64| (extent.start..extent.end).contains(g);
        let spread = disk.damaged().filter(inside).find(is_wrong);
        if let Some(granule) = spread {
            let text = format!("node {node} sends what granule {granule} became on its disk");
            self.fail("F10", text);
        }
    }

    /// What a node's disk gave back does not match. Nobody may be told: who asked may have gone.
    pub fn note_mismatch(&mut self, node: usize, bad: Extent) {
        self.count("checksum errors");
        let damaged = self.nodes[node].disk.was_damaged(bad);
        self.laws.mismatched[node].extend(damaged);
    }

    /// S10: only damage is called damage.
    pub(super) fn law_alarm_is_true(&mut self, node: usize, extent: Extent) {
        self.count("damage found");
        let machine = &mut self.nodes[node];
        machine.disk.damage_met(extent);
        // A flush that failed may have lost what was written before it (F4).
        if machine.disk.was_damaged(extent).is_empty() && !machine.has_failed_flush {
            let text = format!("node {node} finds damage in {extent:?}, and there never was any");
            self.fail("S10", text);
        }
    }

    /// The node's disk once gave back something else than it was given of one of these blocks.
    pub(super) fn met_damage(&self, node: usize, blocks: &Range<u64>) -> bool {
        let (first, end) = (
            blocks.start / BLOCKS_PER_GRANULE,
            blocks.end.div_ceil(BLOCKS_PER_GRANULE),
        );
        let mut met = self.laws.mismatched[node].range(first..end);
        met.next().is_some()
    }

    /// F10: what was found is repaired, and nobody has to find it twice.
    pub fn law_nothing_found_is_left(&mut self) {
        let left = |n: usize| Some((n, self.nodes[n].disk.left()?));
        if let Some((node, granule)) = self.all().find_map(left) {
            let text = format!("node {node} found damage in granule {granule} and forgot it");
            self.fail("F10", text);
        }
    }

    /// Nothing that was found waits for repair.
    pub fn is_repaired(&self) -> bool {
        self.all().all(|n| {
            let engine = self.nodes[n].engine.as_ref();
            let status = engine.and_then(|e| e.checksums());
            status.is_some_and(|s| s.unrepaired == 0)
        })
    }

    /// Every scrub has ended.
    pub fn is_scrubbed(&self) -> bool {
        self.all().all(|n| {
            let engine = self.nodes[n].engine.as_ref();
            let status = engine.and_then(|e| e.checksums());
            status.is_some_and(|s| !s.scrub.is_running && s.scrub.total > 0)
        })
    }

    /// The last scrubs have ended; a volume may grow after them.
    pub fn note_scrubbed(&mut self) {
        for node in self.all() {
            let engine = self.nodes[node].engine.as_ref();
            let total = engine.and_then(|e| Some(e.checksums()?.scrub.total));
            self.laws.scrubbed[node] = total.unwrap_or(0);
        }
    }

    /// M6: after a scrub of everything and an orderly stop there is a checksum of everything.
    pub fn law_all_is_known(&mut self, node: usize) {
        if self.plan.settings.sum_pages == 0 {
            return;
        }
        let Ok(found) = self.found(node) else { return };
        let machine = &self.nodes[node];
        let is_unknown = |g: &u64| {
            let stored = found.stored_value(machine.meta.area(), *g, zeros());
            *g < found.granules.min(self.laws.scrubbed[node]) && stored.is_none()
        };
        if let Some(granule) = self.hot().iter().copied().find(is_unknown) {
            let text = format!("node {node} stopped in order without a checksum of {granule}");
            self.fail("M6", text);
        }
    }

    /// F10: damage on one copy is found by read or scrub, and repaired.
    pub fn law_damage_was_found(&mut self) {
        for node in self.all() {
            let left = self.nodes[node].disk.damaged().next();
            if let Some(granule) = left {
                let text = format!("node {node} was scrubbed, and granule {granule} is damaged");
                return self.fail("F10", text);
            }
        }
    }
}
