//! Reports as text for people. Pure: the same report gives the same text.

use std::fmt::Write;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::api::body::{
    Checksums, Client, DeclaredExport, DiskState, LastVerify, Lease, LinkState, MarksReport,
    Quorum, Replica, Resync, ResyncState, State, StatusReport, VerifyReport, VolumeEntry,
    VolumeReport, VoteCount,
};
use crate::config::units::{show_bytes, show_seconds};
use crate::explain::{counted, is_gone, next_step};

mod splitbrain;

pub(super) use splitbrain::{resolve_plan, salvages, splitbrain};

/// Width of a progress bar, in characters.
const BAR: usize = 30;
/// Above this an end is given in days, without a time of day.
const CLOCK_SECONDS_MAX: u64 = 48 * 3_600;

/// All volumes in a table, then a line for each that needs attention.
pub(super) fn overview(report: &StatusReport) -> String {
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

/// One line per mark.
pub(super) fn marks(report: &MarksReport) -> String {
    let volume = &report.volume;
    if report.marks.is_empty() {
        return format!("{volume} has no marks\nnext: pollux volume mark create {volume} NAME\n");
    }
    let rows = report.marks.iter().map(|mark| {
        let changed = match mark.everything {
            true => format!("{} (all of it: not known)", show_bytes(mark.dirty_bytes)),
            false => show_bytes(mark.dirty_bytes),
        };
        vec![mark.name.clone(), mark.created_at.clone(), changed]
    });
    columns(
        &["MARK", "CREATED", "CHANGED"],
        &rows.collect::<Vec<_>>(),
        "",
    )
}

/// One line per volume.
pub(super) fn table(report: &StatusReport) -> String {
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
pub(super) fn details(report: &StatusReport) -> String {
    details_in(report, &TimeZone::system())
}

fn details_in(report: &StatusReport, zone: &TimeZone) -> String {
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

fn state_word(state: State) -> String {
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

/// `alpha → beta  [####....] 41 %   18.2 GiB left, 410 MiB/s, 45 s to go (14:05:31)`.
fn resync_line(
    report: &StatusReport,
    replica: &Replica,
    resync: &Resync,
    (zone, shape): (&TimeZone, Shape),
) -> String {
    let (from, to) = match replica.link_state {
        LinkState::ResyncTarget => (&replica.node, &report.node),
        _ => (&report.node, &replica.node),
    };
    let rate = resync.rate_bytes_per_second;
    let pace = match resync.eta_seconds {
        _ if rate == 0 => "estimating".to_owned(),
        None => format!("{}/s", show_bytes(rate)),
        Some(eta) => format!(
            "{}/s, {} to go{}",
            show_bytes(rate),
            show_seconds(eta),
            end(report, eta, zone)
        ),
    };
    let reason = resync.reason.as_deref().unwrap_or("no reason is known");
    let rest = match resync.state {
        ResyncState::Estimating => "estimating".to_owned(),
        ResyncState::Moving => pace,
        ResyncState::Paused => format!("paused {reason}"),
        ResyncState::Throttled => format!("{pace}; throttled: {reason}"),
        ResyncState::Stalled => format!("stalled: {reason}"),
        ResyncState::Joining => format!("almost in sync: {reason}"),
    };
    let left = show_bytes(replica.out_of_sync_bytes);
    let done = shape.of(resync.done_ratio);
    format!("{from} → {to}  {done}   {left} left, {rest}")
}

/// How far something is: with a bar, or as figures alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Bar,
    Plain,
}

impl Shape {
    fn of(self, ratio: f64) -> String {
        match self {
            Shape::Bar => bar(ratio),
            Shape::Plain => percent(ratio),
        }
    }
}

/// `41 %`; below 100 until it is over.
fn percent(ratio: f64) -> String {
    format!("{:.0} %", (ratio.clamp(0.0, 0.999) * 100.0).floor())
}

fn end(report: &StatusReport, eta: u64, zone: &TimeZone) -> String {
    let seconds = i64::try_from(eta).unwrap_or(i64::MAX);
    let now = report.generated_at.parse::<Timestamp>().ok();
    let end = now.and_then(|now| now.checked_add(SignedDuration::from_secs(seconds)).ok());
    match end.filter(|_| eta <= CLOCK_SECONDS_MAX) {
        Some(end) => format!(" ({})", end.to_zoned(zone.clone()).strftime("%H:%M:%S")),
        None => String::new(),
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

/// `[####......] 41 %`; below 100 until it is over.
fn bar(ratio: f64) -> String {
    let full = (ratio.clamp(0.0, 0.999) * BAR as f64) as usize;
    format!(
        "[{}{}] {}",
        "#".repeat(full),
        ".".repeat(BAR - full),
        percent(ratio)
    )
}

/// Running resyncs, one line each; of the others what the last one took.
pub(super) fn resyncs(report: &StatusReport, shape: Shape) -> String {
    let zone = TimeZone::system();
    let mut text = String::new();
    for volume in &report.volumes {
        for replica in &volume.replicas {
            let line = match (&replica.resync, &replica.last_resync) {
                (Some(resync), _) => resync_line(report, replica, resync, (&zone, shape)),
                (None, Some(last)) => format!(
                    "{} → {}  done: {} equal now; {} sent, {} zeros, {} were equal",
                    report.node,
                    replica.node,
                    show_bytes(last.done),
                    show_bytes(last.sent),
                    show_bytes(last.zeroed),
                    show_bytes(last.equal)
                ),
                (None, None) => continue,
            };
            let _ = writeln!(text, "{}  {line}", volume.name);
        }
    }
    let is_running = |volume: &VolumeEntry| volume.replicas.iter().any(|r| r.resync.is_some());
    if !report.volumes.iter().any(is_running) {
        text.push_str("no resync is running\n");
    }
    text
}

/// `3 d ago, 0 B differ`.
fn verified(last: &LastVerify, report: &StatusReport) -> String {
    let at = last.ended_at.parse::<Timestamp>().ok();
    let now = report.generated_at.parse::<Timestamp>().ok();
    let age = at
        .zip(now)
        .map(|(at, now)| now.as_second() - at.as_second());
    let ago = match age.and_then(|age| u64::try_from(age).ok()) {
        Some(age) => format!("{} ago", show_seconds(age)),
        None => last.ended_at.clone(),
    };
    let differ = match last.different_bytes {
        0 => "no blocks differ".to_owned(),
        bytes => format!("{} differed", show_bytes(bytes)),
    };
    format!("{ago}, {differ}")
}

/// How a volume is declared, and its state in a line.
pub(super) fn declared(name: &str, report: &VolumeReport) -> String {
    let mut text = String::new();
    let declared = &report.declared;
    let mut line = |label: &str, rest: &str| {
        let _ = writeln!(text, "{label:>12}  {rest}");
    };
    line("volume", name);
    if let Some(status) = &report.status {
        line(
            "size",
            &format!(
                "{} ({} bytes)",
                show_bytes(status.size_bytes),
                status.size_bytes
            ),
        );
        line(
            "state",
            &format!("{} on {}", state_word(status.state), report.node),
        );
    }
    line("backing", &declared.backing);
    line("replicas", &declared.replicas.join(", "));
    line("write_policy", &declared.write_policy);
    line("allocation", &declared.allocation);
    line("cache", &declared.cache);
    line("completion", &declared.completion);
    line("polling", &declared.polling);
    if declared.splitbrain != "manual" {
        line("splitbrain", &declared.splitbrain);
    }
    line("reads", &declared.reads);
    line("checksums", &declared.checksums);
    line("min_copies", &declared.min_copies.to_string());
    for export in &declared.nbd {
        let access = if export.read_only { ", read-only" } else { "" };
        let allow = match export.allow.is_empty() {
            true => String::new(),
            false => format!(", allow {}", export.allow.join(" ")),
        };
        line("nbd", &format!("{}{access}{allow}", export.name));
        for uri in &export.uris {
            line("", uri);
        }
    }
    text
}

/// Exports of all volumes.
pub(super) fn exports(reports: &[VolumeReport]) -> String {
    let mut rows = Vec::new();
    for report in reports {
        let Some(status) = &report.status else {
            continue;
        };
        for export in &report.declared.nbd {
            let clients = status.clients.iter();
            let uri = export.uris.first().cloned().unwrap_or("-".to_owned());
            let count = clients.filter(|client| client.export == export.name);
            rows.push(vec![
                status.name.clone(),
                export.name.clone(),
                count.count().to_string(),
                access(export),
                uri,
            ]);
        }
    }
    columns(&["VOLUME", "EXPORT", "CLIENTS", "ACCESS", "URI"], &rows, "")
}

/// Exports of a volume, and who is attached.
pub(super) fn export_clients(volume: &str, report: &VolumeReport, now: Timestamp) -> String {
    let mut text = format!("volume {volume} on {}\n", report.node);
    for export in &report.declared.nbd {
        let _ = writeln!(text, "export {}  {}", export.name, access(export));
        for uri in &export.uris {
            let _ = writeln!(text, "       {uri}");
        }
    }
    text.push('\n');
    let clients = report.status.iter().flat_map(|status| &status.clients);
    let mut rows = Vec::new();
    for client in clients {
        let moved = |ops: u64, bytes: u64| format!("{ops} ({})", show_bytes(bytes));
        let tls = tls_words(client);
        rows.push(vec![
            client.id.to_string(),
            client.address.clone(),
            client.export.clone(),
            age(client, now),
            moved(client.io.reads, client.io.read_bytes),
            moved(client.io.writes, client.io.written_bytes),
            if tls.is_empty() {
                "-".to_owned()
            } else {
                tls.trim().to_owned()
            },
        ]);
    }
    let head = [
        "CLIENT", "ADDRESS", "EXPORT", "AGE", "READ", "WRITTEN", "TLS",
    ];
    match rows.is_empty() {
        true => text.push_str("no clients\n"),
        false => text.push_str(&columns(&head, &rows, "")),
    }
    text
}

/// How long it has been attached.
fn age(client: &Client, now: Timestamp) -> String {
    let since = client.since.parse::<Timestamp>().unwrap_or(now);
    let seconds = now.as_second().saturating_sub(since.as_second());
    show_seconds(u64::try_from(seconds).unwrap_or(0))
}

fn access(export: &DeclaredExport) -> String {
    let mut words = vec![
        if export.read_only {
            "read-only"
        } else {
            "read-write"
        }
        .to_owned(),
    ];
    if export.attach != "shared" {
        words.push(export.attach.clone());
    }
    if export.default {
        words.push("default".to_owned());
    }
    if export.needs_tls || !export.allow_subjects.is_empty() {
        words.push("tls".to_owned());
    }
    for allowed in export.allow.iter().chain(&export.allow_subjects) {
        words.push(allowed.clone());
    }
    words.join(" ")
}

/// Figures of a verify.
pub(super) fn verify(report: &VerifyReport) -> String {
    let volume = &report.volume;
    let mut text = match (report.running, &report.failure) {
        (true, _) => format!(
            "{}\nnext: pollux verify {volume} --status\n",
            progress(report, Shape::Bar)
        ),
        (false, Some(_)) => format!("{}\n", progress(report, Shape::Bar)),
        (false, None) if report.compared_bytes == 0 && report.last.is_some() => {
            let last = report.last.as_ref();
            let at = last.map_or("", |last| &last.ended_at);
            let different = last.map_or(0, |last| last.different_bytes);
            format!(
                "{volume} was compared last at {at}, {} differed\n",
                show_bytes(different)
            )
        }
        (false, None) if report.total_bytes == 0 => {
            format!("volume {volume} was not verified since the daemon started\n")
        }
        (false, None) if report.different_bytes == 0 => {
            format!(
                "{} of {volume} compared, no differences\n",
                show_bytes(report.compared_bytes)
            )
        }
        (false, None) => format!(
            "{} of {volume} compared, {} differ\n",
            show_bytes(report.compared_bytes),
            show_bytes(report.different_bytes)
        ),
    };
    for range in &report.different {
        let (offset, length) = (range.offset_bytes, range.length_bytes);
        let _ = writeln!(text, "  differs at {offset}, {length} bytes");
    }
    match report.different_bytes {
        0 => {}
        _ if report.repairing => {
            let _ = writeln!(text, "the copies that differ are being repaired");
            let _ = writeln!(text, "next: pollux resync status {volume} --wait");
        }
        _ => {
            let _ = writeln!(text, "next: pollux resync start {volume} --from NODE");
        }
    }
    text
}

/// `vm-store  [###...] 12 %   1.2 GiB of 10 GiB compared`.
pub(super) fn progress(report: &VerifyReport, shape: Shape) -> String {
    let ratio = match report.total_bytes {
        0 => 0.0,
        total => report.compared_bytes as f64 / total as f64,
    };
    format!(
        "{}  {}   {} of {} compared{}",
        report.volume,
        shape.of(ratio),
        show_bytes(report.compared_bytes),
        show_bytes(report.total_bytes),
        match report.rate_bytes_per_second {
            Some(rate) if rate > 0 => {
                let left = report.total_bytes.saturating_sub(report.compared_bytes);
                let to_go = show_seconds(left.div_ceil(rate));
                format!(", {}/s, {to_go} to go", show_bytes(rate))
            }
            _ => String::new(),
        }
    )
}

/// What stored checksums found since the daemon started.
fn checksums_line(found: &Checksums) -> String {
    let mut text = format!(
        "{} did not match, {} repaired",
        show_bytes(found.error_bytes),
        show_bytes(found.repaired_bytes)
    );
    if found.unrepaired_bytes > 0 {
        text.push_str(&format!(", {} are bad", show_bytes(found.unrepaired_bytes)));
    }
    if found.lost_bytes > 0 {
        text.push_str(&format!(
            ", checksums of {} lost",
            show_bytes(found.lost_bytes)
        ));
    }
    text
}

/// Figures of a scrub.
pub(super) fn scrub(volume: &str, found: &Checksums) -> String {
    let mut text = match &found.scrub {
        None => format!("volume {volume} was not scrubbed since the daemon started\n"),
        Some(scrub) => {
            let ratio = match scrub.total_bytes {
                0 => 0.0,
                total => scrub.scanned_bytes as f64 / total as f64,
            };
            let mut text = match scrub.running {
                true => format!("{volume}  {}   ", bar(ratio)),
                false => format!("{volume}  "),
            };
            let _ = writeln!(
                text,
                "{} of {} read, {} did not match",
                show_bytes(scrub.scanned_bytes),
                show_bytes(scrub.total_bytes),
                show_bytes(scrub.error_bytes)
            );
            if scrub.adopted_bytes > 0 {
                let adopted = show_bytes(scrub.adopted_bytes);
                let _ = writeln!(text, "  {adopted} had no checksum, and have one now");
            }
            text
        }
    };
    if found.error_bytes > 0 {
        let _ = writeln!(text, "  since start: {}", checksums_line(found));
    }
    if found.scrub.is_some_and(|scrub| scrub.running) {
        let _ = writeln!(text, "next: pollux volume scrub {volume} --status");
    }
    text
}

/// Rows under a head, each column as wide as its widest cell, two spaces between.
fn columns(head: &[&str], rows: &[Vec<String>], indent: &str) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{indent}{}", line.trim_end());
    }
    text
}

/// `  TLS 1.3 CN=hyper1`, or nothing for a client in the clear.
pub(super) fn tls_words(client: &Client) -> String {
    match &client.tls {
        None => String::new(),
        Some(tls) => match &tls.subject {
            Some(subject) => format!("  {} {subject}", tls.version),
            None => format!("  {} without certificate", tls.version),
        },
    }
}

#[cfg(test)]
mod tests;
