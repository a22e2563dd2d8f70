use super::*;
use crate::generation::{Chain, Entry};
use crate::message::Life;
use crate::units::{NodeSet, Term};

const A: NodeIdx = NodeIdx(0);
const B: NodeIdx = NodeIdx(1);

fn hello(from: &str, to: &str) -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        features_required: 0,
        features_offered: 0,
        cluster: "lab".into(),
        volume: "v".into(),
        from: from.into(),
        to: to.into(),
        volume_id: 7,
        slice: 0,
        size_granules: 1000,
        granule_bytes: 4096,
        config_digest: 1,
        incarnation: 1,
        life: Default::default(),
        knows: Default::default(),
        chain: Chain::default(),
        record: None,
        disk: Disk::UpToDate,
        is_primary: false,
        has_votes: false,
        promised: Term(0),
        leads: None,
        is_whole: true,
        activity_log_slots: 1024,
        credit_operations: 10,
        credit_bytes: 10,
    }
}

fn with(mut hello: Hello, terms: &[u64], primary: NodeIdx, in_sync: u8, step: u32) -> Hello {
    for term in terms {
        hello.chain.push(Entry::new(1, Term(*term)));
    }
    hello.record = terms.last().map(|term| Record {
        term: Term(*term),
        step,
        primary,
        in_sync: NodeSet(in_sync),
        branch: 1,
        voters: NodeSet::EMPTY,
        is_released: false,
    });
    hello
}

fn both(a: &Hello, b: &Hello) -> (Result<Plan, Refusal>, Result<Plan, Refusal>) {
    (agree(A, a, B, b), agree(B, b, A, a))
}

fn pair() -> (Hello, Hello) {
    (hello("a", "b"), hello("b", "a"))
}

#[test]
fn each_refusal_of_identity_names_its_cause_on_both_sides() {
    type Change = fn(&mut Hello);
    let cases: [(Refusal, Change); 9] = [
        (Refusal::Protocol, |h| {
            (h.protocol_min, h.protocol_max) = (2, 3);
        }),
        (Refusal::Feature, |h| h.features_required = 4),
        (Refusal::Cluster, |h| h.cluster = "prod".into()),
        (Refusal::Volume, |h| h.volume = "w".into()),
        (Refusal::Volume, |h| h.to = "c".into()),
        (Refusal::Volume, |h| h.slice = 1),
        (Refusal::Size, |h| h.size_granules = 999),
        (Refusal::ConfigDigest, |h| h.config_digest = 2),
        (Refusal::VolumeId, |h| h.volume_id = 8),
    ];
    for (why, change) in cases {
        let (a, mut b) = pair();
        change(&mut b);
        assert_eq!(both(&a, &b), (Err(why), Err(why)));
    }
}

#[test]
fn a_version_that_both_speak_is_enough() {
    for (min, max) in [(1, 2), (0, 1), (1, 9)] {
        let (a, mut b) = pair();
        (b.protocol_min, b.protocol_max) = (min, max);
        assert_eq!(both(&a, &b), both(&a, &pair().1), "{min} to {max}");
    }
}

#[test]
fn a_blank_replica_takes_the_identity_of_a_founded_one() {
    let (a, mut b) = pair();
    let a = with(a, &[256], A, 1, 0);
    (b.volume_id, b.disk) = (0, Disk::Blank);
    assert_eq!(both(&a, &b), (Ok(Plan::Adopt), Ok(Plan::Adopted)));
    let mut blank = a.clone();
    (blank.volume_id, blank.disk) = (0, Disk::Blank);
    assert_eq!(both(&blank, &b), (Ok(Plan::Idle), Ok(Plan::Idle)));
}

#[test]
fn a_copy_put_back_overwrites_no_unfinished_target_that_knows_later_reigns() {
    let (a, b) = pair();
    let a = with(a, &[256], A, 1, 0);
    let mut later = with(b.clone(), &[256, 512], A, 3, 1);
    later.disk = Disk::Inconsistent;
    assert_eq!(both(&a, &later), (Ok(Plan::Idle), Ok(Plan::Idle)));
    let mut target = with(b, &[256], A, 1, 0);
    target.disk = Disk::Inconsistent;
    assert_eq!(both(&a, &target), (Ok(Plan::Source), Ok(Plan::Target)));
}

