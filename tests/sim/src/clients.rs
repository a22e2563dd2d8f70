//! Clients: sessions, requests with a unique tag in every block, and the history of what they
//! saw. Tags are `number << 20 | index`, and numbers grow with each submission, so of two tags
//! on one block the larger was submitted later.

use std::collections::BTreeMap;
use std::ops::Range;

use engine_core::action::Outcome;
use engine_core::event::{Event, Op, ReqId, SessionId};
use engine_core::message::Zeroing;
use engine_core::units::{BufId, ByteRange, GRANULE};
use history::{Checker, Crash, Op as Asked, OpId, Outcome as Answered, Seen, Session as Known};

use crate::buffers::Origin;
use crate::disk::{BLOCK, BLOCKS_PER_GRANULE};
use crate::plan::Step;
use crate::world::World;

/// What a buffer holds where nobody put anything.
pub const POISON: u64 = u64::MAX;

/// Number of the submission a tag belongs to; 0 for zeros.
pub fn number(tag: u64) -> u64 {
    tag >> 20
}

/// What a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Trim or write zeroes.
    Zero,
    /// Flush.
    Flush,
    /// Anything past the end.
    Beyond,
}

/// One request that was not answered yet.
#[derive(Clone, Debug)]
pub struct Request {
    /// Submission number.
    pub number: u64,
    /// What.
    pub kind: Kind,
    /// Where.
    pub blocks: Range<u64>,
    /// Its buffer.
    pub buf: Option<BufId>,
    /// On stable storage before it is answered.
    pub fua: bool,
    /// A disk write or a send of its buffer was ordered.
    pub is_dispatched: bool,
    /// When it was submitted.
    pub since: u64,
    /// For a flush: newest acknowledged submission per block when it was submitted.
    pub must_be_durable: BTreeMap<u64, u64>,
    known_as: Vec<OpId>,
}

/// One attachment.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its name, never reused.
    pub id: SessionId,
    /// Where.
    pub node: usize,
    /// The core was told that it closed.
    pub is_closed: bool,
    /// Not answered yet.
    pub requests: BTreeMap<u64, Request>,
}

/// All clients of the volume.
pub struct Clients {
    slots: Vec<Option<Session>>,
    closing: Vec<Session>,
    next_session: u64,
    next_request: u64,
    next_number: u64,
    clock: u64,
    history: Option<Checker>,
    /// Newest acknowledged submission per block.
    pub acked: BTreeMap<u64, u64>,
    /// Newest submission that makes zeros, per hot block.
    pub zeroed: BTreeMap<u64, u64>,
    /// Members of S when the primary died, until the next promotion says what that meant.
    pub crashed_with: Option<Vec<usize>>,
    /// Operations answered OK.
    pub answered: u64,
}

impl Clients {
    /// Nobody attached yet.
    pub fn new(slots: usize) -> Clients {
        Clients {
            slots: vec![None; slots],
            closing: Vec::new(),
            next_session: 1,
            next_request: 1,
            next_number: 1,
            clock: 0,
            history: Some(Checker::new()),
            acked: BTreeMap::new(),
            zeroed: BTreeMap::new(),
            crashed_with: None,
            answered: 0,
        }
    }

    /// Requests nobody answered yet.
    pub fn outstanding(&self) -> usize {
        let live = self
            .slots
            .iter()
            .flatten()
            .map(|s| s.requests.len())
            .sum::<usize>();
        live + self.closing.iter().map(|s| s.requests.len()).sum::<usize>()
    }

    /// Requests nobody answered yet, with the node that should.
    pub fn waiting(&self) -> impl Iterator<Item = (usize, &Request)> {
        let all = self.slots.iter().flatten().chain(&self.closing);
        all.flat_map(|s| s.requests.values().map(|r| (s.node, r)))
    }

    /// Sessions open or closing on a node.
    pub fn sessions(&self, node: usize) -> Vec<SessionId> {
        let all = self.slots.iter().flatten().chain(&self.closing);
        all.filter(|s| s.node == node).map(|s| s.id).collect()
    }

    /// The history judges no more: the copies parted, or the only good one was destroyed.
    pub fn stop_judging(&mut self) {
        self.history = None;
    }

