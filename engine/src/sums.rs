//! CRC-64/NVME: one per granule for payload, and digests of names.

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
