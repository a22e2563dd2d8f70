//! Pages of one life: the newest of each, decoded.

use crate::action::MetaBlock;
use crate::bitmap::{Bitmap, pages_for};
use crate::meta::attributes::{LoadedAttributes, decode_attributes, decode_directory};
use crate::meta::block::{Finding, Kind, examine};
use crate::meta::error::{Field, LoadError};
use crate::meta::layout::Region;
use crate::meta::load::{Blocks, PeerBitmap};
use crate::meta::pages::{
    LogPage, Newest, PageWriter, Slot, decode_activity_log_page, decode_bitmap_page, slot_block,
};
use crate::meta::recovery::{Decision, Why, decide};
use crate::meta::superblock::Superblock;
use crate::units::{GRANULES_PER_AL_EXTENT, NodeIdx};

/// The newest of two slots, or the exact reason why there is none.
pub(super) fn choose(
    kind: Kind,
    page: u64,
    block: u64,
    a: Finding,
    b: Finding,
) -> Result<Newest, LoadError> {
    let row = decide(kind, a, b);
    match (row.decision, a, b) {
        (Decision::Use(Slot::A), Finding::Valid { counter }, _) => Ok(Newest {
            slot: Slot::A,
            counter,
        }),
        (Decision::Use(Slot::B), _, Finding::Valid { counter }) => Ok(Newest {
            slot: Slot::B,
            counter,
        }),
        (Decision::Refuse(Why::NewerVersion), Finding::UnknownVersion { version }, _)
        | (Decision::Refuse(Why::NewerVersion), _, Finding::UnknownVersion { version }) => {
            Err(LoadError::version(kind, version))
        }
        (Decision::Refuse(Why::NeverWritten), ..) if kind == Kind::Superblock => {
            Err(LoadError::NotFormatted)
        }
        _ => Err(LoadError::Damaged {
            kind,
            page,
            block,
            a,
            b,
            row: row.label,
            cause: row.crash,
        }),
    }
}

/// Reads pages of one life.
pub(super) struct Reader<'a> {
    pub(super) area: Blocks<'a>,
    pub(super) incarnation: u128,
}

impl Reader<'_> {
    /// Hands the newest version of every page to `take`, with its block.
    fn pages(
        &self,
        kind: Kind,
        region: Region,
        mut take: impl FnMut(usize, &MetaBlock) -> Result<(), Field>,
    ) -> Result<PageWriter, LoadError> {
        let mut newest = Vec::with_capacity(region.pages() as usize);
        for page in 0..region.pages() as usize {
            let place = |slot| slot_block(region.offset, page, slot);
            let look = |slot| -> Result<(Finding, &MetaBlock), LoadError> {
                let bytes = self.area.block(place(slot))?;
                Ok((
                    examine(bytes, kind, place(slot), Some(self.incarnation)),
                    bytes,
                ))
            };
            let ((a, bytes_a), (b, bytes_b)) = (look(Slot::A)?, look(Slot::B)?);
            let chosen = choose(kind, page as u64, place(Slot::A), a, b)?;
            let bytes = if chosen.slot == Slot::A {
                bytes_a
            } else {
                bytes_b
            };
            let invalid = |field| LoadError::Invalid {
                block: place(chosen.slot),
                field,
            };
            take(page, bytes).map_err(invalid)?;
            newest.push(chosen);
        }
        Ok(PageWriter::new(region.offset, newest))
    }

    pub(super) fn activity_log(
        &self,
        region: Region,
        size_granules: u64,
    ) -> Result<(Vec<LogPage>, PageWriter), LoadError> {
        let extents = size_granules.div_ceil(GRANULES_PER_AL_EXTENT);
        let mut log = Vec::with_capacity(region.pages() as usize);
        let writer = self.pages(Kind::ActivityLog, region, |_, bytes| {
            let slots = decode_activity_log_page(bytes);
            let is_inside = |end: u64| end <= extents;
            let ends = slots
                .iter()
                .map(|s| u64::from(s.start) + u64::from(s.count));
            if !slots
                .iter()
                .zip(ends)
                .all(|(slot, end)| slot.is_free() || is_inside(end))
            {
                return Err(Field::ActivityLogSlot);
            }
            log.push(slots);
            Ok(())
        })?;
        Ok((log, writer))
    }

    /// The directory decides which slot of each page counts.
    pub(super) fn attributes(&self, region: Region) -> Result<LoadedAttributes, LoadError> {
        let mut directory = None;
        let mut writer = self.pages(Kind::Attributes, region, |page, bytes| {
            if page == 0 {
                directory = Some(decode_directory(bytes)?);
            }
            Ok(())
        })?;
        let directory = directory.expect("a region of attributes has its first page");
        let mut table = Vec::new();
        for (index, counter) in directory.counters.iter().enumerate() {
            let page = index + 1;
            let place = |slot| slot_block(region.offset, page, slot);
            let mut found = None;
            for slot in [Slot::A, Slot::B] {
                let bytes = self.area.block(place(slot))?;
                let finding = examine(bytes, Kind::Attributes, place(slot), Some(self.incarnation));
                if finding == (Finding::Valid { counter: *counter }) {
                    found = Some((slot, bytes));
                }
            }
            let Some((slot, bytes)) = found else {
                return Err(LoadError::Invalid {
                    block: place(Slot::A),
                    field: Field::Attributes,
                });
            };
            directory.take_page(&mut table, bytes);
            writer.set_newest(
                page,
                Newest {
                    slot,
                    counter: *counter,
                },
            );
        }
        let attributes = decode_attributes(&table).map_err(|field| LoadError::Invalid {
            block: region.offset,
            field,
        })?;
        Ok(LoadedAttributes {
            attributes,
            version: directory.version,
            writer,
        })
    }

    /// Its pages for the size there is; what lies behind is room to grow, perhaps never written.
    pub(super) fn bitmap(
        &self,
        region: Region,
        superblock: &Superblock,
    ) -> Result<PeerBitmap, LoadError> {
        let (size, grain) = (superblock.size_granules, superblock.grain);
        let mut bitmap = Bitmap::new(size, grain);
        let used = Region {
            length: region.length.min(pages_for(size, grain) * 2),
            ..region
        };
        let writer = self.pages(Kind::Bitmap, used, |page, bytes| {
            // Bits past the end are of a growth that was not committed.
            bitmap.load_page_cut(page, &decode_bitmap_page(bytes));
            Ok(())
        })?;
        Ok(PeerBitmap {
            peer: NodeIdx(region.index as u8),
            bitmap,
            writer,
            pages_max: region.pages() as usize,
        })
    }
}
