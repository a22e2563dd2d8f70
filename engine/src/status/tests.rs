use engine_core::action::VerifyFigures;
use engine_core::event::LinkId;
use engine_core::generation::Chain;
use engine_core::units::{Seq, Term};
use engine_core::volume::VotesStatus;

use super::*;
use crate::control::{
    Allocation, Backing, Cache, Checksums, Completion, Polling, Reads, Votes, WritePolicy,
};

fn resync(state: CoreState, granules_per_second: Option<u64>) -> ResyncStatus {
    let figures = ResyncFigures {
        moved: 300,
        sent: 100,
        zeroed: 50,
    };
    let core = CoreResync {
        state,
        figures,
        granules_per_second,
    };
    resync_status(core, 700)
}

#[test]
fn an_end_is_told_only_where_something_moves_and_the_rate_is_known() {
    let moving = resync(CoreState::Moving, Some(100));
    assert_eq!((moving.eta_seconds, moving.done_ratio), (Some(7), 0.3));
    assert_eq!(moving.bytes.equal, 150 * GRANULE);
    assert_eq!(resync(CoreState::Estimating, None).eta_seconds, None);
    assert_eq!(resync(CoreState::Stalled, Some(100)).eta_seconds, None);
    assert_eq!(resync(CoreState::Moving, Some(0)).eta_seconds, None);
    let paused = resync(CoreState::PausedThere, Some(100));
    assert!(paused.paused && paused.eta_seconds.is_none());
    assert_eq!(
        resync(CoreState::HeldByRate, Some(10)).eta_seconds,
        Some(70)
    );
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
        splitbrain: Default::default(),
        min_copies: 1,
        polling: Polling::Cpu,
        reads: Reads::Local,
        resync_rate: None,
        checksums: Checksums::Off,
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
            resync: None,
            last_resync: None,
            last_refusal: why,
            is_held: false,
            is_paused: false,
        }],
        is_verifying: false,
        verify: VerifyFigures::default(),
        verifies_completed: 0,
        verify_rate: None,
        is_resync_paused: false,
        reads: Default::default(),
        checksums: None,
        votes: None,
    }
}

fn shown(core: &Status) -> (State, &'static str, String, LinkState) {
    let connected = BTreeSet::new();
    let status = attached(&spec(), (NodeIdx(0), &connected), (core, &spec().table()));
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
        let cause = words::why_refused(why);
        let next = match why.is_split_brain() {
            true => "; pollux splitbrain show ",
            false => "",
        };
        assert!(text.contains(&format!("{cause}{next}")), "{text}");
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
    attached(&spec, (NodeIdx(0), &connected), (&core, &spec.table()))
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

#[test]
fn who_is_not_in_sync_is_not_shown_as_up_to_date_though_it_thinks_so() {
    let (alpha, beta) = (NodeIdx(0), NodeIdx(1));
    let shown = |role, in_sync| {
        let mut core = core(1, in_sync, Session::Waiting(LinkId(1)), None);
        core.role = role;
        core.peers[0].disk = Some(Disk::UpToDate);
        let connected = BTreeSet::new();
        let status = attached(&spec(), (alpha, &connected), (&core, &spec().table()));
        status.replicas[1].disk_state
    };
    let alone = NodeSet::only(alpha);
    assert_eq!(shown(RoleStatus::Primary, alone), DiskState::Outdated);
    assert_eq!(
        shown(RoleStatus::Primary, alone.with(beta)),
        DiskState::UpToDate
    );
    // A secondary does not know who is in sync by now.
    assert_eq!(shown(RoleStatus::Secondary, alone), DiskState::UpToDate);
}

#[test]
fn a_source_is_not_healthy_before_its_resync_is_over() {
    let (alpha, beta) = (NodeIdx(0), NodeIdx(1));
    let both = NodeSet::only(alpha).with(beta);
    let shown = |session| {
        let mut core = core(1, both, session, None);
        core.role = RoleStatus::Primary;
        core.peers[0].disk = Some(Disk::UpToDate);
        let connected = BTreeSet::new();
        attached(&spec(), (alpha, &connected), (&core, &spec().table())).state
    };
    assert_eq!(shown(Session::Source(LinkId(1))), State::Degraded);
    assert_eq!(shown(Session::InSync(LinkId(1))), State::Healthy);
}

#[test]
fn a_target_is_neither_up_to_date_nor_healthy_before_its_record_is_in_force() {
    let (alpha, beta) = (NodeIdx(0), NodeIdx(1));
    let both = NodeSet::only(alpha).with(beta);
    let mut core = core(1, both, Session::Target(LinkId(1)), None);
    (core.disk, core.peers[0].disk) = (Disk::UpToDate, Some(Disk::UpToDate));
    let connected = BTreeSet::new();
    let status = attached(&spec(), (alpha, &connected), (&core, &spec().table()));
    assert_eq!(status.state, State::Degraded);
    assert_eq!(status.replicas[0].disk_state, DiskState::Inconsistent);
}

#[test]
fn replicas_are_those_of_the_table_and_not_of_the_file() {
    let (alpha, beta, gamma) = (NodeIdx(0), NodeIdx(1), NodeIdx(2));
    let connected = BTreeSet::new();
    let file = ["alpha", "beta", "gamma"].map(str::to_owned);
    let table = Table::of_file(&file, 3);
    let stage = |stage| table.with_stage(Term(7), gamma, stage);
    let shown = |me, table: &Table, in_sync| {
        let mut core = core(1, in_sync, Session::Waiting(LinkId(1)), None);
        core.peers[0].node = beta;
        core.peers[0].disk = Some(Disk::UpToDate);
        let status = attached(&spec(), (me, &connected), (&core, table));
        let names: Vec<String> = status.replicas.into_iter().map(|r| r.node).collect();
        (names.join(" "), status.state, status.reason.map(|r| r.code))
    };
    let two = NodeSet::only(alpha).with(beta);
    // Who comes is listed, and missed once records may name it; who goes is not missed.
    let all = "alpha beta gamma".to_owned();
    let found = |names: &str, state, code| (names.to_owned(), state, code);
    assert_eq!(
        shown(alpha, &stage(Stage::Coming), two),
        found(&all, State::Healthy, None)
    );
    assert_eq!(
        shown(alpha, &stage(Stage::Member), two),
        found(&all, State::Degraded, Some("W104"))
    );
    assert_eq!(
        shown(alpha, &stage(Stage::Leaving), two),
        found(&all, State::Healthy, None)
    );
    let gone = stage(Stage::Gone);
    assert_eq!(
        shown(alpha, &gone, two),
        found("alpha beta", State::Healthy, None)
    );
    assert_eq!(
        shown(gamma, &gone, two),
        found("alpha beta", State::Offline, Some("W138"))
    );
}
