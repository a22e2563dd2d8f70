//! What must hold after every event, by law. Each check is named after its sentence.
//!
//! The laws see everything: both disks with their durable images, metadata as a crash would find
//! it, every message. They never ask the core for what they can see themselves.

use std::collections::{BTreeMap, BTreeSet};

use engine_core::action::{Action, Notice, Outcome};
use engine_core::event::{Event, LinkId};
use engine_core::generation::{Verdict, judge};
use engine_core::message::{Disk, Message};
use engine_core::record::Record;
use engine_core::units::{AL_EXTENT, BufId, Extent, GRANULE, GRANULES_PER_AL_EXTENT, NodeIdx};

use crate::buffers::Origin;
use crate::clients::{Kind, Request, number};
use crate::disk::BLOCKS_PER_GRANULE;
use crate::engine::{Found, PEER_REQUESTS_MAX, recover};
use crate::world::{Pending, World};

/// Acknowledged writes that the same nodes stored in the same reign.
pub type Segment = (u64, Vec<usize>);

/// Writes sent on a connection that were not confirmed yet.
#[derive(Clone, Debug, Default)]
struct Sent {
    peer: usize,
    writes: BTreeMap<u64, Extent>,
}

/// What the laws remember.
pub struct Laws {
    found: Vec<(u64, Result<Found, String>)>,
    sent: BTreeMap<(usize, u64), Sent>,
    /// Granules in which two live images differ.
    differ: BTreeMap<(usize, usize), BTreeSet<u64>>,
    /// Which hot granules are marked at a node for a peer.
    marked: BTreeMap<(usize, usize), Vec<bool>>,
    /// Which acknowledged writes each node's disk holds whole.
    holds: Vec<BTreeSet<Segment>>,
    /// Lost power while it was in S, and did not leave S or start a reign since.
    must_leave: Vec<bool>,
    /// Newest record each node had in its metadata.
    seen: Vec<Option<Record>>,
    /// What was under way on connections that were dropped in this turn.
    lost: Vec<Sent>,
    /// Connections a core dropped, and may still hear late words of.
    dropped: BTreeSet<(usize, u64)>,
    samples: u64,
}

impl Laws {
    /// Nothing happened yet.
    pub fn new(nodes: usize) -> Laws {
        let pairs = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b)));
        Laws {
            found: vec![(0, Err("never formatted".into())); nodes],
            sent: BTreeMap::new(),
            differ: pairs.map(|pair| (pair, BTreeSet::new())).collect(),
            marked: BTreeMap::new(),
            holds: vec![BTreeSet::new(); nodes],
            must_leave: vec![false; nodes],
            seen: vec![None; nodes],
            lost: Vec::new(),
            dropped: BTreeSet::new(),
            samples: 0,
        }
    }

    /// Force made another copy current: what others hold is lost knowingly.
    pub fn forget_holdings(&mut self, node: usize) {
        self.holds[node].clear();
    }
}

fn granules_of_interest(extent: Extent, hot: &[u64]) -> Vec<u64> {
    let inside = |g: &u64| (extent.start..extent.end).contains(g);
    let mut granules: Vec<u64> = hot.iter().copied().filter(inside).collect();
    granules.extend([extent.start, extent.end - 1]);
    granules.sort_unstable();
    granules.dedup();
    granules
}

impl World {
    /// What an attach would find on this node now.
    pub fn found(&mut self, node: usize) -> Result<Found, String> {
        let version = self.nodes[node].meta.version();
        if self.laws.found[node].0 != version {
            let result = recover(&self.spec(node), self.nodes[node].meta.blocks());
            self.laws.found[node] = (version, result);
        }
        self.laws.found[node].1.clone()
    }

    fn refresh(&mut self, node: usize) -> bool {
        let version = self.nodes[node].meta.version();
        if self.laws.found[node].0 == version {
            return false;
        }
        let before = self.laws.found[node].1.clone().ok();
        let result = recover(&self.spec(node), self.nodes[node].meta.blocks());
        self.laws.found[node] = (version, result);
        match (before, self.laws.found[node].1.clone()) {
            (Some(before), Ok(after)) => {
                self.law_log_closes_late(node, &before, &after);
                self.law_record_changes(node, before.record, after.record);
            }
            (None, Ok(after)) => self.law_record_changes(node, None, after.record),
            (_, Err(_)) => {}
        }
        true
    }

    fn peek(&self, node: usize) -> Option<&Found> {
        self.laws.found[node].1.as_ref().ok()
    }

    /// Newest durable record of all nodes.
    pub fn newest_record(&self) -> Option<Record> {
        let records = self.all().filter_map(|n| self.peek(n)?.record);
        records.reduce(|a, b| if b.is_newer_than(&a) { b } else { a })
    }

