//! One run of a program: environment, time-out, output to the log.

use std::io::{BufRead, BufReader, PipeReader, Read, pipe};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tracing::info;

/// Lines of output that are logged, and bytes of each.
const LINES_MAX: usize = 100;
const LINE_BYTES_MAX: u64 = 1024;
/// Between two looks at a program that runs.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a program learns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    /// Name of the volume.
    pub(super) volume: &'a str,
    /// This node.
    pub(super) node: &'a str,
    /// `primary` or `secondary`.
    pub(super) role: &'a str,
    /// Term of the newest reign known here.
    pub(super) term: u64,
}

/// A program that did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// It cannot be run.
    #[error("cannot be run: {0}")]
    Start(std::io::Error),
    /// It says so.
    #[error("failed: {0}")]
    Status(ExitStatus),
    /// It was killed.
    #[error("did not end within {0:?} and was killed, with all it started")]
    Hung(Duration),
}

/// Runs `argv`, which is not empty, to its end or to `timeout`. Blocks.
pub(super) fn run(argv: &[String], told: &Told<'_>, timeout: Duration) -> Result<Duration, Failed> {
    let began = Instant::now();
    let (output, end) = pipe().map_err(Failed::Start)?;
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .env("POLLUX_VOLUME", told.volume)
        .env("POLLUX_NODE", told.node)
        .env("POLLUX_ROLE", told.role)
        .env("POLLUX_TERM", told.term.to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(end.try_clone().map_err(Failed::Start)?)
        .stderr(end)
        .process_group(0);
    let child = command.spawn().map_err(Failed::Start)?;
    // It holds the pipe's other end: the output would never end.
    drop(command);
    let volume = told.volume.to_owned();
    let reader = thread::Builder::new().name("hook-output".into());
    // Without its reader a program that says much fails, and that is told.
    let _ = reader.spawn(move || log_lines(output, &volume));
    wait(child, began + timeout, timeout)?;
    Ok(began.elapsed())
}

fn wait(mut child: Child, until: Instant, timeout: Duration) -> Result<(), Failed> {
    loop {
        match child.try_wait().map_err(Failed::Start)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(Failed::Status(status)),
            None if Instant::now() < until => thread::sleep(LOOK_EVERY),
            None => {
                // Its group is its own: nothing else is in it. It may have ended just now.
                let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                let _ = child.wait();
                return Err(Failed::Hung(timeout));
            }
        }
    }
}

/// Logs the first lines, and reads the rest away so that nobody waits for room.
fn log_lines(output: PipeReader, volume: &str) {
    let mut output = BufReader::new(output);
    for _ in 0..LINES_MAX {
        let mut line = Vec::new();
        match output
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
        {
            Ok(count) if count > 0 => {
                let line = String::from_utf8_lossy(&line);
                info!(code = "I161", volume, "{}", line.trim_end());
            }
            _ => return,
        }
    }
    // What it says further is not kept.
    let _ = std::io::copy(&mut output, &mut std::io::sink());
}
