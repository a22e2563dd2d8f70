//! The io_uring back end.
//!
//! ```text
//!  push ─► pin buffers ─► flight table ─► SQ ──(full, or depth reached: backlog)
//!  enter ─► backlog into SQ ─► one io_uring_enter ─► CQ ─► flight table ─► unpin ─► Completion
//! ```
//! `user_data` is slot and generation of the flight, so a late completion finds nothing. Wake-ups
//! come by a read of an eventfd that is always armed. In a turn that may not sleep, and has nothing
//! to submit and no completion work pending, there is no system call at all.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{opcode, squeue};

use crate::access::{Access, Refused};
use crate::arena::Arena;
use crate::files::{Files, Loans, Mode, Stream};
use crate::flight::Flight;
use crate::mapping::Mapping;
use crate::op::{Completion, Errno, FileId, Op, RegionId, Turn, Wait};
use crate::pool::{Done, Job, Never, Pool};
use crate::region::Region;
use crate::scratch::Scratches;
use crate::slab::{Key, Slab};
use crate::sys::clock::boottime_ns;
use crate::waker::{Sleeper, Waker};
use crate::{DEPTH_MAX, Features, Ring, RingConfig};

mod early;
mod ended;
mod files;
mod kernel;
mod prepare;
mod setup;
mod side;

use early::Early;
use prepare::Target;
use setup::{Opened, Parts};
pub(crate) use side::probe;
use side::{Chain, Side, Which};

/// `user_data` of the eventfd's read, and of cancellations. Generations of flights would have to
/// wrap at slot 2^32 - 1 to meet them.
const WAKE: u64 = u64::MAX;
const CANCEL: u64 = u64::MAX - 1;

/// How long a dropped ring waits for the kernel to let go of its memory.
const QUIESCE: Duration = Duration::from_secs(5);

/// What the completion of a flight means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Timeout,
    Accept,
    /// Of a second ring: a read or write, a command of so many bytes, a chain of them.
    Aside,
    Command {
        len: u32,
    },
    Chain(Chain),
    /// With the worker pool, or waiting for a file to become idle: not in the kernel.
    Outside,
}

struct Entry {
    flight: Flight,
    kind: Kind,
    /// In the backlog, not yet seen by the kernel.
    queued: bool,
}

pub(crate) struct Uring {
    // Dropped first, so that the kernel is through with everything below.
    parts: Parts,
    /// The second rings, by [`Which`].
    sides: [Option<Side>; 2],
    features: Features,
    arena: u64,
    memory: Arc<Mapping>,
    files: Files,
    loans: Loans,
    entries: Slab<Entry>,
    scratches: Scratches,
    backlog: VecDeque<squeue::Entry>,
    /// Cancellations that found the queue full.
    aside: Vec<squeue::Entry>,
    /// Flights the kernel has or will have with the next enter; at most `depth`.
    submitted: usize,
    depth: usize,
    fixed_slots: u32,
    /// Bytes of the arena, from its start, that are registered.
    fixed_bytes: usize,
    /// Completions that did not come from the kernel.
    local: Vec<Completion>,
    /// Flights cancelled before the kernel or a worker saw them; ended by the next enter.
    cancelled_early: Vec<Key>,
    pool: Pool<Never>,
    pool_done: Vec<Done>,
    sleeper: Sleeper,
    wake_armed: bool,
    /// Where the eventfd's counter is read to.
    wake_count: Box<u64>,
    /// Disk operations not yet handed to the kernel, and how many may gather.
    early: Early,
    /// System calls since the last turn.
    calls: u32,
    config: RingConfig,
}

