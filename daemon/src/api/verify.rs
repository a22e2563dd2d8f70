//! Comparing the copies.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use engine::control::{Done, Repair, Request};

use super::Shared;
use super::body::{VerifyReport, ask};
use super::problem::Body;
use crate::explain::{self, Failure};

/// `POST …/verify`: starts one and answers with its figures so far.
pub(super) async fn start(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Body(ask): Body<ask::Verify>,
) -> Result<Json<VerifyReport>, Failure> {
    let repair = match ask {
        ask::Verify {
            repair: false,
            from: None,
        } => Repair::No,
        ask::Verify { from: None, .. } => Repair::Majority,
        ask::Verify {
            repair,
            from: Some(node),
        } => {
            if !repair {
                return Err(explain::bad_request(
                    "`from` says whose copy repairs the others",
                ));
            }
            shared.replica(&name, &node).await?;
            Repair::From(node)
        }
    };
    match shared.change(&name, Request::Verify { repair }).await? {
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
    let last = shared.verified.of(name);
    let report = VerifyReport::new(name, report);
    Ok(Json(VerifyReport { last, ..report }))
}
