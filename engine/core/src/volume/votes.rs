//! This node as a voter: promises, records, leases, each durable before it is said (laws T2, T6,
//! T7, T8).
//!
//! ```text
//!  Ask{term}    ─► promised := term ─► durable ─► Answer{Promised}     lower terms get nothing more
//!  Store{record}─► voted := record  ─► durable ─► Stored
//!  Lease{term}  ─► grant until now + lease       ─► Granted            nobody else is promised
//! ```
//!
//! A blank replica has no vote: it may have forgotten what it promised. A record of the voters'
//! majority admits it again (`voters.rs`).

use std::time::Duration;

use crate::action::{Action, CommandError};
use crate::message::Disk;
use crate::meta;
use crate::quorum::{CopyState, Grant};
use crate::record::Record;
use crate::register::{REGISTER, REGISTER_ALONE};
use crate::time::Instant;
use crate::units::{NODES_MAX, NodeIdx, NodeSet, Term};
use crate::vote::{Ballot, Said, Vote};

use super::election::Heard;
use super::hand_over::Handed;
use super::lease::Lease;
use super::register::Register;
use super::voters::Poll;
use super::{Volume, planted};

/// Answers that may wait for the superblock; askers repeat what got none.
const OWED_MAX: usize = 32;

/// All that has to do with votes.
#[derive(Default)]
pub(super) struct Votes {
    /// Digest of the table of nodes.
    pub nodes: u32,
    /// Nodes whose last ballot was for other names; said once.
    pub strangers: NodeSet,
    /// What this voter granted.
    pub grant: Grant,
    owed: Vec<Owed>,
    /// Answers to this candidate's question.
    pub heard: [Option<Heard>; NODES_MAX],
    /// Last word of each node.
    met: [Option<Met>; NODES_MAX],
    /// Lives that got their vote with a record of this reign; 0: none.
    pub admitted: [u128; NODES_MAX],
    /// Highest term that anybody promised.
    pub highest: Term,
    pub poll: Option<Poll>,
    pub lease: Lease,
    /// The role that this node handed over.
    pub handed: Option<Handed>,
    /// What kept this node from serving, as it was last said.
    pub obstacle: Option<CommandError>,
    /// Where a register chooses.
    pub register: Register,
    /// When blank voters were last asked for.
    pub asked_at: Instant,
    /// No candidacy of our own before this moment.
    pub election_at: Instant,
    /// Draws so far: salts for [`super::role::mix`].
    draws: u64,
}

/// An answer that waits until it is durable.
struct Owed {
    version: u64,
    to: NodeIdx,
    vote: Vote,
}

/// What a node said last.
#[derive(Clone, Copy)]
pub(super) struct Met {
    pub volume_id: u128,
    pub incarnation: u128,
    pub has_vote: bool,
    /// Its newest vote, where it has nothing but votes: no copy that could serve.
    pub only_vote: Option<Record>,
    pub at: Instant,
}

impl Votes {
    /// This node may have lost its vote.
    pub fn doubt(&mut self, node: NodeIdx) {
        if let Some(met) = &mut self.met[usize::from(node.0)] {
            met.has_vote = false;
        }
    }

    /// Answers that wait say what holds no more.
    pub fn forget_owed(&mut self) {
        self.owed.clear();
    }

    /// Nothing was said yet among the nodes of this digest.
    pub fn new(nodes: u32) -> Votes {
        Votes {
            nodes,
            ..Votes::default()
        }
    }

    /// This index stands for somebody else now.
    pub fn forget(&mut self, node: NodeIdx) {
        let at = usize::from(node.0);
        (self.met[at], self.heard[at], self.admitted[at]) = (None, None, 0);
    }

    /// A node, or the register, spoke.
    /// What it said is not known to be so any more.
    pub fn unmeet(&mut self, node: NodeIdx) {
        self.met[usize::from(node.0)] = None;
    }

    pub fn meet(&mut self, node: NodeIdx, met: Met) {
        self.met[usize::from(node.0)] = Some(met);
    }

    /// What `node` said last, if that was not long ago.
    pub fn met(&self, node: NodeIdx, now: Instant, within: Duration) -> Option<Met> {
        let met = self.met[usize::from(node.0)];
        met.filter(|met| now.since(met.at) <= within)
    }
}

