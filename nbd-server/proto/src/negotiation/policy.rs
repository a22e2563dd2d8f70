//! What a listener allows in negotiation.

use crate::codes::HandshakeFlags;

/// Limits and choices of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Offer to leave out the 124 zero bytes after EXPORT_NAME.
    pub no_zeroes: bool,
    /// LIST names the exports; otherwise it is refused by policy.
    pub list: bool,
    /// Structured replies may be negotiated; otherwise the option is unknown, and with it meta
    /// contexts.
    pub structured_replies: bool,
    /// How STARTTLS is answered.
    pub tls: Tls,
    /// Longest data of one option, bytes. A longer one ends the connection.
    pub option_length_max: u32,
    /// Most options of one connection. One more ends it.
    pub options_max: u32,
    /// Most queries of one meta context option. More are answered ERR_TOO_BIG.
    pub queries_max: u32,
}

/// How STARTTLS is answered on a connection without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// The server has no TLS: ERR_UNSUP.
    Unsupported,
    /// The server has TLS, this listener does not use it: ERR_POLICY.
    Refused,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            no_zeroes: true,
            list: true,
            structured_replies: true,
            tls: Tls::Unsupported,
            option_length_max: 64 << 10,
            options_max: 1000,
            queries_max: 1024,
        }
    }
}

impl Policy {
    /// The flags of the greeting.
    pub fn handshake_flags(&self) -> HandshakeFlags {
        HandshakeFlags::FIXED_NEWSTYLE.with_if(HandshakeFlags::NO_ZEROES, self.no_zeroes)
    }
}