    /// Members whose confirmation a primary needs: by its durable record, and by a newer one of
    /// its own reign that another node already holds (law T4).
    fn required(&self, primary: usize) -> Vec<usize> {
        let Some(own) = self.peek(primary).and_then(|f| f.record) else {
            return Vec::new();
        };
        let newer = self.all().filter_map(|n| self.peek(n)?.record).filter(|r| {
            r.is_newer_than(&own) && r.term == own.term && usize::from(r.primary.0) == primary
        });
        let set = newer.fold(own.in_sync.0, |set, r| set | r.in_sync.0);
        self.all().filter(|n| set >> n & 1 == 1).collect()
    }

    // ── hooks ────────────────────────────────────────────────────────────────────────────────

    /// Before a node handles an event.
    pub fn before(&mut self, node: usize, event: &Event) {
        self.laws.lost.clear();
        match event {
            Event::CloseSession { session } => self.clients.core_knows_closed(*session),
            Event::LinkDown { link } => self
                .laws
                .lost
                .extend(self.laws.sent.remove(&(node, link.0))),
            _ => {}
        }
    }

    /// After it did, and its actions are under way.
    pub fn after(&mut self, node: usize) {
        for sent in std::mem::take(&mut self.laws.lost) {
            let writes: Vec<Extent> = sent.writes.into_values().collect();
            self.law_lost_is_marked(node, sent.peer, &writes);
        }
    }

    /// A core dropped a connection.
    pub fn dropping(&mut self, node: usize, link: LinkId) {
        self.laws.dropped.insert((node, link.0));
        if let Some(sent) = self.laws.sent.remove(&(node, link.0)) {
            self.laws.lost.push(sent);
        }
    }

    /// This connection was dropped by the core.
    pub fn is_dropped(&self, node: usize, link: LinkId) -> bool {
        self.laws.dropped.contains(&(node, link.0))
    }

    /// R10: a confirmation counts only from the session it was asked of.
    pub fn law_late_words_count_not(&mut self, node: usize, actions: &[Action]) {
        self.count("late words");
        let is_answer = |a: &&Action| {
            matches!(
                a,
                Action::Complete {
                    outcome: Outcome::Ok,
                    ..
                }
            )
        };
        if let Some(action) = actions.iter().find(is_answer) {
            let text = format!("node {node} hears a late word and says {action:?}");
            self.fail("R10", text);
        }
    }

    /// A message leaves a node.
    pub fn sending(&mut self, node: usize, link: LinkId, message: &Message, tags: Option<&[u64]>) {
        let peer = self.peer_of(node, link);
        match message {
            Message::Data { stamp, extent, .. } | Message::Zero { stamp, extent, .. } => {
                let sent = self.laws.sent.entry((node, link.0)).or_default();
                sent.peer = peer;
                if sent.writes.insert(stamp.seq.0, *extent).is_some() {
                    self.fail("B10", format!("node {node} sends {:?} twice", stamp.seq));
                }
                self.count("writes sent");
            }
            Message::ResyncData { .. } => self.count("resync pieces"),
            Message::ResyncZero { .. } => self.count("resync zeros"),
            Message::ResyncEqual { .. } => self.count("resync equal"),
            _ => {}
        }
        let covered = match message {
            Message::Data { extent, .. } | Message::ResyncData { extent, .. } => Some(extent),
            _ => None,
        };
        if let Some(extent) = covered {
            let have = tags.map_or(0, |t| t.len() as u64);
            if have != extent.granules() * BLOCKS_PER_GRANULE {
                self.fail(
                    "B11",
                    format!("payload of {message:?} covers {have} blocks"),
                );
            }
        }
    }

    /// A message reaches a node.
    pub fn arriving(&mut self, node: usize, link: LinkId, message: &Message) {
        let peer = self.peer_of(node, link);
        match message {
            Message::Ack { seq, .. } => {
                if let Some(sent) = self.laws.sent.get_mut(&(node, link.0)) {
                    sent.writes.remove(&seq.0);
                }
            }
            Message::ResyncData { .. } | Message::ResyncZero { .. } => {
                self.law_nothing_is_overwritten(peer, node);
            }
            _ => {}
        }
    }

    fn peer_of(&mut self, node: usize, link: LinkId) -> usize {
        let life = self.nodes[node].life;
        let Some((connection, end)) = self.net.find(node, life, link) else {
            return node;
        };
        self.net
            .connection(connection)
            .map_or(node, |c| c.ends[1 - end].node)
    }

    /// A process dies.
    pub fn process_ends(&mut self, node: usize) {
        let was_primary = self.nodes[node]
            .engine
            .as_ref()
            .is_some_and(|e| e.is_primary());
        self.refresh(node);
        let reigned = self
            .peek(node)
            .and_then(|f| f.record)
            .is_some_and(|r| usize::from(r.primary.0) == node && Some(r) == self.newest_record());
        if was_primary {
            self.count("primaries lost");
        }
        if was_primary || reigned {
            self.clients.crashed_with = Some(self.required(node));
        }
        // Pages were lost and the process could not write down that its disk failed: the operator
        // saw the kernel's complaint, and does not count on this copy.
        self.nodes[node].is_condemned |= self.nodes[node].has_failed_flush;
        self.sessions_end(node);
        self.operator_forgets(node);
        self.laws.sent.retain(|(n, _), _| *n != node);
        self.laws.dropped.retain(|(n, _)| *n != node);
        let machine = &self.nodes[node];
        if was_primary && machine.meta.is_hung {
            self.count("primaries lost while metadata hung");
        }
    }

