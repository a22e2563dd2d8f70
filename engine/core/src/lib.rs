//! The replicated volume: a pure, deterministic state machine.
//!
//! ```text
//!  Event ─► Volume::handle(now, event, &mut actions) ─► Action …
//!           Volume::next_deadline()
//! ```
//!
//! No I/O, clock, threads or randomness of its own: time and seeds are arguments, buffers are
//! handles. What must hold after every event is written in the project's invariants; comments
//! cite them as "law S1". What this crate does not do: move bytes, speak TCP, know NBD.

#![forbid(unsafe_code)]

pub mod action;
pub mod activity_log;
pub mod agree;
pub mod bitmap;
pub mod checksums;
pub mod event;
pub mod generation;
pub mod marks;
pub mod message;
pub mod meta;
pub mod overlap;
pub mod past;
#[cfg(feature = "planted")]
pub mod planted;
pub mod promotion;
pub mod quorum;
pub mod record;
pub mod register;
pub mod session;
pub mod table;
pub mod time;
pub mod units;
pub mod verdict;
pub mod volume;
pub mod vote;
pub mod wire;
