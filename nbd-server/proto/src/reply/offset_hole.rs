//! Zeroes of a READ.

use super::chunk::{ChunkHeader, ExtendedChunkHeader, Framing};
use super::put;
use crate::codes::{ChunkKind, Cookie};

/// OFFSET_HOLE chunk, server to client, 32 bytes, big-endian: this part of a READ is zeroes.
///
/// `0: chunk header with kind 2 and length 12 | 20: offset u64 | 28: length u32`
/// Source: NBD protocol, `NBD_REPLY_TYPE_OFFSET_HOLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetHole {
    /// Of the request.
    pub cookie: Cookie,
    /// Where in the export the zeroes begin.
    pub offset: u64,
    /// Bytes of zeroes, not 0.
    pub length: u32,
    /// This is the last chunk.
    pub done: bool,
}

impl OffsetHole {
    /// Length in bytes.
    pub const LEN: usize = ChunkHeader::LEN + 12;
    /// Length in bytes in an extended header.
    pub const EXTENDED_LEN: usize = ExtendedChunkHeader::LEN + 12;

    /// Writes the chunk to the start of `out` and gives its length.
    ///
    /// # Panics
    /// If `out` is shorter than [`OffsetHole::LEN`], or `length` is 0.
    #[inline]
    pub fn encode_into(self, out: &mut [u8]) -> usize {
        self.encode_in(Framing::Compact, out)
    }

    /// As [`OffsetHole::encode_into`], in an extended header that echoes the `request`'s offset.
    ///
    /// # Panics
    /// If `out` is shorter than [`OffsetHole::EXTENDED_LEN`], or `length` is 0.
    #[inline]
    pub fn encode_extended_into(self, request: u64, out: &mut [u8]) -> usize {
        self.encode_in(Framing::Extended(request), out)
    }

    #[inline]
    fn encode_in(self, framing: Framing, out: &mut [u8]) -> usize {
        assert!(self.length > 0, "a hole is not empty");
        let at = framing.write(self.cookie, ChunkKind::OFFSET_HOLE, self.done, 12, out);
        let mut body = [0; 12];
        body[..8].copy_from_slice(&self.offset.to_be_bytes());
        body[8..].copy_from_slice(&self.length.to_be_bytes());
        at + put(body, &mut out[at..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_hole_is_these_bytes() {
        let mut out = [0; 32];
        let chunk = OffsetHole {
            cookie: Cookie(9),
            offset: 0x1000,
            length: 512,
            done: false,
        };
        assert_eq!(chunk.encode_into(&mut out), 32);
        assert_eq!(
            out,
            *b"\x66\x8e\x33\xef\x00\x00\x00\x02\0\0\0\0\0\0\0\x09\x00\x00\x00\x0c\
               \0\0\0\0\0\0\x10\0\0\0\x02\0"
        );
    }

    #[test]
    fn extended_offset_hole_is_these_bytes() {
        let mut out = [0; 44];
        let chunk = OffsetHole {
            cookie: Cookie(9),
            offset: 0x1000,
            length: 512,
            done: false,
        };
        assert_eq!(chunk.encode_extended_into(0, &mut out), 44);
        assert_eq!(
            out,
            *b"\x6e\x8a\x27\x8c\x00\x00\x00\x02\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0\
               \0\0\0\0\0\0\0\x0c\0\0\0\0\0\0\x10\0\0\0\x02\0"
        );
    }
}
