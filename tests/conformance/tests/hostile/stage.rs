//! A daemon under attack, and a client beside it that behaves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use conformance::raw::{self, Raw, Style, cmd};
use conformance::{Daemon, Lab, Vitals, eventually};

/// Size of the volume, MiB: longer than the longest payload.
pub const MEBIBYTES: u64 = 48;
/// Bytes at the end of the volume that belong to the witness.
pub const WITNESS_BYTES: u64 = 1 << 20;
/// Growth of resident memory that is noise: caches of the allocator, pages of the log's queue.
pub const NOISE_BYTES: u64 = 8 << 20;

/// A running node named solo with the volume and export `v`.
pub struct Stage {
    /// Ends before the lab's folder goes.
    pub daemon: Daemon,
    pub lab: Lab,
}

impl Stage {
    /// With more keys for the node, and the volume in memory or in a file.
    pub fn new(node_keys: &str, backing: &str) -> Stage {
        Stage::of(node_keys, backing, |lab| lab.serve("solo"))
    }

    pub fn of(node_keys: &str, backing: &str, serve: impl FnOnce(&Lab) -> Daemon) -> Stage {
        let volume = format!(
            "[volume.v]\nsize = \"{MEBIBYTES}MiB\"\nbacking = \"{backing}\"\n\
             replicas = [\"solo\"]\nnbd = [{{ name = \"v\" }}]\n"
        );
        let lab = Lab::with_keys(&["solo"], node_keys, &volume);
        let daemon = serve(&lab);
        lab.done("solo", &["volume", "create", "v"]);
        lab.until_serving("solo", "v", Duration::from_secs(10));
        Stage { daemon, lab }
    }

    pub fn address(&self) -> String {
        self.lab.node("solo").nbd.address()
    }

    /// A client that has said nothing yet.
    pub fn connect(&self) -> Raw {
        Raw::tcp(&self.address()).expect("the listener accepts")
    }

    /// A client of the volume.
    pub fn attach(&self, style: Style) -> Raw {
        let mut client = self.connect();
        client.go("v", style);
        client
    }

    pub fn vitals(&self) -> Vitals {
        Vitals::of(self.daemon.pid())
    }

    /// Clients that the status shows.
    pub fn clients(&self) -> usize {
        let volume = self.lab.volume("solo", "v");
        volume["clients"]
            .as_array()
            .expect("clients is an array")
            .len()
    }

    /// Waits until all clients but `count` are gone, and what they held with them.
    pub fn until_clients(&self, count: usize, before: &Vitals) {
        eventually(Duration::from_secs(15), "the clients are gone", || {
            (self.clients() == count).then_some(())
        });
        before.descriptors_return(self.daemon.pid(), Duration::from_secs(10));
    }
}

/// A client that writes and reads its own blocks, one request at a time, and checks every byte.
/// It stops with the value, and panics then if anything went wrong.
pub struct Witness {
    is_over: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    /// Times of the rounds since they were last asked for.
    times: Arc<Mutex<Vec<Duration>>>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    pub fn start(stage: &Stage) -> Witness {
        let mut client = stage.attach(Style::Simple);
        let is_over = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicU64::new(0));
        let times = Arc::new(Mutex::new(Vec::new()));
        let (over, count, taken) = (is_over.clone(), rounds.clone(), times.clone());
        let thread = thread::spawn(move || {
            let base = client.size - WITNESS_BYTES;
            let mut round = 0u64;
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                round += 1;
                let offset = base + round * 4096 % WITNESS_BYTES;
                let block = block_of(round);
                let write = raw::write(round, offset, &block);
                client.send(&write).expect("the witness can send");
                let reply = client.reply(0).expect("the witness is answered");
                assert_eq!((reply.cookie, reply.error), (round, 0));
                let read = raw::request(0, cmd::READ, round, offset, 4096);
                client.send(&read).expect("the witness can send");
                let mut answer = vec![0; 16 + 4096];
                client
                    .read_exact(&mut answer)
                    .expect("the witness is answered");
                assert_eq!(answer[4..8], [0; 4], "a read without error");
                assert_eq!(answer[16..], block, "the witness reads what it wrote");
                taken
                    .lock()
                    .expect("nobody panics with it")
                    .push(began.elapsed());
                count.store(round, Ordering::Relaxed);
                // Leaves the machine to the attack.
                thread::sleep(Duration::from_millis(1));
            }
        });
        Witness {
            is_over,
            rounds,
            times,
            thread: Some(thread),
        }
    }

    /// Panics unless the witness makes `rounds` more rounds, soon.
    pub fn goes_on(&self, rounds: u64) {
        let goal = self.rounds.load(Ordering::Relaxed) + rounds;
        eventually(Duration::from_secs(20), "the other client goes on", || {
            let is_dead = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!is_dead, "the other client was disturbed");
            (self.rounds.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Median and longest time of the next `count` rounds, and of the one that is going on.
    pub fn pace(&self, count: u64) -> (Duration, Duration) {
        self.times().clear();
        self.goes_on(count);
        let mut times = std::mem::take(&mut *self.times());
        times.sort_unstable();
        let longest = times.last().expect("some rounds were made");
        (times[times.len() / 2], *longest)
    }

    fn times(&self) -> MutexGuard<'_, Vec<Duration>> {
        self.times.lock().expect("nobody panics with it")
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(
                matches!(ended, Some(Ok(()))),
                "the other client was disturbed"
            );
        }
    }
}

/// Content of a block that no other round writes.
fn block_of(round: u64) -> Vec<u8> {
    let words = (0..512u64).map(|word| round.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word);
    words.flat_map(u64::to_be_bytes).collect()
}
