//! A request that passed the gate.

/// What a client asks for, checked against export and negotiation. Extents lie inside the export
/// and are not empty. Effect lengths have 64 bits, as extended headers will need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send `length` bytes from `offset`.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes to send.
        length: u32,
        /// Answer in one content chunk, zeroes written out (DF).
        in_one: bool,
    },
    /// Write the payload.
    Write {
        /// First byte.
        offset: u64,
        /// Bytes of payload.
        length: u32,
        /// Reply only when durable.
        fua: bool,
    },
    /// The session ends.
    Disconnect,
    /// Make all that was replied to durable.
    Flush,
    /// The contents are no longer needed.
    Trim {
        /// First byte.
        offset: u64,
        /// Bytes concerned.
        length: u64,
        /// Reply only when durable.
        fua: bool,
    },
    /// The client will soon read this.
    Cache {
        /// First byte.
        offset: u64,
        /// Bytes concerned.
        length: u64,
    },
    /// Make it read as zeroes.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Bytes concerned.
        length: u64,
        /// Reply only when durable.
        fua: bool,
        /// Keep the blocks allocated.
        no_hole: bool,
        /// Answer ENOTSUP, quickly and without a change, unless faster than writing zeroes.
        fast: bool,
    },
    /// Describe the extents from `offset` in every selected context.
    BlockStatus {
        /// First byte.
        offset: u64,
        /// Bytes asked about.
        length: u64,
        /// One extent only, not longer than the request.
        one: bool,
    },
    /// A request of length zero: answer success.
    Nothing,
}

impl Command {
    /// Bytes of payload that follow the header.
    #[inline]
    pub fn payload(&self) -> u32 {
        match self {
            Command::Write { length, .. } => *length,
            _ => 0,
        }
    }
}
