//! Where fuzzing starts: one small, valid or barely invalid input per case.

use crate::{
    BlockStatusWriter, ChunkHeader, CommandFlags, CommandKind, Cookie, ErrorChunk, ExportName,
    ExportNameReply, ExtendedChunkHeader, ExtendedRequest, Greeting, HandshakeFlags, Info,
    InfoRequest, ListEntry, MetaContext, MetaRequest, NbdError, NoneChunk, OffsetData, OffsetHole,
    OptionCode, OptionHeader, OptionReply, OptionReplyKind, Request, SimpleReply, StatusFlags,
    TransmissionFlags, Wanted,
};

/// Every seed: target, name, bytes. Files of the same names are checked in.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut all = Vec::new();
    for (target, of_target) in [
        ("option_request", option_requests()),
        ("info_request", info_requests()),
        ("meta_request", meta_requests()),
        ("request", requests()),
        ("extended_request", extended_requests()),
        ("client_negotiation", negotiations()),
        ("client_replies", replies()),
        ("uri", uris()),
        ("connection", connections()),
    ] {
        all.extend(
            of_target
                .into_iter()
                .map(|(name, bytes)| (target, name, bytes)),
        );
    }
    all
}

type Seeds = Vec<(&'static str, Vec<u8>)>;

fn option(option: OptionCode, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    OptionHeader::encode_with(option, data, &mut out);
    out
}

fn info(name: &str, wanted: Wanted) -> Vec<u8> {
    let mut out = Vec::new();
    let name = ExportName::new(name).unwrap_or_default();
    InfoRequest { name, wanted }.encode(&mut out);
    out
}

fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    MetaRequest::encode(
        &ExportName::new(name).unwrap_or_default(),
        queries,
        &mut out,
    );
    out
}

fn ask(kind: CommandKind, flags: CommandFlags, offset: u64, length: u32) -> Vec<u8> {
    Request {
        flags,
        kind,
        cookie: Cookie(0x0807_0605_0403_0201),
        offset,
        length,
    }
    .encode()
    .to_vec()
}

fn ask_wide(kind: CommandKind, flags: CommandFlags, offset: u64, length: u64) -> Vec<u8> {
    ExtendedRequest {
        flags,
        kind,
        cookie: Cookie(0x0807_0605_0403_0201),
        offset,
        length,
    }
    .encode()
    .to_vec()
}

/// A BLOCK_STATUS of `length` bytes in the contexts `ids`.
fn filtered(offset: u64, length: u64, ids: &[u32]) -> Vec<u8> {
    let payload = 8 + 4 * ids.len() as u64;
    let flags = CommandFlags::PAYLOAD_LEN;
    let mut out = ask_wide(CommandKind::BLOCK_STATUS, flags, offset, payload);
    out.extend_from_slice(&length.to_be_bytes());
    ids.iter()
        .for_each(|id| out.extend_from_slice(&id.to_be_bytes()));
    out
}

const ALL: Wanted = Wanted {
    name: true,
    description: true,
    block_size: true,
};

fn option_requests() -> Seeds {
    vec![
        ("go", option(OptionCode::GO, &info("disk", ALL))),
        ("unknown", option(OptionCode(77), b"data")),
        (
            "absurd",
            OptionHeader {
                option: OptionCode::LIST,
                length: u32::MAX,
            }
            .encode()
            .to_vec(),
        ),
        ("wrong-magic", vec![0x55; 16]),
    ]
}

fn info_requests() -> Seeds {
    vec![
        ("default", info("", Wanted::default())),
        ("all", info("disk", ALL)),
        (
            "unknown-kinds",
            b"\0\0\0\x01d\0\x03\0\x03\0\x03\x12\x34".to_vec(),
        ),
        ("overrun", b"\0\0\x10\0disk\0\0".to_vec()),
        ("nul", b"\0\0\0\x03d\0k\0\0".to_vec()),
        ("not-utf8", b"\0\0\0\x02\xff\xfe\0\0".to_vec()),
    ]
}

