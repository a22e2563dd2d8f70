//! Roles that move from node to node (laws O4, B3, L3): what was asked before is answered, and with
//! nothing wrong the heir follows at once, with everybody in S who was.

use std::collections::BTreeMap;

use engine_core::units::{NodeIdx, NodeSet};

use crate::plan::Step;
use crate::swarm::MS;
use crate::world::World;

/// Longest time between the last request admitted and the heir's reign, where nothing is wrong.
const STALL_MAX: u64 = 200 * MS;

/// A role on its way.
#[derive(Clone, Copy, Debug)]
struct HandOver {
    from: usize,
    to: usize,
    began: u64,
    in_sync: NodeSet,
}

/// What is remembered of roles on their way.
#[derive(Default)]
pub struct Ledger {
    /// By who reigns still.
    begun: BTreeMap<usize, HandOver>,
    /// Laid down, until somebody reigns.
    laid_down: Option<HandOver>,
}

impl World {
    /// A node admits nothing more, so that another one can follow.
    pub(super) fn hand_over_begins(&mut self, node: usize, to: NodeIdx) {
        self.count("hand-overs begun");
        let in_sync = self.newest_record().map_or(NodeSet::EMPTY, |r| r.in_sync);
        let hand_over = HandOver {
            from: node,
            to: usize::from(to.0),
            began: self.now,
            in_sync,
        };
        self.laws.hand_overs.begun.insert(node, hand_over);
    }

    /// It goes on instead.
    pub(super) fn hand_over_is_off(&mut self, node: usize) {
        self.count("hand-overs called off");
        self.laws.hand_overs.begun.remove(&node);
        if self.has_only_hand_overs() {
            self.fail(
                "L3",
                format!("node {node} keeps its role, and nothing is wrong"),
            );
        }
    }

    /// O4: who lays its role down answered everything it took.
    pub(super) fn role_laid_down(&mut self, node: usize) {
        let Some(hand_over) = self.laws.hand_overs.begun.remove(&node) else {
            return;
        };
        let is_here = |(at, _): &(usize, &crate::clients::Request)| *at == node;
        let owed = self.clients.waiting().find(is_here);
        if let Some(text) = owed.map(|(_, request)| format!("{:?}", request.kind)) {
            let text = format!("node {node} handed over and owes an answer: {text}");
            return self.fail("O4", text);
        }
        self.laws.hand_overs.laid_down = Some(hand_over);
    }

    /// Somebody reigns.
    pub(super) fn hand_over_ends(&mut self, node: usize) {
        self.laws.hand_overs.begun.clear();
        let Some(hand_over) = self.laws.hand_overs.laid_down.take() else {
            return;
        };
        let HandOver { from, to, .. } = hand_over;
        self.count(match node {
            _ if node == to => "hand-overs done",
            _ if node == from => "roles taken back",
            _ => "roles taken by a third node",
        });
        let record = self.nodes[node].engine.as_ref().and_then(|e| e.record());
        let in_sync = record.map_or(NodeSet::EMPTY, |r| r.in_sync);
        let took = self.now - hand_over.began;
        let is_smooth = node == to && took <= STALL_MAX && in_sync == hand_over.in_sync;
        if self.has_only_hand_overs() && !is_smooth {
            let took = took / MS;
            let text = format!(
                "nothing is wrong, and {hand_over:?} ended after {took} ms at node {node} with {in_sync:?}"
            );
            self.fail("L3", text);
        }
    }

    /// The plan has no faults, and nobody but hand-overs moves the role.
    fn has_only_hand_overs(&self) -> bool {
        let is_calm = |step: &Step| {
            matches!(
                step,
                Step::Read { .. }
                    | Step::Write { .. }
                    | Step::Zero { .. }
                    | Step::Flush { .. }
                    | Step::Abort { .. }
                    | Step::Close { .. }
                    | Step::Beyond { .. }
                    | Step::TakeOver { .. }
                    | Step::MarkCreate { .. }
                    | Step::MarkDelete { .. }
            )
        };
        self.plan.settings.ballot_loss_one_in == 0
            && self.plan.settings.register_loss_one_in == 0
            && self.plan.settings.double_one_in == 0
            && self.plan.steps.iter().all(|(_, step)| is_calm(step))
    }
}
