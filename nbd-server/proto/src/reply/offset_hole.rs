//! Zeroes of a READ.

use super::chunk::{ChunkHeader, done_if};
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

    /// Writes the chunk to the start of `out` and gives its length.
    ///
    /// # Panics
    /// If `out` is shorter than [`OffsetHole::LEN`], or `length` is 0.
    #[inline]
    pub fn encode_into(self, out: &mut [u8]) -> usize {
        assert!(self.length > 0, "a hole is not empty");
        let header = ChunkHeader {
            flags: done_if(self.done),
            kind: ChunkKind::OFFSET_HOLE,
            cookie: self.cookie,
            length: 12,
        };
        let mut bytes = [0; Self::LEN];
        bytes[..20].copy_from_slice(&header.encode());
        bytes[20..28].copy_from_slice(&self.offset.to_be_bytes());
        bytes[28..].copy_from_slice(&self.length.to_be_bytes());
        put(bytes, out)
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
}
