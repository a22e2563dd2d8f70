//! Worlds with one node: no wires, nobody to take over, and a volume that grows.

use engine_core::bitmap::BITS_PER_PAGE;

use super::clients::{Mix, burst, bursts, mix};
use super::spots::{first_spots, grown_spots};
use super::troubles::{Trouble, strokes};
use super::{MS, mark_steps};
use crate::plan::{Plan, Settings, Step};
use crate::rng::Rng;

const NODE: u64 = 0;

fn down(rng: &mut Rng) -> u64 {
    rng.between(1, 90) * MS
}

fn kill_at_event(rng: &mut Rng, _: u64) -> Step {
    Step::KillAtEvent {
        node: NODE,
        events: rng.between(1, 40),
        down: down(rng),
    }
}

fn kill_in_meta_write(rng: &mut Rng, _: u64) -> Step {
    Step::KillInMetaWrite {
        node: NODE,
        writes: rng.between(1, 8),
        down: down(rng),
    }
}

fn cut_power_at_event(rng: &mut Rng, _: u64) -> Step {
    Step::CutPowerAtEvent {
        node: NODE,
        events: rng.between(1, 40),
        keep: rng.next_u64(),
        down: down(rng),
    }
}

fn kill(rng: &mut Rng, _: u64) -> Step {
    Step::Kill {
        node: NODE,
        down: down(rng),
    }
}

fn cut_power(rng: &mut Rng, _: u64) -> Step {
    Step::CutPower {
        node: NODE,
        down: down(rng),
    }
}

fn meta_errors(_: &mut Rng, _: u64) -> Step {
    Step::MetaErrors { node: NODE }
}

fn meta_hang(rng: &mut Rng, _: u64) -> Step {
    Step::MetaHang {
        node: NODE,
        span: rng.between(1, 900) * MS,
    }
}

fn stop(rng: &mut Rng, _: u64) -> Step {
    Step::Stop {
        node: NODE,
        down: down(rng),
    }
}

/// What strikes while the volume grows.
const AROUND_GROWTH: &[Trouble] = &[
    kill_at_event,
    kill_at_event,
    kill_in_meta_write,
    kill_in_meta_write,
    cut_power_at_event,
    cut_power_at_event,
    kill,
    cut_power,
    meta_errors,
    meta_hang,
    stop,
    |_, _| Step::Switch {},
];

const TROUBLES: &[Trouble] = &[
    kill,
    kill_at_event,
    kill_in_meta_write,
    cut_power,
    cut_power_at_event,
    meta_errors,
    meta_hang,
    stop,
    |_, _| Step::Switch {},
    |rng, _| Step::Pause {
        node: NODE,
        span: rng.between(1, 2500) * MS,
    },
    |rng, _| Step::ReadErrors {
        node: NODE,
        span: rng.between(5, 300) * MS,
    },
    |rng, _| Step::Full {
        node: NODE,
        span: rng.between(5, 300) * MS,
    },
    |rng, _| Step::Hang {
        node: NODE,
        span: rng.between(5, 3000) * MS,
    },
    |rng, _| Step::Slow {
        node: NODE,
        factor: *rng.pick(&[100, 1500]),
        span: rng.between(5, 300) * MS,
    },
    |_, _| Step::Verify {},
];

/// A size that comes after `old`: just larger, at or over the border of a page of marks, multiples.
/// Some are no growth at all, some more than there is room for.
fn size_after(rng: &mut Rng, first: u64, old: u64) -> u64 {
    let border = (old / BITS_PER_PAGE + 1) * BITS_PER_PAGE;
    match rng.below(14) {
        0 => old,
        1 => old - rng.below(old / 2),
        2 => 5 * first + 2 * BITS_PER_PAGE,
        3 => border - 1,
        4 => border,
        5 => border + 1,
        6 => border + rng.between(1, 2 * BITS_PER_PAGE),
        7 | 8 => old * rng.between(2, 4),
        9 => old + 1,
        10 => old + rng.between(1, 2048),
        _ => old + rng.between(8, 64),
    }
}

/// What there is room for.
fn size_max(first: u64) -> u64 {
    (4 * first).next_multiple_of(BITS_PER_PAGE)
}

pub(super) fn growth(
    rng: &mut Rng,
    (begin, span): (u64, u64),
    settings: &Settings,
    mix: &Mix,
    around: &[Trouble],
) -> Vec<(u64, Step)> {
    let mut times: Vec<u64> = (0..rng.between(0, 4))
        .map(|_| begin + rng.below(span))
        .collect();
    times.sort_unstable();
    let first = settings.granules;
    let (mut old, mut end) = (first, first);
    let mut steps = Vec::new();
    for at in times {
        let size = size_after(rng, first, old);
        if !rng.one_in(3) {
            let kind = *rng.pick(around);
            steps.push((at + rng.below(3 * MS), kind(rng, at)));
        }
        let held = rng.below(2);
        steps.push((at, Step::Grow { size, held }));
        if rng.one_in(3) {
            // Again, whatever became of it; it may be there, under way or lost.
            let (again, at) = (Step::Grow { size, held }, at + rng.below(60 * MS));
            steps.push((at, again));
        }
        if size > first {
            let spots = grown_spots(settings, end, size);
            for _ in 0..rng.between(1, 3) {
                let at = at + rng.below(40 * MS);
                burst(rng, at, &spots, settings, mix, &mut steps);
            }
            end = size;
        }
        if size <= size_max(first) {
            old = old.max(size);
        }
    }
    steps
}

pub(super) fn plan(seed: u64) -> Plan {
    let mut rng = Rng::fork(seed, "alone", 0);
    let mut settings = super::settings(&mut rng);
    settings.nodes = 1;
    settings.is_bold = 0;
    settings.double_one_in = 0;
    // The borders of pages of marks lie near where it begins, or it begins beyond some.
    if rng.one_in(3) {
        settings.granules = *rng.pick(&[
            BITS_PER_PAGE - 8,
            BITS_PER_PAGE - 1,
            BITS_PER_PAGE,
            BITS_PER_PAGE + 1,
            30_000,
            2 * BITS_PER_PAGE,
        ]);
    }
    let spots = first_spots(seed, &settings);
    let span = rng.between(100, 1500) * MS;
    let begin = if rng.coin() { 60 * MS } else { 5 * MS };
    let mix = mix(&mut rng);
    let mut steps = bursts(&mut rng, (begin, span), &spots, &settings, &mix);
    steps.extend(growth(
        &mut rng,
        (begin, span),
        &settings,
        &mix,
        AROUND_GROWTH,
    ));
    let kinds: Vec<Trouble> = (0..rng.between(0, 3))
        .map(|_| *rng.pick(TROUBLES))
        .collect();
    strokes(&mut rng, (begin, span), &kinds, &mut steps);
    steps.extend(mark_steps(seed, begin, span));
    steps.sort_by_key(|(at, _)| *at);
    Plan {
        seed,
        settings,
        steps,
    }
}
