//! The node's HTTP API: JSON over `<data_dir>/pollux.sock`, and read-only over TCP.
//!
//! ```text
//! Unix socket ─► peer credentials ─► router (all)       ─┐
//! TCP (`api`) ────────────────────► router (read-only) ─┴─► Node::request / Node::status
//! ```
//!
//! Every answer that is no success is an `application/problem+json` with code, text, hint and the
//! exit code of the command line. Nothing here holds state of volumes.

pub mod body;
mod export;
pub mod listen;
mod marks;
mod metrics;
mod problem;
mod resync;
mod splitbrain;
mod status;
mod verify;
mod volume;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::routing::{get, post};
use engine::control::{DiskState, Done, Node, NodeSpec, Request, VolumeSpec, VolumeStatus};
use nbd_proto::Transport;
use tokio::sync::oneshot;

use crate::config::{self, Config, nearest};
use crate::explain::{self, Failure};
use crate::live::Live;
use crate::verified::Verified;

/// Longest request body that is read, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What all requests share.
pub struct Shared {
    node: Arc<dyn Node>,
    facts: Facts,
    live: Option<Live>,
    /// When copies were compared last.
    pub(crate) verified: Verified,
    draining: AtomicBool,
}

/// What the API says of a node beyond what its engine knows.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What it runs.
    pub spec: NodeSpec,
    /// Its listeners beyond loopback without TLS.
    pub insecure: Vec<&'static str>,
    /// Where clients find its NBD server, and whether it serves nobody there without TLS.
    pub nbd: Vec<(Transport, bool)>,
}

impl Facts {
    /// Those of `node` in `config`.
    pub fn of(config: &Config, node: &config::Node) -> Facts {
        Facts {
            spec: config.node_spec(node),
            insecure: node.insecure_words(),
            nbd: node.nbd_transports(),
        }
    }
}

/// What a listener lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Status, metrics and changes.
    All,
    /// Status and metrics; the path names the socket where changes go.
    ReadOnly(PathBuf),
}

impl Shared {
    /// The API of `node`, of which `facts` are known.
    pub fn new(node: Arc<dyn Node>, facts: Facts) -> Arc<Shared> {
        Arc::new(Shared {
            node,
            facts,
            live: None,
            verified: Verified::default(),
            draining: AtomicBool::new(false),
        })
    }

    /// The same of a node that follows its file.
    pub fn with_live(
        node: Arc<dyn Node>,
        facts: Facts,
        live: Live,
        verified: Verified,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            node,
            facts,
            live: Some(live),
            verified,
            draining: AtomicBool::new(false),
        })
    }

    /// What follows the file, if the node does.
    pub fn live(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on changes are refused; status goes on.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The configured volume `name`. Errors: not on this node.
    fn volume(&self, name: &str) -> Result<&VolumeSpec, Failure> {
        let volumes = &self.facts.spec.volumes;
        volumes
            .iter()
            .find(|volume| volume.name == name)
            .ok_or_else(|| {
                let known: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
                let near = nearest(name, known.iter().copied());
                explain::no_such_volume(name, &self.facts.spec.name, near, &known)
            })
    }

    /// The configured volume `name` must have a replica on this node, as it is now: the file may say
    /// what is not so yet.
    async fn replica(&self, name: &str, node: &str) -> Result<(), Failure> {
        self.volume(name)?;
        let found = self.volumes(Some(name)).await?;
        let mut replicas = found.iter().flat_map(|volume| &volume.replicas);
        match replicas.any(|r| r.node == node && r.disk_state != DiskState::Diskless) {
            true => Ok(()),
            false => Err(explain::no_such_peer(node, Some(name))),
        }
    }

    /// As [`Shared::replica`], on another node.
    async fn peer(&self, name: &str, peer: &str) -> Result<(), Failure> {
        self.replica(name, peer).await?;
        match peer != self.facts.spec.name {
            true => Ok(()),
            false => Err(explain::no_such_peer(peer, Some(name))),
        }
    }

    /// Asks the engine for one change of a configured volume.
    pub(crate) async fn change(&self, name: &str, request: Request) -> Result<Done, Failure> {
        if self.is_draining() {
            return Err(explain::draining());
        }
        let asked = explain::asked(&request);
        let outcome = self.ask(name, request).await;
        match &outcome {
            Ok(Done::Ok(text) | Done::Already(text)) => {
                tracing::info!(code = "I123", volume = name, "{asked}: {text}");
            }
            Ok(Done::Marks(_) | Done::Partings(_)) => {}
            Ok(Done::Verify(_)) => tracing::info!(code = "I123", volume = name, "{asked}: begun"),
            Err(refused) => {
                let code = &*refused.code;
                tracing::warn!(code, volume = name, "{asked} refused: {}", refused.text);
            }
        }
        outcome
    }

    pub(crate) async fn ask(&self, name: &str, request: Request) -> Result<Done, Failure> {
        self.volume(name)?;
        let (answer, answered) = oneshot::channel();
        let reply = Box::new(move |outcome| {
            // The caller may have hung up; the change stands all the same.
            let _ = answer.send(outcome);
        });
        self.node.request(name, request, reply);
        match answered.await {
            Ok(outcome) => outcome.map_err(Failure::from),
            Err(oneshot::error::RecvError { .. }) => Err(explain::engine_gone(name)),
        }
    }

    /// Status of one volume or of all.
    pub(crate) async fn volumes(&self, name: Option<&str>) -> Result<Vec<VolumeStatus>, Failure> {
        volume_status(&*self.node, name)
            .await
            .ok_or_else(|| explain::engine_gone(name.unwrap_or("(all)")))
    }
}

