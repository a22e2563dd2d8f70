//! `kill -9` of either node at random moments, under clients whose history is judged.
//!
//! ```text
//!  wait (until healthy, or not) ─► kill primary | secondary | both ─► pause
//!    primary:   promote the other; if it may not serve, start the killed one and promote that
//!    secondary: start it again; clients must not notice
//!    both:      start both, promote either
//! ```
//! At the end: no violation, no error reply, and two backing files that are equal byte for byte.

use std::thread;
use std::time::{Duration, Instant};

use crate::pair::NODES;
use crate::{Clients, Pair, Random};

/// How long a promotion may be refused, by both nodes, until the run has failed.
const PROMOTE_MAX: Duration = Duration::from_secs(60);

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many times something is killed.
    pub rounds: u32,
    /// Of all choices.
    pub seed: u64,
    /// Size of the volume, MiB.
    pub mebibytes: u64,
    /// Clients that write.
    pub clients: u64,
    /// Print a line every ten rounds.
    pub is_verbose: bool,
}

impl Plan {
    /// A run of so many rounds with the usual figures.
    pub fn of(rounds: u32, seed: u64) -> Plan {
        Plan {
            rounds,
            seed,
            mebibytes: 32,
            clients: 3,
            is_verbose: false,
        }
    }
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Kills of the primary.
    pub primaries: u32,
    /// Kills of the secondary.
    pub secondaries: u32,
    /// Kills of both at once.
    pub both: u32,
    /// Times that the other node took over.
    pub failovers: u32,
    /// Promotions that were refused, as they must be while data may be missing.
    pub refusals: u32,
    /// Answers that clients received.
    pub answers: u64,
    /// Longest time between a request and its answer.
    pub slowest: Duration,
    /// Time from the first kill to the end.
    pub took: Duration,
}

struct Run {
    pair: Pair,
    clients: Clients,
    random: Random,
    primary: usize,
    tally: Tally,
}

/// Runs a plan. Panics: a law was violated, a client saw an error, a node did not come back, or
/// the copies differ at the end.
pub fn run(plan: &Plan) -> Tally {
    let pair = Pair::healthy(plan.mebibytes);
    let clients = Clients::start(plan.clients, plan.mebibytes << 20, plan.seed);
    clients.point_at(&pair.uri(0));
    let mut run = Run {
        pair,
        clients,
        random: Random::new(plan.seed),
        primary: 0,
        tally: Tally::default(),
    };
    let began = Instant::now();
    for round in 1..=plan.rounds {
        run.round();
        let violations = run.clients.violations();
        assert!(
            violations.is_empty(),
            "seed {}, round {round}: {violations:#?}",
            plan.seed
        );
        if plan.is_verbose && round % 10 == 0 {
            let answers = run.clients.answers();
            let elapsed = began.elapsed().as_secs();
            println!("{round} kills, {elapsed} s, {answers} answers, no violation");
        }
    }
    run.finish(plan, began)
}

impl Run {
    fn round(&mut self) {
        if self.random.percent(75) {
            self.pair.until_healthy(self.primary);
        }
        self.pause(300);
        match self.random.below(10) {
            0..5 => self.kill_primary(),
            5..9 => self.kill_secondary(),
            _ => self.kill_both(),
        }
    }

    fn kill_secondary(&mut self) {
        self.tally.secondaries += 1;
        let secondary = 1 - self.primary;
        self.pair.kill(secondary);
        self.pause(400);
        self.pair.start(secondary);
    }

    fn kill_primary(&mut self) {
        self.tally.primaries += 1;
        let (dead, other) = (self.primary, 1 - self.primary);
        self.clients.lose();
        self.pair.kill(dead);
        self.pause(200);
        if self.random.percent(70) && self.try_promote(other) {
            self.clients.go_to(&self.pair.uri(other));
            self.pause(200);
            self.pair.start(dead);
        } else {
            self.pair.start(dead);
            self.promote_either(dead);
            self.clients.go_to(&self.pair.uri(self.primary));
        }
        self.tally.failovers += u32::from(self.primary == other);
    }

    fn kill_both(&mut self) {
        self.tally.both += 1;
        self.clients.lose();
        let first = self.random.below(2) as usize;
        self.pair.kill(first);
        self.pair.kill(1 - first);
        self.clients.all_down();
        self.pause(100);
        let first = self.random.below(2) as usize;
        self.pair.start(first);
        self.pair.start(1 - first);
        let wanted = self.random.below(2) as usize;
        self.promote_either(wanted);
        self.clients.point_at(&self.pair.uri(self.primary));
    }

    fn try_promote(&mut self, index: usize) -> bool {
        let ran = self.pair.promote(index, "5s");
        match ran.exit {
            0 => self.primary = index,
            // Another code would be a fault of ours, not a refusal.
            1 | 4 | 7 => self.tally.refusals += 1,
            _ => panic!("promote on {}: {ran:?}", NODES[index]),
        }
        ran.exit == 0
    }

    /// Promotes this node, or the other if this one may not serve. Both run.
    fn promote_either(&mut self, wanted: usize) {
        let began = Instant::now();
        let mut index = wanted;
        while !self.try_promote(index) {
            assert!(began.elapsed() < PROMOTE_MAX, "neither node may serve");
            index = 1 - index;
        }
    }

    fn pause(&mut self, milliseconds_max: u64) {
        thread::sleep(Duration::from_millis(self.random.below(milliseconds_max)));
    }

    fn finish(mut self, plan: &Plan, began: Instant) -> Tally {
        self.pair.until_healthy(self.primary);
        let seen = self.clients.finish(&self.pair.uri(self.primary));
        let seed = plan.seed;
        let violations: Vec<String> = seen
            .report
            .violations
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
        assert!(
            seen.complaints.is_empty(),
            "seed {seed}: {:#?}",
            seen.complaints
        );
        self.pair.stop_and_compare(self.primary, plan.mebibytes);
        self.tally.answers = seen.answers;
        self.tally.slowest = seen.slowest;
        self.tally.took = began.elapsed();
        self.tally
    }
}
