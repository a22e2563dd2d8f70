//! This replica was put back to an older state than a peer remembers (law T8, F21).
//!
//! ```text
//!  hello, ballot of a peer: "your run 6" ─► past.rs: a run of ours?  yes ─► go on; it may remember this one
//!                                                                    no ─► renew, durable, meet anew
//! ```
//!
//! Which writes are missing here no bits say: not the peer's, for it knows of nothing it did not
//! send, and not ours. So this replica becomes another one. Whoever meets the new identity marks
//! all of it as lacking (law S11), no voter counts what the old one promised, and what it knew of
//! other replicas is void. Where the peer holds more, the copy itself is given up; where this one
//! served a history of its own since, that is a split brain, and an operator's to decide.
//!
//! A peer takes down the run it met only when that run has judged what the peer remembers: its first
//! `Runs`, or an answer to a ballot, says so. Else the proof would be gone with the first hello.

use crate::action::{CommandError, Notice};
use crate::generation::{Chain, Verdict, judge};
use crate::message::{Disk, Hello, Life, Refusal};
use crate::meta;
use crate::units::{NodeIdx, NodeSet, Term};
use crate::vote::{Ballot, Vote};

use super::peer::Gate;
use super::role::{Role, mix};
use super::{Volume, planted};

/// What becomes of a copy that is older than a peer remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Older {
    /// It is another replica from now on; of its data nothing is said.
    Renewed,
    /// It gives up its data as well: the peer has all of it, and more.
    Reset,
    /// It served since, and the peer holds what it lacks: both are kept, as in any split brain.
    Parted,
    /// It serves, and what it holds is part of what the peer holds.
    Refused,
}

impl Volume {
    /// The run of ours that a peer says it met is one that we had.
    pub(super) fn had_run(&self, node: NodeIdx, remembered: Life) -> bool {
        let sb = &self.durable.sb;
        planted!(self, OldImageTrusted) || sb.past.knows(node, remembered, sb.life)
    }

    /// The peer remembers no run that we did not have: from here on this one may be remembered.
    pub(super) fn note_met(&mut self, node: NodeIdx) {
        let sb = &mut self.durable.sb;
        let met = &mut sb.past.met[usize::from(node.0)];
        if *met != sb.life {
            // Nothing waits for it: until it is durable, the runs themselves are remembered.
            *met = sb.life;
            self.durable.touch();
        }
    }

    /// A hello shows that we are older than its speaker remembers. `fits`: histories did not part.
    pub(super) fn found_older(&mut self, node: NodeIdx, theirs: &Hello, fits: bool) {
        match self.judge_older(theirs, fits) {
            Older::Refused => return self.refuse(node, Refusal::TwoPrimaries),
            Older::Parted => self.durable.sb.chain.part_from(&theirs.chain),
            Older::Reset => self.reset_copy(),
            Older::Renewed => {}
        }
        self.renew(node, theirs.knows.life);
    }

    fn judge_older(&self, theirs: &Hello, fits: bool) -> Older {
        let verdict = judge(&self.durable.sb.chain, &theirs.chain);
        let has_copy = matches!(self.disk(), Disk::UpToDate | Disk::Outdated);
        let is_better = theirs.disk == Disk::UpToDate || self.has_votes();
        let is_part = self.has_votes() || matches!(verdict, Verdict::Equal | Verdict::Behind);
        if !fits || !has_copy || !is_better {
            Older::Renewed
        } else if !is_part {
            Older::Parted
        } else if self.role.is_serving() || self.giving_up.is_some() {
            Older::Refused
        } else {
            Older::Reset
        }
    }

