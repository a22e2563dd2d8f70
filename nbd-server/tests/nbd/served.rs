//! Real sockets, a real reactor, a memory volume.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::common;
use crate::node::Served;
use engine::control::Request as Control;
use nbd_proto::{
    CommandFlags as F, CommandKind as K, Cookie, NbdError, ReplyStyle, Request, StatusFlags,
    TransmissionFlags,
};

const SIZE: u64 = 128 << 20;

fn pattern(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|i| (i * 31 + i / 4096 + seed * 7) as u8)
        .collect()
}

#[test]
fn what_one_connection_wrote_all_connections_read() {
    let served = Served::start(SIZE);
    let mut sessions: Vec<_> = (0..4)
        .map(|i| {
            if i % 2 == 0 {
                served.open()
            } else {
                served.open_simple()
            }
        })
        .collect();
    assert_eq!(sessions[0].agreed.replies, ReplyStyle::Structured);
    assert_eq!(sessions[1].agreed.replies, ReplyStyle::Simple);
    assert!(
        sessions[0]
            .agreed
            .flags
            .contains(TransmissionFlags::CAN_MULTI_CONN)
    );
    assert_eq!(sessions[0].agreed.size, SIZE);
    for (i, session) in sessions.iter_mut().enumerate() {
        let i = i as u64;
        session.write(i << 20, &pattern(i, 100_000));
        session.write((i << 20) + 100_001, b"unaligned");
    }
    for session in &mut sessions {
        assert_eq!(
            session.call(F::NONE, K::FLUSH, 0, 0, b"").result,
            Ok(Vec::new())
        );
        for i in 0..4u64 {
            assert!(session.read(i << 20, 100_000) == pattern(i, 100_000));
            assert_eq!(session.read((i << 20) + 100_000, 11), b"\0unaligned\0");
        }
    }
    assert_eq!(served.clients(), 4);
    drop(sessions);
    served.wait_for_clients(0);
}

#[test]
fn the_same_is_served_over_tcp() {
    let served = Served::start(SIZE);
    let mut client = served.server.connect();
    client.greet();
    let name = nbd_proto::ExportName::new("disk").unwrap();
    let wanted = nbd_proto::Wanted::default();
    let mut data = Vec::new();
    nbd_proto::InfoRequest { name, wanted }.encode(&mut data);
    let mut bytes = Vec::new();
    nbd_proto::OptionHeader::encode_with(nbd_proto::OptionCode::GO, &data, &mut bytes);
    // Requests that come with GO are served like all others.
    let write = Request {
        flags: F::FUA,
        kind: K::WRITE,
        cookie: Cookie(1),
        offset: 3,
        length: 4,
    };
    bytes.extend(write.encode());
    bytes.extend(b"data");
    let flush = Request {
        flags: F::NONE,
        kind: K::FLUSH,
        cookie: Cookie(2),
        ..write
    };
    client.0.write_all(&bytes).unwrap();
    assert_eq!(client.reply().0, nbd_proto::OptionReplyKind::INFO);
    assert_eq!(client.reply().0, nbd_proto::OptionReplyKind::ACK);
    assert_eq!(
        client.read(16),
        *b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x01"
    );
    client.0.write_all(&flush.encode()).unwrap();
    client.read(16);
    let read = Request {
        kind: K::READ,
        cookie: Cookie(3),
        offset: 0,
        length: 8,
        ..flush
    };
    client.0.write_all(&read.encode()).unwrap();
    assert_eq!(client.read(24)[16..], *b"\0\0\0data\0");
    assert_eq!(served.clients(), 1);
}

#[test]
fn the_largest_requests_come_back_whole() {
    let served = Served::start(SIZE);
    let mut session = served.open();
    for (seed, offset) in [(1, 0u64), (2, 4096 + 1), (3, SIZE - (32 << 20))] {
        let data = pattern(seed, 32 << 20);
        session.write(offset, &data);
        assert!(session.read(offset, 32 << 20) == data, "at {offset}");
    }
    let before = session.read(4000, 97);
    assert!(
        before == pattern(1, 4097)[4000..],
        "the neighbour keeps its bytes"
    );
    let answer = session.call(F::NONE, K::READ, 0, (32 << 20) + 1, b"");
    assert_eq!(answer.result, Err(NbdError::Invalid));
}

