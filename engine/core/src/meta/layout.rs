//! Where everything lies, and the blocks of a fresh replica.

use std::ops::Range;

use crate::action::{META_BLOCK, MetaBlock};
use crate::bitmap::{BITS_PER_PAGE, WORDS_PER_PAGE, pages_for};
use crate::checksums;
use crate::generation::Chain;
use crate::marks::MARKS_MAX;
use crate::message::{Disk, Life};
use crate::meta::block::{Kind, VERSION};
use crate::meta::error::ParamsError;
use crate::meta::pages::{
    LOG_SLOTS_PER_PAGE, LogSlot, encode_activity_log_page, encode_attributes_page,
    encode_bitmap_page,
};
use crate::meta::superblock::{
    Backing, FEATURE_CHECKSUMS, FEATURE_ROOM, FEATURES_COMPATIBLE, Superblock, VOLUME_NAME_MAX,
    encode_superblock,
};
use crate::past::Past;
use crate::units::{AL_EXTENT, GRANULE, NODES_MAX, NodeIdx, NodeSet, Term};

/// Blocks of the two superblock slots.
pub const SUPERBLOCK_BLOCKS: u64 = 2;
/// Blocks reserved for attributes.
pub const ATTRIBUTES_BLOCKS: u64 = 64;
/// The last blocks [`format`] yields; what came before them is durable before they are written.
pub const FORMAT_COMMIT_BLOCKS: u64 = 2;
/// Largest volume: 2^32 extents of 4 MiB, which is 16 PiB.
pub const SIZE_GRANULES_MAX: u64 = (1 << 32) * (AL_EXTENT / GRANULE);

const _: () = assert!(SUPERBLOCK_BLOCKS == 2 && ATTRIBUTES_BLOCKS.is_multiple_of(2));
const LOG_SLOTS_MAX: u32 = 1 << 16;
const GRAIN_MAX: u32 = 1024;

/// What a fresh replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Name of the volume, 1 to 255 bytes.
    pub volume: String,
    /// Slice of the volume.
    pub slice: u32,
    /// Random, new with every format, not 0.
    pub incarnation: u128,
    /// Index of this node; a witness comes after all replicas.
    pub self_node: NodeIdx,
    /// Configured replicas, 1 to 8.
    pub node_count: u8,
    /// Digest of their names in order.
    pub nodes_digest: u64,
    /// Size of the volume.
    pub size_granules: u64,
    /// Size up to which it may grow: there is room for its marks and bitmaps.
    pub size_granules_max: u64,
    /// Granules one bitmap bit covers; [`crate::bitmap::grain_for`] chooses.
    pub grain: u32,
    /// Slots of the activity log, 1 to 65536.
    pub activity_log_slots: u32,
    /// Boot of this machine.
    pub boot_id: u128,
    /// What holds the data.
    pub backing: Backing,
    /// Whether checksums of the data are stored.
    pub checksums: Checksums,
}

/// Whether checksums of the data are stored, for the life of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// None.
    Off,
    /// One for each granule.
    On {
        /// The data reads as zeros, so all of them are known from the start.
        is_zeroed: bool,
    },
}

/// An entry of the region table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// [`Kind`] as a number; unknown ones are skipped.
    pub kind: u32,
    /// Version of its records.
    pub version: u32,
    /// Node a bitmap speaks of; 0 for other kinds.
    pub index: u32,
    /// First block.
    pub offset: u64,
    /// Blocks, two per page.
    pub length: u64,
}

impl Region {
    /// Pages of two slots each.
    pub fn pages(&self) -> u64 {
        self.length / 2
    }

    /// The bitmap of another node, so many pages long.
    pub fn bitmap(node: NodeIdx, offset: u64, pages: u64) -> Region {
        Region {
            kind: Kind::Bitmap as u32,
            version: VERSION,
            index: u32::from(node.0),
            offset,
            length: 2 * pages,
        }
    }
}

/// The whole metadata area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Blocks before the marks, superblocks and room to grow included.
    pub blocks: u64,
    /// Blocks of each bitmap that are written at format; what follows is room to grow, a hole.
    pub bitmap_blocks: u64,
    /// All regions in order: activity log, one bitmap per other node, attributes.
    pub regions: Vec<Region>,
    /// Pages of all marks, slot after slot, behind everything else: not written before use.
    pub marks: Region,
    /// Pages of checksums behind those, neither written before use.
    pub sums: Option<Region>,
}

