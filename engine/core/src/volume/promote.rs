//! How a node comes to serve: founding, promotion with an operator in the place of a majority, and
//! what an election (`election.rs`) shares with them.
//!
//! ```text
//!  Wait ─► may_promote ─► Promise durable ─► members write the record down ─► Commit ─► Primary
//! ```
//!
//! Members first, the candidate last: if it dies in between, they are ahead by an empty reign
//! of which it was a member, never diverged.

use std::time::Duration;

use crate::action::{Answer, CommandError, Notice};
use crate::event::CommandId;
use crate::generation::{Chain, Entry, Verdict, judge};
use crate::message::{Disk, Message, Refusal, Reign};
use crate::promotion::{Other, Plan, Reach, View, may_promote};
use crate::quorum::Election;
use crate::record::Record;
use crate::register::REGISTER_ALONE;
use crate::session::{self, Session};
use crate::time::Instant;
use crate::units::{NodeIdx, NodeSet, Term};

use super::election::Asked;
use super::record::Becoming;
use super::role::{Role, mix};
use super::{Volume, planted};

pub(super) struct Promotion {
    /// Who asked; nobody if the volume promotes itself.
    pub(super) id: Option<CommandId>,
    force: bool,
    /// A live primary is asked to hand its role over.
    pub(super) takes_over: bool,
    pub(super) deadline: Instant,
    phase: Phase,
}

impl Promotion {
    /// Waits until each peer answered, or is gone.
    pub(super) fn begun(id: Option<CommandId>, force: bool, deadline: Instant) -> Promotion {
        Promotion {
            id,
            force,
            takes_over: false,
            deadline,
            phase: Phase::Wait,
        }
    }

    /// What a hello says stays so.
    pub(super) fn is_settled(&self) -> bool {
        matches!(
            self.phase,
            Phase::Wait | Phase::Trial(_) | Phase::Claim { .. }
        )
    }

    /// Its hellos said that it leads, or is about to.
    pub(super) fn is_known_to_lead(&self) -> bool {
        matches!(self.phase, Phase::Claim { .. } | Phase::Commit { .. })
    }

    /// The term asked for, and whether on trial.
    pub(super) fn question(&self) -> Option<(Term, bool)> {
        match self.phase {
            Phase::Trial(asked) => Some((asked.term, true)),
            Phase::Canvass(asked) => Some((asked.term, false)),
            _ => None,
        }
    }

    /// What a candidate that a majority promised leads already.
    pub(super) fn claim(&self) -> Option<Reign> {
        let Phase::Claim { term, election, .. } = self.phase else {
            return None;
        };
        Some(Reign {
            term,
            members: election.members,
        })
    }
}

#[derive(Clone)]
pub(super) enum Phase {
    /// Until each peer answered or is gone.
    Wait,
    /// The term is promised durably at this superblock version.
    Promise {
        plan: Plan,
        term: Term,
        version: u64,
    },
    /// Members write the record down.
    Offer {
        plan: Plan,
        record: Record,
        waiting: NodeSet,
    },
    /// By votes (`election.rs`): would a majority promise this term?
    Trial(Asked),
    /// The own promise of this term is on its way to disk.
    Vow { term: Term, version: u64 },
    /// A majority is asked to promise this term.
    Canvass(Asked),
    /// Members of the last S are made equal, until this moment.
    Claim {
        term: Term,
        election: Election,
        until: Instant,
    },
    /// The record is being chosen and written down here.
    Commit { is_founding: bool },
}

impl Volume {
    /// `id`: who is answered; nobody if the node promotes itself.
    pub(super) fn begin_promotion(&mut self, id: Option<CommandId>, force: bool, wait: Duration) {
        self.role = Role::Promoting(Promotion::begun(id, force, self.now.after(wait)));
        self.ops.attention = true;
        if self.has_votes() {
            match self.is_founded() {
                true if !force => self.begin_trial(),
                _ => self.ask_for_blank(),
            }
        }
    }

    /// The volume has a history: a record was chosen, or another node's may be.
    fn is_founded(&self) -> bool {
        let sb = &self.durable.sb;
        match self.has_votes() {
            true => sb.record.is_some() || sb.voted.is_some_and(|r| r.primary != self.me),
            false => sb.volume_id != 0,
        }
    }

