//! The compact request header.

use crate::WrongMagic;
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::codes::{CommandFlags, CommandKind, Cookie};

const MAGIC: u32 = 0x2560_9513;

/// Header of a request, client to server, 28 bytes, big-endian; `length` bytes of payload follow a
/// WRITE, and only that.
///
/// `0: magic 0x2560_9513 | 4: flags u16 | 6: kind u16 | 8: cookie u64 | 16: offset u64 |
/// 24: length u32`
/// Source: NBD protocol, "Compact request message".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Flags as they came, also unknown ones.
    pub flags: CommandFlags,
    /// Command as it came, also an unknown one.
    pub kind: CommandKind,
    /// Echoed in every reply.
    pub cookie: Cookie,
    /// First byte concerned.
    pub offset: u64,
    /// How many bytes are concerned.
    pub length: u32,
}

impl Request {
    /// Length in bytes.
    pub const LEN: usize = 28;

    /// The header at the start of `bytes` and its length; `Ok(None)` means "need more". The
    /// payload is never looked at. Errors: `WrongMagic`, on which the connection must end.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, WrongMagic> {
        match bytes.first_chunk::<{ Self::LEN }>() {
            None => Ok(None),
            Some(head) => Self::from_bytes(head).map(|request| Some((request, Self::LEN))),
        }
    }

    /// The header these bytes are. Errors: `WrongMagic`.
    #[inline]
    pub fn from_bytes(head: &[u8; Self::LEN]) -> Result<Request, WrongMagic> {
        let magic = u32_at(head, 0);
        if magic != MAGIC {
            return Err(WrongMagic(u64::from(magic)));
        }
        Ok(Request {
            flags: CommandFlags(u16_at(head, 4)),
            kind: CommandKind(u16_at(head, 6)),
            cookie: Cookie(u64_at(head, 8)),
            offset: u64_at(head, 16),
            length: u32_at(head, 24),
        })
    }

    /// The bytes on the wire.
    #[inline]
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[0..4].copy_from_slice(&MAGIC.to_be_bytes());
        out[4..6].copy_from_slice(&self.flags.0.to_be_bytes());
        out[6..8].copy_from_slice(&self.kind.0.to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.0.to_be_bytes());
        out[16..24].copy_from_slice(&self.offset.to_be_bytes());
        out[24..28].copy_from_slice(&self.length.to_be_bytes());
        out
    }

    /// Bytes of payload that follow this header, also if the request is refused: the length of a
    /// WRITE.
    #[inline]
    pub fn payload(&self) -> u32 {
        if self.kind.0 == CommandKind::WRITE.0 {
            self.length
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: [u8; 28] = *b"\x25\x60\x95\x13\x00\x01\x00\x01\x01\x02\x03\x04\x05\x06\x07\x08\
        \x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x10\x00";

    #[test]
    fn request_is_these_bytes() {
        let request = Request {
            flags: CommandFlags::FUA,
            kind: CommandKind::WRITE,
            cookie: Cookie(0x0102_0304_0506_0708),
            offset: 1 << 32,
            length: 4096,
        };
        assert_eq!(request.encode(), GOLDEN);
        assert_eq!(Request::parse(&GOLDEN), Ok(Some((request, 28))));
        assert_eq!(request.payload(), 4096);
        for cut in 0..28 {
            assert_eq!(Request::parse(&GOLDEN[..cut]), Ok(None), "{cut} bytes");
        }
    }

    #[test]
    fn reserved_and_foreign_magics_are_refused() {
        for magic in [0x1256_0953u32, 0x9674_4668, 0x2560_9514, 0x21e4_1c71, 0] {
            let mut bytes = GOLDEN;
            bytes[..4].copy_from_slice(&magic.to_be_bytes());
            assert_eq!(Request::parse(&bytes), Err(WrongMagic(u64::from(magic))));
        }
    }

    #[test]
    fn only_a_write_has_a_payload() {
        for kind in (0..9).filter(|kind| *kind != 1) {
            let mut bytes = GOLDEN;
            bytes[7] = kind;
            let (request, _) = Request::parse(&bytes).unwrap().unwrap();
            assert_eq!(request.payload(), 0, "{:?}", request.kind);
        }
    }
}
