//! Reads in parts: zeroes the volume knows of are told, not read.

use engine_core::action::Outcome;
use engine_core::event::Op;
use engine_core::units::ByteRange;
use nbd_proto::{CommandFlags as F, CommandKind as K, Replies, Reply, ReplyStyle};

use super::chunk;
use super::fake::{SIZE, World};
use crate::config::Limits;

const KIB: u64 = 1024;

fn hole(offset: u64, len: u64) -> ByteRange {
    ByteRange { offset, len }
}

fn world(style: ReplyStyle, holes: &[ByteRange]) -> World {
    let mut world = World::new(style);
    for (at, byte) in world.disk.iter_mut().enumerate() {
        *byte = (at / 512) as u8 | 1;
    }
    for hole in holes {
        let span = hole.offset as usize..(hole.offset + hole.len) as usize;
        world.disk[span].fill(0);
    }
    world.host.holes = holes.to_vec();
    world
}

/// What was read by one request at `offset`, put together from its chunks, and how many there were.
fn put_together(output: &[u8], offset: u64, length: usize) -> (Vec<u8>, usize) {
    let (mut replies, mut at, mut is_over) = (Replies::new(), 0, false);
    let mut data = vec![None; length];
    let (mut from, mut chunks) = (0, 0);
    while at < output.len() {
        assert!(
            !is_over || replies.data_left() > 0,
            "nothing follows the last chunk"
        );
        let parsed = replies.next(&output[at..]).unwrap();
        let bytes = &output[at..at + parsed.consumed];
        at += parsed.consumed;
        match parsed.reply {
            Reply::OffsetData {
                offset: place,
                done,
                ..
            } => {
                (from, is_over) = ((place - offset) as usize, done);
                chunks += 1;
            }
            Reply::OffsetHole {
                offset: place,
                length,
                done,
                ..
            } => {
                let start = (place - offset) as usize;
                for byte in &mut data[start..start + length as usize] {
                    assert_eq!(byte.replace(0), None, "chunks do not overlap");
                }
                is_over = done;
                chunks += 1;
            }
            Reply::Data => {
                for byte in bytes {
                    assert_eq!(data[from].replace(*byte), None, "chunks do not overlap");
                    from += 1;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(is_over);
    let data: Option<Vec<u8>> = data.into_iter().collect();
    (data.expect("chunks cover all"), chunks)
}

#[test]
fn a_read_of_nothing_but_zeroes_reads_nothing() {
    let mut world = world(ReplyStyle::Structured, &[hole(0, 1 << 20)]);
    world.ask(K::READ, 7, 4096, 128 << 10);
    world.deliver(usize::MAX);
    assert!(world.host.submitted.is_empty());
    assert_eq!(world.connection.held, 0);
    world.flush();
    world.sent(usize::MAX);
    let payload = b"\0\0\0\0\0\0\x10\0\0\x02\0\0";
    assert_eq!(world.output, chunk(1, 2, 7, payload));
}

#[test]
fn only_data_is_read_and_holes_are_told_in_order() {
    for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
        let holes = [hole(64 * KIB, 64 * KIB), hole(256 * KIB, 1024 * KIB)];
        let mut world = world(style, &holes);
        world.ask(K::READ, 7, 512, 512 << 10);
        world.deliver(usize::MAX);
        let read: u64 = world
            .host
            .submitted
            .iter()
            .map(|(_, op)| match op {
                Op::Read { range, .. } => range.len,
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(read, 192 * KIB - 512);
        // They end in any order.
        world.complete(1);
        world.flush();
        assert!(
            world.host.send.is_none(),
            "nothing is said before all is known"
        );
        world.run();
        let (data, chunks) = put_together(&world.output, 512, 512 << 10);
        assert_eq!(chunks, 4);
        assert!(data == world.disk[512..512 + (512 << 10)]);
        assert_eq!(world.connection.table.used(), 0);
        assert_eq!(world.connection.held, 0);
    }
}

#[test]
fn small_reads_df_reads_and_simple_replies_are_whole() {
    let all = [hole(0, SIZE)];
    for (style, flags, length) in [
        (ReplyStyle::Structured, F::NONE, 65_535),
        (ReplyStyle::Structured, F::DF, 1 << 20),
        (ReplyStyle::Extended, F::DF, 1 << 20),
        (ReplyStyle::Simple, F::NONE, 1 << 20),
    ] {
        let mut world = world(style, &all);
        world.ask_with(flags, K::READ, 7, 0, length);
        world.deliver(usize::MAX);
        assert_eq!(world.host.submitted.len(), 1);
        world.run();
        assert!(world.output.len() > length as usize);
    }
}

#[test]
fn holes_beyond_the_parts_of_a_read_are_read() {
    let holes: Vec<ByteRange> = (0..32).map(|i| hole(i * 64 * KIB, 32 * KIB)).collect();
    let mut world = world(ReplyStyle::Structured, &holes);
    world.ask(K::READ, 7, 0, 2 << 20);
    world.run();
    let (data, chunks) = put_together(&world.output, 0, 2 << 20);
    assert!(chunks <= 8, "{chunks}");
    assert!(data == world.disk[..2 << 20]);
}

#[test]
fn without_room_for_its_parts_a_read_is_whole() {
    let limits = Limits {
        requests_max: 2,
        ..Limits::default()
    };
    let mut world = World::with(ReplyStyle::Structured, limits, 64 << 20, Vec::new());
    world.host.holes = vec![hole(64 * KIB, 64 * KIB)];
    world.ask(K::READ, 7, 0, 256 << 10);
    world.deliver(usize::MAX);
    assert_eq!(world.host.submitted.len(), 1);
    let mut world = World::new(ReplyStyle::Structured);
    world.host.holes = vec![hole(64 * KIB, 64 * KIB)];
    world.host.room = 1;
    world.ask(K::READ, 7, 0, 256 << 10);
    world.deliver(usize::MAX);
    assert_eq!(world.host.submitted.len(), 1);
}

#[test]
fn a_part_that_fails_is_told_with_its_place() {
    let holes = [hole(64 * KIB, 64 * KIB)];
    let mut world = world(ReplyStyle::Structured, &holes);
    world.ask(K::READ, 7, 0, 256 << 10);
    world.deliver(usize::MAX);
    let (req, _) = world.host.submitted.pop_back().unwrap();
    world.ends(req, Outcome::Io);
    world.run();
    let text = b"no copy could serve the request";
    let mut payload = b"\0\0\0\x05\0\x1f".to_vec();
    payload.extend(text);
    payload.extend((128 * KIB).to_be_bytes());
    let last = chunk(1, 0x8002, 7, &payload);
    assert!(world.output.ends_with(&last));
    assert_eq!(world.connection.table.used(), 0);
}

#[test]
fn a_part_that_is_not_answered_leaves_nothing_behind() {
    let holes = [hole(64 * KIB, 64 * KIB)];
    let mut world = world(ReplyStyle::Structured, &holes);
    world.ask(K::READ, 7, 0, 256 << 10);
    world.deliver(usize::MAX);
    world.flush();
    world.is_input_over = true;
    world.deliver(usize::MAX);
    world.complete(0);
    world.fail(Outcome::Aborted);
    world.flush();
    assert!(world.output.is_empty() && world.host.send.is_none());
    assert_eq!(world.connection.table.used(), 0);
    world.quiet();
    world.assert_nothing_is_held();
}

#[test]
fn a_read_in_parts_is_asked_for_again_by_the_successor() {
    let holes = [hole(64 * KIB, 64 * KIB)];
    let mut world = world(ReplyStyle::Structured, &holes);
    world.ask(K::READ, 7, 0, 256 << 10);
    world.ask_with(F::DF, K::READ, 8, 0, 128 << 10);
    world.deliver(usize::MAX);
    world.complete(0);
    world.move_to_successor(Limits::default(), 64 << 20);
    assert!(world.output.is_empty());
    world.host.holes = vec![hole(0, SIZE)];
    world.flush();
    world.deliver(usize::MAX);
    assert!(world.host.submitted.len() <= 2);
    world.run();
    // The one with DF is whole again.
    let (mut replies, mut at, mut wholes) = (Replies::new(), 0, 0);
    while at < world.output.len() {
        let parsed = replies.next(&world.output[at..]).unwrap();
        at += parsed.consumed;
        if let Reply::OffsetData {
            length, done: true, ..
        } = parsed.reply
        {
            wholes += usize::from(length == 128 << 10);
        }
    }
    assert_eq!(wholes, 1);
}
