//! A client asks: its request, buffer and tags, and what the history is told of them.

use std::collections::BTreeMap;
use std::ops::Range;

use engine_core::event::{Event, Op, ReqId, SessionId};
use engine_core::message::Zeroing;
use engine_core::units::{BufId, ByteRange, GRANULE};
use history::{Op as Asked, OpId, Outcome as Answered, Session as Known};

use super::{Kind, POISON, Request, Session};
use crate::buffers::Origin;
use crate::disk::{BLOCK, BLOCKS_PER_GRANULE};
use crate::plan::Step;
use crate::world::World;

fn bytes(blocks: &Range<u64>) -> ByteRange {
    ByteRange {
        offset: blocks.start * BLOCK,
        len: (blocks.end - blocks.start) * BLOCK,
    }
}

impl World {
    /// Carries out a client's step; false if it is none.
    pub fn client_step(&mut self, step: Step) -> bool {
        let slot = match step {
            Step::Read { slot, .. }
            | Step::Write { slot, .. }
            | Step::Zero { slot, .. }
            | Step::Flush { slot }
            | Step::Abort { slot }
            | Step::Close { slot }
            | Step::Beyond { slot } => slot as usize % self.clients.slots.len(),
            _ => return false,
        };
        match step {
            Step::Abort { .. } => self.abort(slot),
            Step::Close { .. } => self.close(slot),
            Step::Read { first, count, .. } => {
                self.ask(slot, Kind::Read, first..first + count, false, 0);
            }
            Step::Write {
                first, count, fua, ..
            } => {
                self.ask(slot, Kind::Write, first..first + count, fua == 1, 0);
            }
            Step::Zero {
                first,
                count,
                how,
                fua,
                ..
            } => {
                self.ask(slot, Kind::Zero, first..first + count, fua == 1, how);
            }
            Step::Flush { .. } => self.ask(slot, Kind::Flush, 0..0, false, 0),
            _ => {
                let end = self.granules_at_most() * BLOCKS_PER_GRANULE;
                self.ask(slot, Kind::Beyond, end - 1..end + 1, false, 0);
            }
        }
        true
    }

    fn attach(&mut self, slot: usize) -> bool {
        let serves = |s: &Session| self.primaries().contains(&s.node);
        if self.has_votes()
            && self.clients.slots[slot]
                .as_ref()
                .is_some_and(|s| !serves(s))
        {
            // Its node stepped down and cut it off.
            self.close(slot);
        }
        if self.clients.slots[slot].is_some() {
            return true;
        }
        let primaries = self.primaries();
        if primaries.is_empty() || self.operator.is_switching() {
            return false;
        }
        let node = *self.rng.pick(&primaries);
        let id = SessionId(self.clients.next_session);
        self.clients.next_session += 1;
        let time = self.clients.tick();
        if let Some(history) = &mut self.clients.history {
            history
                .open(time, Known(id.0))
                .expect("a new session opens");
        }
        self.clients.slots[slot] = Some(Session {
            id,
            node,
            is_closed: false,
            requests: BTreeMap::new(),
        });
        true
    }

    fn ask(&mut self, slot: usize, kind: Kind, blocks: Range<u64>, fua: bool, how: u64) {
        if !self.attach(slot) {
            return;
        }
        let number = self.clients.next_number;
        self.clients.next_number += 1;
        let session = self.clients.slots[slot]
            .as_ref()
            .expect("it was just attached");
        let (id, node) = (session.id, session.node);
        let buf = self.request_buffer(node, kind, &blocks, number);
        let known_as = self.record_invoke(id, kind, &blocks, number, fua);
        let range = bytes(&blocks);
        let op = match (kind, buf) {
            (Kind::Read | Kind::Beyond, Some(buf)) => Op::Read { range, buf },
            (Kind::Write, Some(buf)) => Op::Write { range, buf, fua },
            (Kind::Zero, _) => {
                let zeroing =
                    [Zeroing::Trim, Zeroing::MayTrim, Zeroing::Allocate][how as usize % 3];
                Op::Zero {
                    range,
                    zeroing,
                    fua,
                }
            }
            _ => Op::Flush,
        };
        let must_be_durable = match kind {
            Kind::Flush => self.clients.acked.clone(),
            _ => BTreeMap::new(),
        };
        if kind == Kind::Zero {
            for block in self.hot_blocks(&blocks) {
                self.clients.zeroed.insert(block, number);
            }
        }
        if matches!(kind, Kind::Write | Kind::Zero) {
            let blocks = self.hot_blocks(&blocks);
            self.change_asked(&blocks);
        }
        let req = ReqId(self.clients.next_request);
        self.clients.next_request += 1;
        let is_inside = blocks.end <= self.granules_told_by(node) * BLOCKS_PER_GRANULE;
        let request = Request {
            number,
            kind,
            is_inside,
            blocks,
            buf,
            fua,
            is_dispatched: false,
            since: self.now,
            must_be_durable,
            known_as,
        };
        let session = self.clients.slots[slot].as_mut().expect("it is attached");
        session.requests.insert(req.0, request);
        self.count("requests");
        self.feed(
            node,
            Event::Submit {
                session: id,
                req,
                op,
            },
        );
    }

