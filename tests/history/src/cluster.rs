//! A write and the reads that returned it, as an interval; and one way to name the zeros.
//!
//! A *cluster* is a write with all reads of its value. In any linearization no other write stands
//! between them, so an order of requests is an order of clusters. With `f` the earliest end and
//! `s` the latest start in a cluster, "u must precede v" holds iff `f(u) < s(v)`: some request of
//! u ended before some request of v began. An order of clusters that respects this exists iff no
//! two clusters must precede each other (Gibbons and Korach 1997: a longer cycle contains one of
//! length two).

use std::collections::BTreeMap;

use crate::context::Context;
use crate::event::{OpId, Seen, Session};
use crate::report::Law;
use crate::stamp::Stamp;

/// What a write leaves in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Zero,
    Tag(u64),
}

impl From<Value> for Seen {
    fn from(value: Value) -> Self {
        match value {
            Value::Zero => Seen::Zero,
            Value::Tag(tag) => Seen::Tag(tag),
        }
    }
}

/// The reads of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reads {
    pub first_end: Stamp,
    pub last_start: Stamp,
}

impl Reads {
    pub const NONE: Self = Self {
        first_end: Stamp::NEVER,
        last_start: Stamp::FIRST,
    };

    pub fn any(self) -> bool {
        self.first_end != Stamp::NEVER
    }

    pub fn with(self, start: Stamp, end: Stamp) -> Self {
        Self {
            first_end: self.first_end.min(end),
            last_start: self.last_start.max(start),
        }
    }

    /// Constrains no more than `other` does.
    fn within(self, other: Self) -> bool {
        self.first_end >= other.first_end && self.last_start <= other.last_start
    }
}

/// One write to one block.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub id: OpId,
    pub session: Session,
    pub value: Value,
    pub fua: bool,
    pub start: Stamp,
    /// When it was answered OK.
    pub acked: Option<Stamp>,
    /// It was answered with an error.
    pub failed: bool,
    /// When its session ended, if it was not answered OK by then (B3).
    pub closed: Option<Stamp>,
    /// Reads of a tag; those of zeros stand in the hypotheses.
    pub reads: Reads,
    /// Read before a crash in which acknowledged and read values were on media.
    pub read_on_media: bool,
}

impl Cluster {
    /// `f`. An unanswered write ends never, but one that took effect did so before its session
    /// ended (B3), so being read moves its end to there.
    pub fn finish(&self, reads: Reads) -> Stamp {
        if reads.any() || self.acked.is_some() {
            self.finish_if_read(reads)
        } else {
            Stamp::NEVER
        }
    }

    /// `f`, were it (also) read from now on.
    pub fn finish_if_read(&self, reads: Reads) -> Stamp {
        let ended = self.acked.or(self.closed).unwrap_or(Stamp::NEVER);
        ended.min(reads.first_end)
    }

    /// `s`.
    pub fn latest_start(&self, reads: Reads) -> Stamp {
        self.start.max(reads.last_start)
    }

    /// It surely happened.
    pub fn is_effective(&self, reads: Reads) -> bool {
        self.acked.is_some() || reads.any()
    }

    /// The law by which it must survive a loss of all volatile state, if any does.
    pub fn durable_by(&self, mark: &Mark, context: &Context) -> Option<Law> {
        match self.acked {
            Some(_) if self.fua => Some(Law::B5),
            Some(end) if end < context.flushed => Some(Law::B4),
            Some(end) if end < context.on_media => Some(Law::B6),
            _ if self.read_on_media || mark.read_on_media => Some(Law::R7),
            _ => None,
        }
    }
}

/// What one hypothesis holds of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    /// Reads of zeros named after it.
    pub reads: Reads,
    /// No read that ends from now on can return it.
    pub dead: bool,
    /// Followed by something that must survive: no loss can bring it back.
    pub excluded: bool,
    pub read_on_media: bool,
}

impl Mark {
    pub const NEW: Self = Self {
        reads: Reads::NONE,
        dead: false,
        excluded: false,
        read_on_media: false,
    };

    fn within(&self, other: &Self) -> bool {
        self.reads.within(other.reads)
            && self.dead <= other.dead
            && self.excluded <= other.excluded
            && self.read_on_media <= other.read_on_media
    }
}

/// Marks by write, sorted; who is not listed has [`Mark::NEW`]. Hypotheses are copied and compared far
/// more often than they learn of a new write, which mostly comes last.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Marks(Vec<(OpId, Mark)>);

impl Marks {
    fn get(&self, id: OpId) -> &Mark {
        let found = self.0.binary_search_by_key(&id, |(at, _)| *at);
        found.map_or(&Mark::NEW, |at| &self.0[at].1)
    }

    fn get_mut(&mut self, id: OpId) -> &mut Mark {
        let found = self.0.binary_search_by_key(&id, |(at, _)| *at);
        let at = found.unwrap_or_else(|at| {
            self.0.insert(at, (id, Mark::NEW));
            at
        });
        &mut self.0[at].1
    }

    pub fn remove(&mut self, id: OpId) {
        self.0.retain(|(at, _)| *at != id);
    }

    pub fn each_mut(&mut self) -> impl Iterator<Item = (OpId, &mut Mark)> {
        self.0.iter_mut().map(|(id, mark)| (*id, mark))
    }

