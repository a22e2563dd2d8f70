//! What a volume wants done: the only way out.
//!
//! Actions of one batch are unordered, except that `Send`s to one peer keep their order. What
//! must come later is emitted by the event that reports its cause durable.
//!
//! Buffers: the front end keeps its own reference to a request's buffer until `Complete`; the
//! shell keeps one for each `DiskWrite`, `DiskRead` and `Send` until the last completion of the
//! operation (law O2). Buffers the core was given (payload of a peer, `Buffer` of a job, a read
//! with `ReadInto::Alloc`) end with exactly one `Release`.

use std::time::Duration;

use crate::event::{CommandId, DiskError, LinkId, ReqId, SessionId, Token};
use crate::message::{Message, Refusal, Zeroing};
use crate::record::Record;
use crate::register::Access;
use crate::units::{BufId, ByteRange, Extent, NodeIdx, NodeSet, Term};
use crate::volume::ResyncFigures;
use crate::vote::Ballot;

/// Bytes of a metadata record.
pub const META_BLOCK: usize = 4096;
/// A metadata record.
pub type MetaBlock = [u8; META_BLOCK];

/// Where a read goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadInto {
    /// This buffer; it starts at the extent's first byte.
    Buf(BufId),
    /// One the shell takes from the resync budget; handed over in `DiskDone`. The shell also
    /// says whether all of it is zeros, and caches its checksums for the send.
    Alloc,
}

/// Work on bytes, which the core never sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Fill the parts of `buf` that `range` leaves free in its first and last granule from
    /// the local disk. Answer: `Done`.
    Merge {
        /// Buffer of an unaligned write.
        buf: BufId,
        /// What the client sent.
        range: ByteRange,
    },
    /// Read one granule from the local disk and zero `range` (inside it). Answer: `Buffer`.
    MergeZeros {
        /// Inside one granule.
        range: ByteRange,
    },
    /// Copy what a peer sent, whole, into the buffer of a client's read. Answer: `Done`.
    Copy {
        /// Payload of the peer's answer.
        from: BufId,
        /// Buffer of the read; both start at the same granule.
        to: BufId,
        /// Bytes to copy.
        bytes: u64,
    },
    /// Checksums of what the local disk holds. Answer: `Sums`.
    Sums {
        /// What, at most 1 MiB.
        extent: Extent,
    },
    /// Strong hashes of what the local disk holds: the first 16 bytes of BLAKE3, one for each run
    /// of `each` granules, the last one shorter where they do not divide it. Answer: `Hashes`.
    Hashes {
        /// What, at most 1 MiB.
        extent: Extent,
        /// Granules per hash, at least 1.
        each: u32,
    },
    /// Does what a peer sent cover `extent`? Answer: `Done`, or `Failed`.
    Covers {
        /// Payload of the peer's answer.
        buf: BufId,
        /// What it is to be written to.
        extent: Extent,
    },
    /// Compare what the local disk holds with the checksums in memory, and take over those of
    /// which none is known. Answer: `Scrubbed`.
    Scrub {
        /// What, at most 1 MiB.
        extent: Extent,
    },
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done as asked.
    Ok,
    /// No room now; nothing happened. Read no further until something completed.
    Busy,
    /// Aborted before it was dispatched; nothing happened.
    Aborted,
    /// Past the end of the volume; nothing happened.
    OutOfRange,
    /// Not primary (any more); nothing happened.
    NotPrimary,
    /// The disk failed, no copy can be reached, or no majority and the volume is not to wait for one.
    Io,
    /// The last copy is full.
    NoSpace,
    /// The volume is going away.
    Stopping,
    /// Another node may serve already: the session is dead, and its requests have no answer
    /// (laws T6, B9).
    Superseded,
}

