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

/// What is under way of one kind.
#[derive(Default)]
pub(super) struct UnderWay {
    count: u32,
    /// Since when none ended, as of a tick.
    since: Option<Instant>,
}

impl UnderWay {
    /// One of them begins.
    pub fn began(&mut self) {
        self.count += 1;
    }

    /// One of them ended.
    pub fn ended(&mut self) {
        self.count = self.count.saturating_sub(1);
        self.since = None;
    }
}

/// Metadata under way. A disk that answers reads, from a cache of its own, may take no write any more:
/// one says nothing of the other.
#[derive(Default)]
pub(super) struct MetaWatch {
    pub writes: UnderWay,
    /// Of checksums that requests wait for.
    pub reads: UnderWay,
}

impl MetaWatch {
    /// Time in which nobody listened.
    pub fn forgive(&mut self, absence: Duration, now: Instant) {
        for kind in [&mut self.writes, &mut self.reads] {
            kind.since = kind.since.map(|since| since.after(absence).min(now));
        }
    }
}

impl Volume {
    pub(super) fn write_metadata(&mut self, token: Token, block: u64, bytes: Box<MetaBlock>) {
        self.meta_watch.writes.began();
        self.actions.push(Action::MetaWrite {
            token,
            block,
            bytes,
        });
    }

    /// No write of it, or no read, has ended for longer than any member may take.
    pub(super) fn is_metadata_late(&self) -> bool {
        let limit = self.setup.member_timeout;
        let MetaWatch { writes, reads } = &self.meta_watch;
        let since = [writes.since, reads.since];
        let mut since = since.into_iter().flatten();
        since.any(|since| self.now.since(since) >= limit)
    }

    /// Every tick.
    pub(super) fn watch_metadata(&mut self) {
        let MetaWatch { writes, reads } = &mut self.meta_watch;
        for kind in [writes, reads] {
            if kind.count > 0 {
                kind.since.get_or_insert(self.now);
            }
        }
        let may_leave = self.has_votes() && self.role.is_serving() && !self.is_last_member();
        if self.is_metadata_late() && may_leave && !planted!(self, ServesOverHungMetadata) {
            self.notice(Notice::MetaHangs);
            self.step_down();
            self.release_lease(None);
        }
    }
}
