//! An error in a structured reply.

use super::chunk::{ExtendedChunkHeader, Framing};
use crate::NbdError;
use crate::bytes::{STRING_MAX, clip};
use crate::codes::{ChunkKind, Cookie};

/// ERROR chunk, or ERROR_OFFSET if `offset` is known, server to client, big-endian.
///
/// `0: chunk header with kind 0x8001 or 0x8002 | 20: error u32 | 24: text length u16 | 26: text |
/// 26 + n: offset u64, ERROR_OFFSET only`
/// Source: NBD protocol, `NBD_REPLY_TYPE_ERROR`, `NBD_REPLY_TYPE_ERROR_OFFSET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorChunk<'a> {
    /// Of the request.
    pub cookie: Cookie,
    /// The error.
    pub error: NbdError,
    /// Words for people; clipped to 4096 bytes and to the room there is.
    pub text: &'a str,
    /// Where in the export it went wrong, if known.
    pub offset: Option<u64>,
    /// This is the last chunk.
    pub done: bool,
}

impl ErrorChunk<'_> {
    /// Longest chunk, bytes, in either header.
    pub const LEN_MAX: usize = ExtendedChunkHeader::LEN + 6 + STRING_MAX + 8;

    /// Writes the chunk to the start of `out` and gives its length. `text` gets the room that is
    /// left, so an error always fits where a header does.
    ///
    /// # Panics
    /// If `out` is shorter than 26 bytes, or 34 with an offset.
    pub fn encode_into(self, out: &mut [u8]) -> usize {
        self.encode_in(Framing::Compact, out)
    }

    /// As [`ErrorChunk::encode_into`], in an extended header that echoes the `request`'s offset.
    ///
    /// # Panics
    /// If `out` is shorter than 38 bytes, or 46 with an offset.
    pub fn encode_extended_into(self, request: u64, out: &mut [u8]) -> usize {
        self.encode_in(Framing::Extended(request), out)
    }

    fn encode_in(self, framing: Framing, out: &mut [u8]) -> usize {
        let tail = self.offset.map_or(0, |_| 8);
        let fixed = framing.header() + 6 + tail;
        assert!(
            out.len() >= fixed,
            "{fixed} bytes of error do not fit {} bytes",
            out.len()
        );
        let text = clip(self.text, STRING_MAX.min(out.len() - fixed)).as_bytes();
        let kind = match self.offset {
            None => ChunkKind::ERROR,
            Some(_) => ChunkKind::ERROR_OFFSET,
        };
        let length = (6 + text.len() + tail) as u32;
        let at = framing.write(self.cookie, kind, self.done, length, out);
        let body = &mut out[at..];
        body[..4].copy_from_slice(&self.error.to_wire().to_be_bytes());
        body[4..6].copy_from_slice(&(text.len() as u16).to_be_bytes());
        body[6..6 + text.len()].copy_from_slice(text);
        if let Some(offset) = self.offset {
            body[6 + text.len()..][..8].copy_from_slice(&offset.to_be_bytes());
        }
        at + length as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: ErrorChunk<'static> = ErrorChunk {
        cookie: Cookie(9),
        error: NbdError::Io,
        text: "gone",
        offset: None,
        done: true,
    };

    #[test]
    fn error_chunk_is_these_bytes() {
        let mut out = [0; 64];
        let length = CHUNK.encode_into(&mut out);
        assert_eq!(
            out[..length],
            *b"\x66\x8e\x33\xef\x00\x01\x80\x01\0\0\0\0\0\0\0\x09\0\0\0\x0a\0\0\0\x05\0\x04gone"
        );
    }

    #[test]
    fn error_offset_chunk_is_these_bytes() {
        let mut out = [0; 64];
        let length = ErrorChunk {
            offset: Some(0x1000),
            done: false,
            ..CHUNK
        }
        .encode_into(&mut out);
        assert_eq!(
            out[..length],
            *b"\x66\x8e\x33\xef\x00\x00\x80\x02\0\0\0\0\0\0\0\x09\0\0\0\x12\0\0\0\x05\0\x04gone\
               \0\0\0\0\0\0\x10\0"
        );
    }

    #[test]
    fn text_beyond_4096_bytes_is_clipped() {
        let text = "x".repeat(9000);
        let mut out = vec![0; 9999];
        let chunk = ErrorChunk {
            text: &text,
            offset: Some(0),
            ..CHUNK
        };
        assert_eq!(chunk.encode_into(&mut out), ErrorChunk::LEN_MAX - 12);
        assert_eq!(chunk.encode_extended_into(7, &mut out), ErrorChunk::LEN_MAX);
    }

    #[test]
    fn extended_error_offset_chunk_is_these_bytes() {
        let mut out = [0; 64];
        let chunk = ErrorChunk {
            offset: Some(4096),
            done: false,
            ..CHUNK
        };
        assert_eq!(chunk.encode_extended_into(512, &mut out), 50);
        assert_eq!(
            out[..50],
            *b"\x6e\x8a\x27\x8c\0\0\x80\x02\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\x02\0\
               \0\0\0\0\0\0\0\x12\0\0\0\x05\0\x04gone\0\0\0\0\0\0\x10\0"
        );
    }
}
