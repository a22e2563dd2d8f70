//! What one peer lacks: a bit per grain, with its pages as they lie on disk.
//!
//! ```text
//!  set / clear ─► words (504 per page) ─► occupied: which words hold a bit   ─► next_run
//!                                      └► stale: which pages differ from disk ─► next_dirty_page
//! ```
//!
//! All memory is taken by [`Bitmap::new`]. What this does not do: write pages, know peers, or
//! decide when a bit may be cleared (law S4).

use std::ops::Range;

use crate::units::Extent;

#[cfg(test)]
mod tests;

/// 64-bit words in one page on disk: 4032 bytes.
pub const WORDS_PER_PAGE: usize = 504;
/// Bits in one page on disk.
pub const BITS_PER_PAGE: u64 = WORDS_PER_PAGE as u64 * 64;

const WORD_BITS: u64 = 64;
/// Words of one unit: half an activity-log extent where a bit covers a granule.
const WORDS_PER_UNIT: usize = 8;
const UNITS_PER_PAGE: usize = WORDS_PER_PAGE / WORDS_PER_UNIT;
/// 4 TiB and 16 TiB in granules.
const SMALL_GRANULES: u64 = 1 << 30;
const SMALL_ABOVE: u64 = SMALL_GRANULES + 1;
const MEDIUM_GRANULES: u64 = 1 << 32;

/// Granules one bit covers for a volume of this size: 4 KiB up to 4 TiB, 16 KiB up to 16 TiB,
/// 64 KiB above (DESIGN D10).
pub fn grain_for(size_granules: u64) -> u32 {
    match size_granules {
        ..=SMALL_GRANULES => 1,
        SMALL_ABOVE..=MEDIUM_GRANULES => 4,
        _ => 16,
    }
}

/// Bits a volume needs, one per grain; the last may cover less.
pub fn bits_for(size_granules: u64, grain_granules: u32) -> u64 {
    size_granules.div_ceil(u64::from(grain_granules))
}

/// Pages these bits fill; a volume has at least one.
pub fn pages_for(size_granules: u64, grain_granules: u32) -> u64 {
    bits_for(size_granules, grain_granules).div_ceil(BITS_PER_PAGE)
}

/// Dirty bits of one peer, or of one mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    size_granules: u64,
    grain: u64,
    bits: u64,
    bits_set: u64,
    /// Always whole pages; bits past `bits` stay zero.
    words: Vec<u64>,
    /// Words that hold a set bit.
    occupied: IndexSet,
    /// Pages that differ from what was last encoded for the disk.
    stale: IndexSet,
    /// Units of a page that do.
    fresh: IndexSet,
}

impl Bitmap {
    /// All clean, as a formatted disk holds it: no page is dirty.
    /// Panics on size 0 or a grain that is no power of two.
    pub fn new(size_granules: u64, grain_granules: u32) -> Bitmap {
        assert!(size_granules > 0, "a volume holds at least one granule");
        assert!(
            grain_granules.is_power_of_two(),
            "grain {grain_granules} is a power of two"
        );
        let pages = pages_for(size_granules, grain_granules) as usize;
        Bitmap {
            size_granules,
            grain: u64::from(grain_granules),
            bits: bits_for(size_granules, grain_granules),
            bits_set: 0,
            words: vec![0; pages * WORDS_PER_PAGE],
            occupied: IndexSet::new(pages * WORDS_PER_PAGE),
            stale: IndexSet::new(pages),
            fresh: IndexSet::new(pages * UNITS_PER_PAGE),
        }
    }

    /// The volume has grown: what is new is marked. Panics if it shrinks.
    pub fn grow(&mut self, size_granules: u64) {
        let old = self.size_granules;
        self.widen(size_granules);
        if size_granules > old {
            self.set(Extent::new(old, size_granules));
        }
    }

    /// The volume has grown, and the peer has what is new as it is. Pages that are new differ from
    /// disk. Panics if it shrinks.
    pub fn widen(&mut self, size_granules: u64) {
        let (old, old_pages) = (self.size_granules, self.page_count());
        assert!(size_granules >= old, "{size_granules} granules after {old}");
        let grain = self.grain as u32;
        let pages = pages_for(size_granules, grain) as usize;
        self.size_granules = size_granules;
        self.bits = bits_for(size_granules, grain);
        self.words.resize(pages * WORDS_PER_PAGE, 0);
        self.occupied = self.occupied.widened(pages * WORDS_PER_PAGE);
        self.stale = self.stale.widened(pages);
        self.fresh = self.fresh.widened(pages * UNITS_PER_PAGE);
        self.touch_pages(old_pages);
    }

