//! Identity, geometry, record and history of one replica: the one record all else hangs on.
//!
//! ```text
//!   64 features compatible     u64     152 promised term          u64
//!   72 features incompatible   u64     160 record: term           u64
//!   80 volume id              u128     168   step                 u32
//!   96 size in granules        u64     172   primary, S, voters, released 4×u8
//!  104 bytes per granule       u32     176   branch              u128
//!  108 granules per bit        u32     192 incarnation known of peer 0..8   8×u128
//!  112 activity-log slots      u32     320 backing size in bytes  u64
//!  116 slice                   u32     328 backing identity  32 bytes
//!  120 self node, node count  2×u8     360 volume name, zero padded 256 bytes
//!  122 is clean, disk state   2×u8     616 chain entries u32, whole, held, joined 3×u8, 0
//!  124 has record             u8       624 16 regions × 32 bytes
//!  125 backing kind           u8      1136 64 chain entries × 24 bytes
//!  126 name length, regions   2×u8    2672 life: count, id           2×u64
//!  128 digest of node names    u64
//!  136 boot id                u128      2688 lives known of peer 0..8    8×16 bytes
//!                                       2816 record voted for: as at 160 32 bytes, has one u8
//!                                       2852 times given up u32, 2856 follows branch u128
//!                                       2872 zeroed granules          u64
//!                                       3584 renewed u128, 3600 runs up to u64 are not judged
//!                                       3608 ids of own runs 32×u64, 3864 own run that met
//!                                            peer 0..8   8×16 bytes
//! ```

use crate::action::{META_BLOCK, MetaBlock};
use crate::generation::{CHAIN_MAX, Chain, Entry};
use crate::message::{Disk, Life};
use crate::meta::block::{Kind, incarnation_of, seal};
use crate::meta::bytes::{get, get_u32, get_u64, get_u128, put};
use crate::meta::error::Field;
use crate::meta::layout::Region;
use crate::past::{Past, RUNS_KEPT};
use crate::record::Record;
use crate::units::{NODES_MAX, NodeIdx, NodeSet, Term};

/// Compatible features this build writes; others are carried along untouched.
pub const FEATURES_COMPATIBLE: u64 = 0;
/// A history was given up here once: `given_up` and `follows` count.
pub const FEATURE_GIVEN_UP: u64 = 1;
/// Runs of the process are kept: `past` and `renewed` count.
pub const FEATURE_PAST: u64 = 2;
/// Attributes were set: who does not know them would write past their marks.
pub const FEATURE_ATTRIBUTES: u64 = 1;
/// This replica voted: who does not know votes would break its promises.
pub const FEATURE_VOTES: u64 = 2;
/// Bitmaps have room to grow: who does not know that takes their regions for misshapen.
pub const FEATURE_ROOM: u64 = 4;
/// Checksums are stored: who does not know them would write past them.
pub const FEATURE_CHECKSUMS: u64 = 8;
/// Bitmaps are of the nodes that the region table lists, whatever the node count says: who does not
/// know that keeps no account of who came later.
pub const FEATURE_NODES: u64 = 16;
/// Incompatible features this build knows; any other bit refuses the volume (law M4).
pub const FEATURES_INCOMPATIBLE: u64 =
    FEATURE_ATTRIBUTES | FEATURE_VOTES | FEATURE_ROOM | FEATURE_CHECKSUMS | FEATURE_NODES;
/// Most bytes of a volume name.
pub const VOLUME_NAME_MAX: usize = 255;

/// Most regions of a table.
pub(super) const REGIONS_MAX: usize = 16;
/// Terms beyond are refused: counting on from them would overflow.
const TERM_MAX: u64 = 1 << 62;

