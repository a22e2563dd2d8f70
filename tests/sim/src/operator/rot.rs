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

/// A block that rotted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rot {
    victim: usize,
    block: u64,
    /// What it held.
    good: u64,
    /// Who was asked to verify.
    primary: usize,
    verify: Verify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verify {
    Running,
    /// It compared everything and found it.
    FoundIt,
    /// It was cut short, and had found it.
    CutShort,
    /// It was cut short before, or its primary reigns no longer: what it knew went with it. The
    /// block was mended by hand.
    Forgotten,
}

impl World {
    /// One plan in three ends with rot, unless checksums are stored: those find it before any verify
    /// does (law F10). Nothing else is wrong and no client is there.
    pub fn law_rot_is_found_and_repaired(&mut self) {
        let ([primary], 0) = (&self.primaries()[..], self.plan.seed % 3) else {
            return;
        };
        let (primary, copies) = (*primary, self.all().len());
        let has_checksums = self.plan.settings.sum_pages > 0;
        if copies < 2 || has_checksums || self.failure.is_some() {
            return;
        }
        self.let_a_block_rot(primary);
        let repair = match copies {
            2 => Repair::From(NodeIdx(primary as u8)),
            _ => Repair::Majority,
        };
        self.ask_node(primary, Command::Verify(repair), Purpose::Rot);
        let bound = self.now + WITHIN;
        while self.failure.is_none() && !(self.rot_is_over() && self.is_healthy()) {
            if self.now > bound {
                return self.fail("S10", "a verify and its repair never ended");
            }
            self.say_whose_data_is_kept();
            self.run_until(self.now + 5 * MS);
        }
        let Some(rot) = self.operator.rot.take().filter(|_| self.failure.is_none()) else {
            return;
        };
        self.count(match rot.verify {
            Verify::Forgotten => "rot mended by hand",
            _ => "rot repaired",
        });
        let is_rotten = |n: &usize| self.nodes[*n].disk.live().block(rot.block) == ROT;
        if let Some(node) = self.all().find(is_rotten) {
            let text = format!("block {} of node {node} is still rotten", rot.block);
            self.fail("S10", text);
        }
    }

    fn let_a_block_rot(&mut self, primary: usize) {
        let others: Vec<usize> = self.all().filter(|n| *n != primary).collect();
        let victim = *self.operator.rng.pick(&others);
        // What a disk holds past the volume is nobody's.
        let sizes = self.all().map(|n| self.granules_on(n));
        let size = sizes.min().unwrap_or_default().max(1);
        let granule = self.operator.rng.below(size);
        let block = granule * BLOCKS_PER_GRANULE + self.operator.rng.below(BLOCKS_PER_GRANULE);
        let good = self.nodes[victim].disk.live().block(block);
        self.nodes[victim].disk.rot(block, ROT);
        self.say(|| format!("n{victim} block {block} rots"));
        self.operator.rot = Some(Rot {
            victim,
            block,
            good,
            primary,
            verify: Verify::Running,
        });
    }

    fn rot_is_over(&self) -> bool {
        let rot = self.operator.rot.as_ref();
        rot.is_none_or(|rot| rot.verify != Verify::Running)
    }

    /// A verify that was cut short leaves it to the operator.
    fn say_whose_data_is_kept(&mut self) {
        let Some(rot) = self.operator.rot else { return };
        let engine = self.nodes[rot.primary].engine.as_ref();
        if rot.verify != Verify::Running && engine.is_some_and(|e| e.is_held(rot.victim)) {
            let from = NodeIdx(rot.primary as u8);
            self.command(rot.primary, Command::ResyncStart { from });
        }
    }

    /// The verify that was to find it ended.
    pub(super) fn rot_verified(&mut self, figures: Option<&VerifyFigures>) {
        let Some(rot) = self.operator.rot else { return };
        if rot.verify != Verify::Running {
            return;
        }
        let granule = rot.block / BLOCKS_PER_GRANULE;
        let engine = self.nodes[rot.primary].engine.as_ref();
        let is_marked = engine.is_some_and(|e| e.is_dirty(rot.victim, granule));
        let verify = match figures {
            Some(figures) if figures.different == 1 && figures.is_repairing => {
                self.count("rot found");
                Verify::FoundIt
            }
            Some(figures) => {
                let text = format!("one block differs, and the verify says {figures:?}");
                return self.fail("S10", text);
            }
            None if is_marked => {
                self.count("rot found by a verify that was cut short");
                Verify::CutShort
            }
            None => {
                self.count("verifies of rot that could not compare");
                return self.mend_rot();
            }
        };
        self.operator.rot = Some(Rot { verify, ..rot });
    }

    /// A node reigns, or follows who does. What a verify found is known to the primary that ran
    /// it: with another one it has to be run again.
    pub fn rot_is_led_by(&mut self, primary: usize) {
        if self.operator.rot.is_some_and(|rot| rot.primary != primary) {
            self.mend_rot();
        }
    }

    /// A process ended: a verify that ran there is over.
    pub(super) fn rot_verifier_is_gone(&mut self, node: usize) {
        if self.operator.rot.is_some_and(|rot| rot.primary == node) {
            self.mend_rot();
        }
    }

    /// By hand, at once.
    fn mend_rot(&mut self) {
        let Some(rot) = &mut self.operator.rot else {
            return;
        };
        rot.verify = Verify::Forgotten;
        let Rot {
            victim,
            block,
            good,
            ..
        } = *rot;
        if self.nodes[victim].disk.live().block(block) == ROT {
            self.nodes[victim].disk.rot(block, good);
        }
    }
}
