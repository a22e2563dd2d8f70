//! `pollux serve`.

use clap::Args;

use super::Place;
use crate::exit::Exit;
use crate::explain::Failure;
use crate::node::start_node;
use crate::serve::Takeover;

/// Run this node's daemon until SIGTERM or SIGINT
///
/// Volumes that cannot attach are offline with a reason; the daemon and the others run on.
/// With --takeover it takes over from the daemon that runs for the same node: listeners, clients
/// and roles, and no client sees an error. If none runs, it just starts.
#[derive(Debug, Args)]
#[command(after_help = "\
EXIT CODES
  0 drained and stopped, or taken over   1 port in use, data_dir missing or in use, takeover
  refused or failed (the daemon that ran goes on)   9 configuration invalid

EXAMPLES
  pollux serve                                    /etc/pollux/pollux.toml, node named as the host
  pollux serve --config lab.toml --node alpha
  pollux serve --takeover                         after an upgrade, or to read a new configuration")]
pub(super) struct Serve {
    /// Take over from the daemon that runs
    #[arg(long)]
    takeover: bool,
    /// Take over even if volumes that live in memory are in use: their content is lost, and their
    /// clients are cut off
    #[arg(long, requires = "takeover")]
    force: bool,
}

impl Serve {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        crate::demo::tie::die_with_parent();
        let loaded = place.load_valid()?;
        let takeover = self.takeover.then_some(Takeover { force: self.force });
        crate::serve::run(&loaded, place.node(&loaded)?, start_node, takeover)
    }
}
