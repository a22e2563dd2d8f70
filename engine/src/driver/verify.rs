//! Stored checksums: what was read is compared with them, what was written becomes one.
//!
//! ```text
//!  read ended ─► CRC-64 of each granule ─► Table::check ─► DiskDone, or Checksum(first bad…last bad)
//!  write ended ─► CRC-64, kept beside the buffer for links too ─► Table::set
//!  SumsRead, SumsWrite ─► pages between the table and the metadata file
//! ```
//! Which page lies in which slot of the table is the core's to decide.

use engine_core::action::{META_BLOCK, PageRead};
use engine_core::checksums::Table;
use engine_core::event::{DiskError, DiskResult, Event, JobOutcome, SumsFound, Token};
use engine_core::meta::{self, SumRegion};
use engine_core::units::{Extent, GRANULE};
use engine_ring::{BufId, Class};

use crate::backend::Store;
use crate::driver::Driver;
use crate::driver::disk::{Then, Transfer};
use crate::shell::Shell;
use crate::sums;

/// Two slots of a page.
const PAIR_BYTES: usize = 2 * META_BLOCK;

/// Stored checksums of one volume.
pub(crate) struct Checksums {
    table: Table,
    life: u128,
}

impl Checksums {
    /// Room for so many pages of this region.
    pub(crate) fn new(region: &SumRegion, pages: usize) -> Checksums {
        let zeros = sums::bytes(&[0; GRANULE as usize]);
        let life = region.incarnation();
        Checksums {
            table: Table::new(pages, life, zeros, region.zeroed()),
            life,
        }
    }
}

/// The granules of a run of bytes that begins and ends with one.
pub(super) fn extent_of(at: u64, len: u64) -> Extent {
    Extent::new(at / GRANULE, (at + len) / GRANULE)
}

impl Driver {
    /// What lies in `buf` was read from `extent`: is it what was written there?
    pub(super) fn check_buffer(
        &mut self,
        shell: &mut Shell,
        extent: Extent,
        buf: BufId,
    ) -> DiskResult {
        let Some(checksums) = &self.checksums else {
            return Ok(());
        };
        shell.arena.clear_sums(buf);
        let crcs = sums::of_buffer(&mut shell.arena, buf, extent.bytes() as usize);
        let checked = checksums.table.check(extent, crcs);
        checked.map_err(DiskError::Checksum)
    }

    /// As [`Driver::check_buffer`] with the checksums at hand.
    pub(super) fn check_sums(&self, extent: Extent, crcs: &[u64]) -> DiskResult {
        let Some(checksums) = &self.checksums else {
            return Ok(());
        };
        let checked = checksums.table.check(extent, crcs);
        checked.map_err(DiskError::Checksum)
    }

    /// As [`Driver::check_buffer`] with the bytes at hand.
    pub(super) fn check_bytes(&self, extent: Extent, bytes: &[u8]) -> DiskResult {
        if self.checksums.is_none() {
            return Ok(());
        }
        self.check_sums(extent, &sums::of_granules(bytes))
    }

    /// Checks one granule that lies in these bytes.
    pub(super) fn check_granule(&self, granule: u64, bytes: &[u8]) -> DiskResult {
        self.check_bytes(Extent::new(granule, granule + 1), bytes)
    }

    /// A write of `buf` ended: these are the checksums from now on; after a failure nobody knows.
    pub(super) fn wrote(
        &mut self,
        shell: &mut Shell,
        extent: Extent,
        buf: BufId,
        result: DiskResult,
    ) {
        let Some(checksums) = &mut self.checksums else {
            return;
        };
        match result {
            Ok(()) => {
                let crcs = sums::of_buffer(&mut shell.arena, buf, extent.bytes() as usize);
                checksums.table.set(extent, crcs);
            }
            Err(_) => checksums.table.forget(extent),
        }
    }

