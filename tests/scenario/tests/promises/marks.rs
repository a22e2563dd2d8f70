//! Marks of changed blocks, as a backup uses them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use conformance::{Lab, Ran, tools};
use pollux_daemon::demo::client::Connection;
use scenario::disk::{attach, flush, read, write};
use scenario::{NODES, Pair, Random};

const MEBIBYTES: u64 = 32;
const SIZE: u64 = MEBIBYTES << 20;
const GRANULE: u64 = 4096;
const CLIENT_MAX: Duration = Duration::from_secs(60);
const SINGLE: &str = "[volume.v]\nsize = \"32MiB\"\nbacking = \"v.img\"\n\
                      replicas = [\"solo\"]\nnbd = [{ name = \"v\" }]\n";

fn have_clients() -> bool {
    tools::have_python_libnbd() && tools::have(&[("nbdcopy", "libnbd-bin")])
}

/// The whole volume, copied by nbdcopy.
fn full_copy(lab: &Lab, uri: &str, name: &str) -> PathBuf {
    let path = lab.path(name);
    let mut command = Command::new("nbdcopy");
    command.arg(uri).arg(&path);
    tools::run(command, CLIENT_MAX).ok();
    path
}

/// Brings `image` up to date by a dirty context alone; answers the bytes moved.
fn incremental(uri: &str, context: &str, image: &Path) -> u64 {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/incremental.py");
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg("-B")
        .arg(script)
        .args([uri, context])
        .arg(image);
    let ran = tools::run(command, CLIENT_MAX).ok();
    ran.stdout.trim().parse().expect("it prints a number")
}

/// The image is what a client reads now.
fn assert_current(uri: &str, image: &Path) {
    let mut client = attach(uri);
    let image = std::fs::read(image).expect("the image was written");
    assert_eq!(image.len() as u64, SIZE);
    for (index, piece) in image.chunks(1 << 20).enumerate() {
        let at = (index as u64) << 20;
        let length = piece.len() as u32;
        assert!(
            read(&mut client, at, length).as_deref() == Ok(piece),
            "the copy differs in the MiB at {at}"
        );
    }
}

/// Writes here and there; answers the granules touched.
fn scatter(client: &mut Connection, seed: u64, count: u64) -> BTreeSet<u64> {
    let mut random = Random::new(seed);
    let mut touched = BTreeSet::new();
    for index in 0..count {
        let length = 1 + random.below(24 << 10);
        let at = random.below(SIZE - length);
        let bytes = vec![1 + (seed + index) as u8 % 250; length as usize];
        assert_eq!(write(client, at, &bytes), Ok(()));
        touched.extend(at / GRANULE..(at + length).div_ceil(GRANULE));
    }
    touched
}

fn mark(lab: &Lab, node: &str, words: &[&str]) -> Ran {
    lab.pollux(node, &[&["volume", "mark"], words].concat())
}

#[test]
fn a_second_copy_moves_what_changed_and_is_the_whole() {
    if !have_clients() {
        return;
    }
    let pair = Pair::healthy(MEBIBYTES);
    let uri = pair.uri(0);
    let mut client = attach(&uri);
    scatter(&mut client, 1, 300);
    mark(&pair.lab, "alpha", &["create", "v", "monday"]).ok();
    let image = full_copy(&pair.lab, &uri, "full.img");
    assert_eq!(incremental(&uri, "qemu:dirty-bitmap:monday", &image), 0);
    let touched = scatter(&mut client, 2, 100);
    assert_eq!(flush(&mut client), Ok(()));
    let moved = incremental(&uri, "qemu:dirty-bitmap:monday", &image);
    let changed = touched.len() as u64 * GRANULE;
    assert!(moved >= changed, "{moved} of {changed}");
    assert!(moved * 100 <= changed * 105, "{moved} for {changed}");
    assert_current(&uri, &image);
    // The same bits under their own name, for a second copy from the same point.
    assert_eq!(incremental(&uri, "x-pollux:dirty/monday", &image), moved);
}

