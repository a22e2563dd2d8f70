//! Clients that find the primary by themselves, as multipath or a virtual address would.
//!
//! ```text
//!  attach to the next node ─ refused, silent ─► the next one
//!       └─ first answer ─► sessions at other nodes are over (law B9) ─► load until it breaks
//! ```
//! A node that answers holds the lease; what this client had asked of another node before, over a
//! connection it has given up, can take effect no more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use history::{OpId, Outcome, Report, Session};
use nbd_proto::NbdUri;
use pollux_daemon::demo::client::{Answer, Broken, Connection};

use crate::clients::{DEPTH, choose, lock, read_all};
use crate::{Random, Recorder, tagged};

/// A server that says nothing for so long is given up.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

struct Server {
    uri: NbdUri,
    /// When it last answered a request that changes something.
    wrote: Mutex<Option<Instant>>,
}

struct Shared {
    recorder: Recorder,
    servers: Vec<Server>,
    blocks: u64,
    stop: AtomicBool,
    answers: AtomicU64,
    /// Longest time between a request and its answer.
    slowest_micros: AtomicU64,
    /// Error replies: no client may see one.
    complaints: Mutex<Vec<String>>,
}

/// Threads that keep a volume busy wherever it is served, until told to stop.
pub struct Followers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What they saw.
pub struct Followed {
    /// The history's verdict.
    pub report: Report,
    /// Answers received.
    pub answers: u64,
    /// Longest time between a request and its answer.
    pub slowest: Duration,
    /// Error replies.
    pub complaints: Vec<String>,
}

impl Followed {
    /// Panics: a law of histories is broken, or a client was told of an error.
    pub fn assert_clean(&self) {
        let violations = &self.report.violations;
        assert!(violations.is_empty(), "{violations:#?}");
        assert!(self.complaints.is_empty(), "{:#?}", self.complaints);
    }
}

impl Followers {
    /// Starts `count` clients of a volume of `size` bytes that reads zeros and is served at one of
    /// these places. Panics: one is no NBD URI.
    pub fn start(count: u64, size: u64, seed: u64, uris: &[String]) -> Followers {
        let server = |uri: &String| Server {
            uri: uri.parse().expect("tests use URIs of the lab"),
            wrote: Mutex::default(),
        };
        let shared = Arc::new(Shared {
            recorder: Recorder::default(),
            servers: uris.iter().map(server).collect(),
            blocks: size / tagged::BLOCK,
            stop: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            slowest_micros: AtomicU64::new(0),
            complaints: Mutex::default(),
        });
        let threads = (0..count).map(|index| {
            let shared = Arc::clone(&shared);
            let random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(index));
            thread::spawn(move || live(&shared, random))
        });
        Followers {
            threads: threads.collect(),
            shared,
        }
    }

    /// When this server last answered a request that changes something.
    pub fn wrote(&self, server: usize) -> Option<Instant> {
        *lock(&self.shared.servers[server].wrote)
    }

    /// Waits until this server answered a write that began from now on. Panics: not within this time.
    pub fn until_served(&self, server: usize, within: Duration) {
        let began = Instant::now();
        while self.wrote(server).is_none_or(|wrote| wrote < began) {
            let uri = &self.shared.servers[server].uri;
            assert!(began.elapsed() < within, "{uri} serves no writes");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Violations found so far, in words.
    pub fn violations(&self) -> Vec<String> {
        self.shared.recorder.violations()
    }

    /// Answers received so far.
    pub fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::Relaxed)
    }

    /// Stops the clients, reads the whole volume once more from `uri`, and judges all of it.
    pub fn finish(self, uri: &str) -> Followed {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("clients do not panic");
        }
        let shared = Arc::into_inner(self.shared).expect("all threads ended");
        read_all(&shared.recorder, shared.blocks, uri, |id, answer| {
            record(&shared, (id, true), answer);
        });
        let complaints = shared.complaints.into_inner();
        Followed {
            report: shared.recorder.finish(),
            answers: shared.answers.into_inner(),
            slowest: Duration::from_micros(shared.slowest_micros.into_inner()),
            complaints: complaints.unwrap_or_else(std::sync::PoisonError::into_inner),
        }
    }
}

/// One client's life.
fn live(shared: &Shared, mut random: Random) {
    let mut server = random.below(shared.servers.len() as u64) as usize;
    // Sessions that are not known to be over, and where they were.
    let mut before: Vec<(usize, Session)> = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let uri = &shared.servers[server].uri;
        if let Ok(connection) = Connection::attach(uri, PATIENCE) {
            let session = shared.recorder.open();
            let at = (server, session);
            // Whoever breaks off tries the next one.
            let _ = serve(shared, connection, at, &mut random, &mut before);
            before.push(at);
        }
        server = (server + 1) % shared.servers.len();
        thread::sleep(PAUSE);
    }
}

/// A session, until the clients shall stop or it breaks.
fn serve(
    shared: &Shared,
    mut connection: Connection,
    (server, session): (usize, Session),
    random: &mut Random,
    before: &mut Vec<(usize, Session)>,
) -> Result<(), Broken> {
    let mut open: BTreeMap<u64, (OpId, bool)> = BTreeMap::new();
    loop {
        while open.len() < DEPTH && !shared.stop.load(Ordering::Relaxed) {
            let (op, ask) = choose(&shared.recorder, shared.blocks, random);
            let is_read = matches!(op, history::Op::Read { .. });
            let id = shared.recorder.invoke(session, op);
            let id = id.expect("this session is open");
            open.insert(connection.send(&ask)?, (id, is_read));
        }
        if open.is_empty() {
            return connection.detach();
        }
        let answer = connection.receive()?;
        let asked = open.remove(&answer.request).ok_or(Broken::Unexpected)?;
        let over = before.extract_if(.., |(at, _)| *at != server);
        let over: Vec<Session> = over.map(|(_, session)| session).collect();
        shared.recorder.close(&over);
        record(shared, asked, &answer);
        if !asked.1 {
            *lock(&shared.servers[server].wrote) = Some(Instant::now());
        }
    }
}

fn record(shared: &Shared, (id, is_read): (OpId, bool), answer: &Answer) {
    let outcome = match answer.result {
        Ok(()) if is_read => Outcome::Read(tagged::decode(&answer.data)),
        Ok(()) => Outcome::Done,
        Err(error) => {
            lock(&shared.complaints).push(format!("a request was answered with {error}"));
            Outcome::Failed
        }
    };
    shared.recorder.complete(id, outcome);
    shared.answers.fetch_add(1, Ordering::Relaxed);
    let micros = u64::try_from(answer.took.as_micros()).unwrap_or(u64::MAX);
    shared.slowest_micros.fetch_max(micros, Ordering::Relaxed);
}
