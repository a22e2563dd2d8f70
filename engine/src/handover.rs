//! What a node leaves to the process that takes it over, and what a node starts with.
//!
//! ```text
//!  Node::hand_over ─► clients quiesced ─► volumes stopped cleanly ─► peers let go ─► Legacy
//!  Legacy ─ (another process, or this one again) ─► Inherited ─► node::start_with
//!                                     clients ─► NodeHandle::attach, once their volume serves
//! ```
//!
//! Values and descriptors only: how they reach another process is the daemon's affair, what a
//! client's `state` means is its front end's.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::front_end::ClientInfo;

/// A client that stays open for a successor. Every reply it was given is sent whole; every
/// request it sent is answered, or part of `state`, or not received yet.
#[derive(Debug)]
pub struct HandedClient {
    /// Its volume.
    pub volume: String,
    /// Who it is.
    pub client: ClientInfo,
    /// How long it has been attached.
    pub age: Duration,
    /// The stream.
    pub socket: OwnedFd,
    /// In the words of its front end.
    pub state: Vec<u8>,
}

/// A volume that was attached and has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedVolume {
    /// Name in the configuration.
    pub name: String,
    /// It served clients, or was about to.
    pub was_primary: bool,
}

/// Everything a node leaves behind. Its volumes are stopped and their locks free.
#[derive(Debug)]
pub struct Legacy {
    /// What was attached.
    pub volumes: Vec<HandedVolume>,
    /// Clients of all volumes.
    pub clients: Vec<HandedClient>,
    /// What the next node starts with.
    pub inherited: Inherited,
}

/// What a node need not open anew.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The lock on `data_dir`, held by whoever holds a copy of this descriptor.
    pub lock: Option<File>,
    /// Where peers are listened for, by address.
    pub replication: Vec<(String, TcpListener)>,
}

/// Why a node cannot be handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// It stops already.
    #[error("the node is stopping")]
    Stopping,
    /// A descriptor cannot be copied.
    #[error("a descriptor cannot be copied")]
    Descriptor(#[from] std::io::Error),
}
