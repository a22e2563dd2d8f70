//! Every message, for any values, comes back as it was sent; shortened, it does not.

use nbd_proto::*;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = ExportName> {
    "[^\0]{0,60}".prop_map(|text| ExportName::new(&text).expect("no NUL, and short"))
}

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,60}"
}

fn error() -> impl Strategy<Value = NbdError> {
    prop::sample::select(NbdError::ALL.to_vec())
}

/// The only reply in `bytes`.
fn reply(bytes: &[u8]) -> Result<Reply, ReplyError> {
    let parsed = Replies::new().next(bytes)?;
    assert_eq!(parsed.consumed, bytes.len());
    Ok(parsed.reply)
}

/// Data is refused at every length below the whole.
fn refused_when_cut(data: &[u8], parses: impl Fn(&[u8]) -> bool) -> bool {
    (0..data.len()).all(|cut| !parses(&data[..cut]))
}

proptest! {
    #[test]
    fn greetings_and_answers(flags in any::<u16>(), client in any::<u32>()) {
        let greeting = Greeting { flags: HandshakeFlags(flags) };
        prop_assert_eq!(Greeting::parse(&greeting.encode()), Ok(Some((greeting, 18))));
        let answer = ClientAnswer { flags: ClientFlags(client) };
        prop_assert_eq!(ClientAnswer::parse(&answer.encode()), Some((answer, 4)));
    }

    #[test]
    fn option_frames(option in any::<u32>(), kind in any::<u32>(), length in any::<u32>()) {
        let option = OptionCode(option);
        let header = OptionHeader { option, length };
        prop_assert_eq!(OptionHeader::parse(&header.encode()), Ok(Some((header, 16))));
        let header = OptionReplyHeader { option, kind: OptionReplyKind(kind), length };
        prop_assert_eq!(OptionReplyHeader::parse(&header.encode()), Ok(Some((header, 20))));
    }

    #[test]
    fn info_requests(name in name(), asked in any::<[bool; 3]>()) {
        let [a, b, c] = asked;
        let wanted = Wanted { name: a, description: b, block_size: c };
        let request = InfoRequest { name, wanted };
        let mut data = Vec::new();
        request.encode(&mut data);
        prop_assert_eq!(InfoRequest::parse(&data), Ok(request));
        prop_assert!(refused_when_cut(&data, |cut| InfoRequest::parse(cut).is_ok()));
    }

    #[test]
    fn infos(size in any::<u64>(), flags in any::<u16>(), text in text(), sizes in any::<[u32; 3]>()) {
        let [minimum, preferred, maximum] = sizes;
        for info in [
            Info::Export { size, flags: TransmissionFlags(flags) },
            Info::Name(&text),
            Info::Description(&text),
            Info::BlockSize { minimum, preferred, maximum },
        ] {
            let mut data = Vec::new();
            info.encode(&mut data);
            prop_assert_eq!(Info::parse(&data), Ok(info));
        }
    }

    #[test]
    fn list_entries(name in text(), description in text()) {
        let entry = ListEntry { name: &name, description: &description };
        let mut data = Vec::new();
        entry.encode(&mut data);
        prop_assert_eq!(ListEntry::parse(&data), Ok(entry));
    }

    #[test]
    fn meta_requests(name in name(), queries in prop::collection::vec(text(), 0..9)) {
        let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
        let mut data = Vec::new();
        MetaRequest::encode(&name, &queries, &mut data);
        let parsed = MetaRequest::parse(&data).unwrap();
        prop_assert_eq!(&parsed.name, &name);
        prop_assert!(parsed.queries.iter().eq(queries.iter().map(|query| query.as_bytes())));
        prop_assert!(refused_when_cut(&data, |cut| MetaRequest::parse(cut).is_ok()));
    }

    #[test]
    fn meta_contexts(id in any::<u32>(), name in text()) {
        let context = MetaContext { id, name: &name };
        let mut data = Vec::new();
        context.encode(&mut data);
        prop_assert_eq!(MetaContext::parse(&data), Ok(context));
    }

    #[test]
    fn export_name_replies(size in any::<u64>(), flags in any::<u16>(), short in any::<bool>()) {
        let reply = ExportNameReply { size, flags: TransmissionFlags(flags) };
        let mut bytes = Vec::new();
        reply.encode(short, &mut bytes);
        prop_assert_eq!(ExportNameReply::parse(&bytes, short), Some((reply, bytes.len())));
    }

    #[test]
    fn requests(
        flags in any::<u16>(),
        kind in any::<u16>(),
        cookie in any::<u64>(),
        offset in any::<u64>(),
        length in any::<u32>(),
    ) {
        let request = Request {
            flags: CommandFlags(flags),
            kind: CommandKind(kind),
            cookie: Cookie(cookie),
            offset,
            length,
        };
        prop_assert_eq!(Request::parse(&request.encode()), Ok(Some((request, 28))));
    }

    #[test]
    fn extended_requests(
        flags in any::<u16>(),
        kind in any::<u16>(),
        cookie in any::<u64>(),
        offset in any::<u64>(),
        length in any::<u64>(),
    ) {
        let request = ExtendedRequest {
            flags: CommandFlags(flags),
            kind: CommandKind(kind),
            cookie: Cookie(cookie),
            offset,
            length,
        };
        prop_assert_eq!(ExtendedRequest::parse(&request.encode()), Ok(Some((request, 32))));
    }

    #[test]
    fn simple_replies(cookie in any::<u64>(), result in prop::result::maybe_err(Just(()), error())) {
        let cookie = Cookie(cookie);
        let bytes = SimpleReply { result, cookie }.encode();
        prop_assert_eq!(reply(&bytes), Ok(Reply::Simple { cookie, result }));
    }

    #[test]
    fn data_and_holes(
        cookie in any::<u64>(),
        offset in any::<u64>(),
        length in 1..=u32::MAX - 8,
        done in any::<bool>(),
    ) {
        let cookie = Cookie(cookie);
        let mut out = [0; 44];
        let used = OffsetData { cookie, offset, length, done }.encode_into(&mut out);
        let data = Reply::OffsetData { cookie, offset, length, done };
        prop_assert_eq!(reply(&out[..used]), Ok(data));
        let wide = OffsetData { cookie, offset, length, done }.encode_extended_into(7, &mut out);
        let data = Reply::OffsetData { cookie, offset, length, done };
        prop_assert_eq!(reply(&out[..wide]), Ok(data));
        let hole = Reply::OffsetHole { cookie, offset, length, done };
        let wide = OffsetHole { cookie, offset, length, done }.encode_extended_into(7, &mut out);
        prop_assert_eq!(reply(&out[..wide]), Ok(hole));
        let wide = NoneChunk { cookie }.encode_extended_into(7, &mut out);
        prop_assert_eq!(reply(&out[..wide]), Ok(Reply::None { cookie }));
        let used = OffsetHole { cookie, offset, length, done }.encode_into(&mut out);
        let hole = Reply::OffsetHole { cookie, offset, length, done };
        prop_assert_eq!(reply(&out[..used]), Ok(hole));
        let used = NoneChunk { cookie }.encode_into(&mut out);
        prop_assert_eq!(reply(&out[..used]), Ok(Reply::None { cookie }));
    }

    #[test]
    fn error_chunks(
        cookie in any::<u64>(),
        error in error(),
        text in text(),
        offset in any::<Option<u64>>(),
        done in any::<bool>(),
    ) {
        let cookie = Cookie(cookie);
        let mut out = [0; 512];
        let used = ErrorChunk { cookie, error, text: &text, offset, done }.encode_into(&mut out);
        let expected = Reply::Error { cookie, error, text: text.clone(), offset, done };
        prop_assert_eq!(reply(&out[..used]), Ok(expected.clone()));
        let chunk = ErrorChunk { cookie, error, text: &text, offset, done };
        let used = chunk.encode_extended_into(9, &mut out);
        prop_assert_eq!(reply(&out[..used]), Ok(expected));
    }

    /// What the writer makes of any runs tells the same as the runs, as far as it goes, and keeps
    /// the protocol's rules on lengths.
    #[test]
    fn block_status(
        runs in prop::collection::vec((0u64..100_000, 0u64..3), 1..60),
        wide in any::<bool>(),
        requested in 1u64..2_000_000,
        one in any::<bool>(),
        extents_max in 1usize..20,
    ) {
        let mut out = [0; 40 + 16 * 12];
        let cookie = Cookie(9);
        let out = if wide { &mut out[..] } else { &mut out[..24 + 8 * 12] };
        let room = &mut *out;
        let mut writer = if wide {
            BlockStatusWriter::new_extended(cookie, 5, 1, requested, one, extents_max, room)
        } else {
            BlockStatusWriter::new(cookie, 1, requested, one, extents_max, room)
        };
        for (length, flags) in &runs {
            if !writer.push(*length, StatusFlags(*flags)) {
                break;
            }
        }
        let Some(used) = writer.finish(true) else {
            prop_assert!(runs.iter().all(|(length, _)| *length == 0));
            return Ok(());
        };
        let Ok(Reply::BlockStatus { extents, .. }) = reply(&out[..used]) else {
            panic!("not a block status");
        };
        prop_assert!(extents.len() <= extents_max.min(12));
        prop_assert!(extents.windows(2).all(|pair| pair[0].flags != pair[1].flags), "merged");
        let before_last: u64 =
            extents[..extents.len() - 1].iter().map(|extent| extent.length).sum();
        prop_assert!(before_last < requested);
        if one {
            prop_assert_eq!(extents.len(), 1);
            prop_assert!(extents[0].length <= requested);
        }
        // Where each run begins, its status is the one reported there.
        let mut begin = 0;
        let total: u64 = extents.iter().map(|extent| extent.length).sum();
        for (length, flags) in runs {
            for at in [begin, begin + length.saturating_sub(1)] {
                if length > 0 && at < total {
                    prop_assert_eq!(status_at(&extents, at), flags);
                }
            }
            begin += length;
        }
    }
}

fn status_at(extents: &[StatusExtent], at: u64) -> u64 {
    let mut end = 0;
    for extent in extents {
        end += extent.length;
        if at < end {
            return extent.flags.0;
        }
    }
    panic!("{at} is not covered");
}
