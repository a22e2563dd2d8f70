//! Work on bytes: filling the gaps of unaligned writes, zeros inside a granule, checksums.

use engine_core::event::{DiskError, JobOutcome, Token};
use engine_core::units::{ByteRange, GRANULE};
use engine_ring::{Arena, BufId, Errno, FileId, Op};

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
    file: FileId,
    /// Bytes of each granule that are here.
    got: [u32; 2],
    left: u8,
    failed: Option<DiskError>,
}

/// How a merge goes on after one of its reads ended.
pub(super) enum Progress {
    /// The read was short.
    Rest(Op<'static>),
    /// Another read is still out.
    Waiting,
    /// All are here, or one failed.
    Done,
}

impl Merge {
    /// One of the reads ended.
    pub(super) fn take(&mut self, tag: u32, result: Result<u32, Errno>) -> Progress {
        let got = &mut self.got[tag as usize];
        match result {
            Ok(0) => self.failed = Some(DiskError::Io),
            Ok(moved) => *got += moved,
            Err(errno) => self.failed = Some(disk_error(errno)),
        }
        if self.failed.is_none() && *got < GRANULE_LEN {
            return Progress::Rest(self.read(tag));
        }
        self.left -= 1;
        if self.left == 0 {
            Progress::Done
        } else {
            Progress::Waiting
        }
    }

    /// The read of what is missing of one granule.
    fn read(&self, tag: u32) -> Op<'static> {
        let gap = self.gaps[tag as usize].expect("reads are pushed for gaps only");
        let got = self.got[tag as usize];
        let buf = self
            .scratch
            .slice(tag * GRANULE_LEN + got, GRANULE_LEN - got);
        let at = gap.at / GRANULE * GRANULE + u64::from(got);
        Op::ReadAt {
            file: self.file,
            buf,
            at,
        }
    }

    /// Looks at the granules that were read.
    pub(super) fn check(
        &mut self,
        look: impl Fn(u64, &[u8]) -> Result<(), DiskError>,
        arena: &Arena,
    ) {
        for (index, gap) in self.gaps.iter().enumerate() {
            let Some(gap) = gap.filter(|_| self.failed.is_none()) else {
                continue;
            };
            let slice = self.scratch.slice(index as u32 * GRANULE_LEN, GRANULE_LEN);
            self.failed = look(gap.at / GRANULE, arena.slice(slice)).err();
        }
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
            let mut outcome = JobOutcome::Done;
            for gap in gaps.into_iter().flatten() {
                let granule = gap.at / GRANULE;
                let bytes = memory.slice(granule * GRANULE, GRANULE as usize);
                if let Err(error) = self.check_granule(granule, bytes) {
                    outcome = JobOutcome::Failed(error);
                }
                memory.read(gap.at, shell.arena.slice_mut(buf.slice(gap.to, gap.len)));
            }
            self.job_done(token, outcome);
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
        let file = self.disk().file;
        let merge = Merge {
            token,
            buf,
            gaps,
            scratch,
            file,
            got: [0; 2],
            left,
            failed: None,
        };
        let slot = self.insert(shell, Work::Merge(merge));
        for tag in (0..2).filter(|tag| gaps[*tag as usize].is_some()) {
            shell.push(slot, tag, merge.read(tag));
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
