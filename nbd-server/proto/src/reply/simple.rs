//! The simple reply.

use super::put;
use crate::bytes::{u32_at, u64_at};
use crate::codes::Cookie;
use crate::{NbdError, WrongMagic};

pub(crate) const MAGIC: u32 = 0x6744_6698;

/// Simple reply, server to client, 16 bytes, big-endian. The data of a READ follows if `error` is
/// zero.
///
/// `0: magic 0x6744_6698 | 4: error u32 | 8: cookie of the request u64`
/// Source: NBD protocol, "Simple reply message".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimpleReply {
    /// How the request ended.
    pub result: Result<(), NbdError>,
    /// Of the request.
    pub cookie: Cookie,
}

impl SimpleReply {
    /// Length in bytes, without data.
    pub const LEN: usize = 16;

    /// The reply at the start of `bytes`; `Ok(None)` means "need more". Errors: `WrongMagic`.
    pub fn parse(bytes: &[u8]) -> Result<Option<(SimpleReply, usize)>, WrongMagic> {
        let Some(head) = bytes.first_chunk::<{ Self::LEN }>() else {
            return Ok(None);
        };
        let magic = u32_at(head, 0);
        if magic != MAGIC {
            return Err(WrongMagic(u64::from(magic)));
        }
        let result = NbdError::from_wire(u32_at(head, 4));
        Ok(Some((
            SimpleReply {
                result,
                cookie: Cookie(u64_at(head, 8)),
            },
            Self::LEN,
        )))
    }

    /// The bytes on the wire.
    #[inline]
    pub fn encode(self) -> [u8; Self::LEN] {
        let error = match self.result {
            Ok(()) => 0,
            Err(error) => error.to_wire(),
        };
        let mut out = [0; Self::LEN];
        out[0..4].copy_from_slice(&MAGIC.to_be_bytes());
        out[4..8].copy_from_slice(&error.to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.0.to_be_bytes());
        out
    }

    /// Writes the reply to the start of `out` and gives its length.
    ///
    /// # Panics
    /// If `out` is shorter than [`SimpleReply::LEN`].
    #[inline]
    pub fn encode_into(self, out: &mut [u8]) -> usize {
        put(self.encode(), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_reply_is_these_bytes() {
        let reply = SimpleReply {
            result: Err(NbdError::Io),
            cookie: Cookie(0x0102_0304_0506_0708),
        };
        let bytes = reply.encode();
        assert_eq!(
            bytes,
            *b"\x67\x44\x66\x98\x00\x00\x00\x05\x01\x02\x03\x04\x05\x06\x07\x08"
        );
        assert_eq!(SimpleReply::parse(&bytes), Ok(Some((reply, 16))));
        for cut in 0..16 {
            assert_eq!(SimpleReply::parse(&bytes[..cut]), Ok(None));
        }
        assert_eq!(SimpleReply::parse(&[9; 16]), Err(WrongMagic(0x0909_0909)));
    }
}
