//! Contents that name their write: a block of 512 bytes is its tag, 64 times.

use history::Seen;

/// Bytes of a block, the unit of atomicity (`docs/operations.md`).
pub(crate) const BLOCK: u64 = 512;

/// The bytes of these tags, one block each.
pub(crate) fn encode(tags: &[u64]) -> Vec<u8> {
    let words = tags
        .iter()
        .flat_map(|tag| [tag.to_le_bytes(); BLOCK as usize / 8]);
    words.flatten().collect()
}

/// What each block read says of the write it came from.
pub(crate) fn decode(bytes: &[u8]) -> Vec<Seen> {
    let (blocks, rest) = bytes.as_chunks::<{ BLOCK as usize }>();
    assert!(rest.is_empty(), "{} bytes are no whole blocks", bytes.len());
    blocks.iter().map(seen).collect()
}

fn seen(block: &[u8; BLOCK as usize]) -> Seen {
    let (words, _) = block.as_chunks::<8>();
    let tag = u64::from_le_bytes(words[0]);
    match words.iter().all(|word| *word == words[0]) {
        true if tag == 0 => Seen::Zero,
        true => Seen::Tag(tag),
        false => Seen::Mixed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_names_its_write_or_is_a_mixture() {
        let mut bytes = encode(&[7, 8]);
        bytes.extend([0; BLOCK as usize]);
        assert_eq!(decode(&bytes), [Seen::Tag(7), Seen::Tag(8), Seen::Zero]);
        bytes[..256].copy_from_slice(&encode(&[9])[..256]);
        assert_eq!(decode(&bytes)[0], Seen::Mixed);
        bytes[600] = 0xff;
        assert_eq!(decode(&bytes)[1], Seen::Mixed);
    }
}
