//! What is not in the protocol, or no longer: refused by name, and the stream stays in step.

use std::time::Duration;

use conformance::raw::{self, Raw, Style, cmd, err, opt, rep};

use crate::stage::{Stage, Witness};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn what_the_protocol_does_not_know_is_refused_and_nobody_else_notices() {
    let stage = Stage::new("", "memory");
    let witness = Witness::start(&stage);
    let before = stage.vitals();
    client_flags(&stage);
    options(&stage);
    magics(&stage);
    commands_and_flags(&stage, Style::Simple);
    commands_and_flags(&stage, Style::Structured);
    commands_and_flags(&stage, Style::Extended);
    other_protocols(&stage);
    witness.goes_on(10);
    stage.until_clients(1, &before);
}

fn client_flags(stage: &Stage) {
    for bit in 2..32 {
        let mut client = stage.connect();
        client.hello(3 | 1 << bit);
        assert!(
            client.is_closed_within(SOON),
            "client flag {bit} is not refused"
        );
    }
    // Without FIXED_NEWSTYLE only EXPORT_NAME is possible.
    let mut client = stage.connect();
    client.hello(0);
    client
        .send(&raw::option(opt::LIST, &[]))
        .expect("it is taken");
    assert!(client.is_closed_within(SOON));
    let mut client = stage.connect();
    client.hello(0);
    client
        .send(&raw::option(opt::EXPORT_NAME, b"v"))
        .expect("it is taken");
    let mut reply = [0xff; 8 + 2 + 124];
    client
        .read_exact(&mut reply)
        .expect("EXPORT_NAME is served");
    assert_eq!(reply[10..], [0; 124]);
    client
        .send(&raw::request(0, cmd::READ, 1, 0, 512))
        .expect("it is taken");
    assert_eq!(client.reply(512).expect("it is served").error, 0);
}

fn options(stage: &Stage) {
    let mut client = stage.connect();
    client.hello(3);
    for code in (12..64).chain([0, 4, 0x7fff_ffff, 0x8000_0000, u32::MAX]) {
        assert_eq!(
            client.verdict(code, b"data"),
            rep::ERR_UNSUP,
            "option {code}"
        );
    }
    // The same options, all sent before the first answer is read.
    let many: Vec<u8> = (100..200)
        .flat_map(|code| raw::option(code, b"x"))
        .collect();
    client.send(&many).expect("options are taken");
    for code in 100..200 {
        let replies = client.option_replies(code).expect("each is answered");
        assert_eq!(replies[0].0, rep::ERR_UNSUP);
    }
    // A thousand options without a choice are no client.
    let mut refused = 0;
    while refused < 2000 && client.ask(12, &[]).is_ok() {
        refused += 1;
    }
    assert!(refused < 1000, "{refused} options were answered");
}

fn magics(stage: &Stage) {
    for wrong in [*b"IHAVEOPU", *b"NBDMAGIC", [0; 8], [0xff; 8]] {
        let mut client = stage.connect();
        client.hello(3);
        client.send(&wrong).expect("it is taken");
        client.send(&[0; 8]).expect("it is taken");
        assert!(client.is_closed_within(SOON), "option magic {wrong:x?}");
    }
    let wrong = [0u32, u32::MAX, 0x2560_9514, 0x6744_6698, 0x668e_33ef];
    let wrong = wrong.map(|magic| [(magic, Style::Simple), (magic, Style::Extended)]);
    // Each kind of header is wrong where the other was agreed.
    let crossed = [
        (raw::EXTENDED_MAGIC, Style::Simple),
        (raw::EXTENDED_MAGIC, Style::Structured),
        (raw::REQUEST_MAGIC, Style::Extended),
    ];
    for (magic, style) in wrong.into_iter().flatten().chain(crossed) {
        let header = |kind, cookie, length| match style {
            Style::Extended => raw::extended_request(0, kind, cookie, 0, length),
            _ => raw::request(0, kind, cookie, 0, length as u32),
        };
        let mut client = stage.attach(style);
        let mut wrong = header(cmd::READ, 1, 512);
        wrong[..4].copy_from_slice(&magic.to_be_bytes());
        // A good request before it may be answered; none behind it is.
        client
            .send(&header(cmd::READ, 5, 512))
            .expect("it is taken");
        client.send(&wrong).expect("it is taken");
        // It may be closed before it took this.
        let _ = client.send(&header(cmd::FLUSH, 6, 0));
        assert!(
            client.is_closed_within(SOON),
            "{style:?}: request magic {magic:#x}"
        );
    }
}

