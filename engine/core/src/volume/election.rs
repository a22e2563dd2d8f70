//! How a node comes to reign where a majority chooses (laws T2, T5, R7 b).
//!
//! ```text
//!  Trial ─► Promise ─► Canvass ─► Claim ─► Commit ─► Primary
//!   would a   own term   promises   data links to   the record
//!   majority? durable    durable    members anew,   is chosen
//!                        there      nothing differs
//! ```
//!
//! A trial changes nothing, so a node that is cut off disturbs nobody. Members that differ, or
//! cannot be reached in time, are left out of S and come back by a resync.

use std::time::Duration;

use crate::action::{CommandError, Notice};
use crate::message::{Disk, Reign};
use crate::promotion;
use crate::quorum::{Candidate, Election, Promise, basis, elect, has_quorum, voters_of};
use crate::record::Record;
use crate::register::{REGISTER, REGISTER_ALONE};
use crate::session::Session;
use crate::time::Instant;
use crate::units::{NodeIdx, NodeSet, Term};
use crate::vote::{Said, Vote};

use super::promote::Phase;
use super::role::Role;
use super::voters::{ASK_AGAIN, RECENT};
use super::{Volume, planted};

/// How long a majority waits for more promises: who is heard may belong to S.
const GATHER: Duration = Duration::from_millis(60);
/// Longest wait for members to be made equal; who is late is left out.
const CLAIM: Duration = Duration::from_secs(1);

/// An answer to this candidate.
#[derive(Clone, Copy)]
pub(super) struct Heard {
    term: Term,
    is_trial: bool,
    said: Said,
    promised: Term,
    promise: Promise,
}

/// A question under way.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub term: Term,
    pub since: Instant,
    pub last: Instant,
    /// Nodes that have no vote were asked too: the register promised.
    are_all_asked: bool,
}

impl Asked {
    /// Asked at `now` for the first time.
    pub(super) fn at(now: Instant, term: Term) -> Asked {
        Asked {
            term,
            since: now,
            last: now,
            are_all_asked: false,
        }
    }
}

impl Volume {
    /// A member of S promotes itself once nobody reigns any more.
    pub(super) fn consider_election(&mut self) {
        let may = self.has_votes()
            && (self.setup.auto_promote || self.votes.handed.is_some())
            && matches!(self.role, Role::Secondary)
            && !self.durable.has_failed
            && !self.is_metadata_late()
            && self.disk() == Disk::UpToDate
            && self.durable.change.is_none()
            && self.giving_up.is_none()
            && self.adopting.is_none();
        let is_due = self.now >= self.votes.grant.until && self.now >= self.votes.election_at;
        // Whether it is in S the trial finds out: the newest record may not have reached it.
        // A register that is watched says so at once.
        let newest = self.newest_known();
        let is_in_sync = |r: Record| !r.voters.has(REGISTER) || r.in_sync.has(self.me);
        let is_released = newest.is_none_or(|r| r.is_released || !is_in_sync(r));
        if may && is_due && !is_released && self.durable.record.is_some() {
            let patience = self.setup.lease * 2;
            self.begin_promotion(None, false, patience);
        }
    }

    /// What keeps this node from serving by itself is said once, until somebody reigns.
    pub(super) fn note_not_elected(&mut self, error: CommandError) {
        // Another one reigns, or a majority was asked at the same time: neither lasts.
        let passes = matches!(
            error,
            CommandError::PrimaryElsewhere(_) | CommandError::TimedOut
        );
        if self.has_votes() && !passes && self.votes.obstacle.as_ref() != Some(&error) {
            self.votes.obstacle = Some(error.clone());
            self.notice(Notice::NotElected { error });
        }
    }

    /// No candidacy before `from`, and some time that differs from node to node.
    pub(super) fn postpone_election(&mut self, from: Instant) {
        let slot = self.setup.lease / 16;
        let jitter = self.draw(slot) + slot * u32::from(self.me.0 % 4);
        self.votes.election_at = from.after(jitter);
    }

    /// Asks every voter whether it would promise a term.
    pub(super) fn begin_trial(&mut self) {
        let term = self.next_term();
        self.ask_all(term, true);
        self.ask_for_role();
        self.set_phase(Phase::Trial(Asked::at(self.now, term)));
    }

