//! Comparing the copies.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use engine::control::{Done, Request};

use super::Shared;
use super::body::{VerifyReport, ask};
use super::problem::Body;
use crate::explain::Failure;

/// `POST …/verify`: starts one and answers with its figures so far.
pub(super) async fn start(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Body(ask::Nothing {}): Body<ask::Nothing>,
) -> Result<Json<VerifyReport>, Failure> {
    match shared.change(&name, Request::Verify).await? {
        Done::Verify(report) => Ok(Json(VerifyReport::new(&name, report))),
        _ => figures(&shared, &name).await,
    }
}

/// `GET …/verify`: figures of the running or the latest one.
pub(super) async fn latest(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Json<VerifyReport>, Failure> {
    figures(&shared, &name).await
}

async fn figures(shared: &Shared, name: &str) -> Result<Json<VerifyReport>, Failure> {
    let report = match shared.ask(name, Request::VerifyStatus).await? {
        Done::Verify(report) => report,
        _ => Default::default(),
    };
    Ok(Json(VerifyReport::new(name, report)))
}
