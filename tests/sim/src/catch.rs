//! How many seeds it takes until a fault planted in the core is caught by a named law.

use std::time::{Duration, Instant};

use crate::engine::Bug;
use crate::plan::Plan;
use crate::run::run;
use crate::world::Failure;

/// Seeds tried per planted fault.
pub const SEEDS_MAX: u64 = 100_000;

/// One planted fault, caught or not.
#[derive(Clone, Debug)]
pub struct Catch {
    /// Which.
    pub bug: Bug,
    /// Seeds it took, and the law that broke.
    pub found: Option<(u64, Failure)>,
    /// Time it took.
    pub elapsed: Duration,
}

/// Runs plans with the fault until a law breaks. A panic of the core catches it as well, and does
/// not count: no law of the simulator named it.
pub fn catch(bug: Bug, draw: impl Fn(u64) -> Plan, seeds_max: u64) -> Catch {
    let began = Instant::now();
    let broken = |index: u64| {
        let failure = run(&draw(index), Some(bug), false).failure?;
        (failure.law != "assertion").then_some((index + 1, failure))
    };
    let found = (0..seeds_max).find_map(broken);
    Catch {
        bug,
        found,
        elapsed: began.elapsed(),
    }
}

impl Catch {
    /// One line.
    pub fn line(&self) -> String {
        let name = format!("{:?}", self.bug);
        match &self.found {
            Some((seeds, failure)) => {
                format!("  {name:28} law {:3} after {seeds} seeds", failure.law)
            }
            None => format!("  {name:28} not caught"),
        }
    }
}

/// How many seeds half of those that were caught took at most.
pub fn median(catches: &[Catch]) -> u64 {
    let seeds = taken(catches);
    seeds.get(seeds.len() / 2).copied().unwrap_or(0)
}

/// One line for all.
pub fn summary(catches: &[Catch]) -> String {
    let seeds = taken(catches);
    format!(
        "planted bugs caught: {} of {}; median {} seeds, most {}",
        seeds.len(),
        catches.len(),
        median(catches),
        seeds.last().copied().unwrap_or(0)
    )
}

fn taken(catches: &[Catch]) -> Vec<u64> {
    let found = catches.iter().filter_map(|c| c.found.as_ref());
    let mut seeds: Vec<u64> = found.map(|(seeds, _)| *seeds).collect();
    seeds.sort_unstable();
    seeds
}
