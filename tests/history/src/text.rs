//! A history as text, one event per line, so that clients in any language can write one.
//!
//! ```text
//! TIME open SESSION
//! TIME invoke OP SESSION write FIRST TAGS [fua]     TAGS: 7,8,9 or 7-9
//! TIME invoke OP SESSION zero FIRST COUNT [fua]     (also: trim)
//! TIME invoke OP SESSION read FIRST COUNT
//! TIME invoke OP SESSION flush
//! TIME ok OP [SEEN]                                 SEEN: tags as above; 0 zeros, ? a mixture,
//! TIME fail OP                                            0*16 sixteen blocks of zeros
//! TIME close SESSION
//! TIME crash whole | durable | lost
//! ```
//!
//! Empty lines and lines that begin with `#` say nothing. All numbers are decimal, up to 64 bits.
//! Lines need not be in order of time; `History::sort` puts them there.

use std::fmt::{self, Write};

use crate::event::{Crash, Event, Op, OpId, Outcome, REQUEST_BLOCKS_MAX, Seen, Session};
use crate::recording::History;

/// A line that is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Its number, from 1.
    pub line: usize,
    /// What was expected instead.
    pub expected: &'static str,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: expected {}", self.line, self.expected)
    }
}

impl std::error::Error for ParseError {}

impl History {
    /// The history, one line per event, in the order given.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (time, event) in self.events() {
            push_event(&mut text, *time, event);
        }
        text
    }

    /// Reads what [`History::to_text`] writes. Errors: the first line that is no event.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut history = Self::default();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (time, event) = parse_event(line).map_err(|expected| ParseError {
                line: at + 1,
                expected,
            })?;
            history.push(time, event);
        }
        Ok(history)
    }
}

/// Writing to a `String` cannot fail, so the results of `write!` carry no news here.
fn push_event(text: &mut String, time: u64, event: &Event) {
    let _ = write!(text, "{time} ");
    match event {
        Event::Open(session) => {
            let _ = write!(text, "open {}", session.0);
        }
        Event::Invoke(id, session, op) => {
            let _ = write!(text, "invoke {} {} ", id.0, session.0);
            push_op(text, op);
        }
        Event::Complete(id, Outcome::Done) => {
            let _ = write!(text, "ok {}", id.0);
        }
        Event::Complete(id, Outcome::Read(seen)) => {
            let _ = write!(text, "ok {} ", id.0);
            push_values(text, seen);
        }
        Event::Complete(id, Outcome::Failed) => {
            let _ = write!(text, "fail {}", id.0);
        }
        Event::Close(session) => {
            let _ = write!(text, "close {}", session.0);
        }
        Event::Crash(crash) => {
            text.push_str("crash ");
            text.push_str(match crash {
                Crash::MemberWhole => "whole",
                Crash::AcksDurable => "durable",
                Crash::VolatileLost => "lost",
            });
        }
    }
    text.push('\n');
}

fn push_op(text: &mut String, op: &Op) {
    let is_fua = match op {
        Op::Write { first, tags, fua } => {
            let _ = write!(text, "write {first} ");
            let tags: Vec<Seen> = tags.iter().map(|&tag| Seen::Tag(tag)).collect();
            push_values(text, &tags);
            *fua
        }
        Op::Zero { first, count, fua } => {
            let _ = write!(text, "zero {first} {count}");
            *fua
        }
        Op::Read { first, count } => {
            let _ = write!(text, "read {first} {count}");
            false
        }
        Op::Flush => {
            text.push_str("flush");
            false
        }
    };
    if is_fua {
        text.push_str(" fua");
    }
}

/// Runs are shortened: `7-9` counts up, `0*16` and `?*3` repeat.
fn push_values(text: &mut String, values: &[Seen]) {
    let mut rest = values;
    while let [head, ..] = rest {
        if rest.len() < values.len() {
            text.push(',');
        }
        let run = run_length(rest);
        let _ = match (head, run) {
            (Seen::Tag(tag), 1) => write!(text, "{tag}"),
            (Seen::Tag(tag), _) => write!(text, "{tag}-{}", tag + (run as u64 - 1)),
            (Seen::Zero, 1) => write!(text, "0"),
            (Seen::Zero, _) => write!(text, "0*{run}"),
            (Seen::Mixed, 1) => write!(text, "?"),
            (Seen::Mixed, _) => write!(text, "?*{run}"),
        };
        rest = &rest[run..];
    }
}

