//! Areas of volumes that have a table of nodes of their own: what the file says of nodes counts no more.

use super::attributes::replace;
use super::world::*;
use crate::action::META_BLOCK;
use crate::bitmap::{WORDS_PER_PAGE, pages_for};
use crate::meta::*;
use crate::table::{NodeKind, Stage, TABLE_KEY, Table};
use crate::units::{NodeIdx, Term};

/// As [`params`] made it: `beta` is node 1 of three.
fn file() -> Table {
    Table::of_file(&["alpha", "beta", "gamma"].map(str::to_owned), 3)
}

fn with_table(table: &Table) -> Area {
    let mut area = Area::formatted(&params());
    let mut loaded = area.load().unwrap();
    let mut attributes = Attributes::new();
    attributes.insert(TABLE_KEY.to_owned(), table.encode());
    for (block, bytes) in replace(&mut loaded.attributes, &attributes) {
        area.write(block, &bytes);
    }
    loaded.superblock.features_incompatible |= FEATURE_ATTRIBUTES;
    write_superblock(&mut area, &mut loaded);
    area
}

fn write_superblock(area: &mut Area, loaded: &mut Loaded) {
    let (block, counter) = loaded.superblock_writer.next_block(0);
    area.write(
        block,
        &encode_superblock(&loaded.superblock, block, counter),
    );
}

fn load_as(area: &Area, node: &str) -> Result<Loaded, LoadError> {
    let expect = Expect {
        node: node.into(),
        // The file lists others by now, in another order.
        self_node: NodeIdx(0),
        node_count: 2,
        nodes_digest: 5,
        ..expect(&params())
    };
    load(&area.0, &expect)
}

#[test]
fn a_table_counts_and_not_the_file() {
    let came = file().with_newcomer(Term(9), "delta", NodeKind::Replica);
    let area = with_table(&came.unwrap());
    let found = load_as(&area, "beta").unwrap().superblock;
    assert_eq!((found.self_node, found.node_count), (NodeIdx(1), 3));
    assert_eq!(found.features_incompatible & FEATURE_NODES, 0);
}

#[test]
fn a_replica_with_another_index_in_the_table_has_that_one() {
    let table = Table::of_file(&["alpha", "eps", "gamma"].map(str::to_owned), 3);
    let came = table.with_newcomer(Term(9), "beta", NodeKind::Replica);
    let area = with_table(&came.unwrap());
    let found = load_as(&area, "beta").unwrap();
    assert_eq!(found.superblock.self_node, NodeIdx(3));
    assert_ne!(found.superblock.features_incompatible & FEATURE_NODES, 0);
    // Once that is written, the bitmaps are those that the region table lists.
    let mut area = area;
    write_superblock(&mut area, &mut found.clone());
    let again = load_as(&area, "beta").unwrap();
    assert_eq!(again.bitmaps, found.bitmaps);
    assert_eq!(again.bitmaps.len(), 2);
}

#[test]
fn a_name_that_the_table_never_had_is_refused() {
    let gone = file().with_stage(Term(9), NodeIdx(1), Stage::Gone);
    assert!(load_as(&with_table(&gone), "beta").is_ok(), "it was there");
    let error = load_as(&with_table(&gone), "omega").unwrap_err();
    assert!(matches!(error, LoadError::Nodes { .. }), "{error}");
}

/// Lists a bitmap of node 3 behind the end of the area, and writes so many slots of each page.
fn with_newcomer(slots: u64) -> (Area, Region) {
    let came = file().with_newcomer(Term(9), "delta", NodeKind::Replica);
    let mut area = with_table(&came.unwrap());
    let mut loaded = load_as(&area, "beta").unwrap();
    let ends = loaded.superblock.regions.iter();
    let end = ends.map(|r| r.offset + r.length).max().unwrap();
    let pages = pages_for(40_000, 1);
    let region = Region::bitmap(NodeIdx(3), end, pages + 1);
    area.0
        .resize((end + region.length) as usize * META_BLOCK, 0);
    let words = [u64::MAX; WORDS_PER_PAGE];
    for page in 0..pages {
        for slot in 0..slots {
            let block = end + 2 * page + slot;
            area.write(block, &encode_bitmap_page(LIFE, &words, block, slot + 1));
        }
    }
    loaded.superblock.regions.push(region);
    loaded.superblock.features_incompatible |= FEATURE_NODES;
    write_superblock(&mut area, &mut loaded);
    (area, region)
}

#[test]
fn a_bitmap_that_came_later_is_loaded_with_its_room() {
    let (area, region) = with_newcomer(2);
    let found = load_as(&area, "beta").unwrap();
    let peers: Vec<NodeIdx> = found.bitmaps.iter().map(|b| b.peer).collect();
    assert_eq!(peers, [NodeIdx(0), NodeIdx(2), NodeIdx(3)]);
    let last = &found.bitmaps[2];
    assert_eq!(last.bitmap.count_granules(), 40_000);
    assert_eq!(last.pages_max as u64, region.pages());
}

#[test]
fn a_bitmap_that_was_listed_after_one_pass_is_refused() {
    let (area, _) = with_newcomer(1);
    let error = load_as(&area, "beta").unwrap_err();
    assert!(matches!(error, LoadError::Damaged { .. }), "{error}");
}

#[test]
fn a_listed_bitmap_is_of_a_node_that_can_be_and_there_once() {
    let (area, region) = with_newcomer(2);
    let refuse = |change: &dyn Fn(&mut Superblock)| {
        let mut area = area.clone();
        let mut loaded = load_as(&area, "beta").unwrap();
        change(&mut loaded.superblock);
        write_superblock(&mut area, &mut loaded);
        load_as(&area, "beta").unwrap_err()
    };
    let other = Region {
        index: 8,
        offset: region.offset + region.length,
        ..region
    };
    let same = Region { index: 3, ..other };
    let short = Region {
        length: 2,
        index: 4,
        ..other
    };
    for wrong in [other, same, short] {
        let error = refuse(&|sb| sb.regions.push(wrong));
        let field = Field::Regions;
        let is_it = matches!(error, LoadError::Invalid { field: f, .. } if f == field);
        assert!(
            is_it || matches!(error, LoadError::Short { .. }),
            "{wrong:?}: {error}"
        );
    }
}
