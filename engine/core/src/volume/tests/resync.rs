//! What a resync and a verify move, counted.

use super::*;
use crate::agree::FEATURE_HASHES;
use crate::message::Message;
use crate::units::Extent;

/// Both copies hold something everywhere, and everything is marked as if nobody knew.
fn pair_marked_whole(differs: impl Fn(u64) -> bool) -> World {
    let mut world = in_sync_pair();
    for granule in 0..world.size {
        let tag = 1000 + granule;
        world.nodes[0].disk[granule as usize] = tag;
        world.nodes[1].disk[granule as usize] = tag + u64::from(differs(granule));
    }
    world.cut();
    let all = Extent::new(0, world.size);
    let beta = world.nodes[0].volume.peers.get_mut(NodeIdx(1));
    beta.dirty.set(all);
    world
}

fn assert_equal(world: &World) {
    assert_eq!(world.status(0).in_sync, NodeSet(3));
    assert!(world.nodes[0].disk == world.nodes[1].disk);
}

#[test]
fn of_a_volume_that_differs_in_one_of_a_hundred_blocks_only_those_travel() {
    let mut world = pair_marked_whole(|granule| granule % 100 == 7);
    let before = world.sent;
    world.connect();
    assert_equal(&world);
    assert_eq!(world.sent.resynced - before.resynced, world.size / 100);
    // One granule in a hundred, 16 bytes of hash for each, and heads.
    let bytes = world.sent.bytes - before.bytes;
    let volume = world.size * GRANULE;
    assert!(bytes < volume / 50, "{bytes} of {volume}");
    let figures = world.status(0).peers[0].last_resync.unwrap();
    assert_eq!(
        (figures.moved, figures.sent),
        (world.size, world.size / 100)
    );
}

#[test]
fn a_peer_of_an_earlier_version_is_resynced_by_checksums() {
    let mut world = pair_marked_whole(|granule| granule % 100 == 7);
    world.features_missing = FEATURE_HASHES;
    world.connect();
    assert_equal(&world);
    assert!(world.sent.resynced < world.size, "{:?}", world.sent);
}

#[test]
fn holes_are_told_and_not_sent() {
    let mut world = pair_marked_whole(|_| true);
    let zeros = 1000..3000;
    world.nodes[0].disk[zeros].fill(0);
    world.connect();
    assert_equal(&world);
    let figures = world.status(0).peers[0].last_resync.unwrap();
    // Pieces that are not all zeros are sent whole where they differ.
    assert!(figures.zeroed >= 2000 - 2 * 256, "{figures:?}");
    assert_eq!(figures.sent, world.sent.resynced);
}

/// The link of a resync is cut when about half is done.
fn half_done() -> World {
    let mut world = pair_marked_whole(|_| true);
    world.command(1, Command::ResyncRate(1 << 20)).unwrap();
    world.connect();
    let left = world.status(0).peers[0].out_of_sync;
    assert!((1..world.size).contains(&left), "{left}");
    world
        .command(1, Command::ResyncRate(0))
        .unwrap_or(Answer::Ok);
    world
}

#[test]
fn a_cut_resync_goes_on_where_it_was() {
    let mut world = pair_marked_whole(|_| true);
    world.command(1, Command::ResyncRate(1 << 20)).unwrap();
    world.connect();
    world.cut();
    let left = world.status(0).peers[0].out_of_sync;
    assert!((1000..world.size - 1000).contains(&left), "{left}");
    assert_eq!(world.status(0).in_sync, NodeSet(1), "and is not done");
    let before = world.sent;
    world.command(1, Command::ResyncRate(0)).unwrap();
    world.connect();
    assert_equal(&world);
    assert_eq!(world.sent.resynced - before.resynced, left);
}

#[test]
fn a_crash_of_either_side_does_not_begin_a_resync_anew() {
    for node in [1, 0] {
        let mut world = half_done();
        world.nodes[0]
            .volume
            .peers
            .get_mut(NodeIdx(1))
            .source
            .save_soon();
        world.settle();
        let before = world.sent;
        let left = world.status(0).peers[0].out_of_sync;
        if left == 0 {
            continue;
        }
        world.restart(node);
        world.connect();
        world.command(0, promote(false)).unwrap_or(Answer::Ok);
        world.settle();
        assert_equal(&world);
        let sent = world.sent.resynced - before.resynced;
        assert!(sent <= left, "node {node}: {sent} of {left}");
    }
}

