//! Sizes and durations as people write them: `10GiB`, `500ms`.
//!
//! `K M G T P` and `KiB … PiB` are powers of 1024, `KB … PB` powers of 1000. A number without a
//! unit is refused: in the file the string carries its unit.

use std::ops::Range;
use std::time::Duration;

/// Why a text is no size or duration; `span` are the bytes of the text at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct UnitError {
    /// Bytes of the text at fault.
    pub span: Range<usize>,
    /// What is wrong with them.
    pub text: String,
    /// What was perhaps meant.
    pub hint: Option<String>,
}

const SIZES: [(&str, u64); 16] = [
    ("B", 1),
    ("K", 1 << 10),
    ("KiB", 1 << 10),
    ("M", 1 << 20),
    ("MiB", 1 << 20),
    ("G", 1 << 30),
    ("GiB", 1 << 30),
    ("T", 1 << 40),
    ("TiB", 1 << 40),
    ("P", 1 << 50),
    ("PiB", 1 << 50),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
];

const TIMES: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Bytes meant by `text`. Errors: no number, no or unknown unit, over 2^63.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let bytes = amount(text, &SIZES, "10GiB (2^30) or 10GB (10^9)")?;
    match i64::try_from(bytes) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(too_large(text)),
    }
}

/// Time meant by `text`. Errors: no number, no or unknown unit, too large.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    amount(text, &TIMES, "500ms, 30s, 15m or 1h").map(Duration::from_millis)
}

/// Bytes per second meant by `100MiB/s`, `100MiB`; `None` for `max`.
pub fn rate(text: &str) -> Result<Option<u64>, UnitError> {
    if text == "max" {
        return Ok(None);
    }
    size(text.strip_suffix("/s").unwrap_or(text)).map(Some)
}

fn amount(text: &str, units: &[(&str, u64)], example: &str) -> Result<u64, UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit_at = digits + usize::from(text[digits..].starts_with(' '));
    let unit = &text[unit_at..];
    let fail = |span: Range<usize>, text: String, hint: String| {
        Err(UnitError {
            span,
            text,
            hint: Some(hint),
        })
    };
    if digits == 0 {
        return fail(
            0..text.len(),
            "a number must come first".into(),
            format!("as in {example}"),
        );
    }
    if unit.is_empty() {
        return fail(
            0..text.len(),
            "the unit is missing".into(),
            format!("as in {example}"),
        );
    }
    let Some(&(_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let like: Vec<String> = units
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(unit))
            .map(|(name, _)| format!("`{}{name}`", &text[..digits]))
            .collect();
        let hint = match like.is_empty() {
            true => format!("as in {example}"),
            false => format!("did you mean {}?", like.join(" or ")),
        };
        return fail(unit_at..text.len(), format!("`{unit}` is no unit"), hint);
    };
    let number = text[..digits].parse::<u64>().ok();
    number
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| too_large(text))
}

fn too_large(text: &str) -> UnitError {
    UnitError {
        span: 0..text.len(),
        text: "the value is too large".into(),
        hint: None,
    }
}

/// `100 GiB`, `1.5 MiB`, `512 B`: at most one decimal, powers of 1024.
pub fn show_bytes(bytes: u64) -> String {
    const NAMES: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut step = 0;
    while step + 1 < NAMES.len() && bytes >> (10 * (step + 1)) != 0 {
        step += 1;
    }
    let one = 1_u128 << (10 * step);
    let tenths = (u128::from(bytes) * 10 + one / 2) / one;
    match tenths % 10 {
        0 => format!("{} {}", tenths / 10, NAMES[step]),
        tenth => format!("{}.{tenth} {}", tenths / 10, NAMES[step]),
    }
}

/// A size as the file says it, to the byte: `64MiB`, `4100B`.
pub fn exact_size(bytes: u64) -> String {
    const NAMES: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];
    let fits = |(_, shift): &&(&str, u32)| bytes > 0 && bytes.trailing_zeros() >= *shift;
    let (name, shift) = NAMES.iter().find(fits).unwrap_or(&("B", 0));
    format!("{}{name}", bytes >> shift)
}

/// `45 s`, `2 min 14 s`, `3 h 5 min`, `4 d 2 h`.
pub fn show_seconds(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match () {
        () if hours >= 48 => format!("{days} d {} h", hours % 24),
        () if hours > 0 => format!("{hours} h {} min", minutes % 60),
        () if minutes > 0 => format!("{minutes} min {} s", seconds % 60),
        () => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_size_is_read_as_it_was_meant() {
        for bytes in [
            0,
            1,
            4096,
            5 << 20,
            (5 << 20) + 4096,
            7 << 30,
            3 << 40,
            9_999_999,
        ] {
            assert_eq!(size(&exact_size(bytes)).unwrap(), bytes);
        }
        assert_eq!(exact_size(64 << 20), "64MiB");
    }

    #[test]
    fn binary_and_decimal_units_differ() {
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("1G"), Ok(1 << 30));
        assert_eq!(size("1 GiB"), Ok(1 << 30));
        assert_eq!(size("1GB"), Ok(1_000_000_000));
        assert_eq!(size("4096B"), Ok(4096));
    }

    #[test]
    fn a_split_or_missing_unit_is_refused_where_it_stands() {
        assert_eq!(size("10 G B").unwrap_err().span, 3..6);
        assert_eq!(size("4096").unwrap_err().text, "the unit is missing");
        assert_eq!(size("GiB").unwrap_err().text, "a number must come first");
        assert_eq!(size("").unwrap_err().text, "a number must come first");
        assert_eq!(size("-1GiB").unwrap_err().text, "a number must come first");
        assert_eq!(
            size("1Gb").unwrap_err().hint.unwrap(),
            "did you mean `1GB`?"
        );
        assert_eq!(
            size("1gib").unwrap_err().hint.unwrap(),
            "did you mean `1GiB`?"
        );
        assert_eq!(size("1 ü").unwrap_err().text, "`ü` is no unit");
    }

    #[test]
    fn a_size_over_two_to_the_63_is_refused() {
        assert_eq!(size("8191P"), Ok(8191 << 50));
        assert!(size("8192P").is_err());
        assert!(size("99999999999999999999P").is_err());
    }

    #[test]
    fn durations_name_their_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("5").is_err());
        assert!(duration("5 sec").is_err());
    }

    #[test]
    fn a_rate_is_a_size_per_second_or_max() {
        assert_eq!(rate("max"), Ok(None));
        assert_eq!(rate("100MiB/s"), Ok(Some(100 << 20)));
        assert_eq!(rate("1GB"), Ok(Some(1_000_000_000)));
        assert!(rate("fast").is_err());
    }

    #[test]
    fn sizes_and_times_are_shown_short() {
        assert_eq!(show_bytes(0), "0 B");
        assert_eq!(show_bytes(1023), "1023 B");
        assert_eq!(show_bytes(1 << 30), "1 GiB");
        assert_eq!(show_bytes(19_542_101_196), "18.2 GiB");
        assert_eq!(show_bytes(u64::MAX), "16384 PiB");
        assert_eq!(show_seconds(45), "45 s");
        assert_eq!(show_seconds(134), "2 min 14 s");
        assert_eq!(show_seconds(11_100), "3 h 5 min");
        assert_eq!(show_seconds(90 * 3_600), "3 d 18 h");
    }
}
