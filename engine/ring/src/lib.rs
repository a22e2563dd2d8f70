//! io_uring, buffers and registered files behind one safe interface.
//!
//! ```text
//!  reactor ── push(token, op) ──► Ring ── one io_uring_enter per turn ──► kernel
//!     ▲                            │ op table: token, files, buffers held until the last CQE
//!     └── enter(..) → completions ─┘
//!  Arena: buffers, refcounts, budgets, checksums beside them      Region: a memory volume
//! ```
//!
//! This is the only crate with `unsafe`. What it promises to the safe crates above:
//! * an operation owns its buffers until its *last* completion, whatever else happens to it
//!   (cancelled, file closed, ring dropped);
//! * nobody can read or write bytes the kernel is writing;
//! * a late completion never reaches a reused slot (generations in `user_data`, [`FileId`],
//!   [`BufId`]).
//!
//! Three back ends serve the [`Ring`] trait: io_uring, POSIX (epoll and a thread pool) where
//! io_uring is not allowed, and [`fake`] with virtual time and planned faults for tests.
//!
//! Not here: what the bytes mean, retries, ordering between operations (there is none, except
//! that the pieces of one send keep theirs), any policy.

mod access;
pub mod arena;
pub mod fake;
mod files;
mod flight;
mod mapping;
pub mod nvme;
mod op;
mod pool;
mod posix;
mod region;
mod scratch;
mod slab;
mod streaming;
pub mod sys;
mod uring;
mod waker;

use std::os::fd::{BorrowedFd, OwnedFd};

pub use access::{Access, Refused, probe};
pub use arena::{Arena, ArenaConfig, BufId, BufSlice, Class, Pages};
pub use op::{
    Addr, BlockingFn, Completion, Errno, FallocateMode, FileId, Op, RegionId, SEGMENTS_MAX, Seg,
    ShutdownHow, Turn, Wait,
};
pub use region::Region;
pub use waker::Waker;

/// A submission and completion machine. Made, used and dropped in one thread.
///
/// Dropping it cancels what is in flight and waits for it; memory the kernel may still touch
/// stays mapped. Drop it before or after its arena, either is sound.
pub trait Ring {
    /// Takes a descriptor into the table. Sockets are switched to the blocking mode this back
    /// end needs, and back when they leave.
    fn register(&mut self, fd: OwnedFd) -> FileId;

    /// As [`Ring::register`], for a file or device whose reads and writes go another way. Errors:
    /// this back end or machine has no such way. Panics for another arena than the ring's.
    fn register_as(
        &mut self,
        fd: OwnedFd,
        access: Access,
        arena: &Arena,
    ) -> Result<FileId, Refused>;

    /// Takes a descriptor out of the table again. `None` when the id is stale or operations on it
    /// are still in flight; then cancel and collect them first, or use [`Op::Close`].
    fn unregister(&mut self, file: FileId) -> Option<OwnedFd>;

    /// The descriptor itself, for socket options and ioctls. `None` when the id is stale.
    fn fd(&self, file: FileId) -> Option<BorrowedFd<'_>>;

    /// Lets sends read straight from a memory volume ([`Seg::Region`]). The memory stays mapped
    /// until [`Ring::reclaim`] and the last such send.
    fn lend(&mut self, region: &Region) -> RegionId;

    /// Ends a loan; sends in flight keep it alive.
    fn reclaim(&mut self, region: RegionId);

    /// Queues an operation for the next [`Ring::enter`]. Never refuses: beyond the configured
    /// depth it waits its turn inside. Every push brings at least one completion, also for a
    /// stale file (`EBADF`).
    ///
    /// Panics when a buffer is stale, a slice lies outside its buffer, `arena` is not the one the
    /// ring was opened with, or a second receive or send is pushed on a socket that has one in
    /// flight.
    fn push(&mut self, arena: &mut Arena, token: u64, op: Op<'_>);

    /// Asks that every operation pushed with `token` end soon. Its end is still its own last
    /// completion: `ECANCELED`, or its result if it was faster.
    fn cancel(&mut self, token: u64);

    /// One turn: submits what was pushed, sleeps as `wait` allows unless something is ready, and
    /// appends completions to `out`.
    fn enter(&mut self, arena: &mut Arena, wait: Wait, out: &mut Vec<Completion>) -> Turn;

    /// Operations pushed whose last completion was not yet given out.
    fn in_flight(&self) -> usize;

    /// A handle by which any thread ends this ring's sleep.
    fn waker(&self) -> Waker;

    /// This ring's clock: nanoseconds of CLOCK_BOOTTIME, virtual in the fake.
    fn now(&self) -> u64;

    /// What is switched on, for the start line and status.
    fn features(&self) -> &Features;
}

/// Largest [`RingConfig::depth`]: half of the kernel's longest completion queue.
pub const DEPTH_MAX: u32 = 32_768;

/// Sizes of a ring.
#[derive(Clone, Debug)]
pub struct RingConfig {
    /// Operations the kernel works on at a time; more wait inside the ring. 1 to [`DEPTH_MAX`].
    /// A receive that waits for an idle client is one of them, so it has to exceed what all
    /// clients can leave unfinished, or they would stop disks and links.
    pub depth: u32,
    /// Slots for registered files; more work too, unregistered.
    pub files: u32,
    /// Threads for [`Op::Blocking`], and in the POSIX back end for all file operations; started
    /// on first use.
    pub workers: usize,
    /// Bytes from the arena's start to register with the kernel where RLIMIT_MEMLOCK allows; 0 is
    /// none. The kernel pins and clears them at once, so this costs memory and time at start; the
    /// arena hands out its lowest addresses first, so a part serves nearly all requests.
    pub fixed_bytes: usize,
}

impl Default for RingConfig {
    fn default() -> RingConfig {
        RingConfig {
            depth: DEPTH_MAX,
            files: 4096,
            workers: 4,
            fixed_bytes: 32 << 20,
        }
    }
}

/// Which machine is behind a [`Ring`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// io_uring.
    IoUring,
    /// epoll and a thread pool.
    Posix,
    /// The deterministic fake.
    Fake,
}

