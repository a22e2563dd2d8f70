//! Data of a READ.

use super::chunk::{ChunkHeader, ExtendedChunkHeader, Framing};
use super::put;
use crate::codes::{ChunkKind, Cookie};

/// What goes before the data in an OFFSET_DATA chunk, server to client, 28 bytes, big-endian;
/// `length` bytes of data follow.
///
/// `0: chunk header with kind 1 and length 8 + data | 20: offset u64 | 28: data`
/// Source: NBD protocol, `NBD_REPLY_TYPE_OFFSET_DATA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetData {
    /// Of the request.
    pub cookie: Cookie,
    /// Where in the export the data begins.
    pub offset: u64,
    /// Bytes of data, 1 to `u32::MAX - 8`.
    pub length: u32,
    /// This is the last chunk; only if the data is at hand.
    pub done: bool,
}

impl OffsetData {
    /// Length in bytes, without the data.
    pub const LEN: usize = ChunkHeader::LEN + 8;
    /// Length in bytes in an extended header, without the data.
    pub const EXTENDED_LEN: usize = ExtendedChunkHeader::LEN + 8;

    /// Writes all but the data to the start of `out` and gives its length.
    ///
    /// # Panics
    /// If `out` is shorter than [`OffsetData::LEN`], or `length` is 0 or above `u32::MAX - 8`.
    #[inline]
    pub fn encode_into(self, out: &mut [u8]) -> usize {
        self.encode_in(Framing::Compact, out)
    }

    /// As [`OffsetData::encode_into`], in an extended header that echoes the `request`'s offset.
    ///
    /// # Panics
    /// If `out` is shorter than [`OffsetData::EXTENDED_LEN`], or `length` is 0 or above
    /// `u32::MAX - 8`.
    #[inline]
    pub fn encode_extended_into(self, request: u64, out: &mut [u8]) -> usize {
        self.encode_in(Framing::Extended(request), out)
    }

    #[inline]
    fn encode_in(self, framing: Framing, out: &mut [u8]) -> usize {
        assert!(self.length > 0, "a data chunk holds data");
        let length = self
            .length
            .checked_add(8)
            .expect("a payload has at most u32::MAX - 8 bytes");
        let at = framing.write(self.cookie, ChunkKind::OFFSET_DATA, self.done, length, out);
        at + put(self.offset.to_be_bytes(), &mut out[at..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_data_is_these_bytes() {
        let mut out = [0; 28];
        let chunk = OffsetData {
            cookie: Cookie(9),
            offset: 0x1000,
            length: 512,
            done: true,
        };
        assert_eq!(chunk.encode_into(&mut out), 28);
        assert_eq!(
            out,
            *b"\x66\x8e\x33\xef\x00\x01\x00\x01\0\0\0\0\0\0\0\x09\x00\x00\x02\x08\
               \0\0\0\0\0\0\x10\0"
        );
        OffsetData {
            done: false,
            ..chunk
        }
        .encode_into(&mut out);
        assert_eq!(out[4..8], [0, 0, 0, 1]);
    }

    #[test]
    fn extended_offset_data_is_these_bytes() {
        let mut out = [0; 40];
        let chunk = OffsetData {
            cookie: Cookie(9),
            offset: 0x1000,
            length: 512,
            done: true,
        };
        assert_eq!(chunk.encode_extended_into(0x800, &mut out), 40);
        assert_eq!(
            out,
            *b"\x6e\x8a\x27\x8c\x00\x01\x00\x01\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\x08\0\
               \0\0\0\0\0\0\x02\x08\0\0\0\0\0\0\x10\0"
        );
    }

    #[test]
    #[should_panic(expected = "a data chunk holds data")]
    fn an_empty_data_chunk_does_not_exist() {
        OffsetData {
            cookie: Cookie(9),
            offset: 0,
            length: 0,
            done: true,
        }
        .encode_into(&mut [0; 28]);
    }
}
