//! What two replicas of a volume say to each other. Values only; bytes stand in `wire/`.
//!
//! One connection per (slice, peer), FIFO. Payload never lies in a message: it travels as a
//! buffer beside it, with one CRC-64/NVME per granule that the shell computes once and verifies
//! on arrival (law M6).

use crate::generation::Chain;
use crate::record::Record;
use crate::units::{Extent, NODES_MAX, NodeSet, Seq, Term};

/// Most runs of dirty granules one message carries.
pub const RUNS_MAX: usize = 256;
/// Most granules one resync piece or one verify piece covers (1 MiB).
pub const RESYNC_PIECE_GRANULES: u64 = 256;

/// Most differing runs one piece can have: every other granule.
pub const DIFFERING_MAX: usize = RESYNC_PIECE_GRANULES as usize / 2;

/// Lowest protocol version this build speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// Highest protocol version this build speaks.
pub const PROTOCOL_MAX: u16 = 1;

/// State of a copy, as said on the wire and kept in the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Formatted, no history yet.
    Blank,
    /// Target of an unfinished sync, or newly adopted: not promotable, no source (law S8).
    Inconsistent,
    /// Whole, but its history is known to have been continued elsewhere.
    Outdated,
    /// Holds its history whole.
    UpToDate,
    /// A write or flush failed; final until replaced (DESIGN D11).
    Failed,
}

impl Refusal {
    /// Two histories of one volume: an operator decides which one is kept (law T9).
    pub fn is_split_brain(self) -> bool {
        matches!(self, Refusal::Diverged | Refusal::Unrelated)
    }
}

impl Disk {
    /// Has an identity, but is no whole copy of the newest history until a sync made it one.
    pub fn awaits_sync(self) -> bool {
        matches!(self, Disk::Inconsistent | Disk::Outdated)
    }
}

/// One run of the process that holds a copy. What was remembered of an earlier run and does not
/// fit shows that metadata and data were put back to an older state (F21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Grows with every attach; durable before the first hello.
    pub count: u64,
    /// Fresh with every attach, 0 before the first. The upper half names the replica.
    pub id: u64,
}

impl Life {
    /// A run of the replica with this identity.
    pub fn of(identity: u128, count: u64, random: u64) -> Life {
        let folded = (identity ^ identity >> 64) as u64;
        let name = (folded ^ folded >> 32) << 32;
        // Never 0, and never without a name.
        let id = name.max(1 << 32) | random & 0xFFFF_FFFF;
        Life { count, id }
    }

    /// Both are runs of one replica, not of one that took the place of another.
    pub fn is_of_same_replica(self, other: Life) -> bool {
        self.id >> 32 == other.id >> 32
    }
}

/// What a replica remembers of another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The one that was in S when the record was written; 0 for none.
    pub incarnation: u128,
    /// The last run it met.
    pub life: Life,
}

impl Known {
    /// This run is the one that is remembered, or a later one of the same copy.
    pub fn continues(&self, life: Life) -> bool {
        self.life.id == 0 || life == self.life || life.count > self.life.count
    }
}

/// Incarnations of replicas, by node; 0 where it is not known.
pub type Lives = [u128; NODES_MAX];

/// What a node leads by votes: it serves, or a majority promised that it may and it makes the
/// members equal (law R7 b).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reign {
    /// Its term.
    pub term: Term,
    /// Who belongs to S, or will if nothing differs.
    pub members: NodeSet,
}

