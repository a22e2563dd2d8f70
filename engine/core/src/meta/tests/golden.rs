//! Records byte by byte, as `docs/format.md` draws them; made by hand, apart from this code.

use super::world::*;
use crate::action::{META_BLOCK, MetaBlock};
use crate::generation::{Chain, Entry};
use crate::message::{Disk, Life};
use crate::meta::*;
use crate::record::Record;
use crate::units::{NodeIdx, NodeSet, Term};

/// A block that is zero but for these places, in hexadecimal.
fn block(places: &[(usize, &str)]) -> MetaBlock {
    let mut block = [0; META_BLOCK];
    for (at, hex) in places {
        for (index, pair) in hex.as_bytes().chunks(2).enumerate() {
            let pair = str::from_utf8(pair).unwrap();
            block[at + index] = u8::from_str_radix(pair, 16).unwrap();
        }
    }
    block
}

#[test]
fn a_superblock_is_these_bytes() {
    let mut superblock = Area::formatted(&params()).load().unwrap().superblock;
    superblock.volume_id = 0xaabb;
    superblock.clean = false;
    superblock.disk = Disk::UpToDate;
    superblock.held = NodeSet(4);
    superblock.promised = Term(0x301);
    superblock.record = Some(Record {
        term: Term(0x201),
        step: 5,
        primary: NodeIdx(1),
        in_sync: NodeSet(3),
        voters: NodeSet(7),
        is_released: true,
        branch: 0xcc,
    });
    superblock.known[0] = u128::from_le_bytes([0x11; 16]);
    superblock.known[2] = u128::from_le_bytes([0x33; 16]);
    superblock.chain = Chain::from_entries(vec![
        Entry::new(0xaa, Term(0x100)),
        Entry::new(0xcc, Term(0x201)),
    ])
    .unwrap();
    superblock.renewed = 0x66;
    superblock.past.floor = 3;
    superblock.past.ids[1] = 0x5544;
    superblock.past.met[2] = Life {
        count: 33,
        id: 0x99,
    };
    let expected = block(&[
        (0, "504f4c4c55584d440100000001"),
        (17, "0102030405060708090a0b0c0d0e0f01"),
        (40, "06"),
        (48, "af00094b"),
        (72, "04"),
        (80, "bbaa"),
        (96, "409c"),
        (105, "10000001000000f801"),
        (120, "010300030101070588776655443322114d"),
        (152, "0103"),
        (160, "0102"),
        (168, "0500000001030701cc"),
        (192, "11111111111111111111111111111111"),
        (224, "33333333333333333333333333333333"),
        (322, "c409"),
        (
            328,
            "090909090909090909090909090909090909090909090909090909090909090970672d64617461",
        ),
        (616, "02000000010400000200000001"),
        (640, "02"),
        (648, "02"),
        (656, "0300000001"),
        (672, "04"),
        (680, "04"),
        (688, "030000000100000002"),
        (704, "08"),
        (712, "04"),
        (720, "0400000001"),
        (736, "0c"),
        (744, "40"),
        (752, "0500000001"),
        (768, "4c"),
        (776, "20"),
        (1136, "aa"),
        (1153, "01"),
        (1160, "cc"),
        (1176, "0102"),
        (3584, "66"),
        (3600, "03"),
        (3616, "4455"),
        (3896, "21"),
        (3904, "99"),
    ]);
    assert_eq!(*encode_superblock(&superblock, 1, 6), expected);
}

#[test]
fn an_activity_log_page_is_these_bytes() {
    let mut slots = [LogSlot::FREE; LOG_SLOTS_PER_PAGE];
    slots[0] = LogSlot { start: 7, count: 1 };
    slots[1] = LogSlot {
        start: 9,
        count: 31,
    };
    let expected = block(&[
        (0, "504f4c4c55584d440200000001"),
        (17, "0102030405060708090a0b0c0d0e0f02"),
        (40, "03"),
        (48, "1a635746"),
        (64, "0700000001000000090000001f"),
    ]);
    assert_eq!(*encode_activity_log_page(LIFE, &slots, 2, 3), expected);
}

#[test]
fn a_bitmap_page_is_these_bytes() {
    let mut words = [0; 504];
    words[0] = 0b101;
    words[503] = 1 << 63;
    let expected = block(&[
        (0, "504f4c4c55584d440300000001"),
        (17, "0102030405060708090a0b0c0d0e0f05"),
        (40, "04"),
        (48, "2dbffd7e"),
        (64, "05"),
        (4095, "80"),
    ]);
    assert_eq!(*encode_bitmap_page(LIFE, &words, 5, 4), expected);
}

#[test]
fn a_small_replica_is_laid_out_like_this() {
    let layout = layout(&params()).unwrap();
    let region = |kind: Kind, index, offset, length| Region {
        kind: kind as u32,
        version: 1,
        index,
        offset,
        length,
    };
    let expected = [
        region(Kind::ActivityLog, 0, 2, 2),
        region(Kind::Bitmap, 0, 4, 4),
        region(Kind::Bitmap, 2, 8, 4),
        region(Kind::Attributes, 0, 12, 64),
    ];
    assert_eq!(layout.regions, expected);
    assert_eq!((layout.blocks, layout.bytes()), (76, 76 * 4096));
    assert_eq!(layout.bitmap(NodeIdx(1)), None);
}

#[test]
fn a_full_house_still_fits_its_region_table() {
    let params = Params {
        node_count: 8,
        size_granules: 1 << 40,
        size_granules_max: 1 << 40,
        grain: 16,
        ..params()
    };
    let layout = layout(&params).unwrap();
    assert_eq!(layout.regions.len(), 9);
    let ends = layout.regions.iter().map(|r| r.offset + r.length);
    let starts = layout.regions.iter().map(|r| r.offset);
    assert!(ends.zip(starts.skip(1)).all(|(end, start)| end == start));
}

#[test]
fn a_fresh_replica_is_blank_and_clean() {
    let mut loaded = Area::formatted(&params()).load().unwrap();
    let sb = &loaded.superblock;
    assert_eq!(
        (sb.disk, sb.volume_id, sb.record, sb.clean),
        (Disk::Blank, 0, None, true)
    );
    assert_eq!(
        (sb.incarnation, sb.granule_bytes, sb.promised),
        (LIFE, 4096, Term(0))
    );
    assert!(
        loaded
            .activity_log
            .iter()
            .flatten()
            .all(|slot| slot.is_free())
    );
    let peers: Vec<NodeIdx> = loaded.bitmaps.iter().map(|b| b.peer).collect();
    assert_eq!(peers, [NodeIdx(0), NodeIdx(2)]);
    assert!(loaded.bitmaps.iter().all(|b| b.bitmap.is_empty()));
    assert_eq!(loaded.superblock_writer.next_block(0), (0, 3));
    assert_eq!(loaded.superblock_writer.next_block(0), (1, 4));
    assert_eq!(loaded.bitmaps[1].writer.next_block(1), (10, 3));
    assert_eq!(loaded.bitmaps[1].writer.page_count(), 2);
}