const RECORD_AT: usize = 160;
const KNOWN_AT: usize = 192;
const BACKING_AT: usize = 328;
const NAME_AT: usize = 360;
const CHAIN_LEN_AT: usize = 616;
const REGIONS_AT: usize = 624;
const REGION_LEN: usize = 32;
const CHAIN_AT: usize = 1136;
const ENTRY_LEN: usize = 24;
const _: () = assert!(REGIONS_AT + REGIONS_MAX * REGION_LEN == CHAIN_AT);
const LIFE_AT: usize = 2672;
const KNOWN_LIVES_AT: usize = 2688;
const _: () = assert!(CHAIN_AT + CHAIN_MAX * ENTRY_LEN == LIFE_AT);
const VOTED_AT: usize = 2816;
const HAS_VOTED_AT: usize = VOTED_AT + 32;
const _: () = assert!(KNOWN_LIVES_AT + 16 * NODES_MAX == VOTED_AT && HAS_VOTED_AT < META_BLOCK);
const GIVEN_UP_AT: usize = 2852;
const FOLLOWS_AT: usize = 2856;
const _: () = assert!(HAS_VOTED_AT < GIVEN_UP_AT && FOLLOWS_AT + 16 <= META_BLOCK);
const ZEROED_AT: usize = FOLLOWS_AT + 16;

const RENEWED_AT: usize = 3584;
const FLOOR_AT: usize = RENEWED_AT + 16;
const RUNS_AT: usize = FLOOR_AT + 8;
const MET_AT: usize = RUNS_AT + 8 * RUNS_KEPT;
const _: () = assert!(ZEROED_AT + 8 <= RENEWED_AT && MET_AT + 16 * NODES_MAX <= META_BLOCK);

/// What kind of thing holds the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackingKind {
    /// A regular file.
    File,
    /// A block device.
    Device,
    /// Memory; blank after every restart.
    Memory,
}

/// Which thing holds the data; a swapped disk is not taken for the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backing {
    /// File, device or memory.
    pub kind: BackingKind,
    /// Inode and file system, WWN, PARTUUID …, as the shell derives it.
    pub identity: [u8; 32],
    /// Bytes it holds.
    pub size: u64,
}

/// What a replica knows about itself. `docs/format.md` draws its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Features a reader may ignore.
    pub features_compatible: u64,
    /// Features a reader must know.
    pub features_incompatible: u64,
    /// Name of the volume, 1 to 255 bytes.
    pub volume: String,
    /// Identity of the volume; 0 before founding.
    pub volume_id: u128,
    /// Slice of the volume.
    pub slice: u32,
    /// This replica's life; new with every format. Stands in every record's header.
    pub incarnation: u128,
    /// Index of this node.
    pub self_node: NodeIdx,
    /// Configured nodes.
    pub node_count: u8,
    /// Digest of their names in order.
    pub nodes_digest: u64,
    /// Size of the volume.
    pub size_granules: u64,
    /// Bytes of one granule.
    pub granule_bytes: u32,
    /// Granules one bitmap bit covers.
    pub grain: u32,
    /// Slots of the activity log.
    pub activity_log_slots: u32,
    /// Detached with everything on disk and in step.
    pub clean: bool,
    /// Boot of the machine that wrote this; the same boot lost no stored write.
    pub boot_id: u128,
    /// State of the copy.
    pub disk: Disk,
    /// With checksums: so many granules from the first on read as zeros when it was formatted.
    pub zeroed_granules: u64,
    /// It lost no stored write since it was last equal to S (invariants, "whole").
    pub whole: bool,
    /// Peers that stay out of S until an operator starts their resync.
    pub held: NodeSet,
    /// Nodes whose known incarnation is the one that was in S when the record was written.
    pub joined: NodeSet,
    /// Highest term promised (law T2).
    pub promised: Term,
    /// Newest record held.
    pub record: Option<Record>,
    /// Newest record this node voted for; it may never be chosen (laws T2, T5).
    pub voted: Option<Record>,
    /// History of the data.
    pub chain: Chain,
    /// How often this copy's history was given up in a split brain: as a voter it is another one
    /// since (law T8).
    pub given_up: u32,
    /// The branch it was given up for, until a record of it is held here; 0: none.
    pub follows: u128,
    /// Incarnation last seen of each node; 0 is never.
    pub known: [u128; NODES_MAX],
    /// Runs of the process so far, and the latest.
    pub life: Life,
    /// Life last seen of each node.
    pub known_lives: [Life; NODES_MAX],
    /// This replica's identity since it was found older than a peer remembers; 0: never.
    pub renewed: u128,
    /// Its own runs, by which it finds that.
    pub past: Past,
    /// What holds the data.
    pub backing: Backing,
    /// Where the other records lie.
    pub regions: Vec<Region>,
}