fn meta_requests() -> Seeds {
    vec![
        ("none", meta("disk", &[])),
        ("allocation", meta("disk", &["base:allocation"])),
        (
            "wildcards",
            meta("", &["base:", "qemu:", "", "base:allocation"]),
        ),
        (
            "overrun",
            b"\0\0\0\x04disk\0\0\0\x01\0\0\0\x20base:".to_vec(),
        ),
        ("countless", b"\0\0\0\0\xff\xff\xff\xff".to_vec()),
    ]
}

fn requests() -> Seeds {
    use {CommandFlags as F, CommandKind as C};
    vec![
        ("read", ask(C::READ, F::DF, 0, 4096)),
        ("write", ask(C::WRITE, F::FUA, 512, 512)),
        ("flush", ask(C::FLUSH, F::NONE, 0, 0)),
        ("trim-past-end", ask(C::TRIM, F::NONE, (64 << 20) - 1, 2)),
        (
            "zeroes",
            ask(C::WRITE_ZEROES, F::NO_HOLE.with(F::FAST_ZERO), 0, 1 << 20),
        ),
        ("status", ask(C::BLOCK_STATUS, F::REQ_ONE, 0, u32::MAX)),
        (
            "offset-overflow",
            ask(C::WRITE, F::NONE, u64::MAX, u32::MAX),
        ),
        ("unknown", ask(CommandKind(99), CommandFlags(0xffff), 1, 1)),
        ("extended", [&b"\x21\xe4\x1c\x71"[..], &[0; 28]].concat()),
    ]
}

fn extended_requests() -> Seeds {
    use {CommandFlags as F, CommandKind as C};
    vec![
        ("read", ask_wide(C::READ, F::DF, 0, 4096)),
        ("read-absurd", ask_wide(C::READ, F::NONE, 0, u64::MAX)),
        (
            "write",
            ask_wide(C::WRITE, F::FUA.with(F::PAYLOAD_LEN), 512, 512),
        ),
        ("write-without-payload", ask_wide(C::WRITE, F::NONE, 0, 512)),
        (
            "write-too-long",
            ask_wide(C::WRITE, F::PAYLOAD_LEN, 0, (32 << 20) + 1),
        ),
        (
            "zeroes-all",
            ask_wide(C::WRITE_ZEROES, F::NONE, 0, 64 << 20),
        ),
        ("trim-with-payload", ask_wide(C::TRIM, F::PAYLOAD_LEN, 0, 8)),
        ("cache-past-end", ask_wide(C::CACHE, F::NONE, 1, 64 << 20)),
        (
            "status-all",
            ask_wide(C::BLOCK_STATUS, F::NONE, 0, 64 << 20),
        ),
        ("status-filtered", filtered(0, 64 << 20, &[2])),
        ("status-both", filtered(512, 4096, &[2, 1])),
        ("status-twice", filtered(0, 4096, &[1, 1])),
        ("status-unknown", filtered(0, 4096, &[9])),
        (
            "status-short-filter",
            ask_wide(C::BLOCK_STATUS, F::PAYLOAD_LEN, 0, 8),
        ),
        ("status-long-filter", filtered(0, 4096, &[1, 2, 1])),
        ("compact", ask(C::READ, F::NONE, 0, 512)),
    ]
}

