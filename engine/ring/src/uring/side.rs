//! A second ring beside the main one, for reads and writes that the main one cannot carry: polled
//! ones, which sockets must not share a ring with, and NVMe commands, whose entries are larger.
//!
//! ```text
//!  push ─► flight table ─► Side: SQ ─► kernel ─► CQ ─┬─ polled: looked at in a loop while any is out
//!                                                    └─ else: its eventfd ends the main ring's sleep
//! ```
//! A chain of commands (zeroing a long range) is one flight: each end begins the next.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::types::Fd;
use io_uring::{EnterFlags, cqueue, opcode, squeue};

use super::prepare::{Target, fixed_buffer};
use super::setup::{self, Parts};
use super::{Kind, Uring};
use crate::access::{Access, Refused};
use crate::arena::Arena;
use crate::flight::{Held, pin_drain, pin_fill};
use crate::nvme::{self, Command, Namespace};
use crate::op::{Errno, FallocateMode, Op};
use crate::slab::Key;
use crate::{DEPTH_MAX, RingConfig};

/// Operations in the kernel at a time; more wait here.
const DEPTH: u32 = 1024;
const _: () = assert!(DEPTH <= DEPTH_MAX);

/// Which of the two second rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Polled,
    Commands,
}

/// One of them.
pub(super) struct Side {
    parts: Parts<squeue::Entry128, cqueue::Entry32>,
    is_polled: bool,
    fixed_bytes: usize,
    fixed_slots: u32,
    backlog: VecDeque<squeue::Entry128>,
    /// In the kernel, or there with the next enter.
    submitted: usize,
}

/// What goes on as a chain of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    of: Namespace,
    from: u64,
    at: u64,
    end: u64,
    deallocates: bool,
}

impl Side {
    /// Errors: why this kernel has none, in plain words.
    fn open(config: &RingConfig, arena: &Arena, which: Which) -> Result<Side, String> {
        let is_polled = which == Which::Polled;
        let opened = setup::open_side(config, arena, DEPTH, is_polled)?;
        Ok(Side {
            parts: opened.parts,
            is_polled,
            fixed_bytes: opened.fixed_bytes,
            fixed_slots: opened.fixed_slots,
            backlog: VecDeque::with_capacity(DEPTH as usize),
            submitted: 0,
        })
    }

    /// Operations that the kernel has, or will have.
    pub(super) fn in_flight(&self) -> usize {
        self.submitted + self.backlog.len()
    }

    fn submit(&mut self, entry: squeue::Entry128) -> bool {
        let room = self.backlog.is_empty() && self.submitted < DEPTH as usize;
        // SAFETY: every SQE comes from `prepare_aside`, with memory that its flight keeps pinned
        // or boxed until the last completion.
        let pushed = room && unsafe { self.parts.sq.push(&entry) }.is_ok();
        if pushed {
            self.submitted += 1;
        } else {
            self.backlog.push_back(entry);
        }
        pushed
    }

    /// One system call: hands over what is queued, and polls or runs what completions are due.
    /// True if the kernel is short of memory.
    fn enter(&mut self) -> bool {
        let entered = self.parts.enter(EnterFlags::GETEVENTS);
        entered.is_err_and(|error| super::kernel::check(&error))
    }

    /// Puts a descriptor into a slot of the registered files.
    pub(super) fn place_file(&self, slot: u32, fd: RawFd) -> bool {
        let update = || self.parts.submitter.register_files_update(slot, &[fd]);
        slot < self.fixed_slots && update().is_ok()
    }

    /// Empties a slot.
    pub(super) fn clear_file(&self, slot: u32) {
        if slot < self.fixed_slots {
            // What was not there is not there.
            let _ = self.parts.submitter.register_files_update(slot, &[-1]);
        }
    }

    fn command(&self, target: Target, command: Command, fixed: Option<u16>) -> squeue::Entry128 {
        let (op, bytes) = (nvme::URING_CMD_IO, command.encode());
        let entry = match target {
            Target::Fixed(slot) => {
                opcode::UringCmd80::new(io_uring::types::Fixed(slot), op).cmd(bytes)
            }
            Target::Plain(raw) => opcode::UringCmd80::new(Fd(raw), op).cmd(bytes),
        };
        entry.buf_index(fixed).build()
    }
}

