//! Connections that end at every byte of what a client says, in every state of the server.
//!
//! ```text
//!  script: each byte of it is a place to stop ─► one connection per place ─► the server's state
//!  changes ─► close or reset ─► nobody and nothing is left, and each block is old or new (law B2)
//! ```

use std::thread;
use std::time::{Duration, Instant};

use conformance::raw::{self, Raw, Style, cmd, opt};
use conformance::{Daemon, Lab, Vitals, eventually};

use crate::stage::{MEBIBYTES, Stage, Witness};

/// Each connection writes to a place of its own.
const STRIDE: u64 = 8192;
/// Bytes of each write: short, so that every byte of it can be the last.
const LENGTH: u64 = 192;

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Close,
    Reset,
}

/// What a client says after GO: two writes around other requests. The second write is flushed.
struct Script {
    bytes: Vec<u8>,
    /// Where each write is complete: from here on it may have happened.
    writes: [usize; 2],
}

/// Byte `index` of the content of a place; never zero.
fn tag(place: u64, index: u64) -> u8 {
    (1 + (place * 31 + index) % 255) as u8
}

fn content(place: u64, write: u64) -> Vec<u8> {
    (0..LENGTH)
        .map(|index| tag(place * 2 + write, index))
        .collect()
}

fn script(place: u64) -> Script {
    let base = place * STRIDE;
    let mut bytes = raw::write(1, base, &content(place, 0));
    let first = bytes.len();
    bytes.extend(raw::request(0, cmd::READ, 2, base, 512));
    bytes.extend(raw::request(0, cmd::BLOCK_STATUS, 3, base, 4096));
    bytes.extend(raw::write(4, base + 4096, &content(place, 1)));
    let second = bytes.len();
    bytes.extend(raw::request(0, cmd::FLUSH, 5, 0, 0));
    bytes.extend(raw::request(0, cmd::DISC, 0, 0, 0));
    Script {
        bytes,
        writes: [first, second],
    }
}

/// A client of every place to stop: it has said that much, and waits.
struct Crowd {
    clients: Vec<(Raw, Gone)>,
}

/// What is known of a client that went.
#[derive(Clone, Copy)]
struct Gone {
    place: u64,
    /// Bytes it had sent.
    cut: usize,
    /// Its first write was answered.
    is_answered: bool,
}

impl Crowd {
    /// One client per `step` bytes of the script.
    fn gather(address: &str, step: usize) -> Crowd {
        let length = script(0).bytes.len();
        let clients = (0..=length).step_by(step).enumerate().map(|(place, cut)| {
            let place = place as u64;
            let mut client = Raw::tcp(address).expect("the listener accepts");
            client.go("v", Style::Structured);
            let script = script(place);
            client
                .send(&script.bytes[..cut])
                .expect("requests are taken");
            // Some read their answer; the others go with it unread.
            let is_answered = place % 5 < 2 && cut >= script.writes[0];
            if is_answered {
                // Replies come in any order.
                loop {
                    let reply = client.reply(0).expect("a write is answered");
                    assert_eq!(reply.error, 0, "request {}", reply.cookie);
                    if reply.cookie == 1 {
                        break;
                    }
                }
            }
            let gone = Gone {
                place,
                cut,
                is_answered,
            };
            (client, gone)
        });
        Crowd {
            clients: clients.collect(),
        }
    }

    /// They go, over `time`: every other one by a reset.
    fn leave(self, time: Duration) -> Vec<Gone> {
        let count = self.clients.len() as u32;
        let (mut gone, began) = (Vec::new(), Instant::now());
        for (index, (client, last)) in (0..).zip(self.clients) {
            match end_of(last.place) {
                End::Close => drop(client),
                End::Reset => client.reset(),
            }
            gone.push(last);
            thread::sleep((time / count * index).saturating_sub(began.elapsed()));
        }
        gone
    }
}

fn end_of(place: u64) -> End {
    if place.is_multiple_of(2) {
        End::Close
    } else {
        End::Reset
    }
}

/// Law B2: what was not sent whole never happened, what was may have, what was answered has; the
/// rest is untouched.
fn judge(image: impl Fn(u64, usize) -> Vec<u8>, gone: &[Gone]) {
    let mut kept = 0;
    for Gone {
        place,
        cut,
        is_answered,
    } in gone
    {
        for (write, complete) in (0..).zip(script(*place).writes) {
            let offset = place * STRIDE + write * 4096;
            let block = image(offset, 4096);
            let (head, rest) = block.split_at(LENGTH as usize);
            let what = format!("write {write} of place {place}, closed after {cut} bytes");
            assert!(
                rest.iter().all(|byte| *byte == 0),
                "{what}: its neighbours changed"
            );
            let is_new = head == content(*place, write);
            let is_old = head.iter().all(|byte| *byte == 0);
            assert!(is_old || is_new, "{what}: neither old nor new");
            assert!(
                is_old || *cut >= complete,
                "{what}: it was never sent whole"
            );
            let is_promised = *is_answered && write == 0;
            assert!(
                is_new || !is_promised,
                "{what}: it was answered, and is lost"
            );
            kept += usize::from(is_new);
        }
    }
    println!(
        "{} clients gone, {kept} of their writes are there",
        gone.len()
    );
}

/// Reads through a client.
fn through(address: &str) -> impl Fn(u64, usize) -> Vec<u8> {
    let mut client = Raw::tcp(address).expect("the listener accepts");
    client.go("v", Style::Simple);
    let client = std::cell::RefCell::new(client);
    move |offset, length| {
        let mut client = client.borrow_mut();
        let read = raw::request(0, cmd::READ, 1, offset, length as u32);
        client.send(&read).expect("it is taken");
        let mut answer = vec![0; 16 + length];
        client.read_exact(&mut answer).expect("it is served");
        assert_eq!(answer[4..8], [0; 4]);
        answer.split_off(16)
    }
}

#[test]
fn a_handshake_may_end_at_any_byte() {
    let stage = Stage::new("", "memory");
    let witness = Witness::start(&stage);
    let before = stage.vitals();
    let recorded: Vec<u8> = [
        3u32.to_be_bytes().to_vec(),
        raw::option(opt::STRUCTURED_REPLY, &[]),
        raw::option(opt::LIST, &[]),
        raw::option(opt::LIST_META_CONTEXT, &raw::meta("v", &[])),
        raw::option(opt::SET_META_CONTEXT, &raw::meta("v", &["base:allocation"])),
        raw::option(opt::INFO, &raw::info("v", &[3, 2, 1])),
        raw::option(opt::GO, &raw::info("v", &[3])),
    ]
    .concat();
    for end in [End::Close, End::Reset] {
        for cut in 0..=recorded.len() {
            let mut client = stage.connect();
            if cut % 3 == 0 {
                client.greeting();
            }
            client.send(&recorded[..cut]).expect("it is taken");
            match end {
                End::Close => drop(client),
                End::Reset => client.reset(),
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
    let stop = thread::spawn(move || daemon.stop());
    let began = Instant::now();
    while Raw::tcp(&address).is_ok() {
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "the listener stays open"
        );
        thread::sleep(Duration::from_millis(5));
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
