//! Ranks that follow Zipf's law: rank k comes in proportion to 1 / k^s.
//!
//! Rejection-inversion, which needs no table and takes any exponent above 0, also 1.
//! Source: Hörmann and Derflinger, "Rejection-inversion to generate variates from monotone
//! discrete distributions", 1996.

use super::Random;

/// Zipf's law over `1..=count`.
#[derive(Clone, Debug)]
pub struct Zipf {
    exponent: f64,
    count: f64,
    area_first: f64,
    area_all: f64,
    squeeze: f64,
}

impl Zipf {
    /// Over `count` ranks, at least 1, with an exponent above 0.
    pub fn new(count: u64, exponent: f64) -> Zipf {
        let count = count.max(1) as f64;
        let mut zipf = Zipf {
            exponent,
            count,
            area_first: 0.0,
            area_all: 0.0,
            squeeze: 0.0,
        };
        zipf.area_first = zipf.area(1.5) - 1.0;
        zipf.area_all = zipf.area(count + 0.5);
        zipf.squeeze = 2.0 - zipf.place(zipf.area(2.5) - zipf.height(2.0));
        zipf
    }

    /// A rank, counted from 0: the most frequent is 0.
    #[inline]
    pub fn sample(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.area_all + random.fraction() * (self.area_first - self.area_all);
            let x = self.place(area);
            let rank = (x + 0.5).floor().clamp(1.0, self.count);
            if rank - x <= self.squeeze || area >= self.area(rank + 0.5) - self.height(rank) {
                return rank as u64 - 1;
            }
        }
    }

    fn height(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// The integral of the height from 1 to `x`.
    fn area(&self, x: f64) -> f64 {
        let log = x.ln();
        over((1.0 - self.exponent) * log, f64::exp_m1) * log
    }

    /// Where the area is `area`: the inverse of the above.
    fn place(&self, area: f64) -> f64 {
        let bent = (area * (1.0 - self.exponent)).max(-1.0);
        (over(bent, f64::ln_1p) * area).exp()
    }
}

/// `f(x) / x`, for functions whose quotient at 0 is 1.
fn over(x: f64, f: fn(f64) -> f64) -> f64 {
    if x.abs() > 1e-8 {
        f(x) / x
    } else {
        1.0 + x * if f(1.0) > 1.0 { 0.5 } else { -0.5 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_as_often_as_the_law_says() {
        for exponent in [0.5, 0.99, 1.0, 1.1, 2.0] {
            let (count, draws) = (1000, 200_000);
            let zipf = Zipf::new(count, exponent);
            let mut random = Random::new(1);
            let mut seen = vec![0u32; count as usize];
            for _ in 0..draws {
                seen[zipf.sample(&mut random) as usize] += 1;
            }
            let whole: f64 = (1..=count).map(|k| (k as f64).powf(-exponent)).sum();
            for rank in [1usize, 2, 3, 10, 100] {
                let expected = f64::from(draws) * (rank as f64).powf(-exponent) / whole;
                let found = f64::from(seen[rank - 1]);
                let slack = 5.0 * expected.sqrt() + 1.0;
                assert!(
                    (found - expected).abs() < slack,
                    "{exponent} {rank}: {found} for {expected}"
                );
            }
        }
    }

    #[test]
    fn a_single_rank_is_always_the_first() {
        let (zipf, mut random) = (Zipf::new(1, 1.1), Random::new(7));
        assert!((0..100).all(|_| zipf.sample(&mut random) == 0));
    }

    #[test]
    fn ranks_stay_in_range_also_for_whole_disks() {
        let (zipf, mut random) = (Zipf::new(1 << 40, 1.2), Random::new(3));
        assert!((0..10_000).all(|_| zipf.sample(&mut random) < 1 << 40));
    }
}
