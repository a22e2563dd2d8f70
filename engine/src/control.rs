//! What the control plane may ask of a node's volumes, and what it gets back.
//!
//! ```text
//! CLI ─► API (tokio) ─► Request ─► bounded mailbox ─► reactor ─► core
//!                     ◄─ Outcome ◄─ Reply (called once, on the reactor's thread)
//! ```
//!
//! Values only: no sockets, no formatting for people. Words and their meaning stand in
//! `docs/operations.md`; what a refusal costs (exit code) is decided by its [`RefusalKind`].

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

pub use engine_core::marks::{MARKS_MAX, MarkName, MarkNameError};
pub use engine_core::quorum::{Quorum, QuorumLoss};
use engine_core::table::Table;
pub use engine_core::table::{REPLICAS_MAX, WITNESSES_MAX};
use engine_core::units::NodeIdx;

use crate::front_end::ExportLabel;
use crate::handover::{HandOverError, Legacy};
use crate::tls::LinkTls;

/// What to do to one volume. Every request is answered exactly once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Format this node's replica as declared in the configuration.
    Create {
        /// Take an existing backing of exactly the declared size and keep its content.
        adopt: bool,
        /// An existing replica is success, not an error.
        if_absent: bool,
    },
    /// Remove this node's metadata of the volume; it must be secondary and without clients.
    Delete {
        /// Also remove (or discard) the backing.
        wipe: bool,
    },
    /// Become primary; founds an unfounded volume. Where a majority chooses, a node that serves
    /// hands its role over to this one.
    Promote {
        /// Start a new branch where a plain promotion is not allowed.
        force: bool,
        /// How long to wait until each peer has answered or was found gone.
        wait: Duration,
    },
    /// Become primary as before a change of process, unless another node serves by now.
    ServeAgain {
        /// As of a promotion.
        wait: Duration,
    },
    /// Become secondary.
    Demote {
        /// Drain and close attached clients instead of refusing.
        disconnect: bool,
    },
    /// Allow the link to `node` again.
    PeerConnect {
        /// Name of the peer.
        node: String,
    },
    /// Drop the link to `node` and keep it down until `PeerConnect`.
    PeerDisconnect {
        /// Name of the peer.
        node: String,
    },
    /// What is known of split brains of this volume.
    Partings,
    /// Give up this node's copy for that of `keep`: what may differ goes to a salvage first.
    GiveUp {
        /// Whose copy is kept.
        keep: String,
        /// The state that was decided on, as [`PartingReport::token`] names it.
        token: Option<u64>,
    },
    /// Start a resync from `from`, after a verify found differences or a pause at the start.
    ResyncStart {
        /// The node whose data is kept.
        from: String,
    },
    /// Stop moving resync data; bits are kept.
    ResyncPause,
    /// Go on where `ResyncPause` stopped.
    ResyncResume,
    /// Limit resync traffic.
    ResyncSetRate {
        /// Bytes per second; `None` means as fast as the disks and the link allow.
        bytes_per_second: Option<u64>,
    },
    /// Compare the copies.
    Verify {
        /// What follows where they differ.
        repair: Repair,
    },
    /// State of a running or finished verify.
    VerifyStatus,
    /// Compare this node's copy with its stored checksums, and repair what does not match.
    Scrub {
        /// Most bytes read per second; `None` is no limit.
        bytes_per_second: Option<u64>,
    },
    /// From now on keep what changed, on every replica in sync.
    MarkCreate {
        /// Its name.
        name: MarkName,
        /// A mark of this name is success, not an error.
        if_absent: bool,
    },
    /// Keep it no more.
    MarkDelete {
        /// Its name.
        name: MarkName,
    },
    /// The marks, oldest first. Only the primary answers.
    MarkList,
    /// Be larger from now on. Clients that are attached keep the size they were told.
    Resize {
        /// Bytes from then on, a multiple of 4096.
        size_bytes: u64,
    },
    /// Have these nodes, and no others. Only the primary does it; it goes on when this was answered.
    Nodes {
        /// Those with a replica.
        replicas: Vec<String>,
        /// Those that vote and hold no data.
        witnesses: Vec<String>,
    },
    /// Cut off clients at once: what they asked for and is not answered yet is not answered.
    Disconnect {
        /// Which.
        clients: Clients,
    },
}

