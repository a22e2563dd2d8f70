//! What is written down while measuring: latencies as a whole, and by intervals.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{Interval, LATENCY_MAX_NS};
use crate::usage::{self, Meter};

/// Latencies of the requests that were meant to begin in the measured time.
pub struct Recorder {
    /// The measured time, nanoseconds of the ring's clock, end exclusive.
    from: u64,
    until: u64,
    whole: Histogram<u64>,
    part: Histogram<u64>,
    intervals: Vec<Interval>,
    meter: Option<Meter>,
    /// The accounts at the last cut.
    last: Account,
}

#[derive(Clone, Copy)]
struct Account {
    at: u64,
    requests: u64,
    bytes: u64,
    server: Option<Duration>,
    client: Duration,
}

/// Three digits for the whole, two for the parts: there may be a thousand of them.
fn histogram(digits: u8) -> Histogram<u64> {
    let made = Histogram::new_with_bounds(1, LATENCY_MAX_NS, digits);
    let mut histogram = made.expect("one to a minute in nanoseconds are fine bounds");
    histogram.auto(false);
    histogram
}

impl Recorder {
    /// Measures `from..until`, with the requests and bytes counted so far.
    pub fn new(
        (from, until): (u64, u64),
        (requests, bytes): (u64, u64),
        meter: Option<Meter>,
    ) -> Recorder {
        let server = meter.as_ref().map(Meter::read);
        Recorder {
            from,
            until,
            whole: histogram(3),
            part: histogram(2),
            intervals: Vec::with_capacity(64),
            meter,
            last: Account {
                at: from,
                requests,
                bytes,
                server,
                client: usage::own(),
            },
        }
    }

    /// A request that was meant to begin at `since` ended, or was given up, at `now`.
    #[inline]
    pub fn record(&mut self, since: u64, now: u64) {
        if (self.from..self.until).contains(&since) {
            let took = now.saturating_sub(since);
            self.whole.saturating_record(took);
            self.part.saturating_record(took);
        }
    }

    /// Ends an interval at `now`, with the requests and bytes counted so far.
    pub fn cut(&mut self, now: u64, requests: u64, bytes: u64) {
        let next = Account {
            at: now,
            requests,
            bytes,
            server: self.meter.as_ref().map(Meter::read),
            client: usage::own(),
        };
        let last = std::mem::replace(&mut self.last, next);
        let server = next.server.zip(last.server);
        self.intervals.push(Interval {
            begin: Duration::from_nanos(last.at.saturating_sub(self.from)),
            length: Duration::from_nanos(now.saturating_sub(last.at)),
            requests: requests - last.requests,
            bytes: bytes - last.bytes,
            latency: std::mem::replace(&mut self.part, histogram(2)),
            server_cpu: server.map(|(now, before)| now.saturating_sub(before)),
            client_cpu: next.client.saturating_sub(last.client),
        });
    }

    /// Everything that was written down.
    pub fn finish(self) -> (Histogram<u64>, Vec<Interval>) {
        (self.whole, self.intervals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_meant_for_the_measured_time_counts() {
        let mut recorder = Recorder::new((1000, 2000), (0, 0), None);
        recorder.record(999, 1500);
        recorder.record(1000, 1500);
        recorder.record(1999, 9999);
        recorder.record(2000, 2100);
        let (whole, _) = recorder.finish();
        assert_eq!((whole.len(), whole.min(), whole.max()), (2, 500, 8003));
    }

    #[test]
    fn intervals_add_up_to_the_whole() {
        let mut recorder = Recorder::new((0, 3000), (10, 100), None);
        recorder.record(0, 500);
        recorder.cut(1000, 11, 110);
        recorder.record(900, 1200);
        recorder.record(1000, 1900);
        recorder.cut(2100, 13, 150);
        let (whole, intervals) = recorder.finish();
        let requests: Vec<u64> = intervals.iter().map(|i| i.requests).collect();
        let bytes: Vec<u64> = intervals.iter().map(|i| i.bytes).collect();
        assert_eq!((requests, bytes), (vec![1, 2], vec![10, 40]));
        let latencies: u64 = intervals.iter().map(|i| i.latency.len()).sum();
        assert_eq!(latencies, whole.len());
        let (first, second) = (&intervals[0], &intervals[1]);
        assert_eq!((first.begin.as_nanos(), first.length.as_nanos()), (0, 1000));
        assert_eq!(
            (second.begin.as_nanos(), second.length.as_nanos()),
            (1000, 1100)
        );
        assert_eq!(second.latency.min(), 300);
    }
}
