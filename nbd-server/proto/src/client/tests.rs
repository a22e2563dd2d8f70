//! The client's half against our server, and against what other servers send.

use super::*;
use crate::fuzzing::fixture::{Fixture, SIZE, disk};
use crate::{
    BASE_ALLOCATION, BlockSizes, BlockStatusWriter, ChunkFlags, ChunkHeader, ChunkKind, Cookie,
    ErrorChunk, ExportName, ExportNameReply, Greeting, HandshakeFlags, Info, Malformed, NbdError,
    Negotiated, Negotiation, NoneChunk, OffsetData, OffsetHole, OptionCode, OptionReply,
    OptionReplyKind, Policy, ReplyStyle, SelectedContext, SimpleReply, StatusExtent, StatusFlags,
    Step, Tls, TransmissionFlags, Wanted, WrongMagic,
};

/// Both halves talk until they agree or one gives up.
fn meet(wish: Wish, policy: Policy) -> Result<(Box<Agreed>, Box<Negotiated>), ClientError> {
    let mut server = Negotiation::new(policy);
    let mut client = ClientNegotiation::new(wish);
    let mut to_client = server.greeting().to_vec();
    let mut agreed = None;
    loop {
        let mut to_server = Vec::new();
        match client.feed(&std::mem::take(&mut to_client), &mut to_server)? {
            ClientStep::Ready { agreed: ready, .. } => agreed = Some(ready),
            ClientStep::NeedMore => {}
            ClientStep::StartTls { .. } => {
                server.secured();
                client.secured(&mut to_server);
            }
        }
        let mut rest = &to_server[..];
        loop {
            match server.feed(rest, &Fixture, &mut to_client) {
                Step::NeedMore => break,
                Step::Continue { consumed } => rest = &rest[consumed..],
                Step::EnterTransmission { negotiated, .. } => {
                    let step = client.feed(&to_client, &mut Vec::new())?;
                    let ClientStep::Ready { consumed, agreed } = step else {
                        panic!("the server entered transmission, the client did not");
                    };
                    assert_eq!(consumed, to_client.len());
                    return Ok((agreed, negotiated));
                }
                Step::StartTls { consumed } => rest = &rest[consumed..],
                Step::Close(reason) => panic!("the server closed: {reason}"),
            }
        }
        assert!(
            agreed.is_none(),
            "the client entered transmission, the server did not"
        );
    }
}

fn name(text: &str) -> ExportName {
    ExportName::new(text).unwrap()
}

#[test]
fn both_halves_agree_on_everything() {
    let (agreed, negotiated) = meet(Wish::full(name("disk")), Policy::default()).unwrap();
    assert_eq!(agreed.size, SIZE);
    assert_eq!(agreed.flags, negotiated.flags);
    assert_eq!(agreed.replies, ReplyStyle::Structured);
    assert_eq!(negotiated.replies, ReplyStyle::Structured);
    assert_eq!(agreed.contexts, negotiated.contexts);
    assert_eq!(
        agreed.contexts,
        [SelectedContext {
            id: 1,
            name: BASE_ALLOCATION.to_owned()
        }]
    );
    assert_eq!(agreed.name.as_deref(), Some("disk"));
    assert_eq!(agreed.description.as_deref(), Some("a disk"));
    assert_eq!(agreed.block_sizes, Some(BlockSizes::USUAL));
    assert!(!agreed.by_export_name);
}

#[test]
fn a_server_without_structured_replies_is_taken_as_it_is() {
    let policy = Policy {
        structured_replies: false,
        no_zeroes: false,
        ..Policy::default()
    };
    let (agreed, negotiated) = meet(Wish::full(name("")), policy).unwrap();
    assert_eq!(agreed.replies, ReplyStyle::Simple);
    assert!(agreed.contexts.is_empty() && negotiated.contexts.is_empty());
    assert_eq!(negotiated.export, disk());
}

