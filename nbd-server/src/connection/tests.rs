//! The laws of one connection.

mod chaos;
mod extended;
mod fake;
mod moving;
mod sealed;
mod sparse;

use std::time::Duration;

use engine::front_end::{BlockExtent, DrainReason};
use engine_core::action::Outcome;
use engine_core::event::Op;
use engine_core::message::Zeroing;
use engine_core::units::ByteRange;
use engine_ring::{Class, Errno};
use nbd_proto::{CommandFlags as F, CommandKind as K, ReplyStyle};

use crate::config::Limits;
use fake::{SIZE, World};

/// A simple reply.
fn simple(error: u32, cookie: u64) -> Vec<u8> {
    let mut bytes = 0x6744_6698u32.to_be_bytes().to_vec();
    bytes.extend(error.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes
}

/// A chunk.
fn chunk(flags: u16, kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = 0x668e_33efu32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn drain(world: &mut World, why: DrainReason) {
    world.connection.is_gone |= why == DrainReason::VolumeLeaves;
    world.connection.leave(&mut world.host);
    world.flush();
}

#[test]
fn what_was_written_is_read_back() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask_write(1, 4090, b"over the border");
    world.run();
    world.ask(K::READ, 2, 4088, 20);
    world.run();
    let mut expected = simple(0, 1);
    expected.extend(simple(0, 2));
    expected.extend(b"\0\0over the border\0\0\0");
    assert_eq!(world.output, expected);
}

#[test]
fn structured_replies_are_whole_chunks() {
    let mut world = World::new(ReplyStyle::Structured);
    world.ask_write(1, 512, b"data");
    world.run();
    world.ask(K::READ, 2, 512, 4);
    world.ask(K::FLUSH, 3, 0, 0);
    world.ask(K::WRITE_ZEROES, 4, SIZE, 1);
    world.run();
    let mut expected = chunk(1, 0, 1, b"");
    // The refusal needs no disk and overtakes.
    let text = b"the request reaches beyond the end of the export";
    let mut error = 28u32.to_be_bytes().to_vec();
    error.extend((text.len() as u16).to_be_bytes());
    error.extend(text);
    expected.extend(chunk(1, 0x8001, 4, &error));
    expected.extend(chunk(1, 1, 2, b"\0\0\0\0\0\0\x02\0data"));
    expected.extend(chunk(1, 0, 3, b""));
    assert_eq!(world.output, expected);
}

#[test]
fn all_replies_of_a_turn_go_out_in_one_send() {
    let mut world = World::new(ReplyStyle::Simple);
    for cookie in 0..64 {
        world.ask(K::READ, cookie, cookie * 4096, 4096);
    }
    world.run();
    assert_eq!(world.output.len(), 64 * (16 + 4096));
    assert_eq!(world.host.sends, 1);
}

#[test]
fn headers_without_data_between_them_are_one_segment() {
    let mut world = World::new(ReplyStyle::Simple);
    for cookie in 0..10 {
        world.ask(K::FLUSH, cookie, 0, 0);
    }
    world.deliver(usize::MAX);
    while !world.host.submitted.is_empty() {
        world.complete(0);
    }
    world.flush();
    assert_eq!(world.host.send.as_ref().map(Vec::len), Some(1));
}

#[test]
fn more_replies_than_one_send_takes_follow_in_the_next() {
    let mut world = World::new(ReplyStyle::Structured);
    for cookie in 0..1000 {
        world.ask(K::READ, cookie, 0, 1);
    }
    world.run();
    assert_eq!(world.output.len(), 1000 * 29);
    assert!(world.host.sends > 1);
}

#[test]
fn a_short_send_goes_on_where_it_stopped() {
    for step in [1, 7, 16, 17, 4095, 4112] {
        let mut world = World::new(ReplyStyle::Simple);
        world.ask_write(1, 0, &[0xa5; 8192]);
        world.run();
        world.output.clear();
        world.ask(K::READ, 2, 0, 4096);
        world.ask(K::READ, 3, 4096, 4096);
        world.deliver(usize::MAX);
        world.complete(0);
        world.complete(0);
        world.flush();
        while world.sent(step) {}
        let mut expected = simple(0, 2);
        expected.extend([0xa5; 4096]);
        expected.extend(simple(0, 3));
        expected.extend([0xa5; 4096]);
        assert!(world.output == expected, "in steps of {step}");
    }
}

#[test]
fn what_completes_during_a_send_waits_for_its_end() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask(K::READ, 1, 0, 100);
    world.ask(K::READ, 2, 0, 100);
    world.deliver(usize::MAX);
    world.complete(0);
    world.flush();
    world.complete(0);
    world.flush();
    assert_eq!(world.host.sends, 1);
    world.sent(usize::MAX);
    world.flush();
    assert_eq!(world.host.sends, 2);
    world.sent(usize::MAX);
    assert_eq!(world.output.len(), 2 * 116);
}

