//! What arrives on a link: frames out of a stream, payload into buffers of its own.

use engine_core::event::Payload;
use engine_core::message::Message;
use engine_core::units::GRANULE;
use engine_core::wire::{HEADER_LEN, Numbers, Parsed, WireError, parse_body, parse_header};
use engine_ring::{Arena, BufId, BufSlice, Class};

use super::net_buffer;
use crate::driver::to_core;
use crate::sums;

/// Bytes of the receive buffer: the longest header fits with room to spare.
const RX_BYTES: usize = 128 << 10;
/// Payload of which this much is missing is received straight into its slot.
const STRAIGHT_MIN: u32 = 16 << 10;

const _: () = assert!(HEADER_LEN + engine_core::wire::BODY_MAX as usize <= RX_BYTES);

/// A payload of which a part is here.
struct Filling {
    message: Message,
    buf: BufId,
    len: u32,
    got: u32,
}

pub(super) struct Receiver {
    rx: BufId,
    start: usize,
    end: usize,
    numbers: Numbers,
    filling: Option<Filling>,
    /// Checksums of the payload under way, one per granule.
    sums: Vec<u64>,
    /// Bytes of the stream to pass over: payload of a message that may be skipped.
    skip: u32,
    /// The next frame's payload has no buffer yet.
    starved: bool,
    /// The receive in flight goes into the slot, not into `rx`.
    is_straight: bool,
    pub(super) is_receiving: bool,
}

impl Receiver {
    /// With bytes that were received before.
    pub(super) fn new(arena: &mut Arena, unread: &[u8]) -> Option<Receiver> {
        if unread.len() > RX_BYTES {
            return None;
        }
        let rx = net_buffer(arena, RX_BYTES)?;
        arena
            .slice_mut(rx.slice(0, unread.len() as u32))
            .copy_from_slice(unread);
        Some(Receiver {
            rx,
            start: 0,
            end: unread.len(),
            numbers: Numbers::default(),
            filling: None,
            sums: Vec::with_capacity(64),
            skip: 0,
            starved: false,
            is_straight: false,
            is_receiving: false,
        })
    }

    pub(super) fn is_starved(&self) -> bool {
        self.starved
    }

    /// Whether any frame was taken.
    pub(super) fn has_heard(&self) -> bool {
        self.numbers != Numbers::default()
    }

    pub(super) fn free(self, arena: &mut Arena) {
        arena.release(self.rx);
        if let Some(filling) = self.filling {
            arena.release(filling.buf);
        }
    }

    /// Where the stream goes on after what was received last, and whether all of it is wanted at
    /// once.
    pub(super) fn next(&mut self, arena: &mut Arena) -> (BufSlice, bool) {
        if let Some(filling) = &self.filling {
            let missing = filling.len - filling.got;
            if missing >= STRAIGHT_MIN {
                self.is_straight = true;
                return (filling.buf.slice(filling.got, missing), true);
            }
        }
        if self.start > 0 {
            let rest = (self.end - self.start) as u32;
            arena.copy(
                self.rx.slice(self.start as u32, rest),
                self.rx.slice(0, rest),
            );
            (self.start, self.end) = (0, self.end - self.start);
        }
        let free = (RX_BYTES - self.end) as u32;
        (self.rx.slice(self.end as u32, free), false)
    }

    /// So many bytes are there now.
    pub(super) fn take(&mut self, received: u32) {
        if std::mem::take(&mut self.is_straight) {
            let filling = self
                .filling
                .as_mut()
                .expect("a straight receive fills a payload");
            filling.got += received;
        } else {
            self.end += received as usize;
        }
    }

    /// Gives out every whole message that is here. Errors end the link.
    pub(super) fn parse(
        &mut self,
        arena: &mut Arena,
        mut give: impl FnMut(Message, Option<Payload>),
    ) -> Result<(), WireError> {
        self.starved = false;
        loop {
            self.pass_over();
            if !self.fill(arena, &mut give) {
                return Ok(());
            }
            let here = self.end - self.start;
            if here < HEADER_LEN {
                return Ok(());
            }
            let head = arena.slice(self.rx.slice(self.start as u32, HEADER_LEN as u32));
            let head = head
                .first_chunk()
                .expect("the slice is as long as a header");
            let header = parse_header(head)?;
            if here < HEADER_LEN + header.body_len as usize {
                return Ok(());
            }
            let body = self
                .rx
                .slice((self.start + HEADER_LEN) as u32, header.body_len);
            let mut expected = self.numbers;
            expected.expect(&header)?;
            let message = match parse_body(&header, arena.slice(body))? {
                Parsed::Skipped => None,
                Parsed::Message { message, sums } => {
                    self.sums.clear();
                    self.sums.extend(sums.iter());
                    Some(message)
                }
            };
            let buf = match (&message, header.payload_len) {
                (Some(_), len @ 1..) => {
                    let Some(buf) = arena.alloc(Class::PeerIn, len as usize) else {
                        self.starved = true;
                        return Ok(());
                    };
                    Some(buf)
                }
                _ => None,
            };
            self.numbers = expected;
            self.start += HEADER_LEN + header.body_len as usize;
            match (message, buf) {
                (None, _) => self.skip = header.payload_len,
                (Some(message), None) => give(message, None),
                (Some(message), Some(buf)) => {
                    let len = header.payload_len;
                    self.filling = Some(Filling {
                        message,
                        buf,
                        len,
                        got: 0,
                    });
                }
            }
        }
    }

    fn pass_over(&mut self) {
        let here = ((self.end - self.start) as u32).min(self.skip);
        self.start += here as usize;
        self.skip -= here;
    }

    /// Moves what is here into the payload under way; `true` when a frame may follow.
    fn fill(&mut self, arena: &mut Arena, give: &mut impl FnMut(Message, Option<Payload>)) -> bool {
        if self.skip > 0 {
            return false;
        }
        let Some(filling) = &mut self.filling else {
            return true;
        };
        let here = ((self.end - self.start) as u32).min(filling.len - filling.got);
        if here > 0 {
            let from = self.rx.slice(self.start as u32, here);
            arena.copy(from, filling.buf.slice(filling.got, here));
            filling.got += here;
            self.start += here as usize;
        }
        if filling.got < filling.len {
            return false;
        }
        let whole = self.filling.take().expect("it was there a moment ago");
        let is_intact = verify(arena, whole.buf, &self.sums);
        give(
            whole.message,
            Some(Payload {
                buf: to_core(whole.buf),
                is_intact,
            }),
        );
        true
    }
}

/// Compares every granule with the checksum that came with it, and keeps those beside the buffer.
fn verify(arena: &mut Arena, buf: BufId, expected: &[u64]) -> bool {
    let granule = GRANULE as u32;
    let is_equal = |(index, sum): (usize, &u64)| {
        sums::bytes(arena.slice(buf.slice(index as u32 * granule, granule))) == *sum
    };
    let is_intact = expected.iter().enumerate().all(is_equal);
    if is_intact {
        arena.set_sums(buf, expected);
    }
    is_intact
}
