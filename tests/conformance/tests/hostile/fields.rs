//! Every length field at the edges of its range: the right error or a close, and nothing else.

use std::time::Duration;

use conformance::raw::{self, Raw, Style, cmd, err, opt, rep};

use crate::stage::{MEBIBYTES, NOISE_BYTES, Stage, Witness};

/// Longest option that is read.
const OPTION_MAX: u32 = 12 << 10;
/// Longest export name.
const NAME_MAX: u32 = 4096;
/// Longest payload of a request.
const PAYLOAD_MAX: u32 = 32 << 20;
/// Longest payload of a refused write that is read and dropped.
const DROPPED_MAX: u32 = 64 << 20;
/// Size of the export, bytes.
const SIZE: u64 = MEBIBYTES << 20;

fn edges(max: u32) -> [u32; 7] {
    [0, 1, max - 1, max, max + 1, 1 << 31, u32::MAX]
}

/// The connection still follows the protocol: it answers a LIST.
#[track_caller]
fn is_in_step(client: &mut Raw, what: &str) {
    let replies = client.ask(opt::LIST, &[]);
    let replies = replies.unwrap_or_else(|why| panic!("after {what}: {why}"));
    assert_eq!(replies.last().expect("a final reply").0, rep::ACK, "{what}");
    assert_eq!(replies[0].1, b"\0\0\0\x01v", "{what}");
}

#[track_caller]
fn is_closed(mut client: Raw, what: &str) {
    assert!(
        client.is_closed_within(Duration::from_secs(5)),
        "{what} is not closed"
    );
}

fn greeted(stage: &Stage, style: Style) -> Raw {
    let mut client = stage.connect();
    client.hello(3);
    if style == Style::Structured {
        assert_eq!(client.verdict(opt::STRUCTURED_REPLY, &[]), rep::ACK);
    }
    client
}

#[test]
fn every_length_field_of_the_handshake_is_judged_at_its_edges() {
    let stage = Stage::new("", "memory");
    let witness = Witness::start(&stage);
    for _warm in 0..2 {
        handshake_fields(&stage);
    }
    let before = stage.vitals();
    handshake_fields(&stage);
    witness.goes_on(10);
    stage.until_clients(1, &before);
    let grown = stage
        .vitals()
        .resident_bytes
        .saturating_sub(before.resident_bytes);
    assert!(grown < NOISE_BYTES, "{grown} bytes more");
}

fn handshake_fields(stage: &Stage) {
    option_lengths(stage);
    info_lengths(stage);
    meta_lengths(stage);
}

fn option_lengths(stage: &Stage) {
    for code in (1..=11).chain([0, 4, 77, u32::MAX]) {
        for length in edges(OPTION_MAX) {
            let what = format!("option {code} of {length} bytes");
            let mut client = greeted(stage, Style::Simple);
            if length > OPTION_MAX {
                let header = raw::option_of_length(code, length, &[]);
                client.send(&header).expect("a header is taken");
                is_closed(client, &what);
                continue;
            }
            let data = vec![0; length as usize];
            client
                .send(&raw::option(code, &data))
                .expect("an option is taken");
            match code {
                // The empty name is not the default export where there is none to be it; a name
                // of zero bytes is no name. Both end the session, as there is no error reply.
                opt::EXPORT_NAME if length > 0 => is_closed(client, &what),
                opt::EXPORT_NAME => {
                    let mut reply = [0; 10];
                    client
                        .read_exact(&mut reply)
                        .expect("the only export is the default");
                    assert_eq!(reply[..8], SIZE.to_be_bytes(), "{what}");
                }
                opt::ABORT => {
                    let replies = client.option_replies(code).expect("ABORT is acknowledged");
                    assert_eq!(replies, [(rep::ACK, Vec::new())], "{what}");
                    is_closed(client, &what);
                }
                _ => {
                    let replies = client.option_replies(code).expect("an option is answered");
                    let verdict = replies.last().expect("a final reply").0;
                    let is_right = match code {
                        opt::LIST | opt::STRUCTURED_REPLY | opt::EXTENDED_HEADERS
                            if length == 0 =>
                        {
                            [rep::ACK, rep::ERR_UNSUP].contains(&verdict)
                        }
                        opt::LIST
                        | opt::INFO
                        | opt::GO
                        | opt::STRUCTURED_REPLY
                        | opt::LIST_META_CONTEXT
                        | opt::SET_META_CONTEXT => verdict == rep::ERR_INVALID,
                        opt::STARTTLS if length > 0 => verdict == rep::ERR_INVALID,
                        opt::STARTTLS => [rep::ERR_UNSUP, rep::ERR_POLICY].contains(&verdict),
                        opt::EXTENDED_HEADERS => {
                            [rep::ERR_INVALID, rep::ERR_UNSUP].contains(&verdict)
                        }
                        _ => verdict == rep::ERR_UNSUP,
                    };
                    assert!(is_right, "{what}: {verdict:#x}");
                    is_in_step(&mut client, &what);
                }
            }
        }
    }
}

