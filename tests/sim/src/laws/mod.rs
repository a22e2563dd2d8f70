//! What must hold after every event, by law. Each check is named after its sentence.
//!
//! The laws see everything: both disks with their durable images, metadata as a crash would find
//! it, every message. They never ask the core for what they can see themselves.
//!
//! ```text
//!  world ─► hooks.rs ─► what is remembered here ─► check_laws, after every event
//!            │            ├ marks.rs       S1-S5       ├ histories.rs  T5, T9, M2
//!            │            ├ membership.rs  S6, R8, T4  └ here          O1
//!            │            ├ changes.rs     K1-K3       ├ checksums.rs  M6, F10
//!            │            ├ lateness.rs    L6
//!            │            ├ salvage.rs    G1-G3
//!            │            ├ situations.rs: what was met
//!            │            └ sizes.rs      B13
//!            └► answers.rs  R2, R3, R7    writes.rs  S2, S8, B10: where something happens
//! ```

mod answers;
mod changes;
mod checksums;
mod hand_overs;
mod histories;
mod hooks;
mod lateness;
mod marks;
mod membership;
mod nodes;
mod old_images;
mod quorum_loss;
mod reads;
mod salvage;
mod situations;
mod sizes;
mod votes;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use engine_core::record::Record;
use engine_core::units::{AL_EXTENT, Extent, GRANULE, GRANULES_PER_AL_EXTENT};

use changes::Changes;
pub use changes::mark_name;
use salvage::Splits;
pub use situations::SITUATIONS;
use sizes::Sizes;

use crate::engine::{Found, PEER_REQUESTS_MAX, Reading, recover, recover_again};
use crate::swarm::MS;
use crate::world::World;

/// Acknowledged writes that the same nodes stored in the same reign.
pub type Segment = (u64, Vec<usize>);

/// Writes sent on a connection that were not confirmed yet.
#[derive(Clone, Debug, Default)]
struct Sent {
    peer: usize,
    writes: BTreeMap<u64, Extent>,
}

/// Since when something has been so at a node, and when that was seen last.
#[derive(Clone, Copy, Debug, Default)]
struct Lasting(Option<(u64, u64)>);

impl Lasting {
    /// It is so now; answers since when. Time in which the node was not awake does not count.
    fn since(&mut self, now: u64) -> u64 {
        let awake = self.0.filter(|(_, seen)| now <= seen + 150 * MS);
        let since = awake.map_or(now, |(since, _)| since);
        self.0 = Some((since, now));
        since
    }
}

/// What the laws remember.
pub struct Laws {
    found: Vec<(u64, Result<Rc<Found>, String>)>,
    readings: Vec<Option<Reading>>,
    sent: BTreeMap<(usize, u64), Sent>,
    /// Granules in which two live images differ.
    differ: BTreeMap<(usize, usize), BTreeSet<u64>>,
    /// Which hot granules are marked at a node for a peer, lowest first.
    marked: BTreeMap<(usize, usize), Vec<u64>>,
    /// Which acknowledged writes each node's disk holds whole.
    holds: Vec<BTreeSet<Segment>>,
    /// Lost power while it was in S, and did not leave S or start a reign since.
    must_leave: Vec<bool>,
    /// Granules of each node that its last scrub read.
    scrubbed: Vec<u64>,
    /// Newest record that anybody had voted for when power was lost there.
    voted_at_loss: Vec<Option<Record>>,
    /// Newest record each node had in its metadata.
    seen: Vec<Option<Record>>,
    /// What was under way on connections that were dropped in this turn.
    lost: Vec<Sent>,
    /// Connections a core dropped, and may still hear late words of.
    dropped: BTreeSet<(usize, u64)>,
    samples: u64,
    changes: Changes,
    sizes: Sizes,
    splits: Splits,
    ballots: votes::Ledger,
    hand_overs: hand_overs::Ledger,
    lateness: lateness::Ledger,
    /// Since when each primary was seen without its lease, and when last.
    leaseless: Vec<Lasting>,
    /// Since when each serves while its metadata hangs and another could; when that was seen last.
    hung: Vec<Lasting>,
    memory: situations::Memory,
    /// Granules of which a node's disk once gave back something else than it was given.
    mismatched: Vec<BTreeSet<u64>>,
}

