//! Roles: founding, promotion, demotion, stop.
//!
//! ```text
//!  Wait ─► may_promote ─► Promise durable ─► members write the record down ─► Commit ─► Primary
//!  Primary ─► Demoting: drain, flush round, close the log ─► Secondary
//!  any ─► Stopping: as demote, then flush, mark clean ─► Stopped
//! ```
//!
//! Members first, the candidate last: if it dies in between, they are ahead by an empty reign
//! of which it was a member, never diverged.

use std::time::Duration;

use crate::action::{Action, Answer, CommandError, Notice, Outcome};
use crate::event::{CommandId, DiskResult};
use crate::generation::{Chain, Entry, Verdict, judge};
use crate::message::{Disk, Life, Message, Refusal, Reign};
use crate::meta;
use crate::promotion::{Other, Plan, Reach, View, may_promote};
use crate::quorum::{Election, Grant};
use crate::record::Record;
use crate::register::REGISTER_ALONE;
use crate::session::{self, Session};
use crate::time::Instant;
use crate::units::{NodeIdx, NodeSet, Term};

use super::election::Asked;
use super::ops::{Purpose, token};
use super::record::Becoming;
use super::timers::DRAIN;
use super::{Volume, planted};

/// What this node does for the volume.
pub(super) enum Role {
    Secondary,
    Promoting(Promotion),
    Primary,
    Demoting(Drain),
    Stopping(Drain),
    Stopped,
}

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

pub(super) struct Drain {
    id: Option<CommandId>,
    /// Demotion only: who asked for the role and shall have it.
    to: Option<NodeIdx>,
    deadline: Instant,
    phase: DrainPhase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum DrainPhase {
    /// Requests run out.
    Requests,
    /// Everything becomes durable, by this round.
    Round(u64),
    /// Log slots close, their bits durable first.
    Log,
    /// By votes, demotion only: the record says that nobody reigns.
    Release,
    /// Hand-over only: members have heard that all is stable, by this round.
    Told(u64),
    /// Stop only: the disk's last flush.
    Flush,
    /// Stop only, with checksums: what still writes ends, and their pages become durable. The flush
    /// comes after: a clean replica trusts them, so what they speak of must be durable too.
    Sums,
    /// Stop only: the clean mark, by this superblock version.
    Mark(u64),
}

impl Role {
    /// Takes requests of clients.
    #[inline]
    pub fn is_admitting(&self) -> bool {
        matches!(self, Role::Primary)
    }

    /// Plain primary.
    pub fn is_primary(&self) -> bool {
        matches!(self, Role::Primary)
    }

    /// Requests admitted as primary may still run.
    pub fn is_serving(&self) -> bool {
        matches!(
            self,
            Role::Primary
                | Role::Demoting(_)
                | Role::Stopping(Drain {
                    phase: DrainPhase::Requests
                        | DrainPhase::Round(_)
                        | DrainPhase::Log
                        | DrainPhase::Release
                        | DrainPhase::Told(_),
                    ..
                })
        )
    }

    /// What a request gets that is not admitted.
    pub fn refusal(&self) -> Outcome {
        match self {
            Role::Stopping(_) | Role::Stopped => Outcome::Stopping,
            _ => Outcome::NotPrimary,
        }
    }

    /// Waits for requests to end.
    pub fn waits_for_drain(&self) -> bool {
        matches!(self, Role::Demoting(_) | Role::Stopping(_))
    }

    /// Not in the middle of a promotion: what a hello says stays so.
    pub fn is_settled(&self) -> bool {
        match self {
            Role::Promoting(promotion) => matches!(
                promotion.phase,
                Phase::Wait | Phase::Trial(_) | Phase::Claim { .. }
            ),
            _ => true,
        }
    }

    /// Nothing is on its way.
    pub fn is_quiet(&self) -> bool {
        matches!(self, Role::Secondary | Role::Primary | Role::Stopped)
    }

    /// Sessions may begin.
    pub fn takes_links(&self) -> bool {
        !matches!(self, Role::Stopping(_) | Role::Stopped)
    }

    /// On its way to serve, and nobody asked for it.
    pub fn promotes_itself(&self) -> bool {
        matches!(self, Role::Promoting(promotion) if promotion.id.is_none())
    }

