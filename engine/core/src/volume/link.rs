//! A session's beginning and end, and every message that comes in between. Hello and judgement:
//! `handshake.rs`; what may differ: `exchange.rs`.

use crate::action::{Action, Answer, CommandError, Notice};
use crate::activity_log::NEVER;
use crate::event::{CommandId, LinkId, Payload};
use crate::message::{Disk, Message, Refusal, Status};
use crate::session::{Session, SessionEvent};
use crate::units::{NodeIdx, Seq};

use super::member::Frame;
use super::ops::{Kind, Phase};
use super::peer::{Began, Gate, Wish};
use super::remote::Serve;
use super::source::Held;
use super::{Volume, planted};

impl Volume {
    pub(super) fn link_up(&mut self, node: NodeIdx, link: LinkId) {
        let has_parted = self.peers.find(node).is_some_and(|p| p.parting.is_some());
        let refusal = match self.peers.find(node).map(|p| p.session) {
            None => Some(Refusal::Volume),
            // It comes or went: the next try may be of another table.
            Some(_) if !self.exchanges_data_with(node) || self.has_let_go(node) => {
                Some(Refusal::Leaving)
            }
            // In a split brain it is asked what it has, and may have given up its copy meanwhile.
            Some(Session::Standalone(why)) if !(has_parted && why.is_split_brain()) => Some(why),
            Some(_) if self.keeps_away(node) => Some(Refusal::Leaving),
            Some(_) if !self.role.takes_links() || self.durable.has_failed => {
                Some(Refusal::Leaving)
            }
            Some(_) => None,
        };
        if let Some(why) = refusal {
            let message = Message::Refuse(why);
            self.actions.push(Action::Send {
                link,
                message,
                payload: None,
            });
            return self.actions.push(Action::Drop { link });
        }
        // The old session is closed before the new one is used (law R10, F16).
        if self.peers.get(node).session.link().is_some() {
            self.drop_link(node);
        }
        self.step(node, SessionEvent::LinkUp(link));
        let peer = self.peers.get_mut(node);
        (peer.hello, peer.hello_owed, peer.unreachable) = (None, true, false);
        self.ops.attention = true;
    }

    pub(super) fn link_down(&mut self, link: LinkId) {
        if let Some(node) = self.peers.by_link(link) {
            self.session_lost(node, SessionEvent::LinkDown, true);
        }
    }

    pub(super) fn unreachable(&mut self, node: NodeIdx) {
        if let Some(peer) = self.peers.find_mut(node) {
            peer.unreachable = peer.session.link().is_none();
            self.ops.attention = true;
        }
    }

    pub(super) fn step(&mut self, node: NodeIdx, event: SessionEvent) {
        let now = self.now;
        let peer = self.peers.get_mut(node);
        match peer.session.next(event) {
            Ok(next) => (peer.session, peer.since) = (next, now),
            Err(misplaced) => unreachable!("session of {node:?}: {misplaced:?}"),
        }
    }

    /// Facts changed under a session: the next handshake judges them anew.
    pub(super) fn drop_link(&mut self, node: NodeIdx) {
        if let Some(link) = self.peers.get(node).session.link() {
            self.actions.push(Action::Drop { link });
            self.session_lost(node, SessionEvent::LinkDown, false);
        }
    }

    /// Sessions that have not agreed yet were begun on facts that change now.
    pub(super) fn drop_unagreed(&mut self) {
        for node in self.peers.nodes() {
            let session = self.peers.get(node).session;
            let sent = !self.peers.get(node).hello_owed;
            if sent && matches!(session, Session::Handshake(_) | Session::Exchange(..)) {
                self.drop_link(node);
            }
        }
    }

