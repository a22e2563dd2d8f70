//! NBD over the engine: listeners, negotiation, and one connection object per client.
//!
//! ```text
//!  NbdServer (tokio): accept ─► limits ─► negotiation ── GO ──► Volumes::attach(socket, early bytes)
//!  reactor:           connection::NbdConnection ◄── make ────────────┘
//!                       receive ─► parse ─► submit … complete ─► one send per turn
//! ```
//!
//! Negotiation and TLS handshakes run off the reactors and end within a deadline; what moves to the
//! volume's reactor is the socket, the state of its TLS and the bytes that were read too far. The
//! protocol itself is `nbd-proto`, TLS is rustls.
//!
//! Not here: which listener must have TLS (the configuration, which the daemon checks), volumes,
//! replication.

#![forbid(unsafe_code)]

mod config;
mod connection;
mod contexts;
mod exports;
mod handover;
mod listener;
mod network;
mod tls;

pub use config::{Elsewhere, Limits, NbdConfig, NbdExport};
pub use exports::check_exports;
pub use handover::Malformed;
pub use listener::{AdoptError, Listeners, NbdServer, StartError};
pub use network::{Network, WrongNetwork};
pub use tls::{NbdTls, Subject, SubjectRule, TlsError, TlsFiles, TlsIdentity, WrongSubject};

use engine::control::{Clients, Node, Request};
use engine::front_end::{AttachError, Attachment, ExportLabel, VolumeView};
use engine::node::NodeHandle;

/// The volumes of this node, as a listener sees them.
pub trait Volumes: Send + Sync {
    /// What may be said of a volume now; `None` if there is no such volume.
    fn view(&self, volume: &str) -> Option<VolumeView>;

    /// Hands a negotiated client over. Errors: the socket was closed.
    fn attach(&self, volume: &str, attachment: Attachment) -> Result<(), AttachError>;

    /// Cuts off all clients that attached to this export of a volume, at once and without a word.
    /// Returns before they are gone.
    fn cut_off(&self, volume: &str, export: &ExportLabel);
}

impl Volumes for NodeHandle {
    fn view(&self, volume: &str) -> Option<VolumeView> {
        NodeHandle::view(self, volume)
    }

    fn attach(&self, volume: &str, attachment: Attachment) -> Result<(), AttachError> {
        NodeHandle::attach(self, volume, attachment)
    }

    fn cut_off(&self, volume: &str, export: &ExportLabel) {
        let clients = Clients::Export(export.clone());
        // How many there were, and whether the volume is there, shows in who is left.
        self.request(
            volume,
            Request::Disconnect { clients },
            Box::new(|_outcome| {}),
        );
    }
}
