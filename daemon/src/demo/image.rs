//! A real disk image: an ext4 file system with files of this machine, or, where no mke2fs is
//! installed, those files one after another.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Files that real systems have, from text to programs. All are read only.
const SOURCES: [&str; 5] = [
    "/usr/share/doc",
    "/usr/share/man",
    "/usr/bin",
    "/usr/share",
    "/usr/lib",
];

/// Bytes of files that are taken: leaves room for holes.
const FILES_BYTES_MAX: u64 = 96 << 20;
const FILES_MAX: usize = 6_000;
const FILE_BYTES_MAX: u64 = 16 << 20;

/// An image in a file.
pub(super) struct Image {
    pub(super) file: File,
    /// What it is, for people.
    pub(super) words: String,
    pub(super) is_ext4: bool,
}

/// Makes an image of `size` bytes at `path`, with `scratch` as working space. Errors: the
/// folder cannot be written, or this machine has no files to read.
pub(super) fn make(path: &Path, scratch: &Path, size: u64) -> io::Result<Image> {
    let (count, bytes) = collect(scratch)?;
    let mebibytes = size >> 20;
    let files = format!("{count} files of this machine, {} MiB", bytes >> 20);
    let is_ext4 = format_ext4(path, scratch, mebibytes)?;
    let words = match is_ext4 {
        true => format!("ext4 image of {mebibytes} MiB: {files}"),
        false => {
            concatenate(path, scratch, size)?;
            format!("{files} (install e2fsprogs to see a file system)")
        }
    };
    fs::remove_dir_all(scratch)?;
    let file = File::open(path)?;
    Ok(Image {
        file,
        words,
        is_ext4,
    })
}

/// Copies files into `scratch` until it holds enough.
fn collect(scratch: &Path) -> io::Result<(usize, u64)> {
    fs::create_dir(scratch)?;
    let (mut count, mut bytes) = (0, 0);
    if let Ok(own) = std::env::current_exe() {
        take(&own, &scratch.join("pollux"), &mut count, &mut bytes)?;
    }
    for source in SOURCES {
        let mut folders = vec![PathBuf::from(source)];
        while let Some(folder) = folders.pop() {
            if count >= FILES_MAX || bytes >= FILES_BYTES_MAX {
                return Ok((count, bytes));
            }
            visit(&folder, scratch, &mut folders, &mut count, &mut bytes)?;
        }
    }
    match count {
        0 => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "this machine has no files to read",
        )),
        _ => Ok((count, bytes)),
    }
}

/// Copies the regular files of one folder and adds its folders to the list; what cannot be read
/// is passed over.
fn visit(
    folder: &Path,
    scratch: &Path,
    folders: &mut Vec<PathBuf>,
    count: &mut usize,
    bytes: &mut u64,
) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    let inside = scratch.join(folder.strip_prefix("/").unwrap_or(folder));
    fs::create_dir_all(&inside)?;
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => folders.push(entry.path()),
            Ok(kind) if kind.is_file() && *count < FILES_MAX && *bytes < FILES_BYTES_MAX => {
                take(&entry.path(), &inside.join(entry.file_name()), count, bytes)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn take(from: &Path, to: &Path, count: &mut usize, bytes: &mut u64) -> io::Result<()> {
    // What cannot be read, or vanished meanwhile, is not missed.
    let Ok(source) = File::open(from) else {
        return Ok(());
    };
    let mut copy = File::create(to)?;
    *bytes += io::copy(&mut source.take(FILE_BYTES_MAX), &mut copy)?;
    *count += 1;
    Ok(())
}

/// False if mke2fs is not there or too old for `-d`.
fn format_ext4(path: &Path, tree: &Path, mebibytes: u64) -> io::Result<bool> {
    let Some(mke2fs) = program("mke2fs") else {
        return Ok(false);
    };
    let mut command = Command::new(mke2fs);
    command
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .arg(tree)
        .arg(path);
    command.arg(format!("{mebibytes}M")).stdin(Stdio::null());
    let output = command.output()?;
    if !output.status.success() {
        // What it left must not shine through what is written instead.
        let _ = fs::remove_file(path);
    }
    Ok(output.status.success())
}

fn concatenate(path: &Path, tree: &Path, size: u64) -> io::Result<()> {
    let mut image = File::create(path)?;
    let (mut folders, mut left) = (vec![tree.to_owned()], size);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
                continue;
            }
            left -= io::copy(&mut File::open(entry.path())?.take(left), &mut image)?;
        }
    }
    image.flush()?;
    image.set_len(size)
}

/// A program, looked for also where root's programs lie.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    let mut candidates = folders.map(|folder| Path::new(folder).join(name));
    candidates.find(|candidate| candidate.is_file())
}
