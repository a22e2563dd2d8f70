//! How the node and its volumes are.

use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path as UrlPath, Query, State};
use engine::control::{Allocation, Backing, NbdExportSpec, NodeSpec, Polling, WritePolicy};
use jiff::Timestamp;
use serde::Deserialize;

use super::body::{
    Declared, DeclaredExport, STATUS_SCHEMA, StatusReport, VOLUME_SCHEMA, VolumeEntry, VolumeReport,
};
use super::{Shared, percent_encode};
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
        node: shared.spec.name.clone(),
        io_backend: shared.node.io_backend(),
        insecure: shared
            .insecure
            .iter()
            .map(|word| (*word).to_owned())
            .collect(),
        volumes: volumes
            .into_iter()
            .map(|volume| VolumeEntry::new(volume, now))
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
        node: shared.spec.name.clone(),
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
    let write_policy = match volume.write_policy {
        WritePolicy::Written => "written",
        WritePolicy::Durable => "durable",
    };
    let allocation = match volume.allocation {
        Allocation::Thin => "thin",
        Allocation::Full => "full",
    };
    let polling = match volume.polling {
        Polling::Balanced => "balanced",
        Polling::Latency => "latency",
        Polling::Cpu => "cpu",
    };
    let export = |export: &NbdExportSpec| DeclaredExport {
        name: export.name.clone(),
        read_only: export.read_only,
        description: export.description.clone(),
        allow: export.allow.clone(),
        uris: uris(&shared.spec, &export.name),
    };
    Ok(Declared {
        backing,
        replicas: volume.replicas.clone(),
        write_policy: write_policy.to_owned(),
        allocation: allocation.to_owned(),
        polling: polling.to_owned(),
        min_copies: volume.min_copies,
        nbd: volume.nbd.iter().map(export).collect(),
    })
}

/// NBD URIs of an export, ready to paste. Source: the NBD URI specification.
fn uris(spec: &NodeSpec, export: &str) -> Vec<String> {
    let name = percent_encode(export.as_bytes(), b"/");
    let tcp = spec
        .nbd
        .as_ref()
        .map(|address| format!("nbd://{address}/{name}"));
    let unix = spec.nbd_socket.as_deref().map(|path: &Path| {
        let socket = percent_encode(path.as_os_str().as_encoded_bytes(), b"/");
        format!("nbd+unix:///{name}?socket={socket}")
    });
    tcp.into_iter().chain(unix).collect()
}
