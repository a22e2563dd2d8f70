//! A replica on a block device: claimed only when empty, exclusive, zeroed by the device.

mod common;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::nodes::*;
use common::{OK, pattern};
use engine::control::{Backing, Request, Role, State};

const SIZE: u64 = 16 << 20;

/// A loop device over a file; detached at the end.
struct Loop(PathBuf);

impl Loop {
    fn new(dir: &Path) -> Option<Loop> {
        let path = dir.join("disk.img");
        File::create(&path).unwrap().set_len(SIZE).unwrap();
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&path)
            .output()
            .ok()?;
        let name = String::from_utf8(made.stdout).ok()?.trim().to_owned();
        (made.status.success() && !name.is_empty()).then(|| Loop(name.into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn a_device_is_claimed_when_empty_and_serves() {
    let dir = tempfile::tempdir().unwrap();
    let Some(device) = Loop::new(dir.path()) else {
        println!("skipped: no loop device (root and the loop module are needed)");
        return;
    };
    let volumes = vec![volume(
        "v",
        SIZE,
        Backing::Path(device.0.clone()),
        &["alpha"],
    )];
    let alpha = launch("alpha", node("alpha", dir.path(), volumes.clone()));

    let disk = OpenOptions::new().write(true).open(&device.0).unwrap();
    disk.write_all_at(b"\x53\xef", 0x438).unwrap();
    disk.sync_all().unwrap();
    let create = || {
        ask(
            &alpha,
            "v",
            Request::Create {
                adopt: false,
                if_absent: false,
            },
        )
    };
    let refusal = create().unwrap_err();
    assert!(refusal.text.contains("ext4"), "{}", refusal.text);
    assert!(refusal.hint.unwrap().contains("--adopt"));
    disk.write_all_at(b"\0\0", 0x438).unwrap();
    disk.sync_all().unwrap();
    drop(disk);
    create().unwrap();
    until("primary", || status(&alpha, "v").role == Role::Primary);

    let mut client = attach(&alpha, "v");
    assert_eq!(client.write(4096, &pattern(1, 1 << 20)), OK);
    assert_eq!(client.write(100, b"unaligned"), OK);
    assert_eq!(client.trim(65536, 65536), OK);
    assert_eq!(client.zero(131_072 + 512, 10_000), OK);
    assert_eq!(client.flush(), OK);
    let mut expected = vec![0; 1 << 20];
    expected[4096..].copy_from_slice(&pattern(1, 1 << 20)[..(1 << 20) - 4096]);
    expected[100..109].copy_from_slice(b"unaligned");
    expected[65536..131_072].fill(0);
    expected[131_584..141_584].fill(0);
    assert!(client.read(0, 1 << 20) == (OK, expected));

    // Nobody else gets it while it is attached.
    let other = tempfile::tempdir().unwrap();
    let beta = launch(
        "beta",
        node("beta", other.path(), {
            let mut volumes = volumes;
            volumes[0].replicas = vec!["beta".into()];
            volumes
        }),
    );
    let refusal = ask(
        &beta,
        "v",
        Request::Create {
            adopt: true,
            if_absent: false,
        },
    )
    .unwrap_err();
    assert_eq!(refusal.code, "E203", "{}", refusal.text);
    drop((client, alpha, beta));
}

#[test]
fn another_device_of_the_same_size_is_not_taken_for_the_old_one() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other = tempfile::tempdir().unwrap();
    let (Some(first), Some(second)) = (Loop::new(dir.path()), Loop::new(other.path())) else {
        println!("skipped: no loop device (root and the loop module are needed)");
        return;
    };
    let spec = |device: &Loop| {
        let backing = Backing::Path(device.0.clone());
        node(
            "alpha",
            data.path(),
            vec![volume("v", SIZE, backing, &["alpha"])],
        )
    };
    let alpha = launch("alpha", spec(&first));
    create(&alpha, "v");
    drop(alpha);
    let alpha = launch("alpha", spec(&second));
    // The first node ended as in a crash: its locks fall when its last operation has ended.
    until("the swap is found", || {
        let found = status(&alpha, "v");
        assert_eq!(found.state, State::Offline);
        found.reason.unwrap().code == "E202"
    });
}
