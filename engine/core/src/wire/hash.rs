//! Strong hashes: what a resync asks with, and what a verify compares.
//!
//! ```text
//!  ResyncAsk    0: id u64 | 8: extent start u64, end u64;  lists: one hash per granule
//!  ResyncDiffer 0: id u64 | 8: runs u32 | 12: zero, 4 bytes;  lists: that many extents
//!  HashRequest  0: id u64 | 8: extent start u64, end u64 | 24: granules per hash u32 | 28: zero, 4 bytes
//!  HashReply    0: id u64 | 8: status u8 | 9: zero, 3 bytes | 12: hashes u32;  lists: that many hashes
//! ```
//!
//! A hash is the first 16 bytes of BLAKE3 over the bytes of its granules.

use crate::message::{DIFFERING_MAX, Message, RESYNC_PIECE_GRANULES, Status};
use crate::units::Extent;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::error::{BadField, WireError};
use crate::wire::repair::{put_answer, take_answer};
use crate::wire::resync::{put_piece, take_piece};

pub(super) fn put_ask(id: u64, extent: Extent, hashes: &[u128], w: &mut Writer) {
    let (len, granules) = (hashes.len() as u64, extent.granules());
    assert!(len == granules, "{len} hashes are one each of {granules}");
    put_piece(id, extent, w);
    w.lists();
    hashes.iter().for_each(|hash| w.u128(*hash));
}

pub(super) fn take_ask(fields: &mut Reader, lists: &mut Reader) -> Result<Message, WireError> {
    let (id, extent) = take_piece(fields)?;
    let hashes = take_hashes(lists, extent.granules())?;
    Ok(Message::ResyncAsk { id, extent, hashes })
}

fn take_hashes(lists: &mut Reader, len: u64) -> Result<Vec<u128>, WireError> {
    (0..len).map(|_| lists.u128()).collect()
}

pub(super) fn put_differ(id: u64, runs: &[Extent], w: &mut Writer) {
    let len = runs.len();
    assert!(
        (1..=DIFFERING_MAX).contains(&len),
        "{len} runs differ in one piece"
    );
    w.u64(id);
    w.u32(len as u32);
    w.zeros::<4>();
    w.lists();
    w.extents(runs);
}

pub(super) fn take_differ(fields: &mut Reader, lists: &mut Reader) -> Result<Message, WireError> {
    let (id, len) = (fields.counter()?, fields.u32()?);
    fields.skip::<4>()?;
    if len == 0 {
        return Err(fields.bad(BadField::List));
    }
    let runs = lists.extents(len, DIFFERING_MAX)?;
    Ok(Message::ResyncDiffer { id, runs })
}

pub(super) fn put_request(id: u64, extent: Extent, each: u32, w: &mut Writer) {
    assert!(each > 0, "a hash covers something");
    put_piece(id, extent, w);
    w.u32(each);
    w.zeros::<4>();
}

pub(super) fn take_request(fields: &mut Reader) -> Result<Message, WireError> {
    let ((id, extent), each) = (take_piece(fields)?, fields.u32()?);
    fields.skip::<4>()?;
    if each == 0 {
        return Err(fields.bad(BadField::List));
    }
    Ok(Message::HashRequest { id, extent, each })
}

pub(super) fn put_reply(id: u64, status: Status, hashes: &[u128], w: &mut Writer) {
    put_answer(id, status, hashes.len(), w);
    hashes.iter().for_each(|hash| w.u128(*hash));
}

pub(super) fn take_reply(fields: &mut Reader, lists: &mut Reader) -> Result<Message, WireError> {
    let (id, status, len) = take_answer(fields)?;
    let len = u64::from(len);
    if len > RESYNC_PIECE_GRANULES {
        return Err(fields.bad(BadField::List));
    }
    let hashes = take_hashes(lists, len)?;
    Ok(Message::HashReply { id, status, hashes })
}
