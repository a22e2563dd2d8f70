//! Draws a plan from a seed. Each seed switches its own few faults and workloads on, so that
//! rare combinations are not averaged away.
//!
//! ```text
//!  seed ─► here: settings, kind of world ─► plan
//!           ├ spots.rs     where clients go    ├ alone.rs      one node; volumes that grow
//!           ├ clients.rs   what they ask       ├ votes.rs      a majority chooses
//!           ├ troubles.rs  what strikes        ├ register.rs   a register chooses
//!           └ a pair and marks: here           └ checksums.rs  damage on one copy, scrubs
//! ```

mod alone;
mod checksums;
mod clients;
mod register;
mod spots;
mod troubles;
mod votes;

use checksums::with_checksums;
use clients::{Mix, bursts, mix};
pub use register::REGISTER;
use register::with_register;
use spots::first_spots;
pub use spots::{granules_max, spots};
use troubles::{AROUND_GROWTH, TROUBLES, Trouble, strokes};
pub use votes::VOTES;
use votes::with_votes;

use crate::plan::{Plan, Settings, Step};
use crate::rng::Rng;

/// Nanoseconds of a millisecond.
pub const MS: u64 = 1_000_000;

/// The plan of a seed: one in eight has a world with one node; from [`VOTES`] on a majority
/// chooses, from [`REGISTER`] on a register.
pub fn plan(seed: u64) -> Plan {
    if seed >= REGISTER {
        return with_checksums(with_register(pair(seed)));
    }
    if seed >= VOTES {
        return with_checksums(with_votes(pair(seed)));
    }
    let is_alone = Rng::fork(seed, "nodes", 0).one_in(8);
    plan_of(seed, if is_alone { 1 } else { 2 })
}

/// The plan in which a planted fault is looked for: of a kind of world where it can go wrong.
#[cfg(feature = "planted")]
pub fn plan_for(bug: crate::engine::Bug, index: u64) -> Plan {
    let first = match (bug.needs_register(), bug.needs_votes()) {
        (true, _) => REGISTER,
        (false, true) => VOTES,
        (false, false) => 0,
    };
    plan(first + index)
}

/// The plan of one seed of a campaign that takes every kind of world in turn: of two seeds one has
/// votes, and of two of these one has a register in their place.
pub fn mixed(index: u64) -> Plan {
    let first = match index % 4 {
        1 => VOTES,
        3 => REGISTER,
        _ => 0,
    };
    plan(first + index / 2)
}

/// The plan of a seed for a world of so many nodes.
pub fn plan_of(seed: u64, nodes: u64) -> Plan {
    with_checksums(match nodes {
        1 => alone::plan(seed),
        _ => pair(seed),
    })
}

fn settings(rng: &mut Rng) -> Settings {
    // The log has at least 64 slots: only a volume of more extents makes it evict.
    let is_wide = rng.one_in(12);
    let granules = match rng.below(4) {
        _ if is_wide => 96 * 1024,
        0 => 8 * 1024,
        1 => 1024 + 8 * rng.below(64),
        2 => 64 + 8 * rng.below(32),
        _ => 4096,
    };
    let spots = if is_wide {
        88
    } else {
        rng.between(1, 6).min(granules / 16)
    };
    Settings {
        nodes: 2,
        granules,
        spots,
        spot_granules: if is_wide { 1 } else { rng.between(2, 10) },
        is_durable_policy: u64::from(rng.one_in(4)),
        volatile_nodes: *rng.pick(&[3, 3, 3, 1, 2, 0]),
        read_margin: 0,
        log_slots: 64,
        sum_pages: 0,
        requests_max: *rng.pick(&[4, 8, 32, 32, 64]),
        sessions: rng.between(1, 4),
        is_shuffled: u64::from(!rng.one_in(4)),
        is_bold: u64::from(rng.one_in(8)),
        double_one_in: *rng.pick(&[0, 0, 0, 4, 16]),
        sample_every: *rng.pick(&[20, 40, 80]),
        has_votes: 0,
        witnesses: 0,
        ballot_loss_one_in: 0,
        fails_without_quorum: 0,
        has_register: 0,
        register_loss_one_in: 0,
        spares: 0,
        newcomers: 0,
    }
}