#[test]
fn a_large_payload_is_received_straight_into_its_buffer() {
    let data: Vec<u8> = (0..3 << 20).map(|i: u32| (i * 7) as u8).collect();
    let mut world = World::new(ReplyStyle::Simple);
    world.ask_write(1, 100, &data);
    world.deliver(1000);
    world.flush();
    let (into, all) = world.host.receive.unwrap();
    // 972 bytes of payload came with the header.
    assert_eq!((into.offset, into.len, all), (100 + 972, 1 << 20, true));
    world.run();
    assert_eq!(world.output, simple(0, 1));
    assert!(world.disk[100..100 + data.len()] == data);
    let (into, all) = world.host.receive.unwrap();
    assert_eq!(
        (into.len, all),
        (28, false),
        "the next payload comes without its header"
    );
    world.ask(K::FLUSH, 2, 0, 0);
    world.run();
    assert!(world.host.receive.unwrap().0.len > 28);
}

/// A connection to a memory volume, with the larger receive buffer.
fn memory() -> World {
    let mut world = World::new(ReplyStyle::Simple);
    world.host.takes_views = true;
    world.ask_write(1, 0, &[1; 8192]);
    world.run();
    world.output.clear();
    world
}

/// Bytes of buffers that hold payload apart from what was received.
fn copied(world: &World) -> usize {
    world.host.arena.used(Class::Client)
}

#[test]
fn payload_for_memory_stays_where_it_was_received() {
    let mut world = memory();
    for cookie in 0..20 {
        world.ask_write(cookie, cookie * 4096, &[cookie as u8 + 1; 4096]);
    }
    world.deliver(usize::MAX);
    assert_eq!((world.host.submitted.len(), copied(&world)), (20, 0));
    world.run();
    assert_eq!(world.output.len(), 20 * 16);
    assert!((0..20).all(|block| world.disk[block * 4096..][..4096] == [block as u8 + 1; 4096]));
}

#[test]
fn a_payload_cut_by_the_end_of_a_receive_goes_on_behind_it() {
    for cut in [28, 29, 100, 4123] {
        let mut world = memory();
        world.ask_write(2, 0, &[2; 4096]);
        world.ask_write(3, 4096, &[3; 4096]);
        world.deliver(4124 + cut);
        assert_eq!((world.host.submitted.len(), copied(&world)), (1, 0));
        let before = world.host.receive;
        world.flush();
        let (into, all) = world.host.receive.unwrap();
        assert_eq!(before, None);
        assert_eq!((into.offset as usize, all), (4124 + cut, false));
        world.run();
        assert_eq!(copied(&world), 0);
        assert_eq!(world.disk[4096..8192], [3; 4096]);
    }
}

#[test]
fn at_the_end_of_the_buffer_just_the_rest_of_the_payload_is_received() {
    let mut world = memory();
    // Cut far behind: what is left of the buffer is worth no other receive.
    for cookie in 0..62 {
        world.ask_write(cookie, cookie * 4096, &[cookie as u8; 4096]);
    }
    let whole = 62 * 4124;
    world.deliver(whole - 1000);
    world.flush();
    let (into, all) = world.host.receive.unwrap();
    assert_eq!(
        (into.offset, into.len, all),
        (whole as u32 - 1000, 1000, true)
    );
    world.run();
    assert_eq!((copied(&world), world.disk[61 * 4096]), (0, 61));
}

