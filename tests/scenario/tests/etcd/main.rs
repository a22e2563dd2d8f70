//! Three nodes whose records etcd chooses, and three members of etcd: killed and cut off in every
//! way, under clients whose history is judged.

mod cuts;
mod hand_overs;
mod kills;
mod records;
mod tls;

use std::thread;
use std::time::{Duration, Instant};

use scenario::{Etcd, Followers, Mesh, TRIO, Trio, trio_by_etcd};

/// As long as etcd may take to elect another leader.
const LEASE: Duration = Duration::from_secs(2);
/// A failover of the volume behind one of etcd, and a busy machine.
const SERVED_MAX: Duration = Duration::from_secs(60);
const MEBIBYTES: u64 = 16;
const ALPHA: usize = 0;
const BETA: usize = 1;
const GAMMA: usize = 2;

/// All that runs, and who serves.
struct Six {
    followers: Followers,
    trio: Trio,
    mesh: Mesh,
    etcd: Etcd,
    primary: usize,
}

/// One of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Member(usize),
    Node(usize),
}

const PARTS: [Part; 6] = [
    Part::Member(0),
    Part::Member(1),
    Part::Member(2),
    Part::Node(ALPHA),
    Part::Node(BETA),
    Part::Node(GAMMA),
];

impl Six {
    /// All of them run, alpha serves, and clients are at it.
    fn start(seed: u64) -> Six {
        let (etcd, mut trio) = trio_by_etcd(MEBIBYTES, &format!("{}s", LEASE.as_secs()));
        let mesh = Mesh::between(&mut trio);
        (0..3).for_each(|index| trio.serve(index));
        trio.found();
        let followers = Followers::start(2, MEBIBYTES << 20, seed, &trio.uris());
        let six = Six {
            followers,
            trio,
            mesh,
            etcd,
            primary: ALPHA,
        };
        six.until_written(|server| server == ALPHA);
        six
    }

    fn kill(&mut self, part: Part) {
        match part {
            Part::Member(member) => self.etcd.kill(member),
            Part::Node(node) => self.trio.kill(node),
        }
    }

    fn restart(&mut self, part: Part) {
        match part {
            Part::Member(member) => self.etcd.serve(member),
            Part::Node(node) => self.trio.start(node),
        }
    }

    /// Waits until one of the servers meant answered a write from now on; which.
    fn until_written(&self, is_meant: impl Fn(usize) -> bool) -> usize {
        let began = Instant::now();
        loop {
            if let Some(server) = (0..3).find(|s| is_meant(*s) && self.wrote_since(*s, began)) {
                return server;
            }
            assert!(began.elapsed() < SERVED_MAX, "nobody serves writes");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn wrote_since(&self, server: usize, since: Instant) -> bool {
        self.followers.wrote(server).is_some_and(|at| at > since)
    }

    fn nobody_but(&self, server: usize, since: Instant) {
        for other in (0..3).filter(|other| *other != server) {
            assert!(
                !self.wrote_since(other, since),
                "{} served too",
                TRIO[other]
            );
        }
    }

    /// The primary goes on for two leases, and no other node serves meanwhile.
    fn stays(&self) {
        let began = Instant::now();
        while began.elapsed() < LEASE * 2 {
            self.until_written(|server| server == self.primary);
        }
        self.nobody_but(self.primary, began);
    }

    /// One of these takes over from the primary, which answers nothing from then on.
    fn moves(&mut self, heirs: impl Fn(usize) -> bool) {
        let before = self.primary;
        self.primary = self.until_written(|server| server != before && heirs(server));
        let taken = Instant::now();
        thread::sleep(LEASE);
        self.nobody_but(self.primary, taken);
    }

    /// Everything is there again, and the volume where it was.
    fn until_whole(&self) {
        self.etcd.leader();
        self.trio.until_healthy(self.primary);
    }

    fn judge(self) {
        let Six {
            followers,
            mut trio,
            primary,
            ..
        } = self;
        let seen = followers.finish(&trio.uri(primary));
        seen.assert_clean();
        let answers = seen.answers;
        assert!(answers > 500, "the clients hardly ran: {answers}");
        trio.stop_and_compare(primary, MEBIBYTES);
    }
}