    /// A process begins.
    pub fn process_begins(&mut self, node: usize) {
        self.laws.marked.retain(|(n, _), _| *n != node);
        self.refresh(node);
    }

    /// Power failed at a node.
    pub fn power_lost(&mut self, node: usize) {
        self.refresh(node);
        let Some(found) = self.peek(node) else { return };
        let (was_clean, may_differ) = (found.is_clean, !found.is_settled());
        let volatile = self.nodes[node].disk.has_volatile_cache();
        // With nothing open and nothing marked it lost nothing that others have.
        if was_clean || !volatile || !may_differ {
            self.nodes[node].lost_power = false;
            return;
        }
        if self.plan.settings.is_durable_policy == 0 {
            self.laws.holds[node].clear();
        }
        let in_sync = self
            .newest_record()
            .is_some_and(|r| r.in_sync.has(NodeIdx(node as u8)));
        self.laws.must_leave[node] |= in_sync;
    }

    /// A replica was made anew.
    pub fn formatted(&mut self, node: usize) {
        self.laws.holds[node].clear();
        self.laws.must_leave[node] = false;
        self.laws.seen[node] = None;
        self.laws.found[node] = (0, Err("made anew".into()));
        self.refresh(node);
        self.note_disk(node);
    }

    /// Content of a data disk may have changed.
    pub fn note_disk(&mut self, node: usize) {
        if !self.nodes[node].disk.is_touched() {
            return;
        }
        let touched = self.nodes[node].disk.take_touched();
        for other in self.all().filter(|n| *n != node) {
            let pair = (node.min(other), node.max(other));
            let differ = self
                .laws
                .differ
                .get_mut(&pair)
                .expect("every pair is known");
            for granule in &touched {
                let one = self.nodes[node].disk.live().granule(*granule);
                if one == self.nodes[other].disk.live().granule(*granule) {
                    differ.remove(granule);
                } else {
                    differ.insert(*granule);
                }
            }
        }
    }

    /// Granules in which two nodes differ.
    pub fn differences(&self, a: usize, b: usize) -> &BTreeSet<u64> {
        &self.laws.differ[&(a.min(b), a.max(b))]
    }

    /// A node says something worth a log line.
    pub fn noticed(&mut self, node: usize, notice: &Notice) {
        match notice {
            Notice::Promoted { .. } => self.promoted(node),
            Notice::Founded { .. } => self.count("foundings"),
            Notice::InSync { .. } => self.count("changes of S"),
            Notice::ResyncBegan { .. } => self.count("resyncs begun"),
            Notice::ResyncDone { .. } => self.count("resyncs done"),
            Notice::DiskFailed => {
                self.count("disks failed");
                self.nodes[node].is_condemned = true;
            }
            Notice::MetaFailed => {
                self.count("metadata failed");
                self.nodes[node].is_condemned = true;
            }
            Notice::DiskFull => self.count("disks full"),
            Notice::ReadError { .. } => self.count("read errors"),
            Notice::Difference { .. } => self.count("differences found"),
            Notice::PeerRefused { .. } => self.count("refusals"),
            Notice::Demoted | Notice::PeerConnected(_) | Notice::PeerLost(_) => {}
        }
    }

    fn promoted(&mut self, node: usize) {
        self.count("promotions");
        self.refresh(node);
        self.law_promotion_was_allowed(node);
        self.judge_crash();
        if self.nodes[node].lost_power {
            // Nobody whole was left, or it was the last member: what it lost is lost (law B6).
            self.all().for_each(|n| self.laws.forget_holdings(n));
        }
        self.nodes[node].lost_power = false;
        self.laws.must_leave[node] = false;
    }

    // ── checks after every event ─────────────────────────────────────────────────────────────

    /// Everything that is looked at after each event.
    pub fn check_laws(&mut self, node: usize) {
        if self.failure.is_some() {
            return;
        }
        self.note_disk(node);
        self.refresh(node);
        self.law_bits_are_cleared_by_proof(node);
        self.law_differences_are_covered(false);
        self.laws.samples += 1;
        if self
            .laws
            .samples
            .is_multiple_of(self.plan.settings.sample_every.max(1))
        {
            self.law_differences_are_covered(true);
            self.law_histories_tell(node);
        }
        self.law_members_are_equal_at_rest();
        self.law_not_whole_leaves(node);
        self.law_one_primary();
        self.law_tables_are_bounded(node);
    }

    /// What must hold at a node that just crashed.
    pub fn check_crashed(&mut self, node: usize) {
        self.note_disk(node);
        self.refresh(node);
        if let Err(why) = self.found(node) {
            return self.fail(
                "M2",
                format!("node {node} crashed and its metadata is lost: {why}"),
            );
        }
        self.law_differences_are_covered(true);
    }

