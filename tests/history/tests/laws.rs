//! One small history per law, kept and broken.

use history::{
    Checker, Crash, History, Law, Op, OpId, Outcome, RecordError, Seen, Session, exhaustive,
};

const A: Session = Session(1);
const B: Session = Session(2);

fn write(tag: u64) -> Op {
    Op::Write {
        first: 7,
        tags: vec![tag],
        fua: false,
    }
}

fn fua(tag: u64) -> Op {
    Op::Write {
        first: 7,
        tags: vec![tag],
        fua: true,
    }
}

const READ: Op = Op::Read { first: 7, count: 1 };
const TRIM: Op = Op::Zero {
    first: 7,
    count: 1,
    fua: false,
};

/// Records from left to right.
#[derive(Default)]
struct Tape(History);

impl Tape {
    fn done(mut self, from: u64, to: u64, session: Session, op: Op) -> Self {
        let id = self.0.invoke(from, session, op);
        self.0.complete(to, id, Outcome::Done);
        self
    }

    fn sent(mut self, from: u64, session: Session, op: Op) -> Self {
        self.0.invoke(from, session, op);
        self
    }

    fn failed(mut self, from: u64, to: u64, session: Session, op: Op) -> Self {
        let id = self.0.invoke(from, session, op);
        self.0.complete(to, id, Outcome::Failed);
        self
    }

    fn reads(mut self, from: u64, to: u64, session: Session, seen: Seen) -> Self {
        let id = self.0.invoke(from, session, READ);
        self.0.complete(to, id, Outcome::Read(vec![seen]));
        self
    }

    fn tag(self, from: u64, to: u64, session: Session, tag: u64) -> Self {
        self.reads(from, to, session, Seen::Tag(tag))
    }

    fn zeros(self, from: u64, to: u64, session: Session) -> Self {
        self.reads(from, to, session, Seen::Zero)
    }

    fn crash(mut self, time: u64, crash: Crash) -> Self {
        self.0.crash(time, crash);
        self
    }

    fn close(mut self, time: u64, session: Session) -> Self {
        self.0.close(time, session);
        self
    }

    /// No law is broken, and the search agrees.
    fn keeps_the_laws(self) {
        let report = self.0.check().expect("recorded in order");
        assert!(report.is_clean(), "{report:#?}");
        assert_eq!(exhaustive::judge(&self.0), [0u64; 0]);
        assert!(report.counts.blocks_read > 0, "nothing was judged");
    }

    /// Exactly this law is broken, the story tells these words, and the search agrees.
    fn breaks(self, law: Law, words: &[&str]) {
        let report = self.0.check().expect("recorded in order");
        let laws: Vec<Law> = report.violations.iter().map(|v| v.law).collect();
        assert_eq!(laws, [law], "{report:#?}");
        let story = report.violations[0].to_string();
        for word in words {
            assert!(story.contains(word), "{word:?} is missing in: {story}");
        }
        assert_eq!(exhaustive::judge(&self.0), [7]);
    }
}

#[test]
fn a_fresh_block_reads_zeros_then_what_was_written() {
    Tape::default()
        .zeros(0, 1, A)
        .done(2, 3, A, write(5))
        .tag(4, 5, B, 5)
        .keeps_the_laws();
}

#[test]
fn a_stale_read_breaks_b1() {
    Tape::default()
        .done(0, 1, A, write(5))
        .done(2, 3, A, write(6))
        .tag(4, 5, B, 5)
        .breaks(
            Law::B1,
            &["tag 5", "tag 6", "answered OK at 3", "sent at 4"],
        );
}

#[test]
fn zeros_after_an_acknowledged_write_break_b1() {
    Tape::default()
        .done(0, 1, A, write(5))
        .zeros(2, 3, A)
        .breaks(Law::B1, &["zeros", "tag 5"]);
}

#[test]
fn a_tag_never_written_breaks_b1() {
    Tape::default()
        .tag(2, 3, A, 99)
        .breaks(Law::B1, &["tag 99", "never written here"]);
}

