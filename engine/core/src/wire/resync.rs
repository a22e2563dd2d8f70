//! Resync: offer, request, piece, pause.
//!
//! ```text
//!  ResyncOffer    0: dirty granules u64 | 8: by checksum u8 | 9: zero, 7 bytes
//!  ResyncRequest  0: id u64 | 8: extent start u64, end u64 | 24: sums u32 | 28: zero, 4 bytes
//!                 lists: that many CRC-64/NVME: none, or one per granule
//!  piece          0: id u64 | 8: extent start u64, end u64
//!  ResyncPause    0: paused u8 | 1: zero, 7 bytes | 8: rate u64
//! ```
//!
//! Pieces are ResyncData (with checksums in the lists, and a payload), ResyncZero and SumRequest.
//! MapRequest is one u64, the granule; ResyncEqual and ResyncFailed are one u64, the id.

use crate::message::{Message, RESYNC_PIECE_GRANULES};
use crate::units::Extent;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::error::{BadField, WireError};

pub(super) fn put_offer(dirty: u64, by_checksum: bool, w: &mut Writer) {
    w.u64(dirty);
    w.flag(by_checksum);
    w.zeros::<7>();
}

pub(super) fn take_offer(r: &mut Reader) -> Result<Message, WireError> {
    let (dirty, by_checksum) = (r.counter()?, r.flag()?);
    r.skip::<7>()?;
    Ok(Message::ResyncOffer { dirty, by_checksum })
}

pub(super) fn put_request(id: u64, extent: Extent, sums: &[u64], w: &mut Writer) {
    let (len, granules) = (sums.len() as u64, extent.granules());
    assert!(
        len == 0 || len == granules,
        "{len} sums are none or one for each of {granules}"
    );
    put_piece(id, extent, w);
    w.u32(len as u32);
    w.zeros::<4>();
    w.lists();
    w.u64s(sums);
}

pub(super) fn take_request(fields: &mut Reader, lists: &mut Reader) -> Result<Message, WireError> {
    let (id, extent) = take_piece(fields)?;
    let len = fields.u32()?;
    fields.skip::<4>()?;
    if len != 0 && u64::from(len) != extent.granules() {
        return Err(fields.bad(BadField::List));
    }
    let sums = lists.u64s(len, RESYNC_PIECE_GRANULES)?;
    Ok(Message::ResyncRequest { id, extent, sums })
}

pub(super) fn put_piece(id: u64, extent: Extent, w: &mut Writer) {
    let granules = extent.granules();
    assert!(
        granules <= RESYNC_PIECE_GRANULES,
        "{granules} granules are one resync piece"
    );
    w.u64(id);
    w.extent(extent);
}

pub(super) fn take_piece(r: &mut Reader) -> Result<(u64, Extent), WireError> {
    Ok((r.counter()?, r.extent(RESYNC_PIECE_GRANULES)?))
}

pub(super) fn put_pause(paused: bool, rate: u64, w: &mut Writer) {
    w.flag(paused);
    w.zeros::<7>();
    w.u64(rate);
}

pub(super) fn take_pause(r: &mut Reader) -> Result<Message, WireError> {
    let paused = r.flag()?;
    r.skip::<7>()?;
    let rate = r.u64()?;
    Ok(Message::ResyncPause { paused, rate })
}
