//! The node and its volumes as configured, in the form that a node needs.

use std::path::PathBuf;
use std::time::Duration;

use engine_core::quorum::{Quorum, QuorumLoss};
use engine_core::table::Table;
use engine_core::units::NodeIdx;

use crate::tls::LinkTls;

/// One configured volume, as a node needs it; made by the daemon from the checked file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Name in the configuration.
    pub name: String,
    /// Size in bytes, a multiple of 4096.
    pub size_bytes: u64,
    /// Where this node's replica lives; `None` if this node holds none.
    pub backing: Option<Backing>,
    /// Nodes with a replica, in the file's order; index = node index in this volume.
    pub replicas: Vec<String>,
    /// Who chooses which node serves.
    pub votes: Votes,
    /// When a write is acknowledged.
    pub write_policy: WritePolicy,
    /// Write every block at create and keep blocks allocated on trim.
    pub allocation: Allocation,
    /// Whether this node's replica goes through the page cache.
    pub cache: Cache,
    /// How this node notices the end of a disk's operation.
    pub completion: Completion,
    /// Fewest members of S with which writes are acknowledged.
    pub min_copies: u32,
    /// What happens in a split brain without an operator.
    pub splitbrain: SplitBrain,
    /// How a reactor waits.
    pub polling: Polling,
    /// Whose disk reads for clients of this node.
    pub reads: Reads,
    /// Limit of resync and verify in bytes per second on this node; `None` is no limit.
    pub resync_rate: Option<u64>,
    /// Whether checksums of the data are stored; fixed when a replica is created.
    pub checksums: Checksums,
    /// NBD exports of it.
    pub nbd: Vec<NbdExportSpec>,
}

/// Who chooses which node serves a volume, and who else is in its S (laws T1 – T11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Votes {
    /// A majority of the voters, or nobody but an operator.
    pub quorum: Quorum,
    /// Nodes that vote and hold no data; their node indexes come after those of the replicas.
    pub witnesses: Vec<String>,
    /// How long a voter that granted a lease promises nobody else.
    pub lease: Duration,
    /// A member of S promotes itself when who reigned does not any more.
    pub auto_promote: bool,
    /// What becomes of clients' requests while there is no majority.
    pub on_quorum_loss: QuorumLoss,
}

impl Default for Votes {
    fn default() -> Votes {
        Votes {
            quorum: Quorum::Off,
            witnesses: Vec::new(),
            lease: Duration::from_secs(2),
            auto_promote: true,
            on_quorum_loss: QuorumLoss::Freeze,
        }
    }
}

impl NodeSpec {
    /// Names and addresses of the other nodes that it has a volume in common with.
    pub fn needed_peers(&self) -> Vec<(String, Vec<String>)> {
        let is_needed = |name: &str| {
            let both =
                |v: &VolumeSpec| v.node_index(name).is_some() && v.node_index(&self.name).is_some();
            name != self.name && self.volumes.iter().any(both)
        };
        let needed = self.peers.iter().filter(|(name, _)| is_needed(name));
        needed.cloned().collect()
    }
}

impl VolumeSpec {
    /// Names of all its nodes, by node index: replicas first, then witnesses.
    pub fn nodes(&self) -> Vec<String> {
        let witnesses = self.votes.witnesses.iter();
        self.replicas.iter().chain(witnesses).cloned().collect()
    }

    /// The table of its nodes that the file makes.
    pub fn table(&self) -> Table {
        Table::of_file(&self.nodes(), self.replicas.len())
    }

    /// Index of a node with a replica or a vote.
    pub fn node_index(&self, name: &str) -> Option<NodeIdx> {
        let mut nodes = self.replicas.iter().chain(&self.votes.witnesses);
        Some(NodeIdx(nodes.position(|node| node == name)? as u8))
    }

    /// The node of this index holds data.
    pub fn is_replica(&self, node: NodeIdx) -> bool {
        usize::from(node.0) < self.replicas.len()
    }
}

/// Where a replica's bytes live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Regular file or block device, absolute path.
    Path(PathBuf),
    /// Anonymous memory; lost at exit.
    Memory,
}

/// Whose disk reads for clients (law R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// This node's, while it can.
    Local,
    /// This node's; a member of S helps out while its answers come sooner.
    Balanced,
}

