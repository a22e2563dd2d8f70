//! A request that passed the gate.

/// What a client asks for, checked against export and negotiation. Extents lie inside the export
/// and are not empty. Effect lengths have 64 bits, as extended headers carry them.
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
    /// Describe the extents from `offset` in some of the selected contexts.
    BlockStatus {
        /// First byte.
        offset: u64,
        /// Bytes asked about.
        length: u64,
        /// One extent only, not longer than the request.
        one: bool,
        /// In which contexts; at least one.
        contexts: ContextSet,
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

/// Some of the meta contexts a client selected, by their places in [`crate::Negotiated`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct ContextSet(pub u64);

impl ContextSet {
    /// Most contexts a client can select.
    pub const MAX: usize = 64;

    /// The first `count`, at most [`ContextSet::MAX`].
    pub const fn first(count: usize) -> ContextSet {
        match count {
            0 => ContextSet(0),
            Self::MAX.. => ContextSet(u64::MAX),
            _ => ContextSet((1 << count) - 1),
        }
    }

    /// The context at `index` is among them.
    pub const fn has(self, index: usize) -> bool {
        index < Self::MAX && self.0 >> index & 1 == 1
    }

    /// These and the one at `index`, which is below [`ContextSet::MAX`].
    #[must_use]
    pub const fn with(self, index: usize) -> ContextSet {
        ContextSet(self.0 | 1 << index)
    }

    /// How many.
    pub const fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Their places, lowest first.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..Self::MAX).filter(move |index| self.has(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_contexts_holds_what_was_put_in() {
        assert_eq!(ContextSet::first(0).count(), 0);
        assert_eq!(ContextSet::first(3).iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(ContextSet::first(64).count(), 64);
        let set = ContextSet::default().with(63).with(5);
        assert!(set.has(63) && set.has(5) && !set.has(6) && !set.has(64));
    }
}
