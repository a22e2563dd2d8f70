//! From blocks to state: total, pure, and refusing whatever does not fit.

use std::ops::Range;

use crate::action::{META_BLOCK, MetaBlock};
use crate::bitmap::{Bitmap, pages_for};
use crate::marks::MARKS_MAX;
use crate::meta::attributes::LoadedAttributes;
use crate::meta::block::{Finding, Kind, VERSION, examine, has_magic, incarnation_of};
use crate::meta::error::{Field, LoadError};
use crate::meta::layout::{Geometry, Layout, Region, SUPERBLOCK_BLOCKS};
use crate::meta::marks::{LoadedMark, MarkRegion};
use crate::meta::pages::{LogPage, Newest, PageWriter, Slot, slot_block};
use crate::meta::reader::{Reader, choose};
use crate::meta::sums::SumRegion;
use crate::meta::superblock::{
    Backing, FEATURE_ATTRIBUTES, FEATURE_CHECKSUMS, FEATURE_NODES, FEATURES_INCOMPATIBLE,
    REGIONS_MAX, Superblock, decode_superblock,
};
use crate::table::{NodeKind, Table};
use crate::units::{NODES_MAX, NodeIdx};

/// What the configuration says should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// Name of the volume.
    pub volume: String,
    /// Slice of the volume.
    pub slice: u32,
    /// Name of this node.
    pub node: String,
    /// Its index by the file. It and what follows count until the volume has a table of its own.
    pub self_node: NodeIdx,
    /// Configured nodes with data.
    pub node_count: u8,
    /// Digest of their names in order.
    pub nodes_digest: u64,
    /// Size of the volume.
    pub size_granules: u64,
    /// Bytes of one granule.
    pub granule_bytes: u32,
    /// What holds the data.
    pub backing: Backing,
}

/// Dirty bits of one other node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerBitmap {
    /// Which node.
    pub peer: NodeIdx,
    /// What it lacks; no page differs from disk.
    pub bitmap: Bitmap,
    /// Where its pages go next.
    pub writer: PageWriter,
    /// Pages that its region has room for.
    pub pages_max: usize,
}

/// A replica's metadata as it stood at the last commit of each record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The newest superblock.
    pub superblock: Superblock,
    /// Where the next one goes: page 0.
    pub superblock_writer: PageWriter,
    /// The activity log, page by page.
    pub activity_log: Vec<LogPage>,
    /// Where its pages go next.
    pub activity_log_writer: PageWriter,
    /// One bitmap per other node, lowest index first.
    pub bitmaps: Vec<PeerBitmap>,
    /// What `SetAttr` set.
    pub attributes: LoadedAttributes,
    /// Where pages of marks lie; `None` in areas made before there were marks.
    pub mark_region: Option<MarkRegion>,
    /// The marks: filled by [`super::load_marks`].
    pub marks: Vec<LoadedMark>,
    /// Where checksums lie; `None`: none are stored.
    pub sum_region: Option<SumRegion>,
}

/// What two blocks at the place of the superblocks are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peek {
    /// Zeros: nothing was ever formatted here, or a format did not end.
    Nothing,
    /// Somebody else's data.
    Foreign,
    /// A replica's metadata that can be read.
    Ours(Box<Superblock>),
    /// A replica's metadata that cannot be read, and why.
    Damaged(LoadError),
}

/// Tells what is there before anything is written or loaded.
pub fn peek(a: &MetaBlock, b: &MetaBlock) -> Peek {
    match read_superblock(a, b) {
        Ok((superblock, _)) => Peek::Ours(Box::new(superblock)),
        Err(LoadError::NotFormatted) => Peek::Nothing,
        Err(error) if has_magic(a) || has_magic(b) => Peek::Damaged(error),
        Err(_) => Peek::Foreign,
    }
}

/// Reads a whole metadata area. Pure: repeating it gives the same, whatever crashed in between
/// (law M3). Memory taken is bounded by the area's length.
pub fn load(blocks: &[u8], expect: &Expect) -> Result<Loaded, LoadError> {
    let all = 0..(blocks.len() / META_BLOCK) as u64;
    let ranges = std::slice::from_ref(&all);
    load_parts(
        Blocks {
            ranges,
            bytes: blocks,
        },
        expect,
    )
}

