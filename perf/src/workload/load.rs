//! A load in full: what requests ask, how large they are, where they go, how many at a time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{BLOCK_MAX, Point, Random, Rw, Unclear, parse_size, show_size, unclear};

/// What a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Data.
    Read,
    /// To keep data.
    Write,
    /// To forget data.
    Trim,
    /// To keep zeroes.
    Zeroes,
    /// That what was written is on stable storage.
    Flush,
}

impl Kind {
    /// Every one there is.
    pub const ALL: [Kind; 5] = [
        Kind::Read,
        Kind::Write,
        Kind::Trim,
        Kind::Zeroes,
        Kind::Flush,
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::Trim => "trim",
            Kind::Zeroes => "zeroes",
            Kind::Flush => "flush",
        }
    }

    /// It changes what lies there.
    pub fn changes(self) -> bool {
        matches!(self, Kind::Write | Kind::Trim | Kind::Zeroes)
    }
}

/// Things of which each comes in proportion to its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted<T> {
    /// Each with its weight, which is not 0.
    items: Vec<(T, u32)>,
    total: u64,
}

impl<T: Copy> Weighted<T> {
    /// Always the same.
    pub fn only(item: T) -> Weighted<T> {
        Weighted {
            items: vec![(item, 1)],
            total: 1,
        }
    }

    /// What there is.
    pub fn items(&self) -> impl Iterator<Item = T> + '_ {
        self.items.iter().map(|(item, _)| *item)
    }

    /// The only one, if there is no choice.
    pub fn single(&self) -> Option<T> {
        match self.items[..] {
            [(item, _)] => Some(item),
            _ => None,
        }
    }

    /// The next one. Takes a number from `random` only where there is a choice.
    #[inline]
    pub fn choose(&self, random: &mut Random) -> T {
        let (last, first) = self.items.split_last().expect("nothing has no weights");
        if first.is_empty() {
            return last.0;
        }
        let mut left = random.below(self.total);
        for (item, weight) in first {
            match left.checked_sub(u64::from(*weight)) {
                None => return *item,
                Some(rest) => left = rest,
            }
        }
        last.0
    }

    /// `item<sep>weight,…`, or one item alone.
    fn parse(
        text: &str,
        sep: char,
        expected: &'static str,
        item: impl Fn(&str) -> Result<T, Unclear>,
    ) -> Result<Weighted<T>, Unclear> {
        let parts: Vec<&str> = text.split(',').collect();
        let mut items = Vec::new();
        for part in &parts {
            let (word, weight) = match part.split_once(sep) {
                Some((word, weight)) => (word, weight.parse().ok().filter(|w| *w > 0)),
                None => (*part, (parts.len() == 1).then_some(1)),
            };
            let weight = weight.ok_or_else(|| unclear(text, expected))?;
            items.push((item(word.trim())?, weight));
        }
        let total = items.iter().map(|(_, weight)| u64::from(*weight)).sum();
        Ok(Weighted { items, total })
    }

    fn show(&self, sep: char, item: impl Fn(T) -> String) -> String {
        match self.single() {
            Some(only) => item(only),
            None => {
                let each = self.items.iter();
                let each = each.map(|(it, weight)| format!("{}{sep}{weight}", item(*it)));
                each.collect::<Vec<_>>().join(",")
            }
        }
    }
}

/// `read=70,write=30`.
pub fn parse_mix(text: &str) -> Result<Weighted<Kind>, Unclear> {
    let expected = "a mix such as read=70,write=30 of read, write, trim, zeroes and flush";
    Weighted::parse(text, '=', expected, |word| {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == word);
        found.ok_or_else(|| unclear(word, expected))
    })
}

/// `4k`, or `4k:80,64k:20`.
pub fn parse_sizes(text: &str) -> Result<Weighted<u32>, Unclear> {
    let expected = "sizes such as 4k or 4k:80,64k:20, from 1 byte to 32m";
    Weighted::parse(text, ':', expected, |word| {
        let bytes = parse_size(word)?;
        let fits = (1..=BLOCK_MAX).contains(&bytes);
        // At most 32 MiB.
        fits.then_some(bytes as u32)
            .ok_or_else(|| unclear(word, expected))
    })
}

/// Where requests go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    /// Anywhere, each block as likely.
    Random,
    /// From the first to the last, and again.
    Sequence,
    /// Anywhere, some blocks far more often: Zipf's law with this exponent.
    Zipf(f64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Random => f.write_str("random"),
            Place::Sequence => f.write_str("sequential"),
            Place::Zipf(exponent) => write!(f, "zipf {exponent}"),
        }
    }
}

/// An exponent for [`Place::Zipf`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponent(pub f64);

impl FromStr for Exponent {
    type Err = Unclear;

    fn from_str(text: &str) -> Result<Exponent, Unclear> {
        let exponent = text.parse().ok().filter(|x| (0.01..=10.0).contains(x));
        let expected = "an exponent from 0.01 to 10";
        exponent
            .map(Exponent)
            .ok_or_else(|| unclear(text, expected))
    }
}

/// Everything a generator needs to know of the requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// What they ask.
    pub kinds: Weighted<Kind>,
    /// Their bytes.
    pub sizes: Weighted<u32>,
    /// Where they go.
    pub place: Place,
    /// Most requests outstanding on each connection.
    pub depth: u32,
    /// Connections.
    pub connections: u32,
}

