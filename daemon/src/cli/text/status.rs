//! What `status` says: all volumes in a table, or everything about each.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::export::tls_words;
use super::resync::resync_line;
use super::scrub::checksums_line;
use super::verify::verified;
use super::{Shape, columns};
use crate::api::body::{
    DiskState, Lease, LinkState, Quorum, Replica, State, StatusReport, VolumeEntry, VoteCount,
};
use crate::config::units::{show_bytes, show_seconds};
use crate::explain::{counted, is_gone, next_step};

/// All volumes in a table, then a line for each that needs attention.
pub(in crate::cli) fn overview(report: &StatusReport) -> String {
    let mut text = format!("node {}: {}\n", report.node, report.io_backend);
    for word in &report.insecure {
        let _ = writeln!(text, "note: {word} listens beyond loopback without TLS");
    }
    text.push('\n');
    text.push_str(&table(report));
    for volume in &report.volumes {
        let Some(reason) = &volume.reason else {
            continue;
        };
        let _ = write!(
            text,
            "\n{}: {} [{}]\n",
            volume.name, reason.text, reason.code
        );
        if let Some(step) = next_step(volume, &report.node) {
            let _ = writeln!(text, "  next: {step}");
        }
    }
    text
}

/// One line per volume.
pub(in crate::cli) fn table(report: &StatusReport) -> String {
    if report.volumes.is_empty() {
        return format!("the configuration gives node {} no volume\n", report.node);
    }
    let head = [
        "VOLUME", "STATE", "ROLE", "SIZE", "COPIES", "BEHIND", "CLIENTS",
    ];
    let rows = report.volumes.iter().map(|volume| {
        vec![
            volume.name.clone(),
            state_word(volume.state),
            volume.role.word().to_owned(),
            show_bytes(volume.size_bytes),
            format!("{} of {}", current_copies(volume), copies(volume).count()),
            show_behind(
                volume
                    .replicas
                    .iter()
                    .map(|replica| replica.out_of_sync_bytes)
                    .sum(),
            ),
            volume.clients.len().to_string(),
        ]
    });
    columns(&head, &rows.collect::<Vec<_>>(), "")
}

/// Everything about each volume of the report.
pub(in crate::cli) fn details(report: &StatusReport) -> String {
    details_in(report, &TimeZone::system())
}

pub(super) fn details_in(report: &StatusReport, zone: &TimeZone) -> String {
    let one = |volume| volume_details(report, volume, zone);
    report
        .volumes
        .iter()
        .map(one)
        .collect::<Vec<_>>()
        .join("\n")
}

fn volume_details(report: &StatusReport, volume: &VolumeEntry, zone: &TimeZone) -> String {
    let mut text = String::new();
    let mut line = |label: &str, rest: &str| {
        let _ = writeln!(text, "{label:>7}  {rest}");
    };
    line(
        "volume",
        &format!("{:<20}{}", volume.name, show_bytes(volume.size_bytes)),
    );
    line(
        "state",
        &format!(
            "{:<20}{}",
            state_word(volume.state),
            state_sentence(volume, &report.node)
        ),
    );
    if let Some(reason) = &volume.reason {
        line(
            "why",
            &format!(
                "{} [{}]",
                reason.text.replace('\n', "\n         "),
                reason.code
            ),
        );
    }
    if let Some(step) = next_step(volume, &report.node) {
        line("action", &step);
    }
    line(
        "role",
        &match is_witness(volume, &report.node) {
            true => format!("witness on {}", report.node),
            false => format!("{} on {}", volume.role.word(), report.node),
        },
    );
    if let Some(generation) = &volume.generation {
        line(
            "history",
            &format!("branch {}, term {}", generation.branch, generation.term),
        );
    }
    if let Some(quorum) = &volume.quorum {
        line("quorum", &quorum_line(quorum));
    }
    if let Some(found) = volume
        .checksums
        .filter(|f| f.error_bytes > 0 || f.lost_bytes > 0)
    {
        line("sums", &checksums_line(&found));
    }
    for note in &volume.notes {
        line("note", note);
    }
    text.push('\n');
    text.push_str(&replica_table(report, volume));
    text.push('\n');
    let mut line = |label: &str, rest: &str| {
        let _ = writeln!(text, "{label:>7}  {rest}");
    };
    for replica in &volume.replicas {
        // One path is up if the link is.
        if replica.paths.len() > 1 {
            line("paths", &paths_line(replica));
        }
        if let Some(resync) = &replica.resync {
            line(
                "resync",
                &resync_line(report, replica, resync, (zone, Shape::Bar)),
            );
        }
    }
    for client in &volume.clients {
        let since = clock(client.since.parse().ok(), report, zone);
        line(
            "client",
            &format!(
                "{}  export {}  {since}{}",
                client.address,
                client.export,
                tls_words(client)
            ),
        );
    }
    if volume.clients.is_empty() {
        line("client", "none");
    }
    let io = &volume.io.clients;
    let figures = format!(
        "{} ({})   {} ({})   {}   {}",
        counted_ops(io.reads, "read"),
        show_bytes(io.read_bytes),
        counted_ops(io.writes, "write"),
        show_bytes(io.written_bytes),
        match io.flushes {
            1 => "1 flush".to_owned(),
            count => format!("{count} flushes"),
        },
        counted_ops(io.errors, "error"),
    );
    line("io", &figures);
    if let Some(last) = &volume.last_verify {
        line("verify", &verified(last, report));
    }
    text
}