/// Places every region of a fresh replica. Errors name the parameter that is out of range.
pub fn layout(params: &Params) -> Result<Layout, ParamsError> {
    let len = params.volume.len();
    if !(1..=VOLUME_NAME_MAX).contains(&len) {
        return Err(ParamsError::VolumeName { len });
    }
    if params.incarnation == 0 {
        return Err(ParamsError::Incarnation);
    }
    Geometry {
        self_node: params.self_node,
        node_count: params.node_count,
        size_granules: params.size_granules,
        size_granules_max: params.size_granules_max,
        grain: params.grain,
        activity_log_slots: params.activity_log_slots,
        has_sums: params.checksums != Checksums::Off,
    }
    .layout()
}

/// What decides the regions.
pub(super) struct Geometry {
    pub(super) self_node: NodeIdx,
    pub(super) node_count: u8,
    pub(super) size_granules: u64,
    pub(super) size_granules_max: u64,
    pub(super) grain: u32,
    pub(super) activity_log_slots: u32,
    pub(super) has_sums: bool,
}

impl Geometry {
    pub(super) fn layout(&self) -> Result<Layout, ParamsError> {
        self.check()?;
        let log_pages = u64::from(self.activity_log_slots).div_ceil(LOG_SLOTS_PER_PAGE as u64);
        let bitmap_room = 2 * pages_for(self.size_granules_max, self.grain);
        let mut layout = Layout {
            blocks: SUPERBLOCK_BLOCKS,
            bitmap_blocks: 2 * pages_for(self.size_granules, self.grain),
            regions: Vec::new(),
            marks: Region {
                kind: Kind::Mark as u32,
                version: VERSION,
                index: 0,
                offset: 0,
                length: MARKS_MAX as u64 * 2 * pages_for(self.size_granules_max, self.grain),
            },
            sums: None,
        };
        layout.place(Kind::ActivityLog, 0, 2 * log_pages);
        let is_witness = self.self_node.0 >= self.node_count;
        let others = (0..self.node_count).filter(|node| *node != self.self_node.0);
        for node in others.filter(|_| !is_witness) {
            layout.place(Kind::Bitmap, u32::from(node), bitmap_room);
        }
        layout.place(Kind::Attributes, 0, ATTRIBUTES_BLOCKS);
        layout.marks.offset = layout.blocks;
        layout.sums = (self.has_sums && !is_witness).then(|| Region {
            kind: Kind::Sums as u32,
            version: VERSION,
            index: 0,
            offset: layout.marks.offset + layout.marks.length,
            // As far as there is room for marks.
            length: 2 * checksums::pages_for(
                pages_for(self.size_granules_max, self.grain)
                    * BITS_PER_PAGE
                    * u64::from(self.grain),
            ),
        });
        Ok(layout)
    }

    fn check(&self) -> Result<(), ParamsError> {
        let &Geometry {
            self_node: NodeIdx(self_node),
            node_count,
            size_granules,
            ..
        } = self;
        let (grain, slots) = (self.grain, self.activity_log_slots);
        if !(1..=SIZE_GRANULES_MAX).contains(&size_granules) {
            return Err(ParamsError::Size { size_granules });
        }
        let size_max = self.size_granules_max;
        if !(size_granules..=SIZE_GRANULES_MAX).contains(&size_max) {
            let size_granules = size_max;
            return Err(ParamsError::Size { size_granules });
        }
        let are_too_many = usize::from(node_count).max(usize::from(self_node) + 1) > NODES_MAX;
        if are_too_many || node_count == 0 {
            return Err(ParamsError::Nodes {
                self_node,
                node_count,
            });
        }
        if !grain.is_power_of_two() || grain > GRAIN_MAX {
            return Err(ParamsError::Grain { grain });
        }
        if !(1..=LOG_SLOTS_MAX).contains(&slots) {
            return Err(ParamsError::ActivityLogSlots { slots });
        }
        Ok(())
    }
}

impl Layout {
    fn place(&mut self, kind: Kind, index: u32, length: u64) {
        let region = Region {
            kind: kind as u32,
            version: VERSION,
            index,
            offset: self.blocks,
            length,
        };
        self.regions.push(region);
        self.blocks += length;
    }

    /// The activity log.
    pub fn activity_log(&self) -> Region {
        let region = self
            .regions
            .iter()
            .find(|r| r.kind == Kind::ActivityLog as u32);
        *region.expect("every layout has an activity log")
    }

    /// The bitmaps of other nodes, lowest index first.
    pub fn bitmaps(&self) -> impl Iterator<Item = &Region> {
        let is_bitmap = |r: &&Region| r.kind == Kind::Bitmap as u32;
        self.regions.iter().filter(is_bitmap)
    }

    /// The bitmap of another node; `None` for this node and unknown ones.
    pub fn bitmap(&self, peer: NodeIdx) -> Option<Region> {
        let mut bitmaps = self.bitmaps();
        bitmaps.find(|r| r.index == u32::from(peer.0)).copied()
    }

