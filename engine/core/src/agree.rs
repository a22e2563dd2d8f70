//! What two hellos mean together: [`agree`], pure and mirrored on both sides.

use crate::generation::{Verdict, judge};
use crate::message::{Disk, Hello, Refusal};
use crate::record::Record;
use crate::session::Plan;
use crate::units::NodeIdx;

/// Attributes and marks are kept: offered where the metadata has room for them, required once one
/// was set.
pub const FEATURE_ATTRIBUTES: u64 = 1;
/// Mirrored volumes grow.
pub const FEATURE_GROWTH: u64 = 2;
/// Feature bit: resync and verify compare by strong hashes (`ResyncAsk`, `HashRequest`).
pub const FEATURE_HASHES: u64 = 4;
/// Feature bits this build knows.
pub const FEATURES_KNOWN: u64 = FEATURE_ATTRIBUTES | FEATURE_GROWTH | FEATURE_HASHES;

/// The newest of two records.
pub fn newest(a: Option<Record>, b: Option<Record>) -> Option<Record> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.is_newer_than(&a) { b } else { a }),
        (a, b) => a.or(b),
    }
}

/// Judges two hellos. `me` and `peer` are the indexes behind `mine` and `theirs`.
///
/// First identity (law F20: each refusal names its cause), then data. Only a node that reigns
/// (it is the primary of its newest record) may be a source, because only it may change S (T4).
/// Sizes come last: who grows by the word of another shares its history.
pub fn agree(me: NodeIdx, mine: &Hello, peer: NodeIdx, theirs: &Hello) -> Result<Plan, Refusal> {
    identity(mine, theirs)?;
    let plan = plan(me, mine, peer, theirs)?;
    match mine.size_granules == theirs.size_granules {
        true => Ok(plan),
        false => Err(Refusal::Size),
    }
}

/// Of two that agree but for the size: this side grows to the other's size. What one replica has
/// was agreed by all of S of its time, and a volume never shrinks.
pub fn follows_size(mine: &Hello, theirs: &Hello) -> bool {
    let is_blank = mine.volume_id == 0 && mine.disk == Disk::Blank;
    let is_same = theirs.volume_id != 0 && (theirs.volume_id == mine.volume_id || is_blank);
    is_same && !mine.is_primary && theirs.size_granules > mine.size_granules
}

fn plan(me: NodeIdx, mine: &Hello, peer: NodeIdx, theirs: &Hello) -> Result<Plan, Refusal> {
    match (mine.volume_id, theirs.volume_id) {
        (0, 0) => return Ok(Plan::Idle),
        (_, 0) if theirs.disk != Disk::Blank => return Err(Refusal::VolumeId),
        (0, _) if mine.disk != Disk::Blank => return Err(Refusal::VolumeId),
        (_, 0) if mine.disk == Disk::UpToDate => return Ok(Plan::Adopt),
        (0, _) if theirs.disk == Disk::UpToDate => return Ok(Plan::Adopted),
        (_, 0) | (0, _) => return Ok(Plan::Idle),
        (a, b) if a != b => return Err(Refusal::VolumeId),
        _ => {}
    }
    match mine.has_votes || theirs.has_votes {
        true => data_by_votes(me, mine, peer, theirs),
        false => data(me, mine, peer, theirs),
    }
}

/// Where a majority chooses records, data flows only to and from a node that leads: who serves, or
/// was promised its term by a majority. Histories need no comparison within a branch: whatever
/// differs is in the bits and logs that both sides tell (law S1).
fn data_by_votes(
    me: NodeIdx,
    mine: &Hello,
    peer: NodeIdx,
    theirs: &Hello,
) -> Result<Plan, Refusal> {
    if mine.disk == Disk::Blank || theirs.disk == Disk::Blank {
        return Ok(Plan::Idle);
    }
    let branch = |hello: &Hello| hello.chain.newest().map(|entry| entry.branch);
    if let (Some(a), Some(b)) = (branch(mine), branch(theirs))
        && a != b
    {
        match judge(&mine.chain, &theirs.chain) {
            Verdict::Diverged => return Err(Refusal::Diverged),
            Verdict::Unrelated => return Err(Refusal::Unrelated),
            _ => {}
        }
    }
    let term = |hello: &Hello| hello.leads.map(|reign| reign.term);
    let (leader, other, other_node, is_mine) = match (term(mine), term(theirs)) {
        (None, None) => return Ok(Plan::Idle),
        (a, b) if a >= b => (mine, theirs, peer, true),
        _ => (theirs, mine, me, false),
    };
    let Some(reign) = leader.leads else {
        return Ok(Plan::Idle);
    };
    // Law T6: who promised a higher term takes nothing of this one; who leads too steps down first.
    if other.promised > reign.term || other.leads.is_some() || other.disk == Disk::Failed {
        return Ok(Plan::Idle);
    }
    let is_member = reign.members.has(other_node) && other.disk == Disk::UpToDate;
    let serves = leader.is_primary;
    Ok(match leader.disk {
        // The sessions of this reign may rely on what it lost (law B9): they must end first.
        Disk::Failed if serves && is_member && other.is_whole => Plan::Equal,
        Disk::UpToDate if is_member => Plan::Equal,
        Disk::UpToDate if serves && is_mine => Plan::Source,
        Disk::UpToDate if serves => Plan::Target,
        _ => Plan::Idle,
    })
}

