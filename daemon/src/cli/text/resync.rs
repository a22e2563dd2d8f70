//! Resyncs: how far each is, and when it ends; of one that is over, what it took.

use std::fmt::Write;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::Shape;
use crate::api::body::{LinkState, Replica, Resync, ResyncState, StatusReport, VolumeEntry};
use crate::config::units::{show_bytes, show_seconds};

/// Above this an end is given in days, without a time of day.
const CLOCK_SECONDS_MAX: u64 = 48 * 3_600;

/// Running resyncs, one line each; of the others what the last one took.
pub(in crate::cli) fn resyncs(report: &StatusReport, shape: Shape) -> String {
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

/// `alpha → beta  [####....] 41 %   18.2 GiB left, 410 MiB/s, 45 s to go (14:05:31)`.
pub(super) fn resync_line(
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

fn end(report: &StatusReport, eta: u64, zone: &TimeZone) -> String {
    let seconds = i64::try_from(eta).unwrap_or(i64::MAX);
    let now = report.generated_at.parse::<Timestamp>().ok();
    let end = now.and_then(|now| now.checked_add(SignedDuration::from_secs(seconds)).ok());
    match end.filter(|_| eta <= CLOCK_SECONDS_MAX) {
        Some(end) => format!(" ({})", end.to_zoned(zone.clone()).strftime("%H:%M:%S")),
        None => String::new(),
    }
}
