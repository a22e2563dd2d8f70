//! Small worlds, exhaustive: a short script on two nodes, and a crash at every event of either
//! node; for power cuts, every subset of the blocks that were not durable. And a volume with one
//! replica that grows, with a crash at every event and in every metadata write. Worlds in which a
//! majority chooses are in `majority.rs`.

mod majority;

use std::collections::BTreeMap;

use engine_core::bitmap::BITS_PER_PAGE;

use crate::disk::BLOCKS_PER_GRANULE;
use crate::engine::Bug;
use crate::plan::{Plan, Settings, Step};
use crate::run::{Report, run};
use crate::swarm::MS;
use crate::world::Struck;

pub use majority::{Worlds, majority_worlds};

/// When the script begins: the volume is founded and in sync by then.
const BEGIN: u64 = 120 * MS;
/// Crashed nodes come back after this.
const DOWN: u64 = 40 * MS;

/// Three writes, one of them unaligned and one on top of another, a flush, a trim, reads.
pub fn script(seed: u64, is_durable_policy: bool) -> Plan {
    let settings = Settings {
        granules: 16,
        spots: 1,
        spot_granules: 4,
        sessions: 2,
        is_durable_policy: u64::from(is_durable_policy),
        sample_every: 1,
        ..Settings::default()
    };
    let steps = vec![
        (
            0,
            Step::Write {
                slot: 0,
                first: 0,
                count: 2,
                fua: 0,
            },
        ),
        (
            200_000,
            Step::Write {
                slot: 0,
                first: 8,
                count: 2,
                fua: 0,
            },
        ),
        (1_200_000, Step::Flush { slot: 0 }),
        (
            1_300_000,
            Step::Write {
                slot: 1,
                first: 1,
                count: 2,
                fua: 0,
            },
        ),
        (
            3_600_000,
            Step::Read {
                slot: 0,
                first: 0,
                count: 16,
            },
        ),
        (
            4_200_000,
            Step::Zero {
                slot: 0,
                first: 8,
                count: 4,
                how: 0,
                fua: 0,
            },
        ),
        (
            4_300_000,
            Step::Write {
                slot: 1,
                first: 2,
                count: 1,
                fua: 1,
            },
        ),
        (
            6_500_000,
            Step::Read {
                slot: 1,
                first: 0,
                count: 16,
            },
        ),
        (8_000_000, Step::Flush { slot: 1 }),
    ];
    let steps = steps
        .into_iter()
        .map(|(at, step)| (BEGIN + at, step))
        .collect();
    Plan {
        seed,
        settings,
        steps,
    }
}

fn with_crash(mut plan: Plan, step: Step) -> Plan {
    // From the first event of the script on; it runs on after the crash.
    plan.steps.insert(0, (BEGIN - MS, step));
    plan.steps.push((
        BEGIN + 60 * MS,
        Step::Read {
            slot: 0,
            first: 0,
            count: 16,
        },
    ));
    plan.steps.push((
        BEGIN + 61 * MS,
        Step::Write {
            slot: 0,
            first: 3,
            count: 9,
            fua: 0,
        },
    ));
    plan
}

/// What was tried.
#[derive(Debug, Default)]
pub struct Tried {
    /// Runs.
    pub runs: u64,
    /// Events handled.
    pub events: u64,
    /// What happened how often.
    pub coverage: BTreeMap<&'static str, u64>,
    /// Runs that broke a law.
    pub failures: Vec<(Plan, Report)>,
}

impl Tried {
    /// How often something happened.
    pub fn count(&self, what: &str) -> u64 {
        self.coverage.get(what).copied().unwrap_or(0)
    }

    /// Runs a plan; what was to happen at an event, if it did.
    fn tried(&mut self, plan: Plan, bug: Option<Bug>) -> Option<Struck> {
        let report = run(&plan, bug, false);
        let struck = report.struck;
        self.note(plan, report);
        struck
    }

    fn run(&mut self, plan: Plan, bug: Option<Bug>) -> bool {
        let report = run(&plan, bug, false);
        let crashed = report.count("kills") + report.count("power cuts") > 0;
        self.note(plan, report);
        crashed
    }

    fn note(&mut self, plan: Plan, report: Report) {
        self.runs += 1;
        self.events += report.events;
        for (what, count) in &report.coverage {
            *self.coverage.entry(what).or_default() += count;
        }
        if report.failure.is_some() {
            self.failures.push((plan, report));
        }
    }
}

