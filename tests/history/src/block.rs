//! One block: its writes, and what reads of it prove.
//!
//! Does not: know other blocks (torn requests are legal), sessions or flushes (`checker`).
//!
//! Only a read can break a law here. An answer to a write sets its `f` to *now*, and every `s`
//! known so far lies before now, so it adds no "must precede" that points backwards; a write never
//! read and never answered may be left out of the order altogether.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::cluster::{Cluster, Hypothesis, Reads, Value, prune};
use crate::context::Context;
use crate::event::{OpId, Seen, Session};
use crate::settle::Gone;
use crate::stamp::Stamp;
use crate::story::{self, Finding, Other};

/// Ways to name the zeros kept at once. Beyond it a read of zeros that has *some* explanation is
/// left unnamed and counted: leaving out a read only asks less of the volume, so no false alarm
/// can come of it.
const HYPOTHESES_MAX: usize = 128;

/// State of one block.
#[derive(Debug)]
pub(crate) struct Block {
    /// Writes a read may still return, or that may still be read under some hypothesis.
    pub(crate) active: Vec<Cluster>,
    /// Writes no read may return, kept because a loss could bring them back.
    pub(crate) ghosts: Vec<Cluster>,
    /// Tags of both.
    pub(crate) tags: BTreeSet<u64>,
    pub(crate) hypotheses: Vec<Hypothesis>,
    pub(crate) open_reads: Vec<(OpId, Stamp)>,
    /// The last values that went for good, for the story only.
    pub(crate) gone: VecDeque<Gone>,
    /// Sizes at which `tidy` is due.
    pub(crate) tidy_at: (usize, usize),
    /// A law was broken here; nothing more is judged.
    pub(crate) broken: bool,
}

/// A read of this block that was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub session: Session,
    pub start: Stamp,
    pub end: Stamp,
}

impl Block {
    /// A block of a fresh volume: it holds zeros. In a later era a block first touched then.
    pub fn new() -> Self {
        Self {
            active: Vec::new(),
            ghosts: Vec::new(),
            tags: BTreeSet::new(),
            hypotheses: vec![Hypothesis::new(BTreeMap::from([(Value::Zero, true)]))],
            open_reads: Vec::new(),
            gone: VecDeque::new(),
            tidy_at: (16, 4),
            broken: false,
        }
    }

    /// Writes remembered.
    pub fn held(&self) -> usize {
        self.active.len() + self.ghosts.len()
    }

    /// The tag is remembered here.
    pub fn knows(&self, tag: u64) -> bool {
        self.tags.contains(&tag)
            || self
                .hypotheses
                .iter()
                .any(|h| h.initial.contains_key(&Value::Tag(tag)))
    }

    pub fn begin_write(
        &mut self,
        id: OpId,
        session: Session,
        value: Value,
        start: Stamp,
        fua: bool,
    ) {
        if self.broken {
            return;
        }
        if let Value::Tag(tag) = value {
            self.tags.insert(tag);
        }
        self.active.push(Cluster {
            id,
            session,
            value,
            fua,
            start,
            acked: None,
            failed: false,
            closed: None,
            reads: Reads::NONE,
            read_on_media: false,
        });
    }

    pub fn acknowledge(&mut self, id: OpId, end: Stamp, context: &Context) {
        // A ghost, too: a write may be read, replaced and only then answered.
        if let Some(cluster) = self
            .active
            .iter_mut()
            .chain(&mut self.ghosts)
            .find(|c| c.id == id)
        {
            cluster.acked = Some(end);
        }
        self.tidy_if_due(end, context);
    }

    /// The write was answered with an error.
    pub fn fail(&mut self, id: OpId) {
        let all = self.active.iter_mut().chain(&mut self.ghosts);
        for cluster in all.filter(|c| c.id == id) {
            cluster.failed = true;
        }
    }

    /// The write's session ended without an OK for it: if it happened, it happened before.
    pub fn end_session(&mut self, id: OpId, at: Stamp) {
        if let Some(cluster) = self.active.iter_mut().find(|c| c.id == id) {
            cluster.closed = Some(at);
        }
    }

    pub fn begin_read(&mut self, id: OpId, start: Stamp) {
        if !self.broken {
            self.open_reads.push((id, start));
        }
    }

