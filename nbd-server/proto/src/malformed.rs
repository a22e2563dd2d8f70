//! What can be wrong with the shape of a message.

use crate::OptionReplyKind;

/// A received message breaks the protocol's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The data ends inside a field.
    #[error("the data ends inside a field")]
    Short,
    /// The data goes on after its last field.
    #[error("{0} bytes are left over")]
    Trailing(usize),
    /// A length field points past the end of the data.
    #[error("a length points past the end of the data")]
    Overrun,
    /// A string is longer than 4096 bytes.
    #[error("a string of {0} bytes is longer than 4096")]
    StringTooLong(usize),
    /// A string contains NUL.
    #[error("a string contains NUL")]
    Nul,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// A field holds a value that its message forbids.
    #[error("a field holds a forbidden value")]
    Forbidden,
}

impl Malformed {
    /// The option error this becomes. A name that is not UTF-8 names nothing we could have, so it
    /// is unknown, as qemu-nbd and nbd-server say; the rest is invalid.
    pub fn as_option_error(self) -> OptionReplyKind {
        match self {
            Malformed::NotUtf8 => OptionReplyKind::ERR_UNKNOWN,
            _ => OptionReplyKind::ERR_INVALID,
        }
    }
}

/// A message begins with something else than its magic: the stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wrong magic {0:#x}")]
pub struct WrongMagic(pub u64);