impl Superblock {
    /// What peers know this replica by: its life, until it was found older than they remember.
    pub fn identity(&self) -> u128 {
        match self.renewed {
            0 => self.incarnation,
            renewed => renewed,
        }
    }
}

/// A superblock for `block` (0 or 1), as [`super::PageWriter::next_block`] named it.
/// Panics if the name or the region table does not fit: both were checked by `layout`.
pub fn encode_superblock(superblock: &Superblock, block: u64, counter: u64) -> Box<MetaBlock> {
    let sb = superblock;
    let name = sb.volume.as_bytes();
    assert!(
        (1..=VOLUME_NAME_MAX).contains(&name.len()),
        "name of {} bytes fits",
        name.len()
    );
    assert!(
        sb.regions.len() <= REGIONS_MAX,
        "{} regions fit",
        sb.regions.len()
    );
    seal(Kind::Superblock, sb.incarnation, block, counter, |bytes| {
        put(bytes, 64, &sb.features_compatible.to_le_bytes());
        put(bytes, 72, &sb.features_incompatible.to_le_bytes());
        put(bytes, 80, &sb.volume_id.to_le_bytes());
        put(bytes, 96, &sb.size_granules.to_le_bytes());
        put(bytes, 104, &sb.granule_bytes.to_le_bytes());
        put(bytes, 108, &sb.grain.to_le_bytes());
        put(bytes, 112, &sb.activity_log_slots.to_le_bytes());
        put(bytes, 116, &sb.slice.to_le_bytes());
        let small = [
            sb.self_node.0,
            sb.node_count,
            u8::from(sb.clean),
            disk_code(sb.disk),
            u8::from(sb.record.is_some()),
            backing_code(sb.backing.kind),
            name.len() as u8,
            sb.regions.len() as u8,
        ];
        put(bytes, 120, &small);
        put(bytes, 128, &sb.nodes_digest.to_le_bytes());
        put(bytes, 136, &sb.boot_id.to_le_bytes());
        put(bytes, 152, &sb.promised.0.to_le_bytes());
        put_record(bytes, RECORD_AT, sb.record);
        put_record(bytes, VOTED_AT, sb.voted);
        put(bytes, HAS_VOTED_AT, &[u8::from(sb.voted.is_some())]);
        put(bytes, GIVEN_UP_AT, &sb.given_up.to_le_bytes());
        put(bytes, FOLLOWS_AT, &sb.follows.to_le_bytes());
        put(bytes, ZEROED_AT, &sb.zeroed_granules.to_le_bytes());
        for (index, incarnation) in sb.known.iter().enumerate() {
            put(bytes, KNOWN_AT + 16 * index, &incarnation.to_le_bytes());
        }
        put(bytes, 320, &sb.backing.size.to_le_bytes());
        put(bytes, BACKING_AT, &sb.backing.identity);
        put(bytes, NAME_AT, name);
        put(
            bytes,
            CHAIN_LEN_AT + 4,
            &[u8::from(sb.whole), sb.held.0, sb.joined.0],
        );
        put_chain(bytes, &sb.chain);
        put_life(bytes, LIFE_AT, sb.life);
        for (index, life) in sb.known_lives.iter().enumerate() {
            put_life(bytes, KNOWN_LIVES_AT + 16 * index, *life);
        }
        put(bytes, RENEWED_AT, &sb.renewed.to_le_bytes());
        put_past(bytes, &sb.past);
        for (index, region) in sb.regions.iter().enumerate() {
            put_region(bytes, REGIONS_AT + REGION_LEN * index, region);
        }
    })
}

