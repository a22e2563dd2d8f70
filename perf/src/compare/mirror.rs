//! `perf mirror`: what a second replica costs a write.
//!
//! The second node keeps its replica in memory and shares the client's core. Three turns at each
//! point: the volume alone, mirrored, and with both replicas in memory, which shows what the way
//! to the other node takes. What a mirrored write takes is held against the longer of the two
//! ways it goes at once: to the own disk, and to the other node.

use std::fmt::{self, Formatter};
use std::path::PathBuf;

use clap::Args;

use super::table::{show, write_rows};
use super::{Common, Kind, measure, points, write_chapter};
use crate::results::{CompareRun, PointRun, Row};
use crate::servers::{Backing, Transport};

/// Measure what a mirrored write takes, and what it costs the primary
///
/// The primary runs on the servers' core; the other node, whose replica is in memory, and the
/// client share the client's core.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  perf mirror --backing file --directory /srv
  perf mirror --backing memory --rounds 3 --points randwrite:4k:16
  perf mirror --backing memory --tls")]
pub struct Mirror {
    /// Where the primary keeps its replica
    #[arg(long, value_enum, default_value_t = Backing::File)]
    backing: Backing,
    /// How the client reaches the primary
    #[arg(long, value_enum, default_value_t = Transport::Unix)]
    transport: Transport,
    /// Also with TLS between the nodes, in turn with the mirror without
    #[arg(long)]
    tls: bool,
    /// What to measure
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "randwrite:4k:1,randwrite:4k:16,randwrite:4k:64"
    )]
    points: Vec<String>,
    /// Where the tables go, also printed; replaces what it says of this backing
    #[arg(long, value_name = "FILE", default_value = "docs/performance.md")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// Measures and writes the tables.
pub fn run(mirror: &Mirror) -> anyhow::Result<()> {
    let points = points(&mirror.points, &[1])?;
    let bench = mirror
        .common
        .bench(mirror.backing, mirror.transport, false)?;
    let mut kinds = vec![Kind::Pollux, Kind::PolluxMirror];
    if mirror.backing == Backing::File {
        kinds.push(Kind::PolluxLeg);
    }
    if mirror.tls {
        kinds.push(Kind::PolluxMirrorTls);
    }
    let mut run = measure(&mirror.common, &bench, &points, &kinds)?;
    run.title = format!("mirrored writes, {}", run.title);
    run.setting = run.setting.replace("perf compare", "perf mirror");
    let text = Chapter(&run).to_string();
    print!("{text}");
    mirror.common.write(&run)?;
    write_chapter(&mirror.out, &text)
}

struct Chapter<'a>(&'a CompareRun);

/// What mirroring added at a point.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Added {
    alone_us: f64,
    mirrored_us: f64,
    /// Both replicas in memory.
    leg_us: f64,
    /// Of the median latency, beyond the longer way, per cent.
    percent: f64,
    /// CPU of the primary for each request.
    cpu_us: Option<f64>,
    /// Requests for each second of the primary's CPU, as a part of those alone.
    share: Option<f64>,
    /// CPU of both nodes, as a multiple of what it takes alone.
    both: Option<f64>,
}

fn added(point: &PointRun) -> Option<Added> {
    let find = |kind: Kind| point.rows.iter().find(|row| row.server == kind.name());
    let (alone, mirrored) = (find(Kind::Pollux)?, find(Kind::PolluxMirror)?);
    let leg = find(Kind::PolluxLeg).unwrap_or(mirrored);
    let cpu = |row: &Row| row.server_cpu_us_per_request.map(|spread| spread.median);
    let costs = cpu(mirrored).zip(cpu(alone).filter(|alone| *alone > 0.0));
    let other = mirrored.helpers_cpu_us_per_request;
    let (alone_us, mirrored_us) = (alone.p50_us.median, mirrored.p50_us.median);
    let leg_us = leg.p50_us.median;
    // In memory the mirrored volume is the leg; what it adds is all of the way.
    let longer = match find(Kind::PolluxLeg) {
        Some(_) => alone_us.max(leg_us),
        None => alone_us,
    };
    Some(Added {
        alone_us,
        mirrored_us,
        leg_us,
        percent: (mirrored_us / longer.max(1e-9) - 1.0) * 100.0,
        cpu_us: costs.map(|(with, without)| with - without),
        share: costs.map(|(with, without)| without / with),
        both: costs
            .zip(other)
            .map(|((with, without), other)| (with + other.median) / without),
    })
}

