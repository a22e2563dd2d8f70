//! Nodes that go and come back, and what is refused.

use super::pair::{Shape, World};
use super::*;
use crate::quorum::Quorum;
use crate::table::{NodeKind, Stage, Table};

const NAMES: [&str; 5] = ["alpha", "beta", "gamma", "delta", "eps"];

fn world() -> World {
    let mut world = World::of(Shape {
        replicas: 2,
        witnesses: 1,
        quorum: Quorum::Majority,
        auto_promote: true,
        on_quorum_loss: QuorumLoss::Freeze,
        sum_pages: 0,
    });
    world.connect();
    assert_eq!(world.command(0, promote(false)), Ok(Answer::Ok));
    world.settle();
    world
}

/// The first so many names have data, these others vote.
fn nodes(replicas: usize, witnesses: &[usize]) -> Command {
    let of = |index: usize, kind| (NAMES[index].to_owned(), kind);
    let with_data = (0..replicas).map(|index| of(index, NodeKind::Replica));
    let voting = witnesses.iter().map(|index| of(*index, NodeKind::Witness));
    Command::Nodes(with_data.chain(voting).collect())
}

fn voters(world: &World) -> Option<NodeSet> {
    world.status(0).record.map(|record| record.voters)
}

fn table(world: &World, node: usize) -> Table {
    world.nodes[node].volume.table().clone()
}

#[test]
fn a_witness_loses_its_vote_before_it_is_gone_and_is_asked_back_under_its_index() {
    let mut world = world();
    assert_eq!(voters(&world), Some(NodeSet::first(3)));
    assert_eq!(world.command(0, nodes(2, &[2])), Ok(Answer::Already));
    assert_eq!(world.command(0, nodes(2, &[])), Ok(Answer::Ok));
    world.settle();
    assert_eq!(voters(&world), Some(NodeSet::first(2)));
    for node in 0..3 {
        let gone = table(&world, node).at(&[Stage::Gone]);
        assert_eq!(gone, NodeSet::only(NodeIdx(2)), "node {node}");
    }
    assert_eq!(world.write(0, 9, 1, 4), Outcome::Ok);
    assert_eq!(world.command(0, nodes(2, &[2])), Ok(Answer::Ok));
    world.settle();
    assert_eq!(voters(&world), Some(NodeSet::first(3)));
    world.kill(1);
    world.settle();
    assert_eq!(
        world.write(0, 9, 1, 5),
        Outcome::Ok,
        "its vote counts again"
    );
}

#[test]
fn a_lost_witness_goes_and_a_lost_voter_holds_a_newcomer_up() {
    let mut world = world();
    world.kill(2);
    assert_eq!(world.command(0, nodes(2, &[3])), Ok(Answer::Ok));
    world.settle();
    assert_eq!(voters(&world), Some(NodeSet::first(2)));
    let came = table(&world, 1);
    assert_eq!(came.at(&[Stage::Coming]), NodeSet::only(NodeIdx(3)));
    assert_eq!(came.at(&[Stage::Gone]), NodeSet::only(NodeIdx(2)));
    // Nobody answers there: it never becomes a member, and can be taken back.
    assert!(!table(&world, 0).members().has(NodeIdx(3)));
    let refused = world.command(0, nodes(2, &[3, 4]));
    assert_eq!(refused, Err(CommandError::NodeChanging(NodeIdx(3))));
    assert_eq!(world.command(0, nodes(2, &[])), Ok(Answer::Ok));
    world.settle();
    let gone = NodeSet::only(NodeIdx(2)).with(NodeIdx(3));
    assert_eq!(table(&world, 0).at(&[Stage::Gone]), gone);
}

#[test]
fn a_node_that_restarts_goes_by_the_table_and_not_by_its_file() {
    let mut world = world();
    assert_eq!(world.command(0, nodes(2, &[])), Ok(Answer::Ok));
    world.settle();
    world.restart(1);
    world.settle();
    assert_eq!(table(&world, 1), table(&world, 0));
    assert_eq!(table(&world, 1).members(), NodeSet::first(2));
    assert_eq!(world.status(0).in_sync, NodeSet::first(2));
}

#[test]
fn what_cannot_be_is_refused_exactly() {
    let mut world = world();
    let refused = |world: &mut World, node, command| world.command(node, command).unwrap_err();
    let copy = CommandError::NeededCopy(NodeIdx(1));
    assert_eq!(refused(&mut world, 0, nodes(1, &[2])), copy);
    let many = NAMES.iter().chain(&["zeta"]);
    let many = many.map(|name| ((*name).to_owned(), NodeKind::Replica));
    let many = Command::Nodes(many.collect());
    assert_eq!(refused(&mut world, 0, many), CommandError::TooManyReplicas);
    let others = ["beta", "gamma", "delta"];
    let others = others.map(|name| (name.to_owned(), NodeKind::Replica));
    assert_eq!(
        refused(&mut world, 0, Command::Nodes(others.into())),
        CommandError::PrimaryLeaves
    );
    let many = refused(&mut world, 0, nodes(2, &[2, 3, 4]));
    assert_eq!(many, CommandError::TooManyWitnesses);
    let elsewhere = CommandError::PrimaryElsewhere(NodeIdx(0));
    assert_eq!(refused(&mut world, 1, nodes(2, &[])), elsewhere);
    world.kill(1);
    world.settle_for(40);
    let needed = CommandError::NeededForMajority(NodeIdx(2));
    assert_eq!(refused(&mut world, 0, nodes(2, &[])), needed);
    let mut off = World::new(2);
    off.connect();
    assert_eq!(off.command(0, promote(false)), Ok(Answer::Ok));
    assert_eq!(
        refused(&mut off, 0, nodes(2, &[2])),
        CommandError::WitnessesStay
    );
    assert_eq!(
        refused(&mut off, 0, nodes(3, &[])),
        CommandError::ReplicasStay
    );
}