/// A change worth one log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// This node serves clients from now on.
    Promoted {
        /// Its reign.
        term: Term,
    },
    /// It does not any more.
    Demoted,
    /// It admits nothing more, to let another node serve in its place: clients are to go.
    HandingOver {
        /// Who asked for the role.
        to: NodeIdx,
    },
    /// It serves on: who asked for the role is gone, or its clients' requests did not end in time.
    KeptRole {
        /// Who asked for it.
        to: NodeIdx,
    },
    /// It has had no lease for long enough to say so: no majority answers.
    QuorumLost {
        /// Requests fail meanwhile; else they wait.
        fails: bool,
    },
    /// A member took longer than `member_timeout`: it leaves S, and is let in again after a pause.
    MemberLate {
        /// Who.
        peer: NodeIdx,
        /// Until then it is given nothing.
        pause: Duration,
    },
    /// A node votes for a volume of other nodes: its file lists others, and its votes do not count.
    OtherNodes {
        /// Who.
        peer: NodeIdx,
    },
    /// Another table of nodes is in force here.
    Nodes,
    /// Its metadata hangs: it lays the role down, so that another member can serve.
    MetaHangs,
    /// It has a lease again.
    QuorumBack,
    /// Nobody reigns, and this is what keeps the node from serving by itself. Said once, until
    /// somebody reigns.
    NotElected {
        /// What a promotion by an operator would be answered.
        error: CommandError,
    },
    /// It does not any more, because a majority may have chosen somebody else: clients are cut off.
    SteppedDown {
        /// The term that it lost.
        term: Term,
    },
    /// The volume was founded here.
    Founded {
        /// Branch id.
        branch: u128,
    },
    /// The in-sync set changed.
    InSync {
        /// The record that says so.
        record: Record,
    },
    /// A peer can be talked to.
    PeerConnected(NodeIdx),
    /// It cannot any more.
    PeerLost(NodeIdx),
    /// It is not talked to, and why; `by_us` tells who refused.
    PeerRefused {
        /// Who.
        peer: NodeIdx,
        /// Why.
        why: Refusal,
        /// This side refused.
        by_us: bool,
    },
    /// A peer remembers more of this replica than it does itself: it was put back to an older state,
    /// and is another replica from now on (F21).
    FoundOlder {
        /// Who remembers.
        peer: NodeIdx,
    },
    /// This copy was given up for another one, in a split brain.
    GaveUp {
        /// Whose copy is kept.
        to: NodeIdx,
        /// Nothing was written here, and the policy says so; else an operator did.
        is_by_policy: bool,
    },
    /// A resync began or goes on.
    ResyncBegan {
        /// The other side.
        peer: NodeIdx,
        /// This node is the target.
        is_target: bool,
        /// Granules to move.
        dirty: u64,
    },
    /// It ended with nothing left to move.
    ResyncDone {
        /// The other side.
        peer: NodeIdx,
        /// What it took.
        figures: ResyncFigures,
    },
    /// This node's disk failed and takes part no more.
    DiskFailed,
    /// This node's metadata cannot be written; nothing more is acknowledged.
    MetaFailed,
    /// The last copy is full.
    DiskFull,
    /// A read failed here and was served by a peer, or failed.
    ReadError {
        /// Where.
        extent: Extent,
    },
    /// The volume is larger from now on.
    Grown {
        /// Granules.
        size: u64,
    },
    /// The volume has grown elsewhere, and this replica cannot follow: its metadata has no room.
    CannotGrow {
        /// Granules of the volume.
        size: u64,
        /// Granules that its metadata has room for.
        max: u64,
    },
    /// Data of this copy does not match its checksums.
    ChecksumError {
        /// From the first granule that does not to the last.
        extent: Extent,
    },
    /// It was written again with what another member had.
    Repaired {
        /// What.
        extent: Extent,
        /// Who had it.
        from: NodeIdx,
    },
    /// No other member can be asked for it now: reads of it fail.
    NotRepaired {
        /// What.
        extent: Extent,
    },
    /// A page of checksums is lost: its granules go unchecked until a scrub.
    ChecksumsLost {
        /// Granules of the page.
        extent: Extent,
    },
    /// A scrub has read all of this copy.
    ScrubDone {
        /// Granules in runs that did not match.
        errors: u64,
    },
    /// A verify found a difference.
    Difference {
        /// With whom.
        peer: NodeIdx,
        /// Where.
        extent: Extent,
    },
}

