//! Who is who for a volume, by its table of nodes in force.
//!
//! A volume that is attached goes by its table; the file says what is wanted, and is the table only
//! while that is of version 0. A node is found by its name: its index may be another one than the
//! file's order makes, or mean somebody else by now.

use engine_core::table::{NodeKind, Table};
use engine_core::units::NodeIdx;

/// What this node is for the volume; `None`: nothing any more, or nothing yet.
pub(crate) fn kind_of(table: &Table, name: &str) -> Option<NodeKind> {
    Some(table.entry(table.index_of(name)?)?.kind)
}

/// Index of a node whose copy records may name.
pub(crate) fn replica(table: &Table, name: &str) -> Option<NodeIdx> {
    let index = table.index_of(name)?;
    table.replicas().has(index).then_some(index)
}

/// Index of a node that data connections of the node `own` lead to.
pub(crate) fn data_peer(table: &Table, own: &str, peer: &str) -> Option<NodeIdx> {
    replica(table, own)?;
    replica(table, peer).filter(|_| own != peer)
}

/// The node `own` has to do with that one: both belong to the volume, or the other one did, and may
/// have to be told that it is gone.
pub(crate) fn knows(table: &Table, own: &str, other: &str) -> bool {
    table.index_of(own).is_some() && table.index_by_name(other).is_some()
}

#[cfg(test)]
mod tests {
    use engine_core::table::Stage;
    use engine_core::units::Term;

    use super::*;

    fn table() -> Table {
        let names = ["alpha", "beta", "gamma"].map(str::to_owned);
        Table::of_file(&names, 2)
    }

    #[test]
    fn data_flows_between_members_with_a_copy_only() {
        let table = table();
        assert_eq!(data_peer(&table, "alpha", "beta"), Some(NodeIdx(1)));
        assert_eq!(data_peer(&table, "alpha", "alpha"), None);
        assert_eq!(data_peer(&table, "alpha", "gamma"), None, "a witness");
        assert_eq!(data_peer(&table, "gamma", "alpha"), None, "a witness");
        let leaving = table.with_stage(Term(5), NodeIdx(1), Stage::Leaving);
        assert_eq!(data_peer(&leaving, "alpha", "beta"), Some(NodeIdx(1)));
        let gone = leaving.with_stage(Term(5), NodeIdx(1), Stage::Gone);
        assert_eq!(data_peer(&gone, "alpha", "beta"), None);
        assert_eq!(data_peer(&gone, "beta", "alpha"), None);
        let comes = gone.with_stage(Term(5), NodeIdx(1), Stage::Coming);
        assert_eq!(data_peer(&comes, "alpha", "beta"), None, "not named yet");
        assert!(knows(&comes, "alpha", "beta"), "but told the table");
    }

    #[test]
    fn who_is_gone_is_nothing_for_the_volume() {
        let gone = table().with_stage(Term(5), NodeIdx(1), Stage::Gone);
        assert_eq!(kind_of(&gone, "alpha"), Some(NodeKind::Replica));
        assert_eq!(kind_of(&gone, "beta"), None);
        assert_eq!(kind_of(&gone, "gamma"), Some(NodeKind::Witness));
        assert!(knows(&gone, "alpha", "beta") && !knows(&gone, "beta", "alpha"));
        let replicas: Vec<NodeIdx> = gone.live(NodeKind::Replica).map(|(i, _)| i).collect();
        assert_eq!(replicas, [NodeIdx(0)]);
    }
}
