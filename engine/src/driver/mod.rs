//! One volume on its reactor: feeds its core, carries out every action.
//!
//! ```text
//!  intake (clients) ─┐                       ┌─ memory: copied here, answered at once
//!  local (answers) ──┼─► core.handle ─► Action┼─ file, device: one operation of the ring
//!  deadlines ────────┘        ▲              ├─ links: queued, sent at the end of the turn
//!                             └── local ◄────┴─ control store, jobs
//! ```
//! Answers never recurse: they queue in `local` and are fed in the next round of the same turn.
//! Buffers: see the head of `engine_core::action`. A read, write or merge in the ring holds one
//! reference; what a link sends holds its own.

pub(crate) mod disk;
mod job;

use std::collections::VecDeque;

use engine_core::action::{
    Action, Answer, CommandError, Job, MetaBlock, Notice, Outcome, ReadInto,
};
use engine_core::event::{CommandId, DiskError, Event, JobOutcome, ReqId, SessionId, Token};
use engine_core::message::Zeroing;
use engine_core::time::Instant;
use engine_core::units::{self, ByteRange, Extent, GRANULE};
use engine_core::volume::Volume;
use engine_ring::{BufId, Class, Errno, FileId};

use crate::backend::Store;
use crate::control_store::ControlStore;
use crate::driver::disk::{Then, Transfer, done};
use crate::front_end::{BlockExtent, Intake};
use crate::layer::faulty::{Fault, Faults};
use crate::link::Links;
use crate::shell::Shell;
use crate::sums;

/// Rounds of one volume in one turn; what is left comes in the next.
const ROUNDS_MAX: usize = 32;
/// Runs of block status per answer of a memory volume.
const EXTENTS_MAX: usize = 4096;

/// A buffer's name in the core's words.
pub(crate) fn to_core(buf: BufId) -> units::BufId {
    units::BufId(buf.to_u64())
}

/// A buffer's name in the ring's words.
pub(crate) fn to_ring(buf: units::BufId) -> BufId {
    BufId::from_u64(buf.0)
}

/// A request that ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) session: SessionId,
    pub(crate) req: ReqId,
    pub(crate) outcome: Outcome,
}

/// A question for block status that was answered.
#[derive(Debug)]
pub(crate) struct ExtentsAnswer {
    pub(crate) seat: u16,
    pub(crate) tag: u32,
    pub(crate) result: Result<Vec<BlockExtent>, Errno>,
}

/// One volume on its reactor.
pub(crate) struct Driver {
    /// Its slot on the reactor.
    pub(crate) slot: u32,
    pub(crate) core: Volume,
    pub(crate) store: Store,
    pub(crate) meta: FileId,
    pub(crate) intake: Intake,
    /// Answers and other events for the core, in order.
    pub(crate) local: VecDeque<Event>,
    actions: Vec<Action>,
    /// Actions that wait for a buffer.
    waiting: VecDeque<Action>,
    /// Actions that a planted fault delays, and until when.
    delayed: Vec<(Instant, Action)>,
    faults: Faults,
    is_next_short: bool,
    pub(crate) control_store: Box<dyn ControlStore>,
    /// For the reactor: what ended in this turn.
    pub(crate) ended: Vec<Ended>,
    pub(crate) quiet: Vec<SessionId>,
    pub(crate) extents: Vec<ExtentsAnswer>,
    pub(crate) answers: Vec<(CommandId, Result<Answer, CommandError>)>,
    pub(crate) notices: Vec<Notice>,
    /// When the core wants to be called at the latest.
    pub(crate) deadline: Option<Instant>,
    /// Operations of its own in the ring.
    pub(crate) in_ring: usize,
}