    /// From this page on all differ from disk, whatever they hold.
    pub fn touch_pages(&mut self, from: usize) {
        (from..self.page_count()).for_each(|page| self.stale.insert(page));
    }

    /// Size of the volume.
    pub fn size_granules(&self) -> u64 {
        self.size_granules
    }

    /// Granules one bit covers.
    pub fn grain(&self) -> u64 {
        self.grain
    }

    /// Marks every grain `extent` touches. Answers the granules that were clean before.
    pub fn set(&mut self, extent: Extent) -> u64 {
        let before = self.count_granules();
        for (index, mask) in masks(self.bits_touched(extent)) {
            self.replace(index, self.words[index] | mask);
        }
        self.count_granules() - before
    }

    /// Cleans every grain that lies wholly inside `extent`; a grain cut off by the volume's end
    /// is whole where the volume ends. Answers the granules that were dirty before.
    pub fn clear(&mut self, extent: Extent) -> u64 {
        let before = self.count_granules();
        let Range { mut start, end } = self.bits_inside(extent);
        while let Some(bit) = self.next_set(start).filter(|bit| *bit < end) {
            let word_end = (bit / WORD_BITS + 1) * WORD_BITS;
            for (index, mask) in masks(bit..end.min(word_end)) {
                self.replace(index, self.words[index] & !mask);
            }
            start = word_end;
        }
        before - self.count_granules()
    }

    /// Marks all of the volume.
    pub fn set_all(&mut self) {
        self.set(Extent::new(0, self.size_granules));
    }

    /// Cleans all of the volume.
    pub fn clear_all(&mut self) {
        self.clear(Extent::new(0, self.size_granules));
    }

    /// Is anything in `extent` dirty?
    pub fn any(&self, extent: Extent) -> bool {
        let touched = self.bits_touched(extent);
        self.next_set(touched.start)
            .is_some_and(|bit| bit < touched.end)
    }

    /// Nothing is dirty.
    pub fn is_empty(&self) -> bool {
        self.bits_set == 0
    }

    /// Dirty granules; a grain cut off by the volume's end counts for what it covers.
    pub fn count_granules(&self) -> u64 {
        let overhang = self.bits * self.grain - self.size_granules;
        let is_last_set = overhang > 0 && self.is_set(self.bits - 1);
        self.bits_set * self.grain - if is_last_set { overhang } else { 0 }
    }

    /// The first dirty run at or after granule `from`, cut at `max_len` granules and at the
    /// volume's end. It begins at `from` where that is dirty, even inside a grain; callers that
    /// clear what they found choose `from` and `max_len` in whole grains.
    pub fn next_run(&self, from: u64, max_len: u64) -> Option<Extent> {
        assert!(max_len > 0, "a run holds at least one granule");
        if from >= self.size_granules {
            return None;
        }
        let first = self.next_set(from / self.grain)?;
        let start = from.max(first * self.grain);
        let limit = start.saturating_add(max_len).min(self.size_granules);
        let last = self.next_clear(first, limit.div_ceil(self.grain));
        Some(Extent::new(start, limit.min(last * self.grain)))
    }

    /// Pages this bitmap fills on disk.
    pub fn page_count(&self) -> usize {
        self.words.len() / WORDS_PER_PAGE
    }

    /// Pages that hold the bits of `extent`; empty past the volume's end.
    pub fn pages_of(&self, extent: Extent) -> Range<usize> {
        let bits = self.bits_touched(extent);
        (bits.start / BITS_PER_PAGE) as usize..bits.end.div_ceil(BITS_PER_PAGE) as usize
    }

    /// Did this page change since it was last marked clean?
    pub fn page_is_dirty(&self, page: usize) -> bool {
        self.stale.contains(page)
    }

    /// The first page at or after `from` that differs from disk.
    pub fn next_dirty_page(&self, from: usize) -> Option<usize> {
        self.stale.next(from)
    }

    /// All pages that differ from disk, lowest first.
    pub fn dirty_pages(&self) -> impl Iterator<Item = usize> {
        let next = |page: &usize| self.stale.next(page + 1);
        std::iter::successors(self.stale.next(0), next)
    }

