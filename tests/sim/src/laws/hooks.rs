//! Where the laws listen: messages, processes, power, disks and what nodes say.

use engine_core::action::Notice;
use engine_core::event::{Command, Event, LinkId};
use engine_core::message::{Message, Status};
use engine_core::record::Record;
use engine_core::units::{Extent, NodeIdx};

use super::sizes::Sizes;
use crate::disk::BLOCKS_PER_GRANULE;
use crate::world::World;

impl World {
    /// Before a node handles an event.
    pub fn before(&mut self, node: usize, event: &Event) {
        self.laws.lost.clear();
        match event {
            Event::CloseSession { session } => self.clients.core_knows_closed(*session),
            Event::LinkDown { link } => self
                .laws
                .lost
                .extend(self.laws.sent.remove(&(node, link.0))),
            Event::Command {
                command: Command::Connect(peer),
                ..
            } => self.lateness_is_forgiven(node, usize::from(peer.0)),
            Event::Peer {
                link,
                message: Message::Data { stamp, .. } | Message::Zero { stamp, .. },
                ..
            } => self.law_promise_ends_sessions(node, *link, stamp.term),
            _ => {}
        }
    }

    /// After it did, and its actions are under way.
    pub fn after(&mut self, node: usize) {
        for sent in std::mem::take(&mut self.laws.lost) {
            let writes: Vec<Extent> = sent.writes.into_values().collect();
            self.law_lost_is_marked(node, sent.peer, &writes);
        }
    }

    /// It slept, and what reached it meanwhile is still to be read: nothing is late yet.
    pub fn has_woken(&mut self, node: usize) {
        (self.laws.leaseless[node], self.laws.hung[node]) = Default::default();
    }

    /// A core dropped a connection.
    pub fn dropping(&mut self, node: usize, link: LinkId) {
        self.laws.dropped.insert((node, link.0));
        if let Some(sent) = self.laws.sent.remove(&(node, link.0)) {
            self.laws.lost.push(sent);
        }
    }

    /// This connection was dropped by the core.
    pub fn is_dropped(&self, node: usize, link: LinkId) -> bool {
        self.laws.dropped.contains(&(node, link.0))
    }

    /// A message leaves a node.
    pub fn sending(&mut self, node: usize, link: LinkId, message: &Message, tags: Option<&[u64]>) {
        let peer = self.peer_of(node, link);
        match message {
            Message::Data { stamp, extent, .. } | Message::Zero { stamp, extent, .. } => {
                let sent = self.laws.sent.entry((node, link.0)).or_default();
                sent.peer = peer;
                if sent.writes.insert(stamp.seq.0, *extent).is_some() {
                    self.fail("B10", format!("node {node} sends {:?} twice", stamp.seq));
                }
                self.count("writes sent");
            }
            Message::ReadRequest { extent, .. } => self.law_reader_is_equal(node, link, *extent),
            Message::ReadReply {
                status: Status::Ok, ..
            } => self.count("reads by peers"),
            Message::ResyncData { extent, .. } => {
                self.count("resync pieces");
                self.law_damage_is_not_spread(node, *extent, tags);
            }
            Message::ResyncZero { .. } => self.count("resync zeros"),
            Message::ResyncEqual { .. } => self.count("resync equal"),
            Message::Parted(_) => self.word_said(node, peer),
            Message::ResyncDiffer { .. } => self.count("resync differing"),
            Message::HashRequest { each: 1, .. } => self.count("verify leaves"),
            Message::SumRequest { .. } => self.count("verify by sums"),
            _ => {}
        }
        let covered = match message {
            Message::Data { extent, .. } | Message::ResyncData { extent, .. } => Some(extent),
            _ => None,
        };
        if let Some(extent) = covered {
            let have = tags.map_or(0, |t| t.len() as u64);
            if have != extent.granules() * BLOCKS_PER_GRANULE {
                self.fail(
                    "B11",
                    format!("payload of {message:?} covers {have} blocks"),
                );
            }
        }
    }

    /// A message reaches a node.
    pub fn arriving(&mut self, node: usize, link: LinkId, message: &Message) {
        let peer = self.peer_of(node, link);
        match message {
            Message::Ack { seq, .. } => {
                if let Some(sent) = self.laws.sent.get_mut(&(node, link.0)) {
                    sent.writes.remove(&seq.0);
                }
            }
            Message::ResyncData { .. } | Message::ResyncZero { .. } => {
                self.law_nothing_is_overwritten(peer, node);
            }
            _ => {}
        }
    }

