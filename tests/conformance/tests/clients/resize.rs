//! Volumes that grow: what clients see before and after, what a crash leaves, what is refused.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use conformance::raw::{Raw, Style, request, write};
use conformance::{Lab, tools};
use serde_json::Value;

use crate::stage::{MEBIBYTES, Stage, client_ok};

const MIB: u64 = 1 << 20;
const OLD: u64 = (MEBIBYTES as u64) * MIB;
const READ: u16 = 0;
/// What a request past the end of a session is answered with.
const ENOSPC: u32 = 28;
const EINVAL: u32 = 22;

fn attach(lab: &Lab, export: &str) -> Raw {
    let mut client = Raw::unix(&lab.node("solo").nbd_socket()).expect("it listens");
    client.go(export, Style::Simple);
    client
}

fn ask(client: &mut Raw, bytes: &[u8], data: usize) -> u32 {
    client.send(bytes).expect("it is taken");
    client.reply(data).expect("it is answered").error
}

/// Reads from a session of simple replies.
fn read(client: &mut Raw, offset: u64, length: usize) -> Vec<u8> {
    let bytes = request(0, READ, 9, offset, length as u32);
    client.send(&bytes).expect("it is taken");
    let mut reply = vec![0; 16 + length];
    client.read_exact(&mut reply).expect("it is answered");
    assert_eq!(reply[4..8], [0; 4], "no error");
    reply.split_off(16)
}

/// Says so when it goes.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn size_seen(lab: &Lab, export: &str) -> u64 {
    let uri = lab.node("solo").unix_uri(export);
    let said = client_ok("nbdinfo", &["--size", &uri]).stdout;
    said.trim().parse().expect("nbdinfo prints bytes")
}

fn have_nbdinfo() -> bool {
    tools::have(&[("nbdinfo", "libnbd-bin")])
}

fn config(lab: &Lab) -> String {
    fs::read_to_string(lab.config()).expect("it is there")
}

