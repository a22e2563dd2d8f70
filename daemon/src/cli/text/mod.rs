//! Reports as text for people. Pure: the same report gives the same text. A file for each kind of
//! report; here is what they share: tables, and how far something is.

mod export;
mod resync;
mod scrub;
mod splitbrain;
mod status;
mod verify;
mod volume;

use std::fmt::Write;

pub(super) use export::{export_clients, exports};
pub(super) use resync::resyncs;
pub(super) use scrub::scrub;
pub(super) use splitbrain::{resolve_plan, salvages, splitbrain};
pub(super) use status::{details, overview, table};
pub(super) use verify::{progress, verify};
pub(super) use volume::{declared, marks};

/// Width of a progress bar, in characters.
const BAR: usize = 30;

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

#[cfg(test)]
mod tests;
