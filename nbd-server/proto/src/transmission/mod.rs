//! The server's side of the transmission phase, as a pure state machine.
//!
//! ```text
//!  received bytes ─► next ─► Request (judged) | Payload | Reject | Disconnect | More | Fatal
//! ```
//!
//! The machine follows the stream: it puts headers together that arrive in parts, judges them by
//! the [`Gate`], drops the payload of refused writes, and tells which bytes are payload. It moves no
//! payload and sends nothing; replies are encoded by [`crate::ReplyStyle`] and the chunk types.

mod command;
mod extended_request;
mod gate;
mod request;
#[cfg(test)]
mod tests;

pub use command::{Command, ContextSet};
pub use extended_request::ExtendedRequest;
pub use gate::{Gate, Refused};
pub use request::Request;

use crate::codes::{CommandKind, Cookie};
use crate::{Negotiated, WrongMagic};

/// The transmission phase of one connection.
#[derive(Clone, Debug)]
pub struct Transmission {
    gate: Gate,
    state: State,
    /// A header of which only the first `stashed` bytes have arrived.
    stash: [u8; ExtendedRequest::LEN],
    stashed: usize,
    /// Room for the payload of a BLOCK_STATUS, taken once.
    filter: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    /// So many bytes of payload of the write last accepted are still to come.
    Payload(u32),
    /// So many bytes of payload of a refused request are still to come.
    Skip(u32),
    /// The filter of this request is arriving.
    Filter(ExtendedRequest),
    Disconnected,
    Failed(Fatal),
}

/// What lies at the start of the bytes given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// How many of the bytes given belong to `item`; never look at them again, except that those
    /// of [`Item::Payload`] are the data.
    pub consumed: usize,
    /// What they are.
    pub item: Item,
}

/// One step through the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A request to serve. If [`Command::payload`] is not 0, that many bytes of data come next.
    Request {
        /// Echo this in the replies.
        cookie: Cookie,
        /// Offset of the request, for extended replies.
        offset: u64,
        /// What to do; judged by the gate.
        command: Command,
    },
    /// The bytes consumed are data of the write last accepted. There may be more to come, see
    /// [`Transmission::payload_left`].
    Payload,
    /// A request to answer with an error. Its payload, if any, is dropped by later calls.
    Reject {
        /// Echo this in the reply.
        cookie: Cookie,
        /// Offset of the request, for extended replies.
        offset: u64,
        /// The command refused: a READ under structured replies must be answered by chunks.
        kind: CommandKind,
        /// The error to send.
        refused: Refused,
    },
    /// The client is done: finish what is outstanding, send the replies, close.
    Disconnect,
    /// All bytes are consumed; more are needed.
    More,
}

/// The stream cannot be followed any further: close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// A request does not begin with its magic.
    #[error("a request began with {0:#x}")]
    Magic(u32),
    /// The payload of a refused request is too long to be dropped.
    #[error("a request announced {0} bytes of payload")]
    PayloadTooLong(u64),
}

/// Longest payload of a refused write in a compact header that is read and dropped, bytes. A longer
/// one ends the connection. In extended headers it is the longest payload that was announced, at
/// least 32 MiB.
pub const DRAIN_MAX: u32 = 64 << 20;

impl Transmission {
    /// The transmission phase that follows a negotiation.
    pub fn new(negotiated: &Negotiated) -> Self {
        let gate = Gate::new(negotiated);
        let filter_max = match gate.is_extended() {
            true => gate.filter_max() as usize,
            false => 0,
        };
        Transmission {
            gate,
            state: State::Header,
            stash: [0; ExtendedRequest::LEN],
            stashed: 0,
            filter: Vec::with_capacity(filter_max),
        }
    }