#[test]
fn a_volume_grows_under_load_and_new_sessions_see_it() {
    if !have_nbdinfo() {
        return;
    }
    let Stage { daemon, lab } = Stage::new();
    for (volume, size) in [("mem", "80MiB"), ("disk", "112MiB")] {
        assert_eq!(size_seen(&lab, volume), OLD);
        let (done, answered) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut busy = attach(&lab, volume);
        let new = thread::scope(|scope| {
            // Also where this side fails.
            let _end = AtEnd(&done);
            let load = scope.spawn(|| {
                let mut at = 0;
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(ask(&mut busy, &write(at, at * 4096, &[7; 4096]), 0), 0);
                    at = (at + 1) % (OLD / 4096);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
            conformance::eventually(Duration::from_secs(10), "the load runs", || {
                (answered.load(Ordering::Relaxed) > 10).then_some(())
            });
            let ran = lab.done("solo", &["volume", "resize", volume, size]);
            assert!(ran.stdout.contains(" bytes; clients see it"), "{ran:?}");
            let before = answered.load(Ordering::Relaxed);
            conformance::eventually(Duration::from_secs(10), "the load goes on", || {
                (answered.load(Ordering::Relaxed) > before + 10).then_some(())
            });
            done.store(true, Ordering::Relaxed);
            load.join().expect("no request of it failed");
            size_seen(&lab, volume)
        });
        assert_eq!(new, size.replace("MiB", "").parse::<u64>().unwrap() * MIB);
        // The session from before keeps its size, to the byte.
        assert_eq!(ask(&mut busy, &request(0, READ, 1, OLD - 512, 512), 512), 0);
        assert_eq!(ask(&mut busy, &request(0, READ, 2, OLD, 512), 0), EINVAL);
        assert_eq!(ask(&mut busy, &write(3, OLD, &[1; 512]), 0), ENOSPC);
        let mut fresh = attach(&lab, volume);
        assert_eq!(ask(&mut fresh, &write(1, new - 4096, &[9; 4096]), 0), 0);
        let data = read(&mut fresh, new - 8192, 8192);
        assert!(data[..4096].iter().all(|b| *b == 0) && data[4096..].iter().all(|b| *b == 9));
        assert_eq!(lab.volume("solo", volume)["size_bytes"], new);
        assert!(config(&lab).contains(&format!("size = \"{size}\"")));
    }
    // Nothing is left to be taken over, and what was written stays over a restart.
    assert_eq!(lab.pollux("solo", &["config", "apply"]).exit, 0);
    assert_eq!(daemon.stop(), 0);
    let _daemon = lab.serve("solo");
    lab.until_serving("solo", "disk", Duration::from_secs(10));
    let mut again = attach(&lab, "disk");
    assert_eq!(read(&mut again, 112 * MIB - 1, 1), [9]);
    let status = lab.volume("solo", "disk");
    assert_eq!(
        status["notes"].as_array().map(Vec::len),
        Some(0),
        "{status}"
    );
}

#[test]
fn what_cannot_be_resized_says_why_and_changes_nothing() {
    let Stage { daemon, lab } = Stage::new();
    let before = config(&lab);
    for (line, exit, words) in [
        (
            "disk 47MiB",
            1,
            "error[E228]: cannot resize disk on solo: it has 50331648 bytes, and a volume never shrinks",
        ),
        (
            "disk 10TiB",
            1,
            "error[E229]: cannot resize disk on solo: its metadata was made with room for",
        ),
        (
            "disk 5000B",
            9,
            "`size` of [volume.disk] must be a multiple of 4096 bytes",
        ),
        ("disk 64", 2, "the unit is missing"),
        ("none 64MiB", 3, "error[E110]: node solo has no volume none"),
    ] {
        let words_of: Vec<&str> = line.split(' ').collect();
        let ran = lab.pollux("solo", &[&["volume", "resize"], &words_of[..]].concat());
        assert_eq!(ran.exit, exit, "{line}: {ran:?}");
        assert!(ran.stderr.contains(words), "{line}: {ran:?}");
    }
    let same = lab.done("solo", &["volume", "resize", "disk", "48MiB"]);
    assert!(same.stdout.contains("disk has 50331648 bytes"), "{same:?}");
    assert_eq!(config(&lab), before);
    // A larger size in the file is a verb's work, and is named.
    fs::write(lab.config(), before.replace("48MiB", "64MiB")).unwrap();
    let ran = lab.pollux("solo", &["config", "apply"]);
    assert_eq!(ran.exit, 10, "{ran:?}");
    let named = "not done yet: pollux volume resize disk 64MiB";
    assert!(ran.stdout.contains(named), "{ran:?}");
    drop(daemon);
}

#[test]
fn a_crash_between_the_steps_leaves_a_size_that_all_agree_on() {
    if !have_nbdinfo() {
        return;
    }
    let Stage { mut daemon, lab } = Stage::new();
    let mut expected = OLD;
    let mut committed = 0;
    let mut data = attach(&lab, "disk");
    assert_eq!(ask(&mut data, &write(1, OLD - 8192, &[7; 4096]), 0), 0);
    assert_eq!(ask(&mut data, &request(0, 3, 2, 0, 0), 0), 0, "flushed");
    drop(data);
    for round in 0..12_u64 {
        let next = expected + 4 * MIB;
        let word = format!("{}MiB", next / MIB);
        let mut command = lab.command("solo", &["volume", "resize", "disk", &word]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut verb = command.spawn().expect("the binary can be run");
        thread::sleep(Duration::from_millis(round * 2));
        daemon.kill();
        verb.wait().expect("a child can be waited for");
        daemon = lab.serve("solo");
        lab.until_serving("solo", "disk", Duration::from_secs(10));
        let size = size_seen(&lab, "disk");
        assert!([expected, next].contains(&size), "{size} in round {round}");
        assert_eq!(lab.volume("solo", "disk")["size_bytes"], size);
        committed += u64::from(size == next);
        expected = size;
        let mut client = attach(&lab, "disk");
        assert_eq!(read(&mut client, OLD - 8192, 1), [7]);
        assert_eq!(ask(&mut client, &write(2, size - 4096, &[1; 4096]), 0), 0);
    }
    println!("{committed} of 12 growths were committed before the kill");
    // Between the backing and the metadata: the backing is longer, and nothing else.
    daemon.kill();
    let image = lab.node("solo").file("disk.img");
    let file = fs::OpenOptions::new().write(true).open(image).unwrap();
    file.set_len(expected + 64 * MIB).unwrap();
    drop(file);
    let daemon = lab.serve("solo");
    lab.until_serving("solo", "disk", Duration::from_secs(10));
    assert_eq!(size_seen(&lab, "disk"), expected);
    let grown = expected + 64 * MIB;
    let word = format!("{}MiB", grown / MIB);
    lab.done("solo", &["volume", "resize", "disk", &word]);
    // Between the metadata and the file: the volume has its size, and says what the file says.
    daemon.kill();
    let text = config(&lab);
    fs::write(
        lab.config(),
        text.replace(&format!("\"{word}\""), "\"48MiB\""),
    )
    .unwrap();
    let _daemon = lab.serve("solo");
    lab.until_serving("solo", "disk", Duration::from_secs(10));
    assert_eq!(size_seen(&lab, "disk"), grown);
    let note = lab.volume("solo", "disk")["notes"][0].clone();
    let says = format!("the file declares {OLD} bytes, the volume has {grown}");
    assert!(note.as_str().unwrap().starts_with(&says), "{note}");
    lab.done("solo", &["volume", "resize", "disk", &word]);
    assert_eq!(config(&lab), text);
}

#[test]
fn marks_know_what_a_volume_grew_by() {
    if !have_nbdinfo() {
        return;
    }
    let Stage { daemon, lab } = Stage::new();
    lab.done("solo", &["volume", "mark", "create", "disk", "nightly"]);
    let mut client = attach(&lab, "disk");
    assert_eq!(ask(&mut client, &write(1, MIB, &[7; 4096]), 0), 0);
    // More than a page of bits.
    lab.done("solo", &["volume", "resize", "disk", "400MiB"]);
    let new = 400 * MIB;
    let dirty = || -> u64 {
        let uri = lab.node("solo").unix_uri("disk");
        let map = "--map=qemu:dirty-bitmap:nightly";
        let said = client_ok("nbdinfo", &["--json", map, &uri]).stdout;
        let extents: Value = serde_json::from_str(&said).expect("nbdinfo prints JSON");
        let extents = extents.as_array().expect("an array");
        let end = extents.last().expect("it is not empty");
        assert_eq!(
            end["offset"].as_u64().unwrap() + end["length"].as_u64().unwrap(),
            new
        );
        let dirty = extents.iter().filter(|extent| extent["type"] == 1);
        dirty.map(|extent| extent["length"].as_u64().unwrap()).sum()
    };
    assert_eq!(dirty(), 4096 + new - OLD);
    // A mark made from now on does not.
    lab.done("solo", &["volume", "mark", "create", "disk", "later"]);
    let listed = lab.done("solo", &["volume", "mark", "list", "disk", "--json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let later = &listed["marks"][1];
    assert_eq!(
        (&later["name"], &later["dirty_bytes"]),
        (&"later".into(), &0.into())
    );
    daemon.kill();
    let daemon = lab.serve("solo");
    lab.until_serving("solo", "disk", Duration::from_secs(10));
    // The extent that was open counts whole after a crash.
    assert_eq!(dirty(), 4 * MIB + new - OLD);
    assert_eq!(daemon.stop(), 0);
}
