//! `pollux verify`.

use std::time::{Duration, Instant};

use clap::Args;

use super::progress::Progress;
use super::{Place, block_on, output, text, volume_path};
use crate::api::body::{VerifyReport, ask};
use crate::client::Daemon;
use crate::exit::Exit;
use crate::explain::{self, Failure};

/// Compare the copies of a volume, down to every 4096 bytes where they differ
///
/// Differences are remembered, and the replica that has them stays out of use until a resync is
/// started by hand, or is repaired at once with --repair. With three copies and more the majority
/// is right, if the primary belongs to it; with two, --from says whose copy is kept.
#[derive(Debug, Args)]
#[command(after_help = "\
EXIT CODES
  0 no differences (with --wait or --status)   1 it could not compare all   5 differences found

EXAMPLES
  pollux verify vm-store --wait
  pollux verify vm-store                          starts it and returns
  pollux verify vm-store --status                 figures of the running or latest one
  pollux verify vm-store --repair --wait          three copies: the majority is right
  pollux verify vm-store --repair --from alpha    alpha, the primary, is right")]
pub(super) struct Verify {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// Wait for the end; Ctrl-C detaches and does not cancel
    #[arg(long, conflicts_with = "status")]
    wait: bool,
    /// Start nothing, show the running or latest one
    #[arg(long)]
    status: bool,
    /// Repair the copies that differ
    #[arg(long, conflicts_with = "status")]
    repair: bool,
    /// Node whose copy is kept; it must be the primary
    #[arg(long, value_name = "NODE", requires = "repair")]
    from: Option<String>,
    /// Figures as JSON; with --wait one object per second
    #[arg(long)]
    json: bool,
}

const POLL: Duration = Duration::from_millis(250);
const JSON_PERIOD: Duration = Duration::from_secs(1);

impl Verify {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let daemon = place.daemon()?;
        let report = block_on(self.figures(&daemon))?;
        match self.json {
            true if self.wait => output::say_json_line(&report),
            true => output::say_json(&report),
            false => output::say(&text::verify(&report)),
        }
        match (&report.failure, report.different_bytes) {
            (Some(why), _) => Err(explain::verify_ended_early(&self.volume, why)),
            (None, 0) => Ok(Exit::Done),
            (None, _) => Ok(Exit::Degraded),
        }
    }

    fn asked(&self) -> ask::Verify {
        ask::Verify {
            repair: self.repair,
            from: self.from.clone(),
        }
    }

    async fn figures(&self, daemon: &Daemon) -> Result<VerifyReport, Failure> {
        let path = volume_path(&self.volume, "verify");
        if self.status {
            return daemon.get(&path).await;
        }
        let mut report: VerifyReport = daemon
            .post(&path, &self.asked(), Some(super::CHANGE_MAX))
            .await?;
        let mut progress = Progress::new();
        let mut told_at: Option<Instant> = None;
        while self.wait && report.running {
            let is_due = told_at.is_none_or(|at| at.elapsed() >= JSON_PERIOD);
            match self.json {
                true if is_due => {
                    output::say_json_line(&report);
                    told_at = Some(Instant::now());
                }
                true => {}
                false => progress.show(|shape| text::progress(&report, shape)),
            }
            tokio::time::sleep(POLL).await;
            report = daemon.get(&path).await?;
        }
        progress.end();
        Ok(report)
    }
}
