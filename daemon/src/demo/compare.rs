//! The copies at rest, block by block.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes compared at once: the granule of checksums.
const BLOCK: usize = 4096;

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// What a comparison found.
pub(super) struct Compared {
    /// blake3 of all bytes of the first copy.
    pub(super) hash: blake3::Hash,
    /// Blocks that differ.
    pub(super) different: u64,
    /// The first of them, in bytes from the start.
    pub(super) first: Option<u64>,
}

/// Compares the first `size` bytes of two files. Errors: one is shorter, or cannot be read.
pub(super) fn compare(a: &Path, b: &Path, size: u64) -> io::Result<Compared> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut hasher = blake3::Hasher::new();
    let (mut different, mut first) = (0, None);
    for start in (0..size).step_by(CHUNK) {
        let length = (size - start).min(CHUNK as u64) as usize;
        a.read_exact_at(&mut left[..length], start)?;
        b.read_exact_at(&mut right[..length], start)?;
        hasher.update(&left[..length]);
        if left[..length] == right[..length] {
            continue;
        }
        let blocks = left[..length]
            .chunks(BLOCK)
            .zip(right[..length].chunks(BLOCK));
        for (index, _) in blocks.enumerate().filter(|(_, (a, b))| a != b) {
            different += 1;
            first.get_or_insert(start + (index * BLOCK) as u64);
        }
    }
    Ok(Compared {
        hash: hasher.finalize(),
        different,
        first,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_that_differs_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| dir.path().join(name));
        let mut bytes = vec![7; 2 * CHUNK + 3 * BLOCK];
        std::fs::write(&paths[0], &bytes).unwrap();
        let equal = compare(&paths[0], &paths[0], bytes.len() as u64).unwrap();
        assert_eq!((equal.different, equal.first), (0, None));
        assert_eq!(equal.hash, blake3::hash(&bytes));
        bytes[CHUNK - 1] = 8;
        bytes[2 * CHUNK + BLOCK] = 8;
        std::fs::write(&paths[1], &bytes).unwrap();
        let found = compare(&paths[0], &paths[1], bytes.len() as u64).unwrap();
        assert_eq!(
            (found.different, found.first),
            (2, Some((CHUNK - BLOCK) as u64))
        );
        assert!(compare(&paths[0], &paths[1], bytes.len() as u64 + 1).is_err());
    }
}
