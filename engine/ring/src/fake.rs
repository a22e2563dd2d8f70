//! A deterministic ring for tests: virtual time, files and sockets in memory, planned faults.
//!
//! ```text
//!  World ─┬─ clock, random numbers (one seed), fault plan, operation count
//!         ├─ files {live, durable}   sockets ⇄ pipes   listeners by name
//!         └─ ring ◄─ adopt(object) ─ FileId        several rings may share a world
//! ```
//! An operation takes effect at the moment of its completion: by default at the next
//! [`Ring::enter`](crate::Ring::enter) in the order pushed; with a latency after that much virtual
//! time; shuffled, in an order that the seed decides. `enter` with a deadline moves the clock
//! to the next completion, or to the deadline when there is none before.
//!
//! A real descriptor given to `register` works for file operations (done on the spot); socket
//! operations want the sockets of a world.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::arena::Arena;
use crate::op::{Addr, Errno};

mod attempt;
mod objects;
mod ring;
#[cfg(test)]
mod tests;

use objects::Objects;
pub use ring::FakeRing;

/// What goes wrong with one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does nothing and fails.
    Fail(Errno),
    /// It does its work and yet fails.
    FailAfter(Errno),
    /// It transfers at most this many bytes.
    Short(u32),
    /// It takes this much longer, nanoseconds.
    Delay(u64),
    /// It never completes until it is cancelled, or its file closed.
    Hang,
}

/// A file, socket or listener of a [`World`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Object(u32);

/// Everything the rings of one test share. Cloning it gives another handle.
#[derive(Clone)]
pub struct World {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    now: u64,
    random: u64,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    latency: RangeInclusive<u64>,
    shuffle: bool,
    objects: Objects,
}

impl World {
    /// A world at time 1 s, without faults or latency. The same seed gives the same run.
    pub fn new(seed: u64) -> World {
        let inner = Inner {
            now: 1_000_000_000,
            // The generator's state must not be zero.
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            operations: 0,
            faults: BTreeMap::new(),
            latency: 0..=0,
            shuffle: false,
            objects: Objects::default(),
        };
        World {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// A ring in this world, over this arena.
    pub fn ring(&self, arena: &Arena) -> FakeRing {
        FakeRing::new(self.clone(), arena)
    }

    /// A file with these bytes, durable.
    pub fn file(&self, bytes: Vec<u8>) -> Object {
        self.lock().objects.add_file(bytes)
    }

    /// Two connected stream sockets.
    pub fn socket_pair(&self) -> (Object, Object) {
        self.lock().objects.add_pair()
    }

    /// A socket to be connected.
    pub fn socket(&self) -> Object {
        self.lock().objects.add_socket()
    }

    /// A socket that listens at an address, where [`crate::Op::Connect`] finds it.
    pub fn listener(&self, at: Addr) -> Object {
        self.lock().objects.add_listener(at)
    }

    /// The bytes of a file as a read would see them. Panics for other objects.
    pub fn contents(&self, file: Object) -> Vec<u8> {
        self.lock().objects.file(file).live.clone()
    }

    /// Cuts the power of a file: every 512-byte sector changed since it was last made durable
    /// survives or not, as the seed decides; a change of size is lost. Panics for other objects.
    pub fn crash(&self, file: Object) {
        let inner = &mut *self.lock();
        inner.objects.file(file).crash(&mut inner.random);
    }

    /// Plans a fault for the n-th operation of this world, counted from 1 over all its rings.
    /// Timeouts and closes are not counted.
    pub fn plan(&self, nth: u64, fault: Fault) {
        self.lock().faults.insert(nth, fault);
    }

    /// Operations pushed so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Every operation takes a time in this range, nanoseconds, as the seed decides.
    pub fn set_latency(&self, latency: RangeInclusive<u64>) {
        self.lock().latency = latency;
    }

    /// Operations due at the same moment complete in an order that the seed decides.
    pub fn set_shuffle(&self, shuffle: bool) {
        self.lock().shuffle = shuffle;
    }

    /// The virtual clock, nanoseconds.
    pub fn now(&self) -> u64 {
        self.lock().now
    }

    /// Moves the clock forward to `at`, never back.
    pub fn advance_to(&self, at: u64) {
        let mut inner = self.lock();
        inner.now = inner.now.max(at);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock is a failing test; others may go on looking.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        write!(
            f,
            "World(now {}, {} operations)",
            inner.now, inner.operations
        )
    }
}

/// What an operation is told when it is pushed.
struct Fate {
    due: u64,
    rank: u64,
    fault: Option<Fault>,
}

impl Inner {
    /// Counts an operation and decides when and how it ends.
    fn fate(&mut self) -> Fate {
        self.operations += 1;
        let fault = self.faults.remove(&self.operations);
        let (low, high) = (*self.latency.start(), *self.latency.end());
        let spread = high.saturating_sub(low);
        let latency = if spread == 0 {
            low
        } else {
            low + xorshift(&mut self.random) % (spread + 1)
        };
        let delay = match fault {
            Some(Fault::Delay(delay)) => delay,
            _ => 0,
        };
        let rank = if self.shuffle {
            xorshift(&mut self.random)
        } else {
            self.operations
        };
        Fate {
            due: self.now.saturating_add(latency).saturating_add(delay),
            rank,
            fault,
        }
    }
}

fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
