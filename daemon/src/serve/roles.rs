//! Volumes that served before a change of process, and serve again after it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::control::{Node, NodeSpec, Outcome, Request};
use engine::front_end::Service;
use engine::handover::HandedVolume;
use nbd_server::Volumes;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Longest time until a volume serves again.
const SERVING_MAX: Duration = Duration::from_secs(10);
/// Longest time one attempt waits for the volume's peers.
const PEERS_MAX: Duration = Duration::from_secs(5);
/// Pause between two looks at a volume, and between two attempts to promote it.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const RETRY_EVERY: Duration = Duration::from_millis(50);
/// Code of the refusal to promote what is primary on another node.
const PRIMARY_ELSEWHERE: &str = "E210";

/// A volume that does not serve again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) volume: String,
    pub(super) why: String,
    /// Another node serves it by now: it is not ours to give back.
    pub(super) is_elsewhere: bool,
}

/// Promotes everything that was primary, and waits until it serves. Volumes that are not
/// configured any more are left out.
pub(super) async fn serve_again(
    spec: &NodeSpec,
    node: &Arc<dyn Node>,
    volumes: &Arc<dyn Volumes>,
    handed: &[HandedVolume],
) -> Vec<Missing> {
    let mut tasks = JoinSet::new();
    for HandedVolume { name, .. } in handed.iter().filter(|volume| volume.was_primary) {
        let Some(volume) = spec.volumes.iter().find(|volume| volume.name == *name) else {
            continue;
        };
        let is_mirrored = volume.replicas.len() > 1;
        let (node, volumes, name) = (node.clone(), volumes.clone(), name.clone());
        tasks.spawn(async move { bring_up(&*node, &*volumes, name, is_mirrored).await });
    }
    let mut missing = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(found) => missing.extend(found),
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }
    missing
}

async fn bring_up(
    node: &dyn Node,
    volumes: &dyn Volumes,
    volume: String,
    is_mirrored: bool,
) -> Option<Missing> {
    let until = Instant::now() + SERVING_MAX;
    let mut why = "it did not become primary in time".to_owned();
    loop {
        let view = volumes.view(&volume);
        if view
            .as_ref()
            .is_some_and(|view| view.service == Service::Primary)
        {
            return None;
        }
        if Instant::now() >= until {
            if let Some(Service::Unavailable { reason }) = view.map(|view| view.service) {
                why = reason;
            }
            return Some(Missing {
                volume,
                why,
                is_elsewhere: false,
            });
        }
        if !is_mirrored {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        match promote(node, &volume).await {
            Some(Ok(_)) => tokio::time::sleep(LOOK_EVERY).await,
            Some(Err(refusal)) if refusal.code == PRIMARY_ELSEWHERE => {
                return Some(Missing {
                    volume,
                    why: refusal.text,
                    is_elsewhere: true,
                });
            }
            Some(Err(refusal)) => {
                why = refusal.text;
                tokio::time::sleep(RETRY_EVERY).await;
            }
            None => tokio::time::sleep(RETRY_EVERY).await,
        }
    }
}

async fn promote(node: &dyn Node, volume: &str) -> Option<Outcome> {
    let (answer, answered) = oneshot::channel();
    let request = Request::ServeAgain { wait: PEERS_MAX };
    let reply = Box::new(move |outcome| {
        let _ = answer.send(outcome);
    });
    node.request(volume, request, reply);
    answered.await.ok()
}
