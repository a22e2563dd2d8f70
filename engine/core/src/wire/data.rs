//! Data, Zero, Progress, Flush and the short answers: the path of every write.
//!
//! ```text
//!  stamp     0: seq u64 | 8: term u64 | 16: stable u64 | 24: durable u64 | 32: shipped u64
//!  Data      0: stamp | 40: extent start u64, end u64 | 56: durable u8 | 57: zero, 7 bytes
//!            lists: one CRC-64/NVME per granule; then the payload
//!  Zero      0: stamp | 40: extent start u64, end u64 | 56: zeroing u8 | 57: durable u8
//!            58: zero, 6 bytes
//!  Progress  0: stamp
//!  Flush     0: round u64 | 8: epoch u64 | 16: writes u64
//!  answer    0: seq, round or id u64 | 8: status u8 | 9: zero, 7 bytes
//! ```
//!
//! Answers are Ack, FlushAck, ResyncAck and ReadReply. Nothing here allocates.

use crate::message::{Message, Stamp, Status, Zeroing};
use crate::units::{Extent, GRANULE, PIECE_MAX};
use crate::wire::bytes::{Reader, Writer};
use crate::wire::codes::Code;
use crate::wire::error::WireError;

/// Most granules of one piece.
pub(super) const PIECE_GRANULES: u64 = PIECE_MAX / GRANULE + 1;

pub(super) fn put_stamp(stamp: &Stamp, w: &mut Writer) {
    w.u64(stamp.seq.0);
    w.u64(stamp.term.0);
    w.u64(stamp.stable.0);
    w.u64(stamp.durable.0);
    w.u64(stamp.shipped.0);
}

pub(super) fn take_stamp(r: &mut Reader) -> Result<Stamp, WireError> {
    Ok(Stamp {
        seq: r.seq()?,
        term: r.term()?,
        stable: r.seq()?,
        durable: r.seq()?,
        shipped: r.seq()?,
    })
}

pub(super) fn put_data(stamp: &Stamp, extent: Extent, durable: bool, w: &mut Writer) {
    put_stamp(stamp, w);
    w.extent(extent);
    w.flag(durable);
    w.zeros::<7>();
}

pub(super) fn take_data(r: &mut Reader) -> Result<Message, WireError> {
    let (stamp, extent) = (take_stamp(r)?, r.extent(PIECE_GRANULES)?);
    let durable = r.flag()?;
    r.skip::<7>()?;
    Ok(Message::Data {
        stamp,
        extent,
        durable,
    })
}

pub(super) fn put_zero(
    stamp: &Stamp,
    extent: Extent,
    zeroing: Zeroing,
    durable: bool,
    w: &mut Writer,
) {
    let granules = extent.granules();
    assert!(
        granules <= PIECE_GRANULES,
        "{granules} granules are one piece"
    );
    put_stamp(stamp, w);
    w.extent(extent);
    w.u8(zeroing.code());
    w.flag(durable);
    w.zeros::<6>();
}

pub(super) fn take_zero(r: &mut Reader) -> Result<Message, WireError> {
    let (stamp, extent) = (take_stamp(r)?, r.extent(PIECE_GRANULES)?);
    let (zeroing, durable) = (Zeroing::take(r)?, r.flag()?);
    r.skip::<6>()?;
    Ok(Message::Zero {
        stamp,
        extent,
        zeroing,
        durable,
    })
}

pub(super) fn put_flush(round: u64, epoch: u64, writes: u64, w: &mut Writer) {
    w.u64(round);
    w.u64(epoch);
    w.u64(writes);
}

pub(super) fn take_flush(r: &mut Reader) -> Result<Message, WireError> {
    let (round, epoch, writes) = (r.counter()?, r.counter()?, r.counter()?);
    Ok(Message::Flush {
        round,
        epoch,
        writes,
    })
}

pub(super) fn put_answer(number: u64, status: Status, w: &mut Writer) {
    w.u64(number);
    w.u8(status.code());
    w.zeros::<7>();
}

pub(super) fn take_answer(r: &mut Reader) -> Result<(u64, Status), WireError> {
    Ok((r.counter()?, take_status(r)?))
}

pub(super) fn take_status(r: &mut Reader) -> Result<Status, WireError> {
    let status = Status::take(r)?;
    r.skip::<7>()?;
    Ok(status)
}
