//! Replies of the transmission phase, encoded into buffers of the caller, one message per file.
//!
//! What goes where: after nothing was negotiated all replies are simple. After structured replies
//! everything is sent in chunks, the last one marked DONE; after extended headers in chunks whose
//! headers have 64 bits. Read data never passes through here: the
//! caller sends the header this encodes and then the data from where it lies.

pub(crate) mod block_status;
pub(crate) mod chunk;
pub(crate) mod error_chunk;
pub(crate) mod offset_data;
pub(crate) mod offset_hole;
pub(crate) mod simple;

pub use block_status::{BlockStatusWriter, STATUS_EXTENTS_MAX, StatusExtent, StatusFlags};
pub use chunk::{ChunkHeader, ExtendedChunkHeader, NoneChunk};
pub use error_chunk::ErrorChunk;
pub use offset_data::OffsetData;
pub use offset_hole::OffsetHole;
pub use simple::SimpleReply;

use crate::codes::Cookie;

/// How replies look on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplyStyle {
    /// Simple replies: a number and the data.
    Simple,
    /// Structured replies: chunks.
    Structured,
    /// Chunks in extended headers, and requests too.
    Extended,
}

impl ReplyStyle {
    /// Room that suffices for [`ReplyStyle::encode_ok`], [`ReplyStyle::encode_read`],
    /// [`ReplyStyle::encode_part`] and [`ReplyStyle::encode_hole`].
    pub const HEADER_MAX: usize = OffsetHole::EXTENDED_LEN;

    /// Room that suffices for any [`ReplyStyle::encode_error`].
    pub const ERROR_MAX: usize = ErrorChunk::LEN_MAX;

    /// Replies come in chunks.
    #[inline]
    pub fn is_chunked(self) -> bool {
        self != ReplyStyle::Simple
    }

    /// Writes the whole reply of a request at `offset` that succeeded and returns nothing, or the
    /// end of one whose chunks were sent, and gives its length. Not for READ with data nor
    /// BLOCK_STATUS as a whole.
    ///
    /// # Panics
    /// If `out` is shorter than [`ReplyStyle::HEADER_MAX`].
    #[inline]
    pub fn encode_ok(self, cookie: Cookie, offset: u64, out: &mut [u8]) -> usize {
        match self {
            ReplyStyle::Simple => success(cookie, out),
            ReplyStyle::Structured => NoneChunk { cookie }.encode_into(out),
            ReplyStyle::Extended => NoneChunk { cookie }.encode_extended_into(offset, out),
        }
    }

    /// Writes what goes before the data of a READ that succeeded and is answered whole, and gives
    /// its length. `length` bytes of data, not 0, complete the reply: all of them must be at hand,
    /// as no error can be told any more.
    ///
    /// # Panics
    /// If `out` is shorter than [`ReplyStyle::HEADER_MAX`].
    #[inline]
    pub fn encode_read(self, cookie: Cookie, offset: u64, length: u32, out: &mut [u8]) -> usize {
        let chunk = OffsetData {
            cookie,
            offset,
            length,
            done: true,
        };
        match self {
            ReplyStyle::Simple => success(cookie, out),
            ReplyStyle::Structured => chunk.encode_into(out),
            ReplyStyle::Extended => chunk.encode_extended_into(offset, out),
        }
    }

    /// Writes what goes before the data of one part of a READ that began at `request`, and gives
    /// its length.
    ///
    /// # Panics
    /// If `out` is shorter than [`ReplyStyle::HEADER_MAX`], and for simple replies, which have no
    /// parts.
    #[inline]
    pub fn encode_part(self, part: OffsetData, request: u64, out: &mut [u8]) -> usize {
        match self {
            ReplyStyle::Simple => panic!("a simple reply has no parts"),
            ReplyStyle::Structured => part.encode_into(out),
            ReplyStyle::Extended => part.encode_extended_into(request, out),
        }
    }

    /// Writes zeroes of a READ that began at `request`, and gives the length written.
    ///
    /// # Panics
    /// If `out` is shorter than [`ReplyStyle::HEADER_MAX`], and for simple replies, which have no
    /// holes.
    #[inline]
    pub fn encode_hole(self, hole: OffsetHole, request: u64, out: &mut [u8]) -> usize {
        match self {
            ReplyStyle::Simple => panic!("a simple reply has no holes"),
            ReplyStyle::Structured => hole.encode_into(out),
            ReplyStyle::Extended => hole.encode_extended_into(request, out),
        }
    }

