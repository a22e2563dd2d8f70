//! Promises and votes (laws T1 to T5): a ledger of what every voter ever stored.

use std::collections::BTreeMap;

use engine_core::message::Disk as State;
use engine_core::quorum::is_majority;
use engine_core::record::Record;
use engine_core::register::{Holding, REGISTER};
use engine_core::units::{NodeIdx, NodeSet, Term};

use crate::engine::Found;
use crate::world::World;

/// What voters stored, and what a majority chose.
#[derive(Default)]
pub struct Ledger {
    stored: BTreeMap<(u64, u32), (Record, NodeSet)>,
    /// The newest record that was in force anywhere.
    pub(super) in_force: Option<Record>,
    /// Every record that was chosen, by (term, step).
    chosen: BTreeMap<(u64, u32), Record>,
}

impl Ledger {
    /// The newest record that a majority stored.
    pub fn newest(&self) -> Option<&Record> {
        self.chosen.values().next_back()
    }
}

impl World {
    /// Everybody is made anew: what was voted belongs to another volume.
    pub fn forget_votes(&mut self) {
        self.laws.ballots = Ledger::default();
        self.wipe_register();
    }

    /// A node's metadata changed.
    pub(super) fn note_votes(&mut self, node: usize, before: Option<&Found>) {
        if !self.has_votes() {
            return;
        }
        let Some(after) = self.peek(node).cloned() else {
            return;
        };
        // A founding that came to nothing is forgotten with the identity it gave.
        let is_same = |b: &&Found| {
            // Whose history was given up votes as somebody else.
            (b.incarnation, b.given_up) == (after.incarnation, after.given_up)
                && [0, after.volume_id].contains(&b.volume_id)
        };
        // An image of before its founding forgets that one as a blank node that is taken in does: its
        // incarnation is given up when somebody is met who knows it.
        let is_taken_in = |b: &&Found| {
            self.is_old_image(node) && b.disk == State::Blank && after.disk != State::Blank
        };
        if let Some(before) = before.filter(is_same).filter(|b| !is_taken_in(b)) {
            self.law_promises_are_kept(node, before, &after);
        }
        if let Some(voted) = after.voted {
            self.note_vote(NodeIdx(node as u8), voted, after.promised);
        }
    }

    /// The register holds something else.
    pub fn note_register(&mut self, before: Option<Holding>, after: &Holding) {
        if let Some(before) = before.filter(|b| b.volume_id == after.volume_id) {
            let place = |h: &Holding| (h.record.term, h.record.step);
            if after.promised < before.promised || place(after) < place(&before) {
                let text = format!("the register held {before:?}, and now {after:?}");
                return self.fail("T2", text);
            }
            if before.promised.author() != after.promised.author() {
                self.law_lease_is_awaited(after.promised);
            }
            // T4: a change of S only if the promise is exactly that term.
            if before.record != after.record && after.record.term != after.promised {
                let text = format!("the register promised more, and took {:?}", after.record);
                return self.fail("T4", text);
            }
        }
        self.note_vote(REGISTER, after.record, after.promised);
    }

    /// T7: nobody is promised anything while somebody else may answer reads.
    fn law_lease_is_awaited(&mut self, promised: Term) {
        let author = usize::from(promised.author().0);
        let now = self.now;
        let holder = self.all().filter(|n| *n != author).find(|n| {
            let engine = self.nodes[*n].engine.as_ref();
            engine.is_some_and(|e| e.is_primary() && e.lease_until() > now)
        });
        // By force a node goes on without asking who leads.
        if let Some(holder) = holder.filter(|_| !self.operator.was_forced) {
            let text = format!("the register promised {promised:?}, and node {holder} has a lease");
            self.fail("T7", text);
        }
    }

    fn note_vote(&mut self, voter: NodeIdx, voted: Record, promised: Term) {
        if voted.term > promised || voted.term.author() != voted.primary {
            let text = format!("{voter:?} voted for {voted:?} and promised {promised:?}");
            return self.fail("T2", text);
        }
        if !self.replicas().contains(voted.in_sync) || voted.in_sync.is_empty() {
            return self.fail("R1", format!("S of {voted:?} is empty or holds a witness"));
        }
        let place = (voted.term.0, voted.step);
        let entry = self.laws.ballots.stored.entry(place);
        let (record, who) = entry.or_insert((voted, NodeSet::EMPTY));
        if *record != voted {
            let text = format!("two records of one term and step: {record:?} / {voted:?}");
            return self.fail("T2", text);
        }
        *who = who.with(voter);
        let is_chosen = is_majority(voted.voters, *who);
        // An older one was followed since: no majority of it is left.
        let newest = self.laws.ballots.chosen.keys().next_back();
        let may_be_chosen = newest.is_none_or(|newest| place >= *newest);
        if voter != REGISTER && self.has_newcomers() && may_be_chosen {
            self.law_table_binds(usize::from(voter.0), &voted);
        }
        if is_chosen && !self.laws.ballots.chosen.contains_key(&place) {
            self.law_chosen_follows(voted);
            self.laws.ballots.chosen.insert(place, voted);
            self.count("records chosen");
            let who = self.laws.ballots.stored[&place].1;
            if !is_majority(voted.voters, who.and(self.replicas())) {
                self.count("records chosen by a witness's vote");
            }
        }
    }

