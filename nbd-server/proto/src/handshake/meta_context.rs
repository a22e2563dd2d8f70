//! One meta context of an export.

use crate::Malformed;
use crate::bytes::{Reader, STRING_MAX, clip, text};

/// Data of a META_CONTEXT reply, server to client, big-endian.
///
/// `0: id u32, 0 in lists | 4: name to the end of the data`
/// Source: NBD protocol, `NBD_REP_META_CONTEXT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaContext<'a> {
    /// Id that status chunks will carry; 0 in lists.
    pub id: u32,
    /// `namespace:leaf`.
    pub name: &'a str,
}

impl<'a> MetaContext<'a> {
    /// The context in the data of a whole reply. Errors: too short, bad text.
    pub fn parse(data: &'a [u8]) -> Result<MetaContext<'a>, Malformed> {
        let mut reader = Reader::new(data);
        let id = reader.u32()?;
        Ok(MetaContext {
            id,
            name: text(reader.rest())?,
        })
    }

    /// Appends the data; the name is clipped to 4096 bytes.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(clip(self.name, STRING_MAX).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_context_is_these_bytes() {
        let context = MetaContext {
            id: 1,
            name: "base:allocation",
        };
        let mut out = Vec::new();
        context.encode(&mut out);
        assert_eq!(out, b"\x00\x00\x00\x01base:allocation");
        assert_eq!(MetaContext::parse(&out), Ok(context));
        for cut in 0..4 {
            assert_eq!(MetaContext::parse(&out[..cut]), Err(Malformed::Short));
        }
        assert_eq!(MetaContext::parse(b"\0\0\0\x01a\0"), Err(Malformed::Nul));
    }
}
