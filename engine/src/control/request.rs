//! What is asked of a volume.

use std::time::Duration;

use engine_core::marks::MarkName;

#[cfg(doc)]
use super::{ClientStatus, PartingReport};
use crate::front_end::ExportLabel;

/// What to do to one volume. Every request is answered exactly once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Format this node's replica as declared in the configuration.
    Create {
        /// Take an existing backing of exactly the declared size and keep its content.
        adopt: bool,
        /// An existing replica is success, not an error.
        if_absent: bool,
    },
    /// Remove this node's metadata of the volume; it must be secondary and without clients.
    Delete {
        /// Also remove (or discard) the backing.
        wipe: bool,
    },
    /// Become primary; founds an unfounded volume. Where a majority chooses, a node that serves
    /// hands its role over to this one.
    Promote {
        /// Start a new branch where a plain promotion is not allowed.
        force: bool,
        /// How long to wait until each peer has answered or was found gone.
        wait: Duration,
    },
    /// Become primary as before a change of process, unless another node serves by now.
    ServeAgain {
        /// As of a promotion.
        wait: Duration,
    },
    /// Become secondary.
    Demote {
        /// Drain and close attached clients instead of refusing.
        disconnect: bool,
    },
    /// Allow the link to `node` again.
    PeerConnect {
        /// Name of the peer.
        node: String,
    },
    /// Drop the link to `node` and keep it down until `PeerConnect`.
    PeerDisconnect {
        /// Name of the peer.
        node: String,
    },
    /// What is known of split brains of this volume.
    Partings,
    /// Give up this node's copy for that of `keep`: what may differ goes to a salvage first.
    GiveUp {
        /// Whose copy is kept.
        keep: String,
        /// The state that was decided on, as [`PartingReport::token`] names it.
        token: Option<u64>,
    },
    /// Start a resync from `from`, after a verify found differences or a pause at the start.
    ResyncStart {
        /// The node whose data is kept.
        from: String,
    },
    /// Stop moving resync data; bits are kept.
    ResyncPause,
    /// Go on where `ResyncPause` stopped.
    ResyncResume,
    /// Limit resync traffic.
    ResyncSetRate {
        /// Bytes per second; `None` means as fast as the disks and the link allow.
        bytes_per_second: Option<u64>,
    },
    /// Compare the copies.
    Verify {
        /// What follows where they differ.
        repair: Repair,
    },
    /// State of a running or finished verify.
    VerifyStatus,
    /// Compare this node's copy with its stored checksums, and repair what does not match.
    Scrub {
        /// Most bytes read per second; `None` is no limit.
        bytes_per_second: Option<u64>,
    },
    /// From now on keep what changed, on every replica in sync.
    MarkCreate {
        /// Its name.
        name: MarkName,
        /// A mark of this name is success, not an error.
        if_absent: bool,
    },
    /// Keep it no more.
    MarkDelete {
        /// Its name.
        name: MarkName,
    },
    /// The marks, oldest first. Only the primary answers.
    MarkList,
    /// Be larger from now on. Clients that are attached keep the size they were told.
    Resize {
        /// Bytes from then on, a multiple of 4096.
        size_bytes: u64,
    },
    /// Have these nodes, and no others. Only the primary does it; it goes on when this was answered.
    Nodes {
        /// Those with a replica.
        replicas: Vec<String>,
        /// Those that vote and hold no data.
        witnesses: Vec<String>,
    },
    /// Cut off clients at once: what they asked for and is not answered yet is not answered.
    Disconnect {
        /// Which.
        clients: Clients,
    },
}

/// What follows where a verify finds copies that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Who differs stays out of use until an operator says whose data is kept.
    No,
    /// From the primary's copy, if those equal to it are a majority; else as with `No`.
    Majority,
    /// From the copy of this node, which is the primary.
    From(String),
}

/// Some of a volume's clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// The one with this [`ClientStatus::id`].
    Id(u64),
    /// All from this address.
    Address(String),
    /// All that attached to this export, whatever it is called now.
    Export(ExportLabel),
}
