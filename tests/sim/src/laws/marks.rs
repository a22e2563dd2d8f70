//! Dirty bits and the activity log (laws S1 to S5): what differs is covered, bits are cleared by
//! proof, extents close late.

use engine_core::message::Disk;
use engine_core::record::Record;
use engine_core::units::{Extent, NodeIdx};

use super::granules_of_interest;
use crate::disk::BLOCKS_PER_GRANULE;
use crate::engine::Found;
use crate::world::World;

impl World {
    /// S1: a block in which two replicas differ is covered by a dirty bit or an open extent.
    /// `as_crashed`: by what is durable, as if every process died now.
    pub(super) fn law_differences_are_covered(&mut self, as_crashed: bool) {
        let newest = self.newest_record().map_or(0, |r| r.in_sync.0);
        let is_member = |n: usize| newest >> n & 1 == 1;
        for (a, b) in self.net.pairs() {
            if self.differences(a, b).is_empty() || self.has_no_history(a, b) {
                continue;
            }
            if self.has_votes() && !is_member(a) && !is_member(b) {
                continue;
            }
            let hole = self
                .differences(a, b)
                .iter()
                .copied()
                .find(|granule| !self.is_covered(a, b, *granule, as_crashed));
            if let Some(granule) = hole {
                let how = if as_crashed {
                    ", as a crash would find it"
                } else {
                    ""
                };
                let text = format!(
                    "nodes {a} and {b} differ in granule {granule}, no dirty bit and no open \
                     extent covers it{how}: {:x?} / {:x?}",
                    self.nodes[a].disk.live().granule(granule),
                    self.nodes[b].disk.live().granule(granule),
                );
                return self.fail("S1", text);
            }
        }
    }

    /// One of them is blank (not yet a replica of this volume), or awaits replacement.
    pub(super) fn has_no_history(&self, a: usize, b: usize) -> bool {
        [a, b].iter().any(|n| {
            self.nodes[*n].is_rolled_back
                || self
                    .peek(*n)
                    .is_none_or(|f| f.disk == Disk::Blank || f.volume_id == 0)
                || self.nodes[*n]
                    .engine
                    .as_ref()
                    .is_some_and(|e| e.disk() == Disk::Blank)
        })
    }

    fn is_covered(&self, a: usize, b: usize, granule: u64, as_crashed: bool) -> bool {
        // Both sides' bits count: every handshake begins from their union (law S9), and a restart
        // turns a node's own open extents into bits.
        [(a, b), (b, a)].into_iter().any(|(node, peer)| {
            self.marks(node, peer, granule, as_crashed) || self.opens(node, granule, as_crashed)
        })
    }

    /// S11: a replica whose life this node does not know lacks everything.
    fn marks(&self, node: usize, peer: usize, granule: u64, as_crashed: bool) -> bool {
        let stranger = match (self.peek(node), self.peek(peer)) {
            (Some(own), Some(theirs)) => own.known[peer] != theirs.incarnation,
            _ => false,
        };
        stranger
            || match &self.nodes[node].engine {
                Some(engine) if !as_crashed => engine.is_dirty(peer, granule),
                _ => self.peek(node).is_some_and(|f| f.is_dirty(peer, granule)),
            }
    }

    fn opens(&self, node: usize, granule: u64, as_crashed: bool) -> bool {
        match &self.nodes[node].engine {
            Some(engine) if !as_crashed => engine.is_open(granule),
            _ => self.peek(node).is_some_and(|f| f.is_open(granule)),
        }
    }

    /// S4: a dirty bit is cleared only when the peer has that block durable and equal, with no
    /// newer write in between.
    pub(super) fn law_bits_are_cleared_by_proof(&mut self, node: usize) {
        if self.is_witness(node) {
            return;
        }
        let Some(engine) = &self.nodes[node].engine else {
            return;
        };
        let hot = self.hot();
        for peer in self.all().filter(|p| *p != node) {
            // Another replica in its place lacks everything, whatever the bits say (law S11).
            let is_stranger = match (self.peek(node), self.peek(peer)) {
                (Some(own), Some(theirs)) => own.known[peer] != theirs.incarnation,
                _ => false,
            };
            let marked = self.laws.marked.entry((node, peer)).or_default();
            if engine.is_clean_for(peer) && marked.is_empty() {
                continue;
            }
            let now: Vec<u64> = engine.dirty_among(peer, &hot);
            if *marked == now {
                continue;
            }
            let before = std::mem::replace(marked, now);
            let now = &self.laws.marked[&(node, peer)];
            let is_cleared = |g: &u64| now.binary_search(g).is_err();
            let cleared: Vec<u64> = before.into_iter().filter(is_cleared).collect();
            let founded = self.peek(node).is_some_and(|f| f.volume_id != 0);
            let is_source = engine.is_primary();
            let excused = self.is_excused(node) || self.is_excused(peer);
            // A record that it slept over says who lacked nothing then: it is outside of S by now, and
            // takes third nodes to lack everything before it is back.
            let me = NodeIdx(node as u8);
            let is_out = self.newest_record().is_some_and(|r| !r.in_sync.has(me));
            let excused = excused || (self.has_votes() && (is_stranger || is_out));
            if !founded || excused || self.has_no_history(node, peer) {
                continue;
            }
            let wrong = cleared
                .into_iter()
                .find(|g| !self.is_proven(node, peer, *g, is_source));
            if let Some(granule) = wrong {
                let text = format!(
                    "node {node} cleared the dirty bit of granule {granule} for node {peer}: \
                     {:x?} here, {:x?} there",
                    self.nodes[node].disk.live().granule(granule),
                    self.nodes[peer].disk.live().granule(granule),
                );
                return self.fail("S4", text);
            }
        }
    }