    /// A zeroing ended.
    pub(super) fn zeroed(&mut self, extent: Extent, result: DiskResult) {
        let Some(checksums) = &mut self.checksums else {
            return;
        };
        match result {
            Ok(()) => checksums.table.set_zeros(extent),
            Err(_) => checksums.table.forget(extent),
        }
    }

    /// Compares a piece of a scrub that was read into `bytes`.
    pub(super) fn scrub_bytes(&mut self, extent: Extent, bytes: &[u8]) -> JobOutcome {
        self.scrub_sums(extent, &sums::of_granules(bytes))
    }

    fn scrub_sums(&mut self, extent: Extent, crcs: &[u64]) -> JobOutcome {
        let checksums = self.checksums.as_mut();
        let found = checksums.map(|c| c.table.scrub(extent, crcs));
        JobOutcome::Scrubbed(found.unwrap_or_default())
    }

    /// Reads a piece of a scrub; `false` when there is no buffer now.
    pub(super) fn start_scrub(&mut self, shell: &mut Shell, token: Token, extent: Extent) -> bool {
        let len = extent.bytes() as usize;
        if let Store::Memory(memory) = &self.store {
            let crcs = sums::of_granules(memory.slice(extent.offset(), len));
            let outcome = self.scrub_sums(extent, &crcs);
            self.job_done(token, outcome);
            return true;
        }
        let Some(buf) = shell.arena.alloc(Class::Resync, len) else {
            return false;
        };
        self.read_inline(shell, extent, buf, Then::Scrub(token));
        true
    }

    /// Reads both slots of a page; `false` when there is no buffer now.
    pub(super) fn read_sums(&mut self, shell: &mut Shell, read: PageRead) -> bool {
        let Some(buf) = shell.arena.alloc(Class::Meta, PAIR_BYTES) else {
            return false;
        };
        let transfer = Transfer {
            file: self.meta,
            buf,
            at: read.block * META_BLOCK as u64,
            len: PAIR_BYTES as u32,
            done: 0,
            write: false,
            durable: false,
        };
        self.start_transfer(shell, transfer, Then::SumsRead(read));
        true
    }

    /// A page was read. One that the disk cannot read is metadata that failed: with a counter that
    /// is not known, the next version of the page could be taken for an older one.
    pub(super) fn sums_read(
        &mut self,
        shell: &mut Shell,
        read: PageRead,
        buf: BufId,
        end: DiskResult,
    ) -> Event {
        let token = read.token;
        let found = match (&mut self.checksums, end) {
            (_, Err(error)) => Err(error),
            (None, Ok(())) => Err(DiskError::Io),
            (Some(checksums), Ok(())) => {
                let bytes = shell.arena.slice(buf.slice(0, PAIR_BYTES as u32));
                let (a, b) = bytes.split_at(META_BLOCK);
                let block = |half: &[u8]| half.try_into().expect("the pair was cut in two");
                let (a, b) = (Box::new(block(a)), Box::new(block(b)));
                let found = meta::judge_sums(&a, &b, read.block, checksums.life);
                let (values, is_lost) = (found.values.as_ref(), found.is_lost);
                let table = &mut checksums.table;
                table.load(read.slot, read.page, values, is_lost, read.forget);
                Ok(SumsFound {
                    counter: found.counter,
                    is_second: found.is_second,
                    is_lost,
                })
            }
        };
        shell.arena.release(buf);
        match found {
            Ok(found) => Event::SumsRead { token, found },
            Err(error) => Event::MetaDone {
                token,
                result: Err(error),
            },
        }
    }

    /// Writes a slot of the table; `false` when there is no buffer now.
    pub(super) fn write_sums(
        &mut self,
        shell: &mut Shell,
        token: Token,
        slot: usize,
        block: u64,
        counter: u64,
    ) -> bool {
        let Some(checksums) = &self.checksums else {
            unreachable!("a core without a region writes no checksums");
        };
        let values = checksums.table.values(slot);
        let bytes = meta::encode_sums_page(checksums.life, values, block, counter);
        self.write_meta(shell, token, block, &bytes)
    }
}
