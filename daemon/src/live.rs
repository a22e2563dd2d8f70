//! What of the configuration changes while the node runs: NBD exports and certificates, those of
//! links between nodes too.
//!
//! ```text
//!  file ─► checked whole ─► exports and certificates ─► NbdServer, at once
//!            └ errors: nothing changes   └ anything else that differs: named, needs a restart
//! ```
//!
//! The file is the one home of what is declared: a verb that changes an export edits it, checked
//! before, and then takes it over like `config apply`. Clients that are attached stay.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::control::{
    Done, NbdExportSpec, Node as EngineNode, NodeSpec, Quorum, Request, VolumeSpec, Votes,
};
use engine::front_end::ExportLabel;
use engine::tls::LinkTls;
use nbd_proto::{ExportName, NbdUri, Transport, UriTls};
use nbd_server::{Elsewhere, Limits, NbdConfig, NbdExport, NbdServer, NbdTls};
use tokio::sync::{Mutex, oneshot};

use crate::config::edit::{self, EditError};
use crate::config::units::exact_size;
use crate::config::{Hooks, Listener, Loaded, Node};
use crate::explain::{self, Failure};

/// The part of a running node that follows its file.
pub struct Live {
    path: PathBuf,
    node: String,
    nbd: Arc<NbdServer>,
    engine: Arc<dyn EngineNode>,
    /// Where clients find the NBD server.
    transports: Vec<Transport>,
    /// Locked by whoever changes something: one change at a time.
    started: Mutex<Started>,
}

/// What a node was started with and keeps until it ends, but for sizes of volumes, which grow.
#[derive(Clone, PartialEq, Eq)]
struct Started {
    /// Without exports.
    spec: NodeSpec,
    api: Option<String>,
    limits: Limits,
    insecure: Vec<Listener>,
    elsewhere: Vec<Elsewhere>,
    hooks: Vec<Hooks>,
    /// Links between nodes are under TLS.
    has_link_tls: bool,
}

/// What taking the file over came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Exports of this node now.
    pub exports: usize,
    /// What differs from the running node and needs a restart.
    pub restart: Vec<String>,
    /// Verbs that do what the file asks for beyond that.
    pub verbs: Vec<String>,
    /// What comes of the replicas and witnesses that the file lists.
    pub nodes: Vec<String>,
}

/// A file that was found good, and what it brings.
struct Next {
    exports: Vec<NbdExport>,
    tls: Option<NbdTls>,
    link_tls: Option<LinkTls>,
    restart: Vec<String>,
    verbs: Vec<String>,
}

impl Live {
    /// A node that was started from `loaded`, and its NBD server.
    pub fn new(
        loaded: &Loaded,
        node: &Node,
        nbd: Arc<NbdServer>,
        engine: Arc<dyn EngineNode>,
    ) -> Live {
        let transports = node.nbd_transports().into_iter();
        Live {
            path: loaded.path.clone(),
            node: node.name.value.clone(),
            nbd,
            engine,
            transports: transports.map(|(transport, _)| transport).collect(),
            started: Mutex::new(Started::with(loaded, node)),
        }
    }

    /// The file it follows.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Exports of a volume now.
    pub fn exports(&self, volume: &str) -> Vec<NbdExportSpec> {
        let exports = self.nbd.exports().into_iter();
        let here = exports.filter(|export| export.volume == volume);
        here.map(|export| export.spec).collect()
    }

    /// The export of this name, to tell its clients from others.
    pub fn label(&self, export: &str) -> Option<ExportLabel> {
        self.nbd.label(export)
    }

    /// Where clients find the NBD server, and whether they need TLS there now.
    pub fn transports(&self) -> Vec<(Transport, bool)> {
        let tls = self.nbd.tls();
        let needs_tls = |transport: &Transport| {
            tls.as_ref().is_some_and(|tls| match transport {
                Transport::Unix { .. } => tls.unix_required,
                _ => tls.tcp_required,
            })
        };
        let transports = self.transports.iter();
        transports.map(|at| (at.clone(), needs_tls(at))).collect()
    }

    /// Takes over what the file says now. Errors: it cannot be read or has errors, or a
    /// certificate it names has; then nothing changes.
    pub async fn apply(&self) -> Result<Applied, Failure> {
        let started = self.started.lock().await;
        let loaded = self.read()?;
        let next = self.look_at(&loaded, &started)?;
        let mut applied = self.take_over(next, None)?;
        self.change_nodes(&loaded, &started, &mut applied).await;
        Ok(applied)
    }

