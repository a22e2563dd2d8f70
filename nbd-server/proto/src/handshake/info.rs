//! One information about an export.

use crate::Malformed;
use crate::bytes::{Reader, STRING_MAX, clip, text};
use crate::codes::{InfoKind, TransmissionFlags};

/// Data of an INFO reply, server to client, big-endian.
///
/// `0: kind u16 | 2: by kind`
/// `EXPORT (12): size u64, transmission flags u16` · `NAME, DESCRIPTION: text to the end` ·
/// `BLOCK_SIZE (14): minimum u32, preferred u32, maximum payload u32`
/// Source: NBD protocol, `NBD_REP_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Info<'a> {
    /// Size in bytes and what the export can do.
    Export {
        /// Size of the export, bytes.
        size: u64,
        /// What it can do.
        flags: TransmissionFlags,
    },
    /// The canonical name.
    Name(&'a str),
    /// Text for people.
    Description(&'a str),
    /// Block sizes, not judged.
    BlockSize {
        /// Smallest unit of a request, bytes.
        minimum: u32,
        /// Size that goes well, bytes.
        preferred: u32,
        /// Longest payload, bytes.
        maximum: u32,
    },
    /// A kind this code does not know; clients ignore it.
    Other(InfoKind),
}

impl<'a> Info<'a> {
    /// The information in the data of a whole reply. Errors: lengths that disagree, bad text.
    pub fn parse(data: &'a [u8]) -> Result<Info<'a>, Malformed> {
        let mut reader = Reader::new(data);
        let info = match InfoKind(reader.u16()?) {
            InfoKind::EXPORT => {
                let size = reader.u64()?;
                Info::Export {
                    size,
                    flags: TransmissionFlags(reader.u16()?),
                }
            }
            InfoKind::NAME => Info::Name(text(reader.rest())?),
            InfoKind::DESCRIPTION => Info::Description(text(reader.rest())?),
            InfoKind::BLOCK_SIZE => Info::BlockSize {
                minimum: reader.u32()?,
                preferred: reader.u32()?,
                maximum: reader.u32()?,
            },
            other => {
                reader.rest();
                Info::Other(other)
            }
        };
        reader.end()?;
        Ok(info)
    }

    /// Appends the data; text is clipped to 4096 bytes.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.kind().0.to_be_bytes());
        match self {
            Info::Export { size, flags } => {
                out.extend_from_slice(&size.to_be_bytes());
                out.extend_from_slice(&flags.0.to_be_bytes());
            }
            Info::Name(text) | Info::Description(text) => {
                out.extend_from_slice(clip(text, STRING_MAX).as_bytes());
            }
            Info::BlockSize {
                minimum,
                preferred,
                maximum,
            } => {
                for size in [minimum, preferred, maximum] {
                    out.extend_from_slice(&size.to_be_bytes());
                }
            }
            Info::Other(_) => {}
        }
    }

    /// What the information is about.
    pub fn kind(&self) -> InfoKind {
        match self {
            Info::Export { .. } => InfoKind::EXPORT,
            Info::Name(_) => InfoKind::NAME,
            Info::Description(_) => InfoKind::DESCRIPTION,
            Info::BlockSize { .. } => InfoKind::BLOCK_SIZE,
            Info::Other(kind) => *kind,
        }
    }
}

/// The sizes an export announces, bytes. Always within the protocol's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    minimum: u32,
    preferred: u32,
    maximum: u32,
}

/// Block sizes the protocol forbids to announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongBlockSizes {
    /// The minimum is no power of two in 1..=65536.
    #[error("minimum block size {0} is no power of two between 1 and 65536")]
    Minimum(u32),
    /// The preferred size is no power of two, or below 512 or the minimum.
    #[error("preferred block size {0} is no power of two of at least 512 and the minimum")]
    Preferred(u32),
    /// The maximum is below the preferred size.
    #[error("maximum payload {0} is below the preferred size")]
    Maximum(u32),
}

