//! `/metrics` in the OpenMetrics text format, made anew from the status at each scrape.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use engine::control::VolumeStatus;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Shared;
use super::body::{DiskState, LinkState, Role, State as Health};
use crate::explain::Failure;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter>;

/// `GET /metrics`.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, Failure> {
    let volumes = shared.volumes(None).await?;
    let mut registry = Registry::with_prefix("pollux");
    node_metrics(&shared, &mut registry);
    volume_metrics(&volumes, &mut registry);
    replica_metrics(&volumes, &mut registry);
    quorum_metrics(&volumes, &mut registry);
    io_metrics(&volumes, &mut registry);
    checksum_metrics(&volumes, &mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a string cannot fail");
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

fn node_metrics(shared: &Shared, registry: &mut Registry) {
    let build = gauges(registry, "build_info", "Version and back end; always 1");
    let labels = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("node", shared.facts.spec.name.clone()),
        ("io_backend", shared.node.io_backend()),
    ];
    build.get_or_create(&labels).set(1.0);
    let insecure = gauges(
        registry,
        "insecure_listener",
        "Listeners off loopback without TLS",
    );
    for word in &shared.facts.insecure {
        insecure
            .get_or_create(&vec![("listener", (*word).to_owned())])
            .set(1.0);
    }
}

fn volume_metrics(volumes: &[VolumeStatus], registry: &mut Registry) {
    let size = gauges(registry, "volume_size_bytes", "Declared size");
    let states = gauges(registry, "volume_state", "1 for the state the volume is in");
    let roles = gauges(registry, "volume_role", "1 for the role of this node");
    let clients = gauges(registry, "volume_clients", "Attached clients");
    for volume in volumes {
        let labels = vec![("volume", volume.name.clone())];
        size.get_or_create(&labels).set(volume.size_bytes as f64);
        clients
            .get_or_create(&labels)
            .set(volume.clients.len() as f64);
        let state = Health::from(volume.state);
        one_of(
            &states,
            &labels,
            "state",
            Health::ALL.iter().map(|s| (s.word(), *s == state)),
        );
        let role = Role::from(volume.role);
        one_of(
            &roles,
            &labels,
            "role",
            Role::ALL.iter().map(|r| (r.word(), *r == role)),
        );
    }
}

fn replica_metrics(volumes: &[VolumeStatus], registry: &mut Registry) {
    let disks = gauges(
        registry,
        "replica_disk_state",
        "1 for the state of the copy",
    );
    let links = gauges(
        registry,
        "replica_link_state",
        "1 for the state of the link",
    );
    let behind = gauges(
        registry,
        "replica_out_of_sync_bytes",
        "Bytes the copy lacks",
    );
    let done = gauges(
        registry,
        "resync_done_ratio",
        "Progress of a running resync, 0 to 1",
    );
    let rate = gauges(
        registry,
        "resync_rate_bytes_per_second",
        "Speed of a running resync",
    );
    for volume in volumes {
        for replica in &volume.replicas {
            let labels = vec![
                ("volume", volume.name.clone()),
                ("node", replica.node.clone()),
            ];
            let disk = DiskState::from(replica.disk_state);
            one_of(
                &disks,
                &labels,
                "state",
                DiskState::ALL.iter().map(|s| (s.word(), *s == disk)),
            );
            let link = LinkState::from(replica.link_state);
            one_of(
                &links,
                &labels,
                "state",
                LinkState::ALL.iter().map(|s| (s.word(), *s == link)),
            );
            behind
                .get_or_create(&labels)
                .set(replica.out_of_sync_bytes as f64);
            if let Some(resync) = &replica.resync {
                done.get_or_create(&labels).set(resync.done_ratio);
                rate.get_or_create(&labels)
                    .set(resync.rate_bytes_per_second as f64);
            }
        }
    }
}

fn quorum_metrics(volumes: &[VolumeStatus], registry: &mut Registry) {
    let have = gauges(registry, "volume_votes", "Voters that this node hears");
    let need = gauges(registry, "volume_votes_needed", "Votes of a majority");
    let lease = gauges(
        registry,
        "volume_lease_held",
        "1 while a majority granted somebody the right to serve, as this node knows",
    );
    for volume in volumes {
        let labels = vec![("volume", volume.name.clone())];
        if let Some(quorum) = &volume.quorum {
            have.get_or_create(&labels).set(quorum.have() as f64);
            need.get_or_create(&labels).set(quorum.need() as f64);
            let is_held = f64::from(u8::from(quorum.is_held));
            lease.get_or_create(&labels).set(is_held);
        }
    }
}

fn io_metrics(volumes: &[VolumeStatus], registry: &mut Registry) {
    let mut counters = |name: &str, help: &str| {
        let family = Counters::default();
        registry.register(name, help, family.clone());
        family
    };
    let reads = counters("volume_reads", "Reads answered");
    let read_bytes = counters("volume_read_bytes", "Bytes read");
    let writes = counters("volume_writes", "Writes, trims and write-zeroes answered");
    let written_bytes = counters("volume_written_bytes", "Bytes written");
    let flushes = counters("volume_flushes", "Flushes answered");
    let errors = counters("volume_errors", "Requests answered with an error");
    let by_peers = counters(
        "volume_reads_by_peers",
        "Reads of clients here that another node answered",
    );
    let for_peers = counters(
        "volume_reads_for_peers",
        "Reads of another node's clients that this node answered",
    );
    for volume in volumes {
        let labels = vec![("volume", volume.name.clone())];
        let io = &volume.io;
        for (family, count) in [
            (&reads, io.reads),
            (&read_bytes, io.read_bytes),
            (&writes, io.writes),
            (&written_bytes, io.written_bytes),
            (&flushes, io.flushes),
            (&errors, io.errors),
            (&by_peers, io.reads_by_peers),
            (&for_peers, io.reads_for_peers),
        ] {
            family.get_or_create(&labels).inc_by(count);
        }
    }
}

/// Granules and bytes that did not match their stored checksums.
fn checksum_metrics(volumes: &[VolumeStatus], registry: &mut Registry) {
    let mut counters = |name: &str, help: &str| {
        let family = Counters::default();
        registry.register(name, help, family.clone());
        family
    };
    let errors = counters(
        "volume_checksum_errors",
        "Granules of 4096 bytes that did not match their stored checksums",
    );
    let repaired = counters(
        "volume_checksum_repaired",
        "Of these, written again with what another replica had",
    );
    let unrepaired = gauges(
        registry,
        "volume_checksum_unrepaired_bytes",
        "Bytes that do not match their checksums now",
    );
    for volume in volumes {
        let labels = vec![("volume", volume.name.clone())];
        if let Some(found) = &volume.checksums {
            let granules = |bytes: u64| bytes / 4096;
            errors
                .get_or_create(&labels)
                .inc_by(granules(found.error_bytes));
            repaired
                .get_or_create(&labels)
                .inc_by(granules(found.repaired_bytes));
            unrepaired
                .get_or_create(&labels)
                .set(found.unrepaired_bytes as f64);
        }
    }
}

fn gauges(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let family = Gauges::default();
    registry.register(name, help, family.clone());
    family
}

/// One series per word, 1 for the one that holds.
fn one_of(
    family: &Gauges,
    labels: &Labels,
    key: &'static str,
    words: impl Iterator<Item = (&'static str, bool)>,
) {
    for (word, holds) in words {
        let mut labels = labels.clone();
        labels.push((key, word.to_owned()));
        family
            .get_or_create(&labels)
            .set(f64::from(u8::from(holds)));
    }
}
