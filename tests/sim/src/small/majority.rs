//! Small worlds in which a majority chooses: two replicas and a witness, or three replicas; three
//! requests; and one fault, at every point where it can happen.
//!
//! ```text
//!  world × script × policy ─► for each node, for each event while the script runs:
//!      kill -9 after each of the event's actions
//!      power cut there, with every subset of the blocks on their way or not durable
//!      the wire to each other node is cut, for less and for more than a lease
//!  and the node is back before its lease ran out, or long after
//! ```
//!
//! What a kill does to writes on their way, and how late things are, is drawn from the seed.

use super::Tried;
use crate::engine::Bug;
use crate::plan::{Plan, Settings, Step};
use crate::swarm::MS;
use crate::world::Struck;

/// When the script begins: the volume is founded, all copies are in sync and nothing is left to do.
const BEGIN: u64 = 1000 * MS;
/// Events from here to so much later are points of faults: the three requests are answered and the
/// activity log is settled by then.
const WINDOW: u64 = 40 * MS;
/// Back before the lease ran out, and long after another took over.
const AWAY: [u64; 2] = [40 * MS, 900 * MS];
/// Requests after the fault: before another can serve, and when one does.
const AFTER: [u64; 2] = [60 * MS, 800 * MS];
/// Open blocks whose subsets are tried one by one: 2^8 of them at most.
pub const OPEN_BLOCKS_MAX: u64 = 8;

/// What was tried, by kind.
#[derive(Debug, Default)]
pub struct Worlds {
    /// All runs.
    pub tried: Tried,
    /// Events at which a fault was tried.
    pub points: u64,
    /// Runs with a kill.
    pub kills: u64,
    /// Runs with a power cut.
    pub power_cuts: u64,
    /// Runs with a cut wire.
    pub cut_wires: u64,
    /// The most open blocks that a power cut met.
    pub open_blocks: u64,
    /// Power cuts that met more of them than subsets are tried of.
    pub not_all_subsets: u64,
}

impl Worlds {
    /// One line.
    pub fn summary(&self) -> String {
        format!(
            "{} worlds with votes, {} events: {} points, {} kills, {} power cuts (up to {} open blocks, \
             {} with more than {OPEN_BLOCKS_MAX}), {} cut wires; {} failed",
            self.tried.runs,
            self.tried.events,
            self.points,
            self.kills,
            self.power_cuts,
            self.open_blocks,
            self.not_all_subsets,
            self.cut_wires,
            self.tried.failures.len()
        )
    }
}

/// Three requests; each script ends with what only a sound failover gets right.
fn scripts() -> [[(u64, Step); 3]; 3] {
    let (slot, fua) = (0, 0);
    let write = |slot, first, count, fua| Step::Write {
        slot,
        first,
        count,
        fua,
    };
    [
        // Written and flushed, then written over and not flushed.
        [
            (0, write(0, 0, 2, 0)),
            (1_500_000, Step::Flush { slot }),
            (3_500_000, write(1, 1, 2, 0)),
        ],
        // Two clients at once on the same blocks, and a read of what may be undone.
        [
            (0, write(0, 2, 2, 0)),
            (20_000, write(1, 3, 2, 1)),
            (
                700_000,
                Step::Read {
                    slot,
                    first: 0,
                    count: 8,
                },
            ),
        ],
        // Zeros over what was written, flushed.
        [
            (0, write(0, 8, 2, 0)),
            (
                1_400_000,
                Step::Zero {
                    slot: 1,
                    first: 8,
                    count: 8,
                    how: 0,
                    fua,
                },
            ),
            (3_000_000, Step::Flush { slot: 1 }),
        ],
    ]
}

/// One of the worlds before anything befalls it.
fn calm(seed: u64, (replicas, witnesses): (u64, u64), script: usize, policy: u64) -> Plan {
    let settings = Settings {
        nodes: replicas,
        witnesses,
        has_votes: 1,
        granules: 16,
        spots: 1,
        spot_granules: 2,
        sessions: 2,
        volatile_nodes: 0xFF,
        is_durable_policy: policy,
        sample_every: 1,
        ..Settings::default()
    };
    let mut steps: Vec<_> = scripts()[script]
        .iter()
        .map(|(at, step)| (BEGIN + at, *step))
        .collect();
    for at in AFTER {
        let (slot, first) = (0, 0);
        steps.push((
            BEGIN + at,
            Step::Read {
                slot,
                first,
                count: 16,
            },
        ));
        let (count, fua) = (3, 0);
        steps.push((
            BEGIN + at + MS,
            Step::Write {
                slot,
                first,
                count,
                fua,
            },
        ));
    }
    Plan {
        seed,
        settings,
        steps,
    }
}

