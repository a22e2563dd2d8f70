//! Disks that fail, lie or fill up.

use std::process::Command;
use std::time::Duration;

use conformance::{Lab, tools};
use nbd_proto::NbdError;
use scenario::disk::{attach, flush, read, write};
use scenario::{NODES, Pair, replica};

const MEBIBYTES: u64 = 16;

/// Longest time in which a fault must show in the status.
const SOON: Duration = Duration::from_secs(15);

/// One node, one volume `v` in a file.
const SINGLE: &str = "[volume.v]\nsize = \"16MiB\"\nbacking = \"v.img\"\n\
                      replicas = [\"solo\"]\nnbd = [{ name = \"v\" }]\n";

/// Waits until this node says that the other's copy is out of S, for this reason or none.
fn until_degraded(pair: &Pair, index: usize, disk_state: &str) {
    let other = NODES[1 - index];
    let what = format!("degraded, {other} {disk_state}");
    pair.lab.until(NODES[index], "v", SOON, &what, |volume| {
        volume["state"] == "degraded" && replica(volume, other)["disk_state"] == disk_state
    });
}

/// Replaces the failed disk as the manual says, and waits until both copies are equal.
fn replaced(mut pair: Pair, failed: usize, primary: usize) {
    pair.plant(failed, "");
    // A restart alone does not make a failed disk good again.
    pair.stop(failed);
    pair.start(failed);
    until_degraded(&pair, primary, "failed");
    let node = NODES[failed];
    pair.lab
        .done(node, &["volume", "delete", "v", "--wipe", "--yes"]);
    pair.lab.done(node, &["volume", "create", "v"]);
    pair.until_healthy(primary);
    pair.stop_and_compare(primary, MEBIBYTES);
}

#[test]
fn a_secondary_whose_writes_fail_leaves_and_no_client_notices() {
    let pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    pair.plant(1, "v: write=eio");
    for index in 0..64 {
        assert_eq!(write(&mut client, index * 70_000, &[7; 9000]), Ok(()));
    }
    assert_eq!(flush(&mut client), Ok(()));
    until_degraded(&pair, 0, "failed");
    assert_eq!(replica(&pair.volume(1), "beta")["disk_state"], "failed");
    assert_eq!(read(&mut client, 70_000, 9000), Ok(vec![7; 9000]));
    drop(client);
    replaced(pair, 1, 0);
}

#[test]
fn a_flush_that_failed_once_fails_the_replica_for_good() {
    let pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, 0, &[1; 4096]), Ok(()));
    pair.plant(1, "v: flush=eio#1");
    assert_eq!(write(&mut client, 4096, &[2; 4096]), Ok(()));
    assert_eq!(flush(&mut client), Ok(()));
    until_degraded(&pair, 0, "failed");
    // The next flush of that disk would succeed; it is not asked.
    for _ in 0..5 {
        assert_eq!(flush(&mut client), Ok(()));
    }
    until_degraded(&pair, 0, "failed");
    drop(client);
    replaced(pair, 1, 0);
}

#[test]
fn a_primary_whose_disk_fails_serves_through_the_other_copy() {
    let pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, 1 << 20, &[3; 65_536]), Ok(()));
    pair.plant(0, "v: write=eio, read=eio");
    assert_eq!(write(&mut client, 2 << 20, &[4; 65_536]), Ok(()));
    for (at, byte) in [(1 << 20, 3), (2 << 20, 4)] {
        assert_eq!(read(&mut client, at, 65_536), Ok(vec![byte; 65_536]));
    }
    let volume = pair
        .lab
        .until("alpha", "v", SOON, "its own disk failed", |volume| {
            replica(volume, "alpha")["disk_state"] == "failed"
        });
    assert_eq!(volume["state"], "degraded");
    assert_eq!(flush(&mut client), Ok(()));
    drop(client);
    // The good copy takes over; the failed one comes back as a target.
    pair.until_unused(0);
    pair.lab.done("alpha", &["demote", "v"]);
    pair.lab.done("beta", &["promote", "v"]);
    replaced(pair, 0, 1);
}

#[test]
fn a_read_that_fails_is_served_from_the_other_copy_and_repaired() {
    let pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, 0, &[5; 262_144]), Ok(()));
    pair.plant(0, "v: read=eio@64K..128K#1");
    assert_eq!(read(&mut client, 65_536, 65_536), Ok(vec![5; 65_536]));
    assert_eq!(read(&mut client, 0, 262_144), Ok(vec![5; 262_144]));
    assert!(pair.daemon(0).log().contains("cannot be read here"));
    pair.until_healthy(0);
    drop(client);
    let mut pair = pair;
    pair.stop_and_compare(0, MEBIBYTES);
}

#[test]
fn the_last_copy_answers_eio_where_it_cannot_be_read() {
    let lab = Lab::new(&["solo"], SINGLE);
    let _daemon = lab.serve_faulty("solo", "v: read=eio@1M..2M");
    lab.done("solo", &["volume", "create", "v"]);
    lab.until_serving("solo", "v", SOON);
    let mut client = attach(&lab.node("solo").uri("v"));
    assert_eq!(write(&mut client, 0, &[6; 4 << 20]), Ok(()));
    assert_eq!(read(&mut client, 1 << 20, 4096), Err(NbdError::Io));
    assert_eq!(read(&mut client, 0, 1 << 20), Ok(vec![6; 1 << 20]));
    assert_eq!(read(&mut client, 2 << 20, 4096), Ok(vec![6; 4096]));
}

