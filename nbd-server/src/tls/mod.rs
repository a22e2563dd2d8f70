//! Certificates: who the server is, and which clients it lets in.
//!
//! ```text
//!  TlsFiles (PEM) ─► TlsIdentity::load: readable? key closed to others? in force? matching?
//!                         └─► rustls configuration ─► handshakes ─► Subject of the client
//! ```
//!
//! TLS 1.3, and 1.2 for clients that know no other. The name a client asks for (SNI) chooses
//! nothing: there is one certificate. Sessions are not resumed, so that every connection shows its
//! certificate anew.

mod identity;
mod subject;

pub use engine::tls::TlsError;
pub use identity::{TlsFiles, TlsIdentity};
pub use subject::{Subject, SubjectRule, WrongSubject};

/// What the listeners of a server do with TLS.
#[derive(Clone, Debug)]
pub struct NbdTls {
    /// Certificate and key, and whom they trust.
    pub identity: TlsIdentity,
    /// The TCP listener serves nobody without TLS.
    pub tcp_required: bool,
    /// The Unix socket serves nobody without TLS.
    pub unix_required: bool,
}
