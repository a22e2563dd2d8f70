//! Work on bytes: filling the gaps of unaligned writes, zeros inside a granule, checksums.

use engine_core::event::{DiskError, JobOutcome, Token};
use engine_core::units::{ByteRange, GRANULE};
use engine_ring::{Arena, BufId, Errno, Op};

use crate::backend::{Store, disk_error};
use crate::driver::Driver;
use crate::driver::disk::Work;
use crate::shell::Shell;

const GRANULE_LEN: u32 = GRANULE as u32;

/// A part of a buffer that a write leaves free, and where on disk its bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// Byte on disk.
    pub(super) at: u64,
    /// Byte in the buffer.
    pub(super) to: u32,
    pub(super) len: u32,
}

/// The gaps before and after `range` in its first and last granule.
pub(super) fn gaps(range: ByteRange) -> [Option<Gap>; 2] {
    let (start, end) = (range.offset, range.offset + range.len);
    let first = start / GRANULE * GRANULE;
    let head = Gap {
        at: first,
        to: 0,
        len: (start - first) as u32,
    };
    let stop = end.next_multiple_of(GRANULE);
    let tail = Gap {
        at: end,
        to: (end - first) as u32,
        len: (stop - end) as u32,
    };
    [head, tail].map(|gap| (gap.len > 0).then_some(gap))
}

/// Zeroes `range`, which lies in one granule, in the buffer of that granule.
pub(super) fn zero_in_granule(arena: &mut Arena, buf: BufId, range: ByteRange) {
    let offset = (range.offset % GRANULE) as u32;
    arena.slice_mut(buf.slice(offset, range.len as u32)).fill(0);
}

/// A merge whose granules are being read into a scratch buffer, one granule per gap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merge {
    pub(super) token: Token,
    buf: BufId,
    gaps: [Option<Gap>; 2],
    scratch: BufId,
    left: u8,
    failed: Option<DiskError>,
}

impl Merge {
    /// One of the reads ended; true when none is left.
    pub(super) fn take(&mut self, _tag: u32, result: Result<u32, Errno>) -> bool {
        match result {
            Ok(GRANULE_LEN) => {}
            // A single granule does not come in pieces.
            Ok(_) => self.failed = Some(DiskError::Io),
            Err(errno) => self.failed = Some(disk_error(errno)),
        }
        self.left -= 1;
        self.left == 0
    }

    /// Copies the gaps and lets both buffers go.
    pub(super) fn finish(self, arena: &mut Arena) -> JobOutcome {
        let outcome = match self.failed {
            Some(error) => JobOutcome::Failed(error),
            None => {
                for (index, gap) in self.gaps.iter().enumerate() {
                    let Some(Gap { at, to, len }) = *gap else {
                        continue;
                    };
                    let from = index as u32 * GRANULE_LEN + (at % GRANULE) as u32;
                    arena.copy(self.scratch.slice(from, len), self.buf.slice(to, len));
                }
                JobOutcome::Done
            }
        };
        arena.release(self.scratch);
        arena.release(self.buf);
        outcome
    }
}

impl Driver {
    /// Fills the gaps of an unaligned write; `false` when there is no scratch buffer now.
    pub(super) fn start_merge(
        &mut self,
        shell: &mut Shell,
        token: Token,
        buf: BufId,
        range: ByteRange,
    ) -> bool {
        let gaps = gaps(range);
        if let Store::Memory(memory) = &self.store {
            for gap in gaps.into_iter().flatten() {
                memory.read(gap.at, shell.arena.slice_mut(buf.slice(gap.to, gap.len)));
            }
            self.job_done(token, JobOutcome::Done);
            return true;
        }
        let left = gaps.iter().flatten().count() as u8;
        if left == 0 {
            self.job_done(token, JobOutcome::Done);
            return true;
        }
        let scratch = shell
            .arena
            .alloc(engine_ring::Class::Meta, 2 * GRANULE as usize);
        let Some(scratch) = scratch else { return false };
        shell.arena.retain(buf);
        let merge = Merge {
            token,
            buf,
            gaps,
            scratch,
            left,
            failed: None,
        };
        let slot = self.insert(shell, Work::Merge(merge));
        let file = self.disk().file;
        for (index, gap) in gaps.iter().enumerate() {
            let Some(gap) = gap else { continue };
            let into = scratch.slice(index as u32 * GRANULE_LEN, GRANULE_LEN);
            let at = gap.at / GRANULE * GRANULE;
            shell.push(
                slot,
                index as u32,
                Op::ReadAt {
                    file,
                    buf: into,
                    at,
                },
            );
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_the_write_leaves_free() {
        let of = |offset, len| gaps(ByteRange { offset, len });
        assert_eq!(of(4096, 8192), [None, None]);
        assert_eq!(
            of(4097, 8191),
            [
                Some(Gap {
                    at: 4096,
                    to: 0,
                    len: 1
                }),
                None
            ]
        );
        assert_eq!(
            of(8192, 1),
            [
                None,
                Some(Gap {
                    at: 8193,
                    to: 1,
                    len: 4095
                })
            ]
        );
        let both = of(4096 + 10, 20);
        assert_eq!(
            both[0],
            Some(Gap {
                at: 4096,
                to: 0,
                len: 10
            })
        );
        assert_eq!(
            both[1],
            Some(Gap {
                at: 4096 + 30,
                to: 30,
                len: 4066
            })
        );
    }
}
