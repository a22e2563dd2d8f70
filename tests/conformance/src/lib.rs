//! Unmodified clients against the real daemon, and what the tests of real processes share.
//!
//! ```text
//!  Lab ── folder, one configuration file, claimed ports
//!   ├─ serve(node) ─► Daemon     a `pollux serve` process: stop, kill -9, pause, its log
//!   ├─ pollux(node, verb) ─► Ran  the command line, as an operator types it
//!   └─ volume(node, name)         one entry of `status --json`
//!  tools ── clients with a time limit; one that is missing skips its test with one line
//! ```
//!
//! The binary is the one that `POLLUX_BIN` names, or the one beside the running test
//! (`target/<profile>/pollux`), or is built by cargo if there is none or its sources changed. Nothing
//! here looks inside the daemon: what a test knows, it knows from the command line, from NBD and from
//! files at rest.

#![forbid(unsafe_code)]

mod binary;
mod daemon;
pub mod image;
mod lab;
pub mod matrix;
mod port;
pub mod raw;
mod session;
pub mod tools;
mod tunnel;
mod vitals;

pub use binary::{binary, refresh_binary};
pub use daemon::Daemon;
pub use lab::{Lab, Node, eventually};
pub use port::Port;
pub use session::{Session, Told};
pub use tools::Ran;
pub use tunnel::{Trust, Tunnel};
pub use vitals::Vitals;
