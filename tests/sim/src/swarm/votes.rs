//! Worlds in which a majority chooses: more nodes, cut off, taken over, put back, or coming and
//! going.

use super::{MS, lonely};
use crate::plan::{Plan, Step};
use crate::rng::Rng;

/// Seeds from here on are of worlds in which a majority chooses.
pub const VOTES: u64 = 1 << 40;

/// More nodes, that vote, out of a plan of two.
pub(super) fn with_votes(mut plan: Plan) -> Plan {
    let mut rng = Rng::fork(plan.seed, "votes", 0);
    let settings = &mut plan.settings;
    let mut shape = *rng.pick(&[(2, 1), (2, 1), (3, 0), (3, 0), (3, 2), (4, 1), (5, 0)]);
    let mut coming = Rng::fork(plan.seed, "nodes that come", 0);
    let (nodes_come, replicas_come) = (coming.one_in(3), coming.coin());
    if nodes_come && replicas_come {
        shape = (coming.between(3, 4), 0);
    }
    let (replicas, witnesses) = shape;
    (settings.nodes, settings.witnesses, settings.has_votes) = (replicas, witnesses, 1);
    settings.is_bold = 0;
    let fails = Rng::fork(plan.seed, "quorum lost", 0).one_in(3);
    settings.fails_without_quorum = u64::from(fails);
    settings.volatile_nodes = *rng.pick(&[0xFF, 0xFF, 0xFF, 0x15, 0x2A, 0]);
    settings.ballot_loss_one_in = *rng.pick(&[0, 0, 3, 20]);
    let all = replicas + witnesses;
    let is_two = |step: &Step| {
        matches!(
            step,
            Step::PromoteNaively { .. } | Step::PromoteBoldly { .. }
        ) || matches!(
            step,
            Step::BringBack { .. } | Step::KeepImage { .. } | Step::Lonely { .. }
        )
    };
    plan.steps.retain(|(_, step)| !is_two(step));
    for (_, step) in &mut plan.steps {
        *step = step.retargeted(|| rng.below(all), all);
    }
    isolate(&mut rng, &mut plan.steps, all);
    take_overs(plan.seed, &mut plan.steps, replicas, all);
    match nodes_come {
        true => come_and_go(&mut plan, replicas_come),
        false => old_images(plan.seed, &mut plan.steps, all),
    }
    plan
}

/// A node that is cut off from everybody: for long, or again and again (F14, F15).
fn isolate(rng: &mut Rng, steps: &mut Vec<(u64, Step)>, nodes: u64) {
    let mut cuts = Vec::new();
    for _ in 0..*rng.pick(&[0, 0, 1, 1, 2]) {
        let (node, mut at) = (rng.below(nodes), rng.pick(steps).0 + rng.below(200_000));
        let (times, longest) = *rng.pick(&[(1, 2500), (1, 600), (8, 60), (4, 500)]);
        for _ in 0..rng.between(1, times) {
            let span = rng.between(1, longest) * MS;
            cuts.push((at, Step::Isolate { node, span }));
            at += span + rng.between(1, longest) * MS;
        }
    }
    steps.extend(cuts);
    steps.sort_by_key(|(at, _)| *at);
}

/// Roles that are taken over, and what may come between (either node killed or cut off at any step
/// of it). Drawn apart, as marks are.
fn take_overs(seed: u64, steps: &mut Vec<(u64, Step)>, replicas: u64, all: u64) {
    let mut rng = Rng::fork(seed, "take-overs", 0);
    let mut drawn = Vec::new();
    for _ in 0..*rng.pick(&[0, 0, 1, 2, 6]) {
        let (at, node) = (rng.pick(steps).0, rng.below(replicas));
        drawn.push((at, Step::TakeOver { node }));
        let (victim, down) = (rng.below(all), rng.between(5, 900) * MS);
        let (soon, events) = (rng.below(40 * MS), rng.between(1, 80));
        match rng.below(8) {
            0 => drawn.push((
                at,
                Step::KillAtEvent {
                    node: victim,
                    events,
                    down,
                },
            )),
            1 => drawn.push((at, Step::KillAtEvent { node, events, down })),
            2 => drawn.push((
                at + soon,
                Step::Isolate {
                    node: victim,
                    span: down,
                },
            )),
            3 => drawn.push((
                at + soon,
                Step::Pause {
                    node: victim,
                    span: down,
                },
            )),
            _ => {}
        }
    }
    steps.extend(drawn);
    steps.sort_by_key(|(at, _)| *at);
}

/// A node, or witness, whose disks are put back to what they once were. Drawn apart, as marks are.
fn old_images(seed: u64, steps: &mut Vec<(u64, Step)>, all: u64) {
    let mut rng = Rng::fork(seed, "old images", 0);
    for _ in 0..*rng.pick(&[0, 0, 0, 1, 1, 2]) {
        let (at, node) = (rng.pick(steps).0, rng.below(all));
        let down = rng.between(5, 60) * MS;
        steps.push((rng.below(at / 2), Step::KeepImage { node }));
        steps.push((at / 2 + rng.below(at / 4), Step::Kill { node, down }));
        steps.push((at, Step::BringBack { node }));
        steps.push(lonely(seed, at, node));
    }
    steps.sort_by_key(|(at, _)| *at);
}

/// Witnesses, or replicas, that come and go, one of them new, and what may strike meanwhile. Drawn
/// apart, as marks are. An old disk of somebody that a newcomer never met is not told from a new one:
/// none is put back.
fn come_and_go(plan: &mut Plan, are_replicas: bool) {
    let mut rng = Rng::fork(plan.seed, "come and go", 0);
    let settings = &mut plan.settings;
    match are_replicas {
        // Of several the first to come would get the index of the first that may.
        true => settings.newcomers = 1,
        false => settings.spares = 1,
    }
    let (replicas, before) = (settings.nodes, settings.nodes + settings.witnesses);
    let all = before + settings.spares + settings.newcomers;
    let mut drawn = Vec::new();
    for _ in 0..rng.between(1, 6) {
        let at = rng.pick(&plan.steps).0;
        let node = match are_replicas {
            // More often one of those that come than one of those that were there.
            true => rng.below(all + 2).min(all - 1),
            false => rng.between(replicas, all - 1),
        };
        drawn.push(match (are_replicas, rng.coin()) {
            (false, true) => (at, Step::AddWitness { node }),
            (false, false) => (at, Step::RemoveWitness { node }),
            (true, true) => (at, Step::AddReplica { node }),
            (true, false) => (at, Step::RemoveReplica { node }),
        });
        let (victim, span) = (rng.below(all), rng.between(5, 900) * MS);
        let (soon, events) = (at + rng.below(400 * MS), rng.between(1, 80));
        match rng.below(8) {
            0 => drawn.push((
                at,
                Step::KillAtEvent {
                    node: victim,
                    events,
                    down: span,
                },
            )),
            1 => drawn.push((soon, Step::Isolate { node: victim, span })),
            2 => drawn.push((
                soon,
                Step::Pause {
                    node: victim,
                    span: 3 * span,
                },
            )),
            3 => drawn.push((
                soon,
                Step::CutPower {
                    node: victim,
                    down: span,
                },
            )),
            4 => drawn.push((
                soon,
                Step::TakeOver {
                    node: rng.below(replicas),
                },
            )),
            5 => drawn.push((soon, Step::Replace { node })),
            _ => {}
        }
    }
    plan.steps.extend(drawn);
    plan.steps.sort_by_key(|(at, _)| *at);
}
