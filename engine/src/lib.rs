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

mod backend;
pub mod control;
mod control_store;
mod driver;
mod entry;
#[cfg(feature = "etcd")]
mod etcd;
pub mod front_end;
pub mod handover;
mod label;
mod layer;
mod link;
pub mod log;
mod mailbox;
mod members;
mod meta_io;
pub mod node;
mod peers;
mod reactor;
pub mod salvage;
mod share;
mod shell;
mod status;
mod sums;
mod table;
#[cfg(test)]
mod testing;
pub mod tls;
mod token;
mod words;
