//! A second look at an area of which few blocks changed: what was read from the others stands.
//! For simulators, which look after every write.

use std::collections::BTreeSet;

use crate::action::META_BLOCK;
use crate::meta::block::Kind;
use crate::meta::error::LoadError;
use crate::meta::layout::Region;
use crate::meta::load::{
    Blocks, Expect, Loaded, check_identity, load, place_node, read_superblock,
};
use crate::meta::pages::PageWriter;
use crate::meta::reader::Reader;
use crate::meta::superblock::Superblock;

/// Which parts were read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reread {
    /// The activity log.
    pub log: bool,
    /// A bitmap of another node.
    pub bitmaps: bool,
    /// Attributes or pages of marks; [`super::load_marks`] is due.
    pub marks: bool,
}

impl Reread {
    /// Everything.
    pub const ALL: Reread = Reread {
        log: true,
        bitmaps: true,
        marks: true,
    };
}

/// What the place and meaning of every page depends on.
fn shape(superblock: &Superblock) -> (u128, u64, u32, &[Region]) {
    (
        superblock.incarnation,
        superblock.size_granules,
        superblock.grain,
        &superblock.regions,
    )
}

/// As [`load`] of an area that `loaded` was loaded from, and of which these blocks changed since.
/// The marks stay as they are. After an error `loaded` is of no more use.
pub fn reload(
    loaded: &mut Loaded,
    blocks: &[u8],
    expect: &Expect,
    changed: &BTreeSet<u64>,
) -> Result<Reread, LoadError> {
    let all = 0..(blocks.len() / META_BLOCK) as u64;
    let area = Blocks {
        ranges: std::slice::from_ref(&all),
        bytes: blocks,
    };
    let (mut superblock, newest) = read_superblock(area.block(0)?, area.block(1)?)?;
    check_identity(&superblock, expect)?;
    if shape(&superblock) != shape(&loaded.superblock) {
        *loaded = load(blocks, expect)?;
        return Ok(Reread::ALL);
    }
    let incarnation = superblock.incarnation;
    let reader = Reader { area, incarnation };
    let is_touched = |region: &&Region| {
        let mut inside = changed.range(region.offset..region.offset + region.length);
        inside.next().is_some()
    };
    let mut reread = Reread {
        log: false,
        bitmaps: false,
        marks: false,
    };
    for region in superblock.regions.iter().filter(is_touched) {
        if region.kind == Kind::ActivityLog as u32 {
            let size = superblock.size_granules;
            (loaded.activity_log, loaded.activity_log_writer) =
                reader.activity_log(*region, size)?;
            reread.log = true;
        } else if region.kind == Kind::Bitmap as u32 {
            let bitmap = reader.bitmap(*region, &superblock)?;
            let known = loaded.bitmaps.iter_mut().find(|b| b.peer == bitmap.peer);
            *known.expect("every region of a bitmap was loaded") = bitmap;
            reread.bitmaps = true;
        } else if region.kind == Kind::Attributes as u32 {
            loaded.attributes = reader.attributes(*region)?;
            reread.marks = true;
        } else if region.kind == Kind::Mark as u32 {
            reread.marks = true;
        }
    }
    place_node(&mut superblock, &loaded.attributes, expect)?;
    loaded.superblock_writer = PageWriter::new(0, vec![newest]);
    loaded.superblock = superblock;
    Ok(reread)
}
