//! Draws a plan from a seed. Each seed switches its own few faults and workloads on, so that
//! rare combinations are not averaged away.

mod alone;

use crate::disk::BLOCKS_PER_GRANULE;
use crate::plan::{Plan, Settings, Step};
use crate::rng::Rng;

/// Nanoseconds of a millisecond.
pub const MS: u64 = 1_000_000;

/// First granule of each hot spot of a volume: those it is made with, and two for each end it may
/// ever have.
pub fn spots(plan: &Plan) -> Vec<u64> {
    let settings = &plan.settings;
    let mut spots = first_spots(plan.seed, settings);
    let mut end = settings.granules;
    for size in growths(plan).filter(|size| *size > settings.granules) {
        spots.extend(grown_spots(settings, end, size));
        end = size;
    }
    spots
}

/// The largest size the plan asks for.
pub fn granules_max(plan: &Plan) -> u64 {
    growths(plan).fold(plan.settings.granules, u64::max)
}

fn growths(plan: &Plan) -> impl Iterator<Item = u64> + '_ {
    plan.steps.iter().filter_map(|(_, step)| match step {
        Step::Grow { size, .. } => Some(*size),
        _ => None,
    })
}

/// One lies across the old end, one ends at the new one.
fn grown_spots(settings: &Settings, old: u64, new: u64) -> [u64; 2] {
    let each = settings.spot_granules;
    [old - (each / 2).max(1), new - each]
}