    pub(super) fn settle_promotion(&mut self) {
        let Role::Promoting(promotion) = &self.role else {
            return;
        };
        let (force, is_due) = (promotion.force, self.now >= promotion.deadline);
        match promotion.phase.clone() {
            // Somebody else founded it while this node waited to: from here on voters decide (law T5).
            Phase::Wait if self.has_votes() && self.is_founded() && !force => self.begin_trial(),
            Phase::Wait => {
                let met = !self.has_votes() || self.blank_voters().contains(self.others());
                if !force && self.is_register_taken() {
                    return self.promotion_ended(Err(CommandError::RegisterTaken));
                }
                if is_due || (met && self.has_everybody_answered()) {
                    self.decide_promotion(force);
                } else if !met {
                    self.ask_for_blank();
                }
            }
            Phase::Promise {
                plan,
                term,
                version,
            } => {
                if self.durable.is_durable(version) && self.attributes.is_settled() {
                    self.offer_record(plan, term);
                }
            }
            Phase::Offer {
                plan,
                record,
                waiting,
            } => {
                let alive = waiting.iter().filter(|n| self.is_with_us(*n));
                let lost = waiting.count() as usize != alive.count();
                if lost {
                    // A member vanished; what it may have written down stays part of our past.
                    let entry = Entry {
                        is_empty: true,
                        ..Entry::new(record.branch, record.term)
                    };
                    self.durable.sb.chain.push(entry);
                    self.decide_promotion(force);
                } else if waiting.is_empty() {
                    self.commit(plan, record);
                }
            }
            Phase::Trial(asked) => self.settle_trial(asked, promotion.takes_over, is_due),
            Phase::Vow { term, version } => {
                if self.durable.is_durable(version) {
                    self.vowed(term);
                } else if is_due {
                    // Its metadata hangs. What it wrote binds only itself.
                    self.promotion_ended(Err(CommandError::TimedOut));
                }
            }
            Phase::Canvass(asked) => self.settle_canvass(asked, is_due),
            Phase::Claim {
                term,
                election,
                until,
            } => self.settle_claim(term, election, until),
            // Whether it is chosen after all is seen by the next candidate.
            Phase::Commit { .. } if is_due && self.has_votes() => self.give_up_promotion(),
            Phase::Commit { .. } => {}
        }
    }

    pub(super) fn is_with_us(&self, node: NodeIdx) -> bool {
        matches!(self.peers.get(node).session, Session::InSync(_))
    }

    fn has_everybody_answered(&self) -> bool {
        self.durable.change.is_none()
            && self.adopting.is_none()
            && self.peers.iter().all(|peer| match peer.session {
                Session::Handshake(_) | Session::Exchange(..) => false,
                Session::Connecting => peer.unreachable || peer.last_refusal.is_some(),
                _ => true,
            })
    }

    fn view(&self) -> View {
        let other = |node: NodeIdx| {
            let peer = self.peers.get(node);
            let reach = match peer.session {
                Session::Standalone(Refusal::Operator) => Reach::Gone,
                Session::Standalone(_) | Session::Parted(..) => Reach::Split,
                Session::Exchange(_, session::Plan::Parted(_)) => Reach::Split,
                Session::Connecting | Session::Handshake(_) if peer.parting.is_some() => {
                    Reach::Split
                }
                Session::Connecting if peer.unreachable => Reach::Gone,
                Session::Connecting | Session::Handshake(_) => Reach::Silent,
                _ => self.reach(node),
            };
            Other {
                node,
                reach,
                vanished_in_sync: peer.vanished_in_sync,
            }
        };
        let witness = |node: NodeIdx| {
            let reach = match self.blank_voters().has(node) {
                true => Reach::Answered {
                    disk: Disk::Blank,
                    is_primary: false,
                    is_whole: true,
                    is_ahead: false,
                    is_in_sync: false,
                },
                false => Reach::Gone,
            };
            Other {
                node,
                reach,
                vanished_in_sync: false,
            }
        };
        let witnesses = self.others().minus(self.replicas());
        let witnesses: Vec<Other> = witnesses.iter().map(witness).collect();
        View {
            me: self.me,
            is_founded: self.is_founded(),
            disk: self.disk(),
            is_whole: self.durable.sb.whole,
            record: self.record(),
            others: self.peers.nodes().map(other).chain(witnesses).collect(),
        }
    }