/// What follows where a verify finds copies that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Who differs stays out of use until an operator says whose data is kept.
    No,
    /// From the primary's copy, if those equal to it are a majority; else as with `No`.
    Majority,
    /// From the copy of this node, which is the primary.
    From(String),
}

/// Some of a volume's clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// The one with this [`ClientStatus::id`].
    Id(u64),
    /// All from this address.
    Address(String),
    /// All that attached to this export, whatever it is called now.
    Export(ExportLabel),
}

/// How a request ended.
pub type Outcome = Result<Done, Refusal>;

/// A request that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It is so now; the text says what was done, for people.
    Ok(String),
    /// It was so before; nothing was changed.
    Already(String),
    /// Figures of a verify.
    Verify(VerifyReport),
    /// Marks, oldest first.
    Marks(Vec<MarkReport>),
    /// Split brains, by node.
    Partings(Vec<PartingReport>),
}

/// A split brain with one node, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartingReport {
    /// The other node.
    pub peer: String,
    /// What both histories have in common: branch and term. `None` where a promotion by force broke
    /// with it.
    pub ancestor: Option<(u128, u64)>,
    /// Names this state; giving up a copy may be bound to it.
    pub token: u64,
    /// Seconds since this process first saw it.
    pub found_seconds: u64,
    /// Milliseconds since the two last compared.
    pub compared_milliseconds: u64,
    /// This side.
    pub mine: SideReport,
    /// The other side; `None` until it told all.
    pub theirs: Option<SideReport>,
    /// Bytes that both sides may have changed, where both know.
    pub overlap_bytes: Option<u64>,
    /// Bytes that may differ.
    pub differ_bytes: Option<u64>,
}

/// One side of a split brain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideReport {
    /// Branch and term of each reign that the other side does not know.
    pub reigns: Vec<(u128, u64)>,
    /// Bytes it may have changed since the two were one, in granules and after a crash in extents
    /// of the activity log. `None`: not known.
    pub changed_bytes: Option<u64>,
    /// It takes writes.
    pub is_primary: bool,
    /// State of its copy.
    pub disk: DiskState,
    /// Clients attached.
    pub clients: u32,
    /// Seconds since the last write of a client, where its process saw one.
    pub last_write_seconds: Option<u64>,
}

/// One mark of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkReport {
    /// Its name.
    pub name: MarkName,
    /// Identity: another for each creation, also under the same name.
    pub id: u128,
    /// When it was created, by the primary's clock.
    pub created: SystemTime,
    /// Bytes that changed since, in whole granules.
    pub dirty_bytes: u64,
    /// What changed is not known any more: all of the volume counts.
    pub is_whole: bool,
}

/// Figures of the latest verify of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Still comparing.
    pub running: bool,
    /// Bytes compared so far.
    pub compared_bytes: u64,
    /// Bytes to compare in all.
    pub total_bytes: u64,
    /// Bytes found different.
    pub different_bytes: u64,
    /// First ranges found different, (offset, length) in bytes; at most 16.
    pub different: Vec<(u64, u64)>,
    /// Verifies that compared everything, since this process began.
    pub completed: u64,
    /// Mean of about 30 s; `None` while it is too early, and without one that runs.
    pub rate_bytes_per_second: Option<u64>,
    /// The copies that differ are being repaired.
    pub is_repairing: bool,
    /// Why the verify ended early, if it did.
    pub failure: Option<String>,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Class; decides the exit code.
    pub kind: RefusalKind,
    /// Stable code of the message, for example `E207`.
    pub code: &'static str,
    /// What happened and to which volume or peer; one or more lines.
    pub text: String,
    /// What the operator can do; names existing verbs only.
    pub hint: Option<String>,
}

/// Class of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// Something broke or the state does not allow it (exit 1).
    Failed,
    /// No such volume or peer (exit 3).
    NotFound,
    /// Data could be lost; `--force` exists (exit 4).
    WouldLoseData,
    /// Took longer than asked (exit 7).
    TimedOut,
}

