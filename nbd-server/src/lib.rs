//! NBD over the engine: listeners, negotiation, and one connection object per client.
//!
//! ```text
//!  NbdServer (tokio): accept ─► limits ─► negotiation ── GO ──► Volumes::attach(socket, early bytes)
//!  reactor:           connection::NbdConnection ◄── make ────────────┘
//!                       receive ─► parse ─► submit … complete ─► one send per turn
//! ```
//!
//! Negotiation runs off the reactors and ends within a deadline; what moves to the volume's reactor
//! is the socket and the bytes that were read too far. The protocol itself is `nbd-proto`.
//!
//! Not here: TLS (a listener on other addresses than loopback must be named insecure in the
//! configuration, which the daemon checks), volumes, replication.

#![forbid(unsafe_code)]

mod config;
mod connection;
mod contexts;
mod exports;
mod handover;
mod listener;
mod network;

pub use config::{Limits, NbdConfig, NbdExport};
pub use handover::Malformed;
pub use listener::{AdoptError, Listeners, NbdServer, StartError};
pub use network::{Network, WrongNetwork};

use engine::front_end::{AttachError, Attachment, VolumeView};
use engine::node::NodeHandle;

/// The volumes of this node, as a listener sees them.
pub trait Volumes: Send + Sync {
    /// What may be said of a volume now; `None` if there is no such volume.
    fn view(&self, volume: &str) -> Option<VolumeView>;

    /// Hands a negotiated client over. Errors: the socket was closed.
    fn attach(&self, volume: &str, attachment: Attachment) -> Result<(), AttachError>;
}

impl Volumes for NodeHandle {
    fn view(&self, volume: &str) -> Option<VolumeView> {
        NodeHandle::view(self, volume)
    }

    fn attach(&self, volume: &str, attachment: Attachment) -> Result<(), AttachError> {
        NodeHandle::attach(self, volume, attachment)
    }
}
