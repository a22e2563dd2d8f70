//! The POSIX back end: epoll for sockets, worker threads for files.
//!
//! ```text
//!  push ─┬─ file work ──────► pool ─────────────► done, wake ─┐
//!        ├─ socket work ──► queue of its file ─ try ─ EAGAIN ─┤
//!        └─ timeout ──────► heap            ▲                 ▼
//!  enter: try what is due ─► epoll_wait ────┘────────► completions
//! ```
//! Sockets are nonblocking and watched edge-triggered; a queue is tried when something was pushed
//! to it and at each edge. Sends and receives run in the reactor: they never wait.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use crate::access::{Access, Refused};
use crate::arena::Arena;
use crate::files::{Files, Loans, Mode};
use crate::flight::Flight;
use crate::mapping::Mapping;
use crate::op::{Completion, Errno, FileId, Op, RegionId, Turn, Wait};
use crate::pool::{Done, Job, Pool};
use crate::region::Region;
use crate::scratch::Scratches;
use crate::slab::{Key, Slab};
use crate::sys::clock::boottime_ns;
use crate::waker::{Sleeper, Waker};
use crate::{Backend, Features, Ring, RingConfig};

mod attempt;
mod push;
pub(crate) mod work;

use attempt::{Attempt, Step, attempt};
use work::FileWork;

/// epoll's data for the eventfd; slots of files are below.
const WAKE: u64 = u64::MAX;
/// Connections one turn accepts from one listener before others get theirs.
const ACCEPTS_PER_TURN: usize = 64;
const EVENTS_PER_TURN: usize = 256;
const SLEEP_MAX: Duration = Duration::from_secs(3600);

struct Entry {
    flight: Flight,
    step: Step,
}

/// Operations waiting for one file, by direction, first come first served.
#[derive(Default)]
struct Queues {
    reading: VecDeque<Key>,
    writing: VecDeque<Key>,
    /// In `due`.
    due: bool,
    watched: bool,
}

pub(crate) struct Posix {
    // Dropped first: jobs not begun are dropped, those begun are waited for; nothing else touches
    // memory on its own.
    pool: Pool<FileWork>,
    features: Features,
    arena: u64,
    _memory: Arc<Mapping>,
    files: Files,
    /// By slot of the file.
    queues: Vec<Queues>,
    loans: Loans,
    entries: Slab<Entry>,
    scratches: Scratches,
    timers: BinaryHeap<Reverse<(u64, Key)>>,
    /// Files with something to try.
    due: VecDeque<Key>,
    local: Vec<Completion>,
    cancelled: Vec<Key>,
    pool_done: Vec<Done>,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    sleeper: Sleeper,
}