#[test]
fn many_requests_in_flight_are_all_answered() {
    let served = Served::start(SIZE);
    let mut session = served.open_simple();
    for round in 0..10u64 {
        for i in 0..64u64 {
            let data = pattern(round + i, 4096);
            session.send(F::NONE, K::WRITE, i * 4096, 4096, &data);
        }
        for _ in 0..64 {
            assert_eq!(session.answer(0).result, Ok(Vec::new()));
        }
        for i in 0..64u64 {
            session.send(F::NONE, K::READ, i * 4096, 4096, b"");
        }
        for _ in 0..64 {
            let answer = session.answer(4096);
            let i = answer.cookie % 64;
            assert!(answer.result == Ok(pattern(round + i, 4096)));
        }
    }
}

#[test]
fn trimmed_and_zeroed_ranges_read_as_zeroes_and_are_told() {
    let served = Served::start(SIZE);
    let mut session = served.open();
    session.write(0, &pattern(1, 1 << 20));
    assert_eq!(
        session.call(F::NONE, K::TRIM, 4096, 65536, b"").result,
        Ok(Vec::new())
    );
    let zeroes = session.call(F::FUA, K::WRITE_ZEROES, 100_001, 4098, b"");
    assert_eq!(zeroes.result, Ok(Vec::new()));
    let solid = session.call(F::NO_HOLE, K::WRITE_ZEROES, 200_000, 99, b"");
    assert_eq!(solid.result, Ok(Vec::new()));
    let mut expected = pattern(1, 1 << 20);
    expected[4096..4096 + 65536].fill(0);
    expected[100_001..100_001 + 4098].fill(0);
    expected[200_000..200_099].fill(0);
    assert!(session.read(0, 1 << 20) == expected);
    let status = session.call(F::NONE, K::BLOCK_STATUS, 0, 1 << 20, b"");
    assert!(!status.extents.is_empty());
    let mut at = 0;
    for extent in &status.extents {
        let end = (at + extent.length as usize).min(expected.len());
        let is_zero = expected[at..end].iter().all(|byte| *byte == 0);
        if extent.flags.0 & StatusFlags::ZERO.0 != 0 {
            assert!(is_zero, "{at}..{end} is said to be zero");
        }
        at = end;
    }
    assert!(at > 0);
    let one = session.call(F::REQ_ONE, K::BLOCK_STATUS, 4096, 8192, b"");
    assert_eq!(one.extents.len(), 1);
    assert!(one.extents[0].length <= 8192);
    // The whole disk in one request.
    let all = session.call(F::NONE, K::TRIM, 0, SIZE as u32, b"");
    assert_eq!(all.result, Ok(Vec::new()));
    assert!(session.read(0, 1 << 20).iter().all(|byte| *byte == 0));
}

#[test]
fn a_read_only_export_changes_nothing() {
    let served = Served::start(SIZE);
    let mut sealed = served.open_sealed();
    assert!(sealed.agreed.flags.contains(TransmissionFlags::READ_ONLY));
    for kind in [K::WRITE, K::TRIM, K::WRITE_ZEROES] {
        let data: &[u8] = if kind == K::WRITE { &[1; 512] } else { b"" };
        let answer = sealed.call(F::NONE, kind, 0, 512, data);
        assert_eq!(answer.result, Err(NbdError::Permission));
    }
    assert_eq!(sealed.read(0, 512), [0; 512]);
}

