//! Carrying out one action: inline for memory, by the ring for files and devices.

use engine_core::action::{Action, Job, MetaBlock, Outcome, ReadInto, SalvageStep};
use engine_core::event::{DiskError, Event, JobOutcome, Token};
use engine_core::message::Zeroing;
use engine_core::register::Access;
use engine_core::units::{Extent, GRANULE};
use engine_ring::{BufId, Class};

use super::disk::{Sum, Then, Transfer, done};
use super::{Driver, Ended, SalvageOrder, to_ring};
use crate::backend::Store;
use crate::link::Links;
use crate::salvage::Step;
use crate::shell::Shell;

impl Driver {
    /// Does it, or gives it back when there is no buffer now.
    pub(super) fn perform(
        &mut self,
        shell: &mut Shell,
        links: &mut Links,
        action: Action,
    ) -> Option<Action> {
        match action {
            Action::Complete {
                session,
                req,
                outcome,
            } => {
                if !matches!(outcome, Outcome::Ok | Outcome::Aborted) {
                    self.intake.counters.errors += 1;
                }
                self.ended.push(Ended {
                    session,
                    req,
                    outcome,
                });
            }
            Action::DiskRead {
                token,
                extent,
                into: ReadInto::Buf(buf),
            } => {
                self.read(shell, token, extent, to_ring(buf));
            }
            Action::DiskRead {
                token,
                extent,
                into: ReadInto::Alloc,
            } => {
                let fresh = shell.arena.alloc(Class::Resync, extent.bytes() as usize);
                let Some(buf) = fresh else {
                    return Some(action);
                };
                self.read_fresh(shell, token, extent, buf);
            }
            Action::DiskWrite {
                token,
                extent,
                buf,
                durable,
            } => {
                self.write(shell, token, extent, to_ring(buf), durable);
            }
            Action::DiskZero {
                token,
                extent,
                zeroing,
                durable,
            } => match &mut self.store {
                Store::Memory(memory) => {
                    memory.zero(extent, zeroing == Zeroing::Allocate);
                    self.zeroed(extent, Ok(()));
                    self.local.push_back(done(token, Ok(())));
                }
                Store::Disk(_) => self.start_zero(shell, token, extent, zeroing, durable),
            },
            Action::DiskFlush { token } => match &self.store {
                Store::Memory(_) => self.local.push_back(done(token, Ok(()))),
                Store::Disk(_) => self.start_flush(shell, token),
            },
            Action::SumsRead(read) => {
                if !self.read_sums(shell, read) {
                    return Some(action);
                }
            }
            Action::SumsWrite {
                token,
                slot,
                block,
                counter,
            } => {
                if !self.write_sums(shell, token, slot, block, counter) {
                    return Some(action);
                }
            }
            Action::MetaWrite {
                token,
                block,
                bytes,
            } => {
                if !self.write_meta(shell, token, block, &bytes) {
                    return Some(Action::MetaWrite {
                        token,
                        block,
                        bytes,
                    });
                }
            }
            Action::Job { token, job } => {
                if !self.start_job(shell, token, job) {
                    return Some(action);
                }
            }
            Action::Send {
                link,
                message,
                payload,
            } => {
                links.send(shell, link, &message, payload.map(to_ring));
            }
            Action::Drop { link } => links.close_after_sending(shell, link),
            Action::Release { buf } => shell.arena.release(to_ring(buf)),
            Action::ProposeRecord(record) => {
                let choice = self.control_store.propose(&record);
                self.local.push_back(Event::Record(choice));
            }
            Action::Salvage { token, step } => self.salvage(shell, token, step),
            Action::Register {
                access: Access::Swap { next, .. },
                ..
            } if self.keeps_lease && next.lease.is_released => {}
            Action::Register { number, access } => {
                if let Some(found) = self.control_store.access(number, access) {
                    self.local.push_back(Event::Register { number, found });
                }
            }
            Action::SessionQuiet { session } => self.quiet.push(session),
            Action::Answer { id, result } => self.answers.push((id, result)),
            Action::Notice(notice) => self.notices.push(notice),
            Action::GrowBacking { from, size } => self.growth = Some((from, size)),
            Action::Vote { to, ballot } => self.ballots.push((to, ballot)),
        }
        None
    }

