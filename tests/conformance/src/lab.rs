//! A cluster's folder, and the commands an operator gives there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Daemon, Port, Ran, binary, tools};

/// Longest time a daemon may take until its API answers.
const START_MAX: Duration = Duration::from_secs(20);

/// Longest time a verb may take; promotion waits up to 10 s for its peers by itself.
const VERB_MAX: Duration = Duration::from_secs(60);

/// One node of a lab.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its `data_dir`.
    pub data_dir: PathBuf,
    /// Its NBD listener.
    pub nbd: Port,
    /// Its replication listener.
    pub replication: Port,
}

impl Node {
    /// Its NBD Unix socket.
    pub fn nbd_socket(&self) -> PathBuf {
        self.data_dir.join("nbd.sock")
    }

    /// Where a file of its `data_dir` lies.
    pub fn file(&self, name: &str) -> PathBuf {
        self.data_dir.join(name)
    }

    /// Its metadata of a volume.
    pub fn metadata(&self, volume: &str) -> PathBuf {
        self.data_dir.join(format!("volumes/{volume}.meta"))
    }

    /// URI of an export over TCP.
    pub fn uri(&self, export: &str) -> String {
        format!("nbd://{}/{export}", self.nbd.address())
    }

    /// URI of an export over the Unix socket.
    pub fn unix_uri(&self, export: &str) -> String {
        format!(
            "nbd+unix:///{export}?socket={}",
            self.nbd_socket().display()
        )
    }
}

/// A temporary folder with one configuration file and the `data_dir` of every node. It goes when
/// the value does; if the test fails, the ends of the daemons' logs are printed then.
#[derive(Debug)]
pub struct Lab {
    dir: TempDir,
    nodes: Vec<Node>,
    /// TOML that is put into the table of every node.
    node_keys: String,
}

impl Lab {
    /// A lab of these nodes; `volumes` is TOML that is put behind their tables.
    pub fn new(nodes: &[&str], volumes: &str) -> Lab {
        Lab::with_keys(nodes, "", volumes)
    }

    /// As [`Lab::new`], with more keys in the table of every node.
    pub fn with_keys(nodes: &[&str], node_keys: &str, volumes: &str) -> Lab {
        let dir = tempfile::Builder::new().prefix("pollux-").tempdir();
        let dir = dir.expect("the temporary folder is writable");
        let nodes: Vec<Node> = nodes.iter().map(|name| node(dir.path(), name)).collect();
        let lab = Lab {
            dir,
            nodes,
            node_keys: node_keys.to_owned(),
        };
        lab.write_config("lab", volumes);
        lab
    }

    /// TOML for a node's TLS, with the certificates that `pollux tls init` makes in the lab's folder
    /// `tls`. It ends inside of its table: more keys may follow.
    pub fn tls_table(node: &str) -> String {
        format!(
            "[node.{node}.nbd_tls]\ncert = \"../tls/server-cert.pem\"\n\
             key = \"../tls/server-key.pem\"\nclient_ca = \"../tls/ca-cert.pem\"\n"
        )
    }

    /// Writes the configuration anew: another cluster name, other volumes.
    pub fn write_config(&self, cluster: &str, volumes: &str) {
        let text = self.config_text(cluster, volumes);
        fs::write(self.config(), text).expect("the lab's folder is writable");
    }

    /// The configuration for these nodes with this cluster name and these volumes.
    pub fn config_text(&self, cluster: &str, volumes: &str) -> String {
        let mut text = format!(
            "[cluster]\nname = \"{cluster}\"\nquorum = \"off\"\nkeepalive = \"250ms\"\n\
             peer_timeout = \"2s\"\nmember_timeout = \"4s\"\n"
        );
        for node in &self.nodes {
            text.push_str(&format!(
                "[node.{}]\ndata_dir = \"{}\"\naddress = \"{}\"\nnbd = \"{}\"\n\
                 nbd_socket = \"nbd.sock\"\n{}\n",
                node.name,
                node.data_dir.display(),
                node.replication.address(),
                node.nbd.address(),
                self.node_keys,
            ));
        }
        text.push_str(volumes);
        text
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("lab.toml")
    }

