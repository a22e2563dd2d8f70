//! What the operator mends by himself: broken copies, hung primaries.

use engine_core::message::Disk;
use engine_core::quorum::is_majority;
use engine_core::record::Record;
use engine_core::units::{NodeIdx, NodeSet};

use super::Purpose;
use crate::swarm::MS;
use crate::world::World;

impl World {
    /// A node that answered "stopped" exits.
    pub(super) fn end_stopped(&mut self) {
        for node in self.everybody() {
            if self.nodes[node].is_stopping && self.nodes[node].engine.is_some() {
                self.say(|| format!("n{node} exits"));
                let restart = self.nodes[node].restart_at;
                self.process_ends(node);
                self.end_process(node, false);
                self.nodes[node].disk.kill();
                self.nodes[node].meta.crash();
                self.nodes[node].restart_at = restart;
                self.check_crashed(node);
            }
        }
    }

    fn is_good(&mut self, node: usize) -> bool {
        let faults = &self.nodes[node].disk.faults;
        let faulty = faults.write_error
            || faults.flush_error_once
            || faults.is_full
            || self.nodes[node].meta.has_failed;
        let in_sync = self
            .newest_record()
            .is_some_and(|r| r.in_sync.has(NodeIdx(node as u8)));
        !faulty
            && in_sync
            && !self.nodes[node].is_condemned
            && self.found(node).is_ok_and(|f| f.disk == Disk::UpToDate)
    }

    /// Another node holds everything and is well.
    pub(super) fn is_spared(&mut self, node: usize) -> bool {
        self.all().filter(|n| *n != node).any(|n| self.is_good(n))
    }

    fn replace_witnesses(&mut self) {
        for node in self.all().end..self.everybody().end {
            let is_broken = self.nodes[node].is_condemned || self.nodes[node].is_gone;
            if is_broken && self.may_lose_its_vote(node) && self.operator.rng.one_in(10) {
                self.replace(node);
            }
        }
    }

    pub(super) fn replace_condemned(&mut self) {
        self.replace_witnesses();
        for node in self.all() {
            // Its process may have ended before it said so.
            let has_failed = self.found(node).is_ok_and(|f| f.disk == Disk::Failed);
            if !self.nodes[node].is_condemned && !has_failed {
                continue;
            }
            if self.is_spared(node) && !self.may_lose_its_vote(node) {
                // The failure was not written down, and the disk is well again: by a register a member
                // is never taken out of service. A process that met it is started again.
                let is_well = self.operator.is_healing && self.has_register() && !has_failed;
                if is_well {
                    self.nodes[node].is_condemned = false;
                    self.kill(node, Some(20 * MS));
                }
                continue;
            }
            if !self.is_spared(node) {
                if self.operator.rng.one_in(200) {
                    // It was the last good copy: what it held is lost.
                    self.count("last copies lost");
                    self.clients.stop_judging();
                    self.replace(node);
                }
                continue;
            }
            let serves = self.primaries().contains(&node);
            let record = self.newest_record();
            let in_sync = record.is_some_and(|r| r.in_sync.has(NodeIdx(node as u8)));
            if !serves && !in_sync && self.operator.rng.one_in(3) {
                self.replace(node);
            } else if self.operator.rng.one_in(30) {
                // It serves through the others, or never got to leave S: take it out of service.
                self.kill(node, None);
                if !in_sync {
                    self.replace(node);
                } else {
                    self.nodes[node].is_gone = true;
                }
            }
        }
        for node in self.all() {
            let record = self.newest_record();
            let in_sync = record.is_some_and(|r| r.in_sync.has(NodeIdx(node as u8)));
            if self.nodes[node].is_gone && !in_sync && self.may_lose_its_vote(node) {
                self.replace(node);
            }
        }
    }

    /// The newest record that anybody voted for, chosen or not.
    pub(super) fn newest_voted(&mut self) -> Option<Record> {
        let held = self.register.record();
        let voted = self.everybody().filter_map(|n| self.found(n).ok()?.voted);
        let voted = voted.chain(held);
        voted.max_by_key(|r| (r.term, r.step))
    }

    /// By votes: the others on the list are a majority of it, and none of them is out of service.
    pub(super) fn may_lose_its_vote(&mut self, node: usize) -> bool {
        let records = [self.newest_record(), self.newest_voted()];
        let records = records.into_iter().flatten();
        let records: Vec<_> = records.filter(|_| self.has_votes()).collect();
        if self.has_register() {
            // Nodes vote after force only, until the register does again.
            let node = NodeIdx(node as u8);
            let is_member = |r: Record| r.in_sync.has(node);
            return !records.iter().any(|r| r.voters.has(node))
                && !self.register.record().is_some_and(is_member);
        }
        let has_vote = |w: &mut World, n: usize| {
            let voted = w.found(n).is_ok_and(|f| f.voted.is_some());
            let is_told = w.operator.is_giving_up(n);
            voted && !is_told && !w.nodes[n].is_gone && !w.nodes[n].meta.has_failed
        };
        let wanted = self.wanted();
        records.into_iter().all(|record| {
            // The list as it is, and as it will be when those are gone that are not wanted any more,
            // if that can be chosen before this node is counted in again.
            let (list, next) = (record.voters, record.voters.and(wanted));
            let votes: NodeSet = list
                .iter()
                .filter(|n| has_vote(self, usize::from(n.0)))
                .collect();
            let others = votes.without(NodeIdx(node as u8));
            is_majority(list, others) && (!is_majority(next, votes) || is_majority(next, others))
        })
    }

    pub(super) fn replace(&mut self, node: usize) {
        self.count("replacements");
        self.kill(node, None);
        self.nodes[node].is_gone = false;
        if std::mem::take(&mut self.nodes[node].brings_back) && self.image_is_older(node) {
            self.bring_back(node);
        } else {
            self.format(node);
        }
        let delay = self.operator.rng.between(1, 50 * MS);
        self.nodes[node].restart_at = Some(self.now + delay);
    }

    /// A primary that does not answer its clients for seconds is taken out of service.
    pub(super) fn kill_the_hung(&mut self) {
        let limit = 3_000 * MS;
        let now = self.now;
        let hung = self
            .clients
            .waiting()
            .find(|(_, r)| r.since + limit < now)
            .map(|(n, _)| n);
        if let Some(node) = hung {
            self.count("hung primaries killed");
            self.kill(node, Some(20 * MS));
        }
        let stuck = self.operator.asked.values().find(|(_, p, since)| {
            since + 12_000 * MS < now && !matches!(p, Purpose::Verify | Purpose::Other)
        });
        if let Some((node, purpose, _)) = stuck.copied() {
            let machine = &self.nodes[node];
            // A flush may take long on a slow disk, and alone nobody goes on without it.
            let waits = self.is_alone() && !machine.pending.is_empty();
            let is_sick = machine.disk.faults.is_hung || machine.meta.is_hung || waits;
            if !is_sick && self.nodes[node].paused_until <= now {
                self.fail("L3", format!("node {node} never answered {purpose:?}"));
            }
        }
    }
}
