//! A small replica's area, and writing into it as the core does.

use proptest::prelude::*;

use crate::action::{META_BLOCK, MetaBlock};
use crate::generation::{Chain, Entry};
use crate::message::Disk;
use crate::meta::*;
use crate::record::Record;
use crate::units::{NodeIdx, NodeSet, Term};

pub(super) const LIFE: u128 = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;

/// Node 1 of three, 40000 granules: one log page, two bitmaps of two pages.
pub(super) fn params() -> Params {
    Params {
        volume: "pg-data".into(),
        slice: 0,
        incarnation: LIFE,
        self_node: NodeIdx(1),
        node_count: 3,
        nodes_digest: 0x1122_3344_5566_7788,
        size_granules: 40_000,
        size_granules_max: 40_000,
        grain: 1,
        activity_log_slots: 504,
        boot_id: 77,
        backing: Backing {
            kind: BackingKind::File,
            identity: [9; 32],
            size: 40_000 * 4096,
        },
        checksums: Checksums::Off,
    }
}

pub(super) fn expect(params: &Params) -> Expect {
    Expect {
        volume: params.volume.clone(),
        slice: params.slice,
        node: "beta".into(),
        self_node: params.self_node,
        node_count: params.node_count,
        nodes_digest: params.nodes_digest,
        size_granules: params.size_granules,
        granule_bytes: 4096,
        backing: params.backing,
    }
}

/// The bytes of an area.
#[derive(Clone)]
pub(super) struct Area(pub(super) Vec<u8>);

impl Area {
    pub(super) fn formatted(params: &Params) -> Area {
        let len = layout(params).expect("parameters are in range").bytes();
        let mut area = Area(vec![0; len as usize]);
        for (block, bytes) in format(params).expect("parameters are in range") {
            area.write(block, &bytes);
        }
        area
    }

    pub(super) fn write(&mut self, block: u64, bytes: &MetaBlock) {
        self.block_mut(block).copy_from_slice(bytes);
    }

    pub(super) fn block(&self, block: u64) -> &MetaBlock {
        let at = block as usize * META_BLOCK;
        self.0[at..][..META_BLOCK].try_into().unwrap()
    }

    pub(super) fn block_mut(&mut self, block: u64) -> &mut MetaBlock {
        let at = block as usize * META_BLOCK;
        (&mut self.0[at..][..META_BLOCK]).try_into().unwrap()
    }

    /// Changes a block and makes its checksum right again, as only a bug of ours would.
    pub(super) fn forge(&mut self, block: u64, change: impl FnOnce(&mut MetaBlock)) {
        let bytes = self.block_mut(block);
        change(bytes);
        bytes[48..52].fill(0);
        let crc = crc32fast::hash(bytes);
        bytes[48..52].copy_from_slice(&crc.to_le_bytes());
    }

    pub(super) fn load(&self) -> Result<Loaded, LoadError> {
        load(&self.0, &expect(&params()))
    }
}

/// One record's new state.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Superblock(Box<Superblock>),
    Log(Box<LogPage>),
    /// Flip these granules of a peer's bitmap; the page of the first is written.
    Bitmap(usize, Vec<u64>),
}

/// A write as the core would order it: the state it leads to, and the block.
pub(super) fn apply(change: &Change, loaded: &mut Loaded) -> (u64, Box<MetaBlock>) {
    let life = loaded.superblock.incarnation;
    match change {
        Change::Superblock(superblock) => {
            loaded.superblock = (**superblock).clone();
            let (block, counter) = loaded.superblock_writer.next_block(0);
            (block, encode_superblock(&loaded.superblock, block, counter))
        }
        Change::Log(page) => {
            loaded.activity_log[0] = **page;
            let (block, counter) = loaded.activity_log_writer.next_block(0);
            (block, encode_activity_log_page(life, page, block, counter))
        }
        Change::Bitmap(peer, granules) => {
            let PeerBitmap { bitmap, writer, .. } = &mut loaded.bitmaps[*peer];
            let page = (granules[0] / crate::bitmap::BITS_PER_PAGE) as usize;
            for granule in granules {
                let extent = crate::units::Extent::new(*granule, granule + 1);
                if bitmap.pages_of(extent).contains(&page) && bitmap.set(extent) == 0 {
                    bitmap.clear(extent);
                }
            }
            bitmap.mark_page_clean(page);
            let (block, counter) = writer.next_block(page);
            (
                block,
                encode_bitmap_page(life, bitmap.page_words(page), block, counter),
            )
        }
    }
}

fn chains() -> impl Strategy<Value = Chain> {
    let entry = (any::<u128>(), 1u64..1000, 0u64..8, any::<bool>());
    prop::collection::vec(entry, 0..=64).prop_map(|parts| {
        let mut counter = 0;
        let entries = parts.into_iter().map(|(branch, step, author, is_empty)| {
            counter += step;
            Entry {
                is_empty,
                ..Entry::new(branch, Term(counter << 8 | author))
            }
        });
        Chain::from_entries(entries.collect()).unwrap()
    })
}

fn records() -> impl Strategy<Value = Option<Record>> {
    let record = (
        0u64..1 << 50,
        0u8..8,
        any::<u32>(),
        0u8..8,
        1u8..,
        any::<(u8, bool)>(),
        any::<u128>(),
    );
    prop::option::of(record.prop_map(
        |(counter, author, step, primary, in_sync, (voters, is_released), branch)| Record {
            term: Term(counter << 8 | u64::from(author)),
            step,
            primary: NodeIdx(primary),
            in_sync: NodeSet(in_sync),
            voters: NodeSet(voters),
            is_released,
            branch,
        },
    ))
}

pub(super) fn superblocks() -> impl Strategy<Value = Superblock> {
    let disks = [
        Disk::Blank,
        Disk::Inconsistent,
        Disk::Outdated,
        Disk::UpToDate,
        Disk::Failed,
    ];
    let area = Area::formatted(&params());
    let base = area.load().unwrap().superblock;
    (
        (any::<u64>(), any::<u128>(), any::<bool>(), any::<u128>()),
        prop::sample::select(disks.to_vec()),
        (0u64..1 << 50, 0u64..8),
        records(),
        chains(),
        (any::<([u128; 8], bool, u8)>(), records()),
    )
        .prop_map(
            move |(
                (compatible, volume_id, clean, boot_id),
                disk,
                term,
                record,
                chain,
                ((known, whole, held), voted),
            )| {
                Superblock {
                    features_compatible: compatible,
                    volume_id,
                    clean,
                    boot_id,
                    disk,
                    whole,
                    held: NodeSet(held),
                    joined: NodeSet(!held),
                    promised: Term(term.0 << 8 | term.1),
                    record,
                    voted,
                    chain,
                    known,
                    ..base.clone()
                }
            },
        )
}

fn log_pages() -> impl Strategy<Value = LogPage> {
    // 40000 granules are 40 extents.
    let slot = prop_oneof![
        Just(LogSlot::FREE),
        (0u32..40, 1u32..40).prop_map(|(start, n)| LogSlot {
            start,
            count: n.min(40 - start)
        }),
    ];
    prop::collection::vec(slot, LOG_SLOTS_PER_PAGE).prop_map(|slots| slots.try_into().unwrap())
}

pub(super) fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        superblocks().prop_map(|s| Change::Superblock(Box::new(s))),
        log_pages().prop_map(|p| Change::Log(Box::new(p))),
        (0usize..2, prop::collection::vec(0u64..40_000, 1..200))
            .prop_map(|(peer, granules)| Change::Bitmap(peer, granules)),
    ]
}
