//! The shell's buffers and their ledger (law O2): who holds each one, that it ends exactly once,
//! that nobody uses it afterwards, and that nobody writes into it while others read (law B11).

use std::collections::BTreeMap;
use std::rc::Rc;

use engine_core::units::BufId;

/// Where a buffer came from, and so who ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client's request; ends with its `Complete`.
    Client,
    /// Payload of a peer; ends with `Release`.
    Payload {
        /// Every granule matched its checksum.
        is_intact: bool,
        /// It answers a resync request.
        is_resync: bool,
    },
    /// A read the shell allocated for; ends with `Release`.
    Alloc,
    /// Result of a job; ends with `Release`.
    Job,
}

/// One buffer.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// One per block. Whoever reads it shares it: law B11 forbids writing meanwhile.
    pub tags: Rc<Vec<u64>>,
    /// Where it came from.
    pub origin: Origin,
    is_held: bool,
    readers: u32,
    writers: u32,
}

/// What went wrong with a buffer; the broken law in words.
pub type Breach = String;

/// All buffers of one process.
#[derive(Default)]
pub struct Ledger {
    buffers: BTreeMap<u64, Buffer>,
    next: u64,
}

impl Ledger {
    /// A new buffer, held by the front end (for a client) or by the core.
    pub fn add(&mut self, tags: impl Into<Rc<Vec<u64>>>, origin: Origin) -> BufId {
        self.next += 1;
        let buffer = Buffer {
            tags: tags.into(),
            origin,
            is_held: true,
            readers: 0,
            writers: 0,
        };
        self.buffers.insert(self.next, buffer);
        BufId(self.next)
    }

    /// A buffer the core may name now.
    pub fn held(&self, buf: BufId) -> Result<&Buffer, Breach> {
        match self.buffers.get(&buf.0) {
            Some(buffer) if buffer.is_held => Ok(buffer),
            _ => Err(format!("{buf:?} is used after its end")),
        }
    }

    /// Content of a buffer that an operation holds.
    pub fn peek(&self, buf: BufId) -> &[u64] {
        self.buffers.get(&buf.0).map_or(&[], |b| &b.tags)
    }

    /// An operation begins to read it.
    pub fn begin_read(&mut self, buf: BufId) -> Result<Rc<Vec<u64>>, Breach> {
        self.held(buf)?;
        let buffer = self.buffers.get_mut(&buf.0).expect("it is held");
        if buffer.writers > 0 {
            return Err(format!("{buf:?} is read while something writes into it"));
        }
        buffer.readers += 1;
        Ok(Rc::clone(&buffer.tags))
    }

    /// An operation begins to write into it.
    pub fn begin_write(&mut self, buf: BufId) -> Result<(), Breach> {
        self.held(buf)?;
        let buffer = self.buffers.get_mut(&buf.0).expect("it is held");
        if buffer.readers + buffer.writers > 0 {
            return Err(format!("{buf:?} is written while something else uses it"));
        }
        buffer.writers += 1;
        Ok(())
    }

    /// A read of it ended.
    pub fn end_read(&mut self, buf: BufId) {
        let buffer = self
            .buffers
            .get_mut(&buf.0)
            .expect("the operation holds it");
        buffer.readers -= 1;
        self.drop_if_unused(buf);
    }

    /// A write into it ended, with this content if it went well.
    pub fn end_write(&mut self, buf: BufId, fill: impl FnOnce(&mut Vec<u64>)) {
        let buffer = self
            .buffers
            .get_mut(&buf.0)
            .expect("the operation holds it");
        buffer.writers -= 1;
        fill(Rc::make_mut(&mut buffer.tags));
        self.drop_if_unused(buf);
    }

    /// The core's reference ends.
    pub fn release(&mut self, buf: BufId) -> Result<(), Breach> {
        if self.held(buf)?.origin == Origin::Client {
            return Err(format!(
                "{buf:?} belongs to a client and is released by the core"
            ));
        }
        self.end_hold(buf);
        Ok(())
    }

    /// The front end's reference ends; the content as it is then, and whether something still
    /// writes into it.
    pub fn end_request(&mut self, buf: BufId) -> Result<(Rc<Vec<u64>>, bool), Breach> {
        let buffer = self.held(buf)?;
        let result = (Rc::clone(&buffer.tags), buffer.writers > 0);
        self.end_hold(buf);
        Ok(result)
    }

    fn end_hold(&mut self, buf: BufId) {
        if let Some(buffer) = self.buffers.get_mut(&buf.0) {
            buffer.is_held = false;
        }
        self.drop_if_unused(buf);
    }

    fn drop_if_unused(&mut self, buf: BufId) {
        let unused = |b: &Buffer| !b.is_held && b.readers == 0 && b.writers == 0;
        if self.buffers.get(&buf.0).is_some_and(unused) {
            self.buffers.remove(&buf.0);
        }
    }

    /// Buffers that are not a client's.
    pub fn owned_by_core(&self) -> usize {
        self.buffers
            .values()
            .filter(|b| b.is_held && b.origin != Origin::Client)
            .count()
    }

    /// All buffers.
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// No buffer at all.
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// The process died.
    pub fn clear(&mut self) {
        self.buffers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_release_is_a_breach() {
        let mut ledger = Ledger::default();
        let buf = ledger.add(vec![1; 8], Origin::Alloc);
        assert_eq!(ledger.release(buf), Ok(()));
        assert!(ledger.release(buf).is_err());
        assert!(ledger.is_empty());
    }

    #[test]
    fn an_operation_keeps_a_released_buffer_alive() {
        let mut ledger = Ledger::default();
        let buf = ledger.add(vec![1; 8], Origin::Alloc);
        assert!(ledger.begin_read(buf).is_ok());
        assert_eq!(ledger.release(buf), Ok(()));
        assert_eq!(ledger.len(), 1);
        assert!(ledger.begin_read(buf).is_err());
        ledger.end_read(buf);
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_buffer_that_is_read_is_frozen() {
        let mut ledger = Ledger::default();
        let buf = ledger.add(vec![1; 8], Origin::Client);
        assert!(ledger.begin_read(buf).is_ok());
        assert!(ledger.begin_write(buf).is_err());
    }
}
