//! A Linux kernel in QEMU as the client of a failover (`guest.py`).
//!
//! The guest attaches with two connections, makes ext4, runs fio with verify, and writes files
//! that it syncs. In mid-load the primary is killed; the other node is promoted, the guest
//! attaches there, and every file whose fsync was answered has to be there.
//!
//! [`takeovers`] takes the primary over under the guest's ext4 and fio (`guest_takeovers.py`).
//!
//! [`stress`] runs exercisers on ext4 and XFS (`guest_stress.py`) while the secondary is killed and
//! comes back.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use conformance::tools;

use crate::{Pair, restarts};

/// Size of the volume, MiB.
const MEBIBYTES: u64 = 64;

/// What QEMU, the guest's image and its checks are made of: (program, Debian package).
const NEEDED: [(&str, &str); 9] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("nbd-client", "nbd-client"),
    ("fio", "fio"),
    ("zstd", "zstd"),
    ("depmod", "kmod"),
    ("mkfs.xfs", "xfsprogs"),
    ("stress-ng", "stress-ng"),
    ("fstrim", "util-linux"),
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
    let ports = crate::NODES.map(|node| pair.lab.node(node).nbd.number.to_string());
    let mut command = Command::new("python3");
    command
        .args(["-B", concat!(env!("CARGO_MANIFEST_DIR"), "/guest.py")])
        .args([&ports[0], &ports[1], "v"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut guest = command.spawn().expect("python3 can be run");
    let mut told = guest.stdin.take().expect("it was piped");
    let said = BufReader::new(guest.stdout.take().expect("it was piped"));
    let mut is_done = false;
    for line in said.lines() {
        let line = line.expect("the guest's words are text");
        println!("{line}");
        match line.as_str() {
            "kill" => {
                let began = Instant::now();
                pair.kill(0);
                let promoted = pair.promote(1, "10s");
                assert_eq!(promoted.exit, 0, "{promoted:?}");
                println!("# killed and promoted: {} ms", began.elapsed().as_millis());
                // A guest that ended meanwhile shows in its exit code.
                let _ = told.write_all(b"promoted\n");
            }
            "done" => is_done = true,
            _ => {}
        }
    }
    let status = guest.wait().expect("a child can be waited for");
    assert!(
        status.success() && is_done,
        "the guest's checks failed: {status}"
    );
    pair.start(0);
    pair.until_healthy(1);
    pair.stop_and_compare(1, MEBIBYTES);
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
    let port = pair.lab.node(crate::NODES[0]).nbd.number.to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/guest_takeovers.py");
    let mut command = Command::new("python3");
    command
        .args(["-B", script, &port, "v", &rounds.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut guest = command.spawn().expect("python3 can be run");
    let mut told = guest.stdin.take().expect("it was piped");
    let said = BufReader::new(guest.stdout.take().expect("it was piped"));
    let mut is_done = false;
    for line in said.lines() {
        let line = line.expect("the guest's words are text");
        println!("{line}");
        match line.as_str() {
            "take over" => {
                let began = Instant::now();
                restarts::take_over(&mut pair, 0);
                println!("# taken over: {} ms", began.elapsed().as_millis());
                // A guest that ended meanwhile shows in its exit code.
                let _ = told.write_all(b"taken\n");
            }
            "done" => is_done = true,
            _ => {}
        }
    }
    let status = guest.wait().expect("a child can be waited for");
    assert!(
        status.success() && is_done,
        "the guest's checks failed: {status}"
    );
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
    let port = pair.lab.node(crate::NODES[0]).nbd.number.to_string();
    let mut command = Command::new("python3");
    command
        .args([
            "-B",
            concat!(env!("CARGO_MANIFEST_DIR"), "/guest_stress.py"),
        ])
        .args([&port, "v"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut guest = command.spawn().expect("python3 can be run");
    let said = BufReader::new(guest.stdout.take().expect("it was piped"));
    let mut is_done = false;
    for line in said.lines() {
        let line = line.expect("the guest's words are text");
        println!("{line}");
        match line.as_str() {
            "restart" => {
                pair.kill(1);
                pair.start(1);
            }
            "done" => is_done = true,
            _ => {}
        }
    }
    let status = guest.wait().expect("a child can be waited for");
    assert!(
        status.success() && is_done,
        "the guest's checks failed: {status}"
    );
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
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/guest_nvme.py");
    let status = Command::new("python3")
        .args(["-B", script])
        .arg(conformance::binary())
        .stdin(Stdio::null())
        .status();
    let status = status.expect("python3 can be run");
    assert!(status.success(), "the guest's checks failed: {status}");
    true
}
