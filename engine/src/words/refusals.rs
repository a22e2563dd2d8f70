//! What an operator reads when a command was not done.

use engine_core::action::CommandError;
use engine_core::event::DiskError;
use engine_core::marks::MARKS_MAX;
use engine_core::register::REGISTER;
use engine_core::units::{GRANULE, NodeSet};

use super::{Names, bytes_of};
use crate::control::{Refusal, RefusalKind, Repair, Request};

/// What an operator reads when a command was not done.
pub(crate) fn refusal(names: Names<'_>, request: &Request, error: &CommandError) -> Refusal {
    let Names { volume, .. } = names;
    let me = names.own;
    let verb = verb(request);
    let (kind, code, why, hint) = match error {
        CommandError::PrimaryElsewhere(node) if is_about_marks(request) => {
            let primary = names.of(*node);
            let hint = format!("on {primary}: {}", mark_command(volume, request));
            (
                RefusalKind::Failed,
                "E210",
                format!("{primary} is primary, and answers for its marks"),
                Some(hint),
            )
        }
        CommandError::PrimaryElsewhere(node) if matches!(request, Request::Nodes { .. }) => {
            let primary = names.of(*node);
            let hint = format!("on {primary}: pollux config apply");
            let text = format!("{primary} is primary, and changes them");
            (RefusalKind::Failed, "E274", text, Some(hint))
        }
        CommandError::NotPrimary if matches!(request, Request::Nodes { .. }) => {
            let hint = "pollux config apply, where it is primary".to_owned();
            let text = "only the primary changes them".to_owned();
            (RefusalKind::Failed, "E274", text, Some(hint))
        }
        CommandError::ReplicasStay => {
            let why = "its replicas change only with quorum = \"majority\", and with metadata that has room for a table of nodes".to_owned();
            (RefusalKind::Failed, "E270", why, None)
        }
        CommandError::TooManyReplicas => {
            let why = "a volume has at most five replicas".to_owned();
            (RefusalKind::Failed, "E282", why, None)
        }
        CommandError::PrimaryLeaves => {
            let why = format!("the file takes {me} away, which is primary");
            let hint = format!(
                "promote another node (there: pollux promote {volume}), then there: pollux config apply"
            );
            (RefusalKind::Failed, "E283", why, Some(hint))
        }
        CommandError::NeededCopy(node) => {
            let node = names.of(*node);
            let why = format!(
                "without the copy on {node} fewer than two would be left, or none in sync, or fewer than min_copies"
            );
            let hint = format!("bring other copies into sync first: pollux resync status {volume}");
            (RefusalKind::Failed, "E284", why, Some(hint))
        }
        CommandError::WitnessesStay => {
            let why = "its witnesses change only with quorum = \"majority\", and with metadata that has room for a table of nodes".to_owned();
            (RefusalKind::Failed, "E270", why, None)
        }
        CommandError::TooManyWitnesses => {
            let why = "a volume has at most two witnesses".to_owned();
            (RefusalKind::Failed, "E271", why, None)
        }
        CommandError::NodeChanging(node) => {
            let why = format!("{} comes or goes: one change at a time", names.of(*node));
            let hint = format!("when that is done (pollux status {volume}): pollux config apply");
            (RefusalKind::Failed, "E272", why, Some(hint))
        }
        CommandError::NeededForMajority(node) => {
            let node = names.of(*node);
            let why = format!("without {node} the voters at hand would be no majority");
            let hint = "bring other voters back first".to_owned();
            (RefusalKind::Failed, "E273", why, Some(hint))
        }
        CommandError::PrimaryElsewhere(node) if matches!(request, Request::Resize { .. }) => {
            let primary = names.of(*node);
            let hint = format!("on {primary}: the same command");
            let text = format!("{primary} is primary, and grows the volume");
            (RefusalKind::Failed, "E269", text, Some(hint))
        }
        CommandError::PrimaryElsewhere(node) => {
            let primary = names.of(*node);
            let hint = format!("demote {primary} first: on {primary}, pollux demote {volume}");
            (
                RefusalKind::Failed,
                "E210",
                format!("{primary} is primary"),
                Some(hint),
            )
        }
        CommandError::Inconsistent { source } => {
            let mut why = format!("the data on {me} is inconsistent");
            match source {
                Some(node) => {
                    why.push_str(&format!("\n  {} has the current data", names.of(*node)));
                }
                None => why.push_str("\n  no node with the current data is connected"),
            }
            let hint = format!(
                "wait for the resync: pollux resync status {volume}; or lose what {me} lacks: \
                 pollux promote {volume} --force"
            );
            (RefusalKind::WouldLoseData, "E207", why, Some(hint))
        }
        CommandError::Outdated { source } => {
            let newer = source.map_or("another node", |node| names.of(node));
            let why = format!("the data on {me} is outdated\n  {newer} has newer data");
            let hint = format!(
                "bring {newer} back, or lose its newer writes: pollux promote {volume} --force"
            );
            (RefusalKind::WouldLoseData, "E207", why, Some(hint))
        }
        CommandError::NotWhole { better } => {
            let better = names.of(*better);
            let why = format!(
                "{me} lost power and may lack writes that were acknowledged\n  {better} has them"
            );
            let hint =
                format!("promote {better}, or wait until it is connected and {me} is resynced");
            (RefusalKind::WouldLoseData, "E207", why, Some(hint))
        }
        CommandError::MayHaveGoneOn(node) => {
            let other = names.of(*node);
            let why = format!("{other} may have taken writes alone after {me} lost it");
            let hint = format!(
                "start {other} and wait until it is connected; or, if it is gone for good: \
                 pollux promote {volume} --force"
            );
            (RefusalKind::WouldLoseData, "E212", why, Some(hint))
        }
        CommandError::CannotFound { missing: REGISTER } => {
            let why = "it was never promoted, and etcd does not answer".to_owned();
            let hint = "see that etcd has a leader and that this node reaches it, and try again";
            (RefusalKind::Failed, "E244", why, Some(hint.to_owned()))
        }
        CommandError::RegisterTaken => {
            let why = "etcd holds the record of another volume under this name".to_owned();
            let hint = format!(
                "if that volume is gone for good, delete its key from etcd, then: \
                 pollux promote {volume}"
            );
            (RefusalKind::Failed, "E242", why, Some(hint))
        }
        CommandError::RegisterWentBack { newer } => {
            let newer = names.of(*newer);
            let why = format!(
                "the record in etcd is older than the one that {newer} holds: etcd was put back \
                 to an earlier state"
            );
            let hint =
                format!("on the node that has the newest data: pollux promote {volume} --force");
            (RefusalKind::WouldLoseData, "E243", why, Some(hint))
        }
        CommandError::CannotFound { missing } => {
            let missing = names.of(*missing);
            let why = format!(
                "it was never promoted, and {missing} is not connected with a blank replica"
            );
            let hint = format!(
                "on {missing}: pollux volume create {volume}; or begin without it: \
                 pollux promote {volume} --force"
            );
            (RefusalKind::WouldLoseData, "E213", why, Some(hint))
        }
        CommandError::SplitBrain(node) => {
            let other = names.of(*node);
            let why = format!("split brain: {me} and {other} both took writes after they parted");
            let hint = format!(
                "see what each side has: pollux splitbrain show {volume}; or keep this node's data \
                 for now: pollux promote {volume} --force"
            );
            (RefusalKind::WouldLoseData, "E206", why, Some(hint))
        }
        CommandError::StillPrimary => {
            let hint = format!("pollux demote {volume} --disconnect");
            (
                RefusalKind::Failed,
                "E211",
                format!("{me} is primary"),
                Some(hint),
            )
        }
        CommandError::BothGiveUp(node) => {
            let other = names.of(*node);
            let why = format!("{other} is giving up its copy too; nothing was changed");
            let hint = format!("decide once more: pollux splitbrain show {volume}");
            (RefusalKind::Failed, "E255", why, Some(hint))
        }
        CommandError::NoSource(node) => {
            let other = names.of(*node);
            let why = format!("the copy on {other} is not whole, or leads no history");
            let hint = format!("on {other}: pollux promote {volume}; then try again");
            (RefusalKind::WouldLoseData, "E256", why, Some(hint))
        }
        CommandError::NeedsVote(node) => {
            let other = names.of(*node);
            let why = format!("without the vote of {me}, {other} has no majority of its voters");
            let hint = format!(
                "wait until {other} counts all its voters: pollux status {volume}; then try again"
            );
            (RefusalKind::Failed, "E256", why, Some(hint))
        }
        CommandError::PlanChanged => {
            let why = "what was decided on has changed; nothing was changed".to_owned();
            let hint = format!("look again: pollux splitbrain show {volume}");
            (RefusalKind::Failed, "E257", why, Some(hint))
        }
        CommandError::SalvageFailed(error) => {
            let cause = match error {
                DiskError::NoSpace => "there is no room for its blocks in data_dir".to_owned(),
                DiskError::Io => "its blocks could not be read or saved".to_owned(),
                DiskError::Checksum(extent) => {
                    format!("{} do not match their checksums", bytes_of(*extent))
                }
            };
            let why = format!("{cause}; nothing was changed");
            (RefusalKind::Failed, "E258", why, None)
        }
        CommandError::DiskFailed => (
            RefusalKind::Failed,
            "E208",
            format!("the disk of {me} failed"),
            None,
        ),
        CommandError::MetaFailed => {
            let why = format!("the metadata of {me} cannot be written");
            (RefusalKind::Failed, "E209", why, None)
        }
        CommandError::InProgress => (
            RefusalKind::Failed,
            "E215",
            "another command of this kind runs".into(),
            None,
        ),
        CommandError::NotInSync(node) => (
            RefusalKind::Failed,
            "E216",
            format!("the resync of {} has not ended", names.of(*node)),
            Some(format!("wait for it: pollux resync status {volume}")),
        ),
        CommandError::NotConnected(node) => {
            let node = names.of(*node);
            let hint = format!("pollux peer connect {node} --volume {volume}");
            (
                RefusalKind::Failed,
                "E216",
                format!("{node} is not connected"),
                Some(hint),
            )
        }
        CommandError::NoMajority => {
            let why = format!("{volume} has two copies: where they differ neither is the majority");
            let hint = format!("pollux verify {volume} --repair --from {me}");
            (RefusalKind::Failed, "E275", why, Some(hint))
        }
        CommandError::NotPrimary
            if let Request::Verify {
                repair: Repair::From(from),
            } = request
                && from.as_str() != me =>
        {
            let why = format!("copies are repaired from the primary's, and {from} is not primary");
            let hint = format!("pollux promote {volume} on {from}, or leave out --from");
            (RefusalKind::Failed, "E276", why, Some(hint))
        }
        // The node whose data is kept is the one that can say so to the others.
        CommandError::NotPrimary if let Request::ResyncStart { from } = request => {
            let why = format!("only {from} can offer its own data");
            let hint = format!("on {from}: pollux resync start {volume} --from {from}");
            (RefusalKind::Failed, "E217", why, Some(hint))
        }
        CommandError::NotPrimary => {
            let hint = format!("pollux promote {volume}");
            (
                RefusalKind::Failed,
                "E217",
                format!("{me} is not primary"),
                Some(hint),
            )
        }
        CommandError::NothingToDo if matches!(request, Request::GiveUp { .. }) => {
            let hint = format!("pollux status {volume}");
            (
                RefusalKind::Failed,
                "E218",
                "there is no split brain with that node".into(),
                Some(hint),
            )
        }
        CommandError::NothingToDo => (
            RefusalKind::Failed,
            "E218",
            "there is nothing to do".into(),
            None,
        ),
        CommandError::Stopping => (
            RefusalKind::Failed,
            "E219",
            format!("{me} is stopping"),
            None,
        ),
        CommandError::TimedOut => (
            RefusalKind::TimedOut,
            "E220",
            "it took longer than asked".into(),
            None,
        ),
        CommandError::NotHandedOver(node) => {
            let primary = names.of(*node);
            let why = format!("{primary} is primary, and did not hand it over in time");
            let hint = format!(
                "{primary} serves on; see what its clients wait for, and try again: \
                 pollux promote {volume}"
            );
            (RefusalKind::TimedOut, "E260", why, Some(hint))
        }
        CommandError::NoQuorum { missing }
            if names.is_by_etcd() && *missing == NodeSet::only(REGISTER) =>
        {
            let why = "etcd does not answer".to_owned();
            let hint = format!(
                "start etcd and try again: it serves as soon as etcd answers; or, if that is gone \
                 for good: pollux promote {volume} --force"
            );
            (RefusalKind::WouldLoseData, "E231", why, Some(hint))
        }
        CommandError::NoQuorum { missing } => {
            let (missing, list) = (missing.count(), names.list(*missing));
            let mut why = "no majority of its voters answers".to_owned();
            if missing > 0 {
                why.push_str(&format!("\n  not heard: {list}"));
            }
            let whom = if missing == 1 {
                &list
            } else {
                "enough of them"
            };
            let hint = format!(
                "start {whom} and try again: it serves as soon as a majority is there; or, if they \
                 are gone for good: pollux promote {volume} --force"
            );
            (RefusalKind::WouldLoseData, "E231", why, Some(hint))
        }
        CommandError::NoSuchPeer => (
            RefusalKind::NotFound,
            "E221",
            "it has no such peer".into(),
            None,
        ),
        CommandError::NoSuchMark => {
            let mark = mark_of(request);
            (
                RefusalKind::NotFound,
                "E223",
                format!("it has no mark {mark}"),
                Some(format!(
                    "the marks there are: pollux volume mark list {volume}"
                )),
            )
        }
        CommandError::MarkExists => {
            let mark = mark_of(request);
            (
                RefusalKind::Failed,
                "E224",
                format!("it has a mark {mark} already"),
                Some(format!(
                    "choose another name, or: pollux volume mark delete {volume} {mark}"
                )),
            )
        }
        CommandError::TooManyMarks => (
            RefusalKind::Failed,
            "E225",
            format!("it has {MARKS_MAX} marks, and can have no more"),
            Some(format!("pollux volume mark list {volume}; delete one")),
        ),
        CommandError::NoRoomForMarks(node) => {
            let node = names.of(*node);
            (
                RefusalKind::Failed,
                "E226",
                format!("the metadata of the replica on {node} was made before there were marks"),
                Some(format!(
                    "make that replica anew: on {node}, pollux volume delete {volume}, then \
                     pollux volume create {volume} --adopt; it is synced whole"
                )),
            )
        }
        CommandError::NoChecksums => (
            RefusalKind::Failed,
            "E280",
            "it was created with checksums = \"off\", and has none to compare with".to_owned(),
            Some(format!(
                "compare it with the other copies: pollux verify {volume}"
            )),
        ),
        CommandError::GrowthUnknown(node) => (
            RefusalKind::Failed,
            "E265",
            format!(
                "{} runs a version that does not grow mirrors",
                names.of(*node)
            ),
            Some(format!("upgrade {} first", names.of(*node))),
        ),
        CommandError::NoRoomOn { node, max } => {
            let node = names.of(*node);
            let text = format!(
                "the metadata of the replica on {node} has room for {} bytes at most",
                max * GRANULE
            );
            let hint = format!(
                "make that replica anew: on {node}, pollux volume delete {volume}, then pollux \
                 volume create {volume} --adopt; it is synced whole"
            );
            (RefusalKind::Failed, "E266", text, Some(hint))
        }
        CommandError::NoBackingOn { node, error } => {
            let node = names.of(*node);
            let why = match error {
                DiskError::NoSpace => "has no room",
                DiskError::Io | DiskError::Checksum(_) => "cannot be made longer",
            };
            let text = format!("the backing on {node} {why}; nothing has changed");
            let hint =
                format!("{node} says why (W135); a block device must be large enough already");
            (RefusalKind::Failed, "E267", text, Some(hint))
        }
        CommandError::NoWordOfRoom(node) => (
            RefusalKind::Failed,
            "E268",
            format!(
                "{} did not say in time whether it has room; nothing has changed",
                names.of(*node)
            ),
            None,
        ),
        CommandError::WouldShrink { size } => (
            RefusalKind::Failed,
            "E228",
            format!(
                "it has {} bytes, and a volume never shrinks",
                size * GRANULE
            ),
            None,
        ),
        CommandError::NoRoomToGrow { max } => (
            RefusalKind::Failed,
            "E229",
            format!(
                "its metadata was made with room for {} bytes at most",
                max * GRANULE
            ),
            None,
        ),
    };
    Refusal {
        kind,
        code,
        text: format!("cannot {verb} {volume} on {me}: {why}"),
        hint,
    }
}