/// Crashes everywhere, until the script is over at each node. `masks`: subsets of blocks tried
/// per power cut; the script leaves at most six blocks not durable, so 64 are all of them. Stops at
/// the first failure.
pub fn crash_everywhere(seed: u64, masks: u64, bug: Option<Bug>) -> Tried {
    let mut tried = Tried::default();
    for is_durable in [false, true] {
        for node in 0..2 {
            for events in 1.. {
                let kill = Step::KillAtEvent {
                    node,
                    events,
                    down: DOWN,
                };
                let reached = tried.run(with_crash(script(seed, is_durable), kill), bug);
                for keep in 0..masks {
                    let cut = Step::CutPowerAtEvent {
                        node,
                        events,
                        keep,
                        down: DOWN,
                    };
                    tried.run(with_crash(script(seed, is_durable), cut), bug);
                }
                if !reached || !tried.failures.is_empty() {
                    break;
                }
            }
        }
    }
    tried
}

/// A mark, a growth by a page of its bits over what lay behind, writes across the old end.
fn growth_script(seed: u64) -> Plan {
    let settings = Settings {
        nodes: 1,
        granules: BITS_PER_PAGE - 8,
        spots: 1,
        spot_granules: 4,
        sessions: 2,
        sample_every: 1,
        ..Settings::default()
    };
    let end = settings.granules * BLOCKS_PER_GRANULE;
    let (slot, fua) = (0, 0);
    let write = |first, count| Step::Write {
        slot,
        first,
        count,
        fua,
    };
    let grow = Step::Grow {
        size: BITS_PER_PAGE + 100,
        held: 1,
    };
    let steps = [
        (0, Step::MarkCreate { name: 0 }),
        (4, write(0, 9)),
        (7, grow),
        (11, write(end - 4, 12)),
        (13, Step::Flush { slot }),
        (14, write(end + 3, 2)),
        // Where the first one was lost.
        (90, grow),
        (96, write(end - 2, 12)),
    ];
    Plan {
        seed,
        settings,
        steps: steps.map(|(ms, step)| (BEGIN + ms * MS, step)).to_vec(),
    }
}

/// Crashes everywhere in a growth: at every event, with `masks` outcomes of each power cut, and in
/// every metadata write. Stops at the first failure.
pub fn crash_while_growing(seed: u64, masks: u64, bug: Option<Bug>) -> Tried {
    let mut tried = Tried::default();
    let (node, down) = (0, DOWN);
    let mut crash = |step| {
        let mut plan = growth_script(seed);
        plan.steps.insert(0, (BEGIN - MS, step));
        tried.run(plan, bug) && tried.failures.is_empty()
    };
    for events in 1.. {
        let kill = Step::KillAtEvent { node, events, down };
        let cut = |keep| Step::CutPowerAtEvent {
            node,
            events,
            keep,
            down,
        };
        if !crash(kill) || (0..masks).any(|keep| !crash(cut(keep))) {
            break;
        }
    }
    for writes in 1.. {
        if !crash(Step::KillInMetaWrite { node, writes, down }) {
            break;
        }
    }
    tried
}

/// A second crash at every event after a first one: recovery itself is interrupted (law M3).
pub fn crash_in_recovery(seed: u64, first: u64, bug: Option<Bug>) -> Tried {
    let mut tried = Tried::default();
    for node in 0..2 {
        for events in 1..200 {
            let mut plan = script(seed, false);
            plan.steps.insert(
                0,
                (
                    BEGIN - MS,
                    Step::KillAtEvent {
                        node,
                        events: first,
                        down: MS,
                    },
                ),
            );
            let again = Step::KillAtEvent {
                node,
                events,
                down: DOWN,
            };
            plan.steps.push((BEGIN + 30 * MS, again));
            plan.steps.push((
                BEGIN + 160 * MS,
                Step::Read {
                    slot: 0,
                    first: 0,
                    count: 16,
                },
            ));
            tried.run(plan, bug);
            let other = Step::KillAtEvent {
                node: 1 - node,
                events,
                down: DOWN,
            };
            let mut plan = script(seed, false);
            plan.steps.insert(
                0,
                (
                    BEGIN - MS,
                    Step::KillAtEvent {
                        node,
                        events: first,
                        down: MS,
                    },
                ),
            );
            plan.steps.push((BEGIN + 30 * MS, other));
            tried.run(plan, bug);
            if !tried.failures.is_empty() {
                return tried;
            }
        }
    }
    tried
}
