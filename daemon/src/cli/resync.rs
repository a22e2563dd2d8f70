//! `pollux resync status|start|pause|resume|set`.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{CHANGE_MAX, Place, block_on, change, output, parse_rate, text};
use crate::api::body::{StatusReport, ask};
use crate::api::percent_encode;
use crate::client::Daemon;
use crate::exit::Exit;
use crate::explain::Failure;

/// Bring replicas up to date
#[derive(Debug, Subcommand)]
#[command(after_help = "\
EXAMPLES
  pollux resync status
  pollux resync start vm-store --from alpha
  pollux resync set vm-store --rate 100MiB/s")]
pub(super) enum Resync {
    Status(Status),
    Start(Start),
    Pause(Pause),
    Resume(Resume),
    Set(Set),
}

/// Show running resyncs
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux resync status
  pollux resync status vm-store --json")]
pub(super) struct Status {
    /// Only this volume
    #[arg(value_name = "VOL")]
    volume: Option<String>,
    /// As JSON, like `status --json`
    #[arg(long)]
    json: bool,
}

/// Start a resync from the node whose data is kept
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux resync start vm-store --from alpha")]
pub(super) struct Start {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// Node whose data is kept
    #[arg(long, value_name = "NODE")]
    from: String,
}

/// Stop moving resync data; nothing is forgotten
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux resync pause vm-store")]
pub(super) struct Pause {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
}

/// Go on where `resync pause` stopped
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux resync resume vm-store")]
pub(super) struct Resume {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
}

/// Limit resync traffic
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux resync set vm-store --rate 100MiB/s
  pollux resync set vm-store --rate max")]
pub(super) struct Set {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// Bytes per second, or `max` for no limit
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    rate: Rate,
}

/// A rate of the command line; `None` is no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate(pub(super) Option<u64>);

impl Resync {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let daemon = place.daemon()?;
        match self {
            Resync::Status(status) => status.run(&daemon),
            Resync::Start(Start { volume, from }) => {
                post(&daemon, &volume, "resync/start", &ask::ResyncStart { from })
            }
            Resync::Pause(Pause { volume }) => {
                post(&daemon, &volume, "resync/pause", &ask::Nothing {})
            }
            Resync::Resume(Resume { volume }) => {
                post(&daemon, &volume, "resync/resume", &ask::Nothing {})
            }
            Resync::Set(Set {
                volume,
                rate: Rate(bytes_per_second),
            }) => post(
                &daemon,
                &volume,
                "resync/rate",
                &ask::ResyncRate { bytes_per_second },
            ),
        }
    }
}

fn post(daemon: &Daemon, volume: &str, rest: &str, ask: &impl Serialize) -> Result<Exit, Failure> {
    let next = format!("resync status {volume}");
    change(daemon, (volume, rest), ask, Some(CHANGE_MAX), &next)
}

impl Status {
    fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let path = match &self.volume {
            Some(volume) => format!("/api/v1/status?volume={}", percent_encode(volume)),
            None => "/api/v1/status".to_owned(),
        };
        let report: StatusReport = block_on(daemon.get(&path))?;
        match self.json {
            true => output::say_json(&report),
            false => output::say(&text::resyncs(&report)),
        }
        Ok(Exit::Done)
    }
}
