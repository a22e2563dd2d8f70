//! State, Record, RecordAck, Adopt: who reigns over what.
//!
//! ```text
//!  State      0: is primary u8 | 1: disk u8 | 2: zero, 6 bytes
//!  Record     0: record, 32 bytes | 32: chain entries u16 | 34: zero, 6 bytes
//!             40: lives of the members, by node, 8 × u128, 0: not told
//!             lists: per chain entry 24 bytes, branch u128 | term u64, oldest first
//!  record     0: term u64 | 8: step u32 | 12: primary u8 | 13: in-sync set u8 | 14: voters u8
//!             15: is released u8
//!             16: branch u128
//!  RecordAck  0: term u64 | 8: step u32 | 12: zero u32
//!  Adopt      0: volume id u128
//!  AdoptAck   no fields
//! ```

use crate::generation::Chain;
use crate::message::{Disk, Lives, Message};
use crate::record::Record;
use crate::units::Term;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::codes::Code;
use crate::wire::error::WireError;

pub(super) fn put_state(is_primary: bool, disk: Disk, w: &mut Writer) {
    w.flag(is_primary);
    w.u8(disk.code());
    w.zeros::<6>();
}

pub(super) fn take_state(r: &mut Reader) -> Result<Message, WireError> {
    let (is_primary, disk) = (r.flag()?, Disk::take(r)?);
    r.skip::<6>()?;
    Ok(Message::State { is_primary, disk })
}

pub(super) fn put_record(record: &Record, chain: &Chain, lives: &Lives, w: &mut Writer) {
    w.record(record);
    w.u16(chain.entries().len() as u16);
    w.zeros::<6>();
    lives.iter().for_each(|life| w.u128(*life));
    w.lists();
    w.chain(chain);
}

pub(super) fn take_record(fields: &mut Reader, lists: &mut Reader) -> Result<Message, WireError> {
    let (record, len) = (fields.record()?, fields.u16()?);
    fields.skip::<6>()?;
    let mut lives: Box<Lives> = Box::default();
    for life in lives.iter_mut() {
        *life = fields.u128()?;
    }
    let chain = lists.chain(len)?;
    Ok(Message::Record {
        record,
        chain,
        lives,
    })
}

pub(super) fn put_record_ack(term: Term, step: u32, w: &mut Writer) {
    w.u64(term.0);
    w.u32(step);
    w.zeros::<4>();
}

pub(super) fn take_record_ack(r: &mut Reader) -> Result<Message, WireError> {
    let (term, step) = (r.term()?, r.step()?);
    r.skip::<4>()?;
    Ok(Message::RecordAck { term, step })
}
