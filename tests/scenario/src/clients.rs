//! Clients that write tagged blocks, several requests in flight, and record what they saw.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use history::{Checker, Crash, Op, OpId, Outcome, RecordError, Report, Session};
use nbd_proto::{CommandFlags, CommandKind, NbdUri};
use pollux_daemon::demo::client::{Answer, Ask, Broken, Connection};

use crate::Random;
use crate::disk::SILENCE;
use crate::tagged::{self, BLOCK};

/// Requests each client keeps in flight.
pub(crate) const DEPTH: usize = 8;

/// Places that all clients want at once; so many blocks apart that each is in an extent of its
/// own in the activity log.
const HOT_PLACES: u64 = 4;

/// The checker, shared by threads: times are taken and events recorded under one lock.
pub struct Recorder {
    began: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    checker: Checker,
    next_session: u64,
    next_tag: u64,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder {
            began: Instant::now(),
            inner: Mutex::new(Inner {
                // Processes die here, the machine does not: nothing stored is lost.
                checker: Checker::without_loss(),
                next_session: 1,
                next_tag: 1,
            }),
        }
    }
}

impl Recorder {
    /// A new session.
    pub fn open(&self) -> Session {
        let mut inner = self.lock();
        let session = Session(inner.next_session);
        inner.next_session += 1;
        let now = self.now();
        inner
            .checker
            .open(now, session)
            .expect("session names are never used again");
        session
    }

    /// Names for `count` blocks about to be written; never 0, never given twice.
    pub fn tags(&self, count: u64) -> Vec<u64> {
        let mut inner = self.lock();
        let first = inner.next_tag;
        inner.next_tag += count;
        (first..first + count).collect()
    }

    /// A request is about to be sent. `None`: the session was closed meanwhile.
    pub fn invoke(&self, session: Session, op: Op) -> Option<OpId> {
        let mut inner = self.lock();
        let now = self.now();
        match inner.checker.invoke(now, session, op) {
            Ok(id) => Some(id),
            Err(RecordError::SessionOver(_)) => None,
            Err(wrong) => panic!("the recorder is wrong: {wrong}"),
        }
    }

    /// A request was answered.
    pub fn complete(&self, op: OpId, outcome: Outcome) {
        let mut inner = self.lock();
        let now = self.now();
        inner
            .checker
            .complete(now, op, outcome)
            .expect("answers belong to requests");
    }

    /// Nothing of these sessions can take effect any more.
    pub fn close(&self, sessions: &[Session]) {
        let mut inner = self.lock();
        for session in sessions {
            let now = self.now();
            inner
                .checker
                .close(now, *session)
                .expect("a session is closed once");
        }
    }

    /// All nodes are down; every session is over.
    pub fn crash(&self) {
        let mut inner = self.lock();
        let now = self.now();
        inner
            .checker
            .crash(now, Crash::MemberWhole)
            .expect("time does not run back");
    }