    /// The read failed or was cut off: it tells nothing.
    pub fn forget_read(&mut self, id: OpId) {
        self.open_reads.retain(|(open, _)| *open != id);
    }

    /// A read was answered. `Ok(false)`: it has an explanation, but was left unnamed.
    /// Errors: the law it breaks; the block is not judged any further.
    pub fn read(
        &mut self,
        id: OpId,
        session: Session,
        end: Stamp,
        seen: Seen,
        context: &Context,
    ) -> Result<bool, Finding> {
        let Some(at) = self.open_reads.iter().position(|(open, _)| *open == id) else {
            return Ok(true);
        };
        let (_, start) = self.open_reads.swap_remove(at);
        let reading = Reading {
            session,
            start,
            end,
        };
        let named = match seen {
            Seen::Mixed => Err(story::mixed(reading)),
            Seen::Tag(tag) => self.name_tag(tag, reading, context).map(|()| true),
            Seen::Zero => self.name_zeros(reading, context),
        };
        match named {
            Ok(_) => self.tidy_if_due(end, context),
            Err(_) => self.give_up(),
        }
        named
    }

    fn give_up(&mut self) {
        self.broken = true;
        self.active.clear();
        self.ghosts.clear();
        self.tags.clear();
        self.open_reads.clear();
        self.hypotheses.clear();
    }

    fn name_tag(&mut self, tag: u64, reading: Reading, context: &Context) -> Result<(), Finding> {
        let value = Value::Tag(tag);
        if !self.tags.contains(&tag) {
            return self.name_initial(value, reading, context);
        }
        let Some(at) = self.active.iter().position(|c| c.value == value) else {
            return Err(self.explain_ghost(value, reading, context));
        };
        self.active[at].reads = self.active[at].reads.with(reading.start, reading.end);
        let read = &self.active[at];
        let fits = |h: &Hypothesis| !h.mark(read.id).dead && self.conflict(h, read).is_none();
        let left: Vec<bool> = self.hypotheses.iter().map(fits).collect();
        if !left.contains(&true) {
            let conflict = self.hypotheses.iter().find_map(|h| self.conflict(h, read));
            return Err(match conflict {
                Some(other) => story::conflict(reading, read, read.reads, &other, context),
                None => story::replaced(value, reading, &self.gone, context),
            });
        }
        let mut keep = left.into_iter();
        self.hypotheses.retain(|_| keep.next().unwrap_or(false));
        Ok(())
    }

    fn name_initial(
        &mut self,
        value: Value,
        reading: Reading,
        context: &Context,
    ) -> Result<(), Finding> {
        let next: Vec<Hypothesis> = self
            .hypotheses
            .iter()
            .filter_map(|h| self.start_as(h, value, reading).ok())
            .collect();
        if next.is_empty() {
            let why = self
                .hypotheses
                .iter()
                .find_map(|h| self.start_as(h, value, reading).err()?);
            return Err(match why {
                Some(other) => story::initial_conflict(value, reading, &other, context),
                None => self.explain_unknown(value, reading, context),
            });
        }
        self.hypotheses = next;
        prune(&mut self.hypotheses);
        Ok(())
    }

    fn explain_unknown(&self, value: Value, reading: Reading, context: &Context) -> Finding {
        let decided = self.hypotheses.iter().find_map(|h| {
            h.named
                .filter(|named| *named != value && h.initial.contains_key(&value))
        });
        match decided {
            Some(named) => story::two_initials(value, named, reading, context),
            None => story::replaced(value, reading, &self.gone, context),
        }
    }

    /// `h` with this read named after the initial value. Errors: `None` if that value cannot be
    /// it, else the write that forbids it.
    fn start_as(
        &self,
        h: &Hypothesis,
        value: Value,
        reading: Reading,
    ) -> Result<Hypothesis, Option<Other>> {
        if !h.may_start_as(value) {
            return Err(None);
        }
        let mut next = h.clone();
        next.named = Some(value);
        next.first.reads = next.first.reads.with(reading.start, reading.end);
        // The initial value precedes all writes; it conflicts with each that surely ended before
        // its last read began.
        let latest = next.first.reads.last_start;
        match self.active.iter().find(|c| c.finish(h.reads(c)) < latest) {
            Some(write) => Err(Some(Other::of(write, h.reads(write)))),
            None => Ok(next),
        }
    }