/// Whether a checksum of every 4096 bytes is stored beside the data (laws M6, S10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// None is.
    Off,
    /// Reads verify it, a scrub compares all.
    On,
}

/// When a write is acknowledged (law R2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritePolicy {
    /// Every member of S has it on stable storage.
    Durable,
    /// Every member of S gave it to its disk and the disk said done.
    Written,
}

/// How blocks of a file, or pages of a memory volume, are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Sparse.
    Thin,
    /// Every block written at create; all memory there before the volume is served.
    Full,
}

/// Whether a file or device is used past the page cache. A flush reaches the disk either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// O_DIRECT, where the file system has it.
    Direct,
    /// Through the page cache: hot data is read from memory, writes wait for a flush there.
    Buffered,
    /// Through the page cache, which keeps nothing that was read or written; as `Buffered` where
    /// the system has no such thing.
    DontCache,
}

/// How the end of a disk's operation is noticed. Without O_DIRECT only by interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// By interrupts.
    Interrupt,
    /// By looking, without interrupts: the volume is offline where the device cannot.
    Poll,
    /// By looking where the device can, else by interrupts; status tells which and why.
    PollIfPossible,
}

/// What happens in a split brain without an operator (law T9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SplitBrain {
    /// Nothing: both stop.
    #[default]
    Manual,
    /// A copy in which nothing was written since the two were one gives way.
    DiscardUnchanged,
}

/// How a reactor waits for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polling {
    /// Spins a bounded, adaptive time before sleeping.
    Balanced,
    /// Spins longer; half the latency at depth 1, more CPU.
    Latency,
    /// Always sleeps.
    Cpu,
}

/// How many clients an export takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// Any number.
    #[default]
    Shared,
    /// One; a second is refused.
    Exclusive,
    /// One; the newest wins, the one before is cut off first.
    Takeover,
}

/// One NBD export of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NbdExportSpec {
    /// Name that clients ask for.
    pub name: String,
    /// Refuse writes with EPERM.
    pub read_only: bool,
    /// Text for LIST and INFO.
    pub description: String,
    /// CIDR networks that may attach over TCP; empty: all.
    pub allow: Vec<String>,
    /// Whose certificates may attach, as in `CN=hyper1`; empty: all. Not empty needs TLS.
    pub allow_subjects: Vec<String>,
    /// Not to be had without TLS.
    pub needs_tls: bool,
    /// How many clients it takes.
    pub attach: Attach,
    /// Meant by the empty name.
    pub is_default: bool,
}

/// The cluster as one node needs it; made by the daemon from the checked file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Cluster name; peers of another cluster are refused.
    pub cluster: String,
    /// This node's name.
    pub name: String,
    /// Where metadata lives; exists.
    pub data_dir: PathBuf,
    /// Replication listeners of this node, `host:port`: each is a path.
    pub addresses: Vec<String>,
    /// Replication addresses of all nodes by name, this one included.
    pub peers: Vec<(String, Vec<String>)>,
    /// Certificates for links; `None`: they are in the clear.
    pub tls: Option<LinkTls>,
    /// NBD TCP listener, `host:port`.
    pub nbd: Option<String>,
    /// NBD Unix socket.
    pub nbd_socket: Option<PathBuf>,
    /// Threads that run volumes.
    pub reactors: usize,
    /// Period of keepalives between nodes.
    pub keepalive: Duration,
    /// Silence after which a peer counts as gone.
    pub peer_timeout: Duration,
    /// Age of an unanswered request after which a member leaves S.
    pub member_timeout: Duration,
    /// Where volumes whose records a register chooses find it.
    pub etcd: Option<EtcdSpec>,
    /// Volumes of this node.
    pub volumes: Vec<VolumeSpec>,
}

/// This build can ask etcd.
pub const HAS_ETCD: bool = cfg!(feature = "etcd");

/// The etcd that holds the records of volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdSpec {
    /// Its members, `http://host:port` or `https://host:port`.
    pub endpoints: Vec<String>,
    /// Certificate that signed theirs, PEM; `None`: their hosts' usual ones are not trusted.
    pub ca: Option<PathBuf>,
    /// Certificate and key of this cluster, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}
