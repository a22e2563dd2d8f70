//! Another process goes on with a client: at any moment, nothing is lost and nothing is said twice.

use std::time::Duration;

use engine_core::action::Outcome;
use nbd_proto::{CommandKind as K, ReplyStyle};

use super::chaos::{Expected, Random, ask_something, check_replies, step};
use super::fake::{SIZE, World};
use super::simple;
use crate::config::Limits;

const ARENA: usize = 64 << 20;

fn move_on(world: &mut World) {
    world.move_to_successor(Limits::default(), ARENA);
}

#[test]
fn an_idle_client_is_served_on() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask_write(1, 0, b"before");
    world.run();
    move_on(&mut world);
    world.ask(K::READ, 2, 0, 6);
    world.run();
    let expected = [simple(0, 1), simple(0, 2), b"before".to_vec()].concat();
    assert_eq!(world.output, expected);
}

#[test]
fn a_write_of_which_a_part_has_come_is_written_whole() {
    let data: Vec<u8> = (0..300_000u32).map(|n| (n / 7) as u8).collect();
    let header = 28;
    for cut in [1, 27, 28, 29, 4000, 100_000, 283_000, 299_999] {
        let mut world = World::new(ReplyStyle::Simple);
        world.ask_write(7, 12_345, &data);
        let rest: Vec<u8> = world.input.split_off(cut.max(1)).into();
        while world.deliver(usize::MAX) && !world.input.is_empty() {
            world.flush();
        }
        world.flush();
        move_on(&mut world);
        world.input.extend(rest);
        world.run();
        assert_eq!(
            world.output,
            simple(0, 7),
            "cut at {cut} of {header} + data"
        );
        assert!(
            world.disk[12_345..12_345 + data.len()] == data[..],
            "cut at {cut}"
        );
    }
}

#[test]
fn the_payload_of_a_refused_write_is_dropped_by_the_successor_too() {
    for early in [0, 100, 5000] {
        let mut world = World::new(ReplyStyle::Simple);
        world.ask(K::WRITE, 3, SIZE, 10_000);
        world.input.extend(vec![0xee; early]);
        world.run();
        move_on(&mut world);
        world.input.extend(vec![0xee; 10_000 - early]);
        world.ask(K::READ, 4, 0, 1);
        world.run();
        let expected = [simple(28, 3), simple(0, 4), vec![0]].concat();
        assert_eq!(world.output, expected, "{early} bytes had come");
    }
}

#[test]
fn what_the_volume_had_no_room_for_is_served_by_the_successor() {
    let mut world = World::new(ReplyStyle::Simple);
    world.host.room = 2;
    for cookie in 0..8 {
        world.ask_write(cookie, cookie * 4096, &[cookie as u8; 100]);
    }
    world.deliver(usize::MAX);
    world.flush();
    assert_eq!(world.host.submitted.len(), 2);
    move_on(&mut world);
    world.run();
    assert_eq!(world.output.len(), 8 * 16);
    assert_eq!(world.disk[7 * 4096], 7);
}

#[test]
fn a_client_that_left_meanwhile_is_not_handed_over() {
    let mut world = World::new(ReplyStyle::Simple);
    world.is_input_over = true;
    world.connection.move_out(&mut world.host);
    world.deliver(usize::MAX);
    world.flush();
    world.quiet();
    assert_eq!(world.host.state, None);
    world.assert_nothing_is_held();
}

#[test]
fn a_client_that_does_not_read_its_replies_is_not_handed_over() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask(K::READ, 1, 0, 100_000);
    world.deliver(usize::MAX);
    world.complete(0);
    world.flush();
    world.connection.move_out(&mut world.host);
    world.deliver(usize::MAX);
    world.flush();
    world.quiet();
    world.pass(Duration::from_secs(3));
    assert_eq!(world.host.state, None);
    world.assert_nothing_is_held();
}

#[test]
fn what_was_dispatched_is_answered_before_the_move() {
    let mut world = World::new(ReplyStyle::Simple);
    world.ask_write(1, 0, b"first");
    world.ask_write(2, 8192, b"second");
    world.deliver(usize::MAX);
    world.connection.move_out(&mut world.host);
    world.complete(1);
    world.fail(Outcome::Aborted);
    world.flush();
    move_on(&mut world);
    world.run();
    assert_eq!(world.output, [simple(0, 2), simple(0, 1)].concat());
    assert_eq!(&world.disk[..5], b"first");
}

#[test]
fn whenever_a_client_is_moved_everything_is_answered_once() {
    for seed in 0..120 {
        let mut random = Random(seed);
        let limits = Limits {
            requests_max: 1 + random.below(64) as u16,
            ..Limits::default()
        };
        let mut world = World::with(ReplyStyle::Structured, limits, ARENA, Vec::new());
        world.host.room = 1 + random.below(16) as usize;
        world.host.takes_views = seed % 2 == 0;
        let mut expected = Expected::new();
        for cookie in 0..100 {
            ask_something(&mut world, &mut random, cookie, &mut expected);
        }
        for _ in 0..1 + random.below(4) {
            for _ in 0..random.below(300) {
                step(&mut world, &mut random);
            }
            // Some of the stream has not arrived yet.
            let late = world
                .input
                .split_off(random.below(world.input.len() as u64 + 1) as usize);
            world.move_to_successor(limits, ARENA);
            world.input.extend(late);
            world.host.takes_views = seed % 2 == 0;
            world.host.room = 1 + random.below(16) as usize;
        }
        while world.connection.table.used() > 0 || !world.input.is_empty() {
            world.host.wants_room = true;
            world.run();
            world.pass(Duration::from_millis(6));
        }
        check_replies(&world.output, expected);
    }
}
