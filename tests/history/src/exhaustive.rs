//! The laws as a search over all orders, for small histories only.
//!
//! It shares no reasoning with the checker: no intervals, no "must precede", no naming of zeros.
//! A block is a register; the search applies requests one by one in every order that real time
//! allows, keeps the values a loss could bring back, and asks whether any order explains all reads.
//! Time and memory are exponential in the number of requests.
//!
//! Not judged here: B9, which is no property of a block.

use std::collections::{BTreeSet, HashSet};

use crate::event::{Crash, Event, Op, OpId, Outcome, Seen, Session};
use crate::recording::History;

/// Requests that one block may have: they are bits of a word.
pub const REQUESTS_MAX: usize = 64;

/// The blocks without any explanation, lowest first. The history must be in order of time and
/// free of recording errors.
///
/// # Panics
/// If a block has more than [`REQUESTS_MAX`] requests.
pub fn judge(history: &History) -> Vec<u64> {
    let blocks: BTreeSet<u64> = history
        .events()
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Invoke(_, _, op) => Some(op.extent()),
            _ => None,
        })
        .flat_map(|(first, count)| first..first + count)
        .collect();
    blocks
        .into_iter()
        .filter(|&block| !Search::new(history, block).finds_an_order())
        .collect()
}

/// (crashes before, time, 0 = in time, 1 = at the crash itself).
type Moment = (usize, u64, u8);

#[derive(Clone, Copy, Debug)]
enum Effect {
    Read(Seen),
    /// Value and what makes it survive a loss once it took effect.
    Write(Seen, bool),
}

#[derive(Clone, Debug)]
struct Request {
    id: OpId,
    session: Session,
    effect: Effect,
    start: Moment,
    /// Answered OK.
    acked: Option<Moment>,
    /// Latest moment at which it took effect, if it did.
    deadline: Option<Moment>,
    failed: bool,
}

impl Request {
    fn end(&self) -> Option<Moment> {
        self.acked.or(self.deadline)
    }
}

#[derive(Clone, Debug)]
struct Search {
    requests: Vec<Request>,
    crashes: Vec<Crash>,
    /// Start of each flush answered OK.
    flushes: Vec<Moment>,
}

/// A value a loss could bring back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Version {
    value: Seen,
    acked: bool,
    /// Of a write that was answered with an error.
    failed: bool,
    durable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Requests applied, one bit each.
    applied: u64,
    /// Losses passed.
    losses: usize,
    current: Seen,
    /// Values the block may have held when the era began.
    rivals: BTreeSet<(Seen, bool)>,
    /// The one it did hold, then the era's writes in order.
    trail: Vec<Version>,
}

impl Search {
    fn new(history: &History, block: u64) -> Self {
        let mut search = Self {
            requests: Vec::new(),
            crashes: Vec::new(),
            flushes: Vec::new(),
        };
        let mut flushes: Vec<(OpId, Session, Moment)> = Vec::new();
        let mut over: HashSet<OpId> = HashSet::new();
        for (time, event) in history.events() {
            let now = (search.crashes.len(), *time, 0);
            match event {
                Event::Open(_) => {}
                Event::Invoke(id, session, Op::Flush) => flushes.push((*id, *session, now)),
                Event::Invoke(id, session, op) => search.invoke(now, *id, *session, op, block),
                Event::Complete(id, _) if over.contains(id) => {}
                Event::Complete(id, outcome) => {
                    if let Some(flush) = flushes.iter().find(|flush| flush.0 == *id)
                        && *outcome == Outcome::Done
                    {
                        search.flushes.push(flush.2);
                    }
                    let first = first_block(history, *id);
                    search.complete(now, *id, outcome, block.wrapping_sub(first));
                }
                Event::Close(session) => {
                    over.extend(flushes.iter().filter(|f| f.1 == *session).map(|f| f.0));
                    over.extend(search.end_sessions(now, |s| s == *session));
                }
                Event::Crash(crash) => {
                    over.extend(flushes.iter().map(|f| f.0));
                    over.extend(search.end_sessions((now.0, u64::MAX, 1), |_| true));
                    search.crashes.push(*crash);
                }
            }
        }
        // Reads without an answer tell nothing.
        search
            .requests
            .retain(|r| !matches!(r.effect, Effect::Read(_)) || r.acked.is_some());
        assert!(
            search.requests.len() <= REQUESTS_MAX,
            "too many requests for a search"
        );
        search
    }

    fn invoke(&mut self, start: Moment, id: OpId, session: Session, op: &Op, block: u64) {
        let (first, count) = op.extent();
        if block < first || block - first >= count {
            return;
        }
        let effect = match op {
            Op::Write { tags, fua, .. } => {
                Effect::Write(Seen::Tag(tags[(block - first) as usize]), *fua)
            }
            Op::Zero { fua, .. } => Effect::Write(Seen::Zero, *fua),
            Op::Read { .. } | Op::Flush => Effect::Read(Seen::Mixed),
        };
        let request = Request {
            id,
            session,
            effect,
            start,
            acked: None,
            deadline: None,
            failed: false,
        };
        self.requests.push(request);
    }

    fn complete(&mut self, now: Moment, id: OpId, outcome: &Outcome, offset: u64) {
        let Some(request) = self.requests.iter_mut().find(|r| r.id == id) else {
            return;
        };
        match outcome {
            Outcome::Done => request.acked = Some(now),
            Outcome::Read(seen) => {
                request.acked = Some(now);
                request.effect = Effect::Read(seen[offset as usize]);
            }
            Outcome::Failed => request.failed = true,
        }
    }