struct Explorer {
    worlds: Worlds,
    calm: Plan,
    bug: Option<Bug>,
}

impl Explorer {
    /// One run with this fault, counted from the begin of the script; `None` if it did not come
    /// within the window.
    fn with(&mut self, fault: Step) -> Option<Struck> {
        let mut plan = self.calm.clone();
        plan.steps.insert(0, (BEGIN - 1, fault));
        let struck = self.worlds.tried.tried(plan, self.bug);
        struck.filter(|s| s.at < BEGIN + WINDOW)
    }

    fn is_broken(&self) -> bool {
        !self.worlds.tried.failures.is_empty()
    }

    /// All that can befall a node in the so many-th event from now; false if the script was over.
    fn faults_at(&mut self, node: u64, events: u64) -> bool {
        for down in AWAY {
            let kill = |actions| Step::KillInEvent {
                node,
                events,
                actions,
                down,
            };
            let Some(first) = self.with(kill(0)) else {
                return false;
            };
            self.worlds.kills += 1 + first.actions;
            for actions in 1..=first.actions {
                self.with(kill(actions));
            }
            for actions in 0..=first.actions {
                self.power_cuts_at(node, events, actions, down);
            }
        }
        self.worlds.points += 1;
        let settings = &self.calm.settings;
        let all = settings.nodes + settings.witnesses;
        for peer in (0..all).filter(|p| *p != node) {
            for span in AWAY {
                self.worlds.cut_wires += 1;
                self.with(Step::CutWireAtEvent {
                    node,
                    events,
                    peer,
                    span,
                });
            }
        }
        true
    }

    fn power_cuts_at(&mut self, node: u64, events: u64, actions: u64, down: u64) {
        let cut = |keep| Step::CutPowerInEvent {
            node,
            events,
            actions,
            keep,
            down,
        };
        let open = self.with(cut(0)).map_or(0, |s| s.open_blocks);
        self.worlds.open_blocks = self.worlds.open_blocks.max(open);
        self.worlds.not_all_subsets += u64::from(open > OPEN_BLOCKS_MAX);
        let subsets = 1 << open.min(OPEN_BLOCKS_MAX);
        self.worlds.power_cuts += subsets;
        for keep in 1..subsets {
            self.with(cut(keep));
        }
    }
}

/// Runs all of the worlds as one seed draws their chance. Stops at the first point with a broken
/// law.
pub fn majority_worlds(seed: u64, bug: Option<Bug>) -> Worlds {
    let mut worlds = Worlds::default();
    for shape in [(2, 1), (3, 0)] {
        for script in 0..scripts().len() {
            for policy in [0, 1] {
                for node in 0..3 {
                    let mut explorer = Explorer {
                        worlds,
                        calm: calm(seed, shape, script, policy),
                        bug,
                    };
                    let mut events = 1;
                    while explorer.faults_at(node, events) && !explorer.is_broken() {
                        events += 1;
                    }
                    let is_broken = explorer.is_broken();
                    worlds = explorer.worlds;
                    if is_broken {
                        return worlds;
                    }
                }
            }
        }
    }
    worlds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::run;

    #[test]
    fn the_script_is_over_within_the_window_where_nothing_happens() {
        for (seed, shape) in (0..20).flat_map(|seed| [(seed, (2, 1)), (seed, (3, 0))]) {
            for script in 0..scripts().len() {
                let mut plan = calm(seed, shape, script, 0);
                plan.steps.truncate(3);
                plan.steps.push((BEGIN + WINDOW, Step::Close { slot: 0 }));
                plan.steps.push((BEGIN + WINDOW, Step::Close { slot: 1 }));
                let report = run(&plan, None, false);
                assert_eq!(report.failure, None);
                let answered = report.count("answers: ok");
                assert!(answered >= 3, "{seed} {shape:?} {script}: {answered}");
                assert_eq!(report.count("sessions closed with requests in flight"), 0);
            }
        }
    }
}