    /// M2: a torn metadata write leaves the old state, never an older one.
    pub fn law_metadata_never_goes_back(&mut self, node: usize, before: Option<Found>) {
        let (Some(before), Ok(after)) = (before, self.found(node)) else {
            return;
        };
        let position = |f: &Found| f.record.map(|r| (r.term, r.step));
        let older = position(&after) < position(&before)
            || (before.volume_id != 0 && after.volume_id == 0)
            || after.chain.entries().len() < before.chain.entries().len();
        if older {
            let text = format!(
                "node {node} crashed, and its metadata went back from {:?} to {:?}",
                before.record, after.record
            );
            self.fail("M2", text);
        }
    }

    /// S1: a block in which two replicas differ is covered by a dirty bit or an open extent.
    /// `as_crashed`: by what is durable, as if every process died now.
    fn law_differences_are_covered(&mut self, as_crashed: bool) {
        for (a, b) in self.net.pairs() {
            if self.differences(a, b).is_empty() || self.has_no_history(a, b) {
                continue;
            }
            let hole = self
                .differences(a, b)
                .iter()
                .copied()
                .find(|granule| !self.is_covered(a, b, *granule, as_crashed));
            if let Some(granule) = hole {
                let how = if as_crashed {
                    ", as a crash would find it"
                } else {
                    ""
                };
                let text = format!(
                    "nodes {a} and {b} differ in granule {granule}, no dirty bit and no open \
                     extent covers it{how}: {:x?} / {:x?}",
                    self.nodes[a].disk.live().granule(granule),
                    self.nodes[b].disk.live().granule(granule),
                );
                return self.fail("S1", text);
            }
        }
    }

    /// One of them is blank (not yet a replica of this volume), or awaits replacement.
    fn has_no_history(&self, a: usize, b: usize) -> bool {
        [a, b].iter().any(|n| {
            self.nodes[*n].is_rolled_back
                || self
                    .peek(*n)
                    .is_none_or(|f| f.disk == Disk::Blank || f.volume_id == 0)
                || self.nodes[*n]
                    .engine
                    .as_ref()
                    .is_some_and(|e| e.disk() == Disk::Blank)
        })
    }

    fn is_covered(&self, a: usize, b: usize, granule: u64, as_crashed: bool) -> bool {
        // Both sides' bits count: every handshake begins from their union (law S9), and a restart
        // turns a node's own open extents into bits.
        [(a, b), (b, a)].into_iter().any(|(node, peer)| {
            self.marks(node, peer, granule, as_crashed) || self.opens(node, granule, as_crashed)
        })
    }

    /// S11: a replica whose life this node does not know lacks everything.
    fn marks(&self, node: usize, peer: usize, granule: u64, as_crashed: bool) -> bool {
        let stranger = match (self.peek(node), self.peek(peer)) {
            (Some(own), Some(theirs)) => own.known[peer] != theirs.incarnation,
            _ => false,
        };
        stranger
            || match &self.nodes[node].engine {
                Some(engine) if !as_crashed => engine.is_dirty(peer, granule),
                _ => self.peek(node).is_some_and(|f| f.is_dirty(peer, granule)),
            }
    }

    fn opens(&self, node: usize, granule: u64, as_crashed: bool) -> bool {
        match &self.nodes[node].engine {
            Some(engine) if !as_crashed => engine.is_open(granule),
            _ => self.peek(node).is_some_and(|f| f.is_open(granule)),
        }
    }

    /// S4: a dirty bit is cleared only when the peer has that block durable and equal, with no
    /// newer write in between.
    fn law_bits_are_cleared_by_proof(&mut self, node: usize) {
        let Some(engine) = &self.nodes[node].engine else {
            return;
        };
        let hot = self.hot();
        for peer in self.all().filter(|p| *p != node) {
            let now: Vec<bool> = hot.iter().map(|g| engine.is_dirty(peer, *g)).collect();
            let before = self.laws.marked.insert((node, peer), now.clone());
            let Some(before) = before.filter(|b| *b != now) else {
                continue;
            };
            let is_cleared = |i: &usize| before[*i] && !now[*i];
            let cleared: Vec<u64> = (0..hot.len()).filter(is_cleared).map(|i| hot[i]).collect();
            let founded = self.peek(node).is_some_and(|f| f.volume_id != 0);
            let is_source = engine.is_primary();
            let excused = self.is_excused(node) || self.is_excused(peer);
            if !founded || excused || self.has_no_history(node, peer) {
                continue;
            }
            let wrong = cleared
                .into_iter()
                .find(|g| !self.is_proven(node, peer, *g, is_source));
            if let Some(granule) = wrong {
                let text = format!(
                    "node {node} cleared the dirty bit of granule {granule} for node {peer}: \
                     {:x?} here, {:x?} there",
                    self.nodes[node].disk.live().granule(granule),
                    self.nodes[peer].disk.live().granule(granule),
                );
                return self.fail("S4", text);
            }
        }
    }

