//! Reactor, back ends, links and metadata I/O around the replication core.
//!
//! ```text
//!  daemon ── control::Node ──┐                        ┌── front_end::Connection ── nbd-server
//!                            ▼                        ▼
//!  node ── mailboxes ──► reactor (one thread, one ring, its volumes whole)
//!                            ├─ driver: engine-core's volume, its actions carried out
//!                            │    ├─ backend: memory, file, block device
//!                            │    └─ meta_io: create, attach, delete
//!                            └─ link: peers over TCP
//! ```
//!
//! Not here: decisions about replication (engine-core), system calls (engine-ring), any client
//! protocol, configuration files and words for people beyond refusals.

#![forbid(unsafe_code)]

pub mod control;
pub mod front_end;
pub mod log;
mod token;