impl Volume {
    /// Every other configured node, replicas first, and the register: a witness that is no node.
    pub(super) fn others(&self) -> NodeSet {
        let nodes = self.nodes.members().without(self.me);
        match self.has_register() {
            true => nodes.or(REGISTER_ALONE),
            false => nodes,
        }
    }

    /// Nodes with data.
    pub(super) fn replicas(&self) -> NodeSet {
        self.nodes.replicas()
    }

    /// This node holds data.
    pub(super) fn is_replica(&self) -> bool {
        self.replicas().has(self.me)
    }

    /// This node as a voter: another one since it was formatted or renewed, or its history was given up, for
    /// then it may have forgotten a promise (law T8).
    pub(super) fn voter_life(&self) -> u128 {
        let sb = &self.durable.sb;
        match sb.given_up {
            0 => sb.identity(),
            count => super::role::mix(sb.identity(), u64::from(count)),
        }
    }

    /// This node voted, or was admitted, since it was formatted or gave up its history; where a
    /// register votes it is enough that it belongs to the volume: a promise of its own binds it alone.
    pub(super) fn has_vote(&self) -> bool {
        let is_admitted = self.durable.sb.voted.is_some() || self.has_register();
        is_admitted && self.durable.sb.volume_id != 0
    }

    /// Records need this node's vote.
    fn is_voter(&self) -> bool {
        let voted = self.durable.sb.voted;
        !self.has_register() || voted.is_some_and(|r| r.voters.has(self.me))
    }

    /// The newest record it voted for; of who only hears what a register chose, the newest of these.
    pub(super) fn newest_vote(&self) -> Option<Record> {
        let sb = &self.durable.sb;
        if self.is_voter() { sb.voted } else { sb.record }
    }

    /// What the register held when it was last heard, or else what this node voted for.
    pub(super) fn newest_known(&self) -> Option<Record> {
        (self.votes.register.record()).or(self.durable.sb.voted)
    }