/// Reads a whole superblock of a known version. Ranges only; who it belongs to and whether it
/// fits is judged by `load`.
pub(super) fn decode_superblock(bytes: &MetaBlock) -> Result<Superblock, Field> {
    let [
        self_node,
        node_count,
        clean,
        disk,
        has_record,
        backing,
        name_len,
        regions,
    ] = get(bytes, 120);
    let name = &bytes[NAME_AT..NAME_AT + usize::from(name_len)];
    if name.is_empty() || usize::from(regions) > REGIONS_MAX {
        return Err(if name.is_empty() {
            Field::VolumeName
        } else {
            Field::Regions
        });
    }
    Ok(Superblock {
        features_compatible: get_u64(bytes, 64),
        features_incompatible: get_u64(bytes, 72),
        volume: str::from_utf8(name)
            .map_err(|_| Field::VolumeName)?
            .to_owned(),
        volume_id: get_u128(bytes, 80),
        slice: get_u32(bytes, 116),
        incarnation: incarnation_of(bytes),
        self_node: NodeIdx(self_node),
        node_count,
        nodes_digest: get_u64(bytes, 128),
        size_granules: get_u64(bytes, 96),
        granule_bytes: get_u32(bytes, 104),
        grain: get_u32(bytes, 108),
        activity_log_slots: get_u32(bytes, 112),
        clean: flag(clean)?,
        boot_id: get_u128(bytes, 136),
        disk: disk_state(disk)?,
        whole: flag(bytes[CHAIN_LEN_AT + 4])?,
        held: NodeSet(bytes[CHAIN_LEN_AT + 5]),
        joined: NodeSet(bytes[CHAIN_LEN_AT + 6]),
        promised: term(get_u64(bytes, 152))?,
        record: if flag(has_record)? {
            Some(get_record(bytes, RECORD_AT)?)
        } else {
            None
        },
        voted: if flag(bytes[HAS_VOTED_AT])? {
            Some(get_record(bytes, VOTED_AT)?)
        } else {
            None
        },
        zeroed_granules: get_u64(bytes, ZEROED_AT),
        chain: get_chain(bytes)?,
        given_up: get_u32(bytes, GIVEN_UP_AT),
        follows: get_u128(bytes, FOLLOWS_AT),
        known: std::array::from_fn(|index| get_u128(bytes, KNOWN_AT + 16 * index)),
        life: get_life(bytes, LIFE_AT),
        known_lives: std::array::from_fn(|index| get_life(bytes, KNOWN_LIVES_AT + 16 * index)),
        renewed: get_u128(bytes, RENEWED_AT),
        past: get_past(bytes),
        backing: Backing {
            kind: backing_kind(backing)?,
            identity: get(bytes, BACKING_AT),
            size: get_u64(bytes, 320),
        },
        regions: (0..usize::from(regions))
            .map(|index| get_region(bytes, REGIONS_AT + REGION_LEN * index))
            .collect(),
    })
}

fn put_record(bytes: &mut MetaBlock, at: usize, record: Option<Record>) {
    let Some(record) = record else { return };
    put(bytes, at, &record.term.0.to_le_bytes());
    put(bytes, at + 8, &record.step.to_le_bytes());
    let sets = [record.primary.0, record.in_sync.0, record.voters.0];
    put(bytes, at + 12, &sets);
    put(bytes, at + 15, &[u8::from(record.is_released)]);
    put(bytes, at + 16, &record.branch.to_le_bytes());
}

fn get_record(bytes: &MetaBlock, at: usize) -> Result<Record, Field> {
    let [primary, in_sync, voters, is_released] = get(bytes, at + 12);
    if usize::from(primary) >= NODES_MAX || in_sync == 0 {
        return Err(Field::Record);
    }
    Ok(Record {
        term: term(get_u64(bytes, at))?,
        step: get_u32(bytes, at + 8),
        primary: NodeIdx(primary),
        in_sync: NodeSet(in_sync),
        voters: NodeSet(voters),
        is_released: flag(is_released)?,
        branch: get_u128(bytes, at + 16),
    })
}

fn put_life(bytes: &mut MetaBlock, at: usize, life: Life) {
    put(bytes, at, &life.count.to_le_bytes());
    put(bytes, at + 8, &life.id.to_le_bytes());
}

fn get_life(bytes: &MetaBlock, at: usize) -> Life {
    Life {
        count: get_u64(bytes, at),
        id: get_u64(bytes, at + 8),
    }
}

