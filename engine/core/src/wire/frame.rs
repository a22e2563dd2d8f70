//! The frame around every message.
//!
//! ```text
//!   0 magic "PLX1"          4     16 payload length   u32
//!   4 message type        u16     20 CRC-32           u32  header, this 0, and body
//!   6 flags               u16     24 number           u64  dense per direction, from 1
//!   8 fields length       u16     32 body: fields, then lists; then the payload
//!  10 zero                u16
//!  12 body length         u32
//! ```
//!
//! Flag bit 0: a receiver that does not know the type closes; without it, it skips the frame.
//! `fields length` is the `header_len` of DESIGN D10: fields a reader does not know are skipped.

use crate::message::Message;
use crate::units::{GRANULE, PIECE_MAX};
use crate::wire::bytes::{Body, COUNTER_MAX, Sums, Writer};
use crate::wire::error::WireError;
use crate::wire::kind::Kind;
use crate::wire::message::{accepts_payload, kind_of, put, take};

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"PLX1";
/// Bytes before the body.
pub const HEADER_LEN: usize = 32;
/// Most bytes of payload: one piece of a request.
pub const PAYLOAD_MAX: u32 = (PIECE_MAX + GRANULE) as u32;
/// Most bytes of body: checksums of the largest payload, fields, and room to grow.
pub const BODY_MAX: u32 = PAYLOAD_MAX / GRANULE as u32 * 8 + 4096;
/// Flag: close if the type is unknown.
pub const FLAG_MUST_UNDERSTAND: u16 = 1;

const FIELDS_LEN_AT: usize = 8;
const BODY_LEN_AT: usize = 12;
const CRC_AT: usize = 20;
const _: () = assert!(CRC_AT + 4 + 8 == HEADER_LEN);

/// Head of a frame; its checksum is verified together with the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of the message type, known or not.
    pub kind: u16,
    /// [`FLAG_MUST_UNDERSTAND`]; other bits are ignored.
    pub flags: u16,
    /// Bytes of fixed fields, at most `body_len`.
    pub fields_len: u16,
    /// Bytes that follow the header, at most [`BODY_MAX`].
    pub body_len: u32,
    /// Bytes of payload that follow the body, whole granules, at most [`PAYLOAD_MAX`].
    pub payload_len: u32,
    /// Place of the frame in its direction of the session.
    pub number: u64,
    /// Checksum the sender stated.
    crc: u32,
    /// Checksum of the header alone, as received.
    crc_of_header: u32,
}

/// What a body turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A message; `sums` are the checksums of its payload, empty without one.
    Message {
        /// What the peer says.
        message: Message,
        /// One per granule of the payload.
        sums: Sums<'a>,
    },
    /// A type of the future that may be missed; so is its payload.
    Skipped,
}

/// Reads the head of a frame. Nothing in it is trusted beyond its bounds.
pub fn parse_header(bytes: &[u8; HEADER_LEN]) -> Result<Header, WireError> {
    let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let (found, expected) = (u32_at(0), u32::from_le_bytes(MAGIC));
    if found != expected {
        return Err(WireError::Magic { found, expected });
    }
    let header = Header {
        kind: u16_at(4),
        flags: u16_at(6),
        fields_len: u16_at(FIELDS_LEN_AT),
        body_len: u32_at(BODY_LEN_AT),
        payload_len: u32_at(16),
        number: u64_at(24),
        crc: u32_at(CRC_AT),
        crc_of_header: crc_of_header(bytes),
    };
    let within = |what, found, limit| {
        let error = WireError::TooLong { what, found, limit };
        if found <= limit { Ok(()) } else { Err(error) }
    };
    within("body", header.body_len, BODY_MAX)?;
    within("fields", u32::from(header.fields_len), header.body_len)?;
    within("payload", header.payload_len, PAYLOAD_MAX)?;
    Ok(header)
}

/// Reads a message of a data connection. `body` is what followed the header, `body_len` bytes.
/// Errors end the session: `Crc` for damage, the others for a peer that does not keep the rules.
pub fn parse_body<'a>(header: &Header, body: &'a [u8]) -> Result<Parsed<'a>, WireError> {
    let Some(kind) = check(header, body)? else {
        return Ok(Parsed::Skipped);
    };
    let mut body = Body::new(kind, header, body);
    let message = take(kind, &mut body)?;
    let found = header.payload_len;
    if !accepts_payload(&message, found) {
        return Err(WireError::Payload { kind, found });
    }
    let sums = body.lists.sums(u64::from(found) / GRANULE)?;
    Ok(Parsed::Message { message, sums })
}

