//! The descriptors a ring knows, and the regions lent to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};

use crate::access::Access;
use crate::mapping::Mapping;
use crate::op::{FileId, RegionId};
use crate::region::Region;
use crate::slab::{Key, Slab};

pub(crate) struct File {
    pub(crate) fd: OwnedFd,
    pub(crate) socket: bool,
    pub(crate) access: Access,
    /// Known to the kernel by its slot.
    pub(crate) fixed: bool,
    /// Status flags as they came, given back with the descriptor.
    flags: Option<OFlags>,
    /// Operations whose last completion has not come.
    pub(crate) in_flight: u32,
    pub(crate) receiving: bool,
    pub(crate) sending: bool,
    /// The token of the close that waits for the operations to end.
    pub(crate) closing: Option<u64>,
}

impl FileId {
    pub(crate) fn key(self) -> Key {
        Key {
            slot: self.slot,
            generation: self.generation,
        }
    }
}

/// Whether io_uring (blocking descriptors) or epoll (sockets that do not block) waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Blocking,
    NonblockingSockets,
}

pub(crate) struct Files {
    table: Slab<File>,
    mode: Mode,
}

/// The file an operation was begun on.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    Neither,
    Recv,
    Send,
}

impl Files {
    pub(crate) fn new(capacity: usize, mode: Mode) -> Files {
        Files {
            table: Slab::with_capacity(capacity),
            mode,
        }
    }

    pub(crate) fn register(&mut self, fd: OwnedFd, access: Access) -> FileId {
        let socket =
            fstat(&fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Socket);
        let found = fcntl_getfl(&fd).ok();
        let wanted = found.map(|flags| match self.mode {
            Mode::Blocking => flags - OFlags::NONBLOCK,
            Mode::NonblockingSockets if socket => flags | OFlags::NONBLOCK,
            Mode::NonblockingSockets => flags,
        });
        if let Some(wanted) = wanted.filter(|wanted| Some(*wanted) != found) {
            // Fails for no descriptor that is open; if it did, operations would report EAGAIN.
            let _ = fcntl_setfl(&fd, wanted);
        }
        let flags = found.filter(|found| Some(*found) != wanted);
        let file = File {
            fd,
            socket,
            access,
            fixed: false,
            flags,
            in_flight: 0,
            receiving: false,
            sending: false,
            closing: None,
        };
        let key = self.table.insert(file);
        FileId {
            slot: key.slot,
            generation: key.generation,
        }
    }

    /// The open file of this id: neither stale nor being closed.
    pub(crate) fn open(&self, id: FileId) -> Option<&File> {
        self.table
            .get(id.key())
            .filter(|file| file.closing.is_none())
    }

    /// What a read or write of this open file says (`RWF_*`); `durable` as [`Access::rw_flags`].
    pub(crate) fn rw_flags(&self, id: FileId, durable: bool) -> i32 {
        let file = self.open(id).expect("looked up by push");
        file.access.rw_flags(durable)
    }

    pub(crate) fn set_fixed(&mut self, id: FileId, fixed: bool) {
        self.table
            .get_mut(id.key())
            .expect("set right after registering")
            .fixed = fixed;
    }

    pub(crate) fn fd(&self, id: FileId) -> Option<BorrowedFd<'_>> {
        self.open(id).map(|file| file.fd.as_fd())
    }

    pub(crate) fn get(&self, key: Key) -> Option<&File> {
        self.table.get(key)
    }

    /// Takes an idle, open descriptor out, with the flags it came with.
    pub(crate) fn unregister(&mut self, id: FileId) -> Option<OwnedFd> {
        self.open(id).filter(|file| file.in_flight == 0)?;
        let file = self.table.remove(id.key())?;
        if let Some(flags) = file.flags {
            // As in `register`.
            let _ = fcntl_setfl(&file.fd, flags);
        }
        Some(file.fd)
    }

    /// Counts an operation. Panics when the stream already has one of its kind.
    pub(crate) fn begin(&mut self, id: FileId, stream: Stream) {
        let file = self
            .table
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

    /// Uncounts it; the key of the file when it was the last one and a close waits.
    pub(crate) fn end(&mut self, key: Key, stream: Stream) -> bool {
        let file = self
            .table
            .get_mut(key)
            .expect("a file stays while operations are in flight");
        file.in_flight -= 1;
        match stream {
            Stream::Neither => {}
            Stream::Recv => file.receiving = false,
            Stream::Send => file.sending = false,
        }
        file.in_flight == 0 && file.closing.is_some()
    }

    /// Marks for closing; true when no operation is in flight.
    pub(crate) fn close(&mut self, id: FileId, token: u64) -> bool {
        let file = self.table.get_mut(id.key()).expect("closed after a lookup");
        file.closing = Some(token);
        file.in_flight == 0
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<File> {
        self.table.remove(key)
    }
}

struct Loan {
    memory: Arc<Mapping>,
    len: u64,
    sends: u32,
    reclaimed: bool,
}

/// The memory volumes sends may read from.
pub(crate) struct Loans {
    table: Slab<Loan>,
}

impl Loans {
    pub(crate) fn new() -> Loans {
        Loans {
            table: Slab::with_capacity(16),
        }
    }

    pub(crate) fn lend(&mut self, region: &Region) -> RegionId {
        let memory = Arc::clone(region.memory());
        let key = self.table.insert(Loan {
            memory,
            len: region.len(),
            sends: 0,
            reclaimed: false,
        });
        RegionId {
            slot: key.slot,
            generation: key.generation,
        }
    }

    pub(crate) fn reclaim(&mut self, id: RegionId) {
        let key = Key {
            slot: id.slot,
            generation: id.generation,
        };
        if let Some(loan) = self.table.get_mut(key) {
            loan.reclaimed = true;
            if loan.sends == 0 {
                self.table.remove(key);
            }
        }
    }

    /// Counts a send and says where its bytes are. Panics for a stale id or a range past the end.
    pub(crate) fn begin(&mut self, id: RegionId, offset: u64, len: u32) -> *mut u8 {
        let loan = self.table.get_mut(Key {
            slot: id.slot,
            generation: id.generation,
        });
        let loan = loan.filter(|loan| !loan.reclaimed);
        let loan = loan.unwrap_or_else(|| panic!("{id:?} is not lent to this ring"));
        let end = offset.checked_add(u64::from(len));
        assert!(
            end.is_some_and(|end| end <= loan.len),
            "{len} bytes at {offset} pass the end"
        );
        loan.sends += 1;
        // SAFETY: the offset was checked against the region's length, which its mapping covers.
        unsafe { loan.memory.base().as_ptr().add(offset as usize) }
    }

    pub(crate) fn end(&mut self, id: RegionId) {
        let key = Key {
            slot: id.slot,
            generation: id.generation,
        };
        let loan = self
            .table
            .get_mut(key)
            .expect("a loan stays while sends read from it");
        loan.sends -= 1;
        if loan.sends == 0 && loan.reclaimed {
            self.table.remove(key);
        }
    }

    /// Keeps all lent memory mapped for ever: the kernel may still read it.
    pub(crate) fn leak(&self) {
        for (_, loan) in self.table.iter() {
            std::mem::forget(Arc::clone(&loan.memory));
        }
    }
}
