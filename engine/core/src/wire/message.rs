//! Which bytes belong to which message: the table of the data connection.

use crate::message::{Message, Status};
use crate::units::GRANULE;
use crate::wire::bytes::{Body, Writer};
use crate::wire::error::WireError;
use crate::wire::kind::Kind;
use crate::wire::{attribute, data, hash, hello, parted, reign, repair, resync, runs};

/// Writes the body of a message, without the checksums of its payload.
pub(super) fn put(message: &Message, w: &mut Writer) {
    match message {
        Message::Hello(hello) => hello::put(hello, w),
        Message::Refuse(why) => hello::put_refuse(*why, w),
        Message::Runs { runs, last } | Message::Map { runs, last } => runs::put(runs, *last, w),
        Message::State { is_primary, disk } => reign::put_state(*is_primary, *disk, w),
        Message::Record {
            record,
            chain,
            lives,
        } => reign::put_record(record, chain, lives, w),
        Message::RecordAck { term, step } => reign::put_record_ack(*term, *step, w),
        Message::Adopt { volume_id } => w.u128(*volume_id),
        Message::AdoptAck => {}
        Message::Data {
            stamp,
            extent,
            durable,
        } => data::put_data(stamp, *extent, *durable, w),
        Message::Zero {
            stamp,
            extent,
            zeroing,
            durable,
        } => {
            data::put_zero(stamp, *extent, *zeroing, *durable, w);
        }
        Message::Ack { seq, status } => data::put_answer(seq.0, *status, w),
        Message::Flush {
            round,
            epoch,
            writes,
        } => data::put_flush(*round, *epoch, *writes, w),
        Message::FlushAck { round, status } => data::put_answer(*round, *status, w),
        Message::Progress { stamp } => data::put_stamp(stamp, w),
        Message::SetAttr(set) => attribute::put_set(set, w),
        Message::SetAttrAck { number, status } => data::put_answer(*number, *status, w),
        Message::MarkPage(page) => attribute::put_page(page, w),
        Message::GrowAsk { size } => w.u64(*size),
        Message::GrowAnswer { size, max, status } => {
            attribute::put_room(*size, *max, *status, w);
        }
        Message::ResyncOffer { dirty, by_checksum } => resync::put_offer(*dirty, *by_checksum, w),
        Message::MapRequest { from } => w.u64(*from),
        Message::ResyncRequest { id, extent, sums } => resync::put_request(*id, *extent, sums, w),
        Message::ResyncData { id, extent } | Message::ResyncZero { id, extent } => {
            resync::put_piece(*id, *extent, w);
        }
        Message::ResyncEqual { id } | Message::ResyncFailed { id } => w.u64(*id),
        Message::ResyncAck { id, status } => data::put_answer(*id, *status, w),
        Message::ResyncPause { paused, rate } => resync::put_pause(*paused, *rate, w),
        Message::ResyncAsk { id, extent, hashes } => hash::put_ask(*id, *extent, hashes, w),
        Message::ResyncDiffer { id, runs } => hash::put_differ(*id, runs, w),
        Message::HashRequest { id, extent, each } => hash::put_request(*id, *extent, *each, w),
        Message::HashReply { id, status, hashes } => hash::put_reply(*id, *status, hashes, w),
        Message::ReadRequest { id, extent } => repair::put_read(*id, *extent, w),
        Message::ReadReply { id, status } => data::put_answer(*id, *status, w),
        Message::SumRequest { id, extent } => resync::put_piece(*id, *extent, w),
        Message::SumReply { id, status, sums } => repair::put_sums(*id, *status, sums, w),
        Message::Parted(parted) => parted::put(parted, w),
    }
}

