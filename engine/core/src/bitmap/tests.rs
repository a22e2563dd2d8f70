use proptest::prelude::*;

use super::*;

/// The same rules over one `bool` per granule.
struct Model {
    dirty: Vec<bool>,
    grain: u64,
}

impl Model {
    fn outward(&self, extent: Extent) -> Range<usize> {
        let size = self.dirty.len() as u64;
        let start = extent.start / self.grain * self.grain;
        let end = extent.end.div_ceil(self.grain) * self.grain;
        start.min(size) as usize..end.min(size) as usize
    }

    fn inward(&self, extent: Extent) -> Range<usize> {
        let size = self.dirty.len() as u64;
        let start = extent.start.div_ceil(self.grain) * self.grain;
        let end = if extent.end >= size {
            size
        } else {
            extent.end / self.grain * self.grain
        };
        start.min(end) as usize..end as usize
    }

    fn assign(&mut self, range: Range<usize>, dirty: bool) -> u64 {
        let changed = self.dirty[range.clone()]
            .iter()
            .filter(|d| **d != dirty)
            .count();
        self.dirty[range].fill(dirty);
        changed as u64
    }

    fn next_run(&self, from: u64, max_len: u64) -> Option<Extent> {
        let from = from.min(self.dirty.len() as u64) as usize;
        let start = from + self.dirty[from..].iter().position(|d| *d)?;
        let run = self.dirty[start..]
            .iter()
            .take(max_len as usize)
            .take_while(|d| **d)
            .count();
        Some(Extent::new(start as u64, (start + run) as u64))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set(Extent),
    Clear(Extent),
    SetAll,
    ClearAll,
    Encode(usize),
}

fn extents(size: u64) -> impl Strategy<Value = Extent> {
    (0..size + 5, prop_oneof![1u64..9, 1u64..200, 1u64..size + 9])
        .prop_map(|(s, n)| Extent::new(s, s + n))
}

fn steps(size: u64) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => extents(size).prop_map(Step::Set),
        6 => extents(size).prop_map(Step::Clear),
        1 => Just(Step::SetAll),
        1 => Just(Step::ClearAll),
        3 => any::<usize>().prop_map(Step::Encode),
    ];
    prop::collection::vec(step, 1..30)
}