impl Uring {
    /// Errors: why this machine does not give us one, in plain words.
    pub(crate) fn open(config: &RingConfig, arena: &Arena) -> Result<Uring, String> {
        let Opened {
            parts,
            features,
            fixed_slots,
            fixed_bytes,
        } = setup::open(config, arena)?;
        let sleeper = Sleeper::with_eventfd(false).map_err(|e| format!("no eventfd: {e}"))?;
        let depth = config.depth.clamp(1, DEPTH_MAX) as usize;
        Ok(Uring {
            parts,
            features,
            arena: arena.identity(),
            memory: Arc::clone(arena.memory()),
            files: Files::new(config.files as usize, Mode::Blocking),
            loans: Loans::new(),
            entries: Slab::with_capacity(depth),
            scratches: Scratches::with_capacity(256),
            backlog: VecDeque::with_capacity(depth),
            aside: Vec::new(),
            submitted: 0,
            depth,
            fixed_slots,
            fixed_bytes,
            local: Vec::with_capacity(256),
            cancelled_early: Vec::with_capacity(64),
            pool: Pool::new(config.workers, sleeper.waker()),
            pool_done: Vec::with_capacity(64),
            sleeper,
            wake_armed: false,
            wake_count: Box::new(0),
            early: Early::START,
            calls: 0,
            sides: [None, None],
            config: config.clone(),
        })
    }

    fn push_aside(
        &mut self,
        arena: &mut Arena,
        token: u64,
        (which, target, access): (Which, Target, Access),
        file: FileId,
        op: &Op<'_>,
    ) {
        match self.prepare_aside(which, target, access, op, arena) {
            Err(errno) => self.fail(token, errno),
            Ok((sqe, held, kind)) => {
                self.files.begin(file, Stream::Neither);
                let key = self.entries.insert(Entry {
                    flight: Flight::on(file, token, held),
                    kind,
                    queued: false,
                });
                self.submit_beside(which, sqe.user_data(key.to_u64()));
            }
        }
    }

    /// Looks after polled operations until something is there, a waker was used, or the time is up.
    fn poll_until(&mut self, at: u64, arena: &mut Arena, out: &mut Vec<Completion>) {
        let before = out.len();
        while out.len() == before && !self.sleeper.is_notified() && boottime_ns() < at {
            self.turn_aside(Some(arena), out);
            let sq = &self.parts.sq;
            if !sq.is_empty() || sq.taskrun() || sq.cq_overflow() {
                self.enter_kernel(0, None);
            }
            self.reap(Some(arena), out);
            self.collect_local(arena, out);
            if !self.is_polling() {
                return;
            }
        }
    }
}

impl Ring for Uring {
    fn register(&mut self, fd: OwnedFd) -> FileId {
        self.take(fd, Access::Plain)
    }

    fn register_as(
        &mut self,
        fd: OwnedFd,
        access: Access,
        arena: &Arena,
    ) -> Result<FileId, Refused> {
        assert_eq!(
            arena.identity(),
            self.arena,
            "a ring works with the arena it was opened with"
        );
        self.open_side(access, arena)?;
        Ok(self.take(fd, access))
    }

    fn unregister(&mut self, file: FileId) -> Option<OwnedFd> {
        let fixed = self.files.open(file)?.fixed;
        let fd = self.files.unregister(file)?;
        self.unplace(file.slot, fixed);
        Some(fd)
    }

