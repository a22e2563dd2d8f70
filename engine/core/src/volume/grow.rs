//! Growing while clients are served.
//!
//! ```text
//!  asking ─► every member of S has room: GrowAsk, GrowAnswer          (mirrored only)
//!  agreeing ─► attribute `size`, not in force yet, durable on all of S: whoever reigns goes on
//!  backing ─► long enough, zeros where it is new                       ┐
//!  bits ─► of marks and of other replicas, for what is new, durable    ├ at each replica
//!  committing ─► superblock with the new size: the commit              ┘
//!  telling ─► attribute `size`, in force: a member confirms it when its own commit is durable
//!               └► clients may use what is new ─► answer
//! ```
//!
//! A crash before the commit leaves the old size, with nothing changed but bits past the end, which
//! are left out when they are read. After it the new space is part of the volume, and every mark
//! says that it changed. A volume never shrinks: what one replica committed all of S had agreed to
//! and had room for, so a replica that meets a larger one of its history follows it (`handshake.rs`).

use std::time::Duration;

use crate::action::{Action, Answer, CommandError, Notice};
use crate::agree::FEATURE_GROWTH;
use crate::bitmap::{BITS_PER_PAGE, pages_for};
use crate::event::{CommandId, DiskError, LinkId};
use crate::message::{Message, Status};
use crate::meta::{Attributes, Backing, SIZE_GRANULES_MAX};
use crate::time::Instant;
use crate::units::{NodeIdx, NodeSet};

use super::peer::Room;
use super::{Volume, planted};

/// The attribute: granules u64, in force u8, little-endian.
const SIZE_KEY: &str = "size";
/// A member that makes room writes every block of it where it is allocated in full.
const ROOM_WITHIN: Duration = Duration::from_secs(600);
/// Between two tries to make the backing longer.
const BACKING_AGAIN: Duration = Duration::from_secs(2);

/// A growth under way.
pub(super) struct Growing {
    command: Option<CommandId>,
    size: u64,
    /// What clients may use until all of S has the new size.
    before: u64,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Asking {
        since: Instant,
    },
    /// Versions of table and superblock.
    Agreeing(u64, u64),
    Backing,
    /// Pages that are new are written twice, so that both their slots are whole.
    Bits {
        is_second: bool,
    },
    /// The superblock of this version.
    Committing(u64),
    Telling(u64, u64),
}

/// What the shell does about the backing.
#[derive(Default)]
pub(super) struct Lengthening {
    /// Granules that it holds, zeros where they are new, and its bytes.
    ready: Option<(u64, u64)>,
    asked: Option<u64>,
    /// A peer that waits for it.
    asker: Option<(NodeIdx, LinkId, u64)>,
    again_at: Option<Instant>,
    /// A size that there is no room for, once that was said.
    beyond: Option<u64>,
    /// Committed here by who does not lead now: what clients may use until all of S has the size.
    withheld: Option<u64>,
    /// This node put the size in force, and did not hear that all of S knows.
    is_untold: bool,
}

/// What the table says: granules, and whether they are in force.
fn agreed(table: &Attributes) -> Option<(u64, bool)> {
    let value = table.get(SIZE_KEY)?;
    let (size, rest) = value.split_first_chunk()?;
    Some((u64::from_le_bytes(*size), rest == [1]))
}

fn agreement(size: u64, is_in_force: bool) -> Vec<u8> {
    let mut value = size.to_le_bytes().to_vec();
    value.push(u8::from(is_in_force));
    value
}

impl Volume {
    /// Whether the volume may grow to `size` granules now. The same size is an error too: there is
    /// nothing to do.
    pub fn may_grow(&self, size: u64) -> Result<(), CommandError> {
        if !self.role.is_serving() {
            let primary = self.peers.iter().find(|p| p.is_connected() && p.is_primary);
            return Err(primary.map_or(CommandError::NotPrimary, |p| {
                CommandError::PrimaryElsewhere(p.node)
            }));
        }
        if self.durable.has_failed {
            return Err(CommandError::MetaFailed);
        }
        if self.growing.is_some() || self.marks.is_setting() || self.unfinished().is_some() {
            return Err(CommandError::InProgress);
        }
        let max = self.room_max();
        match size {
            size if size < self.size => Err(CommandError::WouldShrink { size: self.size }),
            size if size == self.size => Err(CommandError::NothingToDo),
            size if size > max => Err(CommandError::NoRoomToGrow { max }),
            _ => self.are_members_able(),
        }
    }

