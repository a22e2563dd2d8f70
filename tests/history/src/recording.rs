//! A history kept whole, for small runs, files and comparison. Long runs feed a
//! [`Checker`] directly and keep nothing.

use crate::checker::Checker;
use crate::event::{Crash, Event, Op, OpId, Outcome, RecordError, Session};
use crate::report::Report;

/// Events with their times, in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    events: Vec<(u64, Event)>,
    next_op: u64,
}

impl History {
    /// Records that a request is about to be sent; the id answers for it in [`complete`].
    ///
    /// [`complete`]: History::complete
    pub fn invoke(&mut self, time: u64, session: Session, op: Op) -> OpId {
        let id = OpId(self.next_op);
        self.push(time, Event::Invoke(id, session, op));
        id
    }

    /// Records the answer to a request.
    pub fn complete(&mut self, time: u64, op: OpId, outcome: Outcome) {
        self.push(time, Event::Complete(op, outcome));
    }

    /// Records that a session was attached.
    pub fn open(&mut self, time: u64, session: Session) {
        self.push(time, Event::Open(session));
    }

    /// Records that nothing of this session can take effect any more (B3).
    pub fn close(&mut self, time: u64, session: Session) {
        self.push(time, Event::Close(session));
    }

    /// Records a crash of the cluster and with it the end of all sessions.
    pub fn crash(&mut self, time: u64, crash: Crash) {
        self.push(time, Event::Crash(crash));
    }

    /// Appends any event.
    pub fn push(&mut self, time: u64, event: Event) {
        if let Event::Invoke(id, ..) = &event {
            self.next_op = self.next_op.max(id.0.saturating_add(1));
        }
        self.events.push((time, event));
    }

    /// All events, in the order given.
    pub fn events(&self) -> &[(u64, Event)] {
        &self.events
    }

    /// Puts the events in the order of their times, for histories written by several clients at
    /// once. Of what has the same time, requests sent come first, then answers, then ends of
    /// sessions: which was first cannot be told, and this order asks least of the volume. Nothing
    /// moves across a crash of the same time.
    pub fn sort(&mut self) {
        self.events.sort_by_key(|(time, _)| *time);
        let mut rest = self.events.as_mut_slice();
        while let Some((time, first)) = rest.first() {
            let is_crash = |event: &Event| matches!(event, Event::Crash(_));
            let run = rest
                .iter()
                .take_while(|(t, e)| t == time && !is_crash(e))
                .count();
            let (run, tail) = rest.split_at_mut(if is_crash(first) { 1 } else { run });
            run.sort_by_key(|(_, event)| match event {
                Event::Open(_) | Event::Invoke(..) => 0,
                Event::Complete(..) => 1,
                Event::Close(_) | Event::Crash(_) => 2,
            });
            rest = tail;
        }
    }

    /// Judges the whole history. Errors: an event that cannot have been recorded, with its index.
    pub fn check(&self) -> Result<Report, (usize, RecordError)> {
        let loses = self
            .events
            .iter()
            .any(|(_, e)| *e == Event::Crash(Crash::VolatileLost));
        let mut checker = if loses {
            Checker::new()
        } else {
            Checker::without_loss()
        };
        for (at, (time, event)) in self.events.iter().enumerate() {
            checker.event(*time, event).map_err(|error| (at, error))?;
        }
        Ok(checker.finish())
    }
}
