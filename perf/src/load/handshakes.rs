//! Attaching and leaving again and again: what a handshake costs.

use std::time::Duration;

use hdrhistogram::Histogram;
use nbd_proto::NbdUri;

use super::connect::connect;
use super::tls::Credentials;
use super::{LATENCY_MAX_NS, LoadError};
use crate::usage::Sample;

/// What a row of handshakes came to.
#[derive(Clone, Debug)]
pub struct Handshakes {
    /// How many.
    pub count: u64,
    /// In this time.
    pub elapsed: Duration,
    /// Nanoseconds from connecting to the end of the negotiation.
    pub latency: Histogram<u64>,
    /// CPU time of the server's tree.
    pub server_cpu: Option<Duration>,
}

impl Handshakes {
    /// CPU time of the server for each, microseconds.
    pub fn server_cpu_us(&self) -> Option<f64> {
        let time = self.server_cpu?.as_secs_f64();
        Some(time * 1e6 / self.count.max(1) as f64)
    }
}

/// Attaches and leaves, one connection after the other, for a while. Runs in a thread of its own,
/// on `cpu` if given. Errors: as of any load.
pub fn handshakes(
    uri: &NbdUri,
    time: Duration,
    cpu: Option<usize>,
    server: Option<u32>,
) -> Result<Handshakes, LoadError> {
    super::in_thread(cpu, || {
        let credentials = Credentials::of(uri)?;
        let mut latency =
            Histogram::new_with_max(LATENCY_MAX_NS, 3).expect("the bounds are constant and valid");
        let mut listener = connect(uri, credentials.as_ref())?.listener;
        listener = server.or(listener.filter(|pid| *pid != 0));
        let before = Sample::take(listener)?;
        let begun = std::time::Instant::now();
        let mut count = 0;
        while begun.elapsed() < time {
            let since = std::time::Instant::now();
            drop(connect(uri, credentials.as_ref())?);
            let nanoseconds = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            latency.saturating_record(nanoseconds);
            count += 1;
        }
        let elapsed = begun.elapsed();
        let usage = before.until(&Sample::take(listener)?);
        Ok(Handshakes {
            count,
            elapsed,
            latency,
            server_cpu: usage.server,
        })
    })
}