    fn is_proven(&self, node: usize, peer: usize, granule: u64, is_source: bool) -> bool {
        let at = Extent::new(granule, granule + 1);
        let joins = |a: usize, b: usize| (a, b) == (node, peer) || (b, a) == (node, peer);
        let on_its_way = self.laws.sent.iter().any(|((from, _), sent)| {
            joins(*from, sent.peer) && sent.writes.values().any(|e| e.overlaps(at))
        });
        let is_written = |n: usize| self.nodes[n].disk.writing().any(|e| e.overlaps(at));
        if on_its_way || is_written(node) || is_written(peer) {
            return true;
        }
        // What a primary left behind when it died is covered by the logs.
        if !is_source && (self.opens(node, granule, false) || self.opens(peer, granule, false)) {
            return true;
        }
        // A newer write that is stored there and not durable is covered by the peer's own log,
        // which every handshake adds to the dirty bits.
        let needs_durable = is_source && !self.peek(peer).is_some_and(|f| f.is_open(granule));
        let base = granule * BLOCKS_PER_GRANULE;
        (base..base + BLOCKS_PER_GRANULE).all(|block| {
            let here = self.nodes[node].disk.live().block(block);
            let there = &self.nodes[peer].disk;
            let durable = there.durable_block(block);
            here == there.live().block(block) && (!needs_durable || here == durable)
        })
    }

    /// S5: what was sent and not confirmed when a connection is lost is marked at once.
    fn law_lost_is_marked(&mut self, node: usize, peer: usize, writes: &[Extent]) {
        let Some(engine) = &self.nodes[node].engine else {
            return;
        };
        if !engine.is_primary() || self.has_no_history(node, peer) {
            return;
        }
        let hot = self.hot();
        let hole = writes
            .iter()
            .flat_map(|e| granules_of_interest(*e, &hot))
            .find(|g| !engine.is_dirty(peer, *g));
        if let Some(granule) = hole {
            let text = format!(
                "node {node} lost its link to node {peer} and did not mark granule {granule}, \
                 which was sent and not confirmed"
            );
            self.fail("S5", text);
        }
    }

    /// S3: an extent closes only when its writes are durable on all of S, or marked.
    fn law_log_closes_late(&mut self, node: usize, before: &Found, after: &Found) {
        // A target's own log adds nothing to that of the members who have what it lacks.
        let newest = self.newest_record();
        let member = |r: &Record| r.in_sync.has(NodeIdx(node as u8));
        let Some(record) = newest.filter(member) else {
            return;
        };
        let mut closed = 0;
        for member in record.in_sync.iter().map(|n| usize::from(n.0)) {
            let disk = &self.nodes[member].disk;
            let hole = disk.unsynced().map(|(block, _)| block).find(|block| {
                let granule = block / BLOCKS_PER_GRANULE;
                before.is_open(granule)
                    && !after.is_open(granule)
                    && disk.durable_block(*block) != disk.live().block(*block)
                    && !self.is_marked(after, node, member, granule)
                    && !self.is_newer_elsewhere(node, member, granule)
            });
            if let Some(block) = hole {
                let text = format!(
                    "node {node} closed an extent, and block {block} is not durable on node {member}"
                );
                return self.fail("S3", text);
            }
        }
        let hot = self.hot();
        for &granule in hot.iter() {
            closed += u64::from(before.is_open(granule) && !after.is_open(granule));
        }
        if closed > 0 {
            self.count("activity-log closings");
        }
    }

    /// A newer write of another member, which its own log covers.
    fn is_newer_elsewhere(&self, node: usize, member: usize, granule: u64) -> bool {
        member != node && self.peek(member).is_some_and(|f| f.is_open(granule))
    }

    /// A block that is not durable at another member is marked for it; one that is not durable
    /// here is marked for everybody: what may differ is the same, seen from here.
    fn is_marked(&self, found: &Found, node: usize, member: usize, granule: u64) -> bool {
        match member == node {
            true => self
                .all()
                .filter(|p| *p != node)
                .all(|p| found.is_dirty(p, granule)),
            false => found.is_dirty(member, granule),
        }
    }

    fn law_record_changes(&mut self, node: usize, before: Option<Record>, after: Option<Record>) {
        if before == after {
            return;
        }
        let Some(after) = after else { return };
        self.laws.seen[node] = Some(after);
        if before.is_none() && self.nodes[node].is_rolled_back {
            // An old image holds it: nobody joined or left by that.
            return;
        }
        self.nodes[node].record_life = self.nodes[node].life;
        let joined = |n: usize| {
            let id = NodeIdx(n as u8);
            after.in_sync.has(id) && before.is_none_or(|b| !b.in_sync.has(id))
        };
        let left = |n: usize| {
            let id = NodeIdx(n as u8);
            !after.in_sync.has(id) && before.is_some_and(|b| b.in_sync.has(id))
        };
        let primary = usize::from(after.primary.0);
        for n in self.all() {
            if left(n) {
                self.count("departures from S");
                self.laws.must_leave[n] = false;
            }
            // It may write the new record down before the primary does.
            let own = self.laws.seen[primary];
            if own.is_some_and(|r| r.is_newer_than(&after)) {
                continue;
            }
            let is_first = n == node && own.is_none_or(|r| after.is_newer_than(&r));
            let in_it = after.in_sync.has(NodeIdx(n as u8));
            let adds = is_first && own.is_none_or(|r| !r.in_sync.has(NodeIdx(n as u8)));
            if n != primary && (joined(n) || (in_it && adds)) {
                self.count("joins");
                self.nodes[n].is_rolled_back = false;
                self.law_joins_when_equal(primary, n);
                let gained = self.laws.holds[primary].clone();
                self.laws.holds[n].extend(gained);
                self.nodes[n].lost_power = false;
                self.laws.must_leave[n] = false;
            }
        }
    }