    /// A random part of `span`.
    pub(super) fn draw(&mut self, span: Duration) -> Duration {
        self.votes.draws += 1;
        let salt = self.votes.draws ^ self.now.0 ^ u64::from(self.me.0) << 56;
        let random = super::role::mix(self.setup.entropy, salt) as u32;
        span.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Says it on the control connection, under this volume's identity.
    pub(super) fn say_vote(&mut self, to: NodeIdx, vote: Vote) {
        if to == REGISTER && self.has_register() {
            return self.ask_register(vote);
        }
        if !self.durable.has_begun() {
            // It names this run: others would remember one that this replica may not.
            return;
        }
        let (volume_id, incarnation) = (self.durable.sb.volume_id, self.voter_life());
        let ballot = Ballot {
            volume_id,
            incarnation,
            nodes: self.votes.nodes,
            life: self.durable.sb.life,
            knows: self.durable.sb.known_lives[usize::from(to.0)],
            vote,
        };
        self.actions.push(Action::Vote { to, ballot });
    }

    pub(super) fn say_vote_to(&mut self, to: NodeSet, vote: &Vote) {
        for node in to.without(self.me).iter() {
            self.say_vote(node, vote.clone());
        }
    }

    pub(super) fn ballot(&mut self, from: NodeIdx, ballot: &Ballot) {
        if !self.has_votes() || self.durable.has_failed {
            return;
        }
        if let Vote::Table { table, is_answer } = &ballot.vote {
            return self.table_told(from, ballot.volume_id, table, *is_answer);
        }
        if !self.has_same_table(from, ballot) || !self.is_heard(from, ballot) {
            return;
        }
        let own = self.durable.sb.volume_id;
        let is_ours = ballot.volume_id == own && own != 0;
        let known = self.votes.met[usize::from(from.0)];
        let has_vote = match ballot.vote {
            Vote::Answer { said, .. } => said != Said::NoVote,
            // Also one that is counted in, and may not vote yet, refuses to.
            Vote::Stored {
                is_stored: false, ..
            } => known.is_some_and(|met| met.has_vote && met.incarnation == ballot.incarnation),
            _ => ballot.volume_id != 0,
        };
        let met = Met {
            volume_id: ballot.volume_id,
            incarnation: ballot.incarnation,
            has_vote,
            only_vote: match ballot.vote {
                Vote::Answer { record, copy, .. } if copy.disk != Disk::UpToDate => record,
                _ => None,
            },
            at: self.now,
        };
        self.votes.meet(from, met);
        self.ops.attention = true;
        match ballot.vote {
            Vote::Store { record, admits } => self.vote_wanted(from, ballot, &record, admits),
            Vote::Ask { term, is_trial } if !is_ours || !self.has_vote() => {
                self.say_vote(from, self.no_vote(term, is_trial));
            }
            Vote::Lease { term, .. } if !is_ours || !self.has_vote() => {
                if is_ours {
                    // Somebody reigns: once this node has a vote, it does not stand against that one.
                    self.postpone_election(self.now.after(self.setup.lease));
                }
                self.say_vote(from, self.no_vote(term, true));
            }
            Vote::Ask { term, is_trial } => self.promise_wanted(from, term, is_trial),
            Vote::Lease {
                term,
                number,
                length,
            } => self.lease_wanted(from, term, (number, length)),
            Vote::Answer {
                said: Said::NoVote, ..
            } => {
                self.promise_answered(from, &ballot.vote);
                self.voter_is_blank(from, ballot.incarnation);
            }
            _ if !is_ours => {}
            Vote::Answer { .. } => self.promise_answered(from, &ballot.vote),
            Vote::Stored {
                term,
                step,
                is_stored,
                promised,
            } => {
                self.note_promised(promised);
                self.vote_answered(from, term, step, is_stored);
            }
            Vote::Granted {
                term,
                number,
                is_granted,
                promised,
            } => {
                self.note_promised(promised);
                let answer = if is_granted { Ok(()) } else { Err(promised) };
                self.lease_answered(from, term, number, answer);
            }
            Vote::Release { term, to } => self.released(from, term, to),
            Vote::HandOver { term } => self.role_wanted(from, term),
            Vote::Table { .. } => {}
        }
    }

    fn no_vote(&self, term: Term, is_trial: bool) -> Vote {
        Vote::Answer {
            term,
            is_trial,
            said: Said::NoVote,
            promised: Term(0),
            record: None,
            copy: self.copy_state(),
        }
    }

    pub(super) fn copy_state(&self) -> CopyState {
        CopyState {
            disk: self.disk(),
            is_whole: self.durable.sb.whole,
        }
    }

    pub(super) fn note_promised(&mut self, term: Term) {
        self.votes.highest = self.votes.highest.max(term);
    }

    /// Its grant to another node than this one holds still (law T7).
    pub(super) fn has_granted_another(&self, node: NodeIdx) -> bool {
        let grant = self.votes.grant;
        self.now < grant.until && grant.term.author() != node
    }

    /// Would, or will, this voter promise the term?
    pub(super) fn judge_candidate(&self, from: NodeIdx, term: Term) -> Said {
        let sb = &self.durable.sb;
        let serves = from != self.me && self.role.is_serving() && self.holds_lease();
        // Who asks nodes that do not vote was promised by the register, which knew of every lease.
        let is_bound = from == self.me || self.is_voter();
        if !self.has_vote() {
            Said::NoVote
        } else if is_bound && self.has_granted_another(from) || serves {
            Said::Busy
        } else if term < sb.promised || (term == sb.promised && term.author() != from) {
            Said::Later
        } else {
            Said::Promised
        }
    }

    fn promise_wanted(&mut self, from: NodeIdx, term: Term, is_trial: bool) {
        if term.author() != from {
            return;
        }
        let said = self.judge_candidate(from, term);
        if said == Said::Promised && !is_trial {
            self.promise(term);
            if self.is_voter() {
                // Long enough for the candidate to be chosen, or for others not to disturb it.
                self.votes.grant = Grant {
                    term,
                    until: self.now.after(self.setup.lease / 4),
                };
            }
        }
        let answer = Vote::Answer {
            term,
            is_trial,
            said,
            promised: self.durable.sb.promised,
            record: self.newest_vote(),
            copy: self.copy_state(),
        };
        self.owe(from, answer);
    }

    /// From now on nothing of a lower term is taken (law T6): who served stops, a candidacy ends,
    /// and data flows only to who is promised, after a new handshake.
    pub(super) fn promise(&mut self, term: Term) {
        if term <= self.durable.sb.promised {
            return;
        }
        self.durable.sb.promised = term;
        self.durable.touch();
        if term.author() != self.me {
            self.give_up_promotion();
            self.step_down();
        }
        if planted!(self, OldPrimaryKeepsSessions) {
            return;
        }
        for node in self.peers.nodes() {
            self.drop_link(node);
        }
    }

    /// A record to vote for (laws T2, T4).
    fn vote_wanted(&mut self, from: NodeIdx, ballot: &Ballot, record: &Record, admits: u128) {
        if record.primary != from || record.term.author() != from {
            return;
        }
        let sb = &self.durable.sb;
        let (own, promised) = (sb.volume_id, sb.promised);
        let is_admitted = admits == self.voter_life()
            && (own == 0 || own == ballot.volume_id)
            && ballot.volume_id != 0
            && record.voters.has(self.me);
        let may_vote = own == ballot.volume_id && self.has_vote();
        if !may_vote && !is_admitted {
            let answer = self.no_vote(record.term, true);
            return self.say_vote(from, answer);
        }
        // Who did not promise the term yet does so now, unless it granted a lease to another; then
        // its promise is exactly the term of what it votes for.
        let keeps_promise = record.term == promised
            || planted!(self, VotesForLowerTerms)
            || (record.term > promised && !self.has_granted_another(from));
        let is_old = sb.voted.is_some_and(|voted| voted.is_newer_than(record));
        let is_stored = keeps_promise && !is_old;
        if is_stored {
            self.promise(record.term);
            self.vote(ballot.volume_id, *record);
        }
        let (term, step) = (record.term, record.step);
        let promised = self.durable.sb.promised;
        let answer = Vote::Stored {
            term,
            step,
            is_stored,
            promised,
        };
        self.owe(from, answer);
    }

    /// A founding of this node's own that was never in force: it gives way to a volume that is,
    /// for nobody but this node could have acted on it.
    pub(super) fn has_loose_founding(&self) -> bool {
        let is_own = |record: Record| record.primary == self.me && record.step == 0;
        let sb = &self.durable.sb;
        sb.record.is_none() && sb.voted.is_some_and(is_own)
    }

    /// Writes a vote down.
    pub(super) fn vote(&mut self, volume_id: u128, record: Record) {
        let is_replica = self.is_replica();
        let sb = &mut self.durable.sb;
        if sb.volume_id == 0 {
            sb.volume_id = volume_id;
            if is_replica && record.primary != self.me {
                sb.disk = Disk::Inconsistent;
            }
        }
        if sb.voted == Some(record) {
            return;
        }
        sb.voted = Some(record);
        sb.features_incompatible |= meta::FEATURE_VOTES;
        self.durable.touch();
    }

    /// Granted for at least as long as the asker counts on it: while a configuration changes from
    /// node to node, the two may not agree.
    fn lease_wanted(&mut self, from: NodeIdx, term: Term, (number, length): (u64, Duration)) {
        // Who asks reigns: a majority promised its term, this voter was not heard then.
        let promised = self.durable.sb.promised;
        if term > promised && term.author() == from && !self.has_granted_another(from) {
            self.promise(term);
        }
        let promised = self.durable.sb.promised;
        let is_granted =
            term == promised && term.author() == from && length <= crate::quorum::LEASE_MAX;
        if is_granted && self.is_voter() {
            let until = self.now.after(self.setup.lease.max(length));
            self.votes.grant = Grant { term, until };
            (self.votes.handed, self.votes.obstacle) = (None, None);
            self.postpone_election(until);
        }
        let answer = Vote::Granted {
            term,
            number,
            is_granted,
            promised,
        };
        self.owe(from, answer);
    }

    /// Says it once all that is written now is durable.
    fn owe(&mut self, to: NodeIdx, vote: Vote) {
        let version = self.durable.newest_version();
        if self.durable.is_durable(version) || planted!(self, PromiseNotDurable) {
            self.say_vote(to, vote);
        } else if self.votes.owed.len() < OWED_MAX {
            self.votes.owed.push(Owed { version, to, vote });
        }
    }

    /// Answers whose durability was awaited.
    pub(super) fn settle_votes(&mut self) {
        while let Some(owed) = self.votes.owed.first() {
            if !self.durable.is_durable(owed.version) {
                return;
            }
            let Owed { to, vote, .. } = self.votes.owed.remove(0);
            self.say_vote(to, vote);
        }
    }
}
