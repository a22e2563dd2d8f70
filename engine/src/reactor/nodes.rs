//! Nodes of a volume on its reactor: by the table in force, and what follows when that changes.

use engine_core::table::{NodeKind, Table};
use engine_core::time::Instant;
use engine_core::units::{NODES_MAX, NodeIdx, NodeSet};

use super::Reactor;
use super::volumes::Volume;
use crate::members;
use crate::peers::When;

impl Volume {
    /// The table of its nodes in force.
    pub(super) fn table(&self) -> &Table {
        self.driver.core.table()
    }

    /// A node that data connections of this one lead to.
    pub(super) fn peer(&self, name: &str) -> Option<NodeIdx> {
        let is_placed = members::replica(self.table(), &self.own) == Some(self.me);
        members::data_peer(self.table(), &self.own, name).filter(|_| is_placed)
    }

    /// Index of any node that holds a replica, this one included.
    pub(super) fn node(&self, name: &str) -> Option<NodeIdx> {
        members::replica(self.table(), name)
    }

    /// What this node is for it; `None`: no part of it any more.
    pub(super) fn kind(&self) -> Option<NodeKind> {
        members::kind_of(self.table(), &self.own)
    }

    /// It has one copy, and no other node is to have one.
    pub(super) fn is_alone(&self) -> bool {
        self.table().replicas().count() == 1
    }

    /// Another table of nodes is in force: names are found by it from now on, and under another
    /// index this node is attached anew. Answers the indexes that mean another node than before.
    pub(super) fn has_other_nodes(&mut self, now: Instant) -> NodeSet {
        let table = self.table().clone();
        let before = std::mem::replace(&mut self.nodes, table.names());
        let name = |names: &[String], node: NodeIdx| names.get(usize::from(node.0)).cloned();
        let all = (0..NODES_MAX as u8).map(NodeIdx);
        let other: NodeSet = all
            .filter(|node| name(&before, *node) != name(&self.nodes, *node))
            .collect();
        for node in other.iter() {
            self.unlinked_since[usize::from(node.0)] = now;
            self.node_refusals[usize::from(node.0)] = None;
        }
        let index = table.index_of(&self.own);
        if index.is_some_and(|index| index != self.me) {
            self.entry.note_moved();
        }
        self.entry.set_nodes(table);
        other
    }
}

impl Reactor {
    /// Another table of nodes is in force, in which these indexes mean others: links to who is no
    /// part of it end, and those to who is new begin.
    pub(super) fn follow_table(&mut self, slot: u32, other: NodeSet) {
        let Some(volume) = self.volumes.get(slot) else {
            return;
        };
        let peers: NodeSet = volume
            .nodes
            .iter()
            .filter_map(|name| volume.peer(name))
            .collect();
        for node in (0..NODES_MAX as u8).map(NodeIdx) {
            if !peers.has(node) || other.has(node) {
                self.links.end_of_peer(&mut self.shell, slot, node, None);
            }
        }
        for node in peers.iter().filter(|n| !self.links.has_peer(slot, *n)) {
            (self.parts.redial)(volume.names().of(node), &volume.spec.name, When::Soon);
        }
        self.is_pressed = true;
    }
}