/// Spots lie in different activity-log extents where there are enough; one begins at granule 0 and
/// one ends at the last.
fn first_spots(seed: u64, settings: &Settings) -> Vec<u64> {
    let mut rng = Rng::fork(seed, "spots", 0);
    let last = settings.granules - settings.spot_granules;
    let lane = settings.granules / settings.spots;
    let mut spots: Vec<u64> = (0..settings.spots)
        .map(|i| {
            let slack = lane.saturating_sub(settings.spot_granules).max(1);
            (i * lane + rng.below(slack)).min(last)
        })
        .collect();
    spots[0] = 0;
    if spots.len() > 1 {
        *spots.last_mut().expect("there are spots") = last;
    }
    spots.dedup();
    spots
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

/// Kinds of trouble a seed may switch on.
type Trouble = fn(&mut Rng, u64) -> Step;

fn node(rng: &mut Rng) -> u64 {
    rng.below(2)
}

fn down(rng: &mut Rng) -> u64 {
    rng.between(5, 900) * MS
}

const TROUBLES: &[Trouble] = &[
    |rng, _| Step::Kill {
        node: node(rng),
        down: down(rng),
    },
    |rng, _| Step::Kill {
        node: node(rng),
        down: rng.between(1, 30) * MS,
    },
    |rng, _| Step::KillAtEvent {
        node: node(rng),
        events: rng.between(1, 60),
        down: down(rng),
    },
    |rng, _| Step::CutPower {
        node: node(rng),
        down: down(rng),
    },
    |rng, _| Step::CutAllPower { down: down(rng) },
    |rng, _| Step::CutWire {
        a: 0,
        b: 1,
        span: rng.between(1, 1500) * MS,
    },
    |rng, _| Step::CutWire {
        a: 0,
        b: 1,
        span: rng.between(1, 40) * MS,
    },
    |rng, _| Step::StallWire {
        a: 0,
        b: 1,
        span: rng.between(1, 900) * MS,
    },
    |rng, _| Step::SlowWire {
        a: 0,
        b: 1,
        factor: 20,
        span: rng.between(10, 400) * MS,
    },
    |rng, _| Step::DamageWire {
        a: 0,
        b: 1,
        one_in: rng.between(4, 30),
        span: rng.between(5, 300) * MS,
    },
    |rng, _| Step::Pause {
        node: node(rng),
        span: rng.between(1, 2500) * MS,
    },
    |rng, _| Step::WriteErrors { node: node(rng) },
    |rng, _| Step::FlushError { node: node(rng) },
    |rng, _| Step::ReadErrors {
        node: node(rng),
        span: rng.between(5, 300) * MS,
    },
    |rng, _| Step::Full {
        node: node(rng),
        span: rng.between(5, 300) * MS,
    },
    |rng, _| Step::Hang {
        node: node(rng),
        span: rng.between(5, 3000) * MS,
    },
    |rng, _| Step::Slow {
        node: node(rng),
        factor: *rng.pick(&[100, 100, 1500]),
        span: rng.between(5, 300) * MS,
    },
    // Late enough that members time out, and their confirmations come after.
    |rng, _| Step::Slow {
        node: node(rng),
        factor: 1500,
        span: rng.between(100, 900) * MS,
    },
    |rng, _| Step::MetaErrors { node: node(rng) },
    |rng, _| Step::MetaHang {
        node: node(rng),
        span: rng.between(5, 2000) * MS,
    },
    |rng, _| Step::PromoteNaively { node: node(rng) },
    |_, _| Step::Switch {},
    |rng, _| {
        let node = node(rng);
        Step::Disconnect {
            node,
            peer: 1 - node,
            span: rng.between(5, 500) * MS,
        }
    },
    |rng, _| Step::PauseResync {
        node: node(rng),
        span: rng.between(5, 500) * MS,
    },
    |_, _| Step::Verify {},
    |rng, _| Step::Replace { node: node(rng) },
    |rng, _| Step::BringBack { node: node(rng) },
    |rng, _| Step::ResyncRate {
        node: node(rng),
        rate: *rng.pick(&[0, 1 << 20, 64 << 20]),
    },
    |rng, _| Step::Stop {
        node: node(rng),
        down: down(rng),
    },
];

fn client_step(rng: &mut Rng, spots: &[u64], settings: &Settings, mix: &Mix) -> Step {
    let slot = rng.below(settings.sessions);
    let spot_blocks = settings.spot_granules * BLOCKS_PER_GRANULE;
    let base = rng.pick(spots) * BLOCKS_PER_GRANULE;
    let aligned = !rng.one_in(3);
    let (first, count) = if aligned {
        let start = rng.below(settings.spot_granules);
        let len = rng.between(1, (settings.spot_granules - start).min(4));
        (base + start * BLOCKS_PER_GRANULE, len * BLOCKS_PER_GRANULE)
    } else {
        let start = rng.below(spot_blocks);
        (base + start, rng.between(1, (spot_blocks - start).min(24)))
    };
    let fua = u64::from(rng.one_in(6));
    let total = mix.iter().sum();
    let mut draw = rng.below(total);
    let kind = mix.iter().position(|w| {
        let hit = draw < *w;
        draw = draw.wrapping_sub(if hit { 0 } else { *w });
        hit
    });
    match kind.unwrap_or(0) {
        0 => Step::Write {
            slot,
            first,
            count,
            fua,
        },
        1 => Step::Read { slot, first, count },
        2 if rng.one_in(6) => {
            // Of the volume as it is made, or as it has grown.
            let all = (settings.granules * BLOCKS_PER_GRANULE).max(base + spot_blocks);
            let from = if rng.coin() { 0 } else { first };
            Step::Zero {
                slot,
                first: from,
                count: all - from,
                how: rng.below(3),
                fua,
            }
        }
        2 => Step::Zero {
            slot,
            first,
            count,
            how: rng.below(3),
            fua,
        },
        3 => Step::Flush { slot },
        4 => Step::Abort { slot },
        _ if rng.one_in(8) => Step::Beyond { slot },
        _ => Step::Close { slot },
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

/// What strikes while a mirror grows.
const AROUND_GROWTH: &[Trouble] = &[
    |rng, _| Step::KillAtEvent {
        node: node(rng),
        events: rng.between(1, 60),
        down: down(rng),
    },
    |rng, _| Step::KillInMetaWrite {
        node: node(rng),
        writes: rng.between(1, 12),
        down: down(rng),
    },
    |rng, _| Step::CutPower {
        node: node(rng),
        down: down(rng),
    },
    |rng, _| Step::CutAllPower { down: down(rng) },
    |rng, _| Step::CutWire {
        a: 0,
        b: 1,
        span: rng.between(1, 900) * MS,
    },
    |rng, _| Step::Pause {
        node: node(rng),
        span: rng.between(1, 2500) * MS,
    },
    |rng, _| Step::Full {
        node: node(rng),
        span: rng.between(5, 300) * MS,
    },
    |rng, _| Step::MetaHang {
        node: node(rng),
        span: rng.between(5, 2000) * MS,
    },
    |rng, _| Step::Replace { node: node(rng) },
    |_, _| Step::Switch {},
];

/// Stored checksums, and a copy whose disk rots, loses writes or puts them elsewhere. Drawn apart,
/// as marks are; only one copy of a plan is ever damaged.
fn with_checksums(mut plan: Plan) -> Plan {
    let mut rng = Rng::fork(plan.seed, "checksums", 0);
    if !rng.one_in(3) {
        return plan;
    }
    plan.settings.sum_pages = *rng.pick(&[24, 24, 32, 64]);
    let last = plan.steps.last().map_or(MS, |(at, _)| *at);
    let node = rng.below(plan.settings.nodes);
    for _ in 0..*rng.pick(&[0, 1, 2, 4, 12]) {
        let at = match rng.coin() {
            true => rng.pick(&plan.steps).0 + rng.below(200_000),
            false => rng.below(last),
        };
        let step = match rng.below(4) {
            0 => Step::LoseWrite { node },
            1 => Step::Misdirect {
                node,
                by: rng.between(1, 12),
            },
            _ => Step::Rot {
                node,
                hot: rng.below(256),
            },
        };
        plan.steps.push((at, step));
    }
    for _ in 0..*rng.pick(&[0, 0, 1, 3]) {
        let node = rng.below(plan.settings.nodes);
        let rate = *rng.pick(&[0, 0, 32 << 20]);
        plan.steps
            .push((rng.below(last), Step::Scrub { node, rate }));
    }
    plan.steps.sort_by_key(|(at, _)| *at);
    plan
}

/// Seeds from here on are of worlds in which a majority chooses.
pub const VOTES: u64 = 1 << 40;

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

/// How often an old image is started before it meets anybody. Drawn apart, as marks are.
fn lonely(seed: u64, at: u64, node: u64) -> (u64, Step) {
    let mut rng = Rng::fork(seed, "lonely", at);
    let times = *rng.pick(&[0, 0, 1, 1, 2, 3, 40]);
    (at, Step::Lonely { node, times })
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

/// More nodes, that vote, out of a plan of two.
fn with_votes(mut plan: Plan) -> Plan {
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

/// Seeds from here on are of worlds in which a register chooses.
pub const REGISTER: u64 = 1 << 41;

/// Nodes that ask a register, out of a plan of nodes that vote; it goes away now and then, for all
/// or for one.
fn with_register(plan: Plan) -> Plan {
    let mut plan = with_votes(plan);
    let mut rng = Rng::fork(plan.seed, "register", 0);
    let settings = &mut plan.settings;
    let all = *rng.pick(&[2, 2, 3, 3, 3, 4]);
    (settings.nodes, settings.witnesses, settings.has_register) = (all, 0, 1);
    (settings.spares, settings.newcomers) = (0, 0);
    settings.register_loss_one_in = *rng.pick(&[0, 0, 4, 12, 40]);
    for (_, step) in &mut plan.steps {
        *step = step.retargeted(|| rng.below(all), all);
    }
    let mut away = Vec::new();
    for _ in 0..*rng.pick(&[0, 1, 1, 2, 3]) {
        let at = rng.pick(&plan.steps).0 + rng.below(200_000);
        let span = *rng.pick(&[50, 600, 2500]);
        let span = rng.between(1, span) * MS;
        let node = rng.below(all);
        away.push(match rng.one_in(3) {
            true => (at, Step::RegisterAway { span }),
            false => (at, Step::RegisterCut { node, span }),
        });
    }
    plan.steps.extend(away);
    plan.steps.sort_by_key(|(at, _)| *at);
    plan
}

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

/// What clients do most.
type Mix = [u64; 6];

fn mix(rng: &mut Rng) -> Mix {
    [
        rng.between(4, 12),
        rng.between(1, 8),
        rng.below(4),
        rng.below(4),
        rng.below(2),
        rng.below(2),
    ]
}

/// Clients come in bursts, anywhere in `span` nanoseconds from `begin` on.
fn bursts(
    rng: &mut Rng,
    (begin, span): (u64, u64),
    spots: &[u64],
    settings: &Settings,
    mix: &Mix,
) -> Vec<(u64, Step)> {
    let mut steps = Vec::new();
    for _ in 0..rng.between(3, 14) {
        let at = begin + rng.below(span);
        burst(rng, at, spots, settings, mix, &mut steps);
    }
    steps
}

fn burst(
    rng: &mut Rng,
    mut at: u64,
    spots: &[u64],
    settings: &Settings,
    mix: &Mix,
    steps: &mut Vec<(u64, Step)>,
) {
    let pace = *rng.pick(&[20_000, 100_000, 1_000_000]);
    for _ in 0..rng.between(3, 40) {
        at += rng.below(pace) + 1;
        steps.push((at, client_step(rng, spots, settings, mix)));
    }
}

/// Up to eight strokes of these kinds, half of them in the middle of a burst.
fn strokes(
    rng: &mut Rng,
    (begin, span): (u64, u64),
    kinds: &[Trouble],
    steps: &mut Vec<(u64, Step)>,
) {
    if kinds.is_empty() {
        return;
    }
    for _ in 0..rng.between(1, 8) {
        let kind = *rng.pick(kinds);
        let at = match rng.coin() {
            true => rng.pick(steps).0 + rng.below(200_000),
            false => begin + rng.below(span),
        };
        steps.push((at, kind(rng, at)));
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

#[cfg(test)]
mod tests {
    use super::*;

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