    /// The next step: what lies at the start of `bytes`. Call it with the bytes after `consumed`
    /// until it answers [`Item::More`] or [`Item::Disconnect`]. Any division of a stream into calls
    /// comes to the same requests. Errors: [`Fatal`], and the same on every later call.
    #[inline]
    pub fn next(&mut self, bytes: &[u8]) -> Result<Parsed, Fatal> {
        if self.state == State::Header && self.stashed == 0 {
            if self.gate.is_extended() {
                if let Some(head) = bytes.first_chunk::<{ ExtendedRequest::LEN }>() {
                    return self.extended(head, bytes, ExtendedRequest::LEN);
                }
            } else if let Some(head) = bytes.first_chunk::<{ Request::LEN }>() {
                let item = self.header(head)?;
                return Ok(Parsed {
                    consumed: Request::LEN,
                    item,
                });
            }
        }
        self.next_slowly(bytes)
    }

    /// Bytes of payload still to come for the write last accepted.
    #[inline]
    pub fn payload_left(&self) -> u32 {
        match self.state {
            State::Payload(left) => left,
            _ => 0,
        }
    }

    /// Says that the first `count` of the bytes [`Transmission::payload_left`] counts were received
    /// straight into their buffer, past [`Transmission::next`].
    ///
    /// # Panics
    /// If `count` is more than `payload_left`.
    pub fn payload_received(&mut self, count: u32) {
        let left = self.payload_left();
        assert!(
            count <= left,
            "{count} bytes received of {left} bytes of payload"
        );
        if left > 0 {
            self.state = payload_left(left - count);
        }
    }

    /// Bytes of a header, or of a header with its filter, of which the rest has not come.
    pub fn unfinished(&self) -> Vec<u8> {
        match self.state {
            State::Filter(request) => [&request.encode()[..], &self.filter].concat(),
            _ => self.stash[..self.stashed].to_vec(),
        }
    }

    /// Bytes of payload of a refused write that are still to come.
    pub fn to_skip(&self) -> u32 {
        match self.state {
            State::Skip(left) => left,
            _ => 0,
        }
    }

    /// The next `count` bytes of the stream are payload of a write that was refused already, by
    /// another machine. Between two requests only; anywhere else it does nothing.
    pub fn skip(&mut self, count: u32) {
        if self.state == State::Header && self.stashed == 0 && count > 0 {
            self.state = State::Skip(count);
        }
    }

    /// Bytes of a request's header.
    pub fn header_len(&self) -> usize {
        match self.gate.is_extended() {
            true => ExtendedRequest::LEN,
            false => Request::LEN,
        }
    }

    /// The gate requests are judged by.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    #[inline]
    fn header(&mut self, head: &[u8; Request::LEN]) -> Result<Item, Fatal> {
        let request = match Request::from_bytes(head) {
            Ok(request) => request,
            Err(magic) => return Err(self.wrong_magic(magic)),
        };
        let judged = self.gate.check(&request);
        let payload = request.payload().into();
        self.judged(request.into(), payload, judged)
    }

    /// The header `head`, which ends at `consumed` of `bytes`, and the filter that may follow it.
    #[inline]
    fn extended(
        &mut self,
        head: &[u8; ExtendedRequest::LEN],
        bytes: &[u8],
        consumed: usize,
    ) -> Result<Parsed, Fatal> {
        let request = match ExtendedRequest::from_bytes(head) {
            Ok(request) => request,
            Err(magic) => return Err(self.wrong_magic(magic)),
        };
        if self.gate.takes_filter(&request) {
            self.filter.clear();
            self.state = State::Filter(request);
            let rest = self.next_slowly(&bytes[consumed..])?;
            return Ok(Parsed {
                consumed: consumed + rest.consumed,
                ..rest
            });
        }
        let judged = self.gate.check_extended(&request);
        let item = self.judged(request, request.payload(), judged)?;
        Ok(Parsed { consumed, item })
    }

