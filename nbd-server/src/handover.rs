//! A client's session as bytes, for the process that goes on with it.

use nbd_proto::{
    BlockSizes, ExportInfo, ExportName, Features, Negotiated, ReplyStyle, SelectedContext,
    TransmissionFlags,
};

use crate::connection::Early;

/// Longest name of a context.
const NAME_MAX: usize = 4096;

/// Bytes that are no session of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end early.
    #[error("the session's state is cut short")]
    Short,
    /// A field holds what it may not.
    #[error("the session's state has a wrong {0}")]
    Field(&'static str),
}

/// What was agreed with a client, big-endian; the unparsed bytes of the stream take the rest.
///
/// `0: reply style u8 (0 simple, 1 structured, 2 extended) | 1: read-only u8 | 2: flags u16 |
/// 4: minimum, preferred, maximum block 3 × u32 | 16: size u64 | 24: to skip u32 |
/// 28: count of contexts u16 | 30: contexts {id u32, length u16, name} | bytes`
pub(crate) fn encode(agreed: &Negotiated, skip: u32, early: &[u8]) -> Vec<u8> {
    let ExportInfo {
        size,
        read_only,
        block_sizes,
        ..
    } = &agreed.export;
    let mut out = Vec::with_capacity(64 + early.len());
    out.push(match agreed.replies {
        ReplyStyle::Simple => 0,
        ReplyStyle::Structured => 1,
        ReplyStyle::Extended => 2,
    });
    out.push(u8::from(*read_only));
    out.extend(agreed.flags.0.to_be_bytes());
    out.extend(block_sizes.minimum().to_be_bytes());
    out.extend(block_sizes.preferred().to_be_bytes());
    out.extend(block_sizes.maximum().to_be_bytes());
    out.extend(size.to_be_bytes());
    out.extend(skip.to_be_bytes());
    out.extend((agreed.contexts.len() as u16).to_be_bytes());
    for SelectedContext { id, name } in &agreed.contexts {
        out.extend(id.to_be_bytes());
        out.extend((name.len() as u16).to_be_bytes());
        out.extend(name.as_bytes());
    }
    out.extend(early);
    out
}

/// The session of a client of `export`. Errors: the bytes are not those of [`encode`].
pub(crate) fn decode(export: &str, state: &[u8]) -> Result<(Negotiated, Early), Malformed> {
    let name = ExportName::new(export).map_err(|_| Malformed::Field("export"))?;
    let mut at = Reader(state);
    let replies = match at.u8()? {
        0 => ReplyStyle::Simple,
        1 => ReplyStyle::Structured,
        2 => ReplyStyle::Extended,
        _ => return Err(Malformed::Field("reply style")),
    };
    let read_only = match at.u8()? {
        0 => false,
        1 => true,
        _ => return Err(Malformed::Field("read-only mark")),
    };
    let flags = TransmissionFlags(at.u16()?);
    let (minimum, preferred, maximum) = (at.u32()?, at.u32()?, at.u32()?);
    let block_sizes =
        BlockSizes::new(minimum, preferred, maximum).map_err(|_| Malformed::Field("block size"))?;
    let (size, skip) = (at.u64()?, at.u32()?);
    let count = at.u16()?;
    let mut contexts = Vec::new();
    for _ in 0..count {
        let (id, length) = (at.u32()?, usize::from(at.u16()?));
        if length > NAME_MAX {
            return Err(Malformed::Field("context"));
        }
        let name = std::str::from_utf8(at.bytes(length)?);
        let name = name.map_err(|_| Malformed::Field("context"))?.to_owned();
        contexts.push(SelectedContext { id, name });
    }
    let export = ExportInfo {
        name,
        description: String::new(),
        size,
        read_only,
        features: Features::default(),
        block_sizes,
        contexts: Vec::new(),
    };
    let agreed = Negotiated {
        export,
        flags,
        replies,
        contexts,
        no_zeroes: true,
    };
    Ok((agreed, Early::new(at.0.to_vec(), skip)))
}

