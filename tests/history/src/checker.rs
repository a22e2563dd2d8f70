//! The streaming checker: takes events one by one, hands each block its share, keeps what
//! concerns the whole volume (sessions, flushes, crashes).
//!
//! ```text
//!  Event ─► Checker ─┬─ sessions: who is open, who must not come back (B9)
//!                    ├─ flushes: start of the last one answered OK (B4)
//!                    └─ Block[n]: clusters, hypotheses, candidates (B1–B8, R7) ─► Violation
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::block::Block;
use crate::cluster::Value;
use crate::context::Context;
use crate::event::{
    Crash, Event, Op, OpId, Outcome, REQUEST_BLOCKS_MAX, RecordError, Seen, Session,
};
use crate::report::{Counts, Law, Report, Violation};
use crate::stamp::Stamp;

/// Judges a history while it is recorded.
#[derive(Debug)]
pub struct Checker {
    context: Context,
    last_time: u64,
    next_op: u64,
    /// Requests whose effect is not settled: unanswered ones, and failed writes until their
    /// session ends.
    ops: BTreeMap<OpId, Pending>,
    /// Requests cut off by a close or crash; an answer to them comes too late to be used.
    cut_off: BTreeSet<OpId>,
    sessions: BTreeMap<Session, BTreeSet<OpId>>,
    closed: BTreeSet<Session>,
    /// Sessions opened before a crash that may have cost acknowledged writes (B9).
    outlawed: BTreeSet<Session>,
    blocks: BTreeMap<u64, Block>,
    violations: Vec<Violation>,
    counts: Counts,
}

#[derive(Debug)]
struct Pending {
    session: Session,
    start: Stamp,
    op: Op,
    failed: bool,
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

impl Checker {
    /// For histories in which volatile state may be lost on all of S: remembers every tag that
    /// such a crash could bring back, that is all since the last durable write of each block.
    pub fn new() -> Self {
        Self::with(true)
    }

    /// For histories without [`Crash::VolatileLost`]: forgets every tag that can no longer be
    /// read, so memory is bounded by blocks touched and requests in flight.
    pub fn without_loss() -> Self {
        Self::with(false)
    }

    /// Lets every block forget what it can after every event. Otherwise it waits until it has
    /// doubled in size, which is cheaper; the verdict is the same.
    pub fn forgetting_eagerly(mut self) -> Self {
        self.context.is_eager = true;
        self
    }

