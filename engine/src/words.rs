//! Sentences: refusals of commands, log lines of notices. Codes are listed here and nowhere else.
//!
//! | code | about |   | code | about |
//! |---|---|---|---|---|
//! | W101 | link to a node | | E201 | backing or metadata cannot be used |
//! | W102 | resync | | E202 | metadata foreign or damaged |
//! | W103 | disk or metadata failed | | E203 | in use |
//! | W104 | a replica is not in sync | | E205 | not created |
//! | W105 | not founded | | E206 | split brain |
//! | W106 | last copy full | | E207 | data of this copy not fit for promotion |
//! | W107 | reactor not pinned | | E208, E209 | disk, metadata failed |
//! | W108 | peer broke the protocol | | E210 | primary elsewhere |
//! | W109, W110 | connection refused | | E211 | clients attached, or still primary |
//! | W111 | read error | | E212 | another node may have gone on (law T9) |
//! | W112 | verify found differences | | E213 | cannot found |
//! | W123 | TLS of a link refused | | W142 | a member was late |
//! | W147 | metadata hangs | | W148 | a voter's file lists other nodes |
//! | W143 – W145, I174, I175 | checksums: a mismatch; not repaired; lost; repaired; scrubbed | | E280, E281 | no checksums; metadata made without or with |
//! | W117 – W119 | superseded; no majority; no vote yet | | E231, E232 | no majority of the voters; a witness |
//! | I168, W130 | hands over; kept the role | | E260 | not handed over |
//! | W131, I169 | majority lost; back | | W149 | nobody serves, and why |
//! | W127 – W129, I166 | split brain: copy given up, salvage | | E255 – E258 | a copy is not given up |
//! | | | | E275, E276 | a repair without a majority; from a node that is not primary |
//! | W137, W138, I171 | nodes that come and go | | E270 – E274, E282 – E284 | they do not |
//! | | | | E285 | asked of a node that is gone |
//! | W146 | put back to an older state | | | |
//! | W120, W121, I162 | etcd away, unreadable, back | | E242 – E244 | etcd: taken, put back, not there |
//! | I101 – I104 | role, founding, in-sync set, attach | | E214 – E230 | see `refusal` |

use std::time::{Duration, SystemTime};

use engine_core::action::{CommandError, Notice};
use engine_core::event::DiskError;
use engine_core::marks::MARKS_MAX;
use engine_core::message::Refusal as Why;
use engine_core::meta::LoadError;
use engine_core::quorum::Quorum;
use engine_core::register::REGISTER;
use engine_core::table::{NodeKind, Stage};
use engine_core::units::{Extent, GRANULE, NodeIdx, NodeSet};
use engine_core::volume::Volume as Core;

use crate::control::{Refusal, RefusalKind, Repair, Request, VolumeSpec};
use crate::log::Level;
use crate::meta_io::ReplicaError;

/// Names of a volume's nodes, by index.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) volume: &'a str,
    /// This node.
    pub(crate) own: &'a str,
    pub(crate) nodes: &'a [String],
    /// Who chooses its records.
    pub(crate) quorum: Quorum,
}

impl<'a> Names<'a> {
    pub(crate) fn of(&self, node: NodeIdx) -> &'a str {
        if node == REGISTER && self.is_by_etcd() {
            return "etcd";
        }
        self.nodes
            .get(usize::from(node.0))
            .map_or("?", String::as_str)
    }

    /// etcd chooses, in the place of a majority of voters.
    fn is_by_etcd(&self) -> bool {
        self.quorum == Quorum::Register
    }

    fn list(&self, set: NodeSet) -> String {
        let names: Vec<_> = set.iter().map(|node| self.of(node)).collect();
        names.join(", ")
    }
}

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

