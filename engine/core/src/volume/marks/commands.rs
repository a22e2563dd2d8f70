//! A mark is created or deleted: durable on all of S before it is answered.

use crate::action::{Answer, CommandError};
use crate::event::CommandId;
use crate::marks::{MARKS_KEY, MARKS_MAX, MarkEntry, MarkName};
use crate::units::NodeIdx;

use super::super::Volume;
use super::super::role::mix;
use super::{Mark, Setting};

impl Volume {
    pub(in crate::volume) fn create_mark(
        &mut self,
        id: CommandId,
        name: MarkName,
        created_ms: u64,
    ) {
        if let Err(why) = self.may_set_marks() {
            return self.reply(id, Err(why));
        }
        if self.marks.find(name).is_some() {
            return self.reply(id, Err(CommandError::MarkExists));
        }
        let slot = (0..MARKS_MAX as u8).find(|s| self.marks.of_slot(*s).is_none());
        let Some(slot) = slot else {
            return self.reply(id, Err(CommandError::TooManyMarks));
        };
        let had_log = self.keeps_log();
        let mark = mix(self.setup.entropy, id.0 ^ created_ms.rotate_left(32));
        self.marks.arm(MarkEntry {
            id: mark,
            created_ms,
            slot,
            is_whole: false,
            name,
        });
        let before = self.ops.each();
        let before = before
            .filter(|(_, op)| op.is_mutation() && !op.answered)
            .map(|(slot, op)| (slot, op.generation))
            .collect();
        let versions = self.set_attribute(MARKS_KEY, &self.marks.table());
        self.marks.setting = Some(Setting {
            command: id,
            created: Some(mark),
            versions,
            before,
            ended: self.turn,
            round: (!had_log).then_some(None),
        });
    }

    pub(in crate::volume) fn delete_mark(&mut self, id: CommandId, name: MarkName) {
        if let Err(why) = self.may_set_marks() {
            return self.reply(id, Err(why));
        }
        let Some(versions) = self.unlist_mark(|entry| entry.name == name) else {
            return self.reply(id, Err(CommandError::NoSuchMark));
        };
        self.marks.setting = Some(Setting {
            command: id,
            created: None,
            versions,
            before: Vec::new(),
            ended: 0,
            round: None,
        });
    }

    /// The table goes on without this mark: versions of the table and of the superblock with it.
    fn unlist_mark(&mut self, is_it: impl Fn(&MarkEntry) -> bool) -> Option<(u64, u64)> {
        let listed = |m: &&mut Mark| is_it(&m.entry) && m.is_listed();
        let mark = self.marks.marks.iter_mut().find(listed)?;
        mark.dying = Some(self.attributes.newest_version() + 1);
        Some(self.set_attribute(MARKS_KEY, &self.marks.table()))
    }

    fn may_set_marks(&self) -> Result<(), CommandError> {
        if !self.role.is_primary() {
            let primary = self.peers.iter().find(|p| p.is_connected() && p.is_primary);
            return Err(primary.map_or(CommandError::NotPrimary, |p| {
                CommandError::PrimaryElsewhere(p.node)
            }));
        }
        if self.durable.has_failed {
            return Err(CommandError::MetaFailed);
        }
        if self.marks.setting.is_some() || self.growing.is_some() {
            return Err(CommandError::InProgress);
        }
        let takes = |n: &NodeIdx| self.peers.get(*n).session.data_link().is_some();
        let mut takers = self.peers.nodes().filter(takes);
        let old = takers.find(|n| !self.knows_attributes(*n));
        match (self.keeps_attributes(), old) {
            (false, _) => Err(CommandError::NoRoomForMarks(self.me)),
            (_, Some(node)) => Err(CommandError::NoRoomForMarks(node)),
            _ => Ok(()),
        }
    }

    /// Answers a create or delete once it is durable on all of S, and what was in progress ended.
    pub(in crate::volume) fn settle_marks(&mut self) {
        let Some(mut setting) = self.marks.setting.take() else {
            return;
        };
        if !self.role.is_serving() {
            // Whether it holds is seen at the next primary.
            return self.reply(setting.command, Err(CommandError::NotPrimary));
        }
        if let Some(error) = self.why_not_all() {
            // What was to be created is not; a deletion holds from here on.
            if let Some(created) = setting.created {
                self.unlist_mark(|entry| entry.id == created);
            }
            return self.reply(setting.command, Err(error));
        }
        if !setting.before.is_empty() {
            setting.ended = self.turn;
        }
        setting.before.retain(|(slot, generation)| {
            let op = self.ops.find(*generation, *slot);
            op.is_some_and(|op| !op.answered)
        });
        if setting.before.is_empty()
            && let Some(round @ None) = &mut setting.round
        {
            *round = Some(self.flush.started + 1);
            self.flush.wanted = true;
        }
        let is_flushed = match setting.round {
            None => true,
            Some(round) => round.is_some_and(|round| self.flush.completed >= round),
        };
        let (table, superblock) = setting.versions;
        let mut others = self.required().without(self.me).iter();
        let is_everywhere = others.all(|n| {
            let peer = self.peers.find(n);
            peer.is_some_and(|p| p.session.data_link().is_some() && p.told.is_settled())
        });
        let is_done = setting.before.is_empty()
            && self.turn > setting.ended
            && is_flushed
            && is_everywhere
            && self.attributes.is_durable(table)
            && self.durable.is_durable(superblock);
        match is_done {
            true => self.reply(setting.command, Ok(Answer::Ok)),
            false => self.marks.setting = Some(setting),
        }
    }

    /// Metadata cannot be written: a create or delete under way ends.
    pub(in crate::volume) fn fail_marks(&mut self) {
        if let Some(setting) = self.marks.setting.take() {
            self.reply(setting.command, Err(CommandError::MetaFailed));
        }
    }
}
