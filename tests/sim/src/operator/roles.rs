//! Who is promoted, when, and who is only asked to be: sane, naive, bold and by force.

use std::time::Duration;

use engine_core::event::Command;
use engine_core::message::Disk;
use engine_core::record::Record;
use engine_core::table::Entry;
use engine_core::units::NodeIdx;

use super::{Purpose, Switching};
use crate::swarm::MS;
use crate::world::World;

impl World {
    pub(super) fn find_a_primary(&mut self) {
        if !self.primaries().is_empty() {
            self.operator.idle_since = self.now;
            return;
        }
        let is_busy = |n: usize| {
            self.nodes[n]
                .engine
                .as_ref()
                .is_some_and(|e| !e.is_secondary())
        };
        let one_is_busy = self.all().any(is_busy);
        if self.operator.is_promoting() || self.operator.is_closing || one_is_busy {
            return;
        }
        if let Switching::Demoting(_) = self.operator.switching {
            return;
        }
        let wait = Duration::from_millis(self.operator.rng.between(10, 600));
        let promote = Command::Promote { force: false, wait };
        let all_alive = self
            .all()
            .all(|n| self.is_alive(n) && !self.nodes[n].is_stopping);
        let is_late = self.now > self.operator.idle_since + 3_000 * MS;
        let Some(record) = self.newest_record() else {
            let founded = |w: &mut World, n: usize| w.found(n).is_ok_and(|f| f.volume_id != 0);
            if all_alive && is_late && self.all().any(|n| founded(self, n)) {
                // It was founded once, and whoever had a record was lost.
                self.force_something(wait);
            } else if all_alive && is_late && self.do_sizes_differ() {
                // One grew before the volume was lost whole, the other was made anew since.
                self.count("foundings begun anew");
                self.everybody().for_each(|n| self.replace(n));
            } else if all_alive {
                let node = self.operator.rng.below(self.nodes.len() as u64) as usize;
                self.ask_node(node, promote, Purpose::Promote);
            }
            return;
        };
        let mut able: Vec<usize> = self
            .all()
            .filter(|n| self.is_alive(*n) && !self.nodes[*n].is_stopping)
            .filter(|n| record.in_sync.has(NodeIdx(*n as u8)) && !self.nodes[*n].is_condemned)
            .collect();
        able.retain(|n| self.found(*n).is_ok_and(|f| f.disk == Disk::UpToDate));
        if let Switching::Promoting(other) = self.operator.switching {
            self.operator.switching = Switching::No;
            if able.contains(&other) {
                able = vec![other];
            }
        }
        let is_forced = is_late && self.nodes.iter().any(|n| n.is_gone);
        // Whoever put an old disk back knows that it does not hold everything.
        able.retain(|n| !self.nodes[*n].is_rolled_back);
        if !able.is_empty() {
            let node = *self.operator.rng.pick(&able);
            if is_forced {
                // A member is destroyed and cannot be asked; this one holds everything.
                let force = Command::Promote { force: true, wait };
                return self.ask_node(node, force, Purpose::PromoteByForce);
            }
            self.ask_node(node, promote, Purpose::Promote);
        } else if is_forced {
            // What was taken away is all there is: bring it back.
            let now = self.now;
            for machine in self.nodes.iter_mut().filter(|n| n.is_gone) {
                (machine.is_gone, machine.restart_at) = (false, Some(now));
            }
        } else if all_alive && is_late {
            self.force_something(wait);
        }
    }

