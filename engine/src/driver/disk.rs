//! Operations of a volume in the ring: transfers that may be short, zeroing with fallbacks,
//! flushes. Each holds its buffer until its last completion (law O2).

use std::os::fd::OwnedFd;

use engine_core::action::PageRead;
use engine_core::event::{DiskError, DiskResult, Event, JobOutcome, Token};
use engine_core::message::Zeroing;
use engine_core::units::{ByteRange, Extent, GRANULE};
use engine_ring::{BufId, Errno, FallocateMode, FileId, Op};

use crate::backend::{Disk, Store, ZeroStep, disk_error};
use crate::driver::extents::{Found, Look, taken};
use crate::driver::job::Progress;
use crate::driver::verify::extent_of;
use crate::driver::{Driver, job, to_core};
use crate::shell::{Shell, ZEROS_BYTES};
use crate::sums;

/// One operation of a volume in the ring.
#[derive(Debug)]
pub(crate) struct DiskOp {
    /// Slot of the volume on its reactor.
    pub(crate) volume: u32,
    pub(super) work: Work,
}

/// What it is, and how far.
#[derive(Debug)]
pub(super) enum Work {
    /// A buffer to or from a file.
    Move(Transfer, Then),
    /// Zeros.
    Zero(ZeroWork),
    /// A flush.
    Flush(Token),
    /// Up to two granules on their way into the gaps of an unaligned write.
    Merge(job::Merge),
    /// Block status, asked of the file system by a worker.
    Extents(Look),
    /// Where holes are, asked of the file system by a worker.
    Scan(ByteRange, Found),
}

/// A run of a buffer to or from a run of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) file: FileId,
    pub(super) buf: BufId,
    /// Byte in the file.
    pub(super) at: u64,
    pub(super) len: u32,
    pub(super) done: u32,
    pub(super) write: bool,
    pub(super) durable: bool,
}

/// Whom a transfer is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// `DiskRead` into the core's buffer, or into a fresh one.
    Read { token: Token, is_fresh: bool },
    /// `DiskWrite`.
    Write(Token),
    /// `MetaWrite`.
    Meta(Token),
    /// `Job::MergeZeros`.
    MergeZeros { token: Token, range: ByteRange },
    /// `Job::Sums` and `Job::Hashes`.
    Sums(Token, Sum),
    /// `Job::Scrub`.
    Scrub(Token),
    /// `SumsRead`.
    SumsRead(PageRead),
}

/// What is made of bytes that were read to be compared.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sum {
    /// CRC-64/NVME of every granule.
    Crc,
    /// A strong hash of every `each` granules.
    Hashes { each: u32 },
}

