//! TLS: files with certificates, whom a peer's certificate names, and bytes that pass through a
//! session on a reactor.
//!
//! ```text
//!  files ─► LinkTls (this node's certificate, whom it trusts) ─► handshakes of links, off the reactor
//!  plaintext pieces ─► Sealer ─► sealed buffers ─► socket ─► Opener ─► plaintext where it is wanted
//! ```
//! Front ends use the same files, sealer and opener for their clients. What this does not do:
//! touch a socket, or choose who may do what once it is known.

mod files;
mod link;
mod session;
mod words;

pub use files::{TlsError, authorities, certificates, in_force, private_key};
pub use link::{Fingerprint, LinkFiles, LinkTls, WrongFingerprint};
pub use session::{Opened, Opener, Sealed, Sealer};
pub(crate) use words::{NO_TLS_ALERT, words_of};

#[cfg(test)]
pub(crate) mod tests;
