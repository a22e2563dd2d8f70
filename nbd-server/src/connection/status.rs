//! BLOCK_STATUS: what the volume tells of its blocks, one chunk per context.
//!
//! ```text
//!  ask the lowest context left ─► extents_came ─► chunk into the request's buffer ─┐
//!        ▲                                                                         │
//!        └────────────────────────── another is left ◄─────────────────────────────┴─► answer
//! ```

use engine::front_end::{BlockExtent, ExtentKind};
use engine_core::units::{ByteRange, GRANULE};
use engine_ring::Errno;
use nbd_proto::{
    BlockStatusWriter, ContextSet, NbdError, ReplyStyle, STATUS_EXTENTS_MAX, StatusFlags,
};

use super::NbdConnection;
use super::ending::Life;
use super::host::Host;
use super::table::{Kind, Reply, Status};

/// Longest chunk in compact headers, bytes: 4093 extents. A client asks again for what is left.
const CHUNK_MAX: usize = 32 << 10;
/// The same in extended headers: 4093 extents of twice the size.
const EXTENDED_CHUNK_MAX: usize = 64 << 10;
/// Longest answer in all contexts together, bytes.
const ANSWER_MAX: usize = 256 << 10;

impl Status {
    /// Nothing of `wanted` is told yet.
    pub(super) fn new(one: bool, wanted: ContextSet) -> Status {
        Status {
            one,
            wanted,
            left: wanted,
            written: 0,
        }
    }
}

impl NbdConnection {
    /// Buffer for the answer about `length` bytes in these contexts.
    pub(super) fn status_bytes(&self, contexts: ContextSet, length: u64) -> usize {
        self.chunk_bytes(contexts, length) * contexts.count()
    }

    /// Room for the chunk of one context: the same for all of them.
    fn chunk_bytes(&self, contexts: ContextSet, length: u64) -> usize {
        let (fixed, extent, max) = match self.agreed.replies {
            ReplyStyle::Extended => (BlockStatusWriter::EXTENDED_LEN_MIN, 16, EXTENDED_CHUNK_MAX),
            _ => (BlockStatusWriter::LEN_MIN, 8, CHUNK_MAX),
        };
        let extents = usize::try_from(length / GRANULE + 2).unwrap_or(max);
        let wanted = extents.saturating_mul(extent).saturating_add(fixed);
        // The least is 4 KiB: there are 64 contexts at most.
        wanted
            .min(max)
            .min(ANSWER_MAX / contexts.count().max(1))
            .max(4096)
    }

    /// Asks the volume in the next context.
    pub(super) fn ask_next(&mut self, host: &mut impl Host, slot: u16) {
        let request = self.table.get(slot);
        let Kind::Status(status) = request.kind else {
            unreachable!("only a block status asks for extents");
        };
        let context = status.left.iter().next();
        let context = context.expect("a context is asked while one is left");
        let range = ByteRange {
            offset: request.offset,
            len: request.length,
        };
        host.query_extents(slot.into(), range, self.contexts[context].1.clone());
    }

    /// The volume answered a question of this connection.
    pub(super) fn extents_came(
        &mut self,
        host: &mut impl Host,
        slot: u16,
        result: Result<&[BlockExtent], Errno>,
    ) {
        if self.life == Life::Finished {
            return;
        }
        let Kind::Status(status) = self.table.get(slot).kind else {
            unreachable!("only a block status asks for extents");
        };
        let context = status.left.iter().next();
        let context = context.expect("a context was asked while one was left");
        let (id, kind) = &self.contexts[context];
        let extents = match (kind, result) {
            (_, Ok(extents)) => extents,
            // What cannot be told counts as data, which is always true.
            (ExtentKind::Allocation, Err(Errno::OPNOTSUPP | Errno::INVAL)) => &[],
            (ExtentKind::Mark(_), Err(Errno::NOENT)) => {
                let text = "the mark this context was of is gone";
                return self.answer(host, slot, Reply::Error(NbdError::Invalid, text));
            }
            (_, Err(_)) => {
                let text = "the state of the blocks could not be read";
                return self.answer(host, slot, Reply::Error(NbdError::Io, text));
            }
        };
        let id = *id;
        let left = ContextSet(status.left.0 & (status.left.0 - 1));
        let length = self.write_chunk(host, slot, id, left.count() == 0, extents);
        let written = status.written + length;
        self.table.get_mut(slot).kind = Kind::Status(Status {
            left,
            written,
            ..status
        });
        if left.count() == 0 {
            self.answer(host, slot, Reply::Chunks(written));
        } else if self.life == Life::Serving || self.life == Life::Leaving {
            self.ask_next(host, slot);
        }
    }

    /// Encodes a chunk behind those in the request's buffer, and gives its length.
    fn write_chunk(
        &self,
        host: &mut impl Host,
        slot: u16,
        context: u32,
        is_last: bool,
        extents: &[BlockExtent],
    ) -> u32 {
        let request = self.table.get(slot);
        let (Kind::Status(status), Some(buf)) = (request.kind, request.buf) else {
            unreachable!("a block status has a buffer from its header on");
        };
        let room = self.chunk_bytes(status.wanted, request.length) as u32;
        let out = host.arena().slice_mut(buf.slice(status.written, room));
        let (cookie, length, max) = (request.cookie, request.length, STATUS_EXTENTS_MAX);
        let mut writer = match self.agreed.replies {
            ReplyStyle::Extended => BlockStatusWriter::new_extended(
                cookie,
                request.origin,
                context,
                length,
                status.one,
                max,
                out,
            ),
            _ => BlockStatusWriter::new(cookie, context, length, status.one, max, out),
        };
        for extent in extents {
            if !writer.push(extent.len, StatusFlags(u64::from(extent.flags))) {
                break;
            }
        }
        if writer.total() == 0 {
            writer.push(length, StatusFlags::DATA);
        }
        let written = writer.finish(is_last);
        written.expect("an extent that is not empty was pushed") as u32
    }
}
