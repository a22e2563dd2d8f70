use super::*;
use crate::{ArenaConfig, Class, Completion, Op, Ring, Wait};

fn arena() -> Arena {
    Arena::new(&ArenaConfig::with_bytes(0, 4 << 20)).unwrap()
}

/// Writes `count` blocks at once and gives the order in which they complete.
fn order_of_writes(seed: u64, count: u64) -> Vec<u64> {
    let (world, mut arena) = (World::new(seed), arena());
    world.set_shuffle(true);
    let mut ring = world.ring(&arena);
    let file = ring.adopt(world.file(vec![0; 4096]));
    for token in 0..count {
        let buf = arena.alloc(Class::Client, 4096).unwrap();
        let write = Op::WriteAt {
            file,
            buf: buf.slice(0, 512),
            at: token,
            durable: false,
        };
        ring.push(&mut arena, token, write);
        arena.release(buf);
    }
    let mut out = Vec::new();
    ring.enter(&mut arena, Wait::No, &mut out);
    out.iter().map(|c| c.token).collect()
}

#[test]
fn the_same_seed_gives_the_same_order() {
    assert_eq!(order_of_writes(5, 32), order_of_writes(5, 32));
    assert_ne!(order_of_writes(5, 32), order_of_writes(6, 32));
    assert_ne!(
        order_of_writes(5, 32),
        (0..32).collect::<Vec<_>>(),
        "shuffled"
    );
}

/// Reads, writes, flushes; the completions by token.
fn three_operations(world: &World) -> Vec<Completion> {
    let mut arena = arena();
    let mut ring = world.ring(&arena);
    let file = ring.adopt(world.file(vec![7; 8192]));
    let buf = arena.alloc(Class::Client, 4096).unwrap();
    arena.bytes_mut(buf).fill(9);
    let slice = buf.slice(0, 4096);
    let mut out = Vec::new();
    ring.push(
        &mut arena,
        1,
        Op::WriteAt {
            file,
            buf: slice,
            at: 0,
            durable: false,
        },
    );
    ring.enter(&mut arena, Wait::No, &mut out);
    ring.push(&mut arena, 2, Op::DataSync { file });
    ring.enter(&mut arena, Wait::No, &mut out);
    ring.push(
        &mut arena,
        3,
        Op::ReadAt {
            file,
            buf: slice,
            at: 4096,
        },
    );
    ring.enter(&mut arena, Wait::No, &mut out);
    assert_eq!(ring.in_flight(), 0);
    out
}

#[test]
fn the_nth_operation_fails_and_no_other() {
    for nth in 1..=3 {
        let world = World::new(1);
        world.plan(nth, Fault::Fail(Errno::IO));
        let out = three_operations(&world);
        for completion in out {
            assert_eq!(
                completion.result.is_err(),
                completion.token == nth,
                "{completion:?}"
            );
        }
        assert_eq!(world.operations(), 3);
    }
}

#[test]
fn a_shortened_write_changes_no_more_than_it_says() {
    let (world, mut arena) = (World::new(1), arena());
    world.plan(1, Fault::Short(100));
    let mut ring = world.ring(&arena);
    let object = world.file(vec![0; 4096]);
    let file = ring.adopt(object);
    let buf = arena.alloc(Class::Client, 4096).unwrap();
    arena.bytes_mut(buf).fill(1);
    let write = Op::WriteAt {
        file,
        buf: buf.slice(0, 4096),
        at: 0,
        durable: false,
    };
    ring.push(&mut arena, 1, write);
    let mut out = Vec::new();
    ring.enter(&mut arena, Wait::No, &mut out);
    assert_eq!(out[0].result, Ok(100));
    assert_eq!(
        world.contents(object).iter().filter(|b| **b == 1).count(),
        100
    );
}

