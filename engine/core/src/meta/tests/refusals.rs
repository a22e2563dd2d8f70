//! Every way in which metadata is not taken, and that nothing on a disk can make loading panic.

use super::world::*;
use crate::meta::*;
use crate::units::NodeIdx;

fn forged(block: u64, at: usize, bytes: &[u8]) -> LoadError {
    let mut area = Area::formatted(&params());
    area.forge(block, |b| b[at..at + bytes.len()].copy_from_slice(bytes));
    area.load().unwrap_err()
}

/// Forges the newer superblock slot.
fn superblock(at: usize, bytes: &[u8]) -> LoadError {
    forged(1, at, bytes)
}

#[test]
fn an_unknown_version_is_refused_wherever_it_stands() {
    let layout = layout(&params()).unwrap();
    let cases = [
        (Kind::Superblock, 0),
        (Kind::Superblock, 1),
        (Kind::ActivityLog, layout.activity_log().offset),
        (Kind::Bitmap, layout.bitmap(NodeIdx(2)).unwrap().offset + 1),
        (Kind::Attributes, layout.blocks - 64),
    ];
    for (kind, block) in cases {
        let expected = LoadError::Version {
            kind,
            found: 2,
            expected: 1,
        };
        assert_eq!(forged(block, 12, &[2]), expected, "block {block}");
    }
    let expected = LoadError::Version {
        kind: Kind::ActivityLog,
        found: 7,
        expected: 1,
    };
    assert_eq!(superblock(624 + 4, &[7]), expected);
}

#[test]
fn an_unknown_incompatible_feature_is_refused_and_a_compatible_one_is_carried_along() {
    assert_eq!(
        superblock(72, &[64]),
        LoadError::Feature {
            found: 64,
            expected: 31
        }
    );
    // Checksums need a region of their own.
    let expected = LoadError::Invalid {
        block: 1,
        field: Field::Regions,
    };
    assert_eq!(superblock(72, &[12]), expected);
    let mut area = Area::formatted(&params());
    area.forge(1, |b| b[64] = 4);
    assert_eq!(area.load().unwrap().superblock.features_compatible, 4);
}

#[test]
fn what_belongs_to_another_is_refused_with_both_values() {
    let area = Area::formatted(&params());
    let base = expect(&params());
    let load = |expect: &Expect| load(&area.0, expect).unwrap_err();
    assert_eq!(
        load(&Expect {
            volume: "other".into(),
            ..base.clone()
        }),
        LoadError::Volume {
            found: "pg-data".into(),
            expected: "other".into()
        }
    );
    assert_eq!(
        load(&Expect {
            slice: 3,
            ..base.clone()
        }),
        LoadError::Slice {
            found: 0,
            expected: 3
        }
    );
    assert_eq!(
        load(&Expect {
            self_node: NodeIdx(0),
            ..base.clone()
        }),
        LoadError::Node {
            found: 1,
            expected: 0
        }
    );
    let digest = base.nodes_digest;
    assert_eq!(
        load(&Expect {
            node_count: 2,
            ..base.clone()
        }),
        LoadError::Nodes {
            found: 3,
            expected: 2,
            found_digest: digest,
            expected_digest: digest
        }
    );
    assert_eq!(
        load(&Expect {
            nodes_digest: 5,
            ..base.clone()
        }),
        LoadError::Nodes {
            found: 3,
            expected: 3,
            found_digest: digest,
            expected_digest: 5
        }
    );
    assert_eq!(
        load(&Expect {
            size_granules: 5,
            ..base.clone()
        }),
        LoadError::Size {
            found: 40_000,
            expected: 5
        }
    );
    assert_eq!(
        load(&Expect {
            granule_bytes: 512,
            ..base.clone()
        }),
        LoadError::Granule {
            found: 4096,
            expected: 512
        }
    );
    let swapped = Backing {
        identity: [1; 32],
        ..base.backing
    };
    assert_eq!(
        load(&Expect {
            backing: swapped,
            ..base.clone()
        }),
        LoadError::Backing {
            found: base.backing,
            expected: swapped
        }
    );
}

