//! One export of a list.

use crate::Malformed;
use crate::bytes::{Reader, STRING_MAX, clip, put_string, text};

/// Data of a SERVER reply, server to client, big-endian.
///
/// `0: name length u32 | 4: name | 4 + n: description up to the end of the data`
/// Source: NBD protocol, `NBD_REP_SERVER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry<'a> {
    /// Name of the export; at most 4096 bytes.
    pub name: &'a str,
    /// Text for people, may be empty.
    pub description: &'a str,
}

impl<'a> ListEntry<'a> {
    /// The entry in the data of a whole reply. Errors: lengths that disagree, bad strings.
    pub fn parse(data: &'a [u8]) -> Result<ListEntry<'a>, Malformed> {
        let mut reader = Reader::new(data);
        let name = text(reader.string()?)?;
        let description = text(reader.rest())?;
        Ok(ListEntry { name, description })
    }

    /// Appends the data; strings are clipped to 4096 bytes.
    pub fn encode(self, out: &mut Vec<u8>) {
        put_string(clip(self.name, STRING_MAX), out);
        out.extend_from_slice(clip(self.description, STRING_MAX).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_entry_is_these_bytes() {
        let entry = ListEntry {
            name: "disk",
            description: "db",
        };
        let mut out = Vec::new();
        entry.encode(&mut out);
        assert_eq!(out, b"\x00\x00\x00\x04diskdb");
        assert_eq!(ListEntry::parse(&out), Ok(entry));
        for cut in 0..8 {
            assert!(ListEntry::parse(&out[..cut]).is_err(), "{cut} bytes");
        }
    }

    #[test]
    fn a_name_longer_than_its_reply_is_refused() {
        assert_eq!(
            ListEntry::parse(b"\x00\x00\x00\x05disk"),
            Err(Malformed::Overrun)
        );
    }
}
