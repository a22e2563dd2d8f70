//! What is recorded: requests, their outcomes, sessions that end, crashes.
//!
//! This file holds the words only; what a sequence of them means is decided in `checker`.

use std::fmt;

/// Longest request that can be recorded, in blocks: bounds what one line of a file can ask for.
pub const REQUEST_BLOCKS_MAX: u64 = 1 << 16;

/// Names one request; unique within a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Names one session (one attachment of one client); never used again once it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

/// A client's request. Positions and counts are in blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes `tags[i]` to block `first + i`. A tag is never zero, and within one block no tag is
    /// ever written twice: that is how a read names its write.
    Write {
        /// First block.
        first: u64,
        /// One tag per block.
        tags: Vec<u64>,
        /// Forced unit access (law B5).
        fua: bool,
    },
    /// Trim or write-zeroes of `count` blocks; both read as zeros afterwards (law B8).
    Zero {
        /// First block.
        first: u64,
        /// Number of blocks.
        count: u64,
        /// Forced unit access (law B5).
        fua: bool,
    },
    /// Reads `count` blocks.
    Read {
        /// First block.
        first: u64,
        /// Number of blocks.
        count: u64,
    },
    /// Makes every write answered before it durable (law B4).
    Flush,
}

impl Op {
    /// First block and number of blocks; a flush covers none.
    pub fn extent(&self) -> (u64, u64) {
        match self {
            Op::Write { first, tags, .. } => (*first, tags.len() as u64),
            Op::Zero { first, count, .. } | Op::Read { first, count } => (*first, *count),
            Op::Flush => (0, 0),
        }
    }
}

/// What a read found in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seen {
    /// Nothing but zeros.
    Zero,
    /// The whole block carries this tag.
    Tag(u64),
    /// Neither: the block is not what one single write left there.
    Mixed,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Zero => f.write_str("zeros"),
            Seen::Tag(tag) => write!(f, "tag {tag}"),
            Seen::Mixed => f.write_str("a mixture"),
        }
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A write, zeroing or flush answered OK.
    Done,
    /// A read answered OK: what each block held.
    Read(Vec<Seen>),
    /// Answered with an error: a write may still have happened, wholly or for some blocks (B3).
    Failed,
}

/// What a crash left standing. A crash ends *every* session. A failover through which sessions
/// live on is not recorded at all: law B1 simply holds throughout, which is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Crash {
    /// A member of S stayed whole: every acknowledged and every read write survives (B7, R7).
    MemberWhole,
    /// No member stayed whole, but an acknowledgement meant durable: as above, from media.
    AcksDurable,
    /// Volatile state was lost on all of S: only flushed and FUA writes must survive (B6).
    VolatileLost,
}

/// One entry of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session was attached. Optional: the first request of a session opens it, too.
    Open(Session),
    /// A client is about to send a request.
    Invoke(OpId, Session, Op),
    /// A client received the answer.
    Complete(OpId, Outcome),
    /// From here on nothing of this session can take effect (B3): record it when the end is
    /// *known* (the daemon said so, a new attachment replaced it), not when a client hung up.
    Close(Session),
    /// The cluster crashed; recorded once it is down and before anything of it starts again.
    Crash(Crash),
}

/// Why an event cannot be recorded: a mistake of whoever records, never of the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The time lies before that of an earlier event.
    TimeRunsBack {
        /// Time of the event.
        time: u64,
        /// Time of the event before.
        last: u64,
    },
    /// A request with this id was already recorded.
    OpAgain(OpId),
    /// An answer to a request that is not open.
    OpUnknown(OpId),
    /// A request on a session that was closed.
    SessionOver(Session),
    /// The outcome does not fit the request (`Read` to a write, wrong number of blocks …).
    OutcomeOfOtherKind(OpId),
    /// No blocks, more than [`REQUEST_BLOCKS_MAX`], or past the last block number.
    ExtentRefused(OpId),
    /// Tag 0 was written; it stands for zeros.
    TagZero(OpId),
    /// The tag was already written to that block.
    TagAgain {
        /// Block.
        block: u64,
        /// Tag.
        tag: u64,
    },
    /// `VolatileLost` given to a checker made by `Checker::without_loss`.
    LossExcluded,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimeRunsBack { time, last } => write!(f, "time {time} lies before {last}"),
            Self::OpAgain(op) => write!(f, "request {} was already recorded", op.0),
            Self::OpUnknown(op) => write!(f, "request {} is not open", op.0),
            Self::SessionOver(session) => write!(f, "session {} is closed", session.0),
            Self::OutcomeOfOtherKind(op) => write!(f, "the outcome does not fit request {}", op.0),
            Self::ExtentRefused(op) => write!(f, "request {} has an impossible extent", op.0),
            Self::TagZero(op) => write!(f, "request {} writes tag 0, which means zeros", op.0),
            Self::TagAgain { block, tag } => {
                write!(f, "tag {tag} was already written to block {block}")
            }
            Self::LossExcluded => f.write_str("this checker was told that nothing is ever lost"),
        }
    }
}

impl std::error::Error for RecordError {}