/// First message on a connection, from both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest protocol version spoken.
    pub protocol_min: u16,
    /// Highest protocol version spoken.
    pub protocol_max: u16,
    /// Feature bits the other side must know.
    pub features_required: u64,
    /// Feature bits offered.
    pub features_offered: u64,
    /// Cluster name.
    pub cluster: String,
    /// Volume name.
    pub volume: String,
    /// Name of the node that speaks.
    pub from: String,
    /// Name of the node it believes to speak to.
    pub to: String,
    /// Identity of the volume, 0 before founding.
    pub volume_id: u128,
    /// Slice of the volume; 0 for now.
    pub slice: u32,
    /// Size in granules.
    pub size_granules: u64,
    /// Bytes per granule.
    pub granule_bytes: u32,
    /// Digest of the volume's part of the configuration (peers compare, law F25).
    pub config_digest: u64,
    /// Identity of this replica's life: new when it is formatted anew.
    pub incarnation: u128,
    /// This run of the process.
    pub life: Life,
    /// The replica of the other side, as this one knows it.
    pub knows: Known,
    /// History of the copy.
    pub chain: Chain,
    /// Newest record this node holds durably.
    pub record: Option<Record>,
    /// Highest term it promised: it takes nothing of a lower one (law T6).
    pub promised: Term,
    /// What it leads, if it does.
    pub leads: Option<Reign>,
    /// State of the copy.
    pub disk: Disk,
    /// Serves clients right now.
    pub is_primary: bool,
    /// Records are chosen by votes (`quorum = "majority"`).
    pub has_votes: bool,
    /// Lost no stored write (invariants, "whole").
    pub is_whole: bool,
    /// Slots of its activity log; a primary never has more extents open than this.
    pub activity_log_slots: u32,
    /// Writes it accepts before their confirmation.
    pub credit_operations: u32,
    /// Payload bytes it accepts before their confirmation.
    pub credit_bytes: u64,
}

/// Why a peer is not talked to. Said on both sides (law F20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No common protocol version.
    Protocol,
    /// A required feature is unknown.
    Feature,
    /// Another cluster.
    Cluster,
    /// Another volume name or slice, or a node that is not configured.
    Volume,
    /// Same name, but another founded volume.
    VolumeId,
    /// Sizes differ.
    Size,
    /// The volume is configured differently.
    ConfigDigest,
    /// Histories diverged: split brain.
    Diverged,
    /// Histories have nothing in common.
    Unrelated,
    /// This side serves clients and the other is ahead, or both serve.
    TwoPrimaries,
    /// An operator disconnected it.
    Operator,
    /// It broke the protocol or sent damaged bytes.
    Breach,
    /// The node stops.
    Leaving,
    /// The other side returned with older data than this one remembers (F21).
    OlderData,
    /// TLS of the two does not fit: only one uses it, or a certificate is not that of its node.
    Tls,
}

/// What a confirmation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done as asked.
    Ok,
    /// The disk failed.
    Io,
    /// The disk is full.
    NoSpace,
    /// Refused: the copy does not take part (wrong state or term); nothing was done.
    Refused,
}

/// How zeros come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeroing {
    /// Release the blocks where the backing can.
    Trim,
    /// Zeros, by releasing or writing, whatever is faster.
    MayTrim,
    /// Zeros in allocated blocks.
    Allocate,
}

/// Head of every frame that moves or changes data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Place in the order of this term; dense per term.
    pub seq: Seq,
    /// Term of the primary that stamped it.
    pub term: Term,
    /// Everything up to here is confirmed by all of S.
    pub stable: Seq,
    /// Everything up to here is durable on all of S; activity-log slots below may close.
    pub durable: Seq,
    /// Everything up to here was shipped to the DR site; 0 while there is none.
    pub shipped: Seq,
}

/// One attribute of the volume, alone or as a part of the whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAttr {
    /// Number of the message; dense per session, together with [`MarkPage`].
    pub number: u64,
    /// Term of the sender.
    pub term: Term,
    /// A whole table begins.
    pub is_first: bool,
    /// A whole table ends; neither first nor part of one, it is a change of one attribute.
    pub is_last: bool,
    /// Which; empty where the table is.
    pub key: String,
    /// Its value, at most 64 KiB; empty: there is none.
    pub value: Vec<u8>,
}

