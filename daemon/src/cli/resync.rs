//! `pollux resync status|start|pause|resume|set`.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::progress::Progress;
use super::text::Shape;
use super::{CHANGE_MAX, Place, block_on, change, output, parse_duration, parse_rate, text};
use crate::api::body::{DiskState, StatusReport, ask};
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

/// Show running resyncs, and what the last ones took
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux resync status
  pollux resync status vm-store --wait            until every copy is current
  pollux resync status vm-store --wait=10m
  pollux resync status vm-store --wait --json     one object per second")]
pub(super) struct Status {
    /// Only this volume
    #[arg(value_name = "VOL")]
    volume: Option<String>,
    /// As JSON, like `status --json`
    #[arg(long)]
    json: bool,
    /// Wait until every copy is current, at most so long; Ctrl-C detaches and does not cancel
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "3650d", value_parser = parse_duration)]
    wait: Option<Duration>,
}

/// Between two looks while waiting; also between two objects of `--json`.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
        let report = block_on(self.look(daemon, &path))?;
        match (self.json, self.wait) {
            (true, Some(_)) => output::say_json_line(&report),
            (true, None) => output::say_json(&report),
            (false, _) => output::say(&text::resyncs(&report, Shape::Bar)),
        }
        match self.wait.is_some() && !is_current(&report) {
            true => Ok(Exit::TimedOut),
            false => Ok(Exit::Done),
        }
    }

    /// The state now, or once everything is current or the time is over.
    async fn look(&self, daemon: &Daemon, path: &str) -> Result<StatusReport, Failure> {
        let began = Instant::now();
        let mut progress = Progress::new();
        loop {
            let report: StatusReport = daemon.get(path).await?;
            let is_over = self.wait.is_none_or(|wait| began.elapsed() >= wait);
            if is_over || is_current(&report) {
                progress.end();
                return Ok(report);
            }
            match self.json {
                true => output::say_json_line(&report),
                false => progress.show(|shape| text::resyncs(&report, shape)),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Every copy of every volume is current, as far as this node knows.
fn is_current(report: &StatusReport) -> bool {
    let replicas = report.volumes.iter().flat_map(|volume| &volume.replicas);
    replicas
        .filter(|replica| replica.disk_state != DiskState::Diskless)
        .all(|replica| replica.disk_state == DiskState::UpToDate && replica.resync.is_none())
}