    /// Everything that leaned on this session falls back to what is durable: in-flight writes
    /// are marked on both sides, and nothing said on the old link counts any more.
    fn session_lost(&mut self, node: NodeIdx, event: SessionEvent, vanished: bool) {
        let peer = self.peers.get_mut(node);
        let (was, Some(link)) = (peer.session, peer.session.link()) else {
            return self.step(node, event);
        };
        // A handshake that ended before the hellos were judged was no session: what the last one
        // proved still stands (law T9). A split brain is none either.
        let was_session = !matches!(was, Session::Handshake(_)) && !peer.is_parted();
        if was_session {
            peer.vanished_in_sync = matches!(was, Session::InSync(_)) && vanished;
        }
        (peer.hello, peer.is_primary, peer.hello_owed) = (None, false, false);
        (peer.operations_out, peer.bytes_out, peer.record_pending) = (0, 0, false);
        (peer.runs_from, peer.runs_received, peer.gate) = (None, false, Gate::Open);
        peer.began = Began::default();
        (peer.said, peer.adoption_owed, peer.wish) = (None, false, Wish::default());
        (peer.source, peer.target) = Default::default();
        (peer.told, peer.room, peer.mark_pages) = Default::default();
        peer.is_held_back = false;
        self.marks.forget_told();
        let forget_marks = planted!(self, NoMarkOnLinkLoss);
        let peer = self.peers.get_mut(node);
        // Any other replica may lack what was not confirmed by all (law S1).
        let unstable = std::mem::take(&mut peer.unstable);
        let only_it = planted!(self, UnconfirmedMarkedForOneOnly);
        if !forget_marks {
            for peer in self.peers.iter_mut().filter(|p| p.node == node || !only_it) {
                unstable.iter().for_each(|(_, extent)| {
                    peer.dirty.set(*extent);
                });
            }
        }
        self.joining = self.joining.without(node);
        self.step(node, event);
        for slot in self.ops.slots() {
            let op = self.ops.get_mut(slot);
            if op.phase == Phase::Out && op.is_mutation() && op.pending.has(node) {
                op.pending = op.pending.without(node);
                let piece = op.piece;
                if !forget_marks {
                    self.peers.get_mut(node).dirty.set(piece);
                }
            }
        }
        self.drop_member_ops(link);
        if !self.role.is_serving() {
            self.log.retouch(NEVER);
        }
        self.round_lost(node);
        self.remote_reads_lost(node);
        self.repairs_lost(node);
        self.verify_lost(node);
        if was_session {
            self.notice(Notice::PeerLost(node));
        }
        self.settle_membership();
        self.reconsider_all();
    }

    pub(super) fn peer_message(
        &mut self,
        link: LinkId,
        message: Message,
        payload: Option<Payload>,
    ) {
        let Some(node) = self.peers.by_link(link) else {
            // A late word of a session that is over (law R10).
            self.release(payload.map(|p| p.buf));
            if planted!(self, LateAckCounts)
                && let Message::Ack { seq, status } = message
                && let Some(node) = self.peers.nodes().next()
                && let Some(slot) = self.ops.by_seq(seq)
            {
                let op = self.ops.get_mut(slot);
                op.pending = op.pending.with(node);
                self.ack(node, seq, status);
            }
            return;
        };
        if payload.is_some_and(|p| !p.is_intact) && !planted!(self, IgnoreBadChecksum) {
            self.release(payload.map(|p| p.buf));
            return self.breach(node);
        }
        match message {
            Message::Ack { seq, status } => self.ack(node, seq, status),
            Message::Data {
                stamp,
                extent,
                durable,
            } => {
                let Some(buf) = self.payload_or_breach(node, payload) else {
                    return;
                };
                let (kind, buf) = (Kind::MemberData { buf }, Some(buf));
                self.member_frame(
                    node,
                    Frame {
                        link,
                        stamp,
                        extent,
                        kind,
                        buf,
                        durable,
                    },
                );
            }
            Message::ResyncData { id, extent } => {
                let Some(buf) = self.payload_or_breach(node, payload) else {
                    return;
                };
                self.resync_data(node, id, extent, Some(buf));
            }
            Message::ReadReply { id, status } => {
                self.read_reply(node, id, status, payload.map(|p| p.buf));
            }
            other => {
                self.release(payload.map(|p| p.buf));
                self.word(node, link, other);
            }
        }
    }

