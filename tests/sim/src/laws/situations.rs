//! Situations that a campaign must have met: rare on their own, and the home of old bugs of
//! mirrors. Nothing is judged here; what was met is counted.

use engine_core::record::Record;
use engine_core::units::NodeIdx;

use crate::world::World;

/// Must be met in every minute of a campaign. The others of its table may stay away.
pub const SITUATIONS: &[&str] = &[
    "promoted with an open activity log",
    "promoted while another still believes it serves",
    "promoted while a resync was under way",
    "two failovers with no flush between them",
    "S shrank during a resync",
    "S shrank, and its primary was lost before it grew again",
    "primaries lost during a resync",
    "targets lost during a resync",
    "primaries lost while a change of S was being chosen",
    "all replicas down at once",
    "records chosen by a witness's vote",
    "answers after a wait longer than a lease",
    "metadata writes torn by a crash",
    "primaries lost while metadata hung",
    "primaries stepped down",
    "answers: superseded",
    "late words",
    "members late again",
    "losses of all volatile state",
    "old disks brought back",
    "split brains resolved",
    "growths that a crash undid",
    "promotions refused as they must be",
];

/// What is remembered for the sake of situations.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Who was promoted last.
    last: Option<usize>,
    failovers_since_flush: u64,
    /// S shrank and did not grow since.
    is_small: bool,
}

impl World {
    pub(super) fn situation_promoted(&mut self, node: usize) {
        if self.peek(node).is_some_and(|f| f.has_open()) {
            self.count("promoted with an open activity log");
        }
        if self.primaries().iter().any(|n| *n != node) {
            self.count("promoted while another still believes it serves");
        }
        if self.resyncing().next().is_some() {
            self.count("promoted while a resync was under way");
        }
        let memory = &mut self.laws.memory;
        if memory.last.replace(node).is_some_and(|last| last != node) {
            memory.failovers_since_flush += 1;
            if memory.failovers_since_flush == 2 {
                self.count("two failovers with no flush between them");
            }
        }
    }

    pub(super) fn situation_flushed(&mut self) {
        self.laws.memory.failovers_since_flush = 0;
    }

    pub(super) fn situation_left(&mut self) {
        self.laws.memory.is_small = true;
        if self.resyncing().next().is_some() {
            self.count("S shrank during a resync");
        }
    }

    pub(super) fn situation_joined(&mut self) {
        self.laws.memory.is_small = false;
    }

    pub(super) fn situation_process_ends(&mut self, node: usize, was_primary: bool) {
        let is_resyncing = self.resyncing().any(|n| n == node);
        if was_primary && is_resyncing {
            self.count("primaries lost during a resync");
        } else if is_resyncing {
            self.count("targets lost during a resync");
        }
        if was_primary && self.laws.memory.is_small {
            self.count("S shrank, and its primary was lost before it grew again");
        }
        let own = self.peek(node).and_then(|f| f.record);
        let is_next = |r: &Record| {
            own.is_some_and(|own| r.term == own.term && r.step > own.step)
                && r.primary == NodeIdx(node as u8)
        };
        let mut voted = self.everybody().filter_map(|n| self.peek(n)?.voted);
        if was_primary && voted.any(|r| is_next(&r)) {
            self.count("primaries lost while a change of S was being chosen");
        }
        let others_run = |n: usize| n != node && self.nodes[n].engine.is_some();
        if self.all().len() > 1 && !self.all().any(others_run) {
            self.count("all replicas down at once");
        }
    }

    /// Nodes that bring a copy up to date, or have theirs brought.
    fn resyncing(&self) -> impl Iterator<Item = usize> + '_ {
        self.all().filter(|n| {
            let engine = self.nodes[*n].engine.as_ref();
            engine.is_some_and(|e| e.is_resyncing())
        })
    }
}
