//! A Linux kernel in QEMU as the client of a failover (`guest.py`).
//!
//! The guest attaches with two connections, makes ext4, runs fio with verify, and writes files
//! that it syncs. In mid-load the primary is killed; the other node is promoted, the guest
//! attaches there, and every file whose fsync was answered has to be there.
//!
//! [`takeovers`] takes the primary over under the guest's ext4 and fio (`guest_takeovers.py`).
//!
//! [`failovers`] kills the primary of a majority again and again under SQLite (`guest_failovers.py`).
//!
//! [`stress`] runs exercisers on ext4 and XFS (`guest_stress.py`) while the secondary is killed and
//! comes back. [`beside_drbd`] counts what DRBD does for the same writes (`guest_drbd.py`).

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use conformance::tools;

use crate::{Pair, Shape, TRIO, Trio, restarts};

/// Size of the volume, MiB.
const MEBIBYTES: u64 = 64;

/// How long it may take until another node serves.
const SERVED_MAX: Duration = Duration::from_secs(60);

/// What QEMU, the guest's image and its checks are made of: (program, Debian package).
const NEEDED: [(&str, &str); 10] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("nbd-client", "nbd-client"),
    ("fio", "fio"),
    ("zstd", "zstd"),
    ("depmod", "kmod"),
    ("mkfs.xfs", "xfsprogs"),
    ("stress-ng", "stress-ng"),
    ("fstrim", "util-linux"),
    ("sqlite3", "sqlite3"),
];

/// Size of the volume under stress, MiB: XFS wants 300.
const STRESS_MEBIBYTES: u64 = 384;

/// Runs the scenario; false, with a line that says what to install, if it cannot run here.
/// Panics: the file system is not clean, or a synced file is lost.
pub fn run() -> bool {
    if !tools::have(&NEEDED) {
        return false;
    }
    let mut pair = Pair::healthy(MEBIBYTES);
    let words = [port(&pair, 0), port(&pair, 1), "v".to_owned()];
    converse("guest.py", &words, |asked| {
        let is_kill = asked == "kill";
        is_kill.then(|| {
            let began = Instant::now();
            pair.kill(0);
            let promoted = pair.promote(1, "10s");
            assert_eq!(promoted.exit, 0, "{promoted:?}");
            println!("# killed and promoted: {} ms", began.elapsed().as_millis());
            "promoted\n"
        })
    });
    pair.start(0);
    pair.until_healthy(1);
    pair.stop_and_compare(1, MEBIBYTES);
    true
}

/// Kills the primary `rounds` times under a data base of the guest's, while a majority has the other
/// copy serve; false, with a line that says what to install, if it cannot run here. Panics: a
/// committed row is lost or changed, the file system is not clean, or the copies differ.
pub fn failovers(rounds: u32) -> bool {
    if !tools::have(&NEEDED) {
        return false;
    }
    let mut trio = Trio::healthy(Shape::Witness, MEBIBYTES, "2s");
    let mut primary = 0;
    let ports = [0, 1].map(|index| trio.lab.node(TRIO[index]).nbd.number.to_string());
    let words = [ports.join(","), "v".to_owned(), rounds.to_string()];
    let mut times = Vec::new();
    let index = |index: usize| ["0\n", "1\n"][index];
    converse_after(index(primary), "guest_failovers.py", &words, |asked| {
        let is_kill = asked == "kill";
        is_kill.then(|| {
            trio.until_healthy(primary);
            let began = Instant::now();
            trio.kill(primary);
            let next = trio.until_primary(SERVED_MAX);
            times.push(began.elapsed());
            trio.start(primary);
            primary = next;
            index(primary)
        })
    });
    assert_eq!(
        times.len() as u32,
        rounds,
        "the guest asked for another number of kills"
    );
    times.sort_unstable();
    if let Some(last) = times.last() {
        let half = times[times.len() / 2];
        println!("# {rounds} failovers, half of them within {half:.2?}, all within {last:.2?}");
    }
    trio.until_healthy(primary);
    trio.stop_and_compare(primary, MEBIBYTES);
    true
}

