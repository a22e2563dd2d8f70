//! A node: its reactors, its volumes' lives, its peers. What the daemon talks to.
//!
//! ```text
//!  start ─► lock data_dir ─► listen ─► reactors ─► attach volumes ─► peers
//!  request ─┬─ create, delete: a thread of their own (blocking I/O)
//!           └─ everything else: mailbox of the volume's reactor
//! ```
//! A volume that cannot attach is offline with a reason; the node and the others run on.

mod life;
mod reactors;
mod status;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine_core::message::{PROTOCOL_MAX, PROTOCOL_MIN, Refusal as Why};
use engine_core::table::Table;
use engine_core::time::Instant;
use engine_core::units::NodeIdx;
use engine_core::vote::Ballot;
use rustix::fs::FlockOperation;

use crate::control::{
    Node, NodeSpec, Outcome, Refusal, RefusalKind, Request, VolumeSpec, VolumeStatus,
};
use crate::entry::{Entry, Place};
use crate::front_end::{AttachError, Attachment, Service, VolumeView};
use crate::handover::{HandOverError, Inherited, Legacy};
use crate::layer::faulty::Faults;
use crate::log::{Level, Line, Log};
use crate::mailbox::{Leave, Mailbox, Message, PeerNews, Reply};
use crate::members;
use crate::peers::{self, Peers, Router};
use crate::reactor::Turns;
use crate::tls::LinkTls;
use reactors::ReactorHandle;

