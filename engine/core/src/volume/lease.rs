//! The read lease of who reigns (law T7), and what happens when it cannot be had any more.
//!
//! ```text
//!  every quarter of it: Lease{number} ─► voters ─► Granted{number}
//!  majority granted ─► valid until (when the request was sent) + lease − 1 %
//! ```

use std::time::Duration;

use crate::action::{CommandError, Notice, Outcome};
use crate::quorum::{QuorumLoss, is_majority};
use crate::register::REGISTER;
use crate::time::Instant;
use crate::units::{NODES_MAX, NodeIdx, NodeSet, Term};
use crate::vote::Vote;

use super::ops::Phase;
use super::role::Role;
use super::{Volume, planted};

/// Requests whose answers still count.
const REQUESTS: usize = 8;
/// How long a command that needs all of S waits for the majority to come back.
const COMMAND_PATIENCE: Duration = Duration::from_secs(5);

/// What a primary knows of its lease.
#[derive(Default)]
pub(super) struct Lease {
    /// Newest request, and when each of the last few was sent.
    number: u64,
    sent: [Instant; REQUESTS],
    /// When the newest request was sent that this voter granted.
    granted: [Option<Instant>; NODES_MAX],
    until: Instant,
    /// Since when a voter has promised a higher term than ours.
    outvoted_since: Option<Instant>,
    /// Since when it has run out.
    lost_since: Option<Instant>,
    /// No majority answered for long enough to act on it.
    is_lost: bool,
}

impl Lease {
    /// As if granted until then.
    #[cfg(test)]
    pub fn hold(&mut self, until: Instant) {
        self.until = until;
    }

    /// A new reign begins: nothing is granted to it.
    pub fn forget(&mut self) {
        (self.granted, self.until) = (Default::default(), Instant::default());
        self.outvoted_since = None;
        (self.lost_since, self.is_lost) = (None, false);
    }
}

impl Volume {
    /// Nobody else can have been chosen at this moment.
    #[inline]
    pub(super) fn holds_lease(&self) -> bool {
        !self.has_votes() || self.now < self.votes.lease.until
    }

    /// Until then nobody else is chosen, as far as this node knows.
    pub fn lease_until(&self) -> Instant {
        self.votes.lease.until
    }

    fn renews_after(&self) -> Duration {
        self.setup.lease / 4
    }

    /// Every tick of who reigns.
    pub(super) fn tick_lease(&mut self) {
        if !self.has_votes() || !self.role.is_serving() {
            return;
        }
        let lease = &self.votes.lease;
        let newest = lease.sent[lease.number as usize % REQUESTS];
        if lease.number == 0 || self.now.since(newest) >= self.renews_after() {
            self.ask_for_lease();
        }
        self.watch_lease();
        let patience = match self.holds_lease() {
            // It serves on without who promised more; only a new reign takes that one back.
            true => self.setup.lease * 4,
            false => Duration::ZERO,
        };
        let outvoted = self.votes.lease.outvoted_since;
        let stays = planted!(self, ServesOnWhenSuperseded);
        if outvoted.is_some_and(|since| self.now.since(since) >= patience) && !stays {
            self.step_down();
        }
    }

    /// Once the lease ran out, one more round of asking decides that the majority is lost: who slept
    /// over it asks before it gives anything up.
    fn watch_lease(&mut self) {
        if self.holds_lease() {
            return;
        }
        let patience = self.renews_after();
        let lease = &mut self.votes.lease;
        let since = *lease.lost_since.get_or_insert(self.now);
        if self.now.since(since) < patience || std::mem::replace(&mut lease.is_lost, true) {
            return;
        }
        let fails = self.fails_without_quorum();
        self.notice(Notice::QuorumLost { fails });
        if fails {
            self.give_requests_up();
        }
    }

    /// Requests are not to wait for the majority, and it is gone.
    #[inline]
    pub(super) fn fails_without_quorum(&self) -> bool {
        self.votes.lease.is_lost && self.setup.on_quorum_loss == QuorumLoss::Fail
    }

    /// The majority stays away: S cannot change, so a command that needs all of it would wait for ever
    /// (law L3).
    pub(super) fn why_not_all(&self) -> Option<CommandError> {
        let since = self.votes.lease.lost_since?;
        let is_over = self.now.since(since) >= COMMAND_PATIENCE;
        is_over.then(|| CommandError::NoQuorum {
            missing: self.unheard_voters(),
        })
    }

    /// Another list of voters is in force: only what its majority granted counts. A majority of the list
    /// before shares a voter with every majority of this one, not with those of the next.
    pub(super) fn voters_changed(&mut self) {
        if self.has_votes() && self.role.is_serving() {
            self.votes.lease.until = Instant::default();
            self.ask_for_lease();
        }
    }