#[test]
fn a_failed_flush_of_the_last_copy_is_final() {
    let lab = Lab::new(&["solo"], SINGLE);
    let daemon = lab.serve_faulty("solo", "v: flush=eio#1");
    lab.done("solo", &["volume", "create", "v"]);
    lab.until_serving("solo", "v", SOON);
    let mut client = attach(&lab.node("solo").uri("v"));
    assert_eq!(write(&mut client, 0, &[1; 4096]), Ok(()));
    assert_eq!(flush(&mut client), Err(NbdError::Io));
    assert_eq!(
        flush(&mut client),
        Err(NbdError::Io),
        "never retried as success"
    );
    assert_eq!(write(&mut client, 0, &[2; 4096]), Err(NbdError::Io));
    assert_eq!(read(&mut client, 0, 4096), Err(NbdError::Io));
    let volume = lab.volume("solo", "v");
    assert_eq!(volume["state"], "critical");
    assert_eq!(replica(&volume, "solo")["disk_state"], "failed");
    assert_ne!(volume["reason"]["text"], serde_json::Value::Null);
    let check = lab.pollux("solo", &["status", "--check"]);
    assert_eq!(check.exit, 6, "{check:?}");
    drop(daemon);
}

/// A command that becomes the daemon of `node`, for which `folder` is a file system of its own
/// with room for so many MiB. `None`, with a line that says so, where this is not permitted.
fn on_small_disk(lab: &Lab, node: &str, folder: &str, mebibytes: u64) -> Option<Command> {
    let folder = lab.node(node).file(folder);
    std::fs::create_dir(&folder).expect("the lab's folder is writable");
    let mount = format!(
        "mount -t tmpfs -o size={mebibytes}m tmpfs '{}'",
        folder.display()
    );
    let mut probe = Command::new("unshare");
    probe.args(["-m", "sh", "-c", &mount]);
    if tools::find("unshare").is_none() || tools::run(probe, SOON).exit != 0 {
        eprintln!("skipped: run as root, to mount a small file system in a namespace of its own");
        return None;
    }
    let serve = lab.command(node, &["serve"]);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &format!("{mount} && exec \"$0\" \"$@\"")]);
    command.arg(serve.get_program()).args(serve.get_args());
    Some(command)
}

/// Bytes that no file system can store in less space.
fn noise(seed: u64) -> Vec<u8> {
    let mut random = scenario::Random::new(seed);
    (0..1 << 20).map(|_| random.below(256) as u8).collect()
}

#[test]
fn a_secondary_whose_disk_is_full_leaves_and_no_client_notices() {
    let volume = Pair::volume_text(MEBIBYTES).replace("v.img", "small/v.img");
    let lab = Lab::new(&NODES, &volume);
    std::fs::create_dir(lab.node("alpha").file("small")).expect("the lab's folder is writable");
    let Some(command) = on_small_disk(&lab, "beta", "small", 6) else {
        return;
    };
    let daemons = [lab.serve("alpha"), lab.serve_as("beta", command)].map(Some);
    let pair = Pair { daemons, lab };
    pair.found();
    let mut client = attach(&pair.uri(0));
    for index in 0..12 {
        assert_eq!(
            write(&mut client, index << 20, &noise(index)),
            Ok(()),
            "MiB {index}"
        );
    }
    assert_eq!(flush(&mut client), Ok(()));
    until_degraded(&pair, 0, "failed");
    assert_eq!(read(&mut client, 11 << 20, 1 << 20), Ok(noise(11)));
}

#[test]
fn the_last_copy_answers_enospc_when_its_disk_is_full_and_stays() {
    let volume = SINGLE.replace("v.img", "small/v.img");
    let lab = Lab::new(&["solo"], &volume);
    let Some(command) = on_small_disk(&lab, "solo", "small", 6) else {
        return;
    };
    let _daemon = lab.serve_as("solo", command);
    lab.done("solo", &["volume", "create", "v"]);
    lab.until_serving("solo", "v", SOON);
    let mut client = attach(&lab.node("solo").uri("v"));
    let full = (0..12).find(|index| write(&mut client, index << 20, &noise(*index)).is_err());
    let full = full.expect("6 MiB do not hold 12 MiB");
    assert_eq!(
        write(&mut client, full << 20, &noise(full)),
        Err(NbdError::NoSpace)
    );
    let volume = lab.volume("solo", "v");
    assert_eq!(replica(&volume, "solo")["disk_state"], "up_to_date");
    let reason = volume["reason"]["text"].as_str().unwrap_or_default();
    assert!(reason.contains("full"), "an alarm is raised: {reason}");
    // What was acknowledged is there, and what has its blocks can be written.
    for index in 0..full {
        assert_eq!(
            read(&mut client, index << 20, 1 << 20),
            Ok(noise(index)),
            "MiB {index}"
        );
    }
    assert_eq!(write(&mut client, 0, &noise(99)), Ok(()));
    assert_eq!(read(&mut client, 0, 1 << 20), Ok(noise(99)));
}
