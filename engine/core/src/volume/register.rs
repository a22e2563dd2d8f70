//! The register in the place of voters (DESIGN D4; laws T1, T2, T3, T7).
//!
//! ```text
//!  Ask, Store, Lease, Release ─► wanted ─► judged on what it holds ─► Swap{expected} ─► answered
//!                                   ▲           as a voter would            │
//!                                   └── Stands: judged anew ◄───────────────┘   Unknown: read first
//! ```
//!
//! Elections, polls and leases speak to it by the ballots they speak to voters by; here stands what
//! a voter's disk and clock do for it. The disk is the register. The clock is this node's own: a
//! lease is over once its newest renewal was seen unchanged for its whole length, and a promise to
//! another is swapped in only where that renewal stands still.
//!
//! A lost answer is a lost ballot: whoever asked asks again, and meets what happened. A swap that
//! comes late, after it was given up, finds another revision, or nobody was between.

use crate::action::Action;
use crate::message::{Disk, Life};
use crate::quorum::{CopyState, Grant, Quorum};
use crate::record::Record;
use crate::register::{Access, Found, Holding, REGISTER, REGISTER_ALONE, Stamp};
use crate::time::Instant;
use crate::units::{NodeSet, Term};
use crate::vote::{Ballot, Said, Vote};

use super::voters::RECENT;
use super::votes::Met;
use super::{Volume, planted};

/// A register has one life; that it has one admits it.
const INCARNATION: u128 = 1;

/// What this node knows of the register.
#[derive(Default)]
pub(super) struct Register {
    /// Where it stood when it was last heard; nothing after an answer was lost.
    view: Option<View>,
    /// What it last held, whenever that was.
    known: Option<Holding>,
    /// Ballots that it has not answered, at most one of a kind.
    wanted: Vec<Vote>,
    asked: Option<Asked>,
    /// Number of the newest question.
    number: u64,
    /// When it was last asked.
    asked_at: Instant,
    /// When it last answered.
    heard_at: Instant,
    /// Promise and newest renewal last seen.
    seen: Option<(Term, Stamp)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct View {
    revision: u64,
    holding: Option<Holding>,
}

/// The question under way.
struct Asked {
    number: u64,
    at: Instant,
    /// What it holds if the swap happens; nothing of a read.
    next: Option<Holding>,
}

/// What becomes of a ballot.
enum Judged {
    /// This is the answer, and the register stays as it is.
    Answer(Vote),
    /// The register is to hold this.
    Swap(Holding),
    /// Nothing is to be done, and nobody waits.
    Settled,
}

impl Register {
    /// The newest record it was heard to hold.
    pub fn record(&self) -> Option<Record> {
        self.known.map(|holding| holding.record)
    }
}

impl Volume {
    /// A register chooses records.
    #[inline]
    pub(super) fn has_register(&self) -> bool {
        self.setup.quorum == Quorum::Register
    }

    /// Says a ballot to the register; a later one of the same kind takes its place.
    pub(super) fn ask_register(&mut self, vote: Vote) {
        let register = &mut self.votes.register;
        let kind = std::mem::discriminant(&vote);
        register
            .wanted
            .retain(|w| std::mem::discriminant(w) != kind);
        match vote {
            // A trial asks what it holds now.
            Vote::Ask { is_trial: true, .. } => register.view = None,
            Vote::Release { .. } => register.wanted.retain(|w| !matches!(w, Vote::Lease { .. })),
            _ => {}
        }
        register.wanted.push(vote);
        self.ops.attention = true;
    }

    /// Every tick: an answer that is late is lost, and a register that nobody asks is watched.
    pub(super) fn tick_register(&mut self) {
        if !self.has_register() {
            return;
        }
        let lease = self.setup.lease;
        let register = &mut self.votes.register;
        if let Some(asked) = &register.asked
            && self.now.since(asked.at) >= lease
        {
            let number = asked.number;
            return self.register_answered(number, Found::Unknown);
        }
        let every = match self.role.is_serving() {
            true => lease / 2,
            false => lease / 8,
        };
        if register.asked.is_none() && self.now.since(register.asked_at) >= every {
            register.view = None;
            self.access(Access::Read);
        }
    }

