//! The start of a session: first all that may fail, then the word to a predecessor, then everybody
//! is let in.
//!
//! ```text
//! prepare: sockets, engine, roles ─► commit ─► hooks, NBD, API ─► seat clients ─► door ─► READY
//!    └────────────────────────────────┴─ failed: abort, the predecessor goes on
//! ```

use std::sync::Arc;
use std::time::Instant;

use engine::control::{Node, NodeSpec};
use engine::handover::Inherited;
use engine::log::Log;
use nbd_server::{NbdConfig, NbdServer};
use tracing::{error, info, warn};

use super::hooks::Followed;
use super::roles::{self, Missing};
use super::session::{Session, drained};
use super::signals::Signals;
use super::sockets::{self, Sockets};
use super::{Daemon, notify, verifies, watch};
use crate::api::listen::serve_tcp;
use crate::api::{self, Access, Facts, Shared};
use crate::config::Node as NodeConfig;
use crate::exit::Exit;
use crate::explain::{self, Failure, counted};
use crate::handover::{self, Door, Given, Predecessor, Role};
use crate::live::{self, Live};
use crate::node::{StartNode, Started};
use crate::verified::Verified;

impl Daemon<'_> {
    /// Starts everything; what was given is used, clients go on. A signal that came meanwhile is
    /// returned beside it.
    pub(super) async fn start(
        &mut self,
        mut given: Given,
        predecessor: Option<Predecessor>,
        log: &Arc<dyn Log>,
        signals: &mut Signals,
    ) -> Result<(Session, Option<&'static str>), Failure> {
        let began = Instant::now();
        let facts = Facts::of(&self.loaded.config, self.node);
        let mut nbd_config = live::nbd_config(self.loaded, self.node);
        nbd_config.tls = self.tls.clone();
        let prepared = self
            .prepare(&facts.spec, &nbd_config, &mut given, log, signals)
            .await;
        let (sockets, started, missing, stop) = match (prepared, &predecessor) {
            (Ok(prepared), _) => prepared,
            (Err(failure), None) => return Err(failure),
            (Err(failure), Some(from)) => {
                from.abort(&failure.text);
                return Err(explain::takeover_failed(&failure.text));
            }
        };
        let engine = started.node;
        if let Some(from) = &predecessor {
            let lost = missing.iter().find(|missing| !missing.is_elsewhere);
            let why = match lost {
                Some(Missing { volume, why, .. }) => Err(format!("{volume} does not serve: {why}")),
                None => from.commit(),
            };
            if let Err(why) = why {
                // The volumes are given back as clean as they came.
                let _ = drained(&engine).await;
                drop(engine);
                from.abort(&why);
                return Err(explain::takeover_failed(&why));
            }
            sockets::remove_unused(&mut given);
        }
        let session = self.open_up(facts, nbd_config, sockets, engine, started.volumes, log)?;
        let seated = session.seat(&mut given, &missing);
        if let Some(Predecessor { pid, .. }) = predecessor {
            let text = format!(
                "taken over from pid {pid} with {} in {} ms",
                counted(seated, "client"),
                began.elapsed().as_millis()
            );
            info!(code = "I126", "{text}");
            // Only people read it.
            let _ = self.lock.sign();
            notify::send(&format!("MAINPID={}", std::process::id()));
        }
        self.open_door(&mut given);
        notify::send("READY=1\nSTATUS=running");
        Ok((session, stop))
    }

    /// Everything that may fail before anything is irrevocable: sockets, engine, roles.
    async fn prepare(
        &self,
        spec: &NodeSpec,
        nbd: &NbdConfig,
        given: &mut Given,
        log: &Arc<dyn Log>,
        signals: &mut Signals,
    ) -> Result<(Sockets, Started, Vec<Missing>, Option<&'static str>), Failure> {
        let sockets = Sockets::open(self.node, nbd, given)?;
        let replication = spec.addresses.iter().filter_map(|address| {
            let socket = given.take(Role::Replication, address)?;
            Some((address.clone(), socket.into()))
        });
        let replication = replication.collect();
        let inherited = Inherited {
            lock: given.engine_lock.take(),
            replication,
        };
        let sealed = NodeSpec {
            tls: self.link_tls.clone(),
            ..spec.clone()
        };
        let starting = start_engine(self.start, sealed, log.clone(), inherited, signals);
        let (started, stop) = starting.await?;
        let line = start_line(spec, self.node, &*started.node);
        info!(code = "I120", "{line}");
        let missing =
            roles::serve_again(spec, &started.node, &started.volumes, &given.volumes).await;
        Ok((sockets, started, missing, stop))
    }

    /// Lets everybody in.
    fn open_up(
        &self,
        facts: Facts,
        nbd_config: NbdConfig,
        sockets: Sockets,
        engine: Arc<dyn Node>,
        volumes: Arc<dyn nbd_server::Volumes>,
        log: &Arc<dyn Log>,
    ) -> Result<Session, Failure> {
        let socket_path = self.node.api_socket();
        let Sockets {
            api_socket,
            api,
            nbd,
        } = sockets;
        let address = self.node.api.as_ref().map(|address| address.to_string());
        let copied = sockets::copies(&api_socket, &socket_path, api.as_ref().zip(address));
        let cannot = |source| explain::cannot_run("sockets cannot be copied", &source);
        let (listeners, api_file) = copied.map_err(cannot)?;
        let hooks = Followed::start(&self.loaded.config, self.node, &volumes, &engine);
        let nbd = NbdServer::start_with(&nbd_config, volumes, log.clone(), nbd);
        let nbd = Arc::new(nbd.map_err(|why| explain::nbd_did_not_start(&why))?);
        let spec = facts.spec.clone();
        let live = Live::new(self.loaded, self.node, nbd.clone(), engine.clone());
        let volumes = spec.volumes.iter().map(|volume| volume.name.as_str());
        let verified = Verified::load(&self.node.data_dir, volumes);
        let shared = Shared::with_live(engine.clone(), facts, live, verified);
        let own_uid = rustix::process::geteuid().as_raw();
        let all = api::router(shared.clone(), Access::All);
        api_socket.own_file();
        let mut tasks = vec![tokio::spawn(async move {
            match api_socket.serve(all, own_uid).await {}
        })];
        if let Some(tcp) = api {
            tcp.set_nonblocking(true).map_err(cannot)?;
            let tcp = tokio::net::TcpListener::from_std(tcp).map_err(cannot)?;
            let reading = api::router(shared.clone(), Access::ReadOnly(socket_path));
            tasks.push(tokio::spawn(async move {
                match serve_tcp(tcp, reading).await {}
            }));
        }
        tasks.push(tokio::spawn(watch::log_changes(engine.clone())));
        let volumes = self.loaded.config.volumes.iter();
        let every = volumes.filter_map(|v| Some((v.name.value.clone(), v.verify_every?)));
        tasks.push(tokio::spawn(verifies::follow(
            shared.clone(),
            every.collect(),
        )));
        Ok(Session {
            engine,
            spec,
            nbd_config,
            nbd,
            shared,
            tasks,
            hooks: Some(hooks),
            listeners,
            api_file,
        })
    }

    /// From now on this process can be taken over.
    fn open_door(&mut self, given: &mut Given) {
        if self.door.is_some() {
            return;
        }
        let (data_dir, cluster) = (&self.node.data_dir, &self.loaded.config.cluster.name);
        let path = data_dir.join(handover::SOCKET).display().to_string();
        let open = given.take(Role::Handover, &path);
        match Door::open(data_dir, open, cluster, &self.node.name.value) {
            Ok(door) => self.door = Some(door),
            Err(why) => {
                warn!(
                    code = "W153",
                    "this process cannot be taken over: {path}: {why}"
                );
            }
        }
    }
}

