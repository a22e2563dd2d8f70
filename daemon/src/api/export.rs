//! NBD exports while the node runs, and taking the file over.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use engine::control::{Clients, Done, NbdExportSpec, Request};

use super::Shared;
use super::body::{AppliedReport, Changed, ask};
use super::problem::Body;
use super::volume::Answer;
use crate::config::edit;
use crate::config::nearest;
use crate::exit::Exit;
use crate::explain::{self, Failure};
use crate::live::Live;

/// `POST …/exports/add`.
pub(super) async fn add(
    State(shared): State<Arc<Shared>>,
    Path(volume): Path<String>,
    Body(ask): Body<ask::ExportAdd>,
) -> Answer {
    let live = open(&shared, &volume)?;
    live.edit(|text| edit::add(text, &volume, &ask), None)
        .await?;
    done(&volume, format!("{volume}: export {} is served", ask.name))
}

/// `POST …/exports/remove`.
pub(super) async fn remove(
    State(shared): State<Arc<Shared>>,
    Path(volume): Path<String>,
    Body(ask): Body<ask::ExportRemove>,
) -> Answer {
    let live = open(&shared, &volume)?;
    let name = known(live, &volume, &ask.name)?.name;
    let label = live.label(&name);
    live.edit(|text| edit::remove(text, &volume, &name), None)
        .await?;
    let mut text = format!("{volume}: export {name} is gone");
    let Some(label) = label.filter(|_| ask.disconnect) else {
        text.push_str("; clients that are attached stay");
        return done(&volume, text);
    };
    let clients = Clients::Export(label);
    match shared.ask(&volume, Request::Disconnect { clients }).await {
        Ok(Done::Ok(gone)) => text = format!("{text}; {gone}"),
        Ok(_) => {}
        // Nobody was attached.
        Err(refused) if refused.exit == Exit::NotFound => {}
        Err(refused) => text = format!("{text}; its clients stay: {}", refused.text),
    }
    done(&volume, text)
}

/// `POST …/exports/rename`.
pub(super) async fn rename(
    State(shared): State<Arc<Shared>>,
    Path(volume): Path<String>,
    Body(ask): Body<ask::ExportRename>,
) -> Answer {
    let live = open(&shared, &volume)?;
    let old = known(live, &volume, &ask.old)?.name;
    let new = &ask.new;
    live.edit(
        |text| edit::rename(text, &volume, &old, new),
        Some((&old, new)),
    )
    .await?;
    done(&volume, format!("{volume}: export {old} is now {new}"))
}

/// `POST …/disconnect`.
pub(super) async fn disconnect(
    State(shared): State<Arc<Shared>>,
    Path(volume): Path<String>,
    Body(ask): Body<ask::Disconnect>,
) -> Answer {
    let clients = match ask.client.parse() {
        Ok(id) => Clients::Id(id),
        Err(_) => Clients::Address(ask.client),
    };
    super::volume::change(&shared, &volume, Request::Disconnect { clients }).await
}

/// `POST /api/v1/config/apply`.
pub(super) async fn apply(
    State(shared): State<Arc<Shared>>,
    Body(ask::Nothing {}): Body<ask::Nothing>,
) -> Result<Json<AppliedReport>, Failure> {
    let live = live(&shared)?;
    let applied = live.apply().await?;
    let text = applied.text(live.path());
    tracing::info!(code = "I129", "{text}");
    Ok(Json(AppliedReport {
        exports: applied.exports,
        restart: applied.restart,
        commands: applied.verbs,
        text,
    }))
}

fn done(volume: &str, text: String) -> Answer {
    tracing::info!(code = "I123", volume, "{text}");
    Ok(Json(Changed {
        changed: true,
        text,
    }))
}

fn live(shared: &Shared) -> Result<&Live, Failure> {
    if shared.is_draining() {
        return Err(explain::draining());
    }
    shared.live().ok_or_else(explain::draining)
}

/// For a change of a volume of this node.
pub(super) fn open<'s>(shared: &'s Shared, volume: &str) -> Result<&'s Live, Failure> {
    shared.volume(volume)?;
    live(shared)
}

fn known(live: &Live, volume: &str, name: &str) -> Result<NbdExportSpec, Failure> {
    let exports = live.exports(volume);
    let names: Vec<&str> = exports.iter().map(|export| export.name.as_str()).collect();
    let found = exports.iter().find(|export| export.name == name).cloned();
    found.ok_or_else(|| {
        let near = nearest(name, names.iter().copied());
        explain::no_such_export(name, volume, near, &names)
    })
}