#[test]
fn a_refused_export_is_reported_with_the_servers_words() {
    let refused = meet(Wish::simple(name("secondary")), Policy::default());
    let text = "secondary is secondary on beta".to_owned();
    assert_eq!(
        refused,
        Err(ClientError::Refused {
            kind: OptionReplyKind::ERR_POLICY,
            text
        })
    );
    // A failed selection does not hide why the export is refused.
    let refused = meet(Wish::full(name("nothing")), Policy::default());
    assert!(matches!(
        refused,
        Err(ClientError::Refused {
            kind: OptionReplyKind::ERR_UNKNOWN,
            ..
        })
    ));
}

#[test]
fn under_tls_both_halves_agree_as_without() {
    let policy = Policy {
        tls: Tls::Required,
        ..Policy::default()
    };
    for wish in [
        Wish::simple(name("disk")),
        Wish::full(name("disk")),
        Wish::extended(name("disk")),
    ] {
        let (plain, _) = meet(wish.clone(), Policy::default()).unwrap();
        let (secure, _) = meet(Wish { tls: true, ..wish }, policy.clone()).unwrap();
        assert_eq!(secure, plain);
    }
    let refused = meet(Wish::simple(name("disk")), policy);
    assert!(matches!(
        refused,
        Err(ClientError::Refused {
            kind: OptionReplyKind::ERR_TLS_REQD,
            ..
        })
    ));
}

#[test]
fn who_wants_tls_says_nothing_to_a_server_without() {
    let wish = || Wish {
        tls: true,
        ..Wish::full(name("disk"))
    };
    let refused = meet(wish(), Policy::default());
    assert!(matches!(
        refused,
        Err(ClientError::Refused {
            kind: OptionReplyKind::ERR_UNSUP,
            ..
        })
    ));
    let mut old = ClientNegotiation::new(wish());
    let greeting = Greeting {
        flags: HandshakeFlags::NO_ZEROES,
    };
    let step = old.feed(&greeting.encode(), &mut Vec::new());
    assert_eq!(step, Err(ClientError::NoTls));
}

#[test]
fn what_a_server_says_in_the_clear_behind_starttls_is_refused() {
    let wish = Wish {
        tls: true,
        ..Wish::simple(name("disk"))
    };
    let (mut client, out) = greeted(wish, MODERN);
    assert_eq!(out, b"\0\0\0\x03IHAVEOPT\0\0\0\x05\0\0\0\0");
    let mut reply = Vec::new();
    OptionReply {
        option: OptionCode::STARTTLS,
    }
    .ack(&mut reply);
    reply.extend_from_slice(b"early");
    let mut out = Vec::new();
    let step = client.feed(&reply, &mut out);
    assert_eq!(step, Ok(ClientStep::StartTls { consumed: 20 }));
    assert_eq!(
        client.feed(&reply[20..], &mut out),
        Err(ClientError::Plaintext)
    );
    assert!(out.is_empty());
}

/// A client that has been greeted with `flags`, and what it answered.
fn greeted(wish: Wish, flags: HandshakeFlags) -> (ClientNegotiation, Vec<u8>) {
    let mut client = ClientNegotiation::new(wish);
    let mut out = Vec::new();
    let step = client.feed(&Greeting { flags }.encode(), &mut out);
    assert_eq!(step, Ok(ClientStep::NeedMore));
    (client, out)
}

const MODERN: HandshakeFlags = HandshakeFlags(3);

