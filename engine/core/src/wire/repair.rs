//! Reads for a primary whose copy failed, and checksums for a verify.
//!
//! ```text
//!  ReadRequest  0: id u64 | 8: extent start u64, end u64
//!  ReadReply    an answer; when Ok, lists: one CRC-64/NVME per granule; then the payload
//!  SumReply     0: id u64 | 8: status u8 | 9: zero, 3 bytes | 12: sums u32
//!               lists: that many CRC-64/NVME
//! ```

use crate::message::{Message, RESYNC_PIECE_GRANULES, Status};
use crate::units::Extent;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::codes::Code;
use crate::wire::data::PIECE_GRANULES;
use crate::wire::error::WireError;

pub(super) fn put_read(id: u64, extent: Extent, w: &mut Writer) {
    let granules = extent.granules();
    assert!(
        granules <= PIECE_GRANULES,
        "{granules} granules are one piece"
    );
    w.u64(id);
    w.extent(extent);
}

pub(super) fn take_read(r: &mut Reader) -> Result<Message, WireError> {
    let (id, extent) = (r.counter()?, r.extent(PIECE_GRANULES)?);
    Ok(Message::ReadRequest { id, extent })
}

/// Head of an answer with `len` checksums or hashes, which stand in its lists.
pub(super) fn put_answer(id: u64, status: Status, len: usize, w: &mut Writer) {
    assert!(len as u64 <= RESYNC_PIECE_GRANULES, "{len} are one piece");
    w.u64(id);
    w.u8(status.code());
    w.zeros::<3>();
    w.u32(len as u32);
    w.lists();
}

/// The number of what follows is not judged yet.
pub(super) fn take_answer(fields: &mut Reader) -> Result<(u64, Status, u32), WireError> {
    let (id, status) = (fields.counter()?, Status::take(fields)?);
    fields.skip::<3>()?;
    Ok((id, status, fields.u32()?))
}

pub(super) fn put_sums(id: u64, status: Status, sums: &[u64], w: &mut Writer) {
    put_answer(id, status, sums.len(), w);
    w.u64s(sums);
}

pub(super) fn take_sums(fields: &mut Reader, lists: &mut Reader) -> Result<Message, WireError> {
    let (id, status, len) = take_answer(fields)?;
    let sums = lists.u64s(len, RESYNC_PIECE_GRANULES)?;
    Ok(Message::SumReply { id, status, sums })
}
