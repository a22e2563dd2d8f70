//! Random division of the stream, random order and size of everything that ends.

use std::collections::HashMap;
use std::time::Duration;

use engine_core::action::Outcome;
use engine_core::event::Op;
use engine_core::units::GRANULE;
use engine_ring::{BufId, Errno};
use nbd_proto::{CommandKind as K, Cookie, ParsedReply, Replies, Reply, ReplyStyle};

use super::fake::{SIZE, World};
use crate::config::Limits;

/// A small generator of known quality (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What the client expects of each cookie: bytes of data.
pub(super) type Expected = HashMap<Cookie, u64>;

pub(super) fn ask_something(
    world: &mut World,
    random: &mut Random,
    cookie: u64,
    expected: &mut Expected,
) {
    let length = match random.below(10) {
        0 => 0,
        1 => random.below(300 << 10),
        2 => random.below(3 << 20),
        _ => random.below(9000),
    };
    let offset = random.below(SIZE - length);
    let (offset, length) = match random.chance(50) {
        true => (offset & !4095, length & !4095),
        false => (offset, length),
    };
    let kind = [
        K::READ,
        K::WRITE,
        K::FLUSH,
        K::TRIM,
        K::WRITE_ZEROES,
        K::BLOCK_STATUS,
        K(77),
    ];
    let kind = kind[random.below(kind.len() as u64) as usize];
    let data = if kind == K::READ { length } else { 0 };
    expected.insert(Cookie(cookie), data);
    if kind == K::WRITE {
        world.ask_write(cookie, offset, &vec![cookie as u8; length as usize]);
    } else {
        world.ask(kind, cookie, offset, length as u32);
    }
}

/// A write's payload is what its client sent: one byte again and again.
fn check_payload(world: &World, index: usize) {
    if let (_, Op::Write { range, buf, .. }) = world.host.submitted[index] {
        let part = BufId::from_u64(buf.0).slice((range.offset % GRANULE) as u32, range.len as u32);
        let bytes = world.host.arena.slice(part);
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "{range:?}");
    }
}

/// One random thing happens.
pub(super) fn step(world: &mut World, random: &mut Random) {
    match random.below(8) {
        0 | 1 => {
            let max = if random.chance(50) {
                random.below(64) + 1
            } else {
                1 << 20
            };
            world.deliver(max as usize);
        }
        2 | 3 => {
            let max = if random.chance(50) {
                random.below(64) + 1
            } else {
                1 << 20
            };
            world.sent(max as usize);
        }
        4 | 5 if !world.host.submitted.is_empty() => {
            let index = random.below(world.host.submitted.len() as u64) as usize;
            if random.chance(5) && !world.host.is_ended {
                let (req, _) = world.host.submitted.remove(index).unwrap();
                world.ends(req, Outcome::Busy);
            } else {
                check_payload(world, index);
                world.complete(index);
            }
        }
        6 if !world.host.queries.is_empty() => world.tell(Err(Errno::OPNOTSUPP)),
        7 if world.host.wants_room => world.room_came(),
        _ => world.pass(Duration::from_millis(random.below(20))),
    }
    if random.chance(60) {
        world.flush();
    }
}

/// Reads everything that was sent: every cookie once, with as much data as asked for.
pub(super) fn check_replies(output: &[u8], mut expected: Expected) {
    let mut replies = Replies::new();
    let (mut at, mut current, mut data) = (0, None, 0u64);
    let mut over = |cookie: Cookie, error: bool, data: u64| {
        let wanted = expected
            .remove(&cookie)
            .expect("each request is answered once");
        assert!(
            error || data == wanted,
            "{cookie:?} got {data} of {wanted} bytes"
        );
    };
    loop {
        let ParsedReply { consumed, reply } = replies.next(&output[at..]).unwrap();
        at += consumed;
        match reply {
            Reply::OffsetData {
                cookie,
                length,
                done,
                ..
            } => {
                assert!(done, "reads are answered by one chunk");
                (current, data) = (Some(cookie), u64::from(length));
            }
            Reply::Data if replies.data_left() == 0 => {
                over(
                    current.take().expect("data follows its header"),
                    false,
                    data,
                );
            }
            Reply::Data => {}
            Reply::None { cookie } => over(cookie, false, 0),
            Reply::Error { cookie, done, .. } => {
                assert!(done);
                over(cookie, true, 0);
            }
            Reply::BlockStatus { cookie, .. } => over(cookie, false, 0),
            Reply::More => break,
            other => panic!("{other:?} was not asked for"),
        }
    }
    assert_eq!(at, output.len());
    assert!(
        expected.is_empty(),
        "{} requests were never answered",
        expected.len()
    );
}

#[test]
fn however_the_stream_is_divided_everything_is_answered_once_and_given_back() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let limits = Limits {
            requests_max: 1 + random.below(64) as u16,
            ..Limits::default()
        };
        let arena = 8 << 20 << random.below(3);
        let mut world = World::with(ReplyStyle::Structured, limits, arena, Vec::new());
        world.host.room = 1 + random.below(16) as usize;
        world.host.takes_views = seed % 2 == 0;
        let mut expected = Expected::new();
        for cookie in 0..200 {
            ask_something(&mut world, &mut random, cookie, &mut expected);
        }
        for _ in 0..random.below(5000) {
            step(&mut world, &mut random);
        }
        while world.connection.table.used() > 0 || !world.input.is_empty() {
            world.host.wants_room = true;
            world.run();
            world.pass(Duration::from_millis(6));
        }
        check_replies(&world.output, expected);
        world.is_input_over = true;
        world.run();
        world.quiet();
        world.assert_nothing_is_held();
    }
}

#[test]
fn whenever_a_client_vanishes_everything_is_given_back() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let limits = Limits {
            requests_max: 1 + random.below(64) as u16,
            ..Limits::default()
        };
        let mut world = World::with(ReplyStyle::Structured, limits, 16 << 20, Vec::new());
        world.host.room = 1 + random.below(16) as usize;
        world.host.takes_views = seed % 2 == 0;
        let mut expected = Expected::new();
        for cookie in 0..50 {
            ask_something(&mut world, &mut random, cookie, &mut expected);
        }
        for _ in 0..random.below(500) {
            step(&mut world, &mut random);
        }
        match random.below(4) {
            0 if world.host.send.is_some() => world.send_fails(),
            1 => world.connection.leave(&mut world.host),
            2 => {
                world.input.clear();
                world.input.extend([0xee; 400]);
            }
            _ => {}
        }
        world.is_input_over = true;
        for _ in 0..random.below(200) {
            step(&mut world, &mut random);
        }
        while !world.host.is_ended {
            world.host.wants_room = true;
            world.run();
            world.pass(Duration::from_millis(6));
        }
        while !world.host.submitted.is_empty() {
            world.fail(if random.chance(50) {
                Outcome::Aborted
            } else {
                Outcome::Io
            });
        }
        world.quiet();
        for _ in 0..random.below(10) {
            step(&mut world, &mut random);
        }
        world.flush();
        world.pass(Duration::from_secs(3));
        world.assert_nothing_is_held();
    }
}
