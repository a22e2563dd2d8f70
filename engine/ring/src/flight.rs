//! What a ring remembers of an operation between its push and its last completion.

use crate::arena::{Access, Arena, BufId, BufSlice, Pinned};
use crate::files::{Loans, Stream};
use crate::nvme::Range;
use crate::op::{FileId, RegionId, Seg};
use crate::scratch::{Scratch, Scratches};
use crate::slab::Key;

pub(crate) struct Flight {
    pub(crate) token: u64,
    pub(crate) file: Option<Key>,
    pub(crate) stream: Stream,
    pub(crate) held: Held,
}

impl Flight {
    /// An operation that no file waits for and that holds nothing.
    pub(crate) fn bare(token: u64) -> Flight {
        Flight {
            token,
            file: None,
            stream: Stream::Neither,
            held: Held::Nothing,
        }
    }

    /// An operation on a file, neither a receive nor a send.
    pub(crate) fn on(file: FileId, token: u64, held: Held) -> Flight {
        Flight {
            token,
            file: Some(file.key()),
            stream: Stream::Neither,
            held,
        }
    }
}

/// Memory an operation keeps.
pub(crate) enum Held {
    Nothing,
    Fill(BufId),
    Drain(BufId),
    Region(RegionId),
    /// What an NVMe command deallocates.
    Range(Box<Range>),
    /// The pieces of a vectored send, or an address or time.
    Scratch(Box<Scratch>),
}

impl Held {
    /// Gives everything back.
    pub(crate) fn release(self, arena: &mut Arena, loans: &mut Loans, scratches: &mut Scratches) {
        match self {
            Held::Nothing => {}
            Held::Range(range) => drop(range),
            Held::Fill(buf) => arena.unpin(buf, Access::Fill),
            Held::Drain(buf) => arena.unpin(buf, Access::Drain),
            Held::Region(region) => loans.end(region),
            Held::Scratch(scratch) => {
                for segment in &scratch.segments {
                    match segment {
                        Seg::Arena(slice) => arena.unpin(slice.buf, Access::Drain),
                        Seg::Region { region, .. } => loans.end(*region),
                    }
                }
                scratches.give(scratch);
            }
        }
    }
}

/// Fences a piece off for a send and says where it is.
pub(crate) fn pin_segment(segment: Seg, arena: &mut Arena, loans: &mut Loans) -> *mut u8 {
    match segment {
        Seg::Arena(slice) => arena.pin(slice, Access::Drain).ptr,
        Seg::Region {
            region,
            offset,
            len,
        } => loans.begin(region, offset, len),
    }
}

/// Fences a whole vector off; its storage stays at its address until released.
pub(crate) fn pin_vector(
    segments: &[Seg],
    arena: &mut Arena,
    loans: &mut Loans,
    scratches: &mut Scratches,
) -> Box<Scratch> {
    let mut scratch = scratches.take();
    for segment in segments {
        let base = pin_segment(*segment, arena, loans);
        scratch.vector.push(libc::iovec {
            iov_base: base.cast(),
            iov_len: segment.len() as usize,
        });
    }
    scratch.segments.extend_from_slice(segments);
    scratch.aim();
    scratch
}

pub(crate) fn pin_fill(buf: BufSlice, arena: &mut Arena) -> (Pinned, Held) {
    (arena.pin(buf, Access::Fill), Held::Fill(buf.buf))
}

pub(crate) fn pin_drain(buf: BufSlice, arena: &mut Arena) -> (Pinned, Held) {
    (arena.pin(buf, Access::Drain), Held::Drain(buf.buf))
}