/// Why a command was not done. Words for people are made in the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// Another node serves clients.
    PrimaryElsewhere(NodeIdx),
    /// This copy is Inconsistent; the node named has the data.
    Inconsistent {
        /// Who to wait for, if known.
        source: Option<NodeIdx>,
    },
    /// This copy is outdated.
    Outdated {
        /// Who has newer data, if known.
        source: Option<NodeIdx>,
    },
    /// This copy lost writes in a power cut that the node named still has.
    NotWhole {
        /// Who to promote or wait for.
        better: NodeIdx,
    },
    /// Law T9: this node cannot know that the one named did not go on alone.
    MayHaveGoneOn(NodeIdx),
    /// Not founded, and not every replica is reachable and blank.
    CannotFound {
        /// A replica that was not reached, or is not blank.
        missing: NodeIdx,
    },
    /// Histories diverged or are unrelated.
    SplitBrain(NodeIdx),
    /// This node serves clients: demote it first.
    StillPrimary,
    /// That node's operator gives up its copy too.
    BothGiveUp(NodeIdx),
    /// That node's copy is not whole, or leads no history: it cannot be the one that is kept.
    NoSource(NodeIdx),
    /// Without the vote of this one, that node's voters would be no majority: the copy that was given
    /// up before is not counted in yet.
    NeedsVote(NodeIdx),
    /// What was decided on is not so any more.
    PlanChanged,
    /// Blocks of this copy could not be kept: nothing was overwritten.
    SalvageFailed(DiskError),
    /// The disk failed.
    DiskFailed,
    /// Metadata cannot be written.
    MetaFailed,
    /// Another command of this kind runs.
    InProgress,
    /// No link to the peer.
    NotConnected(NodeIdx),
    /// The resync of the peer has not ended.
    NotInSync(NodeIdx),
    /// Needs the primary role.
    NotPrimary,
    /// There is nothing to resync with that peer.
    NothingToDo,
    /// Two copies that differ have no majority: an operator says whose data is kept.
    NoMajority,
    /// The node stops.
    Stopping,
    /// The peer is lost or the store did not choose in time.
    TimedOut,
    /// The node that serves was asked to hand its role over, and did not do so in time.
    NotHandedOver(NodeIdx),
    /// No majority of the voters answered; these did not.
    NoQuorum {
        /// Voters that were not heard.
        missing: NodeSet,
    },
    /// The register holds an older record than a node that was heard: it was put back.
    RegisterWentBack {
        /// Who knows of a newer one.
        newer: NodeIdx,
    },
    /// The register holds the record of another volume under this name.
    RegisterTaken,
    /// The volume has no such peer.
    NoSuchPeer,
    /// The volume has no such mark.
    NoSuchMark,
    /// It has a mark of this name.
    MarkExists,
    /// It has as many marks as there can be.
    TooManyMarks,
    /// The metadata of this node's replica was made before there were marks, or its program was.
    NoRoomForMarks(NodeIdx),
    /// The program of this member is older than mirrors that grow.
    GrowthUnknown(NodeIdx),
    /// The metadata of this member has no room for so large a volume.
    NoRoomOn {
        /// Which.
        node: NodeIdx,
        /// Granules it may have.
        max: u64,
    },
    /// The backing of this member cannot be made longer.
    NoBackingOn {
        /// Which.
        node: NodeIdx,
        /// Why.
        error: DiskError,
    },
    /// This member did not say in time whether it has room.
    NoWordOfRoom(NodeIdx),
    /// No checksums are stored for it.
    NoChecksums,
    /// A volume never shrinks.
    WouldShrink {
        /// Granules it has.
        size: u64,
    },
    /// Its metadata has no room for bits of so large a volume.
    NoRoomToGrow {
        /// Granules it may have.
        max: u64,
    },
    /// The nodes with a replica stay who they are: nobody votes, a register does, or metadata has no
    /// room for a table of nodes.
    ReplicasStay,
    /// It may not have so many replicas.
    TooManyReplicas,
    /// The node that serves would go: it is demoted first.
    PrimaryLeaves,
    /// Without this one too few copies would be left, or none in sync.
    NeededCopy(NodeIdx),
    /// Its witnesses stay who they are: nobody votes, a register does, or metadata has no room for a
    /// table of nodes.
    WitnessesStay,
    /// It may not have so many witnesses.
    TooManyWitnesses,
    /// This node comes or goes: one change at a time.
    NodeChanging(NodeIdx),
    /// Without this one the voters at hand would be no majority.
    NeededForMajority(NodeIdx),
}

/// What a verify found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyFigures {
    /// Granules compared.
    pub compared: u64,
    /// Granules that differ.
    pub different: u64,
    /// First differing runs, at most 16.
    pub runs: Vec<Extent>,
    /// The copies that differ are being repaired.
    pub is_repairing: bool,
}

/// How a command ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Ok,
    /// It was so before.
    Already,
    /// Figures of a finished verify.
    Verify(VerifyFigures),
}

