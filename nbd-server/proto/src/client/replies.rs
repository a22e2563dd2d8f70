//! Replies of the transmission phase, found in a stream of bytes.

use crate::bytes::{Reader, STRING_MAX, u32_at, u64_at};
use crate::codes::{ChunkFlags, ChunkKind, Cookie};
use crate::reply::{chunk, simple};
use crate::{
    ChunkHeader, ExtendedChunkHeader, Malformed, NbdError, SimpleReply, StatusExtent, StatusFlags,
};

/// Longest chunk without data that is taken whole, bytes: block status of 2^20 extents.
const BODY_MAX: u64 = 4 + 8 * (1 << 20);
/// The same in extended headers.
const EXTENDED_BODY_MAX: u64 = 8 + 16 * (1 << 20);

/// A parser of replies. Data is not collected: the parser tells which bytes are data.
#[derive(Clone, Debug, Default)]
pub struct Replies {
    /// Bytes of data still to come.
    data: u32,
    /// A reply of which only this has arrived.
    stash: Vec<u8>,
    /// Offset in the extended header last parsed.
    echoed: Option<u64>,
    failed: Option<ReplyError>,
}

/// What lies at the start of the bytes given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedReply {
    /// How many of the bytes given belong to `reply`.
    pub consumed: usize,
    /// What they are.
    pub reply: Reply,
}

/// One step through the stream of replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A simple reply. If it answers a READ with success, say [`Replies::expect_data`] before the
    /// next call: only who sent the request knows the length.
    Simple {
        /// Of the request.
        cookie: Cookie,
        /// How it ended.
        result: Result<(), NbdError>,
    },
    /// Data of a READ: `length` bytes come next as [`Reply::Data`].
    OffsetData {
        /// Of the request.
        cookie: Cookie,
        /// Where in the export.
        offset: u64,
        /// How many bytes, not 0.
        length: u32,
        /// The reply ends with this chunk.
        done: bool,
    },
    /// Zeroes of a READ.
    OffsetHole {
        /// Of the request.
        cookie: Cookie,
        /// Where in the export.
        offset: u64,
        /// How many bytes, not 0.
        length: u32,
        /// The reply ends with this chunk.
        done: bool,
    },
    /// The end of a reply.
    None {
        /// Of the request.
        cookie: Cookie,
    },
    /// An error.
    Error {
        /// Of the request.
        cookie: Cookie,
        /// The error.
        error: NbdError,
        /// The server's words, may be empty.
        text: String,
        /// Where in the export, if told.
        offset: Option<u64>,
        /// The reply ends with this chunk.
        done: bool,
    },
    /// Extents of a meta context, in either width.
    BlockStatus {
        /// Of the request.
        cookie: Cookie,
        /// Id of the context.
        context: u32,
        /// At least one, none empty.
        extents: Vec<StatusExtent>,
        /// The reply ends with this chunk.
        done: bool,
    },
    /// The bytes consumed are data. There may be more to come, see [`Replies::data_left`].
    Data,
    /// All bytes are consumed; more are needed.
    More,
}

/// The stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A reply does not begin with a magic.
    #[error("a reply began with {0:#x}")]
    Magic(u32),
    /// A chunk of a kind that is not known.
    #[error("a chunk of unknown kind {0:?}")]
    UnknownChunk(ChunkKind),
    /// A chunk is wrong.
    #[error("a {kind:?} chunk is malformed")]
    Chunk {
        /// Which.
        kind: ChunkKind,
        /// What is wrong.
        #[source]
        cause: Malformed,
    },
    /// A chunk is longer than any its kind allows.
    #[error("a {kind:?} chunk of {length} bytes is too long")]
    TooLong {
        /// Which.
        kind: ChunkKind,
        /// Its length, bytes.
        length: u64,
    },
}

impl Replies {
    /// A parser at the start of the transmission phase.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next step: what lies at the start of `bytes`. Call it with the bytes after `consumed`
    /// until it answers [`Reply::More`]. Errors: [`ReplyError`], and the same on every later call.
    #[inline]
    pub fn next(&mut self, bytes: &[u8]) -> Result<ParsedReply, ReplyError> {
        if self.data == 0
            && self.stash.is_empty()
            && self.failed.is_none()
            && let Ok(Some((SimpleReply { result, cookie }, consumed))) = SimpleReply::parse(bytes)
        {
            return Ok(ParsedReply {
                consumed,
                reply: Reply::Simple { cookie, result },
            });
        }
        self.next_slowly(bytes)
    }

