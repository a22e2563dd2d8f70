//! `pollux demote`.

use clap::Args;

use super::{CHANGE_MAX, Place, change};
use crate::api::body::ask;
use crate::exit::Exit;
use crate::explain::Failure;

/// Make this node secondary for a volume
///
/// Refused while clients are attached; with --disconnect they are drained and closed first.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux demote vm-store
  pollux demote vm-store --disconnect")]
pub(super) struct Demote {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// Drain and close attached clients
    #[arg(long)]
    disconnect: bool,
}

impl Demote {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let daemon = place.daemon()?;
        let ask = ask::Demote {
            disconnect: self.disconnect,
        };
        let next = format!("status {}", self.volume);
        let path = (self.volume.as_str(), "demote");
        change(&daemon, path, &ask, Some(CHANGE_MAX), &next)
    }
}
