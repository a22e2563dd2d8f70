//! The vocabulary between a reactor and its ring: operations, files, completions.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::arena::BufSlice;

/// A kernel error number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The operation was cancelled before it did anything.
    pub const CANCELED: Errno = Errno(libc::ECANCELED);
    /// The file id is not (or no longer) in the ring's table.
    pub const BADF: Errno = Errno(libc::EBADF);
    /// Input/output error.
    pub const IO: Errno = Errno(libc::EIO);
    /// No space left on the device.
    pub const NOSPC: Errno = Errno(libc::ENOSPC);
    /// The operation is not supported by this file or kernel.
    pub const OPNOTSUPP: Errno = Errno(libc::EOPNOTSUPP);
    /// There is no such thing.
    pub const NOENT: Errno = Errno(libc::ENOENT);
    /// An argument is not acceptable to the kernel (alignment, for one).
    pub const INVAL: Errno = Errno(libc::EINVAL);
    /// The peer closed the stream (send side).
    pub const PIPE: Errno = Errno(libc::EPIPE);
    /// The peer reset the stream.
    pub const CONNRESET: Errno = Errno(libc::ECONNRESET);
    /// Nobody listens at that address.
    pub const CONNREFUSED: Errno = Errno(libc::ECONNREFUSED);

    /// The number an `io::Error` carries, `EIO` when it carries none.
    pub fn of(error: &io::Error) -> Errno {
        error.raw_os_error().map_or(Errno::IO, Errno)
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.0))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::error::Error for Errno {}

/// A descriptor in a ring's table. Copy; a stale one (its file was unregistered or closed) is
/// told by its generation, and an operation on it completes with `EBADF`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A memory volume lent to a ring, so that sends may read from it (see [`crate::Ring::lend`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// One piece of a vectored send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seg {
    /// Bytes of an arena buffer; the operation holds a reference until its last completion.
    Arena(BufSlice),
    /// Bytes of a lent region, read by the kernel at some moment before the completion: a write
    /// to them in between may show in what is sent.
    Region {
        /// Which region.
        region: RegionId,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
    },
}

impl Seg {
    /// Bytes of this piece.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        match self {
            Seg::Arena(slice) => slice.len,
            Seg::Region { len, .. } => *len,
        }
    }
}

impl From<BufSlice> for Seg {
    fn from(slice: BufSlice) -> Seg {
        Seg::Arena(slice)
    }
}

/// Most segments of one send (the kernel's `UIO_MAXIOV`).
pub const SEGMENTS_MAX: usize = 1024;

/// Where [`Op::Connect`] goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addr {
    /// TCP over IPv4 or IPv6.
    Ip(SocketAddr),
    /// A Unix socket, by path (at most 107 bytes).
    Unix(PathBuf),
}

/// What [`Op::Fallocate`] does to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FallocateMode {
    /// Reserve space; the file grows to cover the range.
    Allocate,
    /// Give the space back; the range reads as zeroes, the size stays.
    PunchHole,
    /// Zero the range and keep it allocated; the file may grow.
    ZeroRange,
    /// Zero the range and keep it allocated; the size stays.
    ZeroRangeKeepSize,
}

impl FallocateMode {
    /// The kernel's flags for `fallocate(2)`.
    pub(crate) fn flags(self) -> i32 {
        match self {
            FallocateMode::Allocate => 0,
            FallocateMode::PunchHole => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            FallocateMode::ZeroRange => libc::FALLOC_FL_ZERO_RANGE,
            FallocateMode::ZeroRangeKeepSize => {
                libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE
            }
        }
    }
}

/// Which halves of a stream [`Op::Shutdown`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownHow {
    /// No more receives.
    Read,
    /// No more sends; the peer reads end of file.
    Write,
    /// Both.
    Both,
}

impl ShutdownHow {
    pub(crate) fn raw(self) -> i32 {
        match self {
            ShutdownHow::Read => libc::SHUT_RD,
            ShutdownHow::Write => libc::SHUT_WR,
            ShutdownHow::Both => libc::SHUT_RDWR,
        }
    }
}

/// Work for the worker pool: things io_uring has no opcode for.
pub type BlockingFn = Box<dyn FnOnce() -> io::Result<u32> + Send>;

