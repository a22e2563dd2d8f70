//! Stored checksums: what they cost, and what becomes of data that does not match.

use super::pair::{Shape, World};
use super::promote;
use crate::event::Command;
use crate::quorum::{Quorum, QuorumLoss};

fn pair(sum_pages: usize) -> World {
    copies(2, sum_pages)
}

fn copies(replicas: usize, sum_pages: usize) -> World {
    let quorum = match replicas {
        2 => Quorum::Off,
        _ => Quorum::Majority,
    };
    let mut world = World::of(Shape {
        replicas,
        witnesses: 0,
        quorum,
        auto_promote: false,
        on_quorum_loss: QuorumLoss::Freeze,
        sum_pages,
    });
    world.connect();
    world.command(0, promote(false)).unwrap();
    world.settle();
    world
}

/// Actions of both nodes while this is done, pages of checksums apart.
fn cost(world: &mut World, what: impl FnOnce(&mut World)) -> (usize, usize) {
    for node in &mut world.nodes {
        (node.actions, node.pages) = (0, 0);
    }
    what(world);
    let actions = world.nodes.iter().map(|n| n.actions - n.pages).sum();
    let pages = world.nodes.iter().map(|n| n.pages).sum();
    (actions, pages)
}

#[test]
fn a_warm_request_takes_the_same_actions_with_and_without_checksums() {
    let (mut without, mut with) = (pair(0), pair(24));
    for world in [&mut without, &mut with] {
        world.write(0, 7, 2, 1);
    }
    let again = |world: &mut World| {
        world.write(0, 7, 2, 2);
        world.write(0, 8, 1, 3);
        assert_eq!(world.read(0, 7, 2), Ok(vec![2, 3]));
    };
    let (plain, checked) = (cost(&mut without, again), cost(&mut with, again));
    assert_eq!(plain.1, 0, "no page is touched where none is stored");
    assert_eq!(checked, (plain.0, 0));
}

#[test]
fn what_does_not_match_is_answered_by_the_other_copy_and_repaired() {
    for (bad, good) in [(0, 1), (1, 0)] {
        let mut world = pair(24);
        world.write(0, 40, 4, 9);
        world.nodes[bad].disk[41] = 77;
        assert_eq!(world.read(0, 40, 4), Ok(vec![9; 4]));
        world.command(bad, Command::Scrub { rate: 0 }).unwrap();
        world.settle();
        let found = world.status(bad).checksums.unwrap();
        assert_eq!((found.errors, found.repaired, found.unrepaired), (1, 1, 0));
        assert_eq!(world.nodes[bad].disk, world.nodes[good].disk);
        assert_eq!(world.status(good).checksums.unwrap().errors, 0);
    }
}

#[test]
fn what_two_copies_lost_comes_from_the_third() {
    for first in [0, 1, 2] {
        let mut world = copies(3, 24);
        world.write(0, 40, 4, 9);
        for node in (0..3).filter(|n| *n != first) {
            world.nodes[node].disk[41] = 77;
        }
        assert_eq!(world.read(0, 40, 4), Ok(vec![9; 4]), "{first}");
        for node in 0..3 {
            world.command(node, Command::Scrub { rate: 0 }).unwrap();
        }
        world.settle();
        for node in 0..3 {
            assert_eq!(
                world.nodes[node].disk[40..44],
                [9; 4],
                "{node} from {first}"
            );
            assert_eq!(world.status(node).checksums.unwrap().unrepaired, 0);
        }
    }
}

#[test]
fn copies_that_lost_different_granules_of_one_run_repair_each_other() {
    let mut world = pair(24);
    world.write(0, 40, 8, 9);
    for (node, granule) in [(0, 40), (0, 47), (1, 43), (1, 44)] {
        world.nodes[node].disk[granule] = 77;
    }
    world.command(0, Command::Scrub { rate: 0 }).unwrap();
    world.settle();
    for node in [0, 1] {
        assert_eq!(world.nodes[node].disk[40..48], [9; 8], "{node}");
        let found = world.status(node).checksums.unwrap();
        assert_eq!(found.unrepaired, 0, "{found:?}");
    }
}

#[test]
fn a_resync_never_sends_what_does_not_match() {
    let mut world = pair(24);
    world.cut();
    world.write(0, 40, 4, 9);
    world.nodes[0].disk[41] = 77;
    world.connect();
    world.settle();
    assert!(world.nodes[1].disk.iter().all(|granule| *granule != 77));
    assert!(!world.status(0).in_sync.has(crate::units::NodeIdx(1)));
    assert_eq!(world.status(0).checksums.unwrap().unrepaired, 1);
    // Written anew there is something to send.
    world.write(0, 41, 1, 10);
    world.settle();
    assert_eq!(world.nodes[1].disk[40..44], [9, 10, 9, 9]);
    assert!(world.status(0).in_sync.has(crate::units::NodeIdx(1)));
}
