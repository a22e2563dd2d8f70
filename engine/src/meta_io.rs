//! Life of a replica on disk: create, attach, delete. Blocking, so never on a reactor.
//!
//! ```text
//!  create:  backing made or adopted ─► metadata formatted, durable ─► its two superblocks, durable
//!  attach:  backing opened, locked ─► metadata opened, locked, loaded, compared ─► Attached
//!  delete:  metadata removed, durable ─► backing removed or wiped, if asked for
//! ```
//! The superblocks are the commit: a create that did not end is seen as never begun. A witness has
//! metadata and nothing else.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use engine_core::action::{META_BLOCK, MetaBlock};
use engine_core::bitmap::grain_for;
use engine_core::message::Disk;
use engine_core::meta::{self, Blocks, Expect, FORMAT_COMMIT_BLOCKS, Loaded, Params, Peek};
use engine_core::units::{GRANULE, NodeIdx};

use crate::backend::memory::Memory;
use crate::backend::{DiskKind, Opened, OpenedDisk, StoreError, block, file, has_room, namespace};
use crate::control::{Allocation, Backing, Checksums, Completion, Quorum, VolumeSpec, Votes};
use crate::sums;

/// Slots of the activity log of a new replica.
const ACTIVITY_LOG_SLOTS: u32 = 1024;

/// Smallest size up to which every new volume may grow, and how many times its own.
const ROOM_BYTES_MIN: u64 = 64 << 30;
const ROOM_FACTOR: u64 = 4;

/// Bytes to which a volume made now may grow: its metadata has room for the marks of so many (a
/// hole until then), and memory has the addresses.
fn room(size: u64) -> u64 {
    let most = meta::SIZE_GRANULES_MAX * GRANULE;
    let wanted = size.saturating_mul(ROOM_FACTOR).max(ROOM_BYTES_MIN);
    wanted.min(most).max(size)
}

/// One replica of this node, as configured.
#[derive(Clone, Debug)]
pub(crate) struct Replica<'a> {
    pub(crate) data_dir: &'a Path,
    pub(crate) node: &'a str,
    pub(crate) spec: &'a VolumeSpec,
}

/// A replica ready for its reactor.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) store: Opened,
    /// The metadata file, locked.
    pub(crate) meta: OwnedFd,
    pub(crate) loaded: Loaded,
}

/// Why a replica cannot be created, attached or deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplicaError {
    /// Declared, never created here.
    #[error("not created on this node")]
    NotCreated,
    /// There is one already.
    #[error("it exists on this node")]
    Exists,
    /// The configuration gives this node no backing for it.
    #[error("this node holds no replica of it")]
    NoBacking,
    /// The data disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The metadata file.
    #[error("{doing} {path}")]
    Meta {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The metadata file holds something else.
    #[error("{0} is not metadata of a volume")]
    Foreign(String),
    /// The metadata is not what the configuration says, or is lost.
    #[error("{path}")]
    Load {
        /// Which file.
        path: String,
        /// Why not.
        #[source]
        source: Box<meta::LoadError>,
    },
    /// Checksums are fixed when a replica is created.
    #[error(
        "{path} was created with checksums = \"{found}\", the configuration says \"{expected}\""
    )]
    Checksums {
        /// Which file.
        path: String,
        /// As it was created.
        found: &'static str,
        /// As it is configured.
        expected: &'static str,
    },
    /// No metadata can be made for such a volume.
    #[error(transparent)]
    Params(#[from] meta::ParamsError),
}

impl ReplicaError {
    /// Another process holds it; trying again later makes sense.
    pub(crate) fn is_in_use(&self) -> bool {
        matches!(self, ReplicaError::Store(StoreError::InUse { .. }))
    }
}

/// Random bits from the system.
pub(crate) fn random_u128() -> u128 {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    assert_eq!(
        filled,
        Ok(16),
        "getrandom never fails for 16 bytes once the system is up"
    );
    u128::from_le_bytes(bytes)
}

/// Identity of this boot of the machine; 0 where the system tells none, which is never whole.
pub(crate) fn boot_id() -> u128 {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}

/// Digest of the configured nodes in order.
pub(crate) fn nodes_digest(names: &[String]) -> u64 {
    sums::bytes(names.join("\n").as_bytes())
}

