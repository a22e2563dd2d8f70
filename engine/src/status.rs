//! Status of a volume in the control plane's words.

mod quorum;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use engine_core::checksums::VALUES_PER_PAGE;
use engine_core::generation::Entry;
use engine_core::message::{Disk, Refusal as Why};
use engine_core::session::{Plan, Session};
use engine_core::table::{NodeKind, Stage, Table};
use engine_core::time::Instant;
use engine_core::units::{GRANULE, NodeIdx, NodeSet};
use engine_core::volume::{
    ChecksumStatus, MarkStatus, PartingStatus, PeerStatus, ResyncFigures, ResyncState as CoreState,
    ResyncStatus as CoreResync, RoleStatus, SideStatus, Status,
};

use crate::control::{
    ChecksumReport, DiskState, Generation, IoCounters, LinkState, MarkReport, PartingReport,
    Reason, ReplicaStatus, ResyncBytes, ResyncState, ResyncStatus, Role, ScrubReport, SideReport,
    State, VerifyReport, VolumeSpec, VolumeStatus,
};
use crate::words;

/// Status of a volume that lives on a reactor; clients and counters are added by the caller.
pub(crate) fn attached(
    spec: &VolumeSpec,
    (me, connected): (NodeIdx, &BTreeSet<String>),
    (core, table): (&Status, &Table),
) -> VolumeStatus {
    let quorum = core
        .votes
        .map(|votes| quorum::quorum((spec, table), me, connected, (core.role, &votes)));
    let replicas = table.live(NodeKind::Replica).map(|(node, entry)| {
        let name = &entry.name;
        if node == me {
            return own_replica(name, core);
        }
        let peer = core.peers.iter().find(|peer| peer.node == node);
        peer.map_or_else(
            || connected_or_not(name, connected),
            |peer| peer_replica(name, core, peer),
        )
    });
    let witnesses = table.live(NodeKind::Witness).map(|(node, entry)| {
        let seen = connected_or_not(&entry.name, connected);
        ReplicaStatus {
            disk_state: DiskState::Diskless,
            link_state: match node == me {
                true => LinkState::SelfNode,
                false => seen.link_state,
            },
            ..seen
        }
    });
    let replicas: Vec<_> = replicas.chain(witnesses).collect();
    // A node that is gone asks nobody.
    let asked = quorum.as_ref().filter(|_| is_part(table, me));
    let (state, reason) = match asked.and_then(|quorum| quorum::lost(spec, core, quorum)) {
        Some(reason) => (State::Critical, Some(reason)),
        None => health(spec, me, (core, table)),
    };
    VolumeStatus {
        name: spec.name.clone(),
        size_bytes: spec.size_bytes,
        role: if core.role == RoleStatus::Primary {
            Role::Primary
        } else {
            Role::Secondary
        },
        state,
        reason,
        generation: core.chain.newest().map(|entry| Generation {
            branch: entry.branch,
            term: entry.term.0,
        }),
        replicas,
        quorum,
        checksums: core.checksums.map(checksum_report),
        clients: Vec::new(),
        notes: Vec::new(),
        io: IoCounters::default(),
    }
}

fn checksum_report(found: ChecksumStatus) -> ChecksumReport {
    let scrub = found.scrub;
    ChecksumReport {
        error_bytes: found.errors * GRANULE,
        repaired_bytes: found.repaired * GRANULE,
        unrepaired_bytes: found.unrepaired * GRANULE,
        lost_bytes: found.lost_pages * VALUES_PER_PAGE as u64 * GRANULE,
        scrub: (scrub.total > 0).then_some(ScrubReport {
            running: scrub.is_running,
            scanned_bytes: scrub.scanned * GRANULE,
            total_bytes: scrub.total * GRANULE,
            error_bytes: scrub.errors * GRANULE,
            adopted_bytes: scrub.adopted * GRANULE,
        }),
    }
}

/// Status of a volume that does not live on a reactor.
pub(crate) fn detached(
    spec: &VolumeSpec,
    node: &str,
    state: State,
    reason: Option<Reason>,
) -> VolumeStatus {
    let own = if state == State::NotCreated {
        DiskState::NotCreated
    } else {
        DiskState::Unknown
    };
    let replica = |name: &String| ReplicaStatus {
        disk_state: match name == node {
            true if own == DiskState::NotCreated => own,
            _ if spec.votes.witnesses.contains(name) => DiskState::Diskless,
            true => own,
            false => DiskState::Unknown,
        },
        link_state: if name == node {
            LinkState::SelfNode
        } else {
            LinkState::Connecting
        },
        ..unknown(name)
    };
    VolumeStatus {
        name: spec.name.clone(),
        size_bytes: spec.size_bytes,
        role: Role::Secondary,
        state,
        reason,
        generation: None,
        replicas: spec.nodes().iter().map(replica).collect(),
        quorum: None,
        checksums: None,
        clients: Vec::new(),
        notes: Vec::new(),
        io: IoCounters::default(),
    }
}

