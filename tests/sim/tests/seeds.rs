//! Seeds that once failed, and a short swarm: every law holds on them.

use std::ops::Range;
use std::path::Path;

use sim::campaign::campaign;
use sim::plan::Plan;
use sim::run::run;
use sim::swarm;

#[test]
fn seeds_that_once_failed_hold_every_law() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of seeds is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.extension().is_some_and(|e| e == "plan"))
        .collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a plan can be read");
        let plan = Plan::parse(&text).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
        let report = run(&plan, None, false);
        assert_eq!(report.failure, None, "{}", file.display());
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
    "resync equal",
    "resync pieces",
    "resync zeros",
    "resyncs done",
    "salvages begun",
    "sessions closed with requests in flight",
    "split brains compared",
    "split brains resolved by command",
    "split brains resolved",
    "stops",
    "verifies",
];

#[test]
fn a_short_swarm_holds_every_law_and_is_not_vacuous() {
    std::panic::set_hook(Box::new(|_| {}));
    held_and_met(0..300, swarm::plan, MET);
}

#[test]
fn a_short_swarm_of_single_replicas_holds_every_law_and_is_not_vacuous() {
    std::panic::set_hook(Box::new(|_| {}));
    held_and_met(0..300, |seed| swarm::plan_of(seed, 1), MET_ALONE);
}

fn held_and_met(seeds: Range<u64>, draw: impl Fn(u64) -> Plan, met: &[&str]) {
    let figures = campaign(seeds, draw, None, None, 1, |seed, failure| {
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