    fn end_sessions(&mut self, now: Moment, which: impl Fn(Session) -> bool) -> Vec<OpId> {
        let mut over = Vec::new();
        for request in &mut self.requests {
            if request.acked.is_none() && request.deadline.is_none() && which(request.session) {
                request.deadline = Some(now);
                over.push(request.id);
            }
        }
        over
    }

    fn finds_an_order(&self) -> bool {
        let start = State {
            applied: 0,
            losses: 0,
            current: Seen::Zero,
            rivals: BTreeSet::from([(Seen::Zero, true)]),
            trail: vec![Version {
                value: Seen::Zero,
                acked: true,
                failed: false,
                durable: false,
            }],
        };
        let mut seen = HashSet::new();
        let mut open = vec![start];
        while let Some(state) = open.pop() {
            if !seen.insert(state.clone()) {
                continue;
            }
            let missing = |r: &(usize, &Request)| state.applied & (1 << r.0) == 0;
            let all = || self.requests.iter().enumerate();
            if all().filter(missing).all(|(_, r)| r.acked.is_none()) {
                return true;
            }
            open.extend(
                all()
                    .filter(missing)
                    .filter_map(|(at, _)| self.apply(&state, at)),
            );
            open.extend(self.lose(&state));
        }
        false
    }

    /// Number of losses before a segment.
    fn losses_before(&self, segment: usize) -> usize {
        self.crashes[..segment]
            .iter()
            .filter(|c| **c == Crash::VolatileLost)
            .count()
    }

    fn losses_in_all(&self) -> usize {
        self.losses_before(self.crashes.len())
    }

    fn apply(&self, state: &State, at: usize) -> Option<State> {
        let request = &self.requests[at];
        if self.losses_before(request.start.0) != state.losses {
            return None;
        }
        for (other_at, other) in self.requests.iter().enumerate() {
            let is_applied = state.applied & (1 << other_at) != 0;
            // Nothing that surely happened may end before this starts and still be missing …
            if !is_applied && other.acked.is_some_and(|end| end < request.start) {
                return None;
            }
            // … and nothing that starts after this ended may be there already.
            if is_applied && request.end().is_some_and(|end| end < other.start) {
                return None;
            }
        }
        let mut next = state.clone();
        next.applied |= 1 << at;
        match request.effect {
            Effect::Read(value) if value != state.current => return None,
            Effect::Read(_) => {
                // A crash that kept all that was read made this durable, but for what failed.
                let end = request.acked.map_or(usize::MAX, |end| end.0);
                if self.durable_crash_from(end)
                    && let Some(last) = next.trail.last_mut().filter(|last| !last.failed)
                {
                    last.durable = true;
                }
            }
            Effect::Write(value, fua) => {
                let acked = request.acked.is_some();
                let durable = request.acked.is_some_and(|end| {
                    let later_flush = |f: &Moment| {
                        *f > end && self.losses_before(f.0) == self.losses_before(end.0)
                    };
                    fua || self.flushes.iter().any(later_flush) || self.durable_crash_from(end.0)
                });
                next.current = value;
                if state.losses == self.losses_in_all() {
                    // Nothing is lost any more: only the last value matters.
                    next.trail.clear();
                    next.rivals.clear();
                }
                next.trail.push(Version {
                    value,
                    acked,
                    failed: request.failed,
                    durable,
                });
            }
        }
        Some(next)
    }

    /// A crash with durable acknowledgements ended this segment or a later one of the same era.
    fn durable_crash_from(&self, segment: usize) -> bool {
        let later = self.crashes.get(segment..).unwrap_or_default();
        later
            .iter()
            .take_while(|c| **c != Crash::VolatileLost)
            .any(|c| *c == Crash::AcksDurable)
    }

    /// All states after the next loss, if everything before it is done.
    fn lose(&self, state: &State) -> Vec<State> {
        let losses = self
            .crashes
            .iter()
            .filter(|c| **c == Crash::VolatileLost)
            .count();
        if state.losses == losses {
            return Vec::new();
        }
        let is_missing = self.requests.iter().enumerate().any(|(at, r)| {
            r.acked.is_some()
                && state.applied & (1 << at) == 0
                && self.losses_before(r.start.0) == state.losses
        });
        if is_missing {
            return Vec::new();
        }
        let rivals = self.what_a_loss_leaves(state);
        let after = |&(current, acked): &(Seen, bool)| State {
            applied: state.applied,
            losses: state.losses + 1,
            current,
            rivals: rivals.clone(),
            trail: vec![Version {
                value: current,
                acked,
                failed: false,
                durable: false,
            }],
        };
        rivals.iter().map(after).collect()
    }

    /// The last durable value, or one ordered after it (B6).
    fn what_a_loss_leaves(&self, state: &State) -> BTreeSet<(Seen, bool)> {
        let first = &state.trail[0];
        let was_flushed =
            self.flushes
                .iter()
                .any(|f| self.losses_before(f.0) == state.losses)
                || self.crashes.iter().enumerate().any(|(at, c)| {
                    *c == Crash::AcksDurable && self.losses_before(at) == state.losses
                });
        let first_is_durable = first.durable || (first.acked && was_flushed);
        let floor = state.trail.iter().rposition(|v| v.durable);
        let floor = floor.or(first_is_durable.then_some(0));
        let left = |versions: &[Version]| versions.iter().map(|v| (v.value, v.acked)).collect();
        match floor {
            Some(floor) => left(&state.trail[floor..]),
            None => {
                let mut all: BTreeSet<(Seen, bool)> = left(&state.trail);
                all.extend(&state.rivals);
                all
            }
        }
    }
}

fn first_block(history: &History, id: OpId) -> u64 {
    let first = history.events().iter().find_map(|(_, event)| match event {
        Event::Invoke(one, _, op) if *one == id => Some(op.extent().0),
        _ => None,
    });
    first.unwrap_or(0)
}
