//! Two daemons that mirror one volume.

use std::path::PathBuf;
use std::time::Duration;

use conformance::{Daemon, Lab, Ran};
use serde_json::Value;

/// The nodes, by index.
pub const NODES: [&str; 2] = ["alpha", "beta"];

/// Longest time a small volume may take to become healthy on a busy machine.
pub const HEALTHY_MAX: Duration = Duration::from_secs(60);

/// A lab with alpha, beta and one volume `v`, and the daemons that run.
#[derive(Debug)]
pub struct Pair {
    /// Daemons by index; `None` while one is down. They end before the lab's folder goes.
    pub daemons: [Option<Daemon>; 2],
    /// Folder, configuration, command line.
    pub lab: Lab,
}

impl Pair {
    /// The table of volume `v`, of this many MiB, in a file of each node.
    pub fn volume_text(mebibytes: u64) -> String {
        format!(
            "[volume.v]\nsize = \"{mebibytes}MiB\"\nbacking = \"v.img\"\n\
             replicas = [\"alpha\", \"beta\"]\nnbd = [{{ name = \"v\" }}]\n"
        )
    }

    /// As [`Pair::volume_text`], with certificates for links in each node's folder `tls`.
    pub fn sealed_text(mebibytes: u64) -> String {
        let volume = Pair::volume_text(mebibytes);
        format!(
            "[tls]\ncert = \"tls/node-cert.pem\"\nkey = \"tls/node-key.pem\"\n\
             ca = \"tls/ca-cert.pem\"\n{volume}"
        )
    }

    /// A lab whose nodes have the certificates of one authority, in `authority`.
    pub fn sealed_lab(mebibytes: u64) -> Lab {
        let lab = Lab::new(&NODES, &Pair::sealed_text(mebibytes));
        for node in NODES {
            certify(&lab, "authority", node);
        }
        lab
    }

    /// Both daemons run; nothing is created.
    pub fn running(mebibytes: u64) -> Pair {
        Pair::running_in(Lab::new(&NODES, &Pair::volume_text(mebibytes)))
    }

    /// As [`Pair::running`], in a lab of the test's own.
    pub fn running_in(lab: Lab) -> Pair {
        let daemons = NODES.map(|node| Some(serve(&lab, node)));
        Pair { daemons, lab }
    }

    /// Both daemons run, alpha is primary, the volume is healthy.
    pub fn healthy(mebibytes: u64) -> Pair {
        let pair = Pair::running(mebibytes);
        pair.found();
        pair
    }

    /// Creates both replicas, promotes alpha, waits until both nodes say that it is healthy.
    pub fn found(&self) {
        for node in NODES {
            self.lab.done(node, &["volume", "create", "v"]);
        }
        self.lab.done("alpha", &["promote", "v"]);
        self.until_healthy(0);
        self.until_healthy(1);
    }

    /// Waits until this node says that both copies are in sync.
    pub fn until_healthy(&self, index: usize) -> Value {
        self.lab.until_healthy(NODES[index], "v", HEALTHY_MAX)
    }

    /// Waits until this node has noticed that the last client is gone.
    pub fn until_unused(&self, index: usize) {
        self.lab
            .until(NODES[index], "v", HEALTHY_MAX, "no clients", |volume| {
                volume["clients"].as_array().is_some_and(Vec::is_empty)
            });
    }

    /// What this node says of the volume.
    pub fn volume(&self, index: usize) -> Value {
        self.lab.volume(NODES[index], "v")
    }

    /// What this node says of the replica of the other.
    pub fn other(&self, index: usize) -> Value {
        let volume = self.volume(index);
        replica(&volume, NODES[1 - index]).clone()
    }

    /// A daemon that runs. Panics: it does not.
    pub fn daemon(&self, index: usize) -> &Daemon {
        self.daemons[index]
            .as_ref()
            .expect("tests ask for daemons they started")
    }

