//! One machine: process, disks, memory, and what the plan has in store for it.

use std::collections::{BTreeMap, VecDeque};

use engine_core::checksums::Table;
use engine_core::event::Event;

use super::{Happening, Pending};
use crate::buffers::Ledger;
use crate::disk::{Disk, Image};
use crate::engine::Engine;
use crate::metadisk::MetaDisk;
use crate::rng::Rng;

/// A node's disks as they once were.
pub struct DiskImage {
    /// Life of the process then, or before its next one.
    pub life: u64,
    /// Content.
    pub data: Image,
    /// Metadata.
    pub meta: Vec<u8>,
}

/// What the plan has in store for an event that a node handles.
#[derive(Clone, Copy, Debug)]
pub struct Doom {
    /// Number of the event since the process started.
    pub event: u64,
    /// Actions of that event that still happen; any number if none is given.
    pub actions: Option<u64>,
    /// What happens then.
    pub fate: Fate,
    /// Nanoseconds until the node, or the wire, is back.
    pub span: u64,
}

/// How a [`Doom`] ends.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// kill -9.
    Kill,
    /// Power cut: what was on its way is lost, these of the blocks not durable are kept.
    CutPower(u64),
    /// Power cut: these of the blocks on their way or not durable are kept.
    CutPowerInFlight(u64),
    /// The wire to this peer is cut, and the node runs on.
    CutWire(usize),
}

/// A [`Doom`] that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Struck {
    /// When.
    pub at: u64,
    /// Actions that the event had.
    pub actions: u64,
    /// Blocks of the node's disk that a power cut then may leave in either of two versions.
    pub open_blocks: u64,
}

/// One machine.
pub struct Node {
    /// The process, if it runs.
    pub engine: Option<Engine>,
    /// How often a process was started or died here.
    pub life: u64,
    /// Boot of the machine.
    pub boot_id: u128,
    /// Number of the format on the disk.
    pub formats: u64,
    /// Data.
    pub disk: Disk,
    /// Metadata.
    pub meta: MetaDisk,
    /// Memory of the process.
    pub buffers: Ledger,
    /// Checksums in memory, if some are stored.
    pub sums: Option<Table>,
    /// Who waits for data-disk operations.
    pub pending: BTreeMap<u64, Pending>,
    /// Completed on hung disks: operation numbers, and metadata ones with their token.
    pub stalled: Vec<Happening>,
    /// The process is stopped until then.
    pub paused_until: u64,
    /// What arrived while it was stopped.
    pub backlog: VecDeque<Event>,
    /// Started again at this time.
    pub restart_at: Option<u64>,
    /// The deadline a `Wake` is queued for.
    pub wake_at: u64,
    /// Events handled since the process started.
    pub events: u64,
    /// What the plan does to it at an event of its own.
    pub doom: Option<Doom>,
    /// Dies during a metadata write: how many from now, down for.
    pub meta_doom: Option<(u64, u64)>,
    /// Power failed since the volume was last promoted or joined; for the history's facts.
    pub lost_power: bool,
    /// The operator said stop.
    pub is_stopping: bool,
    /// A fault of the plan made this copy fail; the operator replaces it.
    pub is_condemned: bool,
    /// A flush failed here since the process started.
    pub has_failed_flush: bool,
    /// Taken out of service until it left S and can be replaced.
    pub is_gone: bool,
    /// An image of its disks, kept earlier: data and metadata.
    pub image: Option<DiskImage>,
    /// Life of the process that last wrote a record down.
    pub record_life: u64,
    /// The image is put back once it left S.
    pub brings_back: bool,
    /// Its data is older than its peers remember, and nobody noticed yet.
    pub is_rolled_back: bool,
    /// What the replica was known by in the image that was put back here last.
    pub put_back: Option<u128>,
    /// So often the image is started, once it is back, and meets nobody.
    pub lonely: u64,
    /// How long it stays down after it was told to stop.
    pub stop_for: u64,
    /// The process had a connection since it started.
    pub was_in_touch: bool,
    /// Chance of latencies.
    pub rng: Rng,
}

impl Node {
    /// A write of metadata does not end because its disk hangs.
    pub fn has_stalled_metadata(&self) -> bool {
        let is_meta = |what: &Happening| matches!(what, Happening::MetaIo { .. });
        self.stalled.iter().any(is_meta)
    }
}
