//! Marks: what changed since a point. Names and the table that lists them; their bits are
//! [`crate::bitmap::Bitmap`]s beside those of the peers.
//!
//! ```text
//!  value of the attribute `marks`:   0: count u8 | 1: zero, 7 bytes | entries, one after the other
//!  entry:  0: id u128 | 16: created, ms since 1970 u64 | 24: slot u8 | 25: bits u8 (0: all of it)
//!         26: name length u8 | 27: zero, 5 bytes | 32: name
//! ```

use std::fmt;
use std::str::FromStr;

/// Marks of one volume.
pub const MARKS_MAX: usize = 8;
/// Bytes of a mark's name.
pub const MARK_NAME_MAX: usize = 63;
/// The attribute that lists the marks.
pub const MARKS_KEY: &str = "marks";

const HEAD_LEN: usize = 8;
const ENTRY_LEN: usize = 32;
const IS_WHOLE: u8 = 1;

/// Name of a mark: 1 to 63 letters, digits, `.`, `_` and `-`, the first a letter or digit. Such a
/// name can stand in an NBD metadata context as it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkName {
    len: u8,
    bytes: [u8; MARK_NAME_MAX],
}

/// No name of a mark.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name of a mark: 1 to 63 letters, digits, `.`, `_` and `-`, the first a letter or digit"
)]
pub struct MarkNameError(pub String);

impl MarkName {
    /// As text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("names are ASCII")
    }
}

impl FromStr for MarkName {
    type Err = MarkNameError;

    fn from_str(text: &str) -> Result<MarkName, MarkNameError> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric();
        let fits = text.len() <= MARK_NAME_MAX
            && text.bytes().next().is_some_and(is_plain)
            && text.bytes().all(|b| is_plain(b) || b"._-".contains(&b));
        if !fits {
            let shown: String = text.chars().take(2 * MARK_NAME_MAX).collect();
            return Err(MarkNameError(shown));
        }
        let mut bytes = [0; MARK_NAME_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(MarkName {
            len: text.len() as u8,
            bytes,
        })
    }
}

impl fmt::Display for MarkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for MarkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// One mark as the table lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkEntry {
    /// Identity: another for every creation, also under the same name.
    pub id: u128,
    /// When it was created, milliseconds since 1970 by the primary's clock.
    pub created_ms: u64,
    /// Where its pages lie, below [`MARKS_MAX`].
    pub slot: u8,
    /// What changed is not known: all of the volume counts as changed.
    pub is_whole: bool,
    /// What people call it.
    pub name: MarkName,
}

/// The value of the attribute `marks`; empty without marks.
pub fn encode_marks(entries: &[MarkEntry]) -> Vec<u8> {
    if entries.is_empty() {
        return Vec::new();
    }
    let mut value = vec![entries.len() as u8, 0, 0, 0, 0, 0, 0, 0];
    for entry in entries {
        value.extend(entry.id.to_le_bytes());
        value.extend(entry.created_ms.to_le_bytes());
        let flags = if entry.is_whole { IS_WHOLE } else { 0 };
        value.extend([entry.slot, flags, entry.name.len, 0, 0, 0, 0, 0]);
        value.extend(entry.name.as_str().as_bytes());
    }
    value
}

/// Reads a table; `None` if it is none: too many marks, a slot, name or id twice or out of range,
/// bytes missing or left over.
pub fn decode_marks(value: &[u8]) -> Option<Vec<MarkEntry>> {
    if value.is_empty() {
        return Some(Vec::new());
    }
    let count = usize::from(*value.first()?);
    let mut rest = value.get(HEAD_LEN..)?;
    if count > MARKS_MAX {
        return None;
    }
    let mut entries: Vec<MarkEntry> = Vec::with_capacity(count);
    for _ in 0..count {
        let (head, tail) = rest.split_at_checked(ENTRY_LEN)?;
        let (name, tail) = tail.split_at_checked(usize::from(head[26]))?;
        let entry = MarkEntry {
            id: u128::from_le_bytes(head[..16].try_into().ok()?),
            created_ms: u64::from_le_bytes(head[16..24].try_into().ok()?),
            slot: head[24],
            is_whole: head[25] & IS_WHOLE != 0,
            name: str::from_utf8(name).ok()?.parse().ok()?,
        };
        let clashes =
            |e: &MarkEntry| e.id == entry.id || e.slot == entry.slot || e.name == entry.name;
        if usize::from(entry.slot) >= MARKS_MAX || entries.iter().any(clashes) {
            return None;
        }
        entries.push(entry);
        rest = tail;
    }
    rest.is_empty().then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(slot: u8, name: &str) -> MarkEntry {
        MarkEntry {
            id: 0x0102 + u128::from(slot),
            created_ms: 1_700_000_000_000,
            slot,
            is_whole: slot == 1,
            name: name.parse().unwrap(),
        }
    }

    #[test]
    fn a_name_can_stand_in_a_meta_context() {
        for good in ["a", "9", "nightly-2.1_x", &"m".repeat(63)] {
            assert_eq!(good.parse::<MarkName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".a", "a b", "a:b", "a/b", "ä", &"m".repeat(64)] {
            assert_eq!(bad.parse::<MarkName>(), Err(MarkNameError(bad.into())));
        }
    }

    #[test]
    fn the_table_of_marks_has_these_bytes() {
        let value = encode_marks(&[entry(1, "ab")]);
        let mut expected = vec![1, 0, 0, 0, 0, 0, 0, 0, 3, 1];
        expected.extend([0; 14]);
        expected.extend(1_700_000_000_000_u64.to_le_bytes());
        expected.extend([1, 1, 2, 0, 0, 0, 0, 0, b'a', b'b']);
        assert_eq!(value, expected);
        assert_eq!(decode_marks(&value), Some(vec![entry(1, "ab")]));
        assert_eq!(decode_marks(&[]), Some(vec![]));
    }

    #[test]
    fn a_table_that_contradicts_itself_is_none() {
        let entries = [entry(0, "a"), entry(1, "b")];
        let good = encode_marks(&entries);
        for len in 1..good.len() {
            assert_eq!(decode_marks(&good[..len]), None, "{len} bytes");
        }
        let twice = [entries[0], entries[0]];
        assert_eq!(decode_marks(&encode_marks(&twice)), None);
        let mut beyond = entries[0];
        beyond.slot = MARKS_MAX as u8;
        assert_eq!(decode_marks(&encode_marks(&[beyond])), None);
        assert_eq!(decode_marks(&[good, vec![0]].concat()), None);
    }
}
