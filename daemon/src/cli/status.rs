//! `pollux status`.

use clap::Args;

use super::{Place, block_on, output, text};
use crate::api::body::{State, StatusReport};
use crate::api::percent_encode;
use crate::exit::Exit;
use crate::explain::Failure;

/// Show how the volumes of a node are, and what to do next
#[derive(Debug, Default, Args)]
#[command(after_help = "\
EXIT CODES
  0 the daemon answers   3 no such volume   8 no daemon answers
  with --check: 5 degraded or not created   6 critical or offline

EXAMPLES
  pollux status
  pollux status vm-store
  pollux status --json
  pollux status --check && echo all healthy")]
pub(super) struct Status {
    /// Only this volume, in detail
    #[arg(value_name = "VOL")]
    volume: Option<String>,
    /// As JSON, schema pollux.status/1
    #[arg(long)]
    json: bool,
    /// Return 5 if a volume is degraded, 6 if one cannot serve I/O
    #[arg(long)]
    check: bool,
}

impl Status {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let daemon = place.daemon()?;
        let path = match &self.volume {
            Some(volume) => format!("/api/v1/status?volume={}", percent_encode(volume)),
            None => "/api/v1/status".to_owned(),
        };
        let report: StatusReport = block_on(daemon.get(&path))?;
        match (self.json, &self.volume) {
            (true, _) => output::say_json(&report),
            (false, Some(_)) => output::say(&text::details(&report)),
            (false, None) => output::say(&text::overview(&report)),
        }
        Ok(if self.check {
            worst(&report)
        } else {
            Exit::Done
        })
    }
}

/// What `--check` returns for all volumes together.
fn worst(report: &StatusReport) -> Exit {
    let states = report.volumes.iter().map(|volume| match volume.state {
        State::Healthy => Exit::Done,
        State::Degraded | State::NotCreated => Exit::Degraded,
        State::Critical | State::Offline => Exit::Critical,
    });
    states
        .max_by_key(|exit| exit.number())
        .unwrap_or(Exit::Done)
}
