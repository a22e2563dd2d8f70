//! Processes that must not outlive this one.
//!
//! Each is started through `perf launch`, which pins it and ends it with us. `nbd-server` goes to
//! the background by itself and is ended by the pid it writes down; on signals too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::Bench;
use crate::usage;

/// Longest a server may take until its socket answers, and until it has ended.
pub const START_MAX: Duration = Duration::from_secs(10);
/// Between two looks.
pub const PAUSE: Duration = Duration::from_millis(20);

/// Servers in the background, and directories, that signals must not leave behind.
static LEFT_BEHIND: Mutex<(Vec<Pid>, Vec<PathBuf>)> = Mutex::new((Vec::new(), Vec::new()));

fn left_behind() -> std::sync::MutexGuard<'static, (Vec<Pid>, Vec<PathBuf>)> {
    LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT and SIGTERM end background servers, remove the directories and the process.
/// Other servers end with it.
pub fn clean_up_on_signals(directories: &[&Path]) -> anyhow::Result<()> {
    left_behind().1 = directories.iter().map(|path| path.to_path_buf()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    drop(_entered);
    std::thread::spawn(move || {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => 2,
                _ = terminate.recv() => 15,
            }
        });
        let (servers, directories) = &*left_behind();
        for pid in servers {
            let _ = kill_process(*pid, Signal::TERM);
        }
        for directory in directories {
            let _ = fs::remove_dir_all(directory);
        }
        std::process::exit(128 + number);
    });
    Ok(())
}

/// A process that ends with this value.
pub struct Process {
    pid: Pid,
    log: PathBuf,
    /// Absent if it went to the background.
    child: Option<Child>,
}

impl Process {
    /// Starts a program through `perf launch` on a core; what it writes goes to the log of that
    /// name. Must be called on the main thread, with which the child ends.
    pub fn start(
        bench: &Bench,
        name: &str,
        cpu: usize,
        program: &Path,
        arguments: &[String],
    ) -> anyhow::Result<Process> {
        let log = bench.scratch.path().join(format!("{name}.log"));
        let file = fs::File::create(&log).context("cannot write the servers' log")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["launch", "--cpu", &cpu.to_string()]);
        command.args(["--parent", &std::process::id().to_string(), "--"]);
        command.arg(program).args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Process {
            pid: Pid::from_child(&child),
            log,
            child: Some(child),
        })
    }

    /// Waits until it went to the background, and takes the process it wrote down for it. Errors:
    /// it failed, or wrote none.
    pub fn into_background(mut self, pid_file: &Path) -> anyhow::Result<Process> {
        let status = match &mut self.child {
            Some(child) => child.wait()?,
            None => return Ok(self),
        };
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(pid_file).unwrap_or_default();
            if let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) {
                left_behind().0.push(pid);
                let log = self.log.clone();
                return Ok(Process {
                    pid,
                    log,
                    child: None,
                });
            }
            if !status.success() || begun.elapsed() > START_MAX {
                bail!("it wrote no pid: {}", self.last_words());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    fn has_ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            // Whoever inherited it may be slow to collect it.
            None => usage::has_ended(self.pid()),
        }
    }

    /// The last line it wrote.
    fn last_words(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().find(|line| !line.trim().is_empty());
        line.unwrap_or("it wrote nothing").trim().to_owned()
    }

    /// Asks until it is so. Errors: the process ended, or the last answer after a while.
    pub fn wait_until(&mut self, ask: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let begun = Instant::now();
        while let Err(why) = ask() {
            if self.has_ended() {
                bail!("it ended: {}", self.last_words());
            }
            if begun.elapsed() > START_MAX {
                let words = self.last_words();
                let seconds = START_MAX.as_secs();
                return Err(why.context(format!("no answer in {seconds} s ({words})")));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = kill_process(self.pid, Signal::TERM);
        }
        let begun = Instant::now();
        while !self.has_ended() {
            if begun.elapsed() > START_MAX {
                let _ = kill_process(self.pid, Signal::KILL);
            }
            std::thread::sleep(PAUSE);
        }
        left_behind().0.retain(|other| *other != self.pid);
    }
}
