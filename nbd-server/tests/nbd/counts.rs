//! What a request costs in the steady state, counted rather than timed.
//!
//! The counts are those of a process: the test runs itself once more, with only
//! [`steady_state`] in it, under `perf stat` where system calls are counted.

use std::io::{Read, Write};
use std::process::Command;

use engine::control::IoCounters;
use nbd_proto::{CommandFlags, CommandKind, Cookie, Request};

use crate::allocations;
use crate::node::Served;
use crate::session::Session;

/// Requests on their way at a time.
const DEPTH: usize = 64;
/// Bytes of one request.
const LENGTH: usize = 4096;
/// Rounds of `DEPTH` requests that are counted, for reads and for writes.
const ROUNDS: usize = 1500;

/// One write call with all requests of a round, one reply for each.
struct Load {
    session: Session,
    requests: Vec<u8>,
    replies: Vec<u8>,
}

impl Load {
    fn new(session: Session, kind: CommandKind) -> Load {
        Load::of(session, kind, DEPTH, LENGTH)
    }

    /// `depth` requests of `length` bytes in a round.
    fn of(session: Session, kind: CommandKind, depth: usize, length: usize) -> Load {
        let mut requests = Vec::new();
        let places = (128 << 20) / length as u64;
        for i in 0..depth as u64 {
            let (offset, length) = (i * 7919 % places * length as u64, length as u32);
            let flags = CommandFlags::NONE;
            let request = Request {
                flags,
                kind,
                cookie: Cookie(i),
                offset,
                length,
            };
            requests.extend(request.encode());
            if kind == CommandKind::WRITE {
                requests.extend(vec![i as u8; length as usize]);
            }
        }
        let data = if kind == CommandKind::READ { length } else { 0 };
        Load {
            session,
            requests,
            replies: vec![0; depth * (16 + data)],
        }
    }

    fn round(&mut self) {
        self.session.stream.write_all(&self.requests).unwrap();
        self.session.stream.read_exact(&mut self.replies).unwrap();
    }

    /// Replies are read while requests are written, as more than sockets hold is on its way.
    fn pipelined(&mut self) {
        let mut reader = self.session.stream.try_clone().unwrap();
        let replies = &mut self.replies;
        std::thread::scope(|scope| {
            scope.spawn(move || reader.read_exact(replies).unwrap());
            self.session.stream.write_all(&self.requests).unwrap();
        });
    }
}

#[test]
fn payload_is_copied_once_between_socket_and_memory() {
    let served = Served::start(128 << 20);
    for kind in [CommandKind::WRITE, CommandKind::READ] {
        for (depth, length) in [
            (1, 4096),
            (64, 4096),
            (61, 12 << 10),
            (16, 64 << 10),
            (8, 128 << 10),
            (4, 1 << 20),
        ] {
            let mut load = Load::of(served.open_simple(), kind, depth, length);
            // The first ones tell the server how large requests are.
            load.pipelined();
            let before = served.status().io;
            (0..20).for_each(|_| load.pipelined());
            let after = served.status().io;
            let payload = (20 * depth * length) as u64;
            let moved = |io: &IoCounters| io.read_bytes + io.written_bytes;
            assert_eq!(moved(&after) - moved(&before), payload);
            let copied = after.copied_bytes - before.copied_bytes;
            assert_eq!(copied, payload, "{kind:?} {depth} x {length}");
        }
    }
}

/// Run by [`a_request_in_the_steady_state_costs_no_allocation_and_few_system_calls`].
#[test]
#[ignore = "part of another test"]
fn steady_state() {
    let served = Served::start(128 << 20);
    println!("backend: {}", served.io_backend());
    for kind in [CommandKind::READ, CommandKind::WRITE] {
        let mut load = Load::new(served.open_simple(), kind);
        (0..100).for_each(|_| load.round());
        let before = allocations::count();
        let start = std::time::Instant::now();
        (0..ROUNDS).for_each(|_| load.round());
        let micros = start.elapsed().as_secs_f64() * 1e6 / (ROUNDS * DEPTH) as f64;
        let count = allocations::count() - before;
        println!("{kind:?}: allocations {count}, {micros:.2} us per request");
    }
}

#[test]
fn a_request_in_the_steady_state_costs_no_allocation_and_few_system_calls() {
    let program = std::env::current_exe().unwrap();
    let body = [
        "counts::steady_state",
        "--exact",
        "--ignored",
        "--nocapture",
    ];
    let event = "syscalls:sys_enter_io_uring_enter";
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x", ",", "-e", event, "--"])
        .arg(&program)
        .args(body);
    let counted = perf.output().ok().filter(|output| output.status.success());
    let output = match &counted {
        Some(output) => output.clone(),
        None => Command::new(&program).args(body).output().unwrap(),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{text}");
    for line in text.lines().filter(|line| line.contains("allocations")) {
        let count = line
            .split("allocations ")
            .nth(1)
            .and_then(|rest| rest.split(',').next());
        let count: usize = count.unwrap().parse().unwrap();
        // Other threads (keepers, timers) may allocate now and then; requests may not.
        assert!(count < ROUNDS * DEPTH / 1000, "{line}");
    }
    assert_eq!(text.matches("allocations").count(), 2);
    let Some(output) = counted else {
        eprintln!("system calls are not counted: `perf stat` needs root and the perf package");
        return;
    };
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = report.lines().find(|line| line.contains(event)).unwrap();
    let Ok(enters) = line.split(',').next().unwrap().parse::<usize>() else {
        eprintln!("system calls are not counted: {line}");
        return;
    };
    let requests = 2 * (ROUNDS + 100) * DEPTH;
    println!("{enters} enters for {requests} requests");
    if enters == 0 {
        eprintln!(
            "io_uring is not in use here ({})",
            text.lines()
                .find(|line| line.contains("backend"))
                .unwrap_or_default()
        );
        return;
    }
    assert!(
        enters * 100 <= requests * 15,
        "{enters} enters for {requests} requests"
    );
}
