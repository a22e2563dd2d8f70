//! SetAttr, SetAttrAck, MarkPage: what belongs to the volume beside its data.
//!
//! ```text
//!  SetAttr     0: number u64 | 8: term | 16: is first u8 | 17: is last u8 | 18: key length u8 | 19: zero
//!              20: value length u32, at most 65536;   lists: key, value
//!  SetAttrAck  an answer
//!  MarkPage    0: number u64 | 8: term | 16: mark u128 | 32: page u32 | 36: grain u32
//!              40: words u32, at most 504 | 44: zero, 4 bytes;   lists: that many u64
//!  GrowAsk     0: granules u64
//!  GrowAnswer  0: granules u64 | 8: most u64 | 16: status u8 | 17: zero, 7 bytes
//! ```

use crate::bitmap::WORDS_PER_PAGE;
use crate::message::{MarkPage, Message, SetAttr, Status};
use crate::meta::ATTRIBUTE_VALUE_MAX;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::codes::Code;
use crate::wire::data::take_status;
use crate::wire::error::{BadField, WireError};

pub(super) fn put_set(set: &SetAttr, w: &mut Writer) {
    let len = set.value.len();
    assert!(len <= ATTRIBUTE_VALUE_MAX, "{len} bytes are one value");
    w.u64(set.number);
    w.u64(set.term.0);
    w.flag(set.is_first);
    w.flag(set.is_last);
    w.text_len(&set.key);
    w.zeros::<1>();
    w.u32(len as u32);
    w.lists();
    w.bytes(set.key.as_bytes());
    w.bytes(&set.value);
}

pub(super) fn take_set(fields: &mut Reader, lists: &mut Reader) -> Result<SetAttr, WireError> {
    let (number, term, is_first) = (fields.counter()?, fields.term()?, fields.flag()?);
    let (is_last, key_len) = (fields.flag()?, fields.u8()?);
    fields.skip::<1>()?;
    let len = fields.u32()? as usize;
    if len > ATTRIBUTE_VALUE_MAX {
        return Err(fields.bad(BadField::List));
    }
    let key = lists.text(key_len)?;
    let value = lists.bytes(len)?.to_vec();
    Ok(SetAttr {
        number,
        term,
        is_first,
        is_last,
        key,
        value,
    })
}

pub(super) fn put_page(page: &MarkPage, w: &mut Writer) {
    let len = page.words.len();
    assert!(len <= WORDS_PER_PAGE, "{len} words are one page");
    w.u64(page.number);
    w.u64(page.term.0);
    w.u128(page.mark);
    w.u32(page.page);
    w.u32(page.grain);
    w.u32(len as u32);
    w.zeros::<4>();
    w.lists();
    w.u64s(&page.words);
}

pub(super) fn take_page(fields: &mut Reader, lists: &mut Reader) -> Result<MarkPage, WireError> {
    let (number, term, mark) = (fields.counter()?, fields.term()?, fields.u128()?);
    let (page, grain, len) = (fields.u32()?, fields.u32()?, fields.u32()?);
    fields.skip::<4>()?;
    let words = lists.u64s(len, WORDS_PER_PAGE as u64)?;
    Ok(MarkPage {
        number,
        term,
        mark,
        page,
        grain,
        words,
    })
}

pub(super) fn put_room(size: u64, max: u64, status: Status, w: &mut Writer) {
    w.u64(size);
    w.u64(max);
    w.u8(status.code());
    w.zeros::<7>();
}

pub(super) fn take_room(fields: &mut Reader) -> Result<Message, WireError> {
    let (size, max) = (fields.counter()?, fields.counter()?);
    let status = take_status(fields)?;
    Ok(Message::GrowAnswer { size, max, status })
}
