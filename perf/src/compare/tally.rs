//! From single measurements to medians.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::curves::{self, Percentile};
use crate::figures::{Figures, Spread, microseconds};
use crate::load;
use crate::results::{HandshakeRow, PointRun, Row, ServerWords};
use crate::servers::{Backing, Bench, Kind, Transport, machine};
use crate::workload::Point;

/// One measurement.
pub struct Taken {
    /// What it came to.
    pub figures: Figures,
    /// Its latencies, where they are known one by one.
    pub latency: Option<Histogram<u64>>,
    /// Their distribution.
    pub percentiles: Vec<Percentile>,
}

/// All measurements, by point and server.
#[derive(Default)]
pub struct Tally(BTreeMap<(usize, Kind), Vec<Taken>>);

impl Tally {
    /// Takes one in.
    pub fn add(&mut self, point: usize, kind: Kind, taken: Taken) {
        self.0.entry((point, kind)).or_default().push(taken);
    }

    /// Something was measured of this server.
    pub fn has(&self, kind: Kind) -> bool {
        self.0.keys().any(|(_, other)| *other == kind)
    }

    /// Everything, in the order of points and servers.
    pub fn points(&self, points: &[Point], servers: &[Kind]) -> Vec<PointRun> {
        let rows = |number: usize| {
            let found = |kind: &Kind| row(*kind, self.0.get(&(number, *kind))?);
            servers.iter().filter_map(found).collect()
        };
        let each = points.iter().enumerate();
        let each = each.map(|(number, point)| PointRun {
            load: point.to_string(),
            rows: rows(number),
        });
        each.collect()
    }
}

/// Medians of the quiet ones, or of all if none was quiet.
fn row(kind: Kind, taken: &[Taken]) -> Option<Row> {
    let quiet: Vec<&Taken> = taken.iter().filter(|one| !one.figures.is_noisy()).collect();
    let disturbed = taken.len() - quiet.len();
    let counted = if quiet.is_empty() {
        taken.iter().collect()
    } else {
        quiet
    };
    let spread = |value: fn(&Figures) -> Option<f64>| {
        Spread::of(counted.iter().filter_map(|one| value(&one.figures)))
    };
    let mut whole: Option<Histogram<u64>> = None;
    for latency in counted.iter().filter_map(|one| one.latency.as_ref()) {
        match &mut whole {
            // Both have the bounds of the generator's histograms.
            Some(whole) => whole.add(latency).ok()?,
            None => whole = Some(latency.clone()),
        }
    }
    let percentiles = match &whole {
        Some(whole) => curves::percentiles(whole),
        None => counted.last()?.percentiles.clone(),
    };
    Some(Row {
        server: kind.name().to_owned(),
        iops: spread(|f| Some(f.iops))?,
        mb_per_second: spread(|f| Some(f.mb_per_second))?,
        p50_us: spread(|f| Some(f.p50_us))?,
        p99_us: spread(|f| Some(f.p99_us))?,
        p999_us: spread(|f| Some(f.p999_us))?,
        server_cpu_us_per_request: spread(|f| f.server_cpu_us_per_request),
        server_cpu_percent: spread(|f| f.server_cpu_percent),
        helpers_cpu_us_per_request: spread(|f| f.helpers_cpu_us_per_request),
        client_cpu_percent: spread(|f| Some(f.client_cpu_percent))?,
        rounds: counted.len(),
        disturbed,
        percentiles,
    })
}

/// Medians of what attaching took; `None` if it was never measured.
pub fn handshakes(kind: Kind, taken: &[load::Handshakes]) -> Option<HandshakeRow> {
    let p50 = |one: &load::Handshakes| microseconds(&one.latency, 0.5);
    Some(HandshakeRow {
        server: kind.name().to_owned(),
        p50_us: Spread::of(taken.iter().map(p50))?,
        server_cpu_us: Spread::of(taken.iter().filter_map(load::Handshakes::server_cpu_us)),
    })
}

