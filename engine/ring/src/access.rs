//! How the operations on a file reach its device, and whether this machine can do it so.

use std::fmt;
use std::os::fd::OwnedFd;

use crate::nvme::Namespace;

/// What [`crate::Ring::register_as`] is to do with a file's operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// By the file itself; interrupts tell of their ends.
    #[default]
    Plain,
    /// Through the page cache, which keeps nothing of it (`RWF_DONTCACHE`, Linux 6.14). Ask
    /// [`crate::sys::block::try_dontcache`] first: a file system may not have it.
    DontCache,
    /// Past the page cache, and looked after in a loop instead of by interrupts
    /// (`IORING_SETUP_IOPOLL`): a ring with such operations in flight does not sleep. Durable
    /// writes and flushes go the plain way.
    Polled,
    /// NVMe commands to a generic character device (`/dev/ngXnY`), past the block layer. Reads and
    /// writes may be short; offsets and lengths are whole logical blocks.
    Nvme {
        /// What the device leads to.
        namespace: Namespace,
        /// As [`Access::Polled`], flushes and zeroing included.
        polled: bool,
    },
}

impl Access {
    /// What a read or write says to be carried so (`RWF_*`); `durable`: a write that completes on
    /// stable storage.
    pub(crate) fn rw_flags(self, durable: bool) -> i32 {
        let way = match self {
            Access::DontCache => libc::RWF_DONTCACHE,
            Access::Plain | Access::Polled | Access::Nvme { .. } => 0,
        };
        way | if durable { libc::RWF_DSYNC } else { 0 }
    }
}

/// Reads the first 4096 bytes of `fd` as `access` would, and waits for them. Errors: why it cannot
/// be used so on this machine.
pub fn probe(fd: &OwnedFd, access: Access) -> Result<(), Refused> {
    if std::env::var_os("POLLUX_IO").is_some_and(|value| value == "posix") {
        let why = "POLLUX_IO asks for the POSIX back end, which has no such thing".to_owned();
        return Err(Refused { why });
    }
    crate::uring::probe(fd, access)
}

/// A file cannot be used as asked; the descriptor is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In plain words.
    pub why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Refused {}