#[test]
fn hostile_requests_hurt_nobody_else() {
    let served = Served::start(SIZE);
    let mut witness = served.open();
    // Out of reach of the longest request that is in order.
    let safe = 64 << 20;
    witness.write(safe, b"witness");
    let max: u32 = 32 << 20;
    let lengths = [0, 1, max - 1, max, max + 1, 1 << 31, u32::MAX];
    let offsets = [0, SIZE - 1, SIZE, 1 << 63, u64::MAX];
    for kind in 0..=9 {
        for length in lengths {
            for offset in offsets {
                let mut hostile = served.open();
                let request = Request {
                    flags: F::NONE,
                    kind: K(kind),
                    cookie: Cookie(9),
                    offset,
                    length,
                };
                hostile.stream.write_all(&request.encode()).unwrap();
                // No payload follows, whatever was announced.
                hostile.stream.shutdown(Shutdown::Write).unwrap();
                let mut bytes = Vec::new();
                let _ = hostile.stream.read_to_end(&mut bytes);
                assert!(bytes.len() <= 28 + (32 << 20));
            }
        }
    }
    for garbage in [
        vec![0; 28],
        vec![0xff; 100_000],
        b"GET / HTTP/1.1\r\n\r\n".repeat(2),
    ] {
        let mut hostile = served.open();
        let _ = hostile.stream.write_all(&garbage);
        hostile.assert_closed();
    }
    // Structured or not, of any division: byte by byte.
    let mut slow = served.open();
    let request = Request {
        flags: F::NONE,
        kind: K::READ,
        cookie: Cookie(5),
        offset: safe,
        length: 7,
    };
    for byte in request.encode() {
        slow.stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(slow.answer(7).result, Ok(b"witness".to_vec()));
    assert_eq!(witness.read(safe, 7), b"witness");
    drop(slow);
    served.wait_for_clients(1);
}

#[test]
fn a_half_closed_client_gets_its_replies_and_then_the_end() {
    let served = Served::start(SIZE);
    let mut session = served.open_simple();
    for i in 0..100 {
        session.send(F::NONE, K::READ, i * 4096, 4096, b"");
    }
    session.stream.shutdown(Shutdown::Write).unwrap();
    for _ in 0..100 {
        assert_eq!(session.answer(4096).result, Ok(vec![0; 4096]));
    }
    session.assert_closed();
    served.wait_for_clients(0);
}

#[test]
fn disc_closes_after_all_replies() {
    let served = Served::start(SIZE);
    let mut session = served.open();
    session.send(F::NONE, K::WRITE, 0, 8, b"written.");
    session.send(F::NONE, K::DISC, 0, 0, b"");
    assert_eq!(session.answer(0).result, Ok(Vec::new()));
    session.assert_closed();
    assert_eq!(served.open().read(0, 8), b"written.");
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let served = Served::start(SIZE);
    for round in 0..50u64 {
        let mut session = served.open();
        let header = Request {
            flags: F::NONE,
            kind: K::WRITE,
            cookie: Cookie(1),
            offset: 0,
            length: 1 << 20,
        };
        session.stream.write_all(&header.encode()).unwrap();
        session
            .stream
            .write_all(&vec![7; (round as usize * 20_000) % (1 << 20)])
            .unwrap();
        if round % 2 == 0 {
            for i in 0..200 {
                let read = Request {
                    kind: K::READ,
                    length: 65536,
                    offset: i * 65536,
                    ..header
                };
                let _ = session.stream.write_all(&read.encode());
            }
        }
    }
    served.wait_for_clients(0);
    let mut session = served.open();
    let data = pattern(5, 32 << 20);
    session.write(0, &data);
    assert!(
        session.read(0, 32 << 20) == data,
        "buffers are there for others"
    );
}

#[test]
fn who_does_not_read_does_not_hold_others_up() {
    let served = Served::start(SIZE);
    let mut deaf = served.open();
    for i in 0..3000 {
        deaf.stream
            .set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let read = Request {
            flags: F::NONE,
            kind: K::READ,
            cookie: Cookie(i),
            offset: 0,
            length: 1 << 20,
        };
        if deaf.stream.write_all(&read.encode()).is_err() {
            break;
        }
    }
    let mut session = served.open();
    for i in 0..200u64 {
        session.write(i * 4096, &pattern(i, 4096));
        assert!(session.read(i * 4096, 4096) == pattern(i, 4096));
    }
    session.write(0, &pattern(9, 32 << 20));
    drop(deaf);
    served.wait_for_clients(1);
}

#[test]
fn a_draining_node_closes_without_a_word() {
    let served = Served::start(SIZE);
    let mut session = served.open();
    session.write(0, b"kept");
    served.drain();
    session.assert_closed();
}

#[test]
fn a_demoted_volume_lets_its_clients_go() {
    let served = Served::start(SIZE);
    let mut session = served.open();
    session.write(0, b"kept");
    assert!(
        served
            .request(Control::Demote { disconnect: false })
            .is_err(),
        "it has a client"
    );
    served
        .request(Control::Demote { disconnect: true })
        .unwrap();
    session.assert_closed();
    let mut client = common::connect_unix(served.socket());
    client.greet();
    client.info(nbd_proto::OptionCode::GO, "disk");
    let (kind, text) = client.reply();
    assert_eq!(kind, nbd_proto::OptionReplyKind::ERR_POLICY);
    assert!(text.starts_with("vm is secondary on alpha"), "{text}");
}