/// Length of the name and number of infos in INFO and GO, whatever the option's length says.
fn info_lengths(stage: &Stage) {
    for code in [opt::INFO, opt::GO] {
        let mut client = greeted(stage, Style::Simple);
        for length in edges(NAME_MAX) {
            let mut data = raw::info("v", &[3]);
            data[..4].copy_from_slice(&length.to_be_bytes());
            let what = format!("option {code} with a name of {length} bytes in one");
            if length == 1 {
                continue;
            }
            assert_eq!(client.verdict(code, &data), rep::ERR_INVALID, "{what}");
            is_in_step(&mut client, &what);
        }
        for length in [NAME_MAX - 1, NAME_MAX, NAME_MAX + 1] {
            let name = "n".repeat(length as usize);
            let verdict = client.verdict(code, &raw::info(&name, &[]));
            let expected = if length > NAME_MAX {
                rep::ERR_INVALID
            } else {
                rep::ERR_UNKNOWN
            };
            assert_eq!(verdict, expected, "a name of {length} bytes");
        }
        for count in [0, 2, 0x7fff, 0x8000, u16::MAX] {
            let mut data = raw::info("v", &[3]);
            data[5..7].copy_from_slice(&count.to_be_bytes());
            let what = format!("option {code} with {count} infos in one");
            assert_eq!(client.verdict(code, &data), rep::ERR_INVALID, "{what}");
            is_in_step(&mut client, &what);
        }
    }
}

/// Lengths of name, list and query in the options about meta contexts.
fn meta_lengths(stage: &Stage) {
    for code in [opt::LIST_META_CONTEXT, opt::SET_META_CONTEXT] {
        let mut client = greeted(stage, Style::Structured);
        let good = raw::meta("v", &["base:allocation"]);
        let at_count = 5;
        let at_query = 9;
        for (at, right) in [(0, 1), (at_count, 1), (at_query, 15)] {
            for wrong in edges(NAME_MAX) {
                // Fewer bytes than there are is as wrong as more.
                if wrong == right {
                    continue;
                }
                let mut data = good.clone();
                data[at..at + 4].copy_from_slice(&wrong.to_be_bytes());
                let what = format!("option {code} with {wrong} at {at}");
                let verdict = client.verdict(code, &data);
                let refusals = [rep::ERR_INVALID, rep::ERR_TOO_BIG];
                assert!(refusals.contains(&verdict), "{what}: {verdict:#x}");
                is_in_step(&mut client, &what);
            }
        }
        assert_eq!(client.verdict(code, &good), rep::ACK);
    }
}

#[test]
fn every_length_and_offset_of_a_request_is_judged_at_its_edges() {
    let stage = Stage::new("", "memory");
    let witness = Witness::start(&stage);
    // The first turn touches the buffers it needs; they stay the process's.
    request_fields(&stage, Style::Simple);
    request_fields(&stage, Style::Structured);
    let before = stage.vitals();
    request_fields(&stage, Style::Simple);
    request_fields(&stage, Style::Structured);
    witness.goes_on(10);
    stage.until_clients(1, &before);
    let grown = stage
        .vitals()
        .resident_bytes
        .saturating_sub(before.resident_bytes);
    assert!(grown < 2 * NOISE_BYTES, "{grown} bytes more");
}

