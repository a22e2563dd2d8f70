//! Nodes and replicas that do not belong together: refused with the cause, and nothing changes.

use std::fs;
use std::time::Duration;

use conformance::{Lab, eventually};
use scenario::disk::{attach, flush, read, write};
use scenario::{NODES, Pair, replica};
use serde_json::Value;

const MEBIBYTES: u64 = 16;
const SOON: Duration = Duration::from_secs(15);

/// Alpha as configured, beta with another cluster name or volume; both created.
fn strangers(cluster: &str, volume: &str) -> Pair {
    let usual = Pair::volume_text(MEBIBYTES);
    let lab = Lab::new(&NODES, &usual);
    let alpha = lab.serve("alpha");
    lab.write_config(cluster, volume);
    let beta = lab.serve("beta");
    lab.done("beta", &["volume", "create", "v"]);
    lab.write_config("lab", &usual);
    lab.done("alpha", &["volume", "create", "v"]);
    Pair {
        daemons: [Some(alpha), Some(beta)],
        lab,
    }
}

/// The volume cannot be founded, each side says why, and both stay blank.
fn stay_strangers(pair: &Pair, words: &str) {
    for index in [0, 1] {
        eventually(SOON, "the cause is in both logs", || {
            pair.daemon(index).log().contains(words).then_some(())
        });
    }
    let refused = pair.promote(0, "2s");
    assert_eq!(refused.exit, 4, "{refused:?}");
    assert!(refused.stderr.contains("beta"), "{}", refused.stderr);
    for index in [0, 1] {
        let volume = pair.volume(index);
        assert_eq!(volume["generation"], Value::Null, "{volume:#}");
        assert_ne!(volume["state"], "healthy");
    }
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    let pair = strangers("other", &Pair::volume_text(MEBIBYTES));
    stay_strangers(&pair, "cluster");
}

#[test]
fn a_replica_of_another_size_is_refused() {
    let pair = strangers("lab", &Pair::volume_text(2 * MEBIBYTES));
    stay_strangers(&pair, "the sizes differ");
}

#[test]
fn a_volume_configured_differently_is_refused() {
    let differently = Pair::volume_text(MEBIBYTES) + "write_policy = \"durable\"\n";
    let pair = strangers("lab", &differently);
    stay_strangers(&pair, "configured differently");
}

#[test]
fn two_volumes_of_the_same_name_are_not_mixed() {
    let lab = Lab::new(&NODES, &Pair::volume_text(MEBIBYTES));
    for (index, node) in NODES.into_iter().enumerate() {
        // Each founded alone, by force.
        let daemon = lab.serve(node);
        lab.done(node, &["volume", "create", "v"]);
        assert_eq!(lab.pollux(node, &["promote", "v", "--wait", "1s"]).exit, 4);
        assert_eq!(
            lab.pollux(node, &["promote", "v", "--force"]).exit,
            2,
            "needs --yes"
        );
        lab.done(node, &["promote", "v", "--force", "--yes", "--wait", "1s"]);
        let mut client = attach(&lab.node(node).uri("v"));
        assert_eq!(write(&mut client, 0, &[index as u8 + 1; 65_536]), Ok(()));
        drop(client);
        assert_eq!(daemon.stop(), 0);
    }
    let read_backing = |node: &str| fs::read(lab.node(node).file("v.img")).expect("it is there");
    let before = NODES.map(read_backing);
    let daemons = NODES.map(|node| lab.serve(node));
    for node in NODES {
        lab.until(node, "v", SOON, "critical, with the cause", |volume| {
            let reason = volume["reason"]["text"].as_str().unwrap_or_default();
            volume["state"] == "critical" && !reason.is_empty()
        });
        assert_eq!(lab.pollux(node, &["status", "--check"]).exit, 6);
    }
    for daemon in daemons {
        assert_eq!(daemon.stop(), 0);
    }
    assert!(before == NODES.map(read_backing), "a replica was changed");
}

#[test]
fn a_replica_that_returns_with_older_data_is_resynced_and_never_a_source() {
    let mut pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, 0, &[1; 1 << 20]), Ok(()));
    assert_eq!(flush(&mut client), Ok(()));
    pair.stop(1);
    let node = pair.lab.node("beta");
    let files = [node.metadata("v"), node.file("v.img")];
    let old = files
        .clone()
        .map(|path| fs::read(path).expect("it is there"));
    pair.start(1);
    pair.until_healthy(0);
    // In sync again, and told of this:
    for (at, byte) in [(0, 2), (3 << 20, 3), (9 << 20, 4)] {
        assert_eq!(write(&mut client, at, &[byte; 1 << 20]), Ok(()));
    }
    assert_eq!(flush(&mut client), Ok(()));
    drop(client);
    pair.stop(1);
    for (path, content) in files.iter().zip(&old) {
        fs::write(path, content).expect("the daemon is down");
    }
    // Alone, it may not serve what it holds.
    pair.stop(0);
    pair.start(1);
    let refused = pair.promote(1, "1s");
    assert_eq!(refused.exit, 4, "{refused:?}");
    // Nor is it forgotten however often it starts before it meets the other.
    for _ in 0..3 {
        pair.stop(1);
        pair.start(1);
    }
    // Together, the newer data wins, whoever asks first.
    pair.start(0);
    let asked = pair.promote(1, "5s");
    if asked.exit != 0 {
        pair.lab.done("alpha", &["promote", "v", "--wait", "5s"]);
    }
    let primary = usize::from(asked.exit == 0);
    pair.until_healthy(primary);
    let log = pair.daemon(1).log();
    assert!(log.contains("W146"), "{log}");
    let mut client = attach(&pair.uri(primary));
    for (at, byte) in [(0, 2), (3 << 20, 3), (9 << 20, 4)] {
        assert_eq!(
            read(&mut client, at, 1 << 20),
            Ok(vec![byte; 1 << 20]),
            "at byte {at}"
        );
    }
    drop(client);
    pair.stop_and_compare(primary, MEBIBYTES);
}

#[test]
fn a_replaced_replica_is_born_inconsistent_and_synced_whole() {
    let mut pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    for index in 0..MEBIBYTES {
        assert_eq!(
            write(&mut client, index << 20, &[index as u8 + 1; 1 << 20]),
            Ok(())
        );
    }
    drop(client);
    pair.stop(1);
    let node = pair.lab.node("beta");
    for path in [node.metadata("v"), node.file("v.img")] {
        fs::remove_file(path).expect("it was created");
    }
    pair.start(1);
    assert_eq!(pair.volume(1)["state"], "not_created");
    pair.lab.done("beta", &["volume", "create", "v"]);
    pair.until_healthy(0);
    assert_eq!(replica(&pair.volume(0), "beta")["disk_state"], "up_to_date");
    pair.stop_and_compare(0, MEBIBYTES);
}
