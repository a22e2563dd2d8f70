//! Where a replica's bytes live: one file per kind of store, one line in [`Store`].
//!
//! ```text
//!  control thread: open / create / wipe (blocking) ─► Opened ─► reactor: Store
//!  driver:  memory ─ copied inline      file, block device ─ operations of the ring
//! ```
//! Only whole granules reach a store. Not here: ordering, retries, what a failure means.

pub(crate) mod block;
pub(crate) mod file;
pub(crate) mod holes;
pub(crate) mod memory;
pub(crate) mod namespace;
pub(crate) mod signature;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use engine_core::event::DiskError;
use engine_core::message::Zeroing;
use engine_core::units::ByteRange;
use engine_ring::{Access, Errno, FileId};

use crate::control::Allocation;
use holes::HoleMap;
use memory::Memory;

/// A store before a reactor has it.
#[derive(Debug)]
pub(crate) enum Opened {
    /// Anonymous memory.
    Memory(Memory),
    /// A regular file or a block device, locked.
    Disk(OpenedDisk),
}

/// An opened file or device.
#[derive(Debug)]
pub(crate) struct OpenedDisk {
    pub(crate) fd: OwnedFd,
    /// Of a namespace, its block device, held so that nobody else uses it.
    pub(crate) guard: Option<OwnedFd>,
    pub(crate) kind: DiskKind,
    /// Past the page cache.
    pub(crate) is_direct: bool,
    /// How its operations reach the device.
    pub(crate) access: Access,
    /// What an operator should know of how it was opened.
    pub(crate) notes: Vec<String>,
    /// What was written may be lost in a power cut until a flush.
    pub(crate) has_volatile_cache: bool,
}

/// What a descriptor leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskKind {
    /// Regular file.
    File,
    /// Block device.
    Device,
    /// NVMe namespace by its generic character device (`/dev/ngXnY`), past the block layer.
    Namespace,
}

/// A store on its reactor.
#[derive(Debug)]
pub(crate) enum Store {
    /// Anonymous memory.
    Memory(Memory),
    /// A file or device in the ring's table.
    Disk(Disk),
}

impl OpenedDisk {
    /// Where a file or device can be looked at, sized and cleared.
    pub(crate) fn plain_fd(&self) -> BorrowedFd<'_> {
        self.guard.as_ref().unwrap_or(&self.fd).as_fd()
    }
}

impl Store {
    /// Has `size` bytes from now on; false where memory has no room for them. A file or device
    /// has them already.
    #[must_use]
    pub(crate) fn grow(&mut self, size: u64) -> bool {
        match self {
            Store::Memory(memory) => memory.grow(size),
            Store::Disk(disk) => {
                disk.holes.grow(size);
                true
            }
        }
    }

    /// The first run of at least `min` bytes of known zeros in the range, whole granules but for
    /// the ends of the range.
    pub(crate) fn first_hole(&mut self, range: ByteRange, min: u64) -> Option<ByteRange> {
        match self {
            Store::Memory(memory) => memory.first_hole(range, min),
            Store::Disk(disk) => disk.holes.first_hole(range, min),
        }
    }
}

/// A file or device in the ring's table.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) file: FileId,
    /// What keeps others away while this exists.
    _guard: Option<OwnedFd>,
    kind: DiskKind,
    allocation: Allocation,
    /// Ways of zeroing that the store refused once; not tried again.
    refused: [bool; ZeroStep::COUNT],
    /// What is known to read as zeros.
    pub(crate) holes: HoleMap,
}

/// One way to make zeros, in falling order of speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ZeroStep {
    /// `fallocate`, blocks released.
    Punch,
    /// `fallocate`, blocks kept.
    ZeroRange,
    /// BLKZEROOUT.
    ZeroOut,
    /// Zeros written from a buffer; always possible.
    Write,
}

impl ZeroStep {
    const COUNT: usize = 4;
}

impl Disk {
    /// A store of `size` bytes.
    pub(crate) fn new(file: FileId, kind: DiskKind, allocation: Allocation, size: u64) -> Disk {
        Disk {
            file,
            _guard: None,
            kind,
            allocation,
            refused: [false; ZeroStep::COUNT],
            holes: HoleMap::new(size, kind == DiskKind::File),
        }
    }

    /// Keeps `guard` open as long as the store is.
    pub(crate) fn guarded_by(self, guard: Option<OwnedFd>) -> Disk {
        Disk {
            _guard: guard,
            ..self
        }
    }

    pub(crate) fn kind(&self) -> DiskKind {
        self.kind
    }

    /// The fastest way that was not refused before.
    pub(crate) fn zero_step(&self, zeroing: Zeroing) -> ZeroStep {
        let releases = zeroing != Zeroing::Allocate && self.allocation == Allocation::Thin;
        let ways: &[ZeroStep] = match (self.kind, releases) {
            (DiskKind::File, true) => &[ZeroStep::Punch, ZeroStep::ZeroRange],
            (DiskKind::File, false) => &[ZeroStep::ZeroRange],
            (DiskKind::Namespace, true) => &[ZeroStep::Punch, ZeroStep::ZeroRange],
            (DiskKind::Namespace, false) => &[ZeroStep::ZeroRange],
            (DiskKind::Device, true) => &[ZeroStep::Punch, ZeroStep::ZeroOut],
            (DiskKind::Device, false) => &[ZeroStep::ZeroRange, ZeroStep::ZeroOut],
        };
        let usable = ways.iter().find(|step| !self.refused[**step as usize]);
        usable.copied().unwrap_or(ZeroStep::Write)
    }

