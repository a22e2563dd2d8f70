//! Scrub: reads all of this node's copy and compares it with the stored checksums (law S10).
//!
//! ```text
//!  pieces of 1 MiB, two at a time, at most so many bytes a second
//!    matches ─► next     does not ─► repair.rs     none known ─► taken from the data
//! ```
//!
//! Each piece is held shared, so only stable blocks are compared. After a crash the same is done
//! first with what lay in open extents of the activity log, whose checksums are not trusted.

use crate::action::{Action, Answer, CommandError, Job, Notice};
use crate::event::{CommandId, JobOutcome, LinkId};
use crate::message::RESYNC_PIECE_GRANULES;
use crate::units::Extent;

use super::Volume;
use super::allowance::Allowance;
use super::ops::{Kind, Phase, Purpose};

/// Pieces read at once.
const PIECES_MAX: u32 = 2;

/// A scrub under way, and the figures of the newest one.
#[derive(Default)]
pub(super) struct Scrubbing {
    run: Option<Run>,
    is_sweeping: bool,
    figures: ScrubFigures,
}

/// What a scrub did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubFigures {
    /// It goes on.
    pub is_running: bool,
    /// Granules read.
    pub scanned: u64,
    /// Granules to read.
    pub total: u64,
    /// Granules in runs that do not match their checksums.
    pub errors: u64,
    /// Granules that had no checksum and have one now.
    pub adopted: u64,
}

/// Stored checksums as one node sees them, since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChecksumStatus {
    /// Granules that did not match.
    pub errors: u64,
    /// Of these, written again with what another member had.
    pub repaired: u64,
    /// Of these, still bad: reads of them fail unless another member answers.
    pub unrepaired: u64,
    /// Of these, what no other member could be asked for.
    pub hopeless: u64,
    /// Pages of checksums that could not be read.
    pub lost_pages: u64,
    /// The newest scrub.
    pub scrub: ScrubFigures,
}

struct Run {
    next: u64,
    out: u32,
    /// Bytes per second; 0 is no limit.
    rate: u64,
    allowance: Allowance,
}

impl Scrubbing {
    /// It has to be called again before long.
    pub fn is_running(&self) -> bool {
        self.run.is_some() || self.is_sweeping
    }
}

impl Volume {
    /// Begins a scrub of this node's copy, or changes the rate of the one that runs.
    pub(super) fn start_scrub(&mut self, id: CommandId, rate: u64) {
        if !self.checksums.is_on() {
            return self.reply(id, Err(CommandError::NoChecksums));
        }
        if !self.is_disk_usable() {
            return self.reply(id, Err(CommandError::DiskFailed));
        }
        if self.role.waits_for_drain() {
            return self.reply(id, Err(CommandError::Stopping));
        }
        self.ops.attention = true;
        if let Some(run) = &mut self.scrub.run {
            run.rate = rate;
            return self.reply(id, Ok(Answer::Already));
        }
        self.scrub.run = Some(Run {
            next: 0,
            out: 0,
            rate,
            allowance: Allowance::new(self.now),
        });
        self.scrub.figures = ScrubFigures {
            is_running: true,
            total: self.size,
            ..ScrubFigures::default()
        };
        self.reply(id, Ok(Answer::Ok));
    }

    /// Stored checksums as this node sees them; `None` where none are stored.
    pub fn checksum_status(&self) -> Option<ChecksumStatus> {
        self.checksums.is_on().then(|| ChecksumStatus {
            errors: self.repairs.errors,
            repaired: self.repairs.repaired,
            unrepaired: self.repairs.unrepaired(),
            hopeless: self.repairs.hopeless(),
            lost_pages: self.repairs.lost_pages,
            scrub: self.scrub.figures,
        })
    }

