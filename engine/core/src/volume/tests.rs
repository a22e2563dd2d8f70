//! The volume in the smallest shell there is: disks, links and store answer at once, in order.
//! Faults and schedules are the simulator's; here stands what each command does when all is well.

mod checksums;
mod grow;
mod nodes;
mod pair;
mod parting;
mod register;
mod resync;
mod votes;

use std::time::Duration;

use super::*;
use crate::action::{Answer, CommandError};
use crate::event::{Command, Op, Repair};
use crate::message::Zeroing;
use crate::session::Session;
use crate::units::{BufId, ByteRange, GRANULE};
use pair::World;

const WAIT: Duration = Duration::from_secs(10);

fn promote(force: bool) -> Command {
    Command::Promote { force, wait: WAIT }
}

fn founded_pair() -> World {
    let mut world = World::new(2);
    world.connect();
    assert_eq!(world.command(0, promote(false)), Ok(Answer::Ok));
    world.settle();
    world
}

fn in_sync_pair() -> World {
    let world = founded_pair();
    assert_eq!(world.status(0).in_sync, NodeSet(3), "{:?}", world.status(0));
    assert!(matches!(
        world.status(1).peers[0].session,
        Session::InSync(_)
    ));
    world
}

#[test]
fn a_single_replica_founds_itself_and_serves() {
    let mut world = World::new(1);
    assert_eq!(world.status(0).role, RoleStatus::Primary);
    assert_eq!(world.write(0, 0, 3, 7), Outcome::Ok);
    assert_eq!(world.nodes[0].disk[1], 7);
    assert_eq!(world.client(0, Op::Flush), Outcome::Ok);
    let size = world.size * GRANULE;
    let past = ByteRange {
        offset: size - 4096,
        len: 8192,
    };
    assert_eq!(
        world.client(
            0,
            Op::Read {
                range: past,
                buf: BufId(1)
            }
        ),
        Outcome::OutOfRange
    );
}

#[test]
fn founding_needs_every_replica_and_makes_the_others_sync() {
    let mut world = World::new(2);
    world.gone(1);
    let refused = world.command(0, promote(false));
    assert_eq!(
        refused,
        Err(CommandError::CannotFound {
            missing: NodeIdx(1)
        })
    );
    world.connect();
    assert_eq!(world.command(0, promote(false)), Ok(Answer::Ok));
    world.settle();
    assert_eq!(world.status(0).in_sync, NodeSet(3));
    assert_eq!(world.status(1).volume_id, world.status(0).volume_id);
    assert_eq!(world.status(1).chain, world.status(0).chain);
    assert_eq!(world.status(1).disk, Disk::UpToDate);
}

#[test]
fn a_write_is_on_both_disks_when_it_is_acknowledged() {
    let mut world = in_sync_pair();
    assert_eq!(world.write(0, 10, 4, 99), Outcome::Ok);
    assert_eq!(world.nodes[0].disk[10..14], [99; 4]);
    assert_eq!(world.nodes[1].disk[10..14], [99; 4]);
}

#[test]
fn zeros_of_the_whole_disk_reach_every_copy() {
    let mut world = in_sync_pair();
    world.write(0, 0, 50, 5);
    let range = ByteRange {
        offset: 0,
        len: world.size * GRANULE,
    };
    let op = Op::Zero {
        range,
        zeroing: Zeroing::Trim,
        fua: false,
    };
    assert_eq!(world.client(0, op), Outcome::Ok);
    assert!(world.nodes.iter().all(|n| n.disk.iter().all(|g| *g == 0)));
}

#[test]
fn a_lost_member_leaves_s_and_comes_back_with_what_it_missed() {
    let mut world = in_sync_pair();
    world.cut();
    assert_eq!(world.status(0).in_sync, NodeSet(1));
    assert_eq!(world.write(0, 20, 2, 7), Outcome::Ok);
    assert_eq!(world.nodes[1].disk[20], 0);
    assert_eq!(world.status(0).peers[0].out_of_sync, 2);
    world.connect();
    assert_eq!(
        world.status(0).in_sync,
        NodeSet(3),
        "{:#?}",
        world.status(0)
    );
    assert_eq!(world.nodes[1].disk[20..22], [7; 2]);
    assert_eq!(world.status(0).peers[0].out_of_sync, 0);
}

