//! Status of a volume in the control plane's words.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use engine_core::message::{Disk, Refusal as Why};
use engine_core::session::Session;
use engine_core::time::Instant;
use engine_core::units::{GRANULE, NODES_MAX, NodeIdx, NodeSet};
use engine_core::volume::{MarkStatus, PeerStatus, RoleStatus, Status, VotesStatus};

use crate::control::{
    DiskState, Generation, IoCounters, LinkState, MarkReport, QuorumStatus, Reason, ReplicaStatus,
    ResyncStatus, Role, State, VerifyReport, VolumeSpec, VolumeStatus,
};
use crate::words;

/// Rates are not shown for this long after a resync began.
const ESTIMATING: Duration = Duration::from_secs(5);
/// Time over which a rate is averaged.
const MEAN_SECONDS: f64 = 30.0;

/// Rate of the resync with one peer.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    moved: u64,
    at: Instant,
    began: Instant,
    bytes_per_second: f64,
}

/// Rates of the resyncs with all peers; sampled when status is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates([Rate; NODES_MAX]);

impl Rates {
    /// Mean rate, 0 while estimating.
    fn sample(&mut self, peer: NodeIdx, moved: u64, now: Instant) -> u64 {
        let rate = &mut self.0[usize::from(peer.0)];
        if rate.began == Instant(0) || moved < rate.moved {
            *rate = Rate {
                moved,
                at: now,
                began: now,
                bytes_per_second: 0.0,
            };
            return 0;
        }
        let seconds = now.since(rate.at).as_secs_f64();
        if seconds > 0.1 {
            let fresh = ((moved - rate.moved) * GRANULE) as f64 / seconds;
            // Until there is a mean, the whole time since the beginning is one.
            let age = now.since(rate.began).as_secs_f64().min(MEAN_SECONDS);
            let weight = 1.0 - (-seconds / age.max(seconds)).exp();
            let is_first = rate.bytes_per_second == 0.0;
            let step = (fresh - rate.bytes_per_second) * if is_first { 1.0 } else { weight };
            rate.bytes_per_second += step;
            (rate.moved, rate.at) = (moved, now);
        }
        if now.since(rate.began) < ESTIMATING {
            0
        } else {
            rate.bytes_per_second as u64
        }
    }

    fn forget(&mut self, peer: NodeIdx) {
        self.0[usize::from(peer.0)] = Rate::default();
    }
}

/// Status of a volume that lives on a reactor; clients and counters are added by the caller.
pub(crate) fn attached(
    spec: &VolumeSpec,
    (me, connected): (NodeIdx, &BTreeSet<String>),
    core: &Status,
    rates: &mut Rates,
    now: Instant,
) -> VolumeStatus {
    let quorum = core
        .votes
        .map(|votes| quorum(spec, me, connected, (core.role, &votes)));
    let replicas = spec.replicas.iter().enumerate().map(|(index, name)| {
        let node = NodeIdx(index as u8);
        if node == me {
            return own_replica(name, core);
        }
        let peer = core.peers.iter().find(|peer| peer.node == node);
        peer.map_or_else(
            || connected_or_not(name, connected),
            |peer| peer_replica(name, core, peer, rates, now),
        )
    });
    let witnesses = spec.votes.witnesses.iter().map(|name| {
        let seen = connected_or_not(name, connected);
        ReplicaStatus {
            disk_state: DiskState::Diskless,
            link_state: match spec.node_index(name) {
                Some(node) if node == me => LinkState::SelfNode,
                _ => seen.link_state,
            },
            ..seen
        }
    });
    let replicas: Vec<_> = replicas.chain(witnesses).collect();
    let (state, reason) = match quorum.as_ref().and_then(|quorum| lost(core, quorum)) {
        Some(reason) => (State::Critical, Some(reason)),
        None if !spec.is_replica(me) => witness_health(spec, me, core),
        None => health(spec, me, core),
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
        clients: Vec::new(),
        notes: Vec::new(),
        io: IoCounters::default(),
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
    }
}

