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
    /// Extended headers may be negotiated, where structured replies may; otherwise the option is
    /// unknown.
    pub extended_headers: bool,
    /// What is done with TLS.
    pub tls: Tls,
    /// Longest data of one option, bytes. A longer one ends the connection.
    pub option_length_max: u32,
    /// Most options of one connection. One more ends it.
    pub options_max: u32,
    /// Most queries of one meta context option. More are answered ERR_TOO_BIG.
    pub queries_max: u32,
}

/// What a listener does with TLS, for the life of a connection.
/// Source: NBD protocol, "TLS support", modes NOTLS, SELECTIVETLS and FORCEDTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// The server has no TLS: STARTTLS is ERR_UNSUP.
    Unsupported,
    /// The server has TLS, this listener does not use it: STARTTLS is ERR_POLICY.
    Refused,
    /// A client may begin TLS; exports that ask for it are refused without (SELECTIVETLS).
    Offered,
    /// Before TLS everything but STARTTLS and ABORT is ERR_TLS_REQD (FORCEDTLS).
    Required,
}

impl Tls {
    /// STARTTLS leads to TLS.
    pub fn is_offered(self) -> bool {
        matches!(self, Tls::Offered | Tls::Required)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            no_zeroes: true,
            list: true,
            structured_replies: true,
            extended_headers: true,
            tls: Tls::Unsupported,
            option_length_max: 64 << 10,
            options_max: 1000,
            queries_max: 1024,
        }
    }
}

impl Policy {
    /// A client may turn to extended headers.
    pub fn offers_extended_headers(&self) -> bool {
        self.structured_replies && self.extended_headers
    }

    /// The flags of the greeting.
    pub fn handshake_flags(&self) -> HandshakeFlags {
        HandshakeFlags::FIXED_NEWSTYLE.with_if(HandshakeFlags::NO_ZEROES, self.no_zeroes)
    }
}
