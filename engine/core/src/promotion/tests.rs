use super::*;
use crate::units::Term;

const ME: NodeIdx = NodeIdx(0);
const PEER: NodeIdx = NodeIdx(1);

fn view(in_sync: u8, reach: Reach, vanished_in_sync: bool) -> View {
    let record = Record {
        term: Term(256),
        step: 0,
        primary: PEER,
        in_sync: NodeSet(in_sync),
        branch: 1,
        voters: NodeSet::EMPTY,
        is_released: false,
    };
    View {
        me: ME,
        is_founded: true,
        disk: Disk::UpToDate,
        is_whole: true,
        record: Some(record),
        others: vec![Other {
            node: PEER,
            reach,
            vanished_in_sync,
        }],
    }
}

fn answered(disk: Disk) -> Reach {
    Reach::Answered {
        disk,
        is_primary: false,
        is_whole: true,
        is_ahead: false,
        is_in_sync: false,
    }
}

fn in_sync() -> Reach {
    Reach::Answered {
        disk: Disk::UpToDate,
        is_primary: false,
        is_whole: true,
        is_ahead: false,
        is_in_sync: true,
    }
}

#[test]
fn a_member_follows_a_primary_that_vanished_while_in_sync_with_it() {
    let with = NodeSet::EMPTY;
    assert_eq!(
        may_promote(&view(3, Reach::Gone, true), false),
        Ok(Plan::Continue { with })
    );
    assert_eq!(
        may_promote(&view(3, Reach::Silent, true), false),
        Ok(Plan::Continue { with })
    );
}

#[test]
fn a_member_that_restarted_cannot_know_whether_the_other_went_on_alone() {
    let refused = Err(CommandError::MayHaveGoneOn(PEER));
    assert_eq!(may_promote(&view(3, Reach::Gone, false), false), refused);
    assert_eq!(may_promote(&view(3, Reach::Silent, false), false), refused);
    assert_eq!(
        may_promote(&view(3, answered(Disk::Blank), false), false),
        refused
    );
    assert_eq!(
        may_promote(&view(3, Reach::Gone, false), true),
        Ok(Plan::Force)
    );
}

#[test]
fn alone_in_the_record_is_enough() {
    let with = NodeSet::EMPTY;
    assert_eq!(
        may_promote(&view(1, Reach::Silent, false), false),
        Ok(Plan::Continue { with })
    );
}

#[test]
fn a_peer_in_sync_takes_part_from_the_first_write_on() {
    let with = NodeSet::only(PEER);
    assert_eq!(
        may_promote(&view(3, in_sync(), false), false),
        Ok(Plan::Continue { with })
    );
    assert_eq!(
        may_promote(&view(3, in_sync(), false), true),
        Ok(Plan::Continue { with }),
        "force where plain is allowed is plain"
    );
}

#[test]
fn a_live_primary_elsewhere_is_never_forced_away() {
    let mut view = view(3, in_sync(), false);
    let Reach::Answered { is_primary, .. } = &mut view.others[0].reach else {
        unreachable!()
    };
    *is_primary = true;
    let refused = Err(CommandError::PrimaryElsewhere(PEER));
    assert_eq!(may_promote(&view, false), refused);
    assert_eq!(may_promote(&view, true), refused);
}

#[test]
fn a_copy_that_lacks_data_names_who_has_it() {
    let mut view = view(3, answered(Disk::UpToDate), false);
    view.disk = Disk::Inconsistent;
    let source = Some(PEER);
    assert_eq!(
        may_promote(&view, false),
        Err(CommandError::Inconsistent { source })
    );
    view.disk = Disk::Outdated;
    assert_eq!(
        may_promote(&view, false),
        Err(CommandError::Outdated { source })
    );
    assert_eq!(may_promote(&view, true), Ok(Plan::Force));
    view.disk = Disk::Failed;
    assert_eq!(may_promote(&view, true), Err(CommandError::DiskFailed));
}

#[test]
fn who_lost_writes_in_a_power_cut_yields_to_who_did_not() {
    let mut view = view(3, answered(Disk::UpToDate), false);
    view.is_whole = false;
    assert_eq!(
        may_promote(&view, false),
        Err(CommandError::NotWhole { better: PEER })
    );
    let Reach::Answered { is_whole, .. } = &mut view.others[0].reach else {
        unreachable!()
    };
    *is_whole = false;
    let with = NodeSet::EMPTY;
    assert_eq!(
        may_promote(&view, false),
        Ok(Plan::Continue { with }),
        "nobody is whole"
    );
}

#[test]
fn an_unfounded_volume_needs_every_replica_blank() {
    let mut view = view(3, answered(Disk::Blank), false);
    (view.is_founded, view.disk, view.record) = (false, Disk::Blank, None);
    assert_eq!(may_promote(&view, false), Ok(Plan::Found));
    view.others[0].reach = Reach::Gone;
    assert_eq!(
        may_promote(&view, false),
        Err(CommandError::CannotFound { missing: PEER })
    );
    assert_eq!(may_promote(&view, true), Ok(Plan::Found));
}

#[test]
fn a_member_in_split_brain_needs_an_operator_unless_it_is_alone_in_its_record() {
    let split = |in_sync| may_promote(&view(in_sync, Reach::Split, false), false);
    assert_eq!(split(3), Err(CommandError::SplitBrain(PEER)));
    assert_eq!(
        split(1),
        Ok(Plan::Continue {
            with: NodeSet::EMPTY
        })
    );
}
