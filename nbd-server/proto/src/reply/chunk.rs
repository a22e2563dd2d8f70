//! The header of structured replies, and the chunk that is nothing else.

use super::put;
use crate::WrongMagic;
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::codes::{ChunkFlags, ChunkKind, Cookie};

pub(crate) const MAGIC: u32 = 0x668e_33ef;
pub(crate) const EXTENDED_MAGIC: u32 = 0x6e8a_278c;

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

/// Header of a chunk after extended headers were negotiated, server to client, 32 bytes,
/// big-endian; `length` bytes of payload follow.
///
/// `0: magic 0x6e8a_278c | 4: flags u16 | 6: kind u16 | 8: cookie u64 | 16: offset of the request
/// u64 | 24: length u64`
/// Source: NBD protocol, "Extended reply chunk message".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedChunkHeader {
    /// DONE on the last chunk of a reply.
    pub flags: ChunkFlags,
    /// What the payload is.
    pub kind: ChunkKind,
    /// Of the request.
    pub cookie: Cookie,
    /// Of the request.
    pub offset: u64,
    /// Length of the payload, bytes.
    pub length: u64,
}

impl ExtendedChunkHeader {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// The header at the start of `bytes`; `Ok(None)` means "need more". Errors: `WrongMagic`.
    pub fn parse(bytes: &[u8]) -> Result<Option<(ExtendedChunkHeader, usize)>, WrongMagic> {
        let Some(head) = bytes.first_chunk::<{ Self::LEN }>() else {
            return Ok(None);
        };
        let magic = u32_at(head, 0);
        if magic != EXTENDED_MAGIC {
            return Err(WrongMagic(u64::from(magic)));
        }
        let header = ExtendedChunkHeader {
            flags: ChunkFlags(u16_at(head, 4)),
            kind: ChunkKind(u16_at(head, 6)),
            cookie: Cookie(u64_at(head, 8)),
            offset: u64_at(head, 16),
            length: u64_at(head, 24),
        };
        Ok(Some((header, Self::LEN)))
    }

    /// The bytes on the wire.
    #[inline]
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[0..4].copy_from_slice(&EXTENDED_MAGIC.to_be_bytes());
        out[4..6].copy_from_slice(&self.flags.0.to_be_bytes());
        out[6..8].copy_from_slice(&self.kind.0.to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.0.to_be_bytes());
        out[16..24].copy_from_slice(&self.offset.to_be_bytes());
        out[24..32].copy_from_slice(&self.length.to_be_bytes());
        out
    }
}

/// In which headers a chunk is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Compact,
    /// The request's offset is echoed.
    Extended(u64),
}

impl Framing {
    /// Bytes of the header.
    #[inline]
    pub(super) const fn header(self) -> usize {
        match self {
            Framing::Compact => ChunkHeader::LEN,
            Framing::Extended(_) => ExtendedChunkHeader::LEN,
        }
    }

    /// Writes the header of a chunk with `length` bytes of payload to the start of `out`, and gives
    /// its length.
    #[inline]
    pub(super) fn write(
        self,
        cookie: Cookie,
        kind: ChunkKind,
        done: bool,
        length: u32,
        out: &mut [u8],
    ) -> usize {
        let flags = done_if(done);
        match self {
            Framing::Compact => put(
                ChunkHeader {
                    flags,
                    kind,
                    cookie,
                    length,
                }
                .encode(),
                out,
            ),
            Framing::Extended(offset) => put(
                ExtendedChunkHeader {
                    flags,
                    kind,
                    cookie,
                    offset,
                    length: u64::from(length),
                }
                .encode(),
                out,
            ),
        }
    }
}

/// The flags of a chunk that is the last or not.
#[inline]
fn done_if(done: bool) -> ChunkFlags {
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
        Framing::Compact.write(self.cookie, ChunkKind::NONE, true, 0, out)
    }

    /// As [`NoneChunk::encode_into`], in an extended header that echoes the `request`'s offset.
    ///
    /// # Panics
    /// If `out` is shorter than [`ExtendedChunkHeader::LEN`].
    #[inline]
    pub fn encode_extended_into(self, request: u64, out: &mut [u8]) -> usize {
        Framing::Extended(request).write(self.cookie, ChunkKind::NONE, true, 0, out)
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

    #[test]
    fn extended_none_chunk_is_these_bytes() {
        let cookie = Cookie(0x0102);
        let mut out = [0xff; 32];
        assert_eq!(
            NoneChunk { cookie }.encode_extended_into(1 << 40, &mut out),
            32
        );
        let golden = *b"\x6e\x8a\x27\x8c\x00\x01\x00\x00\0\0\0\0\0\0\x01\x02\
            \0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(out, golden);
        let header = ExtendedChunkHeader {
            flags: ChunkFlags::DONE,
            kind: ChunkKind::NONE,
            cookie,
            offset: 1 << 40,
            length: 0,
        };
        assert_eq!(ExtendedChunkHeader::parse(&out), Ok(Some((header, 32))));
        for cut in 0..32 {
            assert_eq!(ExtendedChunkHeader::parse(&out[..cut]), Ok(None));
        }
        let compact = [&b"\x66\x8e\x33\xef"[..], &[0; 28]].concat();
        assert_eq!(
            ExtendedChunkHeader::parse(&compact),
            Err(WrongMagic(0x668e_33ef))
        );
    }
}
