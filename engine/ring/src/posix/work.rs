//! What the POSIX back end asks of the kernel: file work on workers, socket steps in the reactor.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::op::Errno;
use crate::pool::Plain;
use crate::scratch::Scratch;

/// One file operation for a worker. The flight keeps the descriptor open and the memory pinned.
pub(crate) enum FileWork {
    Read {
        fd: RawFd,
        at: u64,
        memory: Memory,
        /// `RWF_*`, as of the write.
        flags: i32,
    },
    Write {
        fd: RawFd,
        at: u64,
        memory: Memory,
        flags: i32,
    },
    DataSync {
        fd: RawFd,
    },
    Fallocate {
        fd: RawFd,
        mode: i32,
        at: u64,
        len: u64,
    },
    Close(OwnedFd),
}

/// Bytes of an arena buffer, pinned for the operation.
pub(crate) struct Memory {
    pub(crate) ptr: *mut u8,
    pub(crate) len: usize,
}

impl Memory {
    /// As the kernel takes it.
    fn piece(&self) -> libc::iovec {
        libc::iovec {
            iov_base: self.ptr.cast(),
            iov_len: self.len,
        }
    }
}

// SAFETY: the bytes lie in the arena's mapping, which the ring holds until its pool is gone. They
// are pinned: nobody reads them while a `Read` fills them, nobody changes them under a `Write`.
unsafe impl Send for Memory {}

impl Plain for FileWork {
    fn run(self) -> io::Result<u32> {
        let done = match self {
            FileWork::Read {
                fd,
                at,
                memory,
                flags,
            } => {
                let piece = memory.piece();
                retry(|| {
                    // SAFETY: one vector of writable memory pinned for us, see above.
                    unsafe { libc::preadv2(fd, &raw const piece, 1, at as i64, flags) as i64 }
                })
            }
            FileWork::Write {
                fd,
                at,
                memory,
                flags,
            } => write(fd, at, memory.piece(), flags),
            // SAFETY: no memory is involved.
            FileWork::DataSync { fd } => retry(|| i64::from(unsafe { libc::fdatasync(fd) })),
            FileWork::Fallocate { fd, mode, at, len } => retry(|| {
                // SAFETY: no memory is involved.
                i64::from(unsafe { libc::fallocate64(fd, mode, at as i64, len as i64) })
            }),
            FileWork::Close(fd) => {
                drop(fd);
                Ok(0)
            }
        };
        done.map_err(io::Error::from)
    }
}

/// With these flags, or a flush after the write where the kernel does not know RWF_DSYNC.
fn write(fd: RawFd, at: u64, piece: libc::iovec, flags: i32) -> Result<u32, Errno> {
    // SAFETY: one vector of readable memory pinned for us.
    let write = || unsafe { libc::pwritev2(fd, &raw const piece, 1, at as i64, flags) };
    match retry(|| write() as i64) {
        Err(Errno(libc::EOPNOTSUPP | libc::ENOSYS)) if flags & libc::RWF_DSYNC != 0 => {
            // SAFETY: as above.
            let write = || unsafe { libc::pwrite64(fd, piece.iov_base, piece.iov_len, at as i64) };
            let written = retry(|| write() as i64)?;
            // SAFETY: no memory is involved.
            retry(|| i64::from(unsafe { libc::fdatasync(fd) }))?;
            Ok(written)
        }
        done => done,
    }
}

/// Calls again after a signal; the count, or the error number.
pub(super) fn retry(mut call: impl FnMut() -> i64) -> Result<u32, Errno> {
    loop {
        if let Ok(count) = u32::try_from(call()) {
            return Ok(count);
        }
        match Errno::of(&io::Error::last_os_error()) {
            Errno(libc::EINTR) => {}
            errno => return Err(errno),
        }
    }
}

/// Receives without waiting. `EAGAIN`: nothing there.
///
/// # Safety
/// `ptr..ptr + len` is writable and nobody else touches it.
pub(super) unsafe fn recv(fd: RawFd, ptr: *mut u8, len: usize) -> Result<u32, Errno> {
    // SAFETY: passed on from the caller.
    retry(|| unsafe { libc::recv(fd, ptr.cast(), len, libc::MSG_DONTWAIT) as i64 })
}

/// Sends without waiting what the header names.
///
/// # Safety
/// The header's vector names readable memory.
pub(super) unsafe fn send(fd: RawFd, scratch: &Scratch) -> Result<u32, Errno> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: passed on from the caller.
    retry(|| unsafe { libc::sendmsg(fd, &raw const scratch.header, flags) as i64 })
}

pub(super) fn accept(fd: RawFd) -> Result<OwnedFd, Errno> {
    let (address, len) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: null asks for no address.
    let raw = retry(|| i64::from(unsafe { libc::accept4(fd, address, len, libc::SOCK_CLOEXEC) }))?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

/// Begins a connection: `EINPROGRESS` when it goes on by itself.
pub(super) fn connect(fd: RawFd, scratch: &Scratch) -> Result<u32, Errno> {
    let address = (&raw const scratch.address).cast();
    // SAFETY: the address and its length were written together by `set_address`.
    retry(|| i64::from(unsafe { libc::connect(fd, address, scratch.address_len) }))
}

/// Which of `events` are there now; 0 none.
pub(super) fn poll_now(fd: RawFd, events: i16) -> Result<u32, Errno> {
    let mut entry = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one live entry.
    retry(|| i64::from(unsafe { libc::poll(&raw mut entry, 1, 0) }))?;
    Ok(u32::from(entry.revents as u16))
}

/// How the connection begun on this socket ended.
pub(super) fn connect_result(fd: RawFd) -> Result<u32, Errno> {
    let mut error: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let value = (&raw mut error).cast();
    retry(|| {
        let len = &raw mut len;
        // SAFETY: the value and its length are live locals.
        i64::from(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, value, len) })
    })?;
    if error == 0 { Ok(0) } else { Err(Errno(error)) }
}

pub(super) fn shutdown(fd: RawFd, how: i32) -> Result<u32, Errno> {
    // SAFETY: no memory is involved.
    retry(|| i64::from(unsafe { libc::shutdown(fd, how) }))
}