impl Uring {
    pub(super) fn side(&self, which: Which) -> Option<&Side> {
        self.sides[which as usize].as_ref()
    }

    fn side_mut(&mut self, which: Which) -> &mut Side {
        let side = self.sides[which as usize].as_mut();
        side.expect("a file that needs it was registered")
    }

    /// Whether something is out that nobody is woken for.
    pub(super) fn is_polling(&self) -> bool {
        self.sides
            .iter()
            .flatten()
            .any(|side| side.is_polled && side.in_flight() > 0)
    }

    /// Opens the ring this access needs, if it is not there yet.
    pub(super) fn open_side(&mut self, access: Access, arena: &Arena) -> Result<(), Refused> {
        let Some(which) = which(access) else {
            return Ok(());
        };
        if self.side(which).is_some() {
            return Ok(());
        }
        let side = Side::open(&self.config, arena, which).map_err(|why| Refused { why })?;
        if !side.is_polled {
            let eventfd = self.sleeper.eventfd().as_raw_fd();
            let registered = side.parts.submitter.register_eventfd(eventfd);
            registered.map_err(|e| Refused {
                why: format!("a second ring cannot wake the first: {e}"),
            })?;
        }
        self.sides[which as usize] = Some(side);
        Ok(())
    }

    /// The second ring that carries this operation on this file, if one does.
    pub(super) fn carrier(&self, access: Access, op: &Op<'_>) -> Option<Which> {
        match (access, op) {
            (Access::Polled, Op::ReadAt { .. } | Op::WriteAt { durable: false, .. }) => {
                Some(Which::Polled)
            }
            (Access::Nvme { .. }, Op::Close { .. }) => None,
            (Access::Nvme { .. }, _) => which(access),
            _ => None,
        }
    }

