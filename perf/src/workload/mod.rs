//! What a load does: its words on the command line, and the order in which it visits blocks.
//!
//! ```text
//!  Point (randread:4k:64) ─► Load (mix, sizes, places) ─► Visits ─► Next (kind, offset, length)
//! ```

mod load;
mod visits;
mod zipf;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

pub use load::{Exponent, Kind, Load, LoadWords, Place, Weighted, parse_mix, parse_sizes};
pub use visits::{Next, Visits};

/// Largest block a load may ask for: what the protocol lets every server refuse beyond.
pub const BLOCK_MAX: u64 = 32 << 20;
/// Most requests outstanding on one connection.
pub const DEPTH_MAX: u32 = 4096;
/// Most connections of one load.
pub const CONNECTIONS_MAX: u32 = 64;

/// A word of the command line that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not {expected}")]
pub struct Unclear {
    word: String,
    expected: &'static str,
}

fn unclear(word: &str, expected: &'static str) -> Unclear {
    Unclear {
        word: word.to_owned(),
        expected,
    }
}

/// A size in bytes: digits, and one of k, m, g, t (powers of 1024, either case, also `4KiB`).
pub fn parse_size(text: &str) -> Result<u64, Unclear> {
    let wrong = || unclear(text, "a size such as 512, 4k, 1m or 10GiB");
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").unwrap_or(&unit) {
        "" if unit.is_empty() => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// Bytes as `parse_size` takes them, in the largest unit that divides them.
pub fn show_size(bytes: u64) -> String {
    let units = [("t", 40), ("g", 30), ("m", 20), ("k", 10)];
    let whole = |shift: u32| bytes != 0 && bytes.trailing_zeros() >= shift;
    match units.into_iter().find(|(_, shift)| whole(*shift)) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// Which requests, in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rw {
    /// Reads of random blocks.
    RandRead,
    /// Writes of random blocks.
    RandWrite,
    /// Reads from the first block to the last, and again.
    Read,
    /// Writes from the first block to the last, and again.
    Write,
    /// Random blocks, half of them read, half written.
    #[serde(rename = "randrw")]
    RandMix,
}

impl Rw {
    /// Every one there is.
    pub const ALL: [Rw; 5] = [
        Rw::RandRead,
        Rw::RandWrite,
        Rw::Read,
        Rw::Write,
        Rw::RandMix,
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Rw::RandRead => "randread",
            Rw::RandWrite => "randwrite",
            Rw::Read => "read",
            Rw::Write => "write",
            Rw::RandMix => "randrw",
        }
    }

    /// What its requests ask.
    pub fn kinds(self) -> Weighted<Kind> {
        match self {
            Rw::RandRead | Rw::Read => Weighted::only(Kind::Read),
            Rw::RandWrite | Rw::Write => Weighted::only(Kind::Write),
            Rw::RandMix => parse_mix("read=1,write=1").expect("this is a mix"),
        }
    }
}

impl FromStr for Rw {
    type Err = Unclear;

    fn from_str(word: &str) -> Result<Rw, Unclear> {
        let found = Rw::ALL.into_iter().find(|rw| rw.name() == word);
        found.ok_or_else(|| unclear(word, "one of randread, randwrite, read, write, randrw"))
    }
}

/// One point of measurement: `randread:4k:64`, or with connections `randread:4k:16:4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Which requests.
    pub rw: Rw,
    /// Bytes of a request, 1 to [`BLOCK_MAX`].
    pub block: u32,
    /// Requests outstanding on each connection.
    pub depth: u32,
    /// Connections.
    pub connections: u32,
}

