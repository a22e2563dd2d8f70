//! Stored checksums: what a disk lost, turned or put elsewhere is found and repaired (table F6, F10).

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use conformance::Lab;
use nbd_proto::NbdError;
use scenario::disk::{attach, flush, read, write};
use scenario::{NODES, Pair, replica};
use serde_json::Value;

use crate::give_up::split_of;

const MEBIBYTES: u64 = 16;

/// Longest time in which a change must show in the status.
const SOON: Duration = Duration::from_secs(15);

/// One node, one volume `v` in a file, with the word for its checksums.
fn single(checksums: &str) -> String {
    format!(
        "[volume.v]\nsize = \"16MiB\"\nbacking = \"v.img\"\nchecksums = \"{checksums}\"\n\
         replicas = [\"solo\"]\nnbd = [{{ name = \"v\" }}]\n"
    )
}

/// Bytes of a granule that no other has.
fn content(granule: u64) -> Vec<u8> {
    let word = granule.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    word.into_iter().cycle().take(4096).collect()
}

fn image(granules: std::ops::Range<u64>) -> Vec<u8> {
    granules.flat_map(content).collect()
}

/// Turns a bit of a granule, behind the daemon's back.
fn rot(path: &Path, granule: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.expect("the backing is a file of the lab");
    let mut byte = [0];
    let at = granule * 4096 + 1234;
    file.read_exact_at(&mut byte, at).expect("it is that long");
    file.write_all_at(&[byte[0] ^ 4], at)
        .expect("it is writable");
    file.sync_all().expect("it reaches the disk");
}

/// Two granules change places: both were written to the other's.
fn swap(path: &Path, a: u64, b: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.expect("the backing is a file of the lab");
    let [mut one, mut other] = [[0; 4096]; 2];
    file.read_exact_at(&mut one, a * 4096)
        .expect("it is that long");
    file.read_exact_at(&mut other, b * 4096)
        .expect("it is that long");
    file.write_all_at(&other, a * 4096).expect("it is writable");
    file.write_all_at(&one, b * 4096).expect("it is writable");
    file.sync_all().expect("it reaches the disk");
}

/// What a node's daemon says to a scraper.
fn metrics(lab: &Lab, node: &str) -> String {
    let socket = UnixStream::connect(lab.node(node).file("pollux.sock"));
    let mut socket = socket.expect("the daemon runs");
    let ask = "GET /metrics HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n";
    socket
        .write_all(ask.as_bytes())
        .expect("the daemon listens");
    let mut text = String::new();
    socket
        .read_to_string(&mut text)
        .expect("the daemon answers");
    text
}

fn bytes(volume: &Value, what: &str) -> u64 {
    volume["checksums"][what]
        .as_u64()
        .expect("checksums are stored")
}

/// A healthy pair with checksums.
fn healthy() -> Pair {
    let text = Pair::volume_text(MEBIBYTES).replace("replicas", "checksums = \"on\"\nreplicas");
    let pair = Pair::running_in(Lab::new(&NODES, &text));
    pair.found();
    pair
}

/// A healthy pair with checksums, of whose first 8 MiB every granule has content of its own; both
/// are stopped in order.
fn filled() -> Pair {
    let mut pair = healthy();
    let mut client = attach(&pair.uri(0));
    for at in 0..8 {
        assert_eq!(
            write(&mut client, at << 20, &image(at * 256..(at + 1) * 256)),
            Ok(())
        );
    }
    assert_eq!(flush(&mut client), Ok(()));
    drop(client);
    pair.until_unused(0);
    pair.stop_and_compare(0, MEBIBYTES);
    pair
}

fn start_both(pair: &mut Pair) {
    pair.start(0);
    pair.start(1);
    pair.lab.done("alpha", &["promote", "v"]);
    pair.until_healthy(0);
    pair.until_healthy(1);
}

