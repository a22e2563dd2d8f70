//! `pollux promote`.

use std::time::Duration;

use clap::Args;

use super::confirm::{can_ask, confirm};
use super::{Place, block_on, parse_duration, say_next, volume_path};
use crate::api::body::{Changed, ask};
use crate::client::Daemon;
use crate::exit::Exit;
use crate::explain::{self, Failure};

/// Make this node primary for a volume
///
/// Founds a new volume when every replica is reachable and blank. With quorum = "majority" a node
/// that serves hands its role over to this one: its clients are cut off without an answer, and
/// attach again. With --force a new branch is
/// begun where a plain promotion is refused; writes that only other copies hold are then given up.
#[derive(Debug, Args)]
#[command(after_help = "\
EXIT CODES
  0 primary now, or was before   1 another node is primary   4 refused, data could be lost
  7 another node is primary and did not hand over within --wait

EXAMPLES
  pollux promote vm-store
  pollux promote vm-store --wait 30s
  pollux promote vm-store --force                 asks for the volume's name
  pollux promote vm-store --force --yes")]
pub(super) struct Promote {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// Begin a new branch where a plain promotion is refused
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// How long to wait for each peer to answer, to be found gone, or to hand over
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    wait: Duration,
}

/// What the daemon may take beyond the wait for its peers.
const SLACK: Duration = Duration::from_secs(20);

impl Promote {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        if self.force && !self.yes && !can_ask() {
            return Err(explain::needs_yes("promote --force"));
        }
        let daemon = place.daemon()?;
        // With --yes the daemon checks and applies in one step; on a terminal the plain way is
        // tried first, and what it says is what the operator is asked about.
        let first = self.post(&daemon, self.force && self.yes);
        let done = match first {
            Err(refused) if self.force && !self.yes && refused.exit == Exit::WouldLoseData => {
                let warning = format!("{refused}\nForcing begins a new branch on this node.");
                confirm("promote --force", &self.volume, &warning, false)?;
                self.post(&daemon, true)?
            }
            other => other?,
        };
        say_next(&done, &format!("status {}", self.volume));
        Ok(Exit::Done)
    }

    fn post(&self, daemon: &Daemon, force: bool) -> Result<Changed, Failure> {
        let wait_milliseconds = u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX);
        let ask = ask::Promote {
            force,
            wait_milliseconds,
        };
        let path = volume_path(&self.volume, "promote");
        block_on(daemon.post(&path, &ask, Some(self.wait.saturating_add(SLACK))))
    }
}