/// One volume as this node sees it. Becomes one entry of `status --json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStatus {
    /// Name in the configuration.
    pub name: String,
    /// Size in bytes; of a volume that is not attached the declared one.
    pub size_bytes: u64,
    /// What this node does for it.
    pub role: Role,
    /// The word for its health.
    pub state: State,
    /// Why it is not healthy, or a risk that should be known.
    pub reason: Option<Reason>,
    /// Newest history entry, once founded.
    pub generation: Option<Generation>,
    /// All replicas by the volume's table of nodes, this node included, who comes and who goes too;
    /// then the witnesses. Of a volume that is not attached, those of the file.
    pub replicas: Vec<ReplicaStatus>,
    /// Votes; `None` where nobody votes, and of a volume that is not attached.
    pub quorum: Option<QuorumStatus>,
    /// Attached clients.
    pub clients: Vec<ClientStatus>,
    /// Stored checksums of this node's copy; `None` where there are none.
    pub checksums: Option<ChecksumReport>,
    /// Things worth knowing that are no fault: quorum off, memory backing, ...
    pub notes: Vec<String>,
    /// Operations and bytes since attach.
    pub io: IoCounters,
}

/// What this node's stored checksums found since attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChecksumReport {
    /// Bytes that did not match.
    pub error_bytes: u64,
    /// Of these, written again with what another replica had.
    pub repaired_bytes: u64,
    /// Of these, still bad.
    pub unrepaired_bytes: u64,
    /// Bytes whose checksums were lost.
    pub lost_bytes: u64,
    /// The running or newest scrub; `None` before the first.
    pub scrub: Option<ScrubReport>,
}

/// Figures of a scrub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Still reading.
    pub running: bool,
    /// Bytes read so far.
    pub scanned_bytes: u64,
    /// Bytes to read in all.
    pub total_bytes: u64,
    /// Bytes that did not match.
    pub error_bytes: u64,
    /// Bytes that had no checksum, and have one now.
    pub adopted_bytes: u64,
}

/// Requests and bytes taken since attach; the requests among them that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCounters {
    /// Reads.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes, trims and write-zeroes.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Bytes of payload copied between buffers of this process, on their way to or from the
    /// replica here. What the kernel copies to and from sockets is not counted.
    pub copied_bytes: u64,
    /// Reads of clients here that another node answered.
    pub reads_by_peers: u64,
    /// Reads of another node's clients that this node answered.
    pub reads_for_peers: u64,
}

/// Role of this node for a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Does not.
    Secondary,
}

/// Health of a volume in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All configured replicas are in the in-sync set.
    Healthy,
    /// I/O goes on (or could), with fewer copies than configured.
    Degraded,
    /// No I/O possible, or split brain.
    Critical,
    /// Cannot attach on this node.
    Offline,
    /// Declared but never created on this node.
    NotCreated,
}

/// A coded sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Stable code, for example `W104`.
    pub code: &'static str,
    /// The sentence.
    pub text: String,
}

/// Whether a majority stands behind a volume, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumStatus {
    /// A register, etcd, has the one vote.
    pub is_etcd: bool,
    /// Nodes whose votes count, in the file's order; before founding all that will.
    pub voters: Vec<String>,
    /// Those of them that hold no copy.
    pub witnesses: Vec<String>,
    /// Voters that cannot be heard.
    pub missing: Vec<String>,
    /// This node serves and holds the lease, or granted it to who does.
    pub is_held: bool,
    /// Who serves, as far as this node knows.
    pub primary: Option<String>,
}

impl QuorumStatus {
    /// Votes that can be had.
    pub fn have(&self) -> usize {
        self.voters.len() - self.missing.len()
    }

    /// Votes that are needed.
    pub fn need(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// There are enough.
    pub fn is_met(&self) -> bool {
        self.have() >= self.need()
    }
}

/// Identity of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Branch id.
    pub branch: u128,
    /// Term of the newest entry.
    pub term: u64,
}

/// One configured replica as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Name of the node.
    pub node: String,
    /// State of its copy.
    pub disk_state: DiskState,
    /// State of the link to it.
    pub link_state: LinkState,
    /// Bytes this node knows it lacks.
    pub out_of_sync_bytes: u64,
    /// A running resync.
    pub resync: Option<ResyncStatus>,
    /// The resync towards it that ended last, since this process began.
    pub last_resync: Option<ResyncBytes>,
    /// The paths to its node, in the file's order; none of this node itself.
    pub paths: Vec<PathStatus>,
}