#[test]
fn the_roles_change_in_order_without_a_resync() {
    let mut world = in_sync_pair();
    world.write(0, 1, 1, 1);
    assert_eq!(
        world.command(1, promote(false)),
        Err(CommandError::PrimaryElsewhere(NodeIdx(0)))
    );
    assert_eq!(world.command(0, Command::Demote), Ok(Answer::Ok));
    assert_eq!(world.command(1, promote(false)), Ok(Answer::Ok));
    world.settle();
    assert_eq!(world.status(1).in_sync, NodeSet(3));
    assert_eq!(world.write(1, 2, 1, 2), Outcome::Ok);
    assert_eq!(world.nodes[0].disk[2], 2);
    assert_eq!(world.write(0, 3, 1, 3), Outcome::NotPrimary);
}

#[test]
fn a_member_takes_over_from_a_primary_that_vanished() {
    let mut world = in_sync_pair();
    world.write(0, 5, 1, 8);
    world.cut();
    world.gone(0);
    assert_eq!(world.command(1, promote(false)), Ok(Answer::Ok));
    assert_eq!(world.status(1).in_sync, NodeSet(2));
    assert_eq!(world.write(1, 6, 1, 9), Outcome::Ok);
}

#[test]
fn two_that_went_on_alone_stop_and_nothing_is_overwritten() {
    let mut world = in_sync_pair();
    world.cut();
    world.gone(0);
    assert_eq!(world.write(0, 5, 1, 100), Outcome::Ok);
    assert_eq!(world.command(1, promote(false)), Ok(Answer::Ok));
    assert_eq!(world.write(1, 5, 1, 200), Outcome::Ok);
    world.connect();
    for node in 0..2 {
        let session = world.status(node).peers[0].session;
        assert!(matches!(session, Session::Parted(..)), "{session:?}");
    }
    assert_eq!((world.nodes[0].disk[5], world.nodes[1].disk[5]), (100, 200));
}

#[test]
fn a_restarted_member_alone_is_not_promoted_without_force() {
    let mut world = in_sync_pair();
    world.cut();
    world.restart(1);
    world.gone(0);
    let refused = Err(CommandError::MayHaveGoneOn(NodeIdx(0)));
    assert_eq!(world.command(1, promote(false)), refused);
    assert_eq!(world.command(1, promote(true)), Ok(Answer::Ok));
    world.connect();
    assert!(matches!(
        world.status(0).peers[0].session,
        Session::Parted(..)
    ));
}

#[test]
fn a_crashed_primary_reconciles_what_its_log_names() {
    let mut world = in_sync_pair();
    world.write(0, 5, 1, 8);
    world.restart(0);
    assert_eq!(world.status(0).role, RoleStatus::Secondary);
    world.connect();
    assert_eq!(
        world.status(0).in_sync,
        NodeSet(3),
        "{:#?}",
        world.status(0)
    );
    assert_eq!(world.command(0, promote(false)), Ok(Answer::Ok));
    world.settle();
    assert_eq!(world.status(0).in_sync, NodeSet(3));
    assert_eq!(world.nodes[1].disk[5], 8);
}

#[test]
fn verify_finds_a_difference_and_repair_waits_for_an_operator() {
    let mut world = in_sync_pair();
    world.write(0, 5, 4, 8);
    world.nodes[1].disk[6] = 666;
    let Ok(Answer::Verify(figures)) = world.command(0, Command::Verify(Repair::No)) else {
        panic!("a verify answers with figures");
    };
    assert_eq!((figures.compared, figures.different), (world.size, 1));
    world.settle();
    assert_eq!(world.status(0).in_sync, NodeSet(1));
    assert_eq!(
        world.nodes[1].disk[6], 666,
        "repaired only on an operator's word"
    );
    let start = Command::ResyncStart { from: NodeIdx(0) };
    assert_eq!(world.command(0, start), Ok(Answer::Ok));
    world.settle();
    assert_eq!(world.status(0).in_sync, NodeSet(3));
    assert_eq!(world.nodes[1].disk[6], 8);
}

#[test]
fn a_stop_marks_clean_and_a_start_needs_no_resync() {
    let mut world = in_sync_pair();
    world.write(0, 5, 1, 8);
    assert_eq!(world.command(0, Command::Stop), Ok(Answer::Ok));
    world.settle();
    world.restart(0);
    assert_eq!(world.status(0).peers[0].out_of_sync, 0);
    assert!(world.status(0).is_whole);
}

#[test]
fn a_replica_put_back_to_an_older_state_is_synced_whole_and_never_a_source() {
    let mut world = in_sync_pair();
    world.command(1, Command::Stop).unwrap();
    let old = world.snapshot(1);
    world.restart(1);
    world.connect();
    world.write(0, 40, 4, 9);
    world.command(1, Command::Stop).unwrap();
    world.settle();
    world.write(0, 50, 1, 5);
    world.put_back(1, old);
    world.connect();
    world.settle();
    assert_eq!(
        world.status(0).in_sync,
        NodeSet(3),
        "{:#?}",
        world.status(0)
    );
    assert_eq!(world.nodes[1].disk[40..44], [9; 4]);
    assert_eq!(world.nodes[0].disk, world.nodes[1].disk);
}

