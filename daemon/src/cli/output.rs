//! Words to the terminal.

use std::io::{self, IsTerminal, Write};

/// Writes to stdout. A reader that went away, as `head` does, is no fault.
pub(super) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes one line to stderr.
pub(super) fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes `value` to stdout as JSON of several lines.
pub(super) fn say_json(value: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(value).expect("reports have only strings and numbers");
    say(&format!("{text}\n"));
}

/// Writes `value` to stdout as JSON of one line.
pub(super) fn say_json_line(value: &impl serde::Serialize) {
    let text = serde_json::to_string(value).expect("reports have only strings and numbers");
    say(&format!("{text}\n"));
}

/// Colour is wanted on stdout.
pub(super) fn stdout_color() -> bool {
    io::stdout().is_terminal() && colors_allowed()
}

/// Colour is wanted on stderr.
pub(super) fn stderr_color() -> bool {
    io::stderr().is_terminal() && colors_allowed()
}

/// Source: no-color.org, "when present and not an empty string".
fn colors_allowed() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