impl Load {
    /// The point it is, if it is a plain one.
    pub fn point(&self) -> Option<Point> {
        let block = self.sizes.single()?;
        let half = parse_mix("read=1,write=1").ok();
        let rw = match (self.place, self.kinds.single()) {
            (Place::Random, Some(Kind::Read)) => Rw::RandRead,
            (Place::Random, Some(Kind::Write)) => Rw::RandWrite,
            (Place::Sequence, Some(Kind::Read)) => Rw::Read,
            (Place::Sequence, Some(Kind::Write)) => Rw::Write,
            (Place::Random, None) if Some(&self.kinds) == half.as_ref() => Rw::RandMix,
            _ => return None,
        };
        let (depth, connections) = (self.depth, self.connections);
        Some(Point {
            rw,
            block,
            depth,
            connections,
        })
    }

    /// Bytes of the largest request.
    pub fn block_max(&self) -> u32 {
        self.sizes.items().max().unwrap_or(1)
    }

    /// Some request is of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds.items().any(|other| other == kind)
    }

    /// Some request changes what lies there.
    pub fn changes(&self) -> bool {
        self.kinds.items().any(Kind::changes)
    }
}

impl From<Point> for Load {
    fn from(point: Point) -> Load {
        let place = match point.rw {
            Rw::Read | Rw::Write => Place::Sequence,
            Rw::RandRead | Rw::RandWrite | Rw::RandMix => Place::Random,
        };
        Load {
            kinds: point.rw.kinds(),
            sizes: Weighted::only(point.block),
            place,
            depth: point.depth,
            connections: point.connections,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(point) = self.point() {
            return write!(f, "{point}");
        }
        let kinds = self.kinds.show('=', |kind| kind.name().to_owned());
        let sizes = self.sizes.show(':', |bytes| show_size(bytes.into()));
        write!(
            f,
            "{kinds} of {sizes}, {}, depth {}",
            self.place, self.depth
        )?;
        if self.connections > 1 {
            write!(f, " on {} connections", self.connections)?;
        }
        Ok(())
    }
}

/// A load in words, for results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadWords {
    /// All of it.
    pub load: String,
    /// The word of a plain load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rw: Option<String>,
    /// Bytes of a request, if they are all of one size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<u32>,
    /// What requests ask.
    pub mix: String,
    /// Their bytes.
    pub sizes: String,
    /// Where they go.
    pub place: String,
    /// Most requests outstanding on each connection.
    pub depth: u32,
    /// Connections.
    pub connections: u32,
}

impl Load {
    /// The load in words.
    pub fn words(&self) -> LoadWords {
        LoadWords {
            load: self.to_string(),
            rw: self.point().map(|point| point.rw.name().to_owned()),
            block: self.sizes.single(),
            mix: self.kinds.show('=', |kind| kind.name().to_owned()),
            sizes: self.sizes.show(':', |bytes| show_size(bytes.into())),
            place: self.place.to_string(),
            depth: self.depth,
            connections: self.connections,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept() {
        let mix = parse_mix("read=70,write=30").unwrap();
        let mut random = Random::new(5);
        let reads = (0..100_000).filter(|_| mix.choose(&mut random) == Kind::Read);
        let reads = reads.count();
        assert!((69_000..71_000).contains(&reads), "{reads}");
        let sizes = parse_sizes("4k:8,64k:1,512:1").unwrap();
        let mut seen = [0u32; 3];
        for _ in 0..100_000 {
            seen[match sizes.choose(&mut random) {
                4096 => 0,
                65536 => 1,
                _ => 2,
            }] += 1;
        }
        let near = |found: u32, expected: u32| found.abs_diff(expected) < 1000;
        assert!(
            near(seen[0], 80_000) && near(seen[1], 10_000) && near(seen[2], 10_000),
            "{seen:?}"
        );
    }

    #[test]
    fn one_thing_alone_needs_no_weight() {
        assert_eq!(parse_mix("flush").unwrap().single(), Some(Kind::Flush));
        assert_eq!(parse_sizes("64k").unwrap().single(), Some(65536));
        assert_eq!(parse_sizes("4k:7").unwrap().single(), Some(4096));
    }

    #[test]
    fn what_is_no_mix_is_refused() {
        for text in [
            "",
            "read=0",
            "read=1,write",
            "read,write",
            "seek=1",
            "read=-1",
            "read=x",
        ] {
            assert!(parse_mix(text).is_err(), "{text}");
        }
        for text in ["", "0", "64m", "4k:0", "4k,8k", "4k:1,", "4k:1:2", "4k=1"] {
            assert!(parse_sizes(text).is_err(), "{text}");
        }
        for text in ["", "0", "-1", "11", "nan", "x"] {
            assert!(text.parse::<Exponent>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_point_is_a_load_and_back() {
        for text in [
            "randread:4k:64",
            "write:1m:8",
            "read:512:1:4",
            "randrw:4k:16",
            "randwrite:1:1",
        ] {
            let point: Point = text.parse().unwrap();
            let load = Load::from(point);
            assert_eq!(
                (load.point(), load.to_string()),
                (Some(point), text.to_owned())
            );
        }
    }

    #[test]
    fn a_load_tells_all_it_is() {
        let load = Load {
            kinds: parse_mix("read=70,write=30").unwrap(),
            sizes: parse_sizes("4k:80,64k:20").unwrap(),
            place: Place::Zipf(1.1),
            depth: 16,
            connections: 4,
        };
        assert_eq!(
            load.to_string(),
            "read=70,write=30 of 4k:80,64k:20, zipf 1.1, depth 16 on 4 connections"
        );
        assert_eq!((load.point(), load.block_max()), (None, 65536));
        let json = serde_json::to_value(load.words()).unwrap();
        assert_eq!(json["mix"], "read=70,write=30");
        assert_eq!(json["depth"], 16);
        assert!(json.get("rw").is_none());
    }
}
