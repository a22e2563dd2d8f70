//! A register in the place of voters: it chooses, nodes enforce, and nobody trusts an answer that
//! did not come.

use super::pair::{Shape, World};
use super::*;
use crate::quorum::{Quorum, QuorumLoss};
use crate::register::REGISTER_ALONE;

fn blank(replicas: usize) -> World {
    let mut world = World::of(Shape {
        replicas,
        witnesses: 0,
        quorum: Quorum::Register,
        sum_pages: 0,
        auto_promote: true,
        on_quorum_loss: QuorumLoss::Freeze,
    });
    world.connect();
    world
}

fn world(replicas: usize) -> World {
    let mut world = blank(replicas);
    assert_eq!(world.command(0, promote(false)), Ok(Answer::Ok));
    world.settle();
    assert_eq!(world.status(0).in_sync, NodeSet::first(replicas));
    world
}

fn primaries(world: &World) -> Vec<usize> {
    let is_primary = |n: &usize| world.runs(*n) && world.status(*n).role == RoleStatus::Primary;
    (0..world.nodes.len()).filter(is_primary).collect()
}

fn held(world: &World) -> crate::record::Record {
    let (_, holding) = world.register.expect("the register holds something");
    holding.record
}

#[test]
fn a_volume_is_founded_in_the_register_and_two_replicas_are_enough() {
    for replicas in [2, 3, 5] {
        let mut world = world(replicas);
        let record = held(&world);
        assert_eq!(record.voters, REGISTER_ALONE);
        assert_eq!(record.in_sync, NodeSet::first(replicas));
        assert_eq!(Some(record), world.status(0).record);
        assert_eq!(world.write(0, 3, 1, 9), Outcome::Ok);
    }
}

#[test]
fn a_member_takes_over_from_a_killed_primary_and_the_killed_one_comes_back() {
    let mut world = world(2);
    world.write(0, 5, 1, 8);
    world.kill(0);
    world.settle();
    world.settle();
    assert_eq!(primaries(&world), [1], "{:#?}", world.status(1));
    assert_eq!(held(&world).in_sync, NodeSet(0b10));
    assert_eq!(world.write(1, 6, 1, 7), Outcome::Ok);
    world.start(0);
    world.settle();
    assert_eq!(held(&world).in_sync, NodeSet(0b11));
    assert_eq!(world.nodes[0].disk[5..7], [8, 7]);
}

#[test]
fn a_lost_answer_chooses_nothing_until_it_is_read_back() {
    let mut world = world(2);
    world.is_register_mute = true;
    world.kill(1);
    world.settle();
    // The swap may have happened; nobody acts on it.
    assert_eq!(world.status(0).in_sync, NodeSet(0b11));
    world.is_register_mute = false;
    world.settle();
    world.settle();
    assert_eq!(held(&world).in_sync, NodeSet(0b01));
    assert_eq!(world.status(0).in_sync, NodeSet(0b01));
    assert_eq!(world.write(0, 7, 1, 3), Outcome::Ok);
}

#[test]
fn a_primary_that_alone_does_not_reach_the_register_is_followed() {
    let mut world = world(3);
    world.far.insert(0);
    world.settle();
    world.settle();
    let serving = primaries(&world);
    assert!(matches!(serving[..], [1] | [2]), "{serving:?}");
    world.far.clear();
    world.settle();
    assert_eq!(primaries(&world), serving);
    assert_eq!(held(&world).in_sync, NodeSet(0b111));
}

#[test]
fn a_register_that_was_away_for_all_finds_the_primary_serving_where_it_was() {
    let mut world = world(3);
    let term = held(&world).term;
    for away in [15, 25, 40, 100] {
        world.far.extend([0, 1, 2]);
        world.settle_for(away);
        world.far.clear();
        world.settle();
        assert_eq!(primaries(&world), [0], "away for {away} ticks");
        assert_eq!(held(&world).term, term);
    }
    // Nor is it the first that comes back: who serves hears it again half a lease later.
    world.far.extend([0, 1, 2]);
    world.settle_for(40);
    world.far.retain(|node| *node == 0);
    world.settle_for(10);
    world.far.clear();
    world.settle();
    assert_eq!(primaries(&world), [0]);
    assert_eq!(held(&world).term, term);
}

#[test]
fn who_stands_by_itself_and_is_told_to_promote_asks_who_serves_on_for_the_role() {
    let mut world = world(3);
    world.far.extend([0, 1, 2]);
    let stands = |world: &World| world.status(1).role == RoleStatus::Promoting;
    for _ in 0..100 {
        if stands(&world) {
            break;
        }
        world.settle_for(1);
    }
    assert!(stands(&world), "{:#?}", world.status(1));
    assert_eq!(primaries(&world), [0]);
    world.far.clear();
    assert_eq!(
        world.command(1, Command::TakeOver { wait: WAIT }),
        Ok(Answer::Ok)
    );
    world.settle();
    assert_eq!(primaries(&world), [1]);
}

