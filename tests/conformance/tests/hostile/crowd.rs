//! A client for every byte at which one can stop, and what must be true once they are gone.
//!
//! ```text
//!  script: each byte of it is a place to stop, in compact and in extended headers ─► one connection
//!  per place ─► close or reset ─► each block is old or new (law B2)
//! ```

use std::thread;
use std::time::{Duration, Instant};

use conformance::raw::{self, Raw, Style, cmd};

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

fn script(place: u64, style: Style) -> Script {
    let base = place * STRIDE;
    let ask = |kind, cookie, offset, length: u32| match style {
        Style::Extended => raw::extended_request(0, kind, cookie, offset, length.into()),
        Style::Simple | Style::Structured => raw::request(0, kind, cookie, offset, length),
    };
    let write = |cookie, offset, write| match style {
        Style::Extended => raw::extended_write(cookie, offset, &content(place, write)),
        Style::Simple | Style::Structured => raw::write(cookie, offset, &content(place, write)),
    };
    let mut bytes = write(1, base, 0);
    let first = bytes.len();
    bytes.extend(ask(cmd::READ, 2, base, 512));
    bytes.extend(ask(cmd::BLOCK_STATUS, 3, base, 4096));
    bytes.extend(write(4, base + 4096, 1));
    let second = bytes.len();
    bytes.extend(ask(cmd::FLUSH, 5, 0, 0));
    bytes.extend(ask(cmd::DISC, 0, 0, 0));
    Script {
        bytes,
        writes: [first, second],
    }
}

/// A client of every place to stop: it has said that much, and waits.
pub struct Crowd {
    clients: Vec<(Raw, Gone)>,
}

/// What is known of a client that went.
#[derive(Clone, Copy)]
pub struct Gone {
    place: u64,
    style: Style,
    /// Bytes it had sent.
    cut: usize,
    /// Its first write was answered.
    is_answered: bool,
}

impl Crowd {
    /// One client per `step` bytes of the script, in compact and in extended headers.
    pub fn gather(address: &str, step: usize) -> Crowd {
        let cuts = [Style::Structured, Style::Extended].map(|style| {
            let length = script(0, style).bytes.len();
            (0..=length).step_by(step).map(move |cut| (style, cut))
        });
        let clients = cuts.into_iter().flatten().zip(0..);
        let clients = clients.map(|((style, cut), place)| {
            let mut client = Raw::tcp(address).expect("the listener accepts");
            client.go("v", style);
            let script = script(place, style);
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
                style,
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
    pub fn leave(self, time: Duration) -> Vec<Gone> {
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
pub fn judge(image: impl Fn(u64, usize) -> Vec<u8>, gone: &[Gone]) {
    let mut kept = 0;
    for Gone {
        place,
        style,
        cut,
        is_answered,
    } in gone
    {
        for (write, complete) in (0..).zip(script(*place, *style).writes) {
            let offset = place * STRIDE + write * 4096;
            let block = image(offset, 4096);
            let (head, rest) = block.split_at(LENGTH as usize);
            let what =
                format!("write {write} of place {place}, {style:?}, closed after {cut} bytes");
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
pub fn through(address: &str) -> impl Fn(u64, usize) -> Vec<u8> {
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
