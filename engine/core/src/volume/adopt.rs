//! The secondary's side of a record: write it down, then say so (laws T2, T6).

use crate::action::Notice;
use crate::generation::Chain;
use crate::message::{Disk, Message, Refusal};
use crate::record::Record;
use crate::session::{Session, SessionEvent};
use crate::units::{NodeIdx, Seq};

use super::Volume;
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
    pub(super) fn record_told(&mut self, node: NodeIdx, record: Record, chain: Chain) {
        let session = self.peers.get(node).session;
        let takes_part = matches!(session, Session::InSync(_) | Session::Target(_));
        if !takes_part || !record.in_sync.has(self.me) || record.primary != node {
            return self.breach(node);
        }
        if self.role.is_serving() {
            // Two candidates at once: the other one did not see us.
            return self.refuse(node, Refusal::TwoPrimaries);
        }
        let known = self.durable.sb.record;
        if record.term < self.durable.sb.promised && known.is_none_or(|k| k.term != record.term) {
            return self.breach(node);
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
        let sb = &mut self.durable.sb;
        sb.record = Some(record);
        sb.promised = sb.promised.max(record.term);
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
            peer.unstable.clear();
            self.log.retouch(NEVER);
        }
    }

    pub(super) fn settle_adopting(&mut self) {
        let Some(adopting) = self.adopting else {
            return;
        };
        let is_stored = |n: NodeIdx| self.has_stored_told(n);
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
        if !matches!(session, Session::InSync(_) | Session::Target(_)) {
            return;
        }
        let (term, step) = (adopting.record.term, adopting.record.step);
        self.say(node, Message::RecordAck { term, step });
        if let Ok(joined) = session.next(SessionEvent::Joined) {
            // Law S4: what we held against the source went into its bits and was transferred.
            let peer = self.peers.get_mut(node);
            peer.session = joined;
            peer.dirty.clear_all();
            peer.target = Default::default();
            self.notice(Notice::ResyncDone { peer: node });
        }
    }
}
