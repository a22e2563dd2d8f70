//! libnbd through Debian's Python: structured replies, block status, flags, errors by number.

use std::process::Command;

use conformance::tools;

use crate::stage::{CLIENT_MAX, Stage};

#[test]
fn libnbd_finds_the_protocol_as_it_is_written() {
    if !tools::have_python_libnbd() {
        return;
    }
    let stage = Stage::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/libnbd_checks.py");
    let read_only = stage.lab.node("solo").uri("disk-ro");
    for place in stage.places() {
        let mut command = Command::new("/usr/bin/python3");
        command.arg("-B").arg(script).args([&place.uri, &read_only]);
        let ran = tools::run(command, CLIENT_MAX);
        assert_eq!(ran.exit, 0, "{place:?}\n{}\n{}", ran.stdout, ran.stderr);
        assert!(
            ran.stdout.ends_with("all checks passed\n"),
            "{}",
            ran.stdout
        );
    }
}
