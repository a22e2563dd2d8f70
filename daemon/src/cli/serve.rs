//! `pollux serve`.

use clap::Args;

use super::Place;
use crate::exit::Exit;
use crate::explain::Failure;
use crate::node::start_node;

/// Run this node's daemon until SIGTERM or SIGINT
///
/// Volumes that cannot attach are offline with a reason; the daemon and the others run on.
#[derive(Debug, Args)]
#[command(after_help = "\
EXIT CODES
  0 drained and stopped   1 port in use, data_dir missing or in use   9 configuration invalid

EXAMPLES
  pollux serve                                    /etc/pollux/pollux.toml, node named as the host
  pollux serve --config lab.toml --node alpha")]
pub(super) struct Serve {}

impl Serve {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        crate::demo::tie::die_with_parent();
        let loaded = place.load_valid()?;
        crate::serve::run(&loaded, place.node(&loaded)?, start_node)
    }
}
