//! Names of buffers and of parts of them.

use std::fmt;

/// A buffer: `reactor:12 | slot:24 | generation:28`. Copy; holding one is not a reference, see
/// [`Arena::retain`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufId(u64);

pub(super) const SLOT_BITS: u32 = 24;
pub(super) const GENERATION_BITS: u32 = 28;

impl BufId {
    pub(super) fn new(reactor: u16, slot: u32, generation: u32) -> BufId {
        let high = u64::from(reactor) << (SLOT_BITS + GENERATION_BITS);
        BufId(high | u64::from(slot) << GENERATION_BITS | u64::from(generation))
    }

    /// The reactor whose arena it belongs to.
    pub fn reactor(self) -> u16 {
        (self.0 >> (SLOT_BITS + GENERATION_BITS)) as u16
    }

    /// Its packed form, for tables that want a plain number.
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// The reverse of [`BufId::to_u64`]; a number that never was a buffer is caught on use.
    pub fn from_u64(raw: u64) -> BufId {
        BufId(raw)
    }

    /// Part of this buffer.
    pub fn slice(self, offset: u32, len: u32) -> BufSlice {
        BufSlice {
            buf: self,
            offset,
            len,
        }
    }

    pub(super) fn slot(self) -> usize {
        (self.0 >> GENERATION_BITS) as usize & ((1 << SLOT_BITS) - 1)
    }

    pub(super) fn generation(self) -> u32 {
        self.0 as u32 & ((1 << GENERATION_BITS) - 1)
    }
}

impl fmt::Debug for BufId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "buf {}.{}#{}",
            self.reactor(),
            self.slot(),
            self.generation()
        )
    }
}

/// Bytes `offset .. offset + len` of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufSlice {
    /// Which buffer.
    pub buf: BufId,
    /// First byte.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}
