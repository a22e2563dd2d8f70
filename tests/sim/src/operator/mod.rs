//! Who starts, promotes, replaces and repairs.
//!
//! The sane operator promotes as the manual says: a member of the newest S, never while another
//! node may serve. The bold one promotes a node that is cut off from a live primary; law T9 must
//! find it afterwards. The naive one asks where the core has to refuse.

mod growth;
mod nodes;
mod repair;
mod roles;
mod rot;
mod splits;
mod trouble;

use std::collections::BTreeMap;

use engine_core::action::{Answer, CommandError};
use engine_core::event::{Command, CommandId, Event};
use engine_core::register::REGISTER_ALONE;
use engine_core::units::{NodeIdx, NodeSet};

use crate::rng::Rng;
use crate::swarm::MS;
use crate::world::{Happening, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Promote,
    PromoteNaively,
    PromoteBoldly,
    PromoteByForce,
    TakeOver,
    Demote,
    Stop,
    Verify,
    Rot,
    MarkCreate(u64, u64),
    MarkDelete,
    Grow(u64),
    Nodes,
    GiveUp { is_stale: bool },
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
    /// When the voters that have a vote still were a majority last.
    majority_at: u64,
    apart_since: u64,
    /// Until then a process may be killed that was told to give up its copy, or the other one.
    kills_until: u64,
    /// The block that rotted after the plan, until it is repaired.
    rot: Option<rot::Rot>,
    /// The nodes that the file lists, once it was changed.
    wanted: Option<NodeSet>,
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
            majority_at: 0,
            apart_since: 0,
            kills_until: 0,
            rot: None,
            wanted: None,
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
            Purpose::TakeOver,
        ])
    }

    /// A mark is being made or ended.
    pub fn is_setting_marks(&self) -> bool {
        let is_it = |p: &Purpose| matches!(p, Purpose::MarkCreate(..) | Purpose::MarkDelete);
        self.asked.values().any(|(_, purpose, _)| is_it(purpose))
    }

    /// The volume was told to grow and did not answer yet.
    pub fn is_growing(&self) -> bool {
        let is_it = |p: &Purpose| matches!(p, Purpose::Grow(_));
        self.asked.values().any(|(_, purpose, _)| is_it(purpose))
    }

    fn is_giving_up(&self, node: usize) -> bool {
        let is_it =
            |(n, p, _): &(usize, Purpose, u64)| *n == node && matches!(p, Purpose::GiveUp { .. });
        self.asked.values().any(is_it)
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
        if matches!(command, Command::Promote { .. } | Command::TakeOver { .. }) {
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
        self.rot_verifier_is_gone(node);
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
            // It has a lease still, of voters that cannot choose the next ones: it begins anew.
            (Purpose::PromoteByForce, Ok(Answer::Already)) => self.kill(node, Some(20 * MS)),
            (Purpose::PromoteByForce, Ok(_)) => self.count("forced promotions"),
            (Purpose::TakeOver, Ok(_)) => self.count("take-overs"),
            (Purpose::TakeOver, Err(_)) => self.count("take-overs refused"),
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
            (Purpose::Rot, Ok(Answer::Verify(figures))) => self.rot_verified(Some(figures)),
            (Purpose::Rot, _) => self.rot_verified(None),
            (Purpose::MarkCreate(name, asked), result) => {
                self.mark_created(name, asked, result.is_ok());
            }
            (Purpose::Grow(size), result) => {
                self.growth_answered(node, size, result.as_ref().map(|_| ()));
            }
            (Purpose::GiveUp { is_stale: true }, Ok(_)) => {
                let text = format!("node {node} gave up its copy by a plan that was void");
                self.fail("O5", text);
            }
            (Purpose::GiveUp { .. }, Ok(_)) => self.count("split brains resolved by command"),
            (Purpose::GiveUp { .. }, Err(_)) => self.count("refusals to give up a copy"),
            (Purpose::MarkDelete, Ok(_)) => self.count("marks deleted"),
            (Purpose::Nodes, Ok(_)) => self.count("changes of nodes begun"),
            (Purpose::Nodes, Err(why)) => self.nodes_refused(why),
            _ => {}
        }
    }

    /// The operator looks around.
    pub fn operate(&mut self) {
        let delay = self.operator.rng.between(5 * MS, 25 * MS);
        self.schedule(delay, Happening::Operate);
        self.end_stopped();
        for node in self.everybody() {
            let due = self.nodes[node].restart_at.is_some_and(|at| at <= self.now);
            if self.nodes[node].engine.is_none() && due {
                self.start(node);
            }
        }
        self.undo_hopeless_damage();
        self.replace_condemned();
        if self.is_alone() {
            self.restart_failed();
        }
        self.kill_the_hung();
        self.watch_over_nodes();
        self.reconcile_split();
        match self.has_votes() {
            true => self.watch_over_votes(),
            false => self.find_a_primary(),
        }
    }

    fn are_all_voters(&self, voters: NodeSet) -> bool {
        match self.has_register() {
            true => voters == REGISTER_ALONE,
            false => !self.has_votes() || voters == self.wanted(),
        }
    }

    /// One primary, everybody in S, nothing left to copy.
    pub fn is_healthy(&mut self) -> bool {
        let primaries = self.primaries();
        let [primary] = primaries[..] else {
            return false;
        };
        let everybody = self
            .everybody()
            .all(|n| self.is_alive(n) && !self.nodes[n].is_condemned);
        let Ok(found) = self.found(primary) else {
            return false;
        };
        let is_as_wanted = self.are_nodes_as_wanted();
        let complete = is_as_wanted
            && found
                .record
                .is_some_and(|r| r.in_sync.count() == self.all().len() as u32)
            && found.record.is_some_and(|r| self.are_all_voters(r.voters));
        let engine = self.nodes[primary].engine.as_ref().expect("it serves");
        if self.is_alone() && engine.has_meta_failed() {
            return false;
        }
        // Both sides must say so: until its keepalive fails, a primary takes a member that lost
        // power for the one it was, and S for whole (F16, law T4).
        let agrees = |n: usize| {
            let member = self.nodes[n].engine.as_ref();
            engine.is_in_sync_with(n) && member.is_some_and(|m| m.is_in_sync_with(primary))
        };
        let joined = self.all().all(|n| n == primary || agrees(n));
        let clean = self.all().all(|n| n == primary || engine.is_clean_for(n));
        // What clients gave up waiting for may still be on its way.
        let is_calm = !self.are_writes_under_way();
        everybody && complete && joined && clean && is_calm && !self.operator.is_promoting()
    }
}