    /// Writes the error of a request that began at `request`, and gives the length written. `text`
    /// is for people; simple replies have no room for it, chunks take as much as fits `out`.
    ///
    /// # Panics
    /// If `out` is shorter than [`ReplyStyle::HEADER_MAX`] + 8.
    #[inline]
    pub fn encode_error(self, chunk: ErrorChunk<'_>, request: u64, out: &mut [u8]) -> usize {
        match self {
            ReplyStyle::Simple => SimpleReply {
                result: Err(chunk.error),
                cookie: chunk.cookie,
            }
            .encode_into(out),
            ReplyStyle::Structured => chunk.encode_into(out),
            ReplyStyle::Extended => chunk.encode_extended_into(request, out),
        }
    }
}

#[inline]
fn success(cookie: Cookie, out: &mut [u8]) -> usize {
    SimpleReply {
        result: Ok(()),
        cookie,
    }
    .encode_into(out)
}

/// Puts `bytes` at the start of `out` and gives their number.
#[inline]
fn put<const N: usize>(bytes: [u8; N], out: &mut [u8]) -> usize {
    match out.first_chunk_mut::<N>() {
        Some(room) => *room = bytes,
        None => panic!(
            "{N} bytes of reply do not fit a buffer of {} bytes",
            out.len()
        ),
    }
    N
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NbdError;

    const ERROR: ErrorChunk<'_> = ErrorChunk {
        cookie: Cookie(7),
        error: NbdError::Io,
        text: "disk gone",
        offset: None,
        done: true,
    };

    #[test]
    fn simple_style_answers_in_sixteen_bytes() {
        let mut out = [0; ReplyStyle::HEADER_MAX];
        let style = ReplyStyle::Simple;
        assert_eq!(style.encode_ok(Cookie(7), 0, &mut out), 16);
        assert_eq!(style.encode_read(Cookie(7), 0, 512, &mut out), 16);
        assert_eq!(style.encode_error(ERROR, 0, &mut out), 16);
        assert_eq!(out[..16], *b"\x67\x44\x66\x98\0\0\0\x05\0\0\0\0\0\0\0\x07");
    }

    #[test]
    fn structured_style_answers_in_chunks_that_are_done() {
        let mut out = [0; ReplyStyle::ERROR_MAX];
        let style = ReplyStyle::Structured;
        assert_eq!(style.encode_ok(Cookie(7), 0, &mut out), 20);
        assert_eq!(style.encode_read(Cookie(7), 0, 512, &mut out), 28);
        assert_eq!(out[4..8], [0, 1, 0, 1]);
        assert_eq!(style.encode_error(ERROR, 0, &mut out), 26 + 9);
        assert_eq!(out[4..8], [0, 1, 0x80, 1]);
    }

    #[test]
    fn extended_style_echoes_the_offset_of_the_request() {
        let mut out = [0; ReplyStyle::ERROR_MAX];
        let style = ReplyStyle::Extended;
        let echoed = |out: &[u8]| u64::from_be_bytes(out[16..24].try_into().unwrap());
        assert_eq!(style.encode_ok(Cookie(7), 3, &mut out), 32);
        assert_eq!(echoed(&out), 3);
        assert_eq!(style.encode_read(Cookie(7), 4, 512, &mut out), 40);
        assert_eq!(echoed(&out), 4);
        let part = OffsetData {
            cookie: Cookie(7),
            offset: 512,
            length: 512,
            done: false,
        };
        assert_eq!(style.encode_part(part, 5, &mut out), 40);
        assert_eq!((echoed(&out), out[5]), (5, 0));
        let hole = OffsetHole {
            cookie: Cookie(7),
            offset: 512,
            length: 512,
            done: true,
        };
        assert_eq!(style.encode_hole(hole, 6, &mut out), 44);
        assert_eq!((echoed(&out), out[5]), (6, 1));
        assert_eq!(style.encode_error(ERROR, 8, &mut out), 38 + 9);
        assert_eq!(echoed(&out), 8);
    }

    #[test]
    fn an_error_text_takes_only_the_room_there_is() {
        let mut out = [0; 28];
        let length = ReplyStyle::Structured.encode_error(ERROR, 0, &mut out);
        assert_eq!(length, 28);
        assert_eq!(out[24..], [0, 2, b'd', b'i']);
    }

    #[test]
    #[should_panic(expected = "16 bytes of reply do not fit a buffer of 15 bytes")]
    fn a_reply_is_never_cut() {
        ReplyStyle::Simple.encode_ok(Cookie(7), 0, &mut [0; 15]);
    }
}
