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
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, Fixed, FsyncFlags, SubmitArgs, TimeoutFlags, Timespec};
use io_uring::{EnterFlags, cqueue, opcode, squeue};

use crate::arena::{Arena, BufSlice, Pinned};
use crate::files::{Files, Loans, Mode, Stream};
use crate::flight::{Flight, Held, pin_drain, pin_fill, pin_segment, pin_vector};
use crate::mapping::Mapping;
use crate::op::{Completion, Errno, FileId, Op, RegionId, Seg, Turn, Wait};
use crate::pool::{Done, Job, Never, Pool};
use crate::region::Region;
use crate::scratch::Scratches;
use crate::slab::{Key, Slab};
use crate::sys::clock::boottime_ns;
use crate::waker::{Sleeper, Waker};
use crate::{Features, Ring, RingConfig};

mod setup;

use setup::{FIXED_BUFFER, Opened, Parts, place_file};

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
}

/// A file as an SQE names it.
#[derive(Clone, Copy)]
enum Target {
    Fixed(u32),
    Plain(i32),
}

/// Builds an SQE for either kind of file.
macro_rules! sqe {
    ($target:expr, $fd:ident => $build:expr) => {
        match $target {
            Target::Fixed(slot) => {
                let $fd = Fixed(slot);
                $build.build()
            }
            Target::Plain(raw) => {
                let $fd = Fd(raw);
                $build.build()
            }
        }
    };
}

