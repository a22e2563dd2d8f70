//! Bodies of the fuzz targets: what must hold for any bytes.
//!
//! The targets under `fuzz/` only call these; `tests/corpus.rs` runs them on the corpus that is
//! checked in, and on mutations of it. A body panics if a law is broken.

pub mod fixture;
mod parsers;
mod seeds;
mod split_mix;
mod streams;

pub use parsers::{extended_request, info_request, meta_request, option_request, request, uri};
pub use seeds::seeds;
pub use split_mix::SplitMix;
pub use streams::{
    Event, Transcript, client_negotiation, client_replies, connection, fuzz_policy, serve,
};

/// A body: panics if a law does not hold for these bytes.
pub type Body = fn(&[u8]);

/// Every target by the name of its corpus directory.
pub const TARGETS: [(&str, Body); 9] = [
    ("option_request", option_request),
    ("info_request", info_request),
    ("meta_request", meta_request),
    ("request", request),
    ("extended_request", extended_request),
    ("client_negotiation", client_negotiation),
    ("client_replies", client_replies),
    ("uri", uri),
    ("connection", connection),
];
