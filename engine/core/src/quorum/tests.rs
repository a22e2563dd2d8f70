use super::*;

const A: NodeIdx = NodeIdx(0);
const B: NodeIdx = NodeIdx(1);
const C: NodeIdx = NodeIdx(2);
const DATA: NodeSet = NodeSet(0b011);

fn record(term: u64, step: u32, in_sync: u8) -> Record {
    Record {
        term: Term(term << 8),
        step,
        primary: A,
        in_sync: NodeSet(in_sync),
        branch: 1,
        voters: NodeSet(0b111),
        is_released: false,
    }
}

/// The step that takes C off the list.
fn without_c(chosen: Record) -> Record {
    Record {
        voters: NodeSet(0b011),
        ..chosen.next()
    }
}

fn stand(
    me: NodeIdx,
    replicas: NodeSet,
    met: NodeSet,
    promises: &[Promise],
) -> Result<Election, CommandError> {
    let in_force = None;
    let candidate = Candidate {
        me,
        in_force,
        replicas,
        met,
    };
    elect(candidate, promises)
}

fn promise(voter: NodeIdx, record: Option<Record>) -> Promise {
    let disk = if voter == C {
        Disk::Blank
    } else {
        Disk::UpToDate
    };
    let copy = CopyState {
        disk,
        is_whole: true,
    };
    Promise {
        voter,
        record,
        copy,
    }
}

#[test]
fn more_than_half_is_a_majority() {
    for (voters, who, expected) in [
        (0b111, 0b011, true),
        (0b111, 0b001, false),
        (0b011, 0b001, false),
        (0b001, 0b001, true),
        (0b1111, 0b0011, false),
        (0b111, 0b1000, false),
        (0, 0b111, false),
    ] {
        assert_eq!(is_majority(NodeSet(voters), NodeSet(who)), expected);
    }
}

#[test]
fn a_record_that_nobody_else_can_hold_is_not_followed() {
    let (old, new) = (record(1, 1, 0b011), record(1, 2, 0b001));
    // All are heard, and only A holds the newer one.
    let all = [
        promise(A, Some(new)),
        promise(B, Some(old)),
        promise(C, Some(old)),
    ];
    assert_eq!(basis(&all), Some(old));
    // C is not heard: it may hold the newer one too.
    assert_eq!(basis(&all[..2]), Some(new));
    // B and C alone: A may hold anything, but not a majority.
    assert_eq!(basis(&all[1..]), Some(old));
}

#[test]
fn only_a_whole_member_of_the_last_s_is_elected() {
    let all = [
        promise(B, Some(record(1, 1, 0b011))),
        promise(C, Some(record(1, 1, 0b011))),
    ];
    let elected = stand(B, DATA, NodeSet::EMPTY, &all).map(|e| e.members);
    assert_eq!(elected, Ok(NodeSet::only(B)));
    let alone = [
        promise(B, Some(record(1, 1, 0b011))),
        promise(C, Some(record(1, 2, 0b001))),
    ];
    // C holds a record without B; A, not heard, may hold it too.
    let refused = Err(CommandError::Outdated { source: Some(A) });
    assert_eq!(stand(B, DATA, NodeSet::EMPTY, &alone), refused);
}

#[test]
fn who_lost_power_is_elected_only_if_everybody_did() {
    let mut all = [
        promise(A, Some(record(1, 1, 0b011))),
        promise(B, Some(record(1, 1, 0b011))),
    ];
    all[1].copy.is_whole = false;
    assert_eq!(
        stand(B, DATA, NodeSet::EMPTY, &all),
        Err(CommandError::NotWhole { better: A })
    );
    assert_eq!(
        stand(A, DATA, NodeSet::EMPTY, &all).map(|e| e.members),
        Ok(NodeSet::only(A))
    );
    all[0].copy.is_whole = false;
    assert_eq!(
        stand(B, DATA, NodeSet::EMPTY, &all).map(|e| e.members),
        Ok(NodeSet::only(B))
    );
    let with_witness = [all[1], promise(C, Some(record(1, 1, 0b011)))];
    let refused = Err(CommandError::MayHaveGoneOn(A));
    assert_eq!(stand(B, DATA, NodeSet::EMPTY, &with_witness), refused);
}

/// The record that counts it in is on its way to the joining one, which holds all there is.
#[test]
fn who_lost_power_waits_for_a_whole_copy_that_was_about_to_join() {
    let mut all = [
        promise(A, Some(record(1, 2, 0b011))),
        promise(B, Some(record(1, 1, 0b001))),
    ];
    all[0].copy.is_whole = false;
    for disk in [Disk::Inconsistent, Disk::Outdated] {
        all[1].copy.disk = disk;
        assert_eq!(
            stand(A, DATA, NodeSet::EMPTY, &all),
            Err(CommandError::NotWhole { better: B })
        );
    }
    // By no record that may be chosen is it a member: it lacks what it has not copied.
    all[0].record = Some(record(1, 2, 0b001));
    assert_eq!(
        stand(A, DATA, NodeSet::EMPTY, &all).map(|e| e.members),
        Ok(NodeSet::only(A))
    );
}