    pub(super) fn peer_of(&mut self, node: usize, link: LinkId) -> usize {
        let life = self.nodes[node].life;
        let Some((connection, end)) = self.net.find(node, life, link) else {
            return node;
        };
        self.net
            .connection(connection)
            .map_or(node, |c| c.ends[1 - end].node)
    }

    /// A process dies.
    pub fn process_ends(&mut self, node: usize) {
        let was_primary = self.nodes[node]
            .engine
            .as_ref()
            .is_some_and(|e| e.is_primary());
        self.refresh(node);
        let reigned = self
            .peek(node)
            .and_then(|f| f.record)
            .is_some_and(|r| usize::from(r.primary.0) == node && Some(r) == self.newest_record());
        if was_primary {
            self.count("primaries lost");
        }
        self.situation_process_ends(node, was_primary);
        // A primary that others followed already takes nothing with it.
        if reigned || (was_primary && !self.has_votes()) {
            self.clients.crashed_with = Some(self.required(node));
        }
        // Pages were lost and the process could not write down that its disk failed: the operator
        // saw the kernel's complaint, and does not count on this copy.
        self.nodes[node].is_condemned |= self.nodes[node].has_failed_flush;
        self.sessions_end(node);
        self.marks_get_vague();
        if was_primary {
            self.marks_asked_in_vain();
        }
        self.operator_forgets(node);
        self.salvage_crashed(node);
        self.laws.sent.retain(|(n, _), _| *n != node);
        self.laws.dropped.retain(|(n, _)| *n != node);
        let machine = &self.nodes[node];
        if was_primary && machine.meta.is_hung {
            self.count("primaries lost while metadata hung");
        }
    }

    /// A process begins.
    pub fn process_begins(&mut self, node: usize) {
        self.laws.marked.retain(|(n, _), _| *n != node);
        self.salvage_forgotten(node);
        self.refresh(node);
        self.size_is_known(node);
    }

    /// Power failed at a node; `had_lost`: also before, and nothing made it whole since.
    pub fn power_lost(&mut self, node: usize, had_lost: bool) {
        self.refresh(node);
        let is_own = |r: &Record| !self.has_votes() && usize::from(r.primary.0) == node;
        let record = self.peek(node).and_then(|f| f.record).filter(is_own);
        if let (Some(record), Some(members)) = (record, &mut self.clients.crashed_with) {
            // The record that was on its way to disk landed: who left S by it keeps nothing for it.
            members.retain(|n| record.in_sync.has(NodeIdx(*n as u8)));
        }
        let Some(found) = self.peek(node) else { return };
        // Among several others somebody is marked most of the time; alone, a volume keeps no log of
        // what may not be durable.
        let may_differ = match self.has_votes() {
            true => found.has_open(),
            false => !found.is_settled() || self.is_alone(),
        };
        let was_clean = found.is_clean;
        let volatile = self.nodes[node].disk.has_volatile_cache();
        // With nothing open and nothing marked it lost nothing that others have.
        if was_clean || !volatile || !may_differ {
            self.nodes[node].lost_power = had_lost && self.has_votes();
            return;
        }
        if self.plan.settings.is_durable_policy == 0 {
            self.laws.holds[node].clear();
        }
        let in_sync = self
            .newest_record()
            .is_some_and(|r| r.in_sync.has(NodeIdx(node as u8)));
        self.laws.must_leave[node] |= in_sync;
        let voted = self.all().filter_map(|n| self.peek(n)?.voted);
        let voted = voted.chain(self.register.record());
        self.laws.voted_at_loss[node] = voted.max_by_key(|r| (r.term, r.step));
    }

    /// A replica was made anew.
    pub fn formatted(&mut self, node: usize) {
        if let Some(members) = &mut self.clients.crashed_with {
            // What it kept through that crash is gone.
            members.retain(|n| *n != node);
        }
        self.laws.holds[node].clear();
        self.laws.must_leave[node] = false;
        self.laws.seen[node] = None;
        self.laws.found[node] = (0, Err("made anew".into()));
        if self.is_alone() {
            self.laws.sizes = Sizes::new(self.plan.settings.granules);
        }
        self.refresh(node);
        self.note_disk(node);
    }

