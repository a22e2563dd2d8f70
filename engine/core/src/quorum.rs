//! Majorities, and what they may have chosen: pure functions over durable promises.
//!
//! ```text
//!  Ask{term} ─► promises of a majority ─► basis: the newest record that may be chosen
//!            ─► elect: is this node in its S, whole, and who else? ─► made equal ─► Store{record}
//! ```

use std::time::Duration;

use crate::action::CommandError;
use crate::message::Disk;
use crate::record::Record;
use crate::units::{NodeIdx, NodeSet, Term};

/// Who chooses records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quorum {
    /// Nobody: each node's own durable record stands (`quorum = "off"`).
    #[default]
    Off,
    /// A majority of the voters.
    Majority,
    /// A linearizable register outside of the nodes (`register.rs`).
    Register,
}

/// What becomes of clients' requests while no majority stands behind who serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuorumLoss {
    /// They wait until one does (law R5).
    #[default]
    Freeze,
    /// They fail, and so do new ones, until one does.
    Fail,
}

/// Law T1: more than half of the voters are among `who`.
pub fn is_majority(voters: NodeSet, who: NodeSet) -> bool {
    2 * voters.and(who).count() > voters.count()
}

/// State of a voter's copy, as it says when it promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyState {
    /// State of the copy; a witness is always blank.
    pub disk: Disk,
    /// It lost no stored write.
    pub is_whole: bool,
}

/// What a voter said when it promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Who.
    pub voter: NodeIdx,
    /// The newest record it voted for.
    pub record: Option<Record>,
    /// Its copy.
    pub copy: CopyState,
}

/// Who promised.
pub fn voters_of(promises: &[Promise]) -> NodeSet {
    promises.iter().map(|p| p.voter).collect()
}

/// Voters seen with the record or a newer one, and those not heard, could be a majority.
fn may_be_chosen(promises: &[Promise], record: &Record) -> bool {
    let has_it = |p: &&Promise| {
        p.record
            .is_some_and(|r| r == *record || r.is_newer_than(record))
    };
    let seen = promises.iter().filter(has_it);
    let seen: NodeSet = seen.map(|p| p.voter).collect();
    let unheard = record.voters.minus(voters_of(promises));
    is_majority(record.voters, seen.or(unheard))
}

/// Law T5: the newest record that may be chosen. A record that cannot be chosen never will be: who
/// was heard promised a higher term.
///
/// A later step of a reign was asked for only once the one before it was chosen, and a reign that
/// follows an unseen record begins with step 1. So nothing older than that one is in force, also
/// where it is seen nowhere any more: the voters that had it besides the asker were formatted anew. Whoever the later step names holds all that was acknowledged: while it was
/// not chosen, both sets had to confirm (law T4).
pub fn basis(promises: &[Promise]) -> Option<Record> {
    let mut records: Vec<Record> = promises.iter().filter_map(|p| p.record).collect();
    records.sort_by_key(|r| std::cmp::Reverse((r.term, r.step)));
    for record in &records {
        if may_be_chosen(promises, record) {
            return Some(*record);
        }
        if record.step > 0 {
            let is_before = |r: &&Record| (r.term, r.step + 1) == (record.term, record.step);
            return records.iter().find(is_before).or(Some(record)).copied();
        }
    }
    None
}

/// This basis was never chosen: it only tells of one that nobody shows any more.
fn is_inferred(promises: &[Promise], basis: &Record) -> bool {
    !may_be_chosen(promises, basis)
}

/// A majority promised, by every list of voters that may be in force.
pub fn has_quorum(promises: &[Promise]) -> bool {
    let (heard, basis) = (voters_of(promises), basis(promises));
    // The list in force may be that of a record not seen: it differs in one voter at most (T11).
    if let Some(record) = basis.filter(|r| is_inferred(promises, r)) {
        let count = heard.and(record.voters).count();
        if 2 * count <= record.voters.count() + 1 {
            return false;
        }
    }
    let newest = promises
        .iter()
        .filter_map(|p| p.record)
        .max_by_key(|r| (r.term, r.step));
    let counts = |record: Option<Record>| record.is_some_and(|r| is_majority(r.voters, heard));
    counts(basis) && counts(newest)
}

