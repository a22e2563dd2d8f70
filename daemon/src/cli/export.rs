//! `pollux export nbd …`.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{CHANGE_MAX, Place, block_on, change, output, text, volume_path};
use crate::api::body::{StatusReport, VolumeReport, ask};
use crate::client::Daemon;
use crate::exit::Exit;
use crate::explain::Failure;

/// What clients see of volumes
#[derive(Debug, Subcommand)]
#[command(after_help = "\
EXAMPLES
  pollux export nbd list
  pollux export nbd add vm-store backup --read-only")]
pub(super) enum Export {
    #[command(subcommand)]
    Nbd(Nbd),
}

/// NBD exports of this node and their clients
///
/// Changes are written to the configuration file, which keeps its comments, and hold at once;
/// clients of other exports notice nothing. Other nodes take them over from their own copy of the
/// file: pollux config apply.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
EXAMPLES
  pollux export nbd show vm-store
  pollux export nbd add vm-store backup --read-only --allow 10.0.0.0/24
  pollux export nbd rename vm-store backup nightly
  pollux export nbd remove vm-store nightly --disconnect
  pollux export nbd disconnect vm-store 17")]
pub(super) enum Nbd {
    List(List),
    Show(Show),
    Add(Add),
    Remove(Remove),
    Rename(Rename),
    Disconnect(Disconnect),
}

/// List the exports of this node
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux export nbd list
  pollux export nbd list --json")]
pub(super) struct List {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Show the exports of a volume and their clients
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux export nbd show vm-store
  pollux export nbd show vm-store --json")]
pub(super) struct Show {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// As JSON, like `volume show --json`
    #[arg(long)]
    json: bool,
}

/// Serve a volume under one more name
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux export nbd add vm-store backup --read-only
  pollux export nbd add vm-store vm1 --allow-subject CN=hyper1 --attach takeover")]
pub(super) struct Add {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// Name that clients ask for
    #[arg(value_name = "NAME")]
    name: String,
    /// Refuse writes
    #[arg(long)]
    read_only: bool,
    /// Text for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// Network that may attach over TCP, several times for several [default: all]
    #[arg(long, value_name = "NETWORK")]
    allow: Vec<String>,
    /// Certificate that may attach, as CN=NAME, several times for several [default: all]
    #[arg(long, value_name = "SUBJECT")]
    allow_subject: Vec<String>,
    /// How many clients: shared, exclusive or takeover [default: shared]
    #[arg(long, value_name = "MODE")]
    attach: Option<String>,
}

/// Serve a volume no more under this name; clients that are attached stay
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux export nbd remove vm-store backup
  pollux export nbd remove vm-store backup --disconnect")]
pub(super) struct Remove {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// Name of the export
    #[arg(value_name = "NAME")]
    name: String,
    /// Cut its clients off
    #[arg(long)]
    disconnect: bool,
}

/// Serve an export under another name; clients that are attached stay
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux export nbd rename vm-store backup nightly")]
pub(super) struct Rename {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// Its name
    #[arg(value_name = "OLD")]
    old: String,
    /// Its name from now on
    #[arg(value_name = "NEW")]
    new: String,
}

/// Cut off a client: what is not answered yet is not answered
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux export nbd disconnect vm-store 17
  pollux export nbd disconnect vm-store 10.0.0.40:51000")]
pub(super) struct Disconnect {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// Its number or its address, as `export nbd show` tells them
    #[arg(value_name = "CLIENT")]
    client: String,
}

impl Export {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let Export::Nbd(verb) = self;
        let daemon = place.daemon()?;
        match verb {
            Nbd::List(verb) => verb.run(&daemon),
            Nbd::Show(verb) => verb.run(&daemon),
            Nbd::Add(verb) => {
                let ask = ask::ExportAdd {
                    name: verb.name,
                    read_only: verb.read_only,
                    description: verb.description,
                    allow: verb.allow,
                    allow_subjects: verb.allow_subject,
                    attach: verb.attach,
                };
                post(&daemon, &verb.volume, "exports/add", &ask)
            }
            Nbd::Remove(verb) => {
                let ask = ask::ExportRemove {
                    name: verb.name,
                    disconnect: verb.disconnect,
                };
                post(&daemon, &verb.volume, "exports/remove", &ask)
            }
            Nbd::Rename(verb) => {
                let ask = ask::ExportRename {
                    old: verb.old,
                    new: verb.new,
                };
                post(&daemon, &verb.volume, "exports/rename", &ask)
            }
            Nbd::Disconnect(verb) => {
                let ask = ask::Disconnect {
                    client: verb.client,
                };
                post(&daemon, &verb.volume, "disconnect", &ask)
            }
        }
    }
}

fn post(daemon: &Daemon, volume: &str, rest: &str, ask: &impl Serialize) -> Result<Exit, Failure> {
    let next = format!("export nbd show {volume}");
    change(daemon, (volume, rest), ask, Some(CHANGE_MAX), &next)
}

impl List {
    fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let reports = block_on(async {
            let status: StatusReport = daemon.get("/api/v1/status").await?;
            let mut reports: Vec<VolumeReport> = Vec::new();
            for volume in &status.volumes {
                reports.push(daemon.get(&volume_path(&volume.name, "")).await?);
            }
            Ok(reports)
        })?;
        match self.json {
            true => output::say_json(&reports),
            false => output::say(&text::exports(&reports)),
        }
        Ok(Exit::Done)
    }
}

impl Show {
    fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let report: VolumeReport = block_on(daemon.get(&volume_path(&self.volume, "")))?;
        match self.json {
            true => output::say_json(&report),
            false => output::say(&text::export_clients(
                &self.volume,
                &report,
                jiff::Timestamp::now(),
            )),
        }
        Ok(Exit::Done)
    }
}
