//! Reactor, back ends, links and metadata I/O around the replication core.

#![forbid(unsafe_code)]

pub mod control;
