//! The requests of one connection, from header to the last byte of the reply.

use engine_core::event::Op;
use engine_core::message::Zeroing;
use engine_core::units::{self, ByteRange, GRANULE};
use engine_ring::{BufId, BufSlice};
use nbd_proto::{ContextSet, Cookie, NbdError};

/// What a request asks of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `whole`: in one chunk, zeroes written out.
    Read {
        whole: bool,
    },
    /// A read that is answered in parts, each a request of its own.
    Parts(Parts),
    Write {
        fua: bool,
    },
    Zero {
        zeroing: Zeroing,
        fua: bool,
    },
    Flush,
    Status(Status),
    /// Nothing: it is answered at once.
    Answer,
}

/// A read in parts: `first` and what follows it by [`Request::next`], in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) first: u16,
    /// Parts that have not ended.
    pub(crate) left: u16,
    /// A part ended without a reply: so does the whole.
    pub(crate) is_torn: bool,
}

/// A block status on its way through its contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) one: bool,
    /// What was asked for.
    pub(crate) wanted: ContextSet,
    /// What has not been told yet; the lowest is being asked.
    pub(crate) left: ContextSet,
    /// Bytes of finished chunks in the buffer.
    pub(crate) written: u32,
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Not known yet.
    Pending,
    /// Success without data.
    Ok,
    /// Success; the data lies in the buffer.
    Data,
    /// Success; all of it is zeroes.
    Hole,
    /// The buffer begins with so many bytes of finished chunks.
    Chunks(u32),
    /// An error, and words for people.
    Error(NbdError, &'static str),
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) cookie: Cookie,
    pub(crate) kind: Kind,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) buf: Option<BufId>,
    pub(crate) reply: Reply,
    /// Where the client's request began: of a part, that of the whole.
    pub(crate) origin: u64,
    /// It is a part of a read.
    pub(crate) is_part: bool,
    /// The read it is a part of, until all parts have ended.
    pub(crate) part_of: Option<u16>,
    /// Of a part: the next one.
    pub(crate) next: Option<u16>,
    /// Its chunk is the last of the reply.
    pub(crate) is_last: bool,
}

impl Request {
    /// A request as it came, not answered yet.
    pub(crate) fn new(cookie: Cookie, kind: Kind, offset: u64, length: u64) -> Request {
        Request {
            cookie,
            kind,
            offset,
            length,
            buf: None,
            reply: Reply::Pending,
            origin: offset,
            is_part: false,
            part_of: None,
            next: None,
            is_last: true,
        }
    }

    /// It is no part of a read.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        !self.is_part
    }

    /// What the volume is asked; `None` for what it is not asked.
    pub(crate) fn op(&self) -> Option<Op> {
        let range = ByteRange {
            offset: self.offset,
            len: self.length,
        };
        let buf = self.buf.map(|buf| units::BufId(buf.to_u64()));
        match (self.kind, buf) {
            (Kind::Read { .. }, Some(buf)) => Some(Op::Read { range, buf }),
            (Kind::Write { fua }, Some(buf)) => Some(Op::Write { range, buf, fua }),
            (Kind::Zero { zeroing, fua }, _) => Some(Op::Zero {
                range,
                zeroing,
                fua,
            }),
            (Kind::Flush, _) => Some(Op::Flush),
            (
                Kind::Read { .. }
                | Kind::Parts(_)
                | Kind::Write { .. }
                | Kind::Status(_)
                | Kind::Answer,
                _,
            ) => None,
        }
    }

    /// Where `length` bytes of payload lie, of which the first `skip` are left out: the buffer
    /// begins at the granule border at or below the offset.
    pub(crate) fn payload(&self, buf: BufId, skip: u32, length: u32) -> BufSlice {
        buf.slice((self.offset % GRANULE) as u32 + skip, length)
    }

    /// Bytes of buffer that payload of this place and length needs.
    pub(crate) fn buffer_bytes(offset: u64, length: u32) -> usize {
        ((offset % GRANULE) + u64::from(length)).next_multiple_of(GRANULE) as usize
    }
}

