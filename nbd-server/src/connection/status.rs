//! BLOCK_STATUS: allocation as the volume tells it, in `base:allocation`.

use engine::front_end::BlockExtent;
use engine_core::units::GRANULE;
use engine_ring::Errno;
use nbd_proto::{BlockStatusWriter, NbdError, STATUS_EXTENTS_MAX, StatusFlags};

use super::NbdConnection;
use super::ending::Life;
use super::host::Host;
use super::table::{Kind, Reply};

/// Longest answer, bytes: 4092 extents. A client asks again for what is left.
const ANSWER_MAX: u64 = 32 << 10;

/// Buffer for the answer about `length` bytes.
pub(super) fn buffer_bytes(length: u64) -> usize {
    let extents = length / GRANULE + 2;
    let bytes = BlockStatusWriter::LEN_MIN as u64 + 8 * extents.min(ANSWER_MAX);
    bytes.clamp(GRANULE, ANSWER_MAX) as usize
}

impl NbdConnection {
    /// The volume answered a question of this connection.
    pub(super) fn extents_came(
        &mut self,
        host: &mut impl Host,
        slot: u16,
        result: Result<&[BlockExtent], Errno>,
    ) {
        if self.life == Life::Finished {
            return;
        }
        let reply = match result {
            Ok(extents) => self.write_status(host, slot, extents),
            // What cannot be told counts as data, which is always true.
            Err(Errno::OPNOTSUPP | Errno::INVAL) => self.write_status(host, slot, &[]),
            Err(_) => Reply::Error(NbdError::Io, "the allocation could not be read"),
        };
        self.answer(host, slot, reply);
    }

    /// Encodes the chunk into the request's buffer.
    fn write_status(&self, host: &mut impl Host, slot: u16, extents: &[BlockExtent]) -> Reply {
        let request = self.table.get(slot);
        let (Kind::Status { one }, Some(buf), Some(context)) =
            (request.kind, request.buf, self.context)
        else {
            return Reply::Error(NbdError::Invalid, "no meta context has been selected");
        };
        let out = host.arena().bytes_mut(buf);
        let (cookie, length) = (request.cookie, request.length);
        let mut writer =
            BlockStatusWriter::new(cookie, context, length, one, STATUS_EXTENTS_MAX, out);
        let mut told = 0;
        for extent in extents {
            told += extent.len;
            if !writer.push(extent.len, StatusFlags(extent.flags)) {
                break;
            }
        }
        if told == 0 {
            writer.push(length, StatusFlags::DATA);
        }
        let length = writer
            .finish(true)
            .expect("an extent that is not empty was pushed");
        Reply::Chunks(length as u32)
    }
}
