//! Many seeds, one after the other, with figures.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::engine::Bug;
use crate::plan::Plan;
use crate::run::run;
use crate::world::Failure;

/// What a campaign found.
#[derive(Debug, Default)]
pub struct Figures {
    /// Seeds run.
    pub seeds: u64,
    /// Events handled by all cores.
    pub events: u64,
    /// Sum of what happened.
    pub coverage: BTreeMap<&'static str, u64>,
    /// Seeds that broke a law.
    pub failures: Vec<(u64, Failure)>,
    /// Time taken.
    pub elapsed: Duration,
    /// Time this thread had a CPU; [`Figures::elapsed`] where the system does not tell.
    pub on_cpu: Duration,
}

impl Figures {
    /// How often something happened.
    pub fn count(&self, what: &str) -> u64 {
        self.coverage.get(what).copied().unwrap_or(0)
    }

    /// One line.
    pub fn summary(&self) -> String {
        format!(
            "{} seeds, {} events, {:.1} s: {:.0} seeds per CPU-second; {} failed",
            self.seeds,
            self.events,
            self.elapsed.as_secs_f64(),
            self.seeds as f64 / self.on_cpu.as_secs_f64().max(1e-9),
            self.failures.len()
        )
    }

    /// What happened, one per line.
    pub fn table(&self) -> String {
        self.coverage
            .iter()
            .map(|(what, count)| format!("  {count:>10}  {what}\n"))
            .collect()
    }
}

/// Time this thread ran so far.
fn on_cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let ns = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(ns))
}

/// Runs the plans that `draw` makes of seeds, until the range, the time or the patience for failures ends.
pub fn campaign(
    seeds: Range<u64>,
    draw: impl Fn(u64) -> Plan,
    bug: Option<Bug>,
    time: Option<Duration>,
    failures_max: usize,
    mut each: impl FnMut(u64, &Failure),
) -> Figures {
    let (began, ran_before) = (Instant::now(), on_cpu());
    let mut figures = Figures::default();
    for seed in seeds {
        if time.is_some_and(|t| began.elapsed() >= t) || figures.failures.len() >= failures_max {
            break;
        }
        let report = run(&draw(seed), bug, false);
        figures.seeds += 1;
        figures.events += report.events;
        for (what, count) in report.coverage {
            *figures.coverage.entry(what).or_default() += count;
        }
        if let Some(failure) = report.failure {
            each(seed, &failure);
            figures.failures.push((seed, failure));
        }
    }
    figures.elapsed = began.elapsed();
    figures.on_cpu = match (ran_before, on_cpu()) {
        (Some(before), Some(now)) => now.saturating_sub(before),
        _ => figures.elapsed,
    };
    figures
}