    fn access(&mut self, access: Access) {
        let register = &mut self.votes.register;
        register.number += 1;
        register.asked_at = self.now;
        let number = register.number;
        let next = match access {
            Access::Read => None,
            Access::Swap { next, .. } => Some(next),
        };
        let at = self.now;
        register.asked = Some(Asked { number, at, next });
        self.actions.push(Action::Register { number, access });
    }

    /// The register answered a question, or it is given up.
    pub(super) fn register_answered(&mut self, number: u64, found: Found) {
        let register = &mut self.votes.register;
        let Some(asked) = register.asked.take_if(|asked| asked.number == number) else {
            return;
        };
        self.ops.attention = true;
        match (found, asked.next) {
            (Found::Swapped { revision }, Some(next)) => self.register_stands(revision, Some(next)),
            (Found::Stands { revision, holding }, next) => {
                let is_blind = next.is_some() && planted!(self, ConflictSwappedBlindly);
                self.register_stands(revision, holding);
                if let Some(next) = next.filter(|_| is_blind) {
                    let expected = revision;
                    self.access(Access::Swap { expected, next });
                }
            }
            // A read does not swap: nothing is known.
            (Found::Unknown | Found::Swapped { .. }, next) => {
                register.view = None;
                register.wanted.clear();
                if let Some(next) = next.filter(|_| planted!(self, UnknownTakenAsChosen)) {
                    let (term, step) = (next.record.term, next.record.step);
                    self.vote_answered(REGISTER, term, step, true);
                }
            }
        }
    }

    /// It stands there: what a voter's clock and disk would know of it.
    fn register_stands(&mut self, revision: u64, holding: Option<Holding>) {
        // Its file lists other nodes: its sets mean something else.
        let is_ours = |h: &Holding| h.nodes == self.votes.nodes;
        if holding.is_some_and(|h| !is_ours(&h)) {
            return;
        }
        let now = self.now;
        self.votes.register.view = Some(View { revision, holding });
        let (volume_id, has_vote) = (holding.map_or(0, |h| h.volume_id), holding.is_some());
        self.votes.meet(
            REGISTER,
            Met {
                volume_id,
                incarnation: INCARNATION,
                has_vote,
                only_vote: holding.map(|h| h.record),
                at: now,
            },
        );
        let Some(holding) = holding.filter(|h| h.volume_id == self.durable.sb.volume_id) else {
            self.votes.register.known = None;
            return;
        };
        self.votes.register.known = Some(holding);
        self.note_promised(holding.promised);
        self.note_lease(&holding);
        let Stamp { term, number, .. } = holding.lease;
        if !holding.lease.is_released {
            self.lease_answered(REGISTER, term, number, Ok(()));
        }
    }

    /// A renewal is seen for the first time: from now on nobody else is promised for as long as it
    /// holds at its holder, and longer (law T7). So it is after the register was away: who serves
    /// could not renew it either, and is first to.
    fn note_lease(&mut self, holding: &Holding) {
        let before = self
            .votes
            .register
            .seen
            .replace((holding.promised, holding.lease));
        let lease = holding.lease;
        let is_new = before.is_none_or(|(_, seen)| seen != lease);
        let heard_at = std::mem::replace(&mut self.votes.register.heard_at, self.now);
        let was_away = self.now.since(heard_at) >= self.setup.lease / 2;
        let term = lease.term;
        if (is_new || was_away) && term.author() != self.me && !lease.is_released {
            let until = self.now.after(self.setup.lease.max(lease.length));
            self.votes.grant = Grant { term, until };
            (self.votes.handed, self.votes.obstacle) = (None, None);
            self.postpone_election(until);
        } else if is_new && term.author() != self.me && self.now < self.votes.grant.until {
            // Who heard of it from its holder knows already who goes first.
            let until = self.now;
            self.votes.grant = Grant { term, until };
            self.postpone_election(until);
        }
        // Long enough for a candidate to be chosen, and others not to disturb it.
        let is_promised = before.is_some_and(|(promised, _)| promised < holding.promised);
        if is_promised && holding.promised.author() != self.me {
            let until = self.now.after(self.setup.lease / 4);
            if until > self.votes.grant.until {
                let term = holding.promised;
                self.votes.grant = Grant { term, until };
                self.postpone_election(until);
            }
        }
    }

