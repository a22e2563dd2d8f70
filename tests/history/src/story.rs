//! Which law a contradiction breaks, and how it is told.

use std::collections::VecDeque;
use std::fmt::Write;

use crate::block::Reading;
use crate::cluster::{Cluster, Hypothesis, Reads, Value};
use crate::context::Context;
use crate::event::{Crash, Seen, Session};
use crate::report::Law;
use crate::settle::Gone;
use crate::stamp::Stamp;

/// A broken law and its story; the block is added by the caller.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub law: Law,
    pub text: String,
}

/// The other side of a contradiction: a write that must come both before and after the one read.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    value: Value,
    session: Option<Session>,
    start: Stamp,
    acked: Option<Stamp>,
    finish: Stamp,
    latest: Stamp,
    by_close: bool,
}

impl Other {
    pub fn of(write: &Cluster, reads: Reads) -> Self {
        Self {
            value: write.value,
            session: Some(write.session),
            start: write.start,
            acked: write.acked,
            finish: write.finish(reads),
            latest: write.latest_start(reads),
            by_close: ended_by_close(write, reads),
        }
    }

    pub fn initial(h: &Hypothesis) -> Self {
        Self {
            value: h.named.unwrap_or(Value::Zero),
            session: None,
            start: Stamp::FIRST,
            acked: None,
            finish: Stamp::FIRST,
            latest: h.first.reads.last_start,
            by_close: false,
        }
    }
}

/// Only the end of its session gives the write its `f`.
fn ended_by_close(write: &Cluster, reads: Reads) -> bool {
    write.acked.is_none()
        && write
            .closed
            .is_some_and(|closed| reads.any() && closed < reads.first_end)
}

fn moment(stamp: Stamp, context: &Context) -> String {
    if stamp == Stamp::end_of(stamp.segment) {
        let crash = usize::try_from(stamp.segment)
            .ok()
            .and_then(|at| context.crashes.get(at));
        return match crash {
            Some((time, _)) => format!("the crash at {time}"),
            None => "the crash".to_owned(),
        };
    }
    stamp.time().to_string()
}

fn subject(reading: Reading) -> String {
    format!(
        "the read of session {} sent at {} and answered at {}",
        reading.session.0,
        reading.start.time(),
        reading.end.time()
    )
}

fn name(value: Value) -> String {
    Seen::from(value).to_string()
}

fn origin(session: Option<Session>, start: Stamp, acked: Option<Stamp>) -> String {
    let Some(session) = session else {
        return "held since the era began".to_owned();
    };
    let mut text = format!(
        "written by session {}, sent at {}, ",
        session.0,
        start.time()
    );
    match acked {
        Some(end) => {
            // Writing to a String cannot fail.
            let _ = write!(text, "answered OK at {}", end.time());
        }
        None => text.push_str("never answered OK"),
    }
    text
}

/// The law that makes a value which ended at `finish` visible to a read started at `start`.
fn law_across(finish: Stamp, acked: bool, start: Stamp, context: &Context) -> Option<Law> {
    if finish.segment >= start.segment {
        return None;
    }
    let crash = usize::try_from(finish.segment)
        .ok()
        .and_then(|at| context.crashes.get(at));
    Some(match crash {
        _ if !acked => Law::R7,
        Some((_, Crash::AcksDurable)) => Law::B6,
        _ => Law::B7,
    })
}

/// No single write left this in the block.
pub(crate) fn mixed(reading: Reading) -> Finding {
    let text = format!("{} found a mixture, not one whole write", subject(reading));
    Finding { law: Law::B2, text }
}

