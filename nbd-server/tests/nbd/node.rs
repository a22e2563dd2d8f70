//! A node with one memory volume, served over a Unix socket.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use engine::control::{
    Allocation, Backing, Cache, Checksums, ClientStatus, Completion, NbdExportSpec, Node, NodeSpec,
    Outcome, Polling, Reads, Request, VolumeSpec, VolumeStatus, Votes, WritePolicy,
};
use engine::front_end::Service;
use engine::log::Silent;
use engine::node::NodeHandle;
use nbd_proto::{ExportName, Wish};
use nbd_server::NbdConfig;

use crate::common::Server;
use crate::session::Session;

/// A node and its server.
pub struct Served {
    pub server: Server,
    node: Arc<NodeHandle>,
    _dir: tempfile::TempDir,
    socket: PathBuf,
}

impl Served {
    /// Creates the volume `vm` of `size_bytes` and serves it as `disk`, and read-only as `sealed`.
    pub fn start(size_bytes: u64) -> Served {
        Served::start_with(size_bytes, |_| {})
    }

    /// The same with other settings of the server.
    pub fn start_with(size_bytes: u64, change: impl FnOnce(&mut NbdConfig)) -> Served {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("nbd.sock");
        let spec = spec(dir.path(), socket.clone(), size_bytes);
        let node = engine::node::start(spec.clone(), Arc::new(Silent)).unwrap();
        let created = request(
            &*node,
            Request::Create {
                adopt: false,
                if_absent: false,
            },
        );
        created.unwrap();
        // Founding follows by itself.
        while node.view("vm").unwrap().service != Service::Primary {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut config = NbdConfig::of(&spec);
        change(&mut config);
        let server = Server::start(config, node.clone()).unwrap();
        Served {
            server,
            node,
            _dir: dir,
            socket,
        }
    }

    /// A client with all features.
    pub fn open(&self) -> Session {
        Session::open(&self.socket, Wish::full(ExportName::new("disk").unwrap()))
    }

    /// A client with simple replies.
    pub fn open_simple(&self) -> Session {
        Session::open(&self.socket, Wish::simple(ExportName::new("disk").unwrap()))
    }

    /// A client of the read-only export.
    pub fn open_sealed(&self) -> Session {
        Session::open(&self.socket, Wish::full(ExportName::new("sealed").unwrap()))
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the engine runs on.
    pub fn io_backend(&self) -> String {
        self.node.io_backend()
    }

    /// Number of clients the engine knows.
    pub fn clients(&self) -> usize {
        self.client_list().len()
    }

    /// Clients the engine knows.
    pub fn client_list(&self) -> Vec<ClientStatus> {
        self.status().clients
    }

    /// What the engine says of the volume.
    pub fn status(&self) -> VolumeStatus {
        let (answer, answered) = mpsc::channel();
        self.node
            .status(None, Box::new(move |status| answer.send(status).unwrap()));
        let mut status = answered.recv_timeout(Duration::from_secs(10)).unwrap();
        status.remove(0)
    }

    /// Waits until so many are left.
    pub fn wait_for_clients(&self, count: usize) {
        for _ in 0..2000 {
            if self.clients() == count {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{} clients are attached, not {count}", self.clients());
    }

    pub fn request(&self, what: Request) -> Outcome {
        request(&*self.node, what)
    }

    /// Drains the node.
    pub fn drain(&self) {
        let (done, is_done) = mpsc::channel();
        self.node.drain(Box::new(move || done.send(()).unwrap()));
        is_done.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}

pub fn request(node: &dyn Node, what: Request) -> Outcome {
    let (answer, answered) = mpsc::channel();
    node.request(
        "vm",
        what,
        Box::new(move |outcome| answer.send(outcome).unwrap()),
    );
    answered.recv_timeout(Duration::from_secs(30)).unwrap()
}

pub fn spec(dir: &Path, socket: PathBuf, size_bytes: u64) -> NodeSpec {
    let export = |name: &str, read_only| NbdExportSpec {
        name: name.to_owned(),
        read_only,
        ..NbdExportSpec::default()
    };
    NodeSpec {
        cluster: "test".to_owned(),
        name: "alpha".to_owned(),
        data_dir: dir.to_owned(),
        addresses: Vec::new(),
        peers: Vec::new(),
        tls: None,
        nbd: Some("127.0.0.1:0".to_owned()),
        nbd_socket: Some(socket),
        reactors: 1,
        keepalive: Duration::from_millis(500),
        peer_timeout: Duration::from_secs(3),
        member_timeout: Duration::from_secs(5),
        etcd: None,
        volumes: vec![VolumeSpec {
            name: "vm".to_owned(),
            size_bytes,
            backing: Some(Backing::Memory),
            replicas: vec!["alpha".to_owned()],
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
            nbd: vec![export("disk", false), export("sealed", true)],
        }],
    }
}
