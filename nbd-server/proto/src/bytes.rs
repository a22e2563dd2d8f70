//! Reading and writing big-endian fields of messages whose whole length is known.

use crate::Malformed;

/// Longest string the protocol allows, in bytes: names, queries, error texts.
pub const STRING_MAX: usize = 4096;

/// A cursor over received bytes. Every step checks, none allocates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(Malformed::Short)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A string preceded by its length as u32. A length past the end is `Overrun`.
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()? as usize;
        if length > self.0.len() {
            return Err(Malformed::Overrun);
        }
        if length > STRING_MAX {
            return Err(Malformed::StringTooLong(length));
        }
        self.take(length)
    }

    /// What has not been read yet.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Succeeds if nothing is left.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(Malformed::Trailing(left)),
        }
    }
}

/// Received bytes as text: no NUL, UTF-8, at most [`STRING_MAX`] bytes.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    if bytes.len() > STRING_MAX {
        return Err(Malformed::StringTooLong(bytes.len()));
    }
    if bytes.contains(&0) {
        return Err(Malformed::Nul);
    }
    std::str::from_utf8(bytes).map_err(|_| Malformed::NotUtf8)
}

/// `text` without what lies beyond `max` bytes, cut between characters.
pub(crate) fn clip(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Appends a string preceded by its length as u32. `text` is at most [`STRING_MAX`] bytes.
pub(crate) fn put_string(text: &str, out: &mut Vec<u8>) {
    let length = u32::try_from(text.len()).expect("strings are clipped to 4096 bytes");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The big-endian u64 that begins at `at`; `at + 8 <= N` is known where it is called.
#[inline]
pub(crate) const fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from_be_bytes([
        bytes[at],
        bytes[at + 1],
        bytes[at + 2],
        bytes[at + 3],
        bytes[at + 4],
        bytes[at + 5],
        bytes[at + 6],
        bytes[at + 7],
    ])
}

/// The big-endian u32 that begins at `at`; `at + 4 <= N` is known where it is called.
#[inline]
pub(crate) const fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The big-endian u16 that begins at `at`; `at + 2 <= N` is known where it is called.
#[inline]
pub(crate) const fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_clipped_between_characters() {
        assert_eq!(clip("grün", 3), "gr");
        assert_eq!(clip("grün", 4), "grü");
        assert_eq!(clip("grün", 400), "grün");
    }

    #[test]
    fn a_string_past_the_end_is_an_overrun() {
        assert_eq!(
            Reader::new(b"\0\0\0\x05four").string(),
            Err(Malformed::Overrun)
        );
        assert_eq!(
            Reader::new(b"\xff\xff\xff\xfffour").string(),
            Err(Malformed::Overrun)
        );
        assert_eq!(Reader::new(b"\0\0\0").string(), Err(Malformed::Short));
    }

    #[test]
    fn text_refuses_nul_bad_utf8_and_excess() {
        assert_eq!(text(b"a\0b"), Err(Malformed::Nul));
        assert_eq!(text(b"a\xffb"), Err(Malformed::NotUtf8));
        assert_eq!(text(&[b'a'; 4097]), Err(Malformed::StringTooLong(4097)));
        assert_eq!(text(&[b'a'; 4096]).map(str::len), Ok(4096));
    }
}
