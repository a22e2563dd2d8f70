//! Changes of one volume.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use engine::control::{Done, Request};

use super::Shared;
use super::body::{Changed, ask};
use super::problem::Body;
use crate::explain::Failure;

/// Answer to a change.
pub(super) type Answer = Result<Json<Changed>, Failure>;

/// Longest wait a promotion may ask for.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

impl From<Done> for Changed {
    fn from(done: Done) -> Changed {
        match done {
            Done::Ok(text) => Changed {
                changed: true,
                text,
            },
            Done::Already(text) => Changed {
                changed: false,
                text,
            },
            Done::Marks(marks) => Changed {
                changed: false,
                text: format!("{} marks", marks.len()),
            },
            Done::Partings(partings) => Changed {
                changed: false,
                text: format!("{} split brains", partings.len()),
            },
            Done::Verify(_) => Changed {
                changed: true,
                text: "verify has started".to_owned(),
            },
        }
    }
}

/// Asks for `request` and answers with what was done.
pub(super) async fn change(shared: &Shared, name: &str, request: Request) -> Answer {
    shared
        .change(name, request)
        .await
        .map(|done| Json(done.into()))
}

/// `POST …/resize`.
pub(super) async fn resize(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Body(ask::Resize { size_bytes }): Body<ask::Resize>,
) -> Answer {
    let live = super::export::open(&shared, &name)?;
    let grow = shared.change(&name, Request::Resize { size_bytes });
    let done = live.resize(&name, size_bytes, grow).await?;
    Ok(Json(done.into()))
}

/// `POST …/scrub`.
pub(super) async fn scrub(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Body(ask::Scrub { bytes_per_second }): Body<ask::Scrub>,
) -> Answer {
    change(&shared, &name, Request::Scrub { bytes_per_second }).await
}

/// `POST …/create`.
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Body(ask): Body<ask::Create>,
) -> Answer {
    let ask::Create { adopt, if_absent } = ask;
    change(&shared, &name, Request::Create { adopt, if_absent }).await
}

/// `POST …/delete`.
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Body(ask): Body<ask::Delete>,
) -> Answer {
    change(&shared, &name, Request::Delete { wipe: ask.wipe }).await
}

/// `POST …/promote`.
pub(super) async fn promote(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Body(ask): Body<ask::Promote>,
) -> Answer {
    let wait = Duration::from_millis(ask.wait_milliseconds).min(WAIT_MAX);
    change(
        &shared,
        &name,
        Request::Promote {
            force: ask.force,
            wait,
        },
    )
    .await
}

/// `POST …/demote`.
pub(super) async fn demote(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Body(ask): Body<ask::Demote>,
) -> Answer {
    change(
        &shared,
        &name,
        Request::Demote {
            disconnect: ask.disconnect,
        },
    )
    .await
}

/// `POST …/peers/{peer}/connect`.
pub(super) async fn peer_connect(
    State(shared): State<Arc<Shared>>,
    Path((name, peer)): Path<(String, String)>,
    Body(ask::Nothing {}): Body<ask::Nothing>,
) -> Answer {
    shared.peer(&name, &peer).await?;
    change(&shared, &name, Request::PeerConnect { node: peer }).await
}

/// `POST …/peers/{peer}/disconnect`.
pub(super) async fn peer_disconnect(
    State(shared): State<Arc<Shared>>,
    Path((name, peer)): Path<(String, String)>,
    Body(ask::Nothing {}): Body<ask::Nothing>,
) -> Answer {
    shared.peer(&name, &peer).await?;
    change(&shared, &name, Request::PeerDisconnect { node: peer }).await
}