/// As [`load`], from the blocks of the area that count: [`read_ranges`] names them.
pub fn load_parts(area: Blocks<'_>, expect: &Expect) -> Result<Loaded, LoadError> {
    let (mut superblock, newest) = read_superblock(area.block(0)?, area.block(1)?)?;
    check_identity(&superblock, expect)?;
    let superblock_block = slot_block(0, 0, newest.slot);
    let invalid = |field| LoadError::Invalid {
        block: superblock_block,
        field,
    };
    let layout = needed_layout(&superblock).map_err(invalid)?;
    check_regions(&superblock, &layout, area.end(), &invalid(Field::Regions))?;

    let find = |wanted: &Region| {
        let same = |r: &&Region| (r.kind, r.index) == (wanted.kind, wanted.index);
        *superblock
            .regions
            .iter()
            .find(same)
            .expect("check_regions found every needed region")
    };
    let reader = Reader {
        area,
        incarnation: superblock.incarnation,
    };
    let (activity_log, activity_log_writer) =
        reader.activity_log(find(&layout.activity_log()), superblock.size_granules)?;
    let mut bitmaps = Vec::new();
    for wanted in layout.bitmaps() {
        bitmaps.push(reader.bitmap(find(wanted), &superblock)?);
    }
    let attributes =
        reader.attributes(find(layout.regions.last().expect("attributes come last")))?;
    let mark_region = superblock
        .regions
        .iter()
        .find(|r| r.kind == Kind::Mark as u32);
    let mark_region = mark_region.map(|region| MarkRegion::new(region, &superblock));
    let sum_region = superblock
        .regions
        .iter()
        .find(|r| r.kind == Kind::Sums as u32)
        .map(|region| SumRegion::new(region, &superblock));
    place_node(&mut superblock, &attributes, expect)?;
    let superblock_writer = PageWriter::new(0, vec![newest]);
    Ok(Loaded {
        superblock,
        superblock_writer,
        activity_log,
        activity_log_writer,
        bitmaps,
        attributes,
        mark_region,
        marks: Vec::new(),
        sum_region,
    })
}

/// The blocks of an area that [`load_parts`] looks at, by its superblocks, lowest first; `None` if
/// those cannot be read. What is left out are marks, and room to grow.
pub fn read_ranges(a: &MetaBlock, b: &MetaBlock) -> Option<Vec<Range<u64>>> {
    let (superblock, _) = read_superblock(a, b).ok()?;
    let pages = pages_for(superblock.size_granules, superblock.grain.max(1));
    let regions = superblock.regions.iter();
    let read = regions.filter(|r| !is_lazy(r.kind)).map(|r| {
        let used = match r.kind == Kind::Bitmap as u32 {
            true => r.length.min(pages.saturating_mul(2)),
            false => r.length,
        };
        r.offset..r.offset.saturating_add(used)
    });
    let mut ranges: Vec<Range<u64>> = std::iter::once(0..SUPERBLOCK_BLOCKS).chain(read).collect();
    ranges.sort_by_key(|r| r.start);
    // Regions that overlap are refused when they are looked at; here each block is read once.
    let mut next = 0;
    for range in &mut ranges {
        range.start = range.start.max(next).min(range.end);
        next = next.max(range.end);
    }
    Some(ranges)
}

/// Regions that are not written before use, and not read at once.
fn is_lazy(kind: u32) -> bool {
    kind == Kind::Mark as u32 || kind == Kind::Sums as u32
}

/// Blocks as they were read: those of each range, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    /// Which blocks, lowest first; they do not overlap.
    pub ranges: &'a [Range<u64>],
    /// Their bytes; the last may be missing, where the file ends.
    pub bytes: &'a [u8],
}

impl<'a> Blocks<'a> {
    /// One past the last block that is there.
    fn end(self) -> u64 {
        let mut left = (self.bytes.len() / META_BLOCK) as u64;
        let mut end = 0;
        for range in self.ranges {
            let here = (range.end - range.start).min(left);
            left -= here;
            if here > 0 {
                end = range.start + here;
            }
        }
        end
    }

