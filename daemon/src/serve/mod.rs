//! `pollux serve`: one node's daemon from start to drain.
//!
//! ```text
//! lock data_dir ─► bind API and NBD ─► start the engine ─► READY ─► signal ─► drain ─► exit 0
//! ```
//!
//! It ends only for node-wide faults. Everything that concerns one volume is in that volume's
//! status.

mod descriptors;
mod late_volumes;
mod lock;
mod notify;
mod queued_log;
mod watch;

use std::future::pending;
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use engine::control::{Node, NodeSpec};
use engine::log::Log;
use nbd_proto::{ExportName, NbdUri};
use nbd_server::{NbdConfig, NbdServer};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::api::listen::{ApiSocket, serve_tcp};
use crate::api::{self, Access, Facts, Shared};
use crate::config::{Loaded, Node as NodeConfig};
use crate::exit::Exit;
use crate::explain::{self, Failure, counted};
use crate::node::{StartNode, Started};
use late_volumes::LateVolumes;
use lock::DataDirLock;
use queued_log::QueuedLog;

/// Time for all volumes to drain before the stop counts as a crash.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Runs `node` of the checked file until a signal. Errors: `data_dir` is missing or in use, a
/// port is in use, the engine does not start, volumes do not drain in time.
pub fn run(loaded: &Loaded, node: &NodeConfig, start: StartNode) -> Result<Exit, Failure> {
    start_log();
    log_warnings(loaded);
    descriptors::raise_limit();
    let _lock = DataDirLock::take(&node.data_dir)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| explain::cannot_run("the control plane did not start", &source))?;
    runtime.block_on(serve(loaded, node, start))
}

async fn serve(loaded: &Loaded, node: &NodeConfig, start: StartNode) -> Result<Exit, Failure> {
    let mut signals = Signals::take()?;
    let log: Arc<dyn Log> = Arc::new(
        QueuedLog::start().map_err(|why| explain::cannot_run("the log did not start", &why))?,
    );
    let facts = Facts::of(&loaded.config, node);
    let socket_path = node.api_socket();
    let socket = ApiSocket::bind(&socket_path)?;
    let tcp = node
        .api
        .as_ref()
        .map(|address| bind_tcp(&address.to_string()))
        .transpose()?;
    let volumes = LateVolumes::new(&facts.spec);
    let nbd = start_nbd(loaded, node, &facts.spec, volumes.clone(), log.clone())?;

    let (started, stop) = start_engine(start, facts.spec.clone(), log, &mut signals).await?;
    let engine = started.node;
    volumes.set(started.volumes);
    info!(code = "I120", "{}", start_line(&facts.spec, node, &*engine));

    let shared = Shared::new(engine.clone(), facts);
    let own_uid = rustix::process::geteuid().as_raw();
    let all = api::router(shared.clone(), Access::All);
    let serving = tokio::spawn(socket.serve(all, own_uid));
    if let Some(tcp) = tcp {
        let reading = api::router(shared.clone(), Access::ReadOnly(socket_path));
        tokio::spawn(serve_tcp(tcp, reading));
    }
    tokio::spawn(watch::log_changes(engine.clone()));
    notify::send("READY=1\nSTATUS=running");

    let name = match stop {
        Some(name) => name,
        None => signals.next().await,
    };
    info!(
        code = "I121",
        "{name}: draining all volumes; a second signal ends at once"
    );
    notify::send("STOPPING=1\nSTATUS=draining");
    shared.start_draining();
    let drained = drain(&nbd, &engine, &mut signals).await;
    serving.abort();
    // Its end removes the socket; how it ended is known.
    let _ = serving.await;
    if let Err(failure) = &drained {
        // Reactors may hang in what could not be drained; nobody waits for them now.
        error!(code = &*failure.code, "{}", failure.text);
        std::process::exit(i32::from(failure.exit.number()));
    }
    drained
}

fn start_nbd(
    loaded: &Loaded,
    node: &NodeConfig,
    spec: &NodeSpec,
    volumes: Arc<LateVolumes>,
    log: Arc<dyn Log>,
) -> Result<NbdServer, Failure> {
    let others = loaded
        .config
        .nodes
        .iter()
        .filter(|other| other.name.value != spec.name);
    let default_export = ExportName::new("").expect("the empty name is one");
    let uri = |other: &NodeConfig| {
        let transport = other.nbd_tcp()?;
        Some((
            other.name.value.clone(),
            NbdUri {
                transport,
                export: default_export.clone(),
            },
        ))
    };
    let mut config = NbdConfig::of(spec);
    config.limits = node.nbd_limits;
    config.uris = others.filter_map(uri).collect();
    NbdServer::start(&config, volumes, log).map_err(|why| explain::nbd_did_not_start(&why))
}

/// Starts the engine; a signal that comes meanwhile is returned beside it, a second one ends the
/// process at once.
async fn start_engine(
    start: StartNode,
    spec: NodeSpec,
    log: Arc<dyn Log>,
    signals: &mut Signals,
) -> Result<(Started, Option<&'static str>), Failure> {
    let mut starting = tokio::task::spawn_blocking(move || start(spec, log));
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

/// Closes the NBD listeners, then lets the engine finish what was submitted.
async fn drain(
    nbd: &NbdServer,
    engine: &Arc<dyn Node>,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let drained = async {
        nbd.stop().await;
        let (done, drained) = oneshot::channel();
        engine.drain(Box::new(move || {
            let _ = done.send(());
        }));
        drained.await
    };
    tokio::select! {
        answer = tokio::time::timeout(DRAIN_MAX, drained) => match answer {
            Ok(Ok(())) => {
                info!(code = "I122", "all volumes are drained and clean");
                Ok(Exit::Done)
            }
            Ok(Err(_)) => Err(explain::engine_gone("(all)")),
            Err(_) => Err(explain::drain_timed_out(DRAIN_MAX)),
        },
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

fn bind_tcp(address: &str) -> Result<tokio::net::TcpListener, Failure> {
    let refused = |source: std::io::Error| explain::cannot_listen("the API", address, &source);
    let addresses: Vec<_> = address.to_socket_addrs().map_err(refused)?.collect();
    let listener = TcpListener::bind(&addresses[..]).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    tokio::net::TcpListener::from_std(listener).map_err(refused)
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
        ("replication", spec.address.clone()),
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

/// SIGTERM and SIGINT, from before anything is started.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn take() -> Result<Signals, Failure> {
        let take = |kind| {
            signal(kind).map_err(|source| explain::cannot_run("signals cannot be taken", &source))
        };
        Ok(Signals {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
        })
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
