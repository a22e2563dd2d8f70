//! A client's request: admit · order · warm · stamp · fan out · acknowledge (DESIGN §4).

use crate::action::{Action, Job, Outcome};
use crate::event::{LinkId, Op, ReqId, SessionId};
use crate::message::{Message, Stamp, Status, Zeroing};
use crate::units::{ByteRange, Extent, GRANULE, NodeIdx, NodeSet, PIECE_MAX, Seq};
use crate::verdict::{Legs, Policy, Verdict, verdict};

use super::ops::{Kind, Phase, Purpose};
use super::{Volume, planted};

impl Volume {
    pub(super) fn submit(&mut self, session: SessionId, req: ReqId, op: Op) {
        if let Some(outcome) = self.refusal(&op) {
            return self.complete(session, req, outcome);
        }
        let (kind, range, fua) = match op {
            Op::Read { range, buf } => (Kind::Read { range, buf }, range, false),
            Op::Write { range, buf, fua } => (Kind::Write { range, buf }, range, fua),
            Op::Zero {
                range,
                zeroing,
                fua,
            } => (
                Kind::Zero {
                    range,
                    zeroing,
                    next: range.offset,
                },
                range,
                fua,
            ),
            Op::Flush => return self.submit_flush(session, req),
        };
        let Some(extent) = range.cover() else {
            return self.complete(session, req, Outcome::Ok);
        };
        let Some(slot) = self.ops.take_client(kind, extent, session, req, self.now) else {
            return self.complete(session, req, Outcome::Busy);
        };
        self.ops.get_mut(slot).fua = fua;
        self.order(slot, !matches!(kind, Kind::Read { .. }));
    }

    fn refusal(&self, op: &Op) -> Option<Outcome> {
        if !self.role.is_admitting() {
            return Some(self.role.refusal());
        }
        if self.durable.has_failed || self.fails_without_quorum() {
            return Some(Outcome::Io);
        }
        let range = match op {
            Op::Read { range, .. } | Op::Write { range, .. } | Op::Zero { range, .. } => *range,
            Op::Flush => return None,
        };
        let end = range.offset.checked_add(range.len);
        end.is_none_or(|end| end > self.client_size() * GRANULE)
            .then_some(Outcome::OutOfRange)
    }

    /// Queues the entry for its range; it starts at once if nothing overlaps.
    pub(super) fn order(&mut self, slot: u32, exclusive: bool) {
        let extent = self.ops.get(slot).extent;
        let ignores = planted!(self, OverlapIgnored);
        let reads_pass = planted!(self, ReadDoesNotWait);
        let passes = planted!(self, PeerReadPassesWrites) && self.reader_for(extent).is_some();
        let unordered = ignores || ((reads_pass || passes) && !exclusive);
        if unordered || self.overlap.insert(slot, extent, exclusive) {
            self.start(slot);
        }
    }

    pub(super) fn start_granted(&mut self) {
        while let Some(slot) = self.granted.pop() {
            self.start(slot);
        }
    }

    /// Its range is granted.
    pub(super) fn start(&mut self, slot: u32) {
        let op = self.ops.get_mut(slot);
        op.since = self.now;
        // The pieces of a zeroing ask for theirs one by one.
        let is_whole = !matches!(op.kind, Kind::Zero { .. });
        if self.needs_pages(slot) && is_whole && !self.has_pages(slot) {
            return;
        }
        self.start_kind(slot);
    }

    /// The pages of checksums it waited for are in memory.
    pub(super) fn start_with_pages(&mut self, slot: u32) {
        let op = self.ops.get_mut(slot);
        op.since = self.now;
        match op.kind {
            Kind::Zero { .. } => self.start_piece(slot),
            _ => self.start_kind(slot),
        }
    }

