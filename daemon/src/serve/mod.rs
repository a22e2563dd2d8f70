//! `pollux serve`: one node's daemon from start to drain, or to its successor.
//!
//! ```text
//! lock data_dir ─► bind API and NBD ─► start the engine ─► READY ─┬─ signal ─► drain ─► exit 0
//!     ▲ everything from another process (`--takeover`), or back    └─ successor ─► give ─┬─► exit 0
//!     └─────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! It ends only for node-wide faults. Everything that concerns one volume is in that volume's
//! status. A successor that does not come up gives everything back: then this process starts
//! anew, as the successor would have done.

mod descriptors;
mod hooks;
mod lock;
mod notify;
mod queued_log;
mod roles;
mod sockets;
mod verifies;
mod watch;

use std::collections::HashMap;
use std::fs::File;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::control::{Backing, Node, NodeSpec, Role as VolumeRole};
use engine::handover::{HandOverError, Inherited, Legacy};
use engine::log::Log;
use engine::tls::LinkTls;
use nbd_server::{NbdConfig, NbdServer, NbdTls};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::api::listen::{ApiSocketCopy, serve_tcp};
use crate::api::{self, Access, Facts, Shared};
use crate::config::{Loaded, Node as NodeConfig};
use crate::exit::Exit;
use crate::explain::{self, Failure, counted};
use crate::handover::{self, Answer, Door, Given, Listener, Offer, Predecessor, Role};
use crate::live::{self, Live};
use crate::node::{StartNode, Started};
use crate::verified::Verified;
use hooks::Followed;
use lock::DataDirLock;
use queued_log::QueuedLog;
use roles::Missing;
use sockets::Sockets;

/// Time for all volumes to drain before the stop counts as a crash.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Time for a process that cannot be asked yet, or ends instead of giving.
const END_MAX: Duration = Duration::from_secs(15);
/// Pause between two questions.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Whether, and how, the process that runs is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// Also where content in memory is lost.
    pub force: bool,
}

/// Runs `node` of the checked file until a signal, or until another process takes over. With
/// `takeover`, it takes over from the one that runs, if one does. Errors: `data_dir` is missing or
/// in use, a port is in use, the engine does not start, volumes do not drain in time; the process
/// that runs goes on.
pub fn run(
    loaded: &Loaded,
    node: &NodeConfig,
    start: StartNode,
    takeover: Option<Takeover>,
) -> Result<Exit, Failure> {
    start_log();
    log_warnings(loaded);
    descriptors::raise_limit();
    // Before another process is asked to give anything.
    let tls = live::tls_of(loaded, node)?;
    let link_tls = live::link_tls_of(loaded, node)?;
    let (given, predecessor, lock) = match takeover {
        Some(how) => take_over(loaded, node, how)?,
        None => (Given::default(), None, DataDirLock::take(&node.data_dir)?),
    };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| explain::cannot_run("the control plane did not start", &source))?;
    let daemon = Daemon {
        loaded,
        node,
        start,
        tls,
        link_tls,
        lock,
        door: None,
    };
    runtime.block_on(daemon.serve(given, predecessor))
}

/// Everything the process that runs has, and the lock on `data_dir`. A process that is about to
/// start or to end is waited for.
fn take_over(
    loaded: &Loaded,
    node: &NodeConfig,
    how: Takeover,
) -> Result<(Given, Option<Predecessor>, DataDirLock), Failure> {
    let (cluster, name) = (&loaded.config.cluster.name, &node.name.value);
    let until = Instant::now() + END_MAX;
    loop {
        if let Answer::Given(mut given, predecessor) =
            handover::ask(&node.data_dir, cluster, name, how.force)?
        {
            let lock = given.daemon_lock.take();
            let lock = lock.ok_or_else(|| explain::takeover_failed("it gave no lock"))?;
            return Ok((*given, Some(predecessor), DataDirLock::adopt(lock)));
        }
        match DataDirLock::take(&node.data_dir) {
            Ok(lock) => {
                info!(code = "I125", "no process is there to be taken over");
                return Ok((Given::default(), None, lock));
            }
            Err(_) if Instant::now() < until => std::thread::sleep(ASK_EVERY),
            Err(failure) => return Err(failure),
        }
    }
}

