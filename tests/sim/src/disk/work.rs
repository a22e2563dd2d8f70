//! Operations: they begin, are under way, and land or fail when they end.

use std::collections::BTreeSet;
use std::rc::Rc;

use engine_core::event::DiskError;
use engine_core::units::Extent;

use super::{Disk, Granule, Image, blocks};

/// What an operation does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Content as it was when the read began; mixed at the end with what came meanwhile.
    Read {
        /// Where.
        extent: Extent,
        /// What was not zeros at the start.
        before: Vec<(u64, Granule)>,
    },
    /// Store these tags.
    Write {
        /// Where.
        extent: Extent,
        /// One per block.
        tags: Rc<Vec<u64>>,
        /// Through to stable storage.
        durable: bool,
    },
    /// Make zeros.
    Zero {
        /// Where.
        extent: Extent,
        /// Through to stable storage.
        durable: bool,
    },
    /// What completed before the stamp becomes durable.
    Flush {
        /// Clock when it began.
        upto: u64,
    },
}

impl Work {
    /// What it changes, if it changes something.
    pub(super) fn target(&self) -> Option<Extent> {
        match self {
            Work::Write { extent, .. } | Work::Zero { extent, .. } => Some(*extent),
            Work::Read { .. } | Work::Flush { .. } => None,
        }
    }
}

impl Disk {
    /// Extents being written now.
    pub fn writing(&self) -> impl Iterator<Item = Extent> + '_ {
        self.in_flight.values().filter_map(Work::target)
    }

    /// Operations under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Begins a read.
    pub fn read(&mut self, extent: Extent) -> u64 {
        let before = self.seen_written(extent);
        self.begin(Work::Read { extent, before })
    }

    /// Begins anything; the number names it until [`Disk::finish`].
    pub fn begin(&mut self, work: Work) -> u64 {
        let io = self.next_io;
        self.next_io += 1;
        self.in_flight.insert(io, work);
        io
    }

    /// Begins a flush of what completed so far.
    pub fn flush(&mut self) -> u64 {
        let upto = self.clock;
        self.begin(Work::Flush { upto })
    }

    /// Ends an operation. The tags are those a read returned.
    pub fn finish(&mut self, io: u64) -> (Result<(), DiskError>, Vec<u64>) {
        let work = self
            .in_flight
            .remove(&io)
            .expect("an operation finishes once");
        match work {
            Work::Read { .. } if self.faults.read_error => (Err(DiskError::Io), Vec::new()),
            Work::Read { extent, before } => (Ok(()), self.mixed(extent, &before)),
            Work::Write { .. } | Work::Zero { .. } if self.faults.is_full => {
                self.land_partly(&work);
                (Err(DiskError::NoSpace), Vec::new())
            }
            Work::Write { .. } | Work::Zero { .. } if self.faults.write_error => {
                self.land_partly(&work);
                (Err(DiskError::Io), Vec::new())
            }
            Work::Write { .. } | Work::Zero { .. } => {
                match self.trick.take() {
                    Some(trick) => self.deceive(&work, trick),
                    None => self.land(&work),
                }
                (Ok(()), Vec::new())
            }
            Work::Flush { .. } if self.faults.flush_error_once => {
                self.faults.flush_error_once = false;
                self.lose_at_will();
                (Err(DiskError::Io), Vec::new())
            }
            Work::Flush { upto } => {
                self.sync(upto);
                (Ok(()), Vec::new())
            }
        }
    }

    /// Old content, new content or content on its way: a read that meets a write sees any.
    fn mixed(&mut self, extent: Extent, before: &[(u64, Granule)]) -> Vec<u64> {
        let mut tags = self.seen(extent);
        let first = blocks(extent).start;
        let now = self.seen_written(extent);
        if now != before {
            let old: Image = Image(before.iter().copied().collect());
            let now = now.iter().map(|(granule, _)| *granule);
            let all: BTreeSet<u64> = now.chain(old.granules()).collect();
            for block in all.into_iter().flat_map(|g| blocks(Extent::new(g, g + 1))) {
                let tag = &mut tags[(block - first) as usize];
                if *tag != old.block(block) && self.rng.coin() {
                    *tag = old.block(block);
                }
            }
        }
        for work in self.in_flight.values() {
            let Some(common) = work.target().and_then(|at| at.intersect(extent)) else {
                continue;
            };
            for block in blocks(common) {
                if self.rng.coin() {
                    tags[(block - first) as usize] = match work {
                        Work::Write {
                            extent: at, tags, ..
                        } => tags[(block - blocks(*at).start) as usize],
                        _ => 0,
                    };
                }
            }
        }
        tags
    }

    pub(super) fn changes(&self, work: &Work) -> (Vec<(u64, u64)>, bool) {
        match work {
            Work::Write {
                extent,
                tags,
                durable,
            } => (
                blocks(*extent).zip(tags.iter().copied()).collect(),
                *durable,
            ),
            Work::Zero { extent, durable } => {
                let mut changed: BTreeSet<u64> = self.live.nonzero(*extent).into_iter().collect();
                // A block that reads as zeros may still have an older durable version.
                changed.extend(self.unsynced.range(blocks(*extent)).map(|(b, _)| *b));
                (changed.into_iter().map(|b| (b, 0)).collect(), *durable)
            }
            Work::Read { .. } | Work::Flush { .. } => (Vec::new(), false),
        }
    }

    pub(super) fn land(&mut self, work: &Work) {
        if let Work::Zero { extent, .. } = work {
            self.damaged
                .retain(|g, _| !(extent.start..extent.end).contains(g));
        }
        let (changes, durable) = self.changes(work);
        changes
            .into_iter()
            .for_each(|(block, tag)| self.store(block, tag, durable));
    }

    pub(super) fn land_partly(&mut self, work: &Work) {
        let (changes, _) = self.changes(work);
        for (block, tag) in changes {
            if self.rng.coin() {
                self.store(block, tag, false);
            }
        }
    }
}
