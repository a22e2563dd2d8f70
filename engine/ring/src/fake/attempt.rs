//! What a fake operation does when its time has come.

use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::objects::Tried;
use super::{Fault, Inner, Object};
use crate::access::Access;
use crate::flight::{Flight, Held};
use crate::op::{Addr, BlockingFn, Errno, FallocateMode, ShutdownHow};
use crate::pool::Plain;
use crate::posix::work::{FileWork, Memory};

/// Bytes of an arena buffer, pinned for the operation.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub(super) ptr: *mut u8,
    pub(super) len: usize,
}

/// What is left to do.
pub(super) enum Work {
    Read {
        to: Piece,
        at: u64,
    },
    Write {
        from: Piece,
        at: u64,
        durable: bool,
    },
    DataSync,
    Fallocate {
        mode: FallocateMode,
        at: u64,
        len: u64,
    },
    Recv {
        to: Piece,
        done: usize,
        all: bool,
    },
    Send,
    Accept {
        many: bool,
    },
    Connect(Addr),
    PollIn,
    Shutdown(ShutdownHow),
    Timeout,
    Blocking(Option<BlockingFn>),
    /// Waits for its file to become idle.
    Close,
}

pub(super) struct Entry {
    pub(super) flight: Flight,
    pub(super) work: Work,
    pub(super) due: u64,
    pub(super) rank: u64,
    pub(super) fault: Option<Fault>,
}

pub(super) enum Outcome {
    Count(u32),
    Connection(Object),
    /// Something moved, but it is not complete.
    Again,
}

pub(super) fn run_blocking(run: BlockingFn) -> Result<u32, Errno> {
    let done = catch_unwind(AssertUnwindSafe(run));
    done.map_or(Err(Errno::IO), |done| {
        done.map_err(|error| Errno::of(&error))
    })
}

pub(super) fn spoil(fault: Option<Fault>, result: Result<u32, Errno>) -> Result<u32, Errno> {
    match fault {
        Some(Fault::FailAfter(errno)) => Err(errno),
        _ => result,
    }
}

fn limit(fault: Option<Fault>, len: usize) -> usize {
    match fault {
        Some(Fault::Short(most)) => len.min(most as usize),
        _ => len,
    }
}

/// File work on a real descriptor, done here and now.
pub(super) fn real(fd: &OwnedFd, entry: &Entry) -> Result<Outcome, Errno> {
    let fd = fd.as_raw_fd();
    let memory = |piece: Piece| Memory {
        ptr: piece.ptr,
        len: limit(entry.fault, piece.len),
    };
    let work = match entry.work {
        Work::Read { to, at } => FileWork::Read {
            fd,
            at,
            memory: memory(to),
            flags: Access::Plain.rw_flags(false),
        },
        Work::Write { from, at, durable } => FileWork::Write {
            fd,
            at,
            memory: memory(from),
            flags: Access::Plain.rw_flags(durable),
        },
        Work::DataSync => FileWork::DataSync { fd },
        Work::Fallocate { mode, at, len } => FileWork::Fallocate {
            fd,
            mode: mode.flags(),
            at,
            len,
        },
        _ => return Err(Errno::OPNOTSUPP),
    };
    work.run()
        .map(Outcome::Count)
        .map_err(|error| Errno::of(&error))
}

pub(super) fn attempt_virtual(
    object: Object,
    entry: &mut Entry,
    world: &mut Inner,
) -> Tried<Outcome> {
    let objects = &mut world.objects;
    let (fault, len) = (entry.fault, |len| limit(entry.fault, len));
    let ended = match &mut entry.work {
        Work::Read { to, at } => objects.try_file(object).map(|file| {
            // SAFETY: pinned for this operation alone; see `Piece`.
            let into = unsafe { std::slice::from_raw_parts_mut(to.ptr, len(to.len)) };
            file.read(*at, into)
        }),
        Work::Write { from, at, durable } => objects.try_file(object).and_then(|file| {
            // SAFETY: pinned for this operation, nobody writes to it; see `Piece`.
            let bytes = unsafe { std::slice::from_raw_parts(from.ptr, len(from.len)) };
            file.write(*at, bytes, *durable)
        }),
        Work::DataSync => objects.try_file(object).map(|file| {
            file.sync();
            0
        }),
        Work::Fallocate { mode, at, len } => objects
            .try_file(object)
            .and_then(|file| file.fallocate(*mode, *at, *len)),
        Work::Recv { to, done, all } => {
            // SAFETY: pinned for this operation alone, `done <= len`; see `Piece`.
            let into = unsafe { std::slice::from_raw_parts_mut(to.ptr.add(*done), to.len - *done) };
            let most = limit(fault, into.len());
            match objects.receive(object, &mut into[..most]) {
                Tried::Later => return Tried::Later,
                Tried::Ended(Err(_)) if *done > 0 => Ok(*done as u32),
                Tried::Ended(Err(errno)) => Err(errno),
                Tried::Ended(Ok(count)) => {
                    *done += count as usize;
                    let short = matches!(fault, Some(Fault::Short(_)));
                    if *all && count > 0 && *done < to.len && !short {
                        return Tried::Ended(Ok(Outcome::Again));
                    }
                    Ok(*done as u32)
                }
            }
        }
        Work::Send => match objects.room(object) {
            Tried::Later => return Tried::Later,
            Tried::Ended(Err(errno)) => Err(errno),
            Tried::Ended(Ok(room)) => {
                let Held::Scratch(scratch) = &entry.flight.held else {
                    unreachable!("a send holds its vector")
                };
                let mut left = limit(fault, room);
                let mut sent = 0;
                for piece in &scratch.vector {
                    let count = piece.iov_len.min(left);
                    // SAFETY: every piece of the vector is pinned for this send.
                    let bytes =
                        unsafe { std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), count) };
                    objects.send(object, bytes);
                    left -= count;
                    sent += count as u32;
                }
                Ok(sent)
            }
        },
        Work::Accept { .. } => match objects.accept(object) {
            Tried::Later => return Tried::Later,
            Tried::Ended(accepted) => return Tried::Ended(accepted.map(Outcome::Connection)),
        },
        Work::Connect(to) => objects.connect(object, to),
        Work::PollIn if objects.readable(object) => Ok(libc::POLLIN as u32),
        Work::PollIn => return Tried::Later,
        Work::Shutdown(how) => objects.shutdown(object, *how),
        Work::Timeout | Work::Blocking(_) | Work::Close => Ok(0),
    };
    Tried::Ended(ended.map(Outcome::Count))
}
