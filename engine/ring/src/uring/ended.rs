//! How flights end: by the kernel, by a worker, or by being called off.

use std::mem;
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::{cqueue, opcode};

use super::{CANCEL, Kind, Uring, WAKE};
use crate::Ring;
use crate::arena::Arena;
use crate::flight::Flight;
use crate::op::{Completion, Errno};
use crate::slab::Key;

impl Uring {
    /// Takes completions from the queue. Without an arena (the ring is being dropped) buffers stay
    /// pinned.
    pub(super) fn reap(&mut self, mut arena: Option<&mut Arena>, out: &mut Vec<Completion>) {
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

    pub(super) fn complete(
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
    pub(super) fn end(&mut self, key: Key, arena: Option<&mut Arena>) {
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
    pub(super) fn end_outside(&mut self, key: Key, result: Result<u32, Errno>, arena: &mut Arena) {
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

    pub(super) fn cancel_flight(&mut self, key: Key) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        match entry.kind {
            // Its SQE is skipped when the backlog comes to it.
            _ if entry.queued => self.cancelled_early.push(key),
            // A disk ends what it was asked soon, and cannot be told otherwise.
            Kind::Aside | Kind::Command { .. } | Kind::Chain(_) => {}
            Kind::Outside if self.pool.cancel(key) => self.cancelled_early.push(key),
            Kind::Outside => {}
            Kind::Plain | Kind::Timeout | Kind::Accept => {
                let cancel = opcode::AsyncCancel::new(key.to_u64()).build();
                self.submit_aside(cancel.user_data(CANCEL));
            }
        }
    }

    pub(super) fn cancel_where(&mut self, matches: impl Fn(&Flight) -> bool) {
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
    pub(super) fn collect_local(&mut self, arena: &mut Arena, out: &mut Vec<Completion>) {
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

    pub(super) fn fail(&mut self, token: u64, errno: Errno) {
        self.local.push(Completion {
            token,
            result: Err(errno),
            accepted: None,
            more: false,
        });
    }
}