/// `read` was returned, but `other` must come both after and before it.
pub(crate) fn conflict(
    reading: Reading,
    read: &Cluster,
    reads: Reads,
    other: &Other,
    context: &Context,
) -> Finding {
    let finish = read.finish(reads);
    let law = if ended_by_close(read, reads) || other.by_close {
        Law::B3
    } else if let Some(law) =
        law_across(other.finish, other.acked.is_some(), reading.start, context)
    {
        law
    } else if other.value == Value::Zero && read.value != Value::Zero && other.acked.is_some() {
        Law::B8
    } else {
        Law::B1
    };
    let text = format!(
        "{} found {} ({}). {} ({}) must come after it: it was still written or read by a request \
         sent at {}, when {} had taken effect by {}. And it must come before it: it had taken \
         effect by {}, when {} was still written or read by a request sent at {}",
        subject(reading),
        name(read.value),
        origin(Some(read.session), read.start, read.acked),
        name(other.value),
        origin(other.session, other.start, other.acked),
        moment(other.latest, context),
        name(read.value),
        moment(finish, context),
        moment(other.finish, context),
        name(read.value),
        moment(read.latest_start(reads), context),
    );
    Finding { law, text }
}

/// The value the block held before the era's writes was read after one of them had ended.
pub(crate) fn initial_conflict(
    value: Value,
    reading: Reading,
    other: &Other,
    context: &Context,
) -> Finding {
    let law = if other.by_close {
        Law::B3
    } else if let Some(law) =
        law_across(other.finish, other.acked.is_some(), reading.start, context)
    {
        law
    } else if other.value == Value::Zero && other.acked.is_some() {
        Law::B8
    } else {
        Law::B1
    };
    let text = format!(
        "{} found {}, which the block held before {} ({}); that had taken effect by {}",
        subject(reading),
        name(value),
        name(other.value),
        origin(other.session, other.start, other.acked),
        moment(other.finish, context),
    );
    Finding { law, text }
}

/// After a loss two reads found different survivors, with no write between.
pub(crate) fn two_initials(
    value: Value,
    named: Value,
    reading: Reading,
    context: &Context,
) -> Finding {
    let text = format!(
        "{} found {}, but the value that survived {} was {}: an earlier read said so",
        subject(reading),
        name(value),
        last_crash(context),
        name(named),
    );
    Finding { law: Law::B1, text }
}

fn last_crash(context: &Context) -> String {
    match context.crashes.last() {
        Some((time, _)) => format!("the crash at {time}"),
        None => "the start".to_owned(),
    }
}

/// The value is not among those the block may hold.
pub(crate) fn replaced(
    value: Value,
    reading: Reading,
    gone: &VecDeque<Gone>,
    context: &Context,
) -> Finding {
    let Some(one) = gone.iter().rev().find(|one| one.value == value) else {
        // A fresh volume holds zeros: those were there, and are gone since the last loss.
        let (law, why) = match value {
            Value::Tag(_) => (
                Law::B1,
                "was never written here or was replaced for good long ago",
            ),
            Value::Zero if context.era_start > Stamp::FIRST => {
                (Law::B6, "were replaced for good before the last loss")
            }
            Value::Zero => (Law::B1, "were replaced for good long ago"),
        };
        let text = format!("{} found {}, which {why}", subject(reading), name(value));
        return Finding { law, text };
    };
    let mut text = format!(
        "{} found {}, which {} had replaced ({} by {})",
        subject(reading),
        name(value),
        name(one.by),
        if one.by_acked {
            "answered or read"
        } else {
            "read, not answered,"
        },
        moment(one.by_finish, context),
    );
    let is_new_era = one.by_finish < context.era_start;
    let law = match one.survivor.filter(|_| is_new_era) {
        Some((survivor, law)) => {
            let why = match law {
                Law::B4 => "answered before a flush was sent that was answered OK",
                Law::B5 => "an FUA write answered OK",
                Law::B6 => "acknowledged as durable",
                _ => "read before a crash that kept all that was read",
            };
            let _ = write!(text, "; {} had to survive: {why}", name(survivor));
            law
        }
        None if is_new_era => Law::B6,
        None => law_across(one.by_finish, one.by_acked, reading.start, context).unwrap_or(
            if one.by == Value::Zero {
                Law::B8
            } else {
                Law::B1
            },
        ),
    };
    Finding { law, text }
}
