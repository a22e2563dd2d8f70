//! `perf compare`: our server and its peers, the same load, one after the other.
//!
//! ```text
//!  rounds × servers ─► start ─► fill ─► points × load ─► stop ─► medians ─► table
//!                      core 0           core 1
//! ```
//! A server that is not installed, or does not start, is left out with one line. A measurement
//! disturbed by others is repeated, and marked if it stays so.

mod machine;
mod server;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use tempfile::TempDir;

use crate::figures::Figures;
use crate::load::{self, Plan, Times};
use crate::nbd::parse_seconds;
use crate::workload::{self, Point, Rw, parse_size, show_size};
use machine::Machine;
use server::{Kind, Server};

/// Loaded before each measured time.
const WARMUP: Duration = Duration::from_millis(500);
/// Of blocks and contents.
const SEED: u64 = 1;
/// How often a disturbed measurement is made again.
const REPEATS_MAX: usize = 2;

/// Measure our server and qemu-nbd, nbdkit and nbd-server on the same load
///
/// Servers run on one core, the client on another, one server at a time, in turn, in several
/// rounds. Nothing else should run: a measurement during which others used more than 5 % of a
/// core is repeated up to twice, and marked if it stays disturbed.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  perf compare
  perf compare --backing file --directory /srv --points randread:4k:1,randwrite:4k:64
  perf compare --servers nbdkit-memory,qemu-nbd-native --rounds 1")]
pub struct Compare {
    /// memory: a file in /dev/shm for peers, memory of their own for Pollux and nbdkit-memory;
    /// file: a file in --directory
    #[arg(long, value_enum, default_value_t = Backing::Memory)]
    backing: Backing,
    /// How the client reaches the servers
    #[arg(long, value_enum, default_value_t = Transport::Unix)]
    transport: Transport,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value = "2", value_parser = parse_seconds)]
    seconds: Duration,
    /// What to measure: request, size, depth and perhaps connections
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "randread:4k:1,randread:4k:16,randread:4k:64,\
                         randwrite:4k:1,randwrite:4k:16,randwrite:4k:64,read:1m:8,write:1m:8"
    )]
    points: Vec<Point>,
    /// Bytes of the disk
    #[arg(long, default_value = "1g", value_parser = parse_size)]
    size: u64,
    /// Servers to measure [default: all that fit the backing]
    #[arg(long, value_delimiter = ',')]
    servers: Vec<Kind>,
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
    /// Where the tables go, also printed; replaces what it says of this backing and transport
    #[arg(long, value_name = "FILE", default_value = "docs/performance.md")]
    out: PathBuf,
}

/// What holds the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backing {
    /// Memory.
    Memory,
    /// A file.
    File,
}

/// How the client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// A Unix socket.
    Unix,
    /// TCP over loopback.
    Tcp,
}

/// Where everything is, fixed for one comparison.
pub struct Bench {
    /// What holds the data.
    pub backing: Backing,
    /// How servers are reached.
    pub transport: Transport,
    /// Bytes of the disk.
    pub size: u64,
    /// Core of the servers.
    pub server_cpu: usize,
    /// Our server.
    pub pollux: PathBuf,
    /// Sockets, logs, configuration.
    pub scratch: TempDir,
    /// What peers export.
    pub image: PathBuf,
    /// Removes the image's directory at the end.
    pub disk: TempDir,
}

/// One measurement that counts.
pub struct Measurement {
    /// What it came to.
    pub figures: Figures,
}

/// All of them, by point and server in the order asked for.
pub type Results = BTreeMap<(usize, usize), Vec<Measurement>>;

/// Runs the comparison and writes the tables. Errors: nothing could be measured, or the load
/// failed on a server that had started.
pub fn run(compare: &Compare) -> anyhow::Result<()> {
    if compare.rounds == 0 || compare.points.is_empty() || compare.seconds.is_zero() {
        bail!("there is nothing to measure");
    }
    let bench = prepare(compare)?;
    server::clean_up_on_signals(&[bench.scratch.path(), bench.disk.path()])?;
    let mut servers = chosen(compare, &bench);
    if servers.is_empty() {
        bail!("no server to measure");
    }
    if servers.iter().any(|kind| kind.needs_image()) {
        write_image(&bench).with_context(|| format!("cannot write {}", bench.image.display()))?;
    }
    let mut results = Results::new();
    for round in 1..=compare.rounds {
        let mut left_out = Vec::new();
        for (index, &kind) in servers.iter().enumerate() {
            eprintln!("round {round} of {}: {}", compare.rounds, kind.name());
            let server = match Server::start(kind, &bench) {
                Ok(server) => server,
                Err(why) if round == 1 => {
                    eprintln!("{} is left out: {why:#}", kind.name());
                    left_out.push(kind);
                    continue;
                }
                Err(why) => return Err(why.context(format!("{} did not start again", kind.name()))),
            };
            measure_all(compare, &server, index, &mut results)
                .with_context(|| format!("on {}", kind.name()))?;
        }
        // Indices of results are those of `servers`, so that one that never ran keeps its place.
        if left_out.len() == servers.len() {
            bail!("no server could be started");
        }
        if round == 1 {
            (servers, results) = without(&servers, &left_out, results);
        }
    }
    let machine = Machine::look(&bench, &servers);
    let report = table::Report {
        compare,
        machine: &machine,
        servers: &servers,
        results: &results,
    };
    let text = report.to_string();
    print!("{text}");
    if !servers.contains(&Kind::Pollux) {
        eprintln!(
            "{} is left as it is: Pollux did not take part",
            compare.out.display()
        );
        return Ok(());
    }
    let unwritable = || format!("cannot write {}", compare.out.display());
    let before = match fs::read_to_string(&compare.out) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(unwritable);
        }
        found => found.unwrap_or_default(),
    };
    fs::write(&compare.out, table::replace_chapter(&before, &text)).with_context(unwritable)
}

