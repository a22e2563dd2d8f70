//! Bringing replicas up to date by hand.

use std::sync::Arc;

use axum::extract::{Path, State};
use engine::control::Request;

use super::Shared;
use super::body::ask;
use super::problem::Body;
use super::volume::{Answer, change};
use crate::explain;

/// `POST …/resync/start`. `from` may be this node itself: then the others are the targets.
pub(super) async fn start(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Body(ask): Body<ask::ResyncStart>,
) -> Answer {
    shared.replica(&name, &ask.from).await?;
    change(&shared, &name, Request::ResyncStart { from: ask.from }).await
}

/// `POST …/resync/pause`.
pub(super) async fn pause(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Body(ask::Nothing {}): Body<ask::Nothing>,
) -> Answer {
    change(&shared, &name, Request::ResyncPause).await
}

/// `POST …/resync/resume`.
pub(super) async fn resume(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Body(ask::Nothing {}): Body<ask::Nothing>,
) -> Answer {
    change(&shared, &name, Request::ResyncResume).await
}

/// `POST …/resync/rate`.
pub(super) async fn rate(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Body(ask): Body<ask::ResyncRate>,
) -> Answer {
    let bytes_per_second = ask.bytes_per_second;
    if bytes_per_second == Some(0) {
        return Err(explain::bad_request(
            "a rate of 0 would never end; use resync/pause",
        ));
    }
    change(&shared, &name, Request::ResyncSetRate { bytes_per_second }).await
}
