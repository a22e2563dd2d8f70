//! `perf nbd`: one load against one server.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use nbd_proto::NbdUri;
use serde::Serialize;

use crate::figures::Figures;
use crate::load::{self, Plan};
use crate::workload::{Point, Rw, parse_size, show_size};

/// Load an NBD server and measure it
///
/// All connections run on one thread and one ring; what comes in one turn is answered with one
/// send per connection, so that the client is not what limits the server.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  perf nbd --uri nbd://127.0.0.1:10809/vm-store --rw randread --bs 4k --depth 64
  perf nbd --uri 'nbd+unix:///vm-store?socket=/run/nbd.sock' --rw randwrite --json
  perf nbd --uri nbd://127.0.0.1:10809/scratch --verify      overwrites the export")]
pub struct Nbd {
    /// The export, as nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH
    #[arg(long)]
    uri: NbdUri,
    /// randread, randwrite, read, write or randrw (half of each)
    #[arg(long, default_value = "randread", value_parser = str::parse::<Rw>)]
    rw: Rw,
    /// Bytes of a request
    #[arg(long, default_value = "4k", value_name = "SIZE", value_parser = parse_size)]
    bs: u64,
    /// Requests outstanding on each connection
    #[arg(long, default_value_t = 64)]
    depth: u32,
    /// Connections
    #[arg(long, default_value_t = 1)]
    connections: u32,
    /// Seconds to measure
    #[arg(long, default_value = "5", value_parser = parse_seconds)]
    seconds: Duration,
    /// Seconds to load before
    #[arg(long, default_value = "1", value_parser = parse_seconds)]
    warmup: Duration,
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
    #[arg(long)]
    verify: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
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

#[derive(Serialize)]
struct Report<'a> {
    uri: String,
    #[serde(flatten)]
    point: Point,
    seed: u64,
    #[serde(flatten)]
    figures: &'a Figures,
}

/// Runs the load and prints what it came to.
pub fn run(nbd: &Nbd) -> anyhow::Result<()> {
    let point = Point::new(nbd.rw, nbd.bs, nbd.depth, nbd.connections)?;
    let plan = Plan {
        uri: nbd.uri.clone(),
        point,
        size: nbd.size,
        seed: nbd.seed,
        cpu: nbd.cpu,
        server: nbd.pid,
    };
    let failed = || format!("{point} on {}", nbd.uri);
    if nbd.verify {
        let load::Verified { blocks, bytes } = load::verify(&plan).with_context(failed)?;
        match nbd.json {
            true => println!(
                "{}",
                serde_json::json!({ "blocks": blocks, "bytes": bytes })
            ),
            false => println!("{} in {blocks} blocks read as written", show_size(bytes)),
        }
        return Ok(());
    }
    let measured = load::measure(&plan, nbd.warmup, nbd.seconds).with_context(failed)?;
    let figures = Figures::of(&measured);
    if nbd.json {
        let report = Report {
            uri: nbd.uri.to_string(),
            point,
            seed: nbd.seed,
            figures: &figures,
        };
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{point} on {}", nbd.uri);
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
