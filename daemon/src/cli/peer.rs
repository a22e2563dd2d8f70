//! `pollux peer connect|disconnect`.

use clap::{Args, Subcommand};

use super::{Place, block_on, output, volume_path};
use crate::api::body::{Changed, StatusReport, ask};
use crate::api::percent_encode;
use crate::client::Daemon;
use crate::exit::Exit;
use crate::explain::{self, Failure, counted};

/// Links to the other nodes
#[derive(Debug, Subcommand)]
#[command(after_help = "\
EXAMPLES
  pollux peer disconnect beta
  pollux peer connect beta --volume vm-store")]
pub(super) enum Peer {
    Connect(Connect),
    Disconnect(Disconnect),
}

/// Allow the link to a node again
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux peer connect beta
  pollux peer connect beta --volume vm-store")]
pub(super) struct Connect {
    #[command(flatten)]
    which: Which,
}

/// Drop the link to a node and keep it down until `peer connect`
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux peer disconnect beta
  pollux peer disconnect beta --volume vm-store")]
pub(super) struct Disconnect {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
struct Which {
    /// The other node
    #[arg(value_name = "NODE")]
    peer: String,
    /// Only for this volume [default: all that have a replica there]
    #[arg(long, value_name = "VOL")]
    volume: Option<String>,
}

impl Peer {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let (which, verb) = match self {
            Peer::Connect(connect) => (connect.which, "connect"),
            Peer::Disconnect(disconnect) => (disconnect.which, "disconnect"),
        };
        let daemon = place.daemon()?;
        block_on(which.each(&daemon, verb))
    }
}

impl Which {
    async fn each(&self, daemon: &Daemon, verb: &str) -> Result<Exit, Failure> {
        let volumes = match &self.volume {
            Some(volume) => vec![volume.clone()],
            None => self.shared_volumes(daemon).await?,
        };
        let mut failures = Vec::new();
        for volume in &volumes {
            let rest = format!("peers/{}/{verb}", percent_encode(&self.peer));
            let path = volume_path(volume, &rest);
            let answer = daemon
                .post(&path, &ask::Nothing {}, Some(super::CHANGE_MAX))
                .await;
            match answer {
                Ok(Changed { text, .. }) => output::say(&format!("{text}\n")),
                Err(failure) => failures.push(failure),
            }
        }
        match (failures.len(), volumes.len()) {
            (0, count) => {
                output::say(&format!(
                    "{}; next: pollux status\n",
                    counted(count, "volume")
                ));
                Ok(Exit::Done)
            }
            (1, 1) => Err(failures.remove(0)),
            (failed, all) => Err(explain::several(&failures, failed == all)),
        }
    }

    /// Volumes of the daemon's node that have a replica on the peer.
    async fn shared_volumes(&self, daemon: &Daemon) -> Result<Vec<String>, Failure> {
        let report: StatusReport = daemon.get("/api/v1/status").await?;
        let node = report.node;
        let shared = report.volumes.into_iter().filter(|volume| {
            volume
                .replicas
                .iter()
                .any(|replica| replica.node == self.peer && self.peer != node)
        });
        let names: Vec<String> = shared.map(|volume| volume.name).collect();
        match names.is_empty() {
            true => Err(explain::no_such_peer(&self.peer, None)),
            false => Ok(names),
        }
    }
}
