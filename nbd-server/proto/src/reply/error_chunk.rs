//! An error in a structured reply.

use super::chunk::{ChunkHeader, done_if};
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
    /// Longest chunk, bytes.
    pub const LEN_MAX: usize = ChunkHeader::LEN + 6 + STRING_MAX + 8;

    /// Writes the chunk to the start of `out` and gives its length. `text` gets the room that is
    /// left, so an error always fits where a header does.
    ///
    /// # Panics
    /// If `out` is shorter than 26 bytes, or 34 with an offset.
    pub fn encode_into(self, out: &mut [u8]) -> usize {
        let tail = self.offset.map_or(0, |_| 8);
        let fixed = ChunkHeader::LEN + 6 + tail;
        assert!(
            out.len() >= fixed,
            "{fixed} bytes of error do not fit {} bytes",
            out.len()
        );
        let text = clip(self.text, STRING_MAX.min(out.len() - fixed)).as_bytes();
        let end = 26 + text.len();
        let kind = if tail == 0 {
            ChunkKind::ERROR
        } else {
            ChunkKind::ERROR_OFFSET
        };
        let header = ChunkHeader {
            flags: done_if(self.done),
            kind,
            cookie: self.cookie,
            length: (end + tail - ChunkHeader::LEN) as u32,
        };
        out[..20].copy_from_slice(&header.encode());
        out[20..24].copy_from_slice(&self.error.to_wire().to_be_bytes());
        out[24..26].copy_from_slice(&(text.len() as u16).to_be_bytes());
        out[26..end].copy_from_slice(text);
        if let Some(offset) = self.offset {
            out[end..end + 8].copy_from_slice(&offset.to_be_bytes());
        }
        end + tail
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
        assert_eq!(chunk.encode_into(&mut out), ErrorChunk::LEN_MAX);
    }
}