    fn fd(&self, file: FileId) -> Option<BorrowedFd<'_>> {
        self.files.fd(file)
    }

    fn lend(&mut self, region: &Region) -> RegionId {
        self.loans.lend(region)
    }

    fn reclaim(&mut self, region: RegionId) {
        self.loans.reclaim(region);
    }

    fn push(&mut self, arena: &mut Arena, token: u64, op: Op<'_>) {
        assert_eq!(
            arena.identity(),
            self.arena,
            "a ring works with the arena it was opened with"
        );
        let file = op.file();
        let target = match file.map(|file| self.target(file)) {
            Some(None) => return self.fail(token, Errno::BADF),
            Some(Some(target)) => target,
            None => Target::Plain(-1),
        };
        match op {
            Op::Close { file } => return self.close(token, file),
            Op::Blocking(run) => {
                let flight = Flight::bare(token);
                let key = self.entries.insert(Entry {
                    flight,
                    kind: Kind::Outside,
                    queued: false,
                });
                return self.pool.run(key, Job::Run(run));
            }
            _ => {}
        }
        let access = file
            .and_then(|file| self.files.open(file))
            .map(|f| f.access);
        if let (Some(file), Some(access)) = (file, access)
            && let Some(which) = self.carrier(access, &op)
        {
            return self.push_aside(arena, token, (which, target, access), file, &op);
        }
        match self.prepare(target, &op, arena) {
            Err(errno) => self.fail(token, errno),
            Ok((sqe, held, kind, stream)) => {
                let is_disk = matches!(op, Op::ReadAt { .. } | Op::WriteAt { .. });
                if let Some(file) = file {
                    self.files.begin(file, stream);
                }
                let flight = Flight {
                    token,
                    file: file.map(FileId::key),
                    stream,
                    held,
                };
                let key = self.entries.insert(Entry {
                    flight,
                    kind,
                    queued: false,
                });
                self.submit(sqe.user_data(key.to_u64()));
                if is_disk && self.early.is_due() {
                    self.hand_over();
                }
            }
        }
    }

    fn cancel(&mut self, token: u64) {
        self.cancel_where(|flight| flight.token == token);
    }

    fn enter(&mut self, arena: &mut Arena, wait: Wait, out: &mut Vec<Completion>) -> Turn {
        assert_eq!(
            arena.identity(),
            self.arena,
            "a ring works with the arena it was opened with"
        );
        let before = out.len();
        self.collect_local(arena, out);
        self.reap(Some(arena), out);
        self.turn_aside(Some(arena), out);
        self.arm_wake();
        self.submit_waiting();
        while self.parts.sq.is_full() && self.more_to_submit() {
            self.enter_kernel(0, None);
            self.reap(Some(arena), out);
            if self.parts.sq.is_full() {
                break;
            }
            self.submit_waiting();
        }
        if let Wait::Until(at) = wait
            && self.is_polling()
            && out.len() == before
            && self.local.is_empty()
        {
            self.poll_until(at, arena, out);
        }
        let timeout = match wait {
            Wait::Until(at) if out.len() == before && self.local.is_empty() => sleep_time(at),
            _ => None,
        };
        match timeout {
            Some(timeout) if !self.is_polling() && self.sleeper.try_sleep() => {
                self.enter_kernel(1, timeout);
                self.turn_aside(Some(arena), out);
            }
            _ => {
                let sq = &self.parts.sq;
                if !sq.is_empty() || sq.taskrun() || sq.cq_overflow() {
                    self.enter_kernel(0, None);
                }
            }
        }
        self.reap(Some(arena), out);
        let woken = self.sleeper.awake();
        self.collect_local(arena, out);
        self.early = Early::START;
        Turn {
            woken,
            calls: mem::take(&mut self.calls),
        }
    }

    fn in_flight(&self) -> usize {
        self.entries.len() + self.local.len()
    }

    fn waker(&self) -> Waker {
        self.sleeper.waker()
    }

    fn now(&self) -> u64 {
        boottime_ns()
    }

    fn features(&self) -> &Features {
        &self.features
    }
}

/// How long to sleep until `at`: `None` not at all, `Some(None)` without end.
fn sleep_time(at: u64) -> Option<Option<Duration>> {
    if at == u64::MAX {
        return Some(None);
    }
    let left = at.saturating_sub(boottime_ns());
    (left > 0).then(|| Some(Duration::from_nanos(left)))
}

impl Drop for Uring {
    /// Cancels everything and waits until the kernel has answered. What it does not answer in
    /// time keeps its memory for ever.
    fn drop(&mut self) {
        self.backlog.clear();
        let cancel = opcode::AsyncCancel::new(WAKE).build();
        self.submit_aside(cancel.user_data(CANCEL));
        let keys: Vec<Key> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.queued)
            .map(|(key, _)| key)
            .collect();
        for key in keys {
            self.cancel_flight(key);
        }
        let mut out = Vec::new();
        let begun = Instant::now();
        let is_busy = |ring: &Uring| {
            let beside = ring.sides.iter().flatten().any(|side| side.in_flight() > 0);
            ring.submitted > 0 || ring.wake_armed || beside
        };
        while is_busy(self) && begun.elapsed() < QUIESCE {
            self.submit_waiting();
            self.turn_aside(None, &mut out);
            let patience = if self.is_polling() { 0 } else { 50 };
            self.enter_kernel(1, Some(Duration::from_millis(patience)));
            self.reap(None, &mut out);
        }
        if is_busy(self) {
            mem::forget(Arc::clone(&self.memory));
            self.loans.leak();
            mem::forget(mem::replace(&mut self.entries, Slab::with_capacity(0)));
            mem::forget(mem::take(&mut self.wake_count));
        }
    }
}
