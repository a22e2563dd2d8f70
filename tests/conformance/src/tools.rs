//! Programs run with a time limit, and what happens when one is not installed.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// With this in the environment a missing client is a failure.
const REQUIRED: &str = "POLLUX_REQUIRE_CLIENTS";

/// How a program ended, and what it said.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Exit code; -1 if a signal ended it.
    pub exit: i32,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl Ran {
    /// Itself, if it succeeded. Panics: it did not.
    #[track_caller]
    pub fn ok(self) -> Ran {
        assert_eq!(self.exit, 0, "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// Runs `command` to its end. Panics: it cannot be run, or takes longer than `limit`; it and its
/// children are ended then.
pub fn run(mut command: Command, limit: Duration) -> Ran {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(why) => panic!("{command:?} cannot be run: {why}"),
    };
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let began = Instant::now();
    let mut pause = Duration::from_millis(1);
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status,
            None if began.elapsed() > limit => {
                let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                let _ = child.wait();
                let said = (stdout.join(), stderr.join());
                panic!("{command:?} took longer than {limit:?}: {said:?}");
            }
            None => thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    Ran {
        exit: status.code().unwrap_or(-1),
        stdout: stdout.join().expect("the reader does not panic"),
        stderr: stderr.join().expect("the reader does not panic"),
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A program of this machine, looked for also where root's programs lie.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path
        .split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"]);
    let mut candidates = folders.map(|folder| PathBuf::from(folder).join(program));
    candidates.find(|path| path.is_file())
}

/// All of `(program, Debian package)` are there. If not, says which package to install, and
/// returns false: the test skips. Panics: one is missing and `POLLUX_REQUIRE_CLIENTS` is set.
pub fn have(needed: &[(&str, &str)]) -> bool {
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    missing.is_empty() || skip(&format!("install {}", missing.join(" ")))
}

/// Debian's interpreter with libnbd's binding is there; else as [`have`].
pub fn have_python_libnbd() -> bool {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", "import nbd"]).stderr(Stdio::null());
    let is_there = command.status().is_ok_and(|status| status.success());
    is_there || skip("install python3-libnbd")
}

/// Says why a test does not run, and returns false. Panics: `POLLUX_REQUIRE_CLIENTS` is set.
pub fn skip(why: &str) -> bool {
    let is_required = std::env::var_os(REQUIRED).is_some_and(|value| value == "1");
    assert!(!is_required, "{REQUIRED}=1, but: {why}");
    eprintln!("skipped: {why}");
    false
}
