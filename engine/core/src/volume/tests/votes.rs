//! Three voters: records chosen by a majority, failover, leases, and who comes back.

use super::pair::{Shape, World};
use super::*;
use crate::action::{Action, Notice};
use crate::message::Life;
use crate::quorum::Quorum;
use crate::record::Record;
use crate::vote::{Ballot, Vote};

fn world(replicas: usize, witnesses: usize) -> World {
    let mut world = World::of(Shape {
        replicas,
        witnesses,
        quorum: Quorum::Majority,
        sum_pages: 0,
        auto_promote: true,
        on_quorum_loss: QuorumLoss::Freeze,
    });
    world.connect();
    assert_eq!(world.command(0, promote(false)), Ok(Answer::Ok));
    world.settle();
    let all = NodeSet::first(replicas);
    assert_eq!(world.status(0).in_sync, all, "{:#?}", world.status(0));
    assert_eq!(
        world.status(0).record.map(|r| r.voters),
        Some(NodeSet::first(replicas + witnesses))
    );
    world
}

fn primaries(world: &World) -> Vec<usize> {
    let is_primary = |n: &usize| world.runs(*n) && world.status(*n).role == RoleStatus::Primary;
    (0..world.nodes.len()).filter(is_primary).collect()
}

#[test]
fn a_volume_is_founded_by_its_voters_and_everybody_joins() {
    for (replicas, witnesses) in [(2, 1), (3, 0), (3, 2), (5, 0)] {
        let mut world = world(replicas, witnesses);
        assert_eq!(world.write(0, 3, 2, 9), Outcome::Ok);
        for node in 0..replicas {
            assert_eq!(world.nodes[node].disk[3..5], [9; 2], "{node}");
        }
    }
}

#[test]
fn a_member_takes_over_from_a_killed_primary_and_the_killed_one_comes_back() {
    for (replicas, witnesses) in [(2, 1), (3, 0), (5, 0)] {
        let mut world = world(replicas, witnesses);
        world.write(0, 5, 1, 8);
        world.kill(0);
        world.settle();
        let [next] = primaries(&world)[..] else {
            panic!("one takes over: {:#?}", world.status(1));
        };
        assert_ne!(next, 0);
        assert_eq!(world.write(next, 6, 1, 7), Outcome::Ok);
        world.start(0);
        world.settle();
        assert_eq!(primaries(&world), [next]);
        assert_eq!(
            world.status(next).in_sync,
            NodeSet::first(replicas),
            "{:#?}",
            world.status(next)
        );
        assert_eq!(world.nodes[0].disk[5..7], [8, 7]);
    }
}

#[test]
fn a_primary_that_is_cut_off_steps_down_once_somebody_else_was_chosen() {
    let mut world = world(2, 1);
    world.isolate(0);
    world.settle();
    assert_eq!(world.status(1).role, RoleStatus::Primary);
    assert_eq!(world.status(1).in_sync, NodeSet(0b10));
    // It cannot know yet, and answers nobody.
    world.connect();
    assert_eq!(primaries(&world), [1]);
    assert_eq!(
        world.status(1).in_sync,
        NodeSet(0b11),
        "{:#?}",
        world.status(1)
    );
}

#[test]
fn a_lost_member_leaves_s_by_a_majority_and_returns() {
    let mut world = world(3, 0);
    world.kill(2);
    world.settle();
    assert_eq!(world.status(0).in_sync, NodeSet(0b011));
    assert_eq!(world.write(0, 7, 1, 3), Outcome::Ok);
    world.start(2);
    assert_eq!(
        world.status(0).in_sync,
        NodeSet(0b111),
        "{:#?}",
        world.status(0)
    );
    assert_eq!(world.nodes[2].disk[7], 3);
}

#[test]
fn what_a_third_node_lacks_is_known_to_whoever_takes_over() {
    let mut world = world(3, 0);
    world.kill(2);
    world.settle();
    assert_eq!(world.write(0, 7, 1, 3), Outcome::Ok);
    world.kill(0);
    world.start(2);
    world.settle();
    assert_eq!(primaries(&world), [1], "{:#?}", world.status(1));
    assert_eq!(world.nodes[2].disk[7], 3);
    assert_eq!(world.status(1).in_sync, NodeSet(0b110));
}

