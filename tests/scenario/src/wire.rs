//! A replication link that can be cut, silenced and damaged: a proxy in front of each node.
//!
//! ```text
//!  alpha ──dials──► wire A→B ──► beta        beta ──dials──► wire B→A ──► alpha
//! ```
//! Each node's configuration names the wire where the other node should be. A silenced direction
//! holds its bytes back, as a network that drops packets does to TCP, and delivers them if it is
//! healed before the connection ends.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use conformance::{Lab, Port};

use crate::pair::NODES;
use crate::{Pair, Random};

/// Chunks shorter than this are keepalives and acknowledgements; damage is for data.
const DATA_BYTES_MIN: usize = 4096;

#[derive(Default)]
struct State {
    /// By sender: its bytes are held back.
    is_silent: [AtomicBool; 2],
    /// How many chunks of data are still to be damaged.
    damage: AtomicU64,
    damaged: AtomicU64,
    carried: AtomicU64,
    /// What is looked for in chunks of data, and in how many it was found.
    watched: Mutex<Vec<u8>>,
    seen: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl State {
    fn look_at(&self, bytes: &[u8]) {
        self.carried
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |part: &[u8]| part == &watched[..];
        if !watched.is_empty() && bytes.windows(watched.len()).any(is_it) {
            self.seen.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The wires of a pair, in both directions.
pub struct Wire {
    state: Arc<State>,
    /// Where each node believes the other to be; held as long as the wire.
    _ports: [Port; 2],
}

impl Wire {
    /// A healthy pair whose nodes reach each other over wires.
    pub fn healthy_pair(mebibytes: u64) -> (Wire, Pair) {
        let volume = Pair::volume_text(mebibytes);
        Wire::healthy_pair_of(Lab::new(&NODES, &volume), &volume)
    }

    /// As [`Wire::healthy_pair`], in a lab whose configuration ends with this text.
    pub fn healthy_pair_of(lab: Lab, volume: &str) -> (Wire, Pair) {
        let state = Arc::new(State::default());
        // The port by which the other node reaches this one.
        let ports = [0, 1].map(|index| {
            let port = Port::claim();
            let target = lab.node(NODES[index]).replication.address();
            listen(&port, index, target, &state);
            port
        });
        let daemons = [0, 1].map(|index| {
            let other = 1 - index;
            let theirs = format!(
                "address = \"{}\"",
                lab.node(NODES[other]).replication.address()
            );
            let wire = format!("address = \"{}\"", ports[other].address());
            let text = lab.config_text("lab", volume).replace(&theirs, &wire);
            let config = lab.path(&format!("{}-wired.toml", NODES[index]));
            fs::write(&config, text).expect("the lab's folder is writable");
            let command = lab.command_with(&config, NODES[index], &["serve"]);
            Some(lab.serve_as(NODES[index], command))
        });
        let pair = Pair { daemons, lab };
        pair.found();
        let wire = Wire {
            state,
            _ports: ports,
        };
        (wire, pair)
    }

    /// Holds back what the node of this index sends.
    pub fn silence(&self, sender: usize) {
        self.state.is_silent[sender].store(true, Ordering::Relaxed);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        for silent in &self.state.is_silent {
            silent.store(false, Ordering::Relaxed);
        }
    }

    /// Breaks every connection; new ones pass.
    pub fn cut(&self) {
        let mut open = self
            .state
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for stream in open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Flips one bit in each of the next `count` chunks of data.
    pub fn damage(&self, count: u64) {
        self.state.damage.store(count, Ordering::Relaxed);
    }

    /// Looks for these bytes in all that passes from now on.
    pub fn watch_for(&self, bytes: &[u8]) {
        let watched = self.state.watched.lock();
        *watched.unwrap_or_else(PoisonError::into_inner) = bytes.to_vec();
    }

    /// Chunks in which they were found.
    pub fn seen(&self) -> u64 {
        self.state.seen.load(Ordering::Relaxed)
    }

    /// Bytes that passed, both ways.
    pub fn carried(&self) -> u64 {
        self.state.carried.load(Ordering::Relaxed)
    }

    /// Chunks that were damaged.
    pub fn damaged(&self) -> u64 {
        self.state.damaged.load(Ordering::Relaxed)
    }
}

/// Accepts for the node of this index, for as long as the process lives.
fn listen(port: &Port, node: usize, target: String, state: &Arc<State>) {
    let listener = TcpListener::bind(port.address()).expect("the port was claimed");
    let state = Arc::clone(state);
    thread::spawn(move || {
        for (client, seed) in listener.incoming().flatten().zip(1..) {
            // Nobody at home: who dialled sees the connection end.
            if let Ok(server) = TcpStream::connect(&target) {
                // Who dials is the other node.
                carry([(1 - node, client), (node, server)], &state, seed);
            }
        }
    });
}

/// Carries bytes between two senders until one of them ends.
fn carry(ends: [(usize, TcpStream); 2], state: &Arc<State>, seed: u64) {
    let [(one, left), (other, right)] = ends;
    let clone = |stream: &TcpStream| stream.try_clone().expect("there are descriptors left");
    let mut open = state.open.lock().unwrap_or_else(PoisonError::into_inner);
    open.extend([clone(&left), clone(&right)]);
    drop(open);
    for (sender, from, to) in [(one, clone(&left), clone(&right)), (other, right, left)] {
        let _ = from.set_nodelay(true);
        let state = Arc::clone(state);
        thread::spawn(move || pump(from, to, &state, sender, seed));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, state: &State, sender: usize, seed: u64) {
    let (mut bytes, mut random) = (vec![0; 64 << 10], Random::new(seed));
    while let Ok(count) = from.read(&mut bytes) {
        while state.is_silent[sender].load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        let take = |left: u64| left.checked_sub(1);
        if count >= DATA_BYTES_MIN
            && state
                .damage
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
        {
            bytes[random.below(count as u64) as usize] ^= 1 << random.below(8);
            state.damaged.fetch_add(1, Ordering::Relaxed);
        }
        state.look_at(&bytes[..count]);
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
