//! `perf soak`: full load for a long time, and what the server holds meanwhile.
//!
//! ```text
//!  load (a thread) ─► series ──┐
//!  vitals, each interval ──────┴─► judge ─► passed, or why not
//! ```

mod judge;
mod vitals;

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use nbd_proto::NbdUri;

use crate::curves;
use crate::figures::Figures;
use crate::load::{self, Plan, Times};
use crate::nbd::parse_seconds;
use crate::report;
use crate::results::{self, Outcome, SoakRun, Vital};
use crate::servers::{self, Backing, Bench, Kind, Server, Transport, Wanted};
use crate::workload::{
    Exponent, Kind as Ask, Load, Place, Point, Rw, Weighted, parse_mix, parse_size, parse_sizes,
};

/// Loaded before anything is measured.
const WARMUP: Duration = Duration::from_secs(1);
/// Part of the time in which the server may settle, and the most of it.
const SETTLING: (u32, Duration) = (5, Duration::from_secs(60));
/// Samples there should be at least.
const SAMPLES_MIN: u32 = 30;

/// Load a server for long and watch what it holds
///
/// Starts our server, unless --uri names one, and loads it with everything it has. Fails if its
/// resident memory drifts by more than 5 % once it settled, or if open files grow; tells if p99.9
/// changes its level.
#[derive(Debug, Args)]
#[command(after_help = "\
EXIT CODES
  0 passed   1 failed, or the load did

EXAMPLES
  perf soak --minutes 10 --report docs/performance/soak.html
  perf soak --backing file --directory /srv --minutes 60
  perf soak --uri nbd://127.0.0.1:10809/scratch --pid 4711      overwrites the export")]
