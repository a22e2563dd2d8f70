//! Replies of the transmission phase, encoded into buffers of the caller, one message per file.
//!
//! What goes where: after nothing was negotiated all replies are simple. After structured replies
//! everything is sent in chunks, the last one marked DONE. Read data never passes through here: the
//! caller sends the header this encodes and then the data from where it lies.

pub(crate) mod block_status;
pub(crate) mod chunk;
pub(crate) mod error_chunk;
pub(crate) mod offset_data;
pub(crate) mod offset_hole;
pub(crate) mod simple;

pub use block_status::{BlockStatusWriter, STATUS_EXTENTS_MAX, StatusExtent, StatusFlags};
pub use chunk::{ChunkHeader, NoneChunk};
pub use error_chunk::ErrorChunk;
pub use offset_data::OffsetData;
pub use offset_hole::OffsetHole;
pub use simple::SimpleReply;

use crate::NbdError;
use crate::codes::Cookie;

/// How replies look on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplyStyle {
    /// Simple replies: a number and the data.
    Simple,
    /// Structured replies: chunks.
    Structured,
}

impl ReplyStyle {
    /// Room that suffices for [`ReplyStyle::encode_ok`] and [`ReplyStyle::encode_read`].
    pub const HEADER_MAX: usize = OffsetData::LEN;

    /// Room that suffices for any [`ReplyStyle::encode_error`].
    pub const ERROR_MAX: usize = ErrorChunk::LEN_MAX;

    /// Writes the whole reply of a request that succeeded and returns nothing, and gives its
    /// length. Not for READ with data nor BLOCK_STATUS.
    ///
    /// # Panics
    /// If `out` is shorter than [`ReplyStyle::HEADER_MAX`].
    #[inline]
    pub fn encode_ok(self, cookie: Cookie, out: &mut [u8]) -> usize {
        match self {
            ReplyStyle::Simple => SimpleReply {
                result: Ok(()),
                cookie,
            }
            .encode_into(out),
            ReplyStyle::Structured => NoneChunk { cookie }.encode_into(out),
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
        match self {
            ReplyStyle::Simple => SimpleReply {
                result: Ok(()),
                cookie,
            }
            .encode_into(out),
            ReplyStyle::Structured => OffsetData {
                cookie,
                offset,
                length,
                done: true,
            }
            .encode_into(out),
        }
    }

    /// Writes the whole reply of a request that failed, and gives its length. `text` is for people;
    /// simple replies have no room for it, chunks take as much as fits `out`.
    ///
    /// # Panics
    /// If `out` is shorter than [`ReplyStyle::HEADER_MAX`].
    #[inline]
    pub fn encode_error(
        self,
        cookie: Cookie,
        error: NbdError,
        text: &str,
        out: &mut [u8],
    ) -> usize {
        match self {
            ReplyStyle::Simple => SimpleReply {
                result: Err(error),
                cookie,
            }
            .encode_into(out),
            ReplyStyle::Structured => ErrorChunk {
                cookie,
                error,
                text,
                offset: None,
                done: true,
            }
            .encode_into(out),
        }
    }
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

    #[test]
    fn simple_style_answers_in_sixteen_bytes() {
        let mut out = [0; ReplyStyle::HEADER_MAX];
        let style = ReplyStyle::Simple;
        assert_eq!(style.encode_ok(Cookie(7), &mut out), 16);
        assert_eq!(style.encode_read(Cookie(7), 0, 512, &mut out), 16);
        assert_eq!(
            style.encode_error(Cookie(7), NbdError::Io, "disk gone", &mut out),
            16
        );
        assert_eq!(out[..16], *b"\x67\x44\x66\x98\0\0\0\x05\0\0\0\0\0\0\0\x07");
    }

    #[test]
    fn structured_style_answers_in_chunks_that_are_done() {
        let mut out = [0; ReplyStyle::ERROR_MAX];
        let style = ReplyStyle::Structured;
        assert_eq!(style.encode_ok(Cookie(7), &mut out), 20);
        assert_eq!(style.encode_read(Cookie(7), 0, 512, &mut out), 28);
        assert_eq!(out[4..8], [0, 1, 0, 1]);
        assert_eq!(
            style.encode_error(Cookie(7), NbdError::Io, "disk gone", &mut out),
            26 + 9
        );
        assert_eq!(out[4..8], [0, 1, 0x80, 1]);
    }

    #[test]
    fn an_error_text_takes_only_the_room_there_is() {
        let mut out = [0; ReplyStyle::HEADER_MAX];
        let length =
            ReplyStyle::Structured.encode_error(Cookie(7), NbdError::Io, "disk gone", &mut out);
        assert_eq!(length, 28);
        assert_eq!(out[24..], [0, 2, b'd', b'i']);
    }

    #[test]
    #[should_panic(expected = "16 bytes of reply do not fit a buffer of 15 bytes")]
    fn a_reply_is_never_cut() {
        ReplyStyle::Simple.encode_ok(Cookie(7), &mut [0; 15]);
    }
}
