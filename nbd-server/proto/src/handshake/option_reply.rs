//! The frame of an option reply.

use crate::WrongMagic;
use crate::bytes::{STRING_MAX, clip, u32_at, u64_at};
use crate::codes::{OptionCode, OptionReplyKind};

const MAGIC: u64 = 0x0003_e889_0455_65a9;

/// Header of an option reply, server to client, 20 bytes, big-endian; `length` bytes of data
/// follow.
///
/// `0: magic 0x0003_e889_0455_65a9 | 8: option u32 | 12: kind u32 | 16: length u32 | 20: data`
/// Source: NBD protocol, "Option haggling".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReplyHeader {
    /// The option this answers.
    pub option: OptionCode,
    /// What the data is.
    pub kind: OptionReplyKind,
    /// Length of the data, bytes.
    pub length: u32,
}

impl OptionReplyHeader {
    /// Length in bytes.
    pub const LEN: usize = 20;

    /// The header at the start of `bytes`; `Ok(None)` means "need more".
    /// Errors: `WrongMagic`.
    pub fn parse(bytes: &[u8]) -> Result<Option<(OptionReplyHeader, usize)>, WrongMagic> {
        let Some(head) = bytes.first_chunk::<{ Self::LEN }>() else {
            return Ok(None);
        };
        let found = u64_at(head, 0);
        if found != MAGIC {
            return Err(WrongMagic(found));
        }
        let header = OptionReplyHeader {
            option: OptionCode(u32_at(head, 8)),
            kind: OptionReplyKind(u32_at(head, 12)),
            length: u32_at(head, 16),
        };
        Ok(Some((header, Self::LEN)))
    }

    /// The bytes on the wire.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[0..8].copy_from_slice(&MAGIC.to_be_bytes());
        out[8..12].copy_from_slice(&self.option.0.to_be_bytes());
        out[12..16].copy_from_slice(&self.kind.0.to_be_bytes());
        out[16..20].copy_from_slice(&self.length.to_be_bytes());
        out
    }
}

/// A writer of option replies: header and data at once.
#[derive(Clone, Copy, Debug)]
pub struct OptionReply {
    /// The option that is being answered.
    pub option: OptionCode,
}

impl OptionReply {
    /// Appends the final, empty success.
    pub fn ack(self, out: &mut Vec<u8>) {
        self.with(OptionReplyKind::ACK, out, |_| {});
    }

    /// Appends an error with `text` for people, clipped to 4096 bytes.
    pub fn error(self, kind: OptionReplyKind, text: &str, out: &mut Vec<u8>) {
        debug_assert!(kind.is_error(), "{kind:?} is no error");
        self.with(kind, out, |out| {
            out.extend_from_slice(clip(text, STRING_MAX).as_bytes());
        });
    }

    /// Appends a reply whose data `fill` writes.
    pub fn with(self, kind: OptionReplyKind, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
        let at = out.len();
        let header = OptionReplyHeader {
            option: self.option,
            kind,
            length: 0,
        };
        out.extend_from_slice(&header.encode());
        let begin = out.len();
        fill(out);
        let length = u32::try_from(out.len() - begin).expect("replies hold a few strings");
        out[at + 16..at + 20].copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_reply_is_these_bytes() {
        let mut out = Vec::new();
        OptionReply {
            option: OptionCode::LIST,
        }
        .error(OptionReplyKind::ERR_POLICY, "no", &mut out);
        assert_eq!(
            out,
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x03\x80\x00\x00\x02\x00\x00\x00\x02no"
        );
        let header = OptionReplyHeader {
            option: OptionCode::LIST,
            kind: OptionReplyKind::ERR_POLICY,
            length: 2,
        };
        assert_eq!(OptionReplyHeader::parse(&out), Ok(Some((header, 20))));
        for cut in 0..20 {
            assert_eq!(OptionReplyHeader::parse(&out[..cut]), Ok(None));
        }
        assert!(matches!(
            OptionReplyHeader::parse(&[7; 20]),
            Err(WrongMagic(_))
        ));
    }

    #[test]
    fn an_error_text_is_clipped_to_4096_bytes() {
        let mut out = Vec::new();
        let text = "x".repeat(5000);
        OptionReply {
            option: OptionCode::GO,
        }
        .error(OptionReplyKind::ERR_POLICY, &text, &mut out);
        assert_eq!(out.len(), 20 + 4096);
    }
}
