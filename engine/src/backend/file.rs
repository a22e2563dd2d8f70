//! A regular file: O_DIRECT where the file system allows it, sparse or fully written.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use engine_core::meta;
use engine_core::units::{ByteRange, GRANULE};
use engine_ring::sys::block::{direct_limits, try_dontcache};
use engine_ring::{Access, probe};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags, SeekFrom, fcntl_getfl, fcntl_setfl};

use crate::backend::namespace::Queue;
use crate::backend::{DiskKind, OpenedDisk, StoreError, has_room};
use crate::control::{Allocation, Cache, Completion};
use crate::front_end::BlockExtent;

/// Bytes written at a time when every block is written at create.
const PIECE: usize = 4 << 20;

/// What a path leads to, symbolic links followed.
pub(crate) fn kind_of(path: &Path) -> Result<DiskKind, StoreError> {
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::Missing(path.display().to_string()));
        }
        Err(e) => return Err(StoreError::io("cannot look at", path)(e)),
    };
    if found.is_file() {
        Ok(DiskKind::File)
    } else if found.file_type().is_block_device() {
        Ok(DiskKind::Device)
    } else if found.file_type().is_char_device() {
        Ok(DiskKind::Namespace)
    } else {
        Err(StoreError::Kind(path.display().to_string()))
    }
}

/// Makes a new file of `size` bytes, all zeros, durably. It is removed again on failure.
pub(crate) fn create(path: &Path, size: u64, allocation: Allocation) -> Result<(), StoreError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let file = match made {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            return Err(StoreError::Exists(path.display().to_string()));
        }
        Err(e) => return Err(StoreError::io("cannot create", path)(e)),
    };
    let filled = match allocation {
        Allocation::Thin => file.set_len(size),
        Allocation::Full => write_all_blocks(&file, size),
    };
    let done = filled
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_parent(path));
    done.map_err(|e| {
        // The failure is what counts; what cannot be removed is named by the next create.
        let _ = fs::remove_file(path);
        StoreError::io("cannot fill", path)(e)
    })
}

fn write_all_blocks(file: &File, size: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
        Err(e) => return Err(e.into()),
    }
    write_zeros(file, 0, size)
}

/// Makes the file at least `size` bytes long, durably; what is new is zeros. On failure it is as
/// long as before. Blocks.
pub(crate) fn grow(file: &File, size: u64, allocation: Allocation) -> io::Result<()> {
    let before = file.metadata()?.len();
    if before >= size {
        return Ok(());
    }
    let grown = match allocation {
        Allocation::Thin => file.set_len(size),
        Allocation::Full => write_zeros(file, before, size),
    };
    grown.and_then(|()| file.sync_all()).inspect_err(|_| {
        // The failure is what counts; a longer file is in nobody's way.
        let _ = file.set_len(before);
    })
}

/// Zeros from `from` to `end`, durably, if that is anything: released where the file system can.
pub(crate) fn clear_from(file: &File, from: Option<u64>, end: u64) -> io::Result<()> {
    let Some(from) = from.filter(|from| *from < end) else {
        return Ok(());
    };
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if rustix::fs::fallocate(file, punch, from, end - from).is_err() {
        write_zeros(file, from, end)?;
    }
    file.sync_all()
}

/// Writes zeros from `at` to `end`, every block of them.
fn write_zeros(file: &File, mut at: u64, end: u64) -> io::Result<()> {
    let zeros = vec![0; PIECE];
    while at < end {
        let piece = (end - at).min(PIECE as u64);
        file.write_all_at(&zeros[..piece as usize], at)?;
        at += piece;
    }
    Ok(())
}

/// Makes a name's creation or removal durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Opens and locks; the file holds at least `size` bytes.
pub(crate) fn open(
    path: &Path,
    size: u64,
    cache: Cache,
    completion: Completion,
) -> Result<OpenedDisk, StoreError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(StoreError::io("cannot open", path))?;
    lock(&file, path)?;
    let found = file
        .metadata()
        .map_err(StoreError::io("cannot look at", path))?
        .len();
    has_room(path, found, size)?;
    let is_direct = cache == Cache::Direct && try_direct(file.as_fd());
    let fd = OwnedFd::from(file);
    let (access, notes) = way(&fd, path, (cache, completion), is_direct)?;
    Ok(OpenedDisk {
        fd,
        guard: None,
        kind: DiskKind::File,
        is_direct,
        access,
        notes,
        has_volatile_cache: true,
    })
}

/// Takes the lock on the descriptor itself: I/O of a killed process keeps its file open, so the
/// lock falls only when its last write has landed (DESIGN D10).
pub(crate) fn lock(file: impl AsFd, path: &Path) -> Result<(), StoreError> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let path = path.display().to_string();
            Err(StoreError::InUse {
                path,
                by: "another process holds its lock",
            })
        }
        Err(e) => Err(StoreError::io("cannot lock", path)(e.into())),
    }
}

