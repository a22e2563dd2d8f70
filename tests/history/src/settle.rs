//! What can no longer be read, what must survive a loss, and what an era leaves to the next.
//!
//! **Dead** (no read ending from now on may return it). Let *T* be the earliest start of an open
//! read, or now. `u` is dead if some `v` that surely happened has `f(u) < s(v)` and `f(v) < T`:
//! a later answer names a read that started at T or after, so `f(v) < s(u)` would hold as well.
//! Nothing is missed by leaving dead writes out of later comparisons. `f` and `s` of writes
//! answered in future are not before T, so a new "w must precede dead u" cannot arise; an old one
//! makes `w` dead at the same time as `u`: if `f(u) < T` by `u` itself; otherwise
//! `s(u) <= f(v) < T <= f(u) < s(v)`, hence `f(w) < s(u) < s(v)`, and `v` is its witness. A write
//! whose session ended unanswered counts here with the `f` it would have if read.
//!
//! **Excluded** (no loss brings it back): a chain of "must precede" leads from it to another write
//! that must survive. Edges and durable writes only grow in number, so this never ends.
//!
//! Dead and excluded writes are forgotten; without possible loss dead ones already are.

use std::collections::{BTreeMap, BTreeSet};

use crate::block::Block;
use crate::cluster::{Cluster, Hypothesis, Mark, Value, prune};
use crate::context::Context;
use crate::event::{Crash, OpId};
use crate::report::Law;
use crate::stamp::Stamp;

/// Values remembered for the story after they went for good.
const GONE_MAX: usize = 16;

/// Ways to start an era kept at once; beyond it they are joined into one that covers them all.
const STARTS_MAX: usize = 64;

/// A value that went for good, and what replaced it.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    pub value: Value,
    pub by: Value,
    pub by_finish: Stamp,
    pub by_acked: bool,
    /// The value that had to survive the loss, and why.
    pub survivor: Option<(Value, Law)>,
}

/// A cluster as one hypothesis sees it.
struct View {
    /// `None`: the initial value.
    id: Option<OpId>,
    value: Value,
    finish: Stamp,
    start: Stamp,
    latest: Stamp,
    acked: bool,
    effective: bool,
    must: Option<Law>,
    dead: bool,
    excluded: bool,
    /// Which view makes it dead or excluded.
    by: Option<usize>,
}

impl View {
    fn of(cluster: &Cluster, h: &Hypothesis, context: &Context) -> Self {
        let reads = h.reads(cluster);
        let mark = h.mark(cluster.id);
        Self {
            id: Some(cluster.id),
            value: cluster.value,
            finish: cluster.finish_if_read(reads),
            start: cluster.start,
            latest: cluster.latest_start(reads),
            acked: cluster.acked.is_some(),
            effective: cluster.is_effective(reads),
            must: cluster.durable_by(mark, context),
            dead: mark.dead,
            excluded: mark.excluded,
            by: None,
        }
    }

    /// The initial value happened, whichever it was, and before all writes of the era.
    fn initial(h: &Hypothesis, context: &Context) -> Self {
        let acked = h
            .named
            .and_then(|named| h.initial.get(&named))
            .copied()
            .unwrap_or(false);
        let must = if h.first.read_on_media {
            Some(Law::R7)
        } else if acked && context.era_was_flushed() {
            Some(Law::B4)
        } else {
            None
        };
        Self {
            id: None,
            value: h
                .named
                .or_else(|| h.initial.keys().next().copied())
                .unwrap_or(Value::Zero),
            finish: context.era_start,
            start: context.era_start,
            latest: context.era_start.max(h.first.reads.last_start),
            acked,
            effective: true,
            must,
            dead: h.first.dead,
            excluded: h.first.excluded,
            by: None,
        }
    }
}

/// The two largest `s` seen, so that a cluster can be compared with all *others*.
#[derive(Default)]
struct Latest {
    top: Option<(Stamp, usize)>,
    next: Option<(Stamp, usize)>,
}

