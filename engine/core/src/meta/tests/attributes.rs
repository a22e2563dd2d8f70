//! Tables of attributes and bits of marks on disk, whole and cut short.

use super::world::*;
use crate::action::MetaBlock;
use crate::bitmap::Bitmap;
use crate::marks::{MARKS_KEY, MarkEntry, encode_marks};
use crate::meta::*;
use crate::units::Extent;

/// The writes that replace a table, in their order.
pub(super) fn replace(
    loaded: &mut LoadedAttributes,
    table: &Attributes,
) -> Vec<(u64, Box<MetaBlock>)> {
    let bytes = encode_attributes(table).unwrap();
    let (pages, counters) = encode_table_pages(LIFE, &bytes, &mut loaded.writer);
    let mut writes: Vec<_> = pages.into_iter().map(|p| (p.block, p.bytes)).collect();
    loaded.version += 1;
    let (block, counter) = loaded.writer.next_block(0);
    let version = loaded.version;
    writes.push((
        block,
        encode_directory(LIFE, version, bytes.len(), &counters, block, counter),
    ));
    writes
}

fn table(entries: &[(&str, usize)]) -> Attributes {
    let value = |len: usize| (0..len).map(|n| (n * 7) as u8).collect();
    entries
        .iter()
        .map(|(key, len)| ((*key).to_owned(), value(*len)))
        .collect()
}

#[test]
fn a_table_is_the_old_or_the_new_one_wherever_its_writing_is_cut() {
    let tables = [
        table(&[("marks", 9)]),
        table(&[("marks", 9000), ("token", 1)]),
        table(&[("token", 65536)]),
        table(&[]),
        table(&[("a", 1)]),
    ];
    let mut area = Area::formatted(&params());
    let mut before = Attributes::new();
    for after in tables {
        // First a try that is cut before its commit and leaves its pages behind.
        let mut state = area.load().unwrap().attributes;
        let writes = replace(&mut state, &table(&[("never", 12_000)]));
        for (block, bytes) in &writes[..writes.len() - 1] {
            area.write(*block, bytes);
        }
        let mut state = area.load().unwrap().attributes;
        assert_eq!(state.attributes, before);
        let writes = replace(&mut state, &after);
        let last = writes.len() - 1;
        for (index, (block, bytes)) in writes.iter().enumerate() {
            let mut torn = area.clone();
            torn.write(*block, bytes);
            torn.block_mut(*block)[2048..].fill(0xee);
            assert_eq!(torn.load().unwrap().attributes.attributes, before);
            area.write(*block, bytes);
            let found = area.load().unwrap().attributes.attributes;
            assert_eq!(
                found,
                if index == last {
                    after.clone()
                } else {
                    before.clone()
                }
            );
        }
        before = after;
    }
}

#[test]
fn a_table_with_a_page_missing_is_refused() {
    let mut area = Area::formatted(&params());
    let mut state = area.load().unwrap().attributes;
    let mut blocks = Vec::new();
    for (block, bytes) in replace(&mut state, &table(&[("marks", 5000)])) {
        area.write(block, &bytes);
        blocks.push(block);
    }
    area.block_mut(blocks[1])[70] ^= 1;
    let error = area.load().unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::Invalid {
                field: Field::Attributes,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn more_than_the_region_holds_is_no_table() {
    assert!(encode_attributes(&table(&[("a", 65536), ("b", 59_000)])).is_some());
    assert!(encode_attributes(&table(&[("a", 65536), ("b", 60_000)])).is_none());
    assert!(encode_attributes(&table(&[("a", 65537)])).is_none());
    assert!(encode_attributes(&table(&[("", 1)])).is_none());
}

#[test]
fn bits_of_a_mark_are_found_and_those_of_an_earlier_one_are_not() {
    let entry = |id, slot, name: &str| MarkEntry {
        id,
        created_ms: 5,
        slot,
        is_whole: false,
        name: name.parse().unwrap(),
    };
    let mut area = Area::formatted(&params());
    let mut state = area.load().unwrap();
    let entries = [entry(71, 0, "old"), entry(72, 7, "other")];
    let list =
        |entries: &[MarkEntry]| Attributes::from([(MARKS_KEY.to_owned(), encode_marks(entries))]);
    for (block, bytes) in replace(&mut state.attributes, &list(&entries)) {
        area.write(block, &bytes);
    }
    let region = state.mark_region.unwrap();
    let total = layout(&params()).unwrap().total_bytes() as usize;
    area.0.resize(total, 0);
    for entry in &entries {
        let (mut bits, mut writer) = region.fresh(entry.slot);
        bits.set(Extent::new(40, 43));
        bits.set(Extent::new(39_999, 40_000));
        for page in 0..bits.page_count() {
            let (block, counter) = writer.next_block(page);
            let words = bits.page_words(page);
            let bytes = encode_mark_page(LIFE, entry.id, words, block, counter);
            area.write(block, &bytes);
        }
    }
    let found = |area: &Area| {
        let mut loaded = area.load().unwrap();
        let read = |block: u64, bytes: &mut [u8]| -> Result<(), ()> {
            let at = block as usize * 4096;
            bytes.copy_from_slice(&area.0[at..at + bytes.len()]);
            Ok(())
        };
        load_marks(&mut loaded, read).unwrap();
        let counts = loaded.marks.iter();
        counts
            .map(|m| (m.entry, Bitmap::count_granules(&m.bitmap)))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(&area), [(entries[0], 4), (entries[1], 4)]);
    let younger = [entry(73, 0, "young"), entries[1]];
    let mut state = area.load().unwrap();
    for (block, bytes) in replace(&mut state.attributes, &list(&younger)) {
        area.write(block, &bytes);
    }
    assert_eq!(found(&area), [(younger[0], 0), (entries[1], 4)]);
}

#[test]
fn an_area_made_before_there_were_marks_is_read_and_has_no_room_for_them() {
    let mut area = Area::formatted(&params());
    for block in [0, 1] {
        area.forge(block, |b| {
            b[127] -= 1;
            b[752..784].fill(0);
        });
    }
    let loaded = area.load().unwrap();
    assert_eq!(loaded.mark_region, None);
    let ranges = read_ranges(area.block(0), area.block(1)).unwrap();
    assert_eq!(ranges, [0..2, 2..4, 4..8, 8..12, 12..76]);
}