    pub(super) fn block(self, block: u64) -> Result<&'a MetaBlock, LoadError> {
        let mut before = 0;
        let mut place = None;
        for range in self.ranges {
            if range.contains(&block) {
                place = Some(before + block - range.start);
                break;
            }
            before += range.end - range.start;
        }
        let at = place.and_then(|at| usize::try_from(at).ok()?.checked_mul(META_BLOCK));
        let bytes = at.and_then(|at| self.bytes.get(at..)?.first_chunk());
        bytes.ok_or(LoadError::Short {
            found: self.end(),
            expected: block.saturating_add(1),
        })
    }
}

pub(super) fn read_superblock(
    a: &MetaBlock,
    b: &MetaBlock,
) -> Result<(Superblock, Newest), LoadError> {
    let mut findings = [
        examine(a, Kind::Superblock, 0, None),
        examine(b, Kind::Superblock, 1, None),
    ];
    let lives = [incarnation_of(a), incarnation_of(b)];
    let are_valid = findings.iter().all(|f| matches!(f, Finding::Valid { .. }));
    if are_valid && lives[0] != lives[1] {
        // Two lives claim the area; neither is known to be the right one.
        findings = lives.map(|incarnation| Finding::Foreign { incarnation });
    }
    let newest = choose(Kind::Superblock, 0, 0, findings[0], findings[1])?;
    let bytes = if newest.slot == Slot::A { a } else { b };
    let invalid = |field| LoadError::Invalid {
        block: slot_block(0, 0, newest.slot),
        field,
    };
    let superblock = decode_superblock(bytes).map_err(invalid)?;
    let found = superblock.features_incompatible;
    if found & !FEATURES_INCOMPATIBLE != 0 {
        return Err(LoadError::Feature {
            found,
            expected: FEATURES_INCOMPATIBLE,
        });
    }
    Ok((superblock, newest))
}

pub(super) fn check_identity(found: &Superblock, expect: &Expect) -> Result<(), LoadError> {
    if found.volume != expect.volume {
        let (found, expected) = (found.volume.clone(), expect.volume.clone());
        return Err(LoadError::Volume { found, expected });
    }
    if found.slice != expect.slice {
        return Err(LoadError::Slice {
            found: found.slice,
            expected: expect.slice,
        });
    }
    if found.features_incompatible & FEATURE_ATTRIBUTES == 0 {
        check_nodes(found, expect)?;
    }
    if found.granule_bytes != expect.granule_bytes {
        let (found, expected) = (found.granule_bytes, expect.granule_bytes);
        return Err(LoadError::Granule { found, expected });
    }
    if found.size_granules != expect.size_granules {
        let (found, expected) = (found.size_granules, expect.size_granules);
        return Err(LoadError::Size { found, expected });
    }
    // It may have grown: only its first bytes are used.
    let is_same = (found.backing.kind, found.backing.identity)
        == (expect.backing.kind, expect.backing.identity)
        && found.backing.size <= expect.backing.size;
    if !is_same {
        return Err(LoadError::Backing {
            found: found.backing,
            expected: expect.backing,
        });
    }
    Ok(())
}

/// The nodes are those of the file.
fn check_nodes(found: &Superblock, expect: &Expect) -> Result<(), LoadError> {
    if (found.node_count, found.nodes_digest) != (expect.node_count, expect.nodes_digest) {
        return Err(other_nodes(found, expect));
    }
    if found.self_node != expect.self_node {
        return Err(LoadError::Node {
            found: found.self_node.0,
            expected: expect.self_node.0,
        });
    }
    Ok(())
}

fn other_nodes(found: &Superblock, expect: &Expect) -> LoadError {
    LoadError::Nodes {
        found: found.node_count,
        expected: expect.node_count,
        found_digest: found.nodes_digest,
        expected_digest: expect.nodes_digest,
    }
}

/// This node has the index that the volume's own table gives it; without a table the file's, which
/// the metadata was made with.
pub(super) fn place_node(
    superblock: &mut Superblock,
    attributes: &LoadedAttributes,
    expect: &Expect,
) -> Result<(), LoadError> {
    let Ok(Some(table)) = Table::stored(&attributes.attributes) else {
        return check_nodes(superblock, expect);
    };
    let index = table.index_by_name(&expect.node);
    let index = index.ok_or_else(|| other_nodes(superblock, expect))?;
    let kind = table.entry(index).map(|entry| entry.kind);
    if index != superblock.self_node && kind == Some(NodeKind::Replica) {
        // Which bitmaps there are does not follow from index and count any more.
        superblock.features_incompatible |= FEATURE_NODES;
    }
    superblock.self_node = index;
    Ok(())
}

