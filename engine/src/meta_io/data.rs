//! The data disk of a replica: made, adopted, opened, bound to its metadata, lengthened, wiped.

use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use engine_core::meta;

use super::{Replica, ReplicaError};
use crate::backend::{DiskKind, OpenedDisk, StoreError, block, file, has_room, namespace};
use crate::control::{Allocation, Backing, Completion, VolumeSpec};

impl Replica<'_> {
    /// The backing, made or adopted, and whether it is a file that was made just now.
    pub(super) fn make_backing(&self, adopt: bool) -> Result<(meta::Backing, bool), ReplicaError> {
        let size = self.spec.size_bytes;
        let path = match self.backing()? {
            Backing::Memory => return Ok((memory_identity(size), false)),
            Backing::Path(path) => path,
        };
        match file::kind_of(path) {
            Err(StoreError::Missing(_)) if !adopt => {
                file::create(path, size, self.spec.allocation)?;
                let disk = file::open(path, size, self.spec.cache, Completion::Interrupt)?;
                Ok((identity(disk.kind, disk.plain_fd(), path)?, true))
            }
            Ok(DiskKind::File) if !adopt => Err(StoreError::Exists(path.display().to_string()))?,
            Ok(kind) => {
                let disk = open_disk(kind, path, self.spec.size_bytes, self.spec)?;
                let backing = identity(disk.kind, disk.plain_fd(), path)?;
                if adopt {
                    exact_size(&backing, path, size)?;
                } else {
                    claim_device(&disk, path, size, self.spec.allocation)?;
                }
                Ok((backing, false))
            }
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn wipe(&self, path: &Path) -> Result<(), StoreError> {
        match file::kind_of(path)? {
            DiskKind::File => {
                let removed = fs::remove_file(path).and_then(|()| file::sync_parent(path));
                removed.map_err(StoreError::io("cannot remove", path))
            }
            kind => {
                let disk = open_disk(kind, path, self.spec.size_bytes, self.spec)?;
                let wiped = block::wipe(disk.plain_fd(), self.spec.size_bytes);
                wiped.map_err(StoreError::io("cannot wipe", path))
            }
        }
    }
}

/// What the backing of a volume is to hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengthening {
    /// The backing it must still be.
    pub(crate) backing: meta::Backing,
    /// Bytes it is to hold.
    pub(crate) size: u64,
    /// From here on it is to hold zeros; `None`: what it holds beyond the volume already becomes
    /// part of it as it is.
    pub(crate) zeros_from: Option<u64>,
}

/// Makes the backing long enough, durably; answers the bytes it holds. Blocks.
pub(crate) fn lengthen(spec: &VolumeSpec, order: &Lengthening) -> Result<u64, ReplicaError> {
    let Lengthening {
        backing: expected,
        size,
        zeros_from,
    } = *order;
    let Backing::Path(path) = spec.backing.as_ref().ok_or(ReplicaError::NoBacking)? else {
        return Ok(size);
    };
    let open = OpenOptions::new().read(true).write(true).open(path);
    // Its lock is ours already, with the descriptor that the reactor holds.
    let opened = open.map_err(StoreError::io("cannot open", path))?;
    let kind = file::kind_of(path)?;
    let beside = match kind {
        DiskKind::Namespace => namespace::block_device(opened.as_fd()),
        DiskKind::File | DiskKind::Device => None,
    };
    let open_block = |path: &PathBuf| OpenOptions::new().read(true).write(true).open(path);
    let beside = beside
        .map(|beside| open_block(&beside).map_err(StoreError::io("cannot open", &beside)))
        .transpose()?;
    let plain = beside.as_ref().unwrap_or(&opened);
    let found = identity(kind, plain.as_fd(), path)?;
    if (found.kind, found.identity) != (expected.kind, expected.identity) {
        let path = path.display().to_string();
        return Err(StoreError::Replaced(path).into());
    }
    match kind {
        DiskKind::File => {
            let grown = file::grow(&opened, size, spec.allocation)
                .and_then(|()| file::clear_from(&opened, zeros_from, found.size.min(size)));
            grown.map_err(StoreError::io("cannot grow", path))?;
        }
        DiskKind::Device | DiskKind::Namespace => {
            has_room(path, found.size, size)?;
            if let Some(from) = zeros_from {
                let zeroed = block::zero(plain.as_fd(), from, size);
                zeroed.map_err(StoreError::io("cannot clear", path))?;
            }
        }
    }
    Ok(found.size.max(size))
}

pub(super) fn memory_identity(size: u64) -> meta::Backing {
    meta::Backing {
        kind: meta::BackingKind::Memory,
        identity: [0; 32],
        size,
    }
}

/// Opens what holds at least `size` bytes.
pub(super) fn open_disk(
    kind: DiskKind,
    path: &Path,
    size: u64,
    spec: &VolumeSpec,
) -> Result<OpenedDisk, StoreError> {
    let completion = spec.completion;
    match kind {
        DiskKind::File => file::open(path, size, spec.cache, completion),
        DiskKind::Device => block::open(path, size, spec.cache, completion),
        DiskKind::Namespace => namespace::open(path, size, completion),
    }
}

/// What binds metadata to this backing; of a namespace, `fd` is its block device.
pub(super) fn identity(
    kind: DiskKind,
    fd: BorrowedFd<'_>,
    path: &Path,
) -> Result<meta::Backing, StoreError> {
    let found = match kind {
        DiskKind::File => file::identity(fd),
        DiskKind::Device | DiskKind::Namespace => block::identity(fd),
    };
    found.map_err(StoreError::io("cannot identify", path))
}

fn exact_size(backing: &meta::Backing, path: &Path, size: u64) -> Result<(), StoreError> {
    match backing.size == size {
        true => Ok(()),
        false => Err(StoreError::size(path, backing.size, size)),
    }
}

fn claim_device(
    disk: &OpenedDisk,
    path: &Path,
    size: u64,
    allocation: Allocation,
) -> Result<(), StoreError> {
    let fd = disk.plain_fd();
    if let Some(what) = block::content(fd).map_err(StoreError::io("cannot read", path))? {
        return Err(StoreError::Signature {
            path: path.display().to_string(),
            what,
        });
    }
    block::clear(fd, size, allocation).map_err(StoreError::io("cannot clear", path))
}