/// Length and checksum of any frame, then its type: `None` for one that may be skipped.
pub(super) fn check(header: &Header, body: &[u8]) -> Result<Option<Kind>, WireError> {
    let (found, expected) = (body.len(), header.body_len);
    if found != expected as usize {
        return Err(WireError::BodyLength { found, expected });
    }
    let mut hasher = crc32fast::Hasher::new_with_initial(header.crc_of_header);
    hasher.update(body);
    let (found, expected) = (hasher.finalize(), header.crc);
    if found != expected {
        return Err(WireError::Crc { found, expected });
    }
    let number = header.kind;
    match Kind::from_number(number) {
        Some(kind) => Ok(Some(kind)),
        None if header.flags & FLAG_MUST_UNDERSTAND == 0 => Ok(None),
        None => Err(WireError::UnknownType { number }),
    }
}

fn crc_of_header(header: &[u8; HEADER_LEN]) -> u32 {
    let mut header = *header;
    header[CRC_AT..][..4].fill(0);
    crc32fast::hash(&header)
}

/// Appends the frame of `message` to `out`, whose capacity is reused; the payload of
/// `payload_len` bytes is sent after it by the caller. `sums`: one CRC-64/NVME per granule of the
/// payload. `number` is the session's next, from [`Numbers::take`].
///
/// Panics where our own side breaks a rule the other side would close the session for: a list
/// over its bound, a payload that does not fit the message, sums that do not fit the payload.
pub fn encode(message: &Message, number: u64, sums: &[u64], payload_len: u32, out: &mut Vec<u8>) {
    assert!(
        payload_len <= PAYLOAD_MAX && accepts_payload(message, payload_len),
        "payload of {payload_len} bytes fits its message"
    );
    assert_eq!(
        u64::from(payload_len),
        sums.len() as u64 * GRANULE,
        "one sum per granule"
    );
    write_frame(kind_of(message), number, payload_len, out, |writer| {
        put(message, writer);
        writer.lists();
        writer.u64s(sums);
    });
}

/// Writes a header, the body by `put`, and then what is known only now: lengths and checksum.
pub(super) fn write_frame(
    kind: Kind,
    number: u64,
    payload_len: u32,
    out: &mut Vec<u8>,
    put: impl FnOnce(&mut Writer),
) {
    assert!(
        (1..=COUNTER_MAX).contains(&number),
        "frame number {number} counts from 1"
    );
    let flags = if kind.is_vital() {
        FLAG_MUST_UNDERSTAND
    } else {
        0
    };
    let start = out.len();
    let mut writer = Writer::new(out);
    writer.bytes(&MAGIC);
    writer.u16(kind as u16);
    writer.u16(flags);
    writer.zeros::<8>();
    writer.u32(payload_len);
    writer.zeros::<4>();
    writer.u64(number);
    put(&mut writer);
    let fields_len = writer.fields_end() - start - HEADER_LEN;

    let frame = &mut out[start..];
    let body_len = frame.len() - HEADER_LEN;
    assert!(
        body_len <= BODY_MAX as usize,
        "body of {body_len} bytes fits {BODY_MAX}"
    );
    frame[FIELDS_LEN_AT..][..2].copy_from_slice(&(fields_len as u16).to_le_bytes());
    frame[BODY_LEN_AT..][..4].copy_from_slice(&(body_len as u32).to_le_bytes());
    let crc = crc32fast::hash(frame);
    frame[CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
}

/// Numbers of one direction of a session: dense, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    next: u64,
}

impl Default for Numbers {
    fn default() -> Numbers {
        Numbers { next: 1 }
    }
}

impl Numbers {
    /// The number of the next frame sent.
    pub fn take(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Is this the next frame? Anything else was lost, repeated or reordered on the way.
    pub fn expect(&mut self, header: &Header) -> Result<(), WireError> {
        let (found, expected) = (header.number, self.next);
        if found != expected {
            return Err(WireError::Number { found, expected });
        }
        self.next += 1;
        Ok(())
    }
}
