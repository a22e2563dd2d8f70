//! Who is right where copies differ: the majority (law S10). Pure.

use crate::bitmap::Bitmap;

/// More differing granules than this are no rot in a few places: an operator decides.
const GRANULES_MAX: u64 = 1 << 20;

/// `differing` says for each of the other copies where it differs from this one. Is there a granule
/// in which this copy and those equal to it are no majority of all?
pub(super) fn is_minority_anywhere(differing: &[&Bitmap]) -> bool {
    let copies = differing.len() + 1;
    let all: u64 = differing.iter().map(|bits| bits.count_granules()).sum();
    if all > GRANULES_MAX {
        return true;
    }
    let mut at = 0;
    loop {
        let runs = differing
            .iter()
            .map(|bits| bits.next_run(at, u64::MAX - at));
        let runs: Vec<_> = runs.flatten().collect();
        let Some(first) = runs.iter().map(|run| run.start).min() else {
            return false;
        };
        let here = runs.iter().filter(|run| run.start == first);
        if (copies - here.count()) * 2 <= copies {
            return true;
        }
        // On to where anything changes.
        let bounds = runs.iter().flat_map(|run| [run.start, run.end]);
        let next = bounds.filter(|bound| *bound > first).min();
        at = next.unwrap_or(first + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Extent;

    fn bits(runs: &[(u64, u64)]) -> Bitmap {
        let mut bits = Bitmap::new(1000, 1);
        for (start, end) in runs {
            bits.set(Extent::new(*start, *end));
        }
        bits
    }

    fn minority(copies: &[&[(u64, u64)]]) -> bool {
        let bitmaps: Vec<_> = copies.iter().map(|runs| bits(runs)).collect();
        is_minority_anywhere(&bitmaps.iter().collect::<Vec<_>>())
    }

    #[test]
    fn two_copies_have_no_majority_where_they_differ() {
        assert!(!minority(&[&[]]));
        assert!(minority(&[&[(5, 6)]]));
    }

    #[test]
    fn of_three_the_one_that_differs_from_both_is_wrong() {
        assert!(!minority(&[&[(5, 6)], &[]]));
        assert!(!minority(&[&[(5, 6)], &[(6, 9)]]));
        assert!(minority(&[&[(0, 3), (5, 8)], &[(7, 9)]]));
        assert!(minority(&[&[(7, 8)], &[(0, 999)]]));
    }

    #[test]
    fn of_five_two_others_are_enough() {
        let one: &[(u64, u64)] = &[(10, 20)];
        assert!(!minority(&[one, one, &[], &[]]));
        assert!(minority(&[one, one, &[(19, 21)], &[]]));
    }
}