/// A node without a copy is asked for what only one with a copy can do.
pub(crate) fn is_witness(names: Names<'_>, request: &Request) -> Refusal {
    let Names { volume, .. } = names;
    let (verb, me) = (verb(request), names.own);
    Refusal {
        kind: RefusalKind::Failed,
        code: "E232",
        text: format!("cannot {verb} {volume} on {me}: it is a witness there and holds no copy"),
        hint: Some("ask a node with a replica".to_owned()),
    }
}

/// A node that is no part of the volume any more is asked for something.
pub(crate) fn is_gone(names: Names<'_>, request: &Request) -> Refusal {
    let Names { volume, own, .. } = names;
    let verb = verb(request);
    Refusal {
        kind: RefusalKind::Failed,
        code: "E285",
        text: format!("cannot {verb} {volume} on {own}: {own} is no part of it any more"),
        hint: Some(format!(
            "ask another node; what is left here can go: pollux volume delete {volume}"
        )),
    }
}

fn verb(request: &Request) -> &'static str {
    match request {
        Request::Create { .. } => "create",
        Request::Delete { .. } => "delete",
        Request::Promote { .. } | Request::ServeAgain { .. } => "promote",
        Request::Demote { .. } => "demote",
        Request::PeerConnect { .. } => "connect",
        Request::PeerDisconnect { .. } => "disconnect",
        Request::ResyncStart { .. } => "resync",
        Request::ResyncPause => "pause the resync of",
        Request::ResyncResume => "resume the resync of",
        Request::ResyncSetRate { .. } => "set the resync rate of",
        Request::Verify { .. } | Request::VerifyStatus => "verify",
        Request::Disconnect { .. } => "disconnect a client of",
        Request::MarkCreate { .. } => "make a mark of",
        Request::MarkDelete { .. } => "delete a mark of",
        Request::MarkList => "list the marks of",
        Request::Partings => "compare the copies of",
        Request::GiveUp { .. } => "give up the copy of",
        Request::Resize { .. } => "resize",
        Request::Nodes { .. } => "change the nodes of",
        Request::Scrub { .. } => "scrub",
    }
}

fn is_about_marks(request: &Request) -> bool {
    matches!(
        request,
        Request::MarkCreate { .. } | Request::MarkDelete { .. } | Request::MarkList
    )
}

fn mark_of(request: &Request) -> String {
    match request {
        Request::MarkCreate { name, .. } | Request::MarkDelete { name } => name.to_string(),
        _ => String::new(),
    }
}

/// The command line of a request about marks.
fn mark_command(volume: &str, request: &Request) -> String {
    match request {
        Request::MarkCreate { name, .. } => format!("pollux volume mark create {volume} {name}"),
        Request::MarkDelete { name } => format!("pollux volume mark delete {volume} {name}"),
        _ => format!("pollux volume mark list {volume}"),
    }
}
