//! Records chosen by voters: the poll of one record, and who has a vote at all (laws T1, T3, T11).
//!
//! A change of the voters is a record like one of S, one node at a time: majorities of neighbouring
//! lists meet, so each record is chosen by the old and by the new list. A replica that was formatted
//! anew lost its promises with its metadata: it is taken off the list, and put on it again with the
//! life it has now.

use std::time::Duration;

use crate::quorum::is_majority;
use crate::record::{Choice, Record};
use crate::register::REGISTER;
use crate::time::Instant;
use crate::units::{NODES_MAX, NodeIdx, NodeSet};
use crate::vote::Vote;

use super::votes::Met;
use super::{Volume, planted};

/// Between two asks of who did not answer.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(200);
/// A node that said nothing for so long is not taken for there.
pub(super) const RECENT: Duration = Duration::from_secs(3);

/// A record on its way to be chosen.
#[derive(Clone, Copy)]
pub(super) struct Poll {
    record: Record,
    /// Whose votes counted before it.
    before: NodeSet,
    stored: NodeSet,
    /// The superblock that carries our own vote.
    version: u64,
    /// Nobody is asked to vote for a founding before its founder could tell of it after a loss of power.
    asked_at: Option<Instant>,
    since: Instant,
    /// Lives of blank replicas that get their vote with it.
    admits: [u128; NODES_MAX],
}

impl Volume {
    /// Asks the voters to choose a record; `volume_id` names the volume, also where it is new.
    pub(super) fn begin_poll(&mut self, record: Record, volume_id: u128, admits: NodeSet) {
        // A candidate was promised by majorities of all lists that may be in force.
        let before = self.durable.record.filter(|r| r.term == record.term);
        let before = before.map_or(record.voters, |r| r.voters);
        let mut lives = [0; NODES_MAX];
        for node in admits.iter() {
            let met = self.votes.met(node, self.now, RECENT);
            // The register has one life, whether it was heard or not.
            let unmet = u128::from(node == REGISTER);
            lives[usize::from(node.0)] = met.map_or(unmet, |met| met.incarnation);
        }
        self.promise(record.term);
        // Promised away meanwhile: `settle_poll` ends the change (law T2).
        let keeps_promise = self.durable.sb.promised == record.term;
        if keeps_promise {
            self.vote(volume_id, record);
        }
        self.votes.poll = Some(Poll {
            record,
            before,
            stored: NodeSet::EMPTY,
            version: self.durable.newest_version(),
            asked_at: None,
            since: self.now,
            admits: lives,
        });
        if keeps_promise && self.durable.sb.record.is_some() {
            self.ask_voters();
        }
    }

    fn ask_voters(&mut self) {
        // Also of who serves no more: its last record may be all that others wait for.
        self.tell_strangers();
        let now = self.now;
        let Some(poll) = &mut self.votes.poll else {
            return;
        };
        poll.asked_at = Some(now);
        let Poll {
            record,
            before,
            stored,
            admits,
            ..
        } = *poll;
        let all = record.voters.or(before);
        for node in all.minus(stored).without(self.me).iter() {
            let admits = admits[usize::from(node.0)];
            self.say_vote(node, Vote::Store { record, admits });
        }
    }

    /// A node says that it has no vote. What an earlier life of it stored is forgotten. Where its
    /// admission is under way, or chosen, the record that counts it in was lost.
    pub(super) fn voter_is_blank(&mut self, node: NodeIdx, incarnation: u128) {
        if node == REGISTER {
            // What it held is gone: only an operator knows whether it is the same one still.
            return;
        }
        let at = usize::from(node.0);
        if let Some(poll) = &mut self.votes.poll {
            poll.stored = poll.stored.without(node);
            if poll.admits[at] != 0 {
                poll.admits[at] = incarnation;
            }
        }
        let is_admitted = self.votes.admitted[at] == incarnation;
        let record = self
            .record()
            .filter(|r| r.voters.has(node) && self.role.is_serving());
        if let Some(record) = record.filter(|_| is_admitted) {
            let admits = incarnation;
            self.say_vote(node, Vote::Store { record, admits });
        }
    }

    pub(super) fn vote_answered(
        &mut self,
        from: NodeIdx,
        term: crate::units::Term,
        step: u32,
        is_stored: bool,
    ) {
        if let Some(poll) = &mut self.votes.poll
            && (poll.record.term, poll.record.step) == (term, step)
            && is_stored
        {
            poll.stored = poll.stored.with(from);
        }
    }

    /// Counts the votes; a record is chosen once majorities of the old and the new list have it.
    pub(super) fn settle_poll(&mut self) {
        let Some(poll) = self.votes.poll else { return };
        if self.durable.change.is_none_or(|c| c.record != poll.record) {
            self.votes.poll = None;
            return;
        }
        if self.durable.sb.promised != poll.record.term {
            // We promised somebody else more (law T2).
            self.votes.poll = None;
            let standing = self.durable.sb.voted.unwrap_or(poll.record);
            return self.record_choice(Choice::Conflict(standing));
        }
        if !self.durable.is_durable(poll.version) {
            return;
        }
        let stored = poll.stored.with(self.me);
        let is_chosen = is_majority(poll.record.voters, stored) && is_majority(poll.before, stored);
        let by_half = 2 * stored.and(poll.record.voters).count() + 1 >= poll.record.voters.count();
        if is_chosen || (by_half && planted!(self, ChosenByHalf)) {
            self.votes.poll = None;
            for (known, life) in self.votes.admitted.iter_mut().zip(poll.admits) {
                if life != 0 {
                    *known = life;
                }
            }
            self.record_choice(Choice::Chosen);
        } else if poll
            .asked_at
            .is_none_or(|at| self.now.since(at) >= ASK_AGAIN)
        {
            self.ask_voters();
        }
    }

