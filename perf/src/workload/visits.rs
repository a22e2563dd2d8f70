//! The order in which a load visits its blocks.

use super::load::{Kind, Load, Place};
use super::zipf::Zipf;
use super::{Random, Weighted};

/// One request to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// What it asks.
    pub kind: Kind,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u32,
}

/// The order in which blocks are visited. Every request begins at a multiple of its own length.
#[derive(Clone, Debug)]
pub struct Visits {
    order: Order,
    kinds: Weighted<Kind>,
    sizes: Weighted<u32>,
    /// Bytes of the range that hold whole blocks of the largest size.
    size: u64,
    /// Bytes of the largest request.
    unit: u64,
    random: Random,
}

#[derive(Clone, Debug)]
enum Order {
    Random,
    Sequence {
        cursor: u64,
    },
    /// The unit of each rank is rank * stride modulo their number.
    Zipf {
        ranks: Zipf,
        stride: u64,
    },
    /// Every block once, scattered: the n-th visit is block n * stride modulo their number.
    Once {
        done: u64,
        stride: u64,
    },
}

impl Visits {
    /// Endless visits to the first `size` bytes; `None` if a block does not fit.
    pub fn endless(load: &Load, size: u64, seed: u64) -> Option<Visits> {
        let unit = u64::from(load.block_max());
        let units = size / unit;
        let mut random = Random::new(seed);
        let order = match load.place {
            Place::Random => Order::Random,
            Place::Sequence => Order::Sequence { cursor: 0 },
            Place::Zipf(exponent) => Order::Zipf {
                ranks: Zipf::new(units, exponent),
                stride: coprime(random.below(units.max(1)), units),
            },
        };
        (units > 0).then(|| Visits {
            order,
            kinds: load.kinds.clone(),
            sizes: load.sizes.clone(),
            size: units * unit,
            unit,
            random,
        })
    }

    /// One visit of `kind` to each block of `block` bytes: in sequence, or scattered.
    pub fn once(
        kind: Kind,
        block: u32,
        is_scattered: bool,
        size: u64,
        seed: u64,
    ) -> Option<Visits> {
        let unit = u64::from(block);
        let blocks = size / unit;
        let mut random = Random::new(seed);
        let stride = match is_scattered && blocks > 0 {
            true => coprime(random.below(blocks), blocks),
            false => 1,
        };
        (blocks > 0).then(|| Visits {
            order: Order::Once { done: 0, stride },
            kinds: Weighted::only(kind),
            sizes: Weighted::only(block),
            size: blocks * unit,
            unit,
            random,
        })
    }

    /// Blocks of the largest size in the range.
    pub fn blocks(&self) -> u64 {
        self.size / self.unit
    }

    /// The next request; `None` when every block was visited.
    #[inline]
    pub fn next(&mut self) -> Option<Next> {
        let kind = self.kinds.choose(&mut self.random);
        if kind == Kind::Flush {
            return Some(Next {
                kind,
                offset: 0,
                length: 0,
            });
        }
        let length = self.sizes.choose(&mut self.random);
        let bytes = u64::from(length);
        let offset = match &mut self.order {
            Order::Random => self.random.below(self.size / bytes) * bytes,
            Order::Sequence { cursor } => {
                let begin = cursor.next_multiple_of(bytes);
                let begin = if begin + bytes > self.size { 0 } else { begin };
                *cursor = begin + bytes;
                begin
            }
            Order::Zipf { ranks, stride } => {
                let rank = ranks.sample(&mut self.random);
                let unit = scatter(rank, *stride, self.size / self.unit);
                // Smaller requests lie anywhere in the unit, so that hot places are the same.
                let parts = self.unit / bytes;
                let part = if parts > 1 {
                    self.random.below(parts)
                } else {
                    0
                };
                let begin = unit * self.unit + part * bytes;
                begin - begin % bytes
            }
            Order::Once { done, .. } if *done == self.size / self.unit => return None,
            Order::Once { done, stride } => {
                let block = scatter(*done, *stride, self.size / self.unit);
                *done += 1;
                block * self.unit
            }
        };
        Some(Next {
            kind,
            offset,
            length,
        })
    }
}

#[inline]
fn scatter(index: u64, stride: u64, count: u64) -> u64 {
    (u128::from(index) * u128::from(stride) % u128::from(count)) as u64
}