impl Uring {
    /// Errors: why this machine does not give us one, in plain words.
    pub(crate) fn open(config: &RingConfig, arena: &Arena) -> Result<Uring, String> {
        let Opened {
            parts,
            features,
            fixed_slots,
        } = setup::open(config, arena)?;
        let sleeper = Sleeper::with_eventfd(false).map_err(|e| format!("no eventfd: {e}"))?;
        let depth = config.depth.clamp(1, 16_384) as usize;
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
            local: Vec::with_capacity(256),
            cancelled_early: Vec::with_capacity(64),
            pool: Pool::new(config.workers, sleeper.waker()),
            pool_done: Vec::with_capacity(64),
            sleeper,
            wake_armed: false,
            wake_count: Box::new(0),
        })
    }

    /// Hands an SQE to the kernel with the next enter, or when there is room.
    fn submit(&mut self, entry: squeue::Entry) {
        let room = self.backlog.is_empty() && self.submitted < self.depth;
        // SAFETY: every SQE is built in this file, from memory that its flight keeps pinned or
        // boxed until the last completion.
        let pushed = room && unsafe { self.parts.sq.push(&entry) }.is_ok();
        if pushed {
            self.submitted += 1;
        } else {
            if let Some(found) = self.entries.get_mut(Key::from_u64(entry.get_user_data())) {
                found.queued = true;
            }
            self.backlog.push_back(entry);
        }
    }

    fn submit_backlog(&mut self) {
        while self.submitted < self.depth && !self.parts.sq.is_full() {
            let Some(entry) = self.backlog.pop_front() else {
                return;
            };
            // Cancelled in the backlog: its flight has ended.
            let key = Key::from_u64(entry.get_user_data());
            let Some(found) = self.entries.get_mut(key) else {
                continue;
            };
            found.queued = false;
            // SAFETY: as in `submit`; the flight is still there.
            let pushed = unsafe { self.parts.sq.push(&entry) };
            pushed.expect("the queue has room, checked above");
            self.submitted += 1;
        }
    }

    /// Submits what is no flight of its own: a cancellation, the eventfd's read.
    fn submit_aside(&mut self, entry: squeue::Entry) {
        // SAFETY: neither names memory, but for `wake_count`, which is boxed and lives with us.
        if unsafe { self.parts.sq.push(&entry) }.is_err() {
            self.aside.push(entry);
        }
    }

    /// What found the queue full goes first.
    fn submit_waiting(&mut self) {
        while !self.parts.sq.is_full() {
            let Some(entry) = self.aside.pop() else {
                return self.submit_backlog();
            };
            self.submit_aside(entry);
        }
    }

    fn more_to_submit(&self) -> bool {
        !self.aside.is_empty() || (!self.backlog.is_empty() && self.submitted < self.depth)
    }

    fn arm_wake(&mut self) {
        if !self.wake_armed {
            self.wake_armed = true;
            let fd = Fd(self.sleeper.eventfd().as_raw_fd());
            let read = opcode::Read::new(fd, (&raw mut *self.wake_count).cast(), 8).build();
            self.submit_aside(read.user_data(WAKE));
        }
    }

    /// One system call. Publishes the SQEs; sleeps for `wait_for` completions until the deadline.
    fn enter_kernel(&mut self, wait_for: u32, timeout: Option<Duration>) {
        self.parts.sq.sync();
        let to_submit = self.parts.sq.len() as u32;
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        flags.set(
            EnterFlags::NO_IOWAIT,
            self.features.no_iowait && wait_for > 0,
        );
        let time = timeout.map(Timespec::from);
        let mut args = SubmitArgs::new();
        if let Some(time) = &time {
            args = args.timespec(time);
        }
        // SAFETY: `args` is what EXT_ARG announces and lives through the call, as does `time`.
        let entered = unsafe {
            self.parts
                .submitter
                .enter(to_submit, wait_for, flags.bits(), Some(&args))
        };
        self.parts.sq.sync();
        let Err(error) = entered else { return };
        match error.raw_os_error() {
            // The deadline came, or a signal.
            Some(libc::ETIME | libc::EINTR) => {}
            // Out of memory for requests, or the completion queue overflowed: what is not
            // submitted stays in the queue; the caller reaps and comes again.
            Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => std::thread::yield_now(),
            _ => panic!("io_uring_enter failed, which only a bug of ours can cause: {error}"),
        }
    }

    /// Takes completions from the queue. Without an arena (the ring is being dropped) buffers stay
    /// pinned.
    fn reap(&mut self, mut arena: Option<&mut Arena>, out: &mut Vec<Completion>) {
        self.parts.cq.sync();
        while let Some(cqe) = self.parts.cq.next() {
            match cqe.user_data() {
                WAKE => self.wake_armed = false,
                CANCEL => {}
                user_data => {
                    let key = Key::from_u64(user_data);
                    let more = cqueue::more(cqe.flags());
                    self.complete(key, cqe.result(), more, arena.as_deref_mut(), out);
                }
            }
        }
        self.parts.cq.sync();
    }

    fn complete(
        &mut self,
        key: Key,
        result: i32,
        more: bool,
        arena: Option<&mut Arena>,
        out: &mut Vec<Completion>,
    ) {
        let Some(entry) = self.entries.get(key) else {
            // The kernel answers each SQE once, so this cannot be; if it is, it is nobody's.
            debug_assert!(false, "a completion for no flight");
            return;
        };
        let (token, kind) = (entry.flight.token, entry.kind);
        let mut result = u32::try_from(result).map_err(|_| Errno(-result));
        let mut accepted = None;
        match (kind, result) {
            (Kind::Timeout, Err(Errno(libc::ETIME))) => result = Ok(0),
            (Kind::Accept, Ok(raw)) => {
                // SAFETY: the kernel just made this descriptor for us and told nobody else.
                accepted = Some(self.register(unsafe { OwnedFd::from_raw_fd(raw as i32) }));
                result = Ok(0);
            }
            _ => {}
        }
        if !more {
            self.submitted -= 1;
            self.end(key, arena);
        }
        out.push(Completion {
            token,
            result,
            accepted,
            more,
        });
    }

    /// Forgets a flight and gives back what it held.
    fn end(&mut self, key: Key, arena: Option<&mut Arena>) {
        let entry = self
            .entries
            .remove(key)
            .expect("ended once, after a lookup");
        if let Some(arena) = arena {
            entry
                .flight
                .held
                .release(arena, &mut self.loans, &mut self.scratches);
        }
        if let Some(file) = entry.flight.file
            && self.files.end(file, entry.flight.stream)
        {
            self.finish_close(file);
        }
    }

    /// Completes a flight that the kernel never saw.
    fn end_outside(&mut self, key: Key, result: Result<u32, Errno>, arena: &mut Arena) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        let token = entry.flight.token;
        // Before `end`, which may complete the close that waits for this.
        self.local.push(Completion {
            token,
            result,
            accepted: None,
            more: false,
        });
        self.end(key, Some(arena));
    }

    /// The file is idle: closes it. Files and devices may take long over it (last close flushes),
    /// so a worker does; sockets do not.
    fn finish_close(&mut self, file: Key) {
        let Some(file_entry) = self.files.remove(file) else {
            return;
        };
        if file_entry.fixed {
            place_file(&self.parts, file.slot, -1);
        }
        let Some(close) = file_entry.closing.map(Key::from_u64) else {
            return;
        };
        if !file_entry.socket {
            let fd = file_entry.fd;
            self.pool.run(
                close,
                Job::Run(Box::new(move || {
                    drop(fd);
                    Ok(0)
                })),
            );
            return;
        }
        drop(file_entry);
        if let Some(entry) = self.entries.remove(close) {
            let token = entry.flight.token;
            self.local.push(Completion {
                token,
                result: Ok(0),
                accepted: None,
                more: false,
            });
        }
    }

    fn cancel_flight(&mut self, key: Key) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        match entry.kind {
            // Its SQE is skipped when the backlog comes to it.
            _ if entry.queued => self.cancelled_early.push(key),
            Kind::Outside if self.pool.cancel(key) => self.cancelled_early.push(key),
            Kind::Outside => {}
            Kind::Plain | Kind::Timeout | Kind::Accept => {
                let cancel = opcode::AsyncCancel::new(key.to_u64()).build();
                self.submit_aside(cancel.user_data(CANCEL));
            }
        }
    }

    fn cancel_where(&mut self, matches: impl Fn(&Flight) -> bool) {
        let found = self
            .entries
            .iter()
            .filter(|(_, entry)| matches(&entry.flight));
        let keys: Vec<Key> = found.map(|(key, _)| key).collect();
        for key in keys {
            self.cancel_flight(key);
        }
    }

    /// What ended outside the kernel becomes completions.
    fn collect_local(&mut self, arena: &mut Arena, out: &mut Vec<Completion>) {
        while let Some(key) = self.cancelled_early.pop() {
            self.end_outside(key, Err(Errno::CANCELED), arena);
        }
        let mut done = mem::take(&mut self.pool_done);
        self.pool.collect(&mut done);
        for (key, result) in done.drain(..) {
            self.end_outside(key, result, arena);
        }
        self.pool_done = done;
        out.append(&mut self.local);
    }

    fn target(&self, id: FileId) -> Option<Target> {
        let file = self.files.open(id)?;
        Some(if file.fixed {
            Target::Fixed(id.slot)
        } else {
            Target::Plain(file.fd.as_raw_fd())
        })
    }

    fn fail(&mut self, token: u64, errno: Errno) {
        self.local.push(Completion {
            token,
            result: Err(errno),
            accepted: None,
            more: false,
        });
    }

    /// The registered buffer that holds these bytes.
    fn fixed_buffer(&self, pinned: Pinned) -> Option<u16> {
        self.features
            .fixed_buffers
            .then_some((pinned.at / FIXED_BUFFER) as u16)
    }

    fn read_at(&self, target: Target, pinned: Pinned, len: u32, at: u64) -> squeue::Entry {
        let ptr = pinned.ptr;
        match self.fixed_buffer(pinned) {
            Some(index) => {
                sqe!(target, fd => opcode::ReadFixed::new(fd, ptr, len, index).offset(at))
            }
            None => sqe!(target, fd => opcode::Read::new(fd, ptr, len).offset(at)),
        }
    }

    fn write_at(
        &self,
        target: Target,
        pinned: Pinned,
        len: u32,
        at: u64,
        durable: bool,
    ) -> squeue::Entry {
        let (ptr, flags) = (pinned.ptr, if durable { libc::RWF_DSYNC } else { 0 });
        match self.fixed_buffer(pinned) {
            Some(index) => sqe!(target, fd =>
                opcode::WriteFixed::new(fd, ptr, len, index).offset(at).rw_flags(flags)),
            None => {
                sqe!(target, fd => opcode::Write::new(fd, ptr, len).offset(at).rw_flags(flags))
            }
        }
    }

    /// One piece goes without header and vector.
    fn send(
        &mut self,
        target: Target,
        segments: &[Seg],
        arena: &mut Arena,
    ) -> (squeue::Entry, Held) {
        // WAITALL lets the kernel send the rest itself when the socket's buffer was full.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        if let [segment] = segments {
            let base = pin_segment(*segment, arena, &mut self.loans);
            let held = match segment {
                Seg::Arena(slice) => Held::Drain(slice.buf),
                Seg::Region { region, .. } => Held::Region(*region),
            };
            let len = segment.len();
            return (
                sqe!(target, fd => opcode::Send::new(fd, base, len).flags(flags)),
                held,
            );
        }
        let scratch = pin_vector(segments, arena, &mut self.loans, &mut self.scratches);
        let header = &raw const scratch.header;
        let sqe = sqe!(target, fd => opcode::SendMsg::new(fd, header).flags(flags as u32));
        (sqe, Held::Scratch(scratch))
    }

    fn timeout(&mut self, at: u64) -> (squeue::Entry, Held) {
        let mut scratch = self.scratches.take();
        let (seconds, nanos) = (at / 1_000_000_000, (at % 1_000_000_000) as u32);
        // The kernel's seconds are signed.
        scratch.time = Timespec::new()
            .sec(seconds.min(i64::MAX as u64))
            .nsec(nanos);
        let flags = TimeoutFlags::ABS | TimeoutFlags::BOOTTIME;
        let sqe = opcode::Timeout::new(&raw const scratch.time)
            .flags(flags)
            .build();
        (sqe, Held::Scratch(scratch))
    }

    /// Everything but `Close` and `Blocking`: the SQE, what it holds, how its end is read.
    fn prepare(
        &mut self,
        target: Target,
        op: &Op<'_>,
        arena: &mut Arena,
    ) -> Result<(squeue::Entry, Held, Kind, Stream), Errno> {
        let plain = |sqe| Ok((sqe, Held::Nothing, Kind::Plain, Stream::Neither));
        match *op {
            Op::ReadAt { buf, at, .. } => {
                let (pinned, held) = pin_fill(buf, arena);
                let sqe = self.read_at(target, pinned, buf.len, at);
                Ok((sqe, held, Kind::Plain, Stream::Neither))
            }
            Op::WriteAt {
                buf, at, durable, ..
            } => {
                let (pinned, held) = pin_drain(buf, arena);
                let sqe = self.write_at(target, pinned, buf.len, at, durable);
                Ok((sqe, held, Kind::Plain, Stream::Neither))
            }
            Op::DataSync { .. } => {
                plain(sqe!(target, fd => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC)))
            }
            Op::Fallocate { mode, at, len, .. } => plain(sqe!(target, fd =>
                opcode::Fallocate::new(fd, len).offset(at).mode(mode.flags()))),
            Op::Recv { buf, all, .. } => {
                let (pinned, held) = pin_fill(buf, arena);
                Ok((
                    recv(target, pinned, buf, all),
                    held,
                    Kind::Plain,
                    Stream::Recv,
                ))
            }
            Op::Send { segments, .. } => {
                let (sqe, held) = self.send(target, segments, arena);
                Ok((sqe, held, Kind::Plain, Stream::Send))
            }
            Op::Accept { .. } => {
                let sqe = sqe!(target, fd =>
                    opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
                        .flags(libc::SOCK_CLOEXEC));
                Ok((sqe, Held::Nothing, Kind::Accept, Stream::Neither))
            }
            Op::AcceptMany { .. } => {
                let sqe =
                    sqe!(target, fd => opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC));
                Ok((sqe, Held::Nothing, Kind::Accept, Stream::Neither))
            }
            Op::Connect { to, .. } => {
                let mut scratch = self.scratches.take();
                if let Err(errno) = scratch.set_address(to) {
                    self.scratches.give(scratch);
                    return Err(errno);
                }
                let (address, len) = ((&raw const scratch.address).cast(), scratch.address_len);
                let sqe = sqe!(target, fd => opcode::Connect::new(fd, address, len));
                Ok((sqe, Held::Scratch(scratch), Kind::Plain, Stream::Neither))
            }
            Op::PollIn { .. } => {
                plain(sqe!(target, fd => opcode::PollAdd::new(fd, libc::POLLIN as u32)))
            }
            Op::Shutdown { how, .. } => {
                plain(sqe!(target, fd => opcode::Shutdown::new(fd, how.raw())))
            }
            Op::Timeout { at } => {
                let (sqe, held) = self.timeout(at);
                Ok((sqe, held, Kind::Timeout, Stream::Neither))
            }
            Op::Close { .. } | Op::Blocking(_) => unreachable!("handled by push"),
        }
    }

    fn close(&mut self, token: u64, file: FileId) {
        let flight = Flight::bare(token, None);
        let key = self.entries.insert(Entry {
            flight,
            kind: Kind::Outside,
            queued: false,
        });
        if self.files.close(file, key.to_u64()) {
            self.finish_close(file.key());
        } else {
            self.cancel_where(|flight| flight.file == Some(file.key()));
        }
    }
}

