//! Long histories: bounded memory, and nothing forgotten that matters.

#[path = "common/random.rs"]
mod random;

use history::{Checker, Crash, Law, Op, OpId, Outcome, Report, Seen, Session};
use random::Random;

const BLOCKS: u64 = 64;
const DEPTH: usize = 32;

/// A register under load, killed again and again. With `loses_at`, that kill takes block 3 back to
/// what it held before.
struct Load {
    checker: Checker,
    random: Random,
    time: u64,
    held: Vec<Seen>,
    /// What block 3 held, oldest first.
    past: Vec<Seen>,
    open: Vec<(OpId, Op, bool, Option<Seen>)>,
    next_tag: u64,
    session: u64,
}

impl Load {
    fn new(checker: Checker) -> Self {
        Self {
            checker,
            random: Random::new(7),
            time: 0,
            held: vec![Seen::Zero; BLOCKS as usize],
            past: Vec::new(),
            open: Vec::new(),
            next_tag: 1,
            session: 1,
        }
    }

    fn apply(&mut self, at: usize) {
        let (_, op, applied, seen) = &mut self.open[at];
        if std::mem::replace(applied, true) {
            return;
        }
        let block = op.extent().0 as usize;
        match op {
            Op::Write { tags, .. } => {
                if block == 3 {
                    self.past.push(self.held[block]);
                }
                self.held[block] = Seen::Tag(tags[0]);
            }
            Op::Zero { .. } => self.held[block] = Seen::Zero,
            Op::Read { .. } => *seen = Some(self.held[block]),
            Op::Flush => {}
        }
    }

    fn finish_one(&mut self) {
        let at = self.random.below(self.open.len() as u64) as usize;
        self.apply(at);
        let (id, _, _, seen) = self.open.swap_remove(at);
        let outcome = seen.map_or(Outcome::Done, |seen| Outcome::Read(vec![seen]));
        self.checker
            .complete(self.time, id, outcome)
            .expect("an open request");
    }

    fn step(&mut self, flushes: bool) {
        self.time += 1;
        if self.open.len() == DEPTH {
            return self.finish_one();
        }
        if !self.open.is_empty() && self.random.one_in(3) {
            let at = self.random.below(self.open.len() as u64) as usize;
            return self.apply(at);
        }
        let first = self.random.below(BLOCKS);
        let op = match self.random.below(20) {
            0 => Op::Zero {
                first,
                count: 1,
                fua: false,
            },
            1 if flushes => Op::Flush,
            1..=9 => {
                self.next_tag += 1;
                Op::Write {
                    first,
                    tags: vec![self.next_tag],
                    fua: false,
                }
            }
            _ => Op::Read { first, count: 1 },
        };
        let session = Session(self.session);
        let id = self
            .checker
            .invoke(self.time, session, op.clone())
            .expect("in order");
        self.open.push((id, op, false, None));
    }

    fn kill(&mut self) {
        self.time += 1;
        self.open.clear();
        self.session += 1;
        self.checker
            .crash(self.time, Crash::MemberWhole)
            .expect("in order");
    }

    fn run(mut self, kills: u64, loses_at: Option<u64>, flushes: bool) -> Report {
        for kill in 0..kills {
            for _ in 0..2000 {
                self.step(flushes);
            }
            while !self.open.is_empty() && loses_at == Some(kill) {
                self.finish_one();
            }
            if loses_at == Some(kill) {
                // Ten writes back: none of them ran at the same time as the last.
                self.held[3] = self.past[self.past.len() - 10];
            }
            self.kill();
            if loses_at == Some(kill) {
                self.time += 1;
                let read = Op::Read { first: 3, count: 1 };
                let id = self.checker.invoke(self.time, Session(self.session), read);
                let seen = Outcome::Read(vec![self.held[3]]);
                self.checker
                    .complete(self.time, id.expect("in order"), seen)
                    .expect("open");
            }
        }
        self.checker.finish()
    }
}

#[test]
fn two_hundred_kills_under_load_are_judged_in_bounded_memory() {
    let report = Load::new(Checker::without_loss()).run(200, None, false);
    assert!(report.is_clean(), "{report:#?}");
    assert!(report.counts.blocks_read > 50_000, "{:?}", report.counts);
    assert_eq!(report.counts.zeros_unnamed, 0, "{:?}", report.counts);
    assert!(report.counts.tags_held < BLOCKS * 40, "{:?}", report.counts);
}

#[test]
fn flushes_bound_the_memory_of_histories_that_may_lose() {
    let report = Load::new(Checker::new()).run(200, None, true);
    assert!(report.is_clean(), "{report:#?}");
    assert!(report.counts.tags_held < BLOCKS * 60, "{:?}", report.counts);
}

#[test]
fn writes_lost_in_the_last_but_one_of_two_hundred_kills_are_found() {
    for checker in [Checker::without_loss(), Checker::new()] {
        let report = Load::new(checker).run(200, Some(198), true);
        assert_eq!(report.violations.len(), 1, "{report:#?}");
        let violation = &report.violations[0];
        assert_eq!(violation.block, Some(3));
        // Values that old may be forgotten; then only their foreignness is known.
        let fitting = [Law::B1, Law::B7, Law::R7];
        assert!(fitting.contains(&violation.law), "{violation}");
    }
}

#[test]
fn without_any_flush_the_cost_stays_near_linear() {
    let mut checker = Checker::new();
    for tag in 1..=40_000 {
        let op = Op::Write {
            first: 0,
            tags: vec![tag],
            fua: false,
        };
        let id = checker.invoke(2 * tag, Session(1), op).expect("in order");
        checker
            .complete(2 * tag, id, Outcome::Done)
            .expect("an open request");
        let id = checker
            .invoke(2 * tag + 1, Session(1), Op::Read { first: 0, count: 1 })
            .expect("ok");
        let seen = Outcome::Read(vec![Seen::Tag(tag)]);
        checker
            .complete(2 * tag + 1, id, seen)
            .expect("an open request");
    }
    checker
        .crash(100_000, Crash::VolatileLost)
        .expect("in order");
    let id = checker
        .invoke(100_001, Session(2), Op::Read { first: 0, count: 1 })
        .expect("ok");
    checker
        .complete(100_002, id, Outcome::Read(vec![Seen::Tag(20_000)]))
        .expect("open");
    assert!(
        checker.finish().is_clean(),
        "nothing was ever flushed: any value may be left"
    );
}
