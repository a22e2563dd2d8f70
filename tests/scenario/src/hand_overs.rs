//! The role of a volume moves from node to node, again and again, by one command on the node that
//! shall have it, under clients that attach again by themselves and whose history is judged.
//!
//! ```text
//!  wait until healthy ─► promote on another node ─► writes answered there: the stall ends
//! ```
//! At the end: no violation, no error reply, every hand-over done by who was told to, nobody left S
//! for one, and copies that are equal byte for byte.

use std::thread;
use std::time::{Duration, Instant};

use crate::{Followers, Random, Shape, TRIO, Trio};

/// How long it may take until somebody serves, on a busy machine.
const SERVED_MAX: Duration = Duration::from_secs(30);
/// After so long a link has proved to be of use.
const LINKS_STOOD: Duration = Duration::from_secs(2);

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who holds data.
    pub shape: Shape,
    /// How often the role moves.
    pub rounds: u32,
    /// Of all choices.
    pub seed: u64,
    /// Size of the volume, MiB.
    pub mebibytes: u64,
    /// Clients.
    pub clients: u64,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// From the last write answered by one node to the first by the next, sorted.
    pub stalls: Vec<Duration>,
    /// Time that each command took, sorted.
    pub commands: Vec<Duration>,
    /// Hand-overs after which every copy was in S at once.
    pub complete: u32,
    /// Answers that clients received.
    pub answers: u64,
}

impl Tally {
    /// Times of stalls, for people.
    pub fn text(&self) -> String {
        let show = |times: &[Duration]| match times {
            [] => "none".to_owned(),
            [.., max] => format!("p50 {:.0?}, max {max:.0?}", times[times.len() / 2]),
        };
        let (count, complete) = (self.stalls.len(), self.complete);
        let (stalls, commands) = (show(&self.stalls), show(&self.commands));
        format!(
            "{count} hand-overs, {complete} with all copies: stall {stalls}; command {commands}"
        )
    }
}

/// Runs a plan. Panics: a law was violated, a client saw an error, a command failed, nobody served
/// in time, or the copies differ at the end.
pub fn run(plan: &Plan) -> Tally {
    let mut trio = Trio::healthy(plan.shape, plan.mebibytes, "2s");
    let size = plan.mebibytes << 20;
    let followers = Followers::start(plan.clients, size, plan.seed, &trio.uris());
    let mut random = Random::new(plan.seed);
    let (mut tally, mut primary) = (Tally::default(), 0);
    until_writes(&followers, primary, Instant::now());
    for _ in 0..plan.rounds {
        trio.until_healthy(primary);
        // Links that broke soon after they stood are dialled again after growing pauses.
        thread::sleep(LINKS_STOOD + Duration::from_millis(random.below(400)));
        let replicas = plan.shape.replicas();
        let step = 1 + random.below(replicas.len() as u64 - 1) as usize;
        let next = replicas[(primary + step) % replicas.len()];
        let began = Instant::now();
        let (taken, took) = thread::scope(|scope| {
            let command = scope.spawn(|| {
                trio.lab.done(TRIO[next], &["promote", "v"]);
                began.elapsed()
            });
            let taken = until_writes(&followers, next, began);
            (taken, command.join().expect("promote succeeds"))
        });
        let left = followers.wrote(primary).expect("it served before");
        assert!(left < taken, "{} served too", TRIO[primary]);
        tally.stalls.push(taken - left);
        tally.commands.push(took);
        let copies = trio.volume(next)["state"] == "healthy";
        tally.complete += u32::from(copies);
        primary = next;
        let violations = followers.violations();
        assert!(violations.is_empty(), "seed {}: {violations:#?}", plan.seed);
    }
    trio.until_healthy(primary);
    let seen = followers.finish(&trio.uri(primary));
    let violations = seen.report.violations.iter();
    let violations: Vec<String> = violations.map(ToString::to_string).collect();
    assert!(violations.is_empty(), "seed {}: {violations:#?}", plan.seed);
    assert!(seen.complaints.is_empty(), "{:#?}", seen.complaints);
    trio.stop_and_compare(primary, plan.mebibytes);
    tally.stalls.sort_unstable();
    tally.commands.sort_unstable();
    tally.answers = seen.answers;
    tally
}

/// When this server first answered a write after `at`.
fn until_writes(followers: &Followers, server: usize, at: Instant) -> Instant {
    loop {
        if let Some(wrote) = followers.wrote(server).filter(|wrote| *wrote > at) {
            return wrote;
        }
        let node = TRIO[server];
        assert!(at.elapsed() < SERVED_MAX, "{node} serves no writes");
        thread::sleep(Duration::from_millis(1));
    }
}