fn own_replica(name: &str, core: &Status) -> ReplicaStatus {
    let pulls = core
        .peers
        .iter()
        .filter(|peer| matches!(peer.session, Session::Target(_)));
    ReplicaStatus {
        disk_state: disk_state(core.disk),
        link_state: LinkState::SelfNode,
        out_of_sync_bytes: pulls
            .map(|peer| peer.out_of_sync * GRANULE)
            .max()
            .unwrap_or(0),
        ..unknown(name)
    }
}

fn peer_replica(
    name: &str,
    core: &Status,
    peer: &PeerStatus,
    rates: &mut Rates,
    now: Instant,
) -> ReplicaStatus {
    let link_state = match peer.session {
        Session::Standalone(_) => LinkState::Standalone,
        Session::Connecting | Session::Handshake(_) => LinkState::Connecting,
        Session::Source(_) => LinkState::ResyncSource,
        Session::Target(_) => LinkState::ResyncTarget,
        Session::Exchange(..) | Session::Waiting(_) | Session::InSync(_) => LinkState::Connected,
    };
    let is_syncing = matches!(
        link_state,
        LinkState::ResyncSource | LinkState::ResyncTarget
    );
    let resync = if is_syncing {
        Some(resync_status(core, peer, rates, now))
    } else {
        rates.forget(peer.node);
        None
    };
    let is_target = link_state == LinkState::ResyncTarget;
    ReplicaStatus {
        node: name.to_owned(),
        disk_state: peer.disk.map_or(DiskState::Unknown, disk_state),
        link_state,
        // What a target still pulls is what it lacks itself.
        out_of_sync_bytes: if is_target {
            0
        } else {
            peer.out_of_sync * GRANULE
        },
        resync,
    }
}

