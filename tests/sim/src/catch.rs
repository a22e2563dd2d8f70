//! How many seeds it takes until a fault planted in the core is caught by a named law.

use std::num::NonZero;
use std::sync::Mutex;
use std::thread;
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

/// Catches each of `bugs`, as many at once as there are cores, and prints a line for each as it is
/// caught. Gives them in the order of `bugs`.
pub fn catch_all(
    bugs: &[Bug],
    draw: impl Fn(Bug, u64) -> Plan + Sync,
    seeds_max: u64,
) -> Vec<Catch> {
    let todo = Mutex::new(bugs.iter().copied().enumerate());
    let done = Mutex::new(Vec::with_capacity(bugs.len()));
    let next = || todo.lock().expect("nobody panics with it").next();
    let work = || {
        while let Some((place, bug)) = next() {
            let caught = catch(bug, |index| draw(bug, index), seeds_max);
            println!("{}", caught.line());
            done.lock()
                .expect("nobody panics with it")
                .push((place, caught));
        }
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores.min(bugs.len()) {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().expect("nobody panicked with it");
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, caught)| caught).collect()
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
