//! Law M2: one block write is the commit; a torn one leaves the old state.

use proptest::prelude::*;

use super::world::*;
use crate::action::{META_BLOCK, MetaBlock};
use crate::meta::*;
use crate::units::NodeIdx;

/// Writes the first `cut` bytes of a block; the rest stays as it was.
fn tear(area: &Area, block: u64, new: &MetaBlock, cut: usize) -> Area {
    let mut torn = area.clone();
    torn.block_mut(block)[..cut].copy_from_slice(&new[..cut]);
    torn
}

/// Loads, and finds either the old state or, only from a whole write, the new one.
fn check_cut(area: &Area, old: &Loaded, new: &Loaded, write: (u64, &MetaBlock), cut: usize) {
    let torn = tear(area, write.0, write.1, cut);
    let found = torn.load().unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
    assert_eq!(found, torn.load().unwrap(), "recovery is idempotent");
    let is_whole = torn.block(write.0) == write.1;
    let expected = if is_whole { new } else { old };
    assert!(
        found == *expected,
        "cut at {cut} of block {} is neither old nor new",
        write.0
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_write_torn_anywhere_leaves_the_old_state_or_the_new(
        history in prop::collection::vec(changes(), 0..6),
        last in changes(),
        cuts in prop::collection::vec(0..=META_BLOCK, 12),
        after in changes(),
    ) {
        let mut area = Area::formatted(&params());
        let mut old = area.load().unwrap();
        for change in &history {
            let (block, bytes) = apply(change, &mut old);
            area.write(block, &bytes);
        }
        prop_assert_eq!(&area.load().unwrap(), &old, "what was written is read back");

        let mut new = old.clone();
        let (block, bytes) = apply(&last, &mut new);
        for cut in (0..=META_BLOCK).step_by(512).chain(cuts) {
            check_cut(&area, &old, &new, (block, &bytes), cut);
        }

        // Life goes on from a torn write as if it had never been begun.
        let mut torn = tear(&area, block, &bytes, 1024);
        let mut going = torn.load().unwrap();
        let (block, bytes) = apply(&after, &mut going);
        torn.write(block, &bytes);
        prop_assert_eq!(torn.load().unwrap(), going);
    }
}

#[test]
fn every_single_byte_of_every_kind_of_record_may_be_the_last_one_written() {
    let log = [LogSlot { start: 3, count: 4 }; LOG_SLOTS_PER_PAGE];
    let mut superblock = Area::formatted(&params()).load().unwrap().superblock;
    superblock.known = [5; 8];
    superblock.clean = false;
    let changes = [
        Change::Superblock(Box::new(superblock)),
        Change::Log(Box::new(log)),
        Change::Bitmap(1, (0..32_000).step_by(3).collect()),
    ];
    for change in changes {
        let area = Area::formatted(&params());
        let old = area.load().unwrap();
        let mut new = old.clone();
        let (block, bytes) = apply(&change, &mut new);
        for cut in 0..=META_BLOCK {
            check_cut(&area, &old, &new, (block, &bytes), cut);
        }
    }
}

#[test]
fn any_single_bit_flip_is_detected() {
    let area = Area::formatted(&params());
    let layout = layout(&params()).unwrap();
    let places = [
        (Kind::Superblock, 1),
        (Kind::ActivityLog, layout.activity_log().offset + 1),
        (Kind::Bitmap, layout.bitmap(NodeIdx(0)).unwrap().offset + 3),
        (Kind::Attributes, layout.blocks - 1),
    ];
    for (kind, block) in places {
        let mut bytes = *area.block(block);
        assert_eq!(
            examine(&bytes, kind, block, Some(LIFE)),
            Finding::Valid { counter: 2 }
        );
        for bit in 0..META_BLOCK * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                examine(&bytes, kind, block, Some(LIFE)),
                Finding::Torn,
                "{kind:?} {bit}"
            );
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_damaged_slot_is_survived_and_two_are_refused() {
    let area = Area::formatted(&params());
    let old = area.load().unwrap();
    for block in (0..layout(&params()).unwrap().blocks).step_by(2) {
        let mut one = area.clone();
        one.block_mut(block)[100] ^= 4;
        let found = one.load().unwrap();
        assert_eq!(found.superblock, old.superblock);
        assert_eq!(found.activity_log, old.activity_log);
        one.block_mut(block + 1)[4000] ^= 1;
        let error = one.load().unwrap_err();
        assert!(
            matches!(error, LoadError::Damaged { block: b, a: Finding::Torn, b: Finding::Torn, .. } if b == block),
            "{error}"
        );
    }
}

#[test]
fn a_format_that_did_not_end_is_seen_as_never_begun() {
    let blocks: Vec<(u64, Box<MetaBlock>)> = format(&params()).unwrap().collect();
    let whole = Area::formatted(&params());
    let mut area = Area(vec![0; whole.0.len()]);
    for (done, (block, bytes)) in blocks.iter().enumerate() {
        let left = blocks.len() as u64 - done as u64;
        let (a, b) = (area.block(0), area.block(1));
        if left >= FORMAT_COMMIT_BLOCKS {
            assert_eq!(peek(a, b), Peek::Nothing, "{left} blocks to go");
            assert_eq!(
                area.load(),
                Err(LoadError::NotFormatted),
                "{left} blocks to go"
            );
        } else {
            assert_eq!(
                area.load().unwrap().superblock,
                whole.load().unwrap().superblock
            );
        }
        area.write(*block, bytes);
    }
    assert!(area.0 == whole.0);
}

#[test]
fn a_format_over_an_old_replica_never_brings_the_old_one_back() {
    let mut old = Area::formatted(&params());
    let mut state = old.load().unwrap();
    for _ in 0..3 {
        let mut superblock = state.superblock.clone();
        superblock.boot_id += 1;
        let (block, bytes) = apply(&Change::Superblock(Box::new(superblock)), &mut state);
        old.write(block, &bytes);
    }
    let reborn = Params {
        incarnation: 99,
        ..params()
    };
    let blocks: Vec<(u64, Box<MetaBlock>)> = format(&reborn).unwrap().collect();
    for (done, (block, bytes)) in blocks.iter().enumerate() {
        old.write(*block, bytes);
        match old.load() {
            Ok(found) => {
                assert!(
                    done + 2 >= blocks.len(),
                    "block {done} is too early for a new life"
                );
                assert_eq!(found.superblock.incarnation, 99);
            }
            Err(LoadError::Damaged {
                row: "superblock A blanked",
                ..
            }) => assert_eq!(done, 0),
            Err(error) => assert_eq!(error, LoadError::NotFormatted, "after block {done}"),
        }
    }
}