/// Why a client's session does not fit the export as it is now; `None` if it does. What a client
/// was told must still be so: it is never told anew.
pub(crate) fn misfit(agreed: &Negotiated, now: &ExportInfo) -> Option<&'static str> {
    let told = &agreed.export;
    let filters = agreed.replies == ReplyStyle::Extended && !agreed.contexts.is_empty();
    let offered = now
        .flags(agreed.replies)
        .with_if(TransmissionFlags::BLOCK_STATUS_PAYLOAD, filters);
    let is_offered = |context: &SelectedContext| now.contexts.contains(&context.name);
    if told.read_only != now.read_only {
        Some("its export changed between read-only and writable")
    } else if told.size > now.size {
        Some("its export is smaller now")
    } else if !offered.contains(agreed.flags) {
        Some("its export can no longer do what the client was told")
    } else if told.block_sizes.minimum() < now.block_sizes.minimum()
        || told.block_sizes.maximum() > now.block_sizes.maximum()
    {
        Some("its export has other block sizes now")
    } else if !agreed.contexts.iter().all(is_offered) {
        Some("its export no longer has a context the client selected")
    } else {
        None
    }
}

/// Takes fields from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, left) = self.0.split_at_checked(count).ok_or(Malformed::Short)?;
        self.0 = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, left) = self.0.split_first_chunk().ok_or(Malformed::Short)?;
        self.0 = left;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use nbd_proto::BASE_ALLOCATION;

    use super::*;

    fn agreed() -> Negotiated {
        let export = ExportInfo {
            name: ExportName::new("disk").unwrap(),
            description: String::new(),
            size: 1 << 32,
            read_only: false,
            features: Features::default(),
            block_sizes: BlockSizes::USUAL,
            contexts: Vec::new(),
        };
        Negotiated {
            export,
            flags: TransmissionFlags(0x0103),
            replies: ReplyStyle::Structured,
            contexts: vec![SelectedContext {
                id: 1,
                name: BASE_ALLOCATION.to_owned(),
            }],
            no_zeroes: true,
        }
    }

    const GOLDEN: &[u8] = b"\x01\x00\x01\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0\0\0\0\x01\0\0\0\0\
        \0\0\0\x09\0\x01\0\0\0\x01\0\x0fbase:allocationearly";

    #[test]
    fn a_session_is_these_bytes() {
        assert_eq!(encode(&agreed(), 9, b"early"), GOLDEN);
        let (read, early) = decode("disk", GOLDEN).unwrap();
        assert_eq!(read, agreed());
        assert_eq!((early.left(), early.to_skip()), (&b"early"[..], 9));
    }

    #[test]
    fn a_session_that_is_cut_short_or_impossible_is_refused() {
        for cut in 0..GOLDEN.len() - 5 {
            let read = decode("disk", &GOLDEN[..cut]).map(|_| ());
            assert_eq!(read, Err(Malformed::Short), "{cut} bytes");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] = byte;
            decode("disk", &bytes).map(|_| ())
        };
        assert_eq!(with(0, 9), Err(Malformed::Field("reply style")));
        assert_eq!(with(1, 2), Err(Malformed::Field("read-only mark")));
        assert_eq!(with(7, 3), Err(Malformed::Field("block size")));
        assert_eq!(with(34, 0xff), Err(Malformed::Field("context")));
        assert_eq!(with(36, 0xff), Err(Malformed::Field("context")));
        assert_eq!(with(28, 0xff), Err(Malformed::Short));
        let name = "x".repeat(5000);
        assert_eq!(
            decode(&name, GOLDEN).map(|_| ()),
            Err(Malformed::Field("export"))
        );
    }

    #[test]
    fn a_client_goes_on_only_where_all_it_was_told_is_still_so() {
        let mut now = ExportInfo {
            features: Features {
                flush: true,
                multi_conn: true,
                ..Features::default()
            },
            contexts: vec![BASE_ALLOCATION.to_owned()],
            ..agreed().export
        };
        let mut told = agreed();
        told.flags = now.flags(told.replies);
        assert_eq!(misfit(&told, &now), None);
        now.size *= 2;
        assert_eq!(misfit(&told, &now), None, "growth is no surprise");
        now.size = 4096;
        assert_eq!(misfit(&told, &now), Some("its export is smaller now"));
        now.size = told.export.size;
        now.contexts.clear();
        let text = "its export no longer has a context the client selected";
        assert_eq!(misfit(&told, &now), Some(text));
    }
}