#[test]
fn a_server_that_does_not_know_go_is_asked_by_export_name() {
    for (flags, padding) in [(MODERN, 0), (HandshakeFlags::FIXED_NEWSTYLE, 124)] {
        let (mut client, _) = greeted(Wish::simple(name("disk")), flags);
        let mut reply = Vec::new();
        OptionReply {
            option: OptionCode::GO,
        }
        .error(OptionReplyKind::ERR_UNSUP, "", &mut reply);
        let mut out = Vec::new();
        assert_eq!(client.feed(&reply, &mut out), Ok(ClientStep::NeedMore));
        assert_eq!(out, b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk");
        let mut reply = Vec::new();
        ExportNameReply {
            size: 4096,
            flags: TransmissionFlags(1),
        }
        .encode(padding == 0, &mut reply);
        reply.extend_from_slice(b"next");
        match client.feed(&reply, &mut out) {
            Ok(ClientStep::Ready { consumed, agreed }) => {
                assert_eq!(consumed, 10 + padding);
                assert_eq!((agreed.size, agreed.by_export_name), (4096, true));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_server_without_fixed_newstyle_is_only_asked_by_export_name() {
    let (_, out) = greeted(Wish::full(name("disk")), HandshakeFlags::NONE);
    assert_eq!(out, b"\0\0\0\0IHAVEOPT\0\0\0\x01\0\0\0\x04disk");
}

#[test]
fn a_refused_client_leaves_with_an_abort() {
    let (mut client, _) = greeted(Wish::simple(name("disk")), MODERN);
    let mut reply = Vec::new();
    OptionReply {
        option: OptionCode::GO,
    }
    .error(OptionReplyKind::ERR_POLICY, "no", &mut reply);
    let mut out = Vec::new();
    assert!(client.feed(&reply, &mut out).is_err());
    assert_eq!(out, b"IHAVEOPT\0\0\0\x02\0\0\0\0");
    assert_eq!(client.feed(b"", &mut out), Err(ClientError::Ended));
}

#[test]
fn what_no_server_may_send_ends_the_negotiation() {
    let feed = |bytes: &[u8]| {
        let (mut client, _) = greeted(Wish::simple(name("disk")), MODERN);
        client.feed(bytes, &mut Vec::new())
    };
    let reply = |option, kind, data: &[u8]| {
        let mut out = Vec::new();
        OptionReply { option }.with(kind, &mut out, |out| out.extend_from_slice(data));
        out
    };
    use {OptionCode as O, OptionReplyKind as K};
    assert!(matches!(feed(&[7; 20]), Err(ClientError::ReplyMagic(_))));
    let found = O::LIST;
    let wrong = ClientError::WrongOption {
        expected: O::GO,
        found,
    };
    assert_eq!(feed(&reply(O::LIST, K::ACK, b"")), Err(wrong));
    assert_eq!(
        feed(&reply(O::GO, K::ACK, b"")),
        Err(ClientError::NoExportInfo)
    );
    let unexpected = ClientError::UnexpectedReply {
        option: O::GO,
        kind: K::SERVER,
    };
    assert_eq!(feed(&reply(O::GO, K::SERVER, b"")), Err(unexpected));
    let malformed = ClientError::Malformed {
        option: O::GO,
        cause: Malformed::Short,
    };
    assert_eq!(feed(&reply(O::GO, K::INFO, b"\0\0\0")), Err(malformed));
    let mut sizes = Vec::new();
    Info::BlockSize {
        minimum: 3,
        preferred: 4096,
        maximum: 4096,
    }
    .encode(&mut sizes);
    let wrong = feed(&reply(O::GO, K::INFO, &sizes));
    assert!(matches!(wrong, Err(ClientError::BlockSizes(_))));
    let mut long = reply(O::GO, K::INFO, b"");
    long[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(feed(&long), Err(ClientError::TooMuch(O::GO)));
    let endless = reply(O::GO, K::INFO, b"\0\x63").repeat(10_001);
    assert_eq!(feed(&endless), Err(ClientError::TooMuch(O::GO)));
    let mut client = ClientNegotiation::new(Wish::simple(name("disk")));
    let old = client.feed(b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53\0\0", &mut Vec::new());
    assert_eq!(
        old,
        Err(ClientError::Greeting(WrongMagic(0x0000_4202_8186_1253)))
    );
}

#[test]
fn go_asks_for_what_is_wanted() {
    let wish = Wish {
        wanted: Wanted {
            description: true,
            ..Wanted::default()
        },
        ..Wish::simple(name("d"))
    };
    let (_, out) = greeted(wish, MODERN);
    assert_eq!(
        out,
        b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x09\0\0\0\x01d\0\x01\0\x02"
    );
}

/// The replies in `bytes`; simple successes carry `data` bytes.
fn listen(bytes: &[u8], data: u32) -> Result<Vec<Reply>, ReplyError> {
    let mut replies = Replies::new();
    let (mut at, mut seen) = (0, Vec::new());
    loop {
        let parsed = replies.next(&bytes[at..])?;
        at += parsed.consumed;
        match parsed.reply {
            Reply::More => return Ok(seen),
            Reply::Simple { result: Ok(()), .. } => replies.expect_data(data),
            _ => {}
        }
        seen.push(parsed.reply);
    }
}

#[test]
fn simple_replies_carry_the_data_that_was_asked_for() {
    let mut bytes = SimpleReply {
        result: Ok(()),
        cookie: Cookie(1),
    }
    .encode()
    .to_vec();
    bytes.extend_from_slice(b"data");
    bytes.extend(
        SimpleReply {
            result: Err(NbdError::NoSpace),
            cookie: Cookie(2),
        }
        .encode(),
    );
    let seen = listen(&bytes, 4).unwrap();
    assert_eq!(
        seen,
        [
            Reply::Simple {
                cookie: Cookie(1),
                result: Ok(())
            },
            Reply::Data,
            Reply::Simple {
                cookie: Cookie(2),
                result: Err(NbdError::NoSpace)
            },
        ]
    );
}

#[test]
fn data_received_elsewhere_is_accounted_for() {
    let mut replies = Replies::new();
    let reply = SimpleReply {
        result: Ok(()),
        cookie: Cookie(1),
    }
    .encode();
    replies.next(&reply).unwrap();
    replies.expect_data(4096);
    replies.data_received(4000);
    assert_eq!(replies.data_left(), 96);
    replies.data_received(96);
    assert!(matches!(
        replies.next(&reply).unwrap().reply,
        Reply::Simple { .. }
    ));
}

#[test]
fn chunks_are_read_as_they_were_written() {
    let cookie = Cookie(9);
    let mut out = vec![0; 8192];
    let mut bytes = Vec::new();
    let mut add = |length: usize, out: &[u8]| bytes.extend_from_slice(&out[..length]);
    let n = OffsetData {
        cookie,
        offset: 4096,
        length: 3,
        done: false,
    }
    .encode_into(&mut out);
    add(n, &out);
    add(3, b"abc");
    let n = OffsetHole {
        cookie,
        offset: 4099,
        length: 5,
        done: false,
    }
    .encode_into(&mut out);
    add(n, &out);
    let n = NoneChunk { cookie }.encode_into(&mut out);
    add(n, &out);
    let error = ErrorChunk {
        cookie,
        error: NbdError::Io,
        text: "gone",
        offset: None,
        done: false,
    };
    let n = error.encode_into(&mut out);
    add(n, &out);
    let n = ErrorChunk {
        offset: Some(7),
        done: true,
        ..error
    }
    .encode_into(&mut out);
    add(n, &out);
    let mut writer = BlockStatusWriter::new(cookie, 3, 8192, false, 9, &mut out);
    writer.push(4096, StatusFlags::DATA);
    writer.push(4096, StatusFlags::ZERO);
    let n = writer.finish(true).unwrap();
    add(n, &out);

    let text = "gone".to_owned();
    let extents = vec![
        StatusExtent {
            length: 4096,
            flags: StatusFlags::DATA,
        },
        StatusExtent {
            length: 4096,
            flags: StatusFlags::ZERO,
        },
    ];
    let expected = [
        Reply::OffsetData {
            cookie,
            offset: 4096,
            length: 3,
            done: false,
        },
        Reply::Data,
        Reply::OffsetHole {
            cookie,
            offset: 4099,
            length: 5,
            done: false,
        },
        Reply::None { cookie },
        Reply::Error {
            cookie,
            error: NbdError::Io,
            text: text.clone(),
            offset: None,
            done: false,
        },
        Reply::Error {
            cookie,
            error: NbdError::Io,
            text,
            offset: Some(7),
            done: true,
        },
        Reply::BlockStatus {
            cookie,
            context: 3,
            extents,
            done: true,
        },
    ];
    assert_eq!(listen(&bytes, 0), Ok(expected.to_vec()));
    for cut in 0..bytes.len() {
        assert!(
            listen(&bytes[..cut], 0).is_ok_and(|seen| expected.starts_with(&seen)),
            "{cut}"
        );
    }
}

fn chunk(flags: u16, kind: ChunkKind, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u32;
    let header = ChunkHeader {
        flags: ChunkFlags(flags),
        kind,
        cookie: Cookie(9),
        length,
    };
    [&header.encode()[..], body].concat()
}

#[test]
fn malformed_chunks_end_the_stream() {
    use ChunkKind as K;
    for (kind, body, cause) in [
        (K::OFFSET_DATA, &[0; 8][..], Malformed::Short),
        (K::OFFSET_HOLE, &[0; 11], Malformed::Short),
        (K::OFFSET_HOLE, &[0; 12], Malformed::Forbidden),
        (K::BLOCK_STATUS, &[0; 4], Malformed::Short),
        (K::BLOCK_STATUS, &[1; 11], Malformed::Short),
        (K::BLOCK_STATUS, &[0; 12], Malformed::Forbidden),
        (K::ERROR, b"\0\0\0\x05\0", Malformed::Short),
        (K::ERROR, b"\0\0\0\x05\0\x02x", Malformed::Short),
        (K::ERROR, b"\0\0\0\x05\0\x01xy", Malformed::Trailing(1)),
        (K::ERROR, b"\0\0\0\0\0\0", Malformed::Forbidden),
        (K::ERROR_OFFSET, b"\0\0\0\x05\0\0", Malformed::Short),
    ] {
        let error = ReplyError::Chunk { kind, cause };
        assert_eq!(
            listen(&chunk(1, kind, body), 0),
            Err(error),
            "{kind:?} {body:?}"
        );
    }
    let kind = K::NONE;
    let unfinished = ReplyError::Chunk {
        kind,
        cause: Malformed::Forbidden,
    };
    assert_eq!(listen(&chunk(0, kind, b""), 0), Err(unfinished));
    assert_eq!(
        listen(&chunk(1, kind, b"x"), 0),
        Err(ReplyError::TooLong { kind, length: 1 })
    );
    let unknown = ReplyError::UnknownChunk(K::BLOCK_STATUS_EXT);
    assert_eq!(listen(&chunk(1, K::BLOCK_STATUS_EXT, b""), 0), Err(unknown));
    assert_eq!(listen(&[7; 4], 0), Err(ReplyError::Magic(0x0707_0707)));
}

#[test]
fn an_error_of_a_kind_to_come_is_still_an_error() {
    let bytes = chunk(1, ChunkKind(0x8077), b"\0\0\0\x05\0\x01xmore");
    let text = "x".to_owned();
    let error = NbdError::Io;
    let expected = Reply::Error {
        cookie: Cookie(9),
        error,
        text,
        offset: None,
        done: true,
    };
    assert_eq!(listen(&bytes, 0), Ok(vec![expected]));
}

#[test]
fn a_lost_stream_stays_lost() {
    let mut replies = Replies::new();
    assert!(replies.next(&[7; 20]).is_err());
    let good = SimpleReply {
        result: Ok(()),
        cookie: Cookie(1),
    }
    .encode();
    assert_eq!(replies.next(&good), Err(ReplyError::Magic(0x0707_0707)));
}
