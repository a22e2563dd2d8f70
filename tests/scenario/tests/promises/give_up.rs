//! Split brains resolved by `pollux splitbrain`: shown, one copy given up, its blocks kept.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use scenario::disk::{attach, flush, read, write};

use scenario::{NODES, Pair, Shape, Trio};
use serde_json::Value;

const MEBIBYTES: u64 = 16;
const SOON: Duration = Duration::from_secs(20);

/// Alpha went on alone and beta was promoted by force: both wrote block 256, and one more each.
fn split() -> Pair {
    split_of(Pair::healthy(MEBIBYTES))
}

/// As [`split`], of a pair of the test's own.
pub fn split_of(pair: Pair) -> Pair {
    let mut on_alpha = attach(&pair.uri(0));
    assert_eq!(write(&mut on_alpha, 1 << 20, &[1; 16384]), Ok(()));
    assert_eq!(flush(&mut on_alpha), Ok(()));
    pair.lab.done("alpha", &["peer", "disconnect", "beta"]);
    assert_eq!(write(&mut on_alpha, 1 << 20, &[0xa; 8192]), Ok(()));
    assert_eq!(flush(&mut on_alpha), Ok(()));
    let force = ["promote", "v", "--force", "--yes", "--wait", "3s"];
    pair.lab.done("beta", &force);
    let mut on_beta = attach(&pair.uri(1));
    assert_eq!(write(&mut on_beta, 1 << 20, &[0xb; 4096]), Ok(()));
    assert_eq!(write(&mut on_beta, 2 << 20, &[0xb; 4096]), Ok(()));
    assert_eq!(flush(&mut on_beta), Ok(()));
    drop((on_alpha, on_beta));
    pair.lab.done("alpha", &["peer", "connect", "beta"]);
    for node in NODES {
        pair.lab.until(node, "v", SOON, "critical", is_split);
    }
    pair
}

