//! `perf compare`: our server and its peers, the same load, one after the other.
//!
//! ```text
//!  rounds × points × servers ─► start ─► fill ─► load ─► stop ─► tally ─► table, page, JSON
//!                               core 0           core 1
//! ```
//! At each point the servers take turns, so that what is compared was measured within a minute. A
//! server that is not installed, or does not start, is left out with one line. A measurement
//! disturbed by others is made again, and does not count if it stays so.

pub mod mirror;
mod table;
mod tally;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use crate::curves;
use crate::figures::Figures;
use crate::load::{self, Plan, Times};
use crate::nbd::parse_seconds;
use crate::report;
use crate::results::{self, CompareRun, Outcome};
use crate::servers::machine::Machine;
use crate::servers::{self, Backing, Bench, Kind, Server, Transport, Wanted, fio};
use crate::workload::{Point, Rw, parse_size, show_size};
use tally::{Taken, Tally};

/// Loaded before each measured time.
const WARMUP: Duration = Duration::from_millis(500);
/// Of blocks and contents.
const SEED: u64 = 1;
/// How often a disturbed measurement is made again.
const REPEATS_MAX: usize = 2;

/// Measure our server and qemu-nbd, nbdkit and nbd-server on the same load
///
/// Servers run on one core, the client on another, one server at a time, in turn at each point, in
/// several rounds. Nothing else should run: a measurement during which others used more than 5 %
/// of a core is repeated up to twice, and left out of the medians if it stays disturbed.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  perf compare --json memory.json --report memory.html
  perf compare --backing file --directory /srv --points randread:4k:1,randwrite:4k:64
  perf compare --servers pollux,nbdkit-memory,qemu-nbd-native --rounds 1 --connections 1")]
pub struct Compare {
    /// memory: a file in /dev/shm for peers, memory of their own for Pollux and nbdkit-memory;
    /// file: one file in --directory for all, written in full before
    #[arg(long, value_enum, default_value_t = Backing::Memory)]
    backing: Backing,
    /// How the client reaches the servers
    #[arg(long, value_enum, default_value_t = Transport::Unix)]
    transport: Transport,
    /// Everybody under TLS, with certificates on both sides, and Pollux without it beside them; nbd-server,
    /// the baseline and fio are left out
    #[arg(long)]
    tls: bool,
    /// What to measure: request, size, depth and perhaps connections
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "randread:4k:1,randread:4k:16,randread:4k:64,\
                         randwrite:4k:1,randwrite:4k:16,randwrite:4k:64,\
                         read:128k:8,write:128k:8,read:1m:8,write:1m:8"
    )]
    points: Vec<String>,
    /// Connections of points that do not say how many: each of these
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    connections: Vec<u32>,
    /// Servers to measure [default: all that fit the backing]
    #[arg(long, value_delimiter = ',')]
    servers: Vec<Kind>,
    /// Where the tables go, also printed; replaces what it says of this backing and transport
    #[arg(long, value_name = "FILE", default_value = "docs/performance.md")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// What all comparisons are asked for.
#[derive(Debug, Args)]
pub struct Common {
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value = "2", value_parser = parse_seconds)]
    seconds: Duration,
    /// Open loop: requests due each second, the same for all [default: each reply begets a request]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: Option<u64>,
    /// Bytes of the disk
    #[arg(long, default_value = "1g", value_parser = parse_size)]
    size: u64,
    /// Where files lie with --backing file; the file system decides much of the result
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Our server [default: `pollux` beside this program]
    #[arg(long, value_name = "PATH")]
    pollux: Option<PathBuf>,
    /// Core of the servers
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// Core of the client
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// Write a page with charts
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the result for `perf report`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Common {
    fn bench(&self, backing: Backing, transport: Transport, tls: bool) -> anyhow::Result<Bench> {
        let bench = Bench::new(&Wanted {
            backing,
            transport,
            tls,
            size: self.size,
            directory: &self.directory,
            pollux: self.pollux.as_deref(),
            server_cpu: self.server_cpu,
            client_cpu: self.client_cpu,
        })?;
        servers::clean_up_on_signals(&[bench.scratch.path(), bench.disk.path()])?;
        Ok(bench)
    }

    /// Writes page and JSON where asked to.
    fn write(&self, run: &CompareRun) -> anyhow::Result<()> {
        let outcome = Outcome::Compare(run.clone());
        if let Some(file) = &self.json {
            results::write(file, &outcome)?;
        }
        match &self.report {
            Some(file) => report::write(file, &run.title, &[outcome]),
            None => Ok(()),
        }
    }
}

