//! One step of a socket operation, without waiting.

use std::os::fd::{OwnedFd, RawFd};

use super::{Entry, work};
use crate::flight::Held;
use crate::op::Errno;
use crate::scratch::Scratch;

/// What a waiting socket operation does next.
pub(super) enum Step {
    Recv {
        ptr: *mut u8,
        len: usize,
        done: usize,
        all: bool,
    },
    Send {
        done: u32,
    },
    Accept {
        many: bool,
    },
    Connect {
        begun: bool,
    },
    PollIn,
    /// With the pool or the timers, or waiting for its file to become idle.
    Outside,
}

/// One attempt's outcome.
pub(super) enum Attempt {
    /// Nothing to be had now; the next edge tells.
    Later,
    /// Something was done, try again.
    Again,
    Ended(Result<u32, Errno>, Option<OwnedFd>),
}

/// Tries one socket operation, without waiting.
pub(super) fn attempt(fd: RawFd, entry: &mut Entry) -> Attempt {
    let ended = match (&mut entry.step, &mut entry.flight.held) {
        (
            Step::Recv {
                ptr,
                len,
                done,
                all,
            },
            _,
        ) => return attempt_recv(fd, *ptr, *len, done, *all),
        (Step::Send { done }, Held::Scratch(scratch)) => {
            return attempt_send(fd, scratch, done);
        }
        (Step::Accept { .. }, _) => match work::accept(fd) {
            Ok(fd) => return Attempt::Ended(Ok(0), Some(fd)),
            // The peer went away between its connect and our accept.
            Err(Errno(libc::ECONNABORTED)) => return Attempt::Again,
            Err(errno) => Err(errno),
        },
        (Step::Connect { begun }, Held::Scratch(scratch)) => {
            if *begun {
                match work::poll_now(fd, libc::POLLOUT) {
                    Ok(0) => return Attempt::Later,
                    _ => work::connect_result(fd),
                }
            } else {
                *begun = true;
                match work::connect(fd, scratch) {
                    Err(Errno(libc::EINPROGRESS)) => return Attempt::Later,
                    // A Unix listener with a full backlog; no edge would ever tell.
                    Err(Errno(libc::EAGAIN)) => {
                        return Attempt::Ended(Err(Errno(libc::EAGAIN)), None);
                    }
                    done => done,
                }
            }
        }
        (Step::PollIn, _) => match work::poll_now(fd, libc::POLLIN) {
            Ok(0) => return Attempt::Later,
            done => done,
        },
        (Step::Send { .. } | Step::Connect { .. } | Step::Outside, _) => {
            unreachable!("never queued at a file without its scratch")
        }
    };
    match ended {
        Err(Errno(libc::EAGAIN)) => Attempt::Later,
        done => Attempt::Ended(done, None),
    }
}

/// What does not fit waits for room, like a send that io_uring carries on by itself.
fn attempt_send(fd: RawFd, scratch: &mut Scratch, done: &mut u32) -> Attempt {
    // SAFETY: the flight pins every piece the vector names.
    let sent = unsafe { work::send(fd, scratch) };
    match sent {
        Err(Errno(libc::EAGAIN)) => Attempt::Later,
        Err(_) if *done > 0 => Attempt::Ended(Ok(*done), None),
        Err(errno) => Attempt::Ended(Err(errno), None),
        Ok(count) => {
            *done += count;
            if scratch.advance(count as usize) {
                Attempt::Ended(Ok(*done), None)
            } else {
                Attempt::Again
            }
        }
    }
}

fn attempt_recv(fd: RawFd, ptr: *mut u8, len: usize, done: &mut usize, all: bool) -> Attempt {
    // SAFETY: `done <= len`, and the flight pins ptr..ptr + len for this receive alone.
    let received = unsafe { work::recv(fd, ptr.add(*done), len - *done) };
    match received {
        Err(Errno(libc::EAGAIN)) => Attempt::Later,
        Err(_) if *done > 0 => Attempt::Ended(Ok(*done as u32), None),
        Err(errno) => Attempt::Ended(Err(errno), None),
        Ok(count) => {
            *done += count as usize;
            if all && count > 0 && *done < len {
                Attempt::Again
            } else {
                Attempt::Ended(Ok(*done as u32), None)
            }
        }
    }
}
