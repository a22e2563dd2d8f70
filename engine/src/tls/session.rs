//! Bytes through a TLS session on a reactor: buffers of the arena in, buffers of the arena out.
//!
//! ```text
//!  pieces of plaintext, where they lie ─► session ─► `next` ─► `flying` ─► socket
//!  socket ─► sealed bytes ─► session ─► plaintext, where it is wanted
//! ```
//! What waits is bounded: two buffers of [`SEND_MAX`] on the way out, one being filled and one
//! being sent; nothing is sealed that has no place, nothing is opened that is not asked for.
//!
//! The session is rustls' buffered one: its vectored write seals a header and its data into one
//! record without copying them together first, which the unbuffered one would need. Key updates
//! and alerts are its matter.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};

use engine_ring::{Arena, BufId, BufSlice, Class};
use rustls::Connection;

/// Sealed bytes of one send: short ones, and long ones.
const SEND_MIN: usize = 16 << 10;
const SEND_MAX: usize = 128 << 10;
/// What a record adds to its plaintext, at most: header, nonce or content type, tag.
const RECORD_EXTRA: usize = 64;
/// Pieces sealed by one call.
const PIECES: usize = 64;

/// Seals what is sent.
#[derive(Debug, Default)]
pub struct Sealer {
    /// Being filled.
    next: Option<Outgoing>,
    /// On its way.
    flying: Option<Outgoing>,
}

/// A buffer of sealed bytes; those in `at..filled` are still to be sent.
#[derive(Clone, Copy, Debug)]
struct Outgoing {
    buf: BufId,
    size: usize,
    at: usize,
    filled: usize,
}

impl Outgoing {
    fn rest(&self) -> BufSlice {
        self.buf
            .slice(self.at as u32, (self.filled - self.at) as u32)
    }
}

/// What a call of [`Sealer::seal`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Bytes of plaintext that were taken.
    pub taken: u32,
    /// Something was sealed: plaintext, or the session's own words.
    pub has_moved: bool,
    /// There is no buffer for more.
    pub is_starved: bool,
}

impl Sealer {
    /// Seals from the front of `plain` for as long as there is room. Each piece of `plain` holds a
    /// reference to its buffer, given back with its last byte.
    pub fn seal(
        &mut self,
        session: &mut Connection,
        plain: &mut VecDeque<BufSlice>,
        arena: &mut Arena,
    ) -> Sealed {
        let mut sealed = Sealed::default();
        loop {
            if !session.wants_write() {
                let count = write_plain(session, plain, arena);
                if count == 0 {
                    return sealed;
                }
                sealed.taken += count;
            }
            let Some(next) = self.place(plain, sealed.taken, arena) else {
                sealed.is_starved = true;
                return sealed;
            };
            if next.filled == next.size {
                return sealed;
            }
            let out = &mut arena.bytes_mut(next.buf)[next.filled..next.size];
            // Writing to memory does not fail.
            let count = session.write_tls(&mut io::Cursor::new(out)).unwrap_or(0);
            if count == 0 {
                return sealed;
            }
            sealed.has_moved = true;
            self.next = Some(Outgoing {
                filled: next.filled + count,
                ..next
            });
        }
    }

    /// The buffer to fill: one is made if there is none.
    fn place(
        &mut self,
        plain: &VecDeque<BufSlice>,
        taken: u32,
        arena: &mut Arena,
    ) -> Option<Outgoing> {
        if self.next.is_some() {
            return self.next;
        }
        let is_short = plain.is_empty() && taken as usize + RECORD_EXTRA * 4 <= SEND_MIN;
        let size = if is_short { SEND_MIN } else { SEND_MAX };
        let buf = arena.alloc(Class::Net, size);
        // A short one makes some progress when memory is scarce.
        let (buf, size) = match buf {
            Some(buf) => (buf, size),
            None => (arena.alloc(Class::Net, SEND_MIN)?, SEND_MIN),
        };
        self.next = Some(Outgoing {
            buf,
            size,
            at: 0,
            filled: 0,
        });
        self.next
    }

    /// What is to be sent now, if nothing is on its way; it is from then on.
    pub fn fly(&mut self) -> Option<BufSlice> {
        if self.flying.is_some() || self.next.is_none_or(|next| next.filled == 0) {
            return None;
        }
        self.flying = self.next.take();
        self.flying.map(|out| out.rest())
    }