    pub(super) fn settle_scrub(&mut self) {
        if !self.checksums.is_on() || !self.is_disk_usable() {
            return self.end_scrub();
        }
        if self.role.waits_for_drain() && !self.role.is_serving() {
            return self.end_scrub();
        }
        self.sweep();
        if self.may_mismatch() {
            // It goes on when the copy is in sync.
            return;
        }
        let now = self.now;
        while let Some(run) = &mut self.scrub.run {
            if run.next >= self.size {
                if run.out == 0 {
                    self.scrub_done();
                }
                return;
            }
            run.allowance.pay(now, run.rate);
            if run.out >= PIECES_MAX || !run.allowance.is_open() {
                return;
            }
            let end = self.size.min(run.next + RESYNC_PIECE_GRANULES);
            let extent = Extent::new(run.next, end);
            let Some(slot) = self.take_internal(SCRUB, extent, LinkId(0)) else {
                return;
            };
            if let Some(run) = &mut self.scrub.run {
                run.next = end;
                run.out += 1;
                run.allowance.take(extent.bytes());
            }
            self.order(slot, false);
        }
    }

    /// Takes the checksums of what lay in open extents from the data, piece by piece.
    fn sweep(&mut self) {
        if self.scrub.is_sweeping {
            return;
        }
        let Some(run) = self.checksums.untrusted.front() else {
            return;
        };
        let end = run.end.min(run.start + RESYNC_PIECE_GRANULES);
        let extent = Extent::new(run.start, end);
        if let Some(slot) = self.take_internal(SWEEP, extent, LinkId(0)) {
            self.scrub.is_sweeping = true;
            self.order(slot, false);
        }
    }

    pub(super) fn start_scrub_piece(&mut self, slot: u32) {
        let token = self.ops.token(Purpose::Job, slot);
        let extent = self.ops.get(slot).extent;
        self.ops.get_mut(slot).phase = Phase::Job;
        self.actions.push(Action::Job {
            token,
            job: Job::Scrub { extent },
        });
    }

    pub(super) fn scrubbed(&mut self, slot: u32, is_sweep: bool, outcome: &JobOutcome) {
        self.ops.attention = true;
        let extent = self.ops.get(slot).extent;
        let (bad, adopted, is_read) = match outcome {
            JobOutcome::Scrubbed(found) => (found.bad, found.adopted, true),
            _ => {
                self.notice(Notice::ReadError { extent });
                (None, 0, false)
            }
        };
        let in_doubt = bad.is_some() && self.may_mismatch();
        // Of what a sweep cannot read no checksum is known: the old one must not be found again.
        let forgets = is_sweep && !is_read;
        self.ops.get_mut(slot).kind = Kind::Scrub {
            is_sweep,
            adopted: adopted > 0 || forgets,
        };
        if is_sweep {
            self.swept(extent);
        } else if let Some(run) = &mut self.scrub.run {
            run.out -= 1;
            let figures = &mut self.scrub.figures;
            if in_doubt {
                // Once the copy is in sync it is looked at again, and all behind it.
                run.next = run.next.min(extent.start);
            } else {
                figures.scanned = figures.total.min(figures.scanned + extent.granules());
                figures.adopted += adopted;
                figures.errors += bad.map_or(0, Extent::granules);
            }
        }
        self.end(slot);
        match bad {
            Some(bad) => self.note_bad(bad),
            None if is_read => self.repairs.overwritten(extent),
            None => {}
        }
    }

    fn swept(&mut self, extent: Extent) {
        self.scrub.is_sweeping = false;
        let Some(mut run) = self.checksums.untrusted.pop_front() else {
            return;
        };
        run.start = extent.end;
        if run.start < run.end {
            self.checksums.untrusted.push_front(run);
        }
    }

    fn scrub_done(&mut self) {
        self.checksums.wants_all = true;
        let errors = self.scrub.figures.errors;
        self.end_scrub();
        self.notice(Notice::ScrubDone { errors });
    }

    fn end_scrub(&mut self) {
        if self.scrub.run.take_if(|run| run.out == 0).is_some() {
            self.scrub.figures.is_running = false;
        }
    }
}

const SCRUB: Kind = Kind::Scrub {
    is_sweep: false,
    adopted: false,
};
const SWEEP: Kind = Kind::Scrub {
    is_sweep: true,
    adopted: false,
};