    /// Granules of the largest volume that this replica's metadata has room for.
    fn room_max(&self) -> u64 {
        let marks = match self.marks.size_max() {
            // What is agreed on travels as an attribute.
            None if self.is_mirrored() => self.size,
            max => max.unwrap_or(SIZE_GRANULES_MAX),
        };
        let bits = |pages: usize| pages as u64 * BITS_PER_PAGE * u64::from(self.durable.sb.grain);
        let rooms = self.peers.iter().map(|p| bits(p.pages_max));
        let room = marks.min(self.checksums.size_granules_max());
        rooms.fold(room, u64::min).min(SIZE_GRANULES_MAX)
    }

    fn are_members_able(&self) -> Result<(), CommandError> {
        let others = self.required().without(self.me);
        let is_old = |n: &NodeIdx| {
            let hello = self.peers.find(*n).and_then(|p| p.hello.as_ref());
            hello.is_some_and(|h| h.features_offered & FEATURE_GROWTH == 0)
        };
        match others.iter().find(is_old) {
            Some(node) => Err(CommandError::GrowthUnknown(node)),
            None => Ok(()),
        }
    }

    /// What holds the data.
    pub fn backing(&self) -> Backing {
        self.durable.sb.backing
    }

    /// Granules of this replica.
    pub fn granules(&self) -> u64 {
        self.size
    }

    /// What is new in a mirror reads as zeros on every replica: the backing is zeroed there.
    pub fn grows_by_zeros(&self) -> bool {
        self.is_mirrored()
    }

    /// Granules that clients may use.
    #[inline]
    pub(super) fn client_size(&self) -> u64 {
        match &self.growing {
            Some(growing) if self.is_mirrored() => growing.before,
            _ => self.size_in_use(),
        }
    }

    /// Granules that every member of the sessions that go on has.
    fn size_in_use(&self) -> u64 {
        let is_open =
            |before: &u64| self.is_mirrored() && self.unfinished().is_some() && *before < self.size;
        self.lengthening
            .withheld
            .filter(is_open)
            .unwrap_or(self.size)
    }

    /// Granules that clients may use, where this node serves them.
    pub fn served_granules(&self) -> u64 {
        self.client_size()
    }

    /// Bits and size of this replica change: no session begins on them.
    pub(super) fn is_resizing(&self) -> bool {
        let stage = self.growing.as_ref().map(|g| g.stage);
        matches!(stage, Some(Stage::Bits { .. } | Stage::Committing(_)))
    }

    /// A size is in force that this replica does not have yet.
    pub(super) fn owes_size(&self) -> bool {
        let agreed = agreed(&self.attributes.table);
        agreed.is_some_and(|(size, is_in_force)| is_in_force && size > self.size)
    }

    /// A table may speak only of a size that there is room for.
    pub(super) fn can_have_size(&self, table: &Attributes) -> bool {
        let Some(value) = table.get(SIZE_KEY) else {
            return true;
        };
        let agreed = agreed(table).filter(|_| value.len() == 9 && value[8] <= 1);
        agreed.is_some_and(|(size, _)| size <= self.room_max())
    }

    /// A growth that all of S agreed to, or was about to, and that did not end.
    fn unfinished(&self) -> Option<u64> {
        let (size, is_in_force) = agreed(&self.attributes.table)?;
        let is_open = !is_in_force || size > self.size || self.lengthening.is_untold;
        (is_open && size <= self.room_max()).then_some(size)
    }

    pub(super) fn grow(&mut self, id: CommandId, size: u64, backing_bytes: u64) {
        if let Err(why) = self.may_grow(size) {
            return self.reply(id, Err(why));
        }
        self.lengthening.ready = Some((size, backing_bytes));
        let stage = match self.is_mirrored() {
            true => Stage::Asking { since: self.now },
            false => Stage::Backing,
        };
        for peer in self.peers.iter_mut() {
            peer.room = Room::Unasked;
        }
        self.begin_growth(Some(id), size, stage);
    }

