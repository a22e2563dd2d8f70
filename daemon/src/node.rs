//! The one place where the daemon meets the engine.

use std::sync::Arc;

use engine::control::{Node, NodeSpec};
use engine::front_end::{AttachError, Attachment, ExportLabel, VolumeView};
use engine::handover::Inherited;
use engine::log::Log;
use engine::node::NodeHandle;
use nbd_server::Volumes;

use crate::explain::{self, Failure};

/// Why a node did not start; nothing runs and nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct StartError {
    /// Stable code, for example `E126`.
    pub code: &'static str,
    /// What happened and to which listener or file.
    pub text: String,
    /// What the operator can do.
    pub hint: Option<String>,
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        explain::engine_did_not_start(error.code, &error.text, error.hint)
    }
}

/// A running engine, seen from both of its sides.
pub struct Started {
    /// For the API: requests, status, drain.
    pub node: Arc<dyn Node>,
    /// For the NBD server: what may be said of a volume, and clients handed over.
    pub volumes: Arc<dyn Volumes>,
}

/// How an engine is started; [`start_node`] everywhere but in tests. Called outside the runtime's
/// thread; returns once every volume was attached or found offline.
pub type StartNode = fn(NodeSpec, Arc<dyn Log>, Inherited) -> Result<Started, StartError>;

/// Starts the engine on `spec`. Errors: node-wide faults only, such as a port in use; a volume
/// that cannot attach is `offline` in its status. What another engine left behind is used.
pub fn start_node(
    spec: NodeSpec,
    log: Arc<dyn Log>,
    inherited: Inherited,
) -> Result<Started, StartError> {
    let handle = engine::node::start_with(spec, log, inherited).map_err(|why| StartError {
        code: "E126",
        text: explain::with_causes(&why),
        hint: None,
    })?;
    Ok(Started {
        volumes: Arc::new(EngineVolumes(handle.clone())),
        node: handle,
    })
}

/// The engine's volumes, as the NBD server sees them.
struct EngineVolumes(Arc<NodeHandle>);

impl Volumes for EngineVolumes {
    fn view(&self, volume: &str) -> Option<VolumeView> {
        self.0.view(volume)
    }

    fn attach(&self, volume: &str, attachment: Attachment) -> Result<(), AttachError> {
        self.0.attach(volume, attachment)
    }

    fn cut_off(&self, volume: &str, export: &ExportLabel) {
        Volumes::cut_off(&*self.0, volume, export);
    }
}