pub struct Soak {
    /// Minutes to measure, also parts of one
    #[arg(long, default_value = "10", value_parser = parse_minutes)]
    minutes: Duration,
    /// A server that runs already [default: our own is started]
    #[arg(long, requires = "pid")]
    uri: Option<NbdUri>,
    /// Process of that server
    #[arg(long, requires = "uri")]
    pid: Option<u32>,
    /// What requests ask: weights of read, write, trim, zeroes, flush
    #[arg(long, value_name = "KIND=WEIGHT,…", default_value = "read=68,write=30,flush=2", value_parser = parse_mix)]
    mix: Weighted<Ask>,
    /// Bytes of a request, or several sizes with weights
    #[arg(long, default_value = "4k:80,16k:15,128k:5", value_name = "SIZE[:WEIGHT,…]", value_parser = parse_sizes)]
    bs: Weighted<u32>,
    /// Exponent of Zipf's law, by which some blocks are asked for far more often
    #[arg(long, default_value = "1.1", value_parser = str::parse::<Exponent>)]
    zipf: Exponent,
    /// Requests outstanding on each connection
    #[arg(long, default_value_t = 16)]
    depth: u32,
    /// Connections
    #[arg(long, default_value_t = 4)]
    connections: u32,
    /// Requests due each second [default: each reply begets a request]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: Option<u64>,
    /// Most seconds between two samples
    #[arg(long, default_value = "5", value_parser = parse_seconds)]
    interval: Duration,
    /// Where our own server keeps its data
    #[arg(long, value_enum, default_value_t = Backing::Memory)]
    backing: Backing,
    /// How our own server is reached
    #[arg(long, value_enum, default_value_t = Transport::Unix)]
    transport: Transport,
    /// Bytes of the disk; small, so that a leak is not hidden by it
    #[arg(long, default_value = "64m", value_parser = parse_size)]
    size: u64,
    /// Where the file lies with --backing file
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Our server [default: `pollux` beside this program]
    #[arg(long, value_name = "PATH")]
    pollux: Option<PathBuf>,
    /// Core of the server
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

fn parse_minutes(text: &str) -> Result<Duration, String> {
    let minutes: Option<f64> = text.parse().ok().filter(|m| (0.01..=1440.0).contains(m));
    let wrong = || format!("`{text}` is not a number of minutes from 0.01 to 1440");
    minutes
        .map(|m| Duration::from_secs_f64(m * 60.0))
        .ok_or_else(wrong)
}

/// Loads, watches, judges. Errors: the load failed, or the server did not pass.
pub fn run(soak: &Soak) -> anyhow::Result<()> {
    let interval = soak.interval.min(soak.minutes / SAMPLES_MIN);
    if interval.is_zero() {
        bail!("--interval must be more than 0 s");
    }
    let block = u64::from(soak.bs.items().max().unwrap_or(1));
    let load = Load {
        kinds: soak.mix.clone(),
        sizes: soak.bs.clone(),
        place: Place::Zipf(soak.zipf.0),
        // Checks the ranges.
        ..Point::new(Rw::RandRead, block, soak.depth, soak.connections)?.into()
    };
    let (bench, server) = match &soak.uri {
        Some(_) => (None, None),
        None => {
            let (bench, server) = start(soak)?;
            (Some(bench), Some(server))
        }
    };
    let (uri, pid) = match (&server, &soak.uri, soak.pid) {
        (Some(server), _, _) => (server.uri().clone(), server.pid()),
        (None, Some(uri), Some(pid)) => (uri.clone(), pid),
        _ => bail!("--uri and --pid belong together"),
    };
    let plan = Plan {
        uri,
        load,
        rate: soak.rate,
        size: bench.as_ref().map(|bench| bench.size),
        seed: 1,
        cpu: Some(soak.client_cpu),
        server: Some(pid),
        helpers: Vec::new(),
    };
    if server.as_ref().is_some_and(Server::is_blank) {
        let fill = Point::new(Rw::Write, 1 << 20, 8, 1)?.into();
        let plan = Plan {
            load: fill,
            rate: None,
            ..plan.clone()
        };
        load::precondition(&plan).context("writing every block")?;
    }
    let times = Times {
        warmup: WARMUP,
        measured: soak.minutes,
        interval,
    };
    let (measured, vitals) = watched(pid, interval, || load::measure(&plan, times));
    let measured = measured.with_context(|| format!("{} on {}", plan.load, plan.uri))?;
    let series = curves::moments(&measured.intervals);
    let settled = (soak.minutes / SETTLING.0).min(SETTLING.1).as_secs_f64();
    let judged = judge::judge(&vitals, &series, settled);
    let run = SoakRun {
        server: server.map_or_else(|| plan.uri.to_string(), |_| "pollux".to_owned()),
        load: plan.load.words(),
        figures: Figures::of(&measured),
        percentiles: curves::percentiles(&measured.latency),
        series,
        vitals,
        settled_after_seconds: settled,
        failures: judged.failures,
        remarks: judged.remarks,
    };
    finish(soak, run)
}

fn start(soak: &Soak) -> anyhow::Result<(Bench, Server)> {
    let bench = Bench::new(&Wanted {
        backing: soak.backing,
        transport: soak.transport,
        tls: false,
        size: soak.size,
        directory: &soak.directory,
        pollux: soak.pollux.as_deref(),
        server_cpu: soak.server_cpu,
        client_cpu: soak.client_cpu,
    })?;
    servers::clean_up_on_signals(&[bench.scratch.path(), bench.disk.path()])?;
    if Kind::Pollux.needs_image(bench.backing) {
        bench.write_image().context("cannot write the file")?;
        bench
            .forget_image()
            .context("cannot empty the page cache")?;
    }
    let server = Server::start(Kind::Pollux, &bench).context("pollux")?;
    Ok((bench, server))
}

/// Works, and takes the server's vitals meanwhile.
fn watched<T>(pid: u32, interval: Duration, work: impl FnOnce() -> T) -> (T, Vec<Vital>) {
    std::thread::scope(|scope| {
        let (stop, stopped) = channel::<()>();
        let watcher = scope.spawn(move || {
            let begun = Instant::now() + WARMUP;
            let mut all = Vec::new();
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let at = Instant::now().checked_duration_since(begun);
                let at = at.map(|at| at.as_secs_f64());
                all.extend(at.and_then(|at| vitals::take(pid, at)));
            }
            all
        });
        let done = work();
        drop(stop);
        let all = watcher.join();
        (
            done,
            all.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        )
    })
}

/// Prints and writes. Errors: what failed the soak.
fn finish(soak: &Soak, run: SoakRun) -> anyhow::Result<()> {
    println!("{} on {}", run.load.load, run.server);
    print!("{}", run.figures);
    if let (Some(first), Some(last)) = (run.vitals.first(), run.vitals.last()) {
        println!(
            "  held     {} MiB resident at first, {} at the end; {} files, {} threads",
            first.rss_kib / 1024,
            last.rss_kib / 1024,
            last.files,
            last.threads
        );
    }
    for remark in &run.remarks {
        println!("  remark   {remark}");
    }
    let failures = run.failures.join("; ");
    let outcome = Outcome::Soak(run);
    if let Some(file) = &soak.json {
        results::write(file, &outcome)?;
    }
    if let Some(file) = &soak.report {
        report::write(file, "Soak", &[outcome])?;
    }
    if !failures.is_empty() {
        bail!("{failures}");
    }
    println!("passed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_may_have_parts() {
        assert_eq!(parse_minutes("0.5"), Ok(Duration::from_secs(30)));
        for text in ["", "0", "-1", "nan", "1441", "1m"] {
            assert!(parse_minutes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn vitals_are_taken_while_work_goes_on() {
        let work = || std::thread::sleep(WARMUP + Duration::from_millis(200));
        let (_, all) = watched(std::process::id(), Duration::from_millis(20), work);
        assert!(all.len() >= 3, "{all:?}");
        assert!(
            all.windows(2)
                .all(|pair| pair[0].at_seconds < pair[1].at_seconds)
        );
    }
}