impl Point {
    /// Checks the ranges. Errors: the first one that is outside.
    pub fn new(rw: Rw, block: u64, depth: u32, connections: u32) -> Result<Point, Unclear> {
        if block == 0 || block > BLOCK_MAX {
            return Err(unclear(
                &show_size(block),
                "a block size from 1 byte to 32m",
            ));
        }
        if depth == 0 || depth > DEPTH_MAX {
            return Err(unclear(&depth.to_string(), "a depth from 1 to 4096"));
        }
        if connections == 0 || connections > CONNECTIONS_MAX {
            return Err(unclear(
                &connections.to_string(),
                "a number of connections from 1 to 64",
            ));
        }
        // Checked above: at most 32 MiB.
        Ok(Point {
            rw,
            block: block as u32,
            depth,
            connections,
        })
    }
}

impl FromStr for Point {
    type Err = Unclear;

    fn from_str(text: &str) -> Result<Point, Unclear> {
        let wrong = || unclear(text, "a point such as randread:4k:64");
        let parts: Vec<&str> = text.trim().split(':').collect();
        let (rw, block, depth, connections) = match parts[..] {
            [rw, block, depth] => (rw, block, depth, "1"),
            [rw, block, depth, connections] => (rw, block, depth, connections),
            _ => return Err(wrong()),
        };
        let depth = depth.parse().map_err(|_| wrong())?;
        let connections = connections.parse().map_err(|_| wrong())?;
        Point::new(rw.parse()?, parse_size(block)?, depth, connections)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}",
            self.rw.name(),
            show_size(self.block.into()),
            self.depth
        )?;
        if self.connections > 1 {
            write!(f, ":{}", self.connections)?;
        }
        Ok(())
    }
}

/// SplitMix64: small, seeded, good enough to choose blocks and to fill them.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence that depends on nothing but the seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, which is not 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from 0 up to, and not, 1.
    #[inline]
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills `block`, which lies at byte `offset`, with what belongs there under this seed. No two
/// places hold the same, and none holds a run of zeroes.
pub fn fill(block: &mut [u8], offset: u64, seed: u64) {
    let mut random = Random::new(mix(seed ^ mix(offset)));
    for word in block.chunks_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes()[..word.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("512", 512),
            ("4k", 4096),
            ("4K", 4096),
            ("1m", 1 << 20),
            ("10GiB", 10 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "4 k",
            "-1",
            "4kb",
            "ib",
            "4ib",
            "1.5m",
            "99999999999999t",
            "4x",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_shown_size_reads_as_the_same() {
        for bytes in [0, 1, 511, 4096, 4097, 1 << 20, 3 << 30, 1 << 40] {
            assert_eq!(parse_size(&show_size(bytes)), Ok(bytes));
        }
        assert_eq!(show_size(4096), "4k");
    }

    #[test]
    fn points_read_as_they_are_shown() {
        for text in ["randread:4k:64", "write:1m:8", "randrw:512:1:4"] {
            assert_eq!(text.parse::<Point>().unwrap().to_string(), text);
        }
        let long = "randread:4k:64:1".parse::<Point>().unwrap();
        assert_eq!(long.to_string(), "randread:4k:64");
        for text in [
            "",
            "randread",
            "randread:4k",
            "seek:4k:1",
            "read:0:1",
            "read:64m:1",
            "read:4k:0",
            "read:4k:5000",
            "read:4k:1:0",
            "read:4k:1:65",
            "read:4k:1:1:1",
            "read:4k:x",
        ] {
            assert!(text.parse::<Point>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_load_has_the_same_word_everywhere() {
        for rw in Rw::ALL {
            assert_eq!(serde_json::to_value(rw).unwrap(), rw.name());
            assert_eq!(rw.name().parse(), Ok(rw));
        }
    }

    #[test]
    fn contents_depend_on_place_and_seed() {
        let filled = |offset, seed| {
            let mut block = [0; 100];
            fill(&mut block, offset, seed);
            block
        };
        assert_eq!(filled(4096, 1), filled(4096, 1));
        assert_ne!(filled(4096, 1), filled(8192, 1));
        assert_ne!(filled(4096, 1), filled(4096, 2));
    }
}
