//! Pages of stored checksums: 504 values each, not written before use.
//!
//! | slots of a page (or mirrored) | means |
//! |---|---|
//! | valid, valid | the higher counter |
//! | valid, torn, foreign or blank | the valid one |
//! | none valid, one torn at most | never written: what the replica was formatted over |
//! | both torn, misplaced, of another version, or same counter twice | lost: no value of it is known |
//!
//! A lost page never costs the replica: its granules go unchecked until a scrub has read them.

use crate::action::MetaBlock;
use crate::checksums::VALUES_PER_PAGE;
use crate::meta::block::{Finding, HEADER_LEN, Kind, examine, seal};
use crate::meta::bytes::{get_u64, put};
use crate::meta::layout::Region;
use crate::meta::superblock::Superblock;
use crate::units::Extent;

/// Where the pages of checksums lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumRegion {
    offset: u64,
    pages: u64,
    zeroed_granules: u64,
    incarnation: u128,
}

/// What the two slots of one page are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSums {
    /// What counts: `None` where nothing does.
    pub values: Option<[u64; VALUES_PER_PAGE]>,
    /// Highest counter of a valid slot, 0 without one.
    pub counter: u64,
    /// That slot is the second one.
    pub is_second: bool,
    /// The page was written, and cannot be trusted.
    pub is_lost: bool,
}

impl SumRegion {
    pub(super) fn new(region: &Region, superblock: &Superblock) -> SumRegion {
        SumRegion {
            offset: region.offset,
            pages: region.pages(),
            zeroed_granules: superblock.zeroed_granules,
            incarnation: superblock.incarnation,
        }
    }

    /// First of the two blocks of a page.
    pub fn block(&self, page: u64) -> u64 {
        self.offset + 2 * page
    }

    /// The largest volume whose checksums it has room for.
    pub fn size_granules_max(&self) -> u64 {
        self.pages * VALUES_PER_PAGE as u64
    }

    /// The replica's life, which every page and every value carries.
    pub fn incarnation(&self) -> u128 {
        self.incarnation
    }

    /// What of a page that was never written reads as zeros.
    pub fn zeroed(&self) -> Option<Extent> {
        (self.zeroed_granules > 0).then(|| Extent::new(0, self.zeroed_granules))
    }
}

/// A page for `block`, which is one of its two slots.
pub fn encode_sums_page(
    incarnation: u128,
    values: &[u64; VALUES_PER_PAGE],
    block: u64,
    counter: u64,
) -> Box<MetaBlock> {
    seal(Kind::Sums, incarnation, block, counter, |bytes| {
        for (index, value) in values.iter().enumerate() {
            put(bytes, HEADER_LEN + 8 * index, &value.to_le_bytes());
        }
    })
}

/// What two blocks from `block` on say. Total: any bytes are one row of the table above.
pub fn judge_sums(a: &MetaBlock, b: &MetaBlock, block: u64, incarnation: u128) -> FoundSums {
    use Finding as F;
    let findings = (
        examine(a, Kind::Sums, block, Some(incarnation)),
        examine(b, Kind::Sums, block + 1, Some(incarnation)),
    );
    let of = |bytes: &MetaBlock, counter, is_second, is_lost: bool| FoundSums {
        values: (!is_lost)
            .then(|| std::array::from_fn(|index| get_u64(bytes, HEADER_LEN + 8 * index))),
        counter,
        is_second,
        is_lost,
    };
    let nothing = |is_lost| FoundSums {
        values: None,
        counter: 0,
        is_second: true,
        is_lost,
    };
    let is_sound = |f: F| matches!(f, F::Torn | F::Foreign { .. } | F::Blank);
    match findings {
        (F::Valid { counter: first }, F::Valid { counter: second }) if first != second => {
            match first > second {
                true => of(a, first, false, false),
                false => of(b, second, true, false),
            }
        }
        (F::Valid { counter }, other) => of(a, counter, false, !is_sound(other)),
        (other, F::Valid { counter }) => of(b, counter, true, !is_sound(other)),
        (F::Torn, F::Torn) => nothing(true),
        (first, second) => nothing(!(is_sound(first) && is_sound(second))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::META_BLOCK;

    const LIFE: u128 = 7;

    fn page(life: u128, slot: u64, counter: u64) -> Box<MetaBlock> {
        encode_sums_page(life, &[counter; VALUES_PER_PAGE], 40 + slot, counter)
    }

    #[test]
    fn two_slots_of_checksums_are_found_unwritten_or_lost() {
        let blank = Box::new([0; META_BLOCK]);
        let mut torn = page(LIFE, 0, 9);
        torn[100] ^= 1;
        // First slot, second slot, what counts, its counter, and whether it is lost.
        let cases = [
            (page(LIFE, 0, 1), blank.clone(), Some(1), 1, false),
            (page(LIFE, 0, 1), page(LIFE, 1, 2), Some(2), 2, false),
            (page(LIFE, 0, 3), page(LIFE, 1, 2), Some(3), 3, false),
            (torn.clone(), page(LIFE, 1, 2), Some(2), 2, false),
            (page(LIFE, 0, 1), page(8, 1, 7), Some(1), 1, false),
            (page(8, 0, 6), page(8, 1, 7), None, 0, false),
            (blank.clone(), blank.clone(), None, 0, false),
            (torn.clone(), blank, None, 0, false),
            (torn.clone(), torn, None, 0, true),
            (page(LIFE, 0, 2), page(LIFE, 1, 2), None, 2, true),
            // The second slot was written to the first one's place.
            (page(LIFE, 1, 4), page(LIFE, 1, 2), None, 2, true),
        ];
        for (index, (a, b, value, counter, is_lost)) in cases.iter().enumerate() {
            let found = judge_sums(a, b, 40, LIFE);
            assert_eq!(found.values.map(|v| v[0]), *value, "case {index}");
            assert_eq!((found.counter, found.is_lost), (*counter, *is_lost));
        }
    }

    #[test]
    fn a_page_of_checksums_is_these_bytes() {
        let mut values = [0; VALUES_PER_PAGE];
        (values[0], values[503]) = (0x0102_0304_0506_0708, 9);
        let bytes = encode_sums_page(LIFE, &values, 0x51, 3);
        assert_eq!(bytes[..16], *b"POLLUXMD\x06\0\0\0\x01\0\0\0");
        assert_eq!(bytes[16..32], LIFE.to_le_bytes());
        assert_eq!(bytes[32..48], *b"\x51\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0");
        assert_eq!(bytes[64..72], *b"\x08\x07\x06\x05\x04\x03\x02\x01");
        assert_eq!(bytes[4088..], 9u64.to_le_bytes());
    }
}
