//! What all volumes of one reactor share: ring, buffers, clock, log, operations in flight.

use std::sync::Arc;

use engine_core::time::Instant;
use engine_ring::{Arena, BufId, Class, Op, Ring};

use crate::driver::disk::DiskOp;
use crate::log::{Level, Line, Log};
use crate::table::Table;
use crate::token::{Kind, Token};

/// Bytes of the buffer that zeros are written from.
pub(crate) const ZEROS_BYTES: usize = 1 << 20;
/// Operations of volumes in the ring at a time, over all volumes of a reactor.
const OPS_MAX: usize = 1 << 16;
const OPS_RESERVED: usize = 4096;

/// The machinery of one reactor.
pub(crate) struct Shell {
    pub(crate) ring: Box<dyn Ring>,
    pub(crate) arena: Arena,
    /// Read after the completions of this turn, and again after inline copies.
    pub(crate) now: Instant,
    pub(crate) ops: Table<DiskOp>,
    pub(crate) log: Arc<dyn Log>,
    /// A buffer of zeros, never changed.
    pub(crate) zeros: BufId,
}

impl Shell {
    /// `None` if the arena has no room for the zeros.
    pub(crate) fn new(ring: Box<dyn Ring>, mut arena: Arena, log: Arc<dyn Log>) -> Option<Shell> {
        let zeros = arena.alloc(Class::Meta, ZEROS_BYTES)?;
        arena.bytes_mut(zeros).fill(0);
        let now = Instant(ring.now());
        let ops = Table::new(OPS_RESERVED, OPS_MAX);
        Some(Shell {
            ring,
            arena,
            now,
            ops,
            log,
            zeros,
        })
    }

    /// Reads the clock again.
    pub(crate) fn refresh_now(&mut self) {
        self.now = Instant(self.ring.now());
    }

    /// Pushes an operation of a volume; its completion goes to the op in `slot`.
    pub(crate) fn push(&mut self, slot: u32, tag: u32, op: Op<'_>) {
        self.ring
            .push(&mut self.arena, Token::new(Kind::Volume, slot, tag).0, op);
    }

    /// One line of the log about a volume.
    pub(crate) fn say(&self, level: Level, code: &'static str, volume: &str, text: &str) {
        self.log.line(Line {
            level,
            code,
            volume: Some(volume),
            text,
        });
    }
}