    fn reach(&self, node: NodeIdx) -> Reach {
        let peer = self.peers.get(node);
        let Some(hello) = &peer.hello else {
            return Reach::Silent;
        };
        // Founding by votes needs the vote of everybody it counts on.
        let is_mute = self.has_votes() && !self.is_founded() && !self.blank_voters().has(node);
        if is_mute {
            return Reach::Silent;
        }
        let is_in_sync = matches!(peer.session, Session::InSync(_));
        // A founding that did not end left an identity and nothing else.
        let sb = &self.durable.sb;
        let was_founded = hello.record.is_some() || sb.record.is_some();
        let is_same = hello.volume_id == sb.volume_id && sb.volume_id != 0;
        let disk = match self.has_votes() && !was_founded && is_same {
            true => Disk::Blank,
            false => peer.disk,
        };
        let verdict = judge(&self.durable.sb.chain, &hello.chain);
        Reach::Answered {
            disk,
            is_primary: peer.is_primary,
            is_whole: hello.is_whole,
            is_ahead: !is_in_sync && verdict == Verdict::Behind,
            is_in_sync,
        }
    }

    fn decide_promotion(&mut self, force: bool) {
        let mut plan = may_promote(&self.view(), force);
        if planted!(self, PromoteAnyone) && matches!(plan, Err(CommandError::MayHaveGoneOn(_))) {
            plan = Ok(Plan::Continue {
                with: NodeSet::EMPTY,
            });
        }
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => return self.promotion_ended(Err(error)),
        };
        if self.has_votes() {
            return self.reign_alone(plan, force);
        }
        self.drop_unagreed();
        if plan == Plan::Force {
            self.distrust_marks();
        }
        let term = self.next_term();
        self.durable.sb.promised = term;
        let version = self.durable.touch();
        self.set_phase(Phase::Promise {
            plan,
            term,
            version,
        });
    }

    /// Founding, or by an operator's word: S = {self}, and no earlier record to follow.
    fn reign_alone(&mut self, plan: Plan, force: bool) {
        let term = self.next_term();
        if plan == Plan::Force {
            self.distrust_marks();
        }
        let voters = match plan {
            // Whoever is there may be the rest of a volume that is given up.
            _ if force => NodeSet::only(self.me),
            Plan::Found if self.has_register() => REGISTER_ALONE,
            Plan::Found => self.blank_voters().with(self.me),
            _ => NodeSet::only(self.me),
        };
        // A founding that was cut short may have been chosen: this one follows it.
        let cut_short = self.durable.sb.voted.filter(|_| self.has_loose_founding());
        let branch = match cut_short.filter(|_| plan == Plan::Found) {
            Some(record) => record.branch,
            None => mix(self.setup.entropy, term.0),
        };
        let record = Record::first(term, NodeSet::only(self.me), branch, voters);
        self.commit(plan, record);
    }

    pub(super) fn is_on_trial(&self) -> bool {
        let Role::Promoting(promotion) = &self.role else {
            return false;
        };
        matches!(promotion.phase, Phase::Trial(_))
    }

    pub(super) fn set_phase(&mut self, phase: Phase) {
        if let Role::Promoting(promotion) = &mut self.role {
            promotion.phase = phase;
        }
        self.ops.attention = true;
    }

    fn offer_record(&mut self, plan: Plan, term: Term) {
        let branch = match (plan, self.durable.sb.record) {
            (Plan::Continue { .. }, Some(record)) => record.branch,
            _ => mix(self.setup.entropy, term.0),
        };
        let with = match plan {
            Plan::Continue { with } => with.iter().filter(|n| self.is_with_us(*n)).collect(),
            _ => NodeSet::EMPTY,
        };
        let in_sync = with.with(self.me);
        let record = Record::first(term, in_sync, branch, NodeSet::EMPTY);
        let mut chain: Chain = self.durable.sb.chain.clone();
        chain.push(Entry::new(branch, term));
        for node in with.iter() {
            self.tell_table(node, term);
            self.say(
                node,
                Message::Record {
                    record,
                    chain: chain.clone(),
                    lives: Box::default(),
                },
            );
        }
        self.set_phase(Phase::Offer {
            plan,
            record,
            waiting: with,
        });
    }

    /// A member wrote the offered record down.
    pub(super) fn offer_acked(&mut self, node: NodeIdx, term: Term, step: u32) {
        if let Role::Promoting(Promotion {
            phase: Phase::Offer {
                record, waiting, ..
            },
            ..
        }) = &mut self.role
            && (record.term, record.step) == (term, step)
        {
            *waiting = waiting.without(node);
        }
    }

    pub(super) fn commit(&mut self, plan: Plan, record: Record) {
        let becoming = match plan {
            Plan::Found if self.durable.sb.volume_id != 0 => {
                Becoming::Founder(self.durable.sb.volume_id)
            }
            Plan::Found => Becoming::Founder(mix(self.setup.entropy, record.term.0 ^ u64::MAX)),
            Plan::Force => Becoming::Forced,
            Plan::Continue { .. } => Becoming::Member,
        };
        let is_founding = plan == Plan::Found;
        let patience = self.now.after(self.setup.lease * 2);
        if let Role::Promoting(promotion) = &mut self.role {
            promotion.deadline = promotion.deadline.max(patience);
        }
        self.set_phase(Phase::Commit { is_founding });
        self.propose_record(record, true, becoming);
    }

    /// A newer record came while this node was about to reign: nothing was promised to clients.
    pub(super) fn give_up_promotion(&mut self) {
        let Role::Promoting(promotion) = &self.role else {
            return;
        };
        if matches!(promotion.phase, Phase::Wait | Phase::Trial(_)) {
            return;
        }
        match self.durable.change {
            // It is chosen, and will be in force here.
            Some(change) if change.version.is_some() && self.has_votes() => return,
            Some(change) if change.version.is_none() => self.durable.change = None,
            _ => {}
        }
        self.promotion_ended(Err(CommandError::TimedOut));
    }

    /// The store chose somebody else, or S changed under us: nothing was promised to clients.
    pub(super) fn record_refused(&mut self) {
        if matches!(self.role, Role::Promoting(_)) {
            self.promotion_ended(Err(CommandError::TimedOut));
        }
    }

    pub(super) fn promotion_ended(&mut self, result: Result<Answer, CommandError>) {
        if result == Err(CommandError::TimedOut) && self.tries_again() {
            return;
        }
        let Role::Promoting(promotion) = std::mem::replace(&mut self.role, Role::Secondary) else {
            return;
        };
        if result.is_err() && self.has_votes() {
            // What was said as a candidate holds no more.
            if promotion.is_known_to_lead() {
                self.peers.nodes().for_each(|node| self.drop_link(node));
            }
            let span = self.setup.lease / 2;
            let pause = self.setup.lease / 8 + self.draw(span);
            self.postpone_election(self.now.after(pause));
        }
        match (promotion.id, result) {
            (Some(id), result) => self.reply(id, result),
            (None, Err(error)) => self.note_not_elected(error),
            (None, Ok(_)) => {}
        }
        self.ops.attention = true;
    }

    /// A record came into force: a candidate serves now; whoever is not in S begins anew.
    pub(super) fn record_in_force(&mut self) {
        if let Role::Promoting(Promotion {
            phase: Phase::Commit { is_founding },
            ..
        }) = self.role
        {
            let record = self.record().expect("a promotion has a record");
            if self.has_votes() && self.durable.sb.promised > record.term {
                // Somebody else was promised more before it began (law T5).
                return self.promotion_ended(Err(CommandError::TimedOut));
            }
            if is_founding {
                self.notice(Notice::Founded {
                    branch: record.branch,
                });
            }
            self.promotion_ended(Ok(Answer::Ok));
            self.role = Role::Primary;
            self.votes.lease.forget();
            self.ask_for_lease();
            self.log.retouch(self.flush.started);
            self.notice(Notice::Promoted { term: record.term });
            self.tell_state();
        }
        let in_sync = self.in_sync();
        for node in self.peers.nodes() {
            let peer = self.peers.get(node);
            // Who was told a record that this one replaces waits for nothing more: it begins anew.
            let pulls = matches!(peer.session, Session::Source(_)) && !peer.source.is_joining();
            let belongs = in_sync.has(node) || pulls;
            if peer.is_connected() && !belongs && peer.disk != Disk::Failed {
                self.drop_link(node);
            } else if in_sync.has(node) && matches!(peer.session, Session::InSync(_)) {
                self.peers.get_mut(node).unstable.clear();
            }
        }
    }
}