#[test]
fn without_the_register_nobody_is_promoted_and_the_volume_goes_on_when_it_is_back() {
    let mut world = world(2);
    world.far.extend([0, 1]);
    world.kill(0);
    world.settle();
    world.settle();
    assert_eq!(primaries(&world), []);
    let missing = REGISTER_ALONE;
    assert_eq!(
        world.command(1, promote(false)),
        Err(CommandError::NoQuorum { missing })
    );
    world.far.clear();
    world.settle();
    world.settle();
    assert_eq!(primaries(&world), [1]);
}

#[test]
fn a_register_that_holds_another_volume_is_not_taken() {
    let (revision, holding) = world(2).register.expect("it was founded");
    let volume_id = holding.volume_id ^ 1;
    let foreign = crate::register::Holding {
        volume_id,
        ..holding
    };
    let mut world = blank(2);
    world.register = Some((revision, foreign));
    world.settle();
    assert_eq!(
        world.command(0, promote(false)),
        Err(CommandError::RegisterTaken)
    );
    assert_eq!(world.register, Some((revision, foreign)));
}

#[test]
fn a_register_that_was_put_back_elects_nobody() {
    let mut world = world(3);
    let old = world.register;
    world.kill(2);
    world.settle();
    assert_eq!(held(&world).in_sync, NodeSet(0b011));
    world.write(0, 4, 1, 6);
    world.kill(0);
    world.kill(1);
    // It says again that the third is a member.
    world.register = old.map(|(revision, holding)| (revision + 100, holding));
    world.start(1);
    world.start(2);
    world.settle();
    world.settle();
    assert_eq!(primaries(&world), [], "{:#?}", world.status(2));
    // Told so, they say what they found.
    let newer = NodeIdx(1);
    let went_back = Err(CommandError::RegisterWentBack { newer });
    assert_eq!(world.command(2, promote(false)), went_back);
    assert_eq!(world.command(1, promote(false)), went_back);
    // An operator chooses whose data counts; the register takes that.
    assert_eq!(world.command(1, promote(true)), Ok(Answer::Ok));
    world.start(0);
    world.settle();
    world.settle();
    world.settle();
    assert_eq!(primaries(&world), [1]);
    assert_eq!(held(&world).voters, REGISTER_ALONE);
    assert_eq!(world.write(1, 5, 1, 7), Outcome::Ok);
    assert_eq!(world.nodes[1].disk[4], 6);
}

#[test]
fn a_register_put_back_to_an_earlier_term_promises_nothing_that_nodes_refuse() {
    let mut world = world(3);
    let old = world.register;
    world.write(0, 4, 1, 5);
    world.kill(0);
    world.settle();
    world.settle();
    let first = primaries(&world)[0];
    world.write(first, 4, 1, 6);
    let (reign, term) = (held(&world), held(&world).term);
    world.register = old.map(|(revision, holding)| (revision + 100, holding));
    assert!(held(&world).term < term);
    // Who serves is not followed by a record of that term, nor by the one of before.
    world.settle();
    world.settle();
    for node in primaries(&world) {
        let record = world.status(node).record.expect("it serves");
        assert!(record.term >= term, "{record:?} after {reign:?}");
    }
    world.kill(first);
    world.start(0);
    world.settle();
    world.settle();
    let other = 3 - first;
    assert_eq!(primaries(&world), [], "{:#?}", world.status(other));
    let newer = NodeIdx(other as u8);
    let went_back = Err(CommandError::RegisterWentBack { newer });
    let told = Command::TakeOver { wait: WAIT };
    assert_eq!(world.command(0, told), went_back);
    assert_eq!(world.nodes[other].disk[4], 6);
}

#[test]
fn who_went_on_alone_by_force_gives_its_vote_to_the_register() {
    let mut world = world(2);
    world.far.extend([0, 1]);
    world.kill(1);
    world.settle();
    world.settle();
    assert_eq!(world.command(0, promote(true)), Ok(Answer::Ok));
    assert_eq!(world.write(0, 9, 1, 4), Outcome::Ok);
    world.far.clear();
    world.settle();
    world.settle();
    world.settle();
    let record = world.status(0).record.expect("it serves");
    assert_eq!(record.voters, REGISTER_ALONE);
    assert_eq!(record, held(&world));
}

#[test]
fn a_demoted_volume_stays_without_a_primary_until_somebody_is_promoted() {
    let mut world = world(2);
    assert_eq!(world.command(0, Command::Demote), Ok(Answer::Ok));
    world.settle();
    world.settle();
    assert_eq!(primaries(&world), []);
    assert!(held(&world).is_released);
    assert_eq!(world.command(1, promote(false)), Ok(Answer::Ok));
    assert_eq!(primaries(&world), [1]);
}
