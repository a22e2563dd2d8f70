//! What a register holds of one volume ([`Holding`]): the value of one key, not a frame.
//!
//! ```text
//!   0: magic "PLXREG" | 6: version u16 (1) | 8: volume id u128
//!  24: digest of the nodes' names u32 | 28: promised term u64 | 36: record, 32 bytes
//!  68: lease: term u64 | 76: number u64 | 84: length u32, milliseconds | 88: released u8
//!  89: zeros, 3 bytes | 92: CRC-32 of all before
//! ```

use std::time::Duration;

use crate::quorum::LEASE_MAX;
use crate::register::{Holding, Stamp};
use crate::units::NodeSet;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::error::{BadField, WireError};
use crate::wire::kind::Kind;

const HOLDING_LEN: usize = 96;
const SUM_AT: usize = HOLDING_LEN - 4;
const HOLDING_MAGIC: &[u8; 6] = b"PLXREG";
const HOLDING_VERSION: u16 = 1;

/// Appends the bytes of a holding.
pub fn put_holding(holding: &Holding, out: &mut Vec<u8>) {
    let at = out.len();
    let mut writer = Writer::new(out);
    writer.bytes(HOLDING_MAGIC);
    writer.u16(HOLDING_VERSION);
    writer.u128(holding.volume_id);
    writer.u32(holding.nodes);
    writer.u64(holding.promised.0);
    writer.record(&holding.record);
    writer.u64(holding.lease.term.0);
    writer.u64(holding.lease.number);
    writer.u32(holding.lease.length.as_millis() as u32);
    writer.flag(holding.lease.is_released);
    writer.bytes(&[0; 3]);
    let sum = crc32fast::hash(&out[at..]);
    out.extend_from_slice(&sum.to_le_bytes());
}

/// Reads the value of a key. Whatever it is, the answer is a holding or an error.
pub fn parse_holding(bytes: &[u8]) -> Result<Holding, WireError> {
    let bad = |what| WireError::Holding { what };
    if bytes.len() != HOLDING_LEN || !bytes.starts_with(HOLDING_MAGIC) {
        return Err(bad("its length or magic"));
    }
    let (body, sum) = bytes.split_at(SUM_AT);
    if crc32fast::hash(body).to_le_bytes() != sum {
        return Err(bad("its checksum"));
    }
    let mut body = Reader::new(Kind::Vote, &body[HOLDING_MAGIC.len()..]);
    if body.u16()? != HOLDING_VERSION {
        return Err(bad("its version"));
    }
    let holding = Holding {
        volume_id: body.u128()?,
        nodes: body.u32()?,
        promised: body.term()?,
        record: body.record()?,
        lease: Stamp {
            term: body.term()?,
            number: body.u64()?,
            length: Duration::from_millis(u64::from(body.u32()?)),
            is_released: body.flag()?,
        },
    };
    let is_named = holding.volume_id != 0 && holding.record.voters != NodeSet::EMPTY;
    body.check(
        is_named && holding.lease.length <= LEASE_MAX,
        BadField::Vote,
    )?;
    Ok(holding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use crate::register::REGISTER_ALONE;
    use crate::units::{NodeIdx, Term};

    fn holding() -> Holding {
        let record = Record {
            term: Term(0x0301),
            step: 2,
            primary: NodeIdx(1),
            in_sync: NodeSet(0b110),
            branch: 0x1112_1314,
            voters: REGISTER_ALONE,
            is_released: false,
        };
        Holding {
            volume_id: 0x2122,
            nodes: 0xABCDEF,
            promised: Term(0x0402),
            record,
            lease: Stamp {
                term: Term(0x0301),
                number: 7,
                length: Duration::from_millis(2000),
                is_released: true,
            },
        }
    }

    #[test]
    fn a_holding_is_these_bytes() {
        let mut bytes = Vec::new();
        put_holding(&holding(), &mut bytes);
        let (body, sum) = bytes.split_at(SUM_AT);
        let expected = b"PLXREG\x01\0\
            \x22\x21\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xEF\xCD\xAB\0\
            \x02\x04\0\0\0\0\0\0\
            \x01\x03\0\0\0\0\0\0\x02\0\0\0\x01\x06\x80\0\
            \x14\x13\x12\x11\0\0\0\0\0\0\0\0\0\0\0\0\
            \x01\x03\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\xD0\x07\0\0\x01\0\0\0";
        assert_eq!(body, expected);
        assert_eq!(sum, crc32fast::hash(body).to_le_bytes());
        assert_eq!(parse_holding(&bytes), Ok(holding()));
    }

    #[test]
    fn whatever_is_no_holding_is_refused() {
        let mut bytes = Vec::new();
        put_holding(&holding(), &mut bytes);
        for len in 0..bytes.len() {
            assert!(parse_holding(&bytes[..len]).is_err(), "{len} bytes");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(parse_holding(&damaged).is_err(), "byte {at}");
        }
        // Sealed anew, each field is judged by itself.
        let no_volume = Holding {
            volume_id: 0,
            ..holding()
        };
        let mut long = holding();
        long.lease.length = Duration::from_secs(61);
        for wrong in [no_volume, long] {
            assert!(Holding::parse(&wrong.encode()).is_err(), "{wrong:?}");
        }
    }
}