    /// Talks to nodes that are new, and lets volumes that are primary here have the replicas and
    /// witnesses that the file lists.
    async fn change_nodes(&self, loaded: &Loaded, started: &Started, applied: &mut Applied) {
        let mut nodes = loaded.config.nodes.iter();
        let Some(node) = nodes.find(|node| node.name.value == self.node) else {
            return;
        };
        let spec = loaded.config.node_spec(node);
        let said = &mut applied.nodes;
        if let Err(why) = self.engine.meet(&spec.needed_peers()) {
            said.push(format!("a node that is new cannot be talked to: {why}"));
        }
        for before in &started.spec.volumes {
            let volume = loaded.config.members(&before.name);
            let Some((replicas, votes)) = volume.filter(|(_, votes)| have_voters(before, votes))
            else {
                continue;
            };
            let is_new = before.votes.witnesses != votes.witnesses || before.replicas != replicas;
            let request = Request::Nodes {
                replicas,
                witnesses: votes.witnesses,
            };
            let (answer, answered) = oneshot::channel();
            // Nobody waits any more if the receiver is gone.
            let reply = Box::new(move |outcome| drop(answer.send(outcome)));
            self.engine.request(&before.name, request, reply);
            match answered.await {
                Ok(Ok(Done::Ok(text))) => said.push(text),
                // Where it is not primary, only what is new in the file is worth a word; to a witness
                // none.
                Ok(Err(refusal))
                    if refusal.code != "E232" && (refusal.code != "E274" || is_new) =>
                {
                    let hint = refusal
                        .hint
                        .map_or(String::new(), |hint| format!(" ({hint})"));
                    said.push(format!("{}: {}{hint}", refusal.code, refusal.text));
                    applied.verbs.push("pollux config apply".to_owned());
                }
                _ => {}
            }
        }
    }

    /// Changes the file by `change` and takes it over; `renamed` is the old name and the new of an
    /// export. Errors: as [`Live::apply`], of the file as it is or as it would be; it cannot be
    /// changed so, or not be written. Then nothing changes.
    pub async fn edit(
        &self,
        change: impl FnOnce(&str) -> Result<String, EditError>,
        renamed: Option<(&str, &str)>,
    ) -> Result<Applied, Failure> {
        let started = self.started.lock().await;
        let after = self.edited(change)?;
        let next = self.look_at(&after, &started)?;
        edit::replace(&self.path, &after.source)
            .map_err(|why| explain::cannot_write(&self.path, &why))?;
        self.take_over(next, renamed)
    }

    /// Grows a volume by `grow` and writes its size into the file, which is taken over. Errors: as
    /// [`Live::edit`], or of `grow`; then nothing changes. Only that the file cannot be written
    /// is found out last, and says so.
    pub async fn resize(
        &self,
        volume: &str,
        size_bytes: u64,
        grow: impl Future<Output = Result<Done, Failure>>,
    ) -> Result<Done, Failure> {
        let mut started = self.started.lock().await;
        let after = self.edited(|text| edit::resize(text, volume, size_bytes))?;
        let mut grown = started.clone();
        let mut volumes = grown.spec.volumes.iter_mut();
        if let Some(found) = volumes.find(|found| found.name == volume) {
            found.size_bytes = size_bytes;
        }
        let next = self.look_at(&after, &grown)?;
        let done = grow.await?;
        *started = grown;
        edit::replace(&self.path, &after.source)
            .map_err(|why| explain::size_not_written(&self.path, volume, size_bytes, &why))?;
        self.take_over(next, None)?;
        Ok(done)
    }

    fn edited(
        &self,
        change: impl FnOnce(&str) -> Result<String, EditError>,
    ) -> Result<Loaded, Failure> {
        let before = self.read()?;
        let text = change(&before.source).map_err(|why| explain::cannot_edit(&self.path, &why))?;
        let after = Loaded::parse(&self.path, text);
        match after.errors() {
            0 => Ok(after),
            _ => Err(explain::edit_is_wrong(&after)),
        }
    }

    fn read(&self) -> Result<Loaded, Failure> {
        let loaded =
            Loaded::read(&self.path).map_err(|why| explain::config_unreadable(&self.path, &why))?;
        match loaded.errors() {
            0 => Ok(loaded),
            _ => Err(explain::config_invalid(&loaded)),
        }
    }

