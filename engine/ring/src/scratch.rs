//! What an operation needs at a fixed address until its last completion, recycled between them.

use std::mem;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::op::{Addr, Errno, SEGMENTS_MAX, Seg};

/// Message header, vector and address of one operation. Boxed: the kernel holds its address.
pub(crate) struct Scratch {
    pub(crate) header: libc::msghdr,
    pub(crate) vector: Vec<libc::iovec>,
    pub(crate) segments: Vec<Seg>,
    pub(crate) address: libc::sockaddr_storage,
    pub(crate) address_len: libc::socklen_t,
    pub(crate) time: io_uring::types::Timespec,
}

impl Scratch {
    fn new() -> Box<Scratch> {
        // SAFETY: both are plain C structures for which all zero is a valid value.
        let (header, address) = unsafe { (mem::zeroed(), mem::zeroed()) };
        let (vector, segments) = (Vec::with_capacity(64), Vec::with_capacity(64));
        let time = io_uring::types::Timespec::new();
        Box::new(Scratch {
            header,
            vector,
            segments,
            address,
            address_len: 0,
            time,
        })
    }

    /// Points the header at the vector, whole.
    pub(crate) fn aim(&mut self) {
        assert!(
            (1..=SEGMENTS_MAX).contains(&self.vector.len()),
            "1 to {SEGMENTS_MAX} segments"
        );
        self.header.msg_iov = self.vector.as_mut_ptr();
        self.header.msg_iovlen = self.vector.len() as _;
    }

    /// Moves the header past `count` bytes that were sent; true when none are left.
    pub(crate) fn advance(&mut self, mut count: usize) -> bool {
        let mut next = self.vector.len() - self.header.msg_iovlen;
        while let Some(piece) = self.vector.get_mut(next) {
            if piece.iov_len > count {
                piece.iov_base = piece.iov_base.cast::<u8>().wrapping_add(count).cast();
                piece.iov_len -= count;
                break;
            }
            count -= piece.iov_len;
            next += 1;
        }
        self.header.msg_iov = self.vector[next..].as_mut_ptr();
        self.header.msg_iovlen = (self.vector.len() - next) as _;
        next == self.vector.len()
    }

    /// Stores a peer's address. Errors: a Unix path that is too long or holds a zero byte.
    pub(crate) fn set_address(&mut self, to: &Addr) -> Result<(), Errno> {
        self.address_len = match to {
            Addr::Ip(SocketAddr::V4(v4)) => self.place(libc::sockaddr_in {
                sin_family: libc::AF_INET as _,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            }),
            Addr::Ip(SocketAddr::V6(v6)) => self.place(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as _,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            }),
            Addr::Unix(path) => self.place(unix_address(path)?),
        };
        Ok(())
    }

    fn place<T: Copy>(&mut self, address: T) -> libc::socklen_t {
        const { assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>()) };
        // SAFETY: sockaddr_storage is made to hold any of the three address structures: it is
        // large enough (asserted) and aligned for all of them.
        unsafe { (&raw mut self.address).cast::<T>().write(address) };
        size_of::<T>() as libc::socklen_t
    }
}

fn unix_address(path: &Path) -> Result<libc::sockaddr_un, Errno> {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: a plain C structure for which all zero is a valid value.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::AF_UNIX as _;
    if bytes.len() >= address.sun_path.len() {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(Errno::INVAL);
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(address)
}

/// The ones not in use.
pub(crate) struct Scratches {
    // Boxed, because the kernel holds the address of one in use.
    #[allow(clippy::vec_box)]
    free: Vec<Box<Scratch>>,
}

impl Scratches {
    pub(crate) fn with_capacity(capacity: usize) -> Scratches {
        Scratches {
            free: Vec::with_capacity(capacity),
        }
    }

    pub(crate) fn take(&mut self) -> Box<Scratch> {
        self.free.pop().unwrap_or_else(Scratch::new)
    }

    /// Gives one back, empty, its storage kept.
    pub(crate) fn give(&mut self, mut scratch: Box<Scratch>) {
        scratch.vector.clear();
        scratch.segments.clear();
        self.free.push(scratch);
    }
}
