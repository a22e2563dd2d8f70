//! Seeds that once failed, and a short swarm: every law holds on them.

use std::ops::Range;
use std::path::Path;

use sim::campaign::{campaign, kept_plans};
use sim::plan::Plan;
use sim::run::{run, run_thoroughly};
use sim::swarm;

#[test]
fn seeds_that_once_failed_hold_every_law() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let plans = kept_plans(&folder).unwrap_or_else(|why| panic!("{why}"));
    assert!(plans.len() >= 50, "only {} plans were kept", plans.len());
    for (name, plan) in plans {
        assert_eq!(run(&plan, None, false).failure, None, "{name}");
    }
}

/// What a short swarm of volumes with one replica must have met.
const MET_ALONE: &[&str] = &[
    "growths that a crash let through",
    "growths that a crash undid",
    "growths unanswered",
    "growths refused",
    "disks full",
    "starts after metadata failed",
    "marks compared",
    "losses of all volatile state",
    "switches",
];

/// What a short swarm must have met, so that it is not vacuous.
const MET: &[&str] = &[
    "abort",
    "activity-log closings",
    "answers: ok",
    "bold promotions",
    "changes of S",
    "cuts",
    "damage found",
    "damage repaired",
    "damage undone",
    "damaged heads",
    "damaged payloads",
    "demotions",
    "departures from S",
    "disks failed",
    "flushes that promise something",
    "foundings",
    "growths",
    "joins",
    "kills",
    "losses of all volatile state",
    "merges",
    "pauses",
    "power cuts",
    "primaries lost",
    "promotions",
    "promotions refused as they must be",
    "read errors",
    "reads by peers",
    "reads by peers of a healthy disk",
    "replacements",
    "resync differing",
    "resync equal",
    "resync pieces",
    "resync zeros",
    "resyncs done",
    "salvages begun",
    "rot found",
    "rot repaired",
    "scrubs",
    "sessions closed with requests in flight",
    "split brains compared",
    "split brains resolved by command",
    "split brains resolved",
    "stops",
    "verifies",
    "verify by sums",
    "verify leaves",
];

#[test]
fn what_laws_keep_from_event_to_event_is_what_they_would_find_anew() {
    std::panic::set_hook(Box::new(|_| {}));
    for seed in 0..60 {
        for plan in [swarm::plan(seed), swarm::plan(swarm::VOTES + seed)] {
            let (quick, thorough) = (run(&plan, None, false), run_thoroughly(&plan, None));
            assert_eq!(quick, thorough, "{}", plan.seed);
            assert_eq!(quick.failure, None, "{}", plan.seed);
        }
    }
}

#[test]
fn a_short_swarm_holds_every_law_and_is_not_vacuous() {
    std::panic::set_hook(Box::new(|_| {}));
    held_and_met(0..350, swarm::plan, MET);
}

#[test]
fn a_short_swarm_of_single_replicas_holds_every_law_and_is_not_vacuous() {
    std::panic::set_hook(Box::new(|_| {}));
    held_and_met(0..300, |seed| swarm::plan_of(seed, 1), MET_ALONE);
}

/// What a short swarm of volumes whose records a register chooses must have met.
const MET_REGISTER: &[&str] = &[
    "answers of the register lost",
    "answers: superseded",
    "changes of S",
    "damage repaired",
    "departures from S",
    "joins",
    "primaries lost",
    "primaries stepped down",
    "promotions",
    "swaps that came too late",
    "switches",
];

#[test]
fn a_short_swarm_by_a_register_holds_every_law_and_is_not_vacuous() {
    std::panic::set_hook(Box::new(|_| {}));
    let seeds = swarm::REGISTER..swarm::REGISTER + 200;
    held_and_met(seeds, swarm::plan, MET_REGISTER);
}

fn held_and_met(seeds: Range<u64>, draw: impl Fn(u64) -> Plan, met: &[&str]) {
    let figures = campaign(seeds, draw, None, None, 1, |plan, failure| {
        let seed = plan.seed;
        println!("seed {seed}: {failure:?}; step through it: scripts/sim --seed {seed} --step");
    });
    println!("{}", figures.summary());
    assert!(figures.failures.is_empty(), "{:?}", figures.failures);
    let missed: Vec<&&str> = met
        .iter()
        .filter(|what| !figures.coverage.keys().any(|k| k.contains(**what)))
        .collect();
    assert!(
        missed.is_empty(),
        "the swarm never met {missed:?}\n{}",
        figures.table()
    );
}