/// Of a node that no data flows to or from.
fn connected_or_not(name: &str, connected: &BTreeSet<String>) -> ReplicaStatus {
    ReplicaStatus {
        link_state: match connected.contains(name) {
            true => LinkState::Connected,
            false => LinkState::Connecting,
        },
        ..unknown(name)
    }
}

fn unknown(name: &str) -> ReplicaStatus {
    ReplicaStatus {
        node: name.to_owned(),
        disk_state: DiskState::Unknown,
        link_state: LinkState::Connecting,
        out_of_sync_bytes: 0,
        resync: None,
        last_resync: None,
        paths: Vec::new(),
    }
}

fn own_replica(name: &str, core: &Status) -> ReplicaStatus {
    let pulls = core
        .peers
        .iter()
        .filter(|peer| matches!(peer.session, Session::Target(_)));
    ReplicaStatus {
        disk_state: match disk_state(core.disk) {
            // Its last record is on its way to disk, and may never be in force.
            DiskState::UpToDate if is_target(core) => DiskState::Inconsistent,
            own => own,
        },
        link_state: LinkState::SelfNode,
        out_of_sync_bytes: pulls
            .map(|peer| peer.out_of_sync * GRANULE)
            .max()
            .unwrap_or(0),
        ..unknown(name)
    }
}

fn peer_replica(name: &str, core: &Status, peer: &PeerStatus) -> ReplicaStatus {
    let link_state = match peer.session {
        Session::Standalone(_) | Session::Parted(..) => LinkState::Standalone,
        Session::Exchange(_, Plan::Parted(_)) => LinkState::Standalone,
        Session::Connecting | Session::Handshake(_) => LinkState::Connecting,
        Session::Source(_) => LinkState::ResyncSource,
        Session::Target(_) => LinkState::ResyncTarget,
        Session::Exchange(..) | Session::Waiting(_) | Session::InSync(_) => LinkState::Connected,
    };
    let is_target = link_state == LinkState::ResyncTarget;
    let is_behind = core.role == RoleStatus::Primary && !core.in_sync.has(peer.node);
    ReplicaStatus {
        node: name.to_owned(),
        disk_state: peer
            .disk
            .map_or(DiskState::Unknown, |disk| match disk_state(disk) {
                // It may not know yet what it missed.
                DiskState::UpToDate if is_behind => DiskState::Outdated,
                heard => heard,
            }),
        link_state,
        // What a target still pulls is what it lacks itself.
        out_of_sync_bytes: if is_target {
            0
        } else {
            peer.out_of_sync * GRANULE
        },
        resync: peer
            .resync
            .map(|resync| resync_status(resync, peer.out_of_sync)),
        last_resync: peer.last_resync.map(resync_bytes),
        paths: Vec::new(),
    }
}

fn resync_bytes(figures: ResyncFigures) -> ResyncBytes {
    ResyncBytes {
        done: figures.moved * GRANULE,
        sent: figures.sent * GRANULE,
        zeroed: figures.zeroed * GRANULE,
        equal: figures.equal() * GRANULE,
    }
}

fn resync_status(resync: CoreResync, left: u64) -> ResyncStatus {
    let (state, reason) = resync_state(resync.state);
    let moved = resync.figures.moved;
    let all = (moved + left).max(1);
    let rate = resync.granules_per_second.unwrap_or(0);
    // What waits has no end that could be told.
    let goes_on = matches!(state, ResyncState::Moving | ResyncState::Throttled);
    ResyncStatus {
        state,
        reason,
        bytes: resync_bytes(resync.figures),
        done_ratio: (moved as f64 / all as f64).min(0.999),
        rate_bytes_per_second: rate * GRANULE,
        eta_seconds: (rate > 0 && goes_on).then(|| left.div_ceil(rate)),
        paused: state == ResyncState::Paused,
    }
}

fn resync_state(state: CoreState) -> (ResyncState, Option<&'static str>) {
    match state {
        CoreState::Estimating => (ResyncState::Estimating, None),
        CoreState::Moving => (ResyncState::Moving, None),
        CoreState::PausedHere => (ResyncState::Paused, Some("by an operator")),
        CoreState::PausedThere => (
            ResyncState::Paused,
            Some("by an operator, on the other node"),
        ),
        CoreState::BackingOff => (
            ResyncState::Paused,
            Some("it answered too late; tried again after a pause, or by pollux peer connect"),
        ),
        CoreState::AwaitsOperator => (
            ResyncState::Paused,
            Some("verify found differences; pollux resync start says whose data is kept"),
        ),
        CoreState::HeldByRate => (ResyncState::Throttled, Some("by the resync rate")),
        CoreState::HeldByClients => (
            ResyncState::Throttled,
            Some("requests of clients take longer than usual"),
        ),
        CoreState::Stalled => (
            ResyncState::Stalled,
            Some("nothing was made equal for 10 s: look at both disks and the link"),
        ),
        CoreState::Joining => (ResyncState::Joining, Some("the last writes become durable")),
    }
}

