//! Attributes of a volume on disk: a small table key → value, replaced as a whole.
//!
//! ```text
//!  page 0, the directory          64 version u64 | 72 bytes u32 | 76 pages u32 | 80 counter u64 per page
//!  pages 1 …: the table's bytes   64 4032 bytes of it
//!  table, per attribute           0: key length u8 | 1: zero, 3 | 4: value length u32 | key | value
//! ```
//!
//! The directory names the counter of every page it counts on. A new table goes to the slots that
//! hold none of these; *the directory's write is the commit*.

use std::collections::BTreeMap;

use crate::action::MetaBlock;
use crate::meta::block::{HEADER_LEN, Kind, seal};
use crate::meta::bytes::{get_u32, get_u64, put};
use crate::meta::error::Field;
use crate::meta::pages::PageWriter;
use crate::table::Table;

/// Bytes of the table one page holds.
const PAGE_BYTES: usize = 4032;
/// Pages of the table.
const PAGES_MAX: usize = 31;
/// Bytes of a whole table.
pub const ATTRIBUTES_BYTES_MAX: usize = PAGES_MAX * PAGE_BYTES;
/// Bytes of a key.
pub const ATTRIBUTE_KEY_MAX: usize = 255;
/// Bytes of a value.
pub const ATTRIBUTE_VALUE_MAX: usize = 64 << 10;

const COUNTERS_AT: usize = 80;

/// Attributes by key; an empty value is no attribute.
pub type Attributes = BTreeMap<String, Vec<u8>>;

/// A table as it was found, and where the next one goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedAttributes {
    /// The attributes.
    pub attributes: Attributes,
    /// Version of the table.
    pub version: u64,
    /// Page 0 is the directory.
    pub writer: PageWriter,
}

/// What the directory says.
pub(super) struct Directory {
    pub(super) version: u64,
    bytes: usize,
    pub(super) counters: Vec<u64>,
}

/// The bytes of a table; `None` if it is larger than the region, or an attribute than its bounds.
pub fn encode_attributes(attributes: &Attributes) -> Option<Vec<u8>> {
    let mut table = Vec::new();
    for (key, value) in attributes {
        if key.is_empty() || key.len() > ATTRIBUTE_KEY_MAX || value.len() > ATTRIBUTE_VALUE_MAX {
            return None;
        }
        table.extend([key.len() as u8, 0, 0, 0]);
        table.extend((value.len() as u32).to_le_bytes());
        table.extend(key.as_bytes());
        table.extend(value);
    }
    (table.len() <= ATTRIBUTES_BYTES_MAX).then_some(table)
}

pub(super) fn decode_attributes(mut rest: &[u8]) -> Result<Attributes, Field> {
    let mut attributes = Attributes::new();
    while !rest.is_empty() {
        let (head, tail) = rest.split_at_checked(8).ok_or(Field::Attributes)?;
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (key, tail) = tail
            .split_at_checked(usize::from(head[0]))
            .ok_or(Field::Attributes)?;
        let (value, tail) = tail.split_at_checked(len).ok_or(Field::Attributes)?;
        let key = str::from_utf8(key).map_err(|_| Field::Attributes)?;
        if key.is_empty() || attributes.insert(key.into(), value.into()).is_some() {
            return Err(Field::Attributes);
        }
        rest = tail;
    }
    if Table::stored(&attributes).is_err() {
        return Err(Field::Attributes);
    }
    Ok(attributes)
}

/// A page of a table on its way to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePage {
    /// Which of the region's pages.
    pub page: usize,
    /// Where it goes.
    pub block: u64,
    /// What stands there then.
    pub bytes: Box<MetaBlock>,
}

/// The pages of `table`, and their counters for the directory.
pub fn encode_table_pages(
    incarnation: u128,
    table: &[u8],
    writer: &mut PageWriter,
) -> (Vec<TablePage>, Vec<u64>) {
    let mut pages = Vec::new();
    let mut counters = Vec::new();
    for (index, chunk) in table.chunks(PAGE_BYTES).enumerate() {
        let page = index + 1;
        let (block, counter) = writer.next_block(page);
        let bytes = seal(Kind::Attributes, incarnation, block, counter, |bytes| {
            put(bytes, HEADER_LEN, chunk);
        });
        pages.push(TablePage { page, block, bytes });
        counters.push(counter);
    }
    (pages, counters)
}

/// The directory of a table: its write is the commit.
pub fn encode_directory(
    incarnation: u128,
    version: u64,
    bytes: usize,
    counters: &[u64],
    block: u64,
    counter: u64,
) -> Box<MetaBlock> {
    seal(Kind::Attributes, incarnation, block, counter, |page| {
        put(page, 64, &version.to_le_bytes());
        put(page, 72, &(bytes as u32).to_le_bytes());
        put(page, 76, &(counters.len() as u32).to_le_bytes());
        for (index, counter) in counters.iter().enumerate() {
            put(page, COUNTERS_AT + 8 * index, &counter.to_le_bytes());
        }
    })
}

pub(super) fn decode_directory(page: &MetaBlock) -> Result<Directory, Field> {
    let (bytes, pages) = (get_u32(page, 72) as usize, get_u32(page, 76) as usize);
    if pages > PAGES_MAX || bytes.div_ceil(PAGE_BYTES) != pages {
        return Err(Field::Attributes);
    }
    Ok(Directory {
        version: get_u64(page, 64),
        bytes,
        counters: (0..pages)
            .map(|index| get_u64(page, COUNTERS_AT + 8 * index))
            .collect(),
    })
}

impl Directory {
    /// Adds the bytes of one page to a table that is being put together.
    pub(super) fn take_page(&self, table: &mut Vec<u8>, page: &MetaBlock) {
        let missing = self.bytes.saturating_sub(table.len()).min(PAGE_BYTES);
        table.extend(&page[HEADER_LEN..HEADER_LEN + missing]);
    }
}
