//! Clients: sessions, requests with a unique tag in every block, and the history of what they
//! saw. Tags are `number << 20 | index`, and numbers grow with each submission, so of two tags
//! on one block the larger was submitted later.

mod answers;
mod ask;

use std::collections::BTreeMap;
use std::ops::Range;

use engine_core::event::SessionId;
use engine_core::units::BufId;
use history::{Checker, OpId};

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
    /// It lay inside the volume then, as its node may know it.
    pub is_inside: bool,
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
    /// A write failed for lack of space since the caches of all of S were lost.
    has_refused_for_space: bool,
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
            has_refused_for_space: false,
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

impl World {
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
}
