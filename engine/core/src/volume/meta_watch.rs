//! Metadata that hangs under who serves (laws L3, L4).
//!
//! Whatever needs a new record, a log slot or a bit waits then, while the lease goes on being granted:
//! nobody else could take over. So the role is laid down, and the lease given back, as soon as another
//! member can have it. The copy stays a member: if the disk answers again, nothing was lost.

use std::time::Duration;

use crate::action::{Action, MetaBlock, Notice};
use crate::event::Token;
use crate::time::Instant;

use super::{Volume, planted};

/// Writes of metadata under way, and reads of checksums that requests wait for.
#[derive(Default)]
pub(super) struct MetaWatch {
    count: u32,
    /// Since when none ended, as of a tick.
    since: Option<Instant>,
}

impl MetaWatch {
    /// One of them begins.
    pub fn began(&mut self) {
        self.count += 1;
    }

    /// One of them ended.
    pub fn ended(&mut self) {
        self.count = self.count.saturating_sub(1);
        self.since = None;
    }

    /// Time in which nobody listened.
    pub fn forgive(&mut self, absence: Duration, now: Instant) {
        self.since = self.since.map(|since| since.after(absence).min(now));
    }
}

impl Volume {
    pub(super) fn write_metadata(&mut self, token: Token, block: u64, bytes: Box<MetaBlock>) {
        self.meta_watch.began();
        self.actions.push(Action::MetaWrite {
            token,
            block,
            bytes,
        });
    }

    /// No write of it has ended for longer than any member may take.
    pub(super) fn is_metadata_late(&self) -> bool {
        let limit = self.setup.member_timeout;
        let since = self.meta_watch.since;
        since.is_some_and(|since| self.now.since(since) >= limit)
    }

    /// Every tick.
    pub(super) fn watch_metadata(&mut self) {
        if self.meta_watch.count > 0 {
            self.meta_watch.since.get_or_insert(self.now);
        }
        let may_leave = self.has_votes() && self.role.is_serving() && !self.is_last_member();
        if self.is_metadata_late() && may_leave && !planted!(self, ServesOverHungMetadata) {
            self.notice(Notice::MetaHangs);
            self.step_down();
            self.release_lease(None);
        }
    }
}
