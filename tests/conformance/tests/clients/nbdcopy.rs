//! nbdcopy of libnbd: a real disk image, in and out, over four connections.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use conformance::{image, tools};

use crate::stage::{MEBIBYTES, Stage, client_ok, data_bytes, map, word};

#[test]
fn a_disk_image_comes_back_as_it_was_and_its_holes_stay_holes() {
    if !tools::have(&[("nbdcopy", "libnbd-bin"), ("nbdinfo", "libnbd-bin")]) {
        return;
    }
    let stage = Stage::new();
    let folder = tempfile::tempdir_in(stage.lab.path("")).expect("the lab's folder is writable");
    let Some(image) = image::ext4(folder.path(), MEBIBYTES) else {
        return;
    };
    let allocated = fs::metadata(&image).expect("it was made").blocks() * 512;
    assert!(
        allocated < u64::from(MEBIBYTES) << 19,
        "the image has no holes: {allocated} bytes"
    );
    let sum = image::sha256(&image);
    for place in stage.places() {
        client_ok("nbdcopy", &["--flush", word(&image), &place.uri]);
        let stored = data_bytes(&map(&place.uri));
        // A hole smaller than what nbdcopy looks at is written as zeros; the rest is as it was.
        assert!(
            stored <= allocated + (2 << 20),
            "{place:?}: {stored} of {allocated} bytes"
        );
        if place.volume == "disk" {
            let file = fs::metadata(stage.lab.node("solo").file("disk.img")).expect("the backing");
            assert!(
                file.blocks() * 512 <= allocated + (2 << 20),
                "{place:?}: {file:?}"
            );
        }
        let out = folder.path().join("out.img");
        client_ok("nbdcopy", &[&place.uri, word(&out)]);
        assert_eq!(image::sha256(&out), sum, "{place:?}");
        let copied = fs::metadata(&out).expect("nbdcopy made it").blocks() * 512;
        assert!(
            copied <= allocated + (2 << 20),
            "{place:?}: {copied} of {allocated} bytes"
        );
        fs::remove_file(out).expect("nobody uses it");
    }
    // What a file system check says of the volume that was read from the backing at rest.
    let e2fsck = tools::find("e2fsck").expect("it comes with mke2fs");
    let Stage { daemon, lab } = stage;
    assert_eq!(daemon.stop(), 0);
    let mut check = std::process::Command::new(e2fsck);
    check
        .args(["-f", "-n"])
        .arg(lab.node("solo").file("disk.img"));
    tools::run(check, Duration::from_secs(60)).ok();
}
