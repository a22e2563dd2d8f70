//! What may differ between two replicas that agreed to go on, and what follows from it.

use crate::message::{Disk, Message, RUNS_MAX};
use crate::session::{Plan, Session, SessionEvent};
use crate::units::{Extent, GRANULES_PER_AL_EXTENT, NodeIdx};

use super::Volume;
use super::peer::Gate;

/// Messages of runs said in one turn.
pub(super) const RUNS_PER_TURN: usize = 4;
/// With more dirty runs than this the rest is said in whole 4 MiB extents.
const FINE_RUNS_MAX: u64 = 16 * RUNS_MAX as u64;

impl Volume {
    /// The peer says what may differ between us.
    pub(super) fn runs(&mut self, node: NodeIdx, runs: &[Extent], last: bool) {
        let is_exchange = matches!(self.peers.get(node).session, Session::Exchange(..));
        let size = self.size;
        let peer = self.peers.get_mut(node);
        let is_parting = peer.is_parted();
        // Histories that part may have grown apart: what lies beyond our end is not ours to lose.
        let theirs = peer.hello.as_ref().map_or(0, |h| h.size_granules);
        let end = if is_parting { size.max(theirs) } else { size };
        if !is_exchange || runs.iter().any(|r| r.end > end) {
            return self.breach(node);
        }
        let bits = match &mut peer.parting {
            Some(parting) if is_parting => &mut parting.theirs,
            _ => &mut peer.dirty,
        };
        for run in runs.iter().filter(|run| run.start < size) {
            bits.set(Extent::new(run.start, run.end.min(size)));
        }
        (peer.runs_received, peer.began.there) = (peer.runs_received || last, true);
        if !is_parting {
            self.remember_life(node);
        }
    }

    /// Says our runs once the gate is open; ends the exchange when both sides said all.
    pub(super) fn settle_exchange(&mut self, node: NodeIdx) {
        let Session::Exchange(_, plan) = self.peers.get(node).session else {
            return;
        };
        if matches!(plan, Plan::Parted(_)) {
            return self.settle_parting(node);
        }
        if !self.is_gate_open(node) {
            return;
        }
        let began = std::mem::replace(&mut self.peers.get_mut(node).began.here, true);
        if !self.peers.get(node).began.there && !self.has_met(node) {
            // What it says after our last runs, and its own, must find this exchange ended here; so
            // its run must be durable first, and that waits for its first word.
            if !began {
                let (runs, last) = (Vec::new(), false);
                self.say(node, Message::Runs { runs, last });
            }
            return;
        }
        for _ in 0..RUNS_PER_TURN {
            let Some(from) = self.peers.get(node).runs_from else {
                break;
            };
            let (runs, next) = self.collect_runs(node, from);
            let last = next.is_none();
            self.peers.get_mut(node).runs_from = next;
            self.say(node, Message::Runs { runs, last });
        }
        let peer = self.peers.get(node);
        if peer.runs_from.is_some() || !peer.runs_received {
            return;
        }
        if matches!(plan, Plan::Adopt | Plan::Adopted) {
            return;
        }
        // Where one copy failed there is nothing to compare: it is never a source or target again.
        let has_failed = self.disk() == Disk::Failed || peer.disk == Disk::Failed;
        let clean = peer.dirty.is_empty() || has_failed;
        self.step(node, SessionEvent::Exchanged { clean });
        self.tell_wish(node);
        self.tell_attributes(node);
        match self.peers.get(node).session {
            Session::InSync(_) => self.durable.sb.whole = true,
            Session::Source(_) => self.offer_resync(node),
            _ => {}
        }
        self.ops.attention = true;
    }

    fn is_gate_open(&mut self, node: NodeIdx) -> bool {
        match self.peers.get(node).gate {
            Gate::Open => true,
            Gate::Superblock(version) => self.durable.is_durable(version),
            Gate::AllDirty => {
                if self.are_bits_durable(node) {
                    let incarnation = self.peers.get(node).hello.as_ref().map(|h| h.incarnation);
                    if let Some(incarnation) = incarnation {
                        let sb = &mut self.durable.sb;
                        sb.known[usize::from(node.0)] = incarnation;
                        sb.joined = sb.joined.without(node);
                        let version = self.durable.touch();
                        self.peers.get_mut(node).gate = Gate::Superblock(version);
                    }
                }
                false
            }
        }
    }

    /// The next message of runs from `from` on, and where to go on.
    pub(super) fn collect_runs(&self, node: NodeIdx, from: u64) -> (Vec<Extent>, Option<u64>) {
        let dirty = &self.peers.get(node).dirty;
        let coarse = dirty.count_granules() > FINE_RUNS_MAX * 64;
        let mut runs = Vec::new();
        let mut next = from;
        while runs.len() < RUNS_MAX {
            let Some(mut run) = dirty.next_run(next, u64::MAX - next) else {
                return (runs, None);
            };
            if coarse {
                run.start -= run.start % GRANULES_PER_AL_EXTENT;
                run.end = run
                    .end
                    .next_multiple_of(GRANULES_PER_AL_EXTENT)
                    .min(self.size);
                run.start = run.start.max(next);
            }
            next = run.end;
            runs.push(run);
        }
        let more = next < self.size && dirty.next_run(next, 1).is_some();
        (runs, more.then_some(next))
    }

    /// We are blank and take the identity of a founded volume.
    pub(super) fn adopt(&mut self, node: NodeIdx, volume_id: u128) {
        let session = self.peers.get(node).session;
        if !matches!(session, Session::Exchange(_, Plan::Adopted)) || volume_id == 0 {
            return self.breach(node);
        }
        if self.disk() != Disk::Blank {
            // It was when this session said hello: a peer that was paused answers late, and another one
            // was faster. All that came of it since stays.
            return self.drop_link(node);
        }
        if self.has_loose_founding() {
            self.durable.sb.voted = None;
        }
        self.durable.sb.volume_id = volume_id;
        self.durable.sb.disk = Disk::Inconsistent;
        let version = self.durable.touch();
        let peer = self.peers.get_mut(node);
        peer.gate = Gate::Superblock(version);
        peer.runs_from = None;
        peer.adoption_owed = true;
    }

    /// Members of S that differ: the primary drops the other from S, and the next handshake makes
    /// it a sync target. Without a primary they wait for one: a node that changed S by itself
    /// could meet the promotion of the other, and two empty reigns would compare as diverged.
    pub(super) fn settle_waiting(&mut self, node: NodeIdx) {
        let peer = self.peers.get(node);
        let may_source = self.reigns()
            && self.role.is_primary()
            && self.disk() == Disk::UpToDate
            && self.durable.change.is_none();
        let is_member = self.in_sync().has(node) && self.in_sync().has(self.me);
        let differs = matches!(peer.session, Session::Waiting(_)) && !peer.dirty.is_empty();
        if may_source && is_member && differs && peer.disk == Disk::UpToDate {
            self.propose(self.in_sync().without(node));
        }
    }

    pub(super) fn settle_adoption(&mut self, node: NodeIdx) {
        if self.peers.get(node).adoption_owed && self.is_gate_open(node) {
            self.peers.get_mut(node).adoption_owed = false;
            self.say(node, Message::AdoptAck);
        }
    }
}
