//! How the node and its volumes are.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path as UrlPath, Query, State};
use engine::control::{Backing, NbdExportSpec};
use jiff::Timestamp;
use nbd_proto::{ExportName, NbdUri, Transport, UriTls};
use serde::Deserialize;

use super::Shared;
use super::body::{
    Declared, DeclaredExport, STATUS_SCHEMA, StatusReport, VOLUME_SCHEMA, VolumeEntry, VolumeReport,
};
use crate::config::Words;
use crate::explain::Failure;

/// `?volume=NAME`.
#[derive(Deserialize)]
pub(super) struct Which {
    volume: Option<String>,
}

/// `GET /api/v1/status`.
pub(super) async fn status(
    State(shared): State<Arc<Shared>>,
    Query(which): Query<Which>,
) -> Result<Json<StatusReport>, Failure> {
    report(&shared, which.volume.as_deref()).await.map(Json)
}

async fn report(shared: &Shared, name: Option<&str>) -> Result<StatusReport, Failure> {
    if let Some(name) = name {
        shared.volume(name)?;
    }
    let volumes = shared.volumes(name).await?;
    let now = Timestamp::now();
    Ok(StatusReport {
        schema: STATUS_SCHEMA.to_owned(),
        generated_at: format!("{now:.3}"),
        node: shared.facts.spec.name.clone(),
        io_backend: shared.node.io_backend(),
        insecure: shared
            .facts
            .insecure
            .iter()
            .map(|word| (*word).to_owned())
            .collect(),
        volumes: volumes
            .into_iter()
            .map(|volume| {
                let last_verify = shared.verified.of(&volume.name);
                VolumeEntry::new(volume, last_verify, now)
            })
            .collect(),
    })
}

/// `GET /api/v1/volumes/{name}`.
pub(super) async fn volume(
    State(shared): State<Arc<Shared>>,
    UrlPath(name): UrlPath<String>,
) -> Result<Json<VolumeReport>, Failure> {
    let declared = declared(&shared, &name)?;
    let mut volumes = report(&shared, Some(&name)).await?.volumes;
    Ok(Json(VolumeReport {
        schema: VOLUME_SCHEMA.to_owned(),
        node: shared.facts.spec.name.clone(),
        declared,
        status: volumes.pop(),
    }))
}

fn declared(shared: &Shared, name: &str) -> Result<Declared, Failure> {
    let volume = shared.volume(name)?;
    let backing = match &volume.backing {
        Some(Backing::Path(path)) => path.display().to_string(),
        Some(Backing::Memory) => "memory".to_owned(),
        None => "none".to_owned(),
    };
    let (transports, exports) = match shared.live() {
        Some(live) => (live.transports(), live.exports(name)),
        None => (shared.facts.nbd.clone(), volume.nbd.clone()),
    };
    let exports = exports.iter();
    let exports = exports.map(|export| declared_export(&transports, export));
    Ok(Declared {
        backing,
        replicas: volume.replicas.clone(),
        write_policy: volume.write_policy.word().to_owned(),
        allocation: volume.allocation.word().to_owned(),
        cache: volume.cache.word().to_owned(),
        completion: volume.completion.word().to_owned(),
        polling: volume.polling.word().to_owned(),
        reads: volume.reads.word().to_owned(),
        splitbrain: volume.splitbrain.word().to_owned(),
        checksums: volume.checksums.word().to_owned(),
        min_copies: volume.min_copies,
        resync_rate_bytes_per_second: volume.resync_rate,
        nbd: exports.collect(),
    })
}

/// An export as it is declared, with its URIs.
fn declared_export(transports: &[(Transport, bool)], export: &NbdExportSpec) -> DeclaredExport {
    DeclaredExport {
        name: export.name.clone(),
        read_only: export.read_only,
        description: export.description.clone(),
        allow: export.allow.clone(),
        allow_subjects: export.allow_subjects.clone(),
        needs_tls: export.needs_tls,
        attach: export.attach.word().to_owned(),
        default: export.is_default,
        uris: uris(transports, export),
    }
}

/// NBD URIs of an export, ready to paste.
fn uris(transports: &[(Transport, bool)], export: &NbdExportSpec) -> Vec<String> {
    // The configuration lets no other name through.
    let Ok(name) = ExportName::new(&export.name) else {
        return Vec::new();
    };
    let asks_tls = export.needs_tls || !export.allow_subjects.is_empty();
    let uri = |(transport, needs_tls): &(Transport, bool)| {
        let uri = NbdUri {
            transport: transport.clone(),
            export: name.clone(),
            tls: (*needs_tls || asks_tls).then(UriTls::default),
        };
        uri.to_string()
    };
    transports.iter().map(uri).collect()
}
