//! A session: one running node with its servers. What can be asked of it while it serves, and how
//! it ends: drained after a signal, or its volumes stopped for a successor.

use std::collections::HashMap;
use std::sync::Arc;

use engine::control::{Backing, Node, NodeSpec, Role as VolumeRole};
use engine::handover::{HandOverError, Legacy};
use nbd_server::{NbdConfig, NbdServer};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::hooks::Followed;
use super::roles::Missing;
use super::signals::Signals;
use super::{DRAIN_MAX, notify};
use crate::api::listen::ApiSocketCopy;
use crate::api::{self, Shared};
use crate::exit::Exit;
use crate::explain::{self, Failure};
use crate::handover::{Given, Listener};

/// A running node with its servers.
pub(super) struct Session {
    pub(super) engine: Arc<dyn Node>,
    pub(super) spec: NodeSpec,
    pub(super) nbd_config: NbdConfig,
    pub(super) nbd: Arc<NbdServer>,
    pub(super) shared: Arc<Shared>,
    pub(super) tasks: Vec<tokio::task::JoinHandle<()>>,
    /// `None` once it is over.
    pub(super) hooks: Option<Followed>,
    /// Copies of the API's sockets.
    pub(super) listeners: Vec<Listener>,
    pub(super) api_file: ApiSocketCopy,
}

impl Session {
    /// Takes over what the file says now; what happened is in the log.
    pub(super) async fn reload(&self) {
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
    pub(super) fn seat(&self, given: &mut Given, missing: &[Missing]) -> usize {
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
    pub(super) async fn used_in_memory(&self) -> Vec<String> {
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
    pub(super) async fn legacy(&self) -> Result<Legacy, HandOverError> {
        let (done, given) = oneshot::channel();
        self.engine.hand_over(Box::new(move |legacy| {
            let _ = done.send(legacy);
        }));
        // The reply is dropped only by an engine that has failed.
        given.await.unwrap_or(Err(HandOverError::Stopping))
    }

    /// Stops everything.
    pub(super) async fn stop(mut self, name: &str, signals: &mut Signals) -> Result<Exit, Failure> {
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
        self.end_tasks().await;
        match drained {
            Ok(exit) => Ok(exit),
            Err(failure) => leave(&failure),
        }
    }

    /// Ends the servers of the API.
    pub(super) async fn end_tasks(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            // Its end removes the socket; how it ended is known.
            let _ = task.await;
        }
    }
}

/// Ends the process over a drain that failed: reactors may hang in what could not be drained, and
/// nobody waits for them now.
pub(super) fn leave(failure: &Failure) -> ! {
    error!(code = &*failure.code, "{}", failure.text);
    std::process::exit(i32::from(failure.exit.number()))
}

pub(super) fn is_in_memory(volume: &engine::control::VolumeSpec) -> bool {
    volume.backing == Some(Backing::Memory)
}

/// Stops all volumes.
pub(super) async fn drained(engine: &Arc<dyn Node>) -> Result<Exit, Failure> {
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
