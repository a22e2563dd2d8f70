//! The superblock as it should be, and changes of the record (laws T3, T4, T9).
//!
//! ```text
//!  change sb ─► version n ─► MetaWrite (group commit) ─► durable ≥ n ─► what waited goes on
//!  change S  ─► ProposeRecord ─► Chosen ─► sb.record, sb.chain ─► durable ─► effective
//! ```

use crate::action::{Action, Notice};
use crate::event::DiskError;
use crate::generation::Entry;
use crate::message::{Disk, Lives, Message};
use crate::meta::{PageWriter, Superblock, encode_superblock};
use crate::record::{Choice, Record};
use crate::session::Session;
use crate::time::Instant;
use crate::units::{NodeIdx, NodeSet, Term};

use super::ops::{Purpose, token};
use super::timers::RETRY;
use super::{Volume, planted};

/// The superblock in memory, and how much of it is on disk.
pub(super) struct Durable {
    /// As it should be.
    pub sb: Superblock,
    writer: PageWriter,
    version: u64,
    writing: Option<u64>,
    durable: u64,
    /// A metadata write failed: nothing can be promised any more.
    pub has_failed: bool,
    /// The record in force: the newest one that is durable here.
    pub record: Option<Record>,
    /// A change of S under way.
    pub change: Option<Change>,
    /// The control store could not be asked; ask again then.
    pub retry_at: Option<Instant>,
}

/// A record on its way to be in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub record: Record,
    /// A new reign: its entry joins the chain with the record.
    pub extends_chain: bool,
    /// What else becomes true with it, in the same superblock write.
    pub becoming: Becoming,
    /// The superblock version that carries it, once chosen.
    pub version: Option<u64>,
}

/// What a promotion makes of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Becoming {
    /// Nothing new.
    Member,
    /// The first reign of a volume with this identity.
    Founder(u128),
    /// Good by an operator's word: the newest reign it shares with others is cut off, so that
    /// they compare as diverged (law T10).
    Forced,
}

impl Durable {
    pub fn new(sb: Superblock, writer: PageWriter) -> Durable {
        Durable {
            record: sb.record,
            retry_at: None,
            sb,
            writer,
            version: 0,
            writing: None,
            durable: 0,
            has_failed: false,
            change: None,
        }
    }

    /// The superblock was changed; answers the version that will carry it.
    pub fn touch(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// The version that carries everything changed so far.
    pub fn newest_version(&self) -> u64 {
        self.version
    }

    /// Counter of the newest superblock that was written or is being written.
    pub fn newest_counter(&self) -> u64 {
        self.writer.counter(0)
    }

    /// Everything up to `version` is on disk.
    pub fn is_durable(&self, version: u64) -> bool {
        self.durable >= version
    }

    /// The first write of this process is on disk: it says which run this is.
    pub fn has_begun(&self) -> bool {
        self.durable > 0
    }

    /// The superblock on disk says what memory says.
    pub fn is_settled(&self) -> bool {
        self.durable == self.version
    }
}

impl Volume {
    /// The record in force here.
    pub(super) fn record(&self) -> Option<Record> {
        self.durable.record
    }

    /// The in-sync set of the record in force here.
    pub(super) fn in_sync(&self) -> NodeSet {
        self.record().map_or(NodeSet::EMPTY, |r| r.in_sync)
    }

    /// Members whose confirmation a write needs now: S, and while S changes, old and new S (T4).
    #[inline]
    pub(super) fn required(&self) -> NodeSet {
        let mut required = self.in_sync();
        if let Some(change) = self.durable.change {
            if planted!(self, AckBeforeRecordDurable) {
                return change.record.in_sync;
            }
            required = required.or(change.record.in_sync);
        }
        required.or(self.joining)
    }

    /// This node is the primary of its newest record: only it may change S (law T4).
    pub(super) fn reigns(&self) -> bool {
        let is_ours = self.record().is_some_and(|r| r.primary == self.me);
        is_ours && (!self.has_votes() || self.role.is_serving())
    }

    /// The highest term seen anywhere.
    pub(super) fn highest_term(&self) -> Term {
        let hellos = self.peers.iter().filter_map(|p| p.hello.as_ref());
        let known = hellos.map(|h| h.record.map_or(h.promised, |r| r.term.max(h.promised)));
        let own = self.record().map_or(Term(0), |r| r.term);
        let own = own.max(self.durable.sb.promised).max(self.votes.highest);
        known.fold(own, Term::max)
    }

