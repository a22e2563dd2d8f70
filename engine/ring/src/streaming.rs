//! Copies for memory that is larger than every cache.
//!
//! A block of a memory volume is seldom in the cache, nor wanted there after a write: stores that
//! go past the cache spare reading the old bytes first, and leave the cache to what is hot. A
//! block about to be read is fetched while the one before it is copied.

/// Bytes of a cache line.
const LINE: usize = 64;
/// Shortest copy that goes past the cache.
const STREAM_MIN: usize = 4096;

/// Copies over equal lengths, past the cache where that pays.
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    assert_eq!(to.len(), from.len(), "a copy keeps the length");
    let is_whole = to.as_ptr().addr().is_multiple_of(LINE) && to.len().is_multiple_of(LINE);
    if to.len() >= STREAM_MIN && is_whole && cfg!(all(target_arch = "x86_64", not(miri))) {
        stream(to, from);
    } else {
        to.copy_from_slice(from);
    }
}

/// Begins to fetch these bytes into the cache. Changes nothing that can be seen.
pub(crate) fn prefetch(bytes: &[u8]) {
    bytes.iter().step_by(LINE).for_each(prefetch_line);
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn prefetch_line(byte: &u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a hint; SSE is part of every x86_64, and no address can make it fault.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(byte).cast()) };
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn prefetch_line(_byte: &u8) {}

/// `to` begins at a line and both are whole lines long.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn stream(to: &mut [u8], from: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    for (to, from) in to.chunks_exact_mut(LINE).zip(from.chunks_exact(LINE)) {
        let to = to.as_mut_ptr().cast::<__m128i>();
        let from = from.as_ptr().cast::<__m128i>();
        // SAFETY: both chunks are 64 bytes, four vectors, and do not overlap (one is borrowed to
        // be changed). `to` is aligned to 64 by the caller's check and steps of 64, loads may be
        // unaligned. SSE2 is part of every x86_64.
        unsafe {
            let a = _mm_loadu_si128(from);
            let b = _mm_loadu_si128(from.add(1));
            let c = _mm_loadu_si128(from.add(2));
            let d = _mm_loadu_si128(from.add(3));
            _mm_stream_si128(to, a);
            _mm_stream_si128(to.add(1), b);
            _mm_stream_si128(to.add(2), c);
            _mm_stream_si128(to.add(3), d);
        }
    }
    // SAFETY: SSE is part of every x86_64. It orders the stores above before all that follow, as
    // ordinary ones would be.
    unsafe { _mm_sfence() };
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn stream(to: &mut [u8], from: &[u8]) {
    to.copy_from_slice(from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_alignment_is_copied_whole_and_nothing_else() {
        let from: Vec<u8> = (0..3 * STREAM_MIN).map(|i| (i % 251) as u8).collect();
        let lengths = [
            0,
            1,
            63,
            64,
            STREAM_MIN - 1,
            STREAM_MIN,
            STREAM_MIN + 64,
            8191,
            8192,
        ];
        for to_at in [0, 1, 16, 64] {
            for from_at in [0, 1, 28] {
                for len in lengths {
                    let mut room = vec![0xEE; 4 * STREAM_MIN];
                    let head = room.as_ptr().align_offset(LINE) + to_at;
                    copy(&mut room[head..head + len], &from[from_at..from_at + len]);
                    assert_eq!(room[head..head + len], from[from_at..from_at + len]);
                    assert!(room[..head].iter().all(|byte| *byte == 0xEE));
                    assert!(room[head + len..].iter().all(|byte| *byte == 0xEE));
                }
            }
        }
    }

    #[test]
    fn a_prefetch_changes_nothing() {
        let bytes = vec![7; 5000];
        prefetch(&bytes);
        assert!(bytes.iter().all(|byte| *byte == 7));
    }
}