/// How often volumes that wait for a lock are tried again, and a file of faults is looked at.
const KEEPER_EVERY: Duration = Duration::from_millis(200);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such directory, or it cannot be written.
    #[error("data_dir {path} cannot be used")]
    DataDir {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process runs on it.
    #[error("data_dir {0} is in use by another process")]
    InUse(String),
    /// The replication address cannot be listened on.
    #[error("replication: {address} cannot be listened on")]
    Address {
        /// Which.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No reactor can run here.
    #[error("no I/O loop can be set up: {0}")]
    Reactor(String),
    /// What asks etcd cannot be started: a certificate is missing, or the key is not of it.
    #[cfg(feature = "etcd")]
    #[error("etcd cannot be asked")]
    Etcd(#[source] io::Error),
    /// Threads cannot be started.
    #[error("a thread cannot be started")]
    Thread(#[source] io::Error),
}

/// What all threads of the node share.
struct Shared {
    spec: NodeSpec,
    entries: Vec<Arc<Entry>>,
    /// Reactors, by index.
    mailboxes: Vec<Mailbox>,
    log: Arc<dyn Log>,
    bells: OnceLock<peers::Bells>,
    /// The threads of peers, while the node runs.
    peers: OnceLock<Weak<Mutex<Peers>>>,
    /// Nodes that there is a control connection to.
    connected: Mutex<BTreeSet<String>>,
    /// The plan of planted faults in force.
    faults: RwLock<String>,
    is_draining: AtomicBool,
    is_over: AtomicBool,
}

/// A running node. Dropping it without [`Node::drain`] is a crash, and nothing worse.
pub struct NodeHandle {
    shared: Arc<Shared>,
    io_backend: String,
    turns: Vec<Arc<Turns>>,
    peers: Arc<Mutex<Peers>>,
    reactors: Mutex<Vec<JoinHandle<()>>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// Holds the lock on `data_dir`.
    lock: File,
}

/// Starts a node: returns once every volume was attached or found offline.
pub fn start(spec: NodeSpec, log: Arc<dyn Log>) -> Result<Arc<NodeHandle>, StartError> {
    start_with(spec, log, Inherited::default())
}

/// As [`start`], with what another node on the same `data_dir` left behind. What is not inherited
/// is opened anew.
pub fn start_with(
    spec: NodeSpec,
    log: Arc<dyn Log>,
    inherited: Inherited,
) -> Result<Arc<NodeHandle>, StartError> {
    let lock = match inherited.lock {
        Some(lock) => lock,
        None => lock_data_dir(&spec.data_dir)?,
    };
    let mut open = inherited.replication;
    let listeners = spec.addresses.iter().map(|address| {
        match open.iter().position(|(inherited, _)| inherited == address) {
            Some(index) => Ok(open.swap_remove(index).1),
            None => peers::listen(address).map_err(|source| StartError::Address {
                address: address.clone(),
                source,
            }),
        }
    });
    let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
    let bells: Arc<OnceLock<peers::Bells>> = Arc::default();
    #[cfg(feature = "etcd")]
    let ask: Arc<OnceLock<crate::control_store::Ask>> = Arc::default();
    let handles = reactors::start(
        &spec,
        &log,
        &bells,
        #[cfg(feature = "etcd")]
        &ask,
    )?;
    let turns = handles.iter().map(|handle| Arc::clone(&handle.turns));
    let turns = turns.collect();
    let io_backend = handles[0].words.clone();
    let mailboxes: Vec<Mailbox> = handles
        .iter()
        .map(|handle| handle.mailbox.clone())
        .collect();
    #[cfg(feature = "etcd")]
    if let Some(etcd) = &spec.etcd {
        let started = crate::etcd::start(etcd, &spec.cluster, &mailboxes, &log);
        // It is set exactly once, here.
        let _ = ask.set(started.map_err(StartError::Etcd)?);
    }
    let entries = spec
        .volumes
        .iter()
        .map(|volume| Arc::new(Entry::new(first_view(volume))));
    let shared = Arc::new(Shared {
        entries: entries.collect(),
        mailboxes,
        log,
        bells: OnceLock::new(),
        peers: OnceLock::new(),
        connected: Mutex::default(),
        faults: RwLock::new(read_faults()),
        is_draining: AtomicBool::new(false),
        is_over: AtomicBool::new(false),
        spec,
    });
    for index in 0..shared.entries.len() {
        shared.attach(index);
    }
    let peers = start_peers(&shared, listeners).map_err(StartError::Thread)?;
    // Each is set exactly once, here.
    let _ = bells.set(peers.bells());
    let _ = shared.bells.set(peers.bells());
    let peers = Arc::new(Mutex::new(peers));
    let _ = shared.peers.set(Arc::downgrade(&peers));
    let keeper = {
        let shared = Arc::clone(&shared);
        thread::Builder::new()
            .name("keeper".into())
            .spawn(move || shared.keep())
    };
    Ok(Arc::new(NodeHandle {
        shared,
        io_backend,
        turns,
        peers,
        reactors: Mutex::new(
            handles
                .into_iter()
                .map(ReactorHandle::into_thread)
                .collect(),
        ),
        keeper: Mutex::new(Some(keeper.map_err(StartError::Thread)?)),
        lock,
    }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock_data_dir(path: &Path) -> Result<File, StartError> {
    let error = |source| StartError::DataDir {
        path: path.display().to_string(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join("lock"));
    let file = file.map_err(error)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::InUse(path.display().to_string())),
        Err(e) => Err(error(e.into())),
    }
}

fn start_peers(shared: &Arc<Shared>, listeners: Vec<std::net::TcpListener>) -> io::Result<Peers> {
    let spec = &shared.spec;
    let peers = shared.needed_peers();
    let common = peers::Common {
        cluster: spec.cluster.clone(),
        node: spec.name.clone(),
        process: crate::meta_io::random_u128() as u64,
        protocol: PROTOCOL_MIN..=PROTOCOL_MAX,
        keepalive: spec.keepalive,
        peer_timeout: spec.peer_timeout,
        router: Arc::clone(shared) as Arc<dyn Router>,
        log: Arc::clone(&shared.log),
        tls: RwLock::new(spec.tls.clone()),
        is_stopping: AtomicBool::new(false),
    };
    Peers::start(common, listeners, &peers)
}

/// The plan of planted faults: the environment's, or the file's that it names.
fn read_faults() -> String {
    let plan = std::env::var("POLLUX_FAULTS").unwrap_or_default();
    match plan.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).unwrap_or_default(),
        None => plan,
    }
}

fn first_view(spec: &VolumeSpec) -> VolumeView {
    VolumeView {
        name: spec.name.clone(),
        size_bytes: spec.size_bytes,
        service: Service::Unavailable {
            reason: format!("{} is not attached yet", spec.name),
        },
        trims: spec.allocation == crate::control::Allocation::Thin,
        clients: 0,
        contexts: VolumeView::usual_contexts(spec.replicas.len()),
    }
}

impl NodeHandle {
    /// What negotiation may say of a volume now; `None` if it is not configured here.
    pub fn view(&self, volume: &str) -> Option<VolumeView> {
        Some(self.shared.entry(volume)?.view())
    }

    /// Hands a negotiated client to its volume's reactor. Never waits.
    pub fn attach(&self, volume: &str, attachment: Attachment) -> Result<(), AttachError> {
        let entry = self.shared.entry(volume);
        let entry = entry.ok_or_else(|| AttachError::NotFound(volume.to_owned()))?;
        let Place::Attached(reactor) = *entry.place() else {
            return Err(AttachError::NotServed(format!("{volume} is not attached")));
        };
        let message = Message::Client(volume.to_owned(), attachment);
        self.shared.mailboxes[reactor]
            .send(message)
            .map_err(|_| AttachError::Full)
    }

    /// Plants faults in the stores of this node's volumes: a test aid, in the words of
    /// `POLLUX_FAULTS` (see `layer/faulty.rs`). Replaces what was planted before; the empty plan
    /// heals all. Errors: the rule that cannot be understood; nothing changes.
    pub fn plant_faults(&self, plan: &str) -> Result<(), String> {
        Faults::parse(plan, "").map_err(|error| error.to_string())?;
        self.shared.plant(plan.to_owned());
        Ok(())
    }

    /// Times any reactor entered its ring since start: one system call each on io_uring.
    pub fn turns(&self) -> u64 {
        self.turns_of_reactors().iter().sum()
    }

    /// As [`NodeHandle::turns`], of each reactor. The volume with index i of the specification is
    /// on reactor i modulo their number.
    pub fn turns_of_reactors(&self) -> Vec<u64> {
        self.turns.iter().map(|turns| turns.get()).collect()
    }

    /// Where peers are listened for first: tells the port where the configuration said 0.
    pub fn replication_address(&self) -> Option<std::net::SocketAddr> {
        self.peers().address()
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        lock(&self.peers)
    }
}

impl Node for NodeHandle {
    fn request(&self, volume: &str, request: Request, reply: Box<dyn FnOnce(Outcome) + Send>) {
        Shared::request(&self.shared, volume, request, reply);
    }

    fn status(&self, volume: Option<&str>, reply: Box<dyn FnOnce(Vec<VolumeStatus>) + Send>) {
        self.shared.status(volume, reply);
    }

    fn io_backend(&self) -> String {
        self.io_backend.clone()
    }

    fn drain(&self, done: Box<dyn FnOnce() + Send>) {
        Shared::drain(&self.shared, Leave::NodeStops, done);
    }

    fn renew_tls(&self, tls: LinkTls) {
        self.peers().set_tls(tls);
    }

    fn meet(&self, peers: &[(String, Vec<String>)]) -> Result<(), String> {
        self.peers().add(peers).map_err(|why| why.to_string())
    }

    fn hand_over(&self, done: Box<dyn FnOnce(Result<Legacy, HandOverError>) + Send>) {
        if self.shared.is_draining.load(Ordering::Acquire) {
            return done(Err(HandOverError::Stopping));
        }
        let listeners = self.peers().listeners();
        let inherited = self.lock.try_clone().and_then(|lock| {
            let addresses = self.shared.spec.addresses.iter().cloned();
            Ok(Inherited {
                lock: Some(lock),
                replication: addresses.zip(listeners?).collect(),
            })
        });
        let inherited = match inherited {
            Ok(inherited) => inherited,
            Err(source) => return done(Err(source.into())),
        };
        let (shared, peers) = (Arc::clone(&self.shared), Arc::clone(&self.peers));
        let stopped = move || {
            // Were they to stay, the peers' links to a successor would end with this process.
            lock(&peers).retire();
            let (volumes, clients) = shared.legacy();
            done(Ok(Legacy {
                volumes,
                clients,
                inherited,
            }));
        };
        Shared::drain(&self.shared, Leave::HandOver, Box::new(stopped));
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.peers().stop();
        if let Some(keeper) = self
            .keeper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            keeper.thread().unpark();
            // A panic was printed by its thread; nothing is left to do about it.
            let _ = keeper.join();
        }
        for mailbox in &self.shared.mailboxes {
            while let Err(message) = mailbox.send(Message::Exit) {
                drop(message);
                if self
                    .reactors
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .iter()
                    .all(JoinHandle::is_finished)
                {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
        for reactor in self
            .reactors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            let _ = reactor.join();
        }
    }
}

impl Shared {
    fn entry(&self, volume: &str) -> Option<&Arc<Entry>> {
        self.entries.iter().find(|entry| entry.name == volume)
    }

    fn say(&self, level: Level, code: &'static str, volume: &str, text: &str) {
        self.log.line(Line {
            level,
            code,
            volume: Some(volume),
            text,
        });
    }

    /// The reactor a volume lives on.
    fn reactor_of(&self, index: usize) -> usize {
        index % self.mailboxes.len()
    }

    /// Every reactor gets its own copy of a message; a full box loses it, and the next one comes
    /// within a second.
    fn broadcast(&self, make: impl Fn() -> Message) {
        for mailbox in &self.mailboxes {
            let _ = mailbox.send(make());
        }
    }

    /// The table of a volume's nodes: its own where it was attached, else what the file makes.
    fn table_of(&self, volume: &VolumeSpec) -> Arc<Table> {
        let own = self.entry(&volume.name).and_then(|entry| entry.nodes());
        own.unwrap_or_else(|| Arc::new(volume.table()))
    }

    /// Data connections of this node lead to that one.
    fn is_peer(&self, volume: &VolumeSpec, node: &str) -> bool {
        let table = self.table_of(volume);
        members::data_peer(&table, &self.spec.name, node).is_some()
    }

    /// Index of a node with a vote.
    fn voter_index(&self, volume: &VolumeSpec, node: &str) -> Option<NodeIdx> {
        self.table_of(volume).index_by_name(node)
    }

    /// Names and addresses of the other nodes that a volume is in common with, by the file or by
    /// the table of its own: the file may be behind it, or ahead of it.
    fn needed_peers(&self) -> Vec<(String, Vec<String>)> {
        let own = &self.spec.name;
        let by_file = self.spec.needed_peers();
        let is_needed = |name: &String| {
            let mut tables = self.spec.volumes.iter().map(|v| self.table_of(v));
            let is_listed = by_file.iter().any(|(known, _)| known == name);
            is_listed || name != own && tables.any(|t| members::knows(&t, own, name))
        };
        let peers = self.spec.peers.iter();
        peers.filter(|(name, _)| is_needed(name)).cloned().collect()
    }

    /// Puts it into the mailbox of the volume's reactor; lost if that is full.
    fn send_to(&self, volume: &str, message: Message) -> bool {
        let place = self.entry(volume).map(|entry| entry.place().clone());
        let Some(Place::Attached(reactor)) = place else {
            return false;
        };
        self.mailboxes[reactor].send(message).is_ok()
    }
}

impl Router for Shared {
    fn link(&self, volume: &str, peer: &str, socket: peers::LinkSocket) -> bool {
        // Whether it still is a peer, the reactor finds out by the table in force there.
        self.is_shared(volume, peer)
            && self.send_to(
                volume,
                Message::Link {
                    volume: volume.to_owned(),
                    peer: peer.to_owned(),
                    socket,
                },
            )
    }

    fn connected(&self, peer: &str) {
        lock(&self.connected).insert(peer.to_owned());
    }

    fn vote(&self, volume: &str, peer: &str, ballot: Ballot) {
        let spec = self.spec.volumes.iter().find(|spec| spec.name == volume);
        if let Some(from) = spec.and_then(|spec| self.voter_index(spec, peer)) {
            let (name, ballot) = (volume.to_owned(), Box::new(ballot));
            let vote = Message::Vote {
                volume: name,
                from,
                ballot,
            };
            self.send_to(volume, vote);
        }
    }

    fn unreachable(&self, peer: &str, began: u64) {
        let news = PeerNews::Unreachable {
            began: Instant(began),
        };
        self.broadcast(|| Message::Peer {
            node: peer.to_owned(),
            news,
        });
    }

    fn refused(&self, peer: &str, why: Why) {
        self.broadcast(|| Message::Peer {
            node: peer.to_owned(),
            news: PeerNews::Refused(why),
        });
    }

    fn gone(&self, peer: &str) {
        lock(&self.connected).remove(peer);
        self.broadcast(|| Message::Peer {
            node: peer.to_owned(),
            news: PeerNews::Gone,
        });
    }

    fn path_gone(&self, peer: &str, path: u8) {
        self.broadcast(|| Message::Peer {
            node: peer.to_owned(),
            news: PeerNews::PathGone(path),
        });
    }

    fn unlinked(&self, peer: &str) {
        self.broadcast(|| Message::Peer {
            node: peer.to_owned(),
            news: PeerNews::Unlinked,
        });
    }

    fn shared(&self, peer: &str) -> Vec<String> {
        let is_attached = |name: &str| {
            self.entry(name)
                .is_some_and(|entry| matches!(*entry.place(), Place::Attached(_)))
        };
        let volumes = self.spec.volumes.iter();
        let shared = volumes.filter(|v| self.is_peer(v, peer) && is_attached(&v.name));
        shared.map(|volume| volume.name.clone()).collect()
    }

    fn is_shared(&self, volume: &str, peer: &str) -> bool {
        let mut volumes = self.spec.volumes.iter();
        volumes.any(|v| v.name == volume && self.is_peer(v, peer))
    }
}

fn not_found(volume: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::NotFound,
        code: "E214",
        text: format!("no volume `{volume}` is configured on this node"),
        hint: Some("pollux status".into()),
    }
}

fn failed(code: &'static str, text: String, hint: Option<String>) -> Refusal {
    Refusal {
        kind: RefusalKind::Failed,
        code,
        text,
        hint,
    }
}

/// Ends a volume's stay on its reactor and waits for it. Blocks.
fn leave_and_wait(mailbox: &Mailbox, volume: &str, leave: Leave) -> Outcome {
    ask_and_wait(mailbox, volume, |reply| {
        Message::Leave(volume.to_owned(), leave, reply)
    })
}

/// Puts a question to a reactor and waits for its answer. Blocks.
fn ask_and_wait<T: Send + 'static>(
    mailbox: &Mailbox,
    volume: &str,
    question: impl FnOnce(Reply<Result<T, Refusal>>) -> Message,
) -> Result<T, Refusal> {
    let (sender, receiver) = std::sync::mpsc::channel();
    // The receiver waits below; if it did not, nobody would need the answer.
    let reply = Box::new(move |outcome| drop(sender.send(outcome)));
    if mailbox.send(question(reply)).is_err() {
        return Err(failed(
            "E216",
            format!("{volume}: the node is too busy"),
            None,
        ));
    }
    receiver
        .recv()
        .unwrap_or_else(|_| Err(failed("E217", format!("{volume}: the node stops"), None)))
}