/// Takes the primary over `rounds` times under the guest's file system; false, with a line that says
/// what to install, if it cannot run here. Panics: the guest sees an error, its file system is not
/// clean, or the copies differ.
pub fn takeovers(rounds: u32) -> bool {
    if !tools::have(&NEEDED) {
        return false;
    }
    let mut pair = Pair::healthy(MEBIBYTES);
    let words = [port(&pair, 0), "v".to_owned(), rounds.to_string()];
    converse("guest_takeovers.py", &words, |asked| {
        let is_takeover = asked == "take over";
        is_takeover.then(|| {
            let began = Instant::now();
            restarts::take_over(&mut pair, 0);
            println!("# taken over: {} ms", began.elapsed().as_millis());
            "taken\n"
        })
    });
    pair.until_healthy(0);
    pair.stop_and_compare(0, MEBIBYTES);
    true
}

/// Runs fsx and stress-ng on ext4 and on XFS; false, with a line that says what to install, if it
/// cannot run here. Panics: an exerciser finds wrong bytes, a check finds damage, or the copies
/// differ.
pub fn stress() -> bool {
    if !tools::have(&NEEDED) {
        return false;
    }
    let mut pair = Pair::healthy(STRESS_MEBIBYTES);
    let words = [port(&pair, 0), "v".to_owned()];
    converse("guest_stress.py", &words, |asked| {
        if asked == "restart" {
            pair.kill(1);
            pair.start(1);
        }
        // The guest does not wait for it.
        None
    });
    pair.until_healthy(0);
    pair.stop_and_compare(0, STRESS_MEBIBYTES);
    true
}

/// Serves a volume on an NVMe device of QEMU's, in the guest, by commands and by blocks, polled
/// and not; false, with a line that says what to install, if it cannot run here. Panics: bytes
/// differ, or what has to be refused is not.
pub fn nvme() -> bool {
    if !tools::have(&NEEDED) {
        return false;
    }
    converse("guest_nvme.py", &[conformance::binary()], |_| None);
    true
}

/// Counts what DRBD 8.4 and a pair of ours do for each mirrored write, and for a resync, in the same two
/// guests (`guest_drbd.py`); false, with a line that says what to install, if it cannot run here.
/// Panics: either never gets its copies equal.
pub fn beside_drbd(writes: u32) -> bool {
    let drbd = [("drbdsetup", "drbd-utils")];
    if !tools::have(&NEEDED) || !tools::have(&drbd) {
        return false;
    }
    let words = [conformance::binary().to_owned(), writes.to_string().into()];
    converse("guest_drbd.py", &words, |_| None);
    true
}

fn port(pair: &Pair, index: usize) -> String {
    pair.lab.node(crate::NODES[index]).nbd.number.to_string()
}

/// Runs a script that has a guest do its work. What it says is printed, and given to `heard`, whose
/// words are its answer. Panics: the script fails, or ends before it is done.
fn converse<W: AsRef<OsStr>>(
    script: &str,
    words: &[W],
    heard: impl FnMut(&str) -> Option<&'static str>,
) {
    converse_after("", script, words, heard);
}

/// As [`converse`], with something to say first.
fn converse_after<W: AsRef<OsStr>>(
    first: &str,
    script: &str,
    words: &[W],
    mut heard: impl FnMut(&str) -> Option<&'static str>,
) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let mut command = Command::new("python3");
    command
        .arg("-B")
        .arg(script)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut guest = command.spawn().expect("python3 can be run");
    let mut told = guest.stdin.take().expect("it was piped");
    let _ = told.write_all(first.as_bytes());
    let said = BufReader::new(guest.stdout.take().expect("it was piped"));
    let mut is_done = false;
    for line in said.lines() {
        let line = line.expect("the guest's words are text");
        println!("{line}");
        is_done |= line == "done";
        if let Some(answer) = heard(&line) {
            // A guest that ended meanwhile shows in its exit code.
            let _ = told.write_all(answer.as_bytes());
        }
    }
    let status = guest.wait().expect("a child can be waited for");
    assert!(
        status.success() && is_done,
        "the guest's checks failed: {status}"
    );
}