#[test]
fn a_value_that_flickers_breaks_b1() {
    // The write is never answered, yet once seen it may not be unseen.
    Tape::default()
        .done(0, 1, A, write(5))
        .sent(2, A, write(6))
        .tag(3, 4, B, 6)
        .tag(5, 6, B, 5)
        .breaks(Law::B1, &["tag 5", "tag 6"]);
}

#[test]
fn requests_in_flight_together_may_come_in_any_order() {
    let mut history = History::default();
    let one = history.invoke(0, A, write(5));
    let two = history.invoke(1, B, write(6));
    history.complete(10, two, Outcome::Done);
    history.complete(11, one, Outcome::Done);
    Tape(history)
        .tag(12, 13, A, 6)
        .tag(14, 15, B, 6)
        .keeps_the_laws();
}

#[test]
fn a_mixture_breaks_b2() {
    Tape::default()
        .done(0, 1, A, write(5))
        .reads(2, 3, A, Seen::Mixed)
        .breaks(Law::B2, &["mixture"]);
}

#[test]
fn a_failed_write_may_happen_until_its_session_ends() {
    let start = || {
        Tape::default()
            .done(0, 1, A, write(5))
            .failed(2, 3, B, write(6))
    };
    start().tag(4, 5, A, 5).tag(6, 7, A, 6).keeps_the_laws();
    start()
        .tag(4, 5, A, 5)
        .close(8, B)
        .tag(9, 10, A, 6)
        .keeps_the_laws();
    start()
        .close(4, B)
        .tag(5, 6, A, 5)
        .tag(7, 8, A, 6)
        .breaks(Law::B3, &["tag 6", "never answered OK", "by 4"]);
}

#[test]
fn a_write_after_a_reconnect_is_never_overtaken_by_one_before_it() {
    Tape::default()
        .sent(0, A, write(5))
        .close(2, A)
        .done(3, 4, B, write(6))
        .tag(5, 6, B, 5)
        .breaks(Law::B3, &["tag 5", "tag 6"]);
}

#[test]
fn a_flushed_write_survives_every_loss() {
    let start = || {
        Tape::default()
            .done(0, 1, A, write(5))
            .done(2, 3, A, write(6))
            .done(4, 5, B, Op::Flush)
            .done(6, 7, A, write(8))
            .crash(10, Crash::VolatileLost)
    };
    let (a, b) = (Session(3), Session(4));
    start().tag(11, 12, a, 6).tag(13, 14, b, 6).keeps_the_laws();
    start().tag(11, 12, a, 8).tag(13, 14, b, 8).keeps_the_laws();
    start()
        .tag(11, 12, a, 5)
        .breaks(Law::B4, &["tag 5", "tag 6 had to survive", "flush"]);
    start()
        .zeros(11, 12, a)
        .breaks(Law::B4, &["zeros", "flush"]);
    start()
        .tag(11, 12, a, 6)
        .tag(13, 14, b, 8)
        .breaks(Law::B1, &["tag 8", "tag 6", "at 10"]);
}

#[test]
fn a_flush_does_not_cover_what_was_answered_after_it_was_sent() {
    let mut history = History::default();
    let flush = history.invoke(0, B, Op::Flush);
    let one = history.invoke(1, A, write(5));
    history.complete(2, one, Outcome::Done);
    history.complete(3, flush, Outcome::Done);
    Tape(history)
        .crash(4, Crash::VolatileLost)
        .zeros(5, 6, Session(3))
        .keeps_the_laws();
}

#[test]
fn a_failed_flush_promises_nothing() {
    Tape::default()
        .done(0, 1, A, write(5))
        .failed(2, 3, A, Op::Flush)
        .crash(4, Crash::VolatileLost)
        .zeros(5, 6, Session(3))
        .keeps_the_laws();
}

#[test]
fn an_fua_write_survives_every_loss() {
    let start = || {
        Tape::default()
            .done(0, 1, A, write(5))
            .done(2, 3, A, fua(6))
            .crash(4, LOST)
    };
    const LOST: Crash = Crash::VolatileLost;
    start().tag(5, 6, B, 6).keeps_the_laws();
    start()
        .tag(5, 6, B, 5)
        .breaks(Law::B5, &["tag 6 had to survive", "FUA"]);
    start().zeros(5, 6, B).breaks(Law::B5, &["FUA"]);
}

