//! The [`Ring`] of a [`World`].

use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::attempt::{Entry, Outcome, Piece, Work, attempt_virtual, real, run_blocking, spoil};
use super::objects::Tried;
use super::{Fate, Fault, Object, World};
use crate::access::{Access, Refused};
use crate::arena::{Arena, BufSlice};
use crate::files::{Loans, Stream};
use crate::flight::{Flight, Held, pin_drain, pin_fill, pin_vector};
use crate::mapping::Mapping;
use crate::op::{Completion, Errno, FileId, Op, RegionId, Turn, Wait};
use crate::region::Region;
use crate::scratch::Scratches;
use crate::slab::{Key, Slab};
use crate::waker::{Sleeper, Waker};
use crate::{Backend, Features, Ring};

enum Source {
    Real(OwnedFd),
    Virtual(Object),
}

struct File {
    source: Source,
    in_flight: u32,
    receiving: bool,
    sending: bool,
    closing: Option<Key>,
}

/// A deterministic ring, see [`crate::fake`]. Dropping it closes its sockets, like the death of a
/// process.
pub struct FakeRing {
    world: World,
    features: Features,
    arena: u64,
    _memory: Arc<Mapping>,
    files: Slab<File>,
    loans: Loans,
    entries: Slab<Entry>,
    scratches: Scratches,
    local: Vec<Completion>,
    cancelled: Vec<Key>,
    sleeper: Sleeper,
}

impl FakeRing {
    pub(super) fn new(world: World, arena: &Arena) -> FakeRing {
        FakeRing {
            world,
            features: Features::none(Backend::Fake),
            arena: arena.identity(),
            _memory: Arc::clone(arena.memory()),
            files: Slab::with_capacity(64),
            loans: Loans::new(),
            entries: Slab::with_capacity(256),
            scratches: Scratches::with_capacity(64),
            local: Vec::new(),
            cancelled: Vec::new(),
            sleeper: Sleeper::virtual_one(),
        }
    }

    /// Puts an object of the world into this ring's table, as `register` does with a descriptor.
    pub fn adopt(&mut self, object: Object) -> FileId {
        self.insert_file(Source::Virtual(object))
    }

    /// The world it lives in.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// When the next operation completes by itself, if any waits for time alone.
    pub fn next_due(&self) -> Option<u64> {
        let now = self.world.now();
        self.entries
            .iter()
            .map(|(_, entry)| entry.due)
            .filter(|due| *due > now)
            .min()
    }

    fn insert_file(&mut self, source: Source) -> FileId {
        let file = File {
            source,
            in_flight: 0,
            receiving: false,
            sending: false,
            closing: None,
        };
        let key = self.files.insert(file);
        FileId {
            slot: key.slot,
            generation: key.generation,
        }
    }

    fn open(&self, id: FileId) -> Option<&File> {
        self.files
            .get(id.key())
            .filter(|file| file.closing.is_none())
    }

    /// The operation as this ring keeps it, or why it fails at once.
    fn prepare(&mut self, op: Op<'_>, arena: &mut Arena) -> (Work, Held, Stream) {
        let piece = |ptr, buf: BufSlice| Piece {
            ptr,
            len: buf.len as usize,
        };
        let plain = |work| (work, Held::Nothing, Stream::Neither);
        match op {
            Op::ReadAt { buf, at, .. } => {
                let (pinned, held) = pin_fill(buf, arena);
                (
                    Work::Read {
                        to: piece(pinned.ptr, buf),
                        at,
                    },
                    held,
                    Stream::Neither,
                )
            }
            Op::WriteAt {
                buf, at, durable, ..
            } => {
                let (pinned, held) = pin_drain(buf, arena);
                let from = piece(pinned.ptr, buf);
                (Work::Write { from, at, durable }, held, Stream::Neither)
            }
            Op::DataSync { .. } => plain(Work::DataSync),
            Op::Fallocate { mode, at, len, .. } => plain(Work::Fallocate { mode, at, len }),
            Op::Recv { buf, all, .. } => {
                let (pinned, held) = pin_fill(buf, arena);
                (
                    Work::Recv {
                        to: piece(pinned.ptr, buf),
                        done: 0,
                        all,
                    },
                    held,
                    Stream::Recv,
                )
            }
            Op::Send { segments, .. } => {
                let scratch = pin_vector(segments, arena, &mut self.loans, &mut self.scratches);
                (Work::Send, Held::Scratch(scratch), Stream::Send)
            }
            Op::Accept { .. } => plain(Work::Accept { many: false }),
            Op::AcceptMany { .. } => plain(Work::Accept { many: true }),
            Op::Connect { to, .. } => plain(Work::Connect(to.clone())),
            Op::PollIn { .. } => plain(Work::PollIn),
            Op::Timeout { .. } => plain(Work::Timeout),
            Op::Shutdown { how, .. } => plain(Work::Shutdown(how)),
            Op::Close { .. } => plain(Work::Close),
            Op::Blocking(run) => plain(Work::Blocking(Some(run))),
        }
    }

