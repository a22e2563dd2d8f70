//! Extended headers, contexts and filters.

use engine::front_end::{BlockExtent, ExtentKind};
use engine_core::event::Op;
use engine_ring::Errno;
use nbd_proto::{CommandFlags as F, CommandKind as K, ReplyStyle};

use super::fake::{SIZE, World};

/// An extended chunk of a reply to a request at `offset`.
fn wide(flags: u16, kind: u16, cookie: u64, offset: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = 0x6e8a_278cu32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend((payload.len() as u64).to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn extent(len: u64, flags: u32) -> BlockExtent {
    BlockExtent { len, flags }
}

/// The payload of a wide status chunk.
fn status(context: u32, extents: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = context.to_be_bytes().to_vec();
    bytes.extend((extents.len() as u32).to_be_bytes());
    for (length, flags) in extents {
        bytes.extend(length.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
    }
    bytes
}

fn ask_filtered(world: &mut World, cookie: u64, length: u64, ids: &[u32]) {
    let payload = 8 + 4 * ids.len() as u64;
    world.ask_wide(F::PAYLOAD_LEN, K::BLOCK_STATUS, cookie, 512, payload);
    world.input.extend(length.to_be_bytes());
    ids.iter()
        .for_each(|id| world.input.extend(id.to_be_bytes()));
}

fn error(number: u32, text: &str) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((text.len() as u16).to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

#[test]
fn every_reply_echoes_the_offset_of_its_request() {
    let mut world = World::new(ReplyStyle::Extended);
    world.ask_write(1, 512, b"data");
    world.run();
    world.ask(K::READ, 2, 512, 4);
    world.run();
    world.ask(K::FLUSH, 3, 77, 0);
    world.run();
    world.ask(K::CACHE, 4, 4096, 8192);
    world.ask_wide(F::NONE, K::WRITE, 5, 9, 4096);
    world.run();
    let text = "a write in an extended header says how long its payload is";
    let expected = [
        wide(1, 0, 1, 512, b""),
        wide(1, 1, 2, 512, b"\0\0\0\0\0\0\x02\0data"),
        wide(1, 0, 3, 77, b""),
        wide(1, 0, 4, 4096, b""),
        wide(1, 0x8001, 5, 9, &error(22, text)),
    ];
    assert_eq!(world.output, expected.concat());
}

#[test]
fn the_whole_volume_is_zeroed_by_one_request() {
    let mut world = World::new(ReplyStyle::Extended);
    world.ask_wide(F::NONE, K::WRITE_ZEROES, 1, 0, SIZE);
    world.deliver(usize::MAX);
    let (_, op) = world.host.submitted[0];
    assert!(matches!(op, Op::Zero { range, .. } if (range.offset, range.len) == (0, SIZE)));
}

#[test]
fn a_length_without_payload_takes_no_buffer() {
    let mut world = World::new(ReplyStyle::Extended);
    for kind in [K::READ, K::WRITE, K::CACHE, K::TRIM, K::BLOCK_STATUS] {
        world.ask_wide(F::NONE, kind, 1, 0, u64::MAX);
    }
    world.run();
    assert!(world.host.submitted.is_empty() && world.host.queries.is_empty());
    assert_eq!(world.connection.held, 0);
    assert!(!world.host.is_ended);
}

#[test]
fn a_payload_above_the_maximum_is_not_waited_for() {
    let mut world = World::new(ReplyStyle::Extended);
    world.ask_wide(F::PAYLOAD_LEN, K::WRITE, 1, 0, (32 << 20) + 1);
    world.deliver(usize::MAX);
    assert!(world.host.is_ended);
    let lines = world.log.0.lock().unwrap().clone();
    assert!(lines[0].ends_with("a request announced 33554433 bytes of payload"));
}

#[test]
fn each_selected_context_is_told_in_a_chunk_of_its_own() {
    let mut world = World::new(ReplyStyle::Extended);
    world.ask(K::BLOCK_STATUS, 1, 0, SIZE as u32);
    world.deliver(usize::MAX);
    let kinds = [
        ExtentKind::Allocation,
        ExtentKind::Replicated,
        ExtentKind::Mark("m".into()),
    ];
    let answers = [
        vec![extent(4096, 0), extent(SIZE - 4096, 3)],
        vec![extent(SIZE, 1)],
        vec![extent(SIZE, 0)],
    ];
    for (kind, answer) in kinds.iter().zip(&answers) {
        assert_eq!(world.host.queries[0].2, *kind);
        world.tell(Ok(answer));
    }
    world.flush();
    world.sent(usize::MAX);
    let expected = [
        wide(0, 6, 1, 0, &status(1, &[(4096, 0), (SIZE - 4096, 3)])),
        wide(0, 6, 1, 0, &status(2, &[(SIZE, 1)])),
        wide(1, 6, 1, 0, &status(3, &[(SIZE, 0)])),
    ];
    assert_eq!(world.output, expected.concat());
}

#[test]
fn a_filter_asks_in_its_contexts_alone() {
    let mut world = World::new(ReplyStyle::Extended);
    ask_filtered(&mut world, 1, 8192, &[2]);
    ask_filtered(&mut world, 2, 8192, &[2, 4]);
    world.deliver(usize::MAX);
    assert_eq!(world.host.queries.len(), 1);
    assert_eq!(world.host.queries[0].2, ExtentKind::Replicated);
    world.tell(Ok(&[extent(1 << 40, 1)]));
    world.flush();
    world.sent(usize::MAX);
    let text = "a filter names a context that was not selected";
    let expected = [
        wide(1, 0x8001, 2, 512, &error(22, text)),
        wide(1, 6, 1, 512, &status(2, &[(1 << 40, 1)])),
    ];
    assert_eq!(world.output, expected.concat());
}

#[test]
fn a_context_that_cannot_be_told_fails_the_whole_status() {
    for (errno, number, text) in [
        (Errno::NOENT, 22, "the mark this context was of is gone"),
        (Errno::IO, 5, "the state of the blocks could not be read"),
    ] {
        let mut world = World::new(ReplyStyle::Extended);
        ask_filtered(&mut world, 1, 8192, &[1, 3]);
        world.deliver(usize::MAX);
        world.tell(Ok(&[extent(8192, 0)]));
        world.tell(Err(errno));
        world.flush();
        world.sent(usize::MAX);
        let expected = wide(1, 0x8001, 1, 512, &error(number, text));
        assert_eq!(world.output, expected);
        assert_eq!(world.connection.held, 0);
    }
}

#[test]
fn many_contexts_share_the_room_of_an_answer() {
    let mut world = World::new(ReplyStyle::Extended);
    world.ask(K::BLOCK_STATUS, 1, 0, SIZE as u32);
    world.deliver(usize::MAX);
    let extents: Vec<BlockExtent> = (0..SIZE / 4096)
        .map(|i| extent(4096, u32::from(i % 2 == 1)))
        .collect();
    for _ in 0..3 {
        world.tell(Ok(&extents));
    }
    world.flush();
    world.sent(usize::MAX);
    assert!(world.output.len() > 3 * 60_000 && world.output.len() <= 3 * (64 << 10));
}

#[test]
fn a_successor_serves_an_extended_client_on() {
    let mut world = World::new(ReplyStyle::Extended);
    ask_filtered(&mut world, 1, 8192, &[3]);
    world.ask_write(2, 4096, b"some data");
    world.deliver(usize::MAX);
    assert_eq!(world.host.queries.pop_front().map(|q| q.1.len), Some(8192));
    world.input.extend(&[0x21, 0xe4, 0x1c][..]);
    world.deliver(usize::MAX);
    world.move_to_successor(crate::config::Limits::default(), 64 << 20);
    assert_eq!(world.connection.agreed.replies, ReplyStyle::Extended);
    world.flush();
    world.deliver(usize::MAX);
    let (_, range, kind) = world.host.queries[0].clone();
    assert_eq!((range.offset, range.len), (512, 8192));
    assert_eq!(kind, ExtentKind::Mark("m".into()));
    world.tell(Ok(&[extent(8192, 1)]));
    world.run();
    assert_eq!(&world.disk[4096..4105], b"some data");
    let expected = [
        wide(1, 6, 1, 512, &status(3, &[(8192, 1)])),
        wide(1, 0, 2, 4096, b""),
    ];
    assert_eq!(world.output, expected.concat());
}

#[test]
fn a_filter_of_which_a_part_has_come_is_the_successors() {
    for cut in [1, 31, 32, 33, 40, 43] {
        let mut world = World::new(ReplyStyle::Extended);
        ask_filtered(&mut world, 1, 8192, &[2]);
        let rest = world.input.split_off(cut);
        world.deliver(usize::MAX);
        world.move_to_successor(crate::config::Limits::default(), 64 << 20);
        world.input.extend(rest);
        world.flush();
        world.deliver(usize::MAX);
        assert_eq!(
            world.host.queries[0].2,
            ExtentKind::Replicated,
            "cut at {cut}"
        );
    }
}
