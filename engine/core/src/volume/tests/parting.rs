//! Split brains: told, decided by an operator, and one copy given up (laws T9, S8, O5).

use super::pair::{Shape, World};
use super::*;
use crate::event::DiskError;
use crate::message::Disk;
use crate::quorum::{Quorum, QuorumLoss};
use crate::units::NodeIdx;

const A: NodeIdx = NodeIdx(0);
const B: NodeIdx = NodeIdx(1);

/// Node 0 wrote 5 and 6, node 1 wrote 6 and 7, both as primary, after they lost each other.
fn parted() -> World {
    let mut world = in_sync_pair();
    assert_eq!(world.write(0, 4, 4, 1), Outcome::Ok);
    assert_eq!(world.client(0, Op::Flush), Outcome::Ok);
    world.cut();
    world.gone(0);
    assert_eq!(world.write(0, 5, 2, 100), Outcome::Ok);
    assert_eq!(world.command(1, promote(false)), Ok(Answer::Ok));
    assert_eq!(world.write(1, 6, 2, 200), Outcome::Ok);
    world.connect();
    world
}

fn give_up(to: NodeIdx, token: Option<u64>) -> Command {
    Command::GiveUp { to, token }
}

fn token(world: &World, node: usize) -> Option<u64> {
    let other = NodeIdx(1 - node as u8);
    world.nodes[node].volume.parting(other).map(|p| p.token)
}

#[test]
fn each_side_of_a_split_brain_knows_what_both_changed() {
    let world = parted();
    for (node, other) in [(0, B), (1, A)] {
        let found = world.nodes[node]
            .volume
            .parting(other)
            .expect("they parted");
        let theirs = found.theirs.expect("the other side told all");
        assert_eq!((found.mine.changed, theirs.changed), (Some(2), Some(2)));
        assert_eq!((found.overlap, found.differ), (Some(1), Some(3)));
        assert!(found.mine.is_primary && theirs.is_primary);
        assert!(found.mine.last_write_ms.is_some() && theirs.last_write_ms.is_some());
        assert!(found.ancestor.is_some());
        assert_eq!((found.mine.reigns.len(), theirs.reigns.len()), (1, 1));
    }
}

#[test]
fn a_copy_is_given_up_with_its_blocks_kept_and_only_what_may_differ_moves() {
    let mut world = parted();
    assert_eq!(
        world.command(1, give_up(A, None)),
        Err(CommandError::StillPrimary)
    );
    assert_eq!(world.command(1, Command::Demote), Ok(Answer::Ok));
    let token = token(&world, 1);
    assert_eq!(world.command(1, give_up(A, token)), Ok(Answer::Ok));
    let (saved, is_whole) = world.nodes[1].salvage.clone();
    assert!(is_whole);
    assert_eq!(
        saved.into_iter().collect::<Vec<_>>(),
        [(5, 1), (6, 200), (7, 200)]
    );
    world.connect();
    world.settle();
    assert_eq!(
        world.status(0).in_sync,
        NodeSet(3),
        "{:#?}",
        world.status(0)
    );
    assert_eq!(world.nodes[0].disk, world.nodes[1].disk);
    assert_eq!(world.nodes[1].disk[4..8], [1, 100, 100, 1]);
    assert!(world.nodes[0].volume.parting(B).is_none());
    assert_eq!(world.write(0, 1, 1, 9), Outcome::Ok);
    assert_eq!(world.nodes[1].disk[1], 9);
}

#[test]
fn a_plan_that_does_not_hold_any_more_is_void() {
    let mut world = parted();
    let token = token(&world, 1);
    // It changes more after the plan was made.
    assert_eq!(world.write(1, 20, 1, 200), Outcome::Ok);
    assert_eq!(world.command(1, Command::Demote), Ok(Answer::Ok));
    let refused = world.command(1, give_up(A, token));
    assert_eq!(refused, Err(CommandError::PlanChanged));
    assert_eq!(world.status(1).disk, Disk::UpToDate);
    assert_eq!(world.nodes[1].disk[5..8], [1, 200, 200]);
}