#[test]
fn what_the_volume_still_needs_is_not_received_over() {
    let mut world = memory();
    let mut rounds = 0;
    // Nothing completes: each receive goes behind the one before, then to another buffer.
    let mut buffers = std::collections::HashSet::new();
    while world.host.submitted.len() < 200 {
        let n = rounds % 100;
        for cookie in n * 20..n * 20 + 20 {
            world.ask_write(cookie, cookie * 4096, &[cookie as u8; 4096]);
        }
        world.flush();
        buffers.insert(world.host.receive.unwrap().0.buf);
        world.deliver(usize::MAX);
        rounds += 1;
    }
    assert_eq!(buffers.len(), 200_usize.div_ceil(60));
    assert_eq!(copied(&world), 0);
    world.run();
    assert!((0..200).all(|block| world.disk[block * 4096..][..4096] == [block as u8; 4096]));
    world.is_input_over = true;
    world.run();
    world.quiet();
    world.assert_nothing_is_held();
}

#[test]
fn unaligned_payload_for_memory_is_placed_where_granules_begin() {
    let mut world = memory();
    world.ask_write(2, 100, &[2; 4096]);
    world.ask_write(3, 8192, &[3; 100]);
    world.deliver(usize::MAX);
    assert_eq!(world.host.submitted.len(), 2);
    assert_eq!(copied(&world), 8192 + 4096);
    world.run();
    assert_eq!(world.disk[8192..8292], [3; 100]);
}

#[test]
fn large_payload_for_memory_is_received_straight_into_its_buffer() {
    let data = vec![7; 1 << 20];
    let mut world = memory();
    world.ask_write(2, 0, &data);
    world.deliver(28);
    world.flush();
    assert_eq!(world.host.receive.unwrap().0.len, 1 << 20);
    world.run();
    world.ask_write(3, 1 << 20, &data);
    world.run();
    assert!(world.disk[..2 << 20] == [7; 2 << 20][..]);
}

#[test]
fn the_payload_of_a_refused_write_is_not_received_by_the_header() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask_write(1, 0, &vec![1; 1 << 20]);
    world.run();
    assert_eq!(world.host.receive.unwrap().0.len, 28);
    world.ask_write(2, SIZE, &vec![2; 1 << 20]);
    world.deliver(usize::MAX);
    world.flush();
    assert!(world.host.receive.unwrap().0.len >= 4096);
    world.ask(K::FLUSH, 3, 0, 0);
    world.run();
    assert_eq!(
        world.output,
        [simple(0, 1), simple(28, 2), simple(0, 3)].concat()
    );
}

#[test]
fn the_largest_request_is_served_wherever_it_begins() {
    for offset in [0, 1, 4095] {
        let mut world = World::new(ReplyStyle::Simple);
        world.ask_write(1, offset, &vec![9; 32 << 20]);
        world.ask(K::READ, 2, offset, 32 << 20);
        world.run();
        assert_eq!(world.output.len(), 16 + 16 + (32 << 20));
        assert!(world.output[32..].iter().all(|byte| *byte == 9));
        assert_eq!(world.host.arena.used(Class::Client), 0);
    }
}

#[test]
fn bytes_from_negotiation_come_first() {
    let mut early = World::new(ReplyStyle::Simple);
    early.ask(K::READ, 1, 0, 8);
    early.ask(K::FLUSH, 2, 0, 0);
    let mut bytes: Vec<u8> = early.input.into_iter().collect();
    let rest = bytes.split_off(40);
    let mut world = World::with(ReplyStyle::Simple, Limits::default(), 64 << 20, bytes);
    assert_eq!(world.host.submitted.len(), 1);
    world.input.extend(rest);
    world.run();
    assert_eq!(world.output.len(), 24 + 16);
}

