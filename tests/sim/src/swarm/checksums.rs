//! Stored checksums, damage on one copy, and scrubs, on top of any plan.

use super::MS;
use crate::plan::{Plan, Step};
use crate::rng::Rng;

/// Stored checksums, and a copy whose disk rots, loses writes or puts them elsewhere. Drawn apart,
/// as marks are; only one copy of a plan is ever damaged.
pub(super) fn with_checksums(mut plan: Plan) -> Plan {
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