    /// Bytes go to the thread that writes salvages as a copy: the buffer is the core's again.
    fn salvage(&mut self, shell: &Shell, token: Token, step: SalvageStep) {
        let step = match step {
            SalvageStep::Begin { to, granules } => SalvageOrder::Begin { to, granules },
            SalvageStep::Put { extent, buf } => {
                let part = |buf| to_ring(buf).slice(0, extent.bytes() as u32);
                let bytes = buf.map(|buf| shell.arena.slice(part(buf)).to_vec());
                SalvageOrder::Step(Step::Put { extent, bytes })
            }
            SalvageStep::Commit => SalvageOrder::Step(Step::Commit),
            SalvageStep::Drop => SalvageOrder::Step(Step::Drop),
        };
        self.salvages.push((token, step));
    }

    fn read(&mut self, shell: &mut Shell, token: Token, extent: Extent, buf: BufId) {
        let len = extent.bytes() as u32;
        match &self.store {
            Store::Memory(memory) => {
                memory.read(extent.offset(), shell.arena.slice_mut(buf.slice(0, len)));
                self.intake.counters.copied_bytes += u64::from(len);
                let result = self.check_buffer(shell, extent, buf);
                self.local.push_back(done(token, result));
            }
            Store::Disk(disk) => {
                let (file, at) = (disk.file, extent.offset());
                shell.arena.retain(buf);
                let transfer = Transfer {
                    file,
                    buf,
                    at,
                    len,
                    done: 0,
                    write: false,
                    durable: false,
                };
                self.start_transfer(
                    shell,
                    transfer,
                    Then::Read {
                        token,
                        is_fresh: false,
                    },
                );
            }
        }
    }

    fn read_fresh(&mut self, shell: &mut Shell, token: Token, extent: Extent, buf: BufId) {
        let len = extent.bytes() as u32;
        match &self.store {
            Store::Memory(memory) => {
                memory.read(extent.offset(), shell.arena.slice_mut(buf.slice(0, len)));
                let event = self.fresh_read(shell, token, buf, extent, Ok(()));
                self.local.push_back(event);
            }
            Store::Disk(disk) => {
                let (file, at) = (disk.file, extent.offset());
                let transfer = Transfer {
                    file,
                    buf,
                    at,
                    len,
                    done: 0,
                    write: false,
                    durable: false,
                };
                self.start_transfer(
                    shell,
                    transfer,
                    Then::Read {
                        token,
                        is_fresh: true,
                    },
                );
            }
        }
    }

    fn write(
        &mut self,
        shell: &mut Shell,
        token: Token,
        extent: Extent,
        buf: BufId,
        durable: bool,
    ) {
        let len = extent.bytes() as u32;
        match &mut self.store {
            Store::Memory(memory) => {
                memory.write(extent, shell.arena.slice(buf.slice(0, len)));
                self.intake.counters.copied_bytes += u64::from(len);
                self.wrote(shell, extent, buf, Ok(()));
                self.local.push_back(done(token, Ok(())));
            }
            Store::Disk(disk) => {
                disk.holes.writes(extent);
                let (file, at) = (disk.file, extent.offset());
                shell.arena.retain(buf);
                let transfer = Transfer {
                    file,
                    buf,
                    at,
                    len,
                    done: 0,
                    write: true,
                    durable,
                };
                self.start_transfer(shell, transfer, Then::Write(token));
            }
        }
    }

