//! What the blocks of a volume are: allocated, lacking on a peer, dirty since a mark.
//!
//! ```text
//!  Query ─┬─ Allocation ─ memory: its bitmap, at once     file: SEEK_DATA by a worker
//!         ├─ Replicated ─ the core's bitmaps of its peers
//!         └─ Mark       ─ the core's bitmap of the mark
//! ```
//!
//! An allocation is told as a client would read it: where this node's disk is not what is read,
//! and where a write is under way, everything counts as data, which is always true.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use engine_core::marks::MarkName;
use engine_core::units::{ByteRange, Extent, GRANULE};
use engine_core::volume::Run;
use engine_ring::{Errno, Op};

use super::Driver;
use super::disk::{Work, own_fd};
use crate::backend::{DiskKind, Store, file};
use crate::front_end::{BlockExtent, ExtentKind, Query};
use crate::shell::Shell;

/// Runs of block status per answer.
const EXTENTS_MAX: usize = 4096;

/// A question for block status that was answered.
#[derive(Debug)]
pub(crate) struct ExtentsAnswer {
    pub(crate) seat: u16,
    pub(crate) tag: u32,
    pub(crate) result: Result<Vec<BlockExtent>, Errno>,
}

/// A worker looks at a file.
#[derive(Debug)]
pub(super) struct Look {
    seat: u16,
    tag: u32,
    range: ByteRange,
    /// Where data may not have landed yet when it began.
    written: Vec<Extent>,
    found: Found,
}

pub(super) type Found = Arc<Mutex<Option<std::io::Result<Vec<BlockExtent>>>>>;

impl Driver {
    /// Answers, or has a worker look.
    pub(super) fn tell_extents(&mut self, shell: &mut Shell, query: Query) {
        let Query {
            seat,
            tag,
            range,
            kind,
        } = query;
        let end = range.offset.checked_add(range.len);
        let is_inside = end.is_some_and(|end| end <= self.intake.size_bytes);
        let result = match kind {
            _ if !is_inside || range.len == 0 => Err(Errno::INVAL),
            ExtentKind::Allocation => match self.allocation(shell, seat, tag, range) {
                Some(result) => result,
                None => return,
            },
            ExtentKind::Replicated => Ok(granule_runs(range, BlockExtent::LACKING, |within| {
                self.core.lacking_run(within)
            })),
            ExtentKind::Mark(name) => self.dirty(&name, range),
        };
        self.extents.push(ExtentsAnswer { seat, tag, result });
    }

    /// What changed since a mark; `NOENT` without such a mark.
    fn dirty(&self, name: &str, range: ByteRange) -> Result<Vec<BlockExtent>, Errno> {
        let name: MarkName = name.parse().map_err(|_| Errno::NOENT)?;
        let first = range.cover().ok_or(Errno::INVAL)?;
        self.core.mark_run(name, first).ok_or(Errno::NOENT)?;
        Ok(granule_runs(range, BlockExtent::DIRTY, |within| {
            let run = self.core.mark_run(name, within);
            run.expect("a mark does not go while one question is answered")
        }))
    }

    /// `None` while a worker looks.
    fn allocation(
        &mut self,
        shell: &mut Shell,
        seat: u16,
        tag: u32,
        range: ByteRange,
    ) -> Option<Result<Vec<BlockExtent>, Errno>> {
        if !self.core.reads_own_disk() {
            return Some(Ok(all_data(range)));
        }
        let mut written = Vec::new();
        if let Some(within) = range.cover() {
            self.core
                .each_being_written(within, |extent| written.push(extent));
        }
        match &self.store {
            Store::Memory(memory) => {
                let runs = memory.extents(range, EXTENTS_MAX);
                Some(Ok(with_data(runs, range, written)))
            }
            Store::Disk(disk) if disk.kind() != DiskKind::File => Some(Ok(all_data(range))),
            Store::Disk(disk) => {
                let fd = match own_fd(shell, disk.file) {
                    Ok(fd) => fd,
                    Err(e) => return Some(Err(Errno::of(&e))),
                };
                let (look, found) = looker(fd, range);
                let work = Work::Extents(Look {
                    seat,
                    tag,
                    range,
                    written,
                    found,
                });
                let slot = self.insert(shell, work);
                shell.push(slot, 0, look);
                None
            }
        }
    }
}

impl Driver {
    /// Has a worker look for holes where a read met what is not known.
    pub(super) fn scan_if_wanted(&mut self, shell: &mut Shell) {
        let Store::Disk(disk) = &mut self.store else {
            return;
        };
        let Some(range) = disk.holes.begin_scan() else {
            return;
        };
        let fd = match own_fd(shell, disk.file) {
            Ok(fd) => fd,
            Err(e) => return disk.holes.scanned(range, Err(e)),
        };
        let (look, found) = looker(fd, range);
        let slot = self.insert(shell, Work::Scan(range, found));
        shell.push(slot, 0, look);
    }
}