/// Switches to direct I/O. False where the file system has none, or wants more than granules.
pub(crate) fn try_direct(fd: BorrowedFd<'_>) -> bool {
    let fits = match direct_limits(fd) {
        Ok(Some(limits)) => u64::from(limits.memory_align.max(limits.offset_align)) <= GRANULE,
        _ => true,
    };
    let Ok(flags) = fcntl_getfl(fd) else {
        return false;
    };
    fits && fcntl_setfl(fd, flags | OFlags::DIRECT).is_ok()
}

/// How an opened file or device is used, and what is to be said of it. Errors: it cannot be polled
/// and has to.
pub(crate) fn way(
    fd: &OwnedFd,
    path: &Path,
    (cache, completion): (Cache, Completion),
    is_direct: bool,
) -> Result<(Access, Vec<String>), StoreError> {
    let (mut access, note) = match cache {
        Cache::Direct if is_direct => (Access::Plain, None),
        Cache::Direct => (Access::Plain, Some(NO_DIRECT.to_owned())),
        Cache::Buffered => (Access::Plain, Some(BUFFERED.to_owned())),
        Cache::DontCache => match try_dontcache(fd) {
            Ok(()) => (Access::DontCache, Some(DONTCACHE.to_owned())),
            Err(why) => (Access::Plain, Some(format!("{NO_DONTCACHE} ({why})"))),
        },
    };
    let mut notes: Vec<String> = note.into_iter().collect();
    if completion != Completion::Interrupt {
        match polls(fd, is_direct) {
            Ok(()) => {
                access = Access::Polled;
                notes.push(POLLED.to_owned());
            }
            Err(why) if completion == Completion::Poll => return Err(cannot_poll(path, why)),
            Err(why) => notes.push(format!("{INTERRUPTS}: {why}")),
        }
    }
    Ok((access, notes))
}

/// Whether ends of reads and writes can be looked for. Errors: why not.
fn polls(fd: &OwnedFd, is_direct: bool) -> Result<(), String> {
    if !is_direct {
        return Err("data goes through the page cache".to_owned());
    }
    let queue = Queue::of(fd).ok_or("the file system is not on one block device")?;
    queue.polls()?;
    probe(fd, Access::Polled).map_err(|refused| refused.why)
}

/// The refusal of `completion = "poll"`.
pub(crate) fn cannot_poll(path: &Path, why: String) -> StoreError {
    StoreError::Way {
        path: path.display().to_string(),
        how: "polled",
        why,
    }
}

pub(crate) const INTERRUPTS: &str =
    "interrupts tell of the end of disk operations, they cannot be polled";
const POLLED: &str = "disk operations are polled: a CPU is busy while any is in flight";
const NO_DIRECT: &str =
    "the backing's file system has no direct I/O: data goes through the page cache";
const BUFFERED: &str =
    "cache = \"buffered\": data goes through the page cache; a flush reaches the disk";
const DONTCACHE: &str = "cache = \"dontcache\": data goes through the page cache, which keeps \
                         nothing of it; a flush reaches the disk";
const NO_DONTCACHE: &str = "cache = \"dontcache\" is not to be had here, so the page cache keeps \
                            what it likes, as with \"buffered\"";

/// What binds metadata to this file: its inode and size.
pub(crate) fn identity(fd: BorrowedFd<'_>) -> io::Result<meta::Backing> {
    let found = File::from(fd.try_clone_to_owned()?).metadata()?;
    let mut identity = [0; 32];
    identity[..8].copy_from_slice(&found.ino().to_le_bytes());
    Ok(meta::Backing {
        kind: meta::BackingKind::File,
        identity,
        size: found.len(),
    })
}

