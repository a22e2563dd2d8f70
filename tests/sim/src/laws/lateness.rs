//! A member that was too late is let in again after a pause, which doubles while it is late again
//! and again (law L6); a primary whose metadata hangs lets another serve (law L4).

use std::collections::BTreeMap;
use std::time::Duration;

use engine_core::record::Record;
use engine_core::units::{NodeIdx, NodeSet};

use crate::engine::Engine;
use crate::swarm::MS;
use crate::world::{MEMBER_TIMEOUT, World};

/// The longest pause, and how many of them somebody has to be good for, in the core's own words.
const LONGEST: u64 = 64;
const FORGIVEN_AFTER: u64 = 8;

/// A member's time, and three ticks.
const HUNG_MAX: u64 = MEMBER_TIMEOUT.as_nanos() as u64 + 300 * MS;

#[derive(Clone, Copy, Debug)]
struct Late {
    /// Life of the node that says so; the next one remembers nothing.
    life: u64,
    pause: u64,
    until: u64,
    /// It left S since.
    has_left: bool,
}

/// Who was late, by the node that found so and the one that was.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    late: BTreeMap<(usize, usize), Late>,
}

impl World {
    /// A node found that another one took too long.
    pub(super) fn law_pauses_double(&mut self, node: usize, peer: NodeIdx, pause: Duration) {
        self.count("members late");
        let (pair, life) = ((node, usize::from(peer.0)), self.nodes[node].life);
        let (unit, pause) = (MEMBER_TIMEOUT.as_nanos() as u64, pause.as_nanos() as u64);
        // Pauses are told with what chance adds: at most a quarter of the shortest.
        let bare = |pause: u64| pause.saturating_sub(unit / 4);
        let last = self.laws.lateness.late.get(&pair).copied();
        let recent = last.filter(|last| {
            let good = self.now.saturating_sub(last.until);
            last.life == life && good < bare(last.pause) * FORGIVEN_AFTER
        });
        let least = match recent {
            Some(last) => (bare(last.pause) * 2).min(unit * LONGEST),
            None => unit,
        };
        if recent.is_some() {
            self.count("members late again");
        }
        if pause < least {
            let text = format!(
                "node {node} lets late node {} in after {pause} ns, not {least}",
                pair.1
            );
            self.fail("L6", text);
        }
        let late = Late {
            life,
            pause,
            until: self.now + pause,
            has_left: false,
        };
        self.laws.lateness.late.insert(pair, late);
    }

    /// A record came into force at a node.
    pub(super) fn law_late_members_wait(&mut self, node: usize, record: &Record) {
        let (now, life) = (self.now, self.nodes[node].life);
        for peer in self.all().filter(|peer| *peer != node) {
            let Some(late) = self.laws.lateness.late.get_mut(&(node, peer)) else {
                continue;
            };
            let is_in = record.in_sync.has(NodeIdx(peer as u8));
            let is_own = usize::from(record.primary.0) == node && late.life == life;
            if is_in && is_own && late.has_left && now < late.until {
                let text = format!(
                    "node {peer} was late, and joins {} ns before its pause is over",
                    late.until - now
                );
                return self.fail("L6", text);
            }
            late.has_left = !is_in;
        }
    }

    /// L4: while another member could serve, nobody keeps the lease whose metadata writes do not end.
    pub(super) fn law_nobody_serves_over_hung_metadata(&mut self, node: usize) {
        let machine = &self.nodes[node];
        let is_stuck = machine.meta.is_hung && machine.has_stalled_metadata();
        let others = || self.all().filter(|n| *n != node);
        let serves_beside = |e: &Engine| {
            let in_sync = e.record().map_or(NodeSet::EMPTY, |r| r.in_sync);
            let could = |n: usize| {
                in_sync.has(NodeIdx(n as u8)) && e.is_in_sync_with(n) && e.takes_copy_for_good(n)
            };
            e.is_primary() && e.holds_lease() && others().any(could)
        };
        let engine = machine.engine.as_ref();
        if !self.has_votes() || !is_stuck || !engine.is_some_and(serves_beside) {
            self.laws.hung[node] = Default::default();
            return;
        }
        let since = self.laws.hung[node].since(self.now);
        if self.now > since + HUNG_MAX {
            let text = format!("node {node} serves, and its metadata has hung for too long");
            self.fail("L4", text);
        }
    }

    /// An operator says that it is good again.
    pub(super) fn lateness_is_forgiven(&mut self, node: usize, peer: usize) {
        self.laws.lateness.late.remove(&(node, peer));
    }
}
