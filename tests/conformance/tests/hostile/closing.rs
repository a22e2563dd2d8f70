//! Connections that end at every byte of what a client says, in every state of the server.
//!
//! ```text
//!  a client for each byte ─► the server's state changes ─► close or reset ─► nobody and nothing is
//!  left, and each block is old or new (law B2)
//! ```

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use conformance::raw::{self, Raw, Style, cmd, opt};
use conformance::{Daemon, Lab, Vitals, eventually};

use crate::crowd::{Crowd, judge, through};
use crate::stage::{MEBIBYTES, Stage, Witness};

/// All a client says before transmission.
fn handshake() -> Vec<u8> {
    [
        3u32.to_be_bytes().to_vec(),
        raw::option(opt::STRUCTURED_REPLY, &[]),
        raw::option(opt::EXTENDED_HEADERS, &[]),
        raw::option(opt::LIST, &[]),
        raw::option(opt::LIST_META_CONTEXT, &raw::meta("v", &[])),
        raw::option(opt::SET_META_CONTEXT, &raw::meta("v", &["base:allocation"])),
        raw::option(opt::INFO, &raw::info("v", &[3, 2, 1])),
        raw::option(opt::GO, &raw::info("v", &[3])),
    ]
    .concat()
}

#[test]
fn a_handshake_may_end_at_any_byte() {
    let stage = Stage::new("", "memory");
    let witness = Witness::start(&stage);
    let before = stage.vitals();
    let recorded = handshake();
    for is_reset in [false, true] {
        for cut in 0..=recorded.len() {
            let mut client = stage.connect();
            if cut % 3 == 0 {
                client.greeting();
            }
            client.send(&recorded[..cut]).expect("it is taken");
            match is_reset {
                false => drop(client),
                true => client.reset(),
            }
        }
    }
    witness.goes_on(10);
    stage.until_clients(1, &before);
}

#[test]
fn a_transmission_may_end_at_any_byte() {
    let stage = Stage::new("", "disk.img");
    let witness = Witness::start(&stage);
    let before = stage.vitals();
    let gone = Crowd::gather(&stage.address(), 1).leave(Duration::ZERO);
    witness.goes_on(10);
    stage.until_clients(1, &before);
    judge(through(&stage.address()), &gone);
    let resident = stage.vitals().resident_bytes;
    let gone = Crowd::gather(&stage.address(), 1).leave(Duration::ZERO);
    stage.until_clients(1, &before);
    judge(through(&stage.address()), &gone);
    let grown = stage.vitals().resident_bytes.saturating_sub(resident);
    assert!(grown < crate::stage::NOISE_BYTES, "{grown} bytes more");
}

#[test]
fn clients_may_go_at_any_byte_while_the_server_drains() {
    let Stage { daemon, lab } = Stage::new("", "disk.img");
    let address = lab.node("solo").nbd.address();
    let crowd = Crowd::gather(&address, 1);
    // Half-open ones too, and one whose answers nobody reads: it makes the drain last.
    let half_open: Vec<Raw> = (0..40)
        .map(|cut| {
            let mut client = Raw::tcp(&address).expect("the listener accepts");
            client.hello(3);
            let option = raw::option(opt::GO, &raw::info("v", &[3]));
            client
                .send(&option[..cut.min(option.len() - 1)])
                .expect("it is taken");
            client
        })
        .collect();
    let mut deaf = Raw::tcp(&address).expect("the listener accepts");
    deaf.set_receive_buffer(4096);
    deaf.go("v", Style::Simple);
    for cookie in 0..16 {
        deaf.send(&raw::request(0, cmd::READ, cookie, 0, 1 << 20))
            .expect("it is taken");
    }
    let leaving = thread::spawn(move || crowd.leave(Duration::from_millis(500)));
    thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    assert_eq!(daemon.stop(), 0, "a drain ends well");
    println!("drained in {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(11));
    let gone = leaving.join().expect("clients can go");
    drop((half_open, deaf));
    let image = std::fs::read(lab.node("solo").file("disk.img")).expect("the backing");
    let at = |offset: u64, length| image[offset as usize..][..length].to_vec();
    judge(at, &gone);
    let again = lab.serve("solo");
    lab.until_serving("solo", "v", Duration::from_secs(10));
    judge(through(&address), &gone);
    assert_eq!(again.stop(), 0);
}

#[test]
fn clients_of_a_stopping_server_are_told_so_or_closed() {
    let Stage { daemon, lab } = Stage::new("", "memory");
    let address = lab.node("solo").nbd.address();
    // Its answers are unread: the drain waits for it, and the half-open ones live meanwhile.
    let mut deaf = Raw::tcp(&address).expect("the listener accepts");
    deaf.set_receive_buffer(4096);
    deaf.go("v", Style::Simple);
    for cookie in 0..16 {
        deaf.send(&raw::request(0, cmd::READ, cookie, 0, 1 << 20))
            .expect("it is taken");
    }
    let mut half_open: Vec<Raw> = (0..20)
        .map(|_| {
            let mut client = Raw::tcp(&address).expect("the listener accepts");
            client.hello(3);
            client
        })
        .collect();
    // And one for every byte of a handshake, which close while the server stops.
    let mut leaving: Vec<Raw> = (0..handshake().len())
        .map(|cut| {
            let source = Ipv4Addr::new(127, 0, 1, 1 + (cut / 40) as u8);
            let client = Raw::tcp_from(source.into(), &address);
            let mut client = client.expect("the listener accepts");
            client.greeting();
            client.send(&handshake()[..cut]).expect("it is taken");
            client
        })
        .collect();
    let stop = thread::spawn(move || daemon.stop());
    let began = Instant::now();
    while Raw::tcp(&address).is_ok() {
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "the listener stays open"
        );
        thread::sleep(Duration::from_millis(5));
    }
    for (index, client) in leaving.drain(..).enumerate() {
        match index % 2 {
            0 => drop(client),
            _ => client.reset(),
        }
    }
    for client in &mut half_open {
        let told = client.verdict(opt::GO, &raw::info("v", &[]));
        assert_eq!(told, raw::rep::ERR_SHUTDOWN);
        assert_eq!(client.verdict(opt::ABORT, &[]), raw::rep::ACK);
    }
    drop(deaf);
    assert_eq!(stop.join().expect("it ends"), 0);
}

