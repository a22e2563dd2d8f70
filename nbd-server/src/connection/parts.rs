//! Reads in parts: what the volume knows to be zeroes is told, not read.
//!
//! ```text
//!  READ ─► first_hole … ─► data | hole | data ─► each a request of the table, data submitted
//!  all parts ended ─► their chunks are queued in order, the last one DONE
//! ```
//!
//! Only for clients that take chunks, and for reads long enough that the question is worth its
//! time. Nothing of a read is queued before all of its parts have ended, so that a successor can
//! ask for all of it again.

use engine_core::units::ByteRange;
use nbd_proto::Cookie;

use super::NbdConnection;
use super::host::Host;
use super::table::{Kind, Parts, Reply, Request};

/// Shortest read that is looked at, bytes.
const SPARSE_MIN: u32 = 64 << 10;
/// Shortest run of zeroes that is worth a chunk of its own, bytes.
const HOLE_MIN: u64 = 32 << 10;
/// Most parts of a read; what comes after is read whole.
const PARTS_MAX: usize = 8;

/// One part in the making.
#[derive(Clone, Copy)]
struct Part {
    offset: u64,
    length: u64,
    is_hole: bool,
}

/// The parts of a read, in order.
struct Plan {
    parts: [Part; PARTS_MAX],
    count: usize,
}

impl Plan {
    /// How to read the range; `None` if it holds no zeroes worth telling.
    fn of(range: ByteRange, host: &mut impl Host) -> Option<Plan> {
        let end = range.offset + range.len;
        let mut hole = host.first_hole(range, HOLE_MIN)?;
        let nothing = Part {
            offset: 0,
            length: 0,
            is_hole: false,
        };
        let mut plan = Plan {
            parts: [nothing; PARTS_MAX],
            count: 0,
        };
        let mut at = range.offset;
        loop {
            plan.push(at, hole.offset, false);
            at = hole.offset + hole.len;
            plan.push(hole.offset, at, true);
            // Data, a hole and the rest must fit.
            let next = (plan.count + 3 <= PARTS_MAX && at < end)
                .then(|| ByteRange {
                    offset: at,
                    len: end - at,
                })
                .and_then(|rest| host.first_hole(rest, HOLE_MIN));
            match next {
                Some(next) => hole = next,
                None => break,
            }
        }
        plan.push(at, end, false);
        Some(plan)
    }

    fn push(&mut self, start: u64, end: u64, is_hole: bool) {
        if start < end {
            self.parts[self.count] = Part {
                offset: start,
                length: end - start,
                is_hole,
            };
            self.count += 1;
        }
    }

    fn parts(&self) -> &[Part] {
        &self.parts[..self.count]
    }
}

impl NbdConnection {
    /// Enters a read in parts if there are zeroes in it, and room for its parts.
    pub(super) fn admit_sparse(
        &mut self,
        host: &mut impl Host,
        cookie: Cookie,
        offset: u64,
        length: u32,
    ) -> bool {
        if length < SPARSE_MIN || !self.agreed.replies.is_chunked() {
            return false;
        }
        let len = u64::from(length);
        let Some(plan) = Plan::of(ByteRange { offset, len }, host) else {
            return false;
        };
        let data = plan.parts().iter().filter(|part| !part.is_hole).count();
        if self.table.room() <= plan.count || host.room() < data {
            return false;
        }
        if data == 0 {
            let request = Request::new(cookie, Kind::Answer, offset, len);
            let slot = self.table.insert(request);
            self.answer(host, slot, Reply::Hole);
            return true;
        }
        self.enter(host, cookie, (offset, len), &plan)
    }

    /// Takes all slots and buffers, or nothing.
    fn enter(
        &mut self,
        host: &mut impl Host,
        cookie: Cookie,
        (origin, len): (u64, u64),
        plan: &Plan,
    ) -> bool {
        let answer = Request::new(cookie, Kind::Answer, origin, len);
        let whole = self.table.insert(answer);
        let (mut next, mut left) = (None, 0);
        for (index, part) in plan.parts().iter().enumerate().rev() {
            let kind = if part.is_hole {
                Kind::Answer
            } else {
                Kind::Read { whole: false }
            };
            let Ok(buf) = self.buffer_for(host, kind, part.offset, part.length) else {
                self.drop_chain(host, next);
                self.table.remove(whole);
                return false;
            };
            let slot = self.table.insert(Request {
                buf,
                origin,
                next,
                reply: if part.is_hole {
                    Reply::Hole
                } else {
                    Reply::Pending
                },
                is_part: true,
                part_of: Some(whole),
                is_last: index + 1 == plan.count,
                ..Request::new(cookie, kind, part.offset, part.length)
            });
            (next, left) = (Some(slot), left + u16::from(!part.is_hole));
        }
        let first = next.expect("a plan has parts");
        self.table.get_mut(whole).kind = Kind::Parts(Parts {
            first,
            left,
            is_torn: false,
        });
        while let Some(slot) = next {
            next = self.table.get(slot).next;
            if self.table.get(slot).reply == Reply::Pending {
                self.submit(host, slot);
            }
        }
        true
    }

    /// A part of `whole` ended, without a reply if `is_torn`; with the last one all are queued.
    pub(super) fn part_ended(&mut self, host: &mut impl Host, whole: u16, is_torn: bool) {
        let request = self.table.get_mut(whole);
        let Kind::Parts(parts) = &mut request.kind else {
            unreachable!("a part belongs to a read in parts");
        };
        parts.left -= 1;
        parts.is_torn |= is_torn;
        let parts = *parts;
        if parts.left > 0 {
            return;
        }
        self.table.remove(whole);
        if parts.is_torn || self.is_broken {
            return self.drop_chain(host, Some(parts.first));
        }
        let mut next = Some(parts.first);
        while let Some(slot) = next {
            let part = self.table.get_mut(slot);
            (next, part.part_of) = (part.next.take(), None);
            self.replies.push(slot);
        }
    }

    fn drop_chain(&mut self, host: &mut impl Host, mut next: Option<u16>) {
        while let Some(slot) = next {
            next = self.table.get(slot).next;
            self.drop_slot(host, slot);
        }
    }
}
