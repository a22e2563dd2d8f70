//! qemu-img and qemu-io.

use std::time::Duration;

use conformance::{Lab, image, tools};
use serde_json::Value;

use crate::stage::{MEBIBYTES, Stage, client, client_ok, word};

const QEMU_IMG: (&str, &str) = ("qemu-img", "qemu-utils");
const QEMU_IO: (&str, &str) = ("qemu-io", "qemu-utils");

#[test]
fn qemu_img_converts_compares_maps_and_describes() {
    if !tools::have(&[QEMU_IMG]) {
        return;
    }
    let stage = Stage::new();
    let folder = tempfile::tempdir_in(stage.lab.path("")).expect("the lab's folder is writable");
    let Some(image) = image::ext4(folder.path(), MEBIBYTES) else {
        return;
    };
    let image = word(&image);
    for place in stage.places() {
        let uri = place.uri.as_str();
        client_ok(
            "qemu-img",
            &["convert", "-n", "-f", "raw", "-O", "raw", image, uri],
        );
        let compared = client_ok(
            "qemu-img",
            &["compare", "-f", "raw", "-F", "raw", image, uri],
        );
        assert!(
            compared.stdout.contains("Images are identical."),
            "{compared:?}"
        );
        let info = client_ok("qemu-img", &["info", "--output=json", "-f", "raw", uri]);
        let info: Value = serde_json::from_str(&info.stdout).expect("qemu-img prints JSON");
        assert_eq!(info["virtual-size"], u64::from(MEBIBYTES) << 20);
        let [ours, theirs] = [uri, image].map(mapped_data);
        assert!(
            ours > 0 && ours <= theirs + (2 << 20),
            "{place:?}: {ours} of {theirs} bytes"
        );
    }
    let [first, second] = ["mem", "disk"].map(|volume| stage.lab.node("solo").uri(volume));
    client_ok(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", &first, &second],
    );
}

/// Bytes that qemu-img takes for data.
fn mapped_data(what: &str) -> u64 {
    let ran = client_ok("qemu-img", &["map", "--output=json", "-f", "raw", what]);
    let extents: Value = serde_json::from_str(&ran.stdout).expect("qemu-img prints JSON");
    let extents = extents.as_array().expect("an array of extents");
    let data = extents.iter().filter(|extent| extent["data"] == true);
    data.map(|extent| extent["length"].as_u64().expect("a number"))
        .sum()
}

#[test]
fn qemu_io_reads_what_it_wrote_at_any_alignment() {
    if !tools::have(&[QEMU_IO]) {
        return;
    }
    let stage = Stage::new();
    let commands = [
        // aligned, over the edges of granules and of activity-log extents
        "write -P 0x11 0 64k",
        "write -P 0x22 4194304 4k",
        "write -P 0x33 4190208 8k",
        "read -P 0x33 4190208 8k",
        "read -P 0x11 0 64k",
        // unaligned, inside one granule and over many
        "write -P 0x44 4097 3",
        "read -P 0x11 4096 1",
        "read -P 0x44 4097 3",
        "read -P 0x11 4100 4092",
        "write -P 0x55 10001 20001",
        "read -P 0x11 10000 1",
        "read -P 0x55 10001 20001",
        "read -P 0x11 30002 100",
        // the last byte
        "write -P 0x66 50331647 1",
        "read -P 0x66 50331647 1",
        // zeroes and trims, aligned and not; neighbours keep their bytes
        "write -z 8193 5000",
        "read -P 0 8193 5000",
        "read -P 0x11 8192 1",
        "write -z -u 16k 8k",
        "read -P 0 16k 8k",
        "discard 32k 16k",
        "read -P 0 32k 16k",
        "read -P 0x11 48k 16k",
        "discard 50001 1000",
        "read -P 0 50001 1000",
        "read -P 0x11 50000 1",
        "read -P 0x11 51001 1",
        // FUA, flush, and the longest request
        "write -f -P 0x77 1M 4k",
        "flush",
        "read -P 0x77 1M 4k",
        "write -P 0x78 8M 32M",
        "read -P 0x78 8M 32M",
        "aio_write -P 0x79 2M 64k",
        "aio_write -P 0x7a 3M 64k",
        "aio_flush",
        "read -P 0x79 2M 64k",
        "read -P 0x7a 3M 64k",
    ];
    for place in stage.places() {
        let mut words = vec!["-f", "raw"];
        words.extend(commands.iter().flat_map(|command| ["-c", command]));
        words.push(&place.uri);
        let ran = client_ok("qemu-io", &words);
        let all = format!("{}{}", ran.stdout, ran.stderr);
        assert!(
            !all.contains("failed") && !all.contains("error"),
            "{place:?}\n{all}"
        );
    }
}

#[test]
fn what_a_disk_was_given_survives_a_restart_and_memory_begins_anew() {
    if !tools::have(&[QEMU_IO]) {
        return;
    }
    let stage = Stage::new();
    let write = ["-f", "raw", "-c", "write -f -P 0x5a 5000 70000"];
    for volume in ["mem", "disk"] {
        let uri = stage.lab.node("solo").uri(volume);
        client_ok("qemu-io", &[&write[..], &[&uri]].concat());
    }
    let branch = |lab: &Lab, volume| lab.volume("solo", volume)["generation"]["branch"].clone();
    let before = ["mem", "disk"].map(|volume| branch(&stage.lab, volume));
    let Stage { daemon, lab } = stage;
    assert_eq!(daemon.stop(), 0);
    let _daemon = lab.serve("solo");
    for (volume, pattern) in [("mem", "0"), ("disk", "0x5a")] {
        lab.until_serving("solo", volume, Duration::from_secs(10));
        let uri = lab.node("solo").uri(volume);
        let read = format!("read -P {pattern} 5000 70000");
        client_ok("qemu-io", &["-f", "raw", "-c", &read, &uri]);
    }
    let after = ["mem", "disk"].map(|volume| branch(&lab, volume));
    // What memory held is gone, and nothing may take the new content for a continuation.
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1], before[1]);
}

#[test]
fn a_read_only_export_refuses_writers() {
    if !tools::have(&[QEMU_IO]) {
        return;
    }
    let stage = Stage::new();
    let uri = stage.lab.node("solo").uri("disk-ro");
    let ran = client("qemu-io", &["-f", "raw", "-c", "write -P 1 0 4k", &uri]);
    assert_ne!(ran.exit, 0, "{ran:?}");
    client_ok(
        "qemu-io",
        &["-r", "-f", "raw", "-c", "read -P 0 0 4k", &uri],
    );
}