#[test]
fn damage_on_a_secondary_is_found_by_a_scrub_and_repaired() {
    let mut pair = filled();
    let file = pair.lab.node("beta").file("v.img");
    // Nothing was ever written there: zeros have a checksum too, and no resync goes there.
    rot(&file, 3000);
    start_both(&mut pair);
    for granule in [3, 700, 2047] {
        rot(&file, granule);
    }
    let ran = pair.lab.pollux("beta", &["volume", "scrub", "v", "--wait"]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    let volume = pair.volume(1);
    assert_eq!(bytes(&volume, "error_bytes"), 4 * 4096);
    assert_eq!(bytes(&volume, "repaired_bytes"), 4 * 4096);
    assert_eq!(bytes(&volume, "unrepaired_bytes"), 0);
    assert_eq!(
        volume["checksums"]["scrub"]["scanned_bytes"],
        MEBIBYTES << 20
    );
    let log = pair.daemon(1).log();
    assert!(log.contains("W143") && log.contains("I174") && log.contains("repaired from alpha"));
    let metrics = metrics(&pair.lab, "beta");
    let line = "pollux_volume_checksum_errors_total{volume=\"v\"} 4";
    assert!(metrics.contains(line), "{metrics}");
    let healthy = pair
        .lab
        .pollux("alpha", &["volume", "scrub", "v", "--wait"]);
    assert_eq!(healthy.exit, 0, "{healthy:?}");
    assert_eq!(bytes(&pair.volume(0), "error_bytes"), 0);
    pair.stop_and_compare(0, MEBIBYTES);
}

#[test]
fn damage_on_the_primary_never_reaches_a_client_nor_the_other_copy() {
    let mut pair = filled();
    let file = pair.lab.node("alpha").file("v.img");
    rot(&file, 3500);
    start_both(&mut pair);
    rot(&file, 5);
    swap(&file, 300, 1300);
    let mut client = attach(&pair.uri(0));
    assert!(read(&mut client, 3500 * 4096, 4096) == Ok(vec![0; 4096]));
    for at in 0..8 {
        let expected = image(at * 256..(at + 1) * 256);
        assert!(
            read(&mut client, at << 20, 1 << 20) == Ok(expected),
            "MiB {at}"
        );
    }
    // The bytes around a small write are those of the good copy too.
    rot(&file, 1900);
    assert_eq!(write(&mut client, 1900 * 4096 + 100, &[7; 50]), Ok(()));
    let mut expected = content(1900);
    expected[100..150].fill(7);
    assert!(read(&mut client, 1900 * 4096, 4096) == Ok(expected));
    let volume = pair
        .lab
        .until("alpha", "v", SOON, "all is repaired", |volume| {
            bytes(volume, "error_bytes") > 0 && bytes(volume, "unrepaired_bytes") == 0
        });
    assert_eq!(
        bytes(&volume, "error_bytes"),
        bytes(&volume, "repaired_bytes")
    );
    let ran = pair
        .lab
        .pollux("alpha", &["volume", "scrub", "v", "--wait"]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert_eq!(
        replica(&pair.volume(0), NODES[1])["disk_state"],
        "up_to_date"
    );
    drop(client);
    pair.until_unused(0);
    pair.stop_and_compare(0, MEBIBYTES);
}

#[test]
fn the_only_copy_answers_eio_where_it_is_bad_until_it_is_written() {
    let lab = Lab::new(&["solo"], &single("on"));
    let daemon = lab.serve("solo");
    lab.done("solo", &["volume", "create", "v"]);
    lab.until_serving("solo", "v", SOON);
    let mut client = attach(&lab.node("solo").uri("v"));
    assert_eq!(write(&mut client, 0, &image(0..512)), Ok(()));
    assert_eq!(flush(&mut client), Ok(()));
    drop(client);
    assert_eq!(daemon.stop(), 0);
    rot(&lab.node("solo").file("v.img"), 9);
    let _daemon = lab.serve("solo");
    lab.until_serving("solo", "v", SOON);
    let mut client = attach(&lab.node("solo").uri("v"));
    assert_eq!(read(&mut client, 9 * 4096, 4096), Err(NbdError::Io));
    assert_eq!(read(&mut client, 0, 9 * 4096), Ok(image(0..9)));
    let volume = lab.until("solo", "v", SOON, "degraded", |v| v["state"] == "degraded");
    assert_eq!(volume["reason"]["code"], "W144");
    let ran = lab.pollux("solo", &["volume", "scrub", "v", "--wait"]);
    assert_eq!(ran.exit, 5, "{ran:?}");
    assert_eq!(write(&mut client, 9 * 4096, &content(9)), Ok(()));
    assert_eq!(read(&mut client, 0, 512 * 4096), Ok(image(0..512)));
    lab.until("solo", "v", SOON, "healthy", |v| v["state"] == "healthy");
}

#[test]
fn checksums_are_right_after_a_kill() {
    let lab = Lab::new(&["solo"], &single("on"));
    let mut daemon = lab.serve("solo");
    lab.done("solo", &["volume", "create", "v"]);
    for round in 0..4u64 {
        lab.until_serving("solo", "v", SOON);
        let mut client = attach(&lab.node("solo").uri("v"));
        for at in 0..16 {
            let granule = (at * 211 + round * 37) % 4000;
            assert_eq!(
                write(&mut client, granule * 4096, &content(granule + round)),
                Ok(())
            );
        }
        daemon.kill();
        daemon = lab.serve("solo");
    }
    lab.until_serving("solo", "v", SOON);
    let mut client = attach(&lab.node("solo").uri("v"));
    for at in 0..16 {
        assert!(read(&mut client, at << 20, 1 << 20).is_ok(), "MiB {at}");
    }
    let ran = lab.pollux("solo", &["volume", "scrub", "v", "--wait"]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert_eq!(bytes(&lab.volume("solo", "v"), "error_bytes"), 0);
}

#[test]
fn checksums_are_decided_when_a_replica_is_created() {
    let lab = Lab::new(&["solo"], &single("off"));
    let daemon = lab.serve("solo");
    lab.done("solo", &["volume", "create", "v"]);
    lab.until_serving("solo", "v", SOON);
    let ran = lab.pollux("solo", &["volume", "scrub", "v"]);
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.stderr.contains("E280"), "{ran:?}");
    assert_eq!(lab.volume("solo", "v")["checksums"], Value::Null);
    assert_eq!(daemon.stop(), 0);
    lab.write_config("lab", &single("on"));
    let _daemon = lab.serve("solo");
    let volume = lab.until("solo", "v", SOON, "offline", |v| v["state"] == "offline");
    assert_eq!(volume["reason"]["code"], "E281");
}

#[test]
fn checksums_are_not_dropped_by_a_word_in_the_file() {
    let lab = Lab::new(&["solo"], &single("on"));
    let daemon = lab.serve("solo");
    lab.done("solo", &["volume", "create", "v"]);
    lab.until_serving("solo", "v", SOON);
    let mut client = attach(&lab.node("solo").uri("v"));
    assert_eq!(write(&mut client, 0, &image(0..8)), Ok(()));
    drop(client);
    assert_eq!(daemon.stop(), 0);
    lab.write_config("lab", &single("off"));
    let daemon = lab.serve("solo");
    let volume = lab.until("solo", "v", SOON, "offline", |v| v["state"] == "offline");
    assert_eq!(volume["reason"]["code"], "E281");
    let text = volume["reason"]["text"].as_str().expect("it says why");
    let [on, off] = ["on", "off"].map(|word| text.find(&format!("checksums = \"{word}\"")));
    assert!(
        on.is_some() && off.is_none_or(|off| on < Some(off)),
        "{text}"
    );
    assert_eq!(daemon.stop(), 0);
    // Nothing was touched.
    lab.write_config("lab", &single("on"));
    let _daemon = lab.serve("solo");
    lab.until_serving("solo", "v", SOON);
    let mut client = attach(&lab.node("solo").uri("v"));
    assert_eq!(read(&mut client, 0, 8 * 4096), Ok(image(0..8)));
}

#[test]
fn what_a_volume_grew_by_has_checksums_like_the_rest() {
    let mut pair = filled();
    start_both(&mut pair);
    pair.lab.done("alpha", &["volume", "resize", "v", "24MiB"]);
    let last = 24 * 256 - 1;
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, last * 4096, &content(last)), Ok(()));
    assert_eq!(flush(&mut client), Ok(()));
    // Of what nobody wrote there is a checksum once it was read.
    let scrub = ["volume", "scrub", "v", "--wait"];
    let ran = pair.lab.pollux("beta", &scrub);
    assert_eq!(ran.exit, 0, "{ran:?}");
    let adopted = pair.volume(1)["checksums"]["scrub"]["adopted_bytes"].as_u64();
    assert!(adopted <= Some(8 << 20), "{adopted:?}");
    let file = pair.lab.node("beta").file("v.img");
    rot(&file, last);
    rot(&file, last - 100);
    let ran = pair.lab.pollux("beta", &scrub);
    assert_eq!(ran.exit, 0, "{ran:?}");
    let volume = pair.volume(1);
    assert!(bytes(&volume, "error_bytes") >= 2 * 4096, "{volume}");
    assert_eq!(bytes(&volume, "unrepaired_bytes"), 0);
    assert_eq!(read(&mut client, last * 4096, 4096), Ok(content(last)));
    drop(client);
    pair.until_unused(0);
    pair.stop_and_compare(0, 24);
}

#[test]
fn a_copy_is_not_given_up_while_a_block_of_it_cannot_be_saved() {
    let mut pair = split_of(healthy());
    pair.lab.done("beta", &["demote", "v", "--disconnect"]);
    let file = pair.lab.node("beta").file("v.img");
    // Beta alone wrote there.
    rot(&file, 512);
    let resolve = ["splitbrain", "resolve", "v", "--keep", "alpha", "--yes"];
    let ran = pair.lab.pollux("beta", &resolve);
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.stderr.contains("E258"), "{ran:?}");
    assert!(
        ran.stderr.contains("do not match their checksums"),
        "{ran:?}"
    );
    rot(&file, 512);
    pair.lab.done("beta", &resolve);
    pair.until_healthy(0);
    // What came from alpha has its checksums.
    let ran = pair.lab.pollux("beta", &["volume", "scrub", "v", "--wait"]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    let mut client = attach(&pair.uri(0));
    assert_eq!(read(&mut client, 1 << 20, 8192), Ok(vec![0xa; 8192]));
    drop(client);
    pair.until_unused(0);
    pair.stop_and_compare(0, MEBIBYTES);
}
