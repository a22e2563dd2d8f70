//! Clients that keep the server waiting: they are let go at their deadline, and nobody else waits.

use std::thread;
use std::time::{Duration, Instant};

use conformance::raw::{self, Raw, Style, cmd, opt};

use crate::stage::{MEBIBYTES, Stage, Witness};

/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(6);

#[test]
fn a_client_that_never_chooses_an_export_is_let_go_in_time() {
    let stage = Stage::new("nbd_handshake_timeout = \"2s\"", "memory");
    let witness = Witness::start(&stage);
    let before = stage.vitals();
    let deadline = Duration::from_secs(2);
    let word = raw::option(opt::GO, &raw::info("v", &[]));
    let began = Instant::now();
    // Says nothing; stops within each part of an option; drips; asks and asks.
    let mut clients: Vec<Raw> = (0..word.len())
        .map(|cut| {
            let mut client = stage.connect();
            client.hello(3);
            client.send(&word[..cut]).expect("it is taken");
            client
        })
        .collect();
    let mut dripping = stage.connect();
    let mut asking = stage.connect();
    asking.hello(3);
    let mut drops = [&[0u8, 0, 0, 3][..], &word].concat().into_iter();
    let mut is_dripping = true;
    let mut is_asking = true;
    while began.elapsed() < deadline + SLACK && (is_dripping || is_asking) {
        if let Some(drop) = drops.next() {
            is_dripping = dripping.send(&[drop]).is_ok();
        } else {
            is_dripping = !dripping.is_closed_within(Duration::from_millis(1));
        }
        is_asking = is_asking && asking.ask(opt::LIST, &[]).is_ok();
        thread::sleep(Duration::from_millis(100));
    }
    assert!(!is_asking, "a client that only asks is still connected");
    for client in &mut clients {
        let left = (deadline + SLACK).saturating_sub(began.elapsed());
        assert!(client.is_closed_within(left.max(Duration::from_millis(1))));
    }
    assert!(
        dripping.is_closed_within(SLACK),
        "a client that drips is still connected"
    );
    witness.goes_on(10);
    stage.until_clients(1, &before);
}

#[test]
fn a_client_that_does_not_read_option_replies_is_let_go_in_time() {
    let stage = Stage::new("nbd_handshake_timeout = \"2s\"", "memory");
    let witness = Witness::start(&stage);
    let before = stage.vitals();
    let mut client = stage.connect();
    client.set_receive_buffer(4096);
    client.hello(3);
    client
        .set_patience(Duration::from_secs(2) + SLACK)
        .expect("a socket has a timeout");
    let options: Vec<u8> = (0..900).flat_map(|_| raw::option(opt::LIST, &[])).collect();
    // The connection may end while this is sent.
    let _ = client.send(&options);
    assert!(client.is_closed_within(Duration::from_secs(2) + SLACK));
    witness.goes_on(10);
    stage.until_clients(1, &before);
}

