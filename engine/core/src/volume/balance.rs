//! Who reads for a client: this node, or a member of S whose disk is less busy.
//!
//! ```text
//!  granted ─► outstanding here ≥ outstanding there + margin, and answers come sooner there?
//!               │ yes: ReadRequest ─► reply ─► copy ─► answer        │ no: own disk
//!               └ lost, refused, late ─► own disk ◄──────────────────┘
//! ```
//! Which leg it is makes no difference to what is read: the range is held shared, so no write to
//! it is in flight, and whoever is asked is in S, in an unbroken session, and lacks none of it
//! (laws R6, R7). A local read that fails goes the other way (`remote.rs`).

use std::time::Duration;

use crate::event::LinkId;
use crate::message::{Disk, Message, RESYNC_PIECE_GRANULES};
use crate::session::Session;
use crate::time::Instant;
use crate::units::{Extent, NodeIdx, NodeSet};

use super::ops::{Kind, Phase};
use super::{Volume, planted};

/// Reads of ours that one peer is given at once: it keeps room for everything else.
const READS_MAX: u32 = 64;
/// Who answered later than this node is asked again, once, after this time.
const PROBE: Duration = Duration::from_millis(250);

/// Reads that one copy was given.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leg {
    /// Not answered yet.
    out: u32,
    /// Mean time of the last few, in nanoseconds; 0 before the first.
    mean_ns: u64,
    asked_at: Instant,
}

impl Leg {
    fn ask(&mut self, now: Instant) {
        self.out += 1;
        self.asked_at = now;
    }

    fn ended(&mut self, took: Duration) {
        let took = took.as_nanos() as u64;
        self.out = self.out.saturating_sub(1);
        self.mean_ns = match self.mean_ns {
            0 => took,
            mean => (mean * 7 + took) / 8,
        };
    }
}

impl Volume {
    /// The member of S that should read this instead of this node, if any.
    pub(super) fn reader_for(&self, extent: Extent) -> Option<(NodeIdx, LinkId)> {
        let margin = self.setup.read_margin?;
        let here = self.local_reads;
        let is_worth_it = here.out >= margin && extent.granules() <= RESYNC_PIECE_GRANULES;
        if self.setup.is_memory || !is_worth_it {
            return None;
        }
        let stale = planted!(self, ReadsFromWhoLeft);
        let candidates = self.peers.iter().filter_map(|peer| {
            let there = peer.reads;
            let is_sooner = margin == 0
                || there.mean_ns < here.mean_ns
                || self.now.since(there.asked_at) >= PROBE;
            let has_less = there.out + margin <= here.out && there.out < READS_MAX;
            let link = match peer.session {
                Session::InSync(link) => Some(link),
                session if stale => session.data_link(),
                _ => None,
            };
            let is_equal = self.in_sync().has(peer.node)
                && peer.disk == Disk::UpToDate
                && !peer.dirty.any(extent);
            link.filter(|_| is_sooner && has_less && (is_equal || stale))
                .map(|link| (there.out, peer.node, link))
        });
        let least = candidates.min_by_key(|(out, ..)| *out);
        least.map(|(_, node, link)| (node, link))
    }

    /// Reads from the own disk.
    pub(super) fn note_local_read(&mut self) {
        self.local_reads.ask(self.now);
    }

    /// Asks a peer for what a client reads.
    pub(super) fn ask_to_read(&mut self, slot: u32, node: NodeIdx, link: LinkId) {
        let now = self.now;
        let op = self.ops.get_mut(slot);
        (op.phase, op.link, op.since) = (Phase::Out, link, now);
        op.pending = NodeSet::only(node);
        let (id, extent) = (u64::from(op.generation) << 32 | u64::from(slot), op.extent);
        self.peers.get_mut(node).reads.ask(now);
        self.say(node, Message::ReadRequest { id, extent });
    }

    /// A read ended where it was, well or not.
    pub(super) fn read_left(&mut self, slot: u32, node: NodeIdx) {
        let took = self.now.since(self.ops.get(slot).since);
        if node == self.me {
            self.local_reads.ended(took);
        } else if let Some(peer) = self.peers.find_mut(node) {
            peer.reads.ended(took);
        }
    }

    /// One way failed: the own disk, if it was not tried, else another member.
    pub(super) fn read_again(&mut self, slot: u32) {
        if self.ops.get(slot).answered {
            return self.end(slot);
        }
        let was_tried_here = self.ops.get(slot).failed.has(self.me);
        match !was_tried_here && self.start_read_from() {
            true => self.read_here(slot),
            false => self.read_remotely(slot),
        }
    }

    /// A peer that takes its time with a read is not waited for where this node can read itself.
    pub(super) fn time_out_reads(&mut self) {
        if self.setup.read_margin.is_none() || !self.start_read_from() {
            return;
        }
        let patience = self.setup.member_timeout / 2;
        for slot in self.ops.slots() {
            let op = self.ops.get(slot);
            let is_late = matches!(op.kind, Kind::Read { .. })
                && op.phase == Phase::Out
                && op.piece_buf.is_none()
                && self.now.since(op.since) >= patience;
            let asked = op.pending.without(self.me).iter().next();
            if let Some(node) = asked.filter(|_| is_late && !op.failed.has(self.me)) {
                self.read_left(slot, node);
                let op = self.ops.get_mut(slot);
                op.failed = op.failed.with(node);
                self.read_again(slot);
            }
        }
    }
}
