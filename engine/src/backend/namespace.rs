//! An NVMe namespace by its generic character device (`/dev/ngXnY`): commands past the block layer.
//!
//! Its block device (`/dev/nvmeXnY`) is held open exclusively beside it: that keeps mounts and
//! other users away, and is where it is sized, identified, looked at and cleared. Not here: the
//! commands themselves (`engine_ring::nvme`).

use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use engine_ring::nvme::Namespace;
use engine_ring::sys::nvme::{identify, namespace_id};
use engine_ring::{Access, probe};
use rustix::fs::{fstat, major, minor};

use crate::backend::{DiskKind, OpenedDisk, StoreError, block, file};
use crate::control::{Cache, Completion};

/// Bytes of the smallest transfer that is worth a command of its own, and of a page.
const PAGE: u64 = 4096;
/// Bytes one command moves where the kernel does not say.
const TRANSFER: u64 = 128 << 10;
const TRANSFER_MAX: u64 = 16 << 20;

/// The block device of the same namespace; `None` if the descriptor leads to no such device.
pub(crate) fn block_device(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    let device = fstat(fd).ok()?.st_rdev;
    let link = format!("/sys/dev/char/{}:{}", major(device), minor(device));
    let real = fs::canonicalize(link).ok()?;
    Some(Path::new("/dev").join(sibling(real.file_name()?.to_str()?)?))
}

/// `ng0n1` and `nvme0n1` are one namespace.
fn sibling(generic: &str) -> Option<String> {
    let (controller, namespace) = generic.strip_prefix("ng")?.split_once('n')?;
    let are_numbers = [controller, namespace]
        .iter()
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    are_numbers.then(|| format!("nvme{controller}n{namespace}"))
}

/// Opens both devices; nobody else uses them, and `size` bytes are there.
pub(crate) fn open(
    path: &Path,
    size: u64,
    completion: Completion,
) -> Result<OpenedDisk, StoreError> {
    let refused = |why: String| StoreError::Way {
        path: path.display().to_string(),
        how: "used as an NVMe namespace",
        why,
    };
    let generic = OpenOptions::new().read(true).write(true).open(path);
    let generic: OwnedFd = generic.map_err(StoreError::io("cannot open", path))?.into();
    let Some(beside) = block_device(generic.as_fd()) else {
        return Err(refused("it is no NVMe generic device".to_owned()));
    };
    let disk = block::open(&beside, size, Cache::Direct, Completion::Interrupt)?;
    file::lock(&generic, path)?;
    let queue = Queue::of(&disk.fd).ok_or_else(|| refused("it has no queue".to_owned()))?;
    let id = namespace_id(&generic).map_err(StoreError::io("cannot ask", path))?;
    let identity = identify(&generic, id).map_err(StoreError::io("cannot identify", path))?;
    if identity.metadata_bytes != 0 {
        let bytes = identity.metadata_bytes;
        return Err(refused(format!(
            "its format has {bytes} bytes of metadata beside each block"
        )));
    }
    if !(9..=12).contains(&identity.block_shift) {
        let shift = identity.block_shift;
        return Err(refused(format!("its blocks are 2^{shift} bytes long")));
    }
    let namespace = Namespace {
        id,
        block_shift: identity.block_shift,
        transfer_max: queue.transfer_max() as u32,
        zeroes_max: queue.number("write_zeroes_max_bytes").unwrap_or(0),
        deallocates: identity.zeroes_deallocated
            && queue.number("discard_max_bytes").is_some_and(|max| max > 0),
    };
    let (polled, why) = match (completion, queue.polls()) {
        (Completion::Interrupt, _) => (false, None),
        (_, Ok(())) => (true, None),
        (Completion::PollIfPossible, Err(why)) => (false, Some(why)),
        (Completion::Poll, Err(why)) => return Err(file::cannot_poll(path, why)),
    };
    let access = Access::Nvme { namespace, polled };
    probe(&generic, access).map_err(|refusal| refused(refusal.why))?;
    let commands = format!(
        "NVMe commands go past the block layer of {}",
        beside.display()
    );
    let how = match why {
        Some(why) => format!("; {}: {why}", file::INTERRUPTS),
        None if polled => ", polled".to_owned(),
        None => String::new(),
    };
    Ok(OpenedDisk {
        fd: generic,
        guard: Some(disk.fd),
        kind: DiskKind::Namespace,
        is_direct: true,
        access,
        notes: vec![commands + &how],
        has_volatile_cache: disk.has_volatile_cache,
    })
}