#[test]
fn without_room_for_the_salvage_nothing_is_given_up() {
    let mut world = parted();
    assert_eq!(world.command(1, Command::Demote), Ok(Answer::Ok));
    world.nodes[1].is_salvage_full = true;
    let refused = world.command(1, give_up(A, None));
    let full = CommandError::SalvageFailed(DiskError::NoSpace);
    assert_eq!(refused, Err(full));
    assert_eq!(world.status(1).disk, Disk::UpToDate);
    world.settle();
    assert_eq!(world.nodes[1].disk[5..8], [1, 200, 200]);
    // It can be promoted, and stays a history of its own.
    assert_eq!(world.command(1, promote(false)), Ok(Answer::Ok));
}

#[test]
fn a_crash_before_the_end_leaves_the_split_brain_and_one_after_it_a_resync() {
    let mut world = parted();
    assert_eq!(world.command(1, Command::Demote), Ok(Answer::Ok));
    let before = world.snapshot(1);
    assert_eq!(world.command(1, give_up(A, None)), Ok(Answer::Ok));
    let after = world.snapshot(1);
    world.restart(1);
    assert_eq!(world.status(1).disk, Disk::Inconsistent);
    world.connect();
    world.settle();
    assert_eq!(world.status(0).in_sync, NodeSet(3));
    assert_eq!(world.nodes[0].disk, world.nodes[1].disk);
    assert_ne!(before, after);
}

#[test]
fn where_both_give_up_neither_copy_goes() {
    let mut world = parted();
    for node in [0, 1] {
        assert_eq!(world.command(node, Command::Demote), Ok(Answer::Ok));
    }
    let ids = [
        world.ask(0, give_up(B, None)),
        world.ask(1, give_up(A, None)),
    ];
    for id in ids {
        let answer = world.await_answer(id);
        assert!(
            matches!(answer, Err(CommandError::BothGiveUp(_))),
            "{answer:?}"
        );
    }
    for node in [0, 1] {
        assert_eq!(world.status(node).disk, Disk::UpToDate);
    }
}

#[test]
fn after_a_force_the_other_copies_come_back_as_replicas_and_voters() {
    let mut world = World::of(Shape {
        replicas: 3,
        witnesses: 0,
        quorum: Quorum::Majority,
        sum_pages: 0,
        auto_promote: true,
        on_quorum_loss: QuorumLoss::Freeze,
    });
    world.connect();
    assert_eq!(world.command(0, promote(false)), Ok(Answer::Ok));
    world.settle();
    assert_eq!(world.write(0, 4, 4, 1), Outcome::Ok);
    world.isolate(2);
    world.settle();
    assert_eq!(world.write(0, 5, 2, 100), Outcome::Ok);
    assert_eq!(world.command(2, promote(true)), Ok(Answer::Ok));
    assert_eq!(world.write(2, 6, 2, 200), Outcome::Ok);
    world.connect();
    world.settle();
    assert_eq!(world.status(2).role, RoleStatus::Primary);
    for node in [0, 1] {
        if world.status(node).role == RoleStatus::Primary {
            assert_eq!(world.command(node, Command::Demote), Ok(Answer::Ok));
        }
        if node == 1 {
            // The first one is not counted in again yet: two votes less would be too many.
            let early = world.command(node, give_up(NodeIdx(2), None));
            assert_eq!(early, Err(CommandError::NeedsVote(NodeIdx(2))));
            (0..40).for_each(|_| world.settle());
        }
        assert_eq!(
            world.command(node, give_up(NodeIdx(2), None)),
            Ok(Answer::Ok)
        );
        let (saved, is_whole) = world.nodes[node].salvage.clone();
        let own = [(5, 100), (6, 100), (7, 1)];
        let holds = |(granule, tag): &(u64, u64)| saved.get(granule) == Some(tag);
        assert!(is_whole && own.iter().all(holds), "{saved:?}");
    }
    world.connect();
    (0..40).for_each(|_| world.settle());
    let status = world.status(2);
    assert_eq!(status.in_sync, NodeSet(7), "{status:#?}");
    assert_eq!(status.record.map(|r| r.voters), Some(NodeSet(7)));
    for node in [0, 1] {
        assert_eq!(world.nodes[node].disk[4..8], [1, 1, 200, 200]);
    }
    // Any two of them choose again.
    world.kill(2);
    world.settle();
    let is_primary = |n: &usize| world.status(*n).role == RoleStatus::Primary;
    assert!([0, 1].iter().any(is_primary));
}
