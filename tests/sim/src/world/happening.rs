//! What is queued in virtual time, and what waits for a disk.

use engine_core::action::PageRead;
use engine_core::event::{DiskResult, Token};
use engine_core::register::{Access, Found};
use engine_core::units::{BufId, ByteRange, Extent};
use engine_core::vote::Ballot;

/// What waits for a data-disk operation.
#[derive(Clone, Copy, Debug)]
pub enum Pending {
    /// `DiskRead` into a buffer the core named.
    Read(Token, BufId, Extent),
    /// `DiskRead` into one the shell allocates.
    ReadAlloc(Token, Extent),
    /// `DiskWrite`.
    Write(Token, BufId, Extent),
    /// `DiskZero`.
    Zero(Token, Extent),
    /// `DiskFlush`.
    Plain(Token),
    /// `Job::Merge`: fill what the range leaves free.
    Merge(Token, BufId, ByteRange),
    /// `Job::MergeZeros`: one granule with a hole.
    MergeZeros(Token, ByteRange),
    /// `Job::Hashes`, of so many granules each.
    Hashes(Token, Extent, u32),
    /// `Job::Sums`.
    Sums(Token, Extent),
    /// `Job::Scrub`.
    Scrub(Token, Extent),
}

/// Something that will happen.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the fields name nodes, lives of processes and operations
pub enum Happening {
    /// A step of the plan.
    Step(usize),
    /// kill -9, back after so long.
    Kill { node: usize, life: u64, down: u64 },
    /// A data-disk operation ends.
    DiskIo { node: usize, life: u64, io: u64 },
    /// A metadata write ends.
    MetaIo {
        node: usize,
        life: u64,
        io: u64,
        token: Token,
    },
    /// A page of checksums is read.
    SumsRead {
        node: usize,
        life: u64,
        read: PageRead,
    },
    /// A look at the length of a payload ends.
    Covered {
        node: usize,
        life: u64,
        token: Token,
        is_covered: bool,
    },
    /// A ballot reaches its node.
    Ballot {
        from: usize,
        to: usize,
        ballot: Box<Ballot>,
    },
    /// A question reaches the register; the answer takes so long, or is lost.
    RegisterActs {
        node: usize,
        life: u64,
        number: u64,
        access: Access,
        answer: Option<u64>,
    },
    /// The register's answer reaches its node, or the node gives it up.
    RegisterAnswers {
        node: usize,
        life: u64,
        number: u64,
        found: Found,
    },
    /// The control store answers.
    Chosen { node: usize, life: u64 },
    /// The oldest message on its way to this end arrives.
    Arrive { connection: u64, end: usize },
    /// The bytes of a send left the buffer.
    Sent { node: usize, life: u64, buf: BufId },
    /// A copy between buffers ends.
    Copied {
        node: usize,
        life: u64,
        token: Token,
        from: BufId,
        to: BufId,
        count: usize,
    },
    /// A step of a salvage ends.
    Salvaged {
        node: usize,
        life: u64,
        token: Token,
        result: DiskResult,
        is_commit: bool,
    },
    /// An end learns of its connection.
    LinkUp { connection: u64, end: usize },
    /// An end learns of its loss.
    LinkDown { connection: u64, end: usize },
    /// Nodes look for peers they have no connection to.
    Connect,
    /// The backing is as long as the volume shall be.
    Lengthened {
        node: usize,
        life: u64,
        size: u64,
        is_held: bool,
    },
    /// A core asked for this.
    BackingGrown {
        node: usize,
        life: u64,
        from: u64,
        size: u64,
    },
    /// A deadline of the core.
    Wake { node: usize, life: u64 },
    /// A paused process goes on.
    Resume { node: usize },
    /// A fault ends.
    Mend(Mend),
    /// The operator looks around.
    Operate,
}

/// The end of a fault.
#[derive(Clone, Copy, Debug)]
pub enum Mend {
    /// A cut.
    Wire(usize, usize),
    /// Slowness and damage of a wire.
    Calm(usize, usize),
    /// Reads work again.
    Reads(usize),
    /// There is room again.
    Room(usize),
    /// Data-disk operations complete again.
    Hang(usize),
    /// The disk is as fast as before.
    Speed(usize),
    /// Metadata writes complete again.
    MetaHang(usize),
    /// The operator connects a peer again.
    Reconnect(usize, usize),
    /// The operator lets resync go on.
    Resync(usize),
}