    fn begin(&mut self, id: FileId, stream: Stream) {
        let file = self
            .files
            .get_mut(id.key())
            .expect("begun on a file just looked up");
        file.in_flight += 1;
        let flag = match stream {
            Stream::Neither => return,
            Stream::Recv => &mut file.receiving,
            Stream::Send => &mut file.sending,
        };
        assert!(
            !*flag,
            "{id:?} has a receive or send in flight already: its order would be lost"
        );
        *flag = true;
    }

    fn close(&mut self, token: u64, id: FileId) {
        let (work, flight) = (Work::Close, Flight::bare(token));
        let close = self.entries.insert(Entry {
            flight,
            work,
            due: u64::MAX,
            rank: 0,
            fault: None,
        });
        let file = self.files.get_mut(id.key()).expect("looked up by push");
        file.closing = Some(close);
        if file.in_flight == 0 {
            return self.finish_close(id.key());
        }
        let of_file = self
            .entries
            .iter()
            .filter(|(_, e)| e.flight.file == Some(id.key()));
        self.cancelled.extend(of_file.map(|(key, _)| key));
    }

    fn finish_close(&mut self, key: Key) {
        let Some(file) = self.files.remove(key) else {
            return;
        };
        if let Source::Virtual(object) = file.source {
            self.world.lock().objects.close(object);
        }
        if let Some(entry) = file.closing.and_then(|close| self.entries.remove(close)) {
            self.done(entry.flight.token, Ok(0));
        }
    }

    fn done(&mut self, token: u64, result: Result<u32, Errno>) {
        self.local.push(Completion {
            token,
            result,
            accepted: None,
            more: false,
        });
    }

    fn end(&mut self, key: Key, result: Result<u32, Errno>, arena: &mut Arena) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        let flight = entry.flight;
        flight
            .held
            .release(arena, &mut self.loans, &mut self.scratches);
        self.done(flight.token, result);
        let Some(at) = flight.file else { return };
        let file = self
            .files
            .get_mut(at)
            .expect("a file stays while operations are in flight");
        file.in_flight -= 1;
        match flight.stream {
            Stream::Neither => {}
            Stream::Recv => file.receiving = false,
            Stream::Send => file.sending = false,
        }
        if file.in_flight == 0 && file.closing.is_some() {
            self.finish_close(at);
        }
    }

    fn end_cancelled(&mut self, arena: &mut Arena) {
        for key in mem::take(&mut self.cancelled) {
            let result = match self.entries.get(key).map(|entry| &entry.work) {
                // A receive that already has bytes ends short, they are not lost.
                Some(Work::Recv { done, .. }) if *done > 0 => Ok(*done as u32),
                Some(Work::Close) | None => continue,
                Some(_) => Err(Errno::CANCELED),
            };
            self.end(key, result, arena);
        }
    }

    /// Does everything that is due, in order, until nothing more moves.
    fn work_off(&mut self, arena: &mut Arena) {
        loop {
            let now = self.world.now();
            let due = self.entries.iter().filter(|(_, entry)| entry.due <= now);
            let mut order: Vec<_> = due
                .map(|(key, entry)| (entry.due, entry.rank, key))
                .collect();
            order.sort_unstable();
            let mut moved = false;
            for (_, _, key) in order {
                moved |= self.attempt(key, arena);
            }
            if !moved {
                return;
            }
        }
    }

    /// Tries one operation; whether anything happened.
    fn attempt(&mut self, key: Key, arena: &mut Arena) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        match entry.fault {
            Some(Fault::Hang) => return false,
            Some(Fault::Fail(errno)) => {
                self.end(key, Err(errno), arena);
                return true;
            }
            _ => {}
        }
        let source = entry
            .flight
            .file
            .and_then(|file| self.files.get(file))
            .map(|f| &f.source);
        // Closures run outside the lock: they may look at the world.
        if let Work::Blocking(run) = &mut entry.work {
            let result = run.take().map_or(Err(Errno::IO), run_blocking);
            let result = spoil(entry.fault, result);
            self.end(key, result, arena);
            return true;
        }
        let tried = {
            let world = &mut *self.world.lock();
            match source {
                Some(Source::Real(fd)) => Tried::Ended(real(fd, entry)),
                Some(Source::Virtual(object)) => attempt_virtual(*object, entry, world),
                None => Tried::Ended(Ok(Outcome::Count(0))),
            }
        };
        let Tried::Ended(result) = tried else {
            return false;
        };
        let (fault, token) = (entry.fault, entry.flight.token);
        match result {
            Ok(Outcome::Again) => true,
            Ok(Outcome::Count(count)) => {
                self.end(key, spoil(fault, Ok(count)), arena);
                true
            }
            Ok(Outcome::Connection(object)) => {
                let many = matches!(entry.work, Work::Accept { many: true });
                let accepted = Some(self.adopt(object));
                if !many {
                    self.end(key, Ok(0), arena);
                    self.local.last_mut().expect("just pushed by end").accepted = accepted;
                } else {
                    self.local.push(Completion {
                        token,
                        result: Ok(0),
                        accepted,
                        more: true,
                    });
                }
                true
            }
            Err(errno) => {
                self.end(key, Err(errno), arena);
                true
            }
        }
    }
}

