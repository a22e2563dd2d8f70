//! Many seeds, one after the other, with figures.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::engine::Bug;
use crate::laws::SITUATIONS;
use crate::plan::Plan;
use crate::run::{Report, run, run_thoroughly};
use crate::world::Failure;

/// What a campaign found.
#[derive(Debug, Default)]
pub struct Figures {
    /// Seeds run.
    pub seeds: u64,
    /// Those in whose worlds a majority chooses.
    pub with_votes: u64,
    /// Those that were run twice and compared.
    pub run_twice: u64,
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
            "{} seeds ({} with votes, {} run twice and compared), {} events, {:.1} s: {:.0} seeds per \
             CPU-second; {} failed",
            self.seeds,
            self.with_votes,
            self.run_twice,
            self.events,
            self.elapsed.as_secs_f64(),
            self.seeds as f64 / self.on_cpu.as_secs_f64().max(1e-9),
            self.failures.len()
        )
    }

    /// Each situation with how often it was met, per minute of CPU time; and those never met in it.
    pub fn situations(&self) -> (String, Vec<&'static str>) {
        let minutes = self.on_cpu.as_secs_f64() / 60.0;
        let per_minute = |what: &str| self.count(what) as f64 / minutes.max(1e-9);
        let lines = SITUATIONS
            .iter()
            .map(|what| format!("  {:>10.1}  {what}\n", per_minute(what)));
        let missed = SITUATIONS.iter().copied();
        (
            lines.collect(),
            missed.filter(|w| per_minute(w) < 1.0).collect(),
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

/// Plans of a folder, by the names of their files. Errors name the file.
pub fn kept_plans(folder: &Path) -> Result<Vec<(String, Plan)>, String> {
    let told = |path: &Path, why: String| format!("{}: {why}", path.display());
    let entries = std::fs::read_dir(folder).map_err(|e| told(folder, e.to_string()))?;
    let mut files = entries
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<PathBuf>, _>>()
        .map_err(|e| told(folder, e.to_string()))?;
    files.retain(|path| path.extension().is_some_and(|e| e == "plan"));
    files.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).map_err(|e| told(&path, e.to_string()))?;
        let plan = Plan::parse(&text).map_err(|why| told(&path, why))?;
        Ok((path.display().to_string(), plan))
    };
    files.into_iter().map(read).collect()
}

/// Time this thread ran so far.
fn on_cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let ns = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(ns))
}

/// One seed in so many is run twice, the second time thoroughly; both must tell the same.
pub const TWICE_ONE_IN: u64 = 100;

/// Runs the plans that `draw` makes of seeds, until the range, the time or the patience for failures ends.
pub fn campaign(
    seeds: Range<u64>,
    draw: impl Fn(u64) -> Plan,
    bug: Option<Bug>,
    time: Option<Duration>,
    failures_max: usize,
    mut each: impl FnMut(&Plan, &Failure),
) -> Figures {
    let (began, ran_before) = (Instant::now(), on_cpu());
    let mut figures = Figures::default();
    for seed in seeds {
        if time.is_some_and(|t| began.elapsed() >= t) || figures.failures.len() >= failures_max {
            break;
        }
        let plan = draw(seed);
        let mut report = run(&plan, bug, false);
        if figures.seeds % TWICE_ONE_IN == TWICE_ONE_IN / 2 {
            figures.run_twice += 1;
            report = same_again(&plan, bug, report);
        }
        figures.seeds += 1;
        figures.with_votes += u64::from(plan.settings.has_votes == 1);
        figures.events += report.events;
        for (what, count) in report.coverage {
            *figures.coverage.entry(what).or_default() += count;
        }
        if let Some(failure) = report.failure {
            each(&plan, &failure);
            figures.failures.push((plan.seed, failure));
        }
    }
    figures.elapsed = began.elapsed();
    figures.on_cpu = match (ran_before, on_cpu()) {
        (Some(before), Some(now)) => now.saturating_sub(before),
        _ => figures.elapsed,
    };
    figures
}

fn same_again(plan: &Plan, bug: Option<Bug>, mut report: Report) -> Report {
    let again = run_thoroughly(plan, bug);
    if again != report && report.failure.is_none() {
        let text = match again.failure {
            Some(failure) => failure.text,
            None => "the same plan was run twice and told two stories".into(),
        };
        report.failure = Some(Failure {
            law: "determinism".into(),
            text,
            at: 0,
        });
    }
    report
}