fn resync_status(
    core: &Status,
    peer: &PeerStatus,
    rates: &mut Rates,
    now: Instant,
) -> ResyncStatus {
    let (moved, left) = (peer.moved, peer.out_of_sync);
    let rate = rates.sample(peer.node, moved, now);
    let all = (moved + left).max(1);
    ResyncStatus {
        done_ratio: (moved as f64 / all as f64).min(0.999),
        rate_bytes_per_second: rate,
        eta_seconds: (rate > 0).then(|| (left * GRANULE).div_ceil(rate)),
        paused: core.is_resync_paused || peer.is_paused,
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

/// Why a peer is not connected, where one side said so. A refused peer is tried again and again:
/// what the last attempt met with stands until the two agree.
fn cause(peer: &PeerStatus) -> Option<Why> {
    match peer.session {
        Session::Standalone(why) => Some(why),
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

/// What is known of votes here: the core's part, and who is connected at all.
fn quorum(
    spec: &VolumeSpec,
    me: NodeIdx,
    connected: &BTreeSet<String>,
    (role, votes): (RoleStatus, &VotesStatus),
) -> QuorumStatus {
    let nodes = spec.nodes();
    let index = |name: &String| spec.node_index(name);
    let is_voter = |name: &&String| {
        let is_on_list = |node| votes.voters.is_empty() || votes.voters.has(node);
        index(name).is_some_and(is_on_list)
    };
    let voters: Vec<String> = nodes.iter().filter(is_voter).cloned().collect();
    // Who reigns asks all of them all the time; others know only who is connected.
    let asks = role == RoleStatus::Primary;
    let is_near = |name: &&String| {
        let is_heard = index(name).is_some_and(|node| votes.heard.has(node));
        index(name) == Some(me) || connected.contains(*name) && (is_heard || !asks)
    };
    let missing = voters.iter().filter(|name| !is_near(name));
    QuorumStatus {
        missing: missing.cloned().collect(),
        witnesses: spec.votes.witnesses.clone(),
        is_held: votes.reigning.is_some(),
        primary: votes
            .reigning
            .and_then(|node| nodes.get(usize::from(node.0)).cloned()),
        voters,
    }
}

/// A majority is missing: nobody serves, or who serves is about to wait.
fn lost(core: &Status, quorum: &QuorumStatus) -> Option<Reason> {
    let serves = core.role == RoleStatus::Primary;
    let holds = core.votes.is_some_and(|votes| votes.holds_lease);
    let is_founded = core.volume_id != 0;
    if !is_founded || quorum.is_met() && (holds || !serves) || quorum.is_held && !serves {
        return None;
    }
    let (have, need, of) = (quorum.have(), quorum.need(), quorum.voters.len());
    if quorum.is_met() {
        let text = "its lease ran out; I/O waits until a majority grants it again".to_owned();
        return Some(Reason { code: "W118", text });
    }
    let mut text = format!("no quorum: {have} of {of} voters are there, {need} are needed");
    if !quorum.missing.is_empty() {
        text.push_str(&format!("; not heard: {}", quorum.missing.join(", ")));
    }
    text.push_str(match serves {
        true => "; I/O waits until a majority is back",
        false => "; it is served nowhere that this node knows of",
    });
    if of == 2 {
        text.push_str("; two voters need each other: a witness would help");
    }
    Some(Reason { code: "W118", text })
}

/// Of a node that votes and holds no copy.
fn witness_health(spec: &VolumeSpec, me: NodeIdx, core: &Status) -> (State, Option<Reason>) {
    let say = |state, code, text: String| (state, Some(Reason { code, text }));
    let name = &spec.votes.witnesses[usize::from(me.0) - spec.replicas.len()];
    if core.has_meta_failed {
        let text = format!("the metadata of {name} cannot be written");
        return say(State::Critical, "E209", text);
    }
    let voters = core.votes.map_or(NodeSet::EMPTY, |votes| votes.voters);
    if core.volume_id == 0 {
        let text = format!(
            "it was never promoted; on a node with a replica: pollux promote {}",
            spec.name
        );
        return say(State::Degraded, "W105", text);
    }
    if !voters.has(me) {
        let text = format!("{name} has no vote yet: the primary admits it once both are connected");
        return say(State::Degraded, "W119", text);
    }
    (State::Healthy, None)
}

/// The one word for a volume's health, and the sentence why.
fn health(spec: &VolumeSpec, me: NodeIdx, core: &Status) -> (State, Option<Reason>) {
    let name = |node: NodeIdx| spec.replicas[usize::from(node.0)].as_str();
    let say = |state, code, text: String| (state, Some(Reason { code, text }));
    let count = spec.replicas.len();
    if core.has_meta_failed {
        let text = format!("the metadata of {} cannot be written", name(me));
        return say(State::Critical, "E209", text);
    }
    let causes = || {
        let peers = core.peers.iter();
        peers.filter_map(|peer| Some((peer.node, cause(peer)?)))
    };
    if let Some((node, why)) = causes().find(|(_, why)| is_parted(*why)) {
        let (name, cause) = (name(node), words::why_refused(why));
        let text = format!("{name} is not talked to: {cause}");
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
    // That a node left in order is no obstacle to name.
    let mut obstacles = causes()
        .filter(|(_, why)| *why != Why::Leaving)
        .map(|(node, why)| format!("no link to {}: {}", name(node), words::why_refused(why)));
    if core.volume_id == 0 {
        if let Some(text) = obstacles.next() {
            return say(State::Degraded, "W110", text);
        }
        let text = format!("it was never promoted; pollux promote {}", spec.name);
        return say(State::Degraded, "W105", text);
    }
    let missing: Vec<_> = NodeSet::first(count)
        .iter()
        .filter(|node| !core.in_sync.has(*node))
        .map(name)
        .collect();
    if !missing.is_empty() {
        let mut text = format!(
            "{} of {count} synchronous copies are current; not in sync: {}",
            core.in_sync.count(),
            missing.join(", ")
        );
        obstacles.for_each(|obstacle| text.push_str(&format!("; {obstacle}")));
        return say(State::Degraded, "W104", text);
    }
    let unheard = core.peers.iter().find(|peer| peer.disk.is_none());
    if let Some(peer) = unheard {
        let mut text = format!("no link to {}", name(peer.node));
        if let Some(why) = cause(peer) {
            text.push_str(&format!(": {}", words::why_refused(why)));
        }
        return say(State::Degraded, "W101", text);
    }
    (State::Healthy, None)
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
mod tests {
    use engine_core::action::VerifyFigures;
    use engine_core::event::LinkId;
    use engine_core::generation::Chain;
    use engine_core::units::Seq;

    use super::*;
    use crate::control::{
        Allocation, Backing, Cache, Completion, Polling, Reads, Votes, WritePolicy,
    };

    #[test]
    fn a_rate_is_hidden_first_then_a_mean_and_begins_anew_with_the_next_resync() {
        let mut rates = Rates::default();
        let peer = NodeIdx(1);
        let at = |seconds: u64| Instant(1 + seconds * 1_000_000_000);
        for second in 0..5 {
            assert_eq!(rates.sample(peer, second * 256, at(second)), 0);
        }
        let rate = rates.sample(peer, 5 * 256, at(5));
        assert!((900_000..1_100_000).contains(&rate), "{rate}");
        assert_eq!(rates.sample(peer, 1, at(6)), 0);
    }

    fn spec() -> VolumeSpec {
        VolumeSpec {
            name: "v".into(),
            size_bytes: 1 << 20,
            backing: Some(Backing::Memory),
            replicas: vec!["alpha".into(), "beta".into()],
            votes: Votes::default(),
            write_policy: WritePolicy::Written,
            allocation: Allocation::Thin,
            cache: Cache::Direct,
            completion: Completion::Interrupt,
            min_copies: 1,
            polling: Polling::Cpu,
            reads: Reads::Local,
            nbd: Vec::new(),
        }
    }

    /// What alpha's core says of itself without a link to beta.
    fn core(volume_id: u128, in_sync: NodeSet, session: Session, why: Option<Why>) -> Status {
        Status {
            role: RoleStatus::Secondary,
            disk: Disk::UpToDate,
            is_whole: true,
            has_meta_failed: false,
            is_full: false,
            volume_id,
            record: None,
            chain: Chain::default(),
            in_sync,
            seq: Seq(0),
            stable: Seq(0),
            peers: vec![PeerStatus {
                node: NodeIdx(1),
                session,
                disk: None,
                is_primary: false,
                out_of_sync: 0,
                moved: 0,
                last_refusal: why,
                is_held: false,
                is_paused: false,
            }],
            is_verifying: false,
            verify: VerifyFigures::default(),
            is_resync_paused: false,
            reads: Default::default(),
            votes: None,
        }
    }

    fn shown(core: &Status) -> (State, &'static str, String, LinkState) {
        let (me, mut rates) = (NodeIdx(0), Rates::default());
        let connected = BTreeSet::new();
        let status = attached(&spec(), (me, &connected), core, &mut rates, Instant(1));
        let reason = status.reason.expect("it is not healthy");
        let link = status.replicas[1].link_state;
        (status.state, reason.code, reason.text, link)
    }

    fn alone() -> NodeSet {
        NodeSet::only(NodeIdx(0))
    }

    #[test]
    fn a_refusal_that_is_tried_again_is_named_with_its_cause() {
        let causes = [
            Why::Protocol,
            Why::Feature,
            Why::Cluster,
            Why::Volume,
            Why::Size,
            Why::ConfigDigest,
        ];
        for why in causes {
            let words = words::why_refused(why);
            let expected = format!("no link to beta: {words}");
            let connecting = LinkState::Connecting;
            let blank = core(0, NodeSet::EMPTY, Session::Connecting, Some(why));
            assert_eq!(
                shown(&blank),
                (State::Degraded, "W110", expected.clone(), connecting)
            );
            let single = core(7, alone(), Session::Connecting, Some(why));
            let (state, code, text, link) = shown(&single);
            assert_eq!(
                (state, code, link),
                (State::Degraded, "W104", connecting),
                "{text}"
            );
            assert!(text.ends_with(&format!("beta; {expected}")), "{text}");
            let both = core(7, NodeSet::first(2), Session::Connecting, Some(why));
            assert_eq!(
                shown(&both),
                (State::Degraded, "W101", expected, connecting)
            );
        }
    }

    #[test]
    fn copies_that_can_never_become_one_are_critical_with_the_cause() {
        let other = Why::VolumeId;
        let text = "beta is not talked to: it holds another volume of the same name";
        let two = core(7, alone(), Session::Connecting, Some(other));
        assert_eq!(
            shown(&two),
            (
                State::Critical,
                "W110",
                text.to_owned(),
                LinkState::Connecting
            )
        );
        for why in [Why::Diverged, Why::Unrelated, Why::TwoPrimaries] {
            let parted = core(7, alone(), Session::Standalone(why), Some(why));
            let (state, code, text, link) = shown(&parted);
            assert_eq!(
                (state, code, link),
                (State::Critical, "E206", LinkState::Standalone)
            );
            assert!(text.ends_with(words::why_refused(why)), "{text}");
        }
    }

    /// Alpha of two replicas and a witness, founded.
    fn voting(role: RoleStatus, votes: VotesStatus, connected: &[&str]) -> VolumeStatus {
        let mut spec = spec();
        spec.votes.quorum = crate::control::Quorum::Majority;
        spec.votes.witnesses = vec!["gamma".into()];
        let mut core = core(7, NodeSet::first(2), Session::Connecting, None);
        (core.role, core.votes) = (role, Some(votes));
        let connected = connected.iter().map(|name| (*name).to_owned()).collect();
        let (me, mut rates) = (NodeIdx(0), Rates::default());
        attached(&spec, (me, &connected), &core, &mut rates, Instant(1))
    }

    fn votes(heard: NodeSet, reigning: Option<u8>) -> VotesStatus {
        VotesStatus {
            voters: NodeSet::first(3),
            heard,
            in_sync: NodeSet::first(2),
            holds_lease: reigning == Some(0),
            reigning: reigning.map(NodeIdx),
        }
    }

    #[test]
    fn a_volume_without_a_majority_is_critical_and_names_who_is_missing() {
        let (secondary, primary) = (RoleStatus::Secondary, RoleStatus::Primary);
        let code = |status: &VolumeStatus| status.reason.as_ref().map(|reason| reason.code);
        let lost = voting(secondary, votes(alone(), None), &[]);
        assert_eq!((lost.state, code(&lost)), (State::Critical, Some("W118")));
        let text = lost.reason.expect("it was just looked at").text;
        assert!(
            text.contains("1 of 3 voters") && text.contains("beta, gamma"),
            "{text}"
        );
        // Who is connected need not have spoken of votes; with the primary each of them has.
        let met = voting(secondary, votes(alone(), None), &["gamma"]);
        assert_eq!(code(&met), Some("W101"));
        let mute = voting(primary, votes(alone(), None), &["beta", "gamma"]);
        assert_eq!((mute.state, code(&mute)), (State::Critical, Some("W118")));
        let serving = voting(
            primary,
            votes(NodeSet::first(3), Some(0)),
            &["beta", "gamma"],
        );
        assert_eq!(
            code(&serving),
            Some("W101"),
            "only the link to beta is missing"
        );
        let quorum = serving.quorum.expect("there are votes");
        assert_eq!((quorum.have(), quorum.need(), quorum.is_held), (3, 2, true));
        assert_eq!(quorum.primary.as_deref(), Some("alpha"));
        // A lease granted to beta, which this node does not hear any more, still holds.
        let granted = voting(secondary, votes(alone(), Some(1)), &[]);
        assert_eq!(granted.state, State::Degraded);
    }

    #[test]
    fn a_witness_is_listed_without_a_copy() {
        let status = voting(RoleStatus::Secondary, votes(alone(), None), &["gamma"]);
        let gamma = &status.replicas[2];
        assert_eq!(
            (gamma.disk_state, gamma.link_state),
            (DiskState::Diskless, LinkState::Connected)
        );
    }

    #[test]
    fn a_refusal_of_the_past_is_not_named_once_the_peer_is_connected() {
        let session = Session::Waiting(LinkId(1));
        let mut agreed = core(7, alone(), session, Some(Why::VolumeId));
        agreed.peers[0].disk = Some(Disk::Inconsistent);
        let (state, code, text, _) = shown(&agreed);
        assert_eq!((state, code), (State::Degraded, "W104"));
        assert!(text.ends_with("not in sync: beta"), "{text}");
    }
}