    /// Something is on its way.
    pub fn is_flying(&self) -> bool {
        self.flying.is_some()
    }

    /// Something is sealed and not sent.
    pub fn is_waiting(&self) -> bool {
        self.next.is_some_and(|next| next.filled > 0)
    }

    /// So much of what was on its way was sent: the rest, which still is, if any.
    pub fn landed(&mut self, count: u32, arena: &mut Arena) -> Option<BufSlice> {
        let mut out = self.flying.take()?;
        out.at += count as usize;
        if out.at < out.filled {
            self.flying = Some(out);
            return Some(out.rest());
        }
        arena.release(out.buf);
        None
    }

    /// Gives up what is not on its way yet.
    pub fn drop_waiting(&mut self, arena: &mut Arena) {
        if let Some(next) = self.next.take() {
            arena.release(next.buf);
        }
    }

    /// Gives up everything; what is on its way must have landed, or never will.
    pub fn free(&mut self, arena: &mut Arena) {
        self.drop_waiting(arena);
        if let Some(out) = self.flying.take() {
            arena.release(out.buf);
        }
    }
}

/// Hands plaintext to the session, as much as it takes at once.
fn write_plain(session: &mut Connection, plain: &mut VecDeque<BufSlice>, arena: &mut Arena) -> u32 {
    let mut pieces = [IoSlice::new(&[]); PIECES];
    let count = plain.len().min(PIECES);
    for (piece, slice) in pieces.iter_mut().zip(&*plain) {
        *piece = IoSlice::new(arena.slice(*slice));
    }
    // It fails after the session did, which ends the connection elsewhere.
    let written = session
        .writer()
        .write_vectored(&pieces[..count])
        .unwrap_or(0);
    let mut left = written as u32;
    while left > 0 {
        let Some(first) = plain.front_mut() else {
            break;
        };
        let take = left.min(first.len);
        left -= take;
        first.offset += take;
        first.len -= take;
        if first.len == 0 {
            let buf = first.buf;
            plain.pop_front();
            arena.release(buf);
        }
    }
    written as u32
}

/// Sealed bytes that came, and how far they were taken in.
#[derive(Debug, Default)]
pub struct Opener {
    at: u32,
    filled: u32,
}

/// What opening came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Opened {
    /// So many bytes of plaintext, never 0.
    Bytes(u32),
    /// More must be received first.
    Nothing,
    /// The peer said that nothing follows; or it did not, and is gone.
    End,
    /// What was received is no TLS, or not this session's.
    Broken(rustls::Error),
}

impl Opener {
    /// So many sealed bytes lie in the buffer now.
    pub fn received(&mut self, count: u32) {
        (self.at, self.filled) = (0, count);
    }

    /// All of them were taken in.
    pub fn is_empty(&self) -> bool {
        self.at == self.filled
    }

    /// How many lie in the buffer.
    pub fn filled(&self) -> u32 {
        self.filled
    }

    /// Fills `into` from the sealed bytes in `sealed`, as far as they go.
    pub fn open(
        &mut self,
        session: &mut Connection,
        sealed: Option<BufId>,
        into: BufSlice,
        arena: &mut Arena,
    ) -> Opened {
        let mut done = 0;
        loop {
            let rest = into.buf.slice(into.offset + done, into.len - done);
            match session.reader().read(arena.slice_mut(rest)) {
                Ok(count) if count > 0 => done += count as u32,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) if done == 0 => return Opened::End,
                Ok(_) | Err(_) => return Opened::Bytes(done),
            }
            if done == into.len {
                return Opened::Bytes(done);
            }
            if self.is_empty() {
                return match done {
                    0 => Opened::Nothing,
                    done => Opened::Bytes(done),
                };
            }
            let buf = sealed.expect("bytes that were not taken in lie in a buffer");
            let mut bytes = arena.slice(buf.slice(self.at, self.filled - self.at));
            match session.read_tls(&mut bytes) {
                Ok(count) => self.at += count as u32,
                Err(error) => return Opened::Broken(rustls::Error::General(error.to_string())),
            }
            if let Err(error) = session.process_new_packets() {
                return Opened::Broken(error);
            }
        }
    }
}