#[test]
fn members_of_the_newest_set_are_equal_even_if_one_has_not_written_the_reign_down() {
    let (a, b) = pair();
    let b_lags = with(b.clone(), &[256], A, 3, 0);
    let b = with(b, &[256, 513], B, 3, 0);
    assert_eq!(
        both(&with(a.clone(), &[256, 513], B, 3, 0), &b),
        (Ok(Plan::Equal), Ok(Plan::Equal))
    );
    assert_eq!(
        both(&with(a, &[256, 768], A, 3, 0), &b_lags),
        (Ok(Plan::Equal), Ok(Plan::Equal))
    );
}

#[test]
fn only_behind_is_resynced_and_only_from_a_node_that_reigns() {
    let (a, b) = pair();
    let ahead = with(a.clone(), &[256, 512], A, 1, 0);
    let behind = with(b.clone(), &[256], A, 3, 0);
    assert_eq!(both(&ahead, &behind), (Ok(Plan::Source), Ok(Plan::Target)));
    let foreign = with(a, &[256, 513], B, 1, 0);
    assert_eq!(both(&foreign, &behind), (Ok(Plan::Idle), Ok(Plan::Idle)));
}

#[test]
fn split_brain_stops_both_sides() {
    let (a, b) = pair();
    let alone = with(a.clone(), &[256, 512], A, 1, 0);
    let promoted = with(b.clone(), &[256, 513], B, 2, 0);
    assert_eq!(
        both(&alone, &promoted),
        (Err(Refusal::Diverged), Err(Refusal::Diverged))
    );
    let other = with(b, &[1024], B, 2, 0);
    assert_eq!(
        both(&with(a, &[256], A, 1, 0), &other),
        (Err(Refusal::Unrelated), Err(Refusal::Unrelated))
    );
}

#[test]
fn an_unfinished_target_goes_on_and_is_never_a_source() {
    let (a, b) = pair();
    let source = with(a, &[256, 512], A, 1, 0);
    let mut target = with(b, &[256], A, 3, 0);
    target.disk = Disk::Inconsistent;
    assert_eq!(both(&source, &target), (Ok(Plan::Source), Ok(Plan::Target)));
    let mut both_unfinished = source.clone();
    both_unfinished.disk = Disk::Inconsistent;
    assert_eq!(
        both(&both_unfinished, &target),
        (Ok(Plan::Idle), Ok(Plan::Idle))
    );
}

#[test]
fn a_primary_that_is_behind_is_never_overwritten() {
    let (a, b) = pair();
    let mut serving = with(a, &[256], A, 3, 0);
    serving.is_primary = true;
    let newer = with(b, &[256, 513], B, 2, 0);
    assert_eq!(
        both(&serving, &newer),
        (Err(Refusal::TwoPrimaries), Err(Refusal::TwoPrimaries))
    );
}

#[test]
fn a_primary_with_a_failed_disk_goes_on_through_its_peer() {
    let (a, b) = pair();
    let mut diskless = with(a, &[256, 512], A, 2, 0);
    (diskless.disk, diskless.is_primary) = (Disk::Failed, true);
    let member = with(b, &[256, 512], A, 2, 0);
    assert_eq!(both(&diskless, &member), (Ok(Plan::Equal), Ok(Plan::Equal)));
    diskless.is_primary = false;
    assert_eq!(both(&diskless, &member), (Ok(Plan::Idle), Ok(Plan::Idle)));
}

#[test]
fn a_target_that_the_record_counts_in_outlives_a_member_that_lost_power() {
    let (a, mut b) = pair();
    let mut member = with(a, &[256], A, 3, 1);
    member.knows.incarnation = b.incarnation;
    for disk in [Disk::Inconsistent, Disk::Outdated] {
        b.disk = disk;
        member.is_whole = true;
        let resync = (Ok(Plan::Source), Ok(Plan::Target));
        assert_eq!(both(&member, &b), resync, "the member holds all too");
        member.is_whole = false;
        let equal = (Ok(Plan::Equal), Ok(Plan::Equal));
        assert_eq!(both(&member, &b), equal, "only the target does");
        b.is_whole = false;
        assert_eq!(both(&member, &b), resync, "nobody does (law B6)");
        b.is_whole = true;
        let (mut other, mut older) = (member.clone(), member.clone());
        other.knows.incarnation = 99;
        assert_eq!(both(&other, &b), resync, "that was another replica");
        older.knows.life = Life { count: 9, id: 9 };
        assert_eq!(
            both(&older, &b),
            resync,
            "it was put back to an older state"
        );
        let mut alone = member.clone();
        alone.record = member.record.map(|r| Record {
            step: 2,
            in_sync: NodeSet(1),
            ..r
        });
        assert_eq!(both(&alone, &b), resync, "the target has left S since");
    }
}