fn counted_ops(count: u64, what: &str) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), what)
}

pub(super) fn state_word(state: State) -> String {
    let word = state.word().replace('_', " ");
    match state {
        State::Healthy => word,
        _ => word.to_uppercase(),
    }
}

fn state_sentence(volume: &VolumeEntry, node: &str) -> String {
    let (current, all) = (current_copies(volume), copies(volume).count());
    if all == 0 || is_witness(volume, node) && volume.state == State::Healthy {
        return "this node votes and holds no copy".to_owned();
    }
    match volume.state {
        State::Healthy if all == 1 => "its only copy is current".to_owned(),
        State::Healthy => format!("all {all} copies are current"),
        State::Degraded => format!("{current} of {all} copies current"),
        State::Critical => "no I/O is possible".to_owned(),
        State::Offline if is_gone(volume) => "this node is no part of it any more".to_owned(),
        State::Offline => "it cannot attach on this node".to_owned(),
        State::NotCreated => "declared, but never created on this node".to_owned(),
    }
}

/// Replicas, without the witnesses.
fn copies(volume: &VolumeEntry) -> impl Iterator<Item = &Replica> {
    let replicas = volume.replicas.iter();
    replicas.filter(|replica| replica.disk_state != DiskState::Diskless)
}

fn is_witness(volume: &VolumeEntry, node: &str) -> bool {
    let is_own = |r: &&Replica| r.node == node;
    let own = volume.replicas.iter().find(is_own);
    own.is_some_and(|replica| replica.disk_state == DiskState::Diskless)
}

fn current_copies(volume: &VolumeEntry) -> usize {
    copies(volume)
        .filter(|replica| replica.disk_state == DiskState::UpToDate)
        .count()
}

/// `2 of 3 votes, 2 needed; not heard: gamma; lease held by alpha`.
fn quorum_line(quorum: &Quorum) -> String {
    let VoteCount { have, need, of } = quorum.votes;
    let by_etcd = quorum.mode == "etcd" && of == 1;
    let mut text = match (by_etcd, have) {
        (true, 1) => "etcd".to_owned(),
        (true, _) => "etcd, which does not answer".to_owned(),
        (false, _) => format!("{have} of {of} votes, {need} needed"),
    };
    if !by_etcd && !quorum.missing.is_empty() {
        text.push_str(&format!("; not heard: {}", quorum.missing.join(", ")));
    }
    match (quorum.lease, &quorum.primary) {
        (Lease::Held, Some(primary)) => text.push_str(&format!("; lease held by {primary}")),
        _ => text.push_str("; no lease is held"),
    }
    text
}

fn replica_table(report: &StatusReport, volume: &VolumeEntry) -> String {
    let rows = volume.replicas.iter().map(|replica| {
        let mark = if replica.node == report.node {
            " *"
        } else {
            ""
        };
        let link = match replica.link_state {
            LinkState::SelfNode => "-",
            state => state.word(),
        };
        vec![
            format!("{}{mark}", replica.node),
            replica.disk_state.word().to_owned(),
            link.to_owned(),
            show_behind(replica.out_of_sync_bytes),
        ]
    });
    columns(
        &["NODE", "DATA", "LINK", "BEHIND"],
        &rows.collect::<Vec<_>>(),
        "         ",
    )
}

/// `to beta: 10.0.0.2:8790 up, in use; 10.1.0.2:8790 down`.
fn paths_line(replica: &Replica) -> String {
    let paths = replica.paths.iter().map(|path| {
        let state = match (path.up, path.carries_data) {
            (true, true) => "up, in use",
            (true, false) => "up",
            (false, _) => "down",
        };
        format!("{} {state}", path.address)
    });
    let paths: Vec<String> = paths.collect();
    format!("to {}: {}", replica.node, paths.join("; "))
}

fn show_behind(bytes: u64) -> String {
    match bytes {
        0 => "-".to_owned(),
        bytes => show_bytes(bytes),
    }
}

fn clock(since: Option<Timestamp>, report: &StatusReport, zone: &TimeZone) -> String {
    let Some(since) = since else {
        return String::new();
    };
    let now = report.generated_at.parse::<Timestamp>().unwrap_or(since);
    let age = u64::try_from(now.as_second().saturating_sub(since.as_second())).unwrap_or(0);
    let at = since.to_zoned(zone.clone());
    format!(
        "since {} ({})",
        at.strftime("%Y-%m-%d %H:%M:%S"),
        show_seconds(age)
    )
}
