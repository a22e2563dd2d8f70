//! `on_quorum_loss = "fail"` (laws L3, R5): while there is no majority requests fail, soon, and no
//! others do.

use engine_core::action::Outcome;

use crate::clients::{Kind, Request};
use crate::plan::Step;
use crate::swarm::MS;
use crate::world::{LEASE, World};

/// After so long without a lease nothing waits any more: a quarter of it, and two ticks.
const PATIENCE: u64 = LEASE.as_nanos() as u64 / 4 + 200 * MS;

impl World {
    /// Once the majority has been gone for a while, nothing that changes data waits for it. What a
    /// disk is reading ends when that does.
    pub(super) fn law_nothing_waits_for_a_majority(&mut self, node: usize) {
        if self.plan.settings.fails_without_quorum == 0 {
            return;
        }
        let engine = self.nodes[node].engine.as_ref();
        let is_leaseless = engine.is_some_and(|e| e.is_primary() && !e.holds_lease());
        if !is_leaseless {
            self.laws.leaseless[node] = Default::default();
            return;
        }
        // Who slept has to ask before it gives anything up.
        let since = self.laws.leaseless[node].since(self.now);
        let is_owed = |(at, request): &(usize, &Request)| {
            *at == node && !matches!(request.kind, Kind::Read | Kind::Beyond)
        };
        let owed = self.clients.waiting().find(is_owed).map(|(_, r)| r.kind);
        if let Some(kind) = owed.filter(|_| self.now > since + PATIENCE) {
            let without = (self.now - since) / MS;
            let text = format!("node {node} has had no lease for {without} ms, and {kind:?} waits");
            self.fail("L3", text);
        }
    }

    /// Who holds its lease fails nothing that its disks do not.
    pub fn law_only_disks_fail_requests(
        &mut self,
        node: usize,
        request: &Request,
        outcome: Outcome,
    ) {
        let is_fault = |step: &Step| {
            matches!(
                step,
                Step::WriteErrors { .. }
                    | Step::FlushError { .. }
                    | Step::ReadErrors { .. }
                    | Step::Full { .. }
                    | Step::Hang { .. }
                    | Step::Slow { .. }
                    | Step::MetaErrors { .. }
                    | Step::MetaHang { .. }
            )
        };
        if outcome != Outcome::Io || !self.has_votes() {
            return;
        }
        let holds = |w: &World| {
            w.nodes[node]
                .engine
                .as_ref()
                .is_some_and(|e| e.holds_lease())
        };
        if self.plan.steps.iter().any(|(_, step)| is_fault(step)) {
            return;
        }
        // What its disk gave back was not what it was given: as if it could not be read (F6).
        if self.met_damage(node, &request.blocks) {
            self.count("requests failed by damage");
            return;
        }
        match self.plan.settings.fails_without_quorum {
            1 if !holds(self) => self.count("requests failed for lack of a majority"),
            _ => self.fail(
                "R5",
                format!("node {node} fails a request, and has what it takes"),
            ),
        }
    }
}