    /// Messages without payload.
    fn word(&mut self, node: NodeIdx, link: LinkId, message: Message) {
        if let Message::Hello(hello) = message {
            return self.hello(node, hello);
        }
        if let Message::Refuse(why) = message {
            return self.refused_by_peer(node, why);
        }
        if matches!(self.peers.get(node).session, Session::Handshake(_)) {
            return self.breach(node);
        }
        match message {
            Message::Zero {
                stamp,
                extent,
                zeroing,
                durable,
            } => {
                let kind = Kind::MemberZero { zeroing };
                self.member_frame(
                    node,
                    Frame {
                        link,
                        stamp,
                        extent,
                        kind,
                        buf: None,
                        durable,
                    },
                );
            }
            Message::Flush { round, .. } => self.member_flush(link, round),
            Message::FlushAck { round, status } => self.round_answer(node, round, status),
            Message::Progress { stamp } => self.member_progress(node, &stamp),
            Message::Runs { runs, last } => self.runs(node, &runs, last),
            Message::State { is_primary, disk } => self.peer_state(node, is_primary, disk),
            Message::Record {
                record,
                chain,
                lives,
            } => self.record_told(node, record, chain, &lives),
            Message::RecordAck { term, step } => self.record_acked(node, term, step),
            Message::Adopt { volume_id } => self.adopt(node, volume_id),
            Message::AdoptAck => self.drop_link(node),
            Message::SetAttr(set) => self.attribute_told(node, set),
            Message::MarkPage(page) => self.mark_page_told(node, &page),
            Message::SetAttrAck { number, status } => self.attribute_acked(node, number, status),
            Message::GrowAsk { size } => self.room_wanted(node, link, size),
            Message::GrowAnswer { size, max, status } => self.room_told(node, size, max, status),
            Message::ResyncOffer { dirty, by_checksum } => {
                self.resync_offer(node, dirty, by_checksum);
            }
            Message::MapRequest { from } => self.map_request(node, from),
            Message::Map { runs, last } => self.map(node, runs, last),
            Message::ResyncAsk { id, extent, hashes } => {
                self.resync_request(node, id, extent, Held::Hashes(hashes));
            }
            Message::ResyncDiffer { id, runs } => self.resync_differ(node, id, &runs),
            Message::HashRequest { id, extent, each } => {
                self.serve_for(node, id, extent, Serve::Hashes { each });
            }
            Message::HashReply { id, status, hashes } => {
                self.hashes_told(node, id, status, hashes);
            }
            Message::ResyncRequest { id, extent, sums } => {
                let theirs = match sums.is_empty() {
                    true => Held::Unknown,
                    false => Held::Sums(sums),
                };
                self.resync_request(node, id, extent, theirs);
            }
            Message::ResyncZero { id, extent } => self.resync_data(node, id, extent, None),
            Message::ResyncEqual { id } => self.resync_equal(node, id, true),
            Message::ResyncFailed { id } => self.resync_equal(node, id, false),
            Message::ResyncAck { id, status } => {
                self.resync_ack(node, id, status);
                self.save_cleared(node);
            }
            Message::ResyncPause { paused, rate } => {
                self.peers.get_mut(node).wish = Wish { paused, rate };
            }
            Message::ReadRequest { id, extent } => self.serve_for(node, id, extent, Serve::Bytes),
            Message::SumRequest { id, extent } => self.serve_for(node, id, extent, Serve::Sums),
            Message::SumReply { id, status, sums } => self.sums_told(node, id, status, sums),
            Message::Parted(word) => self.parted_told(node, word),
            Message::Hello(_)
            | Message::Refuse(_)
            | Message::Ack { .. }
            | Message::Data { .. }
            | Message::ResyncData { .. }
            | Message::ReadReply { .. } => unreachable!("handled before"),
        }
        self.ops.attention = true;
    }