/// What stays for as long as the process does.
struct Daemon<'a> {
    loaded: &'a Loaded,
    node: &'a NodeConfig,
    start: StartNode,
    tls: Option<NbdTls>,
    link_tls: Option<LinkTls>,
    lock: DataDirLock,
    door: Option<Door>,
}

/// How a session ended.
enum Ended {
    Over(Exit),
    /// A successor did not come up: everything is here again.
    Back(Given),
}

/// Why a session ends.
enum Stop {
    Signal(&'static str),
    Successor(Box<Offer>),
}

/// A running node with its servers.
struct Session {
    engine: Arc<dyn Node>,
    spec: NodeSpec,
    nbd_config: NbdConfig,
    nbd: Arc<NbdServer>,
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// `None` once it is over.
    hooks: Option<Followed>,
    /// Copies of the API's sockets.
    listeners: Vec<Listener>,
    api_file: ApiSocketCopy,
}

impl Daemon<'_> {
    async fn serve(
        mut self,
        mut given: Given,
        mut predecessor: Option<Predecessor>,
    ) -> Result<Exit, Failure> {
        let mut signals = Signals::take()?;
        let log: Arc<dyn Log> = Arc::new(
            QueuedLog::start().map_err(|why| explain::cannot_run("the log did not start", &why))?,
        );
        let mut is_back = false;
        loop {
            let from = predecessor.take();
            let (session, stop) = self.start(given, from, &log, &mut signals).await?;
            if is_back {
                session.reload().await;
            }
            let stop = match stop {
                Some(name) => Stop::Signal(name),
                None => self.wait(&session, &mut signals).await,
            };
            let ended = match stop {
                Stop::Signal(name) => Ended::Over(session.stop(name, &mut signals).await?),
                Stop::Successor(offer) => self.hand_over(session, *offer).await?,
            };
            match ended {
                Ended::Over(exit) => return Ok(exit),
                Ended::Back(back) => {
                    given = back;
                    // It began with the file as it was then.
                    is_back = true;
                }
            }
        }
    }

    /// Starts everything; what was given is used, clients go on. A signal that came meanwhile is
    /// returned beside it.
    async fn start(
        &mut self,
        mut given: Given,
        predecessor: Option<Predecessor>,
        log: &Arc<dyn Log>,
        signals: &mut Signals,
    ) -> Result<(Session, Option<&'static str>), Failure> {
        let began = Instant::now();
        let facts = Facts::of(&self.loaded.config, self.node);
        let mut nbd_config = live::nbd_config(self.loaded, self.node);
        nbd_config.tls = self.tls.clone();
        let prepared = self
            .prepare(&facts.spec, &nbd_config, &mut given, log, signals)
            .await;
        let (sockets, started, missing, stop) = match (prepared, &predecessor) {
            (Ok(prepared), _) => prepared,
            (Err(failure), None) => return Err(failure),
            (Err(failure), Some(from)) => {
                from.abort(&failure.text);
                return Err(explain::takeover_failed(&failure.text));
            }
        };
        let engine = started.node;
        if let Some(from) = &predecessor {
            let lost = missing.iter().find(|missing| !missing.is_elsewhere);
            let why = match lost {
                Some(Missing { volume, why, .. }) => Err(format!("{volume} does not serve: {why}")),
                None => from.commit(),
            };
            if let Err(why) = why {
                // The volumes are given back as clean as they came.
                let _ = drained(&engine).await;
                drop(engine);
                from.abort(&why);
                return Err(explain::takeover_failed(&why));
            }
            sockets::remove_unused(&mut given);
        }
        let session = self.open_up(facts, nbd_config, sockets, engine, started.volumes, log)?;
        let seated = session.seat(&mut given, &missing);
        if let Some(Predecessor { pid, .. }) = predecessor {
            let text = format!(
                "taken over from pid {pid} with {} in {} ms",
                counted(seated, "client"),
                began.elapsed().as_millis()
            );
            info!(code = "I126", "{text}");
            // Only people read it.
            let _ = self.lock.sign();
            notify::send(&format!("MAINPID={}", std::process::id()));
        }
        self.open_door(&mut given);
        notify::send("READY=1\nSTATUS=running");
        Ok((session, stop))
    }