    /// Says that `length` bytes of data follow the simple reply just parsed.
    ///
    /// # Panics
    /// If data is still outstanding.
    #[inline]
    pub fn expect_data(&mut self, length: u32) {
        assert!(
            self.data == 0,
            "{} bytes of data are still outstanding",
            self.data
        );
        self.data = length;
    }

    /// Bytes of data still to come.
    #[inline]
    pub fn data_left(&self) -> u32 {
        self.data
    }

    /// Says that `count` bytes of the data still to come were received past this parser.
    ///
    /// # Panics
    /// If `count` is more than [`Replies::data_left`].
    #[inline]
    pub fn data_received(&mut self, count: u32) {
        assert!(
            count <= self.data,
            "{count} bytes received of {} bytes of data",
            self.data
        );
        self.data -= count;
    }

    /// Offset of the request, as the header of the reply last parsed echoed it; `None` if that was
    /// no extended header.
    pub fn echoed(&self) -> Option<u64> {
        self.echoed
    }

    fn next_slowly(&mut self, bytes: &[u8]) -> Result<ParsedReply, ReplyError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if bytes.is_empty() {
            return Ok(ParsedReply {
                consumed: 0,
                reply: Reply::More,
            });
        }
        if self.data > 0 {
            let count = u32::try_from(bytes.len()).map_or(self.data, |have| have.min(self.data));
            self.data -= count;
            return Ok(ParsedReply {
                consumed: count as usize,
                reply: Reply::Data,
            });
        }
        self.reply(bytes)
            .inspect_err(|error| self.failed = Some(*error))
    }

    /// A reply header or a whole chunk, perhaps begun in the stash.
    fn reply(&mut self, bytes: &[u8]) -> Result<ParsedReply, ReplyError> {
        let mut consumed = 0;
        let reply = loop {
            let begun = !self.stash.is_empty();
            let have = if begun { &self.stash[..] } else { bytes };
            let need = frame_length(have)?;
            if need <= have.len() {
                let reply = decode(&have[..need])?;
                let header = ExtendedChunkHeader::parse(have).ok().flatten();
                self.echoed = header.map(|(header, _)| header.offset);
                consumed = if begun { consumed } else { need };
                break reply;
            }
            let take = (need - self.stash.len()).min(bytes.len() - consumed);
            if take == 0 {
                return Ok(ParsedReply {
                    consumed,
                    reply: Reply::More,
                });
            }
            self.stash
                .extend_from_slice(&bytes[consumed..consumed + take]);
            consumed += take;
        };
        self.stash.clear();
        if let Reply::OffsetData { length, .. } = reply {
            self.data = length;
        }
        Ok(ParsedReply { consumed, reply })
    }
}

/// How long the reply that begins with `have` is, or as much of it as tells more. Data does not
/// count.
fn frame_length(have: &[u8]) -> Result<usize, ReplyError> {
    let Some(magic) = have.first_chunk::<4>() else {
        return Ok(4);
    };
    let header_length = match u32_at(magic, 0) {
        simple::MAGIC => return Ok(SimpleReply::LEN),
        chunk::MAGIC => ChunkHeader::LEN,
        chunk::EXTENDED_MAGIC => ExtendedChunkHeader::LEN,
        other => return Err(ReplyError::Magic(other)),
    };
    let Some(Head {
        kind, length, wide, ..
    }) = Head::parse(have)
    else {
        return Ok(header_length);
    };
    let max = match kind {
        ChunkKind::OFFSET_DATA if length < 9 => {
            return Err(ReplyError::Chunk {
                kind,
                cause: Malformed::Short,
            });
        }
        ChunkKind::OFFSET_DATA if length <= u64::from(u32::MAX) => return Ok(header_length + 8),
        ChunkKind::OFFSET_DATA | ChunkKind::NONE => 0,
        ChunkKind::OFFSET_HOLE => 12,
        ChunkKind::BLOCK_STATUS if !wide => BODY_MAX,
        ChunkKind::BLOCK_STATUS_EXT if wide => EXTENDED_BODY_MAX,
        kind if kind.is_error() => 6 + STRING_MAX as u64 + 8,
        kind => return Err(ReplyError::UnknownChunk(kind)),
    };
    if length > max {
        return Err(ReplyError::TooLong { kind, length });
    }
    Ok(header_length + length as usize)
}

/// The header of a chunk in either width.
#[derive(Clone, Copy)]
struct Head {
    flags: ChunkFlags,
    kind: ChunkKind,
    cookie: Cookie,
    length: u64,
    wide: bool,
}