    pub(super) fn write_superblock(&mut self) {
        let durable = &mut self.durable;
        if durable.writing.is_some() || durable.is_settled() || durable.has_failed {
            return;
        }
        durable.writing = Some(durable.version);
        let (block, counter) = durable.writer.next_block(0);
        let block = if planted!(self, OneSuperblockSlot) {
            0
        } else {
            block
        };
        let bytes = encode_superblock(&self.durable.sb, block, counter);
        let token = token(Purpose::Superblock, 0, 0);
        self.write_metadata(token, block, bytes);
    }

    pub(super) fn superblock_done(&mut self) {
        let durable = &mut self.durable;
        durable.durable = durable
            .writing
            .take()
            .expect("one superblock write is under way");
        self.ops.attention = true;
    }

    /// Metadata cannot be written: nothing may be promised, so nothing is (as a crash).
    pub(super) fn metadata_failed(&mut self, _error: DiskError) {
        if std::mem::replace(&mut self.durable.has_failed, true) {
            return;
        }
        self.notice(Notice::MetaFailed);
        self.fail_everything();
        if self.has_votes() {
            // It can vote for nothing any more: the others go on without it.
            self.step_down();
        }
    }

    /// Starts a change of S to `in_sync`. A shrink takes a new term (law T9, quorum off).
    pub(super) fn propose(&mut self, in_sync: NodeSet) {
        let Some(now) = self.record() else { return };
        assert!(self.durable.change.is_none(), "one change of S at a time");
        assert!(!in_sync.is_empty(), "S is never empty");
        let shrinks = !in_sync.contains(now.in_sync) && !self.has_votes();
        let mut record = Record {
            in_sync,
            ..now.next()
        };
        let extends_chain = shrinks && !planted!(self, NoNewTermOnShrink);
        if extends_chain {
            record.term = self.next_term();
            record.step = 0;
            record.primary = self.me;
        }
        self.propose_record(record, extends_chain, Becoming::Member);
    }

    /// A change of the record that is none of S; `admits` get their vote with it.
    pub(super) fn propose_admitting(&mut self, record: Record, admits: NodeSet) {
        self.begin_change(record, false, Becoming::Member);
        self.begin_poll(record, self.durable.sb.volume_id, admits);
    }

    fn begin_change(&mut self, record: Record, extends_chain: bool, becoming: Becoming) {
        self.drop_unagreed();
        self.durable.change = Some(Change {
            record,
            extends_chain,
            becoming,
            version: None,
        });
        self.ops.attention = true;
    }

    pub(super) fn propose_record(
        &mut self,
        record: Record,
        extends_chain: bool,
        becoming: Becoming,
    ) {
        self.begin_change(record, extends_chain, becoming);
        if !self.has_votes() {
            return self.actions.push(Action::ProposeRecord(record));
        }
        let (volume_id, admits) = match becoming {
            Becoming::Founder(volume_id) => (volume_id, record.voters.without(self.me)),
            _ => (self.durable.sb.volume_id, NodeSet::EMPTY),
        };
        self.begin_poll(record, volume_id, admits);
    }

    /// The control store answered.
    pub(super) fn record_choice(&mut self, choice: Choice) {
        self.ops.attention = true;
        let Some(mut change) = self.durable.change else {
            return;
        };
        if change.version.is_some() {
            return;
        }
        match choice {
            Choice::Chosen => {
                change.version = Some(self.write_down(&change));
                self.durable.change = Some(change);
            }
            // Not chosen until read back: ask again at the next tick.
            Choice::Unknown => self.durable.retry_at = Some(self.now.after(RETRY)),
            // Somebody else reigns: whatever needed this record is over.
            Choice::Conflict(_) => {
                self.durable.change = None;
                self.record_refused();
                if self.has_votes() {
                    self.step_down();
                }
            }
        }
    }

    /// The next tick asks the store again.
    pub(super) fn retry_record(&mut self) {
        if self.durable.retry_at.is_none_or(|at| at > self.now) {
            return;
        }
        self.durable.retry_at = None;
        if let Some(Change {
            record,
            version: None,
            ..
        }) = self.durable.change
        {
            self.actions.push(Action::ProposeRecord(record));
        }
    }