#[test]
fn with_a_whole_member_no_acknowledged_write_is_lost() {
    let start = || {
        Tape::default()
            .done(0, 1, A, write(5))
            .done(2, 3, A, write(6))
            .crash(4, Crash::MemberWhole)
    };
    start().tag(5, 6, B, 6).keeps_the_laws();
    start()
        .tag(5, 6, B, 5)
        .breaks(Law::B7, &["tag 5", "tag 6", "answered OK at 3"]);
    start().zeros(5, 6, B).breaks(Law::B7, &["zeros"]);
}

#[test]
fn durable_acknowledgements_survive_a_power_cut_of_all() {
    let start = || {
        Tape::default()
            .done(2, 3, A, write(6))
            .crash(4, Crash::AcksDurable)
    };
    start().tag(5, 6, B, 6).keeps_the_laws();
    start().zeros(5, 6, B).breaks(Law::B6, &["zeros", "tag 6"]);
    // They also survive a later crash that loses what came after.
    let later = || {
        start()
            .done(5, 6, B, write(7))
            .crash(8, Crash::VolatileLost)
    };
    later().tag(9, 10, Session(3), 6).keeps_the_laws();
    later()
        .zeros(9, 10, Session(3))
        .breaks(Law::B6, &["tag 6 had to survive"]);
}

#[test]
fn what_a_failed_write_left_behind_is_durable_by_nothing() {
    let start = || {
        Tape::default()
            .done(0, 1, A, write(5))
            .failed(2, 3, A, write(6))
            .tag(4, 5, A, 6)
            .crash(6, Crash::AcksDurable)
    };
    // The register goes on, unless the cache is lost; what was acknowledged is on media then.
    start().tag(7, 8, B, 5).breaks(Law::R7, &["tag 5", "tag 6"]);
    let lost = || start().crash(6, Crash::VolatileLost);
    lost().tag(7, 8, B, 5).keeps_the_laws();
    lost().tag(7, 8, B, 6).keeps_the_laws();
    lost()
        .zeros(7, 8, B)
        .breaks(Law::B6, &["tag 5 had to survive"]);
}

#[test]
fn what_a_read_returned_is_not_unread_by_a_failover() {
    let start = || {
        Tape::default()
            .sent(0, A, write(5))
            .tag(1, 2, B, 5)
            .crash(4, Crash::MemberWhole)
    };
    start().tag(5, 6, Session(3), 5).keeps_the_laws();
    start().zeros(5, 6, Session(3)).breaks(Law::R7, &["tag 5"]);
}

#[test]
fn a_write_cut_off_by_a_crash_happened_before_it_or_never() {
    let start = || {
        Tape::default()
            .done(0, 1, A, write(5))
            .sent(2, A, write(6))
            .crash(4, Crash::MemberWhole)
    };
    start().tag(5, 6, B, 6).keeps_the_laws();
    start().tag(5, 6, B, 5).keeps_the_laws();
    start()
        .tag(5, 6, B, 5)
        .tag(7, 8, B, 6)
        .breaks(Law::B3, &["tag 6", "the crash at 4"]);
}

#[test]
fn a_write_acknowledged_before_a_kill_may_still_fall_to_a_power_cut_after_it() {
    // A kill -9 loses nothing, but makes nothing durable either.
    Tape::default()
        .done(0, 1, A, write(5))
        .crash(2, Crash::MemberWhole)
        .tag(3, 4, B, 5)
        .crash(5, Crash::VolatileLost)
        .zeros(6, 7, Session(3))
        .keeps_the_laws();
}

#[test]
fn trimmed_blocks_read_zeros() {
    let start = || Tape::default().done(0, 1, A, write(5)).done(2, 3, A, TRIM);
    start().zeros(4, 5, B).keeps_the_laws();
    start().tag(4, 5, B, 5).breaks(Law::B8, &["tag 5", "zeros"]);
    start()
        .crash(4, Crash::MemberWhole)
        .tag(5, 6, B, 5)
        .breaks(Law::B7, &["tag 5"]);
}

#[test]
fn a_stale_zero_after_a_trim_is_found() {
    Tape::default()
        .done(0, 1, A, TRIM)
        .done(2, 3, A, write(5))
        .zeros(4, 5, B)
        .breaks(Law::B1, &["zeros", "tag 5"]);
}