impl Head {
    /// The header `bytes` begin with, if all of it is there.
    fn parse(bytes: &[u8]) -> Option<Head> {
        if let Ok(Some((header, _))) = ChunkHeader::parse(bytes) {
            return Some(Head {
                flags: header.flags,
                kind: header.kind,
                cookie: header.cookie,
                length: u64::from(header.length),
                wide: false,
            });
        }
        let (header, _) = ExtendedChunkHeader::parse(bytes).ok()??;
        Some(Head {
            flags: header.flags,
            kind: header.kind,
            cookie: header.cookie,
            length: header.length,
            wide: true,
        })
    }

    fn len(self) -> usize {
        match self.wide {
            true => ExtendedChunkHeader::LEN,
            false => ChunkHeader::LEN,
        }
    }
}

/// The reply that is exactly `frame`.
fn decode(frame: &[u8]) -> Result<Reply, ReplyError> {
    if let Ok(Some((SimpleReply { result, cookie }, _))) = SimpleReply::parse(frame) {
        return Ok(Reply::Simple { cookie, result });
    }
    let head = Head::parse(frame).ok_or(ReplyError::Magic(0))?;
    decode_chunk(head, &frame[head.len()..]).map_err(|cause| ReplyError::Chunk {
        kind: head.kind,
        cause,
    })
}

fn decode_chunk(head: Head, body: &[u8]) -> Result<Reply, Malformed> {
    let Head {
        flags,
        kind,
        cookie,
        length,
        ..
    } = head;
    let done = flags.contains(ChunkFlags::DONE);
    let mut reader = Reader::new(body);
    let reply = match kind {
        ChunkKind::NONE if done => Reply::None { cookie },
        ChunkKind::NONE => return Err(Malformed::Forbidden),
        ChunkKind::OFFSET_DATA => Reply::OffsetData {
            cookie,
            offset: reader.u64()?,
            // Not more than 32 bits, see `frame_length`.
            length: (length - 8) as u32,
            done,
        },
        ChunkKind::OFFSET_HOLE => {
            let (offset, length) = (reader.u64()?, reader.u32()?);
            if length == 0 {
                return Err(Malformed::Forbidden);
            }
            Reply::OffsetHole {
                cookie,
                offset,
                length,
                done,
            }
        }
        ChunkKind::BLOCK_STATUS => {
            let context = reader.u32()?;
            let extents = extents(reader.rest())?;
            Reply::BlockStatus {
                cookie,
                context,
                extents,
                done,
            }
        }
        ChunkKind::BLOCK_STATUS_EXT => {
            let (context, count) = (reader.u32()?, reader.u32()?);
            let extents = wide_extents(reader.rest())?;
            if extents.len() != count as usize {
                return Err(Malformed::Forbidden);
            }
            Reply::BlockStatus {
                cookie,
                context,
                extents,
                done,
            }
        }
        _ => {
            let error = NbdError::from_wire(reader.u32()?)
                .err()
                .ok_or(Malformed::Forbidden)?;
            let length = usize::from(reader.u16()?);
            let text = String::from_utf8_lossy(reader.take(length)?).into_owned();
            let offset = match kind {
                ChunkKind::ERROR => None,
                ChunkKind::ERROR_OFFSET => Some(reader.u64()?),
                // An error of a kind to come is still an error.
                _ => {
                    reader.rest();
                    None
                }
            };
            Reply::Error {
                cookie,
                error,
                text,
                offset,
                done,
            }
        }
    };
    reader.end()?;
    Ok(reply)
}

fn extents(body: &[u8]) -> Result<Vec<StatusExtent>, Malformed> {
    let (pairs, rest) = body.as_chunks::<8>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(Malformed::Short);
    }
    pairs
        .iter()
        .map(|pair| match u32_at(pair, 0) {
            0 => Err(Malformed::Forbidden),
            length => Ok(StatusExtent {
                length: u64::from(length),
                flags: StatusFlags(u64::from(u32_at(pair, 4))),
            }),
        })
        .collect()
}

fn wide_extents(body: &[u8]) -> Result<Vec<StatusExtent>, Malformed> {
    let (pairs, rest) = body.as_chunks::<16>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(Malformed::Short);
    }
    pairs
        .iter()
        .map(|pair| match u64_at(pair, 0) {
            0 => Err(Malformed::Forbidden),
            length => Ok(StatusExtent {
                length,
                flags: StatusFlags(u64_at(pair, 8)),
            }),
        })
        .collect()
}
