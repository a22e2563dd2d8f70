//! Planned faults of a store: a test aid, switched on by the environment only.
//!
//! ```text
//! POLLUX_FAULTS = "VOLUME: RULE, RULE; VOLUME: RULE"     or "@/path", re-read when it changes
//! RULE  = KIND "=" FAULT [ "@" START ".." [END] ] [ "#" N [ "+" ] ]
//! KIND  = read | write | zero | flush | meta
//! FAULT = eio | enospc | short | hang | delay:MILLISECONDS
//! ```
//! `@` limits a rule to bytes of the volume that lie in the range, `#3` to the third operation
//! it matches, `#3+` to the third and all later ones. Example: `vm-store: write=eio@1M..2M,
//! flush=eio#1`. The first rule that applies decides.

use std::ops::Range;
use std::time::Duration;

use engine_core::action::Action;
use engine_core::event::DiskError;

/// What kind of operation a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Zero,
    Flush,
    Meta,
}

/// What happens instead of the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, nothing is done.
    Fail(DiskError),
    /// The first transfer moves half of the bytes.
    Short,
    /// It starts later.
    Delay(Duration),
    /// It never ends.
    Hang,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    kind: Kind,
    fault: Fault,
    bytes: Range<u64>,
    /// First and last matching operation it applies to, from 1.
    from: u64,
    to: u64,
    seen: u64,
}

/// The rules of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    rules: Vec<Rule>,
}

/// A rule that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("POLLUX_FAULTS: cannot understand `{0}`")]
pub(crate) struct BadRule(String);

impl Faults {
    /// The rules of `volume` in a plan for several; none if it is not named.
    pub(crate) fn parse(plan: &str, volume: &str) -> Result<Faults, BadRule> {
        let mut rules = Vec::new();
        for part in plan
            .split([';', '\n'])
            .map(str::trim)
            .filter(|p| !p.is_empty())
        {
            let (name, list) = part.split_once(':').ok_or_else(|| BadRule(part.into()))?;
            for text in list.split(',').map(str::trim).filter(|t| !t.is_empty()) {
                let rule = parse_rule(text).ok_or_else(|| BadRule(text.into()))?;
                if name.trim() == volume {
                    rules.push(rule);
                }
            }
        }
        Ok(Faults { rules })
    }

    /// No rule at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What happens to this action, if anything; counts it.
    pub(crate) fn judge(&mut self, action: &Action) -> Option<Fault> {
        let (kind, bytes) = subject(action)?;
        let mut decided = None;
        for rule in &mut self.rules {
            let overlaps = bytes.start < rule.bytes.end && rule.bytes.start < bytes.end;
            let everywhere = bytes.is_empty();
            if rule.kind == kind && (overlaps || everywhere) {
                rule.seen += 1;
                if decided.is_none() && (rule.from..=rule.to).contains(&rule.seen) {
                    decided = Some(rule.fault);
                }
            }
        }
        decided
    }
}

/// Kind and byte range of an action on the disk; an empty range where it has none.
fn subject(action: &Action) -> Option<(Kind, Range<u64>)> {
    let bytes = |e: &engine_core::units::Extent| e.offset()..e.offset() + e.bytes();
    Some(match action {
        Action::DiskRead { extent, .. } => (Kind::Read, bytes(extent)),
        Action::DiskWrite { extent, .. } => (Kind::Write, bytes(extent)),
        Action::DiskZero { extent, .. } => (Kind::Zero, bytes(extent)),
        Action::DiskFlush { .. } => (Kind::Flush, 0..0),
        Action::MetaWrite { .. } | Action::SumsWrite { .. } => (Kind::Meta, 0..0),
        _ => return None,
    })
}