    /// Answers what can be answered, and asks the register to hold what the rest wants.
    pub(super) fn settle_register(&mut self) {
        let register = &mut self.votes.register;
        if register.asked.is_some() || register.wanted.is_empty() {
            return;
        }
        let Some(view) = register.view else {
            return self.access(Access::Read);
        };
        let (mut next, mut answers) = (view.holding, Vec::new());
        for vote in std::mem::take(&mut self.votes.register.wanted) {
            match self.judge_for_register(next, &vote) {
                Judged::Answer(answer) if next == view.holding => answers.push(answer),
                // What it hangs on is not there yet.
                Judged::Answer(_) => self.votes.register.wanted.push(vote),
                Judged::Swap(holding) => {
                    next = Some(holding);
                    self.votes.register.wanted.push(vote);
                }
                Judged::Settled => {}
            }
        }
        if let Some(next) = next.filter(|_| next != view.holding) {
            let expected = view.revision;
            self.access(Access::Swap { expected, next });
        }
        let volume_id = view.holding.map_or(0, |h| h.volume_id);
        for vote in answers {
            let ballot = Ballot {
                volume_id,
                incarnation: INCARNATION,
                nodes: self.votes.nodes,
                // It has no runs, and remembers none of ours.
                life: Life::default(),
                knows: Life::default(),
                vote,
            };
            self.ballot(REGISTER, &ballot);
        }
    }

    /// A voter that holds this: what does it say, or keep?
    fn judge_for_register(&self, holding: Option<Holding>, vote: &Vote) -> Judged {
        let holding = holding.filter(|h| h.volume_id == self.durable.sb.volume_id);
        match *vote {
            Vote::Ask { term, is_trial } => self.promise_of_register(holding, term, is_trial),
            Vote::Store { record, admits } => self.vote_of_register(holding, record, admits),
            Vote::Lease {
                term,
                number,
                length,
            } => {
                let stamp = Stamp {
                    term,
                    number,
                    length,
                    is_released: false,
                };
                grant_of_register(holding, stamp)
            }
            Vote::Release { term, .. } => match holding {
                Some(held) if held.lease.term == term && !held.lease.is_released => {
                    let is_released = true;
                    let lease = Stamp {
                        is_released,
                        ..held.lease
                    };
                    Judged::Swap(Holding { lease, ..held })
                }
                _ => Judged::Settled,
            },
            // Only nodes say these, or hear them.
            Vote::Answer { .. }
            | Vote::Stored { .. }
            | Vote::Granted { .. }
            | Vote::HandOver { .. }
            | Vote::Table { .. } => Judged::Settled,
        }
    }

    fn promise_of_register(&self, holding: Option<Holding>, term: Term, is_trial: bool) -> Judged {
        let is_leased = self.has_granted_another(self.me) && !planted!(self, ClaimsUnderALease);
        let said = match holding {
            None => Said::NoVote,
            Some(_) if is_leased => Said::Busy,
            Some(held) if term < held.promised => Said::Later,
            Some(held) if term == held.promised && term.author() != self.me => Said::Later,
            Some(_) => Said::Promised,
        };
        match holding {
            Some(held) if said == Said::Promised && !is_trial && held.promised != term => {
                let promised = term;
                Judged::Swap(Holding { promised, ..held })
            }
            _ => Judged::Answer(Vote::Answer {
                term,
                is_trial,
                said,
                promised: holding.map_or(Term(0), |h| h.promised),
                record: holding.map(|h| h.record),
                copy: CopyState {
                    disk: Disk::Blank,
                    is_whole: false,
                },
            }),
        }
    }