#[test]
fn a_whole_record_that_contradicts_itself_is_refused() {
    let layout = layout(&params()).unwrap();
    let invalid = |block, field| LoadError::Invalid { block, field };
    let cases = [
        (126, &[0][..], Field::VolumeName),
        (360, &[0xff], Field::VolumeName),
        (108, &[3], Field::Geometry),
        (112, &[0, 0], Field::Geometry),
        (122, &[2], Field::Flag),
        (124, &[2], Field::Flag),
        (620, &[2], Field::Flag),
        (123, &[5], Field::Disk),
        (125, &[0], Field::BackingKind),
        (152, &[8], Field::Term),
        (159, &[0x80], Field::Term),
        (124, &[1], Field::Record),
        (616, &[65], Field::Chain),
        (616, &[2], Field::Chain),
        (127, &[17], Field::Regions),
        (127, &[3], Field::Regions),
        (624 + 16, &[1], Field::Regions),
        (624 + 24, &[4], Field::Regions),
        (624 + 16, &[0xff; 8], Field::Regions),
        (624 + 32 + 8, &[2], Field::Regions),
    ];
    for (at, bytes, field) in cases {
        assert_eq!(
            superblock(at, bytes),
            invalid(1, field),
            "{bytes:?} at {at}"
        );
    }
    let log = layout.activity_log().offset + 1;
    assert_eq!(
        forged(log, 64, &[40, 0, 0, 0, 1]),
        invalid(log, Field::ActivityLogSlot)
    );
    assert_eq!(
        forged(log, 64, &[0xff; 8]),
        invalid(log, Field::ActivityLogSlot)
    );
}

#[test]
fn bits_that_a_growth_left_past_the_end_are_not_taken() {
    let mut area = Area::formatted(&params());
    let bitmap = layout(&params()).unwrap().bitmap(NodeIdx(0)).unwrap();
    area.forge(bitmap.offset + 3, |b| b[4095] = 1);
    let loaded = area.load().unwrap();
    assert!(loaded.bitmaps[0].bitmap.is_empty());
}

#[test]
fn bitmaps_have_room_to_grow_that_is_not_read() {
    let params = Params {
        size_granules_max: 400_000,
        ..params()
    };
    let placed = layout(&params).unwrap();
    let bitmap = placed.bitmap(NodeIdx(0)).unwrap();
    assert_eq!((bitmap.length, placed.bitmap_blocks), (2 * 13, 4));
    let area = Area::formatted(&params);
    let ranges = read_ranges(area.block(0), area.block(1)).unwrap();
    assert!(ranges.contains(&(bitmap.offset..bitmap.offset + 4)));
    let parts: Vec<u8> = ranges
        .iter()
        .flat_map(|r| area.0[r.start as usize * 4096..r.end as usize * 4096].to_vec())
        .collect();
    let blocks = Blocks {
        ranges: &ranges,
        bytes: &parts,
    };
    let loaded = load_parts(blocks, &expect(&params)).unwrap();
    assert_eq!(loaded.bitmaps[0].pages_max, 13);
    assert_eq!(loaded, load(&area.0, &expect(&params)).unwrap());
}

#[test]
fn an_area_that_ends_early_is_refused() {
    let area = Area::formatted(&params());
    let blocks = layout(&params()).unwrap().blocks;
    for len in [0, 1, 4096, 8191] {
        let error = load(&area.0[..len], &expect(&params())).unwrap_err();
        let found = len as u64 / 4096;
        assert_eq!(
            error,
            LoadError::Short {
                found,
                expected: found + 1
            }
        );
    }
    for left in [2, blocks - 1] {
        let error = load(&area.0[..left as usize * 4096], &expect(&params())).unwrap_err();
        assert!(
            matches!(error, LoadError::Short { found, .. } if found == left),
            "{error}"
        );
    }
}

