//! How a request ended: done, with its reports, or refused.

use std::time::SystemTime;

use engine_core::marks::MarkName;

use super::DiskState;

/// How a request ended.
pub type Outcome = Result<Done, Refusal>;

/// A request that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It is so now; the text says what was done, for people.
    Ok(String),
    /// It was so before; nothing was changed.
    Already(String),
    /// Figures of a verify.
    Verify(VerifyReport),
    /// Marks, oldest first.
    Marks(Vec<MarkReport>),
    /// Split brains, by node.
    Partings(Vec<PartingReport>),
}

/// A split brain with one node, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartingReport {
    /// The other node.
    pub peer: String,
    /// What both histories have in common: branch and term. `None` where a promotion by force broke
    /// with it.
    pub ancestor: Option<(u128, u64)>,
    /// Names this state; giving up a copy may be bound to it.
    pub token: u64,
    /// Seconds since this process first saw it.
    pub found_seconds: u64,
    /// Milliseconds since the two last compared.
    pub compared_milliseconds: u64,
    /// This side.
    pub mine: SideReport,
    /// The other side; `None` until it told all.
    pub theirs: Option<SideReport>,
    /// Bytes that both sides may have changed, where both know.
    pub overlap_bytes: Option<u64>,
    /// Bytes that may differ.
    pub differ_bytes: Option<u64>,
}

/// One side of a split brain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideReport {
    /// Branch and term of each reign that the other side does not know.
    pub reigns: Vec<(u128, u64)>,
    /// Bytes it may have changed since the two were one, in granules and after a crash in extents
    /// of the activity log. `None`: not known.
    pub changed_bytes: Option<u64>,
    /// It takes writes.
    pub is_primary: bool,
    /// State of its copy.
    pub disk: DiskState,
    /// Clients attached.
    pub clients: u32,
    /// Seconds since the last write of a client, where its process saw one.
    pub last_write_seconds: Option<u64>,
}

/// One mark of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkReport {
    /// Its name.
    pub name: MarkName,
    /// Identity: another for each creation, also under the same name.
    pub id: u128,
    /// When it was created, by the primary's clock.
    pub created: SystemTime,
    /// Bytes that changed since, in whole granules.
    pub dirty_bytes: u64,
    /// What changed is not known any more: all of the volume counts.
    pub is_whole: bool,
}

/// Figures of the latest verify of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Still comparing.
    pub running: bool,
    /// Bytes compared so far.
    pub compared_bytes: u64,
    /// Bytes to compare in all.
    pub total_bytes: u64,
    /// Bytes found different.
    pub different_bytes: u64,
    /// First ranges found different, (offset, length) in bytes; at most 16.
    pub different: Vec<(u64, u64)>,
    /// Verifies that compared everything, since this process began.
    pub completed: u64,
    /// Mean of about 30 s; `None` while it is too early, and without one that runs.
    pub rate_bytes_per_second: Option<u64>,
    /// The copies that differ are being repaired.
    pub is_repairing: bool,
    /// Why the verify ended early, if it did.
    pub failure: Option<String>,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Class; decides the exit code.
    pub kind: RefusalKind,
    /// Stable code of the message, for example `E207`.
    pub code: &'static str,
    /// What happened and to which volume or peer; one or more lines.
    pub text: String,
    /// What the operator can do; names existing verbs only.
    pub hint: Option<String>,
}

/// Class of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// Something broke or the state does not allow it (exit 1).
    Failed,
    /// No such volume or peer (exit 3).
    NotFound,
    /// Data could be lost; `--force` exists (exit 4).
    WouldLoseData,
    /// Took longer than asked (exit 7).
    TimedOut,
}