impl Latest {
    fn offer(&mut self, latest: Stamp, who: usize) {
        if self.top.is_some_and(|(_, at)| at == who) || self.next.is_some_and(|(_, at)| at == who) {
            return;
        }
        if self.top.is_none_or(|(top, _)| latest > top) {
            self.next = self.top.replace((latest, who));
        } else if self.next.is_none_or(|(next, _)| latest > next) {
            self.next = Some((latest, who));
        }
    }

    fn except(&self, who: usize) -> Option<(Stamp, usize)> {
        if self.top.is_some_and(|(_, at)| at == who) {
            self.next
        } else {
            self.top
        }
    }
}

fn find_dead(views: &mut [View], horizon: Stamp) {
    let mut latest = Latest::default();
    for (at, view) in views.iter().enumerate() {
        if view.effective && view.finish < horizon {
            latest.offer(view.latest, at);
        }
    }
    for (at, view) in views.iter_mut().enumerate() {
        if let Some((_, by)) = latest
            .except(at)
            .filter(|(latest, _)| view.finish < *latest)
        {
            view.dead = true;
            view.by = Some(by);
        }
    }
}

/// Follows "must precede" backwards from all that must survive. In order of `f` one pass is
/// enough: what reaches the set has an `f` below the largest `s` in it, and raises that `s` only
/// for clusters not yet looked at. The edges have no cycle (each read was judged), so a cluster
/// reached through others was not itself where the chain began. Writes that perhaps never
/// happened are reached, but carry no chain further.
fn find_excluded(views: &mut [View]) {
    let mut latest = Latest::default();
    for (at, view) in views.iter().enumerate() {
        if view.must.is_some() {
            latest.offer(view.latest, at);
        }
    }
    if latest.top.is_none() {
        return;
    }
    let mut order: Vec<usize> = (0..views.len()).collect();
    order.sort_by_key(|&at| views[at].finish);
    for at in order {
        let Some((_, by)) = latest
            .except(at)
            .filter(|(latest, _)| views[at].finish < *latest)
        else {
            continue;
        };
        views[at].excluded = true;
        views[at].by = Some(by);
        if views[at].effective {
            latest.offer(views[at].latest, at);
        }
    }
}

impl Block {
    pub(crate) fn tidy_if_due(&mut self, now: Stamp, context: &Context) {
        let (writes, ways) = self.tidy_at;
        let has_grown = self.held() >= writes || self.hypotheses.len() >= ways;
        if !self.broken && (has_grown || context.is_eager) {
            self.tidy(now, context);
            // Twice what is left: the cost of tidying is spread over as many new writes.
            self.tidy_at = (2 * self.held() + 16, 2 * self.hypotheses.len() + 4);
        }
    }

    fn views(&self, h: &Hypothesis, context: &Context) -> Vec<View> {
        let writes = self.active.iter().chain(&self.ghosts);
        let mut views: Vec<View> = writes.map(|c| View::of(c, h, context)).collect();
        views.push(View::initial(h, context));
        views
    }

    fn tidy(&mut self, now: Stamp, context: &Context) {
        let horizon = self
            .open_reads
            .iter()
            .map(|(_, start)| *start)
            .min()
            .unwrap_or(now);
        let mut hypotheses = std::mem::take(&mut self.hypotheses);
        let mut gone = Vec::new();
        for h in &mut hypotheses {
            let mut views = self.views(h, context);
            find_dead(&mut views, horizon);
            if context.may_lose {
                find_excluded(&mut views);
            }
            for view in &views {
                if settle(h, view, context.may_lose) && gone.len() < GONE_MAX {
                    gone.extend(Gone::of(view, &views));
                }
            }
        }
        let all = |c: &Cluster, is: fn(&Mark) -> bool| hypotheses.iter().all(|h| is(h.mark(c.id)));
        let (mut active, mut ghosts) = (Vec::new(), Vec::new());
        let mut forgotten = Vec::new();
        let (old, kept) = (
            std::mem::take(&mut self.active),
            std::mem::take(&mut self.ghosts),
        );
        for cluster in kept.into_iter().chain(old) {
            if !all(&cluster, |mark| mark.dead) {
                active.push(cluster);
            } else if context.may_lose && !all(&cluster, |mark| mark.excluded) {
                ghosts.push(cluster);
            } else {
                forgotten.push(cluster);
            }
        }
        self.remember(
            gone.into_iter()
                .filter(|g| forgotten.iter().any(|c| c.value == g.value)),
        );
        for cluster in forgotten {
            if let Value::Tag(tag) = cluster.value {
                self.tags.remove(&tag);
            }
            for h in &mut hypotheses {
                h.marks.remove(cluster.id);
            }
        }
        prune(&mut hypotheses);
        (self.active, self.ghosts, self.hypotheses) = (active, ghosts, hypotheses);
    }