/// All requests of a connection: a slab of fixed size with a free list.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    free: Option<u16>,
    used: usize,
    max: usize,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    Used(Request),
    Free { next: Option<u16> },
}

impl Table {
    /// Room for `max` requests. It grows to the most that were in flight at a time and stays so: an
    /// idle client costs nothing of it.
    pub(crate) fn new(max: u16) -> Table {
        Table {
            slots: Vec::new(),
            free: None,
            used: 0,
            max: max.into(),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used == self.max
    }

    /// How many more it takes.
    pub(crate) fn room(&self) -> usize {
        self.max - self.used
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Adds a request; the caller made sure that the table is not full.
    pub(crate) fn insert(&mut self, request: Request) -> u16 {
        assert!(
            self.used < self.max,
            "a table of {} requests is not overfilled",
            self.max
        );
        self.used += 1;
        match self.free {
            Some(slot) => {
                let entry = &mut self.slots[usize::from(slot)];
                let Slot::Free { next } = *entry else {
                    panic!("slot {slot} is free")
                };
                self.free = next;
                *entry = Slot::Used(request);
                slot
            }
            None => {
                self.slots.push(Slot::Used(request));
                (self.slots.len() - 1) as u16
            }
        }
    }

    /// Takes a request out.
    pub(crate) fn remove(&mut self, slot: u16) -> Request {
        let entry = &mut self.slots[usize::from(slot)];
        let Slot::Used(request) = *entry else {
            panic!("slot {slot} holds a request")
        };
        *entry = Slot::Free { next: self.free };
        self.free = Some(slot);
        self.used -= 1;
        request
    }

    pub(crate) fn get(&self, slot: u16) -> &Request {
        match &self.slots[usize::from(slot)] {
            Slot::Used(request) => request,
            Slot::Free { .. } => panic!("slot {slot} holds a request"),
        }
    }

    pub(crate) fn get_mut(&mut self, slot: u16) -> &mut Request {
        match &mut self.slots[usize::from(slot)] {
            Slot::Used(request) => request,
            Slot::Free { .. } => panic!("slot {slot} holds a request"),
        }
    }

    /// All requests, by slot.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u16> {
        let used = self.slots.iter().enumerate();
        let used = used.filter(|(_, slot)| matches!(slot, Slot::Used(_)));
        used.map(|(slot, _)| slot as u16)
    }

    /// A request, if there is any; the lowest slot.
    pub(crate) fn first(&self) -> Option<u16> {
        let is_used = |slot: &Slot| matches!(slot, Slot::Used(_));
        self.slots.iter().position(is_used).map(|slot| slot as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cookie: u64) -> Request {
        Request::new(Cookie(cookie), Kind::Answer, 0, 0)
    }

    #[test]
    fn slots_are_given_anew_and_the_table_does_not_grow_by_it() {
        let mut table = Table::new(3);
        let slots: Vec<u16> = (0..3).map(|cookie| table.insert(request(cookie))).collect();
        assert_eq!(slots, [0, 1, 2]);
        assert!(table.is_full());
        let capacity = table.slots.capacity();
        assert_eq!(table.remove(1).cookie, Cookie(1));
        assert_eq!(table.remove(0).cookie, Cookie(0));
        assert_eq!(table.first(), Some(2));
        assert_eq!((table.insert(request(7)), table.insert(request(8))), (0, 1));
        assert_eq!(table.get(1).cookie, Cookie(8));
        assert_eq!(table.slots.capacity(), capacity);
    }

    #[test]
    fn a_buffer_spans_the_granules_that_its_payload_touches() {
        assert_eq!(Request::buffer_bytes(0, 4096), 4096);
        assert_eq!(Request::buffer_bytes(4095, 2), 8192);
        assert_eq!(Request::buffer_bytes(8192, 1), 4096);
        assert_eq!(Request::buffer_bytes(1, 32 << 20), (32 << 20) + 4096);
    }
}
