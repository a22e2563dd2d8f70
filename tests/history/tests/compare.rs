//! The checker against exhaustive search, on thousands of random small histories.

mod common;

use std::collections::BTreeSet;

use common::{Plan, generate};
use history::{Checker, History, Law, Report, exhaustive};

const SMALL: Plan = Plan {
    steps: 40,
    blocks: 1,
    zeros: 0,
    crashes: 0,
    may_lose: false,
    lies: 0,
};

#[derive(Default, Debug)]
struct Tally {
    /// Histories the search can explain, and not.
    legal: u64,
    illegal: u64,
    /// Verdicts with reads of zeros left unnamed: these may miss, but must not alarm falsely.
    undecided: u64,
}

fn run(history: &History, mut checker: Checker) -> Report {
    for (time, event) in history.events() {
        checker
            .event(*time, event)
            .expect("the generator records what can happen");
    }
    checker.finish()
}

fn broken_blocks(report: &Report) -> Vec<u64> {
    let blocks: BTreeSet<u64> = report.violations.iter().filter_map(|v| v.block).collect();
    blocks.into_iter().collect()
}

/// Both must name the same blocks; every way of forgetting must give the same verdict.
fn compare(seed: u64, plan: Plan, tally: &mut Tally) {
    let mut history = generate(seed, plan);
    history.sort();
    let truth = exhaustive::judge(&history);
    let mut checkers = vec![
        ("new", Checker::new()),
        ("eager", Checker::new().forgetting_eagerly()),
    ];
    if !plan.may_lose {
        checkers.push(("lossless", Checker::without_loss()));
        checkers.push((
            "lossless, eager",
            Checker::without_loss().forgetting_eagerly(),
        ));
    }
    for (kind, checker) in checkers {
        let report = run(&history, checker);
        let found = broken_blocks(&report);
        let text = || {
            format!(
                "seed {seed} {plan:?} {kind}\n{}{report:#?}",
                history.to_text()
            )
        };
        assert!(
            found.iter().all(|block| truth.contains(block)),
            "false alarm: {}",
            text()
        );
        if report.counts.zeros_unnamed == 0 {
            assert_eq!(found, truth, "missed: {}", text());
        } else {
            tally.undecided += 1;
        }
    }
    if plan.lies == 0 {
        assert_eq!(
            truth,
            [0u64; 0],
            "the search errs: seed {seed}\n{}",
            history.to_text()
        );
    }
    if truth.is_empty() {
        tally.legal += 1;
    } else {
        tally.illegal += 1;
    }
}

/// Half of the histories are legal by construction, half of a register that lies.
fn compare_many(name: &str, base: Plan, rounds: u64) {
    let mut tally = Tally::default();
    for seed in 0..rounds {
        let steps = base.steps / 2 + seed % (base.steps / 2 + 1);
        compare(seed, Plan { steps, ..base }, &mut tally);
        compare(
            seed,
            Plan {
                steps,
                lies: 1 + seed % 5,
                ..base
            },
            &mut tally,
        );
    }
    println!("{name}: {tally:?}");
    assert!(
        tally.legal > rounds,
        "too few legal histories to mean anything: {tally:?}"
    );
    assert!(
        tally.illegal > rounds / 5,
        "too few illegal histories to mean anything: {tally:?}"
    );
    assert!(
        tally.undecided < rounds / 50,
        "too many reads of zeros left unnamed: {tally:?}"
    );
}

fn rounds() -> u64 {
    std::env::var("HISTORY_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(4000)
}

#[test]
fn tags_without_crashes_are_judged_as_by_search() {
    compare_many("tags", SMALL, rounds());
}

#[test]
fn zeros_are_judged_as_by_search() {
    compare_many("zeros", Plan { zeros: 2, ..SMALL }, rounds());
}

#[test]
fn crashes_that_lose_nothing_are_judged_as_by_search() {
    compare_many(
        "crashes",
        Plan {
            crashes: 8,
            steps: 34,
            ..SMALL
        },
        rounds(),
    );
}

#[test]
fn losses_are_judged_as_by_search() {
    compare_many(
        "losses",
        Plan {
            crashes: 10,
            steps: 32,
            may_lose: true,
            ..SMALL
        },
        rounds(),
    );
}

#[test]
fn losses_with_zeros_on_two_blocks_are_judged_as_by_search() {
    let plan = Plan {
        crashes: 10,
        steps: 34,
        may_lose: true,
        zeros: 2,
        blocks: 2,
        ..SMALL
    };
    compare_many("everything", plan, rounds());
}

#[test]
fn a_legal_history_is_never_called_illegal_however_long() {
    for seed in 0..60 {
        let plan = Plan {
            steps: 3000,
            blocks: 4,
            zeros: 4,
            crashes: 60,
            ..SMALL
        };
        for may_lose in [false, true] {
            let mut history = generate(seed, Plan { may_lose, ..plan });
            history.sort();
            let report = history
                .check()
                .expect("the generator records what can happen");
            assert!(
                report.violations.iter().all(|v| v.law == Law::B9),
                "{seed}: {report:#?}"
            );
            assert!(
                report.counts.blocks_read > 500,
                "{seed}: {:?}",
                report.counts
            );
        }
    }
}