#[test]
fn without_a_majority_nobody_is_promoted_and_the_refusal_names_who_is_missing() {
    let mut world = world(3, 0);
    world.kill(0);
    world.kill(1);
    world.settle();
    assert_eq!(primaries(&world), []);
    let missing = NodeSet(0b011);
    assert_eq!(
        world.command(2, promote(false)),
        Err(CommandError::NoQuorum { missing })
    );
}

#[test]
fn a_demoted_volume_stays_without_a_primary_until_somebody_is_promoted() {
    let mut world = world(3, 0);
    assert_eq!(world.command(0, Command::Demote), Ok(Answer::Ok));
    world.settle();
    world.settle();
    assert_eq!(primaries(&world), []);
    assert_eq!(world.command(2, promote(false)), Ok(Answer::Ok));
    world.settle();
    assert_eq!(
        world.status(2).in_sync,
        NodeSet(0b111),
        "{:#?}",
        world.status(2)
    );
}

/// The operator's word reached a voter, and who said it died before it told anybody else.
#[test]
fn who_reads_that_nobody_is_to_reign_does_not_promote_itself() {
    let mut world = world(2, 1);
    let record = world.status(0).record.expect("it was founded");
    let is_released = true;
    world.nodes[2].volume.durable.sb.voted = Some(Record {
        is_released,
        ..record.next()
    });
    world.kill(0);
    world.settle();
    world.settle();
    assert_eq!(primaries(&world), []);
    assert_eq!(world.command(1, promote(false)), Ok(Answer::Ok));
    assert_eq!(primaries(&world), [1]);
}

#[test]
fn who_stops_in_order_is_followed_at_once() {
    let mut world = world(3, 0);
    assert_eq!(world.command(0, Command::Stop), Ok(Answer::Ok));
    world.settle();
    assert_eq!(primaries(&world).len(), 1);
}

#[test]
fn a_lease_is_granted_for_as_long_as_who_reigns_counts_on_it() {
    let mut world = world(2, 1);
    let term = world.status(0).record.expect("it was founded").term;
    let voter = &mut world.nodes[2].volume;
    let (volume_id, now) = (voter.durable.sb.volume_id, voter.now);
    let nodes = voter.votes.nodes;
    let mut ask = |seconds: u64| {
        let vote = Vote::Lease {
            term,
            number: 1 << 40,
            length: Duration::from_secs(seconds),
        };
        let ballot = Ballot {
            volume_id,
            incarnation: 1,
            life: Life::default(),
            knows: Life::default(),
            nodes,
            vote,
        };
        let from = NodeIdx(0);
        let mut actions = Vec::new();
        voter.handle(
            now,
            Event::Vote {
                from,
                ballot: ballot.clone(),
            },
            &mut actions,
        );
        voter.votes.grant.until.since(now)
    };
    assert_eq!(
        ask(1),
        Duration::from_secs(2),
        "never less than its own configuration says"
    );
    assert_eq!(ask(9), Duration::from_secs(9));
    assert_eq!(
        ask(3600),
        Duration::from_secs(9),
        "no such lease is granted"
    );
}

#[test]
fn a_ballot_from_a_file_that_lists_other_nodes_is_not_heard() {
    let mut world = world(2, 1);
    let voter = &mut world.nodes[2].volume;
    let (now, promised) = (voter.now, voter.durable.sb.promised);
    let ballot = Ballot {
        volume_id: voter.durable.sb.volume_id,
        incarnation: 1,
        life: Life::default(),
        knows: Life::default(),
        nodes: voter.votes.nodes ^ 1,
        vote: Vote::Release {
            term: promised,
            to: None,
        },
    };
    let (from, before) = (promised.author(), voter.votes.grant);
    let mut actions = Vec::new();
    voter.handle(
        now,
        Event::Vote {
            from,
            ballot: ballot.clone(),
        },
        &mut actions,
    );
    assert_eq!(voter.votes.grant, before);
    let said = Action::Notice(Notice::OtherNodes { peer: from });
    assert!(actions.contains(&said), "{actions:?}");
    let mut again = Vec::new();
    voter.handle(now, Event::Vote { from, ballot }, &mut again);
    assert!(!again.contains(&said), "it is said once");
}

