//! What clients ask for, in bursts.

use crate::disk::BLOCKS_PER_GRANULE;
use crate::plan::{Settings, Step};
use crate::rng::Rng;

/// What clients do most.
pub(super) type Mix = [u64; 6];

pub(super) fn mix(rng: &mut Rng) -> Mix {
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
pub(super) fn bursts(
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

pub(super) fn burst(
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
