//! `pollux verify`.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;

use super::{Place, block_on, output, text, volume_path};
use crate::api::body::{VerifyReport, ask};
use crate::client::Daemon;
use crate::exit::Exit;
use crate::explain::{self, Failure};

/// Compare the copies of a volume by checksums of every 4096 bytes
///
/// Differences are remembered, and the replica that has them stays out of use until a resync is
/// started by hand.
#[derive(Debug, Args)]
#[command(after_help = "\
EXIT CODES
  0 no differences (with --wait or --status)   1 it could not compare all   5 differences found

EXAMPLES
  pollux verify vm-store --wait
  pollux verify vm-store                          starts it and returns
  pollux verify vm-store --status                 figures of the running or latest one")]
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
    /// Figures as JSON
    #[arg(long)]
    json: bool,
}

const POLL: Duration = Duration::from_millis(250);
const LINE_PERIOD: Duration = Duration::from_secs(10);

impl Verify {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let daemon = place.daemon()?;
        let report = block_on(self.figures(&daemon))?;
        match self.json {
            true => output::say_json(&report),
            false => output::say(&text::verify(&report)),
        }
        match (&report.failure, report.different_bytes) {
            (Some(why), _) => Err(explain::verify_ended_early(&self.volume, why)),
            (None, 0) => Ok(Exit::Done),
            (None, _) => Ok(Exit::Degraded),
        }
    }

    async fn figures(&self, daemon: &Daemon) -> Result<VerifyReport, Failure> {
        let path = volume_path(&self.volume, "verify");
        if self.status {
            return daemon.get(&path).await;
        }
        let mut report: VerifyReport = daemon
            .post(&path, &ask::Nothing {}, Some(super::CHANGE_MAX))
            .await?;
        let mut progress = Progress::new();
        while self.wait && report.running {
            progress.show(&report);
            tokio::time::sleep(POLL).await;
            report = daemon.get(&path).await?;
        }
        progress.end();
        Ok(report)
    }
}

/// A line that is rewritten on a terminal, and a new one every 10 s elsewhere.
struct Progress {
    is_terminal: bool,
    shown_at: Option<Instant>,
}

impl Progress {
    fn new() -> Progress {
        Progress {
            is_terminal: io::stderr().is_terminal(),
            shown_at: None,
        }
    }

    fn show(&mut self, report: &VerifyReport) {
        let line = text::progress(report);
        let due = self.shown_at.is_none_or(|at| at.elapsed() >= LINE_PERIOD);
        let mut stderr = io::stderr().lock();
        let _ = match (self.is_terminal, due) {
            (true, _) => write!(stderr, "\r{line}\x1b[K"),
            (false, true) => writeln!(stderr, "{line}"),
            (false, false) => return,
        };
        self.shown_at = Some(Instant::now());
    }

    fn end(&self) {
        if self.is_terminal && self.shown_at.is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
