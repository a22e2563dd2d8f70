//! How many clients fit: each is a file descriptor.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Raises the soft limit of open files to the hard one. Login shells and service managers start
/// processes with 1024, for programs that use `select`; nothing here does.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        let current = limit.current.map_or("unlimited".into(), |n| n.to_string());
        warn!(
            code = "W115",
            "open files stay limited to {current}: {error}"
        );
    }
}
