//! `pollux volume create|list|show|resize|delete|scrub|mark`.

use clap::{Args, Subcommand};

use super::confirm::confirm;
use super::{Place, block_on, change, output, parse_size, text, volume_path};
use crate::api::body::{StatusReport, VolumeReport, ask};
use crate::exit::Exit;
use crate::explain::Failure;

/// Replicas of this node
#[derive(Debug, Subcommand)]
#[command(after_help = "\
EXAMPLES
  pollux volume create vm-store
  pollux volume list
  pollux volume show vm-store
  pollux volume resize vm-store 200GiB
  pollux volume scrub vm-store --wait
  pollux volume delete vm-store --wipe")]
pub(super) enum Volume {
    Create(Create),
    List(List),
    Show(Show),
    Resize(Resize),
    Delete(Delete),
    Scrub(super::scrub::Scrub),
    #[command(subcommand)]
    Mark(super::mark::Mark),
}

/// Format this node's replica of a volume that the file declares
///
/// Run it once on each node that holds a replica. The replica is blank until the volume is
/// founded by its first promotion.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux volume create vm-store
  pollux volume create vm-store --if-absent       for scripts: succeeds when it is there already
  pollux volume create vm-store --adopt           keeps what an existing image holds")]
pub(super) struct Create {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// Take an existing backing of exactly the declared size, with its content
    #[arg(long)]
    adopt: bool,
    /// Succeed if the replica exists already
    #[arg(long)]
    if_absent: bool,
}

/// List the volumes of this node
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux volume list
  pollux volume list --json")]
pub(super) struct List {
    /// As JSON, like `status --json`
    #[arg(long)]
    json: bool,
}

/// Show how a volume is declared, its exports, and how it is
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux volume show vm-store
  pollux volume show vm-store --json")]
pub(super) struct Show {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Make a volume larger while it is used
///
/// Its backing, its metadata and the size in the configuration file grow. A client that is attached
/// keeps the size it was told, and sees the new one when it attaches again. A volume never shrinks.
/// A mirror grows on every copy in sync; ask its primary. A copy that is away follows when it is back.
#[derive(Debug, Args)]
#[command(after_help = "\
EXIT CODES
  0 it has that size   1 refused   9 the file has errors   10 grown, but the file cannot be written

EXAMPLES
  pollux volume resize vm-store 200GiB            10GiB is 10 × 2^30, 10GB is 10 × 10^9")]
pub(super) struct Resize {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// Its size from now on, a multiple of 4096 bytes
    #[arg(value_name = "SIZE", value_parser = parse_size)]
    size: u64,
}

/// Remove this node's replica: its metadata, and with --wipe its data
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux volume delete vm-store                   asks for the volume's name; keeps the backing
  pollux volume delete vm-store --wipe --yes")]
pub(super) struct Delete {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// Also remove the backing
    #[arg(long)]
    wipe: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Volume {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        match self {
            Volume::Create(create) => create.run(place),
            Volume::List(list) => list.run(place),
            Volume::Show(show) => show.run(place),
            Volume::Resize(resize) => resize.run(place),
            Volume::Delete(delete) => delete.run(place),
            Volume::Scrub(scrub) => scrub.run(place),
            Volume::Mark(mark) => mark.run(place),
        }
    }
}

impl Create {
    fn run(self, place: &Place) -> Result<Exit, Failure> {
        let daemon = place.daemon()?;
        let ask = ask::Create {
            adopt: self.adopt,
            if_absent: self.if_absent,
        };
        let next = format!("status {}", self.volume);
        // Writing every block of a large replica takes as long as it takes.
        change(&daemon, (&self.volume, "create"), &ask, None, &next)
    }
}

impl List {
    fn run(self, place: &Place) -> Result<Exit, Failure> {
        let daemon = place.daemon()?;
        let report: StatusReport = block_on(daemon.get("/api/v1/status"))?;
        match self.json {
            true => output::say_json(&report),
            false => output::say(&text::table(&report)),
        }
        Ok(Exit::Done)
    }
}

impl Show {
    fn run(self, place: &Place) -> Result<Exit, Failure> {
        let daemon = place.daemon()?;
        let report: VolumeReport = block_on(daemon.get(&volume_path(&self.volume, "")))?;
        match self.json {
            true => output::say_json(&report),
            false => output::say(&text::declared(&self.volume, &report)),
        }
        Ok(Exit::Done)
    }
}

impl Resize {
    fn run(self, place: &Place) -> Result<Exit, Failure> {
        let daemon = place.daemon()?;
        let ask = ask::Resize {
            size_bytes: self.size,
        };
        let next = format!("volume show {}", self.volume);
        // Writing every new block of a large volume takes as long as it takes.
        change(&daemon, (&self.volume, "resize"), &ask, None, &next)
    }
}

impl Delete {
    fn run(self, place: &Place) -> Result<Exit, Failure> {
        let what = match self.wipe {
            true => "its metadata and its data are removed",
            false => "its metadata is removed, its backing is kept",
        };
        let daemon = place.daemon()?;
        let node = &daemon.node;
        let warning = format!("The replica of {} on {node} goes: {what}.", self.volume);
        confirm("volume delete", &self.volume, &warning, self.yes)?;
        let ask = ask::Delete { wipe: self.wipe };
        change(&daemon, (&self.volume, "delete"), &ask, None, "volume list")
    }
}
