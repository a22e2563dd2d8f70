//! A session's beginning and end: hello, judgement, exchange of what may differ, loss.

use crate::action::{Action, Answer, CommandError, Notice};
use crate::activity_log::NEVER;
use crate::agree::{agree, follows_size};
use crate::event::{CommandId, LinkId, Payload};
use crate::generation::{Verdict, judge};
use crate::message::{
    Disk, Hello, Known, Message, PROTOCOL_MAX, PROTOCOL_MIN, RUNS_MAX, Refusal, Status,
};
use crate::record::Record;
use crate::session::{Plan, Session, SessionEvent};
use crate::units::{Extent, GRANULE, GRANULES_PER_AL_EXTENT, NodeIdx, NodeSet, Seq, Term};

use super::adopt::Adopting;
use super::member::Frame;
use super::ops::{Kind, Phase};
use super::peer::{Began, Gate, Wish};
use super::remote::Serve;
use super::source::Held;
use super::{Volume, planted};

/// Messages of runs said in one turn.
pub(super) const RUNS_PER_TURN: usize = 4;
/// With more dirty runs than this the rest is said in whole 4 MiB extents.
const FINE_RUNS_MAX: u64 = 16 * RUNS_MAX as u64;

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

    /// Says hello once no record is on its way: the facts it states must stay facts.
    pub(super) fn settle_hello(&mut self, node: NodeIdx) {
        let peer = self.peers.get(node);
        let Session::Handshake(link) = peer.session else {
            return;
        };
        // Who votes is no fact of a session.
        let in_sync = self.in_sync();
        let keeps_set = |c: super::record::Change| self.has_votes() && c.record.in_sync == in_sync;
        let is_ready = (self.durable.change).is_none_or(|c| self.role.is_primary() && keeps_set(c))
            && self.adopting.is_none()
            && !self.is_resizing()
            && self.durable.is_settled()
            && self.role.is_settled();
        if !peer.hello_owed || !is_ready {
            return;
        }
        let hello = Box::new(self.my_hello(node));
        let message = Message::Hello(hello.clone());
        self.actions.push(Action::Send {
            link,
            message,
            payload: None,
        });
        let peer = self.peers.get_mut(node);
        (peer.hello_owed, peer.said) = (false, Some(hello));
        self.settle_judgement(node);
    }

    fn my_hello(&self, node: NodeIdx) -> Hello {
        let (sb, setup) = (&self.durable.sb, &self.setup);
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            features_required: self.features_required(),
            features_offered: self.features_offered(),
            cluster: setup.cluster.clone(),
            volume: setup.volume.clone(),
            from: self.nodes.name(self.me),
            to: self.nodes.name(node),
            volume_id: if self.has_loose_founding() {
                0
            } else {
                sb.volume_id
            },
            slice: sb.slice,
            size_granules: self.size,
            granule_bytes: GRANULE as u32,
            config_digest: match self.nodes.table().version() {
                0 => setup.config_digest,
                _ => setup.config_digest_unnamed,
            },
            incarnation: sb.identity(),
            life: sb.life,
            knows: self.known(node),
            chain: sb.chain.clone(),
            record: self.record(),
            promised: sb.promised,
            leads: self.leads(),
            has_votes: self.has_votes(),
            disk: sb.disk,
            is_primary: self.role.is_serving(),
            is_whole: sb.whole,
            activity_log_slots: sb.activity_log_slots,
            credit_operations: setup.peer_requests_max as u32,
            credit_bytes: setup.peer_bytes_max,
        }
    }

    fn hello(&mut self, node: NodeIdx, hello: Box<Hello>) {
        let peer = self.peers.get_mut(node);
        if !matches!(peer.session, Session::Handshake(_)) || peer.hello.is_some() {
            return self.breach(node);
        }
        peer.hello = Some(hello);
        self.settle_judgement(node);
    }

    /// Both hellos are there: what do they mean together?
    fn settle_judgement(&mut self, node: NodeIdx) {
        let peer = self.peers.get(node);
        let (false, Some(mine), Some(theirs)) = (peer.hello_owed, &peer.said, &peer.hello) else {
            return;
        };
        let verdict = agree(self.me, mine, node, theirs);
        let has_parted = matches!(verdict, Err(why) if why.is_split_brain());
        if (verdict.is_ok() || has_parted) && !self.had_run(node, theirs.knows.life) {
            let theirs = theirs.clone();
            return self.found_older(node, &theirs, verdict.is_ok());
        }
        let plan = match verdict {
            Ok(plan) => plan,
            Err(why) if why.is_split_brain() => return self.begin_parting(node, why),
            Err(why) => {
                let size = theirs.size_granules;
                let is_other_size = why == Refusal::Size && mine.volume_id == theirs.volume_id;
                // Said now: once it has our size and ran again it counts as a later run.
                let is_older = is_other_size && self.is_put_back(node, theirs);
                let is_up_to_date = theirs.disk == Disk::UpToDate;
                if why == Refusal::Size && follows_size(mine, theirs) {
                    self.follow(node, size);
                }
                if is_older {
                    self.forget_copy(node);
                }
                let is_misled = is_older && is_up_to_date;
                return self.refuse(node, if is_misled { Refusal::OlderData } else { why });
            }
        };
        if !self.follows(theirs) {
            return self.refuse(node, Refusal::Diverged);
        }
        let newer = theirs.leads.map(|reign| reign.term);
        if self.has_votes() && self.role.is_serving() && newer > mine.leads.map(|r| r.term) {
            // Somebody was chosen since (law T6).
            return self.step_down();
        }
        if plan == Plan::Target {
            let (older, newer_elsewhere) = self.other_reigns(node, newer);
            if newer_elsewhere {
                return self.drop_link(node);
            }
            if !older.is_empty() {
                older.iter().for_each(|n| self.drop_link(n));
                return self.settle_judgement(node);
            }
        }
        let is_behind = judge(&mine.chain, &theirs.chain) == Verdict::Behind;
        let (record, chain) = (theirs.record, theirs.chain.clone());
        let (incarnation, is_primary, disk) = (theirs.incarnation, theirs.is_primary, theirs.disk);
        let is_older = self.is_put_back(node, theirs);
        let is_half_joined = plan == Plan::Equal && mine.disk.awaits_sync();
        let disk = match plan {
            // If it was not before: it hears that it is a member.
            Plan::Equal if disk.awaits_sync() => Disk::UpToDate,
            _ => disk,
        };
        let is_newer = match (record, self.record()) {
            (Some(theirs), Some(mine)) => theirs.is_newer_than(&mine),
            (theirs, _) => theirs.is_some(),
        };
        if is_older {
            self.forget_copy(node);
            if disk == Disk::UpToDate {
                return self.refuse(node, Refusal::OlderData);
            }
        }
        self.note_met(node);
        self.step(node, SessionEvent::Agreed(plan));
        let peer = self.peers.get_mut(node);
        (peer.is_primary, peer.disk, peer.vanished_in_sync) = (is_primary, disk, false);
        (peer.last_refusal, peer.gate, peer.parting) = (None, Gate::Open, None);
        (peer.seen, peer.durable, peer.flushed_here) = (Seq(0), Seq(0), false);
        let says_runs = matches!(plan, Plan::Equal | Plan::Target);
        peer.runs_from = Some(if says_runs { 0 } else { self.size });
        match plan {
            // We missed nothing; only the newest reign is not written down here yet.
            Plan::Equal if is_newer => {
                let sb = &mut self.durable.sb;
                if is_behind || is_half_joined {
                    sb.chain = chain;
                }
                if is_half_joined {
                    sb.disk = Disk::UpToDate;
                }
                sb.record = record;
                let version = self.durable.touch();
                let from = None;
                self.adopting = record.map(|record| Adopting {
                    version,
                    record,
                    from,
                });
                self.peers.get_mut(node).gate = Gate::Superblock(version);
            }
            Plan::Source => self.prepare_source(node, incarnation),
            Plan::Target => {
                self.distrust_others(node);
                let sb = &mut self.durable.sb;
                if sb.disk == Disk::UpToDate {
                    sb.disk = Disk::Outdated;
                }
                // What power took before, this resync brings.
                sb.whole = true;
                self.durable.touch();
            }
            Plan::Adopt => {
                let volume_id = self.durable.sb.volume_id;
                self.say(node, Message::Adopt { volume_id });
            }
            _ => {}
        }
        self.notice(Notice::PeerConnected(node));
        self.ops.attention = true;
    }

    /// Data sessions with others than `leader`: those of an earlier term than its, and whether one is
    /// of a later term.
    ///
    /// Where a majority chose somebody else, this node may hear of that one before it hears that its
    /// primary reigns no more: what the primary has in flight here is marked before this node says
    /// where the two may differ (law S9).
    fn other_reigns(&self, leader: NodeIdx, term: Option<Term>) -> (NodeSet, bool) {
        let takes_part =
            |n: &NodeIdx| self.has_votes() && *n != leader && self.peers.get(*n).session.is_fed();
        let leads = |n: NodeIdx| {
            let hello = self.peers.get(n).hello.as_ref()?;
            hello.leads.map(|reign| reign.term)
        };
        let others: NodeSet = self.peers.nodes().filter(takes_part).collect();
        let newer = others.iter().any(|n| leads(n) > term);
        (others.iter().filter(|n| leads(*n) < term).collect(), newer)
    }

    /// A copy that was given up for one branch takes nothing of another.
    fn follows(&self, theirs: &Hello) -> bool {
        let sb = &self.durable.sb;
        let is_other = |branch: u128| sb.follows != 0 && sb.follows != branch;
        sb.record.is_some() || !theirs.record.is_some_and(|r| is_other(r.branch))
    }

    pub(super) fn known(&self, node: NodeIdx) -> Known {
        let (sb, at) = (&self.durable.sb, usize::from(node.0));
        Known {
            incarnation: if sb.joined.has(node) { sb.known[at] } else { 0 },
            life: sb.known_lives[at],
        }
    }

    /// Its copy is of an earlier run than one it had with us, or of another one in its place.
    fn is_put_back(&self, node: NodeIdx, theirs: &Hello) -> bool {
        let (known, is_blank) = (self.known(node), theirs.disk == Disk::Blank);
        // A record told of this replica; the run that we met was of the one before it.
        let is_told = self.durable.sb.known[usize::from(node.0)] == theirs.incarnation;
        let is_next = is_told && !known.life.is_of_same_replica(theirs.life);
        // It knows of records that we slept over: the memory that is old is ours.
        let own = self.record();
        let is_newer = |r: Record| own.is_none_or(|own| r.is_newer_than(&own));
        let knows_more = self.has_votes() && theirs.record.is_some_and(is_newer);
        let is_later = is_next || knows_more || known.continues(theirs.life);
        !is_blank && !theirs.is_primary && !is_later
    }

    /// The peer was put back to a state older than one it had with us: whatever bits say, it
    /// lacks everything (F21, law T8). Its life is remembered only once its own hello says that
    /// it is not whole: the word that refuses it may be lost with the link.
    fn forget_copy(&mut self, node: NodeIdx) {
        let sb = &mut self.durable.sb;
        sb.joined = sb.joined.without(node);
        if std::mem::take(&mut sb.known[usize::from(node.0)]) != 0 {
            self.durable.touch();
        }
    }

    /// Law S11: a replica we never synced lacks everything, durably, before anything is cleared.
    fn prepare_source(&mut self, node: NodeIdx, incarnation: u128) {
        let known = &mut self.durable.sb.known[usize::from(node.0)];
        if *known == incarnation {
            return;
        }
        // Whoever was made anew has no vote until it says so again.
        self.votes.unmeet(node);
        if planted!(self, BlankNotAllDirty) {
            self.durable.sb.known[usize::from(node.0)] = incarnation;
            return;
        }
        let peer = self.peers.get_mut(node);
        peer.dirty.set_all();
        peer.gate = Gate::AllDirty;
        self.pages.wants_all = true;
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

    /// The peer says what may differ between us.
    fn runs(&mut self, node: NodeIdx, runs: &[Extent], last: bool) {
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
    fn adopt(&mut self, node: NodeIdx, volume_id: u128) {
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