    /// Laws T2, T4: as `vote_wanted`. A record that the register is to hold from now on, because
    /// the volume is founded or comes from other voters, is leased from the start: who sees it waits.
    fn vote_of_register(&self, holding: Option<Holding>, record: Record, admits: u128) -> Judged {
        let first = Stamp {
            term: record.term,
            number: 0,
            length: self.setup.lease,
            is_released: false,
        };
        let held = match holding {
            Some(held) => held,
            None if admits == 0 || self.holds_another() => return stored(&record, Term(0), false),
            None => Holding {
                volume_id: self.durable.sb.volume_id,
                nodes: self.votes.nodes,
                promised: Term(0),
                record,
                lease: first,
            },
        };
        if held.record == record && held.promised != Term(0) {
            return stored(&record, held.promised, true);
        }
        let keeps_promise = record.term == held.promised
            || (record.term > held.promised && !self.has_granted_another(self.me));
        if !keeps_promise || held.record.is_newer_than(&record) {
            return stored(&record, held.promised, false);
        }
        let lease = match admits {
            0 => held.lease,
            _ => first,
        };
        Judged::Swap(Holding {
            promised: record.term,
            record,
            lease,
            ..held
        })
    }

    /// It was lately heard that another volume has the place of this one.
    pub(super) fn is_register_taken(&self) -> bool {
        let own = self.durable.sb.volume_id;
        let met = self.votes.met(REGISTER, self.now, RECENT);
        self.has_register() && met.is_some_and(|m| m.volume_id != 0 && m.volume_id != own)
    }

    fn holds_another(&self) -> bool {
        let held = self.votes.register.view.and_then(|view| view.holding);
        held.is_some_and(|h| h.volume_id != self.durable.sb.volume_id)
    }

    /// The next list of voters on the way to the register alone (law T11): it joins, then the nodes
    /// leave, this one last.
    pub(super) fn next_voters_for_register(&self, record: &Record) -> Option<(NodeSet, NodeSet)> {
        let voters = record.voters;
        if voters == REGISTER_ALONE {
            return None;
        }
        let met = |node| self.votes.met(node, self.now, RECENT);
        let (next, admits) = match voters.has(REGISTER) {
            false => (voters.with(REGISTER), REGISTER_ALONE),
            true => {
                let others = voters.without(REGISTER).without(self.me);
                let off = others.iter().next().unwrap_or(self.me);
                (voters.without(off), NodeSet::EMPTY)
            }
        };
        let takes_record = self
            .votes
            .register
            .known
            .is_none_or(|h| h.promised <= record.term)
            && !self.is_register_taken()
            && !self.has_granted_another(self.me);
        // A list that those at hand cannot choose would freeze the volume.
        let is_here = |n| n == self.me || met(n).is_some_and(|m| m.has_vote || admits.has(n));
        let here: NodeSet = voters.or(next).iter().filter(|n| is_here(*n)).collect();
        let is_chosen = |list| crate::quorum::is_majority(list, here);
        (takes_record && is_chosen(voters) && is_chosen(next)).then_some((next, admits))
    }
}

/// Law T7: who was promised the term may answer reads for a while from when it asked.
fn grant_of_register(holding: Option<Holding>, stamp: Stamp) -> Judged {
    match holding {
        Some(held) if held.promised == stamp.term && held.lease == stamp => Judged::Settled,
        Some(held) if held.promised == stamp.term => Judged::Swap(Holding {
            lease: stamp,
            ..held
        }),
        _ => Judged::Answer(Vote::Granted {
            term: stamp.term,
            number: stamp.number,
            is_granted: false,
            promised: holding.map_or(Term(0), |h| h.promised),
        }),
    }
}

fn stored(record: &Record, promised: Term, is_stored: bool) -> Judged {
    let (term, step) = (record.term, record.step);
    Judged::Answer(Vote::Stored {
        term,
        step,
        is_stored,
        promised,
    })
}