    /// By votes: a ballot shows it. Answers whether the ballot may be heard.
    pub(super) fn is_heard(&mut self, from: NodeIdx, ballot: &Ballot) -> bool {
        let own = self.durable.sb.volume_id;
        if own != 0 && own != ballot.volume_id {
            return true;
        }
        if !self.had_run(from, ballot.knows) {
            let is_busy = self.role.is_serving() || self.durable.change.is_some();
            if !is_busy && self.giving_up.is_none() {
                if matches!(self.disk(), Disk::UpToDate | Disk::Outdated) {
                    self.reset_copy();
                }
                self.renew(from, ballot.knows);
            }
            return false;
        }
        if ballot.knows.id != 0 {
            self.note_met(from);
        }
        // Answers come from who judged our question; all but trials are counted on.
        let is_counted = match ballot.vote {
            Vote::Answer { is_trial, .. } => Some(!is_trial),
            Vote::Stored { .. } | Vote::Granted { .. } => Some(true),
            _ => None,
        };
        match is_counted {
            Some(is_counted) if ballot.life.id != 0 && own != 0 => {
                let version = self.take_down(from, ballot.life);
                !is_counted || version.is_none_or(|version| self.durable.is_durable(version))
            }
            _ => true,
        }
    }

    /// Notes which run of a peer was met; answers the superblock that will carry it, if it is not
    /// there yet.
    fn take_down(&mut self, node: NodeIdx, life: Life) -> Option<u64> {
        let at = usize::from(node.0);
        if self.durable.sb.known_lives[at] != life {
            self.durable.sb.known_lives[at] = life;
            self.peers_run[at] = self.durable.touch();
        }
        let version = self.peers_run[at];
        (!self.durable.is_durable(version)).then_some(version)
    }

    /// The run in which the peer says hello.
    fn run_of(&self, node: NodeIdx) -> Option<Life> {
        let hello = self.peers.get(node).hello.as_ref()?;
        Some(match hello.disk {
            Disk::Blank => Life::default(),
            _ => hello.life,
        })
    }

    /// The run that speaks is down here, durably.
    pub(super) fn has_met(&self, node: NodeIdx) -> bool {
        let at = usize::from(node.0);
        let is_down = self.run_of(node) == Some(self.durable.sb.known_lives[at]);
        is_down && self.durable.is_durable(self.peers_run[at])
    }

    /// The peer has judged our hello and goes on. Durable before the session leaves its exchange:
    /// nothing is stored for a run we could forget.
    pub(super) fn remember_life(&mut self, node: NodeIdx) {
        let Some(life) = self.run_of(node) else {
            return;
        };
        let version = self.take_down(node, life);
        let peer = self.peers.get_mut(node);
        if let (Some(version), true) = (version, peer.gate != Gate::AllDirty) {
            peer.gate = Gate::Superblock(version);
        }
    }

    /// The data goes: nobody takes it for a history, or for whole (law S8).
    fn reset_copy(&mut self) {
        let sb = &mut self.durable.sb;
        (sb.disk, sb.record, sb.chain) = (Disk::Inconsistent, None, Chain::default());
        (sb.held, sb.follows) = (NodeSet::EMPTY, 0);
        (self.durable.record, self.adopting) = (None, None);
    }

    /// From the next durable superblock on this is another replica, whose runs count on from those
    /// that were forgotten.
    fn renew(&mut self, node: NodeIdx, remembered: Life) {
        let loses_vote = self.has_votes() && !self.role.is_serving();
        if matches!(self.role, Role::Promoting(_)) {
            let source = Some(node);
            self.promotion_ended(Err(CommandError::Inconsistent { source }));
        }
        let (entropy, is_replica) = (self.setup.entropy, self.is_replica());
        let sb = &mut self.durable.sb;
        let count = sb.life.count.max(remembered.count).saturating_add(1);
        sb.renewed = mix(entropy ^ sb.incarnation, count);
        sb.life = Life::of(sb.renewed, count, sb.life.id);
        sb.past.renew(sb.life);
        (sb.known, sb.joined) = (Default::default(), NodeSet::EMPTY);
        sb.features_compatible |= meta::FEATURE_PAST;
        if loses_vote {
            (sb.voted, sb.promised) = (None, Term(0));
            self.votes.forget_owed();
            self.votes.poll = None;
        }
        if sb.disk == Disk::Blank && is_replica {
            // It was about to found, or to be adopted.
            sb.volume_id = 0;
        }
        self.durable.touch();
        for node in self.peers.nodes() {
            self.drop_link(node);
        }
        self.notice(Notice::FoundOlder { peer: node });
        self.judge_anew();
        self.ops.attention = true;
    }
}
