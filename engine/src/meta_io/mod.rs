//! Life of a replica on disk: create, attach, delete. Blocking, so never on a reactor.
//!
//! ```text
//!  create:  backing made or adopted ─► metadata formatted, durable ─► its two superblocks, durable
//!  attach:  backing opened, locked ─► metadata opened, locked, loaded, compared ─► Attached
//!  delete:  metadata removed, durable ─► backing removed or wiped, if asked for
//!
//!  here          the replica, and the order of these steps
//!  area.rs       its metadata file
//!  data.rs       its data disk; longer for a volume that grows
//!  identity.rs   random numbers and digests that name things
//! ```
//! The superblocks are the commit: a create that did not end is seen as never begun. A witness has
//! metadata and nothing else.

mod area;
mod data;
mod identity;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use engine_core::bitmap::grain_for;
use engine_core::message::Disk;
use engine_core::meta::{self, Blocks, Expect, Loaded, Params, Peek};
use engine_core::units::{GRANULE, NodeIdx};

use crate::backend::memory::Memory;
use crate::backend::{Opened, StoreError, file};
use crate::control::{Allocation, Backing, Checksums, VolumeSpec};
use area::{meta_error, open_area, read_padded, write_area};
use data::{identity, memory_identity, open_disk};
use identity::nodes_digest;

pub(crate) use data::{Lengthening, lengthen};
pub(crate) use identity::{boot_id, config_digest, config_digest_unnamed, random_u128};

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
}

/// This replica is blank and was told the volume's table of nodes, which may give this node another
/// index than its file does: without it, it would be placed wrong again.
fn is_untouched(found: &meta::Superblock, spec: &VolumeSpec) -> bool {
    let is_told = found.features_incompatible & meta::FEATURE_ATTRIBUTES != 0;
    let is_blank = found.volume_id == 0 && found.disk == Disk::Blank;
    is_told && is_blank && found.size_granules == spec.size_bytes / GRANULE
}

#[cfg(test)]
mod tests;