    fn ack(&mut self, node: NodeIdx, seq: Seq, status: Status) {
        let Some(slot) = self.ops.by_seq(seq) else {
            return;
        };
        let op = self.ops.get(slot);
        if !op.pending.has(node) {
            return;
        }
        let bytes = if op.piece_buf.is_some() {
            op.piece.bytes()
        } else {
            0
        };
        self.peers.get_mut(node).return_credit(bytes);
        self.ops.attention |= !self.wait_dispatch.is_empty() || !self.joining.is_empty();
        self.leg_done(slot, node, status);
        match status {
            Status::Ok => {}
            // It serves another reign, or takes no part: only a handshake can tell.
            Status::Refused => self.drop_link(node),
            Status::Io | Status::NoSpace => self.peer_disk_failed(node),
        }
    }

    pub(super) fn say(&mut self, node: NodeIdx, message: Message) {
        if let Some(link) = self.peers.get(node).session.link() {
            self.actions.push(Action::Send {
                link,
                message,
                payload: None,
            });
        }
    }

    /// Says why, and stops talking: for good where only an operator can help.
    pub(super) fn refuse(&mut self, node: NodeIdx, why: Refusal) {
        self.say(node, Message::Refuse(why));
        self.notice(Notice::PeerRefused {
            peer: node,
            why,
            by_us: true,
        });
        if let Some(link) = self.peers.get(node).session.link() {
            self.actions.push(Action::Drop { link });
        }
        self.peers.get_mut(node).last_refusal = Some(why);
        self.session_lost(node, SessionEvent::Refused(why, is_final(why)), false);
    }

    fn refused_by_peer(&mut self, node: NodeIdx, why: Refusal) {
        self.notice(Notice::PeerRefused {
            peer: node,
            why,
            by_us: false,
        });
        if let Some(link) = self.peers.get(node).session.link() {
            self.actions.push(Action::Drop { link });
        }
        self.peers.get_mut(node).last_refusal = Some(why);
        if why == Refusal::OlderData && self.disk() == Disk::UpToDate && !self.role.is_serving() {
            self.durable.sb.disk = Disk::Outdated;
            self.durable.touch();
        }
        // A node that leaves in order was in sync until it left.
        let vanished = why == Refusal::Leaving;
        self.session_lost(node, SessionEvent::Refused(why, is_final(why)), vanished);
    }

    pub(super) fn connect(&mut self, id: CommandId, node: NodeIdx) {
        let Some(peer) = self.peers.find(node) else {
            return self.reply(id, Err(CommandError::NoSuchPeer));
        };
        let answer = match peer.session {
            Session::Standalone(_) | Session::Parted(..) => Answer::Ok,
            _ if peer.is_held_back => Answer::Ok,
            _ => Answer::Already,
        };
        if matches!(peer.session, Session::Parted(..)) {
            // They compare once more.
            self.drop_link(node);
        }
        self.step(node, SessionEvent::Connect);
        self.forgive_lateness(node);
        self.reply(id, Ok(answer));
    }

    pub(super) fn disconnect(&mut self, id: CommandId, node: NodeIdx) {
        let Some(peer) = self.peers.find(node) else {
            return self.reply(id, Err(CommandError::NoSuchPeer));
        };
        if matches!(peer.session, Session::Standalone(_)) {
            return self.reply(id, Ok(Answer::Already));
        }
        if let Some(link) = peer.session.link() {
            let message = Message::Refuse(Refusal::Operator);
            self.actions.push(Action::Send {
                link,
                message,
                payload: None,
            });
            self.actions.push(Action::Drop { link });
        }
        self.session_lost(node, SessionEvent::Disconnect, false);
        self.reply(id, Ok(Answer::Ok));
    }

    pub(super) fn reply(&mut self, id: CommandId, result: Result<Answer, CommandError>) {
        self.actions.push(Action::Answer { id, result });
    }
}

/// Does this refusal need an operator, or may the next try fare better?
fn is_final(why: Refusal) -> bool {
    matches!(
        why,
        Refusal::Diverged | Refusal::Unrelated | Refusal::TwoPrimaries
    )
}
