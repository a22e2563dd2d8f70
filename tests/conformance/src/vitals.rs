//! What a process holds, as the kernel tells it.

use std::fs;
use std::time::Duration;

use crate::eventually;

/// What a daemon holds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub descriptors: usize,
}

impl Vitals {
    /// Of the process `pid`. Panics: it is gone.
    pub fn of(pid: u32) -> Vitals {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
        let kibibytes = status.lines().find_map(|line| {
            let (_, rest) = line.split_once("VmRSS:")?;
            rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
        });
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives");
        Vitals {
            resident_bytes: kibibytes.expect("VmRSS is told in kB") << 10,
            descriptors: descriptors.count(),
        }
    }

    /// Waits until `pid` holds no more descriptors than here. Panics: not within `limit`.
    pub fn descriptors_return(&self, pid: u32, limit: Duration) {
        let what = format!("{} descriptors or fewer are open", self.descriptors);
        eventually(limit, &what, || {
            (Vitals::of(pid).descriptors <= self.descriptors).then_some(())
        });
    }
}
