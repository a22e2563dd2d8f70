//! What the control plane may ask of a node's volumes, and what it gets back.
//!
//! ```text
//! CLI ─► API (tokio) ─► Request ─► bounded mailbox ─► reactor ─► core
//!                     ◄─ Outcome ◄─ Reply (called once, on the reactor's thread)
//!
//!  here         the node that is asked
//!  request.rs   what is asked of a volume
//!  outcome.rs   how that ended: done and its reports, or refused
//!  status.rs    a volume as its node sees it
//!  spec.rs      node and volumes as configured
//! ```
//!
//! Values only: no sockets, no formatting for people. Words and their meaning stand in
//! `docs/operations.md`; what a refusal costs (exit code) is decided by its [`RefusalKind`].

mod outcome;
mod request;
mod spec;
mod status;

pub use engine_core::marks::{MARKS_MAX, MarkName, MarkNameError};
pub use engine_core::quorum::{Quorum, QuorumLoss};
pub use engine_core::table::{REPLICAS_MAX, WITNESSES_MAX};

use crate::handover::{HandOverError, Legacy};
use crate::tls::LinkTls;

pub use outcome::{
    Done, MarkReport, Outcome, PartingReport, Refusal, RefusalKind, SideReport, VerifyReport,
};
pub use request::{Clients, Repair, Request};
pub use spec::{
    Allocation, Attach, Backing, Cache, Checksums, Completion, EtcdSpec, HAS_ETCD, NbdExportSpec,
    NodeSpec, Polling, Reads, SplitBrain, VolumeSpec, Votes, WritePolicy,
};
pub use status::{
    ChecksumReport, ClientStatus, ClientTls, DiskState, Generation, IoCounters, LinkState,
    PathStatus, QuorumStatus, Reason, ReplicaStatus, ResyncBytes, ResyncState, ResyncStatus, Role,
    ScrubReport, State, VolumeStatus,
};

/// A running node. Cheap to clone; all calls are answered by `reply`, once, from another thread.
pub trait Node: Send + Sync {
    /// Asks for one change of one volume.
    fn request(&self, volume: &str, request: Request, reply: Box<dyn FnOnce(Outcome) + Send>);
    /// Status of one volume, or of all, in the file's order. Unknown name: empty.
    fn status(&self, volume: Option<&str>, reply: Box<dyn FnOnce(Vec<VolumeStatus>) + Send>);
    /// Words for the start line and `status`: io_uring or POSIX and why, features, fallbacks.
    fn io_backend(&self) -> String;
    /// Drains all volumes (law O4): stop admitting, finish, flush, mark clean; then calls `done`.
    fn drain(&self, done: Box<dyn FnOnce() + Send>);
    /// Uses these certificates for links that are made from now on; the node began with others.
    fn renew_tls(&self, tls: LinkTls);
    /// Talks to these `(name, addresses)` from now on too; who is known already stays as it is.
    /// Errors: no thread can be had for one of them, in words.
    fn meet(&self, peers: &[(String, Vec<String>)]) -> Result<(), String>;
    /// As [`Node::drain`], but clients stay open for another process: every reply is sent whole,
    /// and `done` gets what that process needs. Errors: nothing has changed.
    fn hand_over(&self, done: Box<dyn FnOnce(Result<Legacy, HandOverError>) + Send>);
}
