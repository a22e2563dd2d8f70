//! What a measurement says, in the units people compare.

use std::fmt;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::load::Measured;

/// Foreign CPU time beyond which a measurement is called noisy, hundredths of one CPU.
pub const NOISE_PERCENT: f64 = 5.0;

/// The figures of one measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Measured time.
    pub seconds: f64,
    /// Requests that ended in it.
    pub requests: u64,
    /// Requests per second.
    pub iops: f64,
    /// Millions of bytes per second.
    pub mb_per_second: f64,
    /// Median latency.
    pub p50_us: f64,
    /// 99 of 100 were faster.
    pub p99_us: f64,
    /// 999 of 1000 were faster.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// CPU time of this client for each request.
    pub client_cpu_us_per_request: f64,
    /// How busy it was, hundredths of one CPU.
    pub client_cpu_percent: f64,
    /// CPU time of the server's process tree for each request.
    pub server_cpu_us_per_request: Option<f64>,
    /// How busy the server was, hundredths of one CPU.
    pub server_cpu_percent: Option<f64>,
    /// CPU time of other nodes for each request.
    #[serde(default)]
    pub helpers_cpu_us_per_request: Option<f64>,
    /// What all others used, hundredths of one CPU.
    pub foreign_cpu_percent: f64,
    /// Who of them used most.
    pub foreign_busiest: Option<String>,
    /// Requests of an open loop that were due and could not be sent.
    pub unsent: u64,
}

impl Figures {
    /// The figures of a measurement.
    pub fn of(measured: &Measured) -> Figures {
        let seconds = measured.elapsed.as_secs_f64().max(1e-9);
        let each = 1e6 / measured.requests.max(1) as f64;
        let server = measured.usage.server.map(|time| time.as_secs_f64());
        let client = measured.client_cpu.as_secs_f64();
        let at = |quantile| microseconds(&measured.latency, quantile);
        Figures {
            seconds,
            requests: measured.requests,
            iops: measured.requests as f64 / seconds,
            mb_per_second: measured.bytes as f64 / seconds / 1e6,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: measured.latency.max() as f64 / 1e3,
            client_cpu_us_per_request: client * each,
            client_cpu_percent: client * 100.0 / seconds,
            server_cpu_us_per_request: server.map(|time| time * each),
            server_cpu_percent: server.map(|time| time * 100.0 / seconds),
            helpers_cpu_us_per_request: (measured.usage.helpers)
                .map(|time| time.as_secs_f64() * each),
            foreign_cpu_percent: measured.usage.foreign_percent(),
            foreign_busiest: measured.usage.busiest.clone(),
            unsent: measured.unsent,
        }
    }

    /// Others used so much CPU that the figures say little.
    pub fn is_noisy(&self) -> bool {
        self.foreign_cpu_percent > NOISE_PERCENT
    }
}

/// The latency that this part of all requests did not exceed; 0 without requests.
pub fn microseconds(latency: &Histogram<u64>, quantile: f64) -> f64 {
    if latency.is_empty() {
        0.0
    } else {
        latency.value_at_quantile(quantile) as f64 / 1e3
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures {
            seconds,
            requests,
            iops,
            mb_per_second,
            ..
        } = self;
        writeln!(
            f,
            "  rate     {iops:.0} requests/s, {mb_per_second:.1} MB/s ({requests} in {seconds:.2} s)"
        )?;
        writeln!(
            f,
            "  latency  p50 {:.1} µs, p99 {:.1}, p99.9 {:.1}, max {:.1}",
            self.p50_us, self.p99_us, self.p999_us, self.max_us
        )?;
        write!(
            f,
            "  CPU      client {:.3} µs per request ({:.0} % of a core)",
            self.client_cpu_us_per_request, self.client_cpu_percent
        )?;
        match (self.server_cpu_us_per_request, self.server_cpu_percent) {
            (Some(each), Some(percent)) => {
                writeln!(f, ", server {each:.3} µs ({percent:.0} %)")?;
            }
            _ => writeln!(f, ", server not known: give --pid")?,
        }
        if self.unsent > 0 {
            let unsent = self.unsent;
            writeln!(
                f,
                "  unsent   {unsent} requests were due and found no free slot: the rate is too high"
            )?;
        }
        if self.is_noisy() {
            let busiest = self.foreign_busiest.as_deref().unwrap_or("the hypervisor");
            let percent = self.foreign_cpu_percent;
            writeln!(
                f,
                "  noise    others used {percent:.0} % of a core, most of it {busiest}"
            )?;
        }
        Ok(())
    }
}

/// Median, least and most of the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one, or the mean of the two middle ones.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of at least one value; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[half - 1], values[half]),
            _ => values[half],
        };
        Some(Spread { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Usage;
    use std::time::Duration;

    fn measured() -> Measured {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        for request in 1..=1000u64 {
            latency.record(request * 1000).unwrap();
        }
        let usage = Usage {
            elapsed: Duration::from_secs(2),
            server: Some(Duration::from_millis(1600)),
            helpers: None,
            others: Duration::from_millis(90),
            busiest: Some("cc".to_owned()),
            steal: Duration::ZERO,
        };
        Measured {
            requests: 1000,
            bytes: 1000 * 4096,
            elapsed: Duration::from_secs(2),
            latency,
            client_cpu: Duration::from_millis(500),
            usage,
            intervals: Vec::new(),
            unsent: 0,
        }
    }

    #[test]
    fn figures_are_per_request_and_per_second() {
        let figures = Figures::of(&measured());
        assert_eq!((figures.iops, figures.mb_per_second), (500.0, 2.048));
        assert_eq!(figures.server_cpu_us_per_request, Some(1600.0));
        assert_eq!(figures.server_cpu_percent, Some(80.0));
        assert_eq!(figures.client_cpu_us_per_request, 500.0);
        for (found, expected) in [
            (figures.p50_us, 500.0),
            (figures.p99_us, 990.0),
            (figures.p999_us, 999.0),
            (figures.max_us, 1000.0),
        ] {
            assert!(
                (found - expected).abs() <= expected / 1000.0,
                "{found} for {expected}"
            );
        }
    }

    #[test]
    fn noise_is_more_than_a_twentieth_of_a_cpu() {
        let mut measured = measured();
        assert!(!Figures::of(&measured).is_noisy());
        measured.usage.others = Duration::from_millis(102);
        assert!(Figures::of(&measured).is_noisy());
        let text = Figures::of(&measured).to_string();
        assert!(
            text.contains("others used 5 % of a core, most of it cc"),
            "{text}"
        );
        measured.usage.others = Duration::ZERO;
        measured.usage.steal = Duration::from_millis(102);
        assert!(Figures::of(&measured).is_noisy());
    }

    #[test]
    fn nothing_measured_is_zero_and_not_a_crash() {
        let mut measured = measured();
        (measured.requests, measured.bytes) = (0, 0);
        measured.latency.reset();
        let figures = Figures::of(&measured);
        assert_eq!(
            (figures.iops, figures.p50_us, figures.max_us),
            (0.0, 0.0, 0.0)
        );
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(
            Spread::of([4.0]),
            Some(Spread {
                median: 4.0,
                min: 4.0,
                max: 4.0
            })
        );
        assert_eq!(
            Spread::of([9.0, 1.0, 2.0, 4.0]),
            Some(Spread {
                median: 3.0,
                min: 1.0,
                max: 9.0
            })
        );
        assert_eq!(Spread::of([5.0, 1.0, 3.0]).unwrap().median, 3.0);
    }
}
