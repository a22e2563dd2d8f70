//! A volume as this node sees it: its health, copies, links, votes, clients and figures.

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
