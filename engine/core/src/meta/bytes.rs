//! Little-endian integers at fixed places of a block.

use crate::action::MetaBlock;

/// The `N` bytes at `at`. Panics past the block: places are constants of the layout.
pub(super) fn get<const N: usize>(block: &MetaBlock, at: usize) -> [u8; N] {
    block[at..at + N]
        .try_into()
        .expect("a range of N bytes is an array of N bytes")
}

/// Puts bytes at `at`.
pub(super) fn put(block: &mut MetaBlock, at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(super) fn get_u32(block: &MetaBlock, at: usize) -> u32 {
    u32::from_le_bytes(get(block, at))
}

pub(super) fn get_u64(block: &MetaBlock, at: usize) -> u64 {
    u64::from_le_bytes(get(block, at))
}

pub(super) fn get_u128(block: &MetaBlock, at: usize) -> u128 {
    u128::from_le_bytes(get(block, at))
}
