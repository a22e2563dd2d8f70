//! `pollux config check`.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Place, output};
use crate::config::{DiagnosticReport, Loaded};
use crate::exit::Exit;
use crate::explain::{Failure, counted};

/// Look at the configuration file
#[derive(Debug, Subcommand)]
#[command(after_help = "\
EXAMPLES
  pollux config check
  pollux config check --config lab.toml --json")]
pub(super) enum Config {
    Check(Check),
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
        let Config::Check(check) = self;
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
