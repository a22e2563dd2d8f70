//! A line that is rewritten on a terminal, and a new one every 10 s elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::text::Shape;

const LINE_PERIOD: Duration = Duration::from_secs(10);

/// What somebody who waits sees, on stderr.
pub(super) struct Progress {
    is_terminal: bool,
    shown_at: Option<Instant>,
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress {
            is_terminal: io::stderr().is_terminal(),
            shown_at: None,
        }
    }

    /// Shows `text` of one line or more; only the first is rewritten on a terminal.
    pub(super) fn show(&mut self, text: impl FnOnce(Shape) -> String) {
        let due = self.shown_at.is_none_or(|at| at.elapsed() >= LINE_PERIOD);
        let mut stderr = io::stderr().lock();
        let _ = match (self.is_terminal, due) {
            (true, _) => {
                let text = text(Shape::Bar);
                write!(
                    stderr,
                    "\r{}\x1b[K",
                    text.lines().next().unwrap_or_default()
                )
            }
            (false, true) => writeln!(stderr, "{}", text(Shape::Plain).trim_end()),
            (false, false) => return,
        };
        self.shown_at = Some(Instant::now());
    }

    pub(super) fn end(&self) {
        if self.is_terminal && self.shown_at.is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