    /// Everything that may fail before anything is irrevocable: sockets, engine, roles.
    async fn prepare(
        &self,
        spec: &NodeSpec,
        nbd: &NbdConfig,
        given: &mut Given,
        log: &Arc<dyn Log>,
        signals: &mut Signals,
    ) -> Result<(Sockets, Started, Vec<Missing>, Option<&'static str>), Failure> {
        let sockets = Sockets::open(self.node, nbd, given)?;
        let replication = spec.addresses.iter().filter_map(|address| {
            let socket = given.take(Role::Replication, address)?;
            Some((address.clone(), socket.into()))
        });
        let replication = replication.collect();
        let inherited = Inherited {
            lock: given.engine_lock.take(),
            replication,
        };
        let sealed = NodeSpec {
            tls: self.link_tls.clone(),
            ..spec.clone()
        };
        let starting = start_engine(self.start, sealed, log.clone(), inherited, signals);
        let (started, stop) = starting.await?;
        let line = start_line(spec, self.node, &*started.node);
        info!(code = "I120", "{line}");
        let missing =
            roles::serve_again(spec, &started.node, &started.volumes, &given.volumes).await;
        Ok((sockets, started, missing, stop))
    }

    /// Lets everybody in.
    fn open_up(
        &self,
        facts: Facts,
        nbd_config: NbdConfig,
        sockets: Sockets,
        engine: Arc<dyn Node>,
        volumes: Arc<dyn nbd_server::Volumes>,
        log: &Arc<dyn Log>,
    ) -> Result<Session, Failure> {
        let socket_path = self.node.api_socket();
        let Sockets {
            api_socket,
            api,
            nbd,
        } = sockets;
        let address = self.node.api.as_ref().map(|address| address.to_string());
        let copied = sockets::copies(&api_socket, &socket_path, api.as_ref().zip(address));
        let cannot = |source| explain::cannot_run("sockets cannot be copied", &source);
        let (listeners, api_file) = copied.map_err(cannot)?;
        let hooks = Followed::start(&self.loaded.config, self.node, &volumes, &engine);
        let nbd = NbdServer::start_with(&nbd_config, volumes, log.clone(), nbd);
        let nbd = Arc::new(nbd.map_err(|why| explain::nbd_did_not_start(&why))?);
        let spec = facts.spec.clone();
        let live = Live::new(self.loaded, self.node, nbd.clone(), engine.clone());
        let volumes = spec.volumes.iter().map(|volume| volume.name.as_str());
        let verified = Verified::load(&self.node.data_dir, volumes);
        let shared = Shared::with_live(engine.clone(), facts, live, verified);
        let own_uid = rustix::process::geteuid().as_raw();
        let all = api::router(shared.clone(), Access::All);
        api_socket.own_file();
        let mut tasks = vec![tokio::spawn(async move {
            match api_socket.serve(all, own_uid).await {}
        })];
        if let Some(tcp) = api {
            tcp.set_nonblocking(true).map_err(cannot)?;
            let tcp = tokio::net::TcpListener::from_std(tcp).map_err(cannot)?;
            let reading = api::router(shared.clone(), Access::ReadOnly(socket_path));
            tasks.push(tokio::spawn(async move {
                match serve_tcp(tcp, reading).await {}
            }));
        }
        tasks.push(tokio::spawn(watch::log_changes(engine.clone())));
        let volumes = self.loaded.config.volumes.iter();
        let every = volumes.filter_map(|v| Some((v.name.value.clone(), v.verify_every?)));
        tasks.push(tokio::spawn(verifies::follow(
            shared.clone(),
            every.collect(),
        )));
        Ok(Session {
            engine,
            spec,
            nbd_config,
            nbd,
            shared,
            tasks,
            hooks: Some(hooks),
            listeners,
            api_file,
        })
    }

    /// From now on this process can be taken over.
    fn open_door(&mut self, given: &mut Given) {
        if self.door.is_some() {
            return;
        }
        let (data_dir, cluster) = (&self.node.data_dir, &self.loaded.config.cluster.name);
        let path = data_dir.join(handover::SOCKET).display().to_string();
        let open = given.take(Role::Handover, &path);
        match Door::open(data_dir, open, cluster, &self.node.name.value) {
            Ok(door) => self.door = Some(door),
            Err(why) => {
                warn!(
                    code = "W153",
                    "this process cannot be taken over: {path}: {why}"
                );
            }
        }
    }

