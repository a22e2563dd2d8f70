//! What happens to a volume: the only way in.

use std::time::Duration;

use crate::checksums::Scrubbed;
use crate::marks::MarkName;
use crate::message::{Message, Status};
use crate::record::Choice;
use crate::register::Found;
use crate::table::NodeKind;
use crate::units::{BufId, ByteRange, Extent, NodeIdx};
use crate::vote::Ballot;

/// One client attachment, unique in the cluster and never reused (laws B3, B9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// The front end's own name for a request; given back untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReqId(pub u64);

/// One connection to a peer, unique within the process and never reused (law R10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Names an action that will be answered by an event. Carries a generation: a late answer to a
/// slot that was reused is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// The shell's own name for an operator's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId(pub u64);

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Fill `buf` (it covers `range` rounded out to granules; see [`BufId`]).
    Read {
        /// Which bytes.
        range: ByteRange,
        /// Where to.
        buf: BufId,
    },
    /// Store what lies in `buf`.
    Write {
        /// Which bytes.
        range: ByteRange,
        /// Where from; frozen from now until `Complete`.
        buf: BufId,
        /// Complete only once it is on stable storage on all of S.
        fua: bool,
    },
    /// Make zeros, any length.
    Zero {
        /// Which bytes.
        range: ByteRange,
        /// How.
        zeroing: crate::message::Zeroing,
        /// As for writes.
        fua: bool,
    },
    /// Everything completed before is on stable storage on all of S.
    Flush,
}

/// How the disk answered.
pub type DiskResult = Result<(), DiskError>;

/// Why it did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// EIO, short transfer, failed flush.
    Io,
    /// ENOSPC, EDQUOT, EFBIG.
    NoSpace,
    /// What was read does not match the stored checksums, from the first such granule to the last.
    Checksum(Extent),
}

impl From<DiskError> for Status {
    fn from(error: DiskError) -> Status {
        match error {
            DiskError::Io | DiskError::Checksum(_) => Status::Io,
            DiskError::NoSpace => Status::NoSpace,
        }
    }
}

/// What came out of a job on bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// Done; nothing to hand over.
    Done,
    /// A new buffer that the core now owns.
    Buffer(BufId),
    /// One CRC-64/NVME per granule.
    Sums(Vec<u64>),
    /// One strong hash per run of granules asked for.
    Hashes(Vec<u128>),
    /// What a scrub of a piece found.
    Scrubbed(Scrubbed),
    /// The disk under it failed.
    Failed(DiskError),
}

/// What follows where a verify finds copies that differ (law S10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Who differs stays out of S until an operator says whose data is kept.
    No,
    /// Copies are repaired from the primary's, if it and those equal to it are a majority wherever
    /// something differs; else as with `No`.
    Majority,
    /// They are repaired from this node's copy, which is the primary's.
    From(NodeIdx),
}

/// An operator's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Become primary; found the volume where it is not founded.
    Promote {
        /// New branch where plain promotion is not allowed.
        force: bool,
        /// Longest wait for peers to answer.
        wait: Duration,
    },
    /// Become primary by votes, also where another member serves: that one hands its role over.
    TakeOver {
        /// Longest wait until it has done so.
        wait: Duration,
    },
    /// Become secondary: stop admitting, finish, flush, close the activity log.
    Demote,
    /// Allow the link to this peer.
    Connect(NodeIdx),
    /// Drop it and keep it down.
    Disconnect(NodeIdx),
    /// Let the resync from this node begin, after a verify or a pause at its start.
    ResyncStart {
        /// Whose data is kept.
        from: NodeIdx,
    },
    /// Stop asking for resync data.
    ResyncPause,
    /// Go on.
    ResyncResume,
    /// Limit of resync in bytes per second; 0 is no limit.
    ResyncRate(u64),
    /// Give up this copy for that of a node that it is in split brain with.
    GiveUp {
        /// Whose copy is kept.
        to: NodeIdx,
        /// The state that was decided on, as [`parting`](crate::volume::Volume::parting) named it;
        /// `None`: whatever it is.
        token: Option<u64>,
    },
    /// Compare the copies, and repair what differs if that is wanted.
    Verify(Repair),
    /// Compare this node's copy with its stored checksums, at most so many bytes per second; 0 is
    /// no limit.
    Scrub {
        /// Bytes per second.
        rate: u64,
    },
    /// From now on keep what changed, under this name.
    MarkCreate {
        /// Its name.
        name: MarkName,
        /// Milliseconds since 1970.
        created_ms: u64,
    },
    /// Keep it no more.
    MarkDelete {
        /// Its name.
        name: MarkName,
    },
    /// Be larger from now on; the backing of this node already is, with zeros where the volume is
    /// mirrored.
    Grow {
        /// Granules from then on.
        size: u64,
        /// Bytes the backing holds.
        backing_bytes: u64,
    },
    /// The volume is to have these nodes, and no others.
    Nodes(Vec<(String, NodeKind)>),
    /// Drain and mark clean (law O4); nothing is served afterwards.
    Stop,
}

