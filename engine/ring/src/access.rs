//! How the operations on a file reach its device, and whether this machine can do it so.

use std::fmt;

/// What [`crate::Ring::register_as`] is to do with a file's operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// By the file itself; interrupts tell of their ends.
    #[default]
    Plain,
    /// Through the page cache, which keeps nothing of it (`RWF_DONTCACHE`, Linux 6.14). Ask
    /// [`crate::sys::block::try_dontcache`] first: a file system may not have it.
    DontCache,
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