/// The regions a superblock of this geometry needs.
fn needed_layout(superblock: &Superblock) -> Result<Layout, Field> {
    let goes_by_list = superblock.features_incompatible & FEATURE_NODES != 0;
    let (self_node, node_count) = match goes_by_list {
        true => (NodeIdx(0), 1),
        false => (superblock.self_node, superblock.node_count),
    };
    let geometry = Geometry {
        self_node,
        node_count,
        size_granules: superblock.size_granules,
        size_granules_max: superblock.size_granules,
        grain: superblock.grain,
        activity_log_slots: superblock.activity_log_slots,
        has_sums: superblock.features_incompatible & FEATURE_CHECKSUMS != 0,
    };
    let mut layout = geometry.layout().map_err(|_| Field::Geometry)?;
    if goes_by_list {
        let pages = pages_for(superblock.size_granules, superblock.grain);
        let listed = superblock.regions.iter();
        for region in listed.filter(|r| r.kind == Kind::Bitmap as u32) {
            let node = u8::try_from(region.index).map_err(|_| Field::Regions)?;
            if usize::from(node) >= NODES_MAX {
                return Err(Field::Regions);
            }
            let wanted = Region::bitmap(NodeIdx(node), 0, pages);
            layout.regions.insert(layout.regions.len() - 1, wanted);
        }
    }
    Ok(layout)
}

/// Every needed region is there once, of a known version and the right length; none lies outside
/// the area or over another. Regions of unknown kinds belong to compatible features.
fn check_regions(
    superblock: &Superblock,
    needed: &Layout,
    area_blocks: u64,
    invalid: &LoadError,
) -> Result<(), LoadError> {
    let mut taken: Vec<Range<u64>> = Vec::with_capacity(REGIONS_MAX + 1);
    taken.push(0..SUPERBLOCK_BLOCKS);
    for region in &superblock.regions {
        let end = region.offset.checked_add(region.length);
        let end = end.ok_or_else(|| invalid.clone())?;
        let same = |r: &&Region| (r.kind, r.index) == (region.kind, region.index);
        let used = needed.regions.iter().find(same).map_or(0, |r| r.length);
        let expected = region.offset + used.min(region.length);
        if expected > area_blocks && used > 0 {
            return Err(LoadError::Short {
                found: area_blocks,
                expected,
            });
        }
        if taken.iter().any(|t| region.offset < t.end && t.start < end) {
            return Err(invalid.clone());
        }
        taken.push(region.offset..end);
    }
    for wanted in needed
        .regions
        .iter()
        .chain([&needed.marks])
        .chain(&needed.sums)
    {
        let same = |r: &&Region| (r.kind, r.index) == (wanted.kind, wanted.index);
        let mut found = superblock.regions.iter().filter(same);
        let (region, None) = (found.next(), found.next()) else {
            return Err(invalid.clone());
        };
        let Some(region) = region else {
            // Areas made before there were marks have no room for them.
            if wanted.kind == Kind::Mark as u32 {
                continue;
            }
            return Err(invalid.clone());
        };
        if region.version != VERSION {
            return Err(LoadError::version(kind_of(wanted), region.version));
        }
        // There is room to grow.
        let has_room = |unit: u64| region.length >= wanted.length && region.length % unit == 0;
        let is_fit = match kind_of(wanted) {
            Kind::Mark => has_room(2 * MARKS_MAX as u64),
            Kind::Bitmap | Kind::Sums => has_room(2),
            _ => region.length == wanted.length,
        };
        if !is_fit {
            return Err(invalid.clone());
        }
    }
    Ok(())
}

/// Kind of a region this build places itself.
fn kind_of(region: &Region) -> Kind {
    let kinds = [
        Kind::ActivityLog,
        Kind::Bitmap,
        Kind::Attributes,
        Kind::Mark,
        Kind::Sums,
    ];
    let kind = kinds.into_iter().find(|kind| *kind as u32 == region.kind);
    kind.expect("a layout places known kinds only")
}
