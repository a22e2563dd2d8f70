//! TCP ports that tests running at the same time do not take from each other.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FlockOperation, flock};

/// Below the range from which Linux gives ports to outgoing connections.
const FIRST: u32 = 18_000;
const COUNT: u32 = 14_000;

/// A port of 127.0.0.1 that is this process's while the value lives: by a lock that all tests
/// respect, and free when it was claimed.
#[derive(Debug)]
pub struct Port {
    /// Its number.
    pub number: u16,
    _claim: File,
}

impl Port {
    /// Claims a port. Panics: all are taken, or the temporary folder cannot be written.
    pub fn claim() -> Port {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = claims();
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let spread = std::process::id().wrapping_mul(61).wrapping_add(step);
            let number = u16::try_from(FIRST + spread % COUNT).expect("the range ends at 32000");
            let claim = File::create(folder.join(number.to_string()));
            let claim = claim.expect("the folder of claims is writable");
            let is_mine = flock(&claim, FlockOperation::NonBlockingLockExclusive).is_ok();
            if is_mine && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Port {
                    number,
                    _claim: claim,
                };
            }
        }
        panic!("no free port from {FIRST} to {}", FIRST + COUNT);
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

/// One folder for each user, as files of another one could not be locked.
fn claims() -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("pollux-ports-{uid}"));
    fs::create_dir_all(&folder).expect("the temporary folder is writable");
    folder
}
