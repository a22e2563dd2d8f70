//! Deterministic simulator of replicated volumes.
//!
//! ```text
//!  seed ─► swarm: plan ─► world: nodes, disks, wires, clients, operators ─► laws ─► report
//!             │                     one queue of happenings, virtual time      │
//!             └───────────────◄ shrink: leaves steps out ◄───────────────── broken law
//! ```
//!
//! The core runs unchanged; everything around it is simulated here, with faults. What this does
//! not do: real time, real disks, real sockets. Laws are cited as in the project's invariants.

#![forbid(unsafe_code)]

pub mod buffers;
pub mod campaign;
pub mod catch;
pub mod clients;
pub mod disk;
pub mod engine;
pub mod laws;
pub mod metadisk;
pub mod net;
pub mod operator;
pub mod plan;
pub mod rng;
pub mod run;
pub mod shell;
pub mod shrink;
pub mod small;
pub mod swarm;
pub mod world;
