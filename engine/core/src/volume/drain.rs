//! A role ends in order: demotion, hand-over, stop.
//!
//! ```text
//!  Primary ─► Demoting: drain, flush round, close the log ─► Secondary
//!  any ─► Stopping: as demote, then flush, mark clean ─► Stopped
//! ```

use crate::action::{Action, Answer, CommandError, Notice};
use crate::event::{CommandId, DiskResult};
use crate::message::{Message, Refusal};
use crate::record::Record;
use crate::time::Instant;
use crate::units::{NodeIdx, NodeSet};

use super::ops::{Purpose, token};
use super::role::Role;
use super::timers::DRAIN;
use super::{Volume, planted};

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
impl Drain {
    /// Requests admitted as primary may still run.
    pub fn serves(&self) -> bool {
        matches!(
            self.phase,
            DrainPhase::Requests
                | DrainPhase::Round(_)
                | DrainPhase::Log
                | DrainPhase::Release
                | DrainPhase::Told(_)
        )
    }
}

impl Volume {
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

    pub(super) fn settle_drain(&mut self) {
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
