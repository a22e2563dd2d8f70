//! A scrub, and what stored checksums found.

use std::fmt::Write;

use super::bar;
use crate::api::body::Checksums;
use crate::config::units::show_bytes;

/// Figures of a scrub.
pub(in crate::cli) fn scrub(volume: &str, found: &Checksums) -> String {
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

/// What stored checksums found since the daemon started.
pub(super) fn checksums_line(found: &Checksums) -> String {
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