/// What servers send before transmission, after the byte of the target.
fn negotiations() -> Seeds {
    let greeting = |flags| Greeting { flags }.encode();
    let modern = HandshakeFlags::FIXED_NEWSTYLE.with(HandshakeFlags::NO_ZEROES);
    let reply = |option| OptionReply { option };
    let flags = TransmissionFlags(0x0943);

    let mut full = [&[0][..], &greeting(modern)].concat();
    reply(OptionCode::STRUCTURED_REPLY).ack(&mut full);
    let set = reply(OptionCode::SET_META_CONTEXT);
    set.with(OptionReplyKind::META_CONTEXT, &mut full, |out| {
        MetaContext {
            id: 1,
            name: "base:allocation",
        }
        .encode(out);
    });
    set.ack(&mut full);
    let go = reply(OptionCode::GO);
    for info in [
        Info::Export {
            size: 1 << 30,
            flags,
        },
        Info::Name("disk"),
        Info::Description("a disk"),
        Info::BlockSize {
            minimum: 1,
            preferred: 4096,
            maximum: 32 << 20,
        },
    ] {
        go.with(OptionReplyKind::INFO, &mut full, |out| info.encode(out));
    }
    go.ack(&mut full);
    full.extend_from_slice(b"left over");

    let mut old = [&[1][..], &greeting(HandshakeFlags::FIXED_NEWSTYLE)].concat();
    reply(OptionCode::STRUCTURED_REPLY).error(OptionReplyKind::ERR_UNSUP, "", &mut old);
    go.error(OptionReplyKind::ERR_UNSUP, "", &mut old);
    ExportNameReply {
        size: 1 << 30,
        flags,
    }
    .encode(false, &mut old);

    let mut secure = [&[6][..], &greeting(modern)].concat();
    reply(OptionCode::STARTTLS).ack(&mut secure);
    secure.extend_from_slice(&full[1 + Greeting::LEN..]);
    let mut insecure = [&[6][..], &greeting(modern)].concat();
    reply(OptionCode::STARTTLS).error(OptionReplyKind::ERR_UNSUP, "", &mut insecure);

    let mut refused = [&[2][..], &greeting(modern)].concat();
    go.error(
        OptionReplyKind::ERR_POLICY,
        "secondary on beta",
        &mut refused,
    );

    let mut unfixed = [&[3][..], &greeting(HandshakeFlags::NONE)].concat();
    ExportNameReply {
        size: 1 << 30,
        flags,
    }
    .encode(false, &mut unfixed);

    let mut stray = [&[2][..], &greeting(modern)].concat();
    reply(OptionCode::LIST).with(OptionReplyKind::SERVER, &mut stray, |out| {
        ListEntry {
            name: "disk",
            description: "",
        }
        .encode(out);
    });
    let mut wide = [&[4][..], &greeting(modern)].concat();
    reply(OptionCode::EXTENDED_HEADERS).ack(&mut wide);
    set.ack(&mut wide);
    go.with(OptionReplyKind::INFO, &mut wide, |out| {
        Info::Export {
            size: 1 << 40,
            flags,
        }
        .encode(out);
    });
    go.ack(&mut wide);
    vec![
        ("extended", wide),
        ("full", full),
        ("old", old),
        ("refused", refused),
        ("tls", secure),
        ("tls-refused", insecure),
        ("unfixed", unfixed),
        ("stray", stray),
    ]
}