fn put_past(bytes: &mut MetaBlock, past: &Past) {
    put(bytes, FLOOR_AT, &past.floor.to_le_bytes());
    for (index, id) in past.ids.iter().enumerate() {
        put(bytes, RUNS_AT + 8 * index, &id.to_le_bytes());
    }
    for (index, life) in past.met.iter().enumerate() {
        put_life(bytes, MET_AT + 16 * index, *life);
    }
}

fn get_past(bytes: &MetaBlock) -> Past {
    Past {
        floor: get_u64(bytes, FLOOR_AT),
        ids: std::array::from_fn(|index| get_u64(bytes, RUNS_AT + 8 * index)),
        met: std::array::from_fn(|index| get_life(bytes, MET_AT + 16 * index)),
    }
}

fn put_chain(bytes: &mut MetaBlock, chain: &Chain) {
    put(
        bytes,
        CHAIN_LEN_AT,
        &(chain.entries().len() as u32).to_le_bytes(),
    );
    for (index, entry) in chain.entries().iter().enumerate() {
        put(
            bytes,
            CHAIN_AT + ENTRY_LEN * index,
            &entry.branch.to_le_bytes(),
        );
        put(
            bytes,
            CHAIN_AT + ENTRY_LEN * index + 16,
            &entry.word().to_le_bytes(),
        );
    }
}

fn get_chain(bytes: &MetaBlock) -> Result<Chain, Field> {
    let len = get_u32(bytes, CHAIN_LEN_AT) as usize;
    let entries: Vec<Entry> = (0..len.min(CHAIN_MAX))
        .map(|index| {
            let at = CHAIN_AT + ENTRY_LEN * index;
            let entry = Entry::from_word(get_u128(bytes, at), get_u64(bytes, at + 16));
            term(entry.term.0)?;
            Ok(entry)
        })
        .collect::<Result<_, Field>>()?;
    if len > CHAIN_MAX || !entries.is_sorted_by(|a, b| a.term < b.term) {
        return Err(Field::Chain);
    }
    Chain::from_entries(entries).ok_or(Field::Chain)
}

/// `0: kind u32 | 4: version u32 | 8: index u32 | 12: zero u32 | 16: offset u64 | 24: length u64`
fn put_region(bytes: &mut MetaBlock, at: usize, region: &Region) {
    put(bytes, at, &region.kind.to_le_bytes());
    put(bytes, at + 4, &region.version.to_le_bytes());
    put(bytes, at + 8, &region.index.to_le_bytes());
    put(bytes, at + 16, &region.offset.to_le_bytes());
    put(bytes, at + 24, &region.length.to_le_bytes());
}

fn get_region(bytes: &MetaBlock, at: usize) -> Region {
    Region {
        kind: get_u32(bytes, at),
        version: get_u32(bytes, at + 4),
        index: get_u32(bytes, at + 8),
        offset: get_u64(bytes, at + 16),
        length: get_u64(bytes, at + 24),
    }
}

fn term(raw: u64) -> Result<Term, Field> {
    let is_known = raw <= TERM_MAX && usize::from(Term(raw).author().0) < NODES_MAX;
    if is_known {
        Ok(Term(raw))
    } else {
        Err(Field::Term)
    }
}

fn flag(raw: u8) -> Result<bool, Field> {
    match raw {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Field::Flag),
    }
}

fn disk_code(disk: Disk) -> u8 {
    match disk {
        Disk::Blank => 0,
        Disk::Inconsistent => 1,
        Disk::Outdated => 2,
        Disk::UpToDate => 3,
        Disk::Failed => 4,
    }
}

fn disk_state(code: u8) -> Result<Disk, Field> {
    Ok(match code {
        0 => Disk::Blank,
        1 => Disk::Inconsistent,
        2 => Disk::Outdated,
        3 => Disk::UpToDate,
        4 => Disk::Failed,
        _ => return Err(Field::Disk),
    })
}

fn backing_code(kind: BackingKind) -> u8 {
    match kind {
        BackingKind::File => 1,
        BackingKind::Device => 2,
        BackingKind::Memory => 3,
    }
}

fn backing_kind(code: u8) -> Result<BackingKind, Field> {
    Ok(match code {
        1 => BackingKind::File,
        2 => BackingKind::Device,
        3 => BackingKind::Memory,
        _ => return Err(Field::BackingKind),
    })
}