/// Drops servers, and gives those that stay their new places.
fn without(servers: &[Kind], gone: &[Kind], results: Results) -> (Vec<Kind>, Results) {
    let stay: Vec<Kind> = servers
        .iter()
        .copied()
        .filter(|kind| !gone.contains(kind))
        .collect();
    let place = |index: usize| stay.iter().position(|kind| *kind == servers[index]);
    let moved = results
        .into_iter()
        .filter_map(|((point, index), measured)| {
            place(index).map(|index| ((point, index), measured))
        });
    (stay.clone(), moved.collect())
}

fn prepare(compare: &Compare) -> anyhow::Result<Bench> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("pollux"));
    let pollux = compare.pollux.clone().or_else(beside).unwrap_or_default();
    let scratch = tempfile::Builder::new()
        .prefix("perf-")
        .tempdir_in("/dev/shm");
    let scratch = scratch.context("cannot make a directory in /dev/shm")?;
    let place: &Path = match compare.backing {
        Backing::Memory => Path::new("/dev/shm"),
        Backing::File => &compare.directory,
    };
    let place = place
        .canonicalize()
        .with_context(|| format!("no {}", place.display()))?;
    let disk = tempfile::Builder::new()
        .prefix("perf-disk-")
        .tempdir_in(&place);
    let disk = disk.with_context(|| format!("cannot make a directory in {}", place.display()))?;
    let image = disk.path().join("image");
    Ok(Bench {
        backing: compare.backing,
        transport: compare.transport,
        size: compare.size,
        server_cpu: compare.server_cpu,
        pollux,
        scratch,
        image,
        disk,
    })
}

/// Writes every byte of what peers export, down to the disk.
fn write_image(bench: &Bench) -> io::Result<()> {
    let mut image = fs::File::create(&bench.image)?;
    let mut piece = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < bench.size {
        let length = (bench.size - offset).min(piece.len() as u64);
        // At most the length of the piece.
        let piece = &mut piece[..length as usize];
        workload::fill(piece, offset, SEED);
        image.write_all(piece)?;
        offset += length;
    }
    image.sync_all()
}

/// The servers asked for, of those that are here; one line for each that is not.
fn chosen(compare: &Compare, bench: &Bench) -> Vec<Kind> {
    let all = Kind::ALL
        .into_iter()
        .filter(|kind| kind.fits(compare.backing));
    let asked: Vec<Kind> = match compare.servers.is_empty() {
        true => all.collect(),
        false => compare.servers.clone(),
    };
    let is_here = |kind: &Kind| match kind.missing(bench) {
        None => true,
        Some(what) => {
            eprintln!("{} is left out: {what} is not installed", kind.name());
            false
        }
    };
    asked.into_iter().filter(is_here).collect()
}

/// All points on one running server.
fn measure_all(
    compare: &Compare,
    server: &Server,
    index: usize,
    results: &mut Results,
) -> anyhow::Result<()> {
    let plan = |point: Point| Plan {
        uri: server.uri().clone(),
        load: point.into(),
        rate: None,
        size: Some(compare.size),
        seed: SEED,
        cpu: Some(compare.client_cpu),
        server: Some(server.pid()),
    };
    if server.is_blank() {
        let fill = Point::new(Rw::Write, 1 << 20, 8, 1).context("the filling load")?;
        let size = show_size(compare.size);
        load::precondition(&plan(fill)).with_context(|| format!("writing all {size}"))?;
    }
    for (number, &point) in compare.points.iter().enumerate() {
        let figures =
            measure_quietly(&plan(point), compare.seconds).with_context(|| format!("{point}"))?;
        results
            .entry((number, index))
            .or_default()
            .push(Measurement { figures });
    }
    Ok(())
}

/// Measures until it was quiet, a few times; else the quietest try.
fn measure_quietly(plan: &Plan, time: Duration) -> anyhow::Result<Figures> {
    let mut best: Option<Figures> = None;
    for _ in 0..=REPEATS_MAX {
        let figures = Figures::of(&load::measure(plan, Times::new(WARMUP, time))?);
        let is_better = |best: &Figures| figures.foreign_cpu_percent < best.foreign_cpu_percent;
        if best.as_ref().is_none_or(is_better) {
            best = Some(figures);
        }
        if best.as_ref().is_some_and(|best| !best.is_noisy()) {
            break;
        }
    }
    best.context("nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_never_ran_takes_its_place_away() {
        let servers = [Kind::Pollux, Kind::NbdServer, Kind::NbdkitMemory];
        let mut results = Results::new();
        for index in [0, 2] {
            results.insert((0, index), Vec::new());
        }
        let (stay, results) = without(&servers, &[Kind::NbdServer], results);
        assert_eq!(stay, [Kind::Pollux, Kind::NbdkitMemory]);
        assert_eq!(results.into_keys().collect::<Vec<_>>(), [(0, 0), (0, 1)]);
    }
}
