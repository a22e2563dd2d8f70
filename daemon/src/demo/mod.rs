//! `pollux demo`: two synchronous nodes and their clients on this machine, shown working.
//!
//! ```text
//!  this process ── clients ──NBD──► pollux serve (alpha) ──► alpha/demo.img
//!       │                               ▲ replication
//!       └── operator ──API──►           ▼
//!                               pollux serve (beta)  ──► beta/demo.img
//! ```
//! The nodes are child processes of the same binary, with ports of 127.0.0.1 and a temporary
//! folder. They die with this process, however it ends ([`tie`]). Every figure printed was
//! measured in the run; a step that fails prints the ends of the nodes' logs, and keeps the folder.

pub mod client;
mod compare;
mod image;
mod load;
mod node;
mod place;
mod stop;
mod story;
pub mod tie;
mod transfer;

use std::fmt;

use client::Broken;

use crate::exit::Exit;
use crate::explain::{self, Failure};

/// Show two nodes, a failover and equal copies on this machine
///
/// Needs no root and no configuration: two nodes run as child processes on 127.0.0.1 in a
/// temporary folder, which is removed at the end.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "\
EXIT CODES
  0 every step held   1 a step failed; the folder with its logs is kept

EXAMPLES
  pollux demo
  pollux demo --stay                              then try the URIs that it prints")]
pub struct DemoArgs {
    /// Keep the nodes running until Ctrl-C
    #[arg(long)]
    pub stay: bool,
}

/// Runs the demo to its end. Errors: a step failed; what is known about it was printed.
pub fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    match story::tell(args.stay) {
        Ok(()) => Ok(Exit::Done),
        Err(trouble) => Err(explain::demo_failed(&trouble.to_string())),
    }
}

/// Why a step of the demo failed, in words.
#[derive(Debug)]
pub(crate) struct Trouble(String);

impl Trouble {
    fn new(text: impl Into<String>) -> Trouble {
        Trouble(text.into())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Trouble {
        Trouble(error.to_string())
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble(failure.to_string())
    }
}

impl From<Broken> for Trouble {
    fn from(broken: Broken) -> Trouble {
        Trouble(broken.in_full())
    }
}