    /// Bytes before the marks: preallocated.
    pub fn bytes(&self) -> u64 {
        self.blocks * META_BLOCK as u64
    }

    /// Blocks written at format: the superblocks, then those of each region.
    pub fn written(&self) -> impl Iterator<Item = Range<u64>> {
        let regions = self.regions.iter().map(|region| {
            let room = match region.kind == Kind::Bitmap as u32 {
                true => self.bitmap_blocks,
                false => region.length,
            };
            region.offset..region.offset + room
        });
        std::iter::once(0..SUPERBLOCK_BLOCKS).chain(regions)
    }

    /// Bytes in total: the file's length, its end a hole.
    pub fn total_bytes(&self) -> u64 {
        let last = self.sums.unwrap_or(self.marks);
        (last.offset + last.length) * META_BLOCK as u64
    }
}

/// Every block of a fresh, blank replica: superblock slots emptied, then all regions but those of
/// marks and checksums, which must read as zeros or an older replica's pages, then the two
/// superblocks. Make what was written durable before the last [`FORMAT_COMMIT_BLOCKS`], and again
/// after them: a format that did not end is then never taken for one that did.
pub fn format(
    params: &Params,
) -> Result<impl Iterator<Item = (u64, Box<MetaBlock>)> + use<>, ParamsError> {
    let layout = layout(params)?;
    let written: Vec<Range<u64>> = layout.written().skip(1).collect();
    let Layout {
        regions,
        marks,
        sums,
        ..
    } = layout;
    let table = regions.iter().copied().chain([marks]).chain(sums).collect();
    let superblock = fresh_superblock(params, table);
    let incarnation = params.incarnation;
    let empty = (0..SUPERBLOCK_BLOCKS).map(|block| (block, Box::new([0; META_BLOCK])));
    let pages = regions
        .into_iter()
        .zip(written)
        .flat_map(move |(region, blocks)| {
            blocks.map(move |block| {
                let counter = first_counter(block - region.offset);
                (block, fresh_page(region.kind, incarnation, block, counter))
            })
        });
    let superblocks = (0..SUPERBLOCK_BLOCKS).map(move |block| {
        (
            block,
            encode_superblock(&superblock, block, first_counter(block)),
        )
    });
    Ok(empty.chain(pages).chain(superblocks))
}

/// Slot A is written first, so B is the newer one.
fn first_counter(slot: u64) -> u64 {
    1 + slot % 2
}

fn fresh_page(kind: u32, incarnation: u128, block: u64, counter: u64) -> Box<MetaBlock> {
    if kind == Kind::ActivityLog as u32 {
        let slots = [LogSlot::FREE; LOG_SLOTS_PER_PAGE];
        encode_activity_log_page(incarnation, &slots, block, counter)
    } else if kind == Kind::Bitmap as u32 {
        encode_bitmap_page(incarnation, &[0; WORDS_PER_PAGE], block, counter)
    } else {
        encode_attributes_page(incarnation, block, counter)
    }
}

fn fresh_superblock(params: &Params, regions: Vec<Region>) -> Superblock {
    let has_bitmaps = regions.iter().any(|r| r.kind == Kind::Bitmap as u32);
    let has_sums = regions.iter().any(|r| r.kind == Kind::Sums as u32);
    let is_zeroed = params.checksums == Checksums::On { is_zeroed: true };
    Superblock {
        features_compatible: FEATURES_COMPATIBLE,
        features_incompatible: if has_bitmaps { FEATURE_ROOM } else { 0 }
            | if has_sums { FEATURE_CHECKSUMS } else { 0 },
        zeroed_granules: if has_sums && is_zeroed {
            params.size_granules
        } else {
            0
        },
        volume: params.volume.clone(),
        volume_id: 0,
        slice: params.slice,
        incarnation: params.incarnation,
        self_node: params.self_node,
        node_count: params.node_count,
        nodes_digest: params.nodes_digest,
        size_granules: params.size_granules,
        granule_bytes: GRANULE as u32,
        grain: params.grain,
        activity_log_slots: params.activity_log_slots,
        clean: true,
        boot_id: params.boot_id,
        disk: Disk::Blank,
        whole: true,
        held: NodeSet::EMPTY,
        joined: NodeSet::EMPTY,
        promised: Term(0),
        record: None,
        voted: None,
        chain: Chain::default(),
        known: [0; NODES_MAX],
        life: Life::default(),
        given_up: 0,
        follows: 0,
        known_lives: [Life::default(); NODES_MAX],
        renewed: 0,
        past: Past::default(),
        backing: params.backing,
        regions,
    }
}