    /// S6: who joins S has everything durable, but for writes on their way to it.
    fn law_joins_when_equal(&mut self, primary: usize, joining: usize) {
        // If the member vanished meanwhile, the record comes too late and S shrinks again.
        let in_touch = self.nodes[primary]
            .engine
            .as_ref()
            .is_some_and(|e| e.is_connected(joining));
        let excused = self.is_excused(primary) || self.is_excused(joining);
        if self.has_no_history(primary, joining) || !in_touch || excused {
            return;
        }
        let lacks = |(block, wanted): &(&u64, &u64)| {
            self.clients.is_judging() && !self.holds_at_least(joining, **block, **wanted, false)
        };
        if let Some((block, wanted)) = self.clients.acked.iter().find(lacks) {
            let text = format!(
                "node {joining} joined S, and lacks write {wanted} of block {block}, which was \
                 answered before"
            );
            return self.fail("S6", text);
        }
        let granules: BTreeSet<u64> = self.nodes[primary]
            .disk
            .live()
            .granules()
            .chain(self.nodes[joining].disk.live().granules())
            .collect();
        let hole = granules
            .into_iter()
            .find(|g| !self.is_proven(primary, joining, *g, true));
        if let Some(granule) = hole {
            let text = format!(
                "node {joining} joined S, and granule {granule} is not durable and equal there: \
                 {:x?} / {:x?}",
                self.nodes[primary].disk.live().granule(granule),
                self.nodes[joining].disk.live().granule(granule),
            );
            self.fail("S6", text);
        }
    }

    /// R8: with no request in flight the members of S are equal.
    fn law_members_are_equal_at_rest(&mut self) {
        if self.clients.outstanding() > 0 || self.laws.sent.values().any(|s| !s.writes.is_empty()) {
            return;
        }
        let Some(record) = self.newest_record() else {
            return;
        };
        let primary = usize::from(record.primary.0);
        for (a, b) in self.net.pairs() {
            let quiet = |n: usize| {
                self.is_alive(n)
                    && self.nodes[n].disk.writing().next().is_none()
                    && record.in_sync.has(NodeIdx(n as u8))
                    && !self.is_excused(n)
            };
            let serves = self.nodes[primary]
                .engine
                .as_ref()
                .is_some_and(|e| e.is_primary());
            if self.differences(a, b).is_empty() || !serves || !quiet(a) || !quiet(b) {
                continue;
            }
            let joined = self.nodes[primary].engine.as_ref().is_some_and(|e| {
                e.record() == Some(record) && e.is_in_sync_with((a + b) - primary)
            });
            if joined {
                let granule = *self.differences(a, b).iter().next().expect("there is one");
                let text = format!(
                    "nodes {a} and {b} are in S, nothing is in flight, and granule {granule} \
                     differs: {:x?} / {:x?}",
                    self.nodes[a].disk.live().granule(granule),
                    self.nodes[b].disk.live().granule(granule),
                );
                return self.fail("R8", text);
            }
        }
    }

    /// T4: a member that is no longer whole confirms nothing before it left S.
    fn law_not_whole_leaves(&mut self, node: usize) {
        if !self.laws.must_leave[node] {
            return;
        }
        let Some(engine) = &self.nodes[node].engine else {
            return;
        };
        let joined = self.all().any(|p| p != node && engine.is_in_sync_with(p));
        let in_sync = self
            .newest_record()
            .is_some_and(|r| r.in_sync.has(NodeIdx(node as u8)));
        if joined && in_sync {
            let text =
                format!("node {node} lost power while in S, and is in sync as if it had not");
            self.fail("T4", text);
        }
    }

    /// T4, at the end: who lost power while in S left it since, so that whoever is in S is whole.
    pub fn law_nobody_is_owed_to_leave(&mut self) {
        if let Some(node) = self.all().find(|n| self.laws.must_leave[*n]) {
            let text = format!("node {node} lost power while in S, and never left it");
            self.fail("T4", text);
        }
    }

    /// T6: without an operator's boldness there is one primary.
    fn law_one_primary(&mut self) {
        if self.primaries().len() > 1 && !self.operator.was_bold {
            self.fail("T6", "two nodes serve clients");
        }
    }

