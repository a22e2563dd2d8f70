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
//! [`NbdUri`]). Fixed newstyle, simple and structured replies, compact and extended headers. Payload
//! never passes through: the machines tell which bytes of the stream are payload. TLS, clocks and
//! limits on time are the shell's.
//!
//! A server's connection, from bytes to commands and back:
//! ```
//! use nbd_proto::*;
//!
//! # struct Disks;
//! # impl Exports for Disks {
//! #     fn list(&self, visit: &mut dyn FnMut(ListEntry<'_>)) {
//! #         visit(ListEntry { name: "disk", description: "" });
//! #     }
//! #     fn default_export(&self) -> Option<ExportName> {
//! #         ExportName::new("disk").ok()
//! #     }
//! #     fn lookup(&self, name: &ExportName) -> Result<ExportInfo, Refusal> {
//! #         Ok(ExportInfo {
//! #             name: name.clone(),
//! #             description: String::new(),
//! #             size: 1 << 20,
//! #             read_only: false,
//! #             features: Features::default(),
//! #             block_sizes: BlockSizes::USUAL,
//! #             contexts: Vec::new(),
//! #         })
//! #     }
//! # }
//! # let received = [
//! #     &[0, 0, 0, 3][..], b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk",
//! #     &Request {
//! #         flags: CommandFlags::NONE, kind: CommandKind::READ, cookie: Cookie(7), offset: 0, length: 512,
//! #     }.encode(),
//! # ].concat();
//! let (mut at, mut out) = (0, Vec::new());
//! let mut negotiation = Negotiation::new(Policy::default());
//! out.extend_from_slice(&negotiation.greeting());
//! let negotiated = loop {
//!     match negotiation.feed(&received[at..], &Disks, &mut out) {
//!         Step::Continue { consumed } => at += consumed, // send `out` here
//!         Step::EnterTransmission { consumed, negotiated } => {
//!             at += consumed;
//!             break negotiated;
//!         }
//!         Step::StartTls { .. } => panic!("this server offers no TLS"),
//!         Step::NeedMore => panic!("all of it was received"),
//!         Step::Close(reason) => panic!("{reason}"),
//!     }
//! };
//! let mut transmission = Transmission::new(&negotiated);
//! let mut header = [0; ReplyStyle::HEADER_MAX];
//! loop {
//!     let Parsed { consumed, item } = transmission.next(&received[at..])?;
//!     at += consumed;
//!     match item {
//!         Item::Request { cookie, command: Command::Read { offset, length, .. }, .. } => {
//!             let n = negotiated.replies.encode_read(cookie, offset, length, &mut header);
//!             out.extend_from_slice(&header[..n]);
//!             out.resize(out.len() + length as usize, 0); // the data
//!         }
//!         Item::More | Item::Disconnect => break,
//!         _ => {} // the other commands, payload, and refusals
//!     }
//! }
//! assert_eq!(out.len(), 18 + 10 + 16 + 512);
//! # Ok::<(), Fatal>(())
//! ```

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
    ReplyError, Transport, UriError, UriTls, Wish,
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
    BlockStatusWriter, ChunkHeader, ErrorChunk, ExtendedChunkHeader, NoneChunk, OffsetData,
    OffsetHole, ReplyStyle, STATUS_EXTENTS_MAX, SimpleReply, StatusExtent, StatusFlags,
};
pub use transmission::{
    Command, ContextSet, DRAIN_MAX, ExtendedRequest, Fatal, Gate, Item, Parsed, Refused, Request,
    Transmission,
};
