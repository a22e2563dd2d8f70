//! What a load does: its words on the command line, and the order in which it visits blocks.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

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

    /// It writes, always or at times.
    pub fn writes(self) -> bool {
        !matches!(self, Rw::RandRead | Rw::Read)
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

/// One request to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// A write; else a read.
    pub is_write: bool,
    /// First byte.
    pub offset: u64,
}

/// The order in which blocks are visited.
#[derive(Clone, Debug)]
pub struct Visits {
    order: Order,
    rw: Rw,
    block: u64,
    /// Whole blocks in the range, at least 1.
    blocks: u64,
    random: Random,
}

#[derive(Clone, Debug)]
enum Order {
    /// Without end.
    Endless { cursor: u64 },
    /// Every block once, scattered: the n-th visit is block n * stride modulo their number.
    Once { done: u64, stride: u64 },
}

impl Visits {
    /// Endless visits to the whole blocks of the first `size` bytes; `None` if there is none.
    pub fn endless(rw: Rw, block: u32, size: u64, seed: u64) -> Option<Visits> {
        let block = u64::from(block);
        let blocks = size / block;
        let order = Order::Endless { cursor: 0 };
        (blocks > 0).then(|| Visits {
            order,
            rw,
            block,
            blocks,
            random: Random::new(seed),
        })
    }

    /// One visit to each block: in sequence for `Read` and `Write`, else scattered.
    pub fn once(rw: Rw, block: u32, size: u64, seed: u64) -> Option<Visits> {
        let mut visits = Visits::endless(rw, block, size, seed)?;
        let in_sequence = matches!(rw, Rw::Read | Rw::Write);
        let mut stride = if in_sequence {
            1
        } else {
            visits.random.below(visits.blocks).max(1)
        };
        while greatest_common_divisor(stride, visits.blocks) != 1 {
            stride += 1;
        }
        visits.order = Order::Once { done: 0, stride };
        Some(visits)
    }

    /// Blocks in the range.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The next request; `None` when every block was visited.
    #[inline]
    pub fn next(&mut self) -> Option<Next> {
        let block = match &mut self.order {
            Order::Endless { cursor } => match self.rw {
                Rw::RandRead | Rw::RandWrite | Rw::RandMix => self.random.below(self.blocks),
                Rw::Read | Rw::Write => {
                    let block = *cursor;
                    *cursor = if block + 1 == self.blocks {
                        0
                    } else {
                        block + 1
                    };
                    block
                }
            },
            Order::Once { done, .. } if *done == self.blocks => return None,
            Order::Once { done, stride } => {
                let block = u128::from(*done) * u128::from(*stride) % u128::from(self.blocks);
                *done += 1;
                block as u64
            }
        };
        let is_write = match self.rw {
            Rw::RandRead | Rw::Read => false,
            Rw::RandWrite | Rw::Write => true,
            Rw::RandMix => self.random.next() & 1 == 1,
        };
        Some(Next {
            is_write,
            offset: block * self.block,
        })
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
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
    fn one_pass_visits_every_block_once() {
        for (rw, blocks) in [
            (Rw::RandWrite, 1),
            (Rw::RandRead, 97),
            (Rw::RandMix, 360),
            (Rw::Read, 64),
        ] {
            for seed in 0..20 {
                let mut visits = Visits::once(rw, 512, blocks * 512 + 100, seed).unwrap();
                let mut seen = vec![false; blocks as usize];
                while let Some(next) = visits.next() {
                    let block = (next.offset / 512) as usize;
                    assert!(!std::mem::replace(&mut seen[block], true), "{block} twice");
                }
                assert!(seen.into_iter().all(|was| was));
            }
        }
    }

    #[test]
    fn endless_visits_stay_in_whole_blocks() {
        for rw in Rw::ALL {
            let mut visits = Visits::endless(rw, 4096, 10 * 4096 + 4095, 7).unwrap();
            let mut writes = 0;
            for _ in 0..1000 {
                let next = visits.next().unwrap();
                assert!(next.offset.is_multiple_of(4096) && next.offset < 10 * 4096);
                writes += u32::from(next.is_write);
            }
            match rw {
                Rw::RandMix => assert!((400..600).contains(&writes), "{writes}"),
                rw => assert_eq!(writes, if rw.writes() { 1000 } else { 0 }),
            }
        }
        assert!(Visits::endless(Rw::Read, 4096, 4095, 0).is_none());
    }

    #[test]
    fn the_same_seed_gives_the_same_load() {
        let visits = |seed| {
            let mut visits = Visits::endless(Rw::RandMix, 4096, 1 << 30, seed).unwrap();
            (0..100).map(|_| visits.next().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(visits(1), visits(1));
        assert_ne!(visits(1), visits(2));
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