/// What a node's file says of a volume's nodes, where that is not so (yet).
pub(crate) fn nodes_differ(spec: &VolumeSpec, core: &Core) -> Option<String> {
    let table = core.table();
    if table.version() == 0 {
        return None;
    }
    let open = table.at(&[Stage::Coming, Stage::Leaving]).iter().next();
    if let Some(entry) = open.and_then(|node| table.entry(node)) {
        let (name, waited) = (&entry.name, core.lacking_table());
        let waited: Vec<&str> = waited
            .iter()
            .filter_map(|node| Some(table.entry(node)?.name.as_str()))
            .collect();
        let text = match (entry.stage, entry.kind, &waited[..]) {
            (Stage::Leaving, NodeKind::Replica, _) => {
                format!("{name} goes: its copy leaves the set in sync, then it loses its vote")
            }
            (Stage::Leaving, NodeKind::Witness, _) => format!("{name} goes: it is losing its vote"),
            (_, _, []) => format!("{name} comes: it is about to get its vote"),
            (_, _, waited) => format!("{name} comes: waits for {}", waited.join(", ")),
        };
        return Some(format!("W137: {text}"));
    }
    let says = |kind, what: &str, wanted: &[String]| {
        let has = table.live(kind).map(|(_, entry)| entry.name.as_str());
        let mut has: Vec<&str> = has.collect();
        let mut wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        has.sort_unstable();
        wanted.sort_unstable();
        let list = |names: &[&str]| match names {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        (wanted != has).then(|| {
            format!(
                "its {what} are {}, this node's file says {}",
                list(&has),
                list(&wanted)
            )
        })
    };
    let replicas = says(NodeKind::Replica, "replicas", &spec.replicas);
    let witnesses = says(NodeKind::Witness, "witnesses", &spec.votes.witnesses);
    let texts: Vec<String> = replicas.into_iter().chain(witnesses).collect();
    (!texts.is_empty()).then(|| {
        format!(
            "W137: {}: pollux config apply, where it is primary",
            texts.join("; ")
        )
    })
}

/// A volume's memory cannot grow where it lies.
pub(crate) fn no_memory_to_grow(names: Names<'_>, size_bytes: u64) -> Refusal {
    let Names { volume, .. } = names;
    Refusal {
        kind: RefusalKind::Failed,
        code: "E230",
        text: format!(
            "cannot resize {volume} on {}: there is no room for {size_bytes} bytes where its memory lies",
            names.own
        ),
        hint: None,
    }
}

/// The backing of a replica could not be made longer.
pub(crate) fn cannot_lengthen(size_bytes: u64, why: &str) -> String {
    format!("the volume is to have {size_bytes} bytes, and the backing here is too short: {why}")
}

/// What a failure to make a backing longer means to the core.
pub(crate) fn disk_error(error: &ReplicaError) -> DiskError {
    match error {
        ReplicaError::Store(error) if error.is_out_of_room() => DiskError::NoSpace,
        _ => DiskError::Io,
    }
}

/// The size of a volume, for people.
pub(crate) fn has_size(volume: &str, size_bytes: u64) -> String {
    format!("{volume} has {size_bytes} bytes")
}

/// The configuration says another size than a volume has.
pub(crate) fn size_differs(volume: &str, declared_bytes: u64, size_bytes: u64) -> String {
    let what = format!("the file declares {declared_bytes} bytes, the volume has {size_bytes}");
    match declared_bytes > size_bytes {
        true => format!("{what}: pollux volume resize {volume} {declared_bytes}B"),
        false => format!("{what}, and never shrinks: write size = \"{size_bytes}B\""),
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

/// Milliseconds since 1970; 0 before.
pub(crate) fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// What was done, for the last line of a success.
pub(crate) fn success(names: Names<'_>, request: &Request) -> String {
    let Names { volume, .. } = names;
    let me = names.own;
    match request {
        Request::Promote { .. } | Request::ServeAgain { .. } => {
            format!("{volume} is primary on {me}")
        }
        Request::Demote { .. } => format!("{volume} is secondary on {me}"),
        Request::PeerConnect { node } => format!("{volume} on {me} talks to {node} again"),
        Request::PeerDisconnect { node } => format!("{volume} on {me} does not talk to {node}"),
        Request::ResyncStart { from } => format!("{volume} is resynced from {from}"),
        Request::ResyncPause => format!("resync of {volume} is paused"),
        Request::ResyncResume => format!("resync of {volume} goes on"),
        Request::ResyncSetRate { .. } => format!("resync rate of {volume} is set"),
        Request::Verify { .. } | Request::VerifyStatus => format!("{volume} is compared"),
        Request::Scrub { .. } => format!("{volume} on {me} is scrubbed"),
        Request::Disconnect { .. } => format!("clients of {volume} are cut off"),
        Request::Create { .. } => format!("{volume} is created on {me}"),
        Request::Delete { .. } => format!("{volume} is deleted on {me}"),
        Request::MarkCreate { name, .. } => format!("{volume} has the mark {name}"),
        Request::MarkDelete { name } => format!("{volume} has the mark {name} no more"),
        Request::MarkList => format!("the marks of {volume}"),
        Request::Partings => format!("split brains of {volume}"),
        Request::GiveUp { keep, .. } => {
            format!("the copy of {volume} on {me} is given up for {keep}")
        }
        Request::Nodes { .. } => format!("nodes of {volume} change as the file says"),
        Request::Resize { size_bytes } => {
            format!(
                "{}; clients see it when they attach anew",
                has_size(volume, *size_bytes)
            )
        }
    }
}

/// Why two nodes do not talk.
pub(crate) fn why_refused(why: Why) -> &'static str {
    match why {
        Why::Protocol => "no common protocol version",
        Why::Feature => "one side needs a feature the other does not know",
        Why::Cluster => "it belongs to another cluster",
        Why::Volume => "it does not have this volume configured for this node",
        Why::VolumeId => "it holds another volume of the same name",
        Why::Size => "the sizes differ",
        Why::ConfigDigest => "the volume is configured differently there",
        Why::Diverged => "split brain: both took writes after they parted",
        Why::Unrelated => "split brain: the histories have nothing in common",
        Why::TwoPrimaries => "both are primary, or the primary is behind",
        Why::Operator => "an operator disconnected it",
        Why::Breach => "the link protocol was broken, or bytes were damaged",
        Why::Leaving => "it is stopping",
        Why::OlderData => {
            "it returned with older data than this node remembers; it will be resynced whole"
        }
        Why::Tls => "TLS of the two does not fit, or a certificate is not that of its node (W123)",
    }
}

fn bytes_of(extent: Extent) -> String {
    let (start, end) = (extent.offset(), extent.offset() + extent.bytes());
    format!("bytes {start}..{end}")
}

/// What is not answered while etcd is away from who serves.
pub(crate) fn etcd_waits(fails: bool) -> &'static str {
    match fails {
        true => "I/O fails",
        false => "reads wait, and writes once a replica is lost,",
    }
}

/// The log line of a notice.
pub(crate) fn notice(names: Names<'_>, notice: &Notice) -> (Level, &'static str, String) {
    match notice {
        Notice::Promoted { term } => (Level::Info, "I101", format!("is primary, term {}", term.0)),
        Notice::Demoted => (Level::Info, "I101", "is secondary".into()),
        Notice::HandingOver { to } => {
            let to = names.of(*to);
            let text = format!("hands over to {to}, which was told to promote; clients are to go");
            (Level::Info, "I168", text)
        }
        Notice::KeptRole { to } => {
            let text = format!(
                "is primary still: requests of clients did not end in time, or {} was lost",
                names.of(*to)
            );
            (Level::Warn, "W130", text)
        }
        Notice::MemberLate { peer, pause } => {
            let text = format!(
                "{} took longer than member_timeout to answer: it leaves, and is let in again after {:.0?}",
                names.of(*peer),
                pause
            );
            (Level::Warn, "W142", text)
        }
        Notice::OtherNodes { peer } => {
            let text = format!(
                "the votes of {} do not count: its file lists other replicas or witnesses of this volume, \
                 or in another order",
                names.of(*peer)
            );
            (Level::Warn, "W148", text)
        }
        Notice::Nodes => {
            let text = format!("has another table of nodes: {}", names.nodes.join(", "));
            (Level::Info, "I171", text)
        }
        Notice::MetaHangs => {
            let text =
                "lays its role down: writes of its metadata do not end; another member may serve";
            (Level::Warn, "W147", text.into())
        }
        Notice::QuorumLost { fails } if names.is_by_etcd() => {
            let io = etcd_waits(*fails);
            let text = format!("etcd does not answer, and the lease ran out; {io} until it does");
            (Level::Warn, "W131", text)
        }
        Notice::QuorumLost { fails } => {
            let io = if *fails { "fail" } else { "wait" };
            let text = format!("no majority of its voters answers; requests {io} until one does");
            (Level::Warn, "W131", text)
        }
        Notice::QuorumBack => {
            let who = match names.is_by_etcd() {
                true => "etcd",
                false => "a majority of its voters",
            };
            let text = format!("{who} answers again; I/O goes on");
            (Level::Info, "I169", text)
        }
        Notice::NotElected { error } => {
            let promote = Request::Promote {
                force: false,
                wait: Duration::ZERO,
            };
            let why = refusal(names, &promote, error).text;
            let text = format!("nobody serves it: {}", why.replace("\n  ", "; "));
            (Level::Warn, "W149", text)
        }
        Notice::SteppedDown { term } => {
            let who = match names.is_by_etcd() {
                true => "etcd may name",
                false => "a majority of its voters may have chosen",
            };
            let text = format!(
                "is secondary: {who} another node after term {}; its clients are cut off without an \
                 answer",
                term.0
            );
            (Level::Warn, "W117", text)
        }
        Notice::Founded { branch } => (
            Level::Info,
            "I102",
            format!("is founded, branch {branch:032x}"),
        ),
        Notice::InSync { record } => {
            let text = format!(
                "in sync: {} (term {}, step {})",
                names.list(record.in_sync),
                record.term.0,
                record.step
            );
            (Level::Info, "I103", text)
        }
        Notice::PeerConnected(node) => (
            Level::Info,
            "W101",
            format!("{} is connected", names.of(*node)),
        ),
        Notice::PeerLost(node) => (Level::Warn, "W101", format!("{} is lost", names.of(*node))),
        Notice::PeerRefused { peer, why, by_us } => {
            let (peer, why) = (names.of(*peer), why_refused(*why));
            let text = if *by_us {
                format!("{peer} is refused: {why}")
            } else {
                format!("{peer} refuses this node: {why}")
            };
            (Level::Warn, "W110", text)
        }
        Notice::FoundOlder { peer } => {
            let text = format!(
                "this copy was put back to an older state than {} remembers: it counts as a new one",
                names.of(*peer)
            );
            (Level::Warn, "W146", text)
        }
        Notice::GaveUp { to, is_by_policy } => {
            let (me, to) = (names.own, names.of(*to));
            let (code, why) = match is_by_policy {
                true => ("W129", "nothing was written here, and splitbrain allows it"),
                false => ("W127", "by an operator"),
            };
            let text = format!("split brain: the copy on {me} is given up for {to}: {why}");
            (Level::Warn, code, text)
        }
        Notice::ResyncBegan {
            peer,
            is_target,
            dirty,
        } => {
            let (peer, bytes) = (names.of(*peer), dirty * GRANULE);
            let way = if *is_target { "from" } else { "to" };
            (
                Level::Info,
                "W102",
                format!("resync {way} {peer}: {bytes} bytes"),
            )
        }
        Notice::Grown { size } => (Level::Info, "I170", format!("has {} bytes", size * GRANULE)),
        Notice::CannotGrow { size, max } => (
            Level::Warn,
            "W136",
            format!(
                "has grown to {} bytes elsewhere; the metadata here has room for {}: make this \
                 replica anew",
                size * GRANULE,
                max * GRANULE
            ),
        ),
        Notice::ResyncDone { peer, figures } => {
            let (peer, moved) = (names.of(*peer), figures.moved * GRANULE);
            let mut text = format!("resync with {peer} is done: {moved} bytes");
            // A target does not know what was sent to it and what was found equal.
            if figures.sent + figures.zeroed > 0 {
                text.push_str(&format!(
                    ", {} of them sent, {} zeros, {} equal",
                    figures.sent * GRANULE,
                    figures.zeroed * GRANULE,
                    figures.equal() * GRANULE
                ));
            }
            (Level::Info, "W102", text)
        }
        Notice::DiskFailed => (
            Level::Error,
            "W103",
            "the disk failed and takes part no more".into(),
        ),
        Notice::MetaFailed => {
            let text = "metadata cannot be written; nothing more is acknowledged".into();
            (Level::Error, "W103", text)
        }
        Notice::DiskFull => (Level::Error, "W106", "the last copy is full".into()),
        Notice::ReadError { extent } => (
            Level::Warn,
            "W111",
            format!("{} cannot be read here", bytes_of(*extent)),
        ),
        Notice::ChecksumError { extent } => {
            let text = format!("{} do not match their checksums", bytes_of(*extent));
            (Level::Warn, "W143", text)
        }
        Notice::NotRepaired { extent } => {
            let text = format!(
                "{} do not match their checksums, and no other copy can be asked now",
                bytes_of(*extent)
            );
            (Level::Error, "W144", text)
        }
        Notice::ChecksumsLost { extent } => {
            let text = format!(
                "the checksums of {} are lost: reads of them go unchecked until a scrub",
                bytes_of(*extent)
            );
            (Level::Warn, "W145", text)
        }
        Notice::Repaired { extent, from } => {
            let text = format!("{} repaired from {}", bytes_of(*extent), names.of(*from));
            (Level::Info, "I174", text)
        }
        Notice::ScrubDone { errors } => {
            let text = format!("scrub done: {} bytes did not match", errors * GRANULE);
            (Level::Info, "I175", text)
        }
        Notice::Difference { peer, extent } => {
            let text = format!("{} differs: {}", names.of(*peer), bytes_of(*extent));
            (Level::Warn, "W112", text)
        }
    }
}

/// An error with all its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// What keeps a replica from being created or attached, in one sentence.
pub(crate) fn offline(error: &ReplicaError) -> String {
    match error {
        // The identities are bytes that tell a reader nothing.
        ReplicaError::Load { path, source } if matches!(**source, LoadError::Backing { .. }) => {
            format!(
                "{path} belongs to another backing: its file, device or size is not the old one"
            )
        }
        ReplicaError::Load { path, source }
            if matches!(**source, LoadError::Nodes { .. } | LoadError::Node { .. }) =>
        {
            format!(
                "{path} was made with other nodes than this file lists: put the old list back, and change it \
                 while the daemons run (pollux config apply)"
            )
        }
        error => with_causes(error),
    }
}

/// Code of what keeps a replica from being created or attached.
pub(crate) fn code_of(error: &ReplicaError) -> &'static str {
    match error {
        ReplicaError::NotCreated => "E205",
        ReplicaError::Foreign(_) | ReplicaError::Load { .. } => "E202",
        ReplicaError::Checksums { .. } => "E281",
        error if error.is_in_use() => "E203",
        _ => "E201",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_core::units::Term;
    use std::time::Duration;

    fn names(nodes: &[String]) -> Names<'_> {
        Names {
            volume: "vm-store",
            own: &nodes[1],
            nodes,
            quorum: Quorum::Majority,
        }
    }

    /// Commands a hint may give, as the command line takes them.
    const SYNTAX: [&str; 8] = [
        "splitbrain show VOL",
        "promote VOL",
        "promote VOL --force",
        "demote VOL",
        "resync status VOL",
        "resync start VOL --from NODE",
        "volume create VOL",
        "peer connect NODE --volume VOL",
    ];

    fn shape(command: &str) -> String {
        let words = command.split(' ').map(|word| match word {
            "vm-store" => "VOL",
            "alpha" | "beta" => "NODE",
            word => word,
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn refusals_name_the_nodes_and_only_commands_that_exist() {
        let nodes = ["alpha".to_owned(), "beta".to_owned()];
        let promote = Request::Promote {
            force: false,
            wait: Duration::ZERO,
        };
        let start = Request::ResyncStart {
            from: "alpha".to_owned(),
        };
        let verify = Request::Verify { repair: Repair::No };
        let alpha = NodeIdx(0);
        let source = Some(alpha);
        let cases = [
            (&promote, CommandError::PrimaryElsewhere(alpha)),
            (&promote, CommandError::Inconsistent { source }),
            (&promote, CommandError::Outdated { source }),
            (&promote, CommandError::NotWhole { better: alpha }),
            (&promote, CommandError::MayHaveGoneOn(alpha)),
            (&promote, CommandError::CannotFound { missing: alpha }),
            (&promote, CommandError::SplitBrain(alpha)),
            (&verify, CommandError::NotConnected(alpha)),
            (&verify, CommandError::NotPrimary),
            (&start, CommandError::NotPrimary),
        ];
        for (request, error) in cases {
            let refusal = refusal(names(&nodes), request, &error);
            let hint = refusal.hint.expect("each of these has a way out");
            let text = refusal.text;
            assert!(text.contains("vm-store on beta: "), "{text}");
            if error != CommandError::NotPrimary {
                assert!(text.contains("alpha"), "{text}");
            }
            for command in hint.split("pollux ").skip(1) {
                let command = shape(command.split(';').next().unwrap_or_default());
                assert!(SYNTAX.contains(&command.as_str()), "{command}: {hint}");
            }
        }
    }

    #[test]
    fn why_nodes_stay_is_told_exactly() {
        let nodes = ["alpha".to_owned(), "beta".to_owned()];
        let request = Request::Nodes {
            replicas: Vec::new(),
            witnesses: Vec::new(),
        };
        let cases = [
            (
                CommandError::ReplicasStay,
                "E270",
                "its replicas change only",
            ),
            (
                CommandError::WitnessesStay,
                "E270",
                "its witnesses change only",
            ),
            (CommandError::TooManyWitnesses, "E271", "two witnesses"),
            (
                CommandError::NodeChanging(NodeIdx(0)),
                "E272",
                "alpha comes or goes",
            ),
            (
                CommandError::NeededForMajority(NodeIdx(0)),
                "E273",
                "without alpha",
            ),
            (CommandError::TooManyReplicas, "E282", "five replicas"),
            (
                CommandError::PrimaryLeaves,
                "E283",
                "takes beta away, which is primary",
            ),
            (
                CommandError::NeededCopy(NodeIdx(0)),
                "E284",
                "without the copy on alpha",
            ),
        ];
        for (error, code, why) in cases {
            let refused = refusal(names(&nodes), &request, &error);
            assert_eq!(refused.code, code, "{error:?}");
            let begin = "cannot change the nodes of vm-store on beta: ";
            let text = refused.text;
            assert!(text.starts_with(begin) && text.contains(why), "{text}");
        }
        let gone = is_gone(names(&nodes), &request);
        assert_eq!(gone.code, "E285");
    }

    #[test]
    fn a_peer_is_connected_again_by_its_name() {
        let nodes = ["alpha".to_owned(), "beta".to_owned()];
        let error = CommandError::NotConnected(NodeIdx(0));
        let verify = Request::Verify { repair: Repair::No };
        let hint = refusal(names(&nodes), &verify, &error).hint;
        assert_eq!(
            hint.as_deref(),
            Some("pollux peer connect alpha --volume vm-store")
        );
    }

    #[test]
    fn where_etcd_chooses_no_text_speaks_of_a_majority() {
        let nodes = ["alpha".to_owned(), "beta".to_owned()];
        let by_etcd = Names {
            quorum: Quorum::Register,
            ..names(&nodes)
        };
        let promote = Request::Promote {
            force: false,
            wait: Duration::ZERO,
        };
        let error = || CommandError::NoQuorum {
            missing: NodeSet::only(REGISTER),
        };
        let refused = refusal(by_etcd, &promote, &error());
        let mut texts = vec![refused.text, refused.hint.expect("there is a way out")];
        let notices = [
            Notice::QuorumLost { fails: false },
            Notice::QuorumLost { fails: true },
            Notice::QuorumBack,
            Notice::SteppedDown { term: Term(1) },
            Notice::NotElected { error: error() },
        ];
        texts.extend(notices.iter().map(|told| notice(by_etcd, told).2));
        for text in texts {
            assert!(text.contains("etcd"), "{text}");
            assert!(!text.contains("majority"), "{text}");
        }
    }
}
