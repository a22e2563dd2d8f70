//! Frames byte by byte, there and back, cut, extended, damaged and forged.

mod fuzz;
mod golden;
mod round_trip;
mod samples;

use crate::message::Message;
use crate::wire::*;

/// A frame of `message` with made-up checksums for its payload.
fn frame(message: &Message, payload_len: u32) -> Vec<u8> {
    let sums: Vec<u64> = (0..u64::from(payload_len) / 4096)
        .map(|n| !n << 7)
        .collect();
    let mut out = Vec::new();
    encode(message, 1, &sums, payload_len, &mut out);
    out
}

/// Splits a frame into its parts.
fn open(frame: &[u8]) -> Result<(Header, &[u8]), WireError> {
    let (header, body) = frame.split_first_chunk().expect("a frame has a header");
    Ok((parse_header(header)?, body))
}

/// What a frame says: the message and its checksums; `None` for a skipped one.
fn read(frame: &[u8]) -> Result<Option<(Message, Vec<u64>)>, WireError> {
    let (header, body) = open(frame)?;
    Ok(match parse_body(&header, body)? {
        Parsed::Message { message, sums } => Some((message, sums.iter().collect())),
        Parsed::Skipped => None,
    })
}

/// Makes length and checksum of a changed frame right again.
fn reseal(frame: &mut [u8]) {
    let body_len = (frame.len() - HEADER_LEN) as u32;
    frame[12..16].copy_from_slice(&body_len.to_le_bytes());
    frame[20..24].fill(0);
    let crc = crc32fast::hash(frame);
    frame[20..24].copy_from_slice(&crc.to_le_bytes());
}