    fn begin_growth(&mut self, command: Option<CommandId>, size: u64, stage: Stage) {
        self.growing = Some(Growing {
            command,
            size,
            before: self.size_in_use(),
            stage,
        });
        self.ops.attention = true;
    }

    /// A peer of our history is larger: so much was agreed by all of S.
    pub(super) fn follow(&mut self, node: NodeIdx, size: u64) {
        let max = self.room_max();
        if size > max {
            if self.lengthening.beyond.replace(size) != Some(size) {
                self.notice(Notice::CannotGrow { size, max });
            }
            return;
        }
        let is_idle = self.growing.is_none() && !self.role.is_serving();
        if is_idle && self.peers.find(node).is_some() {
            self.begin_growth(None, size, Stage::Backing);
        }
    }

    /// Who reigns asks for room.
    pub(super) fn room_wanted(&mut self, node: NodeIdx, link: LinkId, size: u64) {
        let session = self.peers.get(node).session;
        if !session.is_fed() {
            return self.breach(node);
        }
        if size <= self.size {
            // Others told of it first: this word was long on its way.
            return self.answer_room(node, size, Status::Ok);
        }
        if size > self.room_max() {
            return self.answer_room(node, size, Status::Refused);
        }
        self.lengthening.asker = Some((node, link, size));
        self.lengthen(size);
        self.settle_asker(Ok(()));
    }

    fn answer_room(&mut self, node: NodeIdx, size: u64, status: Status) {
        let max = self.room_max();
        self.say(node, Message::GrowAnswer { size, max, status });
    }

    /// A member answers.
    pub(super) fn room_told(&mut self, node: NodeIdx, size: u64, max: u64, status: Status) {
        let peer = self.peers.get_mut(node);
        if peer.room == Room::Asked(size) {
            peer.room = match status {
                Status::Ok => Room::Ready(size),
                _ => Room::Lacking(status, max),
            };
            self.ops.attention = true;
        }
    }

    /// Has the backing made long enough, unless it is.
    fn lengthen(&mut self, size: u64) {
        let work = &mut self.lengthening;
        let is_early = work.again_at.is_some_and(|at| self.now < at);
        let is_ready = work.ready.is_some_and(|(ready, _)| ready >= size);
        if is_ready || work.asked.is_some() || is_early {
            return;
        }
        (work.asked, work.again_at) = (Some(size), None);
        let from = self.size;
        self.actions.push(Action::GrowBacking { from, size });
    }

    /// The shell made the backing longer, or could not.
    pub(super) fn backing_grown(&mut self, size: u64, result: Result<u64, DiskError>) {
        self.ops.attention = true;
        let work = &mut self.lengthening;
        work.asked = None;
        match result {
            Ok(bytes) => work.ready = Some((size, bytes)),
            Err(error) => {
                work.again_at = Some(self.now.after(BACKING_AGAIN));
                return self.settle_asker(Err(error));
            }
        }
        self.settle_asker(Ok(()));
    }

    /// Answers the peer that waits for room.
    fn settle_asker(&mut self, result: Result<(), DiskError>) {
        let Some((node, link, size)) = self.lengthening.asker else {
            return;
        };
        let is_ready = self.lengthening.ready.is_some_and(|(r, _)| r >= size);
        let status = match result {
            Ok(()) if is_ready => Status::Ok,
            Ok(()) if self.lengthening.asked.is_some() => return,
            // Another size was asked for, or the last try was a moment ago.
            Ok(()) => Status::Io,
            Err(error) => error.into(),
        };
        self.lengthening.asker = None;
        if self.peers.by_link(link) == Some(node) {
            self.answer_room(node, size, status);
        }
    }