#[test]
fn several_targets_are_served_at_once() {
    let mut world = World::new(3);
    world.connect();
    assert_eq!(world.command(0, promote(false)), Ok(Answer::Ok));
    world.settle();
    assert_eq!(world.status(0).in_sync, NodeSet(7));
    world.cut();
    world.write(0, 0, 2000, 7);
    for node in [1, 2] {
        world.command(node, Command::ResyncRate(2 << 20)).unwrap();
    }
    world.connect_for(30);
    for peer in &world.status(0).peers {
        let moved = peer.resync.unwrap().figures.moved;
        assert!((1..2000).contains(&moved), "{peer:?}");
    }
    world.settle();
    assert_eq!(world.status(0).in_sync, NodeSet(7));
}

#[test]
fn a_verify_of_equal_copies_costs_a_fraction_of_a_thousandth() {
    let mut world = in_sync_pair();
    for granule in 0..world.size as usize {
        world.nodes.iter_mut().for_each(|n| n.disk[granule] = 5);
    }
    let before = world.sent.bytes;
    let Ok(Answer::Verify(figures)) = world.command(0, Command::Verify(Repair::No)) else {
        panic!("a verify answers with figures");
    };
    assert_eq!((figures.compared, figures.different), (world.size, 0));
    let (bytes, volume) = (world.sent.bytes - before, world.size * GRANULE);
    assert!(bytes * 2000 < volume, "{bytes} of {volume}");
}

#[test]
fn a_verify_finds_every_block_that_differs_and_no_other() {
    for features_missing in [0, FEATURE_HASHES] {
        let mut world = World::new(2);
        world.features_missing = features_missing;
        world.connect();
        world.command(0, promote(false)).unwrap();
        world.settle();
        let rotten = [0, 255, 256, 300, 301, 4095, 4999];
        for granule in rotten {
            world.nodes[1].disk[granule] = 666;
        }
        let Ok(Answer::Verify(figures)) = world.command(0, Command::Verify(Repair::No)) else {
            panic!("a verify answers with figures");
        };
        assert_eq!(figures.different, rotten.len() as u64);
        let mut found: Vec<u64> = figures
            .runs
            .iter()
            .flat_map(|run| run.start..run.end)
            .collect();
        found.sort_unstable();
        assert_eq!(found, rotten.map(|granule| granule as u64));
    }
}

#[test]
fn two_copies_are_repaired_from_the_one_that_is_named() {
    let mut world = in_sync_pair();
    world.write(0, 5, 4, 8);
    world.nodes[1].disk[6] = 666;
    let by_majority = world.command(0, Command::Verify(Repair::Majority));
    assert_eq!(by_majority, Err(CommandError::NoMajority));
    let from_beta = world.command(0, Command::Verify(Repair::From(NodeIdx(1))));
    assert_eq!(from_beta, Err(CommandError::NotPrimary));
    let from_me = world.command(0, Command::Verify(Repair::From(NodeIdx(0))));
    assert!(matches!(from_me, Ok(Answer::Verify(f)) if f.is_repairing));
    world.settle();
    assert_equal(&world);
    assert_eq!(world.nodes[1].disk[6], 8);
}

#[test]
fn of_three_copies_the_majority_repairs_the_third_and_never_the_other_way() {
    for rotten in 0..3 {
        let mut world = World::new(3);
        world.connect();
        world.command(0, promote(false)).unwrap();
        world.settle();
        world.write(0, 5, 4, 8);
        world.nodes[rotten].disk[6] = 666;
        let Ok(Answer::Verify(figures)) = world.command(0, Command::Verify(Repair::Majority))
        else {
            panic!("a verify answers with figures");
        };
        world.settle();
        assert_eq!(figures.is_repairing, rotten != 0, "node {rotten}");
        // Where the primary is the odd one out nothing is overwritten: an operator decides.
        let expected = if rotten == 0 { [666, 8, 8] } else { [8; 3] };
        for (node, tag) in expected.into_iter().enumerate() {
            assert_eq!(world.nodes[node].disk[6], tag, "node {node} of {rotten}");
        }
    }
}

