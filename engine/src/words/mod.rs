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

mod notices;
mod refusals;

use std::time::SystemTime;

use engine_core::event::DiskError;
use engine_core::meta::LoadError;
use engine_core::quorum::Quorum;
use engine_core::register::REGISTER;
use engine_core::table::{NodeKind, Stage};
use engine_core::units::{Extent, NodeIdx, NodeSet};
use engine_core::volume::Volume as Core;

use crate::control::{Refusal, RefusalKind, Request, VolumeSpec};
use crate::meta_io::ReplicaError;

pub(crate) use notices::{etcd_waits, notice, why_refused};
pub(crate) use refusals::{is_gone, is_witness, refusal};

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

fn bytes_of(extent: Extent) -> String {
    let (start, end) = (extent.offset(), extent.offset() + extent.bytes());
    format!("bytes {start}..{end}")
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
mod tests;
