//! The client's answer to the greeting.

use crate::bytes::u32_at;
use crate::codes::ClientFlags;

/// Client flags, client to server, 4 bytes, big-endian.
///
/// `0: flags u32`
/// Source: NBD protocol, "Newstyle negotiation".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAnswer {
    /// What the client takes up.
    pub flags: ClientFlags,
}

impl ClientAnswer {
    /// Length in bytes.
    pub const LEN: usize = 4;

    /// The answer at the start of `bytes`; `None` means "need more". Which flags are acceptable
    /// is the negotiation's matter.
    pub fn parse(bytes: &[u8]) -> Option<(ClientAnswer, usize)> {
        let head = bytes.first_chunk::<{ Self::LEN }>()?;
        Some((
            ClientAnswer {
                flags: ClientFlags(u32_at(head, 0)),
            },
            Self::LEN,
        ))
    }

    /// The bytes on the wire.
    pub fn encode(self) -> [u8; Self::LEN] {
        self.flags.0.to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_answer_is_these_bytes() {
        let answer = ClientAnswer {
            flags: ClientFlags::FIXED_NEWSTYLE,
        };
        assert_eq!(answer.encode(), [0, 0, 0, 1]);
        assert_eq!(ClientAnswer::parse(&answer.encode()), Some((answer, 4)));
        for cut in 0..4 {
            assert_eq!(ClientAnswer::parse(&answer.encode()[..cut]), None);
        }
    }
}
