//! Reports about one volume, and refusals: what `verify`, `mark` and `splitbrain` answer.

use engine::control;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    DiskState, Generation, LastVerify, MARKS_SCHEMA, Role, SPLITBRAIN_SCHEMA, VERIFY_SCHEMA,
};
use crate::explain::Failure;

/// `GET /api/v1/volumes/{name}/verify` and `verify --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// `pollux.verify/1`.
    pub schema: String,
    /// The volume compared.
    pub volume: String,
    /// Still comparing.
    pub running: bool,
    /// Bytes compared so far.
    pub compared_bytes: u64,
    /// Bytes to compare in all.
    pub total_bytes: u64,
    /// Bytes found different.
    pub different_bytes: u64,
    /// First ranges found different; at most 16.
    pub different: Vec<DifferentRange>,
    /// Mean of about 30 s; `null` while unknown.
    #[serde(default)]
    pub rate_bytes_per_second: Option<u64>,
    /// The copies that differ are being repaired.
    #[serde(default)]
    pub repairing: bool,
    /// The one that compared everything last, before this one.
    #[serde(default)]
    pub last: Option<LastVerify>,
    /// Why it ended early.
    pub failure: Option<String>,
}

/// A range that differs between copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferentRange {
    /// Where it begins.
    pub offset_bytes: u64,
    /// How long it is.
    pub length_bytes: u64,
}

impl VerifyReport {
    /// `report` of `volume`.
    pub fn new(volume: &str, report: control::VerifyReport) -> VerifyReport {
        let range = |(offset_bytes, length_bytes)| DifferentRange {
            offset_bytes,
            length_bytes,
        };
        VerifyReport {
            schema: VERIFY_SCHEMA.to_owned(),
            volume: volume.to_owned(),
            running: report.running,
            compared_bytes: report.compared_bytes,
            total_bytes: report.total_bytes,
            different_bytes: report.different_bytes,
            different: report.different.into_iter().map(range).collect(),
            rate_bytes_per_second: report.rate_bytes_per_second,
            repairing: report.is_repairing,
            last: None,
            failure: report.failure,
        }
    }
}

/// `GET /api/v1/volumes/{name}/marks` and `volume mark list --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarksReport {
    /// `pollux.marks/1`.
    pub schema: String,
    /// The volume.
    pub volume: String,
    /// Oldest first.
    pub marks: Vec<Mark>,
}

/// One mark of changed blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its name.
    pub name: String,
    /// 32 hex digits: another for each creation, also under the same name.
    pub id: String,
    /// RFC 3339, UTC, by the clock of the node that was primary.
    pub created_at: String,
    /// Bytes that count as changed since, in whole granules of 4096 bytes.
    pub dirty_bytes: u64,
    /// What changed is not known any more: all of the volume counts.
    pub everything: bool,
    /// Names of the NBD metadata context it is read as.
    pub contexts: Vec<String>,
}

impl MarksReport {
    /// `marks` of `volume`.
    pub fn new(volume: &str, marks: &[control::MarkReport]) -> MarksReport {
        let mark = |mark: &control::MarkReport| Mark {
            name: mark.name.to_string(),
            id: format!("{:032x}", mark.id),
            created_at: Timestamp::try_from(mark.created)
                .unwrap_or(Timestamp::UNIX_EPOCH)
                .to_string(),
            dirty_bytes: mark.dirty_bytes,
            everything: mark.is_whole,
            contexts: vec![
                format!("x-pollux:dirty/{}", mark.name),
                format!("qemu:dirty-bitmap:{}", mark.name),
            ],
        };
        MarksReport {
            schema: MARKS_SCHEMA.to_owned(),
            volume: volume.to_owned(),
            marks: marks.iter().map(mark).collect(),
        }
    }
}

/// Body of every refusal, `application/problem+json`. Source: RFC 9457, with members of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The phrase of the HTTP status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened.
    pub detail: String,
    /// Stable code, for example `E207`.
    pub code: String,
    /// What the operator can do.
    pub hint: Option<String>,
    /// Class of the refusal in one word.
    pub class: String,
    /// What the command line returns for it.
    pub exit_code: u8,
}

