//! The cluster's one file: read, checked whole, every finding at once.
//!
//! ```text
//! bytes ─► TOML with spans ─► section (types, unknown keys) ─► file (meaning of one value)
//!                                       └─► check (values against each other) ─► spec (NodeSpec)
//! ```
//!
//! The tables are walked by hand rather than deserialised: serde stops at the first error and
//! loses positions on nested tables. What cannot be read leaves a finding and a harmless value,
//! so that the rest is still checked; a file with errors is never run.

mod check;
mod diagnostic;
pub mod edit;
mod endpoint;
mod etcd;
mod file;
mod nearest;
mod section;
mod select;
mod spec;
mod tls;
pub mod units;
mod votes;
mod words;

use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use engine::control::{
    Allocation, Attach, Backing, Cache, Checksums, Completion, Polling, QuorumLoss, Reads,
    SplitBrain, WritePolicy,
};

use engine::tls::Fingerprint;

pub use diagnostic::{Diagnostic, DiagnosticReport, Severity, render};
pub use endpoint::Endpoint;
pub use nearest::nearest;
pub use select::{DEFAULT_PATH, select_node};
pub(crate) use words::Words;

/// A value and the bytes of the file it came from; 0..0 for a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Bytes of the file.
    pub span: Range<usize>,
}

impl<T> At<T> {
    /// `value`, read from `span`.
    pub fn new(value: T, span: Range<usize>) -> At<T> {
        At { value, span }
    }
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// The cluster as the file describes it; only as good as the findings beside it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[cluster]`.
    pub cluster: Cluster,
    /// `[etcd]`.
    pub etcd: Option<Etcd>,
    /// `[node.X]`, in the file's order.
    pub nodes: Vec<Node>,
    /// `[volume.V]`, in the file's order.
    pub volumes: Vec<Volume>,
}

/// `[cluster]`: what all nodes share.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Peers of another cluster are refused.
    pub name: String,
    /// Who may go on when nodes lose each other.
    pub quorum: Option<At<Quorum>>,
    /// Where the records of volumes are chosen.
    pub control: Option<At<Control>>,
    /// With a majority: how long a voter that granted a lease promises nobody else.
    pub lease: At<Duration>,
    /// Period of keepalives between nodes.
    pub keepalive: At<Duration>,
    /// Silence after which a peer counts as gone.
    pub peer_timeout: At<Duration>,
    /// Age of an unanswered request after which a member leaves S.
    pub member_timeout: At<Duration>,
}

/// Who may go on when nodes lose each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quorum {
    /// Whoever is primary; the operator sees to it that there is one.
    Off,
    /// A majority of the voters: nodes with a replica, and witnesses.
    Majority,
    /// etcd; `control` says so, not `quorum`.
    Etcd,
    /// Something else stands there, and is a finding.
    Unusable,
}

/// Where the records of volumes are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Among the voters of each volume.
    Voters,
    /// In etcd.
    Etcd,
}

/// `[etcd]`: what holds the records.
#[derive(Clone, Debug)]
pub struct Etcd {
    /// The table.
    pub span: Range<usize>,
    /// Its members, `http://host:port` or `https://host:port`.
    pub endpoints: Vec<At<String>>,
    /// Certificate that signed theirs; absolute.
    pub ca: Option<At<PathBuf>>,
    /// Certificate of this cluster; absolute.
    pub cert: Option<At<PathBuf>>,
    /// Its key; absolute.
    pub key: Option<At<PathBuf>>,
}

/// `[node.X]`: one machine.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: At<String>,
    /// It holds no replicas; it may vote.
    pub is_diskless: bool,
    /// Where metadata, lock and API socket live; absolute.
    pub data_dir: At<PathBuf>,
    /// Replication listener, and where peers dial.
    pub address: Option<At<Endpoint>>,
    /// Further ones: other paths to this node.
    pub more_addresses: Vec<At<Endpoint>>,
    /// NBD over TCP.
    pub nbd: Option<At<Endpoint>>,
    /// NBD over a Unix socket; absolute.
    pub nbd_socket: Option<At<PathBuf>>,
    /// `[node.X.nbd_tls]`.
    pub nbd_tls: Option<NbdTls>,
    /// `[node.X.tls]`, and what it does not say of `[tls]`.
    pub link_tls: Option<LinkTable>,
    /// The certificate it shows to other nodes, if it is pinned.
    pub fingerprint: Option<At<Fingerprint>>,
    /// Status and metrics over TCP, read-only.
    pub api: Option<At<Endpoint>>,
    /// Threads that run volumes; default: one per CPU of the inherited mask.
    pub reactors: Option<usize>,
    /// Listeners that may leave loopback without TLS.
    pub insecure: Vec<Listener>,
    /// How long NBD clients may keep the server waiting, and how many may.
    pub nbd_limits: nbd_server::Limits,
}

/// `[node.X.nbd_tls]`: certificates of its NBD listeners. Relative paths count from `data_dir`.
#[derive(Clone, Debug)]
pub struct NbdTls {
    /// The table.
    pub span: Range<usize>,
    /// Certificate of the server.
    pub cert: At<PathBuf>,
    /// Its key.
    pub key: At<PathBuf>,
    /// Whose clients are let in; `None`: clients without certificate too.
    pub client_ca: Option<At<PathBuf>>,
    /// Nobody is served without TLS, not even on loopback and the Unix socket.
    pub is_required: bool,
}

