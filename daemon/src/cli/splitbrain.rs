//! `pollux splitbrain show|resolve|salvage`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::confirm::confirm;
use super::{CHANGE_MAX, Place, block_on, output, text, volume_path};
use crate::api::body::{Changed, Parting, SplitBrainReport, ask};
use crate::api::percent_encode;
use crate::client::Daemon;
use crate::exit::Exit;
use crate::explain::{self, Failure};

mod salvage;

pub(super) use salvage::name_of;

/// Two nodes that both took writes after they lost each other
#[derive(Debug, Subcommand)]
#[command(after_help = "\
EXAMPLES
  pollux splitbrain show vm-store
  pollux splitbrain resolve vm-store --keep alpha     on beta: gives up beta's copy
  pollux splitbrain salvage list")]
pub(super) enum SplitBrain {
    Show(Show),
    Resolve(Resolve),
    #[command(subcommand)]
    Salvage(salvage::Salvage),
}

/// Show what each side did since, and what may differ
///
/// Asks the other node to compare once more. Where it cannot be reached, says what is known here.
#[derive(Debug, Args)]
#[command(after_help = "\
EXIT CODES
  0 there is no split brain   6 there is one

EXAMPLES
  pollux splitbrain show
  pollux splitbrain show vm-store --json")]
pub(super) struct Show {
    /// The volume [default: all of this node]
    #[arg(value_name = "VOL")]
    volume: Option<String>,
    /// As JSON, one object per volume
    #[arg(long)]
    json: bool,
}

/// Give up this node's copy, and keep that of another node
///
/// Runs on the node that gives up. Every block of its copy that may differ goes to a salvage file
/// first, durably; then the copy is resynced with those blocks. Its node must be secondary.
#[derive(Debug, Args)]
#[command(after_help = "\
EXIT CODES
  0 given up; the resync is under way   1 refused   4 the other copy is not fit to be kept

EXAMPLES
  pollux splitbrain resolve vm-store --keep alpha             asks for the volume's name
  pollux splitbrain resolve vm-store --keep alpha --dry-run
  pollux splitbrain resolve vm-store --keep alpha --yes")]
pub(super) struct Resolve {
    /// The volume
    #[arg(value_name = "VOL")]
    volume: String,
    /// The node whose copy is kept
    #[arg(long, value_name = "NODE")]
    keep: String,
    /// Show the plan and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Longest time the other node gets to compare once more.
const COMPARE_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
/// Longest time for reading and keeping what may differ.
const SALVAGE_MAX: Duration = Duration::from_secs(24 * 3600);

impl SplitBrain {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        match self {
            SplitBrain::Show(show) => show.run(place),
            SplitBrain::Resolve(resolve) => resolve.run(place),
            SplitBrain::Salvage(salvage) => salvage.run(place),
        }
    }
}

impl Show {
    fn run(self, place: &Place) -> Result<Exit, Failure> {
        let daemon = place.daemon()?;
        let names = match &self.volume {
            Some(name) => vec![name.clone()],
            None => {
                let status: crate::api::body::StatusReport =
                    block_on(daemon.get("/api/v1/status"))?;
                let is_here = |v: &crate::api::body::VolumeEntry| v.generation.is_some();
                let volumes = status.volumes.into_iter().filter(is_here);
                volumes.map(|volume| volume.name).collect()
            }
        };
        let (mut is_split, mut said) = (false, false);
        for name in names {
            let report = block_on(compared(&daemon, &name))?;
            is_split |= !report.partings.is_empty();
            if self.json {
                output::say_json(&report);
            } else if self.volume.is_some() || !report.partings.is_empty() {
                output::say(&text::splitbrain(&report));
                said = true;
            }
        }
        if !said && !self.json {
            output::say("no volume of this node is in split brain\n");
        }
        Ok(match is_split {
            true => Exit::Critical,
            false => Exit::Done,
        })
    }
}

/// What is known, once the other nodes compared anew or time is over.
async fn compared(daemon: &Daemon, volume: &str) -> Result<SplitBrainReport, Failure> {
    let path = volume_path(volume, "splitbrain");
    let mut report: SplitBrainReport = daemon.get(&path).await?;
    let began = Instant::now();
    for parting in &report.partings {
        let rest = format!("peers/{}/connect", percent_encode(&parting.node));
        let path = volume_path(volume, &rest);
        let _: Changed = daemon
            .post(&path, &ask::Nothing {}, Some(CHANGE_MAX))
            .await?;
    }
    let is_new = |parting: &Parting| {
        let since = began.elapsed().as_millis();
        parting.theirs.is_some() && u128::from(parting.compared_milliseconds_ago) <= since
    };
    while !report.partings.iter().all(is_new) && began.elapsed() < COMPARE_MAX {
        tokio::time::sleep(POLL).await;
        report = daemon.get(&path).await?;
    }
    for parting in &mut report.partings {
        parting.is_current = is_new(parting);
    }
    Ok(report)
}

impl Resolve {
    fn run(self, place: &Place) -> Result<Exit, Failure> {
        let daemon = place.daemon()?;
        if daemon.node == self.keep {
            return Err(explain::kept_side(&self.volume, &self.keep));
        }
        if !self.yes && !self.dry_run && !super::confirm::can_ask() {
            return Err(explain::needs_yes("splitbrain resolve"));
        }
        let report = block_on(compared(&daemon, &self.volume))?;
        let parting = report.partings.iter().find(|p| p.node == self.keep);
        let Some(parting) = parting else {
            return Err(explain::no_split_brain(&self.volume, &self.keep));
        };
        let plan = text::resolve_plan(&report, parting);
        if self.dry_run {
            output::say(&plan);
            return Ok(Exit::Done);
        }
        confirm("splitbrain resolve", &self.volume, &plan, self.yes)?;
        let ask = ask::GiveUp {
            keep: self.keep.clone(),
            token: Some(parting.token.clone()),
        };
        let path = volume_path(&self.volume, "splitbrain/give-up");
        let done: Changed = block_on(daemon.post(&path, &ask, Some(SALVAGE_MAX)))?;
        super::say_next(&done, &format!("status {}", self.volume));
        Ok(Exit::Done)
    }
}

/// Folder of this node's salvages.
fn folder(place: &Place) -> Result<PathBuf, Failure> {
    let loaded = place.load_valid()?;
    let node = place.node(&loaded)?;
    Ok(node.data_dir.join(engine::salvage::FOLDER))
}