    pub(super) fn ask_all(&mut self, term: Term, is_trial: bool) {
        self.votes.heard = Default::default();
        self.tell_strangers();
        self.say_vote_to(self.others(), &Vote::Ask { term, is_trial });
    }

    pub(super) fn promise_answered(&mut self, from: NodeIdx, answer: &Vote) {
        let Vote::Answer {
            term,
            is_trial,
            said,
            promised,
            record,
            copy,
        } = *answer
        else {
            return;
        };
        self.note_promised(promised);
        if self.question() != Some((term, is_trial)) {
            // A late word on an earlier question takes no answer to this one away.
            return;
        }
        self.votes.heard[usize::from(from.0)] = Some(Heard {
            term,
            is_trial,
            said,
            promised,
            promise: Promise {
                voter: from,
                record,
                copy,
            },
        });
    }

    /// What this candidate asks now: a term, and whether on trial.
    fn question(&self) -> Option<(Term, bool)> {
        let Role::Promoting(promotion) = &self.role else {
            return None;
        };
        promotion.question()
    }

    /// Promises for this question, our own among them.
    fn promises(&self, term: Term, is_trial: bool) -> Vec<Promise> {
        let own = match is_trial {
            true => self.judge_candidate(self.me, term) == Said::Promised,
            false => self.durable.sb.promised == term && self.has_vote(),
        };
        let own = own.then_some(Promise {
            voter: self.me,
            record: self.newest_vote(),
            copy: self.copy_state(),
        });
        let is_answer =
            |h: &&Heard| (h.term, h.is_trial, h.said) == (term, is_trial, Said::Promised);
        let others = self.votes.heard.iter().flatten().filter(is_answer);
        own.into_iter().chain(others.map(|h| h.promise)).collect()
    }

    pub(super) fn settle_trial(&mut self, asked: Asked, takes_over: bool, is_due: bool) {
        let promises = self.promises(asked.term, true);
        let own = promises.iter().any(|p| p.voter == self.me);
        if own && has_quorum(&promises) {
            let is_released = basis(&promises).is_some_and(|r| r.is_released);
            if is_released && self.role.promotes_itself() {
                // The word of an operator was on its way.
                return self.promotion_ended(Err(CommandError::TimedOut));
            }
            // Who would not be elected disturbs nobody.
            let met = self.met(asked.term, true);
            if let Err(error) = self.elected(met, &promises) {
                return self.refused_election(error, asked, is_due);
            }
            let term = self.next_term();
            return self.begin_canvass(term);
        }
        let error = self.why_no_quorum(&promises);
        match error {
            CommandError::PrimaryElsewhere(primary)
                if takes_over && (is_due || self.is_unfit()) =>
            {
                let error = self.why_not_handed_over(primary);
                return self.promotion_ended(Err(error));
            }
            error if is_due => return self.promotion_ended(Err(error)),
            _ => {}
        }
        if self.now.since(asked.last) >= ASK_AGAIN {
            self.begin_trial();
        }
    }

    fn elected(&self, met: NodeSet, promises: &[Promise]) -> Result<Election, CommandError> {
        let candidate = Candidate {
            me: self.me,
            in_force: self.record(),
            replicas: self.replicas(),
            met,
        };
        let verdict = elect(candidate, promises);
        let passes = match verdict {
            Err(CommandError::Outdated { .. }) => planted!(self, AnyCopyIsElected),
            Err(CommandError::NotWhole { .. } | CommandError::MayHaveGoneOn(_)) => {
                planted!(self, NotWholeIsElected)
            }
            _ => false,
        };
        match basis(promises) {
            Some(basis) if passes => Ok(Election {
                basis,
                members: NodeSet::only(self.me),
                step: 0,
            }),
            _ => verdict,
        }
    }

    /// More answers may change the verdict: until the deadline it is asked again.
    fn refused_election(&mut self, error: CommandError, asked: Asked, is_due: bool) {
        let heard = self.votes.heard.iter().flatten().count();
        let is_all = heard >= self.others().count() as usize;
        if is_due || is_all {
            self.promotion_ended(Err(error));
        } else if self.now.since(asked.last) >= ASK_AGAIN {
            self.begin_trial();
        }
    }