    fn with(may_lose: bool) -> Self {
        Self {
            context: Context::new(may_lose),
            last_time: 0,
            next_op: 0,
            ops: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            sessions: BTreeMap::new(),
            closed: BTreeSet::new(),
            outlawed: BTreeSet::new(),
            blocks: BTreeMap::new(),
            violations: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Records that a request is about to be sent. Errors: any [`RecordError`]; nothing is
    /// recorded then.
    pub fn invoke(&mut self, time: u64, session: Session, op: Op) -> Result<OpId, RecordError> {
        let id = OpId(self.next_op);
        self.event(time, &Event::Invoke(id, session, op))?;
        Ok(id)
    }

    /// Records the answer to a request. An answer after its session's close or a crash is
    /// ignored and counted: whatever it confirms, leaving it out only asks less of the volume.
    pub fn complete(&mut self, time: u64, op: OpId, outcome: Outcome) -> Result<(), RecordError> {
        self.event(time, &Event::Complete(op, outcome))
    }

    /// Records that a session was attached.
    pub fn open(&mut self, time: u64, session: Session) -> Result<(), RecordError> {
        self.event(time, &Event::Open(session))
    }

    /// Records that nothing of this session can take effect any more (B3).
    pub fn close(&mut self, time: u64, session: Session) -> Result<(), RecordError> {
        self.event(time, &Event::Close(session))
    }

    /// Records a crash of the cluster, and with it the end of all sessions.
    pub fn crash(&mut self, time: u64, crash: Crash) -> Result<(), RecordError> {
        self.event(time, &Event::Crash(crash))
    }

    /// What was found so far. A block is judged until its first violation.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Ends the history. Requests still open stay so: they may or may not have happened.
    pub fn finish(mut self) -> Report {
        self.counts.blocks = self.blocks.len() as u64;
        self.counts.tags_held = self.blocks.values().map(|block| block.held() as u64).sum();
        Report {
            violations: self.violations,
            counts: self.counts,
        }
    }

    /// Takes one event. Errors: the event cannot have happened; nothing is recorded then.
    pub fn event(&mut self, time: u64, event: &Event) -> Result<(), RecordError> {
        if time < self.last_time {
            return Err(RecordError::TimeRunsBack {
                time,
                last: self.last_time,
            });
        }
        let now = self.context.stamp(time);
        match event {
            Event::Open(session) => self.attach(*session)?,
            Event::Invoke(id, session, op) => self.begin(now, *id, *session, op)?,
            Event::Complete(id, outcome) => self.end(now, *id, outcome)?,
            Event::Close(session) => self.detach(now, *session)?,
            Event::Crash(crash) => self.fall(time, *crash)?,
        }
        self.last_time = time;
        Ok(())
    }

    fn attach(&mut self, session: Session) -> Result<(), RecordError> {
        if self.closed.contains(&session) {
            return Err(RecordError::SessionOver(session));
        }
        self.sessions.entry(session).or_default();
        Ok(())
    }

    fn begin(
        &mut self,
        now: Stamp,
        id: OpId,
        session: Session,
        op: &Op,
    ) -> Result<(), RecordError> {
        if self.ops.contains_key(&id) || self.cut_off.contains(&id) {
            return Err(RecordError::OpAgain(id));
        }
        self.validate(id, op)?;
        self.attach(session)?;
        self.counts.requests += 1;
        self.next_op = self.next_op.max(id.0.saturating_add(1));
        let (first, count) = op.extent();
        for at in 0..count {
            let block = self.blocks.entry(first + at).or_insert_with(Block::new);
            match op {
                Op::Write { tags, fua, .. } => {
                    block.begin_write(id, session, Value::Tag(tags[at as usize]), now, *fua);
                }
                Op::Zero { fua, .. } => block.begin_write(id, session, Value::Zero, now, *fua),
                Op::Read { .. } => block.begin_read(id, now),
                Op::Flush => {}
            }
        }
        self.sessions.entry(session).or_default().insert(id);
        self.ops.insert(
            id,
            Pending {
                session,
                start: now,
                op: op.clone(),
                failed: false,
            },
        );
        Ok(())
    }

    fn validate(&self, id: OpId, op: &Op) -> Result<(), RecordError> {
        if *op == Op::Flush {
            return Ok(());
        }
        let (first, count) = op.extent();
        if count == 0 || count > REQUEST_BLOCKS_MAX || first.checked_add(count).is_none() {
            return Err(RecordError::ExtentRefused(id));
        }
        let Op::Write { tags, .. } = op else {
            return Ok(());
        };
        for (block, &tag) in (first..).zip(tags) {
            if tag == 0 {
                return Err(RecordError::TagZero(id));
            }
            if self.blocks.get(&block).is_some_and(|b| b.knows(tag)) {
                return Err(RecordError::TagAgain { block, tag });
            }
        }
        Ok(())
    }

    fn end(&mut self, now: Stamp, id: OpId, outcome: &Outcome) -> Result<(), RecordError> {
        if self.cut_off.remove(&id) {
            self.counts.late_answers += 1;
            return Ok(());
        }
        let pending = match self.ops.get_mut(&id) {
            Some(pending) if !pending.failed => pending,
            _ => return Err(RecordError::OpUnknown(id)),
        };
        let (first, count) = pending.op.extent();
        let fits = match (&pending.op, outcome) {
            (_, Outcome::Failed) => true,
            (Op::Read { .. }, Outcome::Read(seen)) => seen.len() as u64 == count,
            (op, Outcome::Done) => !matches!(op, Op::Read { .. }),
            (_, Outcome::Read(_)) => false,
        };
        if !fits {
            return Err(RecordError::OutcomeOfOtherKind(id));
        }
        let is_write = matches!(pending.op, Op::Write { .. } | Op::Zero { .. });
        if *outcome == Outcome::Failed && is_write {
            // It may still happen until its session ends (B3).
            pending.failed = true;
            for at in first..first + count {
                self.block(at, |block, _| block.fail(id));
            }
            return Ok(());
        }
        let Some(pending) = self.ops.remove(&id) else {
            return Ok(());
        };
        if let Some(open) = self.sessions.get_mut(&pending.session) {
            open.remove(&id);
        }
        match outcome {
            Outcome::Done if is_write => {
                for at in first..first + count {
                    self.block(at, |block, context| block.acknowledge(id, now, context));
                }
            }
            Outcome::Done => self.context.flush_done(pending.start),
            Outcome::Read(seen) => self.judge_read(now, id, &pending, seen),
            Outcome::Failed => {
                for at in first..first + count {
                    self.block(at, |block, _| block.forget_read(id));
                }
            }
        }
        if *outcome != Outcome::Failed && self.outlawed.contains(&pending.session) {
            self.report_survivor(now, &pending);
        }
        Ok(())
    }

    fn judge_read(&mut self, now: Stamp, id: OpId, pending: &Pending, seen: &[Seen]) {
        let (first, _) = pending.op.extent();
        for (at, &value) in (first..).zip(seen) {
            self.counts.blocks_read += 1;
            let Some(block) = self.blocks.get_mut(&at) else {
                continue;
            };
            match block.read(id, pending.session, now, value, &self.context) {
                Ok(named) => self.counts.zeros_unnamed += u64::from(!named),
                Err(finding) => self.violations.push(Violation {
                    law: finding.law,
                    block: Some(at),
                    time: now.time(),
                    text: finding.text,
                }),
            }
        }
    }

    fn report_survivor(&mut self, now: Stamp, pending: &Pending) {
        let text = format!(
            "session {} was opened before the crash that may have cost acknowledged writes, yet \
             its request sent at {} was answered OK at {}",
            pending.session.0,
            pending.start.time(),
            now.time()
        );
        self.violations.push(Violation {
            law: Law::B9,
            block: None,
            time: now.time(),
            text,
        });
        self.outlawed.remove(&pending.session);
    }

    fn block(&mut self, at: u64, change: impl FnOnce(&mut Block, &Context)) {
        if let Some(block) = self.blocks.get_mut(&at) {
            change(block, &self.context);
        }
    }

    fn detach(&mut self, now: Stamp, session: Session) -> Result<(), RecordError> {
        if !self.closed.insert(session) {
            return Err(RecordError::SessionOver(session));
        }
        for id in self.sessions.remove(&session).unwrap_or_default() {
            let Some(pending) = self.ops.remove(&id) else {
                continue;
            };
            if !pending.failed {
                self.cut_off.insert(id);
            }
            let (first, count) = pending.op.extent();
            for at in first..first + count {
                self.block(at, |block, _| match pending.op {
                    Op::Read { .. } => block.forget_read(id),
                    _ => block.end_session(id, now),
                });
            }
        }
        Ok(())
    }

    fn fall(&mut self, time: u64, crash: Crash) -> Result<(), RecordError> {
        if crash == Crash::VolatileLost && !self.context.may_lose {
            return Err(RecordError::LossExcluded);
        }
        for (id, pending) in std::mem::take(&mut self.ops) {
            if !pending.failed {
                self.cut_off.insert(id);
            }
        }
        let mut may_miss = false;
        self.context.crash_begins(crash);
        for block in self.blocks.values_mut() {
            may_miss |= block.crash(crash, &self.context);
        }
        self.context.crash_ends(time, crash);
        let sessions = std::mem::take(&mut self.sessions);
        if may_miss {
            self.outlawed.extend(sessions.into_keys());
        }
        Ok(())
    }
}
