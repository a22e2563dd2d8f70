//! A majority of three nodes keeps a volume served: processes killed and paused at random, under
//! clients that find the primary by themselves and whose history is judged.
//!
//! ```text
//!  wait (until healthy, or not) ─► fault ─► somebody serves writes ─► give back what was taken
//!    primary killed     another node serves by itself; timed from the kill to an answered write
//!    primary paused     as above; when it goes on it answers nothing, and steps down
//!    another one killed the primary serves on
//!    two killed         nobody serves until one is back
//!    all killed         somebody serves by itself once they are back
//! ```
//! At the end: no violation, no error reply, and copies that are equal byte for byte.

use std::thread;
use std::time::{Duration, Instant};

use crate::{Followers, Random, Shape, TRIO, Trio};

/// How long it may take until somebody serves.
const SERVED_MAX: Duration = Duration::from_secs(30);

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who holds data.
    pub shape: Shape,
    /// How many processes are killed or paused.
    pub kills: u32,
    /// Of all choices.
    pub seed: u64,
    /// Size of the volume, MiB.
    pub mebibytes: u64,
    /// Clients.
    pub clients: u64,
    /// `[cluster] lease`.
    pub lease: String,
    /// Print a line every ten kills.
    pub is_verbose: bool,
}

impl Plan {
    /// A run with the usual figures.
    pub fn of(shape: Shape, kills: u32, seed: u64) -> Plan {
        Plan {
            shape,
            kills,
            seed,
            mebibytes: 32,
            clients: 2,
            lease: "2s".to_owned(),
            is_verbose: false,
        }
    }
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Processes killed or paused.
    pub kills: u32,
    /// Kills of the primary alone.
    pub primaries: u32,
    /// Pauses of the primary.
    pub pauses: u32,
    /// Kills of a node that was not primary.
    pub others: u32,
    /// Kills of two nodes at once.
    pub majorities: u32,
    /// Kills of all nodes at once.
    pub outages: u32,
    /// From the kill of a primary to a write answered elsewhere, sorted.
    pub failovers: Vec<Duration>,
    /// The same after a pause: clients first give up who does not answer.
    pub takeovers: Vec<Duration>,
    /// Answers that clients received.
    pub answers: u64,
    /// Longest time between a request and its answer.
    pub slowest: Duration,
    /// Time from the first kill to the end.
    pub took: Duration,
}

impl Tally {
    /// The failover that `percent` of a hundred are not slower than.
    pub fn failover(&self, percent: usize) -> Option<Duration> {
        let last = self.failovers.len().checked_sub(1)?;
        let index = (self.failovers.len() * percent).div_ceil(100);
        Some(self.failovers[index.saturating_sub(1).min(last)])
    }

    /// Times of failover, for people.
    pub fn failovers_text(&self) -> String {
        let show = |time: Option<Duration>| time.map_or("-".to_owned(), |t| format!("{t:.2?}"));
        let (p50, p99, max) = (self.failover(50), self.failover(99), self.failover(100));
        let (count, p50, p99, max) = (self.failovers.len(), show(p50), show(p99), show(max));
        format!("{count} failovers: p50 {p50}, p99 {p99}, max {max}")
    }
}

struct Run {
    trio: Trio,
    followers: Followers,
    random: Random,
    primary: usize,
    tally: Tally,
}

/// Runs a plan. Panics: a law was violated, a client saw an error, nobody served in time, or the
/// copies differ at the end.
pub fn run(plan: &Plan) -> Tally {
    let trio = Trio::healthy(plan.shape, plan.mebibytes, &plan.lease);
    let size = plan.mebibytes << 20;
    let followers = Followers::start(plan.clients, size, plan.seed, &trio.uris());
    let mut run = Run {
        trio,
        followers,
        random: Random::new(plan.seed),
        primary: 0,
        tally: Tally::default(),
    };
    let began = Instant::now();
    run.until_written(began, |_| true);
    let mut said = 0;
    while run.tally.kills < plan.kills {
        run.round();
        let violations = run.followers.violations();
        let (seed, kills) = (plan.seed, run.tally.kills);
        assert!(
            violations.is_empty(),
            "seed {seed}, {kills} kills: {violations:#?}"
        );
        if plan.is_verbose && kills / 10 > said {
            said = kills / 10;
            let (answers, elapsed) = (run.followers.answers(), began.elapsed().as_secs());
            run.tally.failovers.sort_unstable();
            let times = run.tally.failovers_text();
            println!("{kills} kills, {elapsed} s, {answers} answers, no violation; {times}");
        }
    }
    run.finish(plan, began)
}

impl Run {
    fn round(&mut self) {
        if self.random.percent(70) {
            self.trio.until_healthy(self.primary);
        }
        self.pause(500);
        match self.random.below(20) {
            0..10 => self.kill_primary(),
            10..13 => self.pause_primary(),
            13..17 => self.kill_another(),
            17..19 => self.kill_two(),
            _ => self.kill_all(),
        }
    }

    fn kill_primary(&mut self) {
        if !self.can_spare_primary() {
            return;
        }
        (self.tally.primaries, self.tally.kills) = (self.tally.primaries + 1, self.tally.kills + 1);
        let dead = self.primary;
        let at = Instant::now();
        self.trio.kill(dead);
        let (server, when) = self.until_written(at, |server| server != dead);
        self.tally.failovers.push(when.duration_since(at));
        self.primary = server;
        self.pause(800);
        self.trio.start(dead);
    }

