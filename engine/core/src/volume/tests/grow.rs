//! Growing: what a crash leaves of it, and what marks say of the new space.

use super::*;
use crate::action::MetaBlock;
use crate::event::DiskError;
use crate::marks::MarkName;
use crate::meta::{Peek, peek};

const OLD: u64 = 5000;
/// Two more pages of bits.
const NEW: u64 = 80_000;
/// After a crash the whole extent counts that was open for the write of [`marked`].
const OPEN: u64 = 1024;

fn grow(size: u64) -> Command {
    Command::Grow {
        size,
        backing_bytes: size * GRANULE,
    }
}

fn mark() -> MarkName {
    "nightly".parse().unwrap()
}

fn marked() -> World {
    let mut world = World::new(1);
    let (name, created_ms) = (mark(), 7);
    let create = Command::MarkCreate { name, created_ms };
    assert_eq!(world.command(0, create), Ok(Answer::Ok));
    assert_eq!(world.write(0, 100, 4, 9), Outcome::Ok);
    world
}

/// Granules that changed since the mark, and whether that is known.
fn dirty(world: &World) -> (u64, bool) {
    let marks = world.nodes[0].volume.marks();
    (marks[0].dirty_granules, marks[0].is_whole)
}

fn size_of(meta: &[Box<MetaBlock>]) -> u64 {
    match peek(&meta[0], &meta[1]) {
        Peek::Ours(superblock) => superblock.size_granules,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_volume_grows_while_it_is_served_and_stays_so() {
    let mut world = marked();
    let past = Op::Zero {
        range: ByteRange {
            offset: OLD * GRANULE,
            len: GRANULE,
        },
        zeroing: Zeroing::Trim,
        fua: false,
    };
    assert_eq!(world.client(0, past), Outcome::OutOfRange);
    world.nodes[0].disk.resize(NEW as usize, 0);
    assert_eq!(world.command(0, grow(NEW)), Ok(Answer::Ok));
    assert_eq!(dirty(&world), (4 + NEW - OLD, false));
    assert_eq!(world.write(0, NEW - 2, 2, 9), Outcome::Ok);
    world.restart(0);
    assert_eq!(size_of(&world.nodes[0].meta), NEW);
    assert_eq!(world.nodes[0].disk[NEW as usize - 1], 9);
    assert_eq!(dirty(&world), (4 + NEW - OLD, false));
}

#[test]
fn a_crash_leaves_the_old_size_or_the_new_one_with_marks_that_cover_it() {
    let mut world = marked();
    let (disk, before) = world.snapshot(0);
    world.nodes[0].written.clear();
    assert_eq!(world.command(0, grow(NEW)), Ok(Answer::Ok));
    let written = world.nodes[0].written.clone();
    let mut sizes = Vec::new();
    for cut in 0..=written.len() {
        for torn in [false, true] {
            let mut area = before.clone();
            let lands = written.iter().take(cut).cloned();
            // Of the write under way at the crash, the first half came through.
            let half = written.get(cut).filter(|_| torn).map(|(block, bytes)| {
                let empty = Box::new([0; 4096]);
                let mut mixed = area.get(*block as usize).unwrap_or(&empty).clone();
                mixed[..2048].copy_from_slice(&bytes[..2048]);
                (*block, mixed)
            });
            for (block, bytes) in lands.chain(half) {
                let room = area.len().max(block as usize + 1);
                area.resize_with(room, || Box::new([0; 4096]));
                area[block as usize] = bytes;
            }
            sizes.push(size_of(&area));
            world.put_back(0, (disk.clone(), area));
            let expected = match sizes.last() {
                Some(&OLD) => (OPEN, false),
                _ => (OPEN + NEW - OLD, false),
            };
            assert_eq!(dirty(&world), expected, "after {cut} writes, torn: {torn}");
            // It goes on from there, and what was left of the first growth is in nobody's way.
            if sizes.last() == Some(&OLD) {
                let smaller = NEW - 1000;
                assert_eq!(world.command(0, grow(smaller)), Ok(Answer::Ok));
                world.restart(0);
                assert_eq!(dirty(&world), (OPEN + smaller - OLD, false), "{cut} {torn}");
            }
        }
    }
    assert!(sizes.is_sorted(), "{sizes:?}");
    assert_eq!((sizes[0], sizes.last()), (OLD, Some(&NEW)));
}

#[test]
fn what_cannot_grow_is_refused_with_the_reason() {
    let mut world = marked();
    let max = 6 * 32_256;
    assert_eq!(
        world.command(0, grow(OLD - 1)),
        Err(CommandError::WouldShrink { size: OLD })
    );
    assert_eq!(world.command(0, grow(OLD)), Err(CommandError::NothingToDo));
    let refused = world.command(0, grow(max + 1));
    assert_eq!(refused, Err(CommandError::NoRoomToGrow { max }));
    assert_eq!(world.command(0, grow(max)), Ok(Answer::Ok));
    let mut pair = in_sync_pair();
    let refused = pair.command(1, grow(NEW));
    assert_eq!(refused, Err(CommandError::PrimaryElsewhere(NodeIdx(0))));
    pair.nodes[1].is_short = true;
    let refused = pair.command(0, grow(NEW));
    let (node, error) = (NodeIdx(1), DiskError::NoSpace);
    assert_eq!(refused, Err(CommandError::NoBackingOn { node, error }));
    assert_eq!(
        pair.nodes[0].volume.granules(),
        pair.nodes[1].volume.granules()
    );
}

/// Sizes of a pair, in memory and as a crash would find them.
fn sizes(pair: &World) -> [u64; 4] {
    let (a, b) = (&pair.nodes[0], &pair.nodes[1]);
    [
        a.volume.granules(),
        b.volume.granules(),
        size_of(&a.meta),
        size_of(&b.meta),
    ]
}

#[test]
fn a_mirror_has_its_new_size_on_all_of_s_when_it_is_answered() {
    let mut pair = in_sync_pair();
    pair.nodes[0].disk.resize(NEW as usize, 0);
    assert_eq!(pair.command(0, grow(NEW)), Ok(Answer::Ok));
    assert_eq!(sizes(&pair), [NEW; 4]);
    assert_eq!(pair.write(0, NEW - 2, 2, 9), Outcome::Ok);
    assert_eq!(pair.nodes[1].disk[NEW as usize - 1], 9);
    assert_eq!(pair.status(0).peers[0].out_of_sync, 0);
    pair.restart(0);
    pair.restart(1);
    assert_eq!(sizes(&pair), [NEW; 4]);
}

#[test]
fn a_replica_that_was_away_grows_before_it_joins() {
    let mut pair = in_sync_pair();
    pair.kill(1);
    pair.nodes[0].disk.resize(NEW as usize, 0);
    assert_eq!(pair.command(0, grow(NEW)), Ok(Answer::Ok));
    assert_eq!(pair.write(0, NEW - 2, 2, 9), Outcome::Ok);
    // What lay behind its end is not the volume's.
    pair.nodes[1].disk.resize(NEW as usize + 10, 7);
    pair.start(1);
    pair.connect();
    assert_eq!(sizes(&pair), [NEW; 4]);
    assert_eq!(pair.nodes[0].disk, pair.nodes[1].disk);
    assert_eq!(pair.status(0).peers[0].out_of_sync, 0);
}
