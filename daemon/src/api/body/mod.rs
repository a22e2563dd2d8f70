//! What the API says, as JSON: the shapes promised in `docs/operations.md`. Fields are only ever
//! added within a schema version. The command line reads the same types back.

pub mod ask;
mod reports;
mod volume;

use engine::control::{self, VolumeStatus};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use reports::{
    DifferentRange, Mark, MarksReport, Parting, Problem, Side, SplitBrainReport, VerifyReport,
};
pub use volume::{AppliedReport, Changed, Declared, DeclaredExport, VolumeReport};

/// Schema of [`StatusReport`].
pub const STATUS_SCHEMA: &str = "pollux.status/1";
/// Schema of [`VerifyReport`].
pub const VERIFY_SCHEMA: &str = "pollux.verify/1";
/// Schema of [`MarksReport`].
pub const MARKS_SCHEMA: &str = "pollux.marks/1";
/// Schema of [`SplitBrainReport`].
pub const SPLITBRAIN_SCHEMA: &str = "pollux.splitbrain/1";
/// Schema of [`VolumeReport`].
pub const VOLUME_SCHEMA: &str = "pollux.volume/1";

/// `GET /api/v1/status` and `status --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// `pollux.status/1`.
    pub schema: String,
    /// RFC 3339, UTC.
    pub generated_at: String,
    /// Name of the node that answers.
    pub node: String,
    /// `io_uring …` or `POSIX …` and why.
    pub io_backend: String,
    /// Listeners that may leave loopback without TLS.
    pub insecure: Vec<String>,
    /// Volumes of this node, in the file's order.
    pub volumes: Vec<VolumeEntry>,
}

/// One volume of a [`StatusReport`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeEntry {
    /// Name in the configuration.
    pub name: String,
    /// Declared size.
    pub size_bytes: u64,
    /// What this node does for it.
    pub role: Role,
    /// Its health in one word.
    pub state: State,
    /// Why it is not healthy.
    pub reason: Option<Reason>,
    /// Newest history entry, once founded.
    pub generation: Option<Generation>,
    /// All configured replicas, this node included.
    pub replicas: Vec<Replica>,
    /// Votes; `null` where nobody votes (`quorum = "off"`, one replica).
    #[serde(default)]
    pub quorum: Option<Quorum>,
    /// The verify that compared everything last.
    #[serde(default)]
    pub last_verify: Option<LastVerify>,
    /// Stored checksums of this node's copy; `null` where there are none.
    #[serde(default)]
    pub checksums: Option<Checksums>,
    /// Attached clients.
    pub clients: Vec<Client>,
    /// Risks and facts that are no fault.
    pub notes: Vec<String>,
    /// Operations and bytes since attach.
    pub io: VolumeIo,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident from $source:ty { $($(#[$of:meta])* $theirs:ident => $ours:ident $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name { $($(#[$of])* #[serde(rename = $text)] $ours,)* }

        impl $name {
            /// Every word, in the order of the documentation.
            pub const ALL: &'static [$name] = &[$($name::$ours,)*];

            /// The word itself.
            pub fn word(self) -> &'static str {
                match self { $($name::$ours => $text,)* }
            }
        }

        impl From<$source> for $name {
            fn from(value: $source) -> $name {
                match value { $(<$source>::$theirs => $name::$ours,)* }
            }
        }
    };
}

words! {
    /// Role of a node for a volume.
    Role from control::Role {
        /// Takes writes.
        Primary => Primary "primary",
        /// Does not.
        Secondary => Secondary "secondary",
    }
}

words! {
    /// Health of a volume.
    State from control::State {
        /// All configured replicas are in the in-sync set.
        Healthy => Healthy "healthy",
        /// I/O goes on with fewer copies than configured.
        Degraded => Degraded "degraded",
        /// No I/O possible, or split brain.
        Critical => Critical "critical",
        /// Cannot attach on this node.
        Offline => Offline "offline",
        /// Declared, never created on this node.
        NotCreated => NotCreated "not_created",
    }
}

words! {
    /// State of one copy.
    DiskState from control::DiskState {
        /// A member of S.
        UpToDate => UpToDate "up_to_date",
        /// Whole, but others have gone ahead.
        Outdated => Outdated "outdated",
        /// Target of an unfinished sync, or blank.
        Inconsistent => Inconsistent "inconsistent",
        /// Its disk failed.
        Failed => Failed "failed",
        /// A witness: it votes and holds no copy.
        Diskless => Diskless "diskless",
        /// Declared, not created.
        NotCreated => NotCreated "not_created",
        /// Not connected.
        Unknown => Unknown "unknown",
    }
}

words! {
    /// What a resync does.
    ResyncState from control::ResyncState {
        /// It moves, and for too short a time to say how fast.
        Estimating => Estimating "estimating",
        /// It moves.
        Moving => Moving "moving",
        /// An operator paused it.
        Paused => Paused "paused",
        /// It goes as fast as it may.
        Throttled => Throttled "throttled",
        /// It moves nothing, and should.
        Stalled => Stalled "stalled",
        /// Nothing is left to move.
        Joining => Joining "joining",
    }
}