    fn start_kind(&mut self, slot: u32) {
        match self.ops.get(slot).kind {
            Kind::Read { .. } => self.start_read(slot),
            Kind::Write { range, buf } => self.start_write(slot, range, buf),
            Kind::Zero { .. } => self.next_piece(slot),
            Kind::MemberData { .. } | Kind::MemberZero { .. } => self.start_member_write(slot),
            Kind::Serve { .. } => self.start_serving(slot),
            Kind::ServeRead { .. } | Kind::Salvage { .. } => self.start_serving_read(slot),
            Kind::ServeSums { .. } | Kind::Pull { is_old: true, .. } => self.start_sums(slot),
            Kind::Pull { .. } => self.start_hashes(slot, 1),
            Kind::ServeHashes { each, .. } => self.start_hashes(slot, each),
            Kind::Compare { peer, id } => self.start_compare(slot, peer, id),
            Kind::Store { .. } => self.start_store(slot),
            Kind::Scrub { .. } => self.start_scrub_piece(slot),
            Kind::Repair => self.start_repair(slot),
            Kind::Flush | Kind::Free => unreachable!("flushes hold no range"),
        }
    }

    fn start_write(&mut self, slot: u32, range: ByteRange, buf: crate::units::BufId) {
        self.ops.get_mut(slot).piece_buf = Some(buf);
        if range.is_aligned() {
            return self.warm(slot);
        }
        if !self.is_disk_usable() {
            return self.fail_before_dispatch(slot, Outcome::Io);
        }
        self.merge(slot, range, buf);
    }

    /// Fills what an unaligned write leaves free of its granules.
    pub(super) fn merge(&mut self, slot: u32, range: ByteRange, buf: crate::units::BufId) {
        self.ops.get_mut(slot).phase = Phase::Job;
        let token = self.ops.token(Purpose::Job, slot);
        self.actions.push(Action::Job {
            token,
            job: Job::Merge { buf, range },
        });
    }

    /// The next piece of a zeroing: a partial granule is merged, whole ones go up to 32 MiB.
    fn next_piece(&mut self, slot: u32) {
        let Kind::Zero {
            range,
            zeroing,
            next,
        } = self.ops.get(slot).kind
        else {
            unreachable!("only zeroing has pieces");
        };
        let end = range.offset + range.len;
        let granule = next / GRANULE;
        let border = (granule + 1) * GRANULE;
        let is_partial = !next.is_multiple_of(GRANULE) || end < border;
        let (piece, upto) = if is_partial {
            (Extent::new(granule, granule + 1), end.min(border))
        } else {
            let last = (end / GRANULE).min(granule + PIECE_MAX / GRANULE);
            (Extent::new(granule, last), last * GRANULE)
        };
        if is_partial && !self.is_disk_usable() {
            return self.fail_before_dispatch(slot, Outcome::Io);
        }
        let op = self.ops.get_mut(slot);
        op.kind = Kind::Zero {
            range,
            zeroing,
            next: upto,
        };
        (op.piece, op.piece_buf) = (piece, None);
        if self.needs_pages(slot) && !self.has_pages(slot) {
            return;
        }
        self.start_piece(slot);
    }

    pub(super) fn start_piece(&mut self, slot: u32) {
        let op = self.ops.get_mut(slot);
        let Kind::Zero {
            range, next: upto, ..
        } = op.kind
        else {
            unreachable!("only zeroing has pieces");
        };
        let from = range.offset.max(op.piece.offset());
        let range = ByteRange {
            offset: from,
            len: upto - from,
        };
        if range.is_aligned() {
            return self.warm(slot);
        }
        op.phase = Phase::Job;
        let token = self.ops.token(Purpose::Job, slot);
        self.actions.push(Action::Job {
            token,
            job: Job::MergeZeros { range },
        });
    }

    /// The log must say that this extent may differ before any disk is given the write (S2).
    pub(super) fn warm(&mut self, slot: u32) {
        let is_hopeless = self.ops.get(slot).is_client() && self.has_lost_last_copy();
        if !self.keeps_log() || is_hopeless {
            return self.dispatch(slot);
        }
        self.ops.get_mut(slot).phase = Phase::Log;
        if self.ops.get(slot).held.is_empty() {
            let extent = self.ops.get(slot).extent;
            let taken = match self.wait_log.is_empty() {
                true => self.log.acquire(extent).ok(),
                false => None,
            };
            let Some(held) = taken else {
                self.wait_log.push_back(slot);
                self.ops.attention = true;
                return;
            };
            self.ops.get_mut(slot).held = held;
        }
        self.warmed(slot);
    }