    /// Violations found so far, in words.
    pub fn violations(&self) -> Vec<String> {
        self.lock()
            .checker
            .violations()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// Ends the history.
    pub fn finish(self) -> Report {
        let inner = self
            .inner
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        inner.checker.finish()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).expect("runs end within 500 years")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the clients shall attach.
#[derive(Clone)]
struct Target {
    uri: Option<NbdUri>,
    /// Counts the times that the primary went away.
    reign: u64,
}

struct Shared {
    recorder: Recorder,
    target: Mutex<Target>,
    changed: Condvar,
    /// Sessions that are not closed, with the reign they were opened in.
    sessions: Mutex<Vec<(Session, u64)>>,
    /// Clients that hold a connection.
    attached: Mutex<usize>,
    detached: Condvar,
    stop: AtomicBool,
    blocks: u64,
    answers: AtomicU64,
    slowest_micros: AtomicU64,
    /// What no client may see: error replies, connections lost though nobody was killed.
    complaints: Mutex<Vec<String>>,
    /// Connections may be lost at any time; who loses one attaches again.
    reconnects: bool,
    lost: AtomicU64,
}

/// Threads that keep a volume busy until told to stop. They attach again, to whichever node they
/// are pointed at, when their server dies.
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the clients saw.
pub struct Seen {
    /// The history's verdict.
    pub report: Report,
    /// Answers received.
    pub answers: u64,
    /// Longest time between a request and its answer.
    pub slowest: Duration,
    /// Error replies, and connections lost though the server lived.
    pub complaints: Vec<String>,
    /// Connections lost by clients that attach again.
    pub lost: u64,
}

impl Clients {
    /// Starts `count` clients on a volume of `size` bytes that reads zeros; they wait to be
    /// pointed at a node.
    pub fn start(count: u64, size: u64, seed: u64) -> Clients {
        Clients::start_as(count, size, seed, false)
    }

    /// As [`Clients::start`]; a lost connection is no error to them: they attach again to the same
    /// place until it works. What they had asked before may have happened, but not later than that.
    pub fn start_reconnecting(count: u64, size: u64, seed: u64) -> Clients {
        Clients::start_as(count, size, seed, true)
    }

    fn start_as(count: u64, size: u64, seed: u64, reconnects: bool) -> Clients {
        let shared = Arc::new(Shared {
            recorder: Recorder::default(),
            target: Mutex::new(Target {
                uri: None,
                reign: 0,
            }),
            changed: Condvar::new(),
            sessions: Mutex::new(Vec::new()),
            attached: Mutex::new(0),
            detached: Condvar::new(),
            stop: AtomicBool::new(false),
            blocks: size / BLOCK,
            answers: AtomicU64::new(0),
            slowest_micros: AtomicU64::new(0),
            complaints: Mutex::new(Vec::new()),
            reconnects,
            lost: AtomicU64::new(0),
        });
        let threads = (0..count).map(|index| {
            let shared = Arc::clone(&shared);
            let random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(index));
            thread::spawn(move || live(&shared, random))
        });
        Clients {
            threads: threads.collect(),
            shared,
        }
    }

    /// The primary is about to go away: whatever happens to connections from now on is expected.
    pub fn lose(&self) {
        let mut target = lock(&self.shared.target);
        target.uri = None;
        target.reign += 1;
    }

    /// The old primary is dead and its successor serves at `uri`: nothing sent to the old one
    /// can take effect any more.
    pub fn go_to(&self, uri: &str) {
        self.wait_detached();
        let reign = lock(&self.shared.target).reign;
        let mut sessions = lock(&self.shared.sessions);
        let over: Vec<Session> = sessions
            .extract_if(.., |(_, of)| *of < reign)
            .map(|(session, _)| session)
            .collect();
        drop(sessions);
        self.shared.recorder.close(&over);
        self.point_at(uri);
    }

    /// All nodes are dead.
    pub fn all_down(&self) {
        self.wait_detached();
        lock(&self.shared.sessions).clear();
        self.shared.recorder.crash();
    }

    /// Lets the clients attach.
    pub fn point_at(&self, uri: &str) {
        let uri = uri.parse().expect("tests use URIs of the lab");
        lock(&self.shared.target).uri = Some(uri);
        self.shared.changed.notify_all();
    }

    /// Violations found so far, in words.
    pub fn violations(&self) -> Vec<String> {
        self.shared.recorder.violations()
    }

    /// Connections lost so far by clients that attach again.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Answers received so far.
    pub fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::Relaxed)
    }

    /// Stops the clients, reads the whole volume once more from `uri`, and judges all of it.
    pub fn finish(self, uri: &str) -> Seen {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        for thread in self.threads {
            thread.join().expect("clients do not panic");
        }
        let shared = &self.shared;
        read_all(&shared.recorder, shared.blocks, uri, |id, answer| {
            record(shared, id, true, answer);
        });
        let shared = Arc::into_inner(self.shared).expect("all threads ended");
        let complaints = shared
            .complaints
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Seen {
            report: shared.recorder.finish(),
            answers: shared.answers.into_inner(),
            slowest: Duration::from_micros(shared.slowest_micros.into_inner()),
            complaints,
            lost: shared.lost.into_inner(),
        }
    }

    /// Waits until every client has read what its dead server had answered.
    fn wait_detached(&self) {
        let attached = lock(&self.shared.attached);
        let limit = SILENCE + Duration::from_secs(5);
        let condition = |count: &mut usize| *count > 0;
        let waited = self
            .shared
            .detached
            .wait_timeout_while(attached, limit, condition);
        let (attached, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert_eq!(*attached, 0, "clients hang on a server that is dead");
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client's life.
fn live(shared: &Shared, mut random: Random) {
    let mut last = None;
    while let Some((uri, reign)) = next_target(shared) {
        *lock(&shared.attached) += 1;
        let ended = Connection::attach(&uri, SILENCE)
            .and_then(|connection| serve(shared, connection, reign, &mut random, &mut last));
        *lock(&shared.attached) -= 1;
        shared.detached.notify_all();
        if let Err(broken) = ended {
            let is_expected = lock(&shared.target).reign != reign;
            if shared.reconnects {
                shared.lost.fetch_add(1, Ordering::Relaxed);
            } else if !is_expected {
                let text = format!("lost a server that was not killed: {}", broken.in_full());
                lock(&shared.complaints).push(text);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Waits for a node to attach to. `None`: the clients shall stop.
fn next_target(shared: &Shared) -> Option<(NbdUri, u64)> {
    let mut target = lock(&shared.target);
    loop {
        if shared.stop.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(uri) = &target.uri {
            return Some((uri.clone(), target.reign));
        }
        let pause = Duration::from_millis(100);
        let waited = shared.changed.wait_timeout(target, pause);
        (target, _) = waited.unwrap_or_else(PoisonError::into_inner);
    }
}

/// A session, until the clients shall stop or the connection is lost.
fn serve(
    shared: &Shared,
    mut connection: Connection,
    reign: u64,
    random: &mut Random,
    last: &mut Option<Session>,
) -> Result<(), Broken> {
    let session = shared.recorder.open();
    match (shared.reconnects, last.replace(session)) {
        (false, _) => lock(&shared.sessions).push((session, reign)),
        // Its connection has ended, and the server lets this client in again.
        (true, Some(before)) => shared.recorder.close(&[before]),
        (true, None) => {}
    }
    let mut open: BTreeMap<u64, (OpId, bool)> = BTreeMap::new();
    loop {
        while open.len() < DEPTH && !shared.stop.load(Ordering::Relaxed) {
            let (op, ask) = choose(&shared.recorder, shared.blocks, random);
            let is_read = matches!(op, Op::Read { .. });
            let Some(id) = shared.recorder.invoke(session, op) else {
                return Ok(());
            };
            open.insert(connection.send(&ask)?, (id, is_read));
        }
        if open.is_empty() {
            return connection.detach();
        }
        let answer = connection.receive()?;
        let (id, is_read) = open.remove(&answer.request).ok_or(Broken::Unexpected)?;
        record(shared, id, is_read, &answer);
    }
}

fn record(shared: &Shared, id: OpId, is_read: bool, answer: &Answer) {
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

/// A request at random: half of them at places that all clients want.
pub(crate) fn choose(recorder: &Recorder, blocks: u64, random: &mut Random) -> (Op, Ask) {
    let count = match random.below(10) {
        0 => 128,
        1..4 => 8 + random.below(32),
        _ => 1 + random.below(8),
    };
    let first = match random.percent(50) {
        true => random.below(HOT_PLACES) * (blocks / HOT_PLACES) + random.below(8),
        false => random.below(blocks - count),
    };
    let (offset, length) = (first * BLOCK, (count * BLOCK) as u32);
    let fua = random.percent(10);
    let flags = CommandFlags::NONE.with_if(CommandFlags::FUA, fua);
    match random.below(100) {
        0..45 => {
            let tags = recorder.tags(count);
            let ask = Ask::write(offset, tagged::encode(&tags));
            (Op::Write { first, tags, fua }, Ask { flags, ..ask })
        }
        kind @ 45..51 => {
            let kind = [CommandKind::TRIM, CommandKind::WRITE_ZEROES][kind as usize % 2];
            let ask = Ask::plain(kind, offset, length);
            (Op::Zero { first, count, fua }, Ask { flags, ..ask })
        }
        51..94 => {
            let ask = Ask::plain(CommandKind::READ, offset, length);
            (Op::Read { first, count }, ask)
        }
        _ => (Op::Flush, Ask::plain(CommandKind::FLUSH, 0, 0)),
    }
}

/// Reads every block once, so that nothing written escapes judgement.
pub(crate) fn read_all(
    recorder: &Recorder,
    blocks: u64,
    uri: &str,
    mut record: impl FnMut(OpId, &Answer),
) {
    const COUNT: u64 = 256;
    let mut connection = crate::disk::attach(uri);
    let session = recorder.open();
    for first in (0..blocks).step_by(COUNT as usize) {
        let count = COUNT.min(blocks - first);
        let op = Op::Read { first, count };
        let id = recorder.invoke(session, op);
        let id = id.expect("this session is open");
        let ask = Ask::plain(CommandKind::READ, first * BLOCK, (count * BLOCK) as u32);
        let answer = connection.exchange(&ask).expect("the server lives");
        record(id, &answer);
    }
    let _ = connection.detach();
}