fn pair(seed: u64) -> Plan {
    let mut rng = Rng::fork(seed, "plan", 0);
    let mut settings = settings(&mut rng);
    // Drawn apart, as marks are.
    settings.read_margin = *Rng::fork(seed, "reads", 0).pick(&[0, 0, 1, 1, 2, 3]);
    let spots = first_spots(seed, &settings);
    let span = rng.between(300, 4000) * MS;
    // Founding and the first sync take their time; some clients come before it has ended.
    let begin = if rng.coin() { 60 * MS } else { 5 * MS };
    let mix = mix(&mut rng);
    let mut steps = bursts(&mut rng, (begin, span), &spots, &settings, &mix);

    let kinds: Vec<Trouble> = (0..rng.between(0, 4))
        .map(|_| *rng.pick(TROUBLES))
        .collect();
    strokes(&mut rng, (begin, span), &kinds, &mut steps);
    let returns: Vec<(u64, u64)> = steps
        .iter()
        .filter_map(|(at, step)| match step {
            Step::BringBack { node } => Some((*at, *node)),
            _ => None,
        })
        .collect();
    for (at, node) in returns {
        // The node must have run again since, or nobody could know.
        steps.push((rng.below(at / 2), Step::KeepImage { node }));
        let down = rng.between(5, 60) * MS;
        steps.push((at / 2 + rng.below(at / 4), Step::Kill { node, down }));
        steps.push(lonely(seed, at, node));
    }
    if settings.is_bold == 1 {
        let at = begin + rng.below(span);
        let span = rng.between(400, 1500) * MS;
        steps.push((at, Step::CutWire { a: 0, b: 1, span }));
        let node = rng.below(2);
        for _ in 0..3 {
            steps.push((at + rng.below(span), Step::PromoteBoldly { node }));
        }
    }
    steps.extend(mark_steps(seed, begin, span));
    steps.extend(growth_steps(seed, (begin, span), &settings, &mix));
    steps.sort_by_key(|(at, _)| *at);
    Plan {
        seed,
        settings,
        steps,
    }
}

/// Marks that come and go. Drawn apart, so that the rest of a seed's plan stays what it was.
fn mark_steps(seed: u64, begin: u64, span: u64) -> Vec<(u64, Step)> {
    let mut rng = Rng::fork(seed, "marks", 0);
    if rng.one_in(3) {
        return Vec::new();
    }
    let names = rng.between(1, 4);
    let mut steps = Vec::new();
    for _ in 0..rng.between(1, 8) {
        let (at, name) = (begin + rng.below(span), rng.below(names));
        steps.push(match rng.one_in(4) {
            true => (at, Step::MarkDelete { name }),
            false => (at, Step::MarkCreate { name }),
        });
    }
    steps
}

/// A mirror that grows, and what strikes meanwhile. Drawn apart, as marks are.
fn growth_steps(seed: u64, within: (u64, u64), settings: &Settings, mix: &Mix) -> Vec<(u64, Step)> {
    let mut rng = Rng::fork(seed, "growth", 0);
    match rng.one_in(3) {
        true => alone::growth(&mut rng, within, settings, mix, AROUND_GROWTH),
        false => Vec::new(),
    }
}

/// How often an old image is started before it meets anybody. Drawn apart, as marks are.
fn lonely(seed: u64, at: u64, node: u64) -> (u64, Step) {
    let mut rng = Rng::fork(seed, "lonely", at);
    let times = *rng.pick(&[0, 0, 1, 1, 2, 3, 40]);
    (at, Step::Lonely { node, times })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::BLOCKS_PER_GRANULE;

    #[test]
    fn a_seed_always_draws_the_same_plan() {
        (0..20).for_each(|seed| assert_eq!(plan(seed), plan(seed)));
    }

    #[test]
    fn clients_stay_inside_the_hot_spots() {
        for seed in 0..50 {
            let plan = plan(seed);
            let spots = spots(&plan);
            let inside = |first: u64, count: u64| {
                spots.iter().any(|s| {
                    let base = s * BLOCKS_PER_GRANULE;
                    let end = base + plan.settings.spot_granules * BLOCKS_PER_GRANULE;
                    base <= first && first + count <= end
                })
            };
            for (_, step) in &plan.steps {
                if let Step::Read { first, count, .. } | Step::Write { first, count, .. } = step {
                    assert!(inside(*first, *count), "seed {seed}: {step:?}");
                }
            }
        }
    }
}