impl Ring for FakeRing {
    fn register(&mut self, fd: OwnedFd) -> FileId {
        self.insert_file(Source::Real(fd))
    }

    fn register_as(
        &mut self,
        fd: OwnedFd,
        _access: Access,
        _arena: &Arena,
    ) -> Result<FileId, Refused> {
        Ok(self.insert_file(Source::Real(fd)))
    }

    /// Real descriptors only: an object of the world is none and stays (`None`).
    fn unregister(&mut self, id: FileId) -> Option<OwnedFd> {
        let file = self.open(id)?;
        if file.in_flight > 0 || matches!(file.source, Source::Virtual(_)) {
            return None;
        }
        match self.files.remove(id.key())?.source {
            Source::Real(fd) => Some(fd),
            Source::Virtual(_) => None,
        }
    }

    fn fd(&self, id: FileId) -> Option<BorrowedFd<'_>> {
        match &self.open(id)?.source {
            Source::Real(fd) => Some(fd.as_fd()),
            Source::Virtual(_) => None,
        }
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
        if file.is_some_and(|file| self.open(file).is_none()) {
            return self.done(token, Err(Errno::BADF));
        }
        let fate = match op {
            Op::Close { file } => return self.close(token, file),
            Op::Timeout { at } => Fate {
                due: at,
                rank: 0,
                fault: None,
            },
            _ => self.world.lock().fate(),
        };
        let (work, held, stream) = self.prepare(op, arena);
        if let Some(file) = file {
            self.begin(file, stream);
        }
        let flight = Flight {
            token,
            file: file.map(FileId::key),
            stream,
            held,
        };
        let Fate { due, rank, fault } = fate;
        self.entries.insert(Entry {
            flight,
            work,
            due,
            rank,
            fault,
        });
    }

    fn cancel(&mut self, token: u64) {
        let found = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.flight.token == token);
        self.cancelled.extend(found.map(|(key, _)| key));
    }

    fn enter(&mut self, arena: &mut Arena, wait: Wait, out: &mut Vec<Completion>) -> Turn {
        assert_eq!(
            arena.identity(),
            self.arena,
            "a ring works with the arena it was opened with"
        );
        self.end_cancelled(arena);
        self.work_off(arena);
        let mut woken = self.sleeper.awake();
        if let Wait::Until(deadline) = wait {
            while self.local.is_empty() && !woken && self.world.now() < deadline {
                let next = self.next_due().unwrap_or(u64::MAX).min(deadline);
                if next == u64::MAX {
                    // Nothing will ever happen by itself; perhaps another ring moves.
                    break;
                }
                self.world.advance_to(next);
                self.work_off(arena);
                woken = self.sleeper.awake();
            }
        }
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
        self.world.now()
    }

    fn features(&self) -> &Features {
        &self.features
    }
}

impl Drop for FakeRing {
    fn drop(&mut self) {
        let mut world = self.world.lock();
        for (_, file) in self.files.iter() {
            if let Source::Virtual(object) = file.source {
                world.objects.close(object);
            }
        }
    }
}
