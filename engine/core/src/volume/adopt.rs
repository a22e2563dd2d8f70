//! The secondary's side of a record: write it down, then say so (laws T2, T6).

use crate::action::Notice;
use crate::generation::Chain;
use crate::message::{Disk, Lives, Message, Refusal};
use crate::record::Record;
use crate::session::{Session, SessionEvent};
use crate::units::{NodeIdx, NodeSet, Seq};

use super::{Volume, planted};
use crate::activity_log::NEVER;

/// A record on its way to this node's disk.
#[derive(Clone, Copy)]
pub(super) struct Adopting {
    pub version: u64,
    pub record: Record,
    /// Who told us and waits for our word; nobody if it came with a hello.
    pub from: Option<NodeIdx>,
}

impl Volume {
    pub(super) fn record_told(
        &mut self,
        node: NodeIdx,
        record: Record,
        chain: Chain,
        lives: &Lives,
    ) {
        let session = self.peers.get(node).session;
        if !session.is_fed() || !record.in_sync.has(self.me) || record.primary != node {
            return self.breach(node);
        }
        if self.role.is_serving() {
            // Two candidates at once: the other one did not see us.
            return self.refuse(node, Refusal::TwoPrimaries);
        }
        let known = self.durable.sb.record;
        // Without votes a promise guards one history, and this copy may have left it (law T9).
        let is_known = known.is_none_or(|k| k.term == record.term) && !self.has_votes();
        if record.term < self.durable.sb.promised && !is_known {
            // It did not hear of our promise yet (law T6).
            return self.drop_link(node);
        }
        if known.is_some_and(|k| !record.is_newer_than(&k)) {
            if known == Some(record) && self.adopting.is_none() {
                let (term, step) = (record.term, record.step);
                self.say(node, Message::RecordAck { term, step });
            }
            return;
        }
        // Whoever promises a higher term gives up its own candidacy (law T2).
        self.give_up_promotion();
        let new_primary = known.is_none_or(|k| k.primary != record.primary);
        self.note_members(node, known, &record, lives);
        let source = self.peers.get(node).hello.as_ref().map(|h| h.incarnation);
        let (has_votes, has_register) = (self.has_votes(), self.has_register());
        let sb = &mut self.durable.sb;
        if let (Session::Target(_), Some(source), false) = (session, source, has_votes) {
            // From here on what either lacks of the other is marked: the bits speak of this copy.
            sb.known[usize::from(node.0)] = source;
        }
        sb.follows = 0;
        sb.record = Some(record);
        sb.promised = sb.promised.max(record.term);
        if has_votes && sb.voted.is_none_or(|voted| record.is_newer_than(&voted)) {
            // It is chosen already: holding it breaks no promise.
            sb.voted = sb.voted.map(|_| record);
        }
        if has_register && sb.voted.is_none() {
            // It votes for nothing; as a member of S it counts what it promised.
            sb.voted = Some(record);
            sb.features_incompatible |= crate::meta::FEATURE_VOTES;
        }
        sb.chain = chain;
        if matches!(session, Session::Target(_)) {
            (sb.disk, sb.whole) = (Disk::UpToDate, true);
        }
        let version = self.durable.touch();
        self.adopting = Some(Adopting {
            version,
            record,
            from: Some(node),
        });
        if new_primary {
            // Its seqs are its own: nothing of ours closes by them before a round of its own.
            let peer = self.peers.get_mut(node);
            (peer.seen, peer.durable, peer.flushed_here) = (Seq(0), Seq(0), false);
            if !matches!(session, Session::Target(_)) {
                // What a target was sent is of the same reign, and may be lacking elsewhere.
                peer.unstable.clear();
            }
            self.log.retouch(NEVER);
        }
    }

    /// What a record says of replicas other than the two that speak: who left lacks what is not
    /// confirmed by all of S yet; who is in S lacks nothing, and gets all that follows (law S6: the
    /// chosen record is the report that law S4 asks for).
    fn note_members(
        &mut self,
        primary: NodeIdx,
        known: Option<Record>,
        record: &Record,
        lives: &Lives,
    ) {
        let told = lives[usize::from(primary.0)];
        if told != 0 {
            self.durable.sb.known[usize::from(primary.0)] = told;
        }
        if !record.in_sync.has(primary) {
            // It leads without its copy, and says of no write whether that has it: if the copy is
            // ever used again, it lacks everything.
            self.durable.sb.known[usize::from(primary.0)] = 0;
        }
        let unstable = self.peers.get(primary).unstable.clone();
        let before = known.map_or(NodeSet::EMPTY, |k| k.in_sync);
        for peer in self.peers.iter_mut().filter(|p| p.node != primary) {
            let life = lives[usize::from(peer.node.0)];
            if record.in_sync.has(peer.node) {
                // Whoever reigns took it in: it waits for no operator here.
                self.durable.sb.held = self.durable.sb.held.without(peer.node);
            }
            if record.in_sync.has(peer.node) && life != 0 {
                // The replica that the record means: another one in its place lacks everything.
                self.durable.sb.known[usize::from(peer.node.0)] = life;
                peer.dirty.clear_all();
            } else if before.has(peer.node) {
                for (_, extent) in &unstable {
                    peer.dirty.set(*extent);
                }
            }
        }
    }

    /// A target does not know what third nodes lack: all, until the record that takes it in says
    /// who is in S then.
    pub(super) fn distrust_others(&mut self, source: NodeIdx) {
        if planted!(self, TargetTrustsThirdNodes) {
            return;
        }
        for peer in self.peers.iter_mut().filter(|p| p.node != source) {
            peer.dirty.set_all();
            self.pages.wants_all = true;
        }
    }

    /// A target joins once what it noted of those outside of S is durable.
    fn are_others_marked(&self, source: NodeIdx) -> bool {
        let is_target = matches!(self.peers.get(source).session, Session::Target(_));
        let in_sync = self.durable.sb.record.map_or(NodeSet::EMPTY, |r| r.in_sync);
        let mut others = self
            .peers
            .nodes()
            .filter(|n| *n != source && !in_sync.has(*n));
        !is_target || others.all(|node| self.are_bits_durable(node))
    }

    pub(super) fn settle_adopting(&mut self) {
        let Some(adopting) = self.adopting else {
            return;
        };
        let is_stored = |n: NodeIdx| self.has_stored_told(n) && self.are_others_marked(n);
        if !self.durable.is_durable(adopting.version) || !adopting.from.is_none_or(is_stored) {
            return;
        }
        self.adopting = None;
        self.durable.record = Some(adopting.record);
        self.notice(Notice::InSync {
            record: adopting.record,
        });
        self.ops.attention = true;
        let Some(node) = adopting.from else { return };
        let session = self.peers.get(node).session;
        if !session.is_fed() {
            return;
        }
        let (term, step) = (adopting.record.term, adopting.record.step);
        self.say(node, Message::RecordAck { term, step });
        if let Ok(joined) = session.next(SessionEvent::Joined) {
            // Law S4: what we held against the source went into its bits and was transferred.
            let peer = self.peers.get_mut(node);
            peer.session = joined;
            peer.dirty.clear_all();
            let figures = std::mem::take(&mut peer.target).figures();
            self.notice(Notice::ResyncDone {
                peer: node,
                figures,
            });
        }
    }
}
