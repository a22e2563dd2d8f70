//! Who serves: promotion, demotion, and what clients hear from the one that does not.

use std::thread;
use std::time::{Duration, Instant};

use conformance::eventually;
use scenario::disk::{attach, flush, read, try_attach, write};
use scenario::{NODES, Pair, replica};

const MEBIBYTES: u64 = 16;
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_secondary_names_the_primary_and_where_it_is() {
    let pair = Pair::healthy(MEBIBYTES);
    let refused = try_attach(&pair.uri(1)).err().expect("beta is secondary");
    let text = refused.in_full();
    let base = format!("nbd://{}", pair.lab.node("alpha").nbd.address());
    assert!(text.contains("v is secondary on beta"), "{text}");
    assert!(
        text.contains("primary: alpha") && text.contains(&base),
        "{text}"
    );
}

#[test]
fn a_planned_switch_moves_the_primary_and_keeps_the_data() {
    let mut pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, 12_345, &[9; 54_321]), Ok(()));
    drop(client);
    let refused = pair.promote(1, "2s");
    assert_eq!(refused.exit, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("demote alpha first"),
        "{}",
        refused.stderr
    );
    let branch = pair.volume(0)["generation"]["branch"].clone();
    pair.lab.done("alpha", &["promote", "v"]);
    pair.until_unused(0);
    pair.lab.done("alpha", &["demote", "v"]);
    pair.lab.done("beta", &["promote", "v"]);
    pair.until_healthy(1);
    assert_eq!(pair.volume(1)["role"], "primary");
    assert_eq!(pair.volume(1)["generation"]["branch"], branch);
    let mut client = attach(&pair.uri(1));
    assert_eq!(read(&mut client, 12_345, 54_321), Ok(vec![9; 54_321]));
    drop(client);
    pair.stop_and_compare(1, MEBIBYTES);
}

#[test]
fn demote_names_the_clients_and_disconnects_them_when_told() {
    let pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, 0, &[1; 4096]), Ok(()));
    let clients = pair.volume(0)["clients"].clone();
    let address = clients[0]["address"]
        .as_str()
        .expect("one client is attached")
        .to_owned();
    assert_eq!(clients[0]["export"], "v");
    let refused = pair.lab.pollux("alpha", &["demote", "v"]);
    assert_eq!(refused.exit, 1, "{refused:?}");
    assert!(refused.stderr.contains(&address), "{}", refused.stderr);
    // Nothing happened to the client.
    assert_eq!(read(&mut client, 0, 4096), Ok(vec![1; 4096]));
    pair.lab.done("alpha", &["demote", "v", "--disconnect"]);
    assert!(
        client.receive().is_err(),
        "the server closed the connection"
    );
    assert_eq!(pair.volume(0)["role"], "secondary");
    assert!(try_attach(&pair.uri(0)).is_err());
}

#[test]
fn after_both_restarted_either_may_be_promoted() {
    let mut pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, 0, &[1; 1 << 20]), Ok(()));
    drop(client);
    for index in [0, 1] {
        pair.stop(index);
    }
    for index in [0, 1] {
        pair.start(index);
        assert_eq!(
            pair.volume(index)["role"],
            "secondary",
            "every restart ends as secondary"
        );
    }
    pair.lab.done("beta", &["promote", "v"]);
    pair.until_healthy(1);
    let mut client = attach(&pair.uri(1));
    assert_eq!(read(&mut client, 0, 1 << 20), Ok(vec![1; 1 << 20]));
}

#[test]
fn alone_after_a_restart_a_member_may_not_serve_without_force() {
    let mut pair = Pair::healthy(MEBIBYTES);
    for index in [0, 1] {
        pair.stop(index);
    }
    pair.start(1);
    let refused = pair.promote(1, "1s");
    assert_eq!(refused.exit, 4, "alpha may have gone on: {refused:?}");
    assert!(refused.stderr.contains("alpha"), "{}", refused.stderr);
    let needs_yes = pair
        .lab
        .pollux("beta", &["promote", "v", "--force", "--wait", "1s"]);
    assert_eq!(needs_yes.exit, 2, "{needs_yes:?}");
    let branch = pair.volume(1)["generation"]["branch"].clone();
    pair.lab.done(
        "beta",
        &["promote", "v", "--force", "--yes", "--wait", "1s"],
    );
    assert_ne!(
        pair.volume(1)["generation"]["branch"],
        branch,
        "force begins a branch"
    );
}

#[test]
fn an_unfinished_target_may_not_serve() {
    let mut pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    pair.lab.done("alpha", &["peer", "disconnect", "beta"]);
    for index in 0..8 {
        assert_eq!(
            write(&mut client, index << 20, &[index as u8 + 1; 1 << 20]),
            Ok(())
        );
    }
    let behind = replica(&pair.volume(0), "beta")["out_of_sync_bytes"].as_u64();
    assert!(behind >= Some(8 << 20), "{behind:?}");
    pair.lab.done("beta", &["resync", "pause", "v"]);
    pair.lab.done("alpha", &["peer", "connect", "beta"]);
    pair.lab
        .until("beta", "v", SOON, "a target that waits", |volume| {
            replica(volume, "beta")["disk_state"] == "inconsistent"
        });
    drop(client);
    pair.kill(0);
    let refused = pair.promote(1, "3s");
    assert_eq!(refused.exit, 4, "{refused:?}");
    assert!(
        refused.stderr.contains("inconsistent"),
        "{}",
        refused.stderr
    );
    // The killed primary went on alone, and knows it: it may serve at once.
    pair.start(0);
    pair.lab.done("alpha", &["promote", "v"]);
    pair.lab.done("beta", &["resync", "resume", "v"]);
    pair.until_healthy(0);
    let mut client = attach(&pair.uri(0));
    for index in 0..8 {
        let expected = vec![index as u8 + 1; 1 << 20];
        assert_eq!(
            read(&mut client, index << 20, 1 << 20),
            Ok(expected),
            "MiB {index}"
        );
    }
    drop(client);
    pair.stop_and_compare(0, MEBIBYTES);
}