    /// Where a majority chooses, nodes promote themselves: the operator founds, hands over, and helps
    /// where a majority or all members of S are destroyed.
    pub(super) fn watch_over_votes(&mut self) {
        if !self.primaries().is_empty() {
            self.operator.idle_since = self.now;
        }
        let is_idle = self.now > self.operator.idle_since + 300 * MS;
        if self.operator.is_promoting() || self.operator.is_closing {
            return;
        }
        if let Switching::Promoting(other) = self.operator.switching {
            self.operator.switching = Switching::No;
            let wait = Duration::from_millis(self.operator.rng.between(500, 3000));
            let promote = Command::Promote { force: false, wait };
            return self.ask_node(other, promote, Purpose::Promote);
        }
        let wait = Duration::from_millis(self.operator.rng.between(100, 3000));
        let promote = Command::Promote { force: false, wait };
        let all_alive = self
            .everybody()
            .all(|n| self.is_alive(n) && !self.nodes[n].is_stopping);
        let Some(newest) = self.newest_record() else {
            if all_alive && self.now > self.operator.idle_since + 20_000 * MS {
                // Two began to found it, and neither got a majority: nothing was ever stored.
                self.count("foundings begun anew");
                self.operator.idle_since = self.now;
                self.everybody().for_each(|n| self.replace(n));
                return self.forget_votes();
            }
            if all_alive && self.operator.rng.one_in(3) {
                let node = self.operator.rng.below(self.plan.settings.nodes) as usize;
                self.ask_node(node, promote, Purpose::Promote);
            }
            return;
        };
        let voted = self.newest_voted().unwrap_or(newest);
        let newest = if voted.is_released { voted } else { newest };
        if is_idle && newest.is_released && self.operator.rng.one_in(10) {
            let members: Vec<usize> = newest.in_sync.iter().map(|n| usize::from(n.0)).collect();
            let node = *self.operator.rng.pick(&members);
            return self.ask_node(node, promote, Purpose::Promote);
        }
        let is_late = self.now > self.operator.idle_since + 20_000 * MS;
        if is_late {
            // What was taken away is all of S by now: it is brought back.
            let now = self.now;
            for node in newest.in_sync.iter().map(|n| usize::from(n.0)) {
                let machine = &mut self.nodes[node];
                if std::mem::take(&mut machine.is_gone) {
                    (machine.brings_back, machine.restart_at) = (false, Some(now));
                }
            }
        }
        // Who voted for a founding that came to nothing is made anew.
        for node in self.everybody() {
            let holder = usize::from(newest.primary.0);
            let own = self.found(holder).map_or(0, |f| f.volume_id);
            let is_stranger = self.found(node).is_ok_and(|f| {
                f.record.is_none() && f.volume_id != 0 && f.volume_id != own && own != 0
            });
            if is_stranger && self.operator.is_healing && self.operator.rng.one_in(50) {
                self.replace(node);
            }
        }
        let is_whole = |w: &mut World, n: usize| {
            let found = w.found(n);
            let is_up = found.is_ok_and(|f| f.disk == Disk::UpToDate);
            is_up && !w.nodes[n].is_gone && !w.nodes[n].lost_power
        };
        let mut members = voted.in_sync.iter().map(|n| usize::from(n.0));
        let is_lost = is_late && !members.any(|n| is_whole(self, n));
        let is_destroyed = |n: usize| self.nodes[n].is_gone || self.nodes[n].is_condemned;
        if is_late && (is_lost || self.everybody().any(is_destroyed)) {
            self.operator.idle_since = self.now;
            return self.force_something(wait);
        }
        if self.is_majority_left(&voted) {
            self.operator.majority_at = self.now;
        } else if self.now > self.operator.majority_at + 20_000 * MS {
            // Disks replaced and put back: no vote is left that could admit another one.
            self.operator.majority_at = self.now;
            self.count("majorities lost for good");
            self.force_something(wait);
        }
    }

    /// The nodes that know that they voted could choose the next record.
    fn is_majority_left(&mut self, voted: &Record) -> bool {
        if self.has_register() {
            return true;
        }
        let knows = |w: &mut World, n: usize| {
            let is_known = w.found(n).is_ok_and(|f| f.voted.is_some());
            let machine = &w.nodes[n];
            let is_fit = !machine.is_gone && !machine.is_condemned && !machine.meta.has_failed;
            is_known && is_fit && !machine.is_rolled_back
        };
        let voters: Vec<usize> = voted.voters.iter().map(|n| usize::from(n.0)).collect();
        let left = voters.iter().filter(|n| knows(self, **n)).count();
        2 * left > voters.len()
    }

    fn do_sizes_differ(&self) -> bool {
        let own = self.granules_on(0);
        self.all().any(|n| self.granules_on(n) != own)
    }

