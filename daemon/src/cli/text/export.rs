//! Exports, and the clients attached to them.

use std::fmt::Write;

use jiff::Timestamp;

use super::columns;
use crate::api::body::{Client, DeclaredExport, VolumeReport};
use crate::config::units::{show_bytes, show_seconds};

/// Exports of all volumes.
pub(in crate::cli) fn exports(reports: &[VolumeReport]) -> String {
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
pub(in crate::cli) fn export_clients(
    volume: &str,
    report: &VolumeReport,
    now: Timestamp,
) -> String {
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