    /// O1: every table has a bound.
    fn law_tables_are_bounded(&mut self, node: usize) {
        let bound = PEER_REQUESTS_MAX + self.plan.settings.requests_max as usize + 512;
        let machine = &self.nodes[node];
        let (buffers, pending) = (machine.buffers.owned_by_core(), machine.pending.len());
        if buffers > bound || pending > 2 * bound || machine.meta.in_flight() > bound {
            let text = format!("node {node} holds {buffers} buffers and {pending} operations");
            self.fail("O1", text);
        }
    }

    /// T9: a node that lacks acknowledged writes of another never compares as equal or ahead.
    fn law_histories_tell(&mut self, _node: usize) {
        for a in self.all() {
            for b in self.all().filter(|b| *b != a) {
                let missing = self.laws.holds[a]
                    .difference(&self.laws.holds[b])
                    .next()
                    .cloned();
                let (Some(missing), Some(fa), Some(fb)) = (missing, self.peek(a), self.peek(b))
                else {
                    continue;
                };
                // A chain cannot tell that a disk was rolled back; its lives do, and no law lets
                // it join without a whole resync (S6) or overwrite another (below).
                let excused = fb.disk != Disk::UpToDate
                    || self.nodes[b].is_rolled_back
                    || self.laws.must_leave[b]
                    || self.nodes[b].lost_power
                    || self.nodes[b].is_condemned
                    || fa.disk == Disk::Failed;
                let verdict = judge(&fb.chain, &fa.chain);
                if !excused && matches!(verdict, Verdict::Equal | Verdict::Ahead) {
                    let text = format!(
                        "node {b} lacks acknowledged writes of node {a} ({missing:?}) and compares \
                         as {verdict:?}: {:?} / {:?}",
                        fb.chain, fa.chain
                    );
                    return self.fail("T9", text);
                }
            }
        }
    }

    /// T9: a replica that holds acknowledged writes another lacks is never its sync target.
    fn law_nothing_is_overwritten(&mut self, source: usize, target: usize) {
        if self.nodes[source].lost_power {
            // The last member of S lost it in a power cut (law B6).
            return;
        }
        let lost = self.laws.holds[target]
            .difference(&self.laws.holds[source])
            .next()
            .cloned();
        if let Some(segment) = lost {
            let text = format!(
                "node {target} is overwritten by node {source}, and holds acknowledged writes \
                 {segment:?} that node {source} lacks"
            );
            self.fail("T9", text);
        }
    }

    /// T9, T5: an unforced promotion needs an up-to-date member of S.
    fn law_promotion_was_allowed(&mut self, node: usize) {
        let forced = self.operator.forced(node);
        let naive = self.operator.was_naive(node);
        let isolated = self.operator.began_isolated(node) && !self.nodes[node].was_in_touch;
        if (naive || isolated) && !forced {
            self.fail(
                "T9",
                format!("node {node} was promoted and could not know it may"),
            );
        }
        let Some(found) = self.peek(node) else { return };
        if !forced && found.disk != Disk::UpToDate {
            let state = found.disk;
            self.fail(
                "T5",
                format!("node {node} was promoted and its copy is {state:?}"),
            );
        }
    }

    // ── checks where something happens ───────────────────────────────────────────────────────

    /// Before a data disk is given a write.
    pub fn law_before_write(&mut self, node: usize, extent: Extent, buf: Option<BufId>) {
        // B10: overlapping writes reach every disk in seq order, so never at once.
        let other = self.nodes[node].disk.writing().find(|e| e.overlaps(extent));
        if let Some(other) = other {
            let text = format!("node {node} writes {extent:?} while {other:?} is being written");
            return self.fail("B10", text);
        }
        let origin = buf
            .and_then(|b| self.nodes[node].buffers.held(b).ok())
            .map(|b| b.origin);
        let is_resync = matches!(
            origin,
            Some(Origin::Payload {
                is_resync: true,
                ..
            })
        );
        if let Some(Origin::Payload {
            is_intact: false, ..
        }) = origin
        {
            return self.fail(
                "M6",
                format!("node {node} writes damaged payload to {extent:?}"),
            );
        }
        if let Some(buf) = buf
            && let Some((request, is_closing)) = self.clients.by_buffer(node, buf)
        {
            let was = std::mem::replace(&mut request.is_dispatched, true);
            if is_closing && !was {
                let text = format!("a request of a closed session is dispatched to {extent:?}");
                return self.fail("B3", text);
            }
        }
        self.refresh(node);
        let Some(found) = self.peek(node) else { return };
        if is_resync && !matches!(found.disk, Disk::Inconsistent | Disk::Failed) {
            let state = found.disk;
            let text =
                format!("node {node} writes resync data to a copy that is durably {state:?}");
            return self.fail("S8", text);
        }
        let is_target = matches!(found.disk, Disk::Inconsistent | Disk::Failed);
        if self.nodes.len() > 1 && !is_resync && !(is_target && buf.is_none()) {
            self.law_mark_comes_first(node, extent);
        }
    }

