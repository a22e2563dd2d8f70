//! Nodes that come and go (law T12, docs/design/0008-members.md): an index stands for one node to
//! all that it matters to, for as long as a record that may be chosen names it.

use engine_core::record::Record;
use engine_core::table::{Entry, Stage};
use engine_core::units::{NodeIdx, NodeSet};

use crate::engine::Found;
use crate::world::World;

impl World {
    /// The tables of all that the newest record that was chosen names bind all that it names.
    pub(super) fn law_tables_bind_the_named(&mut self) {
        let Some(record) = self.laws.ballots.newest().copied() else {
            return;
        };
        if self.has_register() || self.operator.was_forced {
            return;
        }
        let named = record.voters.or(record.in_sync);
        for node in named.iter() {
            self.law_table_binds(usize::from(node.0), &record);
        }
    }

    /// The table of this node binds all that the record names.
    pub(super) fn law_table_binds(&mut self, node: usize, record: &Record) {
        let Some(found) = self.peek(node) else { return };
        // Who was made anew, or put back, promised nothing that counts.
        let has_vote = found.volume_id != 0 && found.voted.is_some();
        if !has_vote || self.nodes[node].is_rolled_back || self.has_register() {
            return;
        }
        let named = record.voters.or(record.in_sync);
        let unbound = named.minus(self.bound(node, found));
        if let Some(stranger) = unbound.iter().next() {
            let text = format!("{record:?} names {stranger:?}, and is not known at node {node}");
            self.fail("T12", text);
        }
    }

    /// What this node's table came to say.
    pub(super) fn table_in_force(&mut self, node: usize) {
        self.count("tables of nodes in force");
        let engine = self.nodes[node].engine.as_ref();
        let gone = engine.map_or(NodeSet::EMPTY, |e| e.table().at(&[Stage::Gone]));
        if !gone.and(self.replicas()).is_empty() {
            self.count("tables without a replica that was there");
        }
    }

    /// Indexes that stand for somebody by this node's table, or by its file.
    fn bound(&self, node: usize, found: &Found) -> NodeSet {
        match &found.table {
            Some(table) => {
                let bound = table.entries().filter(|(_, e)| e.is_live());
                let is_right = |(n, e): &(NodeIdx, &Entry)| e.name == format!("node-{}", n.0);
                bound.filter(is_right).map(|(n, _)| n).collect()
            }
            None => NodeSet::first(self.listed(node)),
        }
    }
}
