//! Laws of sockets.

use std::panic::{AssertUnwindSafe, catch_unwind};

use engine_ring::{BufId, Class, Errno, FileId, Op, Region, SEGMENTS_MAX, Seg, ShutdownHow, Wait};

use super::bed::Bed;

fn send(bed: &mut Bed, file: FileId, bytes: &[u8]) -> Result<u32, Errno> {
    let buf = bed.buf_of(bytes);
    let result = bed.run(Op::Send {
        file,
        segments: &[buf.slice(0, bytes.len() as u32).into()],
    });
    bed.arena.release(buf);
    result
}

pub fn bytes_arrive_in_order(bed: &mut Bed) {
    let (left, right) = bed.pair();
    for round in 0..100u8 {
        assert_eq!(send(bed, left, &[round; 33]), Ok(33));
    }
    let bytes = bed.receive(right, 3300);
    let expected: Vec<u8> = (0..100).flat_map(|round| [round; 33]).collect();
    assert_eq!(bytes, expected);
}

pub fn a_vectored_send_keeps_the_order_of_its_pieces(bed: &mut Bed) {
    let (left, right) = bed.pair();
    let header = bed.buf_of(b"header|another header|");
    let payload = bed.buf_of(b"..payload..");
    let segments = [
        header.slice(0, 7).into(),
        payload.slice(2, 7).into(),
        header.slice(7, 15).into(),
    ];
    assert_eq!(
        bed.run(Op::Send {
            file: left,
            segments: &segments
        }),
        Ok(29)
    );
    assert_eq!(bed.receive(right, 29), b"header|payloadanother header|");
    assert_eq!(
        (bed.arena.references(header), bed.arena.references(payload)),
        (1, 1)
    );
}

pub fn a_send_of_a_thousand_pieces_arrives_whole(bed: &mut Bed) {
    let (left, right) = bed.pair();
    let bytes: Vec<u8> = (0..SEGMENTS_MAX * 4).map(|i| (i % 253) as u8).collect();
    let buf = bed.buf_of(&bytes);
    let segments: Vec<Seg> = (0..SEGMENTS_MAX as u32)
        .map(|i| buf.slice(i * 4, 4).into())
        .collect();
    // Twice, so that the second uses what the first left behind.
    for _ in 0..2 {
        let sent = bed.run(Op::Send {
            file: left,
            segments: &segments,
        });
        assert_eq!(sent, Ok(bytes.len() as u32));
        assert_eq!(bed.receive(right, bytes.len() as u32), bytes);
    }
    assert_eq!(bed.arena.references(buf), 1);
}

pub fn a_region_is_sent_without_a_copy(bed: &mut Bed) {
    let (left, right) = bed.pair();
    let mut region = Region::new(1 << 20).unwrap();
    region.write(70_000, b"from the region");
    let id = bed.lend(&region);
    let header = bed.buf_of(b"head ");
    let piece = Seg::Region {
        region: id,
        offset: 70_000,
        len: 15,
    };
    assert_eq!(
        bed.run(Op::Send {
            file: left,
            segments: &[piece]
        }),
        Ok(15)
    );
    let both = [header.slice(0, 5).into(), piece];
    assert_eq!(
        bed.run(Op::Send {
            file: left,
            segments: &both
        }),
        Ok(20)
    );
    assert_eq!(
        bed.receive(right, 35),
        b"from the regionhead from the region"
    );
    bed.ring().reclaim(id);
    let stale = catch_unwind(AssertUnwindSafe(|| {
        bed.push(
            1,
            Op::Send {
                file: left,
                segments: &[piece],
            },
        );
    }));
    assert!(stale.is_err(), "a reclaimed region is not sent from");
}

pub fn a_receive_that_wants_all_waits_for_all(bed: &mut Bed) {
    let (left, right) = bed.pair();
    let buf = bed.buf(4096);
    bed.push(
        1,
        Op::Recv {
            file: right,
            buf: buf.slice(0, 20),
            all: true,
        },
    );
    send(bed, left, b"first half").unwrap();
    bed.turn(Wait::No);
    assert!(bed.done.is_empty());
    send(bed, left, b"other half").unwrap();
    assert_eq!(bed.wait(1).result, Ok(20));
    assert_eq!(&bed.arena.bytes(buf)[..20], b"first halfother half");
}

pub fn a_receive_that_wants_all_ends_short_at_the_end_of_the_stream(bed: &mut Bed) {
    let (left, right) = bed.pair();
    let buf = bed.buf(4096);
    bed.push(
        1,
        Op::Recv {
            file: right,
            buf: buf.slice(0, 20),
            all: true,
        },
    );
    send(bed, left, b"first half").unwrap();
    assert_eq!(
        bed.run(Op::Shutdown {
            file: left,
            how: ShutdownHow::Write
        }),
        Ok(0)
    );
    assert_eq!(bed.wait(1).result, Ok(10));
}

pub fn the_end_of_a_stream_is_an_empty_receive(bed: &mut Bed) {
    let (left, right) = bed.pair();
    send(bed, left, b"last").unwrap();
    assert_eq!(bed.run(Op::Close { file: left }), Ok(0));
    assert_eq!(bed.receive(right, 4), b"last");
    assert_eq!(bed.receive(right, 4), b"");
}

pub fn a_send_to_a_closed_stream_fails(bed: &mut Bed) {
    let (left, right) = bed.pair();
    assert_eq!(bed.run(Op::Close { file: right }), Ok(0));
    assert_eq!(send(bed, left, b"anybody?"), Err(Errno::PIPE));
}

