//! What a listener needs to know.

use std::path::PathBuf;
use std::time::Duration;

use engine::control::{NbdExportSpec, NodeSpec};
use nbd_proto::NbdUri;

use crate::tls::NbdTls;

/// Listeners and exports of one node.
#[derive(Clone, Debug)]
pub struct NbdConfig {
    /// Name of this node, for refusals.
    pub node: String,
    /// TCP listener, `host:port`.
    pub address: Option<String>,
    /// Unix socket.
    pub socket: Option<PathBuf>,
    /// Permissions of the Unix socket.
    pub socket_mode: u32,
    /// Exports, in the order LIST names them.
    pub exports: Vec<NbdExport>,
    /// Where other nodes serve NBD.
    pub elsewhere: Vec<Elsewhere>,
    /// Certificates and where TLS is asked for; `None` where there is no TLS.
    pub tls: Option<NbdTls>,
    /// Bounds on what clients may use.
    pub limits: Limits,
}

/// Where another node serves NBD, for clients that come to the wrong one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Name of the node.
    pub node: String,
    /// Its address, under TLS where it asks for that; the export in it is ignored.
    pub uri: NbdUri,
}

/// A volume under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdExport {
    /// Which volume.
    pub volume: String,
    /// Name and properties of the export.
    pub spec: NbdExportSpec,
}

/// Bounds on what clients may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest negotiation.
    pub handshake_max: Duration,
    /// Most clients of one listener that have not finished their negotiation.
    pub half_open_max: usize,
    /// Most of them from one address.
    pub half_open_per_address_max: usize,
    /// Connections accepted per second, on average and at once; further ones wait.
    pub accepts_per_second: u32,
    /// Most requests of one connection between header and last byte of the reply. 1 to 32768.
    pub requests_max: u16,
    /// Most bytes of buffers they hold; one request may hold more.
    pub payload_bytes_max: usize,
    /// How long a client may go without reading a reply, or without completing a payload, while
    /// one is due.
    pub stalled_max: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            handshake_max: Duration::from_secs(10),
            half_open_max: 256,
            half_open_per_address_max: 64,
            accepts_per_second: 500,
            requests_max: 1024,
            payload_bytes_max: 64 << 20,
            stalled_max: Duration::from_secs(60),
        }
    }
}

impl NbdConfig {
    /// Listeners and exports as the node's specification declares them; no other node is known.
    pub fn of(node: &NodeSpec) -> NbdConfig {
        let exports = node.volumes.iter().flat_map(|volume| {
            let export = |spec: &NbdExportSpec| NbdExport {
                volume: volume.name.clone(),
                spec: spec.clone(),
            };
            volume.nbd.iter().map(export)
        });
        NbdConfig {
            node: node.name.clone(),
            address: node.nbd.clone(),
            socket: node.nbd_socket.clone(),
            socket_mode: 0o660,
            exports: exports.collect(),
            elsewhere: Vec::new(),
            tls: None,
            limits: Limits::default(),
        }
    }
}