    /// Who is missing, or who reigns already.
    fn why_no_quorum(&self, promises: &[Promise]) -> CommandError {
        if self.is_register_taken() {
            return CommandError::RegisterTaken;
        }
        let grant = self.votes.grant;
        let is_busy = |h: &&Heard| h.said == Said::Busy;
        let busy = self.votes.heard.iter().flatten().find(is_busy);
        if self.now < grant.until && grant.term.author() != self.me {
            return CommandError::PrimaryElsewhere(grant.term.author());
        }
        if let Some(busy) = busy {
            return CommandError::PrimaryElsewhere(busy.promised.author());
        }
        if let Some(newer) = self.who_knows_better(promises) {
            return CommandError::RegisterWentBack { newer };
        }
        let voters = self.durable.sb.voted.map_or(NodeSet::EMPTY, |r| r.voters);
        let missing = voters.minus(voters_of(promises));
        CommandError::NoQuorum { missing }
    }

    fn begin_canvass(&mut self, term: Term) {
        self.promise(term);
        let version = self.durable.newest_version();
        self.set_phase(Phase::Vow { term, version });
    }

    /// Our own promise is durable: now the others'.
    pub(super) fn vowed(&mut self, term: Term) {
        match self.asks_register_first() {
            true => {
                self.votes.heard = Default::default();
                let is_trial = false;
                self.say_vote(REGISTER, Vote::Ask { term, is_trial });
            }
            false => self.ask_all(term, false),
        }
        self.set_phase(Phase::Canvass(Asked::at(self.now, term)));
    }

    /// A promise ends sessions: nodes without a vote are asked for theirs once nobody else can be
    /// chosen.
    fn asks_register_first(&self) -> bool {
        let voted = self.durable.sb.voted;
        self.has_register() && voted.is_some_and(|r| r.voters == REGISTER_ALONE)
    }

    /// Was the register put back? What is in force anywhere was chosen there before.
    fn who_knows_better(&self, promises: &[Promise]) -> Option<NodeIdx> {
        let of_register = promises.iter().find(|p| p.voter == REGISTER)?.record?;
        let is_newer = |r: Record| r.voters.has(REGISTER) && r.is_newer_than(&of_register);
        let better = promises.iter().find(|p| p.record.is_some_and(is_newer));
        better.map(|p| p.voter)
    }

    pub(super) fn settle_canvass(&mut self, mut asked: Asked, is_due: bool) {
        let promises = self.promises(asked.term, false);
        let heard = voters_of(&promises);
        let is_first = self.asks_register_first() && !asked.are_all_asked;
        let mut awaited = self.durable.sb.voted.map_or(NodeSet::EMPTY, |r| r.voters);
        if self.has_register() {
            // Nodes without a vote count as well: each copy that any record names.
            let named = promises.iter().filter_map(|p| p.record);
            awaited = named.fold(awaited, |all, r| all.or(r.in_sync));
        }
        let is_enough = heard.contains(awaited) || self.now.since(asked.since) >= GATHER;
        if is_first && heard.has(REGISTER) {
            (asked.are_all_asked, asked.since) = (true, self.now);
            (asked.last, self.ops.attention) = (self.now, true);
            let nodes = self.others().without(REGISTER);
            let (term, is_trial) = (asked.term, false);
            self.say_vote_to(nodes, &Vote::Ask { term, is_trial });
            return self.set_phase(Phase::Canvass(asked));
        }
        if let Some(newer) = self.who_knows_better(&promises) {
            let error = CommandError::RegisterWentBack { newer };
            return self.promotion_ended(Err(error));
        }
        if has_quorum(&promises) && is_enough {
            let met = self.met(asked.term, false);
            match self.elected(met, &promises) {
                Ok(election) => self.begin_claim(asked.term, election),
                Err(error) => self.promotion_ended(Err(error)),
            }
            return;
        }
        let refused = |h: &Heard| !h.is_trial && h.term == asked.term && h.promised > asked.term;
        let is_outbid = self.votes.heard.iter().flatten().any(refused);
        if is_due || is_outbid {
            if !self.tries_again() {
                let error = self.why_no_quorum(&promises);
                self.promotion_ended(Err(error));
            }
            return;
        }
        if self.now.since(asked.last) >= ASK_AGAIN {
            let asked_now = match is_first {
                true => REGISTER_ALONE,
                false => self.others(),
            };
            let missing = asked_now.minus(heard);
            let (term, is_trial) = (asked.term, false);
            self.say_vote_to(missing, &Vote::Ask { term, is_trial });
            asked.last = self.now;
            self.set_phase(Phase::Canvass(asked));
        }
    }