#[test]
fn what_a_verify_found_before_it_was_cut_short_leaves_s() {
    for repair in [Repair::No, Repair::Majority, Repair::From(NodeIdx(0))] {
        let mut world = World::new(3);
        world.connect();
        world.command(0, promote(false)).unwrap();
        world.settle();
        world.write(0, 5, 4, 8);
        world.nodes[1].disk[6] = 666;
        // Slow enough that it finds the block and has more to do.
        world.command(0, Command::ResyncRate(1 << 20)).unwrap();
        let verify = world.ask(0, Command::Verify(repair));
        world.settle_for(30);
        world.isolate(2);
        let cut_short = world.await_answer(verify);
        assert_eq!(cut_short, Err(CommandError::NotConnected(NodeIdx(2))));
        world.settle();
        let is_repaired = repair == Repair::From(NodeIdx(0));
        let in_sync = if is_repaired { NodeSet(3) } else { NodeSet(1) };
        assert_eq!(world.status(0).in_sync, in_sync, "{repair:?}");
        assert_eq!(world.nodes[1].disk[6] == 8, is_repaired, "{repair:?}");
        if !is_repaired {
            let from = NodeIdx(0);
            world.command(0, Command::ResyncStart { from }).unwrap();
            world.settle();
            assert_eq!(world.status(0).in_sync, NodeSet(3));
            assert_eq!(world.nodes[1].disk[6], 8);
        }
    }
}

#[test]
fn a_verify_beside_a_resync_is_refused_and_says_so() {
    let mut world = pair_marked_whole(|_| true);
    let away = world.command(0, Command::Verify(Repair::No));
    assert_eq!(away, Err(CommandError::NotConnected(NodeIdx(1))));
    world.command(0, Command::ResyncPause).unwrap();
    world.connect();
    let beside = world.command(0, Command::Verify(Repair::No));
    assert_eq!(beside, Err(CommandError::NotInSync(NodeIdx(1))));
}

#[test]
fn a_pause_a_rate_and_a_stall_are_told_apart() {
    let mut world = pair_marked_whole(|_| true);
    let state = |world: &World| world.status(0).peers[0].resync.map(|r| r.state);
    world.command(0, Command::ResyncPause).unwrap();
    world.connect();
    assert_eq!(state(&world), Some(ResyncState::PausedHere));
    world.command(0, Command::ResyncRate(1 << 20)).unwrap();
    world.command(0, Command::ResyncResume).unwrap();
    world.settle_for(100);
    assert_eq!(state(&world), Some(ResyncState::HeldByRate));
    // One piece of it takes longer than what is called a stall.
    world.command(0, Command::ResyncRate(16 << 10)).unwrap();
    for _ in 0..60 {
        world.settle_for(10);
        assert_eq!(state(&world), Some(ResyncState::HeldByRate));
    }
    world.is_resync_stuck = true;
    world.command(0, Command::ResyncRate(0)).unwrap();
    world.settle_for(150);
    assert_eq!(state(&world), Some(ResyncState::Stalled));
}

#[test]
fn who_was_late_is_given_nothing_until_its_pause_is_over_or_an_operator_says_so() {
    for is_asked in [false, true] {
        let mut world = in_sync_pair();
        let before = world.nodes[1].disk[6];
        world.cut();
        assert_eq!(world.write(0, 5, 1, 77), Outcome::Ok);
        world.nodes[0].volume.member_was_late(NodeIdx(1));
        world.connect_for(20);
        let state = world.status(0).peers[0].resync.map(|r| r.state);
        assert_eq!(state, Some(ResyncState::BackingOff));
        assert_eq!(world.write(0, 6, 1, 78), Outcome::Ok);
        world.settle_for(10);
        assert_eq!(world.nodes[1].disk[6], before, "nothing is sent to it");
        assert_eq!(world.status(0).in_sync, NodeSet(1));
        if is_asked {
            let connect = Command::Connect(NodeIdx(1));
            assert_eq!(world.command(0, connect), Ok(Answer::Ok));
            world.settle_for(5);
        } else {
            world.settle();
        }
        assert_equal(&world);
    }
}

#[test]
fn a_target_that_is_told_nonsense_hangs_up() {
    for runs in [
        vec![Extent::new(0, 300)],
        vec![Extent::new(4, 6), Extent::new(5, 7)],
        vec![Extent::new(6, 7), Extent::new(4, 5)],
    ] {
        let mut world = pair_marked_whole(|_| true);
        world.is_resync_stuck = true;
        world.command(1, Command::ResyncRate(1 << 20)).unwrap();
        world.connect_for(3);
        world.inject(1, Message::ResyncDiffer { id: 1, runs });
        let session = world.status(1).peers[0].session;
        assert!(matches!(session, Session::Connecting), "{session:?}");
    }
}