/// What servers send in transmission, after the byte of the target.
fn replies() -> Seeds {
    let cookie = Cookie(0x0100 + 5);
    let mut simple = vec![4];
    simple.extend_from_slice(
        &SimpleReply {
            result: Ok(()),
            cookie,
        }
        .encode(),
    );
    simple.extend_from_slice(b"hello");
    simple.extend_from_slice(
        &SimpleReply {
            result: Err(NbdError::Io),
            cookie,
        }
        .encode(),
    );

    let mut room = [0; 128];
    let mut chunks = vec![5];
    let data = OffsetData {
        cookie,
        offset: 0,
        length: 5,
        done: false,
    };
    let used = data.encode_into(&mut room);
    chunks.extend_from_slice(&room[..used]);
    chunks.extend_from_slice(b"hello");
    let used = OffsetHole {
        cookie,
        offset: 5,
        length: 11,
        done: false,
    }
    .encode_into(&mut room);
    chunks.extend_from_slice(&room[..used]);
    let used = NoneChunk { cookie }.encode_into(&mut room);
    chunks.extend_from_slice(&room[..used]);
    for offset in [None, Some(4096)] {
        let error = ErrorChunk {
            cookie,
            error: NbdError::Io,
            text: "gone",
            offset,
            done: true,
        };
        let used = error.encode_into(&mut room);
        chunks.extend_from_slice(&room[..used]);
    }
    let mut status = vec![6];
    let mut writer = BlockStatusWriter::new(cookie, 1, 8192, false, 8, &mut room);
    writer.push(4096, StatusFlags::DATA);
    writer.push(4096, StatusFlags::HOLE_ZERO);
    let used = writer.finish(true).unwrap_or(0);
    status.extend_from_slice(&room[..used]);

    let mut endless = vec![7];
    let header = ChunkHeader {
        flags: crate::ChunkFlags::DONE,
        kind: crate::ChunkKind::BLOCK_STATUS,
        cookie,
        length: u32::MAX,
    };
    endless.extend_from_slice(&header.encode());
    let mut wide = vec![8];
    let used = data.encode_extended_into(0, &mut room);
    wide.extend_from_slice(&room[..used]);
    wide.extend_from_slice(b"hello");
    let used = OffsetHole {
        cookie,
        offset: 5,
        length: 11,
        done: false,
    }
    .encode_extended_into(0, &mut room);
    wide.extend_from_slice(&room[..used]);
    let used = NoneChunk { cookie }.encode_extended_into(0, &mut room);
    wide.extend_from_slice(&room[..used]);
    let error = ErrorChunk {
        cookie,
        error: NbdError::Io,
        text: "gone",
        offset: Some(4096),
        done: true,
    };
    let used = error.encode_extended_into(0, &mut room);
    wide.extend_from_slice(&room[..used]);
    let mut writer = BlockStatusWriter::new_extended(cookie, 0, 1, 1 << 40, false, 8, &mut room);
    writer.push(4096, StatusFlags::DATA);
    writer.push(1 << 40, StatusFlags::HOLE_ZERO);
    let used = writer.finish(true).unwrap_or(0);
    wide.extend_from_slice(&room[..used]);

    let mut endless_wide = vec![9];
    let header = ExtendedChunkHeader {
        flags: crate::ChunkFlags::DONE,
        kind: crate::ChunkKind::OFFSET_DATA,
        cookie,
        offset: 0,
        length: u64::MAX,
    };
    endless_wide.extend_from_slice(&header.encode());
    vec![
        ("extended", wide),
        ("extended-endless", endless_wide),
        ("simple", simple),
        ("chunks", chunks),
        ("status", status),
        ("endless", endless),
    ]
}

fn uris() -> Seeds {
    [
        ("tcp", "nbd://example.org:10810/disk"),
        ("default-port", "nbd://10.0.0.1/"),
        ("ipv6", "nbd://[fe80::1]:10809/a%20b"),
        ("unix", "nbd+unix:///disk?socket=/run/pollux%2Fnbd.sock"),
        ("tls", "nbds://alpha/vm-store"),
        (
            "tls-certificates",
            "nbds+unix:///a?socket=/s&tls-certificates=/etc/tls%20a",
        ),
        ("user", "nbd://me@alpha/"),
    ]
    .map(|(name, text)| (name, text.as_bytes().to_vec()))
    .into()
}