    pub(super) fn settle_growth(&mut self) {
        if self.growing.is_none() {
            self.show_size();
            self.begin_unfinished();
        }
        let Some(growing) = &self.growing else { return };
        let (size, stage) = (growing.size, growing.stage);
        let may_end = matches!(
            stage,
            Stage::Asking { .. } | Stage::Agreeing(..) | Stage::Telling(..)
        );
        let is_alone = !self.is_mirrored() && !matches!(stage, Stage::Committing(_));
        let is_over = !self.role.is_serving() && (may_end || is_alone);
        if is_over || !self.role.takes_links() && !matches!(stage, Stage::Committing(_)) {
            // Whoever reigns next goes on, or has the old size.
            return self.end_growth(Err(CommandError::Stopping));
        }
        if let Some(error) = self.why_not_all() {
            if matches!(stage, Stage::Asking { .. }) {
                return self.end_growth(Err(error));
            }
            // It was agreed upon, and goes on once the majority is back.
            let command = self.growing.as_mut().and_then(|g| g.command.take());
            if let Some(command) = command {
                self.reply(command, Err(error));
            }
        }
        match stage {
            Stage::Asking { since } => self.settle_asking(size, since),
            Stage::Agreeing(table, superblock) => {
                if self.is_told_everywhere(table, superblock) {
                    self.growth_goes_on(Stage::Backing);
                }
            }
            Stage::Backing if size <= self.size => self.take_size(self.size),
            Stage::Backing => {
                self.lengthen(size);
                if self.lengthening.ready.is_some_and(|(r, _)| r >= size) {
                    self.widen(size);
                }
            }
            Stage::Bits { is_second } => self.settle_bits(size, is_second),
            Stage::Committing(version) if self.durable.is_durable(version) => self.take_size(size),
            Stage::Committing(_) => {}
            Stage::Telling(table, superblock) => {
                if self.is_told_everywhere(table, superblock) {
                    self.end_growth(Ok(Answer::Ok));
                }
            }
        }
    }

    /// What an earlier process or primary began, or a primary told.
    fn begin_unfinished(&mut self) {
        if self.durable.has_failed || !self.is_mirrored() || !self.is_replica() {
            return;
        }
        let Some(size) = self.unfinished() else {
            return;
        };
        let (leads, owes) = (self.leads_growth(), self.owes_size());
        if leads {
            let versions = (
                self.attributes.newest_version(),
                self.durable.newest_version(),
            );
            self.begin_growth(None, size, Stage::Agreeing(versions.0, versions.1));
        } else if owes && self.role.takes_links() {
            self.begin_growth(None, size, Stage::Backing);
        }
    }

    fn leads_growth(&self) -> bool {
        self.role.is_primary() && self.reigns()
    }

    fn growth_goes_on(&mut self, stage: Stage) {
        if let Some(growing) = &mut self.growing {
            growing.stage = stage;
        }
        self.ops.attention = true;
    }

    fn end_growth(&mut self, result: Result<Answer, CommandError>) {
        let Some(growing) = self.growing.take() else {
            return;
        };
        let is_telling = matches!(growing.stage, Stage::Telling(..));
        self.lengthening.withheld = Some(growing.before);
        self.lengthening.is_untold = is_telling && result.is_err();
        self.show_size();
        if let Some(command) = growing.command {
            self.reply(command, result);
        }
        self.ops.attention = true;
    }

    /// Says how large the volume is now, once clients may use all of it.
    fn show_size(&mut self) {
        // With metadata that cannot be written nobody else may know of it: another one that serves
        // would take the new space from clients again.
        let Some(before) = self
            .lengthening
            .withheld
            .filter(|_| !self.durable.has_failed)
        else {
            return;
        };
        let size = self.size_in_use();
        if size > before {
            self.notice(Notice::Grown { size });
        }
        if size == self.size {
            self.lengthening.withheld = None;
        }
    }

