//! Roles, and what begins with a process.

use std::time::Duration;

use crate::action::{Answer, CommandError, Outcome};
use crate::event::CommandId;
use crate::message::Life;
use crate::meta;
use crate::quorum::Grant;
use crate::units::Term;

use super::Volume;
use super::drain::Drain;
use super::promote::Promotion;
use super::timers::DRAIN;

/// What this node does for the volume.
pub(super) enum Role {
    Secondary,
    Promoting(Promotion),
    Primary,
    Demoting(Drain),
    Stopping(Drain),
    Stopped,
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
        match self {
            Role::Primary | Role::Demoting(_) => true,
            Role::Stopping(drain) => drain.serves(),
            _ => false,
        }
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
            Role::Promoting(promotion) => promotion.is_settled(),
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
            self.role = Role::Promoting(Promotion::begun(None, false, self.now.after(DRAIN)));
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

    pub(super) fn settle_role(&mut self) {
        match &self.role {
            Role::Promoting(_) => self.settle_promotion(),
            Role::Demoting(_) | Role::Stopping(_) => self.settle_drain(),
            _ => {}
        }
    }
}
