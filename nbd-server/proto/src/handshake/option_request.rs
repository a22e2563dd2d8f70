//! The frame of an option request.

use crate::WrongMagic;
use crate::bytes::{u32_at, u64_at};
use crate::codes::OptionCode;

/// "IHAVEOPT".
const MAGIC: u64 = 0x4948_4156_454f_5054;

/// Header of an option request, client to server, 16 bytes, big-endian; `length` bytes of data
/// follow.
///
/// `0: "IHAVEOPT" | 8: option u32 | 12: length u32 | 16: data`
/// Source: NBD protocol, "Option haggling".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// Which option.
    pub option: OptionCode,
    /// Length of the data, bytes. Not checked against any limit here.
    pub length: u32,
}

impl OptionHeader {
    /// Length in bytes.
    pub const LEN: usize = 16;

    /// The header at the start of `bytes`; `Ok(None)` means "need more".
    /// Errors: `WrongMagic`; the stream cannot be followed any further.
    pub fn parse(bytes: &[u8]) -> Result<Option<(OptionHeader, usize)>, WrongMagic> {
        let Some(head) = bytes.first_chunk::<{ Self::LEN }>() else {
            return Ok(None);
        };
        let found = u64_at(head, 0);
        if found != MAGIC {
            return Err(WrongMagic(found));
        }
        let header = OptionHeader {
            option: OptionCode(u32_at(head, 8)),
            length: u32_at(head, 12),
        };
        Ok(Some((header, Self::LEN)))
    }

    /// The bytes on the wire.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[0..8].copy_from_slice(&MAGIC.to_be_bytes());
        out[8..12].copy_from_slice(&self.option.0.to_be_bytes());
        out[12..16].copy_from_slice(&self.length.to_be_bytes());
        out
    }

    /// Appends a whole request: header and `data`, which is below 4 GiB.
    pub fn encode_with(option: OptionCode, data: &[u8], out: &mut Vec<u8>) {
        let length = u32::try_from(data.len()).expect("option data is built here, below 4 GiB");
        out.extend_from_slice(&OptionHeader { option, length }.encode());
        out.extend_from_slice(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_request_is_these_bytes() {
        let header = OptionHeader {
            option: OptionCode::GO,
            length: 0x0102,
        };
        let bytes = header.encode();
        assert_eq!(bytes, *b"IHAVEOPT\x00\x00\x00\x07\x00\x00\x01\x02");
        assert_eq!(OptionHeader::parse(&bytes), Ok(Some((header, 16))));
        for cut in 0..16 {
            assert_eq!(OptionHeader::parse(&bytes[..cut]), Ok(None));
        }
    }

    #[test]
    fn a_wrong_magic_is_refused() {
        assert!(matches!(OptionHeader::parse(&[0; 16]), Err(WrongMagic(0))));
    }
}
