//! The role moves to a node that asks for it, while a majority chooses (`operation.md` 2).
//!
//! ```text
//!  heir                                     who reigns
//!  TakeOver ─► Trial, HandOver{term} ─────► admits nothing, requests run out, flush round, log closed,
//!                                           one more round: members heard that all is stable
//!  begins its trial anew ◄─── Release{to} ─ no lease, secondary; every voter hears the same
//!  Promise ─► … ─► Primary                  heir silent for ¾ of a lease ─► any member, this one
//!                                           first among them, is elected as after a crash
//! ```
//!
//! Until the release nothing has changed: if the heir is lost, or the requests do not end within the
//! lease, who reigned serves on. After it an election decides as after any other end of a reign, so
//! nothing here can make two nodes reign; it only says who goes first.

use std::time::Duration;

use crate::action::{CommandError, Notice};
use crate::event::CommandId;
use crate::message::Disk;
use crate::time::Instant;
use crate::units::{NodeIdx, Term};
use crate::vote::Vote;

use super::Volume;
use super::election::Asked;
use super::promote::{Phase, Promotion};
use super::role::Role;
use super::voters::ASK_AGAIN;

/// A role that was handed over, until somebody reigns again.
#[derive(Clone, Copy)]
pub(super) struct Handed {
    term: Term,
    to: NodeIdx,
    said_at: Instant,
    /// Others let the heir go first until then.
    until: Instant,
}

impl Volume {
    /// Becomes primary; a live primary is asked to hand its role over.
    pub(super) fn take_over(&mut self, id: CommandId, wait: Duration) {
        // Also who stands by itself: another node may serve on after all.
        let is_free = matches!(self.role, Role::Secondary) || self.role.promotes_itself();
        let was_asked = self.has_votes() && is_free;
        self.promote(id, false, wait);
        if was_asked && let Role::Promoting(promotion) = &mut self.role {
            promotion.takes_over = true;
            self.ask_for_role();
        }
    }

    /// Asks who reigns, again with every trial, if this node can follow it as a member of S.
    pub(super) fn ask_for_role(&mut self) {
        let Role::Promoting(promotion) = &self.role else {
            return;
        };
        let record = self.record().filter(|r| r.primary != self.me);
        if let Some(record) = record.filter(|_| promotion.takes_over) {
            let term = record.term;
            self.say_vote(record.primary, Vote::HandOver { term });
        }
    }

    /// Somebody else was quicker: who was told to take the role over asks that one, as long as its
    /// operator waits.
    pub(super) fn tries_again(&mut self) -> bool {
        let now = self.now;
        let goes_on = |p: &Promotion| p.takes_over && now < p.deadline;
        let Role::Promoting(promotion) = &self.role else {
            return false;
        };
        let (goes_on, is_known) = (goes_on(promotion), promotion.is_known_to_lead());
        if goes_on {
            if is_known {
                self.peers.nodes().for_each(|node| self.drop_link(node));
            }
            let term = self.next_term();
            self.set_phase(Phase::Trial(Asked::at(now, term)));
        }
        goes_on
    }

    /// Why `primary` cannot hand over to this node, now or at all.
    pub(super) fn why_not_handed_over(&self, primary: NodeIdx) -> CommandError {
        let source = Some(primary);
        match self.disk() {
            Disk::UpToDate if self.in_sync().has(self.me) => CommandError::NotHandedOver(primary),
            Disk::UpToDate | Disk::Outdated => CommandError::Outdated { source },
            Disk::Blank | Disk::Inconsistent => CommandError::Inconsistent { source },
            Disk::Failed => CommandError::DiskFailed,
        }
    }

    /// No wait makes this copy one that can reign while another node does.
    pub(super) fn is_unfit(&self) -> bool {
        !matches!(self.disk(), Disk::UpToDate | Disk::Outdated)
    }

    /// A node asks for the role that this one has.
    pub(super) fn role_wanted(&mut self, from: NodeIdx, term: Term) {
        let reigns = self.role.is_primary()
            && self.holds_lease()
            && self.record().is_some_and(|r| r.term == term);
        if reigns && self.durable.change.is_none() && self.may_follow(from) {
            self.begin_hand_over(from);
        }
    }

    /// It holds all that was acknowledged, and every write goes to it.
    pub(super) fn may_follow(&self, node: NodeIdx) -> bool {
        let is_connected = self.peers.find(node).is_some() && self.is_with_us(node);
        is_connected
            && self.in_sync().has(node)
            && self.peers.get(node).disk == Disk::UpToDate
            && !self.durable.has_failed
    }

    /// So long only the heir is a candidate; then who handed over, then other members.
    fn head_start(&self) -> Duration {
        self.setup.lease * 3 / 4
    }

    /// As long as before the release nothing was promised to the heir.
    pub(super) fn keep_role(&mut self, to: NodeIdx) {
        self.role = Role::Primary;
        self.notice(Notice::KeptRole { to });
        self.ops.attention = true;
    }

    /// Everything is stable and everybody knows: voters are free, and let the heir go first.
    pub(super) fn release_role(&mut self, to: NodeIdx) {
        let term = self.record().map_or(Term(0), |r| r.term);
        self.release_lease(Some(to));
        let until = self.now.after(self.head_start());
        self.votes.handed = Some(Handed {
            term,
            to,
            said_at: self.now,
            until,
        });
        self.votes.election_at = until;
        self.lay_role_down();
    }

    /// Every tick of who handed its role over: whoever did not hear of it hears it again.
    pub(super) fn tick_handed(&mut self) {
        let Some(handed) = self.votes.handed else {
            return;
        };
        let is_followed = self.record().is_none_or(|r| r.term != handed.term);
        if is_followed || self.role.is_serving() {
            return self.votes.handed = None;
        }
        if self.now < handed.until && self.now.since(handed.said_at) >= ASK_AGAIN {
            let (term, to) = (handed.term, Some(handed.to));
            self.say_vote_to(self.others(), &Vote::Release { term, to });
            self.votes.handed = Some(Handed {
                said_at: self.now,
                ..handed
            });
        }
    }

    /// Who reigned says that it does not any more, and who shall.
    pub(super) fn released(&mut self, from: NodeIdx, term: Term, to: Option<NodeIdx>) {
        let is_newest = self.record().is_some_and(|r| r.term == term);
        let lets_go_first = is_newest && term.author() == from && to.is_some_and(|n| n != self.me);
        if lets_go_first && self.role.promotes_itself() && self.is_on_trial() {
            self.promotion_ended(Err(CommandError::TimedOut));
        }
        let grant = &mut self.votes.grant;
        // Said again, it delays nobody again.
        if grant.term == term && term.author() == from && self.now < grant.until {
            grant.until = self.now;
            match to.filter(|node| *node != self.me) {
                Some(_) => self.postpone_election(self.now.after(self.head_start())),
                None => self.votes.election_at = self.now,
            }
        }
        let is_ours = to == Some(self.me) && is_newest;
        if is_ours && self.is_on_trial() {
            self.begin_trial();
        }
    }
}