/// Everything that can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The volume was just attached: write what attach must write, connect.
    Start,
    /// A deadline was reached, or work was left over.
    Tick,
    /// A request arrived whole.
    Submit {
        /// Whose.
        session: SessionId,
        /// Its name.
        req: ReqId,
        /// What.
        op: Op,
    },
    /// The client does not want it any more.
    Abort {
        /// Whose.
        session: SessionId,
        /// Which.
        req: ReqId,
    },
    /// The client is gone: drop what is not dispatched, then answer `SessionQuiet`.
    CloseSession {
        /// Which.
        session: SessionId,
    },
    /// A data-disk action ended.
    DiskDone {
        /// Which.
        token: Token,
        /// How.
        result: DiskResult,
        /// The buffer, where the action asked the shell to allocate one; also where its content
        /// does not match the checksums.
        buf: Option<BufId>,
        /// All granules read are zeros (known only where asked for).
        is_zero: bool,
    },
    /// A metadata block is durable, or could not be made so.
    MetaDone {
        /// Which.
        token: Token,
        /// How.
        result: DiskResult,
    },
    /// A page of checksums is in memory, as far as it could be read.
    SumsRead {
        /// Which.
        token: Token,
        /// What was found of it.
        found: SumsFound,
    },
    /// A job ended.
    JobDone {
        /// Which.
        token: Token,
        /// How.
        outcome: JobOutcome,
    },
    /// A connection to this peer stands; nothing was said on it yet.
    LinkUp {
        /// To whom.
        peer: NodeIdx,
        /// Its name.
        link: LinkId,
    },
    /// A connection is gone: reset, timed out or dropped by us.
    LinkDown {
        /// Which.
        link: LinkId,
    },
    /// A peer without a connection was dialled or probed, and nobody answers there.
    Unreachable {
        /// Who.
        peer: NodeIdx,
    },
    /// A message arrived.
    Peer {
        /// On which connection.
        link: LinkId,
        /// What.
        message: Message,
        /// Its payload, if it has one; the core owns it now.
        payload: Option<Payload>,
    },
    /// A ballot arrived on the control connection.
    Vote {
        /// Who speaks.
        from: NodeIdx,
        /// What.
        ballot: Ballot,
    },
    /// A step of a salvage ended.
    SalvageDone {
        /// Which.
        token: Token,
        /// How.
        result: DiskResult,
    },
    /// So many clients are attached here.
    Clients(u32),
    /// The control store answered `ProposeRecord`.
    Record(Choice),
    /// The backing was made longer, or could not be: answers `GrowBacking`.
    BackingGrown {
        /// Granules it was to hold.
        size: u64,
        /// Bytes it holds, all that are new zeros, durably.
        result: Result<u64, DiskError>,
    },
    /// The register answered.
    Register {
        /// Number of the question.
        number: u64,
        /// What.
        found: Found,
    },
    /// An operator speaks.
    Command {
        /// To answer to.
        id: CommandId,
        /// What.
        command: Command,
    },
}

/// What lay in the two slots of a page of checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumsFound {
    /// Highest counter of a slot, 0 without one.
    pub counter: u64,
    /// That slot is the second one.
    pub is_second: bool,
    /// Nothing in it can be trusted, or it could not be read: no value of it is known.
    pub is_lost: bool,
}

/// Payload of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Where it lies.
    pub buf: BufId,
    /// Every granule matched its checksum.
    pub is_intact: bool,
}
