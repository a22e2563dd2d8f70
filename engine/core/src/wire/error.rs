//! Why bytes of a peer are not a message. Each ends the session.

use thiserror::Error;

use crate::wire::kind::Kind;

/// A field whose value no version of this protocol sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadField {
    /// A run is empty, reversed, too long for its message, or past 2^52 granules.
    Extent,
    /// A term is out of range or names no node.
    Term,
    /// A counter is past 2^62.
    Counter,
    /// An enumeration has no such value.
    Code,
    /// A node index is past the eighth, or a set of nodes is empty.
    Node,
    /// A history is too long or does not grow.
    Chain,
    /// A list is longer than its message allows.
    List,
    /// A name is not UTF-8.
    Text,
    /// A vote is of no known kind, or lacks what its kind carries.
    Vote,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// Not our protocol, or the stream lost its place.
    #[error("frame begins with {found:08x}, not {expected:08x}")]
    Magic {
        /// First four bytes found.
        found: u32,
        /// First four bytes of every frame.
        expected: u32,
    },
    /// A length in the header is past its bound.
    #[error("{what} of {found} bytes, at most {limit}")]
    TooLong {
        /// Which length.
        what: &'static str,
        /// Length found.
        found: u32,
        /// Bound.
        limit: u32,
    },
    /// Header and body were damaged on the way (law F19).
    #[error("frame has CRC {found:08x}, says {expected:08x}")]
    Crc {
        /// Checksum computed.
        found: u32,
        /// Checksum in the header.
        expected: u32,
    },
    /// The body does not have the length its header states.
    #[error("body of {found} bytes, header says {expected}")]
    BodyLength {
        /// Bytes given.
        found: usize,
        /// Bytes stated.
        expected: u32,
    },
    /// An unknown type that must be understood.
    #[error("message type {number} is unknown and must be understood")]
    UnknownType {
        /// Its number.
        number: u16,
    },
    /// A known type on the wrong kind of connection.
    #[error("{kind:?} does not belong on this connection")]
    WrongConnection {
        /// Which.
        kind: Kind,
    },
    /// The value of a register is none of ours, or damaged.
    #[error("what the register holds cannot be understood: {what}")]
    Holding {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The message ends inside a field or list.
    #[error("{kind:?} is cut short")]
    Truncated {
        /// Which.
        kind: Kind,
    },
    /// A field says something impossible.
    #[error("{kind:?} has an impossible {field:?}")]
    Field {
        /// Which message.
        kind: Kind,
        /// Which field.
        field: BadField,
    },
    /// The payload does not have the length the message needs.
    #[error("{kind:?} with a payload of {found} bytes")]
    Payload {
        /// Which message.
        kind: Kind,
        /// Payload length in the header.
        found: u32,
    },
    /// A frame was lost, repeated or reordered.
    #[error("frame number {found}, expected {expected}")]
    Number {
        /// Number found.
        found: u64,
        /// Number expected.
        expected: u64,
    },
}