    /// Everything that may fail.
    fn look_at(&self, loaded: &Loaded, started: &Started) -> Result<Next, Failure> {
        let mut nodes = loaded.config.nodes.iter();
        let node = nodes
            .find(|node| node.name.value == self.node)
            .ok_or_else(|| explain::node_left_the_file(&self.path, &self.node))?;
        let (mut restart, verbs) = differences(started, &Started::with(loaded, node));
        let (tls, is_relaxed) = stricter(self.nbd.tls(), tls_of(loaded, node)?);
        if is_relaxed {
            restart.push(format!("[node.{}.nbd_tls]", self.node));
        }
        let link_tls = link_tls_of(loaded, node)?.filter(|_| started.has_link_tls);
        let spec = loaded.config.node_spec(node);
        let mut exports = NbdConfig::of(&spec).exports;
        // Those of a volume that is new come with it, at the next start.
        exports.retain(|export| {
            let mut volumes = started.spec.volumes.iter();
            volumes.any(|volume| volume.name == export.volume)
        });
        // Whoever is to leave a volume may be its primary, and serves until it does not.
        let leaves = |name: &String| {
            let before = started.volume(name);
            let votes = loaded.config.members(name).map(|(_, votes)| votes);
            let mut held = spec.volumes.iter();
            !held.any(|volume| volume.name == *name)
                && before.is_some_and(|b| votes.is_some_and(|votes| have_voters(b, &votes)))
        };
        let before = self.nbd.exports().into_iter();
        exports.extend(before.filter(|export| leaves(&export.volume)));
        nbd_server::check_exports(&exports).map_err(|why| explain::nbd_did_not_start(&why))?;
        Ok(Next {
            exports,
            tls,
            link_tls,
            restart,
            verbs,
        })
    }

    fn take_over(&self, next: Next, renamed: Option<(&str, &str)>) -> Result<Applied, Failure> {
        self.nbd
            .set_exports(&next.exports, renamed)
            .map_err(|why| explain::nbd_did_not_start(&why))?;
        self.nbd.set_tls(next.tls);
        if let Some(tls) = next.link_tls {
            self.engine.renew_tls(tls);
        }
        Ok(Applied {
            exports: next.exports.len(),
            restart: next.restart,
            verbs: next.verbs,
            nodes: Vec::new(),
        })
    }
}

/// The node's certificates and where they are asked for. Errors: exit 9, with the finding.
pub fn tls_of(loaded: &Loaded, node: &Node) -> Result<Option<NbdTls>, Failure> {
    let identity = node
        .nbd_identity()
        .map_err(|found| explain::certificates_unusable(loaded, &found))?;
    Ok(identity.map(|identity| NbdTls {
        identity,
        tcp_required: node.nbd_tcp_needs_tls(),
        unix_required: node.nbd_socket_needs_tls(),
    }))
}

/// The certificates of the node's links. Errors: exit 9, with the finding.
pub fn link_tls_of(loaded: &Loaded, node: &Node) -> Result<Option<LinkTls>, Failure> {
    let identity = loaded.config.link_identity(node);
    identity.map_err(|found| explain::certificates_unusable(loaded, &found))
}

/// The new certificates, asked for wherever they were or are to be: an open listener stays as it
/// was opened. True if the file asks for less than that.
fn stricter(now: Option<NbdTls>, next: Option<NbdTls>) -> (Option<NbdTls>, bool) {
    match (now, next) {
        (Some(now), Some(next)) => {
            let is_relaxed = (now.tcp_required && !next.tcp_required)
                || (now.unix_required && !next.unix_required);
            let tls = NbdTls {
                identity: next.identity,
                tcp_required: now.tcp_required || next.tcp_required,
                unix_required: now.unix_required || next.unix_required,
            };
            (Some(tls), is_relaxed)
        }
        (Some(now), None) => (Some(now), true),
        (None, next) => (next, false),
    }
}

/// The NBD server of `node`, but for its certificates.
pub fn nbd_config(loaded: &Loaded, node: &Node) -> NbdConfig {
    let mut config = NbdConfig::of(&loaded.config.node_spec(node));
    config.limits = node.nbd_limits;
    config.elsewhere = elsewhere(loaded, node);
    config
}

fn elsewhere(loaded: &Loaded, node: &Node) -> Vec<Elsewhere> {
    let default_export = ExportName::new("").expect("the empty name is one");
    let of = |other: &Node| {
        Some(Elsewhere {
            node: other.name.value.clone(),
            uri: NbdUri {
                transport: other.nbd_tcp()?,
                export: default_export.clone(),
                tls: other.nbd_tcp_needs_tls().then(UriTls::default),
            },
        })
    };
    let nodes = loaded.config.nodes.iter();
    let others = nodes.filter(|other| other.name.value != node.name.value);
    others.filter_map(of).collect()
}

impl Started {
    fn volume(&self, name: &str) -> Option<&VolumeSpec> {
        self.spec.volumes.iter().find(|volume| volume.name == name)
    }