    /// A write that must come both before and after `read`, under `h`. Dead writes need no look:
    /// see `settle`.
    fn conflict(&self, h: &Hypothesis, read: &Cluster) -> Option<Other> {
        self.conflict_of(h, read, h.reads(read))
    }

    /// As [`Block::conflict`], if these were the reads of `read`.
    fn conflict_of(&self, h: &Hypothesis, read: &Cluster, reads: Reads) -> Option<Other> {
        let (finish, latest) = (read.finish(reads), read.latest_start(reads));
        if finish < h.first.reads.last_start {
            return Some(Other::initial(h));
        }
        let other = self.active.iter().find(|other| {
            let reads = h.reads(other);
            other.id != read.id
                && other.is_effective(reads)
                && finish < other.latest_start(reads)
                && other.finish(reads) < latest
        })?;
        Some(Other::of(other, h.reads(other)))
    }

    /// Names a read of zeros in every way every hypothesis allows.
    fn name_zeros(&mut self, reading: Reading, context: &Context) -> Result<bool, Finding> {
        let mut next = Vec::new();
        for h in &self.hypotheses {
            self.name_zeros_under(h, reading, &mut next);
        }
        prune(&mut next);
        if next.is_empty() {
            return Err(self.explain_zeros(reading, context));
        }
        if next.len() > HYPOTHESES_MAX {
            return Ok(false);
        }
        self.hypotheses = next;
        Ok(true)
    }

    fn name_zeros_under(&self, h: &Hypothesis, reading: Reading, next: &mut Vec<Hypothesis>) {
        let zeros = || self.active.iter().filter(|c| c.value == Value::Zero);
        // A cluster that already spans this read takes it at no cost: no other choice is better.
        let spans = |reads: Reads| reads.any() && reads.with(reading.start, reading.end) == reads;
        if (h.named == Some(Value::Zero) && spans(h.first.reads))
            || zeros().any(|c| spans(h.reads(c)))
        {
            next.push(h.clone());
            return;
        }
        next.extend(self.start_as(h, Value::Zero, reading).ok());
        for zero in zeros().filter(|c| c.start <= reading.end && !h.mark(c.id).dead) {
            let reads = h.reads(zero).with(reading.start, reading.end);
            if self.conflict_of(h, zero, reads).is_none() {
                let mut one = h.clone();
                one.mark_mut(zero.id).reads = reads;
                next.push(one);
            }
        }
    }

    /// Tells why the latest zeroing (or the initial zeros) cannot be what was read.
    fn explain_zeros(&self, reading: Reading, context: &Context) -> Finding {
        let latest = |h: &Hypothesis| {
            let zero =
                self.active.iter().rev().find(|c| {
                    c.value == Value::Zero && c.start <= reading.end && !h.mark(c.id).dead
                })?;
            let mut one = h.clone();
            let mark = one.mark_mut(zero.id);
            mark.reads = mark.reads.with(reading.start, reading.end);
            let reads = one.reads(zero);
            let other = self.conflict(&one, zero)?;
            Some(story::conflict(reading, zero, reads, &other, context))
        };
        if let Some(finding) = self.hypotheses.iter().find_map(latest) {
            return finding;
        }
        let initial = |h: &Hypothesis| self.start_as(h, Value::Zero, reading).err()?;
        match self.hypotheses.iter().find_map(initial) {
            Some(other) => story::initial_conflict(Value::Zero, reading, &other, context),
            None => self.explain_unknown(Value::Zero, reading, context),
        }
    }

    fn explain_ghost(&self, value: Value, reading: Reading, context: &Context) -> Finding {
        let told = self
            .ghosts
            .iter()
            .find(|c| c.value == value)
            .and_then(|ghost| {
                let reads = ghost.reads.with(reading.start, reading.end);
                let (finish, latest) = (ghost.finish(reads), ghost.latest_start(reads));
                let h = self.hypotheses.first()?;
                let other = self.active.iter().chain(&self.ghosts).rev().find(|other| {
                    let reads = h.reads(other);
                    other.id != ghost.id
                        && other.is_effective(reads)
                        && finish < other.latest_start(reads)
                        && other.finish(reads) < latest
                })?;
                let other = Other::of(other, h.reads(other));
                Some(story::conflict(reading, ghost, reads, &other, context))
            });
        told.unwrap_or_else(|| story::replaced(value, reading, &self.gone, context))
    }
}
