//! Growing while clients are served.
//!
//! ```text
//!  backing grown (shell) ─► bits of marks for what is new ─► durable ─► superblock: the commit
//!                                                                         └► durable ─► answer
//! ```
//!
//! A crash before the commit leaves the old size, with nothing changed but bits past the end, which
//! are left out when they are read. After it the new space is part of the volume, and every mark
//! says that it changed. A volume never shrinks.

use crate::action::CommandError;
use crate::event::CommandId;
use crate::meta::{Backing, SIZE_GRANULES_MAX};

use super::Volume;

/// A growth under way.
pub(super) struct Growing {
    command: CommandId,
    size: u64,
    backing_bytes: u64,
    /// The superblock that says so, once the marks are durable.
    superblock: Option<u64>,
}

impl Volume {
    /// Whether the volume may grow to `size` granules now. The same size is an error too: there is
    /// nothing to do.
    pub fn may_grow(&self, size: u64) -> Result<(), CommandError> {
        if self.is_mirrored() {
            return Err(CommandError::GrowsAlone);
        }
        if !self.role.is_serving() {
            return Err(CommandError::NotPrimary);
        }
        if self.durable.has_failed {
            return Err(CommandError::MetaFailed);
        }
        if self.growing.is_some() || self.marks.is_setting() {
            return Err(CommandError::InProgress);
        }
        let max = self.marks.size_max().unwrap_or(SIZE_GRANULES_MAX);
        let max = max.min(SIZE_GRANULES_MAX);
        match size {
            size if size < self.size => Err(CommandError::WouldShrink { size: self.size }),
            size if size == self.size => Err(CommandError::NothingToDo),
            size if size > max => Err(CommandError::NoRoomToGrow { max }),
            _ => Ok(()),
        }
    }

    /// What holds the data.
    pub fn backing(&self) -> Backing {
        self.durable.sb.backing
    }

    pub(super) fn grow(&mut self, id: CommandId, size: u64, backing_bytes: u64) {
        if let Err(why) = self.may_grow(size) {
            return self.reply(id, Err(why));
        }
        self.marks
            .grow(self.size, size, self.durable.newest_counter());
        self.growing = Some(Growing {
            command: id,
            size,
            backing_bytes,
            superblock: None,
        });
        self.ops.attention = true;
    }

    pub(super) fn settle_growth(&mut self) {
        let Some(mut growing) = self.growing.take() else {
            return;
        };
        match growing.superblock {
            None if !self.role.is_serving() => {
                return self.reply(growing.command, Err(CommandError::Stopping));
            }
            None if self.marks.is_swept() => {
                let sb = &mut self.durable.sb;
                sb.size_granules = growing.size;
                sb.backing.size = sb.backing.size.max(growing.backing_bytes);
                growing.superblock = Some(self.durable.touch());
            }
            Some(version) if self.durable.is_durable(version) => {
                self.size = growing.size;
                self.ops.attention = true;
                return self.reply(growing.command, Ok(crate::action::Answer::Ok));
            }
            None | Some(_) => {}
        }
        self.growing = Some(growing);
    }

    /// Metadata cannot be written: whether the growth was committed is seen at the next attach.
    pub(super) fn fail_growth(&mut self) {
        if let Some(growing) = self.growing.take() {
            self.reply(growing.command, Err(CommandError::MetaFailed));
        }
    }
}
