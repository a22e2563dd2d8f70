//! Many clients at once: floods, half-open ones, ten thousand that only wait.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use conformance::raw::{self, Raw, Style, cmd};
use conformance::{Trust, tools};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::stage::{Stage, Witness};

#[test]
fn half_open_clients_of_one_address_do_not_stop_others() {
    let stage = Stage::new("", "memory");
    let witness = Witness::start(&stage);
    let before = stage.vitals();
    let address = stage.address();
    let attacker = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let half_open: Vec<Raw> = (0..300)
        .map(|_| Raw::tcp_from(attacker, &address).expect("the kernel accepts"))
        .collect();
    let began = Instant::now();
    for _ in 0..20 {
        is_served(&mut stage.attach(Style::Structured));
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    // The attacker's own further connections are closed at once; those it has keep their turn.
    let mut one_more = Raw::tcp_from(attacker, &address).expect("the kernel accepts");
    assert!(one_more.is_closed_within(Duration::from_secs(5)));
    witness.goes_on(10);
    drop(half_open);
    stage.until_clients(1, &before);
}

#[test]
fn crowds_of_several_addresses_make_way_for_others() {
    let stage = Stage::new("", "memory");
    let before = stage.vitals();
    let address = stage.address();
    // Four times as many as one address may have: all the places of the listener.
    let crowd = |last: u8| -> Vec<Raw> {
        let attacker = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let half_open = (0..64).map(|_| {
            let mut client = Raw::tcp_from(attacker, &address).expect("the kernel accepts");
            client.greeting();
            client
        });
        half_open.collect()
    };
    let mut crowds: Vec<Vec<Raw>> = (2..6).map(crowd).collect();
    let began = Instant::now();
    let mut served: Vec<Raw> = Vec::new();
    for _ in 0..20 {
        let mut client = stage.attach(Style::Structured);
        is_served(&mut client);
        served.push(client);
    }
    // Long before the places of the crowds fall back by themselves.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let first = &mut crowds[0][0];
    assert!(first.is_closed_within(Duration::from_secs(5)), "the oldest");
    drop((crowds, served));
    stage.until_clients(0, &before);
}

#[test]
fn a_flood_of_connections_delays_and_disturbs_nobody_for_long() {
    let stage = Stage::new("", "memory");
    let witness = Witness::start(&stage);
    witness.goes_on(50);
    let (alone, _) = witness.pace(200);
    let before = stage.vitals();
    let address = stage.address();
    let floods: Vec<_> = (2..6u8)
        .map(|last| {
            let address = address.clone();
            thread::spawn(move || {
                let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
                for round in 0..500u32 {
                    // A full backlog is the flood's own trouble.
                    let Ok(mut client) = Raw::tcp_from(source, &address) else {
                        continue;
                    };
                    if round % 2 == 0 {
                        let _ = client.send(b"\0\0\0\x03IHAVE");
                        client.reset();
                    }
                }
            })
        })
        .collect();
    let (beside, longest) = witness.pace(200);
    floods
        .into_iter()
        .for_each(|flood| flood.join().expect("a flood ends"));
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    println!(
        "a round takes {alone:?} alone, {beside:?} in the flood: {ratio:.2}; at most {longest:?}"
    );
    let began = Instant::now();
    drop(stage.attach(Style::Simple));
    println!("a new client waited {:?}", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    stage.until_clients(1, &before);
    let log = stage.daemon.log();
    assert!(
        log.lines().count() < 100,
        "strangers fill the log: {} lines",
        log.lines().count()
    );
}

/// How many wait, and how much memory each may cost.
const IDLE: usize = 10_000;
const IDLE_BYTES_MAX: u64 = 8 << 10;

/// This process may open as many files as that many clients need.
fn has_files_for(clients: usize) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let needed = clients as u64 + 500;
    if limit.maximum.is_some_and(|most| most < needed) {
        return tools::skip(&format!(
            "raise the hard limit of open files to {needed} (ulimit -Hn)"
        ));
    }
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("up to the hard limit everybody may");
    true
}

#[test]
fn ten_thousand_clients_that_only_wait_cost_8_kib_each() {
    if !has_files_for(IDLE) {
        return;
    }
    // The daemon begins with what a login shell has.
    let stage = Stage::of("", "memory", |lab| {
        let serve = lab.command("solo", &["serve"]);
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "ulimit -Sn 1024; exec \"$0\" \"$@\""])
            .arg(serve.get_program())
            .args(serve.get_args());
        lab.serve_as("solo", shell)
    });
    let witness = Witness::start(&stage);
    witness.goes_on(50);
    let (alone, _) = witness.pace(200);
    let before = stage.vitals();
    let address = stage.address();
    let socket = stage.lab.node("solo").nbd_socket();
    let tcp = thread::spawn(move || crowd(IDLE / 2, || Raw::tcp(&address).expect("it accepts")));
    let mut crowd = crowd(IDLE - IDLE / 2, || Raw::unix(&socket).expect("it accepts"));
    crowd.extend(tcp.join().expect("all are attached"));
    let grown = stage
        .vitals()
        .resident_bytes
        .saturating_sub(before.resident_bytes);
    let each = grown / IDLE as u64;
    let (beside, longest) = witness.pace(200);
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    println!(
        "{each} bytes each; a round takes {alone:?} alone, {beside:?} beside: {ratio:.2}; at most {longest:?}"
    );
    assert!(each <= IDLE_BYTES_MAX, "{each} bytes for each idle client");
    // They do not only sit there: each that wakes up is served.
    for client in crowd.iter_mut().step_by(97) {
        is_served(client);
    }
    let mut late = stage.attach(Style::Structured);
    late.send(&raw::request(0, cmd::FLUSH, 1, 0, 0))
        .expect("it is taken");
    assert_eq!(late.reply(0).expect("it is served").error, 0);
    witness.goes_on(10);
    drop((crowd, late));
    stage.until_clients(1, &before);
}

