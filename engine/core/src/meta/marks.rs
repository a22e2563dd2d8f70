//! Pages of marks: a bitmap per slot, not written before use.
//!
//! | slots of a page (or mirrored) | means |
//! |---|---|
//! | valid, valid | the higher counter |
//! | valid, torn, foreign or blank | the valid one |
//! | none valid, one torn at most | nothing was written since the mark began: no bit is set. A first write that was torn covers open activity-log extents, which become bits again |
//! | both torn, misplaced, of another version, or same counter twice | lost: all of the mark counts as changed |
//!
//! Bits past the volume's end are left out: a growth writes them before it is committed.
//!
//! A mark never costs the replica: where peers' bitmaps refuse, it says too much.

use crate::action::{META_BLOCK, MetaBlock};
use crate::bitmap::{BITS_PER_PAGE, Bitmap, pages_for};
use crate::marks::{MARKS_KEY, MARKS_MAX, MarkEntry, decode_marks};
use crate::meta::block::{Finding, Kind, examine};
use crate::meta::layout::Region;
use crate::meta::load::Loaded;
use crate::meta::pages::{Newest, PageWriter, Slot, decode_bitmap_page, mark_life, slot_block};
use crate::meta::superblock::Superblock;

/// Page pairs read at once.
const PAGES_AT_ONCE: usize = 64;

/// Where the pages of marks lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkRegion {
    offset: u64,
    /// Pages of a slot that are in use, and those it has room for.
    pages: usize,
    pages_max: usize,
    size_granules: u64,
    grain: u32,
    incarnation: u128,
}

/// A mark as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedMark {
    /// As the table lists it; a lost page makes all of it count as changed.
    pub entry: MarkEntry,
    /// Its bits; empty where all of it counts as changed.
    pub bitmap: Bitmap,
    /// Where its pages go next.
    pub writer: PageWriter,
}

impl MarkRegion {
    pub(super) fn new(region: &Region, superblock: &Superblock) -> MarkRegion {
        MarkRegion {
            offset: region.offset,
            pages: pages_for(superblock.size_granules, superblock.grain) as usize,
            pages_max: region.pages() as usize / MARKS_MAX,
            size_granules: superblock.size_granules,
            grain: superblock.grain,
            incarnation: superblock.incarnation,
        }
    }

    fn slot_offset(&self, slot: u8) -> u64 {
        self.offset + u64::from(slot) * 2 * self.pages_max as u64
    }

    /// The largest volume whose marks it has room for.
    pub fn size_granules_max(&self) -> u64 {
        self.pages_max as u64 * BITS_PER_PAGE * u64::from(self.grain)
    }

    /// The volume has grown, to at most [`MarkRegion::size_granules_max`].
    pub fn grow(&mut self, size_granules: u64) {
        self.size_granules = size_granules;
        self.pages = pages_for(size_granules, self.grain) as usize;
        assert!(
            self.pages <= self.pages_max,
            "{} pages of {}",
            self.pages,
            self.pages_max
        );
    }

    /// For the pages of a slot that was used before the volume grew. `superblock` is the counter
    /// of the newest superblock: every attach writes one, so that it is above the counters of
    /// pages that an earlier process wrote once for a growth and did not commit.
    pub fn grow_writer(&self, writer: &mut PageWriter, superblock: u64) {
        writer.grow(self.pages, superblock);
    }

    /// For a new mark in this slot: nothing that lies there counts.
    pub fn fresh(&self, slot: u8) -> (Bitmap, PageWriter) {
        let bitmap = Bitmap::new(self.size_granules, self.grain);
        let writer = PageWriter::unwritten(self.slot_offset(slot), self.pages);
        (bitmap, writer)
    }
}

/// Reads the bits of every listed mark. `read` fills its buffer from a block on, zeros where the
/// area ends; its first error ends the reading. A table that is none leaves no marks.
pub fn load_marks<E>(
    loaded: &mut Loaded,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    let Some(region) = loaded.mark_region else {
        return Ok(());
    };
    let value = loaded.attributes.attributes.get(MARKS_KEY);
    let entries = value.and_then(|v| decode_marks(v)).unwrap_or_default();
    loaded.marks = entries
        .into_iter()
        .map(|entry| load_mark(region, entry, &mut read))
        .collect::<Result<_, E>>()?;
    Ok(())
}

