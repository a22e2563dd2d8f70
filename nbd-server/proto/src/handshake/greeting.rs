//! The server's first words.

use crate::WrongMagic;
use crate::bytes::{u16_at, u64_at};
use crate::codes::HandshakeFlags;

/// "NBDMAGIC".
const MAGIC: u64 = 0x4e42_444d_4147_4943;
/// "IHAVEOPT": newstyle. The dead oldstyle has `0x0000_4202_8186_1253` here.
const NEWSTYLE: u64 = 0x4948_4156_454f_5054;

/// Opening of the fixed newstyle handshake, server to client, 18 bytes, big-endian.
///
/// `0: "NBDMAGIC" | 8: "IHAVEOPT" | 16: handshake flags u16`
/// Source: NBD protocol, "Newstyle negotiation".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// What the server offers.
    pub flags: HandshakeFlags,
}

impl Greeting {
    /// Length in bytes.
    pub const LEN: usize = 18;

    /// The greeting at the start of `bytes`; `Ok(None)` means "need more".
    /// Errors: `WrongMagic` if this is no NBD server, or one that speaks oldstyle.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Greeting, usize)>, WrongMagic> {
        let Some(head) = bytes.first_chunk::<{ Self::LEN }>() else {
            return Ok(None);
        };
        for (at, magic) in [(0, MAGIC), (8, NEWSTYLE)] {
            let found = u64_at(head, at);
            if found != magic {
                return Err(WrongMagic(found));
            }
        }
        Ok(Some((
            Greeting {
                flags: HandshakeFlags(u16_at(head, 16)),
            },
            Self::LEN,
        )))
    }

    /// The bytes on the wire.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[0..8].copy_from_slice(&MAGIC.to_be_bytes());
        out[8..16].copy_from_slice(&NEWSTYLE.to_be_bytes());
        out[16..18].copy_from_slice(&self.flags.0.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greeting_is_these_bytes() {
        let flags = HandshakeFlags::FIXED_NEWSTYLE.with(HandshakeFlags::NO_ZEROES);
        let bytes = Greeting { flags }.encode();
        assert_eq!(bytes, *b"NBDMAGICIHAVEOPT\x00\x03");
        assert_eq!(Greeting::parse(&bytes), Ok(Some((Greeting { flags }, 18))));
        for cut in 0..18 {
            assert_eq!(Greeting::parse(&bytes[..cut]), Ok(None), "{cut} bytes");
        }
    }

    #[test]
    fn an_oldstyle_server_is_refused() {
        let mut bytes = *b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\x00\x00";
        assert_eq!(
            Greeting::parse(&bytes),
            Err(WrongMagic(0x0000_4202_8186_1253))
        );
        bytes[0] = b'X';
        assert!(matches!(Greeting::parse(&bytes), Err(WrongMagic(_))));
    }
}
