//! A legal history in which one read is changed: whatever the search cannot explain any more, the
//! checker must find.

mod common;

use std::collections::BTreeSet;

use common::random::Random;
use common::{Plan, generate};
use history::{Checker, Crash, Event, History, Law, Op, OpId, Outcome, Seen, Session, exhaustive};

fn with_read(history: &History, at: usize, seen: Seen) -> History {
    let mut changed = History::default();
    for (index, (time, event)) in history.events().iter().enumerate() {
        let event = match event {
            Event::Complete(id, _) if index == at => {
                Event::Complete(*id, Outcome::Read(vec![seen]))
            }
            same => same.clone(),
        };
        changed.push(*time, event);
    }
    changed
}

#[test]
fn one_changed_read_is_found_wherever_a_search_finds_it() {
    let (mut found, mut legal) = (0, 0);
    for seed in 0..700 {
        let plan = Plan {
            steps: 36,
            blocks: 1,
            zeros: [0, 3][seed as usize % 2],
            crashes: [0, 9][seed as usize / 2 % 2],
            may_lose: seed % 8 > 3,
            lies: 0,
        };
        let mut history = generate(seed + 1_000_000, plan);
        history.sort();
        let mut values: BTreeSet<Seen> = BTreeSet::from([Seen::Zero, Seen::Tag(u64::MAX)]);
        for (_, event) in history.events() {
            if let Event::Invoke(_, _, Op::Write { tags, .. }) = event {
                values.extend(tags.iter().map(|&tag| Seen::Tag(tag)));
            }
        }
        for (at, (_, event)) in history.events().iter().enumerate() {
            let Event::Complete(_, Outcome::Read(seen)) = event else {
                continue;
            };
            for &other in values.iter().filter(|value| **value != seen[0]) {
                let changed = with_read(&history, at, other);
                let report = changed.check().expect("recorded in order");
                let is_broken = report.violations.iter().any(|v| v.block.is_some());
                let truth = !exhaustive::judge(&changed).is_empty();
                assert!(
                    !is_broken || truth,
                    "false alarm, seed {seed}:\n{}",
                    changed.to_text()
                );
                if report.counts.zeros_unnamed == 0 {
                    assert_eq!(
                        is_broken,
                        truth,
                        "missed, seed {seed}:\n{}",
                        changed.to_text()
                    );
                }
                found += u64::from(truth);
                legal += u64::from(!truth);
            }
        }
    }
    println!("{found} changed reads are illegal, {legal} are legal after all");
    assert!(
        found > 3000 && legal > 1000,
        "{found} illegal, {legal} legal"
    );
}

/// One client after the other: every read has exactly one right answer, however long ago its
/// write was, however many crashes lie between.
fn one_by_one(seed: u64, rounds: u64) -> (History, Vec<(usize, Seen)>) {
    let mut random = Random::new(seed);
    let mut history = History::default();
    let mut held = [Seen::Zero; 4];
    let mut reads = Vec::new();
    let mut session = 1;
    for round in 0..rounds {
        let time = 10 * round;
        if random.one_in(40) {
            history.crash(time, Crash::MemberWhole);
            session += 1;
            continue;
        }
        let first = random.below(4);
        let block = first as usize;
        let op = match random.below(8) {
            0 => Op::Zero {
                first,
                count: 1,
                fua: false,
            },
            1..=3 => Op::Write {
                first,
                tags: vec![round + 1],
                fua: false,
            },
            _ => Op::Read { first, count: 1 },
        };
        let outcome = match &op {
            Op::Read { .. } => {
                reads.push((history.events().len() + 1, held[block]));
                Outcome::Read(vec![held[block]])
            }
            Op::Write { tags, .. } => {
                held[block] = Seen::Tag(tags[0]);
                Outcome::Done
            }
            _ => {
                held[block] = Seen::Zero;
                Outcome::Done
            }
        };
        let id = history.invoke(time, Session(session), op);
        history.complete(time + 1, id, outcome);
    }
    (history, reads)
}

#[test]
fn without_concurrency_every_changed_read_is_found() {
    for seed in 0..3 {
        let (history, reads) = one_by_one(seed, 600);
        assert!(history.check().expect("recorded in order").is_clean());
        let mut random = Random::new(seed);
        for (at, right) in reads {
            for wrong in [Seen::Zero, Seen::Tag(1 + random.below(600)), Seen::Mixed] {
                if wrong == right {
                    continue;
                }
                let changed = with_read(&history, at, wrong);
                for checker in [Checker::new(), Checker::without_loss().forgetting_eagerly()] {
                    let mut checker = checker;
                    for (time, event) in changed.events() {
                        checker.event(*time, event).expect("recorded in order");
                    }
                    // A read changed to what comes later breaks the law only there, if at all.
                    let laws: Vec<Law> = checker.violations().iter().map(|v| v.law).collect();
                    assert_eq!(laws.len(), 1, "seed {seed}, event {at}, {wrong}: {laws:?}");
                }
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_history_and_text_survives() {
    let plan = Plan {
        steps: 400,
        blocks: 3,
        zeros: 4,
        crashes: 20,
        may_lose: true,
        lies: 9,
    };
    for seed in 0..50 {
        let history = generate(seed, plan);
        assert_eq!(history, generate(seed, plan));
        assert_eq!(History::parse(&history.to_text()), Ok(history));
    }
    let unused = OpId(0);
    assert_eq!(History::default().invoke(0, Session(1), Op::Flush), unused);
}