    /// The SQE of an operation, what it holds, how its end is read.
    pub(super) fn prepare_aside(
        &mut self,
        which: Which,
        target: Target,
        access: Access,
        op: &Op<'_>,
        arena: &mut Arena,
    ) -> Result<(squeue::Entry128, Held, Kind), Errno> {
        let Access::Nvme { namespace: of, .. } = access else {
            return Ok(self.prepare_polled(target, op, arena));
        };
        let side = self.side(which).expect("opened with the file");
        let plain = |command| side.command(target, command, None);
        match *op {
            Op::ReadAt { buf, at, .. } => {
                let len = transfer(of, at, buf.len)?;
                let (pinned, held) = pin_fill(buf, arena);
                let command = Command::read(of, pinned.ptr as u64, len, at);
                let fixed = fixed_buffer(pinned, len, side.fixed_bytes);
                let sqe = side.command(target, command, fixed);
                Ok((sqe, held, Kind::Command { len }))
            }
            Op::WriteAt {
                buf, at, durable, ..
            } => {
                let len = transfer(of, at, buf.len)?;
                let (pinned, held) = pin_drain(buf, arena);
                let command = Command::write(of, pinned.ptr as u64, len, at, durable);
                let fixed = fixed_buffer(pinned, len, side.fixed_bytes);
                let sqe = side.command(target, command, fixed);
                Ok((sqe, held, Kind::Command { len }))
            }
            Op::DataSync { .. } => Ok((
                plain(Command::flush(of)),
                Held::Nothing,
                Kind::Command { len: 0 },
            )),
            Op::Fallocate { mode, at, len, .. } => {
                let end = at.checked_add(len).ok_or(Errno::INVAL)?;
                if !of.is_aligned(at, len) || len == 0 {
                    return Err(Errno::INVAL);
                }
                if mode == FallocateMode::Allocate || of.zeroes_max() == 0 {
                    return Err(Errno::OPNOTSUPP);
                }
                let chain = Chain {
                    of,
                    from: at,
                    at,
                    end,
                    deallocates: mode == FallocateMode::PunchHole && of.deallocates,
                };
                let (command, chain) = chain.zeroes();
                Ok((plain(command), Held::Nothing, Kind::Chain(chain)))
            }
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    fn prepare_polled(
        &mut self,
        target: Target,
        op: &Op<'_>,
        arena: &mut Arena,
    ) -> (squeue::Entry128, Held, Kind) {
        let fixed_bytes = self.side(Which::Polled).map_or(0, |side| side.fixed_bytes);
        let (sqe, held) = match *op {
            Op::ReadAt { buf, at, .. } => {
                let (pinned, held) = pin_fill(buf, arena);
                (
                    self.read_at(target, pinned, buf.len, at, 0, fixed_bytes),
                    held,
                )
            }
            Op::WriteAt { buf, at, .. } => {
                let (pinned, held) = pin_drain(buf, arena);
                (
                    self.write_at(target, pinned, buf.len, at, 0, fixed_bytes),
                    held,
                )
            }
            _ => unreachable!("`carrier` lets reads and writes through"),
        };
        (sqe.into(), held, Kind::Aside)
    }

    /// Queues an SQE on a second ring.
    pub(super) fn submit_beside(&mut self, which: Which, entry: squeue::Entry128) {
        let key = Key::from_u64(entry.get_user_data());
        let pushed = self.side_mut(which).submit(entry);
        if let Some(found) = self.entries.get_mut(key) {
            found.queued = !pushed;
        }
    }

    /// A turn of the second rings: hands over what waits, takes what ended. Without an arena (the
    /// ring is being dropped) buffers stay pinned.
    pub(super) fn turn_aside(
        &mut self,
        mut arena: Option<&mut Arena>,
        out: &mut Vec<super::Completion>,
    ) {
        for which in [Which::Polled, Which::Commands] {
            let Some(side) = self.sides[which as usize].as_mut() else {
                continue;
            };
            if side.in_flight() == 0 {
                continue;
            }
            self.calls += 1;
            if side.enter() {
                std::thread::yield_now();
            }
            self.reap_aside(which, arena.as_deref_mut(), out);
            self.submit_backlog_aside(which);
        }
    }

    fn reap_aside(
        &mut self,
        which: Which,
        mut arena: Option<&mut Arena>,
        out: &mut Vec<super::Completion>,
    ) {
        self.side_mut(which).parts.cq.sync();
        while let Some(cqe) = self.side_mut(which).parts.cq.next() {
            self.side_mut(which).submitted -= 1;
            let key = Key::from_u64(cqe.user_data());
            self.complete_aside(which, key, cqe.result(), arena.as_deref_mut(), out);
        }
        self.side_mut(which).parts.cq.sync();
    }

    fn complete_aside(
        &mut self,
        which: Which,
        key: Key,
        result: i32,
        arena: Option<&mut Arena>,
        out: &mut Vec<super::Completion>,
    ) {
        let Some(entry) = self.entries.get(key) else {
            debug_assert!(false, "a completion for no flight");
            return;
        };
        let token = entry.flight.token;
        let result = match entry.kind {
            Kind::Command { len } => nvme::outcome(result).map(|()| len),
            Kind::Chain(chain) => match nvme::outcome(result) {
                // A dropped ring begins nothing any more.
                Ok(()) if arena.is_some() && self.go_on(which, key, chain) => return,
                ended => ended.map(|()| 0),
            },
            _ => u32::try_from(result).map_err(|_| Errno(-result)),
        };
        self.end(key, arena);
        out.push(super::Completion {
            token,
            result,
            accepted: None,
            more: false,
        });
    }

    /// Begins what follows in a chain; false at its end.
    fn go_on(&mut self, which: Which, key: Key, chain: Chain) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        let command = if chain.at < chain.end {
            let (command, next) = chain.zeroes();
            entry.kind = Kind::Chain(next);
            command
        } else if chain.deallocates && chain.from < chain.end {
            let len = (chain.end - chain.from).min(chain.of.deallocate_max());
            // Boxed, so that it stays where it is until this command has ended.
            let range = Box::new(nvme::range(chain.of, chain.from, len));
            let command = Command::deallocate(chain.of, range.0.as_ptr() as u64);
            entry.flight.held = Held::Range(range);
            entry.kind = Kind::Chain(Chain {
                from: chain.from + len,
                ..chain
            });
            command
        } else {
            return false;
        };
        let file = entry.flight.file;
        let Some(target) = file.and_then(|file| self.target_of(file)) else {
            return false;
        };
        let sqe = self.side_mut(which).command(target, command, None);
        self.submit_beside(which, sqe.user_data(key.to_u64()));
        true
    }

    fn submit_backlog_aside(&mut self, which: Which) {
        while let Some(entry) = self.side_mut(which).backlog.pop_front() {
            // Cancelled meanwhile: its flight has ended.
            let key = Key::from_u64(entry.get_user_data());
            if self.entries.get(key).is_none() {
                continue;
            }
            let side = self.side_mut(which);
            // SAFETY: as in `Side::submit`; the flight is still there.
            let pushed =
                side.submitted < DEPTH as usize && unsafe { side.parts.sq.push(&entry) }.is_ok();
            if !pushed {
                return side.backlog.push_front(entry);
            }
            side.submitted += 1;
            if let Some(found) = self.entries.get_mut(key) {
                found.queued = false;
            }
        }
    }
}

impl Chain {
    /// The next Write Zeroes, and where the chain stands then.
    fn zeroes(self) -> (Command, Chain) {
        let len = (self.end - self.at).min(self.of.zeroes_max());
        let command = Command::write_zeroes(self.of, self.at, len);
        let next = Chain {
            at: self.at + len,
            ..self
        };
        (command, next)
    }
}

/// The ring an access needs.
pub(super) fn which(access: Access) -> Option<Which> {
    match access {
        Access::Plain | Access::DontCache => None,
        Access::Polled => Some(Which::Polled),
        Access::Nvme { polled: true, .. } => Some(Which::Polled),
        Access::Nvme { polled: false, .. } => Some(Which::Commands),
    }
}

/// How much of it one command moves.
fn transfer(of: Namespace, at: u64, len: u32) -> Result<u32, Errno> {
    let len = len.min(of.transfer_max);
    let fits = of.is_aligned(at, u64::from(len)) && len > 0;
    fits.then_some(len).ok_or(Errno::INVAL)
}

/// Reads the first block of a file or device as `access` would, on a ring of its own; waits for it.
/// Errors: it cannot be used so, and why.
pub(crate) fn probe(fd: &OwnedFd, access: Access) -> Result<(), Refused> {
    let refused = |why: String| Refused { why };
    let config = RingConfig {
        depth: 4,
        files: 4,
        workers: 1,
        fixed_bytes: 0,
    };
    let arena = crate::ArenaConfig::with_bytes(0, 4 << 20);
    let mut arena = Arena::new(&arena).map_err(|e| refused(e.to_string()))?;
    let mut ring = Uring::open(&config, &arena).map_err(refused)?;
    let own = fd.try_clone().map_err(|e| refused(e.to_string()))?;
    let file = crate::Ring::register_as(&mut ring, own, access, &arena)?;
    let buf = arena.alloc(crate::Class::Meta, 4096);
    let buf = buf.ok_or_else(|| refused(io::ErrorKind::OutOfMemory.to_string()))?;
    let read = Op::ReadAt {
        file,
        buf: buf.slice(0, 4096),
        at: 0,
    };
    crate::Ring::push(&mut ring, &mut arena, 0, read);
    let (mut out, until) = (Vec::new(), crate::sys::clock::boottime_ns() + PROBE_NS);
    while out.is_empty() && crate::sys::clock::boottime_ns() < until {
        let wait = crate::Wait::Until(until);
        crate::Ring::enter(&mut ring, &mut arena, wait, &mut out);
    }
    match out.first().map(|completion| completion.result) {
        Some(Ok(4096)) => Ok(()),
        Some(Ok(short)) => Err(refused(format!("a read of 4096 bytes brought {short}"))),
        Some(Err(why)) => Err(refused(why.to_string())),
        None => Err(refused("a read did not end within 10 s".to_owned())),
    }
}

/// How long a probe waits.
const PROBE_NS: u64 = 10_000_000_000;
