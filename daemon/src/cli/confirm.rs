//! Asking before something is destroyed.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::explain::{self, Failure};

/// Whoever calls can be asked.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal()
}

/// Returns if `yes` was given or the volume's name is typed on the terminal.
/// Errors: nobody can be asked (exit 2), another answer (exit 1).
pub(super) fn confirm(what: &str, volume: &str, warning: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !can_ask() {
        return Err(explain::needs_yes(what));
    }
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{warning}\nType the volume's name to go on: ");
    let _ = stderr.flush();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match read.is_ok() && answer.trim() == volume {
        true => Ok(()),
        false => Err(explain::not_confirmed(volume)),
    }
}
