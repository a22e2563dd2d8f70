//! The header of structured replies, and the chunk that is nothing else.

use super::put;
use crate::WrongMagic;
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::codes::{ChunkFlags, ChunkKind, Cookie};

pub(crate) const MAGIC: u32 = 0x668e_33ef;

/// Header of a structured reply chunk, server to client, 20 bytes, big-endian; `length` bytes of
/// payload follow.
///
/// `0: magic 0x668e_33ef | 4: flags u16 | 6: kind u16 | 8: cookie u64 | 16: length u32`
/// Source: NBD protocol, "Structured reply chunk message".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// DONE on the last chunk of a reply.
    pub flags: ChunkFlags,
    /// What the payload is.
    pub kind: ChunkKind,
    /// Of the request.
    pub cookie: Cookie,
    /// Length of the payload, bytes.
    pub length: u32,
}

impl ChunkHeader {
    /// Length in bytes.
    pub const LEN: usize = 20;

    /// The header at the start of `bytes`; `Ok(None)` means "need more". Errors: `WrongMagic`.
    pub fn parse(bytes: &[u8]) -> Result<Option<(ChunkHeader, usize)>, WrongMagic> {
        let Some(head) = bytes.first_chunk::<{ Self::LEN }>() else {
            return Ok(None);
        };
        let magic = u32_at(head, 0);
        if magic != MAGIC {
            return Err(WrongMagic(u64::from(magic)));
        }
        let header = ChunkHeader {
            flags: ChunkFlags(u16_at(head, 4)),
            kind: ChunkKind(u16_at(head, 6)),
            cookie: Cookie(u64_at(head, 8)),
            length: u32_at(head, 16),
        };
        Ok(Some((header, Self::LEN)))
    }

    /// The bytes on the wire.
    #[inline]
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[0..4].copy_from_slice(&MAGIC.to_be_bytes());
        out[4..6].copy_from_slice(&self.flags.0.to_be_bytes());
        out[6..8].copy_from_slice(&self.kind.0.to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.0.to_be_bytes());
        out[16..20].copy_from_slice(&self.length.to_be_bytes());
        out
    }
}

/// The flags of a chunk that is the last or not.
#[inline]
pub(super) fn done_if(done: bool) -> ChunkFlags {
    ChunkFlags::NONE.with_if(ChunkFlags::DONE, done)
}

/// NONE chunk, 20 bytes: the end of a reply, and alone a success without data. Always DONE.
///
/// `0: chunk header with kind 0 and length 0`
/// Source: NBD protocol, `NBD_REPLY_TYPE_NONE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoneChunk {
    /// Of the request.
    pub cookie: Cookie,
}

impl NoneChunk {
    /// Length in bytes.
    pub const LEN: usize = ChunkHeader::LEN;

    /// Writes the chunk to the start of `out` and gives its length.
    ///
    /// # Panics
    /// If `out` is shorter than [`NoneChunk::LEN`].
    #[inline]
    pub fn encode_into(self, out: &mut [u8]) -> usize {
        let header = ChunkHeader {
            flags: ChunkFlags::DONE,
            kind: ChunkKind::NONE,
            cookie: self.cookie,
            length: 0,
        };
        put(header.encode(), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_chunk_is_these_bytes() {
        let mut out = [0xff; 20];
        assert_eq!(
            NoneChunk {
                cookie: Cookie(0x0102)
            }
            .encode_into(&mut out),
            20
        );
        assert_eq!(
            out,
            *b"\x66\x8e\x33\xef\x00\x01\x00\x00\0\0\0\0\0\0\x01\x02\0\0\0\0"
        );
        let header = ChunkHeader {
            flags: ChunkFlags::DONE,
            kind: ChunkKind::NONE,
            cookie: Cookie(0x0102),
            length: 0,
        };
        assert_eq!(ChunkHeader::parse(&out), Ok(Some((header, 20))));
        for cut in 0..20 {
            assert_eq!(ChunkHeader::parse(&out[..cut]), Ok(None));
        }
        assert_eq!(ChunkHeader::parse(&[9; 20]), Err(WrongMagic(0x0909_0909)));
    }
}