    /// Starts a node's daemon and waits until it has its disk: the kernel lets go of that only
    /// when the last write of a killed process has landed.
    pub fn start(&mut self, index: usize) {
        let node = NODES[index];
        self.daemons[index] = Some(serve(&self.lab, node));
        self.lab
            .until(node, "v", HEALTHY_MAX, "its disk is free", |volume| {
                let reason = volume["reason"]["text"].as_str().unwrap_or_default();
                !reason.contains("holds its lock") && !reason.contains("being created, attached")
            });
    }

    /// Plants faults in the stores of a node, in the words of `POLLUX_FAULTS`, in place of those
    /// planted before; they are in force when this returns.
    pub fn plant(&self, index: usize, faults: &str) {
        let file = faults_of(&self.lab, NODES[index]);
        std::fs::write(file, faults).expect("the lab's folder is writable");
        // The daemon looks at the file five times a second.
        std::thread::sleep(Duration::from_millis(600));
    }

    /// Kills a node's daemon, if it runs.
    pub fn kill(&mut self, index: usize) {
        if let Some(daemon) = self.daemons[index].take() {
            daemon.kill();
        }
    }

    /// Stops a node's daemon in order. Panics: it does not drain.
    pub fn stop(&mut self, index: usize) {
        if let Some(daemon) = self.daemons[index].take() {
            let exit = daemon.stop();
            assert_eq!(exit, 0, "{} did not drain", NODES[index]);
        }
    }

    /// Asks a node to become primary, waiting for its peer this long.
    pub fn promote(&self, index: usize, wait: &str) -> Ran {
        self.lab
            .pollux(NODES[index], &["promote", "v", "--wait", wait])
    }

    /// URI of the volume on a node.
    pub fn uri(&self, index: usize) -> String {
        self.lab.node(NODES[index]).uri("v")
    }

    /// Demotes the primary, stops both daemons, and holds the copies against each other.
    /// Panics: they differ, or something does not stop.
    pub fn stop_and_compare(&mut self, primary: usize, mebibytes: u64) {
        self.lab
            .done(NODES[primary], &["demote", "v", "--disconnect"]);
        self.stop(1 - primary);
        self.stop(primary);
        self.compare(mebibytes);
    }

    /// Holds the copies against each other, at rest. Panics: they differ.
    pub fn compare(&self, mebibytes: u64) {
        let paths = NODES.map(|node| self.lab.node(node).file("v.img"));
        let different = crate::disk::different_blocks(&paths[0], &paths[1], mebibytes << 20);
        assert!(
            different.is_empty(),
            "the copies differ in blocks {different:?}"
        );
    }
}

/// Puts the certificate of a node, of the authority in this folder, into its folder `tls`.
pub fn certify(lab: &Lab, authority: &str, node: &str) {
    let folder = lab.path(authority);
    let name = folder.display().to_string();
    lab.done(node, &["tls", "init", &name, "--for-node", node]);
    let own = lab.node(node).file("tls");
    // Another one's make room for it.
    let _ = std::fs::remove_dir_all(&own);
    std::fs::rename(folder.join(node), own).expect("it was just made");
}

/// A daemon that takes its faults from a file.
fn serve(lab: &Lab, node: &str) -> Daemon {
    let file = faults_of(lab, node);
    if !file.exists() {
        std::fs::write(&file, "").expect("the lab's folder is writable");
    }
    lab.serve_faulty(node, &format!("@{}", file.display()))
}

fn faults_of(lab: &Lab, node: &str) -> PathBuf {
    lab.path(&format!("{node}.faults"))
}

/// A node's replica in a volume's status. Panics: it is not listed.
pub fn replica<'v>(volume: &'v Value, node: &str) -> &'v Value {
    let replicas = volume["replicas"].as_array().expect("replicas is an array");
    let mut found = replicas.iter().filter(|replica| replica["node"] == node);
    found.next().expect("every configured node is listed")
}