fn parse_rule(text: &str) -> Option<Rule> {
    let (kind, rest) = text.split_once('=')?;
    let (rest, count) = match rest.split_once('#') {
        Some((rest, count)) => (rest, Some(count)),
        None => (rest, None),
    };
    let (fault, range) = match rest.split_once('@') {
        Some((fault, range)) => (fault, Some(range)),
        None => (rest, None),
    };
    let (from, to) = count.map_or(Some((1, u64::MAX)), parse_count)?;
    Some(Rule {
        kind: match kind.trim() {
            "read" => Kind::Read,
            "write" => Kind::Write,
            "zero" => Kind::Zero,
            "flush" => Kind::Flush,
            "meta" => Kind::Meta,
            _ => return None,
        },
        fault: parse_fault(fault.trim())?,
        bytes: range.map_or(Some(0..u64::MAX), parse_range)?,
        from,
        to,
        seen: 0,
    })
}

fn parse_fault(text: &str) -> Option<Fault> {
    Some(match text {
        "eio" => Fault::Fail(DiskError::Io),
        "enospc" => Fault::Fail(DiskError::NoSpace),
        "short" => Fault::Short,
        "hang" => Fault::Hang,
        _ => Fault::Delay(Duration::from_millis(
            text.strip_prefix("delay:")?.parse().ok()?,
        )),
    })
}

fn parse_count(text: &str) -> Option<(u64, u64)> {
    let text = text.trim();
    let number = text
        .strip_suffix('+')
        .unwrap_or(text)
        .parse()
        .ok()
        .filter(|n| *n > 0)?;
    Some((
        number,
        if text.ends_with('+') {
            u64::MAX
        } else {
            number
        },
    ))
}

fn parse_range(text: &str) -> Option<Range<u64>> {
    let (start, end) = text.trim().split_once("..")?;
    let end = if end.is_empty() {
        u64::MAX
    } else {
        parse_bytes(end)?
    };
    let start = parse_bytes(start)?;
    (start < end).then_some(start..end)
}

fn parse_bytes(text: &str) -> Option<u64> {
    let units = [("K", 10), ("M", 20), ("G", 30)];
    let unit = units.iter().find(|(suffix, _)| text.ends_with(suffix));
    let (digits, shift) = unit.map_or((text, 0), |(s, shift)| (text.trim_end_matches(s), *shift));
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_core::event::Token;
    use engine_core::units::{BufId, Extent};

    fn write(start: u64, end: u64) -> Action {
        Action::DiskWrite {
            token: Token(0),
            extent: Extent::new(start, end),
            buf: BufId(0),
            durable: false,
        }
    }

    const FLUSH: Action = Action::DiskFlush { token: Token(0) };

    #[test]
    fn a_rule_applies_to_its_volume_range_and_count_only() {
        let plan = "a: write=eio@4K..8K, flush=enospc#2; b: read=delay:20";
        let mut a = Faults::parse(plan, "a").unwrap();
        assert_eq!(a.judge(&write(0, 1)), None);
        assert_eq!(a.judge(&write(0, 2)), Some(Fault::Fail(DiskError::Io)));
        assert_eq!(a.judge(&write(2, 3)), None);
        let flushes: Vec<_> = (0..3).map(|_| a.judge(&FLUSH)).collect();
        assert_eq!(flushes, [None, Some(Fault::Fail(DiskError::NoSpace)), None]);
        assert!(Faults::parse(plan, "c").unwrap().is_empty());
    }

    #[test]
    fn a_plus_means_from_then_on() {
        let mut faults = Faults::parse("v: write=short#2+", "v").unwrap();
        let seen: Vec<_> = (0..3).map(|_| faults.judge(&write(0, 1))).collect();
        assert_eq!(seen, [None, Some(Fault::Short), Some(Fault::Short)]);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for plan in [
            "v",
            "v: write",
            "v: write=x",
            "v: x=eio",
            "v: read=eio@5..5",
            "v: read=eio#0",
        ] {
            assert!(Faults::parse(plan, "v").is_err(), "{plan}");
            assert!(Faults::parse(plan, "other").is_err(), "{plan}");
        }
        assert_eq!(Faults::parse(" ; ", "v").unwrap(), Faults::default());
    }
}
