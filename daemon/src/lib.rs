//! The daemon and command line of Pollux.
//!
//! ```text
//! cli ─► client ─► (Unix socket) ─► api ─► engine::control::Node
//!   └─► serve ─► config ─► node::start_node ─┘
//! ```
//!
//! The control plane runs on one small runtime beside the reactors and is never waited for by
//! them. What a volume does is decided in the engine; here it is configured, asked for and shown.

#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod demo;
pub mod exit;
pub mod explain;
mod handover;
pub mod live;
pub mod node;
pub mod serve;
pub mod verified;