/// What clients send after the greeting, after the two bytes of the target.
fn connections() -> Seeds {
    use {CommandFlags as F, CommandKind as C};
    let modern = 3u32.to_be_bytes();
    let abort = option(OptionCode::ABORT, b"");
    let requests = [
        ask(C::READ, F::NONE, 0, 512),
        ask(C::WRITE, F::FUA, 0, 8),
        b"payload.".to_vec(),
        ask(C::WRITE, F::NONE, 64 << 20, 8),
        b"dropped.".to_vec(),
        ask(C::BLOCK_STATUS, F::NONE, 0, 4096),
        ask(C::FLUSH, F::NONE, 0, 0),
        ask(C::DISC, F::NONE, 0, 0),
    ]
    .concat();
    let structured = [
        option(OptionCode::STRUCTURED_REPLY, b""),
        option(OptionCode::LIST_META_CONTEXT, &meta("disk", &["base:"])),
        option(
            OptionCode::SET_META_CONTEXT,
            &meta("disk", &["base:allocation"]),
        ),
        option(OptionCode::INFO, &info("disk", ALL)),
        option(OptionCode::GO, &info("disk", ALL)),
    ]
    .concat();
    let extended = [
        option(OptionCode::STRUCTURED_REPLY, b""),
        option(OptionCode::EXTENDED_HEADERS, b"data"),
        option(OptionCode::EXTENDED_HEADERS, b""),
        option(OptionCode::STRUCTURED_REPLY, b""),
        option(
            OptionCode::SET_META_CONTEXT,
            &meta("disk", &["base:allocation", "x-pollux:replicated"]),
        ),
        option(OptionCode::GO, &info("disk", ALL)),
        ask_wide(C::READ, F::NONE, 0, 512),
        ask_wide(C::WRITE, F::FUA.with(F::PAYLOAD_LEN), 0, 8),
        b"payload.".to_vec(),
        ask_wide(C::WRITE, F::NONE, 0, 1 << 40),
        ask_wide(C::TRIM, F::PAYLOAD_LEN, 0, 8),
        b"dropped.".to_vec(),
        ask_wide(C::WRITE_ZEROES, F::NONE, 0, 64 << 20),
        ask_wide(C::BLOCK_STATUS, F::REQ_ONE, 0, 64 << 20),
        filtered(0, 64 << 20, &[2]),
        filtered(0, 64 << 20, &[2, 2]),
        filtered(0, 64 << 20, &[1, 2, 3]),
        ask_wide(C::CACHE, F::NONE, 0, 64 << 20),
        ask_wide(C::WRITE, F::PAYLOAD_LEN, 0, (32 << 20) + 1),
    ]
    .concat();
    let by_name = [
        option(OptionCode::EXTENDED_HEADERS, b""),
        option(OptionCode::EXPORT_NAME, b"disk"),
    ]
    .concat();
    let refused = [
        option(OptionCode::PEEK_EXPORT, b""),
        option(OptionCode::STARTTLS, b""),
        option(OptionCode::GO, &info("secondary", ALL)),
        option(OptionCode::GO, &info("nothing", ALL)),
        option(OptionCode::LIST, b"data"),
        option(OptionCode(77), b"data"),
        abort.clone(),
    ]
    .concat();
    let wild = [ask(C::WRITE, F::NONE, 0, u32::MAX), vec![0xaa; 64]].concat();
    let plain = option(OptionCode::GO, &info("plain", ALL));
    let kernel = [
        option(OptionCode::EXPORT_NAME, b"read-only"),
        requests.clone(),
    ]
    .concat();
    vec![
        ("extended", [&[0, 0], &modern[..], &extended].concat()),
        (
            "extended-by-name",
            [&[0, 0], &modern[..], &by_name].concat(),
        ),
        (
            "structured",
            [&[0, 0], &modern[..], &structured, &requests].concat(),
        ),
        (
            "export-name",
            [&[1, 0], &1u32.to_be_bytes()[..], &kernel].concat(),
        ),
        ("refused", [&[2, 0], &modern[..], &refused].concat()),
        (
            "list-abort",
            [&[4, 0], &modern[..], &option(OptionCode::LIST, b""), &abort].concat(),
        ),
        (
            "closed-policy",
            [&[6, 6], &modern[..], &structured, &requests].concat(),
        ),
        (
            "absurd-write",
            [&[8, 0], &modern[..], &plain, &wild].concat(),
        ),
        (
            "unknown-flags",
            [&[10, 0], &7u32.to_be_bytes()[..], &abort].concat(),
        ),
        (
            "no-zeroes-not-offered",
            [&[12, 1], &modern[..], &abort].concat(),
        ),
    ]
}