impl BlockSizes {
    /// What this server announces: requests of any byte range, 4096 go well, payloads to 32 MiB.
    pub const USUAL: BlockSizes = BlockSizes {
        minimum: 1,
        preferred: 4096,
        maximum: 32 << 20,
    };

    /// Sizes for an export. Errors: what the protocol forbids, "Size constraints".
    pub fn new(minimum: u32, preferred: u32, maximum: u32) -> Result<Self, WrongBlockSizes> {
        if !minimum.is_power_of_two() || minimum > 65536 {
            return Err(WrongBlockSizes::Minimum(minimum));
        }
        if !preferred.is_power_of_two() || preferred < minimum.max(512) {
            return Err(WrongBlockSizes::Preferred(preferred));
        }
        if maximum < preferred {
            return Err(WrongBlockSizes::Maximum(maximum));
        }
        Ok(BlockSizes {
            minimum,
            preferred,
            maximum,
        })
    }

    /// Smallest unit of a request, a power of two.
    pub fn minimum(self) -> u32 {
        self.minimum
    }

    /// Size that goes well, a power of two.
    pub fn preferred(self) -> u32 {
        self.preferred
    }

    /// Longest payload of one request or reply.
    pub fn maximum(self) -> u32 {
        self.maximum
    }

    /// As an information for the client.
    pub fn to_info(self) -> Info<'static> {
        let BlockSizes {
            minimum,
            preferred,
            maximum,
        } = self;
        Info::BlockSize {
            minimum,
            preferred,
            maximum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(info: Info<'_>, bytes: &[u8]) {
        let mut out = Vec::new();
        info.encode(&mut out);
        assert_eq!(out, bytes);
        assert_eq!(Info::parse(bytes), Ok(info));
    }

    #[test]
    fn infos_are_these_bytes() {
        let flags = TransmissionFlags(0x0943);
        golden(
            Info::Export {
                size: 1 << 40,
                flags,
            },
            b"\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x09\x43",
        );
        golden(Info::Name("disk"), b"\x00\x01disk");
        golden(Info::Description(""), b"\x00\x02");
        golden(
            BlockSizes::USUAL.to_info(),
            b"\x00\x03\x00\x00\x00\x01\x00\x00\x10\x00\x02\x00\x00\x00",
        );
    }

    #[test]
    fn fixed_infos_refuse_every_other_length() {
        for kind in [0u8, 3] {
            let right = if kind == 0 { 12 } else { 14 };
            for length in 0..32 {
                let mut data = vec![0; length];
                if length > 1 {
                    data[1] = kind;
                }
                assert_eq!(
                    Info::parse(&data).is_ok(),
                    length == right,
                    "kind {kind}: {length}"
                );
            }
        }
    }

    #[test]
    fn an_unknown_info_is_kept_by_kind() {
        assert_eq!(Info::parse(b"\x00\x63junk"), Ok(Info::Other(InfoKind(99))));
    }

    #[test]
    fn forbidden_block_sizes_are_refused() {
        assert_eq!(BlockSizes::new(1, 4096, 32 << 20), Ok(BlockSizes::USUAL));
        assert_eq!(
            BlockSizes::new(0, 4096, 1 << 25),
            Err(WrongBlockSizes::Minimum(0))
        );
        assert_eq!(
            BlockSizes::new(3, 4096, 1 << 25),
            Err(WrongBlockSizes::Minimum(3))
        );
        assert_eq!(
            BlockSizes::new(1 << 17, 1 << 17, 1 << 25),
            Err(WrongBlockSizes::Minimum(1 << 17))
        );
        assert_eq!(
            BlockSizes::new(1, 256, 1 << 25),
            Err(WrongBlockSizes::Preferred(256))
        );
        assert_eq!(
            BlockSizes::new(4096, 512, 1 << 25),
            Err(WrongBlockSizes::Preferred(512))
        );
        assert_eq!(
            BlockSizes::new(1, 4096, 4095),
            Err(WrongBlockSizes::Maximum(4095))
        );
    }
}
