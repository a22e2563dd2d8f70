//! Hello and Refuse: the first and the last word.
//!
//! ```text
//!  Hello   0: protocol min u16, max u16    56: incarnation u128
//!          4: slice u32                    72: bytes per granule u32
//!          8: features required u64        76: activity-log slots u32
//!         16: features offered u64         80: credit, bytes u64
//!         24: volume id u128               88: credit, operations u32
//!         40: size in granules u64         92: disk u8
//!         48: config digest u64            93: bits: primary, whole, has record, has votes
//!         94: chain entries u16            96: record, 32 bytes, zeros without one
//!        128: lengths of cluster, volume, from, to, 4 × u8
//!        132: zero, 4 bytes               136: life: count u64, id u64
//!        152: known of the other: incarnation u128, life: count u64, id u64
//!        184: promised term u64
//!        192: leads in this term u64, 0: does not | 200: its members u8 | 201: zero, 7 bytes
//!         lists: those four strings in UTF-8, then per chain entry branch u128 | term u64
//!  Refuse  0: cause u8 | 1: zero, 7 bytes
//! ```
//!
//! The first 24 bytes of fields mean the same in every protocol version.

use crate::message::{Disk, Hello, Known, Message, Refusal, Reign};
use crate::units::NodeSet;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::codes::Code;
use crate::wire::error::WireError;

const IS_PRIMARY: u8 = 1;
const IS_WHOLE: u8 = 2;
const HAS_RECORD: u8 = 4;
const HAS_VOTES: u8 = 8;

pub(super) fn put(hello: &Hello, w: &mut Writer) {
    let bit = |holds: bool, bit: u8| if holds { bit } else { 0 };
    let bits = bit(hello.is_primary, IS_PRIMARY)
        | bit(hello.is_whole, IS_WHOLE)
        | bit(hello.record.is_some(), HAS_RECORD)
        | bit(hello.has_votes, HAS_VOTES);
    w.u16(hello.protocol_min);
    w.u16(hello.protocol_max);
    w.u32(hello.slice);
    w.u64(hello.features_required);
    w.u64(hello.features_offered);
    w.u128(hello.volume_id);
    w.u64(hello.size_granules);
    w.u64(hello.config_digest);
    w.u128(hello.incarnation);
    w.u32(hello.granule_bytes);
    w.u32(hello.activity_log_slots);
    w.u64(hello.credit_bytes);
    w.u32(hello.credit_operations);
    w.u8(hello.disk.code());
    w.u8(bits);
    w.u16(hello.chain.entries().len() as u16);
    match &hello.record {
        Some(record) => w.record(record),
        None => w.zeros::<32>(),
    }
    let names = [&hello.cluster, &hello.volume, &hello.from, &hello.to];
    names.iter().for_each(|name| w.text_len(name));
    w.zeros::<4>();
    w.life(hello.life);
    w.u128(hello.knows.incarnation);
    w.life(hello.knows.life);
    w.u64(hello.promised.0);
    w.u64(hello.leads.map_or(0, |reign| reign.term.0));
    w.u8(hello.leads.map_or(0, |reign| reign.members.0));
    w.zeros::<7>();
    w.lists();
    names.iter().for_each(|name| w.bytes(name.as_bytes()));
    w.chain(&hello.chain);
}

pub(super) fn take(f: &mut Reader, lists: &mut Reader) -> Result<Hello, WireError> {
    let (protocol_min, protocol_max, slice) = (f.u16()?, f.u16()?, f.u32()?);
    let (features_required, features_offered) = (f.u64()?, f.u64()?);
    let (volume_id, size_granules, config_digest) = (f.u128()?, f.u64()?, f.u64()?);
    let (incarnation, granule_bytes, activity_log_slots) = (f.u128()?, f.u32()?, f.u32()?);
    let (credit_bytes, credit_operations) = (f.u64()?, f.u32()?);
    let (disk, bits, chain_len) = (Disk::take(f)?, f.u8()?, f.u16()?);
    let record = if bits & HAS_RECORD != 0 {
        Some(f.record()?)
    } else {
        f.skip::<32>()?;
        None
    };
    let lengths = [f.u8()?, f.u8()?, f.u8()?, f.u8()?];
    f.skip::<4>()?;
    let life = f.life()?;
    let knows = Known {
        incarnation: f.u128()?,
        life: f.life()?,
    };
    let (promised, term, members) = (f.term()?, f.term()?, NodeSet(f.u8()?));
    f.skip::<7>()?;
    let leads = (term.0 != 0).then_some(Reign { term, members });
    Ok(Hello {
        protocol_min,
        protocol_max,
        features_required,
        features_offered,
        cluster: lists.text(lengths[0])?,
        volume: lists.text(lengths[1])?,
        from: lists.text(lengths[2])?,
        to: lists.text(lengths[3])?,
        volume_id,
        slice,
        size_granules,
        granule_bytes,
        config_digest,
        incarnation,
        life,
        knows,
        chain: lists.chain(chain_len)?,
        record,
        promised,
        leads,
        disk,
        is_primary: bits & IS_PRIMARY != 0,
        has_votes: bits & HAS_VOTES != 0,
        is_whole: bits & IS_WHOLE != 0,
        activity_log_slots,
        credit_operations,
        credit_bytes,
    })
}

pub(super) fn put_refuse(why: Refusal, w: &mut Writer) {
    w.u8(why.code());
    w.zeros::<7>();
}

pub(super) fn take_refuse(r: &mut Reader) -> Result<Message, WireError> {
    let why = Refusal::take(r)?;
    r.skip::<7>()?;
    Ok(Message::Refuse(why))
}
