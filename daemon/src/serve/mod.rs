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
//!
//! Here is the loop over sessions, and why each ends. One is started in `start`, asked and stopped
//! in `session`; `take_over` asks the process before, `give` answers the one after.

mod descriptors;
mod give;
mod hooks;
mod lock;
mod notify;
mod queued_log;
mod roles;
mod session;
mod signals;
mod sockets;
mod start;
mod take_over;
mod verifies;
mod watch;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use engine::log::Log;
use engine::tls::LinkTls;
use nbd_server::NbdTls;
use tokio::runtime::Builder;
use tracing::warn;

use crate::config::{Loaded, Node as NodeConfig};
use crate::exit::Exit;
use crate::explain::{self, Failure};
use crate::handover::{Door, Given, Offer, Predecessor};
use crate::live;
use crate::node::StartNode;
use lock::DataDirLock;
use queued_log::QueuedLog;
use session::Session;
use signals::Signals;
use take_over::take_over;

/// Time for all volumes to drain before the stop counts as a crash.
const DRAIN_MAX: Duration = Duration::from_secs(10);

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