    /// A path in the lab's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> &Node {
        let mut nodes = self.nodes.iter();
        nodes
            .find(|node| node.name == name)
            .expect("tests name nodes of their lab")
    }

    /// The command line for a node, as an operator would type it.
    pub fn command(&self, node: &str, words: &[&str]) -> Command {
        self.command_with(&self.config(), node, words)
    }

    /// As [`Lab::command`], with another configuration file.
    pub fn command_with(&self, config: &Path, node: &str, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .arg("--config")
            .arg(config)
            .args(["--node", node])
            .args(words);
        command
    }

    /// Runs a verb for a node to its end.
    pub fn pollux(&self, node: &str, words: &[&str]) -> Ran {
        tools::run(self.command(node, words), VERB_MAX)
    }

    /// Runs a verb that must succeed. Panics: it does not.
    pub fn done(&self, node: &str, words: &[&str]) -> Ran {
        let ran = self.pollux(node, words);
        assert_eq!(ran.exit, 0, "pollux {words:?} on {node}: {ran:?}");
        ran
    }

    /// Starts a node's daemon and waits until its API answers. Panics: it ends before.
    pub fn serve(&self, node: &str) -> Daemon {
        self.serve_as(node, self.command(node, &["serve"]))
    }

    /// As [`Lab::serve`], with these faults planted in its stores (`POLLUX_FAULTS`).
    pub fn serve_faulty(&self, node: &str, faults: &str) -> Daemon {
        let mut command = self.command(node, &["serve"]);
        command.env("POLLUX_FAULTS", faults);
        self.serve_as(node, command)
    }

    /// As [`Lab::serve`], with a command of the test's own that becomes the daemon.
    pub fn serve_as(&self, node: &str, command: Command) -> Daemon {
        let mut daemon = Daemon::spawn(node, command, &self.log(node));
        eventually(START_MAX, "the daemon answers", || {
            if let Some(status) = daemon.ended() {
                panic!("the daemon of {node} ended: {status}");
            }
            (self.pollux(node, &["status", "--json"]).exit == 0).then_some(())
        });
        daemon
    }

    /// Starts a command of the test's own for a node, and does not wait for anything.
    pub fn spawn(&self, node: &str, command: Command) -> Daemon {
        Daemon::spawn(node, command, &self.log(node))
    }

    /// A node's next process takes over from `old` (`serve --takeover`), which ends meanwhile.
    /// Panics: `old` does not end in order within `limit`, or the next one ends or does not answer.
    pub fn take_over(&self, mut old: Daemon, limit: Duration) -> Daemon {
        let node = old.node.clone();
        let mut new = self.spawn(&node, self.command(&node, &["serve", "--takeover"]));
        let status = eventually(limit, "the old process ends", || {
            let failed = new.ended();
            assert!(
                failed.is_none(),
                "the new process ended: {failed:?}\n{}",
                new.log()
            );
            old.ended()
        });
        assert_eq!(status.code(), Some(0), "{}", old.log());
        self.done(&node, &["status"]);
        new
    }

    /// What `status --json` says. Panics: no daemon answers, or not with JSON.
    pub fn status(&self, node: &str) -> Value {
        let ran = self.done(node, &["status", "--json"]);
        serde_json::from_str(&ran.stdout).expect("status --json prints JSON")
    }

    /// A volume in a node's status. Panics: it is not there.
    pub fn volume(&self, node: &str, volume: &str) -> Value {
        let status = self.status(node);
        let volumes = status["volumes"].as_array().expect("volumes is an array");
        let mut found = volumes.iter().filter(|entry| entry["name"] == volume);
        found
            .next()
            .expect("tests name volumes of their lab")
            .clone()
    }

    /// Waits until a node says that a volume is so, and returns what it says then. Panics: not in
    /// time.
    pub fn until(
        &self,
        node: &str,
        volume: &str,
        limit: Duration,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let began = Instant::now();
        loop {
            let entry = self.volume(node, volume);
            if holds(&entry) {
                return entry;
            }
            assert!(
                began.elapsed() < limit,
                "{volume} on {node}: not within {limit:?}: {what}\n{entry:#}"
            );
            thread::sleep(Duration::from_millis(40));
        }
    }

    /// Waits until a node serves a volume, all copies in sync. Panics: not in time.
    pub fn until_serving(&self, node: &str, volume: &str, limit: Duration) -> Value {
        self.until(node, volume, limit, "primary and healthy", |entry| {
            entry["state"] == "healthy" && entry["role"] == "primary"
        })
    }

    /// Waits until a node says that all copies of a volume are in sync. Panics: not in time.
    pub fn until_healthy(&self, node: &str, volume: &str, limit: Duration) -> Value {
        self.until(node, volume, limit, "healthy", |entry| {
            entry["state"] == "healthy"
        })
    }

    fn log(&self, node: &str) -> PathBuf {
        self.path(&format!("{node}.log"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in &self.nodes {
                let log = fs::read_to_string(self.log(&node.name)).unwrap_or_default();
                eprintln!("---- end of the log of {} ----\n{}", node.name, tail(&log));
            }
        }
    }
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

fn node(dir: &Path, name: &str) -> Node {
    let data_dir = dir.join(name);
    fs::create_dir(&data_dir).expect("the lab's folder is writable");
    Node {
        name: name.to_owned(),
        data_dir,
        nbd: Port::claim(),
        replication: Port::claim(),
    }
}

/// Repeats `look` until it finds something. Panics: not within `limit`.
pub fn eventually<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
