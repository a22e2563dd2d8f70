//! Links between three nodes that can be cut, and held back one way: a proxy for each direction of
//! dialling.
//!
//! ```text
//!  alpha ──dials──► proxy alpha→beta ──► beta        and so on for every two of them
//! ```
//! A cut link breaks its connections and takes no new ones, as a node that is gone. A silenced
//! direction holds its bytes back, as a network that drops packets does to TCP, and delivers them
//! if it is healed before the connection ends.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use conformance::Port;

use crate::{Shape, TRIO, Trio};

/// What one node sends to another.
#[derive(Default)]
struct Way {
    is_cut: AtomicBool,
    is_silent: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

type Ways = [[Way; 3]; 3];

/// The links of a trio.
pub struct Mesh {
    /// By sender and receiver.
    ways: Arc<Ways>,
    /// Where each node believes each other one to be; held as long as the mesh.
    _ports: Vec<Port>,
}

impl Mesh {
    /// A healthy trio whose nodes reach each other through the mesh.
    pub fn healthy(shape: Shape, mebibytes: u64, lease: &str) -> (Mesh, Trio) {
        let mut trio = Trio::of(shape, Trio::lab(shape, mebibytes, lease));
        let mesh = Mesh::between(&mut trio);
        (0..3).for_each(|index| trio.serve(index));
        trio.found();
        (mesh, trio)
    }

    /// Puts the mesh between the nodes of a trio that does not run yet.
    pub fn between(trio: &mut Trio) -> Mesh {
        let address = |port: &Port| format!("address = \"{}\"", port.address());
        let ways = Arc::<Ways>::default();
        let mut ports = Vec::new();
        for (from, node) in TRIO.iter().enumerate() {
            let mut text = fs::read_to_string(&trio.configs[from]).expect("the lab wrote it");
            for to in (0..3).filter(|to| *to != from) {
                let port = Port::claim();
                let real = &trio.lab.node(TRIO[to]).replication;
                listen(&port, (from, to), real.address(), &ways);
                text = text.replace(&address(real), &address(&port));
                ports.push(port);
            }
            let config = trio.lab.path(&format!("{node}-meshed.toml"));
            fs::write(&config, text).expect("the lab's folder is writable");
            trio.configs[from] = config;
        }
        Mesh {
            ways,
            _ports: ports,
        }
    }

    /// Cuts the link of two nodes.
    pub fn cut(&self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            let way = &self.ways[from][to];
            way.is_cut.store(true, Ordering::SeqCst);
            let mut open = way.open.lock().unwrap_or_else(PoisonError::into_inner);
            for stream in open.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Holds back what one node sends to another.
    pub fn silence(&self, from: usize, to: usize) {
        self.ways[from][to].is_silent.store(true, Ordering::SeqCst);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        for way in self.ways.iter().flatten() {
            way.is_cut.store(false, Ordering::SeqCst);
            way.is_silent.store(false, Ordering::SeqCst);
        }
    }
}

/// Accepts what `from` dials to reach `to`, for as long as the process lives.
fn listen(port: &Port, (from, to): (usize, usize), target: String, ways: &Arc<Ways>) {
    let listener = TcpListener::bind(port.address()).expect("the port was claimed");
    let ways = Arc::clone(ways);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if ways[from][to].is_cut.load(Ordering::SeqCst) {
                continue;
            }
            // Nobody at home: who dialled sees the connection end.
            if let Ok(server) = TcpStream::connect(&target) {
                carry((client, server), (from, to), &ways);
            }
        }
    });
}

fn carry((near, far): (TcpStream, TcpStream), (from, to): (usize, usize), ways: &Arc<Ways>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("there are descriptors left");
    let open = &ways[from][to].open;
    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
    open.extend([clone(&near), clone(&far)]);
    drop(open);
    let pairs = [
        (clone(&near), clone(&far), (from, to)),
        (far, near, (to, from)),
    ];
    for (source, sink, way) in pairs {
        let _ = source.set_nodelay(true);
        let ways = Arc::clone(ways);
        thread::spawn(move || pump(source, sink, &ways[way.0][way.1]));
    }
}

fn pump(mut source: TcpStream, mut sink: TcpStream, way: &Way) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count) = source.read(&mut bytes) {
        while way.is_silent.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        if count == 0 || sink.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = source.shutdown(Shutdown::Both);
    let _ = sink.shutdown(Shutdown::Both);
}