impl Posix {
    pub(crate) fn open(config: &RingConfig, arena: &Arena) -> io::Result<Posix> {
        let sleeper = Sleeper::with_eventfd(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(
            &epoll,
            sleeper.eventfd(),
            epoll::EventData::new_u64(WAKE),
            flags,
        )?;
        let depth = config.depth as usize;
        Ok(Posix {
            pool: Pool::new(config.workers, sleeper.waker()),
            features: Features::none(Backend::Posix),
            arena: arena.identity(),
            _memory: Arc::clone(arena.memory()),
            files: Files::new(config.files as usize, Mode::NonblockingSockets),
            queues: Vec::with_capacity(config.files as usize),
            loans: Loans::new(),
            entries: Slab::with_capacity(depth),
            scratches: Scratches::with_capacity(256),
            timers: BinaryHeap::with_capacity(256),
            due: VecDeque::with_capacity(256),
            local: Vec::with_capacity(256),
            cancelled: Vec::new(),
            pool_done: Vec::with_capacity(64),
            epoll,
            events: Vec::with_capacity(EVENTS_PER_TURN),
            sleeper,
        })
    }

    fn insert(&mut self, flight: Flight, step: Step) -> Key {
        self.entries.insert(Entry { flight, step })
    }

    /// Puts a socket operation into its file's queue.
    fn enqueue(&mut self, file: Key, key: Key, writing: bool) {
        let slot = file.slot as usize;
        if self.queues.len() <= slot {
            self.queues.resize_with(slot + 1, Queues::default);
        }
        let queues = &mut self.queues[slot];
        if writing {
            queues.writing.push_back(key);
        } else {
            queues.reading.push_back(key);
        }
        if !queues.watched {
            queues.watched = true;
            let flags = epoll::EventFlags::IN
                | epoll::EventFlags::OUT
                | epoll::EventFlags::RDHUP
                | epoll::EventFlags::ET;
            if let Some(entry) = self.files.get(file) {
                // A plain file cannot be watched and is always ready: its first try succeeds.
                let data = epoll::EventData::new_u64(file.to_u64());
                let _ = epoll::add(&self.epoll, &entry.fd, data, flags);
            }
        }
        self.make_due(file);
    }

    fn make_due(&mut self, file: Key) {
        if let Some(queues) = self.queues.get_mut(file.slot as usize).filter(|q| !q.due) {
            queues.due = true;
            self.due.push_back(file);
        }
    }

    /// Tries everything that became possible. Files that have not had enough stay due.
    fn work_off(&mut self, arena: &mut Arena) {
        for _ in 0..self.due.len() {
            let Some(file) = self.due.pop_front() else {
                return;
            };
            self.queues[file.slot as usize].due = false;
            let Some(fd) = self.files.get(file).map(|entry| entry.fd.as_raw_fd()) else {
                continue;
            };
            self.try_queue(file, fd, false, arena);
            self.try_queue(file, fd, true, arena);
        }
    }

    fn try_queue(&mut self, file: Key, fd: RawFd, writing: bool, arena: &mut Arena) {
        for _ in 0..ACCEPTS_PER_TURN {
            let queues = &mut self.queues[file.slot as usize];
            let queue = if writing {
                &mut queues.writing
            } else {
                &mut queues.reading
            };
            let Some(key) = queue.front().copied() else {
                return;
            };
            let Some(entry) = self.entries.get_mut(key) else {
                queue.pop_front();
                continue;
            };
            match attempt(fd, entry) {
                Attempt::Later => return,
                Attempt::Again => {}
                Attempt::Ended(result, fd) => {
                    let more = matches!(entry.step, Step::Accept { many: true }) && result.is_ok();
                    if !more {
                        queue.pop_front();
                    }
                    self.complete(key, result, fd, more, arena);
                }
            }
        }
        self.make_due(file);
    }

    fn complete(
        &mut self,
        key: Key,
        result: Result<u32, Errno>,
        fd: Option<OwnedFd>,
        more: bool,
        arena: &mut Arena,
    ) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        let token = entry.flight.token;
        let accepted = fd.map(|fd| self.register(fd));
        // Before `end`, which may complete the close that waits for this.
        self.local.push(Completion {
            token,
            result,
            accepted,
            more,
        });
        if !more {
            self.end(key, arena);
        }
    }