/// Laws T2, T4 and T5 together, exhaustively: whatever the voters hold, the basis that any
/// majority finds is at least as new as any record that was chosen.
#[test]
fn no_majority_misses_a_chosen_record() {
    let pool = [
        None,
        Some(record(1, 0, 1)),
        Some(record(1, 1, 3)),
        Some(record(2, 0, 2)),
    ];
    for state in 0..4usize.pow(3) {
        let held = [state % 4, state / 4 % 4, state / 16].map(|at| pool[at]);
        let promises = [A, B, C].map(|n| promise(n, held[usize::from(n.0)]));
        let holders = |r: &Record| {
            let has = |p: &&Promise| p.record == Some(*r);
            promises.iter().filter(has).count()
        };
        let chosen = pool
            .iter()
            .flatten()
            .filter(|r| holders(r) >= 2)
            .max_by_key(|r| (r.term, r.step));
        let Some(chosen) = chosen else { continue };
        for left_out in 0..4 {
            let heard: Vec<Promise> = (0..3)
                .filter(|n| *n != left_out)
                .map(|n| promises[n])
                .collect();
            let found = basis(&heard).expect("a majority holds a record");
            assert!(!chosen.is_newer_than(&found), "{held:?} without {left_out}");
        }
    }
}

/// A chosen step whose voters were formatted anew is seen nowhere, and nothing older is followed.
#[test]
fn the_step_before_a_seen_one_was_chosen_even_if_nobody_has_it() {
    let (old, chosen) = (record(1, 6, 0b011), record(1, 8, 0b001));
    // C, which had step 8, was formatted anew: A takes it off the list, and B has not heard of it.
    let next = without_c(chosen);
    let heard = [promise(A, Some(next)), promise(B, Some(old))];
    assert_eq!(basis(&heard), Some(next));
    assert!(has_quorum(&heard), "a majority of the list before as well");
    let refused = stand(B, DATA, NodeSet(0b011), &heard);
    assert_eq!(refused, Err(CommandError::Outdated { source: Some(A) }));
    // Where it is seen it is followed itself.
    let heard = [
        promise(A, Some(next)),
        promise(B, Some(old)),
        promise(C, Some(chosen)),
    ];
    assert_eq!(basis(&heard), Some(chosen));
}

#[test]
fn a_candidacy_that_failed_still_tells_of_the_record_that_nobody_shows() {
    let (old, chosen) = (record(1, 6, 0b011), record(1, 8, 0b001));
    let next = without_c(chosen);
    let heard = [promise(A, Some(next)), promise(B, Some(old))];
    let election = stand(A, DATA, NodeSet(0b011), &heard).expect("A is in S");
    // Its record reaches nobody, and has taken the place of step 9.
    let failed = Record {
        term: Term(2 << 8),
        step: election.step,
        ..next
    };
    let heard = [promise(A, Some(failed)), promise(B, Some(old))];
    assert_eq!(basis(&heard), Some(failed));
    let refused = stand(B, DATA, NodeSet(0b011), &heard);
    assert_eq!(refused, Err(CommandError::Outdated { source: Some(A) }));
    // Where nothing is missing, a candidacy that failed is none.
    let heard = [promise(A, Some(chosen)), promise(C, Some(chosen))];
    assert_eq!(
        stand(A, DATA, NodeSet(0b101), &heard).map(|e| e.step),
        Ok(0)
    );
}

#[test]
fn a_candidacy_that_lost_power_does_not_hide_who_kept_what_it_lost() {
    let (served, own) = (record(1, 4, 0b011), record(2, 0, 0b001));
    // A left B out of its reign, lost power before it began, and both voted for it.
    let mut lost = promise(A, Some(own));
    lost.copy.is_whole = false;
    let heard = [lost, promise(B, Some(own))];
    let (me, replicas, met) = (A, DATA, NodeSet::EMPTY);
    let stands = |in_force| {
        let candidate = Candidate {
            me,
            in_force,
            replicas,
            met,
        };
        elect(candidate, &heard).map(|e| e.members)
    };
    let refused = Err(CommandError::NotWhole { better: B });
    assert_eq!(stands(Some(served)), refused);
    // It did reign alone: what B kept is older.
    assert_eq!(stands(Some(own)), Ok(NodeSet::only(A)));
}