pub fn a_pending_receive_can_be_cancelled(bed: &mut Bed) {
    let (left, right) = bed.pair();
    let buf = bed.buf(4096);
    bed.push(
        1,
        Op::Recv {
            file: right,
            buf: buf.slice(0, 100),
            all: false,
        },
    );
    bed.turn(Wait::No);
    assert_eq!(bed.arena.references(buf), 2);
    bed.cancel(1);
    assert_eq!(bed.wait(1).result, Err(Errno::CANCELED));
    assert_eq!(bed.arena.references(buf), 1);
    // The stream lost nothing and can be received from again.
    send(bed, left, b"later").unwrap();
    assert_eq!(bed.receive(right, 5), b"later");
    assert!(bed.done.is_empty());
}

pub fn a_large_transfer_survives_short_sends(bed: &mut Bed) {
    const SIZE: usize = 8 << 20;
    let (left, right) = bed.pair();
    let bytes: Vec<u8> = (0..SIZE).map(|i| (i / 4 % 251) as u8).collect();
    let out = bed.buf_of(&bytes);
    let into = bed.buf(SIZE);
    let (mut sent, mut received) = (0u32, 0u32);
    let rest = |buf: BufId, done: u32| buf.slice(done, SIZE as u32 - done);
    bed.push(
        1,
        Op::Send {
            file: left,
            segments: &[rest(out, 0).into()],
        },
    );
    bed.push(
        2,
        Op::Recv {
            file: right,
            buf: rest(into, 0),
            all: false,
        },
    );
    let deadline = bed.now() + 60_000_000_000;
    while (received as usize) < SIZE {
        assert!(bed.now() < deadline);
        bed.turn(Wait::Until(deadline));
        for completion in std::mem::take(&mut bed.done) {
            let count = completion.result.unwrap();
            assert!(count > 0);
            if completion.token == 1 {
                sent += count;
                if (sent as usize) < SIZE {
                    bed.push(
                        1,
                        Op::Send {
                            file: left,
                            segments: &[rest(out, sent).into()],
                        },
                    );
                }
            } else {
                received += count;
                if (received as usize) < SIZE {
                    bed.push(
                        2,
                        Op::Recv {
                            file: right,
                            buf: rest(into, received),
                            all: false,
                        },
                    );
                }
            }
        }
    }
    assert!(bed.arena.bytes(into)[..SIZE] == bytes[..]);
}

pub fn connect_and_accept_meet(bed: &mut Bed) {
    let (listener, addr) = bed.listener();
    let client = bed.socket();
    bed.push(1, Op::Accept { file: listener });
    bed.push(
        2,
        Op::Connect {
            file: client,
            to: &addr,
        },
    );
    assert_eq!(bed.wait(2).result, Ok(0));
    let accepted = bed.wait(1);
    assert_eq!((accepted.result, accepted.more), (Ok(0), false));
    let server = accepted.accepted.unwrap();
    send(bed, client, b"ping").unwrap();
    assert_eq!(bed.receive(server, 4), b"ping");
    send(bed, server, b"pong").unwrap();
    assert_eq!(bed.receive(client, 4), b"pong");
}

pub fn one_accept_brings_many(bed: &mut Bed) {
    let (listener, addr) = bed.listener();
    bed.push(1, Op::AcceptMany { file: listener });
    let mut clients = Vec::new();
    for number in 0..5u8 {
        let client = bed.socket();
        assert_eq!(
            bed.run(Op::Connect {
                file: client,
                to: &addr
            }),
            Ok(0)
        );
        send(bed, client, &[number]).unwrap();
        clients.push(client);
    }
    for number in 0..5u8 {
        let accepted = bed.wait(1);
        assert!(accepted.more, "{accepted:?}");
        assert_eq!(bed.receive(accepted.accepted.unwrap(), 1), [number]);
    }
    bed.cancel(1);
    let last = bed.wait(1);
    assert_eq!(
        (last.result, last.more, last.accepted),
        (Err(Errno::CANCELED), false, None)
    );
}

pub fn connecting_to_nobody_is_refused(bed: &mut Bed) {
    let addr = bed.nobody();
    let client = bed.socket();
    assert_eq!(
        bed.run(Op::Connect {
            file: client,
            to: &addr
        }),
        Err(Errno::CONNREFUSED)
    );
}

pub fn a_readable_stream_is_polled(bed: &mut Bed) {
    let (left, right) = bed.pair();
    bed.push(1, Op::PollIn { file: right });
    bed.turn(Wait::No);
    assert!(bed.done.is_empty());
    send(bed, left, b"x").unwrap();
    let events = bed.wait(1).result.unwrap();
    assert_ne!(events & libc::POLLIN as u32, 0);
    assert_eq!(bed.receive(right, 1), b"x", "nothing was taken");
}

pub fn two_receives_at_once_are_a_bug(bed: &mut Bed) {
    let (_left, right) = bed.pair();
    let buf = bed.buf(4096);
    bed.push(
        1,
        Op::Recv {
            file: right,
            buf: buf.slice(0, 10),
            all: false,
        },
    );
    let second = catch_unwind(AssertUnwindSafe(|| {
        bed.push(
            2,
            Op::Recv {
                file: right,
                buf: buf.slice(10, 10),
                all: false,
            },
        );
    }));
    assert!(second.is_err());
}

pub fn two_sends_at_once_are_a_bug(bed: &mut Bed) {
    let (left, _right) = bed.pair();
    let buf = bed.arena.alloc(Class::Net, 4 << 20).unwrap();
    let piece = [buf.slice(0, 4 << 20).into()];
    bed.push(
        1,
        Op::Send {
            file: left,
            segments: &piece,
        },
    );
    let second = catch_unwind(AssertUnwindSafe(|| {
        bed.push(
            2,
            Op::Send {
                file: left,
                segments: &piece,
            },
        );
    }));
    assert!(second.is_err());
}