/// Two nodes with a mirrored volume `v`, alpha primary.
struct Pair {
    daemons: Vec<Daemon>,
    lab: Lab,
}

impl Pair {
    fn new() -> Pair {
        let volume = format!(
            "[volume.v]\nsize = \"{MEBIBYTES}MiB\"\nbacking = \"v.img\"\n\
             replicas = [\"alpha\", \"beta\"]\nnbd = [{{ name = \"v\" }}]\n"
        );
        let lab = Lab::new(&["alpha", "beta"], &volume);
        let daemons = ["alpha", "beta"].map(|node| lab.serve(node)).into();
        for node in ["alpha", "beta"] {
            lab.done(node, &["volume", "create", "v"]);
        }
        lab.done("alpha", &["promote", "v"]);
        lab.until_healthy("alpha", "v", Duration::from_secs(30));
        Pair { daemons, lab }
    }

    fn until_no_clients(&self, before: &Vitals) {
        eventually(Duration::from_secs(15), "the clients are gone", || {
            let volume = self.lab.volume("alpha", "v");
            let clients = volume["clients"].as_array().expect("an array");
            clients.is_empty().then_some(())
        });
        before.descriptors_return(self.daemons[0].pid(), Duration::from_secs(10));
    }
}

#[test]
fn clients_may_go_at_any_byte_while_their_volume_is_demoted() {
    let pair = Pair::new();
    let address = pair.lab.node("alpha").nbd.address();
    let before = Vitals::of(pair.daemons[0].pid());
    let crowd = Crowd::gather(&address, 3);
    let leaving = thread::spawn(move || crowd.leave(Duration::from_millis(300)));
    thread::sleep(Duration::from_millis(50));
    pair.lab.done("alpha", &["demote", "v", "--disconnect"]);
    let gone = leaving.join().expect("clients can go");
    pair.until_no_clients(&before);
    pair.lab.done("beta", &["promote", "v"]);
    judge(through(&pair.lab.node("beta").nbd.address()), &gone);
    are_equal(pair);
}

#[test]
fn clients_may_go_at_any_byte_while_a_peer_is_dead() {
    let mut pair = Pair::new();
    let address = pair.lab.node("alpha").nbd.address();
    let before = Vitals::of(pair.daemons[0].pid());
    let first = Crowd::gather(&address, 3);
    pair.daemons.pop().expect("beta").kill();
    // Their writes wait for the dead member; it leaves S after its timeout.
    let gone = first.leave(Duration::from_millis(300));
    eventually(Duration::from_secs(20), "alpha goes on alone", || {
        (pair.lab.volume("alpha", "v")["state"] == "degraded").then_some(())
    });
    pair.until_no_clients(&before);
    judge(through(&address), &gone);
    let beta = pair.lab.serve("beta");
    pair.daemons.push(beta);
    pair.lab
        .until_healthy("alpha", "v", Duration::from_secs(30));
    judge(through(&address), &gone);
    are_equal(pair);
}

/// Both nodes stop, and their copies are the same.
fn are_equal(pair: Pair) {
    let Pair { daemons, lab } = pair;
    for daemon in daemons {
        assert_eq!(daemon.stop(), 0);
    }
    let images = ["alpha", "beta"].map(|node| {
        let path = lab.node(node).file("v.img");
        std::fs::read(path).expect("the backing")[..(MEBIBYTES << 20) as usize].to_vec()
    });
    assert!(images[0] == images[1], "the copies differ");
}
