//! Laws of time, wake-ups, buffers and endings.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use engine_ring::{Class, Errno, Op, Wait};

use super::bed::Bed;

const MS: u64 = 1_000_000;

pub fn a_timeout_comes_at_its_time(bed: &mut Bed) {
    let at = bed.now() + 20 * MS;
    bed.push(1, Op::Timeout { at });
    assert_eq!(bed.wait(1).result, Ok(0));
    assert!(bed.now() >= at);
    bed.push(2, Op::Timeout { at: 5 });
    assert_eq!(bed.wait(2).result, Ok(0), "long past");
}

pub fn timeouts_come_in_their_order(bed: &mut Bed) {
    let now = bed.now();
    for (token, after) in [(1, 60), (2, 20), (3, 40)] {
        bed.push(
            token,
            Op::Timeout {
                at: now + after * MS,
            },
        );
    }
    while bed.done.len() < 3 {
        bed.turn(Wait::Until(now + 10_000 * MS));
    }
    let order: Vec<u64> = bed.done.iter().map(|c| c.token).collect();
    assert_eq!(order, [2, 3, 1]);
}

pub fn a_timeout_can_be_cancelled(bed: &mut Bed) {
    let at = bed.now() + 3_600_000 * MS;
    bed.push(1, Op::Timeout { at });
    bed.turn(Wait::No);
    bed.cancel(1);
    assert_eq!(bed.wait(1).result, Err(Errno::CANCELED));
    assert!(bed.now() < at);
}

pub fn an_idle_turn_ends_at_its_deadline(bed: &mut Bed) {
    let until = bed.now() + 30 * MS;
    while bed.now() < until {
        bed.turn(Wait::Until(until));
    }
    assert!(bed.done.is_empty());
    assert!(bed.now() < until + 5_000 * MS);
}

pub fn a_turn_that_may_not_sleep_does_not(bed: &mut Bed) {
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
    let begun = Instant::now();
    for _ in 0..1000 {
        assert!(!bed.turn(Wait::No).woken);
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(bed.done.is_empty());
}

pub fn another_thread_wakes_a_sleeping_ring(bed: &mut Bed) {
    let waker = bed.waker();
    let posted = Arc::new(AtomicU32::new(0));
    let theirs = Arc::clone(&posted);
    let other = thread::spawn(move || {
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(10));
            theirs.fetch_add(1, Ordering::Release);
            for _ in 0..100 {
                waker.wake();
            }
        }
    });
    let begun = Instant::now();
    let mut seen = 0;
    while seen < 5 {
        assert!(begun.elapsed() < Duration::from_secs(20), "seen {seen}");
        let deadline = bed.now() + 10_000 * MS;
        bed.turn(Wait::Until(deadline));
        seen = posted.load(Ordering::Acquire);
    }
    other.join().unwrap();
    // All calls of the last burst together are at most one more wake-up, then there is silence.
    bed.turn(Wait::No);
    assert!(!bed.turn(Wait::No).woken);
}

pub fn a_wakeup_before_the_sleep_is_not_lost(bed: &mut Bed) {
    let waker = bed.waker();
    for _ in 0..100 {
        waker.wake();
        waker.wake();
        let begun = Instant::now();
        let deadline = bed.now() + 60_000 * MS;
        assert!(bed.turn(Wait::Until(deadline)).woken);
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert!(!bed.turn(Wait::No).woken);
    }
}

pub fn blocking_work_is_done(bed: &mut Bed) {
    for token in 0..50u32 {
        bed.push(
            u64::from(token),
            Op::Blocking(Box::new(move || Ok(token * 2))),
        );
    }
    for token in 0..50u32 {
        assert_eq!(bed.wait(u64::from(token)).result, Ok(token * 2));
    }
}

pub fn blocking_work_that_fails_or_panics_is_told(bed: &mut Bed) {
    let denied = || Err(std::io::Error::from_raw_os_error(libc::EACCES));
    assert_eq!(
        bed.run(Op::Blocking(Box::new(denied))),
        Err(Errno(libc::EACCES))
    );
    let panics = || panic!("planned by the test");
    assert_eq!(bed.run(Op::Blocking(Box::new(panics))), Err(Errno::IO));
    assert_eq!(
        bed.run(Op::Blocking(Box::new(|| Ok(1)))),
        Ok(1),
        "the pool lives on"
    );
}

pub fn a_buffer_in_flight_is_not_freed(bed: &mut Bed) {
    let (left, right) = bed.pair();
    let used = bed.arena.used(Class::Client);
    let buf = bed.buf(4096);
    bed.push(
        1,
        Op::Recv {
            file: right,
            buf: buf.slice(0, 10),
            all: true,
        },
    );
    bed.arena.release(buf);
    assert!(bed.arena.in_ring(buf));
    assert_eq!(
        bed.arena.used(Class::Client),
        used + 4096,
        "the operation holds it"
    );
    let out = bed.buf_of(b"0123456789");
    assert_ne!(out, buf);
    assert_eq!(
        bed.run(Op::Send {
            file: left,
            segments: &[out.slice(0, 10).into()]
        }),
        Ok(10)
    );
    bed.arena.release(out);
    assert_eq!(bed.wait(1).result, Ok(10));
    assert_eq!(bed.arena.used(Class::Client), used);
}