    /// Until a signal, or a successor that nothing speaks against.
    async fn wait(&mut self, session: &Session, signals: &mut Signals) -> Stop {
        loop {
            let knock = async {
                match &mut self.door {
                    Some(door) => door.knock().await,
                    None => pending().await,
                }
            };
            let offer = tokio::select! {
                name = signals.next_or_reload() => match name {
                    Some(name) => return Stop::Signal(name),
                    None => {
                        session.reload().await;
                        continue;
                    }
                },
                offer = knock => offer,
            };
            let Some(mut offer) = offer else {
                self.door = None;
                continue;
            };
            let in_memory = session.used_in_memory().await;
            if !in_memory.is_empty() && !offer.terms.force {
                let names: Vec<&str> = in_memory.iter().map(String::as_str).collect();
                offer.refuse(&explain::takeover_loses_memory(&names));
            } else if offer.accept().is_ok() {
                return Stop::Successor(Box::new(offer));
            }
        }
    }

    /// Gives everything to a successor.
    async fn hand_over(&mut self, mut session: Session, offer: Offer) -> Result<Ended, Failure> {
        let (pid, release) = (offer.terms.pid, offer.terms.release.clone());
        let began = Instant::now();
        info!(code = "I127", "pid {pid} (pollux {release}) takes over");
        notify::send("STATUS=being taken over");
        session.shared.start_draining();
        session.hooks.take().into_iter().for_each(Followed::leave);
        session.api_file.keep_file();
        for task in session.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
        let broken = |why: String| explain::cannot_hand_over(&why);
        let stopped = session.nbd.stop_listening().await;
        let open = stopped.map_err(|why| broken(why.to_string()))?;
        let legacy = match tokio::time::timeout(DRAIN_MAX, session.legacy()).await {
            Ok(Ok(legacy)) => legacy,
            Ok(Err(why)) => return Err(broken(why.to_string())),
            Err(_) => {
                // Reactors may hang in what could not be drained; nobody waits for them now. The
                // successor sees the end, and starts by itself.
                let failure = explain::drain_timed_out(DRAIN_MAX);
                error!(code = &*failure.code, "{}", failure.text);
                std::process::exit(i32::from(failure.exit.number()));
            }
        };
        let given = self.gather(session, open, legacy);
        let mut given = given.map_err(|why| broken(why.to_string()))?;
        let count = given.clients.len();
        let giving = tokio::task::spawn_blocking(move || {
            let answer = offer.give(&given);
            (given, answer)
        });
        let answer;
        (given, answer) = giving
            .await
            .map_err(|_| broken("it was not sent".to_owned()))?;
        match answer {
            Ok(()) => {
                // Streams end only when both processes have closed them.
                drop(given);
                self.door.iter_mut().for_each(Door::keep);
                let text = format!(
                    "handed over to pid {pid} with {} in {} ms",
                    counted(count, "client"),
                    began.elapsed().as_millis()
                );
                info!(code = "I128", "{text}");
                Ok(Ended::Over(Exit::Done))
            }
            Err(why) => {
                warn!(
                    code = "W154",
                    "pid {pid} does not take over: {why}; going on here"
                );
                Ok(Ended::Back(given))
            }
        }
    }

    /// Everything the session leaves, in one place.
    fn gather(
        &self,
        session: Session,
        open: nbd_server::Listeners,
        legacy: Legacy,
    ) -> std::io::Result<Given> {
        let Legacy {
            mut volumes,
            mut clients,
            inherited,
        } = legacy;
        let Session {
            engine,
            spec,
            nbd_config,
            mut listeners,
            ..
        } = session;
        // Threads of peers that do not answer may take a second to end.
        tokio::task::spawn_blocking(move || drop(engine));
        // What lived in memory is gone: its clients must not read zeros.
        for volume in spec.volumes.iter().filter(|v| is_in_memory(v)) {
            clients.retain(|client| client.volume != volume.name);
            volumes.retain(|handed| handed.name != volume.name);
        }
        sockets::give_nbd(&nbd_config, open, &mut listeners);
        for (address, socket) in inherited.replication {
            listeners.push(Listener {
                role: Role::Replication,
                address,
                socket: socket.into(),
            });
        }
        if let Some(door) = &self.door {
            let (socket, address) = door.socket()?;
            let role = Role::Handover;
            listeners.push(Listener {
                role,
                address,
                socket,
            });
        }
        let daemon_lock: File = self.lock.copy()?;
        Ok(Given {
            daemon_lock: Some(daemon_lock),
            engine_lock: inherited.lock,
            listeners,
            volumes,
            clients,
            ..Given::default()
        })
    }
}