/// Digest of what all replicas must agree on (law F25). Not the size: each replica says the one it
/// has, which may have grown past its file's.
pub(crate) fn config_digest(spec: &VolumeSpec) -> u64 {
    let mut text = format!(
        "{}\n{:?}\n{}\n{}",
        spec.name,
        spec.write_policy,
        spec.min_copies,
        spec.replicas.join("\n")
    );
    let Votes {
        witnesses, lease, ..
    } = &spec.votes;
    match spec.votes.quorum {
        Quorum::Off => {}
        Quorum::Majority => {
            text.push_str(&format!("\nmajority {lease:?} {}", witnesses.join("\n")));
        }
        Quorum::Register => text.push_str(&format!("\nregister {lease:?}")),
    }
    sums::bytes(text.as_bytes())
}

/// As [`config_digest`], but for its nodes: who they are, a table of the volume's own says by then.
pub(crate) fn config_digest_unnamed(spec: &VolumeSpec) -> u64 {
    let mut unnamed = spec.clone();
    unnamed.replicas = Vec::new();
    unnamed.votes.witnesses = vec!["of its own table".to_owned()];
    config_digest(&unnamed)
}

impl Replica<'_> {
    fn meta_path(&self) -> PathBuf {
        self.data_dir
            .join("volumes")
            .join(format!("{}.meta", self.spec.name))
    }

    fn backing(&self) -> Result<&Backing, ReplicaError> {
        self.spec.backing.as_ref().ok_or(ReplicaError::NoBacking)
    }

    /// This node votes and holds no data.
    fn is_witness(&self) -> bool {
        let index = self.spec.node_index(self.node);
        index.is_some_and(|index| !self.spec.is_replica(index))
    }

    /// Index of this node in the volume's list.
    pub(crate) fn node_index(&self) -> Result<NodeIdx, ReplicaError> {
        let found = self.spec.node_index(self.node);
        found.ok_or(ReplicaError::NoBacking)
    }

    /// Formats this node's replica. With `adopt` an existing backing of exactly the declared
    /// size is taken with its content; otherwise it must not hold anything.
    pub(crate) fn create(&self, adopt: bool) -> Result<(), ReplicaError> {
        if self.peek()? != Peek::Nothing {
            return Err(ReplicaError::Exists);
        }
        let (backing, is_new) = match self.is_witness() && !adopt {
            true => (memory_identity(self.spec.size_bytes), false),
            false => self.make_backing(adopt)?,
        };
        // A file made just now reads as zeros, and memory does.
        let is_zeroed = is_new || self.spec.backing == Some(Backing::Memory);
        self.format(backing, is_zeroed).inspect_err(|_| {
            if let (true, Some(Backing::Path(path))) = (is_new, &self.spec.backing) {
                // The failure is what counts; a file left behind is named by the next create.
                let _ = fs::remove_file(path);
            }
        })
    }

    /// What lies where the metadata should.
    fn peek(&self) -> Result<Peek, ReplicaError> {
        let path = self.meta_path();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Peek::Nothing),
            Err(e) => return Err(meta_error("cannot open", &path)(e)),
        };
        let mut blocks = [[0; META_BLOCK]; 2];
        for (index, block) in blocks.iter_mut().enumerate() {
            let read = file.read_exact_at(block, (index * META_BLOCK) as u64);
            match read {
                // Shorter than two blocks: a create that hardly began.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Peek::Nothing),
                other => other.map_err(meta_error("cannot read", &path))?,
            }
        }
        match meta::peek(&blocks[0], &blocks[1]) {
            Peek::Foreign => Err(ReplicaError::Foreign(path.display().to_string())),
            found => Ok(found),
        }
    }

    /// The backing, made or adopted, and whether it is a file that was made just now.
    fn make_backing(&self, adopt: bool) -> Result<(meta::Backing, bool), ReplicaError> {
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

    fn format(&self, backing: meta::Backing, is_zeroed: bool) -> Result<(), ReplicaError> {
        let size_granules = self.spec.size_bytes / GRANULE;
        let params = Params {
            volume: self.spec.name.clone(),
            slice: 0,
            incarnation: random_u128().max(1),
            self_node: self.node_index()?,
            node_count: self.spec.replicas.len() as u8,
            nodes_digest: nodes_digest(&self.spec.replicas),
            size_granules,
            size_granules_max: room(self.spec.size_bytes) / GRANULE,
            grain: grain_for(size_granules),
            activity_log_slots: ACTIVITY_LOG_SLOTS,
            boot_id: boot_id(),
            backing,
            checksums: match self.spec.checksums {
                Checksums::On if !self.is_witness() => meta::Checksums::On { is_zeroed },
                _ => meta::Checksums::Off,
            },
        };
        let path = self.meta_path();
        let layout = meta::layout(&params)?;
        let written = write_area(&path, &layout, meta::format(&params)?);
        written.map_err(|e| {
            // The failure is what counts; without superblocks the file counts as nothing.
            let _ = fs::remove_file(&path);
            meta_error("cannot write", &path)(e)
        })
    }

    /// Opens, locks and loads everything. A memory replica is formatted anew each time: nothing
    /// of it survived. One that never held anything keeps what it was told of the volume's nodes.
    pub(crate) fn attach(&self) -> Result<Attached, ReplicaError> {
        let path = self.meta_path();
        let backing = match self.is_witness() {
            true => None,
            false => Some(self.backing()?),
        };
        let peeked = self.peek()?;
        let is_untouched = matches!(&peeked, Peek::Ours(found) if is_untouched(found, self.spec));
        let size = match peeked {
            Peek::Nothing => return Err(ReplicaError::NotCreated),
            // It may have grown since the file was read, or before a crash that came before the
            // file was changed: what was committed counts.
            Peek::Ours(found) if backing != Some(&Backing::Memory) => {
                found.size_granules.saturating_mul(GRANULE)
            }
            _ => self.spec.size_bytes,
        };
        let (store, identity) = match backing {
            None => {
                // Nothing is ever read from it or written to it.
                let none = Memory::new(GRANULE, GRANULE);
                let none = none.map_err(StoreError::io("cannot reserve", Path::new("memory")))?;
                (Opened::Memory(none), memory_identity(size))
            }
            Some(Backing::Memory) => {
                if !is_untouched {
                    self.format(memory_identity(size), true)?;
                }
                let memory = match self.spec.allocation {
                    Allocation::Thin => Memory::new(size, room(size)),
                    Allocation::Full => Memory::full(size, room(size)),
                };
                let memory =
                    memory.map_err(StoreError::io("cannot reserve", Path::new("memory")))?;
                (Opened::Memory(memory), memory_identity(size))
            }
            Some(Backing::Path(path)) => {
                let disk = open_disk(file::kind_of(path)?, path, size, self.spec)?;
                let identity = identity(disk.kind, disk.plain_fd(), path)?;
                (Opened::Disk(disk), identity)
            }
        };
        let (meta, (ranges, bytes), file) = open_area(&path)?;
        let expect = Expect {
            volume: self.spec.name.clone(),
            slice: 0,
            node: self.node.to_owned(),
            self_node: self.node_index()?,
            node_count: self.spec.replicas.len() as u8,
            nodes_digest: nodes_digest(&self.spec.replicas),
            size_granules: size / GRANULE,
            granule_bytes: GRANULE as u32,
            backing: identity,
        };
        let area = Blocks {
            ranges: &ranges,
            bytes: &bytes,
        };
        let mut loaded = meta::load_parts(area, &expect).map_err(|source| ReplicaError::Load {
            path: path.display().to_string(),
            source: Box::new(source),
        })?;
        self.compare_checksums(&path, &loaded)?;
        let read = |block, buffer: &mut [u8]| read_padded(&file, block, buffer);
        meta::load_marks(&mut loaded, read).map_err(meta_error("cannot read", &path))?;
        Ok(Attached {
            store,
            meta,
            loaded,
        })
    }

    /// What was decided at create holds: a configuration that says otherwise is refused.
    fn compare_checksums(&self, path: &Path, loaded: &Loaded) -> Result<(), ReplicaError> {
        let word = |is_on| if is_on { "on" } else { "off" };
        let found = loaded.sum_region.is_some();
        let expected = self.spec.checksums == Checksums::On && !self.is_witness();
        if found == expected {
            return Ok(());
        }
        Err(ReplicaError::Checksums {
            path: path.display().to_string(),
            found: word(found),
            expected: word(expected),
        })
    }

    /// Removes the metadata, and with `wipe` the data too. Nothing of it may be attached.
    pub(crate) fn delete(&self, wipe: bool) -> Result<(), ReplicaError> {
        let path = self.meta_path();
        match fs::remove_file(&path).and_then(|()| file::sync_parent(&path)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ReplicaError::NotCreated),
            other => other.map_err(meta_error("cannot remove", &path))?,
        }
        match &self.spec.backing {
            Some(Backing::Path(path)) if wipe => Ok(self.wipe(path)?),
            _ => Ok(()),
        }
    }

    fn wipe(&self, path: &Path) -> Result<(), StoreError> {
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

/// This replica is blank and was told the volume's table of nodes, which may give this node another
/// index than its file does: without it, it would be placed wrong again.
fn is_untouched(found: &meta::Superblock, spec: &VolumeSpec) -> bool {
    let is_told = found.features_incompatible & meta::FEATURE_ATTRIBUTES != 0;
    let is_blank = found.volume_id == 0 && found.disk == Disk::Blank;
    is_told && is_blank && found.size_granules == spec.size_bytes / GRANULE
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

fn memory_identity(size: u64) -> meta::Backing {
    meta::Backing {
        kind: meta::BackingKind::Memory,
        identity: [0; 32],
        size,
    }
}

/// Opens what holds at least `size` bytes.
fn open_disk(
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
fn identity(kind: DiskKind, fd: BorrowedFd<'_>, path: &Path) -> Result<meta::Backing, StoreError> {
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

fn meta_error(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> ReplicaError {
    move |source| ReplicaError::Meta {
        doing,
        path: path.display().to_string(),
        source,
    }
}

/// Writes a metadata area, its commit blocks last: preallocated but for the marks at its end,
/// which are a hole until they are used.
fn write_area(
    path: &Path,
    layout: &meta::Layout,
    content: impl Iterator<Item = (u64, Box<MetaBlock>)>,
) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    match rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::empty(),
        0,
        layout.bytes(),
    ) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(layout.total_bytes())?,
        Err(e) => return Err(e.into()),
    }
    // The superblocks stand at 0 and 1, twice in `content`: first zeros, at last themselves.
    let mut commit = Vec::new();
    for (seen, (block, bytes)) in (0..).zip(content) {
        if block < FORMAT_COMMIT_BLOCKS && seen >= FORMAT_COMMIT_BLOCKS {
            commit.push((block, bytes));
        } else {
            file.write_all_at(&bytes[..], block * META_BLOCK as u64)?;
        }
    }
    file.sync_all()?;
    for (block, bytes) in commit {
        file.write_all_at(&bytes[..], block * META_BLOCK as u64)?;
    }
    file.sync_all()?;
    file::sync_parent(path)
}

/// Opens and locks the metadata file and reads all of it but the marks; these are read from the
/// second file, which is not opened for direct I/O.
fn open_area(path: &Path) -> Result<(OwnedFd, AreaParts, File), ReplicaError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(meta_error("cannot open", path))?;
    file::lock(&file, path)?;
    let plain = File::open(path).map_err(meta_error("cannot open", path))?;
    let parts = read_area(&plain).map_err(meta_error("cannot read", path))?;
    file::try_direct(file.as_fd());
    Ok((file.into(), parts, plain))
}

/// Blocks of a metadata area, and which they are.
type AreaParts = (Vec<Range<u64>>, Vec<u8>);

/// What `meta::load_parts` looks at, or all there is.
fn read_area(file: &File) -> io::Result<AreaParts> {
    let mut heads = [[0; META_BLOCK]; 2];
    for (block, head) in heads.iter_mut().enumerate() {
        read_padded(file, block as u64, head)?;
    }
    let end = file.metadata()?.len() / META_BLOCK as u64;
    let all = || std::iter::once(0..end).collect();
    let mut ranges = meta::read_ranges(&heads[0], &heads[1]).unwrap_or_else(all);
    for range in &mut ranges {
        *range = range.start.min(end)..range.end.min(end);
    }
    let blocks: u64 = ranges.iter().map(|r| r.end - r.start).sum();
    let len = blocks.saturating_mul(META_BLOCK as u64);
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    let mut rest = &mut bytes[..];
    for range in &ranges {
        let len = (range.end - range.start) as usize * META_BLOCK;
        let (part, others) = rest.split_at_mut(len);
        file.read_exact_at(part, range.start * META_BLOCK as u64)?;
        rest = others;
    }
    Ok((ranges, bytes))
}

/// Reads from a block on, with zeros where the file ends.
fn read_padded(file: &File, block: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], block * META_BLOCK as u64 + done as u64) {
            Ok(0) => {
                buffer[done..].fill(0);
                return Ok(());
            }
            Ok(count) => done += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
