//! After the plan: one block of one copy rots behind everybody's back, and a verify has to find
//! it, name nothing else, and repair it from a good copy (law S10).

use engine_core::action::VerifyFigures;
use engine_core::event::{Command, Repair};
use engine_core::units::NodeIdx;

use super::Purpose;
use crate::disk::BLOCKS_PER_GRANULE;
use crate::swarm::MS;
use crate::world::World;

/// A verify of a small volume and the resync of one block take no longer.
const WITHIN: u64 = 20_000 * MS;
/// What a block that rotted holds: no client writes it.
const ROT: u64 = 0xB_1707;

impl World {
    /// One plan in three ends with rot. Nothing else is wrong and no client is there.
    pub fn law_rot_is_found_and_repaired(&mut self) {
        let ([primary], 0) = (&self.primaries()[..], self.plan.seed % 3) else {
            return;
        };
        let (primary, copies) = (*primary, self.all().len());
        if copies < 2 || self.failure.is_some() {
            return;
        }
        let others: Vec<usize> = self.all().filter(|n| *n != primary).collect();
        let victim = *self.operator.rng.pick(&others);
        // What a disk holds past the volume is nobody's.
        let sizes = self.all().map(|n| self.granules_on(n));
        let size = sizes.min().unwrap_or_default().max(1);
        let granule = self.operator.rng.below(size);
        let block = granule * BLOCKS_PER_GRANULE + self.operator.rng.below(BLOCKS_PER_GRANULE);
        self.nodes[victim].disk.rot(block, ROT);
        self.say(|| format!("n{victim} block {block} rots"));
        let repair = match copies {
            2 => Repair::From(NodeIdx(primary as u8)),
            _ => Repair::Majority,
        };
        self.operator.rot_found = None;
        self.ask_node(primary, Command::Verify(repair), Purpose::Rot);
        let bound = self.now + WITHIN;
        while self.failure.is_none() && !(self.operator.rot_found.is_some() && self.is_healthy()) {
            if self.now > bound {
                return self.fail("S10", "a verify and its repair never ended");
            }
            self.run_until(self.now + 5 * MS);
        }
        let found = self.operator.rot_found.take();
        if self.failure.is_none() && found == Some(true) {
            self.count("rot repaired");
            let is_rotten = |w: &World, n: usize| w.nodes[n].disk.live().block(block) == ROT;
            if let Some(node) = self.all().find(|n| is_rotten(self, *n)) {
                self.fail(
                    "S10",
                    format!("block {block} of node {node} is still rotten"),
                );
            }
        } else {
            // It could not compare all: nothing was promised. The block is mended by hand.
            let good = self.nodes[primary].disk.live().block(block);
            self.nodes[victim].disk.rot(block, good);
        }
    }

    /// The verify that was to find it ended.
    pub(super) fn rot_verified(&mut self, figures: Option<&VerifyFigures>) {
        self.operator.rot_found = Some(figures.is_some());
        match figures {
            None => self.count("verifies of rot that could not compare"),
            Some(figures) if figures.different == 1 && figures.is_repairing => {
                self.count("rot found");
            }
            Some(figures) => {
                let text = format!("one block differs, and the verify says {figures:?}");
                self.fail("S10", text);
            }
        }
    }
}