#[test]
fn an_operation_takes_its_latency_of_virtual_time() {
    let (world, mut arena) = (World::new(1), arena());
    world.set_latency(5_000..=5_000);
    let mut ring = world.ring(&arena);
    let file = ring.adopt(world.file(vec![]));
    let begun = ring.now();
    ring.push(&mut arena, 1, Op::DataSync { file });
    let mut out = Vec::new();
    ring.enter(&mut arena, Wait::No, &mut out);
    assert!(out.is_empty());
    ring.enter(&mut arena, Wait::Until(begun + 4_999), &mut out);
    assert!(out.is_empty());
    ring.enter(&mut arena, Wait::Until(begun + 9_000), &mut out);
    assert_eq!((out.len(), ring.now()), (1, begun + 5_000));
}

#[test]
fn a_crash_keeps_what_was_flushed() {
    let mut torn = 0;
    for seed in 0..20 {
        let (world, mut arena) = (World::new(seed), arena());
        let mut ring = world.ring(&arena);
        let object = world.file(vec![0; 8192]);
        let file = ring.adopt(object);
        let buf = arena.alloc(Class::Client, 4096).unwrap();
        arena.bytes_mut(buf).fill(1);
        let slice = buf.slice(0, 4096);
        let mut out = Vec::new();
        ring.push(
            &mut arena,
            1,
            Op::WriteAt {
                file,
                buf: slice,
                at: 0,
                durable: true,
            },
        );
        ring.push(
            &mut arena,
            2,
            Op::WriteAt {
                file,
                buf: slice,
                at: 4096,
                durable: false,
            },
        );
        ring.enter(&mut arena, Wait::No, &mut out);
        world.crash(object);
        let after = world.contents(object);
        assert!(after[..4096].iter().all(|b| *b == 1), "durable");
        let kept = after[4096..].chunks(512).filter(|s| s[0] == 1).count();
        torn += usize::from(kept > 0 && kept < 8);
    }
    assert!(torn > 0, "some crash tears a write");
}

#[test]
fn a_hung_operation_ends_when_cancelled() {
    let (world, mut arena) = (World::new(1), arena());
    world.plan(1, Fault::Hang);
    let mut ring = world.ring(&arena);
    let file = ring.adopt(world.file(vec![]));
    ring.push(&mut arena, 1, Op::DataSync { file });
    let mut out = Vec::new();
    let deadline = ring.now() + 1_000_000_000;
    ring.enter(&mut arena, Wait::Until(deadline), &mut out);
    assert!(out.is_empty());
    ring.cancel(1);
    ring.enter(&mut arena, Wait::No, &mut out);
    assert_eq!(out[0].result, Err(Errno::CANCELED));
}

#[test]
fn two_rings_of_one_world_talk() {
    let (world, mut arena_a) = (World::new(1), arena());
    let mut arena_b = arena();
    let (mut a, mut b) = (world.ring(&arena_a), world.ring(&arena_b));
    let (left, right) = world.socket_pair();
    let (left, right) = (a.adopt(left), b.adopt(right));
    let from = arena_a.alloc(Class::Net, 4096).unwrap();
    let to = arena_b.alloc(Class::Net, 4096).unwrap();
    arena_a.bytes_mut(from)[..5].copy_from_slice(b"hello");
    b.push(
        &mut arena_b,
        1,
        Op::Recv {
            file: right,
            buf: to.slice(0, 5),
            all: true,
        },
    );
    a.push(
        &mut arena_a,
        2,
        Op::Send {
            file: left,
            segments: &[from.slice(0, 5).into()],
        },
    );
    let mut out = Vec::new();
    a.enter(&mut arena_a, Wait::No, &mut out);
    b.enter(&mut arena_b, Wait::No, &mut out);
    assert_eq!(out.len(), 2);
    assert_eq!(&arena_b.bytes(to)[..5], b"hello");
    drop(a);
    b.push(
        &mut arena_b,
        3,
        Op::Recv {
            file: right,
            buf: to.slice(0, 5),
            all: true,
        },
    );
    b.enter(&mut arena_b, Wait::No, &mut out);
    assert_eq!(out[2].result, Ok(0), "the other process is gone");
}
