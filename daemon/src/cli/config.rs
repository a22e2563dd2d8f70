//! `pollux config check`.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Place, output};
use crate::api::body::{AppliedReport, ask};
use crate::config::{DiagnosticReport, Loaded};
use crate::exit::Exit;
use crate::explain::{Failure, counted};

/// Look at the configuration file
#[derive(Debug, Subcommand)]
#[command(after_help = "\
EXAMPLES
  pollux config check
  pollux config apply")]
pub(super) enum Config {
    Check(Check),
    Apply(Apply),
}

/// Have the running node take over what the file says now
///
/// Exports and certificates hold at once, and attached clients stay. Anything else that differs is
/// named and needs a restart, or a command of its own. A file with errors changes nothing. SIGHUP does the same.
#[derive(Debug, Args)]
#[command(after_help = "\
EXIT CODES
  0 the file is in force   9 errors, or it cannot be read   10 parts of it are not

EXAMPLES
  pollux config apply
  pollux config apply --json")]
pub(super) struct Apply {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Find every error and risk in the file; change nothing
///
/// Certificates are looked at where they are read: on the machine of the node that names them.
#[derive(Debug, Args)]
#[command(after_help = "\
EXIT CODES
  0 no errors   9 errors, or the file cannot be read

EXAMPLES
  pollux config check
  pollux config check --config lab.toml --json")]
pub(super) struct Check {
    /// Findings as JSON, with file, line, column and code
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    file: String,
    errors: usize,
    warnings: usize,
    diagnostics: Vec<DiagnosticReport>,
}

impl Config {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let check = match self {
            Config::Check(check) => check,
            Config::Apply(apply) => return apply.run(place),
        };
        let mut loaded = place.load()?;
        place.look_at_certificates(&mut loaded);
        match check.json {
            true => output::say_json(&report(&loaded)),
            false => output::say(&text(&loaded)),
        }
        Ok(if loaded.errors() == 0 {
            Exit::Done
        } else {
            Exit::Config
        })
    }
}

impl Apply {
    fn run(self, place: &Place) -> Result<Exit, Failure> {
        let daemon = place.daemon()?;
        let path = "/api/v1/config/apply";
        let applied = daemon.post(path, &ask::Nothing {}, Some(super::CHANGE_MAX));
        let applied: AppliedReport = super::block_on(applied)?;
        match self.json {
            true => output::say_json(&applied),
            false => output::say(&format!("{}\n", applied.text)),
        }
        let is_whole = applied.restart.is_empty() && applied.commands.is_empty();
        Ok(match is_whole {
            true => Exit::Done,
            false => Exit::Partial,
        })
    }
}

fn report(loaded: &Loaded) -> Report {
    let all = loaded.diagnostics.iter();
    Report {
        schema: "pollux.config-check/1",
        file: loaded.path.display().to_string(),
        errors: loaded.errors(),
        warnings: loaded.warnings(),
        diagnostics: all
            .map(|found| DiagnosticReport::new(found, &loaded.path, &loaded.source))
            .collect(),
    }
}

fn text(loaded: &Loaded) -> String {
    let errors = counted(loaded.errors(), "error");
    let warnings = counted(loaded.warnings(), "warning");
    let (nodes, volumes) = (loaded.config.nodes.len(), loaded.config.volumes.len());
    let rest = match loaded.errors() {
        0 => format!("{}, {}", counted(nodes, "node"), counted(volumes, "volume")),
        _ => "the running configuration is unchanged".to_owned(),
    };
    let shown = loaded.render(output::stdout_color());
    format!("{shown}{errors}, {warnings}; {rest}\n")
}