/// Reads what [`put`] wrote; the rest of `body.lists` is the checksums of the payload.
pub(super) fn take(kind: Kind, body: &mut Body) -> Result<Message, WireError> {
    let Body { fields, lists } = body;
    Ok(match kind {
        Kind::Hello => Message::Hello(Box::new(hello::take(fields, lists)?)),
        Kind::Refuse => hello::take_refuse(fields)?,
        Kind::Runs => {
            let (runs, last) = runs::take(fields, lists)?;
            Message::Runs { runs, last }
        }
        Kind::Map => {
            let (runs, last) = runs::take(fields, lists)?;
            Message::Map { runs, last }
        }
        Kind::State => reign::take_state(fields)?,
        Kind::Record => reign::take_record(fields, lists)?,
        Kind::RecordAck => reign::take_record_ack(fields)?,
        Kind::Adopt => Message::Adopt {
            volume_id: fields.u128()?,
        },
        Kind::AdoptAck => Message::AdoptAck,
        Kind::Data => data::take_data(fields)?,
        Kind::Zero => data::take_zero(fields)?,
        Kind::Ack => {
            let (seq, status) = (fields.seq()?, data::take_status(fields)?);
            Message::Ack { seq, status }
        }
        Kind::Flush => data::take_flush(fields)?,
        Kind::FlushAck => {
            let (round, status) = data::take_answer(fields)?;
            Message::FlushAck { round, status }
        }
        Kind::Progress => Message::Progress {
            stamp: data::take_stamp(fields)?,
        },
        Kind::SetAttr => Message::SetAttr(attribute::take_set(fields, lists)?),
        Kind::SetAttrAck => {
            let (number, status) = data::take_answer(fields)?;
            Message::SetAttrAck { number, status }
        }
        Kind::MarkPage => Message::MarkPage(attribute::take_page(fields, lists)?),
        Kind::GrowAsk => Message::GrowAsk {
            size: fields.counter()?,
        },
        Kind::GrowAnswer => attribute::take_room(fields)?,
        Kind::ResyncOffer => resync::take_offer(fields)?,
        Kind::MapRequest => Message::MapRequest {
            from: fields.counter()?,
        },
        Kind::ResyncRequest => resync::take_request(fields, lists)?,
        Kind::ResyncData => {
            let (id, extent) = resync::take_piece(fields)?;
            Message::ResyncData { id, extent }
        }
        Kind::ResyncZero => {
            let (id, extent) = resync::take_piece(fields)?;
            Message::ResyncZero { id, extent }
        }
        Kind::ResyncEqual => Message::ResyncEqual {
            id: fields.counter()?,
        },
        Kind::ResyncFailed => Message::ResyncFailed {
            id: fields.counter()?,
        },
        Kind::ResyncAck => {
            let (id, status) = data::take_answer(fields)?;
            Message::ResyncAck { id, status }
        }
        Kind::ResyncPause => resync::take_pause(fields)?,
        Kind::ResyncAsk => hash::take_ask(fields, lists)?,
        Kind::ResyncDiffer => hash::take_differ(fields, lists)?,
        Kind::HashRequest => hash::take_request(fields)?,
        Kind::HashReply => hash::take_reply(fields, lists)?,
        Kind::ReadRequest => repair::take_read(fields)?,
        Kind::ReadReply => {
            let (id, status) = data::take_answer(fields)?;
            Message::ReadReply { id, status }
        }
        Kind::SumRequest => {
            let (id, extent) = resync::take_piece(fields)?;
            Message::SumRequest { id, extent }
        }
        Kind::SumReply => repair::take_sums(fields, lists)?,
        Kind::Parted => Message::Parted(parted::take(fields)?),
        Kind::ControlHello | Kind::Ping | Kind::Pong | Kind::Vote | Kind::Table => {
            return Err(WireError::WrongConnection { kind });
        }
    })
}

/// Does a payload of this length belong to this message?
pub(super) fn accepts_payload(message: &Message, payload_len: u32) -> bool {
    let bytes = u64::from(payload_len);
    match message {
        Message::Data { extent, .. } | Message::ResyncData { extent, .. } => {
            extent.bytes() == bytes
        }
        Message::ReadReply {
            status: Status::Ok, ..
        } => bytes > 0 && bytes.is_multiple_of(GRANULE),
        _ => bytes == 0,
    }
}

/// The type of a message.
pub(super) fn kind_of(message: &Message) -> Kind {
    match message {
        Message::Hello(_) => Kind::Hello,
        Message::Refuse(_) => Kind::Refuse,
        Message::Runs { .. } => Kind::Runs,
        Message::State { .. } => Kind::State,
        Message::Record { .. } => Kind::Record,
        Message::RecordAck { .. } => Kind::RecordAck,
        Message::Adopt { .. } => Kind::Adopt,
        Message::AdoptAck => Kind::AdoptAck,
        Message::Data { .. } => Kind::Data,
        Message::Zero { .. } => Kind::Zero,
        Message::Ack { .. } => Kind::Ack,
        Message::Flush { .. } => Kind::Flush,
        Message::FlushAck { .. } => Kind::FlushAck,
        Message::Progress { .. } => Kind::Progress,
        Message::SetAttr(_) => Kind::SetAttr,
        Message::SetAttrAck { .. } => Kind::SetAttrAck,
        Message::MarkPage(_) => Kind::MarkPage,
        Message::GrowAsk { .. } => Kind::GrowAsk,
        Message::GrowAnswer { .. } => Kind::GrowAnswer,
        Message::ResyncOffer { .. } => Kind::ResyncOffer,
        Message::MapRequest { .. } => Kind::MapRequest,
        Message::Map { .. } => Kind::Map,
        Message::ResyncRequest { .. } => Kind::ResyncRequest,
        Message::ResyncData { .. } => Kind::ResyncData,
        Message::ResyncZero { .. } => Kind::ResyncZero,
        Message::ResyncEqual { .. } => Kind::ResyncEqual,
        Message::ResyncFailed { .. } => Kind::ResyncFailed,
        Message::ResyncAck { .. } => Kind::ResyncAck,
        Message::ResyncPause { .. } => Kind::ResyncPause,
        Message::ResyncAsk { .. } => Kind::ResyncAsk,
        Message::ResyncDiffer { .. } => Kind::ResyncDiffer,
        Message::HashRequest { .. } => Kind::HashRequest,
        Message::HashReply { .. } => Kind::HashReply,
        Message::ReadRequest { .. } => Kind::ReadRequest,
        Message::ReadReply { .. } => Kind::ReadReply,
        Message::SumRequest { .. } => Kind::SumRequest,
        Message::SumReply { .. } => Kind::SumReply,
        Message::Parted(_) => Kind::Parted,
    }
}