fn disk_state(disk: Disk) -> DiskState {
    match disk {
        Disk::Blank | Disk::Inconsistent => DiskState::Inconsistent,
        Disk::Outdated => DiskState::Outdated,
        Disk::UpToDate => DiskState::UpToDate,
        Disk::Failed => DiskState::Failed,
    }
}

/// This node pulls what it lacks.
fn is_target(core: &Status) -> bool {
    let is_pulling = |peer: &PeerStatus| matches!(peer.session, Session::Target(_));
    core.peers.iter().any(is_pulling)
}

/// S without the targets of a resync that is not over: what one wrote down of S is old, or not in
/// force yet, and its source has it in S a moment before the two can be compared.
fn settled(core: &Status, me: NodeIdx) -> NodeSet {
    let leave_out = |in_sync: NodeSet, peer: &PeerStatus| match peer.session {
        Session::Target(_) => in_sync.without(me),
        Session::Source(_) => in_sync.without(peer.node),
        _ => in_sync,
    };
    core.peers.iter().fold(core.in_sync, leave_out)
}

/// Why a peer is not connected, where one side said so. A refused peer is tried again and again:
/// what the last attempt met with stands until the two agree.
fn cause(peer: &PeerStatus) -> Option<Why> {
    match peer.session {
        Session::Standalone(why) | Session::Parted(_, why) => Some(why),
        _ if peer.disk.is_some() => None,
        _ => peer.last_refusal,
    }
}

/// Two copies that can never become one: an operator gives up one of them.
fn is_parted(why: Why) -> bool {
    matches!(
        why,
        Why::VolumeId | Why::Diverged | Why::Unrelated | Why::TwoPrimaries
    )
}

/// The node of this index is part of the volume, or about to be, or still is.
fn is_part(table: &Table, node: NodeIdx) -> bool {
    table.version() == 0 || table.entry(node).is_some_and(|entry| entry.is_live())
}

/// Name of a node, for people.
fn name_of(table: &Table, node: NodeIdx) -> &str {
    table.entry(node).map_or("?", |entry| &entry.name)
}

/// The one word for a volume's health on this node, and the sentence why.
fn health(
    spec: &VolumeSpec,
    me: NodeIdx,
    (core, table): (&Status, &Table),
) -> (State, Option<Reason>) {
    let (name, volume) = (name_of(table, me), &spec.name);
    let say = |state, text: String| (state, Some(Reason { code: "W138", text }));
    let kind = table.entry(me).map(|entry| entry.kind);
    match kind {
        Some(NodeKind::Witness) if is_part(table, me) => {
            quorum::witness_health(spec, me, (core, table))
        }
        Some(NodeKind::Witness) => say(
            State::Degraded,
            format!(
                "{name} is no witness of it any more: its metadata here can go (pollux volume delete {volume})"
            ),
        ),
        _ if is_part(table, me) => copy_health(spec, me, (core, table)),
        _ => say(
            State::Offline,
            format!(
                "{name} holds no replica of it any more: what is here is kept, and can go (pollux volume delete {volume}, with --wipe the data too)"
            ),
        ),
    }
}

