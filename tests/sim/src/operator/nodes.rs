//! Witnesses and replicas that come and go.

use engine_core::action::CommandError;
use engine_core::event::Command;
use engine_core::table::{NodeKind, Stage, WITNESSES_MAX};
use engine_core::units::{NodeIdx, NodeSet};

use super::Purpose;
use crate::world::World;

impl World {
    /// The nodes that the file lists now.
    pub(super) fn wanted(&self) -> NodeSet {
        let settings = &self.plan.settings;
        let first = NodeSet::first((settings.nodes + settings.witnesses) as usize);
        self.operator.wanted.unwrap_or(first)
    }

    /// The file changes, and is applied.
    pub(super) fn want_witness(&mut self, node: usize, is_wanted: bool) {
        if !self.is_witness(node) || self.has_register() {
            return;
        }
        let now = self.wanted();
        let all = match is_wanted {
            true => now.with(NodeIdx(node as u8)),
            false => now,
        };
        if all.minus(self.replicas()).count() as usize <= WITNESSES_MAX {
            self.want(node, is_wanted);
        }
    }

    /// As with witnesses, of nodes with data; two stay.
    pub(super) fn want_replica(&mut self, node: usize, is_wanted: bool) {
        let are_enough = is_wanted || self.wanted().count() > 2;
        if self.plan.settings.newcomers > 0 && !self.is_witness(node) && are_enough {
            self.want(node, is_wanted);
        }
    }

    fn want(&mut self, node: usize, is_wanted: bool) {
        let (now, index) = (self.wanted(), NodeIdx(node as u8));
        let next = match is_wanted {
            true => now.with(index),
            false => now.without(index),
        };
        // Nobody takes a voter away while another one was made anew and has no vote yet.
        let left: Vec<NodeIdx> = next.without(index).iter().collect();
        let mut has_vote = |n: NodeIdx| {
            self.found(usize::from(n.0))
                .is_ok_and(|f| f.voted.is_some())
        };
        let are_whole = is_wanted || left.into_iter().all(&mut has_vote);
        if next == now || !are_whole {
            return;
        }
        self.operator.wanted = Some(next);
        self.apply_nodes();
    }

    /// When all is to be well again, every node with data belongs to the volume.
    pub fn want_all_replicas(&mut self) {
        if self.plan.settings.newcomers > 0 {
            self.operator.wanted = Some(self.replicas());
        }
    }

    /// Two voters can lose none, so no broken disk can be exchanged: the file is as it was.
    pub fn want_a_third_voter(&mut self) {
        if self
            .operator
            .wanted
            .is_some_and(|wanted| wanted.count() < 3)
        {
            self.operator.wanted = None;
            self.operator.wanted = Some(self.wanted());
        }
    }

    /// Who cannot go now stays, until somebody wants it gone again: other voters are to be mended first.
    pub(super) fn nodes_refused(&mut self, why: &CommandError) {
        self.count("changes of nodes refused");
        match why {
            CommandError::NeededForMajority(node) | CommandError::NeededCopy(node) => {
                self.operator.wanted = Some(self.wanted().with(*node));
            }
            CommandError::PrimaryLeaves => {
                let primaries = self.primaries().into_iter();
                let serving: NodeSet = primaries.map(|n| NodeIdx(n as u8)).collect();
                self.operator.wanted = Some(self.wanted().or(serving));
            }
            // Who was to go stays, so the one for its place does not come.
            CommandError::TooManyWitnesses => {
                let last = self.wanted().iter().last();
                self.operator.wanted = last.map(|last| self.wanted().without(last));
            }
            _ => {}
        }
    }

    /// `pollux config apply` on who serves.
    fn apply_nodes(&mut self) {
        let [node] = self.primaries()[..] else { return };
        let kind = |n: NodeIdx| match self.replicas().has(n) {
            true => NodeKind::Replica,
            false => NodeKind::Witness,
        };
        let wanted = self.wanted().iter();
        let list = wanted.map(|n| (format!("node-{}", n.0), kind(n))).collect();
        self.ask_node(node, Command::Nodes(list), Purpose::Nodes);
    }

    /// What the file says is not so yet: an operator applies it again now and then.
    pub(super) fn watch_over_nodes(&mut self) {
        let is_asked = self.operator.is_asked(&[Purpose::Nodes]);
        if self.operator.wanted.is_none() || is_asked || self.are_nodes_as_wanted() {
            return;
        }
        if self.operator.rng.one_in(8) && self.relieve_who_leaves() {
            return;
        }
        if self.operator.rng.one_in(8) {
            self.apply_nodes();
        }
    }

    /// Who is to go and came to serve hands over first.
    fn relieve_who_leaves(&mut self) -> bool {
        let [primary] = self.primaries()[..] else {
            return false;
        };
        let Some(engine) = self.nodes[primary].engine.as_ref() else {
            return false;
        };
        let leaving = engine.table().at(&[Stage::Leaving]);
        let members = engine.record().map_or(NodeSet::EMPTY, |r| r.in_sync);
        let next = members.minus(leaving).iter().next();
        match next.filter(|_| leaving.has(NodeIdx(primary as u8))) {
            Some(next) => {
                self.take_over(usize::from(next.0));
                true
            }
            None => false,
        }
    }

    /// Everybody that the file lists goes by one table, which says the same.
    pub(super) fn are_nodes_as_wanted(&mut self) -> bool {
        if self.operator.wanted.is_none() {
            return true;
        }
        let [primary] = self.primaries()[..] else {
            return false;
        };
        let wanted = self.wanted();
        let engine = self.nodes[primary].engine.as_ref().expect("it serves");
        let table = engine.table().clone();
        let is_done = table.members() == wanted && !engine.is_changing_nodes();
        let is_known = |n: NodeIdx| {
            let engine = self.nodes[usize::from(n.0)].engine.as_ref();
            engine.is_some_and(|e| *e.table() == table)
        };
        is_done && wanted.iter().all(is_known)
    }
}