#[test]
fn a_page_never_written_is_an_error_and_not_clean() {
    let layout = layout(&params()).unwrap();
    for region in &layout.regions {
        let mut area = Area::formatted(&params());
        area.block_mut(region.offset).fill(0);
        let error = area.load().unwrap_err();
        assert!(
            matches!(
                error,
                LoadError::Damaged {
                    row: "other half of a page blank",
                    ..
                }
            ),
            "{error}"
        );
        area.block_mut(region.offset + 1).fill(0);
        let error = area.load().unwrap_err();
        assert!(
            matches!(
                error,
                LoadError::Damaged {
                    row: "never written",
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_misdirected_or_foreign_record_is_refused() {
    let layout = layout(&params()).unwrap();
    let (log, bitmap) = (
        layout.activity_log().offset,
        layout.bitmap(NodeIdx(0)).unwrap().offset,
    );
    let mut area = Area::formatted(&params());
    let lost = *area.block(bitmap + 2);
    area.write(bitmap, &lost);
    let error = area.load().unwrap_err();
    let misplaced = Finding::Misplaced {
        kind: 3,
        block: bitmap + 2,
    };
    assert!(matches!(error, LoadError::Damaged { a, row: "A overwritten", .. } if a == misplaced));

    let stranger = Area::formatted(&Params {
        incarnation: 5,
        ..params()
    });
    let mut area = Area::formatted(&params());
    area.write(log + 1, stranger.block(log + 1));
    let error = area.load().unwrap_err();
    let foreign = Finding::Foreign { incarnation: 5 };
    assert!(matches!(error, LoadError::Damaged { b, row: "B overwritten", .. } if b == foreign));

    let mut area = Area::formatted(&params());
    area.write(0, stranger.block(0));
    let error = area.load().unwrap_err();
    assert!(matches!(
        error,
        LoadError::Damaged {
            kind: Kind::Superblock,
            a: Finding::Foreign { .. },
            ..
        }
    ));
}

#[test]
fn a_copied_block_claims_a_turn_twice_and_is_refused() {
    let log = layout(&params()).unwrap().activity_log().offset;
    let mut area = Area::formatted(&params());
    area.forge(log, |b| b[40] = 2);
    let error = area.load().unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::Damaged {
                row: "same turn twice",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn regions_of_unknown_kinds_are_skipped() {
    let mut area = Area::formatted(&params());
    let layout = layout(&params()).unwrap();
    let blocks = layout.marks.offset + layout.marks.length;
    area.0.resize((blocks as usize + 2) * 4096, 7);
    area.forge(1, |b| {
        b[127] += 1;
        let at = 624 + 32 * 5;
        b[at] = 200;
        b[at + 16..at + 24].copy_from_slice(&blocks.to_le_bytes());
        b[at + 24] = 2;
    });
    assert_eq!(area.load().unwrap().superblock.regions.len(), 6);
}

#[test]
fn peek_tells_ours_from_foreign_damaged_and_nothing() {
    let area = Area::formatted(&params());
    let (a, b) = (*area.block(0), *area.block(1));
    let (zeros, noise) = ([0; 4096], [0x5a; 4096]);
    let ours = Peek::Ours(Box::new(area.load().unwrap().superblock));
    let mut torn = a;
    torn[2000] ^= 1;
    assert_eq!(peek(&zeros, &zeros), Peek::Nothing);
    assert_eq!(peek(&a, &b), ours);
    assert_eq!(peek(&a, &zeros), ours);
    assert_eq!(peek(&torn, &b), ours);
    assert!(matches!(
        peek(&zeros, &b),
        Peek::Damaged(LoadError::Damaged { .. })
    ));
    assert_eq!(peek(&noise, &b), ours);
    assert_eq!(peek(&noise, &noise), Peek::Foreign);
    assert_eq!(peek(&zeros, &noise), Peek::Foreign);
    assert!(matches!(
        peek(&torn, &noise),
        Peek::Damaged(LoadError::Damaged { .. })
    ));
    let mut newer = area.clone();
    newer.forge(0, |bytes| bytes[12] = 9);
    let version = LoadError::Version {
        kind: Kind::Superblock,
        found: 9,
        expected: 1,
    };
    assert_eq!(peek(newer.block(0), &b), Peek::Damaged(version));
}

#[test]
fn parameters_out_of_range_are_refused() {
    let base = params();
    let refused = |params: &Params| layout(params).unwrap_err();
    let name = |len| Params {
        volume: "v".repeat(len),
        ..base.clone()
    };
    assert_eq!(refused(&name(0)), ParamsError::VolumeName { len: 0 });
    assert_eq!(refused(&name(256)), ParamsError::VolumeName { len: 256 });
    assert!(layout(&name(255)).is_ok());
    let size = |size_granules| Params {
        size_granules,
        ..base.clone()
    };
    assert_eq!(refused(&size(0)), ParamsError::Size { size_granules: 0 });
    let over = SIZE_GRANULES_MAX + 1;
    assert_eq!(
        refused(&size(over)),
        ParamsError::Size {
            size_granules: over
        }
    );
    for (self_node, node_count) in [(0, 0), (8, 3), (1, 9)] {
        let params = Params {
            self_node: NodeIdx(self_node),
            node_count,
            ..base.clone()
        };
        assert_eq!(
            refused(&params),
            ParamsError::Nodes {
                self_node,
                node_count
            }
        );
    }
    for grain in [0, 3, 2048] {
        assert_eq!(
            refused(&Params {
                grain,
                ..base.clone()
            }),
            ParamsError::Grain { grain }
        );
    }
    for slots in [0, 65_537] {
        let params = Params {
            activity_log_slots: slots,
            ..base.clone()
        };
        assert_eq!(refused(&params), ParamsError::ActivityLogSlots { slots });
    }
    assert_eq!(
        refused(&Params {
            incarnation: 0,
            ..base.clone()
        }),
        ParamsError::Incarnation
    );
}

#[test]
fn no_forged_superblock_makes_loading_panic() {
    let area = Area::formatted(&params());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below
    };
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..5_000 {
        let mut forged = area.clone();
        for _ in 0..=random(4) {
            // Mostly where superblock fields are; sometimes in a page of a region.
            let block = if random(4) == 0 { random(12) as u64 } else { 1 };
            let (at, value) = (8 + random(1200), random(256) as u8);
            forged.forge(block, |b| b[at] = value);
        }
        match forged.load() {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(
        taken > 100 && refused > 100,
        "{taken} taken, {refused} refused"
    );
}