    /// The page's bytes were just encoded for the disk. A later change makes it dirty again.
    pub fn mark_page_clean(&mut self, page: usize) {
        self.stale.remove(page);
        let end = (page + 1) * UNITS_PER_PAGE;
        while let Some(unit) = self.fresh.next(page * UNITS_PER_PAGE).filter(|u| *u < end) {
            self.fresh.remove(unit);
        }
    }

    /// Did a bit of this extent, or near it, change since its page was last encoded? Finer than
    /// [`Bitmap::page_is_dirty`]: what changes elsewhere in a busy page does not count.
    pub fn is_fresh(&self, extent: Extent) -> bool {
        let bits = self.bits_touched(extent);
        let unit = |bit: u64| (bit / WORD_BITS) as usize / WORDS_PER_UNIT;
        let last = bits.end.saturating_sub(1);
        self.fresh
            .next(unit(bits.start))
            .is_some_and(|found| found <= unit(last))
    }

    /// The page's words, to be encoded. Panics past [`Bitmap::page_count`].
    pub fn page_words(&self, page: usize) -> &[u64; WORDS_PER_PAGE] {
        let words = &self.words[page * WORDS_PER_PAGE..][..WORDS_PER_PAGE];
        words.try_into().expect("the slice was cut to one page")
    }

    /// Takes a page as it was found on disk, which leaves it clean. Answers `false`, and changes
    /// nothing, if a bit lies past the volume's end.
    #[must_use]
    pub fn load_page(&mut self, page: usize, words: &[u64; WORDS_PER_PAGE]) -> bool {
        if !self.holds(page, words) {
            return false;
        }
        for (offset, word) in words.iter().enumerate() {
            self.replace(page * WORDS_PER_PAGE + offset, *word);
        }
        self.mark_page_clean(page);
        true
    }

    /// As [`Bitmap::load_page`], without the bits past the volume's end.
    pub fn load_page_cut(&mut self, page: usize, words: &[u64; WORDS_PER_PAGE]) {
        let mut words = *words;
        for (index, mask) in self.masks_past_end(page) {
            words[index] &= !mask;
        }
        let is_taken = self.load_page(page, &words);
        assert!(is_taken, "bits past the end were cut off");
    }

    /// Marks what `words`, the first of a page, mark. Answers `false`, and changes nothing, if the
    /// page is none or a bit lies past the volume's end.
    #[must_use]
    pub fn unite_page(&mut self, page: usize, words: &[u64]) -> bool {
        let is_page = page < self.page_count() && words.len() <= WORDS_PER_PAGE;
        if !is_page || !self.holds(page, words) {
            return false;
        }
        let base = page * WORDS_PER_PAGE;
        for (index, word) in words.iter().enumerate() {
            self.replace(base + index, self.words[base + index] | word);
        }
        true
    }

    /// The first page at or after `from` that holds a bit.
    pub fn next_page(&self, from: usize) -> Option<usize> {
        let bit = self.next_set(from as u64 * BITS_PER_PAGE)?;
        Some((bit / BITS_PER_PAGE) as usize)
    }

    /// Do all bits of `words`, the first of this page, lie inside the volume?
    fn holds(&self, page: usize, words: &[u64]) -> bool {
        let is_marked = |(index, mask)| words.get(index).is_some_and(|word: &u64| word & mask != 0);
        !self.masks_past_end(page).any(is_marked)
    }

    /// Words of this page, counted from its first, that reach past the volume's end, each with
    /// the mask of the bits that do.
    fn masks_past_end(&self, page: usize) -> impl Iterator<Item = (usize, u64)> + use<> {
        let first = page as u64 * BITS_PER_PAGE;
        let end = first + BITS_PER_PAGE;
        let base = page * WORDS_PER_PAGE;
        masks(self.bits.clamp(first, end)..end).map(move |(index, mask)| (index - base, mask))
    }

    fn is_set(&self, bit: u64) -> bool {
        self.words[(bit / WORD_BITS) as usize] >> (bit % WORD_BITS) & 1 == 1
    }