    /// S may grow now.
    pub fn may_change_set(&self) -> bool {
        matches!(self, Role::Primary | Role::Secondary)
    }
}

/// One round of SplitMix64 over both halves: fresh ids from the entropy given at attach.
pub(super) fn mix(entropy: u128, salt: u64) -> u128 {
    let round = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    };
    let low = round((entropy as u64).wrapping_add(salt.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let high = round(((entropy >> 64) as u64).wrapping_add(low));
    (u128::from(high) << 64 | u128::from(low)).max(1)
}

impl Volume {
    /// Attach: says that this replica is in use, in this boot.
    pub(super) fn start_up(&mut self) {
        let volatile = self.setup.has_volatile_cache;
        let sb = &mut self.durable.sb;
        // With nothing open in the log, all that counts was durable on this disk (law S3).
        let was_durable = sb.clean || !self.pages.is_recovering;
        let survived = was_durable || sb.boot_id == self.setup.boot_id || !volatile;
        sb.whole &= survived;
        sb.clean = false;
        sb.boot_id = self.setup.boot_id;
        let random = mix(self.setup.entropy, sb.life.count) as u64;
        let run = Life::of(sb.identity(), sb.life.count.saturating_add(1), random);
        sb.past.begin(sb.life, run);
        sb.life = run;
        sb.features_compatible |= meta::FEATURE_PAST;
        self.durable.touch();
        self.flush_recovered();
        self.ops.attention = true;
        if self.has_votes() {
            // What the process before this one granted is not known: it may hold still (law T7).
            let term = self.durable.sb.promised;
            let until = self.now.after(self.setup.lease);
            self.votes.grant = Grant { term, until };
            self.postpone_election(until);
        }
        if !self.is_mirrored() {
            let deadline = self.now.after(DRAIN);
            let (id, force, phase) = (None, false, Phase::Wait);
            self.role = Role::Promoting(Promotion {
                id,
                force,
                takes_over: false,
                deadline,
                phase,
            });
        }
    }

    /// A term of this node that nobody has seen, nor it itself before it lost its memory.
    pub(super) fn next_term(&self) -> Term {
        let seen = self.highest_term();
        Term::above(seen, self.me, mix(self.setup.entropy, seen.0) as u16)
    }

    pub(super) fn promote(&mut self, id: CommandId, force: bool, wait: Duration) {
        let refusal = match &self.role {
            // It waits for a majority, of this or of the next list, that an operator gives up on.
            Role::Primary if force && (!self.holds_lease() || self.is_poll_overdue()) => {
                self.step_down();
                return self.begin_promotion(Some(id), true, wait);
            }
            Role::Primary => return self.reply(id, Ok(Answer::Already)),
            Role::Secondary if self.durable.has_failed => CommandError::MetaFailed,
            Role::Secondary if self.giving_up.is_some() => CommandError::InProgress,
            Role::Secondary => return self.begin_promotion(Some(id), force, wait),
            Role::Promoting(promotion) => {
                // What it began by itself goes on for the operator, or anew by force.
                if promotion.id.is_some() || !self.has_votes() {
                    return self.reply(id, Err(CommandError::InProgress));
                }
                if force {
                    return self.begin_promotion(Some(id), true, wait);
                }
                let deadline = self.now.after(wait);
                if let Role::Promoting(promotion) = &mut self.role {
                    (promotion.id, promotion.deadline) = (Some(id), deadline);
                }
                return;
            }
            Role::Demoting(_) => CommandError::InProgress,
            Role::Stopping(_) | Role::Stopped => CommandError::Stopping,
        };
        self.reply(id, Err(refusal));
    }

    /// `id`: who is answered; nobody if the node promotes itself.
    pub(super) fn begin_promotion(&mut self, id: Option<CommandId>, force: bool, wait: Duration) {
        self.role = Role::Promoting(Promotion {
            id,
            force,
            takes_over: false,
            deadline: self.now.after(wait),
            phase: Phase::Wait,
        });
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

    pub(super) fn settle_role(&mut self) {
        match &self.role {
            Role::Promoting(_) => self.settle_promotion(),
            Role::Demoting(_) | Role::Stopping(_) => self.settle_drain(),
            _ => {}
        }
    }

    fn settle_promotion(&mut self) {
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

    pub(super) fn demote(&mut self, id: CommandId) {
        match self.role {
            Role::Primary => {
                let drain = Drain {
                    id: Some(id),
                    to: None,
                    deadline: self.now.after(DRAIN),
                    phase: DrainPhase::Requests,
                };
                self.role = Role::Demoting(drain);
                self.ops.attention = true;
            }
            Role::Secondary => self.reply(id, Ok(Answer::Already)),
            Role::Promoting(_) | Role::Demoting(_) => {
                self.reply(id, Err(CommandError::InProgress));
            }
            Role::Stopping(_) | Role::Stopped => self.reply(id, Err(CommandError::Stopping)),
        }
    }

    /// From now on this node admits nothing, so that `to` can serve in its place.
    pub(super) fn begin_hand_over(&mut self, to: NodeIdx) {
        self.role = Role::Demoting(Drain {
            id: None,
            to: Some(to),
            deadline: self.now.after(self.setup.lease.min(DRAIN)),
            phase: DrainPhase::Requests,
        });
        self.notice(Notice::HandingOver { to });
        self.ops.attention = true;
    }

    pub(super) fn stop(&mut self, id: CommandId) {
        match self.role {
            Role::Stopping(_) => return self.reply(id, Err(CommandError::InProgress)),
            Role::Stopped => return self.reply(id, Ok(Answer::Already)),
            Role::Promoting(_) => self.promotion_ended(Err(CommandError::Stopping)),
            Role::Demoting(Drain {
                id: Some(first), ..
            }) => {
                self.reply(first, Err(CommandError::Stopping));
            }
            _ => {}
        }
        self.keep_copy(CommandError::Stopping);
        let phase = match self.role.is_serving() {
            true => DrainPhase::Requests,
            false => DrainPhase::Flush,
        };
        let deadline = self.now.after(DRAIN);
        self.role = Role::Stopping(Drain {
            id: Some(id),
            to: None,
            deadline,
            phase,
        });
        if phase == DrainPhase::Flush {
            self.leave();
        }
        self.ops.attention = true;
    }

    fn settle_drain(&mut self) {
        let (Role::Demoting(drain) | Role::Stopping(drain)) = &self.role else {
            return;
        };
        let (phase, is_due) = (drain.phase, self.now >= drain.deadline);
        let heir = drain.to;
        if let Some(to) = heir.filter(|to| is_due || !self.may_follow(*to)) {
            return self.keep_role(to);
        }
        if let Some(to) = heir.filter(|_| planted!(self, HandsOverUndrained)) {
            return self.release_role(to);
        }
        match phase {
            DrainPhase::Requests => {
                let busy = self.ops.each().any(|(_, op)| op.is_client());
                if !busy || is_due {
                    self.flush.wanted = true;
                    self.set_drain(DrainPhase::Round(self.flush.started + 1));
                }
            }
            DrainPhase::Round(round) => {
                // A disk that failed is made durable by nobody; an heir's still is.
                let is_hopeless = heir.is_none() && !self.is_disk_usable();
                if self.flush.completed >= round || is_due || is_hopeless {
                    self.set_drain(DrainPhase::Log);
                } else if self.flush.started < round {
                    self.flush.wanted = true;
                }
            }
            DrainPhase::Log => {
                let has_log = self.keeps_log() || !self.log.is_empty();
                if has_log && !is_due && self.is_disk_usable() {
                    self.pages.wants_all = true;
                    while self.close_idle() > 0 {}
                    self.log.want_all();
                }
                // A change of S under way ends first: told after the demotion, it would meet the
                // promotion of another node.
                let is_settled = self.durable.change.is_none() || is_due;
                let is_closed =
                    !has_log || self.is_log_closed() || is_due || !self.is_disk_usable();
                if is_settled && is_closed {
                    match self.has_votes() && matches!(self.role, Role::Demoting(_)) {
                        // What a round found stable is told after it: the next one follows that word.
                        true if heir.is_some() => {
                            self.flush.wanted = true;
                            self.set_drain(DrainPhase::Told(self.flush.started + 1));
                        }
                        true => self.lay_down(is_due),
                        false => self.drained(),
                    }
                }
            }
            DrainPhase::Told(round) => {
                let is_told = self.flush.completed >= round;
                match heir.filter(|_| is_told && self.durable.change.is_none()) {
                    Some(to) => self.release_role(to),
                    None if self.flush.started < round => self.flush.wanted = true,
                    None => {}
                }
            }
            DrainPhase::Release => {
                if self.durable.change.is_none() || is_due {
                    self.drained();
                }
            }
            // A disk that does not answer is left as a crash leaves it: not clean (laws L3, O4).
            DrainPhase::Flush if is_due => self.stopped(),
            DrainPhase::Flush => {}
            DrainPhase::Sums if is_due => self.stopped(),
            DrainPhase::Sums => {
                if self.are_checksums_settled() {
                    self.set_drain(DrainPhase::Flush);
                    self.flush_to_stop();
                }
            }
            DrainPhase::Mark(version) => {
                let bits = self.peers.nodes().all(|n| self.are_bits_durable(n));
                let bits = bits && self.marks.is_swept() && self.attributes.is_settled();
                if (self.durable.is_durable(version) && bits) || is_due {
                    self.stopped();
                }
            }
        }
    }

    /// Metadata cannot be written: what waits for it ends now (law L3).
    pub(super) fn settle_failed(&mut self) {
        self.fail_giving_up();
        let (id, next) = match &self.role {
            Role::Promoting(_) => {
                return self.promotion_ended(Err(CommandError::MetaFailed));
            }
            Role::Demoting(drain) => (drain.id, Role::Secondary),
            Role::Stopping(drain) => (drain.id, Role::Stopped),
            Role::Primary | Role::Secondary | Role::Stopped => return,
        };
        self.role = next;
        if let Some(id) = id {
            self.reply(id, Err(CommandError::MetaFailed));
        }
    }

    /// The record says that this reign ended on an operator's word.
    fn lay_down(&mut self, is_due: bool) {
        let Some(record) = self.record().filter(|_| !is_due) else {
            return self.drained();
        };
        self.set_drain(DrainPhase::Release);
        let next = Record {
            is_released: true,
            ..record.next()
        };
        self.propose_admitting(next, NodeSet::EMPTY);
    }

    /// A role ended early: whoever waited for its drain is told.
    pub(super) fn leave_role(&mut self, was: Role) {
        match was {
            Role::Demoting(Drain { id: Some(id), .. }) => self.reply(id, Ok(Answer::Ok)),
            Role::Stopping(drain) => {
                self.role = Role::Stopping(Drain {
                    phase: DrainPhase::Flush,
                    ..drain
                });
                self.leave();
            }
            _ => {}
        }
    }

    fn set_drain(&mut self, next: DrainPhase) {
        if let Role::Demoting(drain) | Role::Stopping(drain) = &mut self.role {
            drain.phase = next;
        }
        self.ops.attention = true;
    }

    fn drained(&mut self) {
        self.release_lease(None);
        if matches!(self.role, Role::Stopping(_)) {
            self.set_drain(DrainPhase::Flush);
            return self.leave();
        }
        self.lay_role_down();
    }

    pub(super) fn lay_role_down(&mut self) {
        let Role::Demoting(drain) = std::mem::replace(&mut self.role, Role::Secondary) else {
            return;
        };
        self.notice(Notice::Demoted);
        self.tell_state();
        if self.has_votes() {
            // Data flows only to and from who leads.
            self.peers.nodes().for_each(|node| self.drop_link(node));
        }
        if let Some(id) = drain.id {
            self.reply(id, Ok(Answer::Ok));
        }
        self.ops.attention = true;
    }

    /// Stop: says good-bye, then makes the disk durable.
    fn leave(&mut self) {
        for node in self.peers.nodes() {
            self.say(node, Message::Refuse(Refusal::Leaving));
            self.drop_link(node);
        }
        self.pages.wants_all = true;
        self.marks.sweep();
        if self.has_checksums() {
            self.checksums.wants_all = true;
            return self.set_drain(DrainPhase::Sums);
        }
        self.flush_to_stop();
    }

    fn flush_to_stop(&mut self) {
        let token = token(Purpose::StopFlush, 0, 0);
        self.actions.push(Action::DiskFlush { token });
    }

    pub(super) fn stop_flushed(&mut self, result: DiskResult) {
        self.ops.attention = true;
        if !self.role.waits_for_drain() {
            // It came too late to be waited for.
            return;
        }
        let is_quiet = self.ops.each().next().is_none();
        if result.is_ok() && is_quiet && !self.durable.has_failed {
            self.durable.sb.clean = true;
        }
        let version = self.durable.touch();
        self.set_drain(DrainPhase::Mark(version));
    }

    fn stopped(&mut self) {
        let Role::Stopping(drain) = std::mem::replace(&mut self.role, Role::Stopped) else {
            return;
        };
        if let Some(id) = drain.id {
            self.reply(id, Ok(Answer::Ok));
        }
    }
}