/// One operation. Buffers named by it are referenced until its last completion, and not
/// accessible where the kernel writes them.
pub enum Op<'a> {
    /// Reads from a file or device at byte `at`. The result may be short; 0 is end of file.
    /// O_DIRECT files want address, length and offset aligned to the device's logical block.
    ReadAt {
        /// File.
        file: FileId,
        /// Where the bytes go.
        buf: BufSlice,
        /// Byte offset in the file.
        at: u64,
    },
    /// Writes to a file or device at byte `at`. The result may be short.
    WriteAt {
        /// File.
        file: FileId,
        /// What is written.
        buf: BufSlice,
        /// Byte offset in the file.
        at: u64,
        /// On stable storage before the completion (`RWF_DSYNC`, FUA).
        durable: bool,
    },
    /// `fdatasync`: writes *completed* before this was pushed are on stable storage at its end.
    DataSync {
        /// File.
        file: FileId,
    },
    /// `fallocate` on a file or block device.
    Fallocate {
        /// File.
        file: FileId,
        /// What to do.
        mode: FallocateMode,
        /// First byte.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// Receives from a stream. One at a time per socket. 0 is end of stream.
    Recv {
        /// Socket.
        file: FileId,
        /// Where the bytes go.
        buf: BufSlice,
        /// Complete only when `buf` is full, the stream ended or failed (`MSG_WAITALL`); a short
        /// count then means end or error.
        all: bool,
    },
    /// Sends to a stream, vectored. One at a time per socket. May be short: the caller sends
    /// the rest. Never raises SIGPIPE.
    Send {
        /// Socket.
        file: FileId,
        /// 1 to [`SEGMENTS_MAX`] pieces, copied into the ring's own table by `push`.
        segments: &'a [Seg],
    },
    /// Accepts one connection; `Completion::accepted` is the new, registered file.
    Accept {
        /// Listening socket.
        file: FileId,
    },
    /// Accepts until cancelled or failed: every completion but the last says `more`. It may end
    /// by itself at any time, then push it again.
    AcceptMany {
        /// Listening socket.
        file: FileId,
    },
    /// Connects a socket.
    Connect {
        /// Socket, not yet connected.
        file: FileId,
        /// Peer.
        to: &'a Addr,
    },
    /// Completes when the file is readable; the result is the `poll(2)` revents.
    PollIn {
        /// File.
        file: FileId,
    },
    /// Completes with 0 when the ring's clock reaches `at` (see [`crate::Ring::now`]).
    Timeout {
        /// Nanoseconds of CLOCK_BOOTTIME.
        at: u64,
    },
    /// Ends one or both directions of a stream.
    Shutdown {
        /// Socket.
        file: FileId,
        /// Which.
        how: ShutdownHow,
    },
    /// Closes a file. Its pending operations are cancelled; this completes after their last
    /// completions and after the descriptor was closed. The id is stale from the push on.
    Close {
        /// File.
        file: FileId,
    },
    /// Runs a closure on the worker pool. It cannot be cancelled once a worker took it, and must
    /// not use the ring or arena. A panic in it completes with `EIO`.
    Blocking(BlockingFn),
}

impl Op<'_> {
    /// The file it works on.
    pub(crate) fn file(&self) -> Option<FileId> {
        match self {
            Op::ReadAt { file, .. }
            | Op::WriteAt { file, .. }
            | Op::DataSync { file }
            | Op::Fallocate { file, .. }
            | Op::Recv { file, .. }
            | Op::Send { file, .. }
            | Op::Accept { file }
            | Op::AcceptMany { file }
            | Op::Connect { file, .. }
            | Op::PollIn { file }
            | Op::Shutdown { file, .. }
            | Op::Close { file } => Some(*file),
            Op::Timeout { .. } | Op::Blocking(_) => None,
        }
    }
}

impl fmt::Debug for Op<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::ReadAt { file, buf, at } => write!(f, "ReadAt({file:?}, {buf:?}, {at})"),
            Op::WriteAt {
                file,
                buf,
                at,
                durable,
            } => {
                write!(f, "WriteAt({file:?}, {buf:?}, {at}, durable={durable})")
            }
            Op::DataSync { file } => write!(f, "DataSync({file:?})"),
            Op::Fallocate {
                file,
                mode,
                at,
                len,
            } => {
                write!(f, "Fallocate({file:?}, {mode:?}, {at}, {len})")
            }
            Op::Recv { file, buf, all } => write!(f, "Recv({file:?}, {buf:?}, all={all})"),
            Op::Send { file, segments } => write!(f, "Send({file:?}, {} pieces)", segments.len()),
            Op::Accept { file } => write!(f, "Accept({file:?})"),
            Op::AcceptMany { file } => write!(f, "AcceptMany({file:?})"),
            Op::Connect { file, to } => write!(f, "Connect({file:?}, {to:?})"),
            Op::PollIn { file } => write!(f, "PollIn({file:?})"),
            Op::Timeout { at } => write!(f, "Timeout({at})"),
            Op::Shutdown { file, how } => write!(f, "Shutdown({file:?}, {how:?})"),
            Op::Close { file } => write!(f, "Close({file:?})"),
            Op::Blocking(_) => write!(f, "Blocking"),
        }
    }
}

/// The end of an operation, or one of several when `more` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The caller's own number, as given to `push`.
    pub token: u64,
    /// Bytes transferred, or the operation's own count.
    pub result: Result<u32, Errno>,
    /// The connection an accept brought.
    pub accepted: Option<FileId>,
    /// More completions of this operation follow; its buffers are still in use.
    pub more: bool,
}

/// How long [`crate::Ring::enter`] may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: submit, collect what is ready.
    No,
    /// Until something completes, a waker was used, or the ring's clock passes this
    /// (nanoseconds of CLOCK_BOOTTIME; `u64::MAX` is no deadline).
    Until(u64),
}

/// What a turn of the ring brought besides completions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// A [`crate::Waker`] was used since the last turn: look into the mailboxes.
    pub woken: bool,
    /// System calls since the last turn that handed operations over or waited for them.
    pub calls: u32,
}