fn is_in_memory(volume: &engine::control::VolumeSpec) -> bool {
    volume.backing == Some(Backing::Memory)
}

impl Session {
    /// Takes over what the file says now; what happened is in the log.
    async fn reload(&self) {
        let Some(live) = self.shared.live() else {
            return;
        };
        notify::reloading();
        match live.apply().await {
            Ok(applied) => info!(code = "I129", "{}", applied.text(live.path())),
            Err(failure) => {
                let text = failure.text.replace('\n', " ");
                warn!(code = &*failure.code, "the file is not taken over: {text}");
            }
        }
        notify::send("READY=1");
    }

    /// Seats the clients another process gave; how many. The others are closed, with a line each.
    fn seat(&self, given: &mut Given, missing: &[Missing]) -> usize {
        let missing: HashMap<&str, &str> = missing
            .iter()
            .map(|missing| (&*missing.volume, &*missing.why))
            .collect();
        let mut seated = 0;
        for client in given.clients.drain(..) {
            let (volume, who) = (client.volume.clone(), client.client.clone());
            let adopted = match missing.get(&*volume) {
                Some(why) => Err((*why).to_owned()),
                None => self.nbd.adopt(client).map_err(|why| why.to_string()),
            };
            match adopted {
                Ok(()) => seated += 1,
                Err(why) => {
                    let (address, export) = (who.address, who.export);
                    let text = format!("client {address} of export `{export}` is closed: {why}");
                    warn!(code = "W155", volume, "{text}");
                }
            }
        }
        seated
    }

    /// Volumes that would be emptied: in memory, and in use.
    async fn used_in_memory(&self) -> Vec<String> {
        let in_memory = |name: &str| {
            let mut volumes = self.spec.volumes.iter();
            volumes.any(|volume| volume.name == name && is_in_memory(volume))
        };
        let found = api::volume_status(&*self.engine, None).await;
        found
            .unwrap_or_default()
            .into_iter()
            .filter(|volume| in_memory(&volume.name))
            .filter(|volume| volume.role == VolumeRole::Primary || !volume.clients.is_empty())
            .map(|volume| volume.name)
            .collect()
    }

    /// Stops the volumes for a successor.
    async fn legacy(&self) -> Result<Legacy, HandOverError> {
        let (done, given) = oneshot::channel();
        self.engine.hand_over(Box::new(move |legacy| {
            let _ = done.send(legacy);
        }));
        // The reply is dropped only by an engine that has failed.
        given.await.unwrap_or(Err(HandOverError::Stopping))
    }

    /// Stops everything.
    async fn stop(mut self, name: &str, signals: &mut Signals) -> Result<Exit, Failure> {
        info!(
            code = "I121",
            "{name}: draining all volumes; a second signal ends at once"
        );
        notify::send("STOPPING=1\nSTATUS=draining");
        self.shared.start_draining();
        let drained = drain(&self.nbd, &self.engine, signals).await;
        if let Some(hooks) = self.hooks.take() {
            // Each of them ends within its time-out.
            let _ = tokio::task::spawn_blocking(move || hooks.finish()).await;
        }
        for task in self.tasks.drain(..) {
            task.abort();
            // Its end removes the socket; how it ended is known.
            let _ = task.await;
        }
        if let Err(failure) = &drained {
            // Reactors may hang in what could not be drained; nobody waits for them now.
            error!(code = &*failure.code, "{}", failure.text);
            std::process::exit(i32::from(failure.exit.number()));
        }
        drained
    }
}

