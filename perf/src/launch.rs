//! `perf launch`: becomes another program, pinned to a core and bound to the life of its parent.
//!
//! A comparison starts its servers through this: whatever ends the comparison, also SIGKILL, ends
//! them. Programs that put themselves into the background are not bound; see `compare/server`.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Run a program on one core, and end it with its parent
#[derive(Debug, Args)]
pub struct Launch {
    /// Core to run on
    #[arg(long)]
    cpu: Option<usize>,
    /// Process it must not outlive
    #[arg(long)]
    parent: u32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Becomes the program. Comes back only with the reason why it could not.
pub fn run(launch: &Launch) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // The parent may have ended before the kernel was told.
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent != Some(launch.parent) {
        bail!("the process that started this one has ended");
    }
    if let Some(cpu) = launch.cpu {
        let refused = || format!("cannot run on core {cpu}");
        engine_ring::sys::cpu::pin(cpu).with_context(refused)?;
    }
    let Some((program, arguments)) = launch.command.split_first() else {
        bail!("no program was named");
    };
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {program}"))
}