#[test]
fn without_room_nothing_is_read_and_the_order_is_kept() {
    let mut world = World::new(ReplyStyle::Simple);
    world.host.room = 2;
    for cookie in 0..5 {
        world.ask(K::READ, cookie, cookie * 512, 512);
    }
    world.deliver(usize::MAX);
    world.flush();
    assert_eq!(world.host.submitted.len(), 2);
    assert!(world.host.wants_room && world.host.receive.is_none());
    world.complete(0);
    world.room_came();
    let offsets = world.host.submitted.iter().map(|(_, op)| match op {
        Op::Read { range, .. } => range.offset,
        _ => panic!("only reads were asked for"),
    });
    assert_eq!(offsets.collect::<Vec<_>>(), [512, 1024]);
    world.run();
    let cookies = world.output.chunks(16 + 512).map(|reply| reply[15]);
    assert_eq!(cookies.collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn a_busy_volume_is_asked_again() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask_write(1, 0, b"x");
    world.deliver(usize::MAX);
    world.fail(Outcome::Busy);
    assert!(world.host.wants_room);
    world.ask(K::FLUSH, 2, 0, 0);
    world.flush();
    world.run();
    assert_eq!(world.output, [simple(0, 1), simple(0, 2)].concat());
    assert_eq!(world.disk[0], b'x');
}

#[test]
fn without_memory_a_request_waits_and_is_served_later() {
    let mut world = World::with(ReplyStyle::Simple, Limits::default(), 4 << 20, Vec::new());
    let arena = &mut world.host.arena;
    let mut taken = Vec::new();
    while let Some(buf) = arena.alloc(Class::Client, 4096) {
        taken.push(buf);
    }
    world.ask(K::READ, 1, 0, 4096);
    world.deliver(usize::MAX);
    world.flush();
    assert!(world.host.submitted.is_empty() && world.host.receive.is_none());
    for buf in taken {
        world.host.arena.release(buf);
    }
    world.pass(Duration::from_millis(5));
    assert_eq!(world.host.submitted.len(), 1);
    world.run();
    assert_eq!(world.output.len(), 16 + 4096);
}

#[test]
fn a_client_that_reads_no_replies_is_read_no_further_and_cut_off() {
    let mut world = World::new(ReplyStyle::Simple);
    for cookie in 0..5000 {
        world.ask(K::READ, cookie, 0, 4096);
    }
    for _ in 0..100 {
        world.deliver(usize::MAX);
        while !world.host.submitted.is_empty() {
            world.complete(0);
        }
        world.flush();
    }
    assert_eq!(world.connection.table.used(), 1024);
    assert!(world.host.arena.used(Class::Client) <= 1024 * 4096);
    assert!(world.host.receive.is_none());
    world.pass(Duration::from_secs(59));
    assert!(!world.host.is_ended);
    world.pass(Duration::from_secs(60));
    assert!(world.host.is_ended);
    let lines = world.log.0.lock().unwrap().join("\n");
    assert!(lines.starts_with("nbd: client unix:7 of export `disk` is cut off: no progress"));
    world.quiet();
    world.assert_nothing_is_held();
}

#[test]
fn a_connection_holds_no_more_than_it_leaves_to_others() {
    let mut world = World::with(ReplyStyle::Simple, Limits::default(), 32 << 20, Vec::new());
    for cookie in 0..100 {
        world.ask(K::READ, cookie, 0, 1 << 20);
    }
    world.deliver(usize::MAX);
    let arena = &world.host.arena;
    assert!(arena.used(Class::Client) <= arena.available(Class::Client) + (1 << 20));
    world.run();
    assert_eq!(world.output.len(), 100 * (16 + (1 << 20)));
}

#[test]
fn a_payload_that_does_not_go_on_is_cut_off() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask(K::WRITE, 1, 0, 32 << 20);
    world.input.extend([0; 5000]);
    world.run();
    world.flush();
    world.pass(Duration::from_secs(30));
    world.input.extend(vec![0; 1 << 20]);
    world.run();
    world.pass(Duration::from_secs(59));
    assert!(!world.host.is_ended, "it went on in between");
    world.pass(Duration::from_secs(60));
    assert!(world.host.is_ended);
    world.quiet();
    world.assert_nothing_is_held();
}

#[test]
fn an_idle_client_may_stay_and_costs_little() {
    let mut world = World::new(ReplyStyle::Simple);
    for cookie in 0..1000 {
        world.ask_write(cookie, 0, &[1; 4096]);
    }
    world.run();
    assert!(world.host.arena.used(Class::Net) > 256 << 10);
    for _ in 0..100 {
        world.pass(Duration::from_secs(60));
        world.run();
    }
    assert!(!world.host.is_ended);
    let idle = world.host.arena.used(Class::Net) + world.host.arena.used(Class::Client);
    assert!(idle <= 16 << 10, "{idle} bytes are held by an idle client");
    world.output.clear();
    world.ask(K::FLUSH, 7, 0, 0);
    world.run();
    assert_eq!(world.output, simple(0, 7));
}

