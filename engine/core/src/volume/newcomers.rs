//! Bitmaps of replicas that came after this one was formatted (docs/design/0008-members.md).
//!
//! ```text
//!  the table names a replica without one ─► all set, in memory
//!      ─► its pages, twice, behind the end of the area ─► superblock lists the region: the commit
//! ```
//!
//! Until the commit an attach begins anew, with everything set: that says too much, never too
//! little (law S1). Of a replica that is gone the bitmap stays: whoever is asked back lacks what it
//! says, and another one under its index lacks everything (law S11).

use crate::bitmap::{Bitmap, pages_for};
use crate::meta::{FEATURE_NODES, PageWriter, Region};
use crate::table::Table;
use crate::units::NodeIdx;

use super::{Volume, planted};

/// A region that no superblock lists yet.
#[derive(Clone, Copy)]
pub(super) struct Newcomer {
    node: NodeIdx,
    region: Region,
    /// Its pages are written for the second time, so that both slots of each are whole.
    is_second: bool,
}

impl Volume {
    /// Every replica that this table names has a bitmap from here on.
    pub(super) fn account_for(&mut self, table: &Table) {
        let accounted = table.accounted();
        if !accounted.has(self.me) {
            return;
        }
        for node in accounted.without(self.me).iter() {
            if self.peers.find(node).is_none() {
                self.begin_bitmap(node);
            }
        }
    }

    fn begin_bitmap(&mut self, node: NodeIdx) {
        // A growth that is not committed yet has widened the others.
        let widened = self.peers.iter().map(|p| p.dirty.size_granules());
        let size = widened.fold(self.size, u64::max);
        let grain = self.durable.sb.grain;
        let pages = pages_for(size, grain);
        let room = self.marks.size_max().map(|max| pages_for(max, grain));
        let room = self.peers.iter().map(|p| p.pages_max as u64).chain(room);
        let listed = self.durable.sb.regions.iter();
        let begun = self.newcomers.iter().map(|n| &n.region);
        let ends = listed.chain(begun).map(|r| r.offset + r.length);
        let end = ends.max().expect("there is an activity log");
        let region = Region::bitmap(node, end, room.fold(pages, u64::max));
        let mut bitmap = Bitmap::new(size, grain);
        bitmap.set_all();
        bitmap.touch_pages(0);
        let writer = PageWriter::unwritten(region.offset, pages as usize);
        let pages_max = region.pages() as usize;
        self.peers.add(node, bitmap, writer, pages_max);
        self.newcomers.push(Newcomer {
            node,
            region,
            is_second: false,
        });
        self.ops.attention = true;
    }

    /// Lists a region once both slots of all its pages are written.
    pub(super) fn settle_newcomers(&mut self) {
        let Some(Newcomer {
            node,
            region,
            is_second,
        }) = self.newcomers.first().copied()
        else {
            return;
        };
        self.pages.wants_all = true;
        if !self.are_bits_durable(node) {
            return;
        }
        if !is_second && !planted!(self, NewcomerListedEarly) {
            self.newcomers[0].is_second = true;
            return self.peers.get_mut(node).dirty.touch_pages(0);
        }
        self.newcomers.remove(0);
        let sb = &mut self.durable.sb;
        sb.regions.push(region);
        sb.features_incompatible |= FEATURE_NODES;
        self.durable.touch();
        self.ops.attention = true;
    }
}
