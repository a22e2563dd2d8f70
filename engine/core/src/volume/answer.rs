//! How a request ends: answered once, dropped before it went anywhere, freed.

use crate::action::{Action, Outcome};
use crate::event::{ReqId, SessionId};

use super::ops::{Kind, Phase};
use super::{Volume, planted};

impl Volume {
    /// Answers the client, once.
    pub(super) fn answer(&mut self, slot: u32, outcome: Outcome) {
        let op = self.ops.get_mut(slot);
        if std::mem::replace(&mut op.answered, true) {
            return;
        }
        let (session, req) = (op.session, op.req);
        if !matches!(op.kind, Kind::Flush) {
            self.pace.answered(self.now.since(op.arrived));
        }
        self.complete(session, req, outcome);
    }

    /// Not dispatched and never will be: no effect.
    pub(super) fn fail_before_dispatch(&mut self, slot: u32, outcome: Outcome) {
        self.answer(slot, outcome);
        self.end(slot);
    }

    /// Gives back everything an entry holds and frees it.
    pub(super) fn end(&mut self, slot: u32) {
        let op = *self.ops.get(slot);
        if !op.held.is_empty() {
            let touched = self.touch_mark(&op);
            self.log.release(&op.held, touched);
            self.ops.attention |= !self.wait_log.is_empty();
        }
        self.let_go_of_pages(slot);
        if self.overlap.holds(slot) {
            self.overlap.remove(slot, &mut self.granted);
        }
        // Cancelled in the turn that granted its range: it must not start.
        self.granted.retain(|s| *s != slot);
        self.ops.attention |= !self.wait_dispatch.is_empty() || self.role.waits_for_drain();
        self.ops.free(slot);
        if op.is_client() && !self.closing.is_empty() {
            self.settle_closing();
        }
    }

    pub(super) fn abort(&mut self, session: SessionId, req: ReqId) {
        let is_it = |op: &super::ops::Operation| {
            op.is_client() && op.session == session && op.req == req && !op.answered
        };
        let found = self
            .ops
            .each()
            .find(|(_, op)| is_it(op))
            .map(|(slot, _)| slot);
        if let Some(slot) = found {
            self.cancel(slot);
        }
    }

    /// Drops what is not dispatched; what is, runs to its end (law B3).
    fn cancel(&mut self, slot: u32) {
        let op = self.ops.get_mut(slot);
        match op.phase {
            // Its bytes are being worked on, or a piece is out: it ends when that does.
            Phase::Job | Phase::Out => op.aborted = true,
            Phase::Ordered | Phase::Sums | Phase::Log | Phase::Dispatch | Phase::Lease => {
                self.wait_lease.retain(|s| *s != slot);
                self.wait_log.retain(|s| *s != slot);
                self.wait_dispatch.retain(|s| *s != slot);
                self.flush.forget(slot);
                self.fail_before_dispatch(slot, Outcome::Aborted);
            }
        }
    }

    pub(super) fn close_session(&mut self, session: SessionId) {
        if planted!(self, ClosedSessionDispatches) {
            return self.actions.push(Action::SessionQuiet { session });
        }
        for slot in self.ops.slots() {
            let op = self.ops.get(slot);
            if op.is_client() && op.session == session && !op.answered {
                self.cancel(slot);
            }
        }
        self.closing.push(session);
        self.settle_closing();
    }

    fn settle_closing(&mut self) {
        let ops = &self.ops;
        let actions = &mut self.actions;
        self.closing.retain(|session| {
            let runs = ops
                .each()
                .any(|(_, op)| op.is_client() && op.session == *session);
            if !runs {
                actions.push(Action::SessionQuiet { session: *session });
            }
            runs
        });
    }
}