    fn with(loaded: &Loaded, node: &Node) -> Started {
        let mut spec = loaded.config.node_spec(node);
        for volume in &mut spec.volumes {
            volume.nbd.clear();
        }
        let held = loaded.config.volumes.iter().filter(|v| v.is_on(&node.name));
        let hooks = held.map(|volume| volume.hooks.clone());
        Started {
            spec,
            api: node.api.as_ref().map(|address| address.to_string()),
            limits: node.nbd_limits,
            insecure: node.insecure.clone(),
            elsewhere: elsewhere(loaded, node),
            hooks: hooks.collect(),
            has_link_tls: node.link_tls.is_some(),
        }
    }
}

/// A majority chooses who serves it, as before: its primary changes its nodes while it is served.
fn have_voters(before: &VolumeSpec, after: &Votes) -> bool {
    let has = |votes: &Votes| votes.quorum == Quorum::Majority;
    has(&before.votes) && has(after)
}

/// An address of a node that was there before is another one. Nodes that are new are talked to.
fn has_other_addresses(old: &Started, new: &Started) -> bool {
    let is_kept = |name: &String| new.spec.peers.iter().any(|(node, _)| node == name);
    let is_old = |name: &String| old.spec.peers.iter().any(|(node, _)| node == name);
    let peers = |at: &Started| -> Vec<(String, Vec<String>)> {
        let both = at
            .spec
            .peers
            .iter()
            .filter(|(n, _)| is_kept(n) && is_old(n));
        both.cloned().collect()
    };
    let elsewhere = |at: &Started| -> Vec<Elsewhere> {
        let both = at
            .elsewhere
            .iter()
            .filter(|e| is_kept(&e.node) && is_old(&e.node));
        both.cloned().collect()
    };
    peers(old) != peers(new) || elsewhere(old) != elsewhere(new)
}

/// What differs between two nodes of one name: what needs a restart, by the words of the file, and
/// verbs for the rest.
fn differences(old: &Started, new: &Started) -> (Vec<String>, Vec<String>) {
    let cluster = |at: &Started| {
        let NodeSpec {
            cluster,
            keepalive,
            peer_timeout,
            member_timeout,
            etcd,
            ..
        } = at.spec.clone();
        (cluster, keepalive, peer_timeout, member_timeout, etcd)
    };
    let node = |at: &Started| {
        let NodeSpec {
            data_dir,
            addresses,
            nbd,
            nbd_socket,
            reactors,
            ..
        } = at.spec.clone();
        (data_dir, addresses, nbd, nbd_socket, reactors)
    };
    let rest = |at: &Started| (at.api.clone(), at.limits, at.insecure.clone());
    let (mut found, mut verbs) = (Vec::new(), Vec::new());
    let mut note = |differs: bool, what: String| {
        if differs {
            found.push(what);
        }
    };
    note(cluster(old) != cluster(new), "[cluster]".to_owned());
    note(
        node(old) != node(new) || rest(old) != rest(new),
        format!("[node.{}]", old.spec.name),
    );
    note(
        has_other_addresses(old, new),
        "addresses of nodes".to_owned(),
    );
    note(old.has_link_tls != new.has_link_tls, "[tls]".to_owned());
    note(old.hooks != new.hooks, "hooks of volumes".to_owned());
    let of = |at: &Started, name: &str| -> Option<VolumeSpec> {
        let mut volumes = at.spec.volumes.iter();
        volumes.find(|volume| volume.name == name).cloned()
    };
    for volume in &old.spec.volumes {
        let name = &volume.name;
        match of(new, name) {
            None => note(true, format!("[volume.{name}] (removed)")),
            Some(mut after) => {
                if after.size_bytes > volume.size_bytes && after.replicas.len() == 1 {
                    let size = exact_size(after.size_bytes);
                    verbs.push(format!("pollux volume resize {name} {size}"));
                    after.size_bytes = volume.size_bytes;
                }
                if have_voters(volume, &after.votes) {
                    after.votes.witnesses = volume.votes.witnesses.clone();
                    after.replicas = volume.replicas.clone();
                }
                note(after != *volume, format!("[volume.{name}]"));
            }
        }
    }
    for volume in &new.spec.volumes {
        let name = &volume.name;
        note(of(old, name).is_none(), format!("[volume.{name}] (new)"));
    }
    (found, verbs)
}

impl Applied {
    /// One line for people.
    pub fn text(&self, path: &Path) -> String {
        let exports = explain::counted(self.exports, "export");
        let mut text = format!("{}: {exports} in force", path.display());
        if !self.restart.is_empty() {
            text.push_str(&format!("; needs a restart: {}", self.restart.join(", ")));
        }
        for said in &self.nodes {
            text.push_str(&format!("; {said}"));
        }
        for verb in &self.verbs {
            text.push_str(&format!("; not done yet: {verb}"));
        }
        text
    }
}
