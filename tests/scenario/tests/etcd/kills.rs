//! Each of the six is killed, who leads etcd, and every two of them.

use std::thread;
use std::time::Instant;

use scenario::{TRIO, is_there};

use super::{LEASE, PARTS, Part, SERVED_MAX, Six};

/// Kills these, sees who serves then, and starts them again.
fn kill(six: &mut Six, victims: &[Part]) {
    let began = Instant::now();
    victims.iter().for_each(|part| six.kill(*part));
    let is_alive = |node: usize| !victims.contains(&Part::Node(node));
    match is_alive(six.primary) {
        // Also without etcd: no replica is lost then.
        true => six.stays(),
        false => six.moves(is_alive),
    }
    victims.iter().for_each(|part| six.restart(*part));
    six.until_whole();
    let node = TRIO[six.primary];
    println!("{victims:?}: {node} serves, {:.1?}", began.elapsed());
}

#[test]
fn each_of_the_six_is_killed_and_nothing_acknowledged_is_lost() {
    if !is_there() {
        return;
    }
    let mut six = Six::start(5);
    let status = six.trio.volume(six.primary);
    assert_eq!(status["quorum"]["mode"], "etcd", "{status:#}");
    for victim in PARTS {
        kill(&mut six, &[victim]);
    }
    // Who serves, and who leads etcd, each alone and both.
    let leader = six.etcd.leader();
    kill(&mut six, &[Part::Member(leader)]);
    let primary = six.primary;
    kill(&mut six, &[Part::Node(primary)]);
    let both = [Part::Member(six.etcd.leader()), Part::Node(six.primary)];
    kill(&mut six, &both);
    six.judge();
}

#[test]
fn every_two_of_the_six_are_killed_and_nothing_acknowledged_is_lost() {
    if !is_there() {
        return;
    }
    let mut six = Six::start(6);
    for (index, first) in PARTS.into_iter().enumerate() {
        for second in &PARTS[index + 1..] {
            kill(&mut six, &[first, *second]);
        }
    }
    six.judge();
}

#[test]
fn without_etcd_no_replica_leaves_and_all_goes_on_when_it_is_back() {
    if !is_there() {
        return;
    }
    let mut six = Six::start(7);
    let leader = six.etcd.leader();
    let two = [leader, (leader + 1) % 3];
    two.iter().for_each(|member| six.etcd.kill(*member));
    six.stays();
    let is_critical = |volume: &serde_json::Value| {
        volume["state"] == "critical" && volume["reason"]["code"] == "W120"
    };
    let node = TRIO[six.primary];
    let lab = &six.trio.lab;
    lab.until(node, "v", SERVED_MAX, "says that etcd is away", is_critical);
    // A replica is lost: it may not leave S, and writes wait for it.
    let victim = (six.primary + 1) % 3;
    six.trio.kill(victim);
    thread::sleep(LEASE * 2);
    let began = Instant::now();
    thread::sleep(LEASE * 2);
    for (index, node) in TRIO.iter().enumerate() {
        assert!(
            !six.wrote_since(index, began),
            "{node} changed S without etcd"
        );
    }
    two.iter().for_each(|member| six.etcd.serve(*member));
    six.primary = six.until_written(|_| true);
    six.trio.start(victim);
    six.until_whole();
    six.judge();
}