/// What keeps the blocks of a copy that is given up; steps come one at a time, each after the one
/// before was answered. `Drop` is not answered, and may come at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SalvageStep {
    /// A new salvage begins.
    Begin {
        /// Whose copy is kept.
        to: NodeIdx,
        /// How much will be put into it, at most.
        granules: u64,
    },
    /// This piece of the copy, at most 1 MiB.
    Put {
        /// Where it lies.
        extent: Extent,
        /// What it holds; `None`: zeros.
        buf: Option<BufId>,
    },
    /// That was all: done once it is durable under its name.
    Commit,
    /// It is not needed.
    Drop,
}

/// A page of checksums to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRead {
    /// Answered by `SumsRead`.
    pub token: Token,
    /// Slot of the table.
    pub slot: usize,
    /// Which page.
    pub page: u64,
    /// Its first block in the metadata area.
    pub block: u64,
    /// Of these granules nothing counts.
    pub forget: Option<Extent>,
}

/// Everything a volume can ask of its shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer the client. The core is done with the request's buffer.
    Complete {
        /// Whose.
        session: SessionId,
        /// Which.
        req: ReqId,
        /// How.
        outcome: Outcome,
    },
    /// Nothing of this session runs any more, and nothing of it will.
    SessionQuiet {
        /// Which.
        session: SessionId,
    },
    /// Read from the data disk.
    DiskRead {
        /// Answered by `DiskDone`.
        token: Token,
        /// What.
        extent: Extent,
        /// Where to.
        into: ReadInto,
    },
    /// Write `buf`, which covers exactly `extent`.
    DiskWrite {
        /// Answered by `DiskDone`.
        token: Token,
        /// Where.
        extent: Extent,
        /// What.
        buf: BufId,
        /// Done only once on stable storage.
        durable: bool,
    },
    /// Make zeros.
    DiskZero {
        /// Answered by `DiskDone`.
        token: Token,
        /// Where, at most 32 MiB.
        extent: Extent,
        /// How.
        zeroing: Zeroing,
        /// Done only once on stable storage.
        durable: bool,
    },
    /// Everything reported done before is on stable storage.
    DiskFlush {
        /// Answered by `DiskDone`.
        token: Token,
    },
    /// Read both slots of a page of checksums into a slot of the table in memory.
    SumsRead(PageRead),
    /// Write a slot of the table as one metadata block, durably.
    SumsWrite {
        /// Answered by `MetaDone`.
        token: Token,
        /// Slot of the table.
        slot: usize,
        /// Block number in the metadata area.
        block: u64,
        /// Turn of the pair.
        counter: u64,
    },
    /// Write one metadata block durably.
    MetaWrite {
        /// Answered by `MetaDone`.
        token: Token,
        /// Block number in the metadata area.
        block: u64,
        /// Its bytes.
        bytes: Box<MetaBlock>,
    },
    /// Work on bytes.
    Job {
        /// Answered by `JobDone`.
        token: Token,
        /// What.
        job: Job,
    },
    /// Say this to a peer.
    Send {
        /// On which connection; dropped if that is gone.
        link: LinkId,
        /// What.
        message: Message,
        /// Its payload.
        payload: Option<BufId>,
    },
    /// Close a connection, after what was sent on it before. `LinkDown` follows.
    Drop {
        /// Which.
        link: LinkId,
    },
    /// Say this on the control connection; lost if there is none.
    Vote {
        /// To whom.
        to: NodeIdx,
        /// What.
        ballot: Ballot,
    },
    /// The core's reference to this buffer ends.
    Release {
        /// Which.
        buf: BufId,
    },
    /// Keep blocks of this copy before it is given up.
    Salvage {
        /// Answered by `SalvageDone`.
        token: Token,
        /// What.
        step: SalvageStep,
    },
    /// Ask the control store to choose this record. Answered by `Event::Record`.
    ProposeRecord(Record),
    /// Make the backing hold so much, zeros from the old end on, durably. Answered by
    /// `BackingGrown`; asked again while that fails.
    GrowBacking {
        /// Granules of the volume as it is: nothing before is touched.
        from: u64,
        /// Granules it is to hold.
        size: u64,
    },
    /// Ask the register. Answered by `Event::Register` of the same number, or never.
    Register {
        /// Number of the question, dense within the process.
        number: u64,
        /// What.
        access: Access,
    },
    /// Answer an operator.
    Answer {
        /// Which command.
        id: CommandId,
        /// How.
        result: Result<Answer, CommandError>,
    },
    /// Log this.
    Notice(Notice),
}

/// Most actions one call of `handle` emits (DESIGN D2).
pub const ACTIONS_PER_TURN: usize = 64;