fn request_fields(stage: &Stage, style: Style) {
    let mut client = stage.attach(style);
    let lengths = edges(PAYLOAD_MAX)
        .into_iter()
        .chain([DROPPED_MAX, DROPPED_MAX + 1]);
    for kind in [0, 1, 3, 4, 5, 6, 7, 8, 99, u16::MAX] {
        for length in lengths.clone() {
            for offset in [0, 1, SIZE - 1, SIZE, SIZE + 1, 1 << 63, u64::MAX] {
                let what = format!("{style:?}: command {kind}, {length} bytes at {offset}");
                let is_write = kind == cmd::WRITE;
                if is_write && length > DROPPED_MAX {
                    let header = raw::request(0, kind, 7, offset, length);
                    client.send(&header).expect("a header is taken");
                    is_closed(client, &what);
                    client = stage.attach(style);
                    continue;
                }
                // Megabytes that are dropped are worth sending at two places only.
                if is_write && length >= PAYLOAD_MAX - 1 && offset != 1 && offset != SIZE {
                    continue;
                }
                client
                    .send(&raw::request(0, kind, 7, offset, length))
                    .expect("a header is taken");
                if is_write {
                    send_zeros(&mut client, length);
                }
                let data = if kind == cmd::READ {
                    length as usize
                } else {
                    0
                };
                let reply = client.reply(data);
                let reply = reply.unwrap_or_else(|why| panic!("{what}: {why}"));
                assert_eq!(reply.cookie, 7, "{what}");
                let expected = expected(&client, kind, offset, length);
                assert_eq!(reply.error, expected, "{what}");
            }
        }
    }
}

fn send_zeros(client: &mut Raw, length: u32) {
    let zeros = vec![0; 1 << 20];
    let mut left = length as usize;
    while left > 0 {
        let part = left.min(zeros.len());
        client
            .send(&zeros[..part])
            .expect("payload is taken, also of a refused write");
        left -= part;
    }
}

/// The protocol's answer. Sources: NBD protocol, "Request types", "Error values", and section 3.5
/// of what this project decided where the protocol leaves a choice.
fn expected(client: &Raw, kind: u16, offset: u64, length: u32) -> u32 {
    let is_inside = offset <= SIZE && u64::from(length) <= SIZE - offset;
    match kind {
        cmd::FLUSH => 0,
        cmd::READ | cmd::WRITE if length > PAYLOAD_MAX => err::EINVAL,
        cmd::WRITE | cmd::WRITE_ZEROES if !is_inside => err::ENOSPC,
        cmd::BLOCK_STATUS if client.style == Style::Simple || length == 0 => err::EINVAL,
        cmd::CACHE if client.flags & raw::SEND_CACHE == 0 => err::EINVAL,
        cmd::READ | cmd::TRIM | cmd::CACHE | cmd::BLOCK_STATUS if !is_inside => err::EINVAL,
        cmd::READ | cmd::WRITE | cmd::TRIM | cmd::CACHE | cmd::WRITE_ZEROES | cmd::BLOCK_STATUS => {
            0
        }
        _ => err::EINVAL,
    }
}

#[test]
fn every_length_of_an_extended_header_is_judged_at_its_edges() {
    let stage = Stage::new("", "memory");
    let witness = Witness::start(&stage);
    extended_fields(&stage);
    filters(&stage);
    let before = stage.vitals();
    extended_fields(&stage);
    filters(&stage);
    witness.goes_on(10);
    stage.until_clients(1, &before);
    let grown = stage
        .vitals()
        .resident_bytes
        .saturating_sub(before.resident_bytes);
    assert!(grown < 2 * NOISE_BYTES, "{grown} bytes more");
}

/// Command flag: the length is that of a payload.
const PAYLOAD_LEN: u16 = 1 << 5;