#[test]
fn at_the_end_of_the_stream_what_was_not_submitted_never_happens() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask_write(1, 0, b"whole");
    world.ask(K::WRITE, 2, 4096, 1000);
    world.input.extend(b"part");
    world.is_input_over = true;
    world.deliver(usize::MAX);
    world.flush();
    world.deliver(usize::MAX);
    world.flush();
    assert!(world.host.is_ended);
    assert_eq!(world.host.submitted.len(), 1);
    // The client may still read: half-closed.
    world.complete(0);
    world.flush();
    world.quiet();
    assert!(!world.host.is_finished, "the last reply is on its way");
    world.sent(usize::MAX);
    world.flush();
    assert_eq!(world.output, simple(0, 1));
    world.assert_nothing_is_held();
}

#[test]
fn aborted_requests_are_not_answered() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask_write(1, 0, b"x");
    world.is_input_over = true;
    world.deliver(usize::MAX);
    world.flush();
    world.deliver(usize::MAX);
    world.fail(Outcome::Aborted);
    world.quiet();
    assert_eq!(world.output, b"");
    world.assert_nothing_is_held();
}

#[test]
fn a_failed_send_ends_the_session_without_further_replies() {
    let mut world = World::new(ReplyStyle::Simple);
    for cookie in 0..4 {
        world.ask(K::READ, cookie, 0, 4096);
    }
    world.deliver(usize::MAX);
    world.complete(0);
    world.flush();
    world.complete(0);
    world.send_fails();
    assert!(world.host.is_ended);
    world.complete(0);
    world.fail(Outcome::Aborted);
    world.flush();
    assert!(world.host.send.is_none());
    world.quiet();
    world.assert_nothing_is_held();
}

#[test]
fn disc_waits_for_what_is_outstanding() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask_write(1, 0, b"x");
    world.ask(K::DISC, 2, 0, 0);
    world.ask(K::READ, 3, 0, 1);
    world.deliver(usize::MAX);
    world.flush();
    assert!(!world.host.is_ended);
    world.complete(0);
    world.flush();
    assert!(!world.host.is_ended, "the reply is not sent yet");
    world.sent(usize::MAX);
    world.flush();
    assert!(world.host.is_ended);
    world.quiet();
    assert_eq!(world.output, simple(0, 1));
    world.assert_nothing_is_held();
}

#[test]
fn a_stopping_node_answers_what_it_took_and_closes_without_a_word() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask(K::READ, 1, 0, 1);
    world.ask(K::READ, 2, 0, 1);
    world.ask(K::WRITE, 3, 0, 100);
    world.deliver(usize::MAX);
    drain(&mut world, DrainReason::NodeStops);
    assert!(world.host.is_cancelled || world.host.receive.is_none());
    world.complete(0);
    world.fail(Outcome::Stopping);
    world.flush();
    world.sent(usize::MAX);
    world.flush();
    assert!(world.host.is_ended);
    world.quiet();
    assert_eq!(world.output, [simple(0, 1), vec![0]].concat());
    world.assert_nothing_is_held();
}

#[test]
fn a_volume_that_leaves_for_good_says_so() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask(K::READ, 1, 0, 1);
    world.ask(K::WRITE, 2, 0, 100);
    world.deliver(usize::MAX);
    drain(&mut world, DrainReason::VolumeLeaves);
    world.fail(Outcome::NotPrimary);
    world.flush();
    world.sent(usize::MAX);
    world.flush();
    world.sent(usize::MAX);
    world.flush();
    world.quiet();
    assert_eq!(world.output, [simple(108, 2), simple(108, 1)].concat());
    world.assert_nothing_is_held();
}

#[test]
fn a_superseded_session_ends_without_another_answer() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask(K::READ, 1, 0, 1);
    world.ask(K::READ, 2, 0, 1);
    world.ask_write(3, 0, b"x");
    world.deliver(usize::MAX);
    // The first is answered, but not sent yet.
    world.complete(0);
    world.fail(Outcome::Superseded);
    world.fail(Outcome::Superseded);
    assert!(world.host.is_ended);
    world.flush();
    world.quiet();
    assert_eq!(world.output, b"");
    world.assert_nothing_is_held();
}

#[test]
fn a_superseded_node_cuts_idle_clients_off_too() {
    let mut world = World::new(ReplyStyle::Simple);
    drain(&mut world, DrainReason::Superseded);
    assert!(world.host.is_ended);
    world.quiet();
    assert_eq!(world.output, b"");
    world.assert_nothing_is_held();
}

