//! Marks of changed blocks.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use engine::control::{Done, MarkName, Request};

use super::Shared;
use super::body::{MarksReport, ask};
use super::problem::Body;
use super::volume::{Answer, change};
use crate::explain::{self, Failure};

fn name_of(mark: &str) -> Result<MarkName, Failure> {
    mark.parse()
        .map_err(|wrong: engine::control::MarkNameError| explain::bad_request(wrong.to_string()))
}

/// `GET …/marks`.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Json<MarksReport>, Failure> {
    let marks = match shared.ask(&name, Request::MarkList).await? {
        Done::Marks(marks) => marks,
        _ => Vec::new(),
    };
    Ok(Json(MarksReport::new(&name, &marks)))
}

/// `POST …/marks/{mark}/create`.
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Path((volume, mark)): Path<(String, String)>,
    Body(ask): Body<ask::MarkCreate>,
) -> Answer {
    let name = name_of(&mark)?;
    let if_absent = ask.if_absent;
    change(&shared, &volume, Request::MarkCreate { name, if_absent }).await
}

/// `POST …/marks/{mark}/delete`.
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path((volume, mark)): Path<(String, String)>,
    Body(ask::Nothing {}): Body<ask::Nothing>,
) -> Answer {
    let name = name_of(&mark)?;
    change(&shared, &volume, Request::MarkDelete { name }).await
}