    pub(super) fn write_meta(
        &mut self,
        shell: &mut Shell,
        token: Token,
        block: u64,
        bytes: &MetaBlock,
    ) -> bool {
        let Some(buf) = shell.arena.alloc(Class::Meta, bytes.len()) else {
            return false;
        };
        shell
            .arena
            .slice_mut(buf.slice(0, bytes.len() as u32))
            .copy_from_slice(bytes);
        let (file, at, len) = (self.meta, block * bytes.len() as u64, bytes.len() as u32);
        let transfer = Transfer {
            file,
            buf,
            at,
            len,
            done: 0,
            write: true,
            durable: true,
        };
        self.start_transfer(shell, transfer, Then::Meta(token));
        true
    }

    pub(super) fn job_done(&mut self, token: Token, outcome: JobOutcome) {
        self.local.push_back(Event::JobDone { token, outcome });
    }

    /// `false` when there is no buffer now.
    fn start_job(&mut self, shell: &mut Shell, token: Token, job: Job) -> bool {
        match job {
            Job::Merge { buf, range } => self.start_merge(shell, token, to_ring(buf), range),
            Job::MergeZeros { range } => {
                let Some(buf) = shell.arena.alloc(Class::Meta, GRANULE as usize) else {
                    return false;
                };
                let granule = range.offset / GRANULE;
                let then = Then::MergeZeros { token, range };
                let extent = Extent::new(granule, granule + 1);
                if self.read_inline(shell, extent, buf, then) {
                    let outcome = self.zeros_merged(shell, range, buf, Ok(()));
                    self.job_done(token, outcome);
                }
                true
            }
            Job::Copy { from, to, bytes } => {
                // What a peer sent, which may be less than it was asked for.
                let arrived = shell.arena.sums(to_ring(from)).map_or(0, <[u64]>::len);
                if (arrived as u64) * GRANULE < bytes {
                    let outcome = JobOutcome::Failed(DiskError::Io);
                    self.job_done(token, outcome);
                    return true;
                }
                let part = |buf| to_ring(buf).slice(0, bytes as u32);
                shell.arena.copy(part(from), part(to));
                self.job_done(token, JobOutcome::Done);
                true
            }
            Job::Covers { buf, extent } => {
                let arrived = shell.arena.sums(to_ring(buf)).map_or(0, <[u64]>::len);
                let outcome = match arrived as u64 >= extent.granules() {
                    true => JobOutcome::Done,
                    false => JobOutcome::Failed(DiskError::Io),
                };
                self.job_done(token, outcome);
                true
            }
            Job::Scrub { extent } => self.start_scrub(shell, token, extent),
            Job::Sums { extent } => self.start_sums(shell, token, extent, Sum::Crc),
            Job::Hashes { extent, each } => {
                self.start_sums(shell, token, extent, Sum::Hashes { each })
            }
        }
    }

    fn start_sums(&mut self, shell: &mut Shell, token: Token, extent: Extent, sum: Sum) -> bool {
        if let Store::Memory(memory) = &self.store {
            let bytes = memory.slice(extent.offset(), extent.bytes() as usize);
            let outcome = self.summed(extent, bytes, sum);
            self.job_done(token, outcome);
            return true;
        }
        let Some(buf) = shell.arena.alloc(Class::Resync, extent.bytes() as usize) else {
            return false;
        };
        self.read_inline(shell, extent, buf, Then::Sums(token, sum));
        true
    }

    /// Fills `buf`: at once and `true` for memory; for a disk `then` says how it goes on.
    pub(super) fn read_inline(
        &mut self,
        shell: &mut Shell,
        extent: Extent,
        buf: BufId,
        then: Then,
    ) -> bool {
        let len = extent.bytes() as u32;
        match &self.store {
            Store::Memory(memory) => {
                memory.read(extent.offset(), shell.arena.slice_mut(buf.slice(0, len)));
                true
            }
            Store::Disk(disk) => {
                let (file, at) = (disk.file, extent.offset());
                let transfer = Transfer {
                    file,
                    buf,
                    at,
                    len,
                    done: 0,
                    write: false,
                    durable: false,
                };
                self.start_transfer(shell, transfer, then);
                false
            }
        }
    }
}
