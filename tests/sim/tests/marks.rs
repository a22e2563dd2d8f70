//! Marks of a volume with one replica, which keeps an activity log for their sake alone.

use sim::plan::Step;
use sim::run::run;
use sim::swarm;

const MS: u64 = swarm::MS;

/// What can happen to one node that has nobody to lean on.
fn befalls_one(step: &Step) -> bool {
    matches!(
        step,
        Step::Read { .. }
            | Step::Write { .. }
            | Step::Zero { .. }
            | Step::Flush { .. }
            | Step::Abort { .. }
            | Step::Close { .. }
            | Step::Slow { .. }
            | Step::Stop { .. }
            | Step::MarkCreate { .. }
            | Step::MarkDelete { .. }
            | Step::Grow { .. }
    )
}

#[test]
fn a_single_replica_forgets_no_change_in_a_crash() {
    let (mut compared, mut crashes) = (0, 0);
    for seed in 0..250 {
        let mut plan = swarm::plan_of(seed, 2);
        plan.settings.nodes = 1;
        plan.steps.retain(|(_, step)| befalls_one(step));
        let end = plan.steps.last().map_or(MS, |(at, _)| *at);
        let (node, down) = (0, 20 * MS);
        plan.steps.push((end / 4, Step::MarkCreate { name: 7 }));
        plan.steps.push((end / 2, Step::Kill { node, down }));
        let keep = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let events = 10 + seed % 50;
        let cut = Step::CutPowerAtEvent {
            node,
            events,
            keep,
            down,
        };
        plan.steps.push((end / 4 * 3, cut));
        plan.steps.sort_by_key(|(at, _)| *at);
        let report = run(&plan, None, false);
        assert!(report.failure.is_none(), "{seed}: {:?}", report.failure);
        compared += report.count("marks compared");
        crashes += report.count("kills") + report.count("power cuts");
    }
    assert!(compared > 250 && crashes > 250, "{compared}, {crashes}");
}
