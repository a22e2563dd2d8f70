//! Two nodes that both took writes: found, shown, and nothing overwritten (laws T9, T10).

use std::fs;
use std::time::Duration;

use scenario::disk::{attach, flush, read, write};
use scenario::{NODES, Pair};

const MEBIBYTES: u64 = 16;
const SOON: Duration = Duration::from_secs(15);

/// Both nodes say critical with a reason that says split brain, and keep what they hold.
fn both_stand_still(pair: &Pair, expected: [u8; 2]) {
    for index in [0, 1] {
        pair.lab
            .until(NODES[index], "v", SOON, "critical: split brain", |volume| {
                let reason = volume["reason"]["text"].as_str().unwrap_or_default();
                volume["state"] == "critical" && reason.contains("split brain")
            });
        assert_eq!(pair.other(index)["link_state"], "standalone");
        assert_eq!(
            pair.lab.pollux(NODES[index], &["status", "--check"]).exit,
            6
        );
        let backing = fs::read(pair.lab.node(NODES[index]).file("v.img")).expect("it is there");
        assert_eq!(
            backing[1 << 20],
            expected[index],
            "{} was overwritten",
            NODES[index]
        );
    }
}

/// Gives up what beta holds: a new replica in its place.
fn keep_alpha(pair: &mut Pair) {
    let done = |words: &[&str]| pair.lab.done("beta", words);
    done(&["demote", "v", "--disconnect"]);
    done(&["volume", "delete", "v", "--wipe", "--yes"]);
    done(&["volume", "create", "v"]);
    let connect = pair.lab.pollux("alpha", &["peer", "connect", "beta"]);
    assert_eq!(connect.exit, 0, "{connect:?}");
    pair.until_healthy(0);
    let mut client = attach(&pair.uri(0));
    assert_eq!(read(&mut client, 1 << 20, 4096), Ok(vec![0xa; 4096]));
    drop(client);
    pair.stop_and_compare(0, MEBIBYTES);
}

#[test]
fn a_forced_promotion_of_a_node_that_was_cut_off_is_found_when_both_meet() {
    let mut pair = Pair::healthy(MEBIBYTES);
    let mut on_alpha = attach(&pair.uri(0));
    assert_eq!(write(&mut on_alpha, 1 << 20, &[1; 4096]), Ok(()));
    pair.lab.done("alpha", &["peer", "disconnect", "beta"]);
    assert_eq!(write(&mut on_alpha, 1 << 20, &[0xa; 4096]), Ok(()));
    let refused = pair.promote(1, "3s");
    assert_eq!(refused.exit, 4, "alpha may have gone on: {refused:?}");
    pair.lab.done(
        "beta",
        &["promote", "v", "--force", "--yes", "--wait", "3s"],
    );
    let mut on_beta = attach(&pair.uri(1));
    assert_eq!(write(&mut on_beta, 1 << 20, &[0xb; 4096]), Ok(()));
    assert_eq!(flush(&mut on_beta), Ok(()));
    pair.lab.done("alpha", &["peer", "connect", "beta"]);
    both_stand_still(&pair, [0xa, 0xb]);
    // Each goes on serving what it has.
    assert_eq!(read(&mut on_alpha, 1 << 20, 4096), Ok(vec![0xa; 4096]));
    assert_eq!(read(&mut on_beta, 1 << 20, 4096), Ok(vec![0xb; 4096]));
    drop((on_alpha, on_beta));
    keep_alpha(&mut pair);
}

#[test]
fn a_primary_that_slept_while_the_other_was_promoted_is_found_when_it_wakes() {
    let mut pair = Pair::healthy(MEBIBYTES);
    let mut on_alpha = attach(&pair.uri(0));
    assert_eq!(write(&mut on_alpha, 1 << 20, &[1; 4096]), Ok(()));
    pair.daemon(0).pause();
    pair.lab
        .until("beta", "v", SOON, "alpha is gone", |volume| {
            scenario::replica(volume, "alpha")["disk_state"] == "unknown"
        });
    // Without quorum nobody can tell a dead primary from one that sleeps: this is allowed.
    let promoted = pair.promote(1, "10s");
    assert_eq!(promoted.exit, 0, "{promoted:?}");
    let mut on_beta = attach(&pair.uri(1));
    assert_eq!(write(&mut on_beta, 1 << 20, &[0xb; 4096]), Ok(()));
    assert_eq!(flush(&mut on_beta), Ok(()));
    pair.daemon(0).resume();
    // Its client wrote on; without the other copy, that is a history of its own.
    assert_eq!(write(&mut on_alpha, 1 << 20, &[0xa; 4096]), Ok(()));
    both_stand_still(&pair, [0xa, 0xb]);
    drop((on_alpha, on_beta));
    keep_alpha(&mut pair);
}

#[test]
fn a_split_brain_outlives_restarts() {
    let mut pair = Pair::healthy(MEBIBYTES);
    pair.lab.done("alpha", &["peer", "disconnect", "beta"]);
    pair.lab.done(
        "beta",
        &["promote", "v", "--force", "--yes", "--wait", "3s"],
    );
    for (index, byte) in [(0, 0xa), (1, 0xb)] {
        let mut client = attach(&pair.uri(index));
        assert_eq!(write(&mut client, 1 << 20, &[byte; 4096]), Ok(()));
        assert_eq!(flush(&mut client), Ok(()));
    }
    for index in [0, 1] {
        pair.stop(index);
    }
    for index in [0, 1] {
        pair.start(index);
    }
    both_stand_still(&pair, [0xa, 0xb]);
    // Each may serve what it alone has; that decides nothing, and the alarm stands.
    for index in [0, 1] {
        let promoted = pair.promote(index, "2s");
        assert_eq!(promoted.exit, 0, "{promoted:?}");
        let mut client = attach(&pair.uri(index));
        assert_eq!(
            read(&mut client, 1 << 20, 4096),
            Ok(vec![[0xa, 0xb][index]; 4096])
        );
    }
    both_stand_still(&pair, [0xa, 0xb]);
}