#[test]
fn a_payload_that_drips_or_stops_is_given_up_in_time() {
    let stage = Stage::new("nbd_stall_timeout = \"2s\"", "memory");
    let witness = Witness::start(&stage);
    let before = stage.vitals();
    let began = Instant::now();
    let lengths = [2, 512, 4096, 20_000, 1 << 20, 32 << 20];
    let mut silent: Vec<Raw> = lengths
        .into_iter()
        .map(|length| {
            let mut client = stage.attach(Style::Simple);
            client
                .send(&raw::request(0, cmd::WRITE, 1, 0, length))
                .expect("it is taken");
            client
        })
        .collect();
    let mut dripping: Vec<Raw> = lengths[1..]
        .iter()
        .map(|length| {
            let mut client = stage.attach(Style::Simple);
            client
                .send(&raw::request(0, cmd::WRITE, 1, 0, *length))
                .expect("it is taken");
            client
        })
        .collect();
    while began.elapsed() < Duration::from_secs(2) + SLACK && !dripping.is_empty() {
        dripping.retain_mut(|client| {
            client.send(&[0]).is_ok() && !client.is_closed_within(Duration::from_millis(1))
        });
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(
        dripping.len(),
        0,
        "clients drip, and are waited for without end"
    );
    for client in &mut silent {
        assert!(client.is_closed_within(SLACK));
    }
    witness.goes_on(10);
    stage.until_clients(1, &before);
    // None of those writes happened.
    let mut client = stage.attach(Style::Simple);
    client
        .send(&raw::request(0, cmd::READ, 1, 0, 4096))
        .expect("it is taken");
    let mut answer = vec![0xff; 16 + 4096];
    client.read_exact(&mut answer).expect("it is served");
    assert_eq!(answer[16..], [0; 4096]);
}

#[test]
fn buffers_that_slow_clients_hold_are_not_all_there_is() {
    let stage = Stage::new("nbd_stall_timeout = \"8s\"", "memory");
    let witness = Witness::start(&stage);
    witness.goes_on(10);
    let before = stage.vitals();
    // Each announces as much payload as may be free, and sends none of it.
    let sizes = (12..=25).rev().flat_map(|bits| [1u32 << bits; 4]);
    let holders: Vec<Raw> = sizes
        .map(|length| {
            let mut client = stage.attach(Style::Simple);
            client
                .send(&raw::request(0, cmd::WRITE, 1, 0, length))
                .expect("it is taken");
            client
        })
        .collect();
    // Others ask for all they can get, and read none of it.
    let deaf: Vec<Raw> = (0..8)
        .map(|_| {
            let mut client = stage.attach(Style::Simple);
            client.set_receive_buffer(4096);
            for cookie in 0..64 {
                client
                    .send(&raw::request(0, cmd::READ, cookie, 0, 1 << 20))
                    .expect("it is taken");
            }
            client
        })
        .collect();
    let (median, longest) = witness.pace(200);
    println!("beside holders of all buffers a round takes {median:?}, at most {longest:?}");
    assert!(
        longest < Duration::from_secs(1),
        "others wait {longest:?} for a buffer"
    );
    // A longer request of a client that behaves waits no longer than until the holders are found.
    let mut client = stage.attach(Style::Simple);
    client
        .send(&raw::request(0, cmd::READ, 1, 0, 16 << 20))
        .expect("it is taken");
    assert_eq!(client.reply(16 << 20).expect("it is served").error, 0);
    drop((holders, deaf, client));
    stage.until_clients(1, &before);
}

#[test]
fn a_client_that_never_reads_is_read_no_more_and_closed_in_time() {
    let stage = Stage::new("nbd_stall_timeout = \"3s\"", "memory");
    let witness = Witness::start(&stage);
    witness.goes_on(50);
    let (alone, _) = witness.pace(300);
    let before = stage.vitals();
    let mut deaf = stage.attach(Style::Simple);
    deaf.set_receive_buffer(4096);
    deaf.set_patience(Duration::from_millis(500))
        .expect("a socket has a timeout");
    // Requests until none is taken any more: what it may hold is bounded.
    let began = Instant::now();
    let mut sent = 0u64;
    let many: Vec<u8> = (0..64)
        .flat_map(|cookie| raw::request(0, cmd::READ, cookie, 0, 128 << 10))
        .collect();
    while deaf.send(&many).is_ok() {
        sent += 64;
        assert!(sent < 1_000_000, "requests are taken without end");
    }
    let (beside, longest) = witness.pace(300);
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    println!("{sent} requests fit on their way to a deaf client");
    println!(
        "a round takes {alone:?} alone, {beside:?} beside it: {ratio:.2}; at most {longest:?}"
    );
    assert!(ratio < 5.0, "another client is {ratio:.1} times as slow");
    let grown = stage
        .vitals()
        .resident_bytes
        .saturating_sub(before.resident_bytes);
    assert!(
        grown < (MEBIBYTES + 96) << 20,
        "{grown} bytes for one client"
    );
    // What it is owed stays in the kernel: it sees the end once it reads.
    let limit = Duration::from_secs(3) + SLACK;
    while began.elapsed() < limit && stage.clients() > 1 {
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(stage.clients(), 1, "it is still there after {limit:?}");
    witness.goes_on(10);
    drop(deaf);
    stage.until_clients(1, &before);
}