    /// One history binds all clients: there was no split and no loss by force.
    pub fn is_judging(&self) -> bool {
        self.history.is_some()
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The request whose buffer this is, and whether the core knows its session closed.
    pub fn by_buffer(&mut self, node: usize, buf: BufId) -> Option<(&mut Request, bool)> {
        let all = self.slots.iter_mut().flatten().chain(&mut self.closing);
        all.filter(|s| s.node == node)
            .flat_map(|s| {
                let is_closed = s.is_closed;
                s.requests.values_mut().map(move |r| (r, is_closed))
            })
            .find(|(r, _)| r.buf == Some(buf))
    }

    /// The core is told that this session closed.
    pub fn core_knows_closed(&mut self, id: SessionId) {
        self.closing
            .iter_mut()
            .filter(|s| s.id == id)
            .for_each(|s| s.is_closed = true);
    }
}

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
                let end = self.plan.settings.granules * BLOCKS_PER_GRANULE;
                self.ask(slot, Kind::Beyond, end - 1..end + 1, false, 0);
            }
        }
        true
    }

    /// Nodes that serve clients.
    pub fn primaries(&self) -> Vec<usize> {
        let serves = |n: &usize| {
            self.nodes[*n]
                .engine
                .as_ref()
                .is_some_and(|e| e.is_primary())
                && !self.nodes[*n].is_stopping
        };
        self.all().filter(serves).collect()
    }

    fn attach(&mut self, slot: usize) -> bool {
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
        let req = ReqId(self.clients.next_request);
        self.clients.next_request += 1;
        let request = Request {
            number,
            kind,
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

    fn hot_blocks(&self, blocks: &Range<u64>) -> Vec<u64> {
        self.hot_runs(blocks).into_iter().flatten().collect()
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

    /// The core answered a request.
    pub fn completed(&mut self, node: usize, session: SessionId, req: ReqId, outcome: Outcome) {
        let all = self
            .clients
            .slots
            .iter_mut()
            .flatten()
            .chain(&mut self.clients.closing);
        let request = all
            .filter(|s| s.id == session && s.node == node)
            .find_map(|s| s.requests.remove(&req.0));
        let Some(request) = request else {
            return self.fail(
                "D2",
                format!("{req:?} of {session:?} is answered, nobody asked"),
            );
        };
        let (tags, is_filling) = match request.buf {
            None => (Vec::new(), false),
            Some(buf) => match self.nodes[node].buffers.end_request(buf) {
                Ok(content) => content,
                Err(breach) => return self.fail("O2", breach),
            },
        };
        let is_ok = outcome == Outcome::Ok;
        if is_ok && is_filling {
            return self.fail(
                "O2",
                format!("{req:?} is answered while its buffer is filled"),
            );
        }
        let refused = matches!(
            outcome,
            Outcome::Busy | Outcome::Aborted | Outcome::OutOfRange | Outcome::NotPrimary
        );
        if refused && request.is_dispatched {
            let text = format!("{req:?} was dispatched and is answered {outcome:?}");
            return self.fail("B12", text);
        }
        self.count(match outcome {
            Outcome::Ok => "answers: ok",
            Outcome::Busy => "answers: busy",
            Outcome::Aborted => "answers: aborted",
            Outcome::OutOfRange => "answers: out of range",
            Outcome::NotPrimary => "answers: not primary",
            Outcome::Io => "answers: io error",
            Outcome::NoSpace => "answers: no space",
            Outcome::Stopping => "answers: stopping",
        });
        if request.kind == Kind::Beyond {
            if is_ok {
                self.fail(
                    "B13",
                    format!("a read past the end is answered {outcome:?}"),
                );
            }
            return;
        }
        if outcome == Outcome::OutOfRange {
            return self.fail(
                "B13",
                format!("{req:?} lies inside and is answered OutOfRange"),
            );
        }
        if is_ok {
            self.clients.answered += 1;
            self.answered_ok(node, &request, &tags);
        }
        self.record_answer(&request, is_ok, &tags);
    }

    fn answered_ok(&mut self, node: usize, request: &Request, tags: &[u64]) {
        match request.kind {
            Kind::Read => {
                let base = request.blocks.start / BLOCKS_PER_GRANULE * BLOCKS_PER_GRANULE;
                for block in request.blocks.clone() {
                    let tag = tags[(block - base) as usize];
                    if tag == POISON {
                        self.fail("B1", format!("block {block} was read and never filled"));
                        return;
                    }
                    self.law_read(node, block, tag);
                }
            }
            Kind::Write | Kind::Zero => {
                let blocks = match request.kind {
                    Kind::Write => request.blocks.clone().collect(),
                    _ => self.hot_blocks(&request.blocks),
                };
                self.law_write_answered(node, request, &blocks);
                for block in blocks {
                    let newest = self.clients.acked.entry(block).or_default();
                    *newest = (*newest).max(request.number);
                }
            }
            Kind::Flush => self.law_flush_answered(node, &request.must_be_durable),
            Kind::Beyond => {}
        }
    }

    fn record_answer(&mut self, request: &Request, is_ok: bool, tags: &[u64]) {
        let time = self.clients.tick();
        let Some(history) = &mut self.clients.history else {
            return;
        };
        let base = request.blocks.start / BLOCKS_PER_GRANULE * BLOCKS_PER_GRANULE;
        for id in &request.known_as {
            let outcome = match request.kind {
                _ if !is_ok => Answered::Failed,
                Kind::Read => Answered::Read(
                    request
                        .blocks
                        .clone()
                        .map(|block| match tags[(block - base) as usize] {
                            0 => Seen::Zero,
                            tag => Seen::Tag(tag),
                        })
                        .collect(),
                ),
                _ => Answered::Done,
            };
            history
                .complete(time, *id, outcome)
                .expect("the request is open");
        }
        self.judge_history();
    }

    fn judge_history(&mut self) {
        let found = self
            .clients
            .history
            .as_ref()
            .and_then(|h| h.violations().first());
        if let Some(violation) = found {
            let (law, text) = (violation.law.to_string(), violation.to_string());
            self.fail(&law, text);
        }
    }

    /// Nothing of this session runs any more.
    pub fn quiet(&mut self, node: usize, id: SessionId) {
        let at = self
            .clients
            .closing
            .iter()
            .position(|s| s.id == id && s.node == node);
        let Some(at) = at else {
            return self.fail("B3", format!("{id:?} is quiet, nobody closed it"));
        };
        let session = self.clients.closing.remove(at);
        for request in session.requests.values() {
            let Some(buf) = request.buf else { continue };
            if self.is_writing_from(node, buf) {
                return self.fail(
                    "B3",
                    format!("{id:?} is quiet while {buf:?} is being written"),
                );
            }
            if let Err(breach) = self.nodes[node].buffers.end_request(buf) {
                return self.fail("O2", breach);
            }
        }
        let time = self.clients.tick();
        if let Some(history) = &mut self.clients.history {
            history
                .close(time, Known(id.0))
                .expect("the session is open");
        }
        self.judge_history();
    }

    /// The process that served these sessions is dead.
    pub fn sessions_end(&mut self, node: usize) {
        for slot in &mut self.clients.slots {
            if slot.as_ref().is_some_and(|s| s.node == node) {
                *slot = None;
            }
        }
        self.clients.closing.retain(|s| s.node != node);
    }

    /// A node was promoted: what the crash before it, if any, could have taken is known now.
    pub fn judge_crash(&mut self) {
        let Some(members) = self.clients.crashed_with.take() else {
            return;
        };
        let is_whole = members.iter().any(|n| {
            let machine = &self.nodes[*n];
            !machine.lost_power && !machine.is_gone && !machine.is_condemned
        });
        let crash = match (is_whole, self.plan.settings.is_durable_policy) {
            (true, _) => Crash::MemberWhole,
            (false, 1) => Crash::AcksDurable,
            _ => Crash::VolatileLost,
        };
        if crash == Crash::VolatileLost {
            self.count("losses of all volatile state");
            self.clients.acked.clear();
            self.all().for_each(|n| self.laws.forget_holdings(n));
        }
        let time = self.clients.tick();
        if let Some(history) = &mut self.clients.history {
            history.crash(time, crash).expect("a crash can be recorded");
        }
        self.judge_history();
    }

    /// Closes the books.
    pub fn finish_history(&mut self) {
        let Some(history) = self.clients.history.take() else {
            return;
        };
        let report = history.finish();
        if let Some(violation) = report.violations.first() {
            let (law, text) = (violation.law.to_string(), violation.to_string());
            self.fail(&law, text);
        }
    }

    /// Submits a final request in slot 0, wherever the primary is.
    pub fn last_words(&mut self) {
        let each = self.plan.settings.spot_granules * BLOCKS_PER_GRANULE;
        for spot in self.spots.clone() {
            let base = spot * BLOCKS_PER_GRANULE;
            self.ask(0, Kind::Read, base..base + each, false, 0);
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
