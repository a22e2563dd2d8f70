//! `perf report`: results as one HTML page with charts, to be read without a network.
//!
//! ```text
//!  results (JSON) ─► sections ─► page ─┬─► chart ─► scale
//!                                      └─► tables
//! ```

mod chart;
mod page;
mod scale;
mod sections;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;

use crate::results::{self, Outcome};

/// Draw results as one HTML page, which needs no network
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  perf nbd --uri URI --json > a.json
  perf report a.json b.json --title 'Before and after' --out report.html")]
pub struct Report {
    /// Files with what `perf nbd --json`, `perf compare --json` and `perf soak --json` wrote
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// Heading of the page
    #[arg(long, default_value = "Measurements")]
    title: String,
    /// The page
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Reads, draws, writes.
pub fn run(report: &Report) -> anyhow::Result<()> {
    let mut outcomes = Vec::new();
    for file in &report.results {
        outcomes.extend(results::read(file)?);
    }
    if outcomes.is_empty() {
        bail!("there is no result in these files");
    }
    write(&report.out, &report.title, &outcomes)
}

/// Writes a page about results. Errors: the file.
pub fn write(file: &Path, title: &str, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let text = page::render(title, &sections::of(outcomes));
    results::write_text(file, &text)
}