    /// S2: a replica's mark is durable before that replica's disk is given the write.
    fn law_mark_comes_first(&mut self, node: usize, extent: Extent) {
        let Some(found) = self.peek(node) else { return };
        let hot = self.hot();
        let (first, end) = extent.al_extents();
        let mut granules = granules_of_interest(extent, &hot);
        granules.extend((first + 1..end).map(|e| e * GRANULES_PER_AL_EXTENT));
        let hole = granules.into_iter().find(|g| {
            let marked = self
                .all()
                .filter(|p| *p != node)
                .all(|p| found.is_dirty(p, *g));
            !found.is_open(*g) && !marked
        });
        if let Some(granule) = hole {
            let text = format!("node {node} writes granule {granule}, no durable mark covers it");
            self.fail("S2", text);
        }
    }

    /// Something still writes this buffer to a disk.
    pub fn is_writing_from(&self, node: usize, buf: BufId) -> bool {
        let is_it = |p: &Pending| matches!(p, Pending::Write(_, b) if *b == buf);
        self.nodes[node].pending.values().any(is_it)
    }

    /// A control store is asked; nothing to check yet.
    pub fn proposed(&mut self, _node: usize, _record: Record) {
        self.count("records proposed");
    }

    /// It confirmed, and lost pages in a power cut or a failed flush since.
    fn is_excused(&self, member: usize) -> bool {
        let machine = &self.nodes[member];
        self.laws.must_leave[member] || machine.has_failed_flush || machine.is_condemned
    }

    fn holds_at_least(&self, node: usize, block: u64, wanted: u64, is_durable: bool) -> bool {
        let disk = &self.nodes[node].disk;
        let tag = if is_durable {
            disk.durable_block(block)
        } else {
            disk.live().block(block)
        };
        let zeroed = self.clients.zeroed.get(&block).copied().unwrap_or(0);
        let have = if tag == 0 { zeroed } else { number(tag) };
        have >= wanted
    }

    /// R2, B5, B8: a write is answered only after every member of S has it.
    pub fn law_write_answered(&mut self, node: usize, request: &Request, blocks: &[u64]) {
        self.refresh(node);
        let is_durable = request.fua || self.plan.settings.is_durable_policy == 1;
        let law = match (request.kind, request.fua) {
            (Kind::Zero, _) => "B8",
            (_, true) => "B5",
            _ => "R2",
        };
        let required = self.required(node);
        for member in required {
            if !is_durable && self.is_excused(member) {
                continue;
            }
            let hole = blocks
                .iter()
                .find(|b| !self.holds_at_least(member, **b, request.number, is_durable));
            if let Some(block) = hole {
                let text = format!(
                    "write {} is answered by node {node}, and block {block} of member {member} \
                     holds {:x} (durable {:x})",
                    request.number,
                    self.nodes[member].disk.live().block(*block),
                    self.nodes[member].disk.durable_block(*block),
                );
                return self.fail(law, text);
            }
        }
        let term = self
            .peek(node)
            .and_then(|f| f.record)
            .map_or(0, |r| r.term.0);
        // A target outside S may hold it too; of zeros nobody can tell.
        let members = self.required(node);
        let stores = |n: &usize| {
            request.kind == Kind::Write
                && self.peek(*n).is_some_and(|f| f.disk != Disk::Blank)
                && blocks
                    .iter()
                    .all(|b| self.holds_at_least(*n, *b, request.number, false))
        };
        let holders: Vec<usize> = self
            .all()
            .filter(|n| members.contains(n) || stores(n))
            .collect();
        if blocks.is_empty() {
            return;
        }
        for holder in &holders {
            self.laws.holds[*holder].insert((term, holders.clone()));
        }
    }

    /// R7: what a read returned, every member of S has, or something submitted later.
    pub fn law_read(&mut self, node: usize, block: u64, tag: u64) {
        self.refresh(node);
        let wanted = number(tag);
        for member in self.required(node) {
            if !self.is_excused(member) && !self.holds_at_least(member, block, wanted, false) {
                let text = format!(
                    "node {node} answers a read of block {block} with {tag:x}, member {member} \
                     holds {:x}",
                    self.nodes[member].disk.live().block(block),
                );
                return self.fail("R7", text);
            }
        }
    }

    /// R3: a flush is answered only after all it names is durable on every member of S.
    pub fn law_flush_answered(&mut self, node: usize, must: &BTreeMap<u64, u64>) {
        self.refresh(node);
        if !self.clients.is_judging() {
            return;
        }
        for member in self.required(node) {
            let hole = must
                .iter()
                .find(|(b, n)| !self.holds_at_least(member, **b, **n, true));
            if let Some((block, wanted)) = hole {
                let text = format!(
                    "a flush is answered by node {node}, and write {wanted} of block {block} is \
                     not durable on member {member}: live {:x}, durable {:x}",
                    self.nodes[member].disk.live().block(*block),
                    self.nodes[member].disk.durable_block(*block),
                );
                return self.fail("R3", text);
            }
        }
        if !must.is_empty() {
            self.count("flushes that promise something");
        }
    }
}

const _: () = assert!(AL_EXTENT / GRANULE == GRANULES_PER_AL_EXTENT);
