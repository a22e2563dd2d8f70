//! What processes hold: memory, files, threads.

use std::fs;

use crate::results::Vital;
use crate::usage::tree_of;

/// Of a server's whole tree, now; `None` if it is gone.
pub fn take(server: u32, at_seconds: f64) -> Option<Vital> {
    let mut vital = Vital {
        at_seconds,
        rss_kib: 0,
        files: 0,
        threads: 0,
    };
    for pid in tree_of(server).ok()? {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        vital.rss_kib += number(&status, "VmRSS:").unwrap_or(0);
        vital.threads += number(&status, "Threads:").unwrap_or(0);
        let files = fs::read_dir(format!("/proc/{pid}/fd"));
        vital.files += files.map_or(0, |files| files.count() as u64);
    }
    Some(vital)
}

/// The first number behind a key.
fn number(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_something() {
        let before = take(std::process::id(), 1.5).unwrap();
        assert!(before.rss_kib > 100 && before.threads >= 1 && before.at_seconds == 1.5);
        let held: Vec<fs::File> = (0..10)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        let after = take(std::process::id(), 2.0).unwrap();
        assert!(
            after.files >= before.files + held.len() as u64 - 2,
            "{before:?} {after:?}"
        );
    }

    #[test]
    fn a_process_that_is_gone_has_no_vitals() {
        assert_eq!(take(u32::MAX / 2, 0.0), None);
    }

    #[test]
    fn numbers_are_found_by_their_key() {
        let status = "Name:\tx\nVmRSS:\t  1234 kB\nThreads:\t7\n";
        assert_eq!(
            (number(status, "VmRSS:"), number(status, "Threads:")),
            (Some(1234), Some(7))
        );
        assert_eq!(number(status, "VmSwap:"), None);
    }
}