#[test]
fn only_what_changed_is_resynced() {
    let pair = Pair::healthy(64);
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, 0, &[1; 8 << 20]), Ok(()));
    pair.lab.done("alpha", &["peer", "disconnect", "beta"]);
    assert_eq!(write(&mut client, 20 << 20, &[2; 1 << 20]), Ok(()));
    let behind = replica(&pair.volume(0), "beta")["out_of_sync_bytes"].as_u64();
    assert_eq!(behind, Some(1 << 20), "one bit for each granule");
    pair.lab.done("alpha", &["peer", "connect", "beta"]);
    pair.until_healthy(0);
    assert_eq!(replica(&pair.volume(0), "beta")["out_of_sync_bytes"], 0);
    drop(client);
    let mut pair = pair;
    pair.stop_and_compare(0, 64);
}

#[test]
fn a_drain_under_load_ends_clean_and_in_time() {
    let mut pair = Pair::healthy(MEBIBYTES);
    let uri = pair.uri(0);
    let client = thread::spawn(move || {
        let mut client = attach(&uri);
        let mut acknowledged = Vec::new();
        for index in 0.. {
            let offset = index % 1024 * 8192;
            let ask = pollux_daemon::demo::client::Ask::write(offset, vec![index as u8; 8192]);
            match client.exchange(&ask) {
                // Closed without a reply: that is how a planned stop ends a session.
                Err(_) => break,
                Ok(answer) => assert_eq!(answer.result, Ok(()), "no error reply at a planned stop"),
            }
            acknowledged.push((offset, index as u8));
        }
        acknowledged
    });
    thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    pair.stop(0);
    assert!(began.elapsed() < Duration::from_secs(10));
    let acknowledged = client.join().expect("the client saw no error");
    assert!(!acknowledged.is_empty());
    pair.lab.done("beta", &["promote", "v"]);
    let mut client = attach(&pair.uri(1));
    let newest: std::collections::BTreeMap<u64, u8> = acknowledged.into_iter().collect();
    for (offset, byte) in newest {
        let found = read(&mut client, offset, 8192).expect("it can be read");
        assert!(
            found.iter().all(|b| *b == found[0]),
            "a mixture at {offset}"
        );
        let is_newer = found[0].wrapping_sub(byte) <= 4;
        assert!(is_newer, "byte {offset}: {} instead of {byte}", found[0]);
    }
    drop(client);
    pair.start(0);
    pair.until_healthy(1);
    pair.stop_and_compare(1, MEBIBYTES);
}

#[test]
fn a_secondary_that_hangs_is_given_up_and_comes_back() {
    let mut pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, 0, &[1; 4096]), Ok(()));
    pair.daemon(1).pause();
    let began = Instant::now();
    assert_eq!(write(&mut client, 4096, &[2; 4096]), Ok(()));
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "waited {:?}",
        began.elapsed()
    );
    assert_eq!(flush(&mut client), Ok(()));
    let degraded = |volume: &serde_json::Value| volume["state"] == "degraded";
    pair.lab.until("alpha", "v", SOON, "degraded", degraded);
    pair.daemon(1).resume();
    pair.until_healthy(0);
    drop(client);
    pair.stop_and_compare(0, MEBIBYTES);
}

#[test]
fn verify_finds_copies_equal_and_a_damaged_block() {
    let mut pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, 0, &[7; 4 << 20]), Ok(()));
    drop(client);
    pair.lab.done("alpha", &["verify", "v", "--wait"]);
    // Rot on one copy, behind everybody's back, where no open extent would have it resynced.
    pair.stop(1);
    let backing = pair.lab.node("beta").file("v.img");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(backing)
        .expect("it is there");
    std::os::unix::fs::FileExt::write_all_at(&file, &[8; 512], 12 << 20).expect("it is writable");
    drop(file);
    pair.start(1);
    pair.until_healthy(0);
    let found = pair
        .lab
        .pollux("alpha", &["verify", "v", "--wait", "--json"]);
    assert_eq!(found.exit, 5, "{found:?}");
    // One object per second, and one at the end.
    let last = found.stdout.lines().last().expect("it said something");
    let report: serde_json::Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(report["different_bytes"], 4096);
    assert_eq!(report["different"][0]["offset_bytes"], 12 << 20);
    // Out of S until an operator says which side is right.
    assert_eq!(pair.volume(0)["state"], "degraded");
    pair.lab
        .done("alpha", &["resync", "start", "v", "--from", "alpha"]);
    pair.until_healthy(0);
    pair.lab.done("alpha", &["verify", "v", "--wait"]);
    pair.stop_and_compare(0, MEBIBYTES);
}

#[test]
fn every_change_of_state_is_a_log_line() {
    let mut pair = Pair::healthy(MEBIBYTES);
    pair.kill(1);
    pair.lab.until(NODES[0], "v", SOON, "degraded", |volume| {
        volume["state"] == "degraded"
    });
    eventually(SOON, "the log tells it", || {
        let log = pair.daemon(0).log();
        let has = |words: &str| {
            log.lines()
                .any(|l| l.contains(words) && l.contains("code=\""))
        };
        (has("state is degraded") && has("beta is lost")).then_some(())
    });
}