    /// Each constrains no more than the other's. The newest come first: there two differ, if they do.
    fn within(&self, other: &Self) -> bool {
        let mut others = other.0.iter().rev().peekable();
        self.0.iter().rev().all(|(id, mark)| {
            while others.next_if(|(at, _)| at > id).is_some() {}
            let found = others.next_if(|(at, _)| at == id);
            mark.within(found.map_or(&Mark::NEW, |(_, other)| other))
        })
    }
}

/// One consistent way to tell which write each read of zeros returned, and what the block may
/// have held when the era began. Tags name their write, zeros do not: a block is judged under all
/// hypotheses at once, and a law is broken when none is left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hypothesis {
    /// The candidates of the era's start. `true`: it was acknowledged, so that a flush covers it.
    pub initial: BTreeMap<Value, bool>,
    /// The candidate that reads decided for.
    pub named: Option<Value>,
    /// The initial value as a cluster: `f` is the start of the era.
    pub first: Mark,
    pub marks: Marks,
}

impl Hypothesis {
    pub fn new(initial: BTreeMap<Value, bool>) -> Self {
        Self {
            initial,
            named: None,
            first: Mark::NEW,
            marks: Marks::default(),
        }
    }

    pub fn mark(&self, id: OpId) -> &Mark {
        self.marks.get(id)
    }

    pub fn mark_mut(&mut self, id: OpId) -> &mut Mark {
        self.marks.get_mut(id)
    }

    pub fn reads(&self, cluster: &Cluster) -> Reads {
        match cluster.value {
            Value::Tag(_) => cluster.reads,
            Value::Zero => self.mark(cluster.id).reads,
        }
    }

    /// The initial value can be `value`.
    pub fn may_start_as(&self, value: Value) -> bool {
        !self.first.dead
            && self.initial.contains_key(&value)
            && self.named.is_none_or(|named| named == value)
    }

    /// Whatever is legal under `other` is legal under this one: it constrains less everywhere.
    pub fn covers(&self, other: &Self) -> bool {
        self.named.is_none_or(|named| other.named == Some(named))
            && self.first.within(&other.first)
            && self.marks.within(&other.marks)
            && other
                .initial
                .iter()
                .all(|(value, acked)| self.initial.get(value).is_some_and(|mine| mine <= acked))
    }
}

/// What of a hypothesis decides most comparisons: of two that differ here, neither or only one can
/// cover the other.
#[derive(Clone, Copy)]
struct Sketch {
    /// One bit, shared by every 64th write, for each mark that says anything.
    marked: u64,
    /// Sums over all marks: of what constrains less they are never larger.
    starts: u128,
    ends: u128,
}

impl Sketch {
    fn of(hypothesis: &Hypothesis) -> Self {
        let mut sketch = Self {
            marked: 0,
            starts: 0,
            ends: 0,
        };
        let first = std::iter::once((None, &hypothesis.first));
        let others = hypothesis
            .marks
            .0
            .iter()
            .map(|(id, mark)| (Some(*id), mark));
        for (id, mark) in first.chain(others).filter(|(_, mark)| **mark != Mark::NEW) {
            sketch.marked |= id.map_or(0, |id| 1 << (id.0 % 64));
            sketch.starts += mark.reads.last_start.weight();
            sketch.ends += Stamp::NEVER.weight() - mark.reads.first_end.weight();
        }
        sketch
    }

    /// Whoever has this may cover whoever has `other`.
    fn may_cover(self, other: Self) -> bool {
        self.marked & !other.marked == 0 && self.starts <= other.starts && self.ends <= other.ends
    }
}

/// Removes hypotheses that another one covers.
pub(crate) fn prune(hypotheses: &mut Vec<Hypothesis>) {
    if hypotheses.len() < 2 {
        return;
    }
    hypotheses.sort();
    hypotheses.dedup();
    let mut kept: Vec<(Sketch, Hypothesis)> = Vec::with_capacity(hypotheses.len());
    for one in hypotheses.drain(..) {
        let sketch = Sketch::of(&one);
        let is_covered =
            |(its, other): &(Sketch, Hypothesis)| its.may_cover(sketch) && other.covers(&one);
        if !kept.iter().any(is_covered) {
            kept.retain(|(its, other)| !(sketch.may_cover(*its) && one.covers(other)));
            kept.push((sketch, one));
        }
    }
    hypotheses.extend(kept.into_iter().map(|(_, one)| one));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hypothesis(draw: &mut impl FnMut() -> u64) -> Hypothesis {
        let mut one = Hypothesis::new(BTreeMap::from([(Value::Zero, draw().is_multiple_of(2))]));
        for id in 0..draw() % 5 {
            let mark = one.mark_mut(OpId(id * (1 + draw() % 2)));
            let stamp = |n: u64| Stamp::at(n / 8 % 2, n % 4);
            if !draw().is_multiple_of(4) {
                mark.reads = mark.reads.with(stamp(draw()), stamp(draw()));
            }
            mark.dead = draw().is_multiple_of(8);
            mark.excluded = draw().is_multiple_of(8);
        }
        one
    }

    #[test]
    fn a_sketch_never_denies_a_cover() {
        let mut state = 1_u64;
        let mut draw = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(11);
            state >> 33
        };
        let (mut covers, mut denied) = (0, 0);
        for _ in 0..60_000 {
            let (one, other) = (hypothesis(&mut draw), hypothesis(&mut draw));
            let may = Sketch::of(&one).may_cover(Sketch::of(&other));
            assert!(may || !one.covers(&other), "{one:?} {other:?}");
            covers += u64::from(one.covers(&other));
            denied += u64::from(!may);
        }
        assert!(covers > 1000 && denied > 20_000, "{covers}, {denied}");
    }
}
