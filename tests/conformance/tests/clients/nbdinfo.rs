//! nbdinfo of libnbd: what is said of exports.

use conformance::tools;
use serde_json::Value;

use crate::stage::{MEBIBYTES, Stage, client, client_ok, data_bytes, map};

const NBDINFO: (&str, &str) = ("nbdinfo", "libnbd-bin");

#[test]
fn nbdinfo_reads_size_flags_block_sizes_and_contexts() {
    if !tools::have(&[NBDINFO]) {
        return;
    }
    let stage = Stage::new();
    for place in stage.places() {
        let ran = client_ok("nbdinfo", &["--json", &place.uri]);
        let info: Value = serde_json::from_str(&ran.stdout).expect("nbdinfo prints JSON");
        assert_eq!(info["protocol"], "newstyle-fixed");
        assert_eq!(info["structured"], true);
        let export = &info["exports"][0];
        assert_eq!(export["export-name"], place.volume);
        assert_eq!(export["export-size"], u64::from(MEBIBYTES) << 20);
        for (key, value) in [
            ("is_read_only", false),
            ("is_rotational", false),
            ("can_flush", true),
            ("can_fua", true),
            ("can_df", true),
            ("can_trim", true),
            ("can_zero", true),
            ("can_multi_conn", true),
        ] {
            assert_eq!(export[key], value, "{key} of {}", place.uri);
        }
        let sizes =
            ["minimum", "preferred", "maximum"].map(|key| &export[format!("block_size_{key}")]);
        assert_eq!(sizes, [1, 4096, 32 << 20]);
        assert_eq!(export["contexts"][0], "base:allocation");
    }
}

#[test]
fn nbdinfo_lists_every_export() {
    if !tools::have(&[NBDINFO]) {
        return;
    }
    let stage = Stage::new();
    let node = stage.lab.node("solo");
    for uri in [node.uri(""), node.unix_uri("")] {
        let ran = client_ok("nbdinfo", &["--json", "--list", &uri]);
        let info: Value = serde_json::from_str(&ran.stdout).expect("nbdinfo prints JSON");
        let exports = info["exports"].as_array().expect("an array of exports");
        let names: Vec<_> = exports
            .iter()
            .map(|export| &export["export-name"])
            .collect();
        assert_eq!(names, ["mem", "disk", "disk-ro"]);
        assert_eq!(exports[1]["description"], "on a disk");
        let read_only: Vec<_> = exports
            .iter()
            .map(|export| &export["is_read_only"])
            .collect();
        assert_eq!(read_only, [false, false, true]);
    }
}

#[test]
fn nbdinfo_maps_what_was_written_and_nothing_else() {
    if !tools::have(&[NBDINFO, ("qemu-io", "qemu-utils")]) {
        return;
    }
    let stage = Stage::new();
    for place in stage.places().iter().step_by(2) {
        let fresh = map(&place.uri);
        assert_eq!(
            fresh,
            [(0, u64::from(MEBIBYTES) << 20, 3)],
            "a fresh volume is one hole"
        );
        client_ok(
            "qemu-io",
            &["-f", "raw", "-c", "write -P 7 8M 1M", &place.uri],
        );
        let written = map(&place.uri);
        let data: Vec<_> = written.iter().filter(|(.., kind)| *kind == 0).collect();
        assert_eq!(data_bytes(&written), 1 << 20, "{written:?}");
        assert!(
            data.iter().all(|(at, ..)| (8 << 20..9 << 20).contains(at)),
            "{written:?}"
        );
        client_ok("qemu-io", &["-f", "raw", "-c", "discard 8M 1M", &place.uri]);
        assert_eq!(
            data_bytes(&map(&place.uri)),
            0,
            "a trimmed extent is a hole again"
        );
    }
}

#[test]
fn an_export_that_does_not_exist_is_refused() {
    if !tools::have(&[NBDINFO]) {
        return;
    }
    let stage = Stage::new();
    let node = stage.lab.node("solo");
    for uri in [node.uri("nothing"), node.unix_uri("nothing")] {
        let ran = client("nbdinfo", &[&uri]);
        assert_ne!(ran.exit, 0);
        assert!(ran.stderr.contains("server replied with error"), "{ran:?}");
    }
}
