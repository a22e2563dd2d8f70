//! A verify: its figures, how far it is, and the last one in a few words.

use std::fmt::Write;

use jiff::Timestamp;

use super::Shape;
use crate::api::body::{LastVerify, StatusReport, VerifyReport};
use crate::config::units::{show_bytes, show_seconds};

/// Figures of a verify.
pub(in crate::cli) fn verify(report: &VerifyReport) -> String {
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
pub(in crate::cli) fn progress(report: &VerifyReport, shape: Shape) -> String {
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

/// `3 d ago, 0 B differ`.
pub(super) fn verified(last: &LastVerify, report: &StatusReport) -> String {
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