/// Runs of data and holes from the start of `range` on, at most `max`. Blocks.
pub(crate) fn extents(
    fd: BorrowedFd<'_>,
    range: ByteRange,
    max: usize,
) -> io::Result<Vec<BlockExtent>> {
    let end = range.offset.saturating_add(range.len);
    let (mut at, mut runs) = (range.offset, Vec::new());
    while at < end && runs.len() < max {
        let data = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => u64::MAX,
            Err(e) => return Err(e.into()),
        };
        let (stop, is_hole) = if data > at {
            (data.min(end), true)
        } else {
            (rustix::fs::seek(fd, SeekFrom::Hole(at))?.min(end), false)
        };
        if stop <= at {
            return Err(io::ErrorKind::InvalidData.into());
        }
        runs.push(BlockExtent {
            len: stop - at,
            flags: if is_hole {
                BlockExtent::HOLE | BlockExtent::ZERO
            } else {
                0
            },
        });
        at = stop;
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn blocks(path: &Path) -> u64 {
        fs::metadata(path).unwrap().blocks() * 512
    }

    #[test]
    fn a_thin_file_takes_no_blocks_and_a_full_one_all() {
        let dir = tempfile::tempdir().unwrap();
        let (thin, full) = (dir.path().join("thin"), dir.path().join("full"));
        create(&thin, 9 * MIB, Allocation::Thin).unwrap();
        create(&full, 9 * MIB, Allocation::Full).unwrap();
        assert_eq!(fs::metadata(&thin).unwrap().len(), 9 * MIB);
        assert!(blocks(&thin) < MIB, "{}", blocks(&thin));
        assert!(blocks(&full) >= 9 * MIB, "{}", blocks(&full));
    }

    #[test]
    fn a_file_grows_as_it_is_allocated_and_keeps_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        for (name, allocation) in [("thin", Allocation::Thin), ("full", Allocation::Full)] {
            let path = dir.path().join(name);
            fs::write(&path, [7; 5000]).unwrap();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            grow(&file, 9 * MIB, allocation).unwrap();
            let bytes = fs::read(&path).unwrap();
            assert_eq!(bytes.len() as u64, 9 * MIB);
            assert!(bytes[..5000].iter().all(|b| *b == 7) && bytes[5000..].iter().all(|b| *b == 0));
            assert_eq!(blocks(&path) >= 9 * MIB, allocation == Allocation::Full);
            grow(&file, MIB, allocation).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), 9 * MIB);
        }
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::write(&path, "precious").unwrap();
        let refusal = create(&path, MIB, Allocation::Thin).unwrap_err();
        assert!(matches!(refusal, StoreError::Exists(_)));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn an_open_file_cannot_be_opened_again_and_a_closed_one_can() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        create(&path, MIB, Allocation::Thin).unwrap();
        let held = open(&path, MIB, Cache::Direct, Completion::Interrupt).unwrap();
        assert!(matches!(
            open(&path, MIB, Cache::Direct, Completion::Interrupt),
            Err(StoreError::InUse { .. })
        ));
        drop(held);
        open(&path, MIB, Cache::Direct, Completion::Interrupt).unwrap();
    }

    #[test]
    fn only_a_direct_file_goes_past_the_page_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        create(&path, MIB, Allocation::Thin).unwrap();
        for (cache, may_be_direct) in CACHES {
            let disk = open(&path, MIB, cache, Completion::Interrupt).unwrap();
            let flags = fcntl_getfl(&disk.fd).unwrap();
            assert_eq!(flags.contains(OFlags::DIRECT), disk.is_direct);
            assert!(may_be_direct || !disk.is_direct);
            assert!(disk.has_volatile_cache, "a flush is never left out");
        }
    }

    const CACHES: [(Cache, bool); 3] = [
        (Cache::Direct, true),
        (Cache::Buffered, false),
        (Cache::DontCache, false),
    ];

    #[test]
    fn what_the_page_cache_does_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        create(&path, MIB, Allocation::Thin).unwrap();
        let disk = open(&path, MIB, Cache::DontCache, Completion::Interrupt).unwrap();
        let is_there = try_dontcache(&disk.fd).is_ok();
        assert_eq!(disk.access == Access::DontCache, is_there);
        let lacks = disk.notes[0].contains("not to be had");
        assert_eq!(lacks, !is_there, "{:?}", disk.notes);
        drop(disk);
        let disk = open(&path, MIB, Cache::Buffered, Completion::Interrupt).unwrap();
        assert_eq!((disk.access, disk.notes.len()), (Access::Plain, 1));
    }

    #[test]
    fn what_cannot_be_polled_is_refused_or_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        create(&path, MIB, Allocation::Thin).unwrap();
        let refusal = open(&path, MIB, Cache::Buffered, Completion::Poll).unwrap_err();
        assert!(
            refusal.to_string().contains("cannot be polled"),
            "{refusal}"
        );
        let disk = open(&path, MIB, Cache::Buffered, Completion::PollIfPossible).unwrap();
        assert_eq!(disk.access, Access::Plain);
        assert!(disk.notes[1].starts_with(INTERRUPTS), "{:?}", disk.notes);
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        create(&path, MIB, Allocation::Thin).unwrap();
        let refusal = open(&path, 2 * MIB, Cache::Direct, Completion::Interrupt).unwrap_err();
        assert!(
            matches!(refusal, StoreError::Size { found: MIB, .. }),
            "{refusal}"
        );
    }

    #[test]
    fn holes_are_told_from_data() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        create(&path, 4 * MIB, Allocation::Thin).unwrap();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        file.write_all_at(&[1; MIB as usize], MIB).unwrap();
        let range = ByteRange {
            offset: 0,
            len: 4 * MIB,
        };
        let runs = extents(file.as_fd(), range, 16).unwrap();
        assert_eq!(
            runs.iter()
                .map(|r| (r.len / MIB, r.flags != 0))
                .collect::<Vec<_>>(),
            [(1, true), (1, false), (2, true)]
        );
        assert_eq!(extents(file.as_fd(), range, 1).unwrap().len(), 1);
    }

    #[test]
    fn a_directory_is_no_store() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(kind_of(dir.path()), Err(StoreError::Kind(_))));
        assert!(matches!(
            kind_of(&dir.path().join("x")),
            Err(StoreError::Missing(_))
        ));
    }
}
