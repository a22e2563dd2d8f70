//! `pollux volume mark create|delete|list`.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{CHANGE_MAX, Place, block_on, change, output, text, volume_path};
use crate::api::body::{MarksReport, ask};
use crate::api::percent_encode;
use crate::client::Daemon;
use crate::exit::Exit;
use crate::explain::Failure;

/// What changed since a point: for incremental backup
///
/// NBD clients read a mark as the metadata context `qemu:dirty-bitmap:MARK`, also called
/// `x-pollux:dirty/MARK`. Up to 8 marks per volume; asked of the primary.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
EXAMPLES
  pollux volume mark create vm-store monday
  pollux volume mark list vm-store
  pollux volume mark delete vm-store monday")]
pub(super) enum Mark {
    Create(Create),
    Delete(Delete),
    List(List),
}

/// From now on keep what changes, under a name
///
/// Everything answered before is not in it, everything answered after is, on every replica in
/// sync and across failovers.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux volume mark create vm-store monday
  pollux volume mark create vm-store monday --if-absent")]
pub(super) struct Create {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// 1 to 63 letters, digits, `.`, `_` and `-`, the first a letter or digit
    #[arg(value_name = "MARK")]
    mark: String,
    /// Succeed if there is a mark of this name; it keeps its point
    #[arg(long)]
    if_absent: bool,
}

/// Forget a mark
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux volume mark delete vm-store monday")]
pub(super) struct Delete {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// The mark
    #[arg(value_name = "MARK")]
    mark: String,
}

/// List the marks of a volume, oldest first
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux volume mark list vm-store
  pollux volume mark list vm-store --json")]
pub(super) struct List {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Mark {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let daemon = place.daemon()?;
        match self {
            Mark::Create(Create {
                volume,
                mark,
                if_absent,
            }) => {
                let ask = ask::MarkCreate { if_absent };
                post(&daemon, &volume, &mark, "create", &ask)
            }
            Mark::Delete(Delete { volume, mark }) => {
                post(&daemon, &volume, &mark, "delete", &ask::Nothing {})
            }
            Mark::List(list) => list.run(&daemon),
        }
    }
}

fn post(
    daemon: &Daemon,
    volume: &str,
    mark: &str,
    what: &str,
    ask: &impl Serialize,
) -> Result<Exit, Failure> {
    let rest = format!("marks/{}/{what}", percent_encode(mark));
    let next = format!("volume mark list {volume}");
    change(daemon, (volume, &rest), ask, Some(CHANGE_MAX), &next)
}

impl List {
    fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let report: MarksReport = block_on(daemon.get(&volume_path(&self.volume, "marks")))?;
        match self.json {
            true => output::say_json(&report),
            false => output::say(&text::marks(&report)),
        }
        Ok(Exit::Done)
    }
}
