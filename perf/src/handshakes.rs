//! `perf handshakes`: clients that attach and leave.

use std::time::Duration;

use clap::Args;
use nbd_proto::NbdUri;

use crate::figures::microseconds;
use crate::load;
use crate::nbd::parse_seconds;

/// Attach to an NBD server and leave, again and again
///
/// One connection after the other: connect, TLS if the URI asks for it, negotiation, close. TLS
/// sessions are never resumed. A server may let in only so many clients a second, as Pollux does
/// (500); the CPU time of one attachment says what more would cost.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  perf handshakes --uri 'nbds+unix:///vm-store?socket=/run/nbd.sock&tls-certificates=/etc/tls'")]
pub struct Handshakes {
    /// The export, as for `perf nbd`
    #[arg(long)]
    uri: NbdUri,
    /// Seconds to measure
    #[arg(long, default_value = "2", value_parser = parse_seconds)]
    seconds: Duration,
    /// Process of the server [default: what listens on the Unix socket]
    #[arg(long)]
    pid: Option<u32>,
    /// Core to run on
    #[arg(long)]
    cpu: Option<usize>,
}

/// Attaches and says what it took.
pub fn run(verb: &Handshakes) -> anyhow::Result<()> {
    let done = load::handshakes(&verb.uri, verb.seconds, verb.cpu, verb.pid)?;
    let rate = done.count as f64 / done.elapsed.as_secs_f64().max(1e-9);
    println!("{} attachments to {}", done.count, verb.uri);
    println!("  rate     {rate:.0} each second, one after the other");
    let at = |quantile| microseconds(&done.latency, quantile);
    println!(
        "  latency  p50 {:.0} µs, p99 {:.0}, max {:.0}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    if let Some(each) = done.server_cpu_us() {
        println!("  CPU      server {each:.0} µs for each");
    }
    Ok(())
}