/// What the kernel tells of a block device's queue.
pub(crate) struct Queue(PathBuf);

impl Queue {
    /// Of a device, or of the device under a file.
    pub(crate) fn of(fd: impl AsFd) -> Option<Queue> {
        let found = fstat(fd.as_fd()).ok()?;
        let is_device = rustix::fs::FileType::from_raw_mode(found.st_mode).is_block_device();
        let device = if is_device {
            found.st_rdev
        } else {
            found.st_dev
        };
        let dir = format!("/sys/dev/block/{}:{}", major(device), minor(device));
        // A partition's queue is its parent's.
        let places = [format!("{dir}/queue"), format!("{dir}/../queue")];
        places
            .iter()
            .map(PathBuf::from)
            .find(|dir| dir.is_dir())
            .map(Queue)
    }

    fn number(&self, name: &str) -> Option<u64> {
        fs::read_to_string(self.0.join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Whether its ends can be looked for. Errors: why not.
    pub(crate) fn polls(&self) -> Result<(), String> {
        match self.number("io_poll") {
            Some(1) => Ok(()),
            _ => Err(format!(
                "{} is not 1: the driver was given no queues for polling \
                 (NVMe: the module parameter poll_queues)",
                self.0.join("io_poll").display()
            )),
        }
    }

    /// Bytes one command may move, in whole pages: each page may be a segment of its own.
    fn transfer_max(&self) -> u64 {
        let sectors = self
            .number("max_hw_sectors_kb")
            .map_or(TRANSFER, |kib| kib << 10);
        let segments = self.number("max_segments").unwrap_or(TRANSFER / PAGE);
        let pages = segments.saturating_sub(1).saturating_mul(PAGE);
        (sectors.min(pages).min(TRANSFER_MAX) & !(PAGE - 1)).max(PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generic_device_knows_its_block_device() {
        assert_eq!(sibling("ng0n1").as_deref(), Some("nvme0n1"));
        assert_eq!(sibling("ng12n34").as_deref(), Some("nvme12n34"));
        for other in ["nvme0n1", "ng0", "ngn1", "ng0n", "ng0n1p1", "null"] {
            assert_eq!(sibling(other), None, "{other}");
        }
        let null = fs::File::open("/dev/null").unwrap();
        assert_eq!(block_device(null.as_fd()), None);
    }

    #[test]
    fn another_character_device_is_refused() {
        let refusal = open(Path::new("/dev/null"), 4096, Completion::Interrupt).unwrap_err();
        assert!(
            refusal.to_string().contains("no NVMe generic device"),
            "{refusal}"
        );
    }

    #[test]
    fn a_transfer_is_whole_pages_and_never_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue(dir.path().to_owned());
        assert_eq!(queue.transfer_max(), TRANSFER - PAGE);
        fs::write(dir.path().join("max_hw_sectors_kb"), "512\n").unwrap();
        fs::write(dir.path().join("max_segments"), "127\n").unwrap();
        assert_eq!(queue.transfer_max(), 126 * PAGE);
        fs::write(dir.path().join("max_segments"), "1\n").unwrap();
        assert_eq!(queue.transfer_max(), PAGE);
        assert!(queue.polls().unwrap_err().contains("poll_queues"));
        fs::write(dir.path().join("io_poll"), "1\n").unwrap();
        assert_eq!(queue.polls(), Ok(()));
    }
}