/// Status of one volume or of all; `None` if the engine is gone.
pub(crate) async fn volume_status(
    node: &dyn Node,
    name: Option<&str>,
) -> Option<Vec<VolumeStatus>> {
    let (answer, answered) = oneshot::channel();
    let reply = Box::new(move |volumes| {
        let _ = answer.send(volumes);
    });
    node.status(name, reply);
    answered.await.ok()
}

/// All routes that `access` allows.
pub fn router(shared: Arc<Shared>, access: Access) -> Router {
    let reading = Router::new()
        .route("/api/v1/status", get(status::status))
        .route("/metrics", get(metrics::metrics));
    let router = match access {
        Access::ReadOnly(socket) => reading.fallback(move |method: Method, uri: Uri| async move {
            problem::read_only(&method, uri.path(), &socket)
        }),
        Access::All => reading
            .merge(changing())
            .fallback(|uri: Uri| async move { explain::no_such_route(uri.path()) }),
    };
    router
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

fn changing() -> Router<Arc<Shared>> {
    Router::new()
        .route("/api/v1/volumes/{name}", get(status::volume))
        .route("/api/v1/volumes/{name}/create", post(volume::create))
        .route("/api/v1/volumes/{name}/delete", post(volume::delete))
        .route("/api/v1/volumes/{name}/resize", post(volume::resize))
        .route("/api/v1/volumes/{name}/scrub", post(volume::scrub))
        .route("/api/v1/volumes/{name}/promote", post(volume::promote))
        .route("/api/v1/volumes/{name}/demote", post(volume::demote))
        .route(
            "/api/v1/volumes/{name}/peers/{peer}/connect",
            post(volume::peer_connect),
        )
        .route(
            "/api/v1/volumes/{name}/peers/{peer}/disconnect",
            post(volume::peer_disconnect),
        )
        .route("/api/v1/volumes/{name}/resync/start", post(resync::start))
        .route("/api/v1/volumes/{name}/resync/pause", post(resync::pause))
        .route("/api/v1/volumes/{name}/resync/resume", post(resync::resume))
        .route("/api/v1/volumes/{name}/resync/rate", post(resync::rate))
        .route("/api/v1/volumes/{name}/splitbrain", get(splitbrain::show))
        .route(
            "/api/v1/volumes/{name}/splitbrain/give-up",
            post(splitbrain::give_up),
        )
        .route("/api/v1/volumes/{name}/marks", get(marks::list))
        .route(
            "/api/v1/volumes/{name}/marks/{mark}/create",
            post(marks::create),
        )
        .route(
            "/api/v1/volumes/{name}/marks/{mark}/delete",
            post(marks::delete),
        )
        .route(
            "/api/v1/volumes/{name}/verify",
            get(verify::latest).post(verify::start),
        )
        .route("/api/v1/volumes/{name}/exports/add", post(export::add))
        .route(
            "/api/v1/volumes/{name}/exports/remove",
            post(export::remove),
        )
        .route(
            "/api/v1/volumes/{name}/exports/rename",
            post(export::rename),
        )
        .route(
            "/api/v1/volumes/{name}/disconnect",
            post(export::disconnect),
        )
        .route("/api/v1/config/apply", post(export::apply))
        .method_not_allowed_fallback(|uri: Uri| async move { explain::no_such_route(uri.path()) })
}

/// One segment of a path, or a value of a query, whatever it holds: everything but unreserved
/// characters as `%XX`. Source: RFC 3986, 2.3.
pub(crate) fn percent_encode(segment: &str) -> String {
    let mut text = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
