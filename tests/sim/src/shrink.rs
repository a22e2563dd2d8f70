//! Makes a failing plan small: leaves steps out while the same law still breaks.

use std::time::{Duration, Instant};

use crate::engine::Bug;
use crate::plan::Plan;
use crate::run::run;

/// The smallest plan found within `patience` that still breaks the same law.
pub fn shrink(plan: &Plan, bug: Option<Bug>, patience: Duration) -> Plan {
    let Some(failure) = run(plan, bug, false).failure else {
        return plan.clone();
    };
    let began = Instant::now();
    let fails = |candidate: &Plan| {
        run(candidate, bug, false)
            .failure
            .is_some_and(|f| f.law == failure.law)
    };
    let mut best = plan.clone();
    // What comes after the failure did not cause it.
    let mut cut = best.clone();
    cut.steps.retain(|(at, _)| *at <= failure.at);
    if fails(&cut) {
        best = cut;
    }
    let mut chunk = best.steps.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < best.steps.len() && began.elapsed() < patience {
            let mut candidate = best.clone();
            let end = (at + chunk).min(candidate.steps.len());
            candidate.steps.drain(at..end);
            if fails(&candidate) {
                best = candidate;
            } else {
                at += chunk;
            }
        }
        if chunk == 1 || began.elapsed() >= patience {
            return best;
        }
        chunk = chunk.div_ceil(2);
    }
}
