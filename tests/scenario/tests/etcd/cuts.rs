//! The six are cut in two in every way, and in ways in which not all see the same.

use std::time::Instant;

use scenario::{TRIO, is_there};

use super::{ALPHA, BETA, GAMMA, PARTS, Part, Six};

/// Nothing passes between the parts whose bits differ.
fn cut(six: &Six, sides: usize) {
    let side = |part: usize| sides >> part & 1;
    for (at, part) in PARTS.into_iter().enumerate() {
        for (other_at, other) in PARTS.into_iter().enumerate().skip(at + 1) {
            if side(at) == side(other_at) {
                continue;
            }
            match (part, other) {
                (Part::Member(a), Part::Member(b)) => six.etcd.part(a, b),
                (Part::Node(a), Part::Node(b)) => six.mesh.cut(a, b),
                (Part::Member(member), Part::Node(node))
                | (Part::Node(node), Part::Member(member)) => six.etcd.shut(node, member),
            }
        }
    }
}

fn heal(six: &Six) {
    six.etcd.heal();
    six.mesh.heal();
}

#[test]
fn the_six_are_cut_in_two_in_every_way_and_nothing_acknowledged_is_lost() {
    if !is_there() {
        return;
    }
    let mut six = Six::start(8);
    // The last one is always on the side of bit 0.
    for sides in 1..1 << (PARTS.len() - 1) {
        let began = Instant::now();
        let side = |part: Part| {
            let at = PARTS.into_iter().position(|p| p == part);
            sides >> at.expect("it is one of them") & 1
        };
        let members: usize = (0..3).map(|member| side(Part::Member(member))).sum();
        let chosen_by = usize::from(members > 1);
        let is_near = |node: usize| side(Part::Node(node)) == chosen_by;
        cut(&six, sides);
        let are_together = (0..3).all(|node| !is_near(node));
        match is_near(six.primary) || are_together {
            // Where no node reaches etcd, none is lost to another.
            true => six.stays(),
            false => six.moves(is_near),
        }
        heal(&six);
        six.until_whole();
        let node = TRIO[six.primary];
        println!("{sides:06b}: {node} serves, {:.1?}", began.elapsed());
    }
    six.judge();
}

#[test]
fn whatever_is_cut_one_node_serves_and_nothing_acknowledged_is_lost() {
    if !is_there() {
        return;
    }
    let mut six = Six::start(9);
    // Each way from the primary to one member, then from the others to all.
    for member in 0..3 {
        six.etcd.shut(ALPHA, member);
        six.stays();
        heal(&six);
    }
    for node in [BETA, GAMMA] {
        six.etcd.cut(node);
    }
    six.stays();
    heal(&six);
    six.until_whole();
    // The primary reaches no member: a node that does follows, and it answers nothing.
    six.etcd.cut(ALPHA);
    six.moves(|_| true);
    heal(&six);
    six.until_whole();
    assert_eq!(six.trio.volume(ALPHA)["role"], "secondary");
    // Two nodes do not reach each other: etcd hears both, and who serves goes on.
    let others = |primary: usize| [(primary + 1) % 3, (primary + 2) % 3];
    six.mesh.cut(six.primary, others(six.primary)[0]);
    six.stays();
    heal(&six);
    six.until_whole();
    // The primary reaches etcd and nobody else: it goes on alone.
    for other in others(six.primary) {
        six.mesh.cut(six.primary, other);
    }
    six.stays();
    heal(&six);
    six.until_whole();
    // The leader of etcd stands still; then the primary, past its lease.
    let leader = six.etcd.leader();
    six.etcd.pause(leader);
    six.stays();
    six.etcd.resume(leader);
    six.until_whole();
    let paused = six.primary;
    six.trio.daemon(paused).pause();
    six.moves(|_| true);
    let resumed = Instant::now();
    six.trio.daemon(paused).resume();
    six.until_whole();
    let node = TRIO[paused];
    assert!(!six.wrote_since(paused, resumed), "{node} answered a write");
    assert_eq!(six.trio.volume(paused)["role"], "secondary");
    six.judge();
}
