//! A volume as it is declared, and its marks.

use std::fmt::Write;

use super::columns;
use super::status::state_word;
use crate::api::body::{MarksReport, VolumeReport};
use crate::config::units::show_bytes;

/// How a volume is declared, and its state in a line.
pub(in crate::cli) fn declared(name: &str, report: &VolumeReport) -> String {
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

/// One line per mark.
pub(in crate::cli) fn marks(report: &MarksReport) -> String {
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