/// How much memory a client that waits under TLS may cost: what the others do, and a session.
const TLS_IDLE_BYTES_MAX: u64 = 16 << 10;

#[test]
fn a_thousand_idle_clients_under_tls_cost_16_kib_each() {
    wait_under_tls(1_000);
}

#[test]
#[ignore = "half a minute of handshakes; a thousand show the same"]
fn ten_thousand_idle_clients_under_tls_cost_16_kib_each() {
    wait_under_tls(IDLE);
}

fn wait_under_tls(count: usize) {
    if !has_files_for(count) {
        return;
    }
    let stage = crate::starttls::with_tls();
    let witness = Witness::start(&stage);
    let trust = Trust::of(&stage.lab.path("tls"));
    let address = stage.address();
    let attach = |_| {
        let mut client = Raw::tls(&address, &trust).expect("TLS is offered");
        client.go("v", Style::Structured);
        client
    };
    // What the first ones bring along is not theirs.
    let first: Vec<Raw> = (0..20).map(attach).collect();
    let before = stage.vitals();
    let (alone, _) = witness.pace(200);
    let mut crowd: Vec<Raw> = (0..count).map(attach).collect();
    let grown = stage.vitals().resident_bytes;
    let each = grown.saturating_sub(before.resident_bytes) / count as u64;
    let (beside, longest) = witness.pace(200);
    println!(
        "{each} bytes for each of {count} under TLS; a round takes {alone:?} alone, {beside:?} beside; \
         at most {longest:?}"
    );
    assert!(each <= TLS_IDLE_BYTES_MAX, "{each} bytes for each");
    for client in crowd.iter_mut().step_by(37) {
        is_served(client);
    }
    witness.goes_on(10);
    drop(crowd);
    stage.until_clients(1 + first.len(), &before);
}

/// A client that reads is answered.
fn is_served(client: &mut Raw) {
    client
        .send(&raw::request(0, cmd::READ, 1, 0, 512))
        .expect("it is taken");
    assert_eq!(client.reply(512).expect("it is served").error, 0);
}

fn crowd(count: usize, connect: impl Fn() -> Raw) -> Vec<Raw> {
    let attach = |_| {
        let mut client = connect();
        client.go("v", Style::Simple);
        client
    };
    (0..count).map(attach).collect()
}