impl Chapter<'_> {
    /// The mirror with TLS between its nodes beside the one without.
    fn tls(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let find = |point: &PointRun, kind: Kind| {
            let mut rows = point.rows.iter();
            rows.find(|row| row.server == kind.name()).cloned()
        };
        let pairs = self.0.points.iter().filter_map(|point| {
            let plain = find(point, Kind::PolluxMirror)?;
            Some((point, plain, find(point, Kind::PolluxMirrorTls)?))
        });
        let pairs: Vec<_> = pairs.collect();
        if pairs.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "## What TLS between the nodes costs\n\n\
             | load | requests/s, plain | TLS | p50 µs, plain | TLS | CPU of the primary, \
             µs per request, plain | TLS |\n|---|---|---|---|---|---|---|"
        )?;
        for (point, plain, tls) in pairs {
            let cpu = |row: &Row| {
                let cpu = row.server_cpu_us_per_request.as_ref();
                cpu.map_or_else(|| "–".to_owned(), |cpu| show(cpu.median))
            };
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} | {} |",
                point.load,
                show(plain.iops.median),
                show(tls.iops.median),
                show(plain.p50_us.median),
                show(tls.p50_us.median),
                cpu(&plain),
                cpu(&tls),
            )?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Chapter<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Chapter(run) = self;
        writeln!(f, "# Performance: {}\n\n{}\n", run.title, run.setting)?;
        writeln!(f, "| server | data |\n|---|---|")?;
        for server in &run.servers {
            writeln!(f, "| {} | {} |", server.name, server.data)?;
        }
        let has_leg = run.servers.iter().any(|s| s.name == Kind::PolluxLeg.name());
        let beyond = if has_leg {
            "the longer of alone and leg"
        } else {
            "alone"
        };
        writeln!(
            f,
            "\n## What the mirror adds\n\nAdded p50 is counted beyond {beyond}. The client and the \
             other node share core {}, the primary has core {}.\n\n\
             | load | alone p50 µs | leg p50 µs | mirrored p50 µs | added p50 | added CPU of the \
             primary, µs per request | requests per CPU second of the primary, of those alone | \
             CPU of both nodes, times that alone |\n|---|---|---|---|---|---|---|---|",
            run.cores.1, run.cores.0
        )?;
        for point in &run.points {
            let Some(added) = added(point) else {
                continue;
            };
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
            let cpu = or_dash(added.cpu_us.map(|cpu| format!("{cpu:.2}")));
            let share = or_dash(added.share.map(|share| format!("{:.0} %", share * 100.0)));
            let both = or_dash(added.both.map(|both| format!("{both:.2}")));
            writeln!(
                f,
                "| {} | {} | {} | {} | {:+.0} % | {cpu} | {share} | {both} |",
                point.load,
                show(added.alone_us),
                show(added.leg_us),
                show(added.mirrored_us),
                added.percent,
            )?;
        }
        writeln!(f)?;
        self.tls(f)?;
        run.points.iter().try_for_each(|point| write_rows(point, f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tally::Tally;
    use crate::compare::tally::tests::taken;

    fn point(all: &[(Kind, f64, f64)]) -> PointRun {
        let mut tally = Tally::default();
        for (kind, p50_us, cpu) in all {
            tally.add(0, *kind, taken(1e6 / p50_us, *cpu, 0.0));
        }
        let kinds: Vec<Kind> = all.iter().map(|(kind, _, _)| *kind).collect();
        tally
            .points(&["randwrite:4k:1".parse().unwrap()], &kinds)
            .remove(0)
    }

    #[test]
    fn a_mirrored_write_is_held_against_the_longer_of_its_two_ways() {
        let slow_disk = [
            (Kind::Pollux, 100.0, 4.0),
            (Kind::PolluxMirror, 115.0, 6.5),
            (Kind::PolluxLeg, 60.0, 3.0),
        ];
        let found = added(&point(&slow_disk)).unwrap();
        assert!((found.percent - 15.0).abs() < 1e-6, "{found:?}");
        assert_eq!(found.cpu_us, Some(2.5));
        assert!((found.share.unwrap() - 4.0 / 6.5).abs() < 1e-6, "{found:?}");
        assert_eq!(found.both, None, "nothing was heard of the other node");
        let slow_leg = [
            (Kind::Pollux, 100.0, 4.0),
            (Kind::PolluxMirror, 220.0, 6.0),
            (Kind::PolluxLeg, 200.0, 3.0),
        ];
        let found = added(&point(&slow_leg)).unwrap();
        assert!((found.percent - 10.0).abs() < 1e-6, "{found:?}");
        let memory = [(Kind::Pollux, 50.0, 4.0), (Kind::PolluxMirror, 100.0, 6.0)];
        let found = added(&point(&memory)).unwrap();
        assert!((found.percent - 100.0).abs() < 1e-6, "{found:?}");
        assert_eq!(added(&point(&memory[..1])), None);
    }
}