/// The operation that looks at a file, and where it leaves what it found.
fn looker(fd: OwnedFd, range: ByteRange) -> (Op<'static>, Found) {
    let found = Found::default();
    let answer = Arc::clone(&found);
    let look = move || {
        let runs = file::extents(fd.as_fd(), range, EXTENTS_MAX);
        *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(runs);
        Ok(0)
    };
    (Op::Blocking(Box::new(look)), found)
}

/// What a worker found; an error if it was not run.
pub(super) fn taken(found: &Found) -> std::io::Result<Vec<BlockExtent>> {
    let runs = found.lock().unwrap_or_else(PoisonError::into_inner).take();
    runs.unwrap_or_else(|| Err(Errno::IO.into()))
}

impl Look {
    /// What the worker found.
    pub(super) fn answer(&mut self) -> ExtentsAnswer {
        let written = std::mem::take(&mut self.written);
        let result = taken(&self.found)
            .map(|runs| with_data(runs, self.range, written))
            .map_err(|e| Errno::of(&e));
        ExtentsAnswer {
            seat: self.seat,
            tag: self.tag,
            result,
        }
    }
}

fn all_data(range: ByteRange) -> Vec<BlockExtent> {
    vec![BlockExtent {
        len: range.len,
        flags: 0,
    }]
}

/// Runs of granules as runs of the bytes of `range`: `flag` where `run` is set, at most
/// [`EXTENTS_MAX`].
fn granule_runs(range: ByteRange, flag: u32, run: impl Fn(Extent) -> Run) -> Vec<BlockExtent> {
    let mut runs = Vec::new();
    let Some(within) = range.cover() else {
        return runs;
    };
    let end = range.offset + range.len;
    let (mut at, mut granule) = (range.offset, within.start);
    while at < end && runs.len() < EXTENTS_MAX {
        let found = run(Extent::new(granule, within.end));
        let stop = (found.end * GRANULE).min(end);
        runs.push(BlockExtent {
            len: stop - at,
            flags: if found.is_set { flag } else { 0 },
        });
        (at, granule) = (stop, found.end);
    }
    runs
}

/// `runs`, which begin where `range` does, with data in place of whatever is being written.
fn with_data(
    runs: Vec<BlockExtent>,
    range: ByteRange,
    mut written: Vec<Extent>,
) -> Vec<BlockExtent> {
    if written.is_empty() {
        return runs;
    }
    written.sort_unstable();
    let (mut at, mut next, mut told) = (range.offset, 0, Vec::with_capacity(runs.len()));
    let push = |told: &mut Vec<BlockExtent>, len: u64, flags: u32| {
        if len > 0 {
            told.push(BlockExtent { len, flags });
        }
    };
    for run in runs {
        let end = at + run.len;
        while at < end {
            while written.get(next).is_some_and(|w| w.end * GRANULE <= at) {
                next += 1;
            }
            let (data_from, data_end) = match written.get(next) {
                Some(w) => (w.offset().clamp(at, end), (w.end * GRANULE).min(end)),
                None => (end, end),
            };
            push(&mut told, data_from - at, run.flags);
            push(&mut told, data_end.saturating_sub(data_from), 0);
            at = data_end.max(data_from);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(len: u64, flags: u32) -> BlockExtent {
        BlockExtent { len, flags }
    }

    #[test]
    fn runs_of_granules_are_cut_to_the_bytes_asked_for() {
        let range = ByteRange {
            offset: 5,
            len: 3 * GRANULE,
        };
        let odd = |within: Extent| Run {
            end: within.start + 1,
            is_set: within.start % 2 == 1,
        };
        let expected = [
            extent(GRANULE - 5, 0),
            extent(GRANULE, 1),
            extent(GRANULE, 0),
            extent(5, 1),
        ];
        assert_eq!(granule_runs(range, 1, odd), expected);
    }

    #[test]
    fn what_is_being_written_counts_as_data() {
        let hole = BlockExtent::HOLE | BlockExtent::ZERO;
        let range = ByteRange {
            offset: GRANULE,
            len: 10 * GRANULE,
        };
        let runs = vec![extent(4 * GRANULE, hole), extent(6 * GRANULE, 0)];
        assert_eq!(with_data(runs.clone(), range, vec![]), runs);
        let written = vec![Extent::new(3, 4), Extent::new(2, 3), Extent::new(0, 1)];
        let expected = [
            extent(GRANULE, hole),
            extent(GRANULE, 0),
            extent(GRANULE, 0),
            extent(GRANULE, hole),
            extent(6 * GRANULE, 0),
        ];
        assert_eq!(with_data(runs.clone(), range, written), expected);
        let all = with_data(runs, range, vec![Extent::new(0, 20), Extent::new(3, 4)]);
        assert!(all.iter().all(|run| run.flags == 0));
        assert_eq!(all.iter().map(|run| run.len).sum::<u64>(), range.len);
    }
}
