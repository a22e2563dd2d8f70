//! Before a data disk is given a write (laws B3, B10, M6, S2, S8).

use engine_core::message::Disk;
use engine_core::units::{BufId, Extent, GRANULES_PER_AL_EXTENT};

use super::granules_of_interest;
use crate::buffers::Origin;
use crate::world::{Pending, World};

impl World {
    /// Before a data disk is given a write.
    pub fn law_before_write(&mut self, node: usize, extent: Extent, buf: Option<BufId>) {
        // B10: overlapping writes reach every disk in seq order, so never at once.
        let other = self.nodes[node].disk.writing().find(|e| e.overlaps(extent));
        if let Some(other) = other {
            let text = format!("node {node} writes {extent:?} while {other:?} is being written");
            return self.fail("B10", text);
        }
        let origin = buf
            .and_then(|b| self.nodes[node].buffers.held(b).ok())
            .map(|b| b.origin);
        let is_resync = matches!(
            origin,
            Some(Origin::Payload {
                is_resync: true,
                ..
            })
        );
        if let Some(Origin::Payload {
            is_intact: false, ..
        }) = origin
        {
            return self.fail(
                "M6",
                format!("node {node} writes damaged payload to {extent:?}"),
            );
        }
        if let Some(buf) = buf
            && let Some((request, is_closing)) = self.clients.by_buffer(node, buf)
        {
            let was = std::mem::replace(&mut request.is_dispatched, true);
            if is_closing && !was {
                let text = format!("a request of a closed session is dispatched to {extent:?}");
                return self.fail("B3", text);
            }
        }
        self.refresh(node);
        let Some(found) = self.peek(node) else { return };
        if is_resync && !matches!(found.disk, Disk::Inconsistent | Disk::Failed) {
            let state = found.disk;
            let text =
                format!("node {node} writes resync data to a copy that is durably {state:?}");
            return self.fail("S8", text);
        }
        let is_target = matches!(found.disk, Disk::Inconsistent | Disk::Failed);
        // A repair writes again what the disk was given long ago: it makes no copy differ.
        let has_sums = self.plan.settings.sum_pages > 0;
        let is_told = matches!(origin, Some(Origin::Payload { .. }));
        let is_repair = has_sums
            && is_told
            && buf.is_some_and(|b| {
                let tags = self.nodes[node].buffers.peek(b);
                tags == self.nodes[node].disk.live().read(extent)
            });
        let is_exempt = is_resync || is_repair || (is_target && buf.is_none());
        if self.nodes.len() > 1 && !is_exempt {
            self.law_mark_comes_first(node, extent);
        }
    }

    /// S2: a replica's mark is durable before that replica's disk is given the write.
    fn law_mark_comes_first(&mut self, node: usize, extent: Extent) {
        let Some(found) = self.peek(node) else { return };
        let hot = self.hot();
        let (first, end) = extent.al_extents();
        let mut granules = granules_of_interest(extent, &hot);
        granules.extend((first + 1..end).map(|e| e * GRANULES_PER_AL_EXTENT));
        let hole = granules.into_iter().find(|g| {
            let marked = self
                .all()
                .filter(|p| *p != node)
                .all(|p| found.is_dirty(p, *g));
            !found.is_open(*g) && !marked
        });
        if let Some(granule) = hole {
            let text = format!("node {node} writes granule {granule}, no durable mark covers it");
            self.fail("S2", text);
        }
    }

    /// Something still writes this buffer to a disk.
    pub fn is_writing_from(&self, node: usize, buf: BufId) -> bool {
        let is_it = |p: &Pending| matches!(p, Pending::Write(_, b, _) if *b == buf);
        self.nodes[node].pending.values().any(is_it)
    }
}
