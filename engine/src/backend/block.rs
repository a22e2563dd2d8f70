//! A block device: exclusive, its first bytes only, identified by what the system knows of it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use engine_core::meta;
use engine_ring::sys::block::{discard, size_bytes, zero_out};
use rustix::fs::{FallocateFlags, fallocate, fstat, major, minor};

use crate::backend::signature::{self, LOOK_BYTES};
use crate::backend::{DiskKind, OpenedDisk, StoreError, file, has_room};
use crate::control::{Allocation, Cache, Completion};

/// Linux's O_EXCL on a device: refused while it is mounted, swapped to, or part of another one.
const EXCLUSIVE: i32 = rustix::fs::OFlags::EXCL.bits() as i32;
/// Bytes zeroed per call, so that the thread answers signals now and then.
const PIECE: u64 = 256 << 20;

/// Opens exclusively and locks; the device holds at least `size` bytes.
pub(crate) fn open(
    path: &Path,
    size: u64,
    cache: Cache,
    completion: Completion,
) -> Result<OpenedDisk, StoreError> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(EXCLUSIVE)
        .open(path);
    let device = device.map_err(|e| match e.kind() {
        io::ErrorKind::ResourceBusy => StoreError::InUse {
            path: path.display().to_string(),
            by: "mounted, or part of another device",
        },
        _ => StoreError::io("cannot open", path)(e),
    })?;
    file::lock(&device, path)?;
    let found = size_bytes(&device).map_err(StoreError::io("cannot size", path))?;
    has_room(path, found, size)?;
    let is_direct = cache == Cache::Direct && file::try_direct(device.as_fd());
    let has_volatile_cache = !is_direct || !is_write_through(device.as_fd());
    let fd = OwnedFd::from(device);
    let (access, notes) = file::way(&fd, path, (cache, completion), is_direct)?;
    Ok(OpenedDisk {
        fd,
        guard: None,
        kind: DiskKind::Device,
        is_direct,
        access,
        notes,
        has_volatile_cache,
    })
}

/// What the device holds already, by its signature.
pub(crate) fn content(fd: BorrowedFd<'_>) -> io::Result<Option<&'static str>> {
    // A second description without O_DIRECT: the look needs no aligned buffer.
    let device = fs::File::open(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&fd)
    ))?;
    let mut head = vec![0; LOOK_BYTES];
    let mut filled = 0;
    while filled < head.len() {
        match device.read_at(&mut head[filled..], filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(signature::find(&head[..filled]))
}

/// Makes the first `size` bytes ready for a new volume: released where thin, zeroed where full.
pub(crate) fn clear(fd: BorrowedFd<'_>, size: u64, allocation: Allocation) -> io::Result<()> {
    if allocation == Allocation::Thin {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // A device that can do neither keeps what it holds: the founder's content counts.
        let _ = fallocate(fd, flags, 0, size).is_ok() || discard(fd, 0, size).is_ok();
        return Ok(());
    }
    let mut at = 0;
    while at < size {
        let len = PIECE.min(size - at);
        zero_out(fd, at, len)?;
        at += len;
    }
    Ok(())
}

/// Zeros from `at` to `end`, durably.
pub(crate) fn zero(fd: BorrowedFd<'_>, mut at: u64, end: u64) -> io::Result<()> {
    while at < end {
        let len = PIECE.min(end - at);
        zero_out(fd, at, len)?;
        at += len;
    }
    Ok(rustix::fs::fsync(fd)?)
}

/// Destroys the content: zeros where possible, released otherwise.
pub(crate) fn wipe(fd: BorrowedFd<'_>, size: u64) -> io::Result<()> {
    clear(fd, size, Allocation::Full).or_else(|_| discard(fd, 0, size))
}

/// What binds metadata to this device: WWN or partition UUID where known, else its number.
pub(crate) fn identity(fd: BorrowedFd<'_>) -> io::Result<meta::Backing> {
    let dir = sys_dir(fd)?;
    let word = partition_uuid(&dir)
        .or_else(|| read_word(&dir.join("wwid")))
        .or_else(|| read_word(&dir.join("device/wwid")))
        .or_else(|| read_word(&dir.join("dm/uuid")))
        .or_else(|| read_word(&dir.join("loop/backing_file")))
        .unwrap_or_else(|| dir.display().to_string());
    let mut identity = [0; 32];
    if word.len() <= identity.len() {
        identity[..word.len()].copy_from_slice(word.as_bytes());
    } else {
        // Long names are told apart by two checksums and their end.
        let sum = crate::sums::bytes(word.as_bytes());
        identity[..8].copy_from_slice(&sum.to_le_bytes());
        identity[8..].copy_from_slice(&word.as_bytes()[word.len() - 24..]);
    }
    Ok(meta::Backing {
        kind: meta::BackingKind::Device,
        identity,
        size: size_bytes(fd)?,
    })
}

fn sys_dir(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let device = fstat(fd)?.st_rdev;
    Ok(PathBuf::from(format!(
        "/sys/dev/block/{}:{}",
        major(device),
        minor(device)
    )))
}

fn read_word(path: &Path) -> Option<String> {
    let word = fs::read_to_string(path).ok()?.trim().to_owned();
    (!word.is_empty()).then_some(word)
}

fn partition_uuid(dir: &Path) -> Option<String> {
    let event = fs::read_to_string(dir.join("uevent")).ok()?;
    event
        .lines()
        .find_map(|line| line.strip_prefix("PARTUUID="))
        .map(str::to_owned)
}

fn is_write_through(fd: BorrowedFd<'_>) -> bool {
    let Ok(dir) = sys_dir(fd) else { return false };
    // A partition's queue is its parent's.
    [
        dir.join("queue/write_cache"),
        dir.join("../queue/write_cache"),
    ]
    .iter()
    .find_map(|path| read_word(path))
    .is_some_and(|word| word == "write through")
}