    /// What the gate's word on a request comes to; `payload` bytes follow it.
    #[inline]
    fn judged(
        &mut self,
        request: ExtendedRequest,
        payload: u64,
        judged: Result<Command, Refused>,
    ) -> Result<Item, Fatal> {
        let ExtendedRequest { cookie, offset, .. } = request;
        match judged {
            Ok(Command::Disconnect) => {
                self.state = State::Disconnected;
                Ok(Item::Disconnect)
            }
            Ok(command) => {
                self.state = payload_left(command.payload());
                Ok(Item::Request {
                    cookie,
                    offset,
                    command,
                })
            }
            Err(refused) => self.reject(&request, payload, refused),
        }
    }

    #[cold]
    fn reject(
        &mut self,
        request: &ExtendedRequest,
        payload: u64,
        refused: Refused,
    ) -> Result<Item, Fatal> {
        if payload > self.gate.drain_max() {
            return Err(self.fail(Fatal::PayloadTooLong(payload)));
        }
        self.state = match payload as u32 {
            0 => State::Header,
            left => State::Skip(left),
        };
        Ok(Item::Reject {
            cookie: request.cookie,
            offset: request.offset,
            kind: request.kind,
            refused,
        })
    }

    #[cold]
    fn wrong_magic(&mut self, WrongMagic(found): WrongMagic) -> Fatal {
        self.fail(Fatal::Magic(u32::try_from(found).unwrap_or(u32::MAX)))
    }

    fn fail(&mut self, fatal: Fatal) -> Fatal {
        self.state = State::Failed(fatal);
        fatal
    }

    /// Payload, dropping, and headers in parts.
    fn next_slowly(&mut self, bytes: &[u8]) -> Result<Parsed, Fatal> {
        let more = Parsed {
            consumed: bytes.len(),
            item: Item::More,
        };
        match self.state {
            State::Failed(fatal) => Err(fatal),
            State::Disconnected => Ok(Parsed {
                consumed: bytes.len(),
                item: Item::Disconnect,
            }),
            State::Payload(_) | State::Header if bytes.is_empty() => Ok(more),
            State::Payload(left) => {
                let count = at_most(left, bytes);
                self.state = payload_left(left - count);
                Ok(Parsed {
                    consumed: count as usize,
                    item: Item::Payload,
                })
            }
            State::Skip(left) => {
                let count = at_most(left, bytes);
                self.state = if count == left {
                    State::Header
                } else {
                    State::Skip(left - count)
                };
                let Parsed { consumed, item } = match self.state {
                    State::Header => self.next(&bytes[count as usize..])?,
                    _ => Parsed {
                        consumed: 0,
                        item: Item::More,
                    },
                };
                Ok(Parsed {
                    consumed: consumed + count as usize,
                    item,
                })
            }
            State::Filter(request) => {
                let left = request.length as usize - self.filter.len();
                let count = left.min(bytes.len());
                self.filter.extend_from_slice(&bytes[..count]);
                if count < left {
                    return Ok(more);
                }
                let judged = self.gate.check_filter(&request, &self.filter);
                let item = self.judged(request, 0, judged)?;
                Ok(Parsed {
                    consumed: count,
                    item,
                })
            }
            State::Header => {
                let length = match self.gate.is_extended() {
                    true => ExtendedRequest::LEN,
                    false => Request::LEN,
                };
                let count = bytes.len().min(length - self.stashed);
                self.stash[self.stashed..self.stashed + count].copy_from_slice(&bytes[..count]);
                self.stashed += count;
                if self.stashed < length {
                    return Ok(more);
                }
                self.stashed = 0;
                let head = self.stash;
                match head.first_chunk::<{ Request::LEN }>() {
                    Some(head) if !self.gate.is_extended() => Ok(Parsed {
                        consumed: count,
                        item: self.header(head)?,
                    }),
                    _ => self.extended(&head, bytes, count),
                }
            }
        }
    }
}

/// The state with `left` bytes of payload to come.
#[inline]
fn payload_left(left: u32) -> State {
    if left == 0 {
        State::Header
    } else {
        State::Payload(left)
    }
}

/// `left`, or the number of `bytes` if that is smaller.
fn at_most(left: u32, bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).map_or(left, |count| count.min(left))
}
