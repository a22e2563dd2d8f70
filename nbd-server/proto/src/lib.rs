//! NBD wire codec and negotiation, without I/O.
//!
//! ```text
//!                 Negotiation::feed              Transmission::next
//!  greeting ─► options ⇄ option replies ─► requests ─► commands (judged by Gate)
//!                                                      │  served elsewhere
//!                                          replies ◄───┘  ReplyStyle, chunks
//! ```
//!
//! Both halves are here: the server's ([`Negotiation`], [`Transmission`], [`ReplyStyle`]) and as
//! much of the client's as load generators and tests need ([`ClientNegotiation`], [`Replies`],
//! [`NbdUri`]). Fixed newstyle, simple and structured replies, compact headers. Payload never passes
//! through: the machines tell which bytes of the stream are payload. There is no TLS, no clock and
//! no limit on time; that is the shell's.

#![forbid(unsafe_code)]

mod bytes;
mod client;
mod codes;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod malformed;
mod name;
mod negotiation;
mod reply;
mod transmission;

pub use bytes::STRING_MAX;
pub use client::{
    Agreed, ClientError, ClientNegotiation, ClientStep, NbdUri, ParsedReply, Replies, Reply,
    ReplyError, Transport, UriError, Wish,
};
pub use codes::{
    ChunkFlags, ChunkKind, ClientFlags, CommandFlags, CommandKind, Cookie, HandshakeFlags,
    InfoKind, OptionCode, OptionReplyKind, TransmissionFlags,
};
pub use error::NbdError;
pub use handshake::{
    BlockSizes, ClientAnswer, ExportNameReply, Greeting, Info, InfoRequest, ListEntry, MetaContext,
    MetaQueries, MetaRequest, OptionHeader, OptionReply, OptionReplyHeader, Wanted,
    WrongBlockSizes,
};
pub use malformed::{Malformed, WrongMagic};
pub use name::ExportName;
pub use negotiation::{
    BASE_ALLOCATION, CloseReason, ExportInfo, Exports, Features, Negotiated, Negotiation, Policy,
    Refusal, SelectedContext, Step, Tls,
};
pub use reply::{
    BlockStatusWriter, ChunkHeader, ErrorChunk, NoneChunk, OffsetData, OffsetHole, ReplyStyle,
    STATUS_EXTENTS_MAX, SimpleReply, StatusExtent, StatusFlags,
};
pub use transmission::{
    Command, DRAIN_MAX, Fatal, Gate, Item, Parsed, Refused, Request, Transmission,
};
