//! A node of the demo: a child process that runs `pollux serve`, and its API.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::Trouble;
use super::place::{Place, VOLUME};
use super::stop::Children;
use super::tie::DIE_WITH;
use crate::api::body::{Changed, StatusReport, VolumeEntry};
use crate::client::Daemon;

/// Longest time a daemon may take until its API answers.
const START_MAX: Duration = Duration::from_secs(15);

/// Longest time a drain may take, and some.
const STOP_MAX: Duration = Duration::from_secs(12);

/// Longest time a change may take.
const CHANGE_MAX: Duration = Duration::from_secs(30);

/// A running node. It ends with this process, however this process ends: see [`super::tie`].
pub(super) struct Node {
    pub(super) name: &'static str,
    child: Child,
    api: Daemon,
    children: Children,
}

impl Node {
    /// Starts a daemon and waits until it answers. Must be called on the main thread, with
    /// which the child dies. Errors: it ends before it answers; its log tells why.
    pub(super) fn start(
        name: &'static str,
        place: &Place,
        children: &Children,
        runtime: &Runtime,
    ) -> Result<Node, Trouble> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(place.log(name))?;
        // The running binary, even if its file was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["serve", "--config"])
            .arg(place.config())
            .args(["--node", name])
            .env(DIE_WITH, std::process::id().to_string())
            .env_remove("NOTIFY_SOCKET")
            // Ctrl-C is for the demo, which then ends its children.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = children
            .start(&mut command)
            .map_err(|why| Trouble::new(format!("{name} cannot be started: {why}")))?;
        let api = Daemon {
            socket: place.data_dir(name).join("pollux.sock"),
            node: name.to_owned(),
            config: place.config(),
        };
        let mut node = Node {
            name,
            child,
            api,
            children: children.clone(),
        };
        let began = Instant::now();
        while node.status(runtime).is_err() {
            if let Some(status) = node.child.try_wait()? {
                return Err(Trouble::new(format!(
                    "the daemon of {name} ended: {status}"
                )));
            }
            if began.elapsed() > START_MAX {
                return Err(Trouble::new(format!(
                    "the daemon of {name} does not answer"
                )));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(node)
    }

    /// What the daemon says of itself.
    pub(super) fn status(&self, runtime: &Runtime) -> Result<StatusReport, Trouble> {
        Ok(runtime.block_on(self.api.get("/api/v1/status"))?)
    }

    /// What the daemon says of the volume.
    pub(super) fn volume(&self, runtime: &Runtime) -> Result<VolumeEntry, Trouble> {
        let report = self.status(runtime)?;
        let mut volumes = report.volumes.into_iter();
        volumes
            .find(|volume| volume.name == VOLUME)
            .ok_or_else(|| Trouble::new(format!("{} does not know its volume", self.name)))
    }

    /// Asks for a change of the volume, as the verbs of the command line do.
    pub(super) fn change(
        &self,
        runtime: &Runtime,
        what: &str,
        ask: &impl Serialize,
    ) -> Result<Changed, Trouble> {
        let path = format!("/api/v1/volumes/{VOLUME}/{what}");
        Ok(runtime.block_on(self.api.post(&path, ask, Some(CHANGE_MAX)))?)
    }

    /// Ends it as a crash would.
    pub(super) fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Asks it to drain and end. Errors: it does not, or not with exit 0.
    pub(super) fn stop(mut self) -> Result<(), Trouble> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).map_err(io::Error::from)?;
        let began = Instant::now();
        let status: ExitStatus = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if began.elapsed() > STOP_MAX => {
                    return Err(Trouble::new(format!(
                        "{} does not drain in time",
                        self.name
                    )));
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        match status.success() {
            true => Ok(()),
            false => Err(Trouble::new(format!(
                "{} ended its drain with {status}",
                self.name
            ))),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.children.forget(&self.child);
    }
}
