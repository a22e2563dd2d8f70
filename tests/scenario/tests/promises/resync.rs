//! Resync and verify with real disks and links: what moves, what stays a hole, what is repaired.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use scenario::disk::{attach, write};
use scenario::{HEALTHY_MAX, Pair, replica};
use serde_json::Value;

const MEBIBYTES: u64 = 64;
const SOON: Duration = Duration::from_secs(30);

fn last_resync(pair: &Pair) -> Value {
    replica(&pair.volume(0), "beta")["last_resync"].clone()
}

#[test]
fn holes_stay_holes_on_a_new_replica_and_zeros_do_not_travel() {
    let mut pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, 5 << 20, &[7; 1 << 20]), Ok(()));
    drop(client);
    let lab = &pair.lab;
    lab.done("alpha", &["peer", "disconnect", "beta"]);
    lab.done("beta", &["volume", "delete", "v", "--wipe", "--yes"]);
    lab.done("beta", &["volume", "create", "v"]);
    lab.done("alpha", &["peer", "connect", "beta"]);
    lab.done("alpha", &["resync", "status", "v", "--wait=60s"]);
    pair.until_healthy(0);
    let last = last_resync(&pair);
    assert_eq!(last["done"], MEBIBYTES << 20, "{last}");
    assert_eq!(last["sent"], 1 << 20, "only what is data: {last}");
    let allocated = |node: &str| {
        let file = pair.lab.node(node).file("v.img");
        std::fs::metadata(file).expect("it is there").blocks() * 512
    };
    let (source, target) = (allocated("alpha"), allocated("beta"));
    assert!(target <= source, "{target} bytes of {source}");
    pair.stop_and_compare(0, MEBIBYTES);
}

#[test]
fn rot_is_repaired_from_the_copy_that_is_named_and_the_verify_is_remembered() {
    let mut pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, 0, &[7; 4 << 20]), Ok(()));
    drop(client);
    pair.stop(1);
    let backing = pair.lab.node("beta").file("v.img");
    let file = File::options().write(true).open(backing);
    let file = file.expect("it is there");
    file.write_all_at(&[8; 512], 12 << 20)
        .expect("it is writable");
    drop(file);
    pair.start(1);
    pair.until_healthy(0);
    let refused = pair.lab.pollux("alpha", &["verify", "v", "--repair"]);
    assert_eq!(refused.exit, 1, "{refused:?}");
    assert!(refused.stderr.contains("E275"), "{refused:?}");
    let repair = ["verify", "v", "--repair", "--from", "alpha", "--wait"];
    let found = pair.lab.pollux("alpha", &repair);
    assert_eq!(found.exit, 5, "{found:?}");
    assert!(found.stdout.contains("being repaired"), "{found:?}");
    // It leaves S first, so that being healthy says nothing yet.
    let repaired = |volume: &Value| replica(volume, "beta")["last_resync"]["done"] == 4096;
    pair.lab.until("alpha", "v", SOON, "repaired", repaired);
    pair.until_healthy(0);
    let noted = |volume: &Value| volume["last_verify"]["different_bytes"] == 4096;
    pair.lab
        .until("alpha", "v", SOON, "the verify is noted", noted);
    pair.stop(0);
    pair.start(0);
    assert!(noted(&pair.volume(0)), "{}", pair.volume(0));
    pair.lab.done("alpha", &["promote", "v"]);
    pair.until_healthy(0);
    pair.stop_and_compare(0, MEBIBYTES);
}

#[test]
fn a_configured_rate_holds_and_is_named_until_an_operator_lifts_it() {
    let pair = Pair::healthy(MEBIBYTES);
    pair.lab
        .done("beta", &["resync", "set", "v", "--rate", "2MiB/s"]);
    pair.lab.done("alpha", &["peer", "disconnect", "beta"]);
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, 0, &vec![3; 32 << 20]), Ok(()));
    drop(client);
    pair.lab.done("alpha", &["peer", "connect", "beta"]);
    let state = |volume: &Value| replica(volume, "beta")["resync"]["state"].clone();
    let is_throttled = |volume: &Value| state(volume) == "throttled";
    pair.lab
        .until("alpha", "v", SOON, "throttled", is_throttled);
    let resync = replica(&pair.volume(0), "beta")["resync"].clone();
    let rate = resync["rate_bytes_per_second"].as_u64();
    assert!(rate.is_some_and(|rate| rate < 4 << 20), "{resync}");
    pair.lab
        .done("beta", &["resync", "set", "v", "--rate", "max"]);
    pair.lab
        .done("alpha", &["resync", "status", "v", "--wait=60s"]);
    pair.lab.until_healthy("alpha", "v", HEALTHY_MAX);
    let mut pair = pair;
    pair.stop_and_compare(0, MEBIBYTES);
}