#[test]
fn a_trim_that_was_never_answered_explains_zeros_once() {
    let start = || {
        Tape::default()
            .done(0, 1, A, write(5))
            .sent(2, A, TRIM)
            .tag(4, 5, B, 5)
            .zeros(6, 7, B)
            .done(8, 9, B, write(6))
    };
    start().tag(10, 11, B, 6).keeps_the_laws();
    start()
        .zeros(10, 11, B)
        .breaks(Law::B1, &["zeros", "tag 6"]);
}

#[test]
fn a_session_older_than_a_loss_is_not_served() {
    let start = || {
        Tape::default()
            .done(0, 1, A, write(5))
            .crash(2, Crash::VolatileLost)
    };
    let Tape(history) = start().done(3, 4, A, Op::Flush);
    let report = history.check().expect("recorded in order");
    let laws: Vec<Law> = report.violations.iter().map(|v| v.law).collect();
    assert_eq!(laws, [Law::B9], "{report:#?}");
    start()
        .failed(3, 4, A, Op::Flush)
        .zeros(5, 6, B)
        .keeps_the_laws();
    // All was durable: nothing may have been lost, and the session may live on.
    Tape::default()
        .done(0, 1, A, fua(5))
        .crash(2, Crash::VolatileLost)
        .tag(3, 4, A, 5)
        .keeps_the_laws();
}

#[test]
fn blocks_of_one_request_are_judged_alone() {
    let mut history = History::default();
    history.invoke(
        0,
        A,
        Op::Write {
            first: 6,
            tags: vec![1, 2, 3],
            fua: false,
        },
    );
    let read = history.invoke(1, B, Op::Read { first: 6, count: 3 });
    let torn = vec![Seen::Zero, Seen::Tag(2), Seen::Zero];
    history.complete(2, read, Outcome::Read(torn));
    assert!(history.check().expect("recorded in order").is_clean());
    // Data of a neighbour is foreign.
    let read = history.invoke(3, B, Op::Read { first: 6, count: 3 });
    let moved = vec![Seen::Tag(2), Seen::Tag(2), Seen::Tag(2)];
    history.complete(4, read, Outcome::Read(moved));
    let report = history.check().expect("recorded in order");
    let blocks: Vec<Option<u64>> = report.violations.iter().map(|v| v.block).collect();
    assert_eq!(blocks, [Some(6), Some(8)], "{report:#?}");
}

#[test]
fn mistakes_of_the_recorder_are_refused() {
    let mut checker = Checker::without_loss();
    let id = checker.invoke(5, A, write(5)).expect("a first request");
    let refused = [
        (
            checker.invoke(4, A, READ).err(),
            RecordError::TimeRunsBack { time: 4, last: 5 },
        ),
        (
            checker.invoke(5, A, write(5)).err(),
            RecordError::TagAgain { block: 7, tag: 5 },
        ),
        (
            checker.invoke(5, A, write(0)).err(),
            RecordError::TagZero(OpId(1)),
        ),
        (
            checker
                .invoke(
                    5,
                    A,
                    Op::Read {
                        first: u64::MAX,
                        count: 2,
                    },
                )
                .err(),
            RecordError::ExtentRefused(OpId(1)),
        ),
        (
            checker
                .complete(5, id, Outcome::Read(vec![Seen::Zero]))
                .err(),
            RecordError::OutcomeOfOtherKind(id),
        ),
        (
            checker.complete(5, OpId(9), Outcome::Done).err(),
            RecordError::OpUnknown(OpId(9)),
        ),
        (
            checker.crash(5, Crash::VolatileLost).err(),
            RecordError::LossExcluded,
        ),
    ];
    for (got, expected) in refused {
        assert_eq!(got, Some(expected));
    }
    checker.close(6, A).expect("an open session");
    assert_eq!(
        checker.invoke(7, A, READ).err(),
        Some(RecordError::SessionOver(A))
    );
    checker
        .complete(8, id, Outcome::Done)
        .expect("too late, hence ignored");
    assert_eq!(checker.finish().counts.late_answers, 1);
}