#[test]
fn a_primary_that_waits_for_a_majority_goes_on_alone_by_force() {
    let mut world = world(3, 0);
    world.kill(1);
    world.kill(2);
    world.settle();
    assert_eq!(primaries(&world), [0], "it waits");
    assert_eq!(world.command(0, promote(true)), Ok(Answer::Ok));
    world.settle();
    assert_eq!(world.status(0).in_sync, NodeSet(0b001));
    assert_eq!(world.write(0, 9, 1, 4), Outcome::Ok);
}

const TAKE_OVER: Command = Command::TakeOver { wait: WAIT };

#[test]
fn a_member_that_asks_for_the_role_gets_it_and_everybody_stays_in_s() {
    for (replicas, witnesses) in [(2, 1), (3, 0), (5, 0)] {
        let mut world = world(replicas, witnesses);
        world.write(0, 5, 1, 8);
        assert_eq!(world.command(1, TAKE_OVER), Ok(Answer::Ok));
        world.settle();
        assert_eq!(primaries(&world), [1]);
        let record = world.status(1).record.expect("it reigns");
        assert_eq!(record.in_sync, NodeSet::first(replicas));
        assert_eq!(record.step, 0, "nobody left S and came back");
        assert_eq!(world.write(0, 6, 1, 7), Outcome::NotPrimary);
        assert_eq!(world.write(1, 6, 1, 7), Outcome::Ok);
        assert_eq!(world.nodes[0].disk[5..7], [8, 7]);
        assert_eq!(world.command(1, TAKE_OVER), Ok(Answer::Already));
    }
}

#[test]
fn a_copy_that_is_not_in_sync_gets_no_role_and_who_has_it_serves_on() {
    let mut world = world(3, 0);
    world.kill(2);
    world.settle();
    world.write(0, 7, 1, 3);
    world.command(0, Command::ResyncPause).unwrap();
    world.start(2);
    world.settle();
    let refused = world.command(2, TAKE_OVER);
    let source = Some(NodeIdx(0));
    assert!(
        refused == Err(CommandError::Inconsistent { source })
            || refused == Err(CommandError::Outdated { source }),
        "{refused:?}"
    );
    assert_eq!(primaries(&world), [0]);
    assert_eq!(world.write(0, 8, 1, 4), Outcome::Ok);
}

#[test]
fn a_role_whose_heir_does_not_follow_is_taken_back_even_without_auto_promote() {
    let mut world = World::of(Shape {
        replicas: 3,
        witnesses: 0,
        quorum: Quorum::Majority,
        sum_pages: 0,
        auto_promote: false,
        on_quorum_loss: QuorumLoss::Freeze,
    });
    world.connect();
    assert_eq!(world.command(0, promote(false)), Ok(Answer::Ok));
    world.settle();
    let term = world.status(0).record.expect("it was founded").term;
    let reigns = &mut world.nodes[0].volume;
    let ballot = Ballot {
        volume_id: reigns.durable.sb.volume_id,
        incarnation: 1,
        life: Life::default(),
        knows: Life::default(),
        nodes: reigns.votes.nodes,
        vote: Vote::HandOver { term },
    };
    let from = NodeIdx(1);
    world.event(0, Event::Vote { from, ballot });
    world.settle();
    assert_eq!(primaries(&world), [0]);
    let record = world.status(0).record.expect("it reigns");
    assert!(record.term > term, "it was laid down, and taken again");
    assert_eq!(world.write(0, 8, 1, 4), Outcome::Ok);
}

#[test]
fn on_quorum_loss_fail_answers_what_waits_and_what_comes_and_goes_on_afterwards() {
    let mut world = World::of(Shape {
        replicas: 3,
        witnesses: 0,
        quorum: Quorum::Majority,
        sum_pages: 0,
        auto_promote: true,
        on_quorum_loss: QuorumLoss::Fail,
    });
    world.connect();
    assert_eq!(world.command(0, promote(false)), Ok(Answer::Ok));
    world.settle();
    world.kill(1);
    world.kill(2);
    assert_eq!(
        world.write(0, 5, 1, 8),
        Outcome::Io,
        "it waited for a majority"
    );
    assert_eq!(world.write(0, 5, 1, 9), Outcome::Io, "none is there");
    assert_eq!(world.client(0, Op::Flush), Outcome::Io);
    world.start(1);
    world.settle();
    assert_eq!(primaries(&world), [0]);
    assert_eq!(world.write(0, 6, 1, 7), Outcome::Ok);
    // The first write was dispatched and happened; the second was refused and never will.
    assert_eq!(world.nodes[0].disk[5..7], [8, 7]);
    assert_eq!(world.nodes[1].disk[5..7], [8, 7]);
}

