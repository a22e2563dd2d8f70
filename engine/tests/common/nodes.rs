//! Nodes on loopback, and a cable between them that can be cut.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use engine::control::{
    Allocation, Backing, Cache, Checksums, Completion, Done, Node, NodeSpec, Outcome, Polling,
    Reads, Request, VolumeSpec, VolumeStatus, Votes, WritePolicy,
};
use engine::front_end::{Attachment, ClientInfo, ExportLabel};
use engine::log::{Line, Log};
use engine::node::{NodeHandle, start};

use super::Client;
use super::front::Mini;

/// Prints lines; the test harness shows them on failure.
pub struct Printed(pub &'static str);

impl Log for Printed {
    fn line(&self, line: Line<'_>) {
        println!(
            "{} {:?} {} {:?} {}",
            self.0, line.level, line.code, line.volume, line.text
        );
    }
}

pub fn volume(name: &str, size: u64, backing: Backing, replicas: &[&str]) -> VolumeSpec {
    VolumeSpec {
        name: name.into(),
        size_bytes: size,
        backing: Some(backing),
        replicas: replicas.iter().map(|r| (*r).to_owned()).collect(),
        votes: Votes::default(),
        write_policy: WritePolicy::Written,
        allocation: Allocation::Thin,
        cache: Cache::Direct,
        completion: Completion::Interrupt,
        splitbrain: Default::default(),
        min_copies: 1,
        polling: Polling::Cpu,
        reads: Reads::Local,
        resync_rate: None,
        checksums: Checksums::Off,
        nbd: Vec::new(),
    }
}

pub fn node(name: &'static str, dir: &Path, volumes: Vec<VolumeSpec>) -> NodeSpec {
    NodeSpec {
        cluster: "test".into(),
        name: name.into(),
        data_dir: dir.to_owned(),
        addresses: Vec::new(),
        peers: Vec::new(),
        tls: None,
        nbd: None,
        nbd_socket: None,
        reactors: 1,
        keepalive: Duration::from_millis(100),
        peer_timeout: Duration::from_millis(1000),
        member_timeout: Duration::from_secs(2),
        etcd: None,
        volumes,
    }
}

pub fn launch(name: &'static str, spec: NodeSpec) -> Arc<NodeHandle> {
    start(spec, Arc::new(Printed(name))).unwrap()
}

pub fn ask(node: &NodeHandle, volume: &str, request: Request) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    node.request(
        volume,
        request,
        Box::new(move |outcome| sender.send(outcome).unwrap()),
    );
    receiver
        .recv_timeout(Duration::from_secs(30))
        .expect("every request is answered")
}

pub fn create(node: &NodeHandle, volume: &str) {
    let request = Request::Create {
        adopt: false,
        if_absent: false,
    };
    assert!(matches!(ask(node, volume, request), Ok(Done::Ok(_))));
}

pub fn promote(node: &NodeHandle, volume: &str) -> Outcome {
    ask(
        node,
        volume,
        Request::Promote {
            force: false,
            wait: Duration::from_secs(10),
        },
    )
}

pub fn status(node: &NodeHandle, volume: &str) -> VolumeStatus {
    let (sender, receiver) = mpsc::channel();
    node.status(
        Some(volume),
        Box::new(move |found| sender.send(found).unwrap()),
    );
    receiver
        .recv_timeout(Duration::from_secs(10))
        .unwrap()
        .remove(0)
}

pub fn drain(node: &NodeHandle) {
    let (sender, receiver) = mpsc::channel();
    node.drain(Box::new(move || sender.send(()).unwrap()));
    receiver
        .recv_timeout(Duration::from_secs(10))
        .expect("a drain ends");
}

pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn attach(node: &NodeHandle, volume: &str) -> Client {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let client = ClientInfo {
        export: ExportLabel::new(volume),
        address: "unix:1".into(),
        tls: None,
    };
    let attachment = Attachment {
        socket: theirs.into(),
        client,
        make: Box::new(Mini::start),
    };
    node.attach(volume, attachment).unwrap();
    Client::new(ours)
}

/// Forwards TCP connections to an address until it is cut.
pub struct Cable {
    pub address: SocketAddr,
    pub target: Arc<Mutex<Option<SocketAddr>>>,
    is_cut: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cable {
    pub fn new() -> Cable {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let is_cut = Arc::new(AtomicBool::new(false));
        let streams: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let cable = Cable {
            address,
            target: target.clone(),
            is_cut: is_cut.clone(),
            streams: streams.clone(),
        };
        std::thread::spawn(move || {
            for accepted in listener.incoming() {
                let accepted = accepted.unwrap();
                let target = *target.lock().unwrap();
                let (false, Some(target)) = (is_cut.load(Ordering::SeqCst), target) else {
                    continue;
                };
                let Ok(other) = TcpStream::connect(target) else {
                    continue;
                };
                let mut streams = streams.lock().unwrap();
                for (mut from, mut to) in [
                    (accepted.try_clone().unwrap(), other.try_clone().unwrap()),
                    (other.try_clone().unwrap(), accepted.try_clone().unwrap()),
                ] {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = from.shutdown(Shutdown::Both);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                streams.extend([accepted, other]);
            }
        });
        cable
    }

    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}
