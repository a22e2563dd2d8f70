//! The signals that end a daemon, or make it read its file again.

use std::future::pending;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::explain::{self, Failure};

/// SIGTERM, SIGINT and SIGHUP, from before anything is started.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    pub(super) fn take() -> Result<Signals, Failure> {
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
    pub(super) async fn next_or_reload(&mut self) -> Option<&'static str> {
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

    pub(super) async fn next(&mut self) -> &'static str {
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
