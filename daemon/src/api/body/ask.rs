//! Bodies of requests. A missing body means all defaults.

use serde::{Deserialize, Serialize};

/// `POST …/create`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Create {
    /// Take an existing backing with its content.
    pub adopt: bool,
    /// An existing replica is success.
    pub if_absent: bool,
}

/// `POST …/delete`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delete {
    /// Also remove the backing.
    pub wipe: bool,
}

/// `POST …/marks/{mark}/create`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MarkCreate {
    /// A mark of this name is success.
    pub if_absent: bool,
}

/// `POST …/splitbrain/give-up`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GiveUp {
    /// The node whose copy is kept.
    pub keep: String,
    /// The state that was decided on, as `GET …/splitbrain` names it; absent: any.
    #[serde(default)]
    pub token: Option<String>,
}

/// `POST …/promote`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Promote {
    /// Start a new branch where a plain promotion is not allowed.
    pub force: bool,
    /// How long to wait for the peers.
    pub wait_milliseconds: u64,
}

impl Default for Promote {
    fn default() -> Promote {
        Promote {
            force: false,
            wait_milliseconds: 10_000,
        }
    }
}

/// `POST …/demote`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Demote {
    /// Drain and close attached clients.
    pub disconnect: bool,
}

/// `POST …/resize`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// Bytes from then on.
    pub size_bytes: u64,
}

/// `POST …/scrub`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scrub {
    /// Most bytes read per second; `null`: as fast as the disk allows.
    pub bytes_per_second: Option<u64>,
}

/// `POST …/exports/add`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportAdd {
    /// Name that clients ask for.
    pub name: String,
    /// Refuses writes.
    #[serde(default)]
    pub read_only: bool,
    /// Text for LIST.
    #[serde(default)]
    pub description: String,
    /// Networks that may attach.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Whose certificates may attach.
    #[serde(default)]
    pub allow_subjects: Vec<String>,
    /// `shared`, `exclusive` or `takeover`.
    #[serde(default)]
    pub attach: Option<String>,
}

/// `POST …/exports/remove`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRemove {
    /// Its name.
    pub name: String,
    /// Cut its clients off.
    #[serde(default)]
    pub disconnect: bool,
}

/// `POST …/exports/rename`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRename {
    /// Its name.
    pub old: String,
    /// Its name from then on.
    pub new: String,
}

/// `POST …/disconnect`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disconnect {
    /// Number or address of a client.
    pub client: String,
}

/// `POST …/resync/start`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResyncStart {
    /// Node whose data is kept.
    pub from: String,
}

/// `POST …/resync/rate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResyncRate {
    /// `null`: as fast as disks and link allow.
    pub bytes_per_second: Option<u64>,
}

/// `POST …/verify`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Verify {
    /// Repair the copies that differ.
    pub repair: bool,
    /// From the copy of this node; else from the majority.
    pub from: Option<String>,
}

/// A request without a body.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nothing {}