fn commands_and_flags(stage: &Stage, style: Style) {
    let mut client = stage.attach(style);
    for kind in (8..=0x20).chain([0x7fff, 0x8000, u16::MAX]) {
        let error = error_of(&mut client, 0, kind, 0);
        assert_eq!(error, err::EINVAL, "{style:?}: command {kind}");
    }
    // Flags of each command; FUA is accepted on all of them (section 3.1).
    let (fua, no_hole, df, req_one, fast_zero) = (1, 2, 4, 8, 16);
    let structured = if style == Style::Simple { 0 } else { df };
    let table = [
        (cmd::READ, fua | structured),
        (cmd::WRITE, fua),
        (cmd::FLUSH, fua),
        (cmd::TRIM, fua),
        (cmd::CACHE, fua),
        (cmd::WRITE_ZEROES, fua | no_hole | fast_zero),
        (cmd::BLOCK_STATUS, fua | req_one),
    ];
    for (kind, allowed) in table {
        for bit in 0..16 {
            let flag = 1u16 << bit;
            let error = error_of(&mut client, flag, kind, 512);
            let is_refused = match kind {
                cmd::BLOCK_STATUS if style == Style::Simple => true,
                cmd::WRITE if style == Style::Extended && flag == 1 << 5 => false,
                cmd::CACHE if client.flags & raw::SEND_CACHE == 0 => true,
                // NO_HOLE with FAST_ZERO may be refused by ENOTSUP; alone neither is.
                _ => flag & !allowed != 0,
            };
            let what = format!("{style:?}: command {kind} with flag bit {bit}");
            assert_eq!(error, if is_refused { err::EINVAL } else { 0 }, "{what}");
        }
    }
}

/// Sends a request, with payload if it is a write; the error it is answered with.
fn error_of(client: &mut Raw, flags: u16, kind: u16, length: u32) -> u32 {
    // In extended headers a write has to say that its length is that of a payload.
    let payload_len = 1 << 5;
    let (request, has_payload) = match client.style {
        Style::Extended => {
            let flags = if kind == cmd::WRITE {
                flags | payload_len
            } else {
                flags
            };
            let header = raw::extended_request(flags, kind, 9, 0, length.into());
            (header, flags & payload_len != 0)
        }
        _ => (raw::request(flags, kind, 9, 0, length), kind == cmd::WRITE),
    };
    client.send(&request).expect("it is taken");
    if has_payload {
        client.send(&vec![0; length as usize]).expect("it is taken");
    }
    let data = if kind == cmd::READ {
        length as usize
    } else {
        0
    };
    let reply = client.reply(data).expect("it is answered");
    assert_eq!(reply.cookie, 9);
    reply.error
}

/// Bytes of other protocols end the connection and nothing else.
fn other_protocols(stage: &Stage) {
    // The oldstyle client's first words are requests.
    let oldstyle = raw::request(0, cmd::READ, 1, 0, 512);
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    let strangers: [Vec<u8>; 5] = [
        oldstyle,
        hello,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        vec![0; 4096],
    ];
    for words in strangers {
        let mut client = stage.connect();
        assert_eq!(
            client.greeting(),
            3,
            "fixed newstyle and no-zeroes, nothing else"
        );
        // It may be closed before all of it was taken.
        let _ = client.send(&words);
        // Four zero bytes are flags, and the zeros behind them are no option.
        client.end_sending();
        assert!(client.is_closed_within(SOON), "{words:?}");
    }
}