    pub(super) fn is_proven(
        &self,
        node: usize,
        peer: usize,
        granule: u64,
        is_source: bool,
    ) -> bool {
        let at = Extent::new(granule, granule + 1);
        let joins = |a: usize, b: usize| (a, b) == (node, peer) || (b, a) == (node, peer);
        let on_its_way = self.laws.sent.iter().any(|((from, _), sent)| {
            joins(*from, sent.peer) && sent.writes.values().any(|e| e.overlaps(at))
        });
        let is_written = |n: usize| self.nodes[n].disk.writing().any(|e| e.overlaps(at));
        if on_its_way || is_written(node) || is_written(peer) {
            return true;
        }
        // What a primary left behind when it died is covered by the logs.
        if !is_source && (self.opens(node, granule, false) || self.opens(peer, granule, false)) {
            return true;
        }
        // A newer write that is stored there and not durable is covered by the peer's own log,
        // which every handshake adds to the dirty bits.
        let needs_durable = is_source && !self.peek(peer).is_some_and(|f| f.is_open(granule));
        let base = granule * BLOCKS_PER_GRANULE;
        (base..base + BLOCKS_PER_GRANULE).all(|block| {
            let here = self.nodes[node].disk.live().block(block);
            let there = &self.nodes[peer].disk;
            let durable = there.durable_block(block);
            here == there.live().block(block) && (!needs_durable || here == durable)
        })
    }

    /// S5: what was sent and not confirmed when a connection is lost is marked at once.
    pub(super) fn law_lost_is_marked(&mut self, node: usize, peer: usize, writes: &[Extent]) {
        let Some(engine) = &self.nodes[node].engine else {
            return;
        };
        if !engine.is_primary() || self.has_no_history(node, peer) {
            return;
        }
        let hot = self.hot();
        let hole = writes
            .iter()
            .flat_map(|e| granules_of_interest(*e, &hot))
            .find(|g| !engine.is_dirty(peer, *g));
        if let Some(granule) = hole {
            let text = format!(
                "node {node} lost its link to node {peer} and did not mark granule {granule}, \
                 which was sent and not confirmed"
            );
            self.fail("S5", text);
        }
    }

    /// S3: an extent closes only when its writes are durable on all of S, or marked.
    pub(super) fn law_log_closes_late(&mut self, node: usize, before: &Found, after: &Found) {
        // A target's own log adds nothing to that of the members who have what it lacks.
        let newest = self.newest_record();
        let member = |r: &Record| r.in_sync.has(NodeIdx(node as u8));
        let Some(record) = newest.filter(member) else {
            return;
        };
        let mut closed = 0;
        for member in record.in_sync.iter().map(|n| usize::from(n.0)) {
            let disk = &self.nodes[member].disk;
            let hole = disk.unsynced().map(|(block, _)| block).find(|block| {
                let granule = block / BLOCKS_PER_GRANULE;
                before.is_open(granule)
                    && !after.is_open(granule)
                    && disk.durable_block(*block) != disk.live().block(*block)
                    && !self.is_marked(after, node, member, granule)
                    && !self.is_newer_elsewhere(node, member, granule)
            });
            if let Some(block) = hole {
                let text = format!(
                    "node {node} closed an extent, and block {block} is not durable on node {member}"
                );
                return self.fail("S3", text);
            }
        }
        let hot = self.hot();
        for &granule in hot.iter() {
            closed += u64::from(before.is_open(granule) && !after.is_open(granule));
        }
        if closed > 0 {
            self.count("activity-log closings");
        }
    }

    /// A newer write of another member, which its own log covers.
    fn is_newer_elsewhere(&self, node: usize, member: usize, granule: u64) -> bool {
        member != node && self.peek(member).is_some_and(|f| f.is_open(granule))
    }

    /// A block that is not durable at another member is marked for it; one that is not durable
    /// here is marked for everybody: what may differ is the same, seen from here.
    fn is_marked(&self, found: &Found, node: usize, member: usize, granule: u64) -> bool {
        match member == node {
            true => self
                .all()
                .filter(|p| *p != node)
                .all(|p| found.is_dirty(p, granule)),
            false => found.is_dirty(member, granule),
        }
    }
}