    fn end(&mut self, key: Key, arena: &mut Arena) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        entry
            .flight
            .held
            .release(arena, &mut self.loans, &mut self.scratches);
        if let Some(file) = entry.flight.file
            && self.files.end(file, entry.flight.stream)
        {
            self.finish_close(file);
        }
    }

    /// The file is idle: a worker closes it, a socket is closed here.
    fn finish_close(&mut self, file: Key) {
        let Some(entry) = self.files.remove(file) else {
            return;
        };
        self.forget_queues(file, &entry.fd);
        let Some(close) = entry.closing.map(Key::from_u64) else {
            return;
        };
        if !entry.socket {
            self.pool.run(close, Job::Plain(FileWork::Close(entry.fd)));
            return;
        }
        drop(entry);
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

    fn forget_queues(&mut self, file: Key, fd: &OwnedFd) {
        if let Some(queues) = self.queues.get_mut(file.slot as usize) {
            if mem::take(queues).watched {
                // Duplicates of the descriptor would keep the watch alive.
                let _ = epoll::delete(&self.epoll, fd);
            }
            self.due.retain(|due| *due != file);
        }
    }

    fn cancel_flight(&mut self, key: Key) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        if let (Step::Outside, Some(_)) = (&entry.step, entry.flight.file) {
            // A worker that has begun cannot be stopped.
            if self.pool.cancel(key) {
                self.cancelled.push(key);
            }
        } else if !matches!(entry.step, Step::Outside) || self.pool.cancel(key) {
            self.cancelled.push(key);
        } else if self.timers.iter().any(|Reverse((_, timer))| *timer == key) {
            self.timers.retain(|Reverse((_, timer))| *timer != key);
            self.cancelled.push(key);
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

    /// What ended elsewhere becomes completions.
    fn collect(&mut self, arena: &mut Arena) {
        while let Some(key) = self.cancelled.pop() {
            // What has moved some bytes ends short: they are not lost.
            let result = match self.entries.get(key).map(|entry| &entry.step) {
                Some(Step::Send { done }) if *done > 0 => Ok(*done),
                Some(Step::Recv { done, .. }) if *done > 0 => Ok(*done as u32),
                _ => Err(Errno::CANCELED),
            };
            self.complete(key, result, None, false, arena);
        }
        let mut done = mem::take(&mut self.pool_done);
        self.pool.collect(&mut done);
        for (key, result) in done.drain(..) {
            self.complete(key, result, None, false, arena);
        }
        self.pool_done = done;
        if !self.timers.is_empty() {
            let now = boottime_ns();
            while let Some(Reverse((at, key))) = self.timers.peek().copied() {
                if at > now {
                    break;
                }
                self.timers.pop();
                self.complete(key, Ok(0), None, false, arena);
            }
        }
    }

    /// Asks epoll, sleeping until `until` at most (0 not at all).
    fn poll(&mut self, until: u64) {
        let mut events = mem::take(&mut self.events);
        events.clear();
        let timeout = match until {
            u64::MAX => None,
            at => {
                let left = Duration::from_nanos(at.saturating_sub(boottime_ns()));
                // epoll_wait counts milliseconds in an int; a long sleep is cut into turns.
                let left = left.min(SLEEP_MAX);
                Some(Timespec::try_from(left).expect("an hour fits a timespec"))
            }
        };
        // An error is EINTR (a signal: the turn ends early) or a bug of ours; either way the next
        // turn asks again.
        let spare = rustix::buffer::spare_capacity(&mut events);
        let _ = epoll::wait(&self.epoll, spare, timeout.as_ref());
        for event in &events {
            match event.data.u64() {
                WAKE => {
                    let mut count = [0; 8];
                    // Empty (EAGAIN) is fine: edge-triggered, the counter only has to be reset.
                    let _ = rustix::io::read(self.sleeper.eventfd(), &mut count);
                }
                file => {
                    let key = Key::from_u64(file);
                    if self.files.get(key).is_some() {
                        self.make_due(key);
                    }
                }
            }
        }
        self.events = events;
    }

    fn fail(&mut self, token: u64, errno: Errno) {
        self.local.push(Completion {
            token,
            result: Err(errno),
            accepted: None,
            more: false,
        });
    }

    fn close(&mut self, token: u64, file: FileId) {
        let key = self.insert(Flight::bare(token), Step::Outside);
        if self.files.close(file, key.to_u64()) {
            self.finish_close(file.key());
        } else {
            self.cancel_where(|flight| flight.file == Some(file.key()));
        }
    }
}

impl Ring for Posix {
    fn register(&mut self, fd: OwnedFd) -> FileId {
        self.files.register(fd, Access::Plain)
    }

    fn register_as(
        &mut self,
        fd: OwnedFd,
        access: Access,
        _arena: &Arena,
    ) -> Result<FileId, Refused> {
        match access {
            Access::Plain | Access::DontCache => Ok(self.files.register(fd, access)),
            Access::Polled | Access::Nvme { .. } => Err(Refused {
                why: "it needs io_uring, which is not to be had here".to_owned(),
            }),
        }
    }

    fn unregister(&mut self, file: FileId) -> Option<OwnedFd> {
        let fd = self.files.unregister(file)?;
        self.forget_queues(file.key(), &fd);
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
        if op
            .file()
            .is_some_and(|file| self.files.open(file).is_none())
        {
            return self.fail(token, Errno::BADF);
        }
        self.dispatch(arena, token, op);
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
        self.collect(arena);
        self.work_off(arena);
        let mut until = match wait {
            Wait::Until(at) if self.local.is_empty() && self.due.is_empty() => at,
            _ => 0,
        };
        if let Some(Reverse((at, _))) = self.timers.peek() {
            until = until.min(*at);
        }
        if until > 0 && !self.sleeper.try_sleep() {
            until = 0;
        }
        self.poll(until);
        let woken = self.sleeper.awake();
        self.work_off(arena);
        self.collect(arena);
        out.append(&mut self.local);
        Turn { woken, calls: 1 }
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