impl Laws {
    /// Nothing happened yet to a volume of this size.
    pub fn new(nodes: usize, granules: u64) -> Laws {
        let pairs = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b)));
        Laws {
            found: vec![(0, Err("never formatted".into())); nodes],
            readings: (0..nodes).map(|_| None).collect(),
            sent: BTreeMap::new(),
            differ: pairs.map(|pair| (pair, BTreeSet::new())).collect(),
            marked: BTreeMap::new(),
            holds: vec![BTreeSet::new(); nodes],
            must_leave: vec![false; nodes],
            scrubbed: vec![0; nodes],
            voted_at_loss: vec![None; nodes],
            seen: vec![None; nodes],
            lost: Vec::new(),
            dropped: BTreeSet::new(),
            samples: 0,
            changes: Changes::default(),
            sizes: Sizes::new(granules),
            splits: Splits::default(),
            ballots: votes::Ledger::default(),
            hand_overs: hand_overs::Ledger::default(),
            lateness: lateness::Ledger::default(),
            leaseless: vec![Lasting::default(); nodes],
            hung: vec![Lasting::default(); nodes],
            memory: situations::Memory::default(),
            mismatched: vec![BTreeSet::new(); nodes],
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
    pub fn found(&mut self, node: usize) -> Result<Rc<Found>, String> {
        self.refresh(node);
        self.laws.found[node].1.clone()
    }

    /// Reads what changed since the last look; a thorough world reads all and compares.
    fn look_again(&mut self, node: usize) -> Result<Found, String> {
        let spec = self.spec(node);
        let meta = &mut self.nodes[node].meta;
        let changed = meta.take_changed();
        let reading = &mut self.laws.readings[node];
        if changed.is_none() {
            *reading = None;
        }
        let result = recover_again(&spec, meta.area(), &changed.unwrap_or_default(), reading);
        if self.is_thorough {
            assert_eq!(result, recover(&spec, meta.area()), "node {node}");
        }
        result
    }

    fn refresh(&mut self, node: usize) -> bool {
        let version = self.nodes[node].meta.version();
        if self.laws.found[node].0 == version {
            return false;
        }
        let before = self.laws.found[node].1.clone().ok();
        let result = self.look_again(node);
        self.laws.found[node] = (version, result.map(Rc::new));
        if let Ok(after) = self.laws.found[node].1.clone() {
            let size = before.as_ref().map(|f| f.granules);
            self.law_size_is_old_or_new(node, size, &after);
        }
        self.note_votes(node, before.as_deref());
        if self.has_newcomers() {
            self.law_tables_bind_the_named();
        }
        if let (Some(before), Some(after)) = (&before, self.peek(node))
            && before.incarnation == after.incarnation
            && before.given_up < after.given_up
        {
            let before = Rc::clone(before);
            self.law_given_up(node, &before);
        }
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
        self.laws.found[node].1.as_deref().ok()
    }

    /// Newest durable record of all nodes.
    pub fn newest_record(&self) -> Option<Record> {
        // Whoever it was in force at may have been made anew since.
        let in_force = self.laws.ballots.in_force;
        let records = self.all().filter_map(|n| self.peek(n)?.record);
        let records = records.chain(in_force);
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
            self.law_marks_say_enough();
            self.law_histories_tell(node);
            self.law_checksums_are_right(node);
        }
        self.law_members_are_equal_at_rest();
        self.law_not_whole_leaves(node);
        self.law_old_images_count_for_nothing(node);
        self.law_one_primary();
        self.law_tables_are_bounded(node);
        self.law_nothing_waits_for_a_majority(node);
        self.law_nobody_serves_over_hung_metadata(node);
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
        self.law_marks_say_enough();
        self.law_checksums_are_right(node);
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
}

const _: () = assert!(AL_EXTENT / GRANULE == GRANULES_PER_AL_EXTENT);