    /// T2: a promise is never taken back, and no vote is for an older record.
    fn law_promises_are_kept(&mut self, node: usize, before: &Found, after: &Found) {
        let place = |found: &Found| found.voted.map(|r| (r.term, r.step));
        if after.promised < before.promised || place(after) < place(before) {
            let text = format!(
                "node {node} promised {:?} and voted {:?}, and says {:?} and {:?} now",
                before.promised, before.voted, after.promised, after.voted
            );
            self.fail("T2", text);
        }
    }

    /// R1, T5: the S of a new reign is a part of the S that it follows. An older record may be
    /// chosen late, by votes that were on their way: who promised more has followed it then. T4, T11:
    /// within a reign steps follow each other, and voters change one at a time.
    fn law_chosen_follows(&mut self, record: Record) {
        let place = (record.term.0, record.step);
        let chosen = &self.laws.ballots.chosen;
        let before = chosen.range(..place).next_back().map(|(_, r)| *r);
        let after = chosen.range(place..).next().map(|(_, r)| *r);
        for (old, new) in [(before, Some(record)), (Some(record), after)] {
            let (Some(old), Some(new)) = (old, new) else {
                continue;
            };
            let is_new_reign = old.term != new.term && old.branch == new.branch;
            if is_new_reign && !old.in_sync.contains(new.in_sync) {
                let text = format!("{new:?} is chosen after {old:?}");
                return self.fail("T5", text);
            }
            let voters = NodeSet(old.voters.0 ^ new.voters.0).count();
            if old.term == new.term && (new.step != old.step + 1 || voters > 1) {
                let text = format!("{new:?} is chosen after {old:?}");
                return self.fail("T4", text);
            }
        }
    }

    /// A newer reign than this node's was chosen.
    pub(super) fn was_followed(&self, node: usize) -> bool {
        let own = self.nodes[node].engine.as_ref().and_then(|e| e.record());
        let newest = self.laws.ballots.newest();
        newest.is_some_and(|n| own.is_some_and(|o| n.term > o.term))
    }

    /// T7: nobody answers a read once a newer reign was chosen. A write that all of S confirmed may
    /// be answered later: the members of the next S are among them.
    pub fn law_nobody_else_reigns(&mut self, node: usize) {
        let newest = self.laws.ballots.newest().copied();
        let own = self.peek(node).and_then(|f| f.record);
        if let (Some(newest), Some(own)) = (newest, own)
            && newest.branch == own.branch
            && newest.term > own.term
        {
            let text = format!("node {node} answers a read by {own:?}, {newest:?} was chosen");
            self.fail("T7", text);
        }
    }

    /// T3, T11: a record is chosen, by the old and by the new list of voters, before it is in force.
    pub(super) fn law_in_force_is_chosen(&mut self, node: usize, record: &Record) {
        if !self.has_votes() {
            return;
        }
        self.everybody().for_each(|n| {
            self.refresh(n);
        });
        let place = (record.term.0, record.step);
        let ballots = &self.laws.ballots;
        if ballots.chosen.get(&place) != Some(record) {
            let text = format!("node {node} goes by {record:?}, and no majority chose it");
            return self.fail("T3", text);
        }
        let before = ballots.chosen.range(..place).next_back().map(|(_, r)| *r);
        let before = before.filter(|b| b.branch == record.branch && b.term == record.term);
        let who = ballots.stored[&place].1;
        if let Some(before) = before.filter(|b| !is_majority(b.voters, who)) {
            let text = format!("{record:?} is in force, and the voters of {before:?} chose it not");
            self.fail("T11", text);
        }
        let is_newest = |old: &Record| record.is_newer_than(old);
        let in_force = &mut self.laws.ballots.in_force;
        if in_force.as_ref().is_none_or(is_newest) {
            *in_force = Some(*record);
        }
    }

    /// T5: whoever is in S by the newest record that was chosen holds what was acknowledged.
    pub(super) fn law_members_hold_all(&mut self) {
        if !self.clients.is_judging() {
            return;
        }
        // While a newer one is not in force anywhere, who joined by it is not known yet.
        let chosen = self.laws.ballots.newest().copied();
        let newest = self.newest_record();
        let Some(record) = newest.filter(|r| chosen.is_none_or(|c| !c.is_newer_than(r))) else {
            return;
        };
        for b in self.all().filter(|n| record.in_sync.has(NodeIdx(*n as u8))) {
            for a in self.all().filter(|a| *a != b) {
                let lost = self.laws.holds[a]
                    .difference(&self.laws.holds[b])
                    .next()
                    .cloned();
                let excused = self.is_excused(b) || self.nodes[b].lost_power;
                if let Some(segment) = lost.filter(|_| !excused) {
                    let text = format!(
                        "node {b} is in S by {record:?}, and lacks acknowledged writes of node {a}: {segment:?}"
                    );
                    return self.fail("T5", text);
                }
            }
        }
    }
}
