//! Durable metadata of one replica: bytes and types, nothing else. Drawn in `docs/format.md`.
//!
//! ```text
//!  create:  Params ─► layout, format ─► blocks to write
//!  attach:  blocks ─► peek ─► load ─► Loaded { superblock, activity log, bitmaps, writers }
//!  running: PageWriter::next_block ─► encode_superblock | _activity_log_page | _bitmap_page
//! ```
//!
//! Every record is one 4096-byte block in one of two slots written in turn; one block write is
//! the commit (laws M1, M2). What a pair of slots means after a crash is one table: `recovery`.
//! What this does not do: read or write files, or decide what the recovered state leads to.

mod attributes;
mod block;
mod bytes;
mod error;
mod layout;
mod load;
mod marks;
mod pages;
mod reader;
mod recovery;
#[cfg(feature = "inspect")]
mod reload;
mod sums;
mod superblock;

#[cfg(test)]
mod tests;

pub use attributes::{
    ATTRIBUTE_KEY_MAX, ATTRIBUTE_VALUE_MAX, ATTRIBUTES_BYTES_MAX, Attributes, LoadedAttributes,
    TablePage, encode_attributes, encode_directory, encode_table_pages,
};
pub use block::{COUNTER_MAX, Finding, HEADER_LEN, Kind, MAGIC, VERSION, examine};
pub use error::{Field, LoadError, ParamsError};
pub use layout::{
    ATTRIBUTES_BLOCKS, Checksums, FORMAT_COMMIT_BLOCKS, Layout, Params, Region, SIZE_GRANULES_MAX,
    SUPERBLOCK_BLOCKS, format, layout,
};
pub use load::{Blocks, Expect, Loaded, Peek, PeerBitmap, load, load_parts, peek, read_ranges};
pub use marks::{LoadedMark, MarkRegion, load_marks};
pub use pages::{
    LOG_SLOTS_PER_PAGE, LogPage, LogSlot, PageWriter, Slot, encode_activity_log_page,
    encode_bitmap_page, encode_mark_page, mark_life,
};
pub use recovery::{Decision, Why};
#[cfg(feature = "inspect")]
pub use reload::{Reread, reload};
pub use sums::{FoundSums, SumRegion, encode_sums_page, judge_sums};
pub use superblock::{
    Backing, BackingKind, FEATURE_ATTRIBUTES, FEATURE_CHECKSUMS, FEATURE_GIVEN_UP, FEATURE_NODES,
    FEATURE_PAST, FEATURE_ROOM, FEATURE_VOTES, FEATURES_COMPATIBLE, FEATURES_INCOMPATIBLE,
    Superblock, VOLUME_NAME_MAX, encode_superblock,
};