words! {
    /// State of the link to a replica's node.
    LinkState from control::LinkState {
        /// This node itself.
        SelfNode => SelfNode "self",
        /// Trying.
        Connecting => Connecting "connecting",
        /// Agreed with the peer.
        Connected => Connected "connected",
        /// Sending resync data to it.
        ResyncSource => ResyncSource "resync_source",
        /// Receiving resync data from it.
        ResyncTarget => ResyncTarget "resync_target",
        /// Stopped by an operator or by a refusal.
        Standalone => Standalone "standalone",
    }
}

/// A coded sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable code, for example `W104`.
    pub code: String,
    /// The sentence.
    pub text: String,
}

/// Identity of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// 32 hex digits.
    pub branch: String,
    /// Term of the newest entry.
    pub term: u64,
}

/// One configured replica as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    /// Name of its node.
    pub node: String,
    /// State of its copy.
    pub disk_state: DiskState,
    /// State of the link to it.
    pub link_state: LinkState,
    /// Bytes it is known to lack.
    pub out_of_sync_bytes: u64,
    /// A running resync.
    pub resync: Option<Resync>,
    /// The resync towards it that ended last, since the daemon began.
    #[serde(default)]
    pub last_resync: Option<ResyncBytes>,
    /// The paths to its node, in the file's order; none of the answering node itself.
    #[serde(default)]
    pub paths: Vec<LinkPath>,
}

/// One way to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkPath {
    /// Where the node with the greater name listens.
    pub address: String,
    /// It answers.
    pub up: bool,
    /// Data of the volume takes it.
    pub carries_data: bool,
}

/// Whether a majority stands behind a volume, as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// `majority`, or `etcd`, which has the one vote then.
    pub mode: String,
    /// Votes.
    pub votes: VoteCount,
    /// Voters that are not heard.
    pub missing: Vec<String>,
    /// `held` while a majority granted it to the primary, as far as this node knows; else `lost`.
    pub lease: Lease,
    /// Who serves, as far as this node knows.
    pub primary: Option<String>,
    /// Nodes whose votes count.
    pub voters: Vec<String>,
    /// Those that hold no copy.
    pub witnesses: Vec<String>,
}

/// Votes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteCount {
    /// That can be had now.
    pub have: usize,
    /// For a majority.
    pub need: usize,
    /// In all.
    pub of: usize,
}

/// The right to serve for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lease {
    /// A majority granted it.
    Held,
    /// Nobody has it.
    Lost,
}

impl Lease {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Lease::Held => "held",
            Lease::Lost => "lost",
        }
    }
}

impl From<control::QuorumStatus> for Quorum {
    fn from(quorum: control::QuorumStatus) -> Quorum {
        let votes = VoteCount {
            have: quorum.have(),
            need: quorum.need(),
            of: quorum.voters.len(),
        };
        Quorum {
            mode: match quorum.is_etcd {
                true => "etcd".to_owned(),
                false => "majority".to_owned(),
            },
            votes,
            missing: quorum.missing,
            lease: match quorum.is_held {
                true => Lease::Held,
                false => Lease::Lost,
            },
            primary: quorum.primary,
            voters: quorum.voters,
            witnesses: quorum.witnesses,
        }
    }
}

/// Progress of a resync.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resync {
    /// 0 to 1.
    pub done_ratio: f64,
    /// 0 while estimating.
    pub rate_bytes_per_second: u64,
    /// `null` while unknown.
    pub eta_seconds: Option<u64>,
    /// Stopped by an operator.
    pub paused: bool,
    /// What it does now.
    #[serde(default = "estimating")]
    pub state: ResyncState,
    /// Why, where it does not simply move.
    #[serde(default)]
    pub reason: Option<String>,
    /// What it took so far, since the link stood. A target knows only what is done.
    #[serde(default)]
    pub bytes: ResyncBytes,
}

fn estimating() -> ResyncState {
    ResyncState::Estimating
}

/// What a resync took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl From<control::ResyncBytes> for ResyncBytes {
    fn from(bytes: control::ResyncBytes) -> ResyncBytes {
        ResyncBytes {
            done: bytes.done,
            sent: bytes.sent,
            zeroed: bytes.zeroed,
            equal: bytes.equal,
        }
    }
}

/// The verify that compared everything last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastVerify {
    /// RFC 3339, UTC, by the clock of the node that was primary.
    pub ended_at: String,
    /// Bytes compared.
    pub compared_bytes: u64,
    /// Bytes found different.
    pub different_bytes: u64,
}

/// One attached client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Names it on this node until the daemon ends.
    pub id: u64,
    /// Export it attached to.
    pub export: String,
    /// Its address, or `unix:<pid>`.
    pub address: String,
    /// RFC 3339, UTC.
    pub since: String,
    /// TLS of its connection; `null` without.
    pub tls: Option<ClientTls>,
    /// Operations and bytes since then.
    pub io: Io,
}

/// How a client's connection is protected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTls {
    /// `TLS 1.3` or `TLS 1.2`.
    pub version: String,
    /// Whom its certificate names; `null` if it showed none.
    pub subject: Option<String>,
}