/// The first number from `from` on that shares no divisor with `count`.
fn coprime(from: u64, count: u64) -> u64 {
    let mut stride = from.max(1);
    while greatest_common_divisor(stride, count) != 1 {
        stride += 1;
    }
    stride
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
    use crate::workload::{Point, Rw, parse_mix, parse_sizes};

    fn load(mix: &str, sizes: &str, place: Place) -> Load {
        Load {
            kinds: parse_mix(mix).unwrap(),
            sizes: parse_sizes(sizes).unwrap(),
            place,
            depth: 1,
            connections: 1,
        }
    }

    #[test]
    fn one_pass_visits_every_block_once() {
        for (is_scattered, blocks) in [(true, 1), (true, 97), (true, 360), (false, 64)] {
            for seed in 0..20 {
                let size = blocks * 512 + 100;
                let mut visits = Visits::once(Kind::Read, 512, is_scattered, size, seed).unwrap();
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
            let point = Point::new(rw, 4096, 1, 1).unwrap();
            let mut visits = Visits::endless(&point.into(), 10 * 4096 + 4095, 7).unwrap();
            let mut writes = 0;
            for _ in 0..1000 {
                let next = visits.next().unwrap();
                assert!(next.offset.is_multiple_of(4096) && next.offset < 10 * 4096);
                writes += u32::from(next.kind == Kind::Write);
            }
            match rw {
                Rw::RandMix => assert!((400..600).contains(&writes), "{writes}"),
                Rw::RandRead | Rw::Read => assert_eq!(writes, 0),
                Rw::RandWrite | Rw::Write => assert_eq!(writes, 1000),
            }
        }
        let point = Point::new(Rw::Read, 4096, 1, 1).unwrap();
        assert!(Visits::endless(&point.into(), 4095, 0).is_none());
    }

    #[test]
    fn mixed_sizes_stay_aligned_and_in_range() {
        for place in [Place::Random, Place::Sequence, Place::Zipf(1.1)] {
            for sizes in ["4k:80,64k:20", "512:1,12k:1", "3:1,5:1,7:1"] {
                let load = load("read=1,write=1,flush=1", sizes, place);
                let size = 10 * u64::from(load.block_max()) + 1;
                let mut visits = Visits::endless(&load, size, 3).unwrap();
                for _ in 0..5000 {
                    let next = visits.next().unwrap();
                    if next.kind == Kind::Flush {
                        assert_eq!((next.offset, next.length), (0, 0));
                        continue;
                    }
                    let length = u64::from(next.length);
                    assert!(
                        next.offset.is_multiple_of(length),
                        "{place} {sizes} {next:?}"
                    );
                    assert!(next.offset + length <= size, "{place} {sizes} {next:?}");
                }
            }
        }
    }

    #[test]
    fn a_sequence_leaves_no_block_out() {
        let load = load("read", "4k", Place::Sequence);
        let mut visits = Visits::endless(&load, 3 * 4096, 0).unwrap();
        let offsets: Vec<u64> = (0..7)
            .map(|_| visits.next().unwrap().offset / 4096)
            .collect();
        assert_eq!(offsets, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn few_blocks_take_most_visits_of_zipf_and_they_are_scattered() {
        let load = load("read", "4k", Place::Zipf(1.1));
        let blocks = 100_000u64;
        let mut visits = Visits::endless(&load, blocks * 4096, 9).unwrap();
        let mut seen = std::collections::HashMap::new();
        for _ in 0..100_000 {
            *seen
                .entry(visits.next().unwrap().offset / 4096)
                .or_insert(0u32) += 1;
        }
        let mut counts: Vec<(u32, u64)> = seen.into_iter().map(|(b, n)| (n, b)).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let hot: u32 = counts.iter().take(1000).map(|(n, _)| n).sum();
        assert!(hot > 60_000, "1 % of the blocks took {hot} of 100000");
        let neighbours = counts[..10]
            .iter()
            .filter(|(_, a)| counts[..10].iter().any(|(_, b)| a.abs_diff(*b) == 1));
        assert_eq!(neighbours.count(), 0);
    }

    #[test]
    fn the_same_seed_gives_the_same_load() {
        let load = load("read=1,write=1", "4k:1,8k:1", Place::Zipf(0.9));
        let visits = |seed| {
            let mut visits = Visits::endless(&load, 1 << 30, seed).unwrap();
            (0..100).map(|_| visits.next().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(visits(1), visits(1));
        assert_ne!(visits(1), visits(2));
    }
}