/// `[tls]` or `[node.X.tls]`: certificates of links between nodes. Relative paths count from the
/// `data_dir` of each node.
#[derive(Clone, Debug)]
pub struct LinkTable {
    /// Its name in the file.
    pub title: String,
    /// The table.
    pub span: Range<usize>,
    /// Certificate of the node.
    pub cert: Option<At<PathBuf>>,
    /// Its key.
    pub key: Option<At<PathBuf>>,
    /// Authority of the other nodes' certificates; `None`: all of them are pinned.
    pub ca: Option<At<PathBuf>>,
}

/// What a node listens with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Key `nbd`.
    Nbd,
    /// Key `address`.
    Replication,
    /// Key `api`.
    Api,
}

impl Listener {
    /// Its word in `insecure`, in status and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Listener::Nbd => "nbd",
            Listener::Replication => "replication",
            Listener::Api => "api",
        }
    }
}

/// `[volume.V]`: what a client sees as one disk.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its name.
    pub name: At<String>,
    /// Bytes, a multiple of 4096.
    pub size_bytes: At<u64>,
    /// Where nodes keep their replicas: one entry for all, or one for each.
    pub backings: Vec<Placed>,
    /// Nodes that hold a replica.
    pub replicas: At<Vec<At<String>>>,
    /// Nodes that vote and hold none; default: all diskless ones.
    pub witnesses: Option<At<Vec<At<String>>>>,
    /// With a majority: a member of S serves by itself when the primary is gone.
    pub auto_promote: bool,
    /// With a majority: what becomes of requests while there is none.
    pub on_quorum_loss: QuorumLoss,
    /// When a write is acknowledged.
    pub write_policy: WritePolicy,
    /// How blocks of a file are allocated.
    pub allocation: Allocation,
    /// How a reactor waits.
    pub polling: Polling,
    /// Whose disk reads for clients.
    pub reads: Reads,
    /// What happens in a split brain without an operator.
    pub splitbrain: SplitBrain,
    /// A checksum of every 4096 bytes is stored beside the data.
    pub checksums: Checksums,
    /// Past the page cache or through it.
    pub cache: Cache,
    /// How the end of a disk's operation is noticed.
    pub completion: Completion,
    /// Fewest members of S with which writes are acknowledged.
    pub min_copies: At<u32>,
    /// Limit of resync and verify in bytes per second; `None` is no limit.
    pub resync_rate: Option<u64>,
    /// The primary compares the copies by itself this long after the last time; `None`: never.
    pub verify_every: Option<Duration>,
    /// Programs that are told the role of this node.
    pub hooks: Hooks,
    /// `[[volume.V.nbd]]`.
    pub nbd: Vec<NbdExport>,
}

/// Programs that are run, with their arguments, when a node begins or ends to serve a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Run when this node serves; empty: none.
    pub on_promote: Vec<String>,
    /// Run when it does not, also after each start; empty: none.
    pub on_demote: Vec<String>,
    /// Who runs longer is killed.
    pub timeout: Duration,
}

impl Default for Hooks {
    fn default() -> Hooks {
        Hooks {
            on_promote: Vec::new(),
            on_demote: Vec::new(),
            timeout: Duration::from_secs(10),
        }
    }
}

/// Where a node, or every node, keeps its replica.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Which node; `None`: all of them.
    pub node: Option<At<String>>,
    /// A relative path counts from the node's `data_dir`.
    pub backing: At<Backing>,
}

/// `[[volume.V.nbd]]`: one name under which clients see the volume.
#[derive(Clone, Debug)]
pub struct NbdExport {
    /// Name that clients ask for.
    pub name: At<String>,
    /// Refuse writes.
    pub read_only: bool,
    /// Text for LIST and INFO.
    pub description: String,
    /// Networks that may attach over TCP; empty: all.
    pub allow: Vec<String>,
    /// Whose certificates may attach; empty: all.
    pub allow_subjects: At<Vec<String>>,
    /// `tls = "require"`.
    pub needs_tls: At<bool>,
    /// How many clients it takes.
    pub attach: Attach,
    /// Meant by the empty name.
    pub is_default: At<bool>,
}

/// A file that was read, and all that was found in it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Where it was read.
    pub path: PathBuf,
    /// Its text.
    pub source: String,
    /// What it says; usable as a whole only without errors.
    pub config: Config,
    /// Errors and warnings, in the file's order.
    pub diagnostics: Vec<Diagnostic>,
}

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

impl Loaded {
    /// Reads and checks the file at `path`. Errors: it cannot be read, is over 4 MiB, or is not
    /// UTF-8; everything else is a finding.
    pub fn read(path: &Path) -> io::Result<Loaded> {
        let bytes = fs::metadata(path)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{bytes} bytes are too many for a configuration; the limit is 4 MiB"),
            ));
        }
        Ok(Loaded::parse(path, fs::read_to_string(path)?))
    }

    /// Checks `source` as if it stood at `path`.
    pub fn parse(path: &Path, source: String) -> Loaded {
        let (config, diagnostics) = file::read(&source);
        Loaded {
            path: path.to_owned(),
            source,
            config,
            diagnostics,
        }
    }

    /// Adds what was found elsewhere about this file.
    pub fn add(&mut self, found: Diagnostic) {
        let at = self
            .diagnostics
            .partition_point(|other| other.span.start <= found.span.start);
        self.diagnostics.insert(at, found);
    }

    /// Number of errors.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// Number of warnings.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    /// Everything that was found, for people.
    pub fn render(&self, color: bool) -> String {
        let shown = self.diagnostics.iter();
        shown
            .map(|diagnostic| render(diagnostic, &self.path, &self.source, color))
            .collect()
    }

    fn count(&self, severity: Severity) -> usize {
        self.diagnostics
            .iter()
            .filter(|found| found.severity == severity)
            .count()
    }
}

#[cfg(test)]
mod tests;
