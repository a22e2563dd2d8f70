//! Who starts, promotes, replaces and repairs.
//!
//! The sane operator promotes as the manual says: a member of the newest S, never while another
//! node may serve. The bold one promotes a node that is cut off from a live primary; law T9 must
//! find it afterwards. The naive one asks where the core has to refuse.

use std::collections::BTreeMap;
use std::time::Duration;

use engine_core::action::{Answer, CommandError};
use engine_core::event::{Command, CommandId, Event};
use engine_core::message::Disk;
use engine_core::units::NodeIdx;

use crate::plan::Step;
use crate::rng::Rng;
use crate::swarm::MS;
use crate::world::{DiskImage, Happening, Mend, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Promote,
    PromoteNaively,
    PromoteBoldly,
    PromoteByForce,
    Demote,
    Stop,
    Verify,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Switching {
    No,
    Demoting(usize),
    Promoting(usize),
}

/// The operators' memory.
pub struct Operator {
    rng: Rng,
    asked: BTreeMap<u64, (usize, Purpose, u64)>,
    /// Why each node was last told to promote, and whether it could not know then that it may:
    /// started since it was last in touch, and its own record names others.
    promoted_for: BTreeMap<usize, (Purpose, bool)>,
    next: u64,
    switching: Switching,
    /// Somebody was promoted while another may have served.
    pub was_bold: bool,
    /// The whole data was lost and something else was made current by force.
    pub was_forced: bool,
    /// The plan is over: only repair from now on.
    pub is_healing: bool,
    /// Everything is being stopped for good.
    pub is_closing: bool,
    idle_since: u64,
    apart_since: u64,
}

impl Operator {
    /// Knows nothing yet.
    pub fn new(rng: Rng) -> Operator {
        Operator {
            rng,
            asked: BTreeMap::new(),
            promoted_for: BTreeMap::new(),
            next: 1,
            switching: Switching::No,
            was_bold: false,
            was_forced: false,
            is_healing: false,
            is_closing: false,
            idle_since: 0,
            apart_since: 0,
        }
    }

    fn is_asked(&self, purposes: &[Purpose]) -> bool {
        self.asked.values().any(|(_, p, _)| purposes.contains(p))
    }

    fn is_promoting(&self) -> bool {
        self.is_asked(&[
            Purpose::Promote,
            Purpose::PromoteNaively,
            Purpose::PromoteBoldly,
            Purpose::PromoteByForce,
        ])
    }

    /// The primary role is being handed over.
    pub fn is_switching(&self) -> bool {
        self.switching != Switching::No
    }

    /// This node was told to become primary by force.
    pub fn forced(&self, node: usize) -> bool {
        self.promoted_for
            .get(&node)
            .is_some_and(|(p, _)| *p == Purpose::PromoteByForce)
    }

    /// This node was asked to become primary where it must refuse.
    pub fn was_naive(&self, node: usize) -> bool {
        self.promoted_for
            .get(&node)
            .is_some_and(|(p, _)| *p == Purpose::PromoteNaively)
    }

    /// When it was told to promote it had spoken to nobody, and its record named others.
    pub fn began_isolated(&self, node: usize) -> bool {
        self.promoted_for
            .get(&node)
            .is_some_and(|(_, isolated)| *isolated)
    }
}

impl World {
    /// Speaks to a node.
    pub fn command(&mut self, node: usize, command: Command) {
        self.ask_node(node, command, Purpose::Other);
    }

    fn ask_node(&mut self, node: usize, command: Command, purpose: Purpose) {
        if self.nodes[node].engine.is_none() {
            return;
        }
        let id = self.operator.next;
        self.operator.next += 1;
        self.operator.asked.insert(id, (node, purpose, self.now));
        if matches!(command, Command::Promote { .. }) {
            let isolated = self.is_isolated(node);
            self.operator.promoted_for.insert(node, (purpose, isolated));
        }
        self.feed(
            node,
            Event::Command {
                id: CommandId(id),
                command,
            },
        );
    }

    /// This process spoke to nobody yet, and its record names others.
    fn is_isolated(&mut self, node: usize) -> bool {
        let me = NodeIdx(node as u8);
        let named_others = self.found(node).is_ok_and(|f| {
            f.record
                .is_some_and(|r| r.in_sync.count() > 1 || !r.in_sync.has(me))
        });
        named_others && !self.nodes[node].was_in_touch
    }

    /// Commands to a process that is gone are never answered.
    pub fn operator_forgets(&mut self, node: usize) {
        self.operator.asked.retain(|_, (n, ..)| *n != node);
        self.operator.switching = Switching::No;
    }

    /// A node answered a command.
    pub fn answered(&mut self, node: usize, id: CommandId, result: &Result<Answer, CommandError>) {
        let Some((_, purpose, _)) = self.operator.asked.remove(&id.0) else {
            return self.fail("D2", format!("node {node} answers {id:?}, nobody asked"));
        };
        match (purpose, result) {
            (Purpose::PromoteNaively, Ok(Answer::Ok)) => {
                self.fail(
                    "T9",
                    format!("node {node} was promoted and could not know it may"),
                );
            }
            (Purpose::PromoteNaively, Err(_)) => self.count("promotions refused as they must be"),
            (Purpose::PromoteBoldly, Ok(Answer::Ok)) => {
                self.count("bold promotions");
                self.clients.stop_judging();
            }
            (Purpose::PromoteByForce, Ok(_)) => self.count("forced promotions"),
            (Purpose::Demote, Ok(_)) => {
                self.count("demotions");
                if let Switching::Demoting(other) = self.operator.switching {
                    self.operator.switching = Switching::Promoting(other);
                }
            }
            (Purpose::Demote, Err(_)) => self.operator.switching = Switching::No,
            (Purpose::Stop, Ok(_)) => {
                self.count("stops");
                self.nodes[node].is_stopping = true;
                let now = self.now;
                self.nodes[node].restart_at = Some(now + self.nodes[node].stop_for);
            }
            (Purpose::Verify, Ok(Answer::Verify(figures))) => {
                self.count("verifies");
                if figures.different > 0 {
                    let text = format!("verify found a difference that is none: {figures:?}");
                    self.fail("S10", text);
                }
            }
            _ => {}
        }
    }

    /// The operator looks around.
    pub fn operate(&mut self) {
        let delay = self.operator.rng.between(5 * MS, 25 * MS);
        self.schedule(delay, Happening::Operate);
        self.end_stopped();
        for node in self.all() {
            let due = self.nodes[node].restart_at.is_some_and(|at| at <= self.now);
            if self.nodes[node].engine.is_none() && due {
                self.start(node);
            }
        }
        self.replace_condemned();
        self.kill_the_hung();
        self.reconcile_split();
        self.find_a_primary();
    }

    /// A node that answered "stopped" exits.
    fn end_stopped(&mut self) {
        for node in self.all() {
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
    fn is_spared(&mut self, node: usize) -> bool {
        self.all().filter(|n| *n != node).any(|n| self.is_good(n))
    }

    fn replace_condemned(&mut self) {
        for node in self.all() {
            if !self.nodes[node].is_condemned {
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
            if self.nodes[node].is_gone && !in_sync {
                self.replace(node);
            }
        }
    }

    fn replace(&mut self, node: usize) {
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
    fn kill_the_hung(&mut self) {
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
            let is_sick = self.nodes[node].disk.faults.is_hung || self.nodes[node].meta.is_hung;
            if !is_sick && self.nodes[node].paused_until <= now {
                self.fail("L3", format!("node {node} never answered {purpose:?}"));
            }
        }
    }

    /// After boldness: one of the two has to go.
    fn reconcile_split(&mut self) {
        let joined = self.is_healthy();
        if !self.operator.was_bold || joined || !self.operator.is_healing {
            self.operator.apart_since = self.now;
            self.operator.was_bold &= !joined;
            return;
        }
        if self.operator.rng.one_in(8) {
            // Whoever gave up on the other waits for a word.
            for (a, b) in self.net.pairs() {
                self.mend(Mend::Reconnect(a, b));
                self.mend(Mend::Reconnect(b, a));
            }
        }
        if self.now < self.operator.apart_since + 2_000 * MS {
            return;
        }
        self.operator.apart_since = self.now;
        let primaries = self.primaries();
        let alive = self.all().all(|n| self.is_alive(n));
        let cut = self
            .net
            .pairs()
            .iter()
            .any(|(a, b)| self.net.is_cut(*a, *b));
        if alive && !cut && !primaries.is_empty() {
            self.count("split brains resolved");
            let keep = *self.operator.rng.pick(&primaries);
            for node in self.all().filter(|n| *n != keep) {
                self.replace(node);
            }
        }
    }

    fn find_a_primary(&mut self) {
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
        let Some(record) = self.newest_record() else {
            if all_alive {
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
        let is_late = self.now > self.operator.idle_since + 3_000 * MS;
        if !able.is_empty() {
            let node = *self.operator.rng.pick(&able);
            if is_late && self.nodes.iter().any(|n| n.is_gone) {
                // A member is destroyed and cannot be asked; this one holds everything.
                let force = Command::Promote { force: true, wait };
                return self.ask_node(node, force, Purpose::PromoteByForce);
            }
            self.ask_node(node, promote, Purpose::Promote);
        } else if is_late && self.nodes.iter().any(|n| n.is_gone) {
            // What was taken away is all there is: bring it back.
            let now = self.now;
            for machine in self.nodes.iter_mut().filter(|n| n.is_gone) {
                (machine.is_gone, machine.restart_at) = (false, Some(now));
            }
        } else if all_alive && is_late {
            self.force_something(wait);
        }
    }

    /// No member of S is left that could serve: make another copy current by force.
    fn force_something(&mut self, wait: Duration) {
        let with_data = |w: &mut World, n: usize| {
            w.found(n)
                .is_ok_and(|f| f.volume_id != 0 && f.disk != Disk::Failed)
                && !w.nodes[n].is_condemned
        };
        let able: Vec<usize> = self.all().filter(|n| with_data(self, *n)).collect();
        if able.is_empty() {
            // Nothing is left at all: begin anew.
            self.count("volumes lost whole");
            self.clients.stop_judging();
            (0..self.nodes.len()).for_each(|n| self.replace(n));
            return;
        }
        self.clients.stop_judging();
        self.operator.was_bold = true;
        self.operator.was_forced = true;
        let node = *self.operator.rng.pick(&able);
        for other in self.all() {
            self.laws.forget_holdings(other);
        }
        self.ask_node(
            node,
            Command::Promote { force: true, wait },
            Purpose::PromoteByForce,
        );
    }

    /// Carries out a step that is not a client's.
    pub fn trouble(&mut self, step: Step) {
        let count = self.nodes.len();
        let node_of = |n: u64| (n as usize) % count;
        match step {
            Step::Kill { node, down } => self.kill(node_of(node), Some(down)),
            Step::KillAtEvent { node, events, down } => {
                let node = node_of(node);
                self.nodes[node].doom = Some((self.nodes[node].events + events, None, down));
            }
            Step::CutPowerAtEvent {
                node,
                events,
                keep,
                down,
            } => {
                let node = node_of(node);
                self.nodes[node].doom = Some((self.nodes[node].events + events, Some(keep), down));
            }
            Step::KillInMetaWrite { node, writes, down } => {
                self.nodes[node_of(node)].meta_doom = Some((writes, down));
            }
            Step::CutPower { node, down } => self.cut_power(node_of(node), down),
            Step::CutAllPower { down } => {
                for node in self.all() {
                    let extra = self.rng.below(100 * MS);
                    self.cut_power(node, down + extra);
                }
            }
            Step::CutWire { a, b, span } => {
                let (a, b) = (node_of(a), node_of(b));
                self.cut(a, b);
                self.schedule(span, Happening::Mend(Mend::Wire(a, b)));
            }
            Step::StallWire { a, b, span } => {
                let until = self.now + span;
                self.net.wire(node_of(a), node_of(b)).stalled_until = until;
            }
            Step::SlowWire { a, b, factor, span } => {
                let (a, b) = (node_of(a), node_of(b));
                self.net.wire(a, b).slowness = factor;
                self.schedule(span, Happening::Mend(Mend::Calm(a, b)));
            }
            Step::DamageWire { a, b, one_in, span } => {
                let (a, b) = (node_of(a), node_of(b));
                self.net.wire(a, b).damage_one_in = one_in;
                self.schedule(span, Happening::Mend(Mend::Calm(a, b)));
            }
            Step::Pause { node, span } => self.pause(node_of(node), span),
            _ => self.more_trouble(step),
        }
    }

    fn more_trouble(&mut self, step: Step) {
        let count = self.nodes.len();
        let node_of = |n: u64| (n as usize) % count;
        match step {
            Step::WriteErrors { node } if self.is_spared(node_of(node)) => {
                self.nodes[node_of(node)].disk.faults.write_error = true;
            }
            Step::FlushError { node } if self.is_spared(node_of(node)) => {
                self.nodes[node_of(node)].disk.faults.flush_error_once = true;
            }
            Step::MetaErrors { node } if self.is_spared(node_of(node)) => {
                self.nodes[node_of(node)].meta.has_failed = true;
            }
            Step::Full { node, span } if self.is_spared(node_of(node)) => {
                self.nodes[node_of(node)].disk.faults.is_full = true;
                self.schedule(span, Happening::Mend(Mend::Room(node_of(node))));
            }
            Step::ReadErrors { node, span } => {
                self.nodes[node_of(node)].disk.faults.read_error = true;
                self.schedule(span, Happening::Mend(Mend::Reads(node_of(node))));
            }
            Step::Hang { node, span } => {
                self.count("hangs");
                self.nodes[node_of(node)].disk.faults.is_hung = true;
                self.schedule(span, Happening::Mend(Mend::Hang(node_of(node))));
            }
            Step::MetaHang { node, span } => {
                self.nodes[node_of(node)].meta.is_hung = true;
                self.schedule(span, Happening::Mend(Mend::MetaHang(node_of(node))));
            }
            Step::Slow { node, factor, span } => {
                self.nodes[node_of(node)].disk.faults.slowness = factor.max(1);
                self.schedule(span, Happening::Mend(Mend::Speed(node_of(node))));
            }
            Step::PromoteNaively { node } => self.promote_naively(node_of(node)),
            Step::PromoteBoldly { node } => self.promote_boldly(node_of(node)),
            Step::Switch {} => self.switch(),
            Step::Disconnect { node, peer, span } => {
                let (node, peer) = (node_of(node), node_of(peer));
                if node != peer {
                    self.count("disconnects");
                    self.command(node, Command::Disconnect(NodeIdx(peer as u8)));
                    self.schedule(span, Happening::Mend(Mend::Reconnect(node, peer)));
                }
            }
            Step::PauseResync { node, span } => {
                self.command(node_of(node), Command::ResyncPause);
                self.schedule(span, Happening::Mend(Mend::Resync(node_of(node))));
            }
            Step::ResyncRate { node, rate } => {
                self.command(node_of(node), Command::ResyncRate(rate));
            }
            Step::Verify {} => {
                if let Some(node) = self.primaries().first() {
                    self.ask_node(*node, Command::Verify, Purpose::Verify);
                }
            }
            Step::KeepImage { node } => {
                let machine = &mut self.nodes[node_of(node)];
                let (data, meta) = (machine.disk.snapshot(), machine.meta.blocks().clone());
                let life = machine.life;
                machine.image = Some(DiskImage { life, data, meta });
            }
            Step::BringBack { node } if self.nodes[node_of(node)].image.is_some() => {
                self.nodes[node_of(node)].brings_back = true;
                self.more_trouble(Step::Replace { node });
            }
            Step::Replace { node } => {
                let node = node_of(node);
                let serves = self.primaries().contains(&node);
                let others = !self.primaries().is_empty();
                if !serves && others && self.is_spared(node) {
                    // Taken away now, made anew once S knows.
                    self.kill(node, None);
                    self.nodes[node].is_gone = true;
                }
            }
            Step::Stop { node, down } => self.stop(node_of(node), down),
            _ => {}
        }
    }

    /// The last stop of a run.
    pub fn stop_for_good(&mut self, node: usize) {
        self.stop(node, u64::MAX / 4);
    }

    fn stop(&mut self, node: usize, down: u64) {
        if !self.is_alive(node) || self.operator.is_asked(&[Purpose::Stop]) {
            return;
        }
        if self.primaries().contains(&node) {
            self.close_all();
        }
        self.nodes[node].stop_for = down;
        self.ask_node(node, Command::Stop, Purpose::Stop);
    }

    fn switch(&mut self) {
        let primaries = self.primaries();
        let [node] = primaries[..] else { return };
        if self.operator.is_promoting() || self.operator.is_switching() || !self.is_alive(node) {
            return;
        }
        let others: Vec<usize> = self.all().filter(|n| *n != node).collect();
        let other = *self.operator.rng.pick(&others);
        self.count("switches");
        // Some clients leave only when they are told that this node serves no more.
        if self.operator.rng.coin() {
            self.close_all();
        }
        self.operator.switching = Switching::Demoting(other);
        self.ask_node(node, Command::Demote, Purpose::Demote);
        self.close_all();
    }

    /// Plain promote where law T9 says no: another node serves and is connected, or this process
    /// was started after it was last in touch and its own record names others.
    fn promote_naively(&mut self, node: usize) {
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

    fn promote_boldly(&mut self, node: usize) {
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

    /// One primary, everybody in S, nothing left to copy.
    pub fn is_healthy(&mut self) -> bool {
        let primaries = self.primaries();
        let [primary] = primaries[..] else {
            return false;
        };
        let everybody = self
            .all()
            .all(|n| self.is_alive(n) && !self.nodes[n].is_condemned);
        let Ok(found) = self.found(primary) else {
            return false;
        };
        let complete = found
            .record
            .is_some_and(|r| r.in_sync.count() == self.nodes.len() as u32);
        let engine = self.nodes[primary].engine.as_ref().expect("it serves");
        // Both sides must say so: until its keepalive fails, a primary takes a member that lost
        // power for the one it was, and S for whole (F16, law T4).
        let agrees = |n: usize| {
            let member = self.nodes[n].engine.as_ref();
            engine.is_in_sync_with(n) && member.is_some_and(|m| m.is_in_sync_with(primary))
        };
        let joined = self.all().all(|n| n == primary || agrees(n));
        let clean = self.all().all(|n| n == primary || engine.is_clean_for(n));
        everybody && complete && joined && clean && !self.operator.is_promoting()
    }
}