    /// The members that promised are told, by a new handshake, who leads; what may differ is
    /// exchanged.
    fn begin_claim(&mut self, term: Term, election: Election) {
        for node in self.peers.nodes() {
            if !self.peers.get(node).hello_owed {
                self.drop_link(node);
            }
        }
        let until = self.now.after(CLAIM.min(self.setup.lease));
        self.set_phase(Phase::Claim {
            term,
            election,
            until,
        });
    }

    pub(super) fn settle_claim(&mut self, term: Term, election: Election, until: Instant) {
        let others = election.members.without(self.me);
        let session = |n: NodeIdx| self.peers.find(n).map(|p| p.session);
        let is_judged = |n: NodeIdx| {
            matches!(
                session(n),
                Some(
                    Session::InSync(_)
                        | Session::Waiting(_)
                        | Session::Standalone(_)
                        | Session::Parted(..)
                )
            )
        };
        if self.disk() != Disk::UpToDate {
            // What the members said since takes it out (law T5).
            let source = others.iter().next();
            return self.promotion_ended(Err(CommandError::Outdated { source }));
        }
        if self.now < until && !others.iter().all(is_judged) {
            return;
        }
        let equal = |n: &NodeIdx| matches!(session(*n), Some(Session::InSync(_)));
        let with: NodeSet = others.iter().filter(equal).collect();
        let basis = election.basis;
        let record = Record {
            step: election.step,
            ..Record::first(term, with.with(self.me), basis.branch, basis.voters)
        };
        for node in with.iter() {
            self.tell_table(node, term);
        }
        self.commit(promotion::Plan::Continue { with }, record);
    }

    /// What this node leads, for its hellos.
    pub(super) fn leads(&self) -> Option<Reign> {
        if !self.has_votes() {
            return None;
        }
        if let Role::Promoting(promotion) = &self.role {
            return promotion.claim();
        }
        let record = self.record().filter(|_| self.role.is_serving())?;
        Some(Reign {
            term: record.term,
            members: record.in_sync,
        })
    }

    /// Asks again who did not say lately that it is blank.
    pub(super) fn ask_for_blank(&mut self) {
        if self.now.since(self.votes.asked_at) >= ASK_AGAIN {
            self.votes.asked_at = self.now;
            let silent = self.others().minus(self.blank_voters());
            // Who voted for a founding that was cut short answers its founder's own term only.
            let (term, is_trial) = match self.has_loose_founding() {
                true => (self.next_term(), true),
                false => (Term(0), true),
            };
            self.say_vote_to(silent, &Vote::Ask { term, is_trial });
        }
    }

    /// Nodes that answered this question and have nothing that this one could lack: blank ones, and
    /// copies that are not whole either. A whole one that promises nothing now must be waited for.
    fn met(&self, term: Term, is_trial: bool) -> NodeSet {
        let is_answer = |h: &&Heard| (h.term, h.is_trial) == (term, is_trial);
        let is_better =
            |h: &Heard| h.promise.copy.is_whole && h.promise.copy.disk == Disk::UpToDate;
        let heard = self.votes.heard.iter().flatten().filter(is_answer);
        let heard = heard.filter(|h| !is_better(h));
        heard.map(|h| h.promise.voter).collect()
    }

    /// Founding where votes count: whoever is there and blank votes from the beginning. So does who
    /// knows of nothing but the same founding, cut short: a volume that came to be left more behind.
    pub(super) fn blank_voters(&self) -> NodeSet {
        let sb = &self.durable.sb;
        let founding = sb.voted.filter(|_| self.has_loose_founding());
        let is_blank = |node: &NodeIdx| {
            let met = self.votes.met(*node, self.now, RECENT);
            met.is_some_and(|m| match m.volume_id {
                0 => true,
                id => id == sb.volume_id && founding.is_some() && m.only_vote == founding,
            })
        };
        self.others().iter().filter(is_blank).collect()
    }
}