#[test]
fn a_volume_that_stops_being_primary_closes_without_an_answer() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask(K::READ, 1, 0, 1);
    world.ask(K::READ, 2, 0, 1);
    world.deliver(usize::MAX);
    world.complete(0);
    world.fail(Outcome::NotPrimary);
    world.flush();
    world.sent(usize::MAX);
    world.flush();
    world.quiet();
    assert_eq!(world.output, [simple(0, 1), vec![0]].concat());
    world.assert_nothing_is_held();
}

#[test]
fn whoever_reads_no_last_words_does_not_hold_the_end_up() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask(K::READ, 1, 0, 1);
    world.is_input_over = true;
    world.deliver(usize::MAX);
    world.complete(0);
    world.flush();
    world.deliver(usize::MAX);
    world.flush();
    world.quiet();
    assert!(!world.host.is_finished);
    world.pass(Duration::from_secs(2));
    world.assert_nothing_is_held();
}

#[test]
fn outcomes_become_the_errors_of_the_protocol() {
    let cases = [
        (Outcome::Io, K::READ, 5),
        (Outcome::NoSpace, K::WRITE, 28),
        (Outcome::OutOfRange, K::READ, 22),
        (Outcome::OutOfRange, K::TRIM, 28),
        (Outcome::OutOfRange, K::WRITE, 28),
    ];
    for (outcome, kind, error) in cases {
        let mut world = World::new(ReplyStyle::Simple);
        world.ask(kind, 9, 0, 1);
        world.input.extend(b"x");
        world.deliver(29);
        world.fail(outcome);
        world.flush();
        world.sent(usize::MAX);
        assert_eq!(world.output, simple(error, 9), "{outcome:?} of {kind:?}");
    }
}

#[test]
fn commands_reach_the_volume_as_they_were_meant() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask_with(F::FUA, K::TRIM, 1, 512, 1 << 20);
    world.ask(K::WRITE_ZEROES, 2, 512, u32::MAX >> 7);
    world.ask_with(F::NO_HOLE.with(F::FUA), K::WRITE_ZEROES, 3, 0, 4096);
    world.ask_with(F::FAST_ZERO, K::WRITE_ZEROES, 4, 0, 4096);
    world.ask_with(F::FUA, K::WRITE, 5, 0, 1);
    world.input.push_back(1);
    world.ask(K::FLUSH, 6, 0, 0);
    world.deliver(usize::MAX);
    let ops: Vec<Op> = world.host.submitted.iter().map(|(_, op)| *op).collect();
    let zero = |offset, len, zeroing, fua| Op::Zero {
        range: ByteRange { offset, len },
        zeroing,
        fua,
    };
    assert_eq!(ops[0], zero(512, 1 << 20, Zeroing::Trim, true));
    assert_eq!(
        ops[1],
        zero(512, u64::from(u32::MAX >> 7), Zeroing::MayTrim, false)
    );
    assert_eq!(ops[2], zero(0, 4096, Zeroing::Allocate, true));
    assert_eq!(ops[3], zero(0, 4096, Zeroing::MayTrim, false));
    assert!(matches!(ops[4], Op::Write { fua: true, .. }));
    assert_eq!(ops[5], Op::Flush);
}

#[test]
fn fast_zeroes_that_keep_their_blocks_are_not_promised() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask_with(F::FAST_ZERO.with(F::NO_HOLE), K::WRITE_ZEROES, 4, 0, 4096);
    world.run();
    assert_eq!(world.output, simple(95, 4));
}

#[test]
fn requests_of_nothing_are_done() {
    let mut world = World::new(ReplyStyle::Simple);
    for (cookie, kind) in [K::READ, K::WRITE, K::TRIM, K::WRITE_ZEROES]
        .into_iter()
        .enumerate()
    {
        world.ask(kind, cookie as u64, SIZE, 0);
    }
    world.run();
    assert_eq!(
        world.output,
        (0..4)
            .flat_map(|cookie| simple(0, cookie))
            .collect::<Vec<_>>()
    );
}

