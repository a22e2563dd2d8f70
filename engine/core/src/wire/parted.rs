//! Parted: the end of what two diverged replicas tell each other.
//!
//! Fields, 16 bytes: `0: gives up u8 | 1: has last write u8 | 2: needs the other's vote u8 | 3: zero |
//! 4: clients u32 | 8: last write, milliseconds ago u64`

use crate::message::Parted;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::error::WireError;

pub(super) fn put(parted: &Parted, w: &mut Writer) {
    w.flag(parted.gives_up);
    w.flag(parted.last_write_ms.is_some());
    w.flag(parted.needs_vote);
    w.zeros::<1>();
    w.u32(parted.clients);
    w.u64(parted.last_write_ms.unwrap_or(0));
}

pub(super) fn take(r: &mut Reader) -> Result<Parted, WireError> {
    let (gives_up, has_written, needs_vote) = (r.flag()?, r.flag()?, r.flag()?);
    r.skip::<1>()?;
    let (clients, ago) = (r.u32()?, r.counter()?);
    Ok(Parted {
        gives_up,
        needs_vote,
        clients,
        last_write_ms: has_written.then_some(ago),
    })
}
