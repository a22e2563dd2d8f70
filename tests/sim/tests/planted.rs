//! Every fault planted in the core is caught by a named law, within a bounded number of seeds; the
//! same seeds pass without it (see `seeds.rs`).

#![cfg(feature = "planted")]

use sim::catch::{Catch, SEEDS_MAX, catch, median, summary};
use sim::engine::Bug;
use sim::swarm;

#[test]
fn every_planted_fault_is_caught() {
    std::panic::set_hook(Box::new(|_| {}));
    let catch = |bug| {
        let caught = catch(bug, |index| swarm::plan_for(bug, index), SEEDS_MAX);
        println!("{}", caught.line());
        caught
    };
    let catches: Vec<Catch> = Bug::ALL.into_iter().map(catch).collect();
    println!("{}", summary(&catches));
    let escaped: Vec<&Catch> = catches.iter().filter(|c| c.found.is_none()).collect();
    assert!(escaped.is_empty(), "{escaped:?}");
    assert!(median(&catches) <= SEEDS_MAX / 10);
}