#[test]
fn block_status_tells_what_the_volume_tells() {
    let mut world = World::new(ReplyStyle::Structured);
    world.ask(K::BLOCK_STATUS, 1, 4096, 12288);
    world.deliver(usize::MAX);
    assert_eq!(
        world.host.queries[0].1,
        ByteRange {
            offset: 4096,
            len: 12288
        }
    );
    let extent = |len, flags| BlockExtent { len, flags };
    world.tell(Ok(&[extent(4096, 0), extent(8192, 3)]));
    world.flush();
    world.sent(usize::MAX);
    let payload = b"\0\0\0\x01\0\0\x10\0\0\0\0\0\0\0\x20\0\0\0\0\x03";
    assert_eq!(world.output, chunk(1, 5, 1, payload));
    world.output.clear();
    world.ask_with(F::REQ_ONE, K::BLOCK_STATUS, 2, 0, 4096);
    world.deliver(usize::MAX);
    world.flush();
    world.deliver(usize::MAX);
    world.tell(Ok(&[extent(1 << 20, BlockExtent::ZERO)]));
    world.flush();
    world.sent(usize::MAX);
    assert_eq!(
        world.output,
        chunk(1, 5, 2, b"\0\0\0\x01\0\0\x10\0\0\0\0\x02")
    );
}

#[test]
fn allocation_that_cannot_be_told_is_data_and_a_failure_is_an_error() {
    let mut world = World::new(ReplyStyle::Structured);
    world.ask(K::BLOCK_STATUS, 1, 0, 4096);
    world.ask(K::BLOCK_STATUS, 2, 0, 4096);
    world.deliver(usize::MAX);
    world.tell(Err(Errno::OPNOTSUPP));
    world.tell(Err(Errno::IO));
    world.flush();
    world.sent(usize::MAX);
    let status = chunk(1, 5, 1, b"\0\0\0\x01\0\0\x10\0\0\0\0\0");
    assert_eq!(world.output[..status.len()], status);
    assert_eq!(
        world.output[status.len()..][..8],
        chunk(1, 0x8001, 2, b"")[..8]
    );
}

#[test]
fn a_thousand_extents_are_told_in_part() {
    let mut world = World::new(ReplyStyle::Structured);
    world.ask(K::BLOCK_STATUS, 1, 0, SIZE as u32);
    world.deliver(usize::MAX);
    let extents: Vec<BlockExtent> = (0..SIZE / 4096)
        .map(|i| BlockExtent {
            len: 4096,
            flags: u32::from(i % 2 == 1),
        })
        .collect();
    world.tell(Ok(&extents));
    world.flush();
    world.sent(usize::MAX);
    assert!(world.output.len() > 20_000 && world.output.len() <= 32 << 10);
}

#[test]
fn a_stream_out_of_step_is_closed_with_one_line() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask(K::READ, 1, 0, 1);
    world.input.extend([0xff; 28]);
    world.deliver(usize::MAX);
    assert!(world.host.is_ended);
    let lines = world.log.0.lock().unwrap().clone();
    assert_eq!(
        lines,
        ["nbd: client unix:7 of export `disk` is cut off: a request began with 0xffffffff"]
    );
    world.complete(0);
    world.flush();
    world.sent(usize::MAX);
    world.quiet();
    world.assert_nothing_is_held();
}

#[test]
fn a_refused_write_is_dropped_and_the_next_request_is_served() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask_write(1, SIZE - 1, b"two");
    world.ask(K::FLUSH, 2, 0, 0);
    world.run();
    assert_eq!(world.output, [simple(28, 1), simple(0, 2)].concat());
}

#[test]
fn hostile_lengths_and_offsets_are_refused_or_close_the_connection() {
    let max = 32 << 20;
    let lengths = [0, 1, max - 1, max, max + 1, 1 << 31, u32::MAX];
    let offsets = [0, SIZE - 1, SIZE, SIZE + 1, 1 << 63, u64::MAX];
    for kind in 0..=9 {
        for length in lengths {
            for offset in offsets {
                let mut world = World::new(ReplyStyle::Structured);
                world.ask_with(F(0), K(kind), 1, offset, length);
                world.run();
                let is_write = kind == 1;
                let is_answered = !world.output.is_empty();
                assert!(
                    is_answered || is_write || kind == 2,
                    "command {kind} at {offset} of {length} bytes"
                );
                world.is_input_over = true;
                world.run();
                assert!(world.host.is_ended);
                world.quiet();
                world.flush();
                world.assert_nothing_is_held();
            }
        }
    }
}