/// Starts the engine; a signal that comes meanwhile is returned beside it, a second one ends the
/// process at once.
async fn start_engine(
    start: StartNode,
    spec: NodeSpec,
    log: Arc<dyn Log>,
    inherited: Inherited,
    signals: &mut Signals,
) -> Result<(Started, Option<&'static str>), Failure> {
    let mut starting = tokio::task::spawn_blocking(move || start(spec, log, inherited));
    let mut stop = None;
    loop {
        tokio::select! {
            started = &mut starting => {
                let started = started.map_err(|_| explain::engine_gone("(all)"))??;
                return Ok((started, stop));
            }
            name = signals.next() => match stop {
                None => stop = Some(name),
                Some(_) => {
                    error!(code = "E109", "{name} again: ending without start");
                    std::process::exit(i32::from(Exit::Failed.number()));
                }
            }
        }
    }
}

fn start_line(spec: &NodeSpec, node: &NodeConfig, engine: &dyn Node) -> String {
    let mut line = format!(
        "pollux {}: node {} of cluster {} runs {} with {}; {}",
        env!("CARGO_PKG_VERSION"),
        spec.name,
        spec.cluster,
        counted(spec.volumes.len(), "volume"),
        counted(spec.reactors, "reactor"),
        engine.io_backend(),
    );
    let socket = spec
        .nbd_socket
        .as_ref()
        .map(|path| path.display().to_string());
    for (what, address) in [
        (
            "replication",
            (!spec.addresses.is_empty()).then(|| spec.addresses.join(" and ")),
        ),
        ("nbd", spec.nbd.clone()),
        ("nbd", socket),
        ("api", node.api.as_ref().map(|api| api.to_string())),
    ] {
        if let Some(address) = address {
            line.push_str(&format!("; {what} {address}"));
        }
    }
    line
}
