//! Three daemons that choose by majority which of them serves a volume.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use conformance::{Daemon, Lab};
use serde_json::Value;

/// The nodes, by index.
pub const TRIO: [&str; 3] = ["alpha", "beta", "gamma"];

/// Longest time a small volume may take to become healthy on a busy machine.
const HEALTHY_MAX: Duration = Duration::from_secs(60);

/// Which of the three hold data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Two, and gamma only votes.
    Witness,
    /// All.
    Three,
}

impl Shape {
    /// Indexes of the nodes with data.
    pub fn replicas(self) -> &'static [usize] {
        match self {
            Shape::Witness => &[0, 1],
            Shape::Three => &[0, 1, 2],
        }
    }

    /// The table of volume `v`, of this many MiB.
    pub fn volume_text(self, mebibytes: u64) -> String {
        let nodes = match self {
            Shape::Witness => "replicas = [\"alpha\", \"beta\"]\nwitnesses = [\"gamma\"]",
            Shape::Three => "replicas = [\"alpha\", \"beta\", \"gamma\"]",
        };
        format!(
            "[volume.v]\nsize = \"{mebibytes}MiB\"\nbacking = \"v.img\"\n{nodes}\n\
             nbd = [{{ name = \"v\" }}]\n"
        )
    }
}

/// A lab with three nodes and one volume `v`, and the daemons that run.
#[derive(Debug)]
pub struct Trio {
    /// Daemons by index; `None` while one is down. They end before the lab's folder goes.
    pub daemons: [Option<Daemon>; 3],
    /// Folder, configuration, command line.
    pub lab: Lab,
    /// Who holds data.
    pub shape: Shape,
    /// The file that each daemon is started with.
    pub configs: [PathBuf; 3],
    /// Votes that are there when all is well.
    pub votes: u64,
}

impl Trio {
    /// A lab for three nodes, with this lease; nothing runs.
    pub fn lab(shape: Shape, mebibytes: u64, lease: &str) -> Lab {
        let volume = shape.volume_text(mebibytes);
        let lab = Lab::new(&TRIO, &volume);
        let votes = format!("quorum = \"majority\"\nlease = \"{lease}\"\n");
        let text = lab.config_text("lab", &volume);
        let text = text.replace("quorum = \"off\"\n", &votes);
        let text = text.replace("keepalive = \"250ms\"", "keepalive = \"500ms\"");
        fs::write(lab.config(), text).expect("the lab's folder is writable");
        lab
    }

    /// All daemons run, alpha was made primary, every copy is in sync.
    pub fn healthy(shape: Shape, mebibytes: u64, lease: &str) -> Trio {
        let mut trio = Trio::of(shape, Trio::lab(shape, mebibytes, lease));
        (0..3).for_each(|index| trio.serve(index));
        trio.found();
        trio
    }

    /// The nodes of a lab; nothing runs.
    pub fn of(shape: Shape, lab: Lab) -> Trio {
        Trio {
            daemons: [const { None }; 3],
            configs: TRIO.map(|_| lab.config()),
            lab,
            shape,
            votes: 3,
        }
    }

    /// Starts a node's daemon and waits until its API answers.
    pub fn serve(&mut self, index: usize) {
        let (node, config) = (TRIO[index], &self.configs[index]);
        let command = self.lab.command_with(config, node, &["serve"]);
        self.daemons[index] = Some(self.lab.serve_as(node, command));
    }

    /// Creates the volume everywhere, promotes alpha, and waits until every copy is in sync.
    pub fn found(&self) {
        for node in TRIO {
            self.lab.done(node, &["volume", "create", "v"]);
        }
        self.lab.done("alpha", &["promote", "v", "--wait", "10s"]);
        self.until_healthy(0);
    }

    /// Waits until this node says that every copy is in sync and all voters are there.
    pub fn until_healthy(&self, index: usize) -> Value {
        let is_whole = |volume: &Value| {
            volume["state"] == "healthy" && volume["quorum"]["votes"]["have"] == self.votes
        };
        let node = TRIO[index];
        self.lab
            .until(node, "v", HEALTHY_MAX, "healthy, all votes", is_whole)
    }

    /// What this node says of the volume.
    pub fn volume(&self, index: usize) -> Value {
        self.lab.volume(TRIO[index], "v")
    }

    /// Waits until one of the running nodes says that it is primary. Panics: none does in time.
    pub fn until_primary(&self, limit: Duration) -> usize {
        let began = Instant::now();
        loop {
            let running = (0..3).filter(|index| self.daemons[*index].is_some());
            let mut serving = running.filter(|index| self.volume(*index)["role"] == "primary");
            if let Some(index) = serving.next() {
                return index;
            }
            assert!(began.elapsed() < limit, "nobody became primary");
        }
    }

    /// Starts a node's daemon and waits until it has its disk.
    pub fn start(&mut self, index: usize) {
        self.serve(index);
        let node = TRIO[index];
        let is_free = |volume: &Value| {
            let reason = volume["reason"]["text"].as_str().unwrap_or_default();
            !reason.contains("holds its lock") && !reason.contains("being created, attached")
        };
        self.lab
            .until(node, "v", HEALTHY_MAX, "its disk is free", is_free);
    }

    /// A daemon that runs. Panics: it does not.
    pub fn daemon(&self, index: usize) -> &Daemon {
        let daemon = self.daemons[index].as_ref();
        daemon.expect("tests ask for daemons they started")
    }

    /// Kills a node's daemon, if it runs.
    pub fn kill(&mut self, index: usize) {
        if let Some(daemon) = self.daemons[index].take() {
            daemon.kill();
        }
    }

    /// URI of the volume on a node.
    pub fn uri(&self, index: usize) -> String {
        self.lab.node(TRIO[index]).uri("v")
    }

    /// URIs on the nodes with data.
    pub fn uris(&self) -> Vec<String> {
        self.shape.replicas().iter().map(|i| self.uri(*i)).collect()
    }

    /// Demotes the primary, stops all daemons, and holds the copies against each other.
    /// Panics: they differ, or something does not stop.
    pub fn stop_and_compare(&mut self, primary: usize, mebibytes: u64) {
        self.lab
            .done(TRIO[primary], &["demote", "v", "--disconnect"]);
        for (index, daemon) in self.daemons.iter_mut().enumerate() {
            if let Some(daemon) = daemon.take() {
                assert_eq!(daemon.stop(), 0, "{} did not drain", TRIO[index]);
            }
        }
        let file = |index: usize| self.lab.node(TRIO[index]).file("v.img");
        for other in &self.shape.replicas()[1..] {
            let different = crate::disk::different_blocks(&file(0), &file(*other), mebibytes << 20);
            let node = TRIO[*other];
            assert!(
                different.is_empty(),
                "{node} differs from alpha in {different:?}"
            );
        }
    }
}
