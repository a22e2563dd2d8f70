//! Bytes of the replication link: frames from and to [`Message`](crate::message::Message) and [`Control`]. Drawn in
//! `docs/wire.md`; little-endian throughout.
//!
//! ```text
//!  encode(message, number, sums, payload_len, out) ─► header · fields · lists   (payload follows)
//!  32 bytes ─► parse_header ─► body_len bytes ─► parse_body ─► Message + Sums   (payload follows)
//! ```
//!
//! One file per family of messages: layout table, `put`, `take`, golden bytes. Whatever arrives
//! can only produce a [`WireError`]; every length is bounded before it is used. What this does
//! not do: sockets, payload bytes and their checksums, or judging what a message means.

mod attribute;
mod bytes;
mod codes;
mod control;
mod data;
mod error;
mod frame;
mod hash;
mod hello;
mod holding;
mod kind;
mod message;
mod parted;
mod reign;
mod repair;
mod resync;
mod runs;
mod vote;

#[cfg(test)]
mod tests;

pub use bytes::{COUNTER_MAX, GRANULES_MAX, Sums};
pub use control::{Control, ControlHello, encode_control, parse_control};
pub use error::{BadField, WireError};
pub use frame::{
    BODY_MAX, FLAG_MUST_UNDERSTAND, HEADER_LEN, Header, MAGIC, Numbers, PAYLOAD_MAX, Parsed,
    encode, parse_body, parse_header,
};
pub use holding::{parse_holding, put_holding};
pub use kind::Kind;
