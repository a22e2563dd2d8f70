//! CRC-64/NVME: one per granule for payload, and digests of names. BLAKE3: where two copies are
//! compared, because who writes a volume must not be able to make two blocks that count as equal.

use crc_fast::{CrcAlgorithm, checksum};
use engine_core::units::GRANULE;
use engine_ring::{Arena, BufId};

/// Checksum of any bytes.
pub(crate) fn bytes(bytes: &[u8]) -> u64 {
    checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// Checksums of the first `len` bytes of `buf`, one per granule; computed once and kept beside it.
pub(crate) fn of_buffer(arena: &mut Arena, buf: BufId, len: usize) -> &[u64] {
    let count = len / GRANULE as usize;
    if arena.sums(buf).is_none_or(|sums| sums.len() < count) {
        arena.fill_sums(buf, len, bytes);
    }
    &arena.sums(buf).expect("they were just stored")[..count]
}

/// Checksums of whole granules, one each.
pub(crate) fn of_granules(granules: &[u8]) -> Vec<u64> {
    granules.chunks_exact(GRANULE as usize).map(bytes).collect()
}

/// The first 16 bytes of BLAKE3 of every `each` granules; the last may cover fewer.
pub(crate) fn hashes(granules: &[u8], each: u32) -> Vec<u128> {
    let hash = |bytes: &[u8]| {
        let whole = blake3::hash(bytes);
        let first = whole.as_bytes().first_chunk().copied();
        u128::from_le_bytes(first.expect("32 bytes begin with 16"))
    };
    let bytes = GRANULE as usize * each as usize;
    granules.chunks(bytes).map(hash).collect()
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(64);
    words.all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
        && bytes[bytes.len() / 64 * 64..].iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_64_nvme() {
        assert_eq!(bytes(b"123456789"), 0xae8b_1486_0a79_9888);
    }

    #[test]
    fn a_hash_is_the_beginning_of_blake3() {
        let bytes = vec![7; 5 * GRANULE as usize];
        let whole = blake3::hash(&bytes[..2 * GRANULE as usize]);
        let found = hashes(&bytes, 2);
        assert_eq!(found[0].to_le_bytes(), whole.as_bytes()[..16]);
        assert_eq!((found.len(), found[0]), (3, found[1]));
        assert_ne!(found[2], found[0], "the last covers one granule");
    }

    #[test]
    fn one_bit_is_not_zero_wherever_it_lies() {
        for len in [0, 1, 63, 64, 65, 4096] {
            assert!(is_zero(&vec![0; len]));
            for at in 0..len {
                let mut bytes = vec![0; len];
                bytes[at] = 0x10;
                assert!(!is_zero(&bytes), "{at} of {len}");
            }
        }
    }
}
