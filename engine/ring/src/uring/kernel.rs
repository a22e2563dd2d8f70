//! Handing entries to the kernel, and entering it.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, opcode, squeue};

use super::{Uring, WAKE};
use crate::slab::Key;

impl Uring {
    /// Hands an SQE to the kernel with the next enter, or when there is room.
    pub(super) fn submit(&mut self, entry: squeue::Entry) {
        let room = self.backlog.is_empty() && self.submitted < self.depth;
        // SAFETY: every SQE comes from `prepare`, with memory that its flight keeps pinned or
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

    pub(super) fn submit_backlog(&mut self) {
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
    pub(super) fn submit_aside(&mut self, entry: squeue::Entry) {
        // SAFETY: neither names memory, but for `wake_count`, which is boxed and lives with us.
        if unsafe { self.parts.sq.push(&entry) }.is_err() {
            self.aside.push(entry);
        }
    }

    /// What found the queue full goes first.
    pub(super) fn submit_waiting(&mut self) {
        while !self.parts.sq.is_full() {
            let Some(entry) = self.aside.pop() else {
                return self.submit_backlog();
            };
            self.submit_aside(entry);
        }
    }

    pub(super) fn more_to_submit(&self) -> bool {
        !self.aside.is_empty() || (!self.backlog.is_empty() && self.submitted < self.depth)
    }

    pub(super) fn arm_wake(&mut self) {
        if !self.wake_armed {
            self.wake_armed = true;
            let fd = Fd(self.sleeper.eventfd().as_raw_fd());
            let read = opcode::Read::new(fd, (&raw mut *self.wake_count).cast(), 8).build();
            self.submit_aside(read.user_data(WAKE));
        }
    }

    /// Hands over what is queued, in the middle of a turn: nothing is collected or waited for.
    pub(super) fn hand_over(&mut self) {
        self.calls += 1;
        if let Err(error) = self.parts.enter(EnterFlags::empty()) {
            // What was not taken stays in the queue for the end of the turn.
            check(&error);
        }
    }

    /// One system call. Publishes the SQEs; sleeps for `wait_for` completions until the deadline.
    pub(super) fn enter_kernel(&mut self, wait_for: u32, timeout: Option<Duration>) {
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
        self.calls += 1;
        // SAFETY: `args` is what EXT_ARG announces and lives through the call, as does `time`.
        let entered = unsafe {
            self.parts
                .submitter
                .enter(to_submit, wait_for, flags.bits(), Some(&args))
        };
        self.parts.sq.sync();
        if entered.is_err_and(|error| check(&error)) {
            std::thread::yield_now();
        }
    }
}

/// True when the kernel lacks memory for requests, or the completion queue overflowed: what is not
/// submitted stays in the queue; the caller reaps and comes again.
pub(super) fn check(error: &io::Error) -> bool {
    match error.raw_os_error() {
        // The deadline came, or a signal.
        Some(libc::ETIME | libc::EINTR) => false,
        Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => true,
        _ => panic!("io_uring_enter failed, which only a bug of ours can cause: {error}"),
    }
}
