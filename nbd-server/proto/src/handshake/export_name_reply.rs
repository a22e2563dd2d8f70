//! The headerless answer to EXPORT_NAME.

use crate::bytes::{u16_at, u64_at};
use crate::codes::TransmissionFlags;

/// Answer to EXPORT_NAME, server to client, 10 bytes or 134, big-endian.
///
/// `0: size u64 | 8: transmission flags u16 | 10: 124 zero bytes unless NO_ZEROES`
/// Source: NBD protocol, `NBD_OPT_EXPORT_NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportNameReply {
    /// Size of the export, bytes.
    pub size: u64,
    /// What the export can do.
    pub flags: TransmissionFlags,
}

impl ExportNameReply {
    /// Zero bytes that follow unless NO_ZEROES was agreed.
    pub const PADDING: usize = 124;

    /// Length on the wire, bytes.
    pub const fn len(no_zeroes: bool) -> usize {
        if no_zeroes { 10 } else { 10 + Self::PADDING }
    }

    /// The answer at the start of `bytes`; `None` means "need more".
    pub fn parse(bytes: &[u8], no_zeroes: bool) -> Option<(ExportNameReply, usize)> {
        let length = Self::len(no_zeroes);
        let head = bytes.get(..length)?.first_chunk::<10>()?;
        let flags = TransmissionFlags(u16_at(head, 8));
        Some((
            ExportNameReply {
                size: u64_at(head, 0),
                flags,
            },
            length,
        ))
    }

    /// Appends the answer.
    pub fn encode(self, no_zeroes: bool, out: &mut Vec<u8>) {
        let end = out.len() + Self::len(no_zeroes);
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.flags.0.to_be_bytes());
        out.resize(end, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_name_reply_is_these_bytes() {
        let reply = ExportNameReply {
            size: 0x1000,
            flags: TransmissionFlags(0x0103),
        };
        let mut short = Vec::new();
        reply.encode(true, &mut short);
        assert_eq!(short, b"\x00\x00\x00\x00\x00\x00\x10\x00\x01\x03");
        let mut long = Vec::new();
        reply.encode(false, &mut long);
        assert_eq!(long[..10], short[..]);
        assert_eq!(long[10..], [0; 124]);
        for (bytes, no_zeroes) in [(&short, true), (&long, false)] {
            assert_eq!(
                ExportNameReply::parse(bytes, no_zeroes),
                Some((reply, bytes.len()))
            );
            for cut in 0..bytes.len() {
                assert_eq!(ExportNameReply::parse(&bytes[..cut], no_zeroes), None);
            }
        }
    }
}