    /// It holds its log slots; goes on once they are durable.
    pub(super) fn warmed(&mut self, slot: u32) {
        if self.log.is_durable(&self.ops.get(slot).held) || planted!(self, WriteBeforeLogDurable) {
            match self.ops.get(slot).is_client() {
                true => self.dispatch(slot),
                false => self.write_as_member(slot),
            }
        } else {
            self.ops.attention = true;
        }
    }

    /// Everything that could still hold it back, checked again; then all legs in this call (D5).
    fn dispatch(&mut self, slot: u32) {
        self.ops.get_mut(slot).phase = Phase::Dispatch;
        if !self.wait_dispatch.is_empty() || !self.may_dispatch(slot) {
            self.wait_dispatch.push_back(slot);
            self.ops.attention = true;
            return;
        }
        self.fan_out(slot);
    }

    pub(super) fn may_dispatch(&self, slot: u32) -> bool {
        let op = self.ops.get(slot);
        let bytes = if op.piece_buf.is_some() {
            op.piece.bytes()
        } else {
            0
        };
        self.in_sync().count() >= self.setup.min_copies
            && self.ops.has_window(Seq(self.seq.0 + 1), self.stable)
            && self
                .peers
                .iter()
                .all(|p| !p.takes_data() || p.has_credit(bytes))
    }

    pub(super) fn fan_out(&mut self, slot: u32) {
        self.seq.0 += 1;
        let seq = self.seq;
        self.ops.fly(seq, slot);
        self.last_write = Some(self.now);
        let op = *self.ops.get(slot);
        let durable = op.fua || self.setup.policy == Policy::Durable;
        let mut pending = NodeSet::EMPTY;
        if self.is_disk_usable() {
            pending = pending.with(self.me);
            self.disk_leg(slot, durable);
        }
        if self.keeps_log() {
            self.flush.note_write();
            self.marks.set(op.piece);
        }
        if self.is_mirrored() {
            pending = self.peer_legs(&op, seq, durable, pending);
        }
        let is_usable = self.is_disk_usable();
        let op = self.ops.get_mut(slot);
        (op.phase, op.seq, op.since) = (Phase::Out, seq, self.now);
        (op.pending, op.confirmed, op.failed) = (pending, NodeSet::EMPTY, NodeSet::EMPTY);
        if !is_usable {
            op.failed = NodeSet::only(self.me);
        }
        if pending.is_empty() {
            op.failed = NodeSet(u8::MAX);
            self.evaluate(slot);
        }
    }

    /// Gives the piece to this node's disk.
    pub(super) fn disk_leg(&mut self, slot: u32, durable: bool) {
        let op = self.ops.get(slot);
        let (extent, token) = (op.piece, self.ops.token(Purpose::Disk, slot));
        self.actions.push(match (op.piece_buf, op.kind) {
            (Some(buf), _) => Action::DiskWrite {
                token,
                extent,
                buf,
                durable,
            },
            (None, Kind::Zero { zeroing, .. } | Kind::MemberZero { zeroing }) => Action::DiskZero {
                token,
                extent,
                zeroing,
                durable,
            },
            _ => unreachable!("a piece without a buffer is zeros"),
        });
    }

    /// Sends the piece to every peer that takes data and marks it for every other: there is no
    /// instant at which it is neither sent nor marked (law S5).
    fn peer_legs(
        &mut self,
        op: &super::ops::Operation,
        seq: Seq,
        durable: bool,
        mut pending: NodeSet,
    ) -> NodeSet {
        let stamp = self.stamp(seq);
        let extent = op.piece;
        let bytes = if op.piece_buf.is_some() {
            extent.bytes()
        } else {
            0
        };
        let zeroing = match op.kind {
            Kind::Zero { zeroing, .. } => zeroing,
            _ => Zeroing::MayTrim,
        };
        let skip_zeros = planted!(self, TrimNotMirrored);
        for peer in self.peers.iter_mut() {
            let link = peer.session.data_link().filter(|_| peer.takes_data());
            let Some(link) = link else {
                peer.dirty.set(extent);
                continue;
            };
            if op.piece_buf.is_none() && skip_zeros {
                continue;
            }
            peer.use_credit(bytes);
            pending = pending.with(peer.node);
            let message = match op.piece_buf {
                Some(_) => Message::Data {
                    stamp,
                    extent,
                    durable,
                },
                None => Message::Zero {
                    stamp,
                    extent,
                    zeroing,
                    durable,
                },
            };
            self.actions.push(Action::Send {
                link,
                message,
                payload: op.piece_buf,
            });
        }
        pending
    }