/// How a node that a majority promised its term goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Election {
    /// What the new reign follows.
    pub basis: Record,
    /// Members of the last S that may belong to the next one, this node among them.
    pub members: NodeSet,
    /// First step of the new reign: 1 where the basis only tells of a record that nobody shows any
    /// more. The candidate's vote takes its place, so this one has to tell of it from then on.
    pub step: u32,
}

/// Who asks to be elected.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Which node.
    pub me: NodeIdx,
    /// The newest record in force here. What it voted for since may never have been.
    pub in_force: Option<Record>,
    /// Nodes with data.
    pub replicas: NodeSet,
    /// All that said anything, also that they are blank.
    pub met: NodeSet,
}

/// Laws T5 and R7 b: may this node reign, after these promises of a majority? The refusal names who
/// to wait for.
pub fn elect(candidate: Candidate, promises: &[Promise]) -> Result<Election, CommandError> {
    let Candidate {
        me,
        in_force,
        replicas,
        met,
    } = candidate;
    let Some(basis) = basis(promises) else {
        let missing = replicas.without(me).iter().next().unwrap_or(me);
        return Err(CommandError::CannotFound { missing });
    };
    let step = u32::from(is_inferred(promises, &basis));
    let find = |node: NodeIdx| promises.iter().find(|p| p.voter == node);
    let is_up = |node: &NodeIdx| find(*node).is_some_and(|p| p.copy.disk == Disk::UpToDate);
    let member = |node: &NodeIdx| is_up(node) && basis.in_sync.has(*node);
    let mine = find(me).map(|p| p.copy);
    let other = basis.in_sync.without(me).iter().next();
    match mine.map(|copy| copy.disk) {
        Some(Disk::Failed) => return Err(CommandError::DiskFailed),
        Some(Disk::UpToDate) => {}
        _ => return Err(CommandError::Inconsistent { source: other }),
    }
    if !basis.in_sync.has(me) {
        return Err(CommandError::Outdated { source: other });
    }
    let whole = |node: &NodeIdx| find(*node).is_some_and(|p| p.copy.is_whole);
    let members = basis.in_sync.iter().filter(member);
    if mine.is_some_and(|copy| copy.is_whole) {
        let members = members.filter(whole).collect();
        return Ok(Election {
            basis,
            members,
            step,
        });
    }
    // Everybody that any record names lost power: each block is what one of them kept (law B6). A
    // whole copy outside of S may hold what this one lost, or lack what it kept: nobody but an
    // operator can choose. The record in force counts as well: a candidacy of our own may have taken
    // its place in every vote, and ended with the power.
    let named = promises.iter().filter_map(|p| p.record).chain(in_force);
    let named = named
        .fold(basis.in_sync, |set, r| set.or(r.in_sync))
        .and(replicas);
    // Who was about to join may be in S and not know it: then it holds what this one lost (law B7).
    let members = in_force.map_or(basis.in_sync, |r| r.in_sync.or(basis.in_sync));
    let was_joining = |node: &NodeIdx| {
        let awaits = find(*node).is_some_and(|p| p.copy.disk.awaits_sync());
        awaits && members.has(*node)
    };
    let is_better = |node: &NodeIdx| whole(node) && (is_up(node) || was_joining(node));
    if let Some(better) = named.iter().find(is_better) {
        return Err(CommandError::NotWhole { better });
    }
    match named
        .iter()
        .find(|node| find(*node).is_none() && !met.has(*node))
    {
        Some(silent) => Err(CommandError::MayHaveGoneOn(silent)),
        None => Ok(Election {
            basis,
            members: NodeSet::only(me),
            step,
        }),
    }
}

/// Longest lease that is granted; the configuration allows no longer one.
pub const LEASE_MAX: Duration = Duration::from_secs(60);

/// What one voter has granted to whom, and until when it promises nobody else (law T7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Term of the one it was given to.
    pub term: Term,
    /// Nobody else is promised anything before this moment.
    pub until: crate::time::Instant,
}

#[cfg(test)]
mod tests;
