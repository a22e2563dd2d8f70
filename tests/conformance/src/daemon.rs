//! One `pollux serve` process.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

/// Longest time a drain may take (`docs/operations.md`), and a busy machine's share.
const STOP_MAX: Duration = Duration::from_secs(15);

/// A running daemon. It cannot outlive the test: dropping it kills it, and it dies with the
/// thread that started it.
#[derive(Debug)]
pub struct Daemon {
    /// The node it runs.
    pub node: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command`, whose stderr is appended to `log`.
    pub(crate) fn spawn(node: &str, mut command: Command, log: &Path) -> Daemon {
        command
            .env("POLLUX_DIE_WITH", std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(append(log));
        let child = command.spawn().expect("the binary can be run");
        Daemon {
            node: node.to_owned(),
            child,
            log: log.to_owned(),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Ends it as a crash would, and waits until the kernel is done with it.
    pub fn kill(mut self) {
        self.child.kill().expect("it was not waited for before");
        let status = self.child.wait().expect("a child can be waited for");
        assert_eq!(status.signal(), Some(9), "it had ended before: {status}");
    }

    /// Asks it to drain and end; its exit code. Panics: it does not end in time.
    pub fn stop(mut self) -> i32 {
        self.signal(Signal::TERM);
        let status = eventually(STOP_MAX, "the daemon ends", || self.ended());
        status.code().unwrap_or(-1)
    }

    /// Freezes it (`SIGSTOP`), and returns once no thread of it runs.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        eventually(STOP_MAX, "all threads are stopped", || {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).ok()?;
            let mut tasks = tasks.flatten();
            tasks.all(|task| is_stopped(&task.path())).then_some(())
        });
    }

    /// Lets it go on (`SIGCONT`).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// All it has logged, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Has it take its file over, as a service manager does.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it was not waited for");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The thread with this folder in `/proc` is stopped. Source: proc(5), "State".
fn is_stopped(task: &Path) -> bool {
    let status = fs::read_to_string(task.join("status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:\tT"))
}

fn append(log: &Path) -> File {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).open(log);
    file.expect("the lab's folder is writable")
}