fn worlds() -> impl Strategy<Value = (u64, u32, Vec<Step>)> {
    (
        prop_oneof![1u64..300, 30_000u64..70_000],
        prop::sample::select(vec![1u32, 4, 16]),
    )
        .prop_flat_map(|(size, grain)| (Just(size), Just(grain), steps(size)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_bitmap_behaves_like_one_flag_per_granule(
        (size, grain, steps) in worlds(),
        probes in prop::collection::vec((0u64..70_010, 1u64..500), 20),
    ) {
        let mut bitmap = Bitmap::new(size, grain);
        let mut model = Model { dirty: vec![false; size as usize], grain: u64::from(grain) };
        let mut disk: Vec<[u64; WORDS_PER_PAGE]> = vec![[0; WORDS_PER_PAGE]; bitmap.page_count()];
        for step in steps {
            match step {
                Step::Set(extent) => {
                    let range = model.outward(extent);
                    prop_assert_eq!(bitmap.set(extent), model.assign(range, true));
                }
                Step::Clear(extent) => {
                    let range = model.inward(extent);
                    prop_assert_eq!(bitmap.clear(extent), model.assign(range, false));
                }
                Step::SetAll => {
                    bitmap.set_all();
                    model.dirty.fill(true);
                }
                Step::ClearAll => {
                    bitmap.clear_all();
                    model.dirty.fill(false);
                }
                Step::Encode(page) => {
                    let page = page % bitmap.page_count();
                    disk[page] = *bitmap.page_words(page);
                    bitmap.mark_page_clean(page);
                }
            }
            let count = model.dirty.iter().filter(|d| **d).count() as u64;
            prop_assert_eq!(bitmap.count_granules(), count);
            prop_assert_eq!(bitmap.is_empty(), count == 0);
            for (page, encoded) in disk.iter().enumerate() {
                let differs = *encoded != *bitmap.page_words(page);
                prop_assert!(!differs || bitmap.page_is_dirty(page), "page {} is forgotten", page);
            }
            let dirty: Vec<usize> = bitmap.dirty_pages().collect();
            let expected: Vec<usize> =
                (0..bitmap.page_count()).filter(|p| bitmap.page_is_dirty(*p)).collect();
            prop_assert_eq!(dirty, expected);
        }
        for (from, max_len) in probes {
            prop_assert_eq!(bitmap.next_run(from, max_len), model.next_run(from, max_len));
            let extent = Extent::new(from, from + max_len);
            let range = model.outward(extent);
            prop_assert_eq!(bitmap.any(extent), model.dirty[range].iter().any(|d| *d));
        }
        for page in bitmap.dirty_pages().collect::<Vec<_>>() {
            disk[page] = *bitmap.page_words(page);
            bitmap.mark_page_clean(page);
        }
        let mut loaded = Bitmap::new(size, grain);
        for (page, words) in disk.iter().enumerate() {
            prop_assert!(loaded.load_page(page, words));
        }
        prop_assert_eq!(loaded, bitmap);
    }
}

#[test]
fn the_grain_grows_with_the_volume() {
    let tib = 1u64 << 28;
    let cases = [
        (1, 1),
        (4 * tib, 1),
        (4 * tib + 1, 4),
        (16 * tib, 4),
        (16 * tib + 1, 16),
        (1000 * tib, 16),
    ];
    for (size, grain) in cases {
        assert_eq!(grain_for(size), grain, "{size} granules");
    }
}

#[test]
fn a_clean_volume_of_16_tib_is_scanned_in_a_few_words() {
    let size = 1u64 << 32;
    let mut bitmap = Bitmap::new(size, grain_for(size));
    for _ in 0..1_000_000 {
        assert_eq!(bitmap.next_run(0, 256), None);
    }
    bitmap.set(Extent::new(size - 1, size));
    assert_eq!(bitmap.next_run(0, 256), Some(Extent::new(size - 4, size)));
    assert_eq!(bitmap.count_granules(), 4);
}

#[test]
fn a_grain_cut_off_by_the_end_counts_for_what_it_covers() {
    let mut bitmap = Bitmap::new(10, 4);
    assert_eq!(bitmap.set(Extent::new(9, 100)), 2);
    assert_eq!(bitmap.next_run(0, 99), Some(Extent::new(8, 10)));
    assert_eq!(
        bitmap.clear(Extent::new(8, 9)),
        0,
        "half a grain stays dirty"
    );
    assert_eq!(bitmap.clear(Extent::new(8, 10)), 2);
    assert!(bitmap.is_empty());
}

#[test]
fn pages_of_an_extent_are_those_that_hold_its_bits() {
    let bitmap = Bitmap::new(3 * BITS_PER_PAGE, 1);
    let at = |start, end| bitmap.pages_of(Extent::new(start, end));
    assert_eq!(at(0, 1), 0..1);
    assert_eq!(at(BITS_PER_PAGE - 1, BITS_PER_PAGE + 1), 0..2);
    assert_eq!(at(BITS_PER_PAGE, 9 * BITS_PER_PAGE), 1..3);
    assert!(at(3 * BITS_PER_PAGE, 4 * BITS_PER_PAGE).is_empty());
}

#[test]
fn a_page_with_bits_past_the_end_is_refused_unchanged() {
    let mut bitmap = Bitmap::new(100, 1);
    let mut words = [0; WORDS_PER_PAGE];
    words[1] = 1 << 36;
    assert!(!bitmap.load_page(0, &words));
    assert!(bitmap.is_empty());
    words[1] = 1 << 35;
    assert!(bitmap.load_page(0, &words));
    assert_eq!(bitmap.next_run(0, 9), Some(Extent::new(99, 100)));
    assert!(!bitmap.page_is_dirty(0));
}

#[test]
fn what_changes_elsewhere_in_a_page_leaves_an_extent_as_it_was_encoded() {
    let mut map = Bitmap::new(100_000, 1);
    map.set(Extent::new(3000, 3001));
    let (here, there) = (Extent::new(2048, 3072), Extent::new(31_000, 33_000));
    assert!(map.is_fresh(here) && !map.is_fresh(there));
    map.mark_page_clean(0);
    assert!(!map.is_fresh(here) && !map.page_is_dirty(0));
    map.set(Extent::new(32_255, 32_257));
    assert!(map.page_is_dirty(0) && !map.is_fresh(here) && map.is_fresh(there));
    map.mark_page_clean(0);
    assert!(map.is_fresh(there) && map.page_is_dirty(1));
    map.mark_page_clean(1);
    assert!(!map.is_fresh(there));
    map.set(Extent::new(3000, 3001));
    assert!(!map.is_fresh(here));
}

#[test]
fn what_a_volume_grows_by_is_marked_and_the_rest_stays() {
    for (grain, old, new) in [(1, 100, 100_000), (4, 101, 103), (4, 129, 40_000)] {
        let mut bitmap = Bitmap::new(old, grain);
        bitmap.set(Extent::new(7, 9));
        bitmap.mark_page_clean(0);
        bitmap.grow(new);
        let mut fresh = Bitmap::new(new, grain);
        fresh.set(Extent::new(7, 9));
        fresh.set(Extent::new(old, new));
        assert_eq!(bitmap.count_granules(), fresh.count_granules());
        assert_eq!(bitmap.words, fresh.words);
        assert_eq!(bitmap.occupied, fresh.occupied);
        let touched = bitmap.pages_of(Extent::new(old, new));
        assert!(bitmap.dirty_pages().eq(touched), "pages of what is new");
    }
}

#[test]
fn bits_past_the_end_are_cut_off_where_that_is_asked_for() {
    let mut words = [0; WORDS_PER_PAGE];
    (words[0], words[1], words[9]) = (0b101, u64::MAX, 7);
    let mut bitmap = Bitmap::new(66, 1);
    assert!(!bitmap.load_page(0, &words));
    bitmap.load_page_cut(0, &words);
    assert_eq!(bitmap.count_granules(), 4);
    assert_eq!(bitmap.next_dirty_page(0), None);
}
