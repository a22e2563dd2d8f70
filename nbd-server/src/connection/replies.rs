//! Replies on their way out: one vectored send at a time.
//!
//! ```text
//!  answered requests, in order of completion ─► queue
//!      flush: front of the queue ─► headers, encoded into one buffer ─┐
//!                                   data, where it lies ──────────────┴─► segments ─► send
//!      sent: short → the rest again ; whole → the batch's requests are over
//! ```

use std::collections::VecDeque;

use engine_ring::{BufId, Class, SEGMENTS_MAX, Seg};
use nbd_proto::{ErrorChunk, OffsetData, OffsetHole, ReplyStyle};

use super::host::Host;
use super::table::{Reply, Request, Table};

/// Bytes of the buffer for headers.
const HEADERS: usize = 8192;
/// What is left free of it for one more reply: a header, or an error with a sentence.
const REPLY_ROOM: usize = 192;
/// Bytes of data after which no further reply joins a batch, so that buffers come back early.
const BATCH_BYTES: u64 = 2 << 20;

/// What became of the bytes given to a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The rest was sent again.
    Short,
    /// So many requests at the front of the queue are answered; take them by
    /// [`Replies::pop`].
    Whole(usize),
}

/// The reply queue of a connection.
#[derive(Debug)]
pub(crate) struct Replies {
    style: ReplyStyle,
    queue: VecDeque<u16>,
    /// Requests at the front of the queue that are part of the send in flight; 0 if none is.
    sending: usize,
    segments: Vec<Seg>,
    /// First segment not wholly sent.
    first: usize,
    headers: Option<BufId>,
}

impl Replies {
    /// An empty queue. It and its segments grow to the most that were needed at a time and stay so:
    /// an idle client costs nothing of it.
    pub(crate) fn new(style: ReplyStyle) -> Replies {
        Replies {
            style,
            queue: VecDeque::new(),
            sending: 0,
            segments: Vec::new(),
            first: 0,
            headers: None,
        }
    }

    /// The request in `slot` has its answer.
    pub(crate) fn push(&mut self, slot: u16) {
        self.queue.push_back(slot);
    }

    /// The next answered request; those of a send first, once it is over.
    pub(crate) fn pop(&mut self) -> Option<u16> {
        self.queue.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.sending > 0
    }

    /// Sends what is queued, if nothing is being sent. `false` if there is no buffer for headers.
    pub(crate) fn start(&mut self, table: &Table, host: &mut impl Host) -> bool {
        if self.sending > 0 || self.queue.is_empty() {
            return true;
        }
        let arena = host.arena();
        let Some(headers) = self.headers.or_else(|| arena.alloc(Class::Net, HEADERS)) else {
            return false;
        };
        self.headers = Some(headers);
        self.gather(table, headers, arena.bytes_mut(headers));
        host.send(&self.segments);
        true
    }

    /// Encodes replies from the front of the queue, as many as fit.
    fn gather(&mut self, table: &Table, headers: BufId, out: &mut [u8]) {
        self.segments.clear();
        self.first = 0;
        // Headers in `joined..used` are not in a segment yet.
        let (mut used, mut joined, mut data) = (0, 0, 0);
        for slot in &self.queue {
            if out.len() - used < REPLY_ROOM
                || self.segments.len() + 3 > SEGMENTS_MAX
                || data >= BATCH_BYTES
            {
                break;
            }
            let request = table.get(*slot);
            used += encode(self.style, request, &mut out[used..used + REPLY_ROOM]);
            if let Some(payload) = payload(request) {
                data += u64::from(payload.len());
                if used > joined {
                    let header = headers.slice(joined as u32, (used - joined) as u32);
                    self.segments.push(header.into());
                    joined = used;
                }
                self.segments.push(payload);
            }
            self.sending += 1;
        }
        if used > joined {
            self.segments
                .push(headers.slice(joined as u32, (used - joined) as u32).into());
        }
    }

    /// The send in flight ended after `count` bytes.
    pub(crate) fn sent(&mut self, count: u32, host: &mut impl Host) -> Sent {
        let mut left = count;
        while let Some(segment) = self.segments.get_mut(self.first) {
            if left < segment.len() {
                skip(segment, left);
                host.send(&self.segments[self.first..]);
                return Sent::Short;
            }
            left -= segment.len();
            self.first += 1;
        }
        Sent::Whole(std::mem::take(&mut self.sending))
    }

    /// The send in flight no longer matters; its end is not reported here.
    pub(crate) fn abandon(&mut self) {
        self.sending = 0;
    }

    pub(crate) fn has_headers(&self) -> bool {
        self.headers.is_some()
    }

    /// Gives the header buffer back; a send in flight keeps its own reference.
    pub(crate) fn release_headers(&mut self, host: &mut impl Host) {
        if let Some(headers) = self.headers.take() {
            host.arena().release(headers);
        }
    }
}

/// Writes what goes before the payload, and gives its length.
#[inline]
fn encode(style: ReplyStyle, request: &Request, out: &mut [u8]) -> usize {
    let Request {
        cookie,
        offset,
        length,
        reply,
        origin,
        ..
    } = *request;
    match reply {
        Reply::Ok => style.encode_ok(cookie, origin, out),
        Reply::Data if request.is_whole() => style.encode_read(cookie, offset, length as u32, out),
        _ => encode_rest(style, request, out),
    }
}

/// Errors, and what sparse reads are made of.
fn encode_rest(style: ReplyStyle, request: &Request, out: &mut [u8]) -> usize {
    let Request {
        cookie,
        offset,
        length,
        reply,
        origin,
        is_last: done,
        ..
    } = *request;
    // A part is not longer than its read, which has 32 bits.
    let length = length as u32;
    match reply {
        Reply::Data => {
            let part = OffsetData {
                cookie,
                offset,
                length,
                done,
            };
            style.encode_part(part, origin, out)
        }
        Reply::Hole => {
            let hole = OffsetHole {
                cookie,
                offset,
                length,
                done,
            };
            style.encode_hole(hole, origin, out)
        }
        Reply::Error(error, text) => {
            let chunk = ErrorChunk {
                cookie,
                error,
                text,
                // Of a part it is known where it failed.
                offset: (!request.is_whole()).then_some(offset),
                done,
            };
            style.encode_error(chunk, origin, out)
        }
        Reply::Chunks(_) => 0,
        Reply::Ok | Reply::Pending => unreachable!("only answered requests are queued"),
    }
}

/// What is sent from the request's own buffer.
fn payload(request: &Request) -> Option<Seg> {
    let buf = request.buf?;
    match request.reply {
        Reply::Data => Some(request.payload(buf, 0, request.length as u32).into()),
        Reply::Chunks(length) => Some(buf.slice(0, length).into()),
        Reply::Ok | Reply::Hole | Reply::Error(..) | Reply::Pending => None,
    }
}

/// Cuts off the first `count` bytes of a segment.
fn skip(segment: &mut Seg, count: u32) {
    match segment {
        Seg::Arena(slice) => {
            slice.offset += count;
            slice.len -= count;
        }
        Seg::Region { offset, len, .. } => {
            *offset += u64::from(count);
            *len -= count;
        }
    }
}
