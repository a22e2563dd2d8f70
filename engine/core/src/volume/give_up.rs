//! A copy is given up for the other side of a split brain, on an operator's word (laws T9, T10, S8).
//!
//! ```text
//!  Comparing ─► Draining ─► Saving … ─► Committing ─► Leaving ─► Connecting: a sync target
//!   anew, as     nothing     what may    the salvage   superblock:
//!   planned?     runs here   differ      is durable    Inconsistent, no history
//! ```
//! A crash before the superblock leaves the split brain as it was; after it a resync of what may
//! differ is under way, which the bits of both sides name as ever (law S1).

use std::time::Duration;

use crate::action::{Action, Answer, CommandError, Notice, SalvageStep};
use crate::bitmap::Bitmap;
use crate::event::{CommandId, DiskError, DiskResult, LinkId};
use crate::generation::Chain;
use crate::message::{Disk, Hello, RESYNC_PIECE_GRANULES};
use crate::meta;
use crate::session::{Plan, Session, SessionEvent};
use crate::time::Instant;
use crate::units::{BufId, Extent, NodeIdx, NodeSet, Term};

use super::ops::{Kind, Purpose, token};
use super::role::Role;
use super::{Volume, planted};

/// Longest wait for the other side to compare once more.
const COMPARING: Duration = Duration::from_secs(10);

/// A copy on its way to be given up.
pub(super) struct GivingUp {
    /// Who asked; nobody if the policy did.
    id: Option<CommandId>,
    to: NodeIdx,
    /// The state that the operator decided on.
    token: Option<u64>,
    deadline: Instant,
    phase: Phase,
}

enum Phase {
    /// The other side says once more what it has, and that it gives up nothing.
    Comparing,
    /// What was under way here ends.
    Draining,
    /// Blocks that may differ go to the salvage, one piece at a time.
    Saving(Saving),
    /// The salvage is being made durable.
    Committing,
    /// The superblock of this version says it.
    Leaving { version: u64 },
}

struct Saving {
    map: Bitmap,
    /// The piece under way; all before it is stored.
    piece: Extent,
    /// Its buffer, while it is being stored.
    buf: Option<BufId>,
}

impl Volume {
    /// This copy is given up for that of `to`; `token` names the state that was decided on.
    pub(super) fn give_up(&mut self, id: CommandId, to: NodeIdx, token: Option<u64>) {
        if self.role.promotes_itself() && self.is_on_trial() {
            // It only asked whether anybody wants it: the operator does not.
            self.promotion_ended(Err(CommandError::TimedOut));
        }
        if let Err(error) = self.may_give_up(to) {
            return self.reply(id, Err(error));
        }
        self.begin_giving_up(Some(id), to, token, Phase::Comparing);
    }

    fn may_give_up(&self, to: NodeIdx) -> Result<(), CommandError> {
        let Some(peer) = self.peers.find(to) else {
            return Err(CommandError::NoSuchPeer);
        };
        match self.role {
            Role::Secondary => {}
            Role::Stopping(_) | Role::Stopped => return Err(CommandError::Stopping),
            Role::Primary => return Err(CommandError::StillPrimary),
            Role::Promoting(_) | Role::Demoting(_) => return Err(CommandError::InProgress),
        }
        let serves = |p: &&super::peer::Peer| p.is_connected() && p.is_primary;
        if let Some(other) = self.peers.iter().find(serves) {
            return Err(CommandError::PrimaryElsewhere(other.node));
        }
        if self.durable.has_failed {
            Err(CommandError::MetaFailed)
        } else if self.disk() == Disk::Failed {
            Err(CommandError::DiskFailed)
        } else if peer.parting.is_none() {
            Err(CommandError::NothingToDo)
        } else if self.giving_up.is_some()
            || self.durable.change.is_some()
            || self.adopting.is_some()
        {
            Err(CommandError::InProgress)
        } else {
            Ok(())
        }
    }

    fn begin_giving_up(
        &mut self,
        id: Option<CommandId>,
        to: NodeIdx,
        token: Option<u64>,
        phase: Phase,
    ) {
        self.giving_up = Some(GivingUp {
            id,
            to,
            token,
            deadline: self.now.after(COMPARING),
            phase,
        });
        for node in self.peers.nodes() {
            self.drop_link(node);
        }
        self.ops.attention = true;
    }

    /// Who may be talked to while this copy is given up: the other side, until it told all.
    pub(super) fn keeps_away(&self, node: NodeIdx) -> bool {
        let is_comparing = |g: &GivingUp| g.to == node && matches!(g.phase, Phase::Comparing);
        self.giving_up.as_ref().is_some_and(|g| !is_comparing(g))
    }

    pub(super) fn gives_up_for(&self, node: NodeIdx) -> bool {
        self.giving_up.as_ref().is_some_and(|g| g.to == node)
    }

    /// Both sides told all.
    pub(super) fn parted(&mut self, node: NodeIdx) {
        if self.gives_up_for(node) {
            return match self.is_as_planned(node) {
                Ok(()) => self.set_giving_up(Phase::Draining),
                Err(error) => self.keep_copy(error),
            };
        }
        if self.is_unchanged(node) {
            self.begin_giving_up(None, node, None, Phase::Draining);
        }
    }