    /// No member of S is left that could serve: make another copy current by force.
    fn force_something(&mut self, wait: Duration) {
        let with_data = |w: &mut World, n: usize| {
            let index = NodeIdx(n as u8);
            w.found(n).is_ok_and(|f| {
                // A daemon does nothing for a volume that it is no part of any more (E285).
                let entry = f.table.as_ref().map(|table| table.entry(index));
                let is_part = entry.is_none_or(|e| e.is_some_and(Entry::is_live));
                is_part && f.volume_id != 0 && f.disk != Disk::Failed
            }) && !w.nodes[n].is_condemned
        };
        let able: Vec<usize> = self.all().filter(|n| with_data(self, *n)).collect();
        if able.is_empty() {
            // Nothing is left at all: begin anew.
            self.count("volumes lost whole");
            self.clients.stop_judging();
            self.everybody().for_each(|n| self.replace(n));
            self.forget_votes();
            return;
        }
        self.clients.stop_judging();
        self.operator.was_bold = true;
        self.operator.was_forced = true;
        // Who serves, and waits for a majority that is gone, is told itself.
        let node = match self.primaries()[..] {
            [primary] => primary,
            _ => *self.operator.rng.pick(&able),
        };
        for other in self.all() {
            self.laws.forget_holdings(other);
        }
        self.ask_node(
            node,
            Command::Promote { force: true, wait },
            Purpose::PromoteByForce,
        );
    }

    pub(super) fn switch(&mut self) {
        let primaries = self.primaries();
        let [node] = primaries[..] else { return };
        if self.operator.is_promoting() || self.operator.is_switching() || !self.is_alive(node) {
            return;
        }
        let others: Vec<usize> = self.all().filter(|n| *n != node).collect();
        // Alone, it comes back to where it was.
        let other = match others[..] {
            [] => node,
            _ => *self.operator.rng.pick(&others),
        };
        self.count("switches");
        // Some clients leave only when they are told that this node serves no more.
        if self.operator.rng.coin() {
            self.close_all();
        }
        if !self.is_alive(node) {
            // It died of that.
            return;
        }
        self.operator.switching = Switching::Demoting(other);
        self.ask_node(node, Command::Demote, Purpose::Demote);
        self.close_all();
    }

    /// `pollux promote` on a node while another one serves: who serves hands over, or refuses to.
    pub(super) fn take_over(&mut self, node: usize) {
        let is_possible = self.has_votes() && !self.is_witness(node) && self.is_alive(node);
        let busy = self.operator.is_promoting() || self.operator.is_closing;
        let serves = self.primaries();
        if is_possible && !busy && !serves.is_empty() && !serves.contains(&node) {
            let wait = Duration::from_millis(self.operator.rng.between(50, 2000));
            self.ask_node(node, Command::TakeOver { wait }, Purpose::TakeOver);
        }
    }

    /// Plain promote where law T9 says no: another node serves and is connected, or this process
    /// was started after it was last in touch and its own record names others.
    pub(super) fn promote_naively(&mut self, node: usize) {
        if !self.is_alive(node) || self.operator.is_promoting() {
            return;
        }
        let serves = self.primaries();
        let engine = self.nodes[node].engine.as_ref().expect("it is alive");
        let in_touch = |n: &usize| *n != node && engine.is_connected(*n);
        let elsewhere = !serves.contains(&node) && serves.iter().any(in_touch);
        let isolated = !serves.contains(&node) && self.is_isolated(node);
        if elsewhere || isolated {
            let promote = Command::Promote {
                force: false,
                wait: Duration::ZERO,
            };
            self.ask_node(node, promote, Purpose::PromoteNaively);
        }
    }

    pub(super) fn promote_boldly(&mut self, node: usize) {
        let serves = self.primaries();
        let is_cut = self.all().any(|n| n != node && self.net.is_cut(n, node));
        let busy = self.operator.is_promoting() || self.operator.is_switching();
        if !self.is_alive(node) || serves.is_empty() || serves.contains(&node) || busy || !is_cut {
            return;
        }
        self.operator.was_bold = true;
        self.clients.stop_judging();
        let wait = Duration::from_millis(20);
        self.ask_node(
            node,
            Command::Promote { force: false, wait },
            Purpose::PromoteBoldly,
        );
    }
}
