//! What INFO and GO ask.

use crate::bytes::{Reader, put_string};
use crate::codes::InfoKind;
use crate::{ExportName, Malformed};

/// Data of INFO and GO, client to server, big-endian.
///
/// `0: name length u32 | 4: name | count u16 | count × info kind u16`
/// Source: NBD protocol, `NBD_OPT_INFO`, `NBD_OPT_GO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoRequest {
    /// The export asked for.
    pub name: ExportName,
    /// Which of the kinds we know were asked for; repeats and unknown kinds are dropped.
    pub wanted: Wanted,
}

/// The kinds of information a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The canonical name.
    pub name: bool,
    /// The text for people.
    pub description: bool,
    /// The block sizes.
    pub block_size: bool,
}

impl InfoRequest {
    /// The request in the data of a whole option.
    /// Errors: lengths that disagree, a bad name. Unknown kinds are ignored, as the protocol asks.
    pub fn parse(data: &[u8]) -> Result<InfoRequest, Malformed> {
        let mut reader = Reader::new(data);
        let name = reader.string()?;
        let count = reader.u16()?;
        let mut wanted = Wanted::default();
        for _ in 0..count {
            match InfoKind(reader.u16()?) {
                InfoKind::NAME => wanted.name = true,
                InfoKind::DESCRIPTION => wanted.description = true,
                InfoKind::BLOCK_SIZE => wanted.block_size = true,
                _ => {}
            }
        }
        reader.end()?;
        // The frame is judged before the name: a name can only be unknown in a sound request.
        Ok(InfoRequest {
            name: ExportName::from_wire(name)?,
            wanted,
        })
    }

    /// Appends the data.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Wanted {
            name,
            description,
            block_size,
        } = self.wanted;
        put_string(self.name.as_str(), out);
        let kinds = [
            (name, InfoKind::NAME),
            (description, InfoKind::DESCRIPTION),
            (block_size, InfoKind::BLOCK_SIZE),
        ];
        let count = kinds.iter().filter(|(asked, _)| *asked).count() as u16;
        out.extend_from_slice(&count.to_be_bytes());
        for (_, kind) in kinds.iter().filter(|(asked, _)| *asked) {
            out.extend_from_slice(&kind.0.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_request_is_these_bytes() {
        let request = InfoRequest {
            name: ExportName::new("disk").unwrap(),
            wanted: Wanted {
                name: false,
                description: true,
                block_size: true,
            },
        };
        let mut out = Vec::new();
        request.encode(&mut out);
        assert_eq!(out, b"\x00\x00\x00\x04disk\x00\x02\x00\x02\x00\x03");
        assert_eq!(InfoRequest::parse(&out), Ok(request));
        for cut in 0..out.len() {
            assert!(InfoRequest::parse(&out[..cut]).is_err(), "{cut} bytes");
        }
        out.push(0);
        assert_eq!(InfoRequest::parse(&out), Err(Malformed::Trailing(1)));
    }

    #[test]
    fn unknown_and_repeated_kinds_are_ignored() {
        let parsed = InfoRequest::parse(b"\0\0\0\0\x00\x04\x00\x03\x00\x03\x00\x00\x77\x77");
        let wanted = Wanted {
            block_size: true,
            ..Wanted::default()
        };
        assert_eq!(
            parsed,
            Ok(InfoRequest {
                name: ExportName::default(),
                wanted
            })
        );
    }

    #[test]
    fn a_count_that_overruns_is_refused() {
        assert_eq!(
            InfoRequest::parse(b"\0\0\0\0\xff\xff\0\x03"),
            Err(Malformed::Short)
        );
    }

    #[test]
    fn a_bad_name_is_refused_by_its_own_cause() {
        assert_eq!(
            InfoRequest::parse(b"\0\0\0\x02a\0\0\0"),
            Err(Malformed::Nul)
        );
        assert_eq!(
            InfoRequest::parse(b"\0\0\0\x02a\xff\0\0"),
            Err(Malformed::NotUtf8)
        );
        let mut long = 4097u32.to_be_bytes().to_vec();
        long.resize(4 + 4097 + 2, 0);
        assert_eq!(
            InfoRequest::parse(&long),
            Err(Malformed::StringTooLong(4097))
        );
    }
}