fn recv(target: Target, pinned: Pinned, buf: BufSlice, all: bool) -> squeue::Entry {
    let flags = if all { libc::MSG_WAITALL } else { 0 };
    sqe!(target, fd => opcode::Recv::new(fd, pinned.ptr, buf.len).flags(flags))
}

impl Ring for Uring {
    fn register(&mut self, fd: OwnedFd) -> FileId {
        let raw = fd.as_raw_fd();
        let id = self.files.register(fd);
        if id.slot < self.fixed_slots {
            let fixed = place_file(&self.parts, id.slot, raw);
            self.files.set_fixed(id, fixed);
        }
        id
    }

    fn unregister(&mut self, file: FileId) -> Option<OwnedFd> {
        let fixed = self.files.open(file)?.fixed;
        let fd = self.files.unregister(file)?;
        if fixed {
            place_file(&self.parts, file.slot, -1);
        }
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
                let flight = Flight::bare(token, None);
                let key = self.entries.insert(Entry {
                    flight,
                    kind: Kind::Outside,
                    queued: false,
                });
                return self.pool.run(key, Job::Run(run));
            }
            _ => {}
        }
        match self.prepare(target, &op, arena) {
            Err(errno) => self.fail(token, errno),
            Ok((sqe, held, kind, stream)) => {
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
        let timeout = match wait {
            Wait::Until(at) if out.len() == before && self.local.is_empty() => sleep_time(at),
            _ => None,
        };
        match timeout {
            Some(timeout) if self.sleeper.try_sleep() => self.enter_kernel(1, timeout),
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
        Turn { woken }
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
        while (self.submitted > 0 || self.wake_armed) && begun.elapsed() < QUIESCE {
            self.submit_waiting();
            self.enter_kernel(1, Some(Duration::from_millis(50)));
            self.reap(None, &mut out);
        }
        if self.submitted > 0 || self.wake_armed {
            mem::forget(Arc::clone(&self.memory));
            self.loans.leak();
            mem::forget(mem::replace(&mut self.entries, Slab::with_capacity(0)));
            mem::forget(mem::take(&mut self.wake_count));
        }
    }
}