impl Problem {
    /// `failure` as answered with HTTP status `status`.
    pub fn new(failure: Failure, status: axum::http::StatusCode) -> Problem {
        Problem {
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: failure.text,
            code: failure.code.into_owned(),
            hint: failure.hint,
            class: failure.exit.word().to_owned(),
            exit_code: failure.exit.number(),
        }
    }
}

/// `GET …/splitbrain` and `splitbrain show --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitBrainReport {
    /// `pollux.splitbrain/1`.
    pub schema: String,
    /// RFC 3339, UTC.
    pub generated_at: String,
    /// The volume.
    pub volume: String,
    /// Name of the node that answers.
    pub node: String,
    /// One for each node that it is in split brain with.
    pub partings: Vec<Parting>,
}

/// A split brain with one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parting {
    /// The other node.
    pub node: String,
    /// When the running process first saw it: RFC 3339, UTC.
    pub found_at: String,
    /// Since the two last compared.
    pub compared_milliseconds_ago: u64,
    /// They compared for this answer; else it is what was known before.
    #[serde(default)]
    pub is_current: bool,
    /// Names this state; `give-up` may be bound to it.
    pub token: String,
    /// Newest reign in both histories; `null` where a promotion by force broke with it.
    pub ancestor: Option<Generation>,
    /// The node that answers.
    pub mine: Side,
    /// The other one; `null` until it told all.
    pub theirs: Option<Side>,
    /// Bytes that both may have changed; `null`: not known.
    pub overlap_bytes: Option<u64>,
    /// Bytes that may differ; `null`: not known.
    pub differ_bytes: Option<u64>,
}

/// One side of a split brain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Its node.
    pub node: String,
    /// What it does.
    pub role: Role,
    /// State of its copy.
    pub disk_state: DiskState,
    /// Reigns that the other side does not know, oldest first.
    pub reigns: Vec<Generation>,
    /// Bytes it may have changed since: never too few. `null`: not known.
    pub changed_bytes: Option<u64>,
    /// Clients attached.
    pub clients: u32,
    /// Since the last write of a client; `null`: none since its process began.
    pub last_write_seconds_ago: Option<u64>,
}

impl SplitBrainReport {
    /// What the engine of `node` says of a volume.
    pub fn new(volume: &str, node: &str, found: &[control::PartingReport]) -> SplitBrainReport {
        let now = Timestamp::now();
        SplitBrainReport {
            schema: SPLITBRAIN_SCHEMA.to_owned(),
            generated_at: now.to_string(),
            volume: volume.to_owned(),
            node: node.to_owned(),
            partings: found.iter().map(|p| Parting::new(node, p, now)).collect(),
        }
    }
}

impl Parting {
    fn new(node: &str, found: &control::PartingReport, now: Timestamp) -> Parting {
        let ago = jiff::SignedDuration::from_secs(found.found_seconds.cast_signed());
        let found_at = now.checked_sub(ago).unwrap_or(now);
        Parting {
            node: found.peer.clone(),
            found_at: found_at.to_string(),
            compared_milliseconds_ago: found.compared_milliseconds,
            is_current: false,
            token: format!("{:016x}", found.token),
            ancestor: found.ancestor.map(generation),
            mine: Side::new(node, &found.mine),
            theirs: found.theirs.as_ref().map(|s| Side::new(&found.peer, s)),
            overlap_bytes: found.overlap_bytes,
            differ_bytes: found.differ_bytes,
        }
    }
}

impl Side {
    fn new(node: &str, side: &control::SideReport) -> Side {
        Side {
            node: node.to_owned(),
            role: match side.is_primary {
                true => Role::Primary,
                false => Role::Secondary,
            },
            disk_state: side.disk.into(),
            reigns: side.reigns.iter().copied().map(generation).collect(),
            changed_bytes: side.changed_bytes,
            clients: side.clients,
            last_write_seconds_ago: side.last_write_seconds,
        }
    }
}

fn generation((branch, term): (u128, u64)) -> Generation {
    Generation {
        branch: format!("{branch:032x}"),
        term,
    }
}