/// Of a node that holds a copy.
fn copy_health(
    spec: &VolumeSpec,
    me: NodeIdx,
    (core, table): (&Status, &Table),
) -> (State, Option<Reason>) {
    let name = |node: NodeIdx| name_of(table, node);
    let say = |state, code, text: String| (state, Some(Reason { code, text }));
    // Who is going is not missed.
    let replicas = table.replicas().and(table.at(&[Stage::Member]));
    let count = replicas.count() as usize;
    if core.has_meta_failed {
        let text = format!("the metadata of {} cannot be written", name(me));
        return say(State::Critical, "E209", text);
    }
    let causes = || {
        let peers = core.peers.iter();
        let peers = peers.filter(|peer| table.replicas().has(peer.node));
        peers.filter_map(|peer| Some((peer.node, cause(peer)?)))
    };
    if let Some((node, why)) = causes().find(|(_, why)| is_parted(*why)) {
        let (name, cause) = (name(node), words::why_refused(why));
        let mut text = format!("{name} is not talked to: {cause}");
        if why.is_split_brain() {
            text.push_str(&format!("; pollux splitbrain show {}", spec.name));
        }
        let code = if why == Why::VolumeId { "W110" } else { "E206" };
        return say(State::Critical, code, text);
    }
    if core.disk == Disk::Failed {
        let is_last = core.in_sync == NodeSet::only(me) || count == 1;
        let state = if is_last {
            State::Critical
        } else {
            State::Degraded
        };
        return say(state, "E208", format!("the disk of {} failed", name(me)));
    }
    if core.is_full {
        return say(State::Critical, "W106", "the last copy is full".into());
    }
    let bad = core.checksums.map_or(0, |c| c.hopeless) * GRANULE;
    if bad > 0 {
        let text = format!(
            "{bad} bytes on {} do not match their checksums and are not repaired",
            name(me)
        );
        return say(State::Degraded, "W144", text);
    }
    // That a node left in order is no obstacle to name.
    let mut obstacles = causes()
        .filter(|(_, why)| *why != Why::Leaving)
        .map(|(node, why)| format!("no link to {}: {}", name(node), words::why_refused(why)));
    if core.volume_id == 0 && table.version() > 0 {
        let text = format!("{} is new: it gets a vote, and then the data", name(me));
        return say(State::Degraded, "W119", text);
    }
    if core.volume_id == 0 {
        if let Some(text) = obstacles.next() {
            return say(State::Degraded, "W110", text);
        }
        let text = format!("it was never promoted; pollux promote {}", spec.name);
        return say(State::Degraded, "W105", text);
    }
    let missing = replicas.minus(settled(core, me));
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(name).collect();
        let mut text = format!(
            "{} of {count} synchronous copies are current; not in sync: {}",
            count - missing.count() as usize,
            names.join(", ")
        );
        obstacles.for_each(|obstacle| text.push_str(&format!("; {obstacle}")));
        return say(State::Degraded, "W104", text);
    }
    let mut peers = core.peers.iter();
    let unheard = peers.find(|peer| peer.disk.is_none() && replicas.has(peer.node));
    if let Some(peer) = unheard {
        let mut text = format!("no link to {}", name(peer.node));
        if let Some(why) = cause(peer) {
            text.push_str(&format!(": {}", words::why_refused(why)));
        }
        return say(State::Degraded, "W101", text);
    }
    (State::Healthy, None)
}

/// A split brain as people see it.
pub(crate) fn parting_report(
    table: &Table,
    parting: &PartingStatus,
    now: Instant,
) -> PartingReport {
    let ago = |at: Instant| now.since(at).as_secs();
    let entry = |e: &Entry| (e.branch, e.term.0);
    let side = |side: &SideStatus| SideReport {
        reigns: side.reigns.iter().map(entry).collect(),
        changed_bytes: side.changed.map(|granules| granules * GRANULE),
        is_primary: side.is_primary,
        disk: disk_state(side.disk),
        clients: side.clients,
        last_write_seconds: side.last_write_ms.map(|ms| ms / 1000),
    };
    let mut theirs = parting.theirs.as_ref().map(side);
    if let Some(seconds) = theirs.as_mut().and_then(|s| s.last_write_seconds.as_mut()) {
        // It was so long ago when the two compared.
        *seconds += ago(parting.at);
    }
    PartingReport {
        peer: name_of(table, parting.peer).to_owned(),
        ancestor: parting.ancestor.as_ref().map(entry),
        token: parting.token,
        found_seconds: ago(parting.since),
        compared_milliseconds: now.since(parting.at).as_millis() as u64,
        mine: side(&parting.mine),
        theirs,
        overlap_bytes: parting.overlap.map(|granules| granules * GRANULE),
        differ_bytes: parting.differ.map(|granules| granules * GRANULE),
    }
}

/// A mark as people see it.
pub(crate) fn mark_report(mark: &MarkStatus) -> MarkReport {
    MarkReport {
        name: mark.name,
        id: mark.id,
        created: SystemTime::UNIX_EPOCH + Duration::from_millis(mark.created_ms),
        dirty_bytes: mark.dirty_granules * GRANULE,
        is_whole: mark.is_whole,
    }
}

/// Figures of a verify.
pub(crate) fn verify_report(core: &Status, size: u64, failure: Option<String>) -> VerifyReport {
    VerifyReport {
        running: core.is_verifying,
        compared_bytes: core.verify.compared * GRANULE,
        total_bytes: size,
        different_bytes: core.verify.different * GRANULE,
        completed: core.verifies_completed,
        rate_bytes_per_second: core.verify_rate.map(|rate| rate * GRANULE),
        is_repairing: core.verify.is_repairing,
        different: core
            .verify
            .runs
            .iter()
            .map(|run| (run.offset(), run.bytes()))
            .collect(),
        failure,
    }
}

#[cfg(test)]
mod tests;
