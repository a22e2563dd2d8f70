//! Runs and Map: dirty granules, lowest first.
//!
//! Fields, 8 bytes: `0: number of runs u32 | 4: last u8 | 5: zero, 3 bytes`
//! Lists: per run 16 bytes, `start u64 | end u64` in granules, end exclusive.

use crate::message::RUNS_MAX;
use crate::units::Extent;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::error::WireError;

pub(super) fn put(runs: &[Extent], last: bool, w: &mut Writer) {
    assert!(
        runs.len() <= RUNS_MAX,
        "{} runs are at most {RUNS_MAX}",
        runs.len()
    );
    w.u32(runs.len() as u32);
    w.flag(last);
    w.zeros::<3>();
    w.lists();
    w.extents(runs);
}

pub(super) fn take(
    fields: &mut Reader,
    lists: &mut Reader,
) -> Result<(Vec<Extent>, bool), WireError> {
    let (len, last) = (fields.u32()?, fields.flag()?);
    fields.skip::<3>()?;
    Ok((lists.extents(len, RUNS_MAX)?, last))
}
