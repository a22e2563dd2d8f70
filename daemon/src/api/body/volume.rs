//! A volume as it is configured, and what became of an applied file.

use engine::control;
use serde::{Deserialize, Serialize};

use super::VolumeEntry;
use crate::config::Words;

/// `GET /api/v1/volumes/{name}`: what the running configuration says, and how it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeReport {
    /// `pollux.volume/1`.
    pub schema: String,
    /// Name of the node that answers.
    pub node: String,
    /// As configured.
    pub declared: Declared,
    /// As it is; `null` if the engine does not know it.
    pub status: Option<VolumeEntry>,
}

/// A volume as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Path of this node's replica, or `memory`.
    pub backing: String,
    /// Nodes with a replica.
    pub replicas: Vec<String>,
    /// `written` or `durable`.
    pub write_policy: String,
    /// `thin` or `full`.
    pub allocation: String,
    /// `direct` or `buffered`.
    pub cache: String,
    /// How the end of a disk's operation is noticed: `interrupt`, `poll`, `poll_if_possible`.
    pub completion: String,
    /// `balanced`, `latency` or `cpu`.
    pub polling: String,
    /// `local` or `balanced`.
    #[serde(default = "local")]
    pub reads: String,
    /// `manual` or `discard-zero-changes`.
    #[serde(default = "manual")]
    pub splitbrain: String,
    /// `on` or `off`.
    #[serde(default = "off")]
    pub checksums: String,
    /// Fewest members of S with which writes are acknowledged.
    pub min_copies: u32,
    /// Limit of resync and verify; `null` is no limit.
    #[serde(default)]
    pub resync_rate_bytes_per_second: Option<u64>,
    /// Exports with the URIs that clients can paste.
    pub nbd: Vec<DeclaredExport>,
}

fn manual() -> String {
    "manual".to_owned()
}

fn local() -> String {
    "local".to_owned()
}

fn off() -> String {
    "off".to_owned()
}

/// An NBD export as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredExport {
    /// Name that clients ask for.
    pub name: String,
    /// Refuses writes.
    pub read_only: bool,
    /// Text for LIST.
    pub description: String,
    /// Networks that may attach; empty: all.
    pub allow: Vec<String>,
    /// Whose certificates may attach; empty: all.
    #[serde(default)]
    pub allow_subjects: Vec<String>,
    /// Not to be had without TLS.
    #[serde(default)]
    pub needs_tls: bool,
    /// `shared`, `exclusive` or `takeover`.
    #[serde(default = "shared")]
    pub attach: String,
    /// Meant by the empty name.
    #[serde(default)]
    pub default: bool,
    /// NBD URIs of it on this node.
    pub uris: Vec<String>,
}

fn shared() -> String {
    control::Attach::Shared.word().to_owned()
}

/// Answer of `POST /api/v1/config/apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedReport {
    /// Exports of this node now.
    pub exports: usize,
    /// What differs from the running node and needs a restart.
    pub restart: Vec<String>,
    /// Commands that do what the file asks for beyond that.
    #[serde(default)]
    pub commands: Vec<String>,
    /// For people.
    pub text: String,
}

/// Body of an answer to a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// False if it was so before.
    pub changed: bool,
    /// What was done, for people.
    pub text: String,
}