    /// Head of a frame: order and progress.
    pub(super) fn stamp(&self, seq: Seq) -> Stamp {
        Stamp {
            seq,
            term: self.record().map_or(crate::units::Term(0), |r| r.term),
            stable: self.stable,
            durable: self.durable_seq,
            shipped: Seq(0),
        }
    }

    /// A leg of an operation answered.
    #[inline]
    pub(super) fn leg_done(&mut self, slot: u32, node: NodeIdx, status: Status) {
        let op = self.ops.get_mut(slot);
        op.pending = op.pending.without(node);
        if status == Status::Ok {
            op.confirmed = op.confirmed.with(node);
        } else {
            op.failed = op.failed.with(node);
            op.no_space |= status == Status::NoSpace;
            let piece = op.piece;
            if let Some(peer) = self.peers.find_mut(node) {
                peer.dirty.set(piece);
            }
        }
        self.evaluate(slot);
    }

    /// May the client be answered? Is the piece, or all of it, over?
    pub(super) fn evaluate(&mut self, slot: u32) {
        let op = *self.ops.get(slot);
        if op.phase != Phase::Out || !op.is_mutation() {
            return;
        }
        if op.is_undecided() && !self.decide(slot, &op) {
            return;
        }
        if self.ops.get(slot).pending.is_empty() {
            self.piece_over(slot);
        }
    }

    /// Answers what the verdict decides; false while it decides nothing.
    fn decide(&mut self, slot: u32, op: &super::ops::Operation) -> bool {
        let required = match planted!(self, AckBeforePeer) {
            true => NodeSet::only(self.me),
            false => self.required(),
        };
        let legs = Legs {
            local: NodeSet::only(self.me),
            required,
            received: NodeSet::EMPTY,
            confirmed: op.confirmed,
            failed: op.failed,
        };
        match verdict(&legs, self.setup.policy) {
            Verdict::Ack if self.in_sync().count() >= self.setup.min_copies => {
                self.ops.confirm(op.seq);
                self.advance_stable();
                self.is_full = false;
                if !self.has_more(slot) {
                    self.answer(slot, Outcome::Ok);
                }
                true
            }
            Verdict::Fail => {
                let outcome = if op.no_space {
                    Outcome::NoSpace
                } else {
                    Outcome::Io
                };
                self.answer(slot, outcome);
                true
            }
            _ => false,
        }
    }

    fn has_more(&self, slot: u32) -> bool {
        let op = self.ops.get(slot);
        let Kind::Zero { range, next, .. } = op.kind else {
            return false;
        };
        !op.answered && next < range.offset + range.len
    }

    /// All legs of the piece have ended and the client's answer is decided.
    fn piece_over(&mut self, slot: u32) {
        let op = *self.ops.get(slot);
        self.ops.land(op.seq);
        self.advance_stable();
        if let Some(buf) = op.piece_buf.filter(|_| op.piece_buf_owned) {
            self.actions.push(Action::Release { buf });
            let op = self.ops.get_mut(slot);
            (op.piece_buf, op.piece_buf_owned) = (None, false);
        }
        if !self.has_more(slot) {
            return self.end(slot);
        }
        self.unpin(slot);
        if op.aborted {
            self.answer(slot, Outcome::Aborted);
            return self.end(slot);
        }
        self.next_piece(slot);
    }

    pub(super) fn advance_stable(&mut self) {
        while self.stable < self.seq && self.ops.is_confirmed(Seq(self.stable.0 + 1)) {
            self.stable.0 += 1;
        }
    }

    /// S or the state of a disk changed: looks at everything that waits for an answer again.
    pub(super) fn reconsider_all(&mut self) {
        for slot in self.ops.slots() {
            self.evaluate(slot);
        }
        self.settle_round();
        self.ops.attention = true;
    }

    /// An entry that is not a client's, on behalf of the peer behind `link`.
    pub(super) fn take_internal(
        &mut self,
        kind: Kind,
        extent: Extent,
        link: LinkId,
    ) -> Option<u32> {
        let slot = self.ops.take(kind, extent, self.now)?;
        self.ops.get_mut(slot).link = link;
        Some(slot)
    }
}