    fn is_as_planned(&self, node: NodeIdx) -> Result<(), CommandError> {
        let parting = self.peers.get(node).parting.as_ref();
        let told = parting.and_then(|p| Some((p, p.told?)));
        let (parting, word) = told.ok_or(CommandError::NotConnected(node))?;
        let planned = self.giving_up.as_ref().and_then(|g| g.token);
        if word.gives_up {
            Err(CommandError::BothGiveUp(node))
        } else if word.needs_vote {
            Err(CommandError::NeedsVote(node))
        } else if !may_be_source(&parting.hello, node) {
            Err(CommandError::NoSource(node))
        } else if planned.is_some_and(|token| token != self.parting_token(node)) {
            Err(CommandError::PlanChanged)
        } else {
            Ok(())
        }
    }

    /// Policy `discard-zero-changes`: nothing was written here since the two were one, durable bits
    /// and log say so, and no client is served. Where that holds for both, the lower term goes; both
    /// sides reach the same verdict from what they said.
    fn is_unchanged(&self, node: NodeIdx) -> bool {
        let peer = self.peers.get(node);
        let (Some(parting), Some(mine)) = (&peer.parting, &peer.said) else {
            return false;
        };
        let Some(word) = parting.told else {
            return false;
        };
        let theirs = &parting.hello;
        let newest = |hello: &Hello| hello.chain.newest().map(|e| e.term);
        let is_settled = self.durable.change.is_none() && self.adopting.is_none();
        let nothing_here = peer.dirty.is_empty()
            && self.log.is_empty()
            && !self.pages.is_recovering
            && !self.may_lack_all(node, theirs);
        let is_theirs_kept =
            theirs.is_primary || !parting.theirs.is_empty() || newest(mine) < newest(theirs);
        self.setup.discards_unchanged
            && self.giving_up.is_none()
            && matches!(self.role, Role::Secondary)
            && !mine.is_primary
            && is_settled
            && nothing_here
            && is_theirs_kept
            && !word.gives_up
            && !word.needs_vote
            && may_be_source(theirs, node)
    }

    fn set_giving_up(&mut self, phase: Phase) {
        if let Some(giving_up) = &mut self.giving_up {
            giving_up.phase = phase;
        }
        self.ops.attention = true;
    }

    pub(super) fn settle_giving_up(&mut self) {
        let Some(giving_up) = &self.giving_up else {
            return;
        };
        let (to, is_due) = (giving_up.to, self.now >= giving_up.deadline);
        match giving_up.phase {
            Phase::Comparing => {
                let is_one_again = match self.peers.get(to).session {
                    Session::Exchange(_, plan) => !matches!(plan, Plan::Parted(_)),
                    session => session.data_link().is_some(),
                };
                if is_one_again {
                    self.keep_copy(CommandError::NothingToDo);
                } else if is_due {
                    self.keep_copy(CommandError::NotConnected(to));
                }
            }
            Phase::Draining if self.ops.each().next().is_none() => self.drained_to_give_up(),
            Phase::Leaving { version } if self.durable.is_durable(version) => self.gave_up(),
            _ => {}
        }
    }

    fn drained_to_give_up(&mut self) {
        let Some(giving_up) = &self.giving_up else {
            return;
        };
        let to = giving_up.to;
        if giving_up.id.is_none() {
            // Nothing of its own is lost.
            return self.leave_history();
        }
        let Some(map) = self.may_differ(to) else {
            return self.keep_copy(CommandError::NotConnected(to));
        };
        self.salvages = (self.salvages + 1) & 0xFF_FFFF;
        let step = SalvageStep::Begin {
            to,
            granules: map.count_granules(),
        };
        let (piece, buf) = (Extent { start: 0, end: 0 }, None);
        self.set_giving_up(Phase::Saving(Saving { map, piece, buf }));
        self.salvage(step);
    }

    fn salvage(&mut self, step: SalvageStep) {
        let token = token(Purpose::Salvage, self.salvages, 0);
        self.actions.push(Action::Salvage { token, step });
    }

    /// A step of the salvage ended.
    pub(super) fn salvage_done(&mut self, number: u32, result: DiskResult) {
        if number != self.salvages {
            return;
        }
        let Some(giving_up) = &mut self.giving_up else {
            return;
        };
        let is_committing = match &mut giving_up.phase {
            Phase::Saving(saving) => {
                let stored = saving.buf.take();
                self.release(stored);
                false
            }
            Phase::Committing => true,
            _ => return,
        };
        match (result, is_committing) {
            (Err(error), _) => self.keep_copy(CommandError::SalvageFailed(error)),
            (Ok(()), true) => self.leave_history(),
            (Ok(()), false) => self.save_next(),
        }
    }

