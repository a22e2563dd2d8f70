//! Hot spots: where clients go, in the volume as it is made and as it grows.

use crate::plan::{Plan, Settings, Step};
use crate::rng::Rng;

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
pub(super) fn grown_spots(settings: &Settings, old: u64, new: u64) -> [u64; 2] {
    let each = settings.spot_granules;
    [old - (each / 2).max(1), new - each]
}

/// Spots lie in different activity-log extents where there are enough; one begins at granule 0 and
/// one ends at the last.
pub(super) fn first_spots(seed: u64, settings: &Settings) -> Vec<u64> {
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
