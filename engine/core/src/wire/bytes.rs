//! Fields and lists of one body, written and read in order.
//!
//! A body is `fields` (fixed length per type and version, so that a newer sender may append)
//! followed by `lists` (strings, runs, checksums), which may have a tail too.

use crate::generation::{CHAIN_MAX, Chain, Entry};
use crate::message::Life;
use crate::record::Record;
use crate::units::{Extent, NODES_MAX, NodeIdx, NodeSet, Seq, Term};
use crate::wire::error::{BadField, WireError};
use crate::wire::frame::Header;
use crate::wire::kind::Kind;

/// Largest sequence number, round, epoch or request id: counting on cannot overflow.
pub const COUNTER_MAX: u64 = 1 << 62;
/// Largest granule address: its byte address fits 64 bits.
pub const GRANULES_MAX: u64 = 1 << 52;

/// Appends integers to a frame.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    fields_end: Option<usize>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        let fields_end = None;
        Writer { out, fields_end }
    }

    /// The fixed fields end here; called again, the first place counts.
    pub(super) fn lists(&mut self) {
        self.fields_end.get_or_insert(self.out.len());
    }

    /// Where the fields ended, as a place in the output.
    pub(super) fn fields_end(&self) -> usize {
        self.fields_end.unwrap_or(self.out.len())
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u128(&mut self, value: u128) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn zeros<const N: usize>(&mut self) {
        self.bytes(&[0; N]);
    }

    pub(super) fn life(&mut self, life: Life) {
        self.u64(life.count);
        self.u64(life.id);
    }

    pub(super) fn extent(&mut self, extent: Extent) {
        self.u64(extent.start);
        self.u64(extent.end);
    }

    /// 32 bytes: `term u64 | step u32 | primary u8 | in_sync u8 | zero u16 | branch u128`
    pub(super) fn record(&mut self, record: &Record) {
        self.u64(record.term.0);
        self.u32(record.step);
        self.u8(record.primary.0);
        self.u8(record.in_sync.0);
        self.u8(record.voters.0);
        self.flag(record.is_released);
        self.u128(record.branch);
    }

    /// 24 bytes per entry, oldest first: `branch u128 | term u64`, its highest bit: empty
    pub(super) fn chain(&mut self, chain: &Chain) {
        for entry in chain.entries() {
            self.u128(entry.branch);
            self.u64(entry.word());
        }
    }

    /// Length of a string that follows among the lists.
    pub(super) fn text_len(&mut self, text: &str) {
        let len = u8::try_from(text.len());
        self.u8(len.expect("names are at most 255 bytes: the configuration refuses longer ones"));
    }

    pub(super) fn extents(&mut self, runs: &[Extent]) {
        runs.iter().for_each(|run| self.extent(*run));
    }

    pub(super) fn u64s(&mut self, values: &[u64]) {
        values.iter().for_each(|value| self.u64(*value));
    }
}

/// The two parts of a body.
pub(super) struct Body<'a> {
    pub(super) fields: Reader<'a>,
    pub(super) lists: Reader<'a>,
}

