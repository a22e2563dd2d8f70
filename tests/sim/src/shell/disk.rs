//! What a core asks of its data disk: operations begin, take their time, end, and the core is told.
//! Of metadata only the end of a write, and the process that dies in one.

use engine_core::action::ReadInto;
use engine_core::checksums::Scrubbed;
use engine_core::event::{DiskError, Event, JobOutcome, Token};
use engine_core::units::{BufId, Extent};

use super::jobs::{fill_gaps, with_hole};
use super::{hashes, sums};
use crate::buffers::Origin;
use crate::disk::{BLOCKS_PER_GRANULE, Work};
use crate::world::{Happening, Pending, World};

impl World {
    /// The plan may want the process to die while this metadata write is under way.
    pub(super) fn doom_in_meta_write(&mut self, node: usize, delay: u64) {
        let Some((writes, down)) = self.nodes[node].meta_doom else {
            return;
        };
        self.nodes[node].meta_doom = (writes > 1).then_some((writes - 1, down));
        if writes == 1 {
            let life = self.nodes[node].life;
            let at = self.rng.below(delay);
            self.schedule(at, Happening::Kill { node, life, down });
        }
    }

    /// Begins a data-disk operation and schedules its end.
    pub(super) fn begin_disk(&mut self, node: usize, work: Work, pending: Pending) {
        let io = match work {
            Work::Read { extent, .. } => self.nodes[node].disk.read(extent),
            other => self.nodes[node].disk.begin(other),
        };
        self.nodes[node].pending.insert(io, pending);
        self.finish_later(node, io, 20_000, 250_000);
    }

    pub(super) fn finish_later(&mut self, node: usize, io: u64, low: u64, high: u64) {
        let machine = &mut self.nodes[node];
        let rare = if machine.rng.one_in(24) { 12 } else { 1 };
        let delay = machine.rng.between(low, high) * rare * machine.disk.faults.slowness;
        let life = machine.life;
        self.schedule(delay, Happening::DiskIo { node, life, io });
    }

    pub(super) fn is_inside(&mut self, node: usize, extent: Extent) -> bool {
        let mut end = self.granules_on(node);
        if extent.end > end {
            // It may have grown in this turn.
            end = self.found(node).map_or(end, |f| f.granules);
        }
        let inside = extent.end <= end;
        if !inside {
            self.fail(
                "S7",
                format!("node {node}: {extent:?} lies past the end of the volume, {end}"),
            );
        }
        inside
    }

    pub(super) fn disk_read(&mut self, node: usize, token: Token, extent: Extent, into: ReadInto) {
        if !self.is_inside(node, extent) {
            return;
        }
        let pending = match into {
            ReadInto::Alloc => Pending::ReadAlloc(token, extent),
            ReadInto::Buf(buf) => {
                if let Err(breach) = self.nodes[node].buffers.begin_write(buf) {
                    return self.fail("O2", breach);
                }
                Pending::Read(token, buf, extent)
            }
        };
        self.begin_disk(
            node,
            Work::Read {
                extent,
                before: Vec::new(),
            },
            pending,
        );
    }

    pub(super) fn disk_write(
        &mut self,
        node: usize,
        token: Token,
        extent: Extent,
        buf: BufId,
        durable: bool,
    ) {
        if !self.is_inside(node, extent) {
            return;
        }
        let tags = match self.nodes[node].buffers.begin_read(buf) {
            Ok(tags) => tags,
            Err(breach) => return self.fail("O2", breach),
        };
        if tags.len() as u64 != extent.granules() * BLOCKS_PER_GRANULE {
            return self.fail("B11", format!("{buf:?} does not cover exactly {extent:?}"));
        }
        self.law_before_write(node, extent, Some(buf));
        self.begin_disk(
            node,
            Work::Write {
                extent,
                tags,
                durable,
            },
            Pending::Write(token, buf, extent),
        );
    }

