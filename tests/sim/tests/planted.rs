//! Every fault planted in the core is caught, within a bounded number of seeds; the same seeds
//! pass without it (see `seeds.rs`).

#![cfg(feature = "planted")]

use sim::campaign::campaign;
use sim::engine::Bug;
use sim::swarm::{VOTES, plan};

/// Seeds tried per fault.
const SEEDS: u64 = 8000;

#[test]
fn every_planted_fault_is_caught() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut escaped = Vec::new();
    for bug in Bug::ALL {
        let first = if bug.needs_votes() { VOTES } else { 0 };
        let seeds = first..first + SEEDS;
        let figures = campaign(seeds, plan, Some(bug), None, 1, |_, _| {});
        match figures.failures.first() {
            Some((seed, failure)) => println!(
                "{bug:?}: law {} at seed {seed}, after {:.1} s: {}",
                failure.law,
                figures.elapsed.as_secs_f64(),
                failure.text
            ),
            None => escaped.push(bug),
        }
    }
    assert!(
        escaped.is_empty(),
        "not caught within {SEEDS} seeds: {escaped:?}"
    );
}