impl Sum {
    pub(super) fn of(self, bytes: &[u8]) -> JobOutcome {
        match self {
            Sum::Crc => JobOutcome::Sums(sums::of_granules(bytes)),
            Sum::Hashes { each } => JobOutcome::Hashes(sums::hashes(bytes, each)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ZeroWork {
    token: Token,
    at: u64,
    len: u64,
    done: u64,
    zeroing: Zeroing,
    step: ZeroStep,
    durable: bool,
    is_syncing: bool,
}

impl Transfer {
    /// Pushes what is left.
    pub(super) fn push(&self, shell: &mut Shell, slot: u32, limit: u32) {
        let left = (self.len - self.done).min(limit);
        let buf = self.buf.slice(self.done, left);
        let at = self.at + u64::from(self.done);
        let op = if self.write {
            Op::WriteAt {
                file: self.file,
                buf,
                at,
                durable: self.durable,
            }
        } else {
            Op::ReadAt {
                file: self.file,
                buf,
                at,
            }
        };
        shell.push(slot, 0, op);
    }
}

impl Driver {
    /// Starts a transfer; the op takes over one reference to the buffer.
    pub(super) fn start_transfer(&mut self, shell: &mut Shell, transfer: Transfer, then: Then) {
        let slot = self.insert(shell, Work::Move(transfer, then));
        // A planted short transfer: half of it, in whole granules.
        let half = (transfer.len / 2) & !(GRANULE as u32 - 1);
        let limit = if std::mem::take(&mut self.is_next_short) && half > 0 {
            half
        } else {
            u32::MAX
        };
        transfer.push(shell, slot, limit);
    }

    pub(super) fn insert(&mut self, shell: &mut Shell, work: Work) -> u32 {
        self.in_ring += 1;
        let op = DiskOp {
            volume: self.slot,
            work,
        };
        let inserted = shell.ops.insert(op);
        inserted.expect("the core's tables bound the operations of all volumes far below the table")
    }

    pub(super) fn start_zero(
        &mut self,
        shell: &mut Shell,
        token: Token,
        extent: Extent,
        zeroing: Zeroing,
        durable: bool,
    ) {
        let disk = self.disk();
        let step = disk.zero_step(zeroing);
        let (at, len) = (extent.offset(), extent.bytes());
        let work = ZeroWork {
            token,
            at,
            len,
            done: 0,
            zeroing,
            step,
            durable,
            is_syncing: false,
        };
        let slot = self.insert(shell, Work::Zero(work));
        self.push_zero(shell, slot, work);
    }

    fn push_zero(&mut self, shell: &mut Shell, slot: u32, work: ZeroWork) {
        let file = self.disk().file;
        let (at, len) = (work.at, work.len);
        if work.is_syncing {
            return shell.push(slot, 0, Op::DataSync { file });
        }
        match work.step {
            ZeroStep::Punch => {
                shell.push(
                    slot,
                    0,
                    Op::Fallocate {
                        file,
                        mode: FallocateMode::PunchHole,
                        at,
                        len,
                    },
                );
            }
            ZeroStep::ZeroRange => {
                let mode = FallocateMode::ZeroRangeKeepSize;
                shell.push(
                    slot,
                    0,
                    Op::Fallocate {
                        file,
                        mode,
                        at,
                        len,
                    },
                );
            }
            ZeroStep::ZeroOut => match own_fd(shell, file) {
                Ok(fd) => {
                    let zero = move || engine_ring::sys::block::zero_out(&fd, at, len).map(|()| 0);
                    shell.push(slot, 0, Op::Blocking(Box::new(zero)));
                }
                Err(e) => shell.push(slot, 0, Op::Blocking(Box::new(move || Err(e)))),
            },
            ZeroStep::Write => {
                let piece = (len - work.done).min(ZEROS_BYTES as u64) as u32;
                let buf = shell.zeros.slice(0, piece);
                let at = at + work.done;
                shell.push(
                    slot,
                    0,
                    Op::WriteAt {
                        file,
                        buf,
                        at,
                        durable: work.durable,
                    },
                );
            }
        }
    }

    pub(super) fn start_flush(&mut self, shell: &mut Shell, token: Token) {
        let file = self.disk().file;
        let slot = self.insert(shell, Work::Flush(token));
        shell.push(slot, 0, Op::DataSync { file });
    }

    /// An operation of this volume ended, or a part of it.
    pub(crate) fn on_io(
        &mut self,
        shell: &mut Shell,
        slot: u32,
        tag: u32,
        result: Result<u32, Errno>,
    ) {
        let op = shell
            .ops
            .get_mut(slot)
            .expect("a slot is freed with its last completion");
        match &mut op.work {
            Work::Move(transfer, then) => {
                let then = *then;
                match advance(transfer, result) {
                    Some(end) => {
                        let transfer = *transfer;
                        self.remove(shell, slot);
                        self.end_transfer(shell, transfer, then, end);
                    }
                    None => {
                        let rest = *transfer;
                        rest.push(shell, slot, u32::MAX);
                    }
                }
            }
            Work::Zero(work) => {
                let work = *work;
                self.zero_done(shell, slot, work, result);
            }
            Work::Flush(token) => {
                let token = *token;
                self.remove(shell, slot);
                let result = result.map(|_| ()).map_err(disk_error);
                self.local.push_back(done(token, result));
            }
            Work::Merge(merge) => match merge.take(tag, result) {
                Progress::Rest(read) => shell.push(slot, tag, read),
                Progress::Waiting => {}
                Progress::Done => {
                    let mut merge = *merge;
                    self.remove(shell, slot);
                    merge.check(
                        |granule, bytes| self.check_granule(granule, bytes),
                        &shell.arena,
                    );
                    let outcome = merge.finish(&mut shell.arena);
                    self.job_done(merge.token, outcome);
                }
            },
            Work::Scan(range, found) => {
                let (range, runs) = (*range, taken(found));
                self.remove(shell, slot);
                self.disk_mut().holes.scanned(range, runs);
            }
            Work::Extents(look) => {
                let answer = look.answer();
                self.remove(shell, slot);
                self.extents.push(answer);
            }
        }
    }

    fn remove(&mut self, shell: &mut Shell, slot: u32) {
        shell.ops.remove(slot);
        self.in_ring -= 1;
    }

    fn zero_done(
        &mut self,
        shell: &mut Shell,
        slot: u32,
        mut work: ZeroWork,
        result: Result<u32, Errno>,
    ) {
        let next = match result {
            Err(errno) if !work.is_syncing && self.disk_mut().refuses(work.step, errno) => {
                work.step = self.disk().zero_step(work.zeroing);
                Ok(true)
            }
            Err(errno) => Err(disk_error(errno)),
            Ok(0) if work.step == ZeroStep::Write => Err(DiskError::Io),
            Ok(written) if work.step == ZeroStep::Write => {
                work.done += u64::from(written);
                Ok(work.done < work.len)
            }
            Ok(_) if work.durable && !work.is_syncing => {
                work.is_syncing = true;
                Ok(true)
            }
            Ok(_) => Ok(false),
        };
        match next {
            Ok(true) => {
                let op = shell.ops.get_mut(slot).expect("the op goes on");
                op.work = Work::Zero(work);
                self.push_zero(shell, slot, work);
            }
            Ok(false) => {
                self.disk_mut().holes.zeroed(extent_of(work.at, work.len));
                self.end_zero(shell, slot, work, Ok(()));
            }
            Err(error) => self.end_zero(shell, slot, work, Err(error)),
        }
    }

    fn end_zero(&mut self, shell: &mut Shell, slot: u32, work: ZeroWork, result: DiskResult) {
        self.remove(shell, slot);
        self.zeroed(extent_of(work.at, work.len), result);
        self.local.push_back(done(work.token, result));
    }

    fn end_transfer(&mut self, shell: &mut Shell, transfer: Transfer, then: Then, end: DiskResult) {
        let Transfer { buf, len, .. } = transfer;
        let extent = extent_of(transfer.at, u64::from(len));
        let event = match then {
            Then::Read {
                token,
                is_fresh: true,
            } => self.fresh_read(shell, token, buf, extent, end),
            Then::Read {
                token,
                is_fresh: false,
            } => {
                let end = end.and_then(|()| self.check_buffer(shell, extent, buf));
                shell.arena.release(buf);
                done(token, end)
            }
            Then::Write(token) => {
                self.wrote(shell, extent, buf, end);
                shell.arena.release(buf);
                done(token, end)
            }
            Then::SumsRead(read) => self.sums_read(shell, read, buf, end),
            Then::Meta(token) => {
                shell.arena.release(buf);
                Event::MetaDone { token, result: end }
            }
            Then::MergeZeros { token, range } => {
                let outcome = self.zeros_merged(shell, range, buf, end);
                Event::JobDone { token, outcome }
            }
            Then::Sums(token, sum) => {
                let bytes = shell.arena.slice(buf.slice(0, len));
                let outcome = match end {
                    Ok(()) => self.summed(extent, bytes, sum),
                    Err(error) => JobOutcome::Failed(error),
                };
                shell.arena.release(buf);
                Event::JobDone { token, outcome }
            }
            Then::Scrub(token) => {
                let bytes = shell.arena.slice(buf.slice(0, len));
                let outcome = match end {
                    Ok(()) => self.scrub_bytes(extent, bytes),
                    Err(error) => JobOutcome::Failed(error),
                };
                shell.arena.release(buf);
                Event::JobDone { token, outcome }
            }
        };
        self.local.push_back(event);
    }

    /// Hands a buffer that was allocated for the core over to it, with what it wants to know.
    pub(super) fn fresh_read(
        &mut self,
        shell: &mut Shell,
        token: Token,
        buf: BufId,
        extent: Extent,
        end: DiskResult,
    ) -> Event {
        if let Err(error) = end {
            shell.arena.release(buf);
            return done(token, Err(error));
        }
        let len = extent.bytes() as u32;
        let is_zero = sums::is_zero(shell.arena.slice(buf.slice(0, len)));
        // Their number also tells the length of a payload whose message does not.
        let crcs = sums::of_buffer(&mut shell.arena, buf, len as usize);
        let result = self.check_sums(extent, crcs);
        Event::DiskDone {
            token,
            result,
            buf: Some(to_core(buf)),
            is_zero,
        }
    }

    /// Sums of what was read, unless its checksums are not those of what was written.
    pub(super) fn summed(&self, extent: Extent, bytes: &[u8], sum: Sum) -> JobOutcome {
        match self.check_bytes(extent, bytes) {
            Ok(()) => sum.of(bytes),
            Err(error) => JobOutcome::Failed(error),
        }
    }

    /// A granule was read for a zeroing that takes a part of it.
    pub(super) fn zeros_merged(
        &mut self,
        shell: &mut Shell,
        range: ByteRange,
        buf: BufId,
        end: DiskResult,
    ) -> JobOutcome {
        let granule = range.offset / GRANULE;
        let bytes = shell.arena.slice(buf.slice(0, GRANULE as u32));
        match end.and_then(|()| self.check_granule(granule, bytes)) {
            Ok(()) => {
                job::zero_in_granule(&mut shell.arena, buf, range);
                JobOutcome::Buffer(to_core(buf))
            }
            Err(error) => {
                shell.arena.release(buf);
                JobOutcome::Failed(error)
            }
        }
    }

    pub(super) fn disk(&self) -> &Disk {
        match &self.store {
            Store::Disk(disk) => disk,
            Store::Memory(_) => unreachable!("memory is copied inline"),
        }
    }

    fn disk_mut(&mut self) -> &mut Disk {
        match &mut self.store {
            Store::Disk(disk) => disk,
            Store::Memory(_) => unreachable!("memory is copied inline"),
        }
    }
}

/// Counts what moved; `Some` at the end.
fn advance(transfer: &mut Transfer, result: Result<u32, Errno>) -> Option<DiskResult> {
    match result {
        Err(errno) => Some(Err(disk_error(errno))),
        // Nothing moved: the file ends early, or the disk takes no more.
        Ok(0) => Some(Err(DiskError::Io)),
        Ok(moved) => {
            transfer.done += moved;
            (transfer.done >= transfer.len).then_some(Ok(()))
        }
    }
}

pub(super) fn done(token: Token, result: DiskResult) -> Event {
    Event::DiskDone {
        token,
        result,
        buf: None,
        is_zero: false,
    }
}

pub(super) fn own_fd(shell: &Shell, file: FileId) -> std::io::Result<OwnedFd> {
    let fd = shell
        .ring
        .fd(file)
        .expect("the volume's file is registered while it is attached");
    fd.try_clone_to_owned()
}