    fn write_down(&mut self, change: &Change) -> u64 {
        let record = change.record;
        let sb = &mut self.durable.sb;
        match change.becoming {
            Becoming::Member => {}
            Becoming::Founder(volume_id) => {
                (sb.volume_id, sb.disk, sb.whole) = (volume_id, Disk::UpToDate, true);
            }
            Becoming::Forced => {
                (sb.disk, sb.whole) = (Disk::UpToDate, true);
                sb.chain.pop();
            }
        }
        (sb.record, sb.joined, sb.follows) = (Some(record), record.in_sync, 0);
        sb.promised = sb.promised.max(record.term);
        if change.extends_chain {
            sb.chain.push(Entry::new(record.branch, record.term));
        }
        // Alone in S this copy is what the volume is.
        sb.whole |= record.in_sync == NodeSet::only(self.me);
        self.durable.touch()
    }

    /// Ends a change whose record became durable: it is in force now.
    pub(super) fn settle_record(&mut self) {
        let Some(change) = self.durable.change else {
            return;
        };
        let Some(version) = change.version else {
            return;
        };
        if !self.durable.is_durable(version) {
            return;
        }
        self.durable.change = None;
        let before = self.durable.record.replace(change.record);
        if before.is_some_and(|r| r.voters != change.record.voters) {
            self.voters_changed();
        }
        self.notice(Notice::InSync {
            record: change.record,
        });
        self.tell_record(change.record.in_sync.without(self.me));
        let out = before.map_or(NodeSet::EMPTY, |r| r.in_sync);
        for node in out.and(self.leaving()).iter() {
            if self.has_let_go(node) {
                self.drop_link(node);
            }
        }
        self.record_in_force();
        self.reconsider_all();
    }

    /// Says the record to members that are connected; they write it down and confirm nothing of
    /// a newer term before.
    pub(super) fn tell_record(&mut self, members: NodeSet) {
        let Some(record) = self.record() else { return };
        let chain = self.durable.sb.chain.clone();
        let lives = self.lives_of(record.in_sync);
        for node in members.iter() {
            // A target that is back in the middle of a change of S is told nothing yet (law S6).
            let stays = planted!(self, LostTargetStaysInS);
            let peer = self.peers.find(node).filter(|p| p.takes_part() || stays);
            let Some(link) = peer.and_then(|p| p.session.data_link()) else {
                continue;
            };
            self.peers.get_mut(node).record_pending = true;
            let message = Message::Record {
                record,
                chain: chain.clone(),
                lives: lives.clone(),
            };
            self.actions.push(Action::Send {
                link,
                message,
                payload: None,
            });
        }
    }

    /// Which replicas a record of this reign means.
    fn lives_of(&self, members: NodeSet) -> Box<Lives> {
        let mut lives: Box<Lives> = Box::default();
        if !self.has_votes() {
            return lives;
        }
        for node in members.iter() {
            // Who is at the link by now may be another replica than the one that the record took in.
            let peer = self.peers.find(node).filter(|p| p.takes_part());
            let hello = peer.and_then(|p| p.hello.as_ref());
            lives[usize::from(node.0)] = match node == self.me {
                true => self.durable.sb.identity(),
                false => hello.map_or(0, |h| h.incarnation),
            };
        }
        lives
    }

    /// S must shrink by everybody who cannot confirm any more.
    pub(super) fn settle_membership(&mut self) {
        if self.durable.change.is_some() || !self.is_serving_record() {
            return;
        }
        let now = self.in_sync();
        let mut next = now;
        for node in now.iter() {
            let is_lost = match node == self.me {
                true => !self.is_disk_usable(),
                false => !self.is_member_alive(node),
            };
            if is_lost {
                next = next.without(node);
            }
        }
        next = next.minus(self.may_leave_copies(next));
        // The last member never leaves (law R1).
        if next != now && !next.is_empty() {
            self.propose(next);
        }
    }

    /// This node acknowledges writes under its record, so a lost member must leave S.
    fn is_serving_record(&self) -> bool {
        self.reigns() && self.role.is_serving() && !self.durable.has_failed
    }

    fn is_member_alive(&self, node: NodeIdx) -> bool {
        let peer = self.peers.get(node);
        // A target is no member, but while the record that takes it in is told.
        let takes_part = match peer.session {
            Session::Source(_) if self.has_votes() => {
                peer.source.is_joining() || planted!(self, LostTargetStaysInS)
            }
            session => session.data_link().is_some(),
        };
        takes_part && peer.disk != Disk::Failed
    }
}
