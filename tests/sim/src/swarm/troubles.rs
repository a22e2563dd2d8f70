//! Troubles that a pair of nodes may have, and strokes of them.

use super::MS;
use crate::plan::Step;
use crate::rng::Rng;

/// Kinds of trouble a seed may switch on.
pub(super) type Trouble = fn(&mut Rng, u64) -> Step;

fn node(rng: &mut Rng) -> u64 {
    rng.below(2)
}

fn down(rng: &mut Rng) -> u64 {
    rng.between(5, 900) * MS
}

pub(super) const TROUBLES: &[Trouble] = &[
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

/// What strikes while a mirror grows.
pub(super) const AROUND_GROWTH: &[Trouble] = &[
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

/// Up to eight strokes of these kinds, half of them in the middle of a burst.
pub(super) fn strokes(
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
