//! How many seeds it takes until a fault planted in the core is caught by a named law.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

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
}

/// Runs plans with the fault until a law breaks, one on each core at a time; told is the first seed
/// that breaks one. A panic of the core catches it as well, and does not count: no law of the simulator
/// named it.
pub fn catch(bug: Bug, draw: impl Fn(u64) -> Plan + Sync, seeds_max: u64) -> Catch {
    let next = AtomicU64::new(0);
    let found = Mutex::new(None::<(u64, Failure)>);
    let first = || found.lock().expect("nobody panics with it");
    let work = || {
        loop {
            let seeds = next.fetch_add(1, Ordering::Relaxed) + 1;
            // Those before the one that was found are all run.
            let is_over = first().as_ref().is_some_and(|(known, _)| *known < seeds);
            if seeds > seeds_max || is_over {
                return;
            }
            let failure = run(&draw(seeds - 1), Some(bug), false).failure;
            let Some(failure) = failure.filter(|f| f.law != "assertion") else {
                continue;
            };
            let mut found = first();
            if found.as_ref().is_none_or(|(known, _)| seeds < *known) {
                *found = Some((seeds, failure));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(work);
        }
    });
    Catch {
        bug,
        found: found.into_inner().expect("nobody panicked with it"),
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