impl<'a> Body<'a> {
    /// Cuts a body whose length was checked against `header`.
    pub(super) fn new(kind: Kind, header: &Header, body: &'a [u8]) -> Body<'a> {
        let (fields, lists) = body.split_at(usize::from(header.fields_len));
        let (fields, lists) = (Reader::new(kind, fields), Reader::new(kind, lists));
        Body { fields, lists }
    }
}

/// Takes integers off a slice; every miss is an error that names the message.
pub(super) struct Reader<'a> {
    kind: Kind,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(kind: Kind, bytes: &'a [u8]) -> Reader<'a> {
        Reader { kind, bytes }
    }

    pub(super) fn bad(&self, field: BadField) -> WireError {
        let kind = self.kind;
        WireError::Field { kind, field }
    }

    pub(super) fn check(&self, holds: bool, field: BadField) -> Result<(), WireError> {
        if holds { Ok(()) } else { Err(self.bad(field)) }
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let kind = self.kind;
        let (head, rest) = self
            .bytes
            .split_at_checked(len)
            .ok_or(WireError::Truncated { kind })?;
        self.bytes = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.bytes(N)?;
        Ok(bytes.try_into().expect("N bytes make an array of N bytes"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn flag(&mut self) -> Result<bool, WireError> {
        let value = self.u8()?;
        self.check(value <= 1, BadField::Code)?;
        Ok(value == 1)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, WireError> {
        self.array().map(u128::from_le_bytes)
    }

    pub(super) fn skip<const N: usize>(&mut self) -> Result<(), WireError> {
        self.bytes(N).map(drop)
    }

    /// Nothing is left: an older sender ends here.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn life(&mut self) -> Result<Life, WireError> {
        let (count, id) = (self.u64()?, self.u64()?);
        Ok(Life { count, id })
    }

    pub(super) fn counter(&mut self) -> Result<u64, WireError> {
        let value = self.u64()?;
        self.check(value <= COUNTER_MAX, BadField::Counter)?;
        Ok(value)
    }

    pub(super) fn seq(&mut self) -> Result<Seq, WireError> {
        self.counter().map(Seq)
    }

    pub(super) fn term(&mut self) -> Result<Term, WireError> {
        let term = Term(self.u64()?);
        self.known_term(term)?;
        Ok(term)
    }

    fn known_term(&self, term: Term) -> Result<(), WireError> {
        let is_known = term.0 <= COUNTER_MAX && usize::from(term.author().0) < NODES_MAX;
        self.check(is_known, BadField::Term)
    }

    pub(super) fn step(&mut self) -> Result<u32, WireError> {
        let step = self.u32()?;
        self.check(step <= u32::MAX / 2, BadField::Counter)?;
        Ok(step)
    }

    /// A non-empty run of at most `max` granules.
    pub(super) fn extent(&mut self, max: u64) -> Result<Extent, WireError> {
        let (start, end) = (self.u64()?, self.u64()?);
        let is_run = start < end && end <= GRANULES_MAX && end - start <= max;
        self.check(is_run, BadField::Extent)?;
        Ok(Extent::new(start, end))
    }

    pub(super) fn record(&mut self) -> Result<Record, WireError> {
        let record = Record {
            term: self.term()?,
            step: self.step()?,
            primary: NodeIdx(self.u8()?),
            in_sync: NodeSet(self.u8()?),
            voters: NodeSet(self.u8()?),
            is_released: self.flag()?,
            branch: self.u128()?,
        };
        let names_nodes = usize::from(record.primary.0) < NODES_MAX && !record.in_sync.is_empty();
        self.check(names_nodes, BadField::Node)?;
        Ok(record)
    }

    pub(super) fn chain(&mut self, len: u16) -> Result<Chain, WireError> {
        let len = usize::from(len);
        self.check(len <= CHAIN_MAX, BadField::Chain)?;
        let mut entries: Vec<Entry> = Vec::with_capacity(len);
        for _ in 0..len {
            let entry = Entry::from_word(self.u128()?, self.u64()?);
            self.known_term(entry.term)?;
            let grows = entries.last().is_none_or(|newest| newest.term < entry.term);
            self.check(grows, BadField::Chain)?;
            entries.push(entry);
        }
        Chain::from_entries(entries).ok_or_else(|| self.bad(BadField::Chain))
    }

    pub(super) fn extents(&mut self, len: u32, max: usize) -> Result<Vec<Extent>, WireError> {
        let len = len as usize;
        self.check(len <= max, BadField::List)?;
        (0..len).map(|_| self.extent(GRANULES_MAX)).collect()
    }

    pub(super) fn u64s(&mut self, len: u32, max: u64) -> Result<Vec<u64>, WireError> {
        self.check(u64::from(len) <= max, BadField::List)?;
        (0..len).map(|_| self.u64()).collect()
    }

    pub(super) fn text(&mut self, len: u8) -> Result<String, WireError> {
        let bytes = self.bytes(usize::from(len))?;
        let text = str::from_utf8(bytes).map_err(|_| self.bad(BadField::Text))?;
        Ok(text.to_owned())
    }

    pub(super) fn sums(&mut self, granules: u64) -> Result<Sums<'a>, WireError> {
        let bytes = self.bytes(granules as usize * 8)?;
        Ok(Sums { bytes })
    }
}

/// Checksums of a payload, one CRC-64/NVME per granule, still in the receive buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums<'a> {
    /// Whole little-endian words.
    bytes: &'a [u8],
}

impl<'a> Sums<'a> {
    /// Number of granules.
    pub fn len(self) -> usize {
        self.bytes.len() / 8
    }

    /// The message has no payload.
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// In order of the granules.
    pub fn iter(self) -> impl ExactSizeIterator<Item = u64> + 'a {
        let words = self.bytes.chunks_exact(8);
        words.map(|word| u64::from_le_bytes(word.try_into().expect("chunks are 8 bytes")))
    }
}