/// What a ring has switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Features {
    pub backend: Backend,
    /// IORING_SETUP_SINGLE_ISSUER.
    pub single_issuer: bool,
    /// IORING_SETUP_DEFER_TASKRUN.
    pub defer_taskrun: bool,
    /// IORING_SETUP_COOP_TASKRUN.
    pub coop_taskrun: bool,
    /// IORING_SETUP_NO_SQARRAY.
    pub no_sqarray: bool,
    /// IORING_SETUP_SUBMIT_ALL.
    pub submit_all: bool,
    /// The ring's own descriptor is registered.
    pub registered_ring: bool,
    /// Files are registered.
    pub fixed_files: bool,
    /// The arena is registered.
    pub fixed_buffers: bool,
    /// The ring accepts only the opcodes this crate uses.
    pub restricted: bool,
    /// Waiting is not counted as iowait.
    pub no_iowait: bool,
}

impl Features {
    pub(crate) fn none(backend: Backend) -> Features {
        Features {
            backend,
            single_issuer: false,
            defer_taskrun: false,
            coop_taskrun: false,
            no_sqarray: false,
            submit_all: false,
            registered_ring: false,
            fixed_files: false,
            fixed_buffers: false,
            restricted: false,
            no_iowait: false,
        }
    }

    /// Names of what is on, in a fixed order.
    pub fn on(&self) -> impl Iterator<Item = &'static str> {
        let all = [
            ("single_issuer", self.single_issuer),
            ("defer_taskrun", self.defer_taskrun),
            ("coop_taskrun", self.coop_taskrun),
            ("no_sqarray", self.no_sqarray),
            ("submit_all", self.submit_all),
            ("registered_ring", self.registered_ring),
            ("fixed_files", self.fixed_files),
            ("fixed_buffers", self.fixed_buffers),
            ("restricted", self.restricted),
            ("no_iowait", self.no_iowait),
        ];
        all.into_iter().filter(|(_, on)| *on).map(|(name, _)| name)
    }
}

/// Why no ring could be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// `POLLUX_IO` holds something else than `io_uring` or `posix`.
    #[error("POLLUX_IO is `{0}`; it may be `io_uring` or `posix`")]
    UnknownBackend(String),
    /// `POLLUX_IO=io_uring` was asked for and is not to be had.
    #[error("{why}")]
    NoIoUring {
        /// In plain words.
        why: String,
    },
    /// Not even descriptors for epoll or an eventfd.
    #[error("the I/O loop cannot be set up")]
    Setup(#[from] std::io::Error),
}

/// Which back end serves, and why.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The machine behind the ring.
    pub backend: Backend,
    /// In plain words, for the start line.
    pub why: String,
}

/// Opens a ring for this thread over this arena: io_uring, or POSIX where it is refused. The
/// environment's `POLLUX_IO` forces one: `io_uring` or `posix`.
pub fn open_ring(config: &RingConfig, arena: &Arena) -> Result<(Box<dyn Ring>, Chosen), OpenError> {
    let wanted = std::env::var_os("POLLUX_IO");
    match wanted.as_deref().and_then(|value| value.to_str()) {
        Some("posix") => {
            let why = "POLLUX_IO asks for the POSIX back end".to_owned();
            Ok((
                open_posix(config, arena)?,
                Chosen {
                    backend: Backend::Posix,
                    why,
                },
            ))
        }
        Some("io_uring") => {
            let ring = open_io_uring(config, arena).map_err(|why| OpenError::NoIoUring { why })?;
            let why = "POLLUX_IO asks for io_uring".to_owned();
            Ok((
                ring,
                Chosen {
                    backend: Backend::IoUring,
                    why,
                },
            ))
        }
        None if wanted.is_none() => match open_io_uring(config, arena) {
            Ok(ring) => {
                let why = "this kernel offers io_uring".to_owned();
                Ok((
                    ring,
                    Chosen {
                        backend: Backend::IoUring,
                        why,
                    },
                ))
            }
            Err(why) => Ok((
                open_posix(config, arena)?,
                Chosen {
                    backend: Backend::Posix,
                    why,
                },
            )),
        },
        _ => {
            let value = wanted.unwrap_or_default().to_string_lossy().into_owned();
            Err(OpenError::UnknownBackend(value))
        }
    }
}

/// Opens an io_uring, whatever `POLLUX_IO` says. Errors: why not, in plain words.
pub fn open_io_uring(config: &RingConfig, arena: &Arena) -> Result<Box<dyn Ring>, String> {
    Ok(Box::new(uring::Uring::open(config, arena)?))
}

/// Opens the POSIX back end, whatever `POLLUX_IO` says. Errors: no descriptors left.
pub fn open_posix(config: &RingConfig, arena: &Arena) -> std::io::Result<Box<dyn Ring>> {
    Ok(Box::new(posix::Posix::open(config, arena)?))
}