fn extended_fields(stage: &Stage) {
    let mut client = stage.attach(Style::Extended);
    let lengths = edges(PAYLOAD_MAX).into_iter().chain([DROPPED_MAX + 1]);
    let long = [1 << 32, (1 << 32) + 1, 1 << 63, u64::MAX];
    let lengths: Vec<u64> = lengths.map(u64::from).chain(long).collect();
    for kind in [0, 1, 3, 4, 5, 6, 7, 8, 99, u16::MAX] {
        for (length, flags) in lengths.iter().flat_map(|l| [(*l, 0), (*l, PAYLOAD_LEN)]) {
            for offset in [0, 1, SIZE - 1, SIZE, SIZE + 1, 1 << 63, u64::MAX] {
                let what = format!("command {kind}, flags {flags}, {length} bytes at {offset}");
                let has_payload = flags == PAYLOAD_LEN;
                let is_long = length > u64::from(PAYLOAD_MAX);
                if has_payload && length >= u64::from(PAYLOAD_MAX) - 1 && offset > 1 {
                    continue;
                }
                client
                    .send(&raw::extended_request(flags, kind, 7, offset, length))
                    .expect("a header is taken");
                if has_payload && is_long {
                    is_closed(client, &what);
                    client = stage.attach(Style::Extended);
                    continue;
                }
                if has_payload {
                    send_zeros(&mut client, length as u32);
                }
                let reply = client.reply(0);
                let reply = reply.unwrap_or_else(|why| panic!("{what}: {why}"));
                assert_eq!(reply.cookie, 7, "{what}");
                let expected = expected_extended(&client, kind, has_payload, offset, length);
                assert_eq!(reply.error, expected, "{what}");
            }
        }
    }
}

/// As [`expected`], for extended headers. Source: NBD protocol, "Extended headers".
fn expected_extended(client: &Raw, kind: u16, has_payload: bool, offset: u64, length: u64) -> u32 {
    let is_inside = offset <= SIZE && length <= SIZE - offset;
    let is_write = kind == cmd::WRITE;
    match kind {
        // A write without, or anything else with a payload; zeros are no filter either.
        _ if has_payload != is_write => err::EINVAL,
        cmd::READ | cmd::WRITE if length > u64::from(PAYLOAD_MAX) => err::EINVAL,
        _ if is_write || length <= u64::from(u32::MAX) => expected(
            client,
            kind,
            offset,
            u32::try_from(length).unwrap_or(u32::MAX),
        ),
        cmd::FLUSH => 0,
        cmd::WRITE_ZEROES if !is_inside => err::ENOSPC,
        _ => err::EINVAL,
    }
}

/// Payloads of BLOCK_STATUS: lengths inside them, ids nobody selected, ids twice.
fn filters(stage: &Stage) {
    let mut client = stage.attach(Style::Extended);
    if client.flags & raw::BLOCK_STATUS_PAYLOAD == 0 {
        return;
    }
    let ask = |client: &mut Raw, payload: &[u8]| {
        let length = payload.len() as u64;
        let header = raw::extended_request(PAYLOAD_LEN, cmd::BLOCK_STATUS, 7, 0, length);
        client
            .send(&[header, payload.to_vec()].concat())
            .expect("it is taken");
        client.reply(0).expect("it is answered").error
    };
    let filter = |effect: u64, ids: &[u32]| {
        let mut payload = effect.to_be_bytes().to_vec();
        ids.iter().for_each(|id| payload.extend(id.to_be_bytes()));
        payload
    };
    // The ids are the server's choice: one of the first few is that of `base:allocation`.
    let is_known = |id: &u32| ask(&mut stage.attach(Style::Extended), &filter(4096, &[*id])) == 0;
    let known = (0..64).find(is_known).expect("one context was selected");
    for effect in [0, SIZE + 1, 1 << 31, 1 << 32, 1 << 63, u64::MAX] {
        assert_eq!(
            ask(&mut client, &filter(effect, &[known])),
            err::EINVAL,
            "{effect}"
        );
    }
    assert_eq!(ask(&mut client, &filter(SIZE, &[known])), 0);
    assert_eq!(
        ask(&mut client, &filter(4096, &[known, known])),
        err::EINVAL
    );
    for id in [known + 1, 1 << 31, u32::MAX] {
        assert_eq!(
            ask(&mut client, &filter(4096, &[known, id])),
            err::EINVAL,
            "id {id}"
        );
    }
    let good = filter(4096, &[known]);
    for length in 0..good.len() {
        assert_eq!(
            ask(&mut client, &good[..length]),
            err::EINVAL,
            "{length} bytes of a filter"
        );
    }
    let many: Vec<u32> = (0..100_000).map(|_| known).collect();
    assert_eq!(ask(&mut client, &filter(4096, &many)), err::EINVAL);
    assert_eq!(ask(&mut client, &good), 0, "the stream is still in step");
}
