//! Load generators and side-by-side runs against other servers.
//!
//! ```text
//!  perf nbd      one load against one server                     load/, figures, usage
//!  perf compare  our server and its peers in turn, as a table    compare/
//!  perf mirror   what a second replica costs a write              compare/mirror
//!  perf handshakes  clients that attach and leave              load/handshakes
//!  perf soak     a long load, and what the server holds meanwhile   soak/
//!  perf report   results as a page with charts                report/, results
//!  perf core     the pure core alone: nanoseconds per request    core
//!  perf floor    the socket below a mirror: CPU per block         floor
//! ```

#![forbid(unsafe_code)]

#[cfg(feature = "tokio-uring")]
mod baseline;
mod compare;
mod core;
mod curves;
mod figures;
mod floor;
mod handshakes;
mod launch;
mod load;
mod nbd;
mod report;
mod results;
mod servers;
mod soak;
mod usage;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measure Pollux, and others with the same yardstick
#[derive(Debug, Parser)]
#[command(name = "perf", disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Nbd(nbd::Nbd),
    Compare(compare::Compare),
    Mirror(compare::mirror::Mirror),
    Core(core::Core),
    Handshakes(handshakes::Handshakes),
    Floor(floor::Floor),
    Soak(soak::Soak),
    Report(report::Report),
    #[cfg(feature = "tokio-uring")]
    #[command(hide = true)]
    Baseline(baseline::Baseline),
    #[command(hide = true)]
    Launch(launch::Launch),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Nbd(verb) => nbd::run(&verb),
        Verb::Compare(verb) => compare::run(&verb),
        Verb::Mirror(verb) => compare::mirror::run(&verb),
        Verb::Core(verb) => core::run(&verb),
        Verb::Handshakes(verb) => handshakes::run(&verb),
        Verb::Floor(verb) => floor::run(&verb),
        Verb::Soak(verb) => soak::run(&verb),
        Verb::Report(verb) => report::run(&verb),
        #[cfg(feature = "tokio-uring")]
        Verb::Baseline(verb) => baseline::run(&verb),
        Verb::Launch(verb) => launch::run(&verb),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}