#[test]
fn an_older_state_is_found_where_both_belonged_to_s_all_along() {
    let mut world = in_sync_pair();
    assert_eq!(world.command(0, Command::Demote), Ok(Answer::Ok));
    world.command(1, Command::Stop).unwrap();
    let old = world.snapshot(1);
    world.restart(1);
    world.connect();
    world.command(0, promote(false)).unwrap();
    world.write(0, 40, 4, 9);
    world.command(0, Command::Demote).unwrap();
    world.command(1, Command::Stop).unwrap();
    world.put_back(1, old);
    world.connect();
    // The node that reigns needs no primary to bring back a member of its S.
    assert_eq!(world.nodes[1].disk[40..44], [9; 4]);
    assert_eq!(world.command(1, promote(false)), Ok(Answer::Ok));
    world.settle();
    assert_eq!(
        world.status(1).in_sync,
        NodeSet(3),
        "{:#?}",
        world.status(1)
    );
    assert_eq!(world.nodes[0].disk, world.nodes[1].disk);
}

/// Node 1 is put back to what it was before its last run, in which node 0 acknowledged a write.
fn put_back_pair() -> World {
    let mut world = in_sync_pair();
    assert_eq!(world.command(0, Command::Demote), Ok(Answer::Ok));
    world.command(1, Command::Stop).unwrap();
    let old = world.snapshot(1);
    world.restart(1);
    world.connect();
    world.command(0, promote(false)).unwrap();
    world.write(0, 40, 4, 9);
    world.command(0, Command::Demote).unwrap();
    world.command(1, Command::Stop).unwrap();
    world.put_back(1, old);
    world
}

#[test]
fn an_older_state_is_found_out_however_often_it_was_started_alone() {
    for times in [1, 2, 3, 33, 70] {
        let mut world = put_back_pair();
        (0..times).for_each(|_| world.restart(1));
        world.connect();
        assert_eq!(world.nodes[0].disk[40..44], [9; 4]);
        assert_eq!(world.nodes[0].disk, world.nodes[1].disk, "{times} starts");
        assert_eq!(world.command(1, promote(false)), Ok(Answer::Ok));
        world.settle();
        assert_eq!(world.status(1).in_sync, NodeSet(3));
    }
}

#[test]
fn an_older_state_is_found_out_also_if_only_its_own_hellos_were_heard() {
    let mut world = put_back_pair();
    world.hellos_lost = u32::MAX;
    for _ in 0..3 {
        world.connect();
        assert_eq!(world.nodes[1].disk[40], 0, "nobody told it yet");
        world.restart(1);
    }
    world.hellos_lost = 0;
    world.connect();
    assert_eq!(world.nodes[0].disk[40..44], [9; 4]);
    assert_eq!(world.nodes[0].disk, world.nodes[1].disk);
}

#[test]
fn an_older_state_that_served_since_is_a_split_brain() {
    let mut world = in_sync_pair();
    world.cut();
    // It serves alone, and is stopped in order.
    world.write(0, 5, 1, 3);
    world.command(0, Command::Stop).unwrap();
    let old = world.snapshot(0);
    world.restart(0);
    world.connect();
    world.command(0, promote(false)).unwrap();
    world.write(0, 40, 4, 9);
    world.put_back(0, old);
    world.command(0, promote(false)).unwrap();
    world.write(0, 60, 4, 7);
    world.connect();
    let status = world.status(1);
    assert_eq!(
        status.peers[0].last_refusal.map(|why| why.is_split_brain()),
        Some(true),
        "{status:#?}"
    );
    assert_eq!(
        world.nodes[1].disk[40..44],
        [9; 4],
        "nothing is overwritten"
    );
    assert_eq!(world.nodes[0].disk[60..64], [7; 4]);
}

#[test]
fn a_pause_holds_wherever_it_is_asked() {
    let mut world = in_sync_pair();
    world.cut();
    world.write(0, 20, 2, 7);
    world.command(0, Command::ResyncPause).unwrap();
    world.connect();
    assert_eq!(
        world.status(0).in_sync,
        NodeSet(1),
        "the source was told to pause"
    );
    world.command(0, Command::ResyncResume).unwrap();
    world.settle();
    assert_eq!(world.status(0).in_sync, NodeSet(3));
}