    fn request_buffer(
        &mut self,
        node: usize,
        kind: Kind,
        blocks: &Range<u64>,
        number: u64,
    ) -> Option<BufId> {
        if matches!(kind, Kind::Zero | Kind::Flush) {
            return None;
        }
        let cover = bytes(blocks)
            .cover()
            .expect("a client's range is not empty");
        let mut tags = vec![POISON; (cover.bytes() / BLOCK) as usize];
        if kind == Kind::Write {
            let base = cover.offset() / BLOCK;
            for (index, block) in blocks.clone().enumerate() {
                tags[(block - base) as usize] = number << 20 | index as u64;
            }
        }
        Some(self.nodes[node].buffers.add(tags, Origin::Client))
    }

    /// The parts of a range that clients ever look at, as runs.
    fn hot_runs(&self, blocks: &Range<u64>) -> Vec<Range<u64>> {
        let each = self.plan.settings.spot_granules * BLOCKS_PER_GRANULE;
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut spots: Vec<u64> = self.spots.clone();
        spots.sort_unstable();
        for spot in spots {
            let base = spot * BLOCKS_PER_GRANULE;
            let from = base.max(blocks.start).max(runs.last().map_or(0, |r| r.end));
            let run = from..(base + each).min(blocks.end);
            if !run.is_empty() {
                runs.push(run);
            }
        }
        runs
    }

    /// The blocks of a range that clients ever look at.
    pub fn hot_blocks(&self, blocks: &Range<u64>) -> Vec<u64> {
        self.hot_runs(blocks).into_iter().flatten().collect()
    }

    /// A longer backing holds something in these hot runs: it reads as if it had been written,
    /// durably, before anybody could ask. Answers block and tag.
    pub fn held_before(&mut self, blocks: &Range<u64>) -> Vec<(u64, u64)> {
        let number = self.clients.next_number;
        self.clients.next_number += 1;
        let runs = self.hot_runs(blocks);
        let tag = |block: u64| number << 20 | (block & 0xF_FFFF);
        let session = Known(self.clients.next_session);
        self.clients.next_session += 1;
        let time = self.clients.tick();
        if let Some(history) = &mut self.clients.history {
            history.open(time, session).expect("a new session opens");
            for run in &runs {
                let (first, tags, fua) = (run.start, run.clone().map(tag).collect(), true);
                let op = history.invoke(time, session, Asked::Write { first, tags, fua });
                let op = op.expect("the session is open");
                let done = history.complete(time, op, Answered::Done);
                done.expect("the request is open");
            }
            let closed = history.close(time, session);
            closed.expect("the session is open");
        }
        let blocks = runs.into_iter().flatten();
        blocks.map(|block| (block, tag(block))).collect()
    }

    fn record_invoke(
        &mut self,
        session: SessionId,
        kind: Kind,
        blocks: &Range<u64>,
        number: u64,
        fua: bool,
    ) -> Vec<OpId> {
        let (first, count) = (blocks.start, blocks.end - blocks.start);
        let asked = match kind {
            Kind::Beyond => Vec::new(),
            Kind::Flush => vec![Asked::Flush],
            Kind::Read => vec![Asked::Read { first, count }],
            Kind::Write => {
                let tags = (0..count).map(|i| number << 20 | i).collect();
                vec![Asked::Write { first, tags, fua }]
            }
            Kind::Zero => self
                .hot_runs(blocks)
                .into_iter()
                .map(|r| Asked::Zero {
                    first: r.start,
                    count: r.end - r.start,
                    fua,
                })
                .collect(),
        };
        let time = self.clients.tick();
        let Some(history) = &mut self.clients.history else {
            return Vec::new();
        };
        let session = Known(session.0);
        asked
            .into_iter()
            .map(|op| {
                history
                    .invoke(time, session, op)
                    .expect("the session is open")
            })
            .collect()
    }

    fn abort(&mut self, slot: usize) {
        let Some(session) = &self.clients.slots[slot] else {
            return;
        };
        let (id, node) = (session.id, session.node);
        let waiting: Vec<u64> = session.requests.keys().copied().collect();
        if waiting.is_empty() {
            return;
        }
        let req = ReqId(*self.rng.pick(&waiting));
        self.count("aborts");
        self.feed(node, Event::Abort { session: id, req });
    }

    fn close(&mut self, slot: usize) {
        let Some(session) = self.clients.slots[slot].take() else {
            return;
        };
        self.close_session(session);
    }

    fn close_session(&mut self, session: Session) {
        let (id, node) = (session.id, session.node);
        if !session.requests.is_empty() {
            self.count("sessions closed with requests in flight");
        }
        self.clients.closing.push(session);
        self.feed(node, Event::CloseSession { session: id });
    }

    /// Every client leaves.
    pub fn close_all(&mut self) {
        for slot in 0..self.clients.slots.len() {
            self.close(slot);
        }
    }

    /// Submits a final request in slot 0, wherever the primary is.
    pub fn last_words(&mut self) {
        let each = self.plan.settings.spot_granules * BLOCKS_PER_GRANULE;
        let end = self.granules() * BLOCKS_PER_GRANULE;
        for spot in self.spots.clone() {
            let base = spot * BLOCKS_PER_GRANULE;
            if base < end {
                self.ask(0, Kind::Read, base..(base + each).min(end), false, 0);
            }
        }
        let base = self.spots[0] * BLOCKS_PER_GRANULE;
        self.ask(
            0,
            Kind::Write,
            base..base + each.min(GRANULE / BLOCK),
            false,
            0,
        );
        self.ask(0, Kind::Flush, 0..0, false, 0);
        self.ask(0, Kind::Read, base..base + each, false, 0);
    }
}
