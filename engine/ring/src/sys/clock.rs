//! The project's clock.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_BOOTTIME: monotonic, and running while the machine is suspended.
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    // Time since boot is positive, and fits for 584 years.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_runs_forward() {
        let first = super::boottime_ns();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let passed = super::boottime_ns() - first;
        assert!((2_000_000..10_000_000_000).contains(&passed), "{passed}");
    }
}
