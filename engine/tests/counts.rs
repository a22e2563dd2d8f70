//! What a request costs in memory and system calls: nothing, and a fraction of one.
//!
//! Without the test harness, whose threads allocate.

mod common;

use std::alloc::System;
use std::io::{Read, Write};

use common::nodes::*;
use common::{Ask, Client, HEAD, OK, REPLY};
use engine::control::{Backing, Role};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const DEPTH: usize = 64;
const ROUNDS: usize = 500;
/// Another thread of the node looks for planted faults five times a second; that is all.
const ALLOCATIONS_MAX: usize = 60;

/// Sends `DEPTH` requests in one piece and takes all replies, without allocating.
struct Volley {
    requests: Vec<u8>,
    replies: Vec<u8>,
}

impl Volley {
    fn reads() -> Volley {
        let mut requests = Vec::new();
        for index in 0..DEPTH as u64 {
            head(&mut requests, Ask::Read, index);
        }
        Volley {
            requests,
            replies: vec![0; DEPTH * (REPLY + 4096)],
        }
    }

    fn writes() -> Volley {
        let mut requests = Vec::new();
        for index in 0..DEPTH as u64 {
            head(&mut requests, Ask::Write, index);
            requests.extend([index as u8; 4096]);
        }
        Volley {
            requests,
            replies: vec![0; DEPTH * REPLY],
        }
    }

    fn fire(&mut self, client: &mut Client, rounds: usize) {
        for _ in 0..rounds {
            client.stream.write_all(&self.requests).unwrap();
            client.stream.read_exact(&mut self.replies).unwrap();
        }
        let step = self.replies.len() / DEPTH;
        assert!(self.replies.chunks(step).all(|reply| reply[8] == OK));
    }
}

fn head(into: &mut Vec<u8>, ask: Ask, index: u64) {
    let mut head = [0; HEAD];
    head[0] = ask as u8;
    head[1..9].copy_from_slice(&index.to_le_bytes());
    head[9..17].copy_from_slice(&(index * 8192).to_le_bytes());
    head[17..25].copy_from_slice(&4096u64.to_le_bytes());
    into.extend(head);
}

const NAME: &str = "a_request_allocates_nothing_and_shares_its_system_calls";

fn main() {
    // What runners of tests ask of a binary before they run it.
    if std::env::args().any(|argument| argument == "--list") {
        if !std::env::args().any(|argument| argument == "--ignored") {
            println!("{NAME}: test");
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let spec = volume("v", 8 << 20, Backing::Memory, &["alpha"]);
    let alpha = launch("alpha", node("alpha", dir.path(), vec![spec]));
    create(&alpha, "v");
    until("primary", || status(&alpha, "v").role == Role::Primary);
    let mut client = attach(&alpha, "v");
    for (name, mut volley) in [("reads", Volley::reads()), ("writes", Volley::writes())] {
        volley.fire(&mut client, 50);
        let (region, turns) = (Region::new(COUNTED), alpha.turns());
        volley.fire(&mut client, ROUNDS);
        let (allocations, turns) = (region.change().allocations, alpha.turns() - turns);
        let requests = ROUNDS * DEPTH;
        println!("{name}: {requests} requests, {allocations} allocations, {turns} turns");
        assert!(
            allocations < ALLOCATIONS_MAX,
            "{name}: {allocations} allocations"
        );
        assert!(
            turns as usize * 4 < requests,
            "{name}: {turns} turns for {requests} requests"
        );
    }
    println!("test {NAME} ... ok");
}