#[test]
fn a_mark_follows_a_kill_a_failover_and_the_way_back() {
    if !have_clients() {
        return;
    }
    let mut pair = Pair::healthy(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    scatter(&mut client, 1, 200);
    mark(&pair.lab, "alpha", &["create", "v", "base"]).ok();
    let image = full_copy(&pair.lab, &pair.uri(0), "full.img");
    scatter(&mut client, 2, 60);
    pair.kill(0);
    pair.promote(1, "5s").ok();
    let mut client = attach(&pair.uri(1));
    scatter(&mut client, 3, 40);
    let context = "qemu:dirty-bitmap:base";
    incremental(&pair.uri(1), context, &image);
    assert_current(&pair.uri(1), &image);
    // The other returns, is told what changed meanwhile, and serves again.
    let rest = full_copy(&pair.lab, &pair.uri(1), "rest.img");
    mark(&pair.lab, "beta", &["create", "v", "later"]).ok();
    pair.start(0);
    scatter(&mut client, 4, 40);
    pair.until_healthy(1);
    drop(client);
    pair.until_unused(1);
    pair.lab.done("beta", &["demote", "v"]);
    pair.promote(0, "5s").ok();
    let mut client = attach(&pair.uri(0));
    scatter(&mut client, 5, 10);
    incremental(&pair.uri(0), context, &image);
    assert_current(&pair.uri(0), &image);
    incremental(&pair.uri(0), "x-pollux:dirty/later", &rest);
    assert_current(&pair.uri(0), &rest);
}

#[test]
fn a_single_replica_keeps_its_marks_through_a_kill() {
    if !have_clients() {
        return;
    }
    let lab = Lab::new(&["solo"], SINGLE);
    let daemon = lab.serve("solo");
    lab.done("solo", &["volume", "create", "v"]);
    lab.until_serving("solo", "v", CLIENT_MAX);
    let uri = lab.node("solo").uri("v");
    let mut client = attach(&uri);
    scatter(&mut client, 1, 100);
    mark(&lab, "solo", &["create", "v", "m"]).ok();
    let image = full_copy(&lab, &uri, "full.img");
    scatter(&mut client, 2, 30);
    daemon.kill();
    let _daemon = lab.serve("solo");
    lab.until_serving("solo", "v", CLIENT_MAX);
    incremental(&uri, "qemu:dirty-bitmap:m", &image);
    assert_current(&uri, &image);
}

#[test]
fn each_refusal_of_a_mark_has_its_code_and_exit() {
    let pair = Pair::healthy(MEBIBYTES);
    let lab = &pair.lab;
    let refused = |node: &str, words: &[&str], exit: i32, code: &str| {
        let ran = mark(lab, node, words);
        assert_eq!(ran.exit, exit, "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(code), "{words:?}: {}", ran.stderr);
        ran.stderr
    };
    refused("alpha", &["delete", "v", "a"], 3, "E223");
    refused("alpha", &["create", "v", "a:b"], 2, "E112");
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        mark(lab, "alpha", &["create", "v", name]).ok();
    }
    refused("alpha", &["create", "v", "a"], 1, "E224");
    mark(lab, "alpha", &["create", "v", "a", "--if-absent"]).ok();
    refused("alpha", &["create", "v", "i"], 1, "E225");
    let text = refused("beta", &["list", "v"], 1, "E210");
    assert!(text.contains(NODES[0]), "{text}");
    mark(lab, "alpha", &["delete", "v", "a"]).ok();
    mark(lab, "alpha", &["create", "v", "i"]).ok();
    let listed = mark(lab, "alpha", &["list", "v", "--json"]).ok().stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("it is JSON");
    assert_eq!(listed["schema"], "pollux.marks/1");
    let marks = listed["marks"].as_array().expect("marks are a list");
    let names: Vec<_> = marks.iter().filter_map(|m| m["name"].as_str()).collect();
    assert_eq!(names, ["b", "c", "d", "e", "f", "g", "h", "i"]);
    assert!(marks.iter().all(|m| m["dirty_bytes"] == 0), "{marks:?}");
}