    fn remember(&mut self, gone: impl Iterator<Item = Gone>) {
        for one in gone {
            if self.gone.len() == GONE_MAX {
                self.gone.pop_front();
            }
            self.gone.push_back(one);
        }
    }

    /// A crash of the cluster; `true` if acknowledged writes of this block may have been lost.
    pub(crate) fn crash(&mut self, crash: Crash, context: &Context) -> bool {
        if self.broken {
            return false;
        }
        self.open_reads.clear();
        let end = Stamp::end_of(context.segment);
        for cluster in self.active.iter_mut().chain(&mut self.ghosts) {
            if cluster.acked.is_none() && cluster.closed.is_none() {
                cluster.closed = Some(end);
            }
        }
        match crash {
            Crash::VolatileLost => return self.lose(context),
            Crash::AcksDurable => self.keep_what_was_read(),
            Crash::MemberWhole => {}
        }
        self.tidy_if_due(Stamp::start_of(context.segment + 1), context);
        false
    }

    /// On media, that is, if no loss followed: what a failed write left behind nobody made durable.
    fn keep_what_was_read(&mut self) {
        let mut failed = BTreeSet::new();
        for cluster in self.active.iter_mut().chain(&mut self.ghosts) {
            cluster.read_on_media |= cluster.reads.any() && !cluster.failed;
            if cluster.failed {
                failed.insert(cluster.id);
            }
        }
        for h in &mut self.hypotheses {
            h.first.read_on_media |= h.named.is_some();
            for (id, mark) in h.marks.each_mut() {
                mark.read_on_media |= mark.reads.any() && !failed.contains(&id);
            }
        }
    }

    /// Ends the era: every hypothesis yields the values the block may hold now.
    fn lose(&mut self, context: &Context) -> bool {
        let mut starts = Vec::new();
        let mut may_miss = !self.hypotheses.is_empty();
        let mut gone = Vec::new();
        for h in &self.hypotheses {
            let mut views = self.views(h, context);
            find_excluded(&mut views);
            may_miss &= views
                .iter()
                .any(|v| v.id.is_some() && v.acked && v.must.is_none() && !v.excluded);
            starts.extend(starts_after(h, &views, context));
            let mut lost: Vec<&View> = views.iter().filter(|v| v.excluded).collect();
            lost.sort_by_key(|v| v.latest);
            let told = lost.iter().rev().take(GONE_MAX).rev();
            gone.extend(told.filter_map(|v| Gone::of(v, &views)));
        }
        let mut hypotheses: Vec<Hypothesis> = starts.into_iter().map(Hypothesis::new).collect();
        prune(&mut hypotheses);
        if hypotheses.len() > STARTS_MAX {
            let all = hypotheses
                .into_iter()
                .fold(BTreeMap::new(), |all, h| join(all, h.initial));
            hypotheses = vec![Hypothesis::new(all)];
        }
        self.remember(gone.into_iter());
        *self = Block {
            hypotheses,
            gone: std::mem::take(&mut self.gone),
            ..Block::new()
        };
        may_miss
    }
}