/// Runs the comparison and writes the tables. Errors: nothing could be measured, or the load
/// failed on a server that had started.
pub fn run(compare: &Compare) -> anyhow::Result<()> {
    let points = points(&compare.points, &compare.connections)?;
    let Compare {
        backing,
        transport,
        tls,
        ..
    } = *compare;
    let bench = compare.common.bench(backing, transport, tls)?;
    let usual = Kind::ALL
        .into_iter()
        .filter(|kind| kind.is_usual(backing, tls));
    let asked: Vec<Kind> = match compare.servers.is_empty() {
        true => usual.collect(),
        false => compare.servers.clone(),
    };
    let run = measure(&compare.common, &bench, &points, &asked)?;
    let text = table::Report(&run).to_string();
    print!("{text}");
    compare.common.write(&run)?;
    if !run
        .servers
        .iter()
        .any(|server| server.name == Kind::Pollux.name())
    {
        eprintln!(
            "{} is left as it is: Pollux did not take part",
            compare.out.display()
        );
        return Ok(());
    }
    write_chapter(&compare.out, &text)
}

/// Puts a chapter into a file, in the place of its elder.
fn write_chapter(file: &Path, chapter: &str) -> anyhow::Result<()> {
    let unwritable = || format!("cannot write {}", file.display());
    let before = match fs::read_to_string(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(unwritable);
        }
        found => found.unwrap_or_default(),
    };
    fs::write(file, table::replace_chapter(&before, chapter)).with_context(unwritable)
}

/// The points, those without connections once for each number of them.
fn points(words: &[String], connections: &[u32]) -> anyhow::Result<Vec<Point>> {
    let (plain, full): (Vec<&String>, Vec<&String>) =
        words.iter().partition(|word| word.split(':').count() == 3);
    let mut points = Vec::new();
    for connections in connections {
        for word in &plain {
            points.push(format!("{word}:{connections}").parse()?);
        }
    }
    for word in full {
        points.push(word.parse()?);
    }
    Ok(points)
}

/// All servers at all points, in turn.
fn measure(
    common: &Common,
    bench: &Bench,
    points: &[Point],
    asked: &[Kind],
) -> anyhow::Result<CompareRun> {
    if common.rounds == 0 || points.is_empty() || common.seconds.is_zero() {
        bail!("there is nothing to measure");
    }
    let is_here = |kind: &Kind| {
        let why = match (kind.fits(bench.backing), common.rate) {
            (true, Some(_)) if *kind == Kind::Fio => {
                Some("it is no measure of a given rate".to_owned())
            }
            (true, _)
                if bench.tls.is_some() && !kind.speaks_tls() && *kind != Kind::PolluxPlain =>
            {
                Some("it is not measured under TLS".to_owned())
            }
            (true, _) => kind.missing(bench),
            (false, _) => Some("it has no such backing".to_owned()),
        };
        if let Some(why) = &why {
            eprintln!("{} is left out: {why}", kind.name());
        }
        why.is_none()
    };
    let mut servers: Vec<Kind> = asked.iter().copied().filter(is_here).collect();
    if servers.iter().any(|kind| kind.needs_image(bench.backing)) {
        let unwritable = || format!("cannot write {}", bench.image.display());
        bench.write_image().with_context(unwritable)?;
    }
    let mut tally = Tally::default();
    let mut handshakes: BTreeMap<Kind, Vec<load::Handshakes>> = BTreeMap::new();
    for round in 1..=common.rounds {
        for (number, point) in points.iter().enumerate() {
            eprintln!("round {round} of {}: {point}", common.rounds);
            let mut gone = Vec::new();
            for &kind in &servers {
                let began = turn(common, bench, kind, *point, (number, &mut tally));
                match began.with_context(|| format!("{point} on {}", kind.name()))? {
                    Turn::Measured => {}
                    Turn::NotStarted(why) if tally.has(kind) => {
                        let again = format!("{} did not start again", kind.name());
                        return Err(why.context(again));
                    }
                    Turn::NotStarted(why) => {
                        eprintln!("{} is left out: {why:#}", kind.name());
                        gone.push(kind);
                    }
                }
            }
            servers.retain(|kind| !gone.contains(kind));
            if servers.is_empty() {
                bail!("no server to measure");
            }
        }
        for &kind in servers.iter().filter(|_| bench.tls.is_some()) {
            let server = Server::start(kind, bench).with_context(|| kind.name())?;
            let (cpu, pid) = (Some(bench.client_cpu), Some(server.pid()));
            let done = load::handshakes(server.uri(), common.seconds, cpu, pid);
            let done = done.with_context(|| format!("attaching to {}", kind.name()))?;
            handshakes.entry(kind).or_default().push(done);
        }
    }
    let machine = Machine::look(bench);
    let words = servers.iter().map(|kind| tally::words(*kind, bench));
    Ok(CompareRun {
        title: tally::title(bench, common.rate),
        setting: setting(common, bench, &machine),
        cores: (bench.server_cpu, bench.client_cpu),
        servers: words.collect(),
        points: tally.points(points, &servers),
        handshakes: handshakes
            .into_iter()
            .filter_map(|(kind, taken)| tally::handshakes(kind, &taken))
            .collect(),
    })
}