    /// Puts a word in its place and keeps count, summary and page state in step with it.
    fn replace(&mut self, index: usize, word: u64) {
        let old = std::mem::replace(&mut self.words[index], word);
        if old == word {
            return;
        }
        self.bits_set = self.bits_set - u64::from(old.count_ones()) + u64::from(word.count_ones());
        match (old, word) {
            (0, _) => self.occupied.insert(index),
            (_, 0) => self.occupied.remove(index),
            _ => {}
        }
        self.stale.insert(index / WORDS_PER_PAGE);
        self.fresh.insert(index / WORDS_PER_UNIT);
    }

    /// Bits of the grains `extent` touches, inside the volume.
    fn bits_touched(&self, extent: Extent) -> Range<u64> {
        let end = extent.end.min(self.size_granules).div_ceil(self.grain);
        (extent.start / self.grain).min(end)..end
    }

    /// Bits of the grains wholly inside `extent`.
    fn bits_inside(&self, extent: Extent) -> Range<u64> {
        let is_to_the_end = extent.end >= self.size_granules;
        let end = if is_to_the_end {
            self.bits
        } else {
            extent.end / self.grain
        };
        extent.start.div_ceil(self.grain).min(end)..end
    }

    fn next_set(&self, from: u64) -> Option<u64> {
        if from >= self.bits {
            return None;
        }
        let index = (from / WORD_BITS) as usize;
        let rest = self.words[index] & (!0 << (from % WORD_BITS));
        if rest != 0 {
            return Some(index as u64 * WORD_BITS + u64::from(rest.trailing_zeros()));
        }
        let index = self.occupied.next(index + 1)?;
        Some(index as u64 * WORD_BITS + u64::from(self.words[index].trailing_zeros()))
    }

    /// The first clear bit in `from..limit`, or `limit`.
    fn next_clear(&self, from: u64, limit: u64) -> u64 {
        let found = masks(from..limit).find_map(|(index, mask)| {
            let clear = !self.words[index] & mask;
            (clear != 0).then(|| index as u64 * WORD_BITS + u64::from(clear.trailing_zeros()))
        });
        found.unwrap_or(limit)
    }
}

/// The words a range of bits touches, each with the mask of those bits.
fn masks(bits: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let Range { start: mut at, end } = bits;
    std::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|left| *left > 0)?;
        let low = at % WORD_BITS;
        let span = left.min(WORD_BITS - low);
        let item = ((at / WORD_BITS) as usize, (!0 >> (WORD_BITS - span)) << low);
        at += span;
        Some(item)
    })
}

/// A set of small numbers with a fast "next at or after": a tree of words, each bit of a level
/// telling whether a word of the level below holds any.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IndexSet {
    /// Lowest level first; the last is one word.
    levels: Vec<Vec<u64>>,
}

impl IndexSet {
    fn new(len: usize) -> IndexSet {
        let mut levels = Vec::new();
        let mut len = len;
        loop {
            len = len.div_ceil(64).max(1);
            levels.push(vec![0; len]);
            if len == 1 {
                return IndexSet { levels };
            }
        }
    }

    /// The same members, with room for numbers below `len`.
    fn widened(&self, len: usize) -> IndexSet {
        let mut wide = IndexSet::new(len);
        let next = |index: &usize| self.next(index + 1);
        std::iter::successors(self.next(0), next).for_each(|index| wide.insert(index));
        wide
    }

    fn contains(&self, index: usize) -> bool {
        self.levels[0][index / 64] >> (index % 64) & 1 == 1
    }

    fn insert(&mut self, mut index: usize) {
        for level in &mut self.levels {
            let word = &mut level[index / 64];
            let was_empty = *word == 0;
            *word |= 1 << (index % 64);
            if !was_empty {
                return;
            }
            index /= 64;
        }
    }

    fn remove(&mut self, mut index: usize) {
        for level in &mut self.levels {
            let word = &mut level[index / 64];
            *word &= !(1 << (index % 64));
            if *word != 0 {
                return;
            }
            index /= 64;
        }
    }

    fn next(&self, from: usize) -> Option<usize> {
        let mut index = from;
        for (height, level) in self.levels.iter().enumerate() {
            let rest = level.get(index / 64)? & (!0 << (index % 64));
            if rest != 0 {
                let found = index / 64 * 64 + rest.trailing_zeros() as usize;
                let lower = self.levels[..height].iter().rev();
                return Some(lower.fold(found, |at, level| {
                    at * 64 + level[at].trailing_zeros() as usize
                }));
            }
            index = index / 64 + 1;
        }
        None
    }
}
