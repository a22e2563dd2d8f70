//! `perf nbd`: one load against one server.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use nbd_proto::NbdUri;

use crate::curves::{moments, percentiles};
use crate::figures::Figures;
use crate::load::{self, Plan, Times};
use crate::report;
use crate::results::{NbdRun, Outcome};
use crate::workload::{
    Exponent, Kind, Load, Place, Point, Rw, Weighted, parse_mix, parse_size, parse_sizes, show_size,
};

/// Load an NBD server and measure it
///
/// All connections run on one thread and one ring; what comes in one turn is answered with one
/// send per connection, so that the client is not what limits the server. Without --rate each
/// reply begets the next request (closed loop). With --rate requests are due at fixed times, and
/// latency counts from there, however late they could be sent (open loop).
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  perf nbd --uri nbd://127.0.0.1:10809/vm-store --rw randread --bs 4k --depth 64
  perf nbd --uri nbd://127.0.0.1:10809/vm-store --rate 50000 --mix read=70,write=30 \\
           --bs 4k:80,64k:20 --zipf 1.1 --seconds 60 --report vm-store.html
  perf nbd --uri 'nbd+unix:///vm-store?socket=/run/nbd.sock' --rw randwrite --json
  perf nbd --uri nbd://127.0.0.1:10809/scratch --verify      overwrites the export
  perf nbd --uri 'nbds://127.0.0.1:10809/vm-store?tls-certificates=/etc/pollux/client'")]
pub struct Nbd {
    /// The export, as nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH; under TLS as nbds://
    /// or nbds+unix://, with the folder of certificates in tls-certificates=PATH
    #[arg(long)]
    uri: NbdUri,
    /// randread, randwrite, read, write or randrw (half of each)
    #[arg(long, default_value = "randread", value_parser = str::parse::<Rw>)]
    rw: Rw,
    /// What requests ask, instead of what --rw says: weights of read, write, trim, zeroes, flush
    #[arg(long, value_name = "KIND=WEIGHT,…", value_parser = parse_mix)]
    mix: Option<Weighted<Kind>>,
    /// Bytes of a request, or several sizes with weights, as 4k:80,64k:20
    #[arg(long, default_value = "4k", value_name = "SIZE[:WEIGHT,…]", value_parser = parse_sizes)]
    bs: Weighted<u32>,
    /// Some blocks are asked for far more often: Zipf's law with this exponent
    #[arg(long, value_name = "EXPONENT", value_parser = str::parse::<Exponent>)]
    zipf: Option<Exponent>,
    /// From the first block to the last, and again, also with --mix
    #[arg(long, conflicts_with = "zipf")]
    sequential: bool,
    /// Requests outstanding on each connection; with --rate the most there may be
    #[arg(long, default_value_t = 64)]
    depth: u32,
    /// Connections
    #[arg(long, default_value_t = 1)]
    connections: u32,
    /// Open loop: requests due each second, over all connections
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: Option<u64>,
    /// Seconds to measure
    #[arg(long, default_value = "5", value_parser = parse_seconds)]
    seconds: Duration,
    /// Seconds to load before
    #[arg(long, default_value = "1", value_parser = parse_seconds)]
    warmup: Duration,
    /// Seconds of each piece of the time series
    #[arg(long, default_value = "1", value_parser = parse_seconds)]
    interval: Duration,
    /// Process of the server, whose CPU time with all its children is told [default: what
    /// listens on the Unix socket]
    #[arg(long)]
    pid: Option<u32>,
    /// Core to run on
    #[arg(long)]
    cpu: Option<usize>,
    /// Use only so much of the export, from its start
    #[arg(long, value_parser = parse_size)]
    size: Option<u64>,
    /// Chooses blocks and contents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write every block once and read it back compared, instead of measuring
    #[arg(long, conflicts_with_all = ["rate", "mix", "zipf", "sequential", "report"])]
    verify: bool,
    /// Print one JSON object, with the time series and the latency distribution
    #[arg(long)]
    json: bool,
    /// Name of the run in reports [default: the load]
    #[arg(long)]
    label: Option<String>,
    /// Write a page with charts
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Seconds on the command line, also parts of one.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a number of seconds from 0 to 86400");
    let seconds: f64 = text
        .strip_suffix('s')
        .unwrap_or(text)
        .parse()
        .map_err(|_| wrong())?;
    let is_sane = (0.0..=86_400.0).contains(&seconds);
    is_sane
        .then(|| Duration::from_secs_f64(seconds))
        .ok_or_else(wrong)
}

impl Nbd {
    /// The load asked for.
    fn load(&self) -> anyhow::Result<Load> {
        let block = u64::from(self.bs.items().max().unwrap_or(1));
        let load = Load::from(Point::new(self.rw, block, self.depth, self.connections)?);
        Ok(Load {
            kinds: self.mix.clone().unwrap_or(load.kinds),
            sizes: self.bs.clone(),
            place: match self.zipf {
                Some(Exponent(exponent)) => Place::Zipf(exponent),
                None if self.sequential => Place::Sequence,
                None => load.place,
            },
            ..load
        })
    }
}

/// Runs the load and prints what it came to.
pub fn run(nbd: &Nbd) -> anyhow::Result<()> {
    if nbd.interval.is_zero() {
        bail!("--interval must be more than 0 s");
    }
    let load = nbd.load()?;
    let plan = Plan {
        uri: nbd.uri.clone(),
        load: load.clone(),
        rate: nbd.rate,
        size: nbd.size,
        seed: nbd.seed,
        cpu: nbd.cpu,
        server: nbd.pid,
        helpers: Vec::new(),
    };
    let what = match nbd.rate {
        Some(rate) => format!("{load}, {rate} due each second, on {}", nbd.uri),
        None => format!("{load} on {}", nbd.uri),
    };
    if nbd.verify {
        let verified = load::verify(&plan).with_context(|| what.clone())?;
        let load::Verified { blocks, bytes } = verified;
        match nbd.json {
            true => println!(
                "{}",
                serde_json::json!({ "blocks": blocks, "bytes": bytes })
            ),
            false => println!("{} in {blocks} blocks read as written", show_size(bytes)),
        }
        return Ok(());
    }
    let times = Times {
        warmup: nbd.warmup,
        measured: nbd.seconds,
        interval: nbd.interval,
    };
    let measured = load::measure(&plan, times).with_context(|| what.clone())?;
    let figures = Figures::of(&measured);
    let outcome = Outcome::Nbd(NbdRun {
        label: nbd.label.clone().unwrap_or_else(|| load.to_string()),
        uri: nbd.uri.to_string(),
        load: load.words(),
        rate: nbd.rate,
        seed: nbd.seed,
        figures: figures.clone(),
        percentiles: percentiles(&measured.latency),
        series: moments(&measured.intervals),
    });
    if let Some(file) = &nbd.report {
        report::write(file, &what, std::slice::from_ref(&outcome))?;
    }
    if nbd.json {
        println!("{}", serde_json::to_string(&outcome)?);
    } else {
        println!("{what}");
        print!("{figures}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_parts() {
        assert_eq!(parse_seconds("5"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_seconds("0.5s"), Ok(Duration::from_millis(500)));
        for text in ["", "s", "-1", "nan", "inf", "1e9", "5m"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}
