//! Who may be promoted: one pure function, law T9.
//!
//! A replica may serve without force only if it is certain to hold every acknowledged write:
//! every other member of its S either answered and is not ahead, or vanished while in sync with
//! this very process.

use crate::action::CommandError;
use crate::message::Disk;
use crate::record::Record;
use crate::units::{NodeIdx, NodeSet};

/// What the candidate knows of one other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// No answer, and not known to be gone.
    Silent,
    /// Nobody answers there.
    Gone,
    /// Histories diverged or are unrelated.
    Split,
    /// It answered.
    Answered {
        /// State of its copy.
        disk: Disk,
        /// It serves clients.
        is_primary: bool,
        /// It lost no stored write.
        is_whole: bool,
        /// Its history continues ours: it knows reigns we do not.
        is_ahead: bool,
        /// In sync with us, with nothing dirty between us.
        is_in_sync: bool,
    },
}

/// One other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    /// Who.
    pub node: NodeIdx,
    /// What is known.
    pub reach: Reach,
    /// It was in S with this process, in an unbroken session, until it vanished.
    pub vanished_in_sync: bool,
}

/// The candidate's view of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Who it is.
    pub me: NodeIdx,
    /// The volume has an identity.
    pub is_founded: bool,
    /// State of its copy.
    pub disk: Disk,
    /// It lost no stored write.
    pub is_whole: bool,
    /// Its record.
    pub record: Option<Record>,
    /// All other configured nodes.
    pub others: Vec<Other>,
}

/// How a promotion goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Make volume id, branch and first term; S = {me}.
    Found,
    /// Next term of this branch, with these members beside the candidate.
    Continue {
        /// Members that take part from the first write on.
        with: NodeSet,
    },
    /// New branch, S = {me}.
    Force,
}

/// May the candidate serve? The refusal names who to wait for.
pub fn may_promote(view: &View, force: bool) -> Result<Plan, CommandError> {
    let plain = plain(view);
    match plain {
        Err(CommandError::PrimaryElsewhere(_) | CommandError::DiskFailed) => plain,
        Err(_) if force && view.is_founded => Ok(Plan::Force),
        Err(_) if force => Ok(Plan::Found),
        // `--force` where plain promote is allowed is plain promote: no new branch.
        _ => plain,
    }
}

fn plain(view: &View) -> Result<Plan, CommandError> {
    let answered = |o: &Other| matches!(o.reach, Reach::Answered { .. });
    let serves = |o: &&Other| {
        matches!(
            o.reach,
            Reach::Answered {
                is_primary: true,
                ..
            }
        )
    };
    if let Some(other) = view.others.iter().find(serves) {
        return Err(CommandError::PrimaryElsewhere(other.node));
    }
    if view.disk == Disk::Failed {
        return Err(CommandError::DiskFailed);
    }
    if !view.is_founded {
        let blank = |o: &&Other| {
            !matches!(
                o.reach,
                Reach::Answered {
                    disk: Disk::Blank,
                    ..
                }
            )
        };
        return match view.others.iter().find(blank) {
            Some(other) => Err(CommandError::CannotFound {
                missing: other.node,
            }),
            None => Ok(Plan::Found),
        };
    }
    let has_data = |o: &&Other| {
        matches!(
            o.reach,
            Reach::Answered {
                disk: Disk::UpToDate,
                ..
            }
        )
    };
    let source = view
        .others
        .iter()
        .find(has_data)
        .or(view.others.iter().find(|o| !answered(o)));
    let source = source.map(|o| o.node);
    match (view.disk, view.record) {
        (Disk::UpToDate, Some(record)) if record.in_sync.has(view.me) => members(view, record),
        (Disk::UpToDate | Disk::Outdated, _) => Err(CommandError::Outdated { source }),
        _ => Err(CommandError::Inconsistent { source }),
    }
}

/// Every other member of S must be accounted for.
fn members(view: &View, record: Record) -> Result<Plan, CommandError> {
    let mut with = NodeSet::EMPTY;
    for other in &view.others {
        let is_member = record.in_sync.has(other.node);
        match other.reach {
            Reach::Answered {
                is_ahead: true,
                is_in_sync: false,
                ..
            } => {
                return Err(CommandError::Outdated {
                    source: Some(other.node),
                });
            }
            Reach::Answered {
                disk: Disk::Blank, ..
            } if is_member => {
                // A fresh replica in its place: what its predecessor held is gone, not known.
                return Err(CommandError::MayHaveGoneOn(other.node));
            }
            Reach::Answered {
                is_in_sync: true, ..
            } if is_member => with = with.with(other.node),
            Reach::Answered {
                is_whole: true,
                disk: Disk::UpToDate,
                ..
            } if is_member && !view.is_whole => {
                return Err(CommandError::NotWhole { better: other.node });
            }
            Reach::Answered { .. } => {}
            Reach::Split if is_member => return Err(CommandError::SplitBrain(other.node)),
            _ if is_member && !other.vanished_in_sync => {
                return Err(CommandError::MayHaveGoneOn(other.node));
            }
            _ => {}
        }
    }
    Ok(Plan::Continue { with })
}

#[cfg(test)]
mod tests;
