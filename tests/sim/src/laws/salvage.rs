//! Copies that are given up in a split brain (laws G1 to G3).
//!
//! ```text
//!  Parted said ─► what differs then ─┐
//!  Salvage: Begin, Put …, Commit ────┴─► superblock without a history ─► G1, G2, G3
//! ```

use std::collections::{BTreeMap, BTreeSet};

use engine_core::action::SalvageStep;
use engine_core::event::{DiskError, DiskResult, Event, Token};
use engine_core::message::Disk;
use engine_core::units::NodeIdx;

use crate::disk::{BLOCKS_PER_GRANULE, Granule};
use crate::engine::Found;
use crate::world::{Happening, World};

/// What a node keeps of its copy.
#[derive(Default)]
pub struct Salvage {
    to: usize,
    saved: BTreeMap<u64, Granule>,
    is_durable: bool,
}

/// What the laws remember of split brains.
#[derive(Default)]
pub struct Splits {
    /// Granules in which (kept, given up) differed when the first said its last word.
    differed: BTreeMap<(usize, usize), BTreeSet<u64>>,
    salvages: BTreeMap<usize, Salvage>,
}

impl World {
    /// A node said all it knows to the one it is in split brain with.
    pub(super) fn word_said(&mut self, node: usize, peer: usize) {
        self.count("split brains compared");
        self.note_disk(node);
        self.note_disk(peer);
        let differ = self.differences(node, peer).clone();
        self.laws.splits.differed.insert((node, peer), differ);
    }

    /// The shell does one step of a salvage.
    pub fn salvage(&mut self, node: usize, token: Token, step: SalvageStep) {
        let mut result: DiskResult = Ok(());
        match step {
            SalvageStep::Begin { to, .. } => {
                let salvage = Salvage {
                    to: usize::from(to.0),
                    ..Salvage::default()
                };
                self.laws.splits.salvages.insert(node, salvage);
                self.count("salvages begun");
            }
            SalvageStep::Put { extent, buf } => {
                let tags = buf.map(|buf| self.nodes[node].buffers.begin_read(buf));
                let tags = match tags.transpose() {
                    Ok(tags) => tags,
                    Err(breach) => return self.fail("O2", breach),
                };
                let per = BLOCKS_PER_GRANULE as usize;
                if tags
                    .as_ref()
                    .is_some_and(|t| t.len() as u64 != extent.granules() * per as u64)
                {
                    return self.fail("B11", format!("a salvage of {extent:?} has other bytes"));
                }
                if let Some(buf) = buf {
                    self.nodes[node].buffers.end_read(buf);
                }
                let Some(salvage) = self.laws.splits.salvages.get_mut(&node) else {
                    return self.fail("G1", format!("node {node} adds to no salvage"));
                };
                for (index, granule) in (extent.start..extent.end).enumerate() {
                    let mut content = Granule::default();
                    if let Some(tags) = &tags {
                        content.copy_from_slice(&tags[index * per..][..per]);
                    }
                    salvage.saved.insert(granule, content);
                }
                if self.nodes[node].rng.one_in(10) {
                    result = Err(DiskError::NoSpace);
                }
            }
            SalvageStep::Commit => {}
            SalvageStep::Drop => {
                self.count("salvages dropped");
                self.laws.splits.salvages.remove(&node);
                return;
            }
        }
        let is_commit = step == SalvageStep::Commit;
        let life = self.nodes[node].life;
        let delay = self.nodes[node].rng.between(20_000, 3_000_000);
        self.schedule(
            delay,
            Happening::Salvaged {
                node,
                life,
                token,
                result,
                is_commit,
            },
        );
    }

    /// It ended.
    pub fn salvaged(&mut self, node: usize, token: Token, result: DiskResult, is_commit: bool) {
        let salvage = self.laws.splits.salvages.get_mut(&node);
        if let Some(salvage) = salvage.filter(|_| is_commit) {
            salvage.is_durable = true;
            self.count("salvages durable");
        }
        self.feed(node, Event::SalvageDone { token, result });
    }

    /// A crash leaves of a salvage what was durable under its name: all or nothing.
    pub fn salvage_crashed(&mut self, node: usize) {
        self.laws
            .splits
            .salvages
            .retain(|n, s| *n != node || s.is_durable);
    }

    /// A new process knows nothing of it.
    pub(super) fn salvage_forgotten(&mut self, node: usize) {
        self.laws.splits.salvages.remove(&node);
    }

    /// G1: before the history of a copy ends, all in which it differed from the one that is kept is
    /// durable in its salvage. G2: without an operator only a copy goes in which nothing was written.
    /// G3: the copy that is kept is one.
    pub(super) fn law_given_up(&mut self, node: usize, before: &Found) {
        self.count("copies given up");
        let salvage = self.laws.splits.salvages.remove(&node);
        let hot = self.hot();
        if salvage.is_none() {
            self.count("unchanged copies given up");
            let other = |n: &usize| *n != node;
            let marked = |g: &u64| self.all().filter(other).all(|p| before.is_dirty(p, *g));
            if let Some(granule) = hot.iter().find(|g| marked(g)) {
                let text = format!(
                    "node {node} was given up by itself, and may have written granule {granule}"
                );
                self.fail("G2", text);
            }
            return self.history_ended(node);
        }
        let Some(salvage) = salvage.filter(|s| s.is_durable) else {
            let text = format!("node {node} was given up before its salvage was durable");
            return self.fail("G1", text);
        };
        let kept = salvage.to;
        let differed = self.laws.splits.differed.get(&(kept, node));
        let mut differed = differed.into_iter().flatten();
        let wrong = differed.find(|granule| {
            let content = self.nodes[node].disk.live().granule(**granule);
            // Beyond its end, where the other one grew, it has nothing to lose.
            **granule < before.granules && salvage.saved.get(granule) != Some(&content)
        });
        if let Some(granule) = wrong {
            let text = format!(
                "node {node} was given up for node {kept}, and its granule {granule} is not in the \
                 salvage"
            );
            return self.fail("G1", text);
        }
        let is_kept = self.peek(kept).is_some_and(|f| f.disk == Disk::UpToDate);
        if !is_kept && !self.nodes[kept].is_condemned && !self.nodes[kept].is_gone {
            let text = format!("node {node} was given up for node {kept}, which is no whole copy");
            return self.fail("G3", text);
        }
        self.history_ended(node);
    }

    /// What it held alone is lost knowingly, and in the salvage.
    fn history_ended(&mut self, node: usize) {
        self.laws.holds[node].clear();
        self.laws.must_leave[node] = false;
        self.laws.seen[node] = None;
        let others = self.all().filter(|n| *n != node);
        let records: Vec<_> = others.filter_map(|n| self.peek(n)?.record).collect();
        let in_force = &mut self.laws.ballots.in_force;
        let is_held = |branch: u128| records.iter().any(|r| r.branch == branch);
        if in_force.is_some_and(|r| !is_held(r.branch) && r.in_sync.has(NodeIdx(node as u8))) {
            *in_force = records.into_iter().max_by_key(|r| (r.term, r.step));
        }
    }
}