    /// Everybody whose confirmation counts has room, or one of them has none.
    fn settle_asking(&mut self, size: u64, since: Instant) {
        let others = self.required().without(self.me);
        let mut is_ready = true;
        for node in others.iter() {
            let Some(peer) = self.peers.find_mut(node) else {
                continue;
            };
            let is_connected = peer.session.data_link().is_some();
            match peer.room {
                Room::Ready(ready) if ready == size && is_connected => continue,
                Room::Lacking(Status::Refused, max) => {
                    return self.end_growth(Err(CommandError::NoRoomOn { node, max }));
                }
                Room::Lacking(status, _) => {
                    let error = match status {
                        Status::NoSpace => DiskError::NoSpace,
                        _ => DiskError::Io,
                    };
                    return self.end_growth(Err(CommandError::NoBackingOn { node, error }));
                }
                Room::Unasked if is_connected => {
                    let hello = peer.hello.as_ref();
                    if hello.is_none_or(|h| h.features_offered & FEATURE_GROWTH == 0) {
                        return self.end_growth(Err(CommandError::GrowthUnknown(node)));
                    }
                    peer.room = Room::Asked(size);
                    self.say(node, Message::GrowAsk { size });
                }
                _ => {}
            }
            is_ready = false;
            if self.now.since(since) > ROOM_WITHIN {
                return self.end_growth(Err(CommandError::NoWordOfRoom(node)));
            }
        }
        if is_ready && self.durable.change.is_none() {
            let value = agreement(size, false);
            let (table, superblock) = self.set_attribute(SIZE_KEY, &value);
            self.growth_goes_on(Stage::Agreeing(table, superblock));
        }
    }

    /// Everybody whose confirmation counts has our table durably, and so has this node.
    fn is_told_everywhere(&self, table: u64, superblock: u64) -> bool {
        let mut others = self.required().without(self.me).iter();
        let is_told = others.all(|node| {
            let peer = self.peers.find(node);
            peer.is_some_and(|p| p.session.data_link().is_some() && p.told.is_settled())
        });
        let is_told = is_told || planted!(self, GrowthNotAgreed);
        is_told && self.attributes.is_durable(table) && self.durable.is_durable(superblock)
    }

    /// Bits for what is new: every mark says that it changed, and who is not in S lacks it.
    fn widen(&mut self, size: u64) {
        let counter = self.durable.newest_counter();
        self.marks.grow(self.size, size, counter);
        let record = self.durable.sb.record.map_or(NodeSet::EMPTY, |r| r.in_sync);
        let members = match self.role.is_serving() {
            true => self.required(),
            false => record,
        };
        let pages = pages_for(size, self.durable.sb.grain) as usize;
        for peer in self.peers.iter_mut() {
            peer.writer.grow(pages, 0);
            match members.has(peer.node) {
                true => peer.dirty.widen(size),
                false => peer.dirty.grow(size),
            }
        }
        self.pages.wants_all = true;
        self.growth_goes_on(Stage::Bits { is_second: false });
        for node in self.peers.nodes() {
            if !members.has(node) {
                self.drop_link(node);
            }
        }
        self.drop_unagreed();
    }

    fn settle_bits(&mut self, size: u64, is_second: bool) {
        self.pages.wants_all |= self.is_mirrored();
        let is_durable = self.peers.nodes().all(|n| self.are_bits_durable(n));
        if !is_durable || !self.marks.is_swept() {
            return;
        }
        let old_pages = pages_for(self.size, self.durable.sb.grain) as usize;
        let is_new = self.peers.iter().any(|p| p.dirty.page_count() > old_pages);
        if is_new && !is_second && !planted!(self, NewPagesWrittenOnce) {
            for peer in self.peers.iter_mut() {
                peer.dirty.touch_pages(old_pages);
            }
            return self.growth_goes_on(Stage::Bits { is_second: true });
        }
        let bytes = self.lengthening.ready.map_or(0, |(_, bytes)| bytes);
        let sb = &mut self.durable.sb;
        sb.size_granules = size;
        sb.backing.size = sb.backing.size.max(bytes);
        let version = self.durable.touch();
        self.growth_goes_on(Stage::Committing(version));
    }

    /// This replica has the new size. Who reigns says so to all of S; clients may use it once all
    /// of them have it too.
    fn take_size(&mut self, size: u64) {
        self.size = size;
        self.ops.attention = true;
        if !self.is_mirrored() {
            return self.end_growth(Ok(Answer::Ok));
        }
        if !self.leads_growth() {
            // Whoever reigns next tells the others.
            return self.end_growth(Err(CommandError::Stopping));
        }
        let value = agreement(size, true);
        let (table, superblock) = self.set_attribute(SIZE_KEY, &value);
        self.growth_goes_on(Stage::Telling(table, superblock));
    }

    /// Metadata cannot be written: whether the growth was committed is seen at the next attach.
    pub(super) fn fail_growth(&mut self) {
        self.end_growth(Err(CommandError::MetaFailed));
    }
}
