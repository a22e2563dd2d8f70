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
}

impl Figures {
    /// How often something happened.
    pub fn count(&self, what: &str) -> u64 {
        self.coverage.get(what).copied().unwrap_or(0)
    }

    /// One line.
    pub fn summary(&self) -> String {
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        format!(
            "{} seeds, {} events, {:.1} s: {:.0} seeds per CPU-second; {} failed",
            self.seeds,
            self.events,
            seconds,
            self.seeds as f64 / seconds,
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

/// Runs the plans that `draw` makes of seeds, until the range, the time or the patience for failures ends.
pub fn campaign(
    seeds: Range<u64>,
    draw: impl Fn(u64) -> Plan,
    bug: Option<Bug>,
    time: Option<Duration>,
    failures_max: usize,
    mut each: impl FnMut(u64, &Failure),
) -> Figures {
    let began = Instant::now();
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
    figures
}