    /// A data-disk operation ended: tells the core.
    pub fn disk_ended(&mut self, node: usize, io: u64) {
        let fails_flush = self.nodes[node].disk.faults.flush_error_once;
        let has_trick = self.nodes[node].disk.trick.is_some();
        let (result, tags) = self.nodes[node].disk.finish(io);
        self.nodes[node].has_failed_flush |=
            fails_flush && !self.nodes[node].disk.faults.flush_error_once;
        let pending = self.nodes[node]
            .pending
            .remove(&io)
            .expect("somebody waits for it");
        if let Pending::Write(_, buf, _) = pending {
            let written = self.nodes[node].buffers.peek(buf).to_vec();
            self.keep_sums(node, &pending, &written, result.is_ok());
        } else {
            self.keep_sums(node, &pending, &[], result.is_ok());
        }
        // A write that failed may have left anything: of what it covers nothing is known.
        if (has_trick && self.nodes[node].disk.trick.is_none()) || result.is_err() {
            self.undo_damage_nobody_could_find(node);
        }
        let result = result.and_then(|()| self.check(node, &pending, &tags));
        let scrubbed = match (pending, &mut self.nodes[node].sums) {
            (Pending::Scrub(_, extent), Some(table)) if result.is_ok() => {
                table.scrub(extent, &sums(&tags))
            }
            _ => Scrubbed::default(),
        };
        if let Some(bad) = scrubbed.bad {
            self.note_mismatch(node, bad);
        }
        let buffers = &mut self.nodes[node].buffers;
        let done = |token, buf, is_zero| Event::DiskDone {
            token,
            result,
            buf,
            is_zero,
        };
        let failed = |token, error: DiskError| Event::JobDone {
            token,
            outcome: JobOutcome::Failed(error),
        };
        let event = match (pending, result) {
            (Pending::Plain(token) | Pending::Zero(token, _), _) => done(token, None, false),
            (Pending::Scrub(token, _), Ok(())) => Event::JobDone {
                token,
                outcome: JobOutcome::Scrubbed(scrubbed),
            },
            (Pending::Write(token, buf, _), _) => {
                buffers.end_read(buf);
                done(token, None, false)
            }
            (Pending::Read(token, buf, _), Ok(())) => {
                buffers.end_write(buf, |content| *content = tags);
                done(token, None, false)
            }
            (Pending::Read(token, buf, _), Err(_)) => {
                buffers.end_write(buf, |_| {});
                done(token, None, false)
            }
            (Pending::ReadAlloc(token, _), Ok(()) | Err(DiskError::Checksum(_))) => {
                let is_zero = tags.iter().all(|t| *t == 0);
                let buf = buffers.add(tags, Origin::Alloc);
                done(token, Some(buf), is_zero)
            }
            (Pending::ReadAlloc(token, _), Err(_)) => done(token, None, false),
            (Pending::Merge(token, buf, _), Err(error)) => {
                buffers.end_write(buf, |_| {});
                failed(token, error)
            }
            (
                Pending::MergeZeros(token, _)
                | Pending::Sums(token, _)
                | Pending::Hashes(token, ..)
                | Pending::Scrub(token, _),
                Err(error),
            ) => failed(token, error),
            (Pending::Merge(token, buf, range), Ok(())) => {
                buffers.end_write(buf, |content| fill_gaps(content, &tags, range));
                Event::JobDone {
                    token,
                    outcome: JobOutcome::Done,
                }
            }
            (Pending::MergeZeros(token, range), Ok(())) => {
                let buf = buffers.add(with_hole(tags, range), Origin::Job);
                Event::JobDone {
                    token,
                    outcome: JobOutcome::Buffer(buf),
                }
            }
            (Pending::Hashes(token, _, each), Ok(())) => Event::JobDone {
                token,
                outcome: JobOutcome::Hashes(hashes(&tags, each)),
            },
            (Pending::Sums(token, _), Ok(())) => Event::JobDone {
                token,
                outcome: JobOutcome::Sums(sums(&tags)),
            },
        };
        self.note_disk(node);
        self.feed(node, event);
    }

    /// A metadata write ended: tells the core.
    pub fn meta_ended(&mut self, node: usize, io: u64, token: Token) {
        let is_durable = self.nodes[node].meta.finish(io);
        let result = if is_durable {
            Ok(())
        } else {
            Err(DiskError::Io)
        };
        self.feed(node, Event::MetaDone { token, result });
    }
}