/// Writes what was found into the hypothesis; `true` if it is news that the value went for good.
fn settle(h: &mut Hypothesis, view: &View, may_lose: bool) -> bool {
    if !view.dead && !view.excluded {
        return false;
    }
    let is_gone = view.dead && (view.excluded || !may_lose);
    let mark = match view.id {
        Some(id) => h.mark_mut(id),
        None => &mut h.first,
    };
    let is_news = is_gone && !(mark.dead && (mark.excluded || !may_lose));
    mark.dead = view.dead;
    mark.excluded = view.excluded;
    if is_gone {
        // Its interval matters no more: hypotheses that differ in it alone become one.
        *mark = Mark {
            dead: true,
            excluded: view.excluded,
            ..Mark::NEW
        };
        if view.id.is_none() {
            h.initial.clear();
            h.named = None;
        }
    }
    is_news
}

/// All that the block may hold after the loss, one set for each value that may have been the last
/// of the durable ones. A durable value that is not the last is gone: were the sets joined, a
/// second loss could bring back what the first one proved to be overwritten.
fn starts_after(h: &Hypothesis, views: &[View], context: &Context) -> Vec<BTreeMap<Value, bool>> {
    let writes = || views.iter().filter(|v| v.id.is_some() && !v.excluded);
    let mut left = BTreeMap::new();
    for view in writes().filter(|v| v.must.is_none() && may_have_happened(v, views)) {
        add(&mut left, view.value, view.acked);
    }
    let last: Vec<&View> = writes().filter(|v| v.must.is_some()).collect();
    if last.is_empty() {
        return starts_with_initial(h, &left, context);
    }
    let after = |last: &View| {
        let mut start = left.clone();
        add(&mut start, last.value, last.acked);
        start
    };
    last.into_iter().map(after).collect()
}

/// An order exists in which the write took effect (rule 2).
fn may_have_happened(view: &View, views: &[View]) -> bool {
    view.effective
        || !views
            .iter()
            .any(|other| other.effective && view.finish < other.latest && other.finish < view.start)
}

/// The era's initial value may come back as well. If it was acknowledged and a flush was answered
/// OK since, its rivals are out of the race; if it was not, or there was no flush, they are not:
/// the last durable value may be one of them (B6), although a read decided for another.
fn starts_with_initial(
    h: &Hypothesis,
    left: &BTreeMap<Value, bool>,
    context: &Context,
) -> Vec<BTreeMap<Value, bool>> {
    let alone = |value: Value, acked: bool| {
        let mut start = left.clone();
        add(&mut start, value, acked);
        start
    };
    let everything = || join(left.clone(), h.initial.clone());
    let flushed = context.era_was_flushed();
    match h.named {
        Some(value) => {
            let acked = h.initial.get(&value).copied().unwrap_or(false);
            let is_alone = h.first.read_on_media || (acked && flushed);
            vec![if is_alone {
                alone(value, acked)
            } else {
                everything()
            }]
        }
        None if flushed && h.initial.values().all(|acked| *acked) => h
            .initial
            .iter()
            .map(|(&value, &acked)| alone(value, acked))
            .collect(),
        None => vec![everything()],
    }
}

/// Two writes of zeros that may both be there are one candidate. Unless both were acknowledged it
/// does not count as such, which asks less of the volume.
fn add(start: &mut BTreeMap<Value, bool>, value: Value, acked: bool) {
    start
        .entry(value)
        .and_modify(|all| *all &= acked)
        .or_insert(acked);
}

fn join(mut one: BTreeMap<Value, bool>, other: BTreeMap<Value, bool>) -> BTreeMap<Value, bool> {
    for (value, acked) in other {
        add(&mut one, value, acked);
    }
    one
}

impl Gone {
    fn of(view: &View, views: &[View]) -> Option<Self> {
        let by = &views[view.by?];
        let survivor = views
            .iter()
            .filter(|v| v.must.is_some())
            .max_by_key(|v| v.latest);
        Some(Self {
            value: view.value,
            by: by.value,
            by_finish: by.finish,
            by_acked: by.acked,
            survivor: survivor.and_then(|v| Some((v.value, v.must?))),
        })
    }
}