    fn pause_primary(&mut self) {
        if !self.can_spare_primary() {
            return;
        }
        (self.tally.pauses, self.tally.kills) = (self.tally.pauses + 1, self.tally.kills + 1);
        let paused = self.primary;
        let at = Instant::now();
        self.trio.daemon(paused).pause();
        let (server, when) = self.until_written(at, |server| server != paused);
        self.tally.takeovers.push(when.duration_since(at));
        self.primary = server;
        self.pause(300);
        let resumed = Instant::now();
        self.trio.daemon(paused).resume();
        let is_secondary = |volume: &serde_json::Value| volume["role"] == "secondary";
        let limit = Duration::from_secs(5);
        self.trio
            .lab
            .until(TRIO[paused], "v", limit, "steps down", is_secondary);
        let wrote = self.followers.wrote(paused);
        assert!(
            wrote.is_none_or(|wrote| wrote < resumed),
            "{} answered a write though another node serves",
            TRIO[paused]
        );
    }

    fn kill_another(&mut self) {
        (self.tally.others, self.tally.kills) = (self.tally.others + 1, self.tally.kills + 1);
        let step = 1 + self.random.below(2) as usize;
        let dead = (self.primary + step) % 3;
        let primary = self.primary;
        self.trio.kill(dead);
        let at = Instant::now();
        self.until_written(at, |server| server == primary);
        self.pause(600);
        self.trio.start(dead);
    }

    fn kill_two(&mut self) {
        (self.tally.majorities, self.tally.kills) =
            (self.tally.majorities + 1, self.tally.kills + 2);
        let (first, spared) = match self.random.percent(50) {
            true => (1, 2),
            false => (2, 1),
        };
        let dead = [self.primary, (self.primary + first) % 3];
        let left = (self.primary + spared) % 3;
        dead.iter().for_each(|index| self.trio.kill(*index));
        let at = Instant::now();
        self.pause(3000);
        if self.trio.shape.replicas().contains(&left) {
            let wrote = self.followers.wrote(left);
            assert!(
                wrote.is_none_or(|wrote| wrote < at),
                "one of three served writes"
            );
        }
        // The last answer of the dead may have been noted after its death.
        let down = Instant::now();
        let order = self.random.below(2) as usize;
        self.trio.start(dead[order]);
        self.pause(500);
        self.trio.start(dead[1 - order]);
        (self.primary, _) = self.until_written(down, |_| true);
    }

    fn kill_all(&mut self) {
        (self.tally.outages, self.tally.kills) = (self.tally.outages + 1, self.tally.kills + 3);
        let first = self.random.below(3) as usize;
        let order = [0, 1, 2].map(|index| (first + index) % 3);
        order.iter().for_each(|index| self.trio.kill(*index));
        let first = self.random.below(3) as usize;
        for index in [0, 1, 2].map(|index| (first + index) % 3) {
            self.pause(300);
            self.trio.start(index);
        }
        // No volume is served yet: every voter that starts keeps quiet for a lease.
        let up = Instant::now();
        (self.primary, _) = self.until_written(up, |_| true);
    }

    /// Another member of S and one more vote are there: it may take over.
    fn can_spare_primary(&self) -> bool {
        let volume = self.trio.volume(self.primary);
        let replicas = volume["replicas"].as_array().cloned().unwrap_or_default();
        let is_current = |replica: &&serde_json::Value| {
            let has_link = ["self", "connected"].map(serde_json::Value::from);
            replica["disk_state"] == "up_to_date"
                && replica["out_of_sync_bytes"] == 0
                && has_link.contains(&replica["link_state"])
        };
        let current = replicas.iter().filter(is_current);
        current.count() > 1
            && volume["quorum"]["missing"]
                .as_array()
                .is_some_and(Vec::is_empty)
    }

    /// Waits until such a server answered a write after `at`. Panics: none does in time.
    fn until_written(&self, at: Instant, is_meant: impl Fn(usize) -> bool) -> (usize, Instant) {
        let replicas = self.trio.shape.replicas();
        loop {
            let wrote = |server: &usize| {
                let wrote = self.followers.wrote(*server).filter(|wrote| *wrote > at);
                Some((*server, wrote?))
            };
            let found = replicas.iter().filter(|s| is_meant(**s)).find_map(wrote);
            if let Some(found) = found {
                return found;
            }
            assert!(at.elapsed() < SERVED_MAX, "nobody serves writes");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn pause(&mut self, milliseconds_max: u64) {
        thread::sleep(Duration::from_millis(self.random.below(milliseconds_max)));
    }

    fn finish(mut self, plan: &Plan, began: Instant) -> Tally {
        self.trio.until_healthy(self.primary);
        let seen = self.followers.finish(&self.trio.uri(self.primary));
        let seed = plan.seed;
        let violations = seen.report.violations.iter();
        let violations: Vec<String> = violations.map(ToString::to_string).collect();
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
        let complaints = &seen.complaints;
        assert!(complaints.is_empty(), "seed {seed}: {complaints:#?}");
        self.trio.stop_and_compare(self.primary, plan.mebibytes);
        self.tally.failovers.sort_unstable();
        self.tally.takeovers.sort_unstable();
        self.tally.answers = seen.answers;
        self.tally.slowest = seen.slowest;
        self.tally.took = began.elapsed();
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_name_a_time_that_was_measured() {
        let failovers: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        let tally = Tally {
            failovers,
            ..Tally::default()
        };
        assert_eq!(tally.failover(50), Some(Duration::from_millis(100)));
        assert_eq!(tally.failover(99), Some(Duration::from_millis(198)));
        assert_eq!(tally.failover(100), Some(Duration::from_millis(200)));
        assert_eq!(Tally::default().failover(50), None);
    }
}