impl Driver {
    /// A volume in `slot` of its reactor; begins with `Event::Start`.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        slot: u32,
        core: Volume,
        store: Store,
        meta: FileId,
        intake: Intake,
        faults: Faults,
        control_store: Box<dyn ControlStore>,
    ) -> Driver {
        let capacity = intake.events.capacity();
        Driver {
            slot,
            core,
            store,
            meta,
            intake,
            local: VecDeque::from_iter([Event::Start]),
            actions: Vec::with_capacity(2 * capacity),
            waiting: VecDeque::with_capacity(64),
            delayed: Vec::new(),
            faults,
            is_next_short: false,
            control_store,
            ended: Vec::with_capacity(capacity),
            quiet: Vec::with_capacity(64),
            extents: Vec::with_capacity(16),
            answers: Vec::with_capacity(16),
            notices: Vec::with_capacity(16),
            deadline: None,
            in_ring: 0,
        }
    }

    /// Replaces the planted faults; what they delayed goes on.
    pub(crate) fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.delayed.iter_mut().for_each(|(at, _)| *at = Instant(0));
    }

    /// Whether `run` has something to do at `now`.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let is_idle = self.local.is_empty()
            && self.waiting.is_empty()
            && self.intake.events.is_empty()
            && self.intake.queries.is_empty();
        !is_idle
            || self.deadline.is_some_and(|deadline| deadline <= now)
            || self.delayed.iter().any(|(at, _)| *at <= now)
    }

    /// The next moment `is_due` becomes true by itself.
    pub(crate) fn next_moment(&self) -> Option<Instant> {
        let delayed = self.delayed.iter().map(|(at, _)| *at).min();
        self.deadline.into_iter().chain(delayed).min()
    }

    /// Feeds the core and carries out what it says until nothing is left that can be done now.
    pub(crate) fn run(&mut self, shell: &mut Shell, links: &mut Links) {
        self.retry(shell, links);
        for _ in 0..ROUNDS_MAX {
            let is_ticking = self.deadline.is_some_and(|deadline| deadline <= shell.now);
            if self.local.is_empty() && self.intake.events.is_empty() && !is_ticking {
                break;
            }
            self.round(shell, links, is_ticking);
        }
        for (seat, tag, range) in std::mem::take(&mut self.intake.queries) {
            self.block_status(shell, seat, tag, range);
        }
    }

    fn round(&mut self, shell: &mut Shell, links: &mut Links, is_ticking: bool) {
        let mut actions = std::mem::take(&mut self.actions);
        for event in self.intake.events.drain(..) {
            self.core.handle(shell.now, event, &mut actions);
        }
        while let Some(event) = self.local.pop_front() {
            self.core.handle(shell.now, event, &mut actions);
        }
        if is_ticking {
            self.core.handle(shell.now, Event::Tick, &mut actions);
        }
        self.deadline = self.core.next_deadline();
        self.intake.room = self.core.room();
        for action in actions.drain(..) {
            self.execute(shell, links, action);
        }
        self.actions = actions;
        if !self.local.is_empty() {
            // Inline copies took time; a lease counts from after the data was read (law T7).
            shell.refresh_now();
        }
    }

    /// Actions that waited for buffers or for a planted delay.
    fn retry(&mut self, shell: &mut Shell, links: &mut Links) {
        for _ in 0..self.waiting.len() {
            let Some(action) = self.waiting.pop_front() else {
                break;
            };
            if let Some(action) = self.perform(shell, links, action) {
                self.waiting.push_front(action);
                break;
            }
        }
        let mut index = 0;
        while index < self.delayed.len() {
            if self.delayed[index].0 <= shell.now {
                let (_, action) = self.delayed.swap_remove(index);
                let held = held_buffer(&action);
                self.perform_or_wait(shell, links, action);
                held.into_iter().for_each(|buf| shell.arena.release(buf));
            } else {
                index += 1;
            }
        }
    }

    fn execute(&mut self, shell: &mut Shell, links: &mut Links, action: Action) {
        if !self.faults.is_empty()
            && let Some(fault) = self.faults.judge(&action)
        {
            match fault {
                Fault::Fail(error) => return self.fail(action, error),
                Fault::Short => self.is_next_short = true,
                Fault::Delay(by) => return self.delay(shell, shell.now.after(by), action),
                Fault::Hang => return self.delay(shell, Instant(u64::MAX), action),
            }
        }
        self.perform_or_wait(shell, links, action);
        self.is_next_short = false;
    }

    fn delay(&mut self, shell: &mut Shell, until: Instant, action: Action) {
        held_buffer(&action)
            .into_iter()
            .for_each(|buf| shell.arena.retain(buf));
        self.delayed.push((until, action));
    }

    /// Answers an action as if the disk had failed.
    fn fail(&mut self, action: Action, error: DiskError) {
        let event = match action {
            Action::MetaWrite { token, .. } => Event::MetaDone {
                token,
                result: Err(error),
            },
            Action::DiskRead { token, .. }
            | Action::DiskWrite { token, .. }
            | Action::DiskZero { token, .. }
            | Action::DiskFlush { token } => done(token, Err(error)),
            other => unreachable!("faults are planted in disk actions only, not {other:?}"),
        };
        self.local.push_back(event);
    }

    fn perform_or_wait(&mut self, shell: &mut Shell, links: &mut Links, action: Action) {
        if let Some(action) = self.perform(shell, links, action) {
            self.waiting.push_back(action);
        }
    }

    /// Does it, or gives it back when there is no buffer now.
    fn perform(&mut self, shell: &mut Shell, links: &mut Links, action: Action) -> Option<Action> {
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
                    self.local.push_back(done(token, Ok(())));
                }
                Store::Disk(_) => self.start_zero(shell, token, extent, zeroing, durable),
            },
            Action::DiskFlush { token } => match &self.store {
                Store::Memory(_) => self.local.push_back(done(token, Ok(()))),
                Store::Disk(_) => self.start_flush(shell, token),
            },
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
            Action::SessionQuiet { session } => self.quiet.push(session),
            Action::Answer { id, result } => self.answers.push((id, result)),
            Action::Notice(notice) => self.notices.push(notice),
        }
        None
    }

    fn read(&mut self, shell: &mut Shell, token: Token, extent: Extent, buf: BufId) {
        let len = extent.bytes() as u32;
        match &self.store {
            Store::Memory(memory) => {
                memory.read(extent.offset(), shell.arena.slice_mut(buf.slice(0, len)));
                self.local.push_back(done(token, Ok(())));
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
                let event = self.fresh_read(shell, token, buf, len, Ok(()));
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
                self.local.push_back(done(token, Ok(())));
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
                    write: true,
                    durable,
                };
                self.start_transfer(shell, transfer, Then::Write(token));
            }
        }
    }

    fn write_meta(
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

    fn job_done(&mut self, token: Token, outcome: JobOutcome) {
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
                if self.read_inline(shell, Extent::new(granule, granule + 1), buf, then) {
                    job::zero_in_granule(&mut shell.arena, buf, range);
                    self.job_done(token, JobOutcome::Buffer(to_core(buf)));
                }
                true
            }
            Job::Copy { from, to, bytes } => {
                let part = |buf| to_ring(buf).slice(0, bytes as u32);
                shell.arena.copy(part(from), part(to));
                self.job_done(token, JobOutcome::Done);
                true
            }
            Job::Sums { extent } => {
                if let Store::Memory(memory) = &self.store {
                    let bytes = memory.slice(extent.offset(), extent.bytes() as usize);
                    self.job_done(token, JobOutcome::Sums(sums::of_granules(bytes)));
                    return true;
                }
                let Some(buf) = shell.arena.alloc(Class::Resync, extent.bytes() as usize) else {
                    return false;
                };
                self.read_inline(shell, extent, buf, Then::Sums(token));
                true
            }
        }
    }

    /// Fills `buf`: at once and `true` for memory; for a disk `then` says how it goes on.
    fn read_inline(&mut self, shell: &mut Shell, extent: Extent, buf: BufId, then: Then) -> bool {
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

    fn block_status(&mut self, shell: &mut Shell, seat: u16, tag: u32, range: ByteRange) {
        let is_inside = range
            .offset
            .checked_add(range.len)
            .is_some_and(|e| e <= self.intake.size_bytes);
        if !is_inside || range.len == 0 {
            self.extents.push(ExtentsAnswer {
                seat,
                tag,
                result: Err(Errno::INVAL),
            });
            return;
        }
        match &self.store {
            Store::Memory(memory) => {
                let result = Ok(memory.extents(range, EXTENTS_MAX));
                self.extents.push(ExtentsAnswer { seat, tag, result });
            }
            Store::Disk(_) => self.start_extents(shell, seat, tag, range),
        }
    }

    /// Lets go of what a planted fault holds back for ever; the volume is being detached.
    pub(crate) fn forget_delayed(&mut self, shell: &mut Shell) {
        for (_, action) in self.delayed.drain(..) {
            held_buffer(&action)
                .into_iter()
                .for_each(|buf| shell.arena.release(buf));
        }
    }
}

/// The buffer an action is about, which a delay must keep.
fn held_buffer(action: &Action) -> Option<BufId> {
    match action {
        Action::DiskWrite { buf, .. }
        | Action::DiskRead {
            into: ReadInto::Buf(buf),
            ..
        } => Some(to_ring(*buf)),
        _ => None,
    }
}
