//! Content of a disk, by granules and blocks.

use std::collections::BTreeMap;

use engine_core::units::Extent;

/// Blocks of one granule.
pub const BLOCKS_PER_GRANULE: u64 = 8;
/// Bytes of a block.
pub const BLOCK: u64 = 512;

/// Content of a granule.
pub type Granule = [u64; BLOCKS_PER_GRANULE as usize];

/// Sparse content; what is absent reads as zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image(pub(super) BTreeMap<u64, Granule>);

impl Image {
    /// Tag of one block.
    pub fn block(&self, block: u64) -> u64 {
        self.0
            .get(&(block / BLOCKS_PER_GRANULE))
            .map_or(0, |g| g[(block % BLOCKS_PER_GRANULE) as usize])
    }

    /// Tags of one granule.
    pub fn granule(&self, granule: u64) -> Granule {
        self.0.get(&granule).copied().unwrap_or_default()
    }

    /// Stores one block.
    pub fn set(&mut self, block: u64, tag: u64) {
        let granule = block / BLOCKS_PER_GRANULE;
        let slot = (block % BLOCKS_PER_GRANULE) as usize;
        match self.0.get_mut(&granule) {
            Some(content) => {
                content[slot] = tag;
                if *content == Granule::default() {
                    self.0.remove(&granule);
                }
            }
            None if tag != 0 => {
                let mut content = Granule::default();
                content[slot] = tag;
                self.0.insert(granule, content);
            }
            None => {}
        }
    }

    /// Granules inside that are not zeros, lowest first, with their content.
    pub fn written(&self, extent: Extent) -> impl Iterator<Item = (u64, Granule)> + '_ {
        let inside = self.0.range(extent.start..extent.end);
        inside.map(|(granule, content)| (*granule, *content))
    }

    /// Tags of an extent, in order.
    pub fn read(&self, extent: Extent) -> Vec<u64> {
        let mut tags = vec![0; (extent.granules() * BLOCKS_PER_GRANULE) as usize];
        for (granule, content) in self.0.range(extent.start..extent.end) {
            let at = ((granule - extent.start) * BLOCKS_PER_GRANULE) as usize;
            tags[at..at + content.len()].copy_from_slice(content);
        }
        tags
    }

    /// Blocks inside that are not zeros.
    pub fn nonzero(&self, extent: Extent) -> Vec<u64> {
        self.0
            .range(extent.start..extent.end)
            .flat_map(|(g, content)| {
                content
                    .iter()
                    .enumerate()
                    .filter(|(_, tag)| **tag != 0)
                    .map(move |(i, _)| g * BLOCKS_PER_GRANULE + i as u64)
            })
            .collect()
    }

    /// Granules that are not zeros, lowest first.
    pub fn granules(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.keys().copied()
    }
}

/// Blocks of an extent.
pub fn blocks(extent: Extent) -> std::ops::Range<u64> {
    extent.start * BLOCKS_PER_GRANULE..extent.end * BLOCKS_PER_GRANULE
}
