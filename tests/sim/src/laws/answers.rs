//! What clients are told (laws R2, R3, R7, R10, B5, B8).

use std::collections::BTreeMap;

use engine_core::action::{Action, Notice, Outcome};
use engine_core::message::{Disk, Refusal};

use crate::clients::{Kind, Request, number};
use crate::plan::Step;
use crate::world::World;

impl World {
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

    /// F16, R10: what an honest node says can be heard where it arrives, and is no breach.
    pub fn law_words_are_timely(&mut self, node: usize, actions: &[Action]) {
        let (why, by_us) = (Refusal::Breach, true);
        let is_damage = |(_, step): &(u64, Step)| matches!(step, Step::DamageWire { .. });
        let is_breach = |action: &&Action| match action {
            Action::Notice(Notice::PeerRefused {
                why: w, by_us: b, ..
            }) => (*w, *b) == (why, by_us),
            _ => false,
        };
        let breach = actions.iter().find(is_breach);
        if let Some(breach) = breach.filter(|_| !self.plan.steps.iter().any(is_damage)) {
            let text =
                format!("node {node} takes a word of an honest node for a breach: {breach:?}");
            self.fail("R10", text);
        }
    }

    /// It confirmed, and lost pages in a power cut or a failed flush since.
    pub(super) fn is_excused(&self, member: usize) -> bool {
        let machine = &self.nodes[member];
        // It was made anew while the record that takes it in was being chosen.
        let is_another = self.peek(member).is_none_or(|f| f.record.is_none());
        is_another
            || self.laws.must_leave[member]
            || machine.has_failed_flush
            || machine.is_condemned
    }

    pub(super) fn holds_at_least(
        &self,
        node: usize,
        block: u64,
        wanted: u64,
        is_durable: bool,
    ) -> bool {
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
            // An old image took the place of what confirmed it: the next record leaves it out.
            let is_gone = self.nodes[member].is_rolled_back;
            if is_gone || !is_durable && self.is_excused(member) {
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
        // A target outside S may hold it too, or have joined by who holds it; of zeros nobody can
        // tell but by what is there.
        let members = self.required(node);
        let holds = |n: usize, block: u64| match request.kind {
            Kind::Write => self.holds_at_least(n, block, request.number, false),
            _ => {
                let there = |n: usize| self.nodes[n].disk.live().block(block);
                members.iter().any(|member| there(n) == there(*member))
            }
        };
        let stores = |n: &usize| {
            self.peek(*n).is_some_and(|f| f.disk != Disk::Blank)
                && blocks.iter().all(|b| holds(*n, *b))
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
        self.situation_flushed();
        if !must.is_empty() {
            self.count("flushes that promise something");
        }
    }
}
