//! Worlds in which a register chooses, which is away now and then.

use super::MS;
use super::votes::with_votes;
use crate::plan::{Plan, Step};
use crate::rng::Rng;

/// Seeds from here on are of worlds in which a register chooses.
pub const REGISTER: u64 = 1 << 41;

/// Nodes that ask a register, out of a plan of nodes that vote; it goes away now and then, for all
/// or for one.
pub(super) fn with_register(plan: Plan) -> Plan {
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