pub fn a_buffer_being_filled_cannot_be_seen(bed: &mut Bed) {
    let (_left, right) = bed.pair();
    let buf = bed.buf(4096);
    bed.push(
        1,
        Op::Recv {
            file: right,
            buf: buf.slice(100, 10),
            all: false,
        },
    );
    let seen = catch_unwind(AssertUnwindSafe(|| bed.arena.bytes(buf).len()));
    assert!(seen.is_err());
    assert_eq!(
        bed.arena.slice(buf.slice(0, 100)).len(),
        100,
        "what lies beside it can"
    );
    bed.cancel(1);
    bed.wait(1);
    assert_eq!(bed.arena.bytes(buf).len(), 4096);
}

pub fn closing_ends_what_is_pending(bed: &mut Bed) {
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
    bed.push(2, Op::PollIn { file: right });
    bed.turn(Wait::No);
    bed.push(3, Op::Close { file: right });
    let (mut order, deadline) = (Vec::new(), bed.now() + 20_000 * MS);
    while order.len() < 3 {
        assert!(bed.now() < deadline);
        bed.turn(Wait::Until(deadline));
        order.extend(std::mem::take(&mut bed.done));
    }
    assert_eq!(
        (order[2].token, order[2].result),
        (3, Ok(0)),
        "the close comes last"
    );
    assert!(
        order[..2].iter().all(|c| c.result == Err(Errno::CANCELED)),
        "{order:?}"
    );
    assert_eq!((bed.arena.references(buf), bed.ring().in_flight()), (1, 0));
}

pub fn a_file_in_use_is_not_unregistered(bed: &mut Bed) {
    let Some((file, peer)) = bed.real_stream() else {
        return;
    };
    let buf = bed.buf(4096);
    bed.push(
        1,
        Op::Recv {
            file,
            buf: buf.slice(0, 10),
            all: false,
        },
    );
    bed.turn(Wait::No);
    assert!(bed.ring().unregister(file).is_none());
    bed.cancel(1);
    bed.wait(1);
    let fd = bed.ring().unregister(file).unwrap();
    assert!(bed.ring().unregister(file).is_none(), "stale");
    assert!(bed.ring().fd(file).is_none());
    // The descriptor works as before: it blocks, and reaches its peer.
    let mut stream = std::net::TcpStream::from(fd);
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        std::io::Write::write_all(&mut &peer, b"hello").unwrap();
    });
    let mut five = [0; 5];
    std::io::Read::read_exact(&mut stream, &mut five).unwrap();
    writer.join().unwrap();
    assert_eq!(&five, b"hello");
}

pub fn cancelling_what_has_ended_changes_nothing(bed: &mut Bed) {
    let file = bed.file(&[1; 100]);
    bed.cancel(7);
    assert_eq!(bed.read(file, 0, 100), vec![1; 100]);
    bed.cancel(0xFFFF_0000);
    assert_eq!(bed.read(file, 0, 100), vec![1; 100]);
    bed.turn(Wait::No);
    assert!(bed.done.is_empty());
}

/// Operations are cancelled and replaced at once: each token ends exactly once, with its own result.
pub fn late_completions_never_reach_a_reused_slot(bed: &mut Bed) {
    let (left, right) = bed.pair();
    for round in 0..200u64 {
        let buf = bed.buf(4096);
        bed.push(
            round * 2,
            Op::Recv {
                file: right,
                buf: buf.slice(0, 1),
                all: false,
            },
        );
        bed.turn(Wait::No);
        bed.cancel(round * 2);
        bed.cancel(round * 2);
        assert_eq!(bed.wait(round * 2).result, Err(Errno::CANCELED));
        bed.push(
            round * 2 + 1,
            Op::Recv {
                file: right,
                buf: buf.slice(0, 1),
                all: false,
            },
        );
        let out = bed.buf_of(&[round as u8]);
        assert_eq!(
            bed.run(Op::Send {
                file: left,
                segments: &[out.slice(0, 1).into()]
            }),
            Ok(1)
        );
        assert_eq!(bed.wait(round * 2 + 1).result, Ok(1));
        assert_eq!(bed.arena.bytes(buf)[0], round as u8);
        bed.arena.release(buf);
        bed.arena.release(out);
    }
    bed.turn(Wait::No);
    assert!(bed.done.is_empty());
    assert_eq!(bed.ring().in_flight(), 0);
}

/// The thread that made the ring lives on; the kernel must not keep the files for its sake.
pub fn a_dropped_ring_closes_its_streams(bed: &mut Bed) {
    let mut own = Bed::with_depth(bed.kind, 4).expect("this kind exists, the suite's bed has it");
    let Some((file, mut peer)) = own.real_stream() else {
        return;
    };
    let buf = own.buf(4096);
    own.push(
        1,
        Op::Recv {
            file,
            buf: buf.slice(0, 10),
            all: false,
        },
    );
    own.turn(Wait::No);
    own.drop_ring();
    peer.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    // The ring's own end may interrupt a system call of the thread that made it.
    let ended = loop {
        match std::io::Read::read(&mut peer, &mut [0; 10]) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            ended => break ended,
        }
    };
    assert_eq!(ended.expect("an end, not a timeout"), 0);
}

pub fn a_ring_dropped_with_work_in_flight_lets_go(bed: &mut Bed) {
    let begun = Instant::now();
    let mut own = Bed::with_depth(bed.kind, 4).expect("this kind exists, the suite's bed has it");
    let (_left, right) = own.pair();
    let buf = own.buf(4096);
    own.push(
        1,
        Op::Recv {
            file: right,
            buf: buf.slice(0, 10),
            all: false,
        },
    );
    let at = own.now() + 3_600_000 * MS;
    for token in 2..20 {
        own.push(token, Op::Timeout { at });
    }
    own.turn(Wait::No);
    let arena = own.drop_ring();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "the kernel answered the cancellations"
    );
    assert_eq!(arena.slice(buf.slice(10, 10)).len(), 10);
}