/// One way to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStatus {
    /// Where the accepting node listens.
    pub address: String,
    /// There is a control connection, and it is not silent.
    pub is_up: bool,
    /// The data connection of the volume takes it.
    pub carries_data: bool,
}

/// What a resync took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResyncBytes {
    /// Made equal and durable.
    pub done: u64,
    /// Of those, sent as data.
    pub sent: u64,
    /// Of those, told to be zeros.
    pub zeroed: u64,
    /// Of those, found equal.
    pub equal: u64,
}

/// What a resync does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResyncState {
    /// It moves, and for too short a time to say how fast.
    Estimating,
    /// It moves.
    Moving,
    /// An operator paused it.
    Paused,
    /// It goes as fast as it may.
    Throttled,
    /// It moves nothing, and should.
    Stalled,
    /// Nothing is left to move; the replica is about to be in sync.
    Joining,
}

/// Progress of a resync.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResyncStatus {
    /// What it does now.
    pub state: ResyncState,
    /// Why, where it does not simply move.
    pub reason: Option<&'static str>,
    /// What it took so far, in this session. A target knows only what is done.
    pub bytes: ResyncBytes,
    /// Moved / (moved + left), 0..1.
    pub done_ratio: f64,
    /// Exponential mean of the last 30 s; 0 while estimating.
    pub rate_bytes_per_second: u64,
    /// `None` while unknown.
    pub eta_seconds: Option<u64>,
    /// Paused by an operator.
    pub paused: bool,
}

impl Eq for ResyncStatus {}

/// State of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskState {
    /// A member of S as far as this node knows.
    UpToDate,
    /// Whole, but others are known to have gone ahead.
    Outdated,
    /// Target of an unfinished sync, or blank.
    Inconsistent,
    /// Its disk failed.
    Failed,
    /// A witness: it votes and holds no copy.
    Diskless,
    /// Declared, not created.
    NotCreated,
    /// Not connected.
    Unknown,
}

/// State of the link to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// This node itself.
    SelfNode,
    /// Trying.
    Connecting,
    /// Agreed with the peer.
    Connected,
    /// Sending resync data to it.
    ResyncSource,
    /// Receiving resync data from it.
    ResyncTarget,
    /// Stopped: by an operator, or by split brain or another refusal.
    Standalone,
}

/// One attached client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientStatus {
    /// Names it on this node until the daemon ends.
    pub id: u64,
    /// Export it attached to, by its name now.
    pub export: String,
    /// Its address, or `unix:<pid>`.
    pub address: String,
    /// TLS of its connection.
    pub tls: Option<ClientTls>,
    /// Seconds since it attached.
    pub age_seconds: u64,
    /// What it asked for since then.
    pub io: IoCounters,
}

/// How a client's connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// `TLS 1.3` or `TLS 1.2`.
    pub version: &'static str,
    /// Whom its certificate names, if it showed one.
    pub subject: Option<String>,
}

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

/// A running node. Cheap to clone; all calls are answered by `reply`, once, from another thread.
pub trait Node: Send + Sync {
    /// Asks for one change of one volume.
    fn request(&self, volume: &str, request: Request, reply: Box<dyn FnOnce(Outcome) + Send>);
    /// Status of one volume, or of all, in the file's order. Unknown name: empty.
    fn status(&self, volume: Option<&str>, reply: Box<dyn FnOnce(Vec<VolumeStatus>) + Send>);
    /// Words for the start line and `status`: io_uring or POSIX and why, features, fallbacks.
    fn io_backend(&self) -> String;
    /// Drains all volumes (law O4): stop admitting, finish, flush, mark clean; then calls `done`.
    fn drain(&self, done: Box<dyn FnOnce() + Send>);
    /// Uses these certificates for links that are made from now on; the node began with others.
    fn renew_tls(&self, tls: LinkTls);
    /// Talks to these `(name, addresses)` from now on too; who is known already stays as it is.
    /// Errors: no thread can be had for one of them, in words.
    fn meet(&self, peers: &[(String, Vec<String>)]) -> Result<(), String>;
    /// As [`Node::drain`], but clients stay open for another process: every reply is sent whole,
    /// and `done` gets what that process needs. Errors: nothing has changed.
    fn hand_over(&self, done: Box<dyn FnOnce(Result<Legacy, HandOverError>) + Send>);
}