    /// A record waits for votes that may never come: what needs it waits too.
    pub(super) fn is_poll_overdue(&self) -> bool {
        let poll = self.votes.poll.as_ref();
        poll.is_some_and(|poll| self.now.since(poll.since) >= self.setup.lease * 2)
    }

    /// The voters that were heard lately are no majority without this one.
    pub(super) fn needs_vote_of(&self, node: NodeIdx) -> bool {
        let Some(record) = self.record().filter(|r| r.voters.has(node)) else {
            return false;
        };
        let has_vote = |n: &NodeIdx| {
            let met = self.votes.met(*n, self.now, RECENT);
            *n == self.me || met.is_some_and(|met| met.has_vote)
        };
        let here: NodeSet = record
            .voters
            .without(node)
            .iter()
            .filter(has_vote)
            .collect();
        self.has_votes() && !is_majority(record.voters, here)
    }

    /// Who would vote now, this node among them: whoever reigns asks all several times within a lease.
    pub(super) fn votes_at_hand(&self) -> NodeSet {
        let has_vote = |n: &NodeIdx| {
            let met = self.votes.met(*n, self.now, self.setup.lease);
            met.is_some_and(|met| met.has_vote)
        };
        let others = self.others().iter().filter(has_vote);
        others.collect::<NodeSet>().with(self.me)
    }

    /// It is a voter and has a vote, where members are. A member without one can neither be elected
    /// nor, being whole, let another one be.
    pub(super) fn has_vote_of(&self, node: NodeIdx) -> bool {
        if !self.has_votes() || self.has_register() {
            return true;
        }
        let met = self.votes.met(node, self.now, RECENT);
        let is_listed = self.record().is_some_and(|r| r.voters.has(node));
        is_listed && met.is_some_and(|m| m.has_vote)
    }

    /// Takes voters off the list and puts them on it, one at a time.
    pub(super) fn settle_voters(&mut self) {
        let may_change = self.has_votes()
            && self.role.is_primary()
            && self.reigns()
            && self.durable.change.is_none()
            // Of this list: else the next one could elect somebody while it is thought to hold.
            && self.holds_lease()
            && !self.durable.has_failed;
        let Some(record) = self.record().filter(|_| may_change) else {
            return;
        };
        if self.has_register() {
            if let Some((voters, admits)) = self.next_voters_for_register(&record) {
                let next = Record {
                    voters,
                    ..record.next()
                };
                self.propose_admitting(next, admits);
            }
            return;
        }
        let all = self.others().with(self.me);
        let met = |node: NodeIdx| self.votes.met(node, self.now, RECENT);
        let own = self.durable.sb.volume_id;
        let (admitted, leaving) = (self.votes.admitted, self.leaving());
        let is_foreign = |node: &NodeIdx| {
            let is_other = |m: Met| {
                (m.volume_id != own || !m.has_vote)
                    && m.incarnation != admitted[usize::from(node.0)]
            };
            !all.has(*node) || leaving.has(*node) || met(*node).is_some_and(is_other)
        };
        // First who has no vote to give: without it nobody may be able to spare who leaves.
        let named = record.voters.without(self.me);
        let mut staying = named.minus(leaving).iter();
        let off = staying.find(is_foreign).or(named.iter().find(is_foreign));
        let may_join = |node: &NodeIdx| {
            if *node == self.me {
                return true;
            }
            // Who died while its joining is chosen may be needed for that for ever.
            let here = self.votes.met(*node, self.now, self.setup.lease);
            let is_blank_witness = |id: u128| id == 0 && !self.replicas().has(*node);
            here.is_some_and(|m| m.volume_id == own || is_blank_witness(m.volume_id))
        };
        let absent = all.minus(record.voters).minus(leaving);
        let on = absent.iter().find(may_join);
        let here = self.votes_at_hand();
        let off = off.map(|node| {
            (
                record.voters.without(node),
                NodeSet::EMPTY,
                here.without(node),
            )
        });
        let on = on.map(|node| {
            let admits = NodeSet::only(node).without(self.me);
            (record.voters.with(node), admits, here.or(admits))
        });
        // A list that the nodes at hand cannot choose would freeze the volume: who leaves may have to
        // wait for the vote of who comes.
        let can_choose = |(voters, _, here): &(NodeSet, NodeSet, NodeSet)| {
            is_majority(record.voters, *here) && is_majority(*voters, *here)
        };
        let mut changes = off.into_iter().chain(on);
        if let Some((voters, admits, _)) = changes.find(can_choose) {
            let next = Record {
                voters,
                ..record.next()
            };
            self.propose_admitting(next, admits);
        }
    }
}