    /// Whether `errno` says that the store has no such operation, so that another way is due.
    /// It is remembered.
    pub(crate) fn refuses(&mut self, step: ZeroStep, errno: Errno) -> bool {
        let kind = io::Error::from(errno).kind();
        let has_none = matches!(
            kind,
            io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput
        );
        if !has_none || step == ZeroStep::Write {
            return false;
        }
        self.refused[step as usize] = true;
        true
    }
}

/// Which of the core's two errors a kernel error is.
pub(crate) fn disk_error(errno: Errno) -> DiskError {
    match io::Error::from(errno).kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            DiskError::NoSpace
        }
        _ => DiskError::Io,
    }
}

/// A store cannot be opened or made as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Nothing at that path.
    #[error("{0} does not exist")]
    Missing(String),
    /// Something is there already.
    #[error("{0} exists")]
    Exists(String),
    /// None of what can hold a replica.
    #[error("{0} is neither a regular file, nor a block device, nor an NVMe generic device")]
    Kind(String),
    /// Another process has it, or it is mounted.
    #[error("{path} is in use: {by}")]
    InUse {
        /// Which.
        path: String,
        /// By whom, as far as known.
        by: &'static str,
    },
    /// Its size does not fit.
    #[error("{path} holds {found} bytes, the volume asks for {expected}")]
    Size {
        /// Which.
        path: String,
        /// Bytes it holds.
        found: u64,
        /// Bytes wanted.
        expected: u64,
    },
    /// Another file or device stands where the volume's was.
    #[error("{0} is not what the volume is attached to")]
    Replaced(String),
    /// Its operations cannot go the way that was asked for.
    #[error("{path} cannot be {how}: {why}")]
    Way {
        /// Which.
        path: String,
        /// What was asked for.
        how: &'static str,
        /// Why not.
        why: String,
    },
    /// It holds somebody's data.
    #[error("{path} holds {what}")]
    Signature {
        /// Which.
        path: String,
        /// Whose.
        what: &'static str,
    },
    /// The system refused.
    #[error("{doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
        move |source| StoreError::Io {
            doing,
            path: path.display().to_string(),
            source,
        }
    }

    /// There is too little room for what was asked.
    pub(crate) fn is_out_of_room(&self) -> bool {
        match self {
            StoreError::Size { .. } => true,
            StoreError::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::FileTooLarge
            ),
            _ => false,
        }
    }

    /// A store of `found` bytes is no store of `expected`.
    pub(crate) fn size(path: &Path, found: u64, expected: u64) -> StoreError {
        StoreError::Size {
            path: path.display().to_string(),
            found,
            expected,
        }
    }
}

/// Errors: a store of `found` bytes has no room for `size`.
pub(crate) fn has_room(path: &Path, found: u64, size: u64) -> Result<(), StoreError> {
    match found >= size {
        true => Ok(()),
        false => Err(StoreError::size(path, found, size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(kind: DiskKind, allocation: Allocation) -> Disk {
        let (mut ring, _arena) = crate::testing::ring();
        let file = ring.register(std::fs::File::open("/dev/null").unwrap().into());
        Disk::new(file, kind, allocation, 1 << 20)
    }

    #[test]
    fn full_allocation_never_releases_blocks() {
        let file = disk(DiskKind::File, Allocation::Full);
        assert_eq!(file.zero_step(Zeroing::Trim), ZeroStep::ZeroRange);
        let device = disk(DiskKind::Device, Allocation::Full);
        assert_eq!(device.zero_step(Zeroing::MayTrim), ZeroStep::ZeroRange);
    }

    #[test]
    fn a_refused_way_falls_back_to_the_next_and_at_last_to_writing() {
        let mut disk = disk(DiskKind::File, Allocation::Thin);
        for step in [ZeroStep::Punch, ZeroStep::ZeroRange] {
            assert_eq!(disk.zero_step(Zeroing::Trim), step);
            assert!(disk.refuses(step, Errno::OPNOTSUPP));
        }
        assert_eq!(disk.zero_step(Zeroing::Trim), ZeroStep::Write);
        assert!(!disk.refuses(ZeroStep::Write, Errno::INVAL));
        assert!(!disk.refuses(ZeroStep::Punch, Errno::IO));
    }

    #[test]
    fn only_a_lack_of_room_is_no_space() {
        assert_eq!(disk_error(Errno::NOSPC), DiskError::NoSpace);
        assert_eq!(
            disk_error(Errno::of(&rustix::io::Errno::DQUOT.into())),
            DiskError::NoSpace
        );
        assert_eq!(
            disk_error(Errno::of(&rustix::io::Errno::FBIG.into())),
            DiskError::NoSpace
        );
        assert_eq!(disk_error(Errno::IO), DiskError::Io);
        assert_eq!(disk_error(Errno::INVAL), DiskError::Io);
    }
}
