//! The extended request header.

use super::Request;
use crate::WrongMagic;
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::codes::{CommandFlags, CommandKind, Cookie};

const MAGIC: u32 = 0x21e4_1c71;

/// Header of a request after extended headers were negotiated, client to server, 32 bytes,
/// big-endian; `length` bytes of payload follow if the flag PAYLOAD_LEN is set, and only then.
///
/// `0: magic 0x21e4_1c71 | 4: flags u16 | 6: kind u16 | 8: cookie u64 | 16: offset u64 |
/// 24: length u64`
/// Source: NBD protocol, "Extended request message".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedRequest {
    /// Flags as they came, also unknown ones.
    pub flags: CommandFlags,
    /// Command as it came, also an unknown one.
    pub kind: CommandKind,
    /// Echoed in every reply.
    pub cookie: Cookie,
    /// First byte concerned, echoed in every reply.
    pub offset: u64,
    /// Bytes of payload with PAYLOAD_LEN, else how many bytes are concerned: any number at all.
    pub length: u64,
}

impl ExtendedRequest {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// The header at the start of `bytes` and its length; `Ok(None)` means "need more". The
    /// payload is never looked at. Errors: `WrongMagic`, on which the connection must end.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<(ExtendedRequest, usize)>, WrongMagic> {
        match bytes.first_chunk::<{ Self::LEN }>() {
            None => Ok(None),
            Some(head) => Self::from_bytes(head).map(|request| Some((request, Self::LEN))),
        }
    }

    /// The header these bytes are. Errors: `WrongMagic`.
    #[inline]
    pub fn from_bytes(head: &[u8; Self::LEN]) -> Result<ExtendedRequest, WrongMagic> {
        let magic = u32_at(head, 0);
        if magic != MAGIC {
            return Err(WrongMagic(u64::from(magic)));
        }
        Ok(ExtendedRequest {
            flags: CommandFlags(u16_at(head, 4)),
            kind: CommandKind(u16_at(head, 6)),
            cookie: Cookie(u64_at(head, 8)),
            offset: u64_at(head, 16),
            length: u64_at(head, 24),
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
        out[24..32].copy_from_slice(&self.length.to_be_bytes());
        out
    }

    /// Bytes of payload that follow this header, also if the request is refused.
    #[inline]
    pub fn payload(&self) -> u64 {
        if self.flags.contains(CommandFlags::PAYLOAD_LEN) {
            self.length
        } else {
            0
        }
    }
}

/// The same request, as it would be asked in an extended header without payload.
impl From<Request> for ExtendedRequest {
    #[inline]
    fn from(request: Request) -> ExtendedRequest {
        ExtendedRequest {
            flags: request.flags,
            kind: request.kind,
            cookie: request.cookie,
            offset: request.offset,
            length: u64::from(request.length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: [u8; 32] = *b"\x21\xe4\x1c\x71\x00\x20\x00\x01\x01\x02\x03\x04\x05\x06\x07\x08\
        \x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00";

    #[test]
    fn extended_request_is_these_bytes() {
        let request = ExtendedRequest {
            flags: CommandFlags::PAYLOAD_LEN,
            kind: CommandKind::WRITE,
            cookie: Cookie(0x0102_0304_0506_0708),
            offset: 1 << 32,
            length: 4096,
        };
        assert_eq!(request.encode(), GOLDEN);
        assert_eq!(ExtendedRequest::parse(&GOLDEN), Ok(Some((request, 32))));
        assert_eq!(request.payload(), 4096);
        for cut in 0..32 {
            assert_eq!(
                ExtendedRequest::parse(&GOLDEN[..cut]),
                Ok(None),
                "{cut} bytes"
            );
        }
    }

    #[test]
    fn reserved_and_foreign_magics_are_refused() {
        for magic in [0x1256_0953u32, 0x9674_4668, 0x2560_9514, 0x2560_9513, 0] {
            let mut bytes = GOLDEN;
            bytes[..4].copy_from_slice(&magic.to_be_bytes());
            assert_eq!(
                ExtendedRequest::parse(&bytes),
                Err(WrongMagic(u64::from(magic)))
            );
        }
    }

    #[test]
    fn only_the_flag_makes_a_length_that_of_a_payload() {
        for kind in 0..9 {
            for flags in [0, 0x20, 0xffdf, 0xffff] {
                let request = ExtendedRequest {
                    flags: CommandFlags(flags),
                    kind: CommandKind(kind),
                    cookie: Cookie(0),
                    offset: 0,
                    length: u64::MAX,
                };
                let expected = if flags & 0x20 == 0 { 0 } else { u64::MAX };
                assert_eq!(request.payload(), expected);
            }
        }
    }
}
