//! `pollux version`.

use clap::Args;
use serde::Serialize;

use super::output;
use crate::exit::Exit;
use crate::explain::Failure;

/// Show the version of this program
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux version
  pollux version --json")]
pub(super) struct Version {
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    version: &'static str,
}

impl Version {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let version = env!("CARGO_PKG_VERSION");
        match self.json {
            true => output::say_json(&Report {
                schema: "pollux.version/1",
                version,
            }),
            false => output::say(&format!("pollux {version}\n")),
        }
        Ok(Exit::Done)
    }
}
