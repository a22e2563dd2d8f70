//! The client's half, as far as load generators and raw test clients need it: negotiation, reply
//! parsing, URIs. Pure like the rest; requests are encoded by [`crate::Request`].

mod negotiation;
mod replies;
#[cfg(test)]
mod tests;
mod uri;

pub use negotiation::{Agreed, ClientError, ClientNegotiation, ClientStep, Wish};
pub use replies::{ParsedReply, Replies, Reply, ReplyError};
pub use uri::{NbdUri, Transport, UriError, UriTls};