/// How many values from the first on form one run; at least one.
fn run_length(values: &[Seen]) -> usize {
    let follows = |pair: &[Seen]| match (pair[0], pair[1]) {
        (Seen::Tag(one), Seen::Tag(next)) => one.checked_add(1) == Some(next),
        (one, next) => one == next,
    };
    1 + values.windows(2).take_while(|pair| follows(pair)).count()
}

type Parsed<T> = Result<T, &'static str>;

fn parse_event(line: &str) -> Parsed<(u64, Event)> {
    let mut words = line.split_ascii_whitespace();
    let words = &mut words;
    let time = number(words, "a time")?;
    let event = match words.next() {
        Some("open") => Event::Open(session(words)?),
        Some("close") => Event::Close(session(words)?),
        Some("invoke") => Event::Invoke(op_id(words)?, session(words)?, parse_op(words)?),
        Some("ok") => {
            let id = op_id(words)?;
            let outcome = match words.next() {
                Some(values) => Outcome::Read(parse_values(values)?),
                None => Outcome::Done,
            };
            Event::Complete(id, outcome)
        }
        Some("fail") => Event::Complete(op_id(words)?, Outcome::Failed),
        Some("crash") => Event::Crash(match words.next() {
            Some("whole") => Crash::MemberWhole,
            Some("durable") => Crash::AcksDurable,
            Some("lost") => Crash::VolatileLost,
            _ => return Err("`whole`, `durable` or `lost`"),
        }),
        _ => return Err("open, invoke, ok, fail, close or crash"),
    };
    match words.next() {
        None => Ok((time, event)),
        Some(_) => Err("the end of the line"),
    }
}

fn parse_op<'a>(words: &mut impl Iterator<Item = &'a str>) -> Parsed<Op> {
    match words.next() {
        Some("write") => {
            let first = number(words, "the first block")?;
            let values = parse_values(words.next().ok_or("tags")?)?;
            let tag = |seen| match seen {
                Seen::Tag(tag) => Ok(tag),
                _ => Err("tags that are not zero"),
            };
            let tags = values.into_iter().map(tag).collect::<Parsed<Vec<u64>>>()?;
            Ok(Op::Write {
                first,
                tags,
                fua: parse_fua(words)?,
            })
        }
        Some("zero" | "trim") => {
            let (first, count) = parse_extent(words)?;
            Ok(Op::Zero {
                first,
                count,
                fua: parse_fua(words)?,
            })
        }
        Some("read") => {
            let (first, count) = parse_extent(words)?;
            Ok(Op::Read { first, count })
        }
        Some("flush") => Ok(Op::Flush),
        _ => Err("write, zero, trim, read or flush"),
    }
}

fn parse_extent<'a>(words: &mut impl Iterator<Item = &'a str>) -> Parsed<(u64, u64)> {
    Ok((
        number(words, "the first block")?,
        number(words, "a number of blocks")?,
    ))
}

fn parse_fua<'a>(words: &mut impl Iterator<Item = &'a str>) -> Parsed<bool> {
    match words.next() {
        None => Ok(false),
        Some("fua") => Ok(true),
        Some(_) => Err("`fua` or the end of the line"),
    }
}

fn parse_values(text: &str) -> Parsed<Vec<Seen>> {
    let mut values = Vec::new();
    for part in text.split(',') {
        let (value, count) = parse_run(part)?;
        if values.len() as u64 + count > REQUEST_BLOCKS_MAX {
            return Err("at most 65536 blocks");
        }
        values.extend((0..count).map(|at| match value {
            Seen::Tag(tag) => Seen::Tag(tag + at),
            same => same,
        }));
    }
    Ok(values)
}

/// One run and its length; `first + length - 1` of a run of tags fits 64 bits.
fn parse_run(part: &str) -> Parsed<(Seen, u64)> {
    if let Some((from, to)) = part.split_once('-') {
        let (from, to) = (decimal(from)?, decimal(to)?);
        if from == 0 || to < from || to - from >= REQUEST_BLOCKS_MAX {
            return Err("a run of tags that counts up, at most 65536 long");
        }
        return Ok((Seen::Tag(from), to - from + 1));
    }
    let (value, count) = match part.split_once('*') {
        Some((value, count)) => (value, decimal(count)?),
        None => (part, 1),
    };
    let value = match value {
        "?" => Seen::Mixed,
        _ => match decimal(value)? {
            0 => Seen::Zero,
            tag if count == 1 => Seen::Tag(tag),
            _ => return Err("one tag per block: only `0` and `?` repeat"),
        },
    };
    match count {
        1..=REQUEST_BLOCKS_MAX => Ok((value, count)),
        _ => Err("at least one and at most 65536 blocks"),
    }
}

