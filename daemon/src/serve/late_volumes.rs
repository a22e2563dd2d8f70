//! Volumes for the NBD server before there is an engine: its ports are taken first, so that a port
//! in use is found before any volume is touched.

use std::sync::{Arc, OnceLock};

use engine::control::{Allocation, NodeSpec};
use engine::front_end::{AttachError, Attachment, Service, VolumeView};
use nbd_server::Volumes;

/// The configured volumes, none of them in service until the engine's are set.
pub(super) struct LateVolumes {
    configured: Vec<VolumeView>,
    running: OnceLock<Arc<dyn Volumes>>,
}

impl LateVolumes {
    /// Those of `spec`.
    pub(super) fn new(spec: &NodeSpec) -> Arc<LateVolumes> {
        let view = |volume: &engine::control::VolumeSpec| VolumeView {
            name: volume.name.clone(),
            size_bytes: volume.size_bytes,
            service: Service::Unavailable {
                reason: not_yet(&volume.name),
            },
            trims: volume.allocation == Allocation::Thin,
            clients: 0,
            contexts: VolumeView::usual_contexts(volume.replicas.len()),
        };
        let configured = spec.volumes.iter().map(view).collect();
        Arc::new(LateVolumes {
            configured,
            running: OnceLock::new(),
        })
    }

    /// From now on `volumes` answers. Called once.
    pub(super) fn set(&self, volumes: Arc<dyn Volumes>) {
        assert!(
            self.running.set(volumes).is_ok(),
            "the engine is started once"
        );
    }
}

fn not_yet(volume: &str) -> String {
    format!("{volume} is not attached yet")
}

impl Volumes for LateVolumes {
    fn view(&self, volume: &str) -> Option<VolumeView> {
        match self.running.get() {
            Some(running) => running.view(volume),
            None => self
                .configured
                .iter()
                .find(|view| view.name == volume)
                .cloned(),
        }
    }

    fn attach(&self, volume: &str, attachment: Attachment) -> Result<(), AttachError> {
        match self.running.get() {
            Some(running) => running.attach(volume, attachment),
            None => Err(AttachError::NotServed(not_yet(volume))),
        }
    }
}
