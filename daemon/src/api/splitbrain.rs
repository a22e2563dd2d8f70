//! Split brains: what each side has, and giving up this side.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use engine::control::{Done, Request};

use super::Shared;
use super::body::{SplitBrainReport, ask};
use super::problem::Body;
use super::volume::{Answer, change};
use crate::explain::{self, Failure};

/// `GET …/splitbrain`: as this node knew it when the two last compared.
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Json<SplitBrainReport>, Failure> {
    let found = match shared.ask(&name, Request::Partings).await? {
        Done::Partings(found) => found,
        _ => Vec::new(),
    };
    let node = &shared.facts.spec.name;
    Ok(Json(SplitBrainReport::new(&name, node, &found)))
}

/// `POST …/splitbrain/give-up`: this node's copy goes, that of `keep` stays.
pub(super) async fn give_up(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Body(ask): Body<ask::GiveUp>,
) -> Answer {
    if ask.keep == shared.facts.spec.name {
        return Err(explain::kept_side(&name, &ask.keep));
    }
    shared.peer(&name, &ask.keep).await?;
    let token = ask
        .token
        .as_deref()
        .map(|text| u64::from_str_radix(text, 16));
    let token = token.transpose();
    let token = token.map_err(|_| explain::bad_request("`token` is no hexadecimal number"))?;
    let keep = ask.keep;
    change(&shared, &name, Request::GiveUp { keep, token }).await
}