/// Operations and bytes since attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// Reads answered.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes, trims and write-zeroes answered.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Flushes answered.
    pub flushes: u64,
    /// Requests answered with an error.
    pub errors: u64,
}

/// What stored checksums found since attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksums {
    /// Bytes that did not match.
    pub error_bytes: u64,
    /// Of these, written again with what another replica had.
    pub repaired_bytes: u64,
    /// Of these, still bad.
    pub unrepaired_bytes: u64,
    /// Bytes whose checksums were lost.
    pub lost_bytes: u64,
    /// The running or newest scrub; `null` before the first.
    pub scrub: Option<Scrub>,
}

/// Figures of a scrub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrub {
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

impl From<control::ChecksumReport> for Checksums {
    fn from(found: control::ChecksumReport) -> Checksums {
        Checksums {
            error_bytes: found.error_bytes,
            repaired_bytes: found.repaired_bytes,
            unrepaired_bytes: found.unrepaired_bytes,
            lost_bytes: found.lost_bytes,
            scrub: found.scrub.map(|scrub| Scrub {
                running: scrub.running,
                scanned_bytes: scrub.scanned_bytes,
                total_bytes: scrub.total_bytes,
                error_bytes: scrub.error_bytes,
                adopted_bytes: scrub.adopted_bytes,
            }),
        }
    }
}

/// What a volume's clients asked for, and what nodes read for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeIo {
    /// Of its clients, since attach.
    #[serde(flatten)]
    pub clients: Io,
    /// Reads of clients here that another node answered.
    #[serde(default)]
    pub reads_by_peers: u64,
    /// Reads of another node's clients that this node answered.
    #[serde(default)]
    pub reads_for_peers: u64,
}

impl VolumeEntry {
    /// `status` as seen at `now`.
    pub fn new(
        status: VolumeStatus,
        last_verify: Option<LastVerify>,
        now: Timestamp,
    ) -> VolumeEntry {
        VolumeEntry {
            name: status.name,
            size_bytes: status.size_bytes,
            role: status.role.into(),
            state: status.state.into(),
            reason: status.reason.map(|reason| Reason {
                code: reason.code.to_owned(),
                text: reason.text,
            }),
            generation: status.generation.map(|generation| Generation {
                branch: format!("{:032x}", generation.branch),
                term: generation.term,
            }),
            replicas: status.replicas.into_iter().map(Replica::from).collect(),
            quorum: status.quorum.map(Quorum::from),
            last_verify,
            checksums: status.checksums.map(Checksums::from),
            clients: status
                .clients
                .into_iter()
                .map(|client| Client::new(client, now))
                .collect(),
            notes: status.notes,
            io: status.io.into(),
        }
    }
}

impl From<control::IoCounters> for Io {
    fn from(io: control::IoCounters) -> Io {
        Io {
            reads: io.reads,
            read_bytes: io.read_bytes,
            writes: io.writes,
            written_bytes: io.written_bytes,
            flushes: io.flushes,
            errors: io.errors,
        }
    }
}

impl From<control::IoCounters> for VolumeIo {
    fn from(io: control::IoCounters) -> VolumeIo {
        VolumeIo {
            clients: io.into(),
            reads_by_peers: io.reads_by_peers,
            reads_for_peers: io.reads_for_peers,
        }
    }
}

impl From<control::ReplicaStatus> for Replica {
    fn from(replica: control::ReplicaStatus) -> Replica {
        Replica {
            node: replica.node,
            disk_state: replica.disk_state.into(),
            link_state: replica.link_state.into(),
            out_of_sync_bytes: replica.out_of_sync_bytes,
            resync: replica.resync.map(|resync| Resync {
                done_ratio: resync.done_ratio.clamp(0.0, 1.0),
                rate_bytes_per_second: resync.rate_bytes_per_second,
                eta_seconds: resync.eta_seconds,
                paused: resync.paused,
                state: resync.state.into(),
                reason: resync.reason.map(str::to_owned),
                bytes: resync.bytes.into(),
            }),
            last_resync: replica.last_resync.map(ResyncBytes::from),
            paths: replica.paths.into_iter().map(LinkPath::from).collect(),
        }
    }
}

impl From<control::PathStatus> for LinkPath {
    fn from(path: control::PathStatus) -> LinkPath {
        LinkPath {
            address: path.address,
            up: path.is_up,
            carries_data: path.carries_data,
        }
    }
}

impl Client {
    fn new(client: control::ClientStatus, now: Timestamp) -> Client {
        let age = i64::try_from(client.age_seconds).unwrap_or(i64::MAX);
        let since = Timestamp::from_second(now.as_second().saturating_sub(age));
        let tls = |tls: control::ClientTls| ClientTls {
            version: tls.version.to_owned(),
            subject: tls.subject,
        };
        Client {
            id: client.id,
            export: client.export,
            address: client.address,
            since: since.unwrap_or(Timestamp::UNIX_EPOCH).to_string(),
            tls: client.tls.map(tls),
            io: client.io.into(),
        }
    }
}