/// Bits of one page of a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkPage {
    /// As in [`SetAttr`].
    pub number: u64,
    /// Term of the sender.
    pub term: Term,
    /// Identity of the mark.
    pub mark: u128,
    /// Which page.
    pub page: u32,
    /// Granules per bit.
    pub grain: u32,
    /// Its words; zeros follow.
    pub words: Vec<u64>,
}

/// One message between two replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who I am and what I hold. First, from both sides.
    Hello(Box<Hello>),
    /// I will not talk to you, and why. Last message.
    Refuse(Refusal),
    /// Runs of granules that may differ between us, as I know it: my bits for you and my
    /// recovered activity log. Sent after the hellos agree, lowest first.
    Runs {
        /// Dirty runs.
        runs: Vec<Extent>,
        /// No more follow.
        last: bool,
    },
    /// Role or disk state changed.
    State {
        /// Serves clients.
        is_primary: bool,
        /// State of my copy.
        disk: Disk,
    },
    /// Adopt this record and history durably, then answer `RecordAck`.
    Record {
        /// The record.
        record: Record,
        /// The history of the data under it.
        chain: Chain,
        /// By votes: which replicas the record means.
        lives: Box<Lives>,
    },
    /// The record of this (term, step) is durable here.
    RecordAck {
        /// Its term.
        term: Term,
        /// Its step.
        step: u32,
    },
    /// Adopt the volume's identity on a blank replica; it becomes Inconsistent.
    Adopt {
        /// Identity of the volume.
        volume_id: u128,
    },
    /// The identity is durable here.
    AdoptAck,
    /// Write the payload.
    Data {
        /// Order and progress.
        stamp: Stamp,
        /// Where; the payload covers exactly this.
        extent: Extent,
        /// Confirm only once it is on stable storage.
        durable: bool,
    },
    /// Make zeros.
    Zero {
        /// Order and progress.
        stamp: Stamp,
        /// Where.
        extent: Extent,
        /// How.
        zeroing: Zeroing,
        /// Confirm only once it is on stable storage.
        durable: bool,
    },
    /// The write of this seq is stored (durable, if asked for).
    Ack {
        /// Which.
        seq: Seq,
        /// How it ended.
        status: Status,
    },
    /// Put everything confirmed before on stable storage.
    Flush {
        /// Number of the round; dense per session.
        round: u64,
        /// Epoch that ends with this barrier.
        epoch: u64,
        /// Writes stamped in that epoch.
        writes: u64,
    },
    /// The round is on stable storage here.
    FlushAck {
        /// Which.
        round: u64,
        /// How it ended.
        status: Status,
    },
    /// Progress without data: everything up to `stable` / `durable` is so.
    Progress {
        /// As in [`Stamp`]; `seq` is the newest stamped.
        stamp: Stamp,
    },
    /// Who reigns, or is about to, to a replica: this attribute of the volume has this value.
    SetAttr(SetAttr),
    /// Everything up to this number is durable here.
    SetAttrAck {
        /// Newest of them.
        number: u64,
        /// How it ended.
        status: Status,
    },
    /// Source to target: bits of one page of a mark.
    MarkPage(MarkPage),
    /// Who reigns, to a member: make room for a volume of this size.
    GrowAsk {
        /// Granules.
        size: u64,
    },
    /// There is room, durably, or there is none.
    GrowAnswer {
        /// Granules that were asked for.
        size: u64,
        /// Granules that its metadata has room for.
        max: u64,
        /// Ok; refused: `max` is too little; else: the backing cannot be made longer.
        status: Status,
    },
    /// Source to target: I will serve your requests for what you lack.
    ResyncOffer {
        /// Granules dirty now.
        dirty: u64,
        /// Compare checksums before moving data.
        by_checksum: bool,
    },
    /// Target to source: which granules from here on?
    MapRequest {
        /// First granule of interest.
        from: u64,
    },
    /// Source to target: these, lowest first.
    Map {
        /// Dirty runs at or after the granule asked for; at most [`RUNS_MAX`].
        runs: Vec<Extent>,
        /// Nothing dirty beyond the last run.
        last: bool,
    },
    /// Target to source: send me this.
    ResyncRequest {
        /// Number of the request; dense per session.
        id: u64,
        /// At most [`RESYNC_PIECE_GRANULES`].
        extent: Extent,
        /// Checksums of what the target holds there, one per granule; empty: none taken.
        sums: Vec<u64>,
    },
    /// Source to target: the payload covers `extent`.
    ResyncData {
        /// Which request.
        id: u64,
        /// Where.
        extent: Extent,
    },
    /// Source to target: it reads as zeros.
    ResyncZero {
        /// Which request.
        id: u64,
        /// Where.
        extent: Extent,
    },
    /// Source to target: your checksums equal mine.
    ResyncEqual {
        /// Which request.
        id: u64,
    },
    /// Source to target: I could not read it.
    ResyncFailed {
        /// Which request.
        id: u64,
    },
    /// Target to source: all requests up to `id` are durable and equal here.
    ResyncAck {
        /// Newest of them.
        id: u64,
        /// How it ended.
        status: Status,
    },
    /// Either side: what an operator wants of the resync on that node.
    ResyncPause {
        /// Paused now.
        paused: bool,
        /// Limit in bytes per second; 0 is none.
        rate: u64,
    },
    /// Target to source: does this differ from what I hold? Answered by `ResyncEqual`,
    /// `ResyncDiffer` or `ResyncFailed`.
    ResyncAsk {
        /// As in `ResyncRequest`.
        id: u64,
        /// At most [`RESYNC_PIECE_GRANULES`].
        extent: Extent,
        /// Strong hashes of what the target holds there, one per granule.
        hashes: Vec<u128>,
    },
    /// Source to target: these runs of the piece differ, all the rest is equal.
    ResyncDiffer {
        /// Which request.
        id: u64,
        /// Inside the piece, lowest first; one to [`DIFFERING_MAX`].
        runs: Vec<Extent>,
    },
    /// Read for a primary whose own copy failed or is busy, or for a member whose copy lost it.
    ReadRequest {
        /// Number of the request.
        id: u64,
        /// What.
        extent: Extent,
    },
    /// Answer; the payload covers what was asked when `status` is Ok.
    ReadReply {
        /// Which.
        id: u64,
        /// How it ended.
        status: Status,
    },
    /// Checksums of this, for a verify.
    SumRequest {
        /// Number of the request.
        id: u64,
        /// What, at most [`RESYNC_PIECE_GRANULES`].
        extent: Extent,
    },
    /// Answer: one CRC-64/NVME per granule.
    SumReply {
        /// Which.
        id: u64,
        /// How it ended.
        status: Status,
        /// One per granule when Ok.
        sums: Vec<u64>,
    },
    /// Strong hashes of this, for a verify.
    HashRequest {
        /// Number of the request.
        id: u64,
        /// What, at most [`RESYNC_PIECE_GRANULES`].
        extent: Extent,
        /// Granules per hash, at least 1.
        each: u32,
    },
    /// Answer to `HashRequest`.
    HashReply {
        /// Which.
        id: u64,
        /// How it ended.
        status: Status,
        /// One per run of granules asked for when Ok.
        hashes: Vec<u128>,
    },
    /// After `Runs`, in a split brain: what else an operator wants to know of this side. Nothing
    /// follows.
    Parted(Parted),
}

/// One side of a split brain, beside its history and what it changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parted {
    /// Its operator decided to give up this copy.
    pub gives_up: bool,
    /// It serves, and its voters would be no majority without the other side's vote.
    pub needs_vote: bool,
    /// Clients attached.
    pub clients: u32,
    /// Milliseconds since the last write of a client; `None`: none since this process began.
    pub last_write_ms: Option<u64>,
}