    pub(super) fn ask_for_lease(&mut self) {
        let Some(record) = self.record() else { return };
        let lease = &mut self.votes.lease;
        lease.number += 1;
        lease.sent[lease.number as usize % REQUESTS] = self.now;
        let (term, number) = (record.term, lease.number);
        let ask = Vote::Lease {
            term,
            number,
            length: self.setup.lease,
        };
        // Who has no vote grants nothing that counts, but says if it promised more.
        self.say_vote_to(self.others(), &ask);
        self.count_lease();
    }

    /// A voter granted it, or says what it promised instead.
    pub(super) fn lease_answered(
        &mut self,
        from: NodeIdx,
        term: Term,
        number: u64,
        answer: Result<(), Term>,
    ) {
        let is_ours = self.record().is_some_and(|r| r.term == term) && self.role.is_serving();
        let lease = &mut self.votes.lease;
        let is_known = number <= lease.number && number + REQUESTS as u64 > lease.number;
        if !is_ours || !is_known {
            return;
        }
        if let Err(promised) = answer {
            if promised > term {
                lease.outvoted_since.get_or_insert(self.now);
            }
            return;
        }
        let mut sent = lease.sent[number as usize % REQUESTS];
        if from == REGISTER && planted!(self, LeaseCountsFromTheAnswer) {
            sent = self.now;
        }
        let lease = &mut self.votes.lease;
        let granted = &mut lease.granted[usize::from(from.0)];
        *granted = (*granted).max(Some(sent));
        self.count_lease();
    }

    /// The latest moment for which a majority's grants hold.
    fn count_lease(&mut self) {
        let Some(record) = self.record() else { return };
        let lease = self.setup.lease;
        let length = lease - lease / 100;
        let granted = self.votes.lease.granted;
        let own = self.durable.sb.promised == record.term;
        let since = |moment: Instant| {
            let others = self.others().iter();
            let others = others.filter(|n| granted[usize::from(n.0)].is_some_and(|g| g >= moment));
            let all: NodeSet = others.collect();
            if own { all.with(self.me) } else { all }
        };
        let mut moments: Vec<Instant> = granted.iter().flatten().copied().collect();
        // Alone a majority: its own promise is all it takes.
        moments.push(self.now);
        moments.sort_unstable();
        let newest = moments.into_iter().rev();
        let mut newest = newest.filter(|at| is_majority(record.voters, since(*at)));
        if let Some(at) = newest.next() {
            let until = at.after(length);
            self.votes.lease.until = self.votes.lease.until.max(until);
        }
        if self.holds_lease() {
            self.votes.lease.lost_since = None;
            if std::mem::take(&mut self.votes.lease.is_lost) {
                self.notice(Notice::QuorumBack);
            }
        }
        self.answer_reads();
    }

    /// A read's bytes are there; it is answered while nobody else can have been chosen.
    pub(super) fn answer_read(&mut self, slot: u32) {
        let is_answered = self.ops.get(slot).answered || planted!(self, LeaseNotAwaited);
        if self.holds_lease() || is_answered {
            self.answer(slot, Outcome::Ok);
            return self.end(slot);
        }
        if self.fails_without_quorum() {
            self.answer(slot, Outcome::Io);
            return self.end(slot);
        }
        let op = self.ops.get_mut(slot);
        (op.phase, op.pending) = (Phase::Lease, NodeSet::EMPTY);
        self.wait_lease.push(slot);
    }

    fn answer_reads(&mut self) {
        if !self.holds_lease() {
            return;
        }
        for slot in std::mem::take(&mut self.wait_lease) {
            self.answer(slot, Outcome::Ok);
            self.end(slot);
        }
    }

    /// A majority may have chosen somebody else: this node serves no more, at once. Its clients'
    /// sessions are dead (laws T6, B9); what they asked for may have happened or not.
    pub(super) fn step_down(&mut self) {
        if !self.role.is_serving() {
            return;
        }
        let term = self.record().map_or(Term(0), |r| r.term);
        let was = std::mem::replace(&mut self.role, Role::Secondary);
        if self.durable.change.is_some_and(|c| c.version.is_none()) {
            self.durable.change = None;
        }
        self.votes.poll = None;
        self.votes.lease.forget();
        self.notice(Notice::SteppedDown { term });
        self.drop_requests(Outcome::Superseded);
        self.fail_marks();
        for node in self.peers.nodes() {
            self.drop_link(node);
        }
        // What only waited for a record ends now.
        self.reconsider_all();
        self.log.retouch(crate::activity_log::NEVER);
        let pause = self.setup.lease / 2;
        self.postpone_election(self.now.after(pause));
        self.leave_role(was);
        self.tell_state();
        self.ops.attention = true;
    }

    /// Tells voters that what they granted ends now: somebody else may serve at once.
    pub(super) fn release_lease(&mut self, to: Option<NodeIdx>) {
        if let Some(record) = self.record().filter(|_| self.has_votes()) {
            let term = record.term;
            self.votes.lease.forget();
            self.votes.grant.until = self.now;
            self.say_vote_to(self.others(), &Vote::Release { term, to });
        }
    }
}