    fn save_next(&mut self) {
        let number = self.salvages;
        let Some(GivingUp {
            phase: Phase::Saving(saving),
            ..
        }) = &mut self.giving_up
        else {
            return;
        };
        let next = saving.piece.end;
        if let Some(extent) = saving.map.next_run(next, RESYNC_PIECE_GRANULES) {
            saving.piece = extent;
            let kind = Kind::Salvage { number };
            return match self.take_internal(kind, extent, LinkId(0)) {
                Some(slot) => self.order(slot, false),
                None => self.keep_copy(CommandError::SalvageFailed(DiskError::Io)),
            };
        }
        self.set_giving_up(Phase::Committing);
        self.salvage(SalvageStep::Commit);
        if planted!(self, GivesUpBeforeSaved) {
            self.leave_history();
        }
    }

    /// A piece of this copy was read for the salvage.
    pub(super) fn salvage_read(
        &mut self,
        number: u32,
        result: DiskResult,
        buf: Option<BufId>,
        is_zero: bool,
    ) {
        let saving = match &mut self.giving_up {
            Some(GivingUp {
                phase: Phase::Saving(saving),
                ..
            }) if number == self.salvages => saving,
            _ => return self.release(buf),
        };
        if let Err(error) = result {
            self.release(buf);
            return self.keep_copy(CommandError::SalvageFailed(error));
        }
        saving.buf = buf;
        let (extent, buf) = (saving.piece, buf.filter(|_| !is_zero));
        self.salvage(SalvageStep::Put { extent, buf });
    }

    /// The history of this copy ends here, durably, before the first block of it is overwritten
    /// (law S8). Bits and log stay: they say what it changed. Where a majority chooses, it comes back
    /// as a voter that may have forgotten what it promised (law T8).
    fn leave_history(&mut self) {
        let Some(to) = self.giving_up.as_ref().map(|g| g.to) else {
            return;
        };
        let kept = self.peers.get(to).parting.as_ref().map(|p| p.hello.record);
        let branch = kept.flatten().map_or(0, |record| record.branch);
        let has_votes = self.has_votes();
        let sb = &mut self.durable.sb;
        (sb.disk, sb.record, sb.chain) = (Disk::Inconsistent, None, Chain::default());
        (sb.joined, sb.held, sb.follows) = (NodeSet::EMPTY, NodeSet::EMPTY, branch);
        if has_votes {
            (sb.voted, sb.promised) = (None, Term(0));
            self.votes.forget_owed();
        }
        sb.given_up = sb.given_up.wrapping_add(1).max(1);
        sb.features_compatible |= meta::FEATURE_GIVEN_UP;
        self.durable.record = None;
        if planted!(self, GivesUpItsMarks) {
            self.peers.get_mut(to).dirty.clear_all();
        }
        let version = self.durable.touch();
        self.set_giving_up(Phase::Leaving { version });
    }

    fn gave_up(&mut self) {
        let Some(GivingUp { id, to, .. }) = self.giving_up.take() else {
            return;
        };
        self.judge_anew();
        let is_by_policy = id.is_none();
        self.notice(Notice::GaveUp { to, is_by_policy });
        if let Some(id) = id {
            self.reply(id, Ok(Answer::Ok));
        }
        self.ops.attention = true;
    }

    /// This copy's history is another one now: who parted with the old one may fit.
    pub(super) fn judge_anew(&mut self) {
        for node in self.peers.nodes() {
            let peer = self.peers.get(node);
            let why = match peer.session {
                Session::Parted(_, why) | Session::Standalone(why) => why,
                _ => continue,
            };
            if why.is_split_brain() {
                self.drop_link(node);
                self.step(node, SessionEvent::Connect);
            }
        }
    }

    /// The split brain stays as it is.
    pub(super) fn keep_copy(&mut self, why: CommandError) {
        let Some(giving_up) = self
            .giving_up
            .take_if(|g| !matches!(g.phase, Phase::Leaving { .. }))
        else {
            return;
        };
        match giving_up.phase {
            Phase::Saving(saving) => {
                self.release(saving.buf);
                self.salvage(SalvageStep::Drop);
            }
            Phase::Committing => self.salvage(SalvageStep::Drop),
            _ => {}
        }
        self.salvages = (self.salvages + 1) & 0xFF_FFFF;
        if let Some(id) = giving_up.id {
            self.reply(id, Err(why));
        }
        self.ops.attention = true;
    }

    /// Metadata cannot be written: whether it was given up is not known.
    pub(super) fn fail_giving_up(&mut self) {
        self.keep_copy(CommandError::MetaFailed);
        if let Some(id) = self.giving_up.take().and_then(|g| g.id) {
            self.reply(id, Err(CommandError::MetaFailed));
        }
    }
}

/// The other side holds its history whole and leads it. Where a majority chooses it must serve: its
/// voters may follow somebody else by now.
fn may_be_source(theirs: &Hello, node: NodeIdx) -> bool {
    let leads = |r: crate::record::Record| match theirs.has_votes {
        true => theirs.is_primary,
        false => r.primary == node,
    };
    theirs.disk == Disk::UpToDate && theirs.record.is_some_and(leads)
}
