//! A Linux kernel in QEMU as the client of a failover (`guest.py`).
//!
//! The guest attaches with two connections, makes ext4, runs fio with verify, and writes files
//! that it syncs. In mid-load the primary is killed; the other node is promoted, the guest
//! attaches there, and every file whose fsync was answered has to be there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use conformance::tools;

use crate::Pair;

/// Size of the volume, MiB.
const MEBIBYTES: u64 = 64;

/// What QEMU, the guest's image and its checks are made of: (program, Debian package).
const NEEDED: [(&str, &str); 6] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("nbd-client", "nbd-client"),
    ("fio", "fio"),
    ("zstd", "zstd"),
    ("depmod", "kmod"),
];

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