fn identity(mine: &Hello, theirs: &Hello) -> Result<(), Refusal> {
    let checks = [
        (
            mine.protocol_min <= theirs.protocol_max && theirs.protocol_min <= mine.protocol_max,
            Refusal::Protocol,
        ),
        (
            theirs.features_required & !mine.features_offered == 0
                && mine.features_required & !theirs.features_offered == 0,
            Refusal::Feature,
        ),
        (mine.cluster == theirs.cluster, Refusal::Cluster),
        (
            mine.volume == theirs.volume
                && mine.slice == theirs.slice
                && mine.from == theirs.to
                && mine.to == theirs.from,
            Refusal::Volume,
        ),
        (mine.granule_bytes == theirs.granule_bytes, Refusal::Size),
        (
            mine.config_digest == theirs.config_digest,
            Refusal::ConfigDigest,
        ),
    ];
    checks
        .iter()
        .find(|(ok, _)| !ok)
        .map_or(Ok(()), |(_, why)| Err(*why))
}

fn data(me: NodeIdx, mine: &Hello, peer: NodeIdx, theirs: &Hello) -> Result<Plan, Refusal> {
    let reigns = |hello: &Hello, node| hello.record.is_some_and(|r| r.primary == node);
    let i_may_source = mine.disk == Disk::UpToDate && reigns(mine, me);
    let they_may_source = theirs.disk == Disk::UpToDate && reigns(theirs, peer);
    let verdict = judge(&mine.chain, &theirs.chain);
    match (mine.disk, theirs.disk) {
        (Disk::Blank, _) | (_, Disk::Blank) => return Ok(Plan::Idle),
        (Disk::Inconsistent, Disk::Inconsistent) => return Ok(Plan::Idle),
        _ if is_half_joined(theirs, peer, mine, me) || is_half_joined(mine, me, theirs, peer) => {
            return Ok(Plan::Equal);
        }
        // An unfinished target holds no history worth comparing: its chain is what it was before. But
        // who was put back to before that overwrites no later data: an operator decides.
        (_, Disk::Inconsistent) => {
            return Ok(match i_may_source && verdict != Verdict::Behind {
                true => Plan::Source,
                false => Plan::Idle,
            });
        }
        (Disk::Inconsistent, _) => {
            return Ok(match they_may_source && verdict != Verdict::Ahead {
                true => Plan::Target,
                false => Plan::Idle,
            });
        }
        _ => {}
    }
    match verdict {
        Verdict::Diverged => return Err(Refusal::Diverged),
        Verdict::Unrelated => return Err(Refusal::Unrelated),
        _ => {}
    }
    let record = newest(mine.record, theirs.record);
    let both = |set: crate::units::NodeSet| set.has(me) && set.has(peer);
    let members = record.is_some_and(|r| both(r.in_sync));
    if mine.disk == Disk::Failed || theirs.disk == Disk::Failed {
        return Ok(with_failed_disk(mine, theirs, record, me, peer));
    }
    // A member of the newest S missed nothing that was acknowledged, even if it has not yet
    // written the newest reign down.
    if members && mine.disk == Disk::UpToDate && theirs.disk == Disk::UpToDate {
        return Ok(Plan::Equal);
    }
    match verdict {
        Verdict::Behind if mine.is_primary => Err(Refusal::TwoPrimaries),
        Verdict::Ahead if theirs.is_primary => Err(Refusal::TwoPrimaries),
        Verdict::Ahead if i_may_source => Ok(Plan::Source),
        Verdict::Behind if they_may_source => Ok(Plan::Target),
        Verdict::Equal if i_may_source && record.is_some_and(|r| r.in_sync.has(me)) => {
            Ok(Plan::Source)
        }
        Verdict::Equal if they_may_source && record.is_some_and(|r| r.in_sync.has(peer)) => {
            Ok(Plan::Target)
        }
        _ => Ok(Plan::Idle),
    }
}

/// A target that the newest record counts as a member was made equal before that record was
/// offered (S6), and confirmed what was acknowledged since (T4). Only the word of it did not reach
/// its disk. Where the member that says so lost power, the target is the better copy, if it is still
/// the replica the record speaks of.
fn is_half_joined(target: &Hello, target_node: NodeIdx, member: &Hello, node: NodeIdx) -> bool {
    let is_newest = |record: &Record| target.record.is_none_or(|r| record.is_newer_than(&r));
    target.disk.awaits_sync()
        && target.is_whole
        && member.disk == Disk::UpToDate
        && !member.is_whole
        && member.knows.incarnation == target.incarnation
        && member.knows.continues(target.life)
        && (member.record.filter(is_newest))
            .is_some_and(|r| r.in_sync.has(target_node) && r.in_sync.has(node))
}

/// A primary whose own disk failed goes on through the members that are left (F5).
fn with_failed_disk(
    mine: &Hello,
    theirs: &Hello,
    record: Option<Record>,
    me: NodeIdx,
    peer: NodeIdx,
) -> Plan {
    let serves = |failed: &Hello, other: &Hello, other_node| {
        failed.disk == Disk::Failed
            && failed.is_primary
            && other.disk == Disk::UpToDate
            // The sessions of this reign may rely on what it lost (law B9): they must end first.
            && other.is_whole
            && record.is_some_and(|r| r.in_sync.has(other_node))
    };
    if serves(mine, theirs, peer) || serves(theirs, mine, me) {
        Plan::Equal
    } else {
        Plan::Idle
    }
}

#[cfg(test)]
mod tests;