fn load_mark<E>(
    region: MarkRegion,
    mut entry: MarkEntry,
    read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<LoadedMark, E> {
    let (mut bitmap, mut writer) = region.fresh(entry.slot);
    let life = mark_life(region.incarnation, entry.id);
    let offset = region.slot_offset(entry.slot);
    let mut buffer = vec![0; 2 * PAGES_AT_ONCE.min(region.pages) * META_BLOCK];
    let mut page = 0;
    while page < region.pages && !entry.is_whole {
        let count = PAGES_AT_ONCE.min(region.pages - page);
        let bytes = &mut buffer[..2 * count * META_BLOCK];
        read(slot_block(offset, page, Slot::A), bytes)?;
        for pair in bytes.chunks_exact(2 * META_BLOCK) {
            let (a, b) = pair.split_at(META_BLOCK);
            let (a, b) = (block_of(a), block_of(b));
            match judge(a, b, slot_block(offset, page, Slot::A), life) {
                Judged::Newest(newest) => {
                    let newest_bytes = if newest.slot == Slot::A { a } else { b };
                    bitmap.load_page_cut(page, &decode_bitmap_page(newest_bytes));
                    writer.set_newest(page, newest);
                }
                Judged::Unwritten => {}
                Judged::Lost => entry.is_whole = true,
            }
            page += 1;
        }
    }
    Ok(LoadedMark {
        entry,
        bitmap,
        writer,
    })
}

fn block_of(bytes: &[u8]) -> &MetaBlock {
    bytes.try_into().expect("the slice was cut to one block")
}

enum Judged {
    Newest(Newest),
    Unwritten,
    Lost,
}

fn judge(a: &MetaBlock, b: &MetaBlock, block: u64, life: u128) -> Judged {
    use Finding as F;
    let (a, b) = (
        examine(a, Kind::Mark, block, Some(life)),
        examine(b, Kind::Mark, block + 1, Some(life)),
    );
    let newest = |slot, counter| Judged::Newest(Newest { slot, counter });
    let is_sound = |f: F| matches!(f, F::Torn | F::Foreign { .. } | F::Blank);
    match (a, b) {
        (F::Valid { counter: a }, F::Valid { counter: b }) if a > b => newest(Slot::A, a),
        (F::Valid { counter: a }, F::Valid { counter: b }) if a < b => newest(Slot::B, b),
        (F::Valid { counter }, other) if is_sound(other) => newest(Slot::A, counter),
        (other, F::Valid { counter }) if is_sound(other) => newest(Slot::B, counter),
        (F::Torn, F::Torn) => Judged::Lost,
        (a, b) if is_sound(a) && is_sound(b) => Judged::Unwritten,
        _ => Judged::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::pages::encode_mark_page;

    const LIFE: u128 = 7;

    fn page(mark: u128, slot: u64, counter: u64) -> Box<MetaBlock> {
        encode_mark_page(LIFE, mark, &[1; 504], 40 + slot, counter)
    }

    fn found(a: &MetaBlock, b: &MetaBlock) -> &'static str {
        match judge(a, b, 40, mark_life(LIFE, 3)) {
            Judged::Newest(Newest { slot: Slot::A, .. }) => "a",
            Judged::Newest(_) => "b",
            Judged::Unwritten => "unwritten",
            Judged::Lost => "lost",
        }
    }

    #[test]
    fn a_page_of_a_mark_is_found_unwritten_or_lost() {
        let blank = Box::new([0; META_BLOCK]);
        let mut torn = page(3, 0, 9);
        torn[100] ^= 1;
        let cases = [
            (page(3, 0, 1), blank.clone(), "a"),
            (page(3, 0, 1), page(3, 1, 2), "b"),
            (page(3, 0, 3), page(3, 1, 2), "a"),
            (torn.clone(), page(3, 1, 2), "b"),
            (page(3, 0, 1), page(9, 1, 7), "a"),
            (page(9, 0, 6), page(9, 1, 7), "unwritten"),
            (blank.clone(), blank.clone(), "unwritten"),
            (torn.clone(), page(9, 1, 7), "unwritten"),
            (torn.clone(), torn.clone(), "lost"),
            (page(3, 0, 2), page(3, 1, 2), "lost"),
            (page(3, 1, 2), page(3, 1, 3), "lost"),
        ];
        for (index, (a, b, expected)) in cases.iter().enumerate() {
            assert_eq!(found(a, b), *expected, "case {index}");
        }
    }
}
