//! Why a load ended before its time.

use std::io;

use engine_ring::{Errno, OpenError};
use nbd_proto::{ClientError, NbdError, ReplyError};

use crate::workload::show_size;

/// Why a load could not begin, or what ended it.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The thread may not run there.
    #[error("cannot run on core {cpu}")]
    Pin {
        /// Which.
        cpu: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody answers at the address.
    #[error("cannot connect to {at}")]
    Connect {
        /// Where.
        at: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke before transmission.
    #[error("the connection broke during negotiation")]
    Handshake(#[source] io::Error),
    /// The server and this client do not agree.
    #[error("no agreement with the server")]
    Negotiate(#[source] ClientError),
    /// TLS without anybody to trust.
    #[error(
        "nbds needs ?tls-certificates=FOLDER, where ca-cert.pem lies and perhaps client-cert.pem"
    )]
    NoCertificates,
    /// Certificates cannot be used.
    #[error("{folder}/{why}")]
    Certificates {
        /// Where they lie.
        folder: String,
        /// Which, and why not.
        why: String,
    },
    /// No certificate can be for such a host.
    #[error("`{0}` is neither a name nor an address that a certificate can be for")]
    ServerName(String),
    /// The server's TLS is not acceptable to this client, or this client to the server.
    #[error("TLS failed")]
    Tls(#[source] rustls::Error),
    /// The session does not take or give bytes.
    #[error("the TLS session is broken")]
    Sealing(#[source] io::Error),
    /// The server ended the session.
    #[error("the server ended the TLS session")]
    TlsClosed,
    /// Writes were asked for.
    #[error("the export is read-only")]
    ReadOnly,
    /// The server does not offer it.
    #[error("the server does not offer {0}")]
    NotOffered(&'static str),
    /// Contents can be followed for blocks of one size only.
    #[error("contents are verified in blocks of one size, not of several")]
    OneSize,
    /// The range does not hold one block.
    #[error("a range of {} does not hold a block of {}", show_size(*size), show_size((*block).into()))]
    NoBlocks {
        /// Bytes to be used.
        size: u64,
        /// Bytes of a block.
        block: u32,
    },
    /// More than the server has.
    #[error("the export has {} bytes, {} were to be used", exported, asked)]
    TooSmall {
        /// Bytes the server offers.
        exported: u64,
        /// Bytes asked for.
        asked: u64,
    },
    /// The server does not take requests of this size.
    #[error("the server takes multiples of {minimum} up to {}, not {}", show_size((*maximum).into()), show_size((*block).into()))]
    BlockSize {
        /// Bytes of a request.
        block: u32,
        /// Smallest block, bytes.
        minimum: u32,
        /// Largest payload, bytes.
        maximum: u32,
    },
    /// Buffers for all requests take too much memory.
    #[error("{0} bytes of buffers are more than the 8 GiB this client takes")]
    Buffers(u64),
    /// No memory for buffers.
    #[error("cannot map memory for the buffers")]
    Memory(#[source] io::Error),
    /// No ring.
    #[error("cannot open an I/O ring")]
    Ring(#[from] OpenError),
    /// The server answered a request with an error.
    #[error("a {kind} of {length} bytes at {offset} was answered with: {error}")]
    Refused {
        /// What the request asked.
        kind: &'static str,
        /// Its first byte.
        offset: u64,
        /// Its bytes.
        length: u32,
        /// The answer.
        error: NbdError,
    },
    /// The reply stream makes no sense.
    #[error("the server's replies cannot be followed")]
    Replies(#[from] ReplyError),
    /// A reply nobody waited for.
    #[error("a reply has cookie {0:#x}, which is not outstanding")]
    Cookie(u64),
    /// A structured reply though none was negotiated.
    #[error("a structured reply came though simple ones were agreed")]
    Structured,
    /// The server hung up.
    #[error("the server closed the connection with {0} requests outstanding")]
    Closed(usize),
    /// The connection broke.
    #[error("the connection broke while {doing}")]
    Broken {
        /// What was going on.
        doing: &'static str,
        /// How.
        #[source]
        source: Errno,
    },
    /// No reply for a long time.
    #[error("no reply for {seconds} s with {outstanding} requests outstanding")]
    Stalled {
        /// How long.
        seconds: u64,
        /// Requests without a reply.
        outstanding: usize,
    },
    /// What was read is not what was written.
    #[error("byte {at} reads as {found:#04x}, {expected:#04x} was written")]
    Differs {
        /// Offset in the export.
        at: u64,
        /// What was written there.
        expected: u8,
        /// What came back.
        found: u8,
    },
    /// The accounts of the system cannot be read.
    #[error("cannot read CPU times")]
    Usage(#[from] crate::usage::UsageError),
}
