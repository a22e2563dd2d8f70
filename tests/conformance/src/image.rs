//! A real disk image: an ext4 file system that holds the sources of this project and its binary.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{binary, tools};

/// Makes an ext4 image of `mebibytes` in `folder`: real files, and holes where nothing was
/// written. `None` if mke2fs is not installed, and says so.
pub fn ext4(folder: &Path, mebibytes: u32) -> Option<PathBuf> {
    if !tools::have(&[("mke2fs", "e2fsprogs"), ("cp", "coreutils")]) {
        return None;
    }
    let tree = folder.join("tree");
    fs::create_dir_all(&tree).expect("the folder is writable");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for name in ["engine", "nbd-server", "daemon"] {
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(root.join(name)).arg(&tree);
        tools::run(copy, Duration::from_secs(30)).ok();
    }
    // As much of the binary as leaves room for holes.
    let mut start = Vec::new();
    let binary = File::open(binary()).expect("the binary can be read");
    let read = binary
        .take(u64::from(mebibytes) << 18)
        .read_to_end(&mut start);
    read.expect("the binary can be read");
    fs::write(tree.join("pollux"), start).expect("the folder is writable");
    let image = folder.join("ext4.img");
    let mut format = Command::new(tools::find("mke2fs").expect("it was found above"));
    format
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .arg(&tree)
        .arg(&image);
    format.arg(format!("{mebibytes}M"));
    tools::run(format, Duration::from_secs(60)).ok();
    Some(image)
}

/// SHA-256 of a file, by the program every administrator would use.
pub fn sha256(path: &Path) -> String {
    let mut command = Command::new("sha256sum");
    command.arg(path);
    let ran = tools::run(command, Duration::from_secs(60)).ok();
    let (sum, _) = ran
        .stdout
        .split_once(' ')
        .expect("sha256sum prints sum and name");
    sum.to_owned()
}
