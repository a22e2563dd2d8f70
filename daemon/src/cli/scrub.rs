//! `pollux volume scrub`.

use std::time::Duration;

use clap::Args;

use super::resync::Rate;
use super::{CHANGE_MAX, Place, block_on, output, parse_rate, text, volume_path};
use crate::api::body::{Changed, Checksums, VolumeReport, ask};
use crate::client::Daemon;
use crate::exit::Exit;
use crate::explain::{self, Failure};

/// Compare this node's copy with its stored checksums, and repair what does not match
///
/// Reads all of the copy while it is used. What does not match is written again with what another
/// replica in sync has. Needs checksums = "on" when the replica was created.
#[derive(Debug, Args)]
#[command(after_help = "\
EXIT CODES
  0 started, or nothing is left unrepaired   1 refused   5 bytes are bad and no copy has them

EXAMPLES
  pollux volume scrub vm-store                    starts it and returns
  pollux volume scrub vm-store --wait --rate 50MB/s
  pollux volume scrub vm-store --status           figures of the running or latest one")]
pub(super) struct Scrub {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// Wait for the end; Ctrl-C detaches and does not cancel
    #[arg(long, conflicts_with = "status")]
    wait: bool,
    /// Start nothing, show the running or latest one
    #[arg(long)]
    status: bool,
    /// Most bytes read per second, or max; of one that runs it is changed
    #[arg(long, value_name = "RATE", value_parser = parse_rate, conflicts_with = "status")]
    rate: Option<Rate>,
}

const POLL: Duration = Duration::from_millis(250);
/// How long repairs are waited for after all was read.
const REPAIRS_MAX: Duration = Duration::from_secs(10);

impl Scrub {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let daemon = place.daemon()?;
        let found = block_on(self.figures(&daemon))?;
        let Some(found) = found else {
            return Err(explain::no_checksums(&self.volume));
        };
        output::say(&text::scrub(&self.volume, &found));
        let is_over = found.scrub.is_none_or(|scrub| !scrub.running);
        match is_over && found.unrepaired_bytes > 0 {
            true => Ok(Exit::Degraded),
            false => Ok(Exit::Done),
        }
    }

    async fn figures(&self, daemon: &Daemon) -> Result<Option<Checksums>, Failure> {
        if !self.status {
            let bytes_per_second = self.rate.as_ref().and_then(|rate| rate.0);
            let ask = ask::Scrub { bytes_per_second };
            let path = volume_path(&self.volume, "scrub");
            let _: Changed = daemon.post(&path, &ask, Some(CHANGE_MAX)).await?;
        }
        let mut patience = REPAIRS_MAX;
        loop {
            let report: VolumeReport = daemon.get(&volume_path(&self.volume, "")).await?;
            let found = report.status.and_then(|volume| volume.checksums);
            let is_running = found.is_some_and(|found| {
                let is_reading = found.scrub.is_some_and(|scrub| scrub.running);
                // What was found last is being repaired, if there is a good copy.
                patience = patience.saturating_sub(if is_reading { Duration::ZERO } else { POLL });
                is_reading || (found.unrepaired_bytes > 0 && !patience.is_zero())
            });
            if !self.wait || !is_running {
                return Ok(found);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