fn decimal(word: &str) -> Parsed<u64> {
    word.parse().map_err(|_| "a decimal number")
}

fn number<'a>(words: &mut impl Iterator<Item = &'a str>, what: &'static str) -> Parsed<u64> {
    words.next().and_then(|word| word.parse().ok()).ok_or(what)
}

fn session<'a>(words: &mut impl Iterator<Item = &'a str>) -> Parsed<Session> {
    number(words, "a session").map(Session)
}

fn op_id<'a>(words: &mut impl Iterator<Item = &'a str>) -> Parsed<OpId> {
    number(words, "a request").map(OpId)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_history_is_these_lines() {
        let mut history = History::default();
        let one = Session(1);
        history.open(100, one);
        let write = history.invoke(
            110,
            one,
            Op::Write {
                first: 0,
                tags: vec![7, 8],
                fua: true,
            },
        );
        history.complete(150, write, Outcome::Done);
        let zero = history.invoke(
            160,
            one,
            Op::Zero {
                first: 4,
                count: 16,
                fua: false,
            },
        );
        let read = history.invoke(170, one, Op::Read { first: 0, count: 6 });
        let seen = vec![
            Seen::Tag(7),
            Seen::Tag(8),
            Seen::Zero,
            Seen::Zero,
            Seen::Mixed,
            Seen::Zero,
        ];
        history.complete(180, read, Outcome::Read(seen));
        history.complete(190, zero, Outcome::Failed);
        history.invoke(200, one, Op::Flush);
        history.close(210, one);
        history.crash(220, Crash::VolatileLost);
        let text = "\
100 open 1
110 invoke 0 1 write 0 7-8 fua
150 ok 0
160 invoke 1 1 zero 4 16
170 invoke 2 1 read 0 6
180 ok 2 7-8,0*2,?,0
190 fail 1
200 invoke 3 1 flush
210 close 1
220 crash lost
";
        assert_eq!(history.to_text(), text);
        assert_eq!(History::parse(text), Ok(history));
    }

    #[test]
    fn lines_that_are_no_events_are_refused_by_number() {
        for bad in [
            "x open 1",
            "1 open",
            "1 invoke 1 1 write 0",
            "1 invoke 1 1 write 0 0",
            "1 invoke 1 1 write 0 9-7",
            "1 invoke 1 1 write 0 1-18446744073709551615",
            "1 invoke 1 1 write 0 7*2",
            "1 ok 1 0*18446744073709551615",
            "1 ok 1 0*0",
            "1 ok 1 7,",
            "1 crash",
            "1 crash hard",
            "1 invoke 1 1 read 0",
            "1 close 1 2",
            "1 ok 1 7 8",
            "1",
            "99999999999999999999 open 1",
        ] {
            let text = format!("# a comment\n\n1 open 1\n{bad}\n");
            assert_eq!(History::parse(&text).map_err(|e| e.line), Err(4), "{bad}");
        }
    }

    fn values() -> impl Strategy<Value = Vec<Seen>> {
        let one = prop_oneof![
            Just(Seen::Zero),
            Just(Seen::Mixed),
            (1..6u64).prop_map(Seen::Tag),
            (u64::MAX - 3..=u64::MAX).prop_map(Seen::Tag),
        ];
        prop::collection::vec(one, 1..12)
    }

    proptest! {
        #[test]
        fn values_survive_the_round_trip(values in values()) {
            let mut text = String::new();
            push_values(&mut text, &values);
            prop_assert_eq!(parse_values(&text), Ok(values));
        }

        #[test]
        fn any_line_is_an_event_or_an_error(line in "[0-9a-z?*,\\- ]{0,40}") {
            if let Ok(history) = History::parse(&line) {
                prop_assert_eq!(History::parse(&history.to_text()), Ok(history));
            }
        }
    }
}
