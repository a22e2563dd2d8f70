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

mod act;
pub(crate) mod disk;
pub(crate) mod extents;
mod job;
pub(crate) mod verify;

use std::collections::VecDeque;

use engine_core::action::{Action, Answer, CommandError, Notice, Outcome, ReadInto};
use engine_core::event::{CommandId, DiskError, Event, ReqId, SessionId, Token};
use engine_core::time::Instant;
use engine_core::units::{self, ByteRange};
use engine_core::volume::Volume;
use engine_core::vote::Ballot;
use engine_ring::{BufId, FileId};

use crate::backend::Store;
use crate::control_store::ControlStore;
use crate::driver::disk::done;
use crate::driver::extents::ExtentsAnswer;
use crate::driver::verify::Checksums;
use crate::front_end::Intake;
use crate::layer::faulty::{Fault, Faults};
use crate::link::Links;
use crate::salvage::Step;
use crate::shell::Shell;

/// A step of a salvage, for the thread that writes it.
pub(crate) enum SalvageOrder {
    /// The reactor knows whose copy it is.
    Begin {
        to: units::NodeIdx,
        granules: u64,
    },
    Step(Step),
}

/// Rounds of one volume in one turn; what is left comes in the next.
const ROUNDS_MAX: usize = 32;

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
    /// The lease is this node's next process's: a register does not hear that it is free.
    pub(crate) keeps_lease: bool,
    /// Stored checksums, if the volume has some.
    checksums: Option<Checksums>,
    /// For the reactor: what ended in this turn.
    pub(crate) ended: Vec<Ended>,
    pub(crate) quiet: Vec<SessionId>,
    pub(crate) extents: Vec<ExtentsAnswer>,
    pub(crate) answers: Vec<(CommandId, Result<Answer, CommandError>)>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) ballots: Vec<(units::NodeIdx, Ballot)>,
    pub(crate) salvages: Vec<(Token, SalvageOrder)>,
    /// The backing is to hold zeros from the first granule on to the second.
    pub(crate) growth: Option<(u64, u64)>,
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
        checksums: Option<Checksums>,
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
            keeps_lease: false,
            checksums,
            ended: Vec::with_capacity(capacity),
            quiet: Vec::with_capacity(64),
            extents: Vec::with_capacity(16),
            answers: Vec::with_capacity(16),
            notices: Vec::with_capacity(16),
            ballots: Vec::with_capacity(16),
            salvages: Vec::new(),
            growth: None,
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
            && self.intake.events.is_empty()
            && self.intake.queries.is_empty();
        !is_idle
            || self.deadline.is_some_and(|deadline| deadline <= now)
            || self.delayed.iter().any(|(at, _)| *at <= now)
    }

    /// Whether actions wait for a buffer; `run` tries them again, once per turn is enough.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
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
        let mut queries = std::mem::take(&mut self.intake.queries);
        for query in queries.drain(..) {
            self.tell_extents(shell, query);
        }
        self.intake.queries = queries;
        self.scan_if_wanted(shell);
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
        let mut next = actions.drain(..).peekable();
        while let Some(action) = next.next() {
            // The next block is on its way from memory while this one is copied.
            if let Some(Action::DiskRead { extent, .. }) = next.peek()
                && let Store::Memory(memory) = &self.store
            {
                memory.prefetch(ByteRange {
                    offset: extent.offset(),
                    len: extent.bytes(),
                });
            }
            self.execute(shell, links, action);
        }
        drop(next);
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
            Action::MetaWrite { token, .. } | Action::SumsWrite { token, .. } => Event::MetaDone {
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
