//! SetAttr, SetAttrAck, MarkPage: what belongs to the volume beside its data.
//!
//! ```text
//!  SetAttr     0: number u64 | 8: term | 16: is first u8 | 17: is last u8 | 18: key length u8 | 19: zero
//!              20: value length u32, at most 65536;   lists: key, value
//!  SetAttrAck  an answer
//!  MarkPage    0: number u64 | 8: term | 16: mark u128 | 32: page u32 | 36: grain u32
//!              40: words u32, at most 504 | 44: zero, 4 bytes;   lists: that many u64
//! ```

use crate::bitmap::WORDS_PER_PAGE;
use crate::message::Message;
use crate::meta::ATTRIBUTE_VALUE_MAX;
use crate::units::Term;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::error::{BadField, WireError};

pub(super) fn put_set(
    number: u64,
    term: Term,
    (is_first, is_last): (bool, bool),
    key: &str,
    value: &[u8],
    w: &mut Writer,
) {
    let len = value.len();
    assert!(len <= ATTRIBUTE_VALUE_MAX, "{len} bytes are one value");
    w.u64(number);
    w.u64(term.0);
    w.flag(is_first);
    w.flag(is_last);
    w.text_len(key);
    w.zeros::<1>();
    w.u32(len as u32);
    w.lists();
    w.bytes(key.as_bytes());
    w.bytes(value);
}

pub(super) fn take_set(fields: &mut Reader, lists: &mut Reader) -> Result<Message, WireError> {
    let (number, term, is_first) = (fields.counter()?, fields.term()?, fields.flag()?);
    let (is_last, key_len) = (fields.flag()?, fields.u8()?);
    fields.skip::<1>()?;
    let len = fields.u32()? as usize;
    if len > ATTRIBUTE_VALUE_MAX {
        return Err(fields.bad(BadField::List));
    }
    let key = lists.text(key_len)?;
    let value = lists.bytes(len)?.to_vec();
    Ok(Message::SetAttr {
        number,
        term,
        is_first,
        is_last,
        key,
        value,
    })
}

pub(super) fn put_page(
    number: u64,
    term: Term,
    mark: u128,
    page: u32,
    grain: u32,
    words: &[u64],
    w: &mut Writer,
) {
    let len = words.len();
    assert!(len <= WORDS_PER_PAGE, "{len} words are one page");
    w.u64(number);
    w.u64(term.0);
    w.u128(mark);
    w.u32(page);
    w.u32(grain);
    w.u32(len as u32);
    w.zeros::<4>();
    w.lists();
    w.u64s(words);
}

pub(super) fn take_page(fields: &mut Reader, lists: &mut Reader) -> Result<Message, WireError> {
    let (number, term, mark) = (fields.counter()?, fields.term()?, fields.u128()?);
    let (page, grain, len) = (fields.u32()?, fields.u32()?, fields.u32()?);
    fields.skip::<4>()?;
    let words = lists.u64s(len, WORDS_PER_PAGE as u64)?;
    Ok(Message::MarkPage {
        number,
        term,
        mark,
        page,
        grain,
        words,
    })
}
