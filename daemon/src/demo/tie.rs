//! Children that cannot outlive the process that started them.

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Names, in the environment of a daemon, the process it dies with.
pub const DIE_WITH: &str = "POLLUX_DIE_WITH";

/// Asks the kernel to kill this process when its parent ends, however it ends, if
/// [`DIE_WITH`] holds the parent's pid. Ends this process if the parent is gone already.
///
/// The kernel counts the *thread* that started this process as its parent. `pollux demo` and the
/// tests start daemons with it; service managers and shells never set it.
pub fn die_with_parent() {
    let Some(named) = std::env::var_os(DIE_WITH) else {
        return;
    };
    let named = named
        .to_str()
        .and_then(|text| text.parse().ok())
        .and_then(Pid::from_raw);
    // Refused only for signal numbers that do not exist.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    if named.is_none() || getppid() != named {
        std::process::exit(1);
    }
}