/// What a table says of a server.
pub fn words(kind: Kind, bench: &Bench) -> ServerWords {
    ServerWords {
        name: kind.name().to_owned(),
        version: machine::version(kind, bench),
        data: kind.describe(bench.backing).to_owned(),
        role: kind.role(bench.backing),
    }
}

/// What was compared.
pub fn title(bench: &Bench, rate: Option<u64>) -> String {
    let backing = match bench.backing {
        Backing::Memory => "memory",
        Backing::File => "a file",
    };
    let transport = match bench.transport {
        Transport::Unix => "a Unix socket",
        Transport::Tcp => "TCP on loopback",
    };
    let rate = rate.map_or_else(String::new, |rate| {
        format!(", {rate} requests due each second")
    });
    let tls = bench.tls.as_ref().map_or("", |_| "TLS, ");
    format!("{tls}{backing} over {transport}{rate}")
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A measurement of so many requests per second, CPU µs for each, and noise.
    pub fn taken(iops: f64, cpu: f64, foreign: f64) -> Taken {
        let figures = Figures {
            seconds: 2.0,
            requests: 1,
            iops,
            mb_per_second: iops / 250.0,
            p50_us: 1e6 / iops,
            p99_us: 2e6 / iops,
            p999_us: 3e6 / iops,
            max_us: 4e6 / iops,
            client_cpu_us_per_request: 0.5,
            client_cpu_percent: 50.0,
            server_cpu_us_per_request: Some(cpu),
            server_cpu_percent: Some(90.0),
            helpers_cpu_us_per_request: None,
            foreign_cpu_percent: foreign,
            foreign_busiest: None,
            unsent: 0,
        };
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        latency.record((1e9 / iops) as u64).unwrap();
        Taken {
            figures,
            percentiles: curves::percentiles(&latency),
            latency: Some(latency),
        }
    }

    #[test]
    fn disturbed_rounds_count_only_if_there_are_no_others() {
        let all = [
            taken(1e5, 2.0, 0.0),
            taken(4e5, 9.0, 7.0),
            taken(2e5, 3.0, 1.0),
        ];
        let quiet = row(Kind::Pollux, &all).unwrap();
        assert_eq!((quiet.rounds, quiet.disturbed), (2, 1));
        assert_eq!((quiet.iops.median, quiet.iops.max), (1.5e5, 2e5));
        let noisy = row(Kind::Pollux, &all[1..2]).unwrap();
        assert_eq!(
            (noisy.rounds, noisy.disturbed, noisy.iops.median),
            (1, 1, 4e5)
        );
        assert!(row(Kind::Pollux, &[]).is_none());
    }

    #[test]
    fn the_distribution_is_that_of_all_rounds_together() {
        let all = [taken(1e5, 2.0, 0.0), taken(1e3, 2.0, 0.0)];
        let row = row(Kind::Pollux, &all).unwrap();
        assert_eq!(row.percentiles.len(), 3);
        assert!((row.percentiles[0].us - 10.0).abs() < 0.1);
        let fio = Taken {
            latency: None,
            ..taken(1e4, 1.0, 0.0)
        };
        let row = super::row(Kind::Fio, &[fio]).unwrap();
        assert!((row.percentiles[0].us - 100.0).abs() < 1.0);
    }

    #[test]
    fn rows_stand_in_the_order_asked_for() {
        let mut tally = Tally::default();
        let points = ["read:4k:1".parse().unwrap(), "read:4k:2".parse().unwrap()];
        for (point, kind) in [(1, Kind::NbdServer), (0, Kind::Pollux), (1, Kind::Pollux)] {
            tally.add(point, kind, taken(1e5, 2.0, 0.0));
        }
        assert!(tally.has(Kind::Pollux) && !tally.has(Kind::Fio));
        let runs = tally.points(&points, &[Kind::NbdServer, Kind::Pollux]);
        let names: Vec<Vec<&str>> = runs
            .iter()
            .map(|run| run.rows.iter().map(|row| row.server.as_str()).collect())
            .collect();
        assert_eq!(names, [vec!["pollux"], vec!["nbd-server", "pollux"]]);
    }
}