#[test]
fn what_needs_all_of_s_is_answered_without_a_majority_and_works_once_it_is_back() {
    let mut world = world(3, 0);
    let (name, created_ms) = ("nightly".parse().unwrap(), 7);
    let create = Command::MarkCreate { name, created_ms };
    world.kill(1);
    world.kill(2);
    let missing = NodeSet(0b110);
    let refusal = Err(CommandError::NoQuorum { missing });
    assert_eq!(world.command(0, create.clone()), refusal, "it waited");
    assert_eq!(world.nodes[0].volume.marks(), []);
    assert_eq!(world.command(0, create.clone()), refusal);
    let (size, backing_bytes) = (6000, 6000 * GRANULE);
    let grow = Command::Grow {
        size,
        backing_bytes,
    };
    assert_eq!(world.command(0, grow), refusal);
    world.start(1);
    world.settle();
    assert_eq!(world.command(0, create.clone()), Ok(Answer::Ok));
    assert_eq!(world.nodes[1].volume.marks()[0].name, name);
}

#[test]
fn an_old_image_of_a_replica_or_a_witness_has_no_vote_and_no_copy() {
    for (replicas, witnesses, put_back) in [(3, 0, 1), (2, 1, 1), (2, 1, 2)] {
        let mut world = world(replicas, witnesses);
        world.kill(put_back);
        let old = world.snapshot(put_back);
        world.start(put_back);
        world.settle();
        assert_eq!(world.write(0, 8, 1, 4), Outcome::Ok);
        let before = world.nodes[put_back].volume.voter_life();
        world.kill(put_back);
        assert_eq!(world.write(0, 9, 1, 5), Outcome::Ok);
        (world.nodes[put_back].disk, world.nodes[put_back].meta) = old;
        for _ in 0..3 {
            world.isolate(put_back);
            world.start(put_back);
            world.settle();
            world.kill(put_back);
        }
        world.connect();
        world.start(put_back);
        world.settle();
        let volume = &world.nodes[put_back].volume;
        assert_ne!(volume.voter_life(), before, "it is another voter");
        let status = world.status(0);
        assert_eq!(status.in_sync, NodeSet::first(replicas), "{status:#?}");
        let voters = status.record.map(|r| r.voters);
        assert_eq!(voters, Some(NodeSet::first(replicas + witnesses)));
        if put_back < replicas {
            assert_eq!(world.nodes[put_back].disk[8..10], [4, 5]);
        }
    }
}

#[test]
fn a_lease_that_the_voters_in_force_did_not_grant_ends() {
    let mut world = world(3, 0);
    let volume = &mut world.nodes[0].volume;
    assert!(volume.holds_lease());
    // As if it had been alone on the list until now.
    volume.votes.lease.forget();
    volume
        .votes
        .lease
        .hold(volume.now.after(Duration::from_secs(2)));
    assert!(volume.holds_lease());
    volume.voters_changed();
    assert!(!volume.holds_lease(), "nobody of the list granted anything");
}

#[test]
fn a_node_without_vote_that_hears_who_reigns_does_not_stand_against_it() {
    let mut world = world(3, 0);
    let term = world.status(0).record.expect("it was founded").term;
    let volume = &mut world.nodes[1].volume;
    // Its history was given up; what it granted is long ago.
    volume.durable.sb.voted = None;
    volume.votes.election_at = volume.now;
    let (now, length) = (volume.now, Duration::from_secs(2));
    let ballot = Ballot {
        volume_id: volume.durable.sb.volume_id,
        incarnation: 1,
        nodes: volume.votes.nodes,
        life: Life::default(),
        knows: Life::default(),
        vote: Vote::Lease {
            term,
            number: 1 << 40,
            length,
        },
    };
    let from = NodeIdx(0);
    volume.handle(now, Event::Vote { from, ballot }, &mut Vec::new());
    assert!(volume.votes.election_at >= now.after(length));
}