/// Starts the engine; a signal that comes meanwhile is returned beside it, a second one ends the
/// process at once.
async fn start_engine(
    start: StartNode,
    spec: NodeSpec,
    log: Arc<dyn Log>,
    inherited: Inherited,
    signals: &mut Signals,
) -> Result<(Started, Option<&'static str>), Failure> {
    let mut starting = tokio::task::spawn_blocking(move || start(spec, log, inherited));
    let mut stop = None;
    loop {
        tokio::select! {
            started = &mut starting => {
                let started = started.map_err(|_| explain::engine_gone("(all)"))??;
                return Ok((started, stop));
            }
            name = signals.next() => match stop {
                None => stop = Some(name),
                Some(_) => {
                    error!(code = "E109", "{name} again: ending without start");
                    std::process::exit(i32::from(Exit::Failed.number()));
                }
            }
        }
    }
}

/// Stops all volumes.
async fn drained(engine: &Arc<dyn Node>) -> Result<Exit, Failure> {
    let (done, drained) = oneshot::channel();
    engine.drain(Box::new(move || {
        let _ = done.send(());
    }));
    match tokio::time::timeout(DRAIN_MAX, drained).await {
        Ok(Ok(())) => {
            info!(code = "I122", "all volumes are drained and clean");
            Ok(Exit::Done)
        }
        Ok(Err(_)) => Err(explain::engine_gone("(all)")),
        Err(_) => Err(explain::drain_timed_out(DRAIN_MAX)),
    }
}

/// Closes the NBD listeners, then lets the engine finish what was submitted.
async fn drain(
    nbd: &NbdServer,
    engine: &Arc<dyn Node>,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let all = async {
        nbd.stop().await;
        drained(engine).await
    };
    tokio::select! {
        answer = all => answer,
        _ = signals.next() => Err(explain::drain_cut_short()),
    }
}

fn start_log() {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false);
    // The journal stamps its lines itself. A log that is set already stays.
    let _ = match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => log.without_time().try_init(),
        None => log.try_init(),
    };
}

fn log_warnings(loaded: &Loaded) {
    for found in &loaded.diagnostics {
        let (line, column) = found.position(&loaded.source);
        let path = loaded.path.display();
        warn!(code = found.code, "{path}:{line}:{column}: {}", found.text);
    }
}

fn start_line(spec: &NodeSpec, node: &NodeConfig, engine: &dyn Node) -> String {
    let mut line = format!(
        "pollux {}: node {} of cluster {} runs {} with {}; {}",
        env!("CARGO_PKG_VERSION"),
        spec.name,
        spec.cluster,
        counted(spec.volumes.len(), "volume"),
        counted(spec.reactors, "reactor"),
        engine.io_backend(),
    );
    let socket = spec
        .nbd_socket
        .as_ref()
        .map(|path| path.display().to_string());
    for (what, address) in [
        (
            "replication",
            (!spec.addresses.is_empty()).then(|| spec.addresses.join(" and ")),
        ),
        ("nbd", spec.nbd.clone()),
        ("nbd", socket),
        ("api", node.api.as_ref().map(|api| api.to_string())),
    ] {
        if let Some(address) = address {
            line.push_str(&format!("; {what} {address}"));
        }
    }
    line
}

/// SIGTERM, SIGINT and SIGHUP, from before anything is started.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn take() -> Result<Signals, Failure> {
        let take = |kind| {
            signal(kind).map_err(|source| explain::cannot_run("signals cannot be taken", &source))
        };
        Ok(Signals {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            reload: take(SignalKind::hangup())?,
        })
    }

    /// A signal to stop, or `None`: the file is to be taken over.
    async fn next_or_reload(&mut self) -> Option<&'static str> {
        let (came, name) = tokio::select! {
            came = self.terminate.recv() => (came, Some("SIGTERM")),
            came = self.interrupt.recv() => (came, Some("SIGINT")),
            came = self.reload.recv() => (came, None),
        };
        match came {
            Some(()) => name,
            None => pending().await,
        }
    }

    async fn next(&mut self) -> &'static str {
        let (came, name) = tokio::select! {
            came = self.terminate.recv() => (came, "SIGTERM"),
            came = self.interrupt.recv() => (came, "SIGINT"),
        };
        match came {
            Some(()) => name,
            // The runtime delivers no more signals; only a kill ends this process now.
            None => pending().await,
        }
    }
}
