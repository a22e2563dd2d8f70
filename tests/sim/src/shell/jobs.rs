//! Jobs: a job begins with a read of the disk, which [`World::disk_ended`] ends, unless it only
//! copies a buffer or looks at the length of one.

use engine_core::action::Job;
use engine_core::event::{DiskError, Event, JobOutcome, Token};
use engine_core::units::{BufId, ByteRange, Extent, GRANULE};

use super::range_blocks;
use crate::disk::{BLOCK, BLOCKS_PER_GRANULE, Work};
use crate::world::{Happening, Pending, World};

impl World {
    pub(super) fn job(&mut self, node: usize, token: Token, job: Job) {
        if let Job::Copy { from, to, bytes } = job {
            return self.copy(node, token, from, to, bytes);
        }
        if let Job::Covers { buf, extent } = job {
            return self.covers(node, token, buf, extent);
        }
        let (extent, pending) = match job {
            Job::Merge { buf, range } => {
                if let Err(breach) = self.nodes[node].buffers.begin_write(buf) {
                    return self.fail("O2", breach);
                }
                self.count("merges");
                (range.cover(), Pending::Merge(token, buf, range))
            }
            Job::MergeZeros { range } => (range.cover(), Pending::MergeZeros(token, range)),
            Job::Sums { extent } => (Some(extent), Pending::Sums(token, extent)),
            Job::Hashes { extent, each } => (Some(extent), Pending::Hashes(token, extent, each)),
            Job::Scrub { extent } => (Some(extent), Pending::Scrub(token, extent)),
            Job::Copy { .. } | Job::Covers { .. } => unreachable!("they touch no disk"),
        };
        let Some(extent) = extent.filter(|e| e.bytes() <= 64 << 20) else {
            return self.fail(
                "O3",
                format!("node {node}: a job on an impossible range: {job:?}"),
            );
        };
        if self.is_inside(node, extent) {
            self.begin_disk(
                node,
                Work::Read {
                    extent,
                    before: Vec::new(),
                },
                pending,
            );
        }
    }

    fn copy(&mut self, node: usize, token: Token, from: BufId, to: BufId, bytes: u64) {
        let buffers = &mut self.nodes[node].buffers;
        let source = match buffers.begin_read(from).and_then(|tags| {
            buffers.begin_write(to)?;
            Ok(tags)
        }) {
            Ok(tags) => tags,
            Err(breach) => return self.fail("O2", breach),
        };
        let count = (bytes / BLOCK) as usize;
        if count > source.len() {
            return self.fail(
                "O3",
                format!("{bytes} bytes are copied from a smaller {from:?}"),
            );
        }
        let life = self.nodes[node].life;
        let delay = self.nodes[node].rng.between(1_000, 50_000);
        self.schedule(
            delay,
            Happening::Copied {
                node,
                life,
                token,
                from,
                to,
                count,
            },
        );
    }

    /// A copy ended: tells the core.
    pub fn copied(&mut self, node: usize, token: Token, from: BufId, to: BufId, count: usize) {
        let buffers = &mut self.nodes[node].buffers;
        let tags = buffers.peek(from).to_vec();
        buffers.end_read(from);
        buffers.end_write(to, |content| {
            let count = count.min(content.len());
            content[..count].copy_from_slice(&tags[..count]);
        });
        self.feed(
            node,
            Event::JobDone {
                token,
                outcome: JobOutcome::Done,
            },
        );
    }

    fn covers(&mut self, node: usize, token: Token, buf: BufId, extent: Extent) {
        let have = match self.nodes[node].buffers.held(buf) {
            Ok(buffer) => buffer.tags.len() as u64,
            Err(breach) => return self.fail("O2", breach),
        };
        let is_covered = have >= extent.granules() * BLOCKS_PER_GRANULE;
        let (life, delay) = (self.nodes[node].life, 1_000);
        let covered = Happening::Covered {
            node,
            life,
            token,
            is_covered,
        };
        self.schedule(delay, covered);
    }

    /// A look at the length of a payload ended: tells the core.
    pub fn covered(&mut self, node: usize, token: Token, is_covered: bool) {
        let outcome = match is_covered {
            true => JobOutcome::Done,
            false => JobOutcome::Failed(DiskError::Io),
        };
        self.feed(node, Event::JobDone { token, outcome });
    }
}

/// `content` covers the range rounded out to granules: what lies outside comes from the disk.
pub(super) fn fill_gaps(content: &mut [u64], disk: &[u64], range: ByteRange) {
    let base = range.offset / GRANULE * BLOCKS_PER_GRANULE;
    let inside = range_blocks(range);
    for (i, tag) in content.iter_mut().enumerate() {
        if !inside.contains(&(base + i as u64)) {
            *tag = disk[i];
        }
    }
}

pub(super) fn with_hole(mut granule: Vec<u64>, range: ByteRange) -> Vec<u64> {
    let base = range.offset / GRANULE * BLOCKS_PER_GRANULE;
    for block in range_blocks(range) {
        granule[(block - base) as usize] = 0;
    }
    granule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_come_from_the_disk_and_the_rest_from_the_client() {
        let mut content: Vec<u64> = (100..116).collect();
        let disk: Vec<u64> = (0..16).collect();
        fill_gaps(
            &mut content,
            &disk,
            ByteRange {
                offset: 4096 + 1024,
                len: 4096,
            },
        );
        assert_eq!(
            content,
            [
                0, 1, 102, 103, 104, 105, 106, 107, 108, 109, 10, 11, 12, 13, 14, 15
            ]
        );
    }

    #[test]
    fn a_hole_is_zeros_and_the_rest_stays() {
        let granule = with_hole(
            (1..9).collect(),
            ByteRange {
                offset: 8192 + 512,
                len: 1024,
            },
        );
        assert_eq!(granule, [1, 0, 0, 4, 5, 6, 7, 8]);
    }
}