fn setting(common: &Common, bench: &Bench, machine: &Machine) -> String {
    let place = match (&machine.file_system, bench.backing) {
        (Some(kind), Backing::File) => format!(" on {kind}"),
        _ => String::new(),
    };
    format!(
        "Measured on {} with `perf compare`: {machine}. Disk of {}{place}. {} rounds of {} s for \
         each figure, the servers in turn at each point.",
        machine.date,
        show_size(bench.size),
        common.rounds,
        common.seconds.as_secs_f64(),
    )
}

/// What came of a server's turn.
enum Turn {
    Measured,
    NotStarted(anyhow::Error),
}

/// One server at one point: starts, fills, loads, stops.
fn turn(
    common: &Common,
    bench: &Bench,
    kind: Kind,
    point: Point,
    (number, tally): (usize, &mut Tally),
) -> anyhow::Result<Turn> {
    if kind.is_direct(bench.backing) {
        bench
            .forget_image()
            .context("cannot empty the page cache")?;
    }
    if kind == Kind::Fio {
        let times = (WARMUP, common.seconds);
        let taken = quietly(|| {
            let (figures, percentiles) = fio::measure(bench, point, times)?;
            Ok(Taken {
                figures,
                latency: None,
                percentiles,
            })
        })?;
        tally.add(number, kind, taken);
        return Ok(Turn::Measured);
    }
    let server = match Server::start(kind, bench) {
        Ok(server) => server,
        Err(why) => return Ok(Turn::NotStarted(why)),
    };
    let plan = |point: Point| Plan {
        uri: server.uri().clone(),
        load: point.into(),
        rate: common.rate,
        size: Some(bench.size),
        seed: SEED,
        cpu: Some(bench.client_cpu),
        server: Some(server.pid()),
        helpers: server.helpers(),
    };
    if server.is_blank() {
        let fill = Point::new(Rw::Write, 1 << 20, 8, 1).context("the filling load")?;
        let size = show_size(bench.size);
        // Filling is always a closed loop.
        load::precondition(&plan(fill)).with_context(|| format!("writing all {size}"))?;
    }
    let plan = plan(point);
    let times = Times::new(WARMUP, common.seconds);
    let taken = quietly(|| {
        let measured = load::measure(&plan, times)?;
        Ok(Taken {
            figures: Figures::of(&measured),
            percentiles: curves::percentiles(&measured.latency),
            latency: Some(measured.latency),
        })
    })?;
    server.check(kind, bench).context("after the load")?;
    tally.add(number, kind, taken);
    Ok(Turn::Measured)
}

/// Measures until it was quiet, a few times; else the quietest try.
fn quietly(mut measure: impl FnMut() -> anyhow::Result<Taken>) -> anyhow::Result<Taken> {
    let mut best: Option<Taken> = None;
    for _ in 0..=REPEATS_MAX {
        let taken = measure()?;
        let foreign = |taken: &Taken| taken.figures.foreign_cpu_percent;
        if best
            .as_ref()
            .is_none_or(|best| foreign(&taken) < foreign(best))
        {
            best = Some(taken);
        }
        if best.as_ref().is_some_and(|best| !best.figures.is_noisy()) {
            break;
        }
    }
    best.context("nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_without_connections_are_measured_with_each_number_of_them() {
        let words = ["randread:4k:1", "read:1m:8:2", "randwrite:4k:64"].map(str::to_owned);
        let shown: Vec<String> = points(&words, &[1, 4])
            .unwrap()
            .iter()
            .map(Point::to_string)
            .collect();
        let expected = [
            "randread:4k:1",
            "randwrite:4k:64",
            "randread:4k:1:4",
            "randwrite:4k:64:4",
            "read:1m:8:2",
        ];
        assert_eq!(shown, expected);
        assert!(points(&words, &[65]).is_err());
        assert!(points(&["randread:4k".to_owned()], &[1]).is_err());
    }

    #[test]
    fn a_disturbed_measurement_is_made_again_and_the_quietest_is_kept() {
        let mut noise = [30.0, 9.0, 12.0].into_iter();
        let taken = quietly(|| Ok(tally::tests::taken(1.0, 1.0, noise.next().unwrap()))).unwrap();
        assert_eq!(taken.figures.foreign_cpu_percent, 9.0);
        let mut noise = [30.0, 1.0, 0.0].into_iter();
        let taken = quietly(|| Ok(tally::tests::taken(1.0, 1.0, noise.next().unwrap()))).unwrap();
        assert_eq!(taken.figures.foreign_cpu_percent, 1.0);
    }
}
