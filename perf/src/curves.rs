//! What a measurement looks like drawn: latency by percentile, and everything over time.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::load::Interval;

/// Points of a percentile curve for each factor of ten.
const STEPS: i32 = 8;

/// One point of a latency distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// Of 100 requests so many were at most as slow; below 100.
    pub percent: f64,
    /// Latency, microseconds.
    pub us: f64,
}

/// One piece of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// When it began, after the measured time did.
    pub at_seconds: f64,
    /// How long it was.
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
    /// How busy the server was, hundredths of one CPU.
    pub server_cpu_percent: Option<f64>,
    /// CPU time of the server for each request.
    pub server_cpu_us_per_request: Option<f64>,
    /// How busy this client was, hundredths of one CPU.
    pub client_cpu_percent: f64,
}

/// The distribution, with ever finer steps towards 100 %, as far as there are requests to tell
/// them apart.
pub fn percentiles(latency: &Histogram<u64>) -> Vec<Percentile> {
    let mut points = Vec::new();
    if latency.is_empty() {
        return points;
    }
    for step in 0.. {
        let slower = 10f64.powf(-f64::from(step) / f64::from(STEPS));
        if slower * (latency.len() as f64) < 1.0 {
            break;
        }
        let us = latency.value_at_quantile(1.0 - slower) as f64 / 1e3;
        let percent = (1.0 - slower) * 100.0;
        points.push(Percentile { percent, us });
    }
    points
}

/// The pieces of a run, with figures.
pub fn moments(intervals: &[Interval]) -> Vec<Moment> {
    let moment = |interval: &Interval| {
        let seconds = interval.length.as_secs_f64().max(1e-9);
        let at = |quantile| super::figures::microseconds(&interval.latency, quantile);
        let server = interval.server_cpu.map(|time| time.as_secs_f64());
        Moment {
            at_seconds: interval.begin.as_secs_f64(),
            seconds,
            requests: interval.requests,
            iops: interval.requests as f64 / seconds,
            mb_per_second: interval.bytes as f64 / seconds / 1e6,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: interval.latency.max() as f64 / 1e3,
            server_cpu_percent: server.map(|time| time * 100.0 / seconds),
            server_cpu_us_per_request: server
                .filter(|_| interval.requests > 0)
                .map(|time| time * 1e6 / interval.requests as f64),
            client_cpu_percent: interval.client_cpu.as_secs_f64() * 100.0 / seconds,
        }
    };
    intervals.iter().map(moment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn histogram(values: impl Iterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        values.for_each(|value| histogram.record(value).unwrap());
        histogram
    }

    #[test]
    fn a_distribution_rises_and_ends_where_requests_end() {
        let points = percentiles(&histogram((1..=1000).map(|n| n * 1000)));
        assert!(
            points
                .windows(2)
                .all(|w| w[0].percent < w[1].percent && w[0].us <= w[1].us)
        );
        assert_eq!(points.len(), 3 * STEPS as usize + 1);
        let last = points.last().unwrap();
        assert!(
            (last.percent - 99.9).abs() < 1e-6 && (last.us - 999.0).abs() < 2.0,
            "{last:?}"
        );
        assert!(percentiles(&histogram(std::iter::empty())).is_empty());
    }

    #[test]
    fn moments_are_per_second() {
        let interval = Interval {
            begin: Duration::from_secs(3),
            length: Duration::from_millis(500),
            requests: 100,
            bytes: 409_600,
            latency: histogram([1000, 2000, 3000].into_iter()),
            server_cpu: Some(Duration::from_millis(250)),
            client_cpu: Duration::from_millis(100),
        };
        let moments = moments(&[interval]);
        let moment = &moments[0];
        assert_eq!((moment.at_seconds, moment.iops), (3.0, 200.0));
        assert_eq!(moment.server_cpu_percent, Some(50.0));
        assert_eq!(moment.server_cpu_us_per_request, Some(2500.0));
        assert_eq!(moment.client_cpu_percent, 20.0);
    }
}
