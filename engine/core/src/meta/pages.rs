//! Pages of a region: the next slot of each, and their bytes.

use crate::action::MetaBlock;
use crate::bitmap::WORDS_PER_PAGE;
use crate::meta::block::{HEADER_LEN, Kind, seal};
use crate::meta::bytes::{get_u32, get_u64, put};

/// Slots in one activity-log page: 504 × 8 = 4032 bytes.
pub const LOG_SLOTS_PER_PAGE: usize = 504;

/// One of the two places of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The lower block.
    A,
    /// The block after it.
    B,
}

impl Slot {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }
}

/// A run of 4 MiB extents that may differ between replicas; count 0 is a free slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSlot {
    /// First extent.
    pub start: u32,
    /// Number of extents.
    pub count: u32,
}

impl LogSlot {
    /// Holds nothing.
    pub const FREE: LogSlot = LogSlot { start: 0, count: 0 };

    /// Holds nothing.
    pub fn is_free(self) -> bool {
        self.count == 0
    }
}

/// Slots of one activity-log page.
pub type LogPage = [LogSlot; LOG_SLOTS_PER_PAGE];

/// Where the newest version of one page lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) slot: Slot,
    pub(super) counter: u64,
}

/// Says, for each page of a region, which block to write next and with which counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageWriter {
    /// First block of the region.
    offset: u64,
    newest: Vec<Newest>,
}

impl PageWriter {
    pub(super) fn new(offset: u64, newest: Vec<Newest>) -> PageWriter {
        PageWriter { offset, newest }
    }

    /// For pages of which nothing on disk counts.
    pub(crate) fn unwritten(offset: u64, pages: usize) -> PageWriter {
        let nothing = Newest {
            slot: Slot::B,
            counter: 0,
        };
        PageWriter::new(offset, vec![nothing; pages])
    }

    /// The region has more pages now. Of those nothing counts, but a growth that ended before its
    /// superblock was written may have left some: `counter` is above theirs.
    pub(crate) fn grow(&mut self, pages: usize, counter: u64) {
        let slot = Slot::B;
        let pages = pages.max(self.newest.len());
        self.newest.resize(pages, Newest { slot, counter });
    }

    /// The newest counter of a page. Panics past [`PageWriter::page_count`].
    pub fn counter(&self, page: usize) -> u64 {
        self.newest[page].counter
    }

    /// What counts of this page was found elsewhere than its newest version.
    pub(super) fn set_newest(&mut self, page: usize, newest: Newest) {
        self.newest[page] = newest;
    }

    /// Pages of the region.
    pub fn page_count(&self) -> usize {
        self.newest.len()
    }

    /// The block the next version of `page` goes to, and its counter: the slot that does not
    /// hold the newest version. Call it once per write, and not again for this page before that
    /// write is durable, or a crash may tear both slots. Panics past [`PageWriter::page_count`].
    pub fn next_block(&mut self, page: usize) -> (u64, u64) {
        let newest = &mut self.newest[page];
        *newest = Newest {
            slot: newest.slot.other(),
            counter: newest.counter + 1,
        };
        (slot_block(self.offset, page, newest.slot), newest.counter)
    }
}

/// Block of one slot of one page.
pub(super) fn slot_block(offset: u64, page: usize, slot: Slot) -> u64 {
    offset + 2 * page as u64 + if slot == Slot::A { 0 } else { 1 }
}

/// An activity-log page for `block`, as [`PageWriter::next_block`] named it.
pub fn encode_activity_log_page(
    incarnation: u128,
    slots: &LogPage,
    block: u64,
    counter: u64,
) -> Box<MetaBlock> {
    seal(Kind::ActivityLog, incarnation, block, counter, |bytes| {
        for (index, slot) in slots.iter().enumerate() {
            put(bytes, HEADER_LEN + 8 * index, &slot.start.to_le_bytes());
            put(bytes, HEADER_LEN + 8 * index + 4, &slot.count.to_le_bytes());
        }
    })
}

pub(super) fn decode_activity_log_page(bytes: &MetaBlock) -> LogPage {
    std::array::from_fn(|index| LogSlot {
        start: get_u32(bytes, HEADER_LEN + 8 * index),
        count: get_u32(bytes, HEADER_LEN + 8 * index + 4),
    })
}

/// A bitmap page for `block`, as [`PageWriter::next_block`] named it.
pub fn encode_bitmap_page(
    incarnation: u128,
    words: &[u64; WORDS_PER_PAGE],
    block: u64,
    counter: u64,
) -> Box<MetaBlock> {
    seal(Kind::Bitmap, incarnation, block, counter, |bytes| {
        for (index, word) in words.iter().enumerate() {
            put(bytes, HEADER_LEN + 8 * index, &word.to_le_bytes());
        }
    })
}

pub(super) fn decode_bitmap_page(bytes: &MetaBlock) -> [u64; WORDS_PER_PAGE] {
    std::array::from_fn(|index| get_u64(bytes, HEADER_LEN + 8 * index))
}

/// The life in the header of a mark's pages: this replica's mixed with the mark's id, so that
/// pages of an earlier mark in the same slot are foreign.
pub fn mark_life(incarnation: u128, mark: u128) -> u128 {
    incarnation ^ mark.rotate_left(1)
}

/// A page of a mark for `block`, as [`PageWriter::next_block`] named it.
pub fn encode_mark_page(
    incarnation: u128,
    mark: u128,
    words: &[u64; WORDS_PER_PAGE],
    block: u64,
    counter: u64,
) -> Box<MetaBlock> {
    let life = mark_life(incarnation, mark);
    seal(Kind::Mark, life, block, counter, |bytes| {
        for (index, word) in words.iter().enumerate() {
            put(bytes, HEADER_LEN + 8 * index, &word.to_le_bytes());
        }
    })
}

/// An empty page of the region of attributes.
pub(super) fn encode_attributes_page(
    incarnation: u128,
    block: u64,
    counter: u64,
) -> Box<MetaBlock> {
    seal(Kind::Attributes, incarnation, block, counter, |_| {})
}