fn is_split(volume: &Value) -> bool {
    let reason = volume["reason"]["text"].as_str().unwrap_or_default();
    volume["state"] == "critical" && reason.contains("splitbrain show")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

/// The only salvage of a node.
fn salvage(folder: PathBuf) -> PathBuf {
    let entries = fs::read_dir(folder).expect("there are salvages");
    let paths: Vec<_> = entries.map(|e| e.expect("it can be read").path()).collect();
    let [path] = &paths[..] else {
        panic!("one salvage, not {paths:?}");
    };
    path.clone()
}

#[test]
fn a_split_brain_is_shown_and_resolved_and_the_blocks_given_up_are_kept() {
    let mut pair = split();
    // Either node shows what both did.
    for (node, other) in [("alpha", "beta"), ("beta", "alpha")] {
        let shown = pair.lab.pollux(node, &["splitbrain", "show", "v"]);
        assert_eq!(shown.exit, 6, "{shown:?}");
        assert!(shown.stdout.contains("SPLIT BRAIN"), "{shown:?}");
        assert!(shown.stdout.contains("suggestion: keep"), "{shown:?}");
        let shown = pair
            .lab
            .pollux(node, &["splitbrain", "show", "v", "--json"]);
        let parting = json(&shown.stdout)["partings"][0].clone();
        assert_eq!(parting["node"], other);
        assert_eq!(parting["is_current"], true);
        let changed = |side: &str| parting[side]["changed_bytes"].as_u64();
        let (mine, theirs) = (changed("mine"), changed("theirs"));
        let (of_alpha, of_beta) = match node {
            "alpha" => (mine, theirs),
            _ => (theirs, mine),
        };
        assert!(of_alpha.is_some_and(|bytes| bytes >= 8192), "{parting}");
        assert!(of_beta.is_some_and(|bytes| bytes >= 8192), "{parting}");
        assert!(parting["overlap_bytes"].as_u64() >= Some(4096), "{parting}");
    }
    // Only the node that gives up does so, when it serves nobody, and after it was asked.
    let resolve = ["splitbrain", "resolve", "v", "--keep", "alpha"];
    let with = |more| [&resolve[..], &[more]].concat();
    let on_kept = pair.lab.pollux("alpha", &with("--yes"));
    assert_eq!(on_kept.exit, 1, "{on_kept:?}");
    assert!(on_kept.stderr.contains("E259"), "{on_kept:?}");
    let unasked = pair.lab.pollux("beta", &resolve);
    assert_eq!(unasked.exit, 2, "{unasked:?}");
    let planned = pair.lab.done("beta", &with("--dry-run"));
    assert!(planned.stdout.contains("salvage"), "{planned:?}");
    let primary = pair.lab.pollux("beta", &with("--yes"));
    assert!(primary.stderr.contains("E211"), "{primary:?}");
    pair.lab.done("beta", &["demote", "v", "--disconnect"]);
    let backing = fs::read(pair.lab.node("beta").file("v.img")).expect("it is there");
    assert_eq!(backing[1 << 20], 0xb, "nothing was overwritten so far");
    let resolved = pair.lab.done("beta", &with("--yes"));
    assert!(resolved.stdout.contains("salvage"), "{resolved:?}");

    pair.until_healthy(0);
    let file = salvage(pair.lab.node("beta").file("salvage"));
    let name = file.file_name().expect("it is a file").to_string_lossy();
    let listed = pair.lab.done("beta", &["splitbrain", "salvage", "list"]);
    assert!(listed.stdout.contains(&*name), "{listed:?}");
    let image = pair.lab.path("salvaged.img");
    let to = image.to_string_lossy();
    let extract = ["splitbrain", "salvage", "extract", &*name, "--to", &*to];
    pair.lab.done("beta", &extract);
    let held = fs::read(&image).expect("it was written");
    assert_eq!(held.len() as u64, MEBIBYTES << 20);
    assert_eq!(held[1 << 20..][..4096], [0xb; 4096]);
    assert_eq!(held[(1 << 20) + 4096..][..4096], [1; 4096]);
    assert_eq!(held[2 << 20..][..4096], [0xb; 4096]);

    let mut client = attach(&pair.uri(0));
    assert_eq!(read(&mut client, 1 << 20, 8192), Ok(vec![0xa; 8192]));
    assert_eq!(read(&mut client, 2 << 20, 4096), Ok(vec![0; 4096]));
    assert_eq!(write(&mut client, 3 << 20, &[7; 4096]), Ok(()));
    drop(client);
    let verified = pair.lab.done("alpha", &["verify", "v", "--wait"]);
    assert!(verified.stdout.contains("no differences"), "{verified:?}");
    let shown = pair.lab.done("alpha", &["splitbrain", "show", "v"]);
    assert!(shown.stdout.contains("no split brain"), "{shown:?}");
    pair.stop_and_compare(0, MEBIBYTES);
}

#[test]
fn a_daemon_killed_while_it_gives_up_its_copy_comes_back_to_either_state() {
    let mut pair = split();
    pair.lab.done("beta", &["demote", "v", "--disconnect"]);
    let words = ["splitbrain", "resolve", "v", "--keep", "alpha", "--yes"];
    let mut command = pair.lab.command("beta", &words);
    for pause in [0, 15, 40] {
        let mut asked = command.spawn().expect("it is a program");
        std::thread::sleep(Duration::from_millis(pause));
        pair.kill(1);
        asked.wait().expect("it ended");
        pair.start(1);
        // Until they met, beta is degraded either way.
        let is_settled = |volume: &Value| is_split(volume) || volume["state"] == "healthy";
        pair.lab
            .until("beta", "v", SOON, "split or not", is_settled);
    }
    // If none of them got through, this one does.
    if is_split(&pair.lab.volume("beta", "v")) {
        pair.lab.done("beta", &words);
    }
    pair.until_healthy(0);
    let mut client = attach(&pair.uri(0));
    assert_eq!(read(&mut client, 1 << 20, 8192), Ok(vec![0xa; 8192]));
    drop(client);
    pair.stop_and_compare(0, MEBIBYTES);
}

#[test]
fn after_a_force_under_a_majority_the_others_are_counted_in_again() {
    let mut trio = Trio::healthy(Shape::Witness, MEBIBYTES, "2s");
    let mut on_alpha = attach(&trio.uri(0));
    assert_eq!(write(&mut on_alpha, 1 << 20, &[1; 8192]), Ok(()));
    assert_eq!(flush(&mut on_alpha), Ok(()));
    drop(on_alpha);
    trio.kill(1);
    let mut on_alpha = attach(&trio.uri(0));
    assert_eq!(write(&mut on_alpha, 1 << 20, &[0xa; 4096]), Ok(()));
    assert_eq!(flush(&mut on_alpha), Ok(()));
    drop(on_alpha);
    // The site of alpha and of the witness burns, it seems: beta is all there is.
    trio.kill(0);
    trio.kill(2);
    trio.start(1);
    let force = ["promote", "v", "--force", "--yes", "--wait", "3s"];
    trio.lab.done("beta", &force);
    let mut on_beta = attach(&trio.uri(1));
    assert_eq!(write(&mut on_beta, 2 << 20, &[0xb; 4096]), Ok(()));
    assert_eq!(flush(&mut on_beta), Ok(()));
    drop(on_beta);
    trio.start(0);
    trio.start(2);
    trio.lab.until("alpha", "v", SOON, "critical", is_split);
    let words = ["splitbrain", "resolve", "v", "--keep", "beta", "--yes"];
    let resolved = trio.lab.done("alpha", &words);
    assert!(resolved.stdout.contains("salvage"), "{resolved:?}");
    trio.until_healthy(1);
    let file = salvage(trio.lab.node("alpha").file("salvage"));
    assert!(fs::metadata(&file).expect("it is there").len() > 4096);
    let mut client = attach(&trio.uri(1));
    assert_eq!(read(&mut client, 1 << 20, 8192), Ok(vec![1; 8192]));
    assert_eq!(read(&mut client, 2 << 20, 4096), Ok(vec![0xb; 4096]));
    drop(client);
    trio.stop_and_compare(1, MEBIBYTES);
}