    /// A node says something worth a log line.
    pub fn noticed(&mut self, node: usize, notice: &Notice) {
        match notice {
            Notice::Promoted { .. } => self.promoted(node),
            Notice::Founded { .. } => self.count("foundings"),
            Notice::InSync { record } => {
                self.count("changes of S");
                self.rot_is_led_by(usize::from(record.primary.0));
                self.law_in_force_is_chosen(node, record);
                self.law_late_members_wait(node, record);
            }
            Notice::MemberLate { peer, pause } => self.law_pauses_double(node, *peer, *pause),
            Notice::OtherNodes { .. } => self.count("ballots for other nodes"),
            Notice::Nodes => self.table_in_force(node),
            Notice::MetaHangs => self.count("roles laid down over hung metadata"),
            Notice::SteppedDown { .. } => self.count("primaries stepped down"),
            Notice::QuorumLost { .. } => self.count("majorities lost"),
            Notice::QuorumBack => self.count("majorities back"),
            Notice::NotElected { .. } => self.count("elections refused"),
            Notice::ResyncBegan { .. } => self.count("resyncs begun"),
            Notice::ResyncDone { peer, .. } => {
                self.count("resyncs done");
                self.resynced_where_it_was(node, usize::from(peer.0));
            }
            Notice::DiskFailed => {
                self.count("disks failed");
                self.nodes[node].is_condemned = true;
            }
            Notice::MetaFailed => {
                self.count("metadata failed");
                // There is no other copy: the operator mends its disk and starts it again.
                self.nodes[node].is_condemned |= !self.is_alone();
            }
            Notice::DiskFull => self.count("disks full"),
            Notice::ReadError { .. } => self.count("read errors"),
            Notice::Difference { .. } => self.count("differences found"),
            Notice::PeerRefused { .. } => self.count("refusals"),
            Notice::HandingOver { to } => self.hand_over_begins(node, *to),
            Notice::KeptRole { .. } => {
                self.hand_over_is_off(node);
                // A growth before it may have ended meanwhile; one that did not says so when it does.
                let serves = self.nodes[node].engine.as_ref();
                let served = serves.map_or(0, |engine| engine.served_granules());
                self.size_is_served(served);
            }
            Notice::Demoted => self.role_laid_down(node),
            Notice::FoundOlder { peer } => self.law_only_old_images_are_renewed(node, *peer),
            Notice::GaveUp { .. } => {}
            Notice::Grown { size } => self.has_grown(node, *size),
            Notice::CannotGrow { size, max } => {
                let text = format!("node {node} cannot follow to {size}: it has room for {max}");
                self.fail("B13", text);
            }
            Notice::ChecksumError { extent } => self.law_alarm_is_true(node, *extent),
            Notice::Repaired { .. } => self.count("damage repaired"),
            Notice::NotRepaired { .. } => self.count("damage nobody can repair"),
            Notice::ChecksumsLost { .. } => {
                self.fail("M2", format!("node {node} lost a page: {notice:?}"));
            }
            Notice::ScrubDone { .. } => self.count("scrubs"),
            // What either side may have changed alone joins the marks at the exchange.
            Notice::PeerConnected(_) | Notice::PeerLost(_) => self.marks_get_vague(),
        }
    }

    fn promoted(&mut self, node: usize) {
        self.count("promotions");
        self.rot_is_led_by(node);
        self.refresh(node);
        self.hand_over_ends(node);
        self.situation_promoted(node);
        self.size_is_settled();
        self.law_promotion_keeps_the_size(node);
        self.law_promotion_was_allowed(node);
        self.judge_crash();
        self.law_marks_say_enough();
        if self.nodes[node].lost_power {
            // Nobody whole was left, or it was the last member: what it lost is lost (law B6).
            self.all().for_each(|n| self.laws.forget_holdings(n));
        }
        self.nodes[node].lost_power = false;
        self.laws.must_leave[node] = false;
    }

    /// A control store is asked; nothing to check yet.
    pub fn proposed(&mut self, _node: usize, _record: Record) {
        self.count("records proposed");
    }
}
