//! The load generator for NBD: one thread, one ring, all connections.
//!
//! ```text
//!  (Arrivals) ─┐
//!  Visits ─► free slots ─► one vectored send per connection and turn ─► server
//!    ▲                                                                   │
//!    └── finished slots ◄── Replies ◄── one receive of 256 KiB in flight ┘
//! ```
//! A run warms up, measures for a fixed time, and drains. In a closed loop a request's latency
//! begins when its slot became free (waiting for the socket counts); in an open loop it begins when
//! the request was due, however late it was sent. It ends when the turn that brought the last byte
//! of its reply began to be handled: the clock is read once per turn. Requests are counted in the
//! measured time they ended in, latencies in that they were meant to begin in; also of those that
//! ended later. What an open loop could not even send by [`DRAIN_MAX`] after the end counts with
//! the time it had waited by then.
//!
//! Under TLS a session lies between the connection and its socket; handshakes are over before.
//!
//! What it does not do: structured replies.

mod arrivals;
mod connect;
mod connection;
mod error;
mod generator;
mod handshakes;
mod recorder;
#[cfg(test)]
mod tests;
mod tls;
#[cfg(test)]
pub mod toy;

use std::time::Duration;

use hdrhistogram::Histogram;
use nbd_proto::NbdUri;

use crate::usage::Usage;
use crate::workload::{Kind, Load, Visits, Weighted};

pub use error::LoadError;
pub use handshakes::{Handshakes, handshakes};

/// Longest latency the histogram tells apart, nanoseconds.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// How long after its end an open loop goes on sending what was due before; at most as long as it
/// measured.
pub const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Most intervals of one run.
const INTERVALS_MAX: u32 = 1000;

/// A load to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom to load.
    pub uri: NbdUri,
    /// What with.
    pub load: Load,
    /// Requests per second of an open loop; a closed one if `None`.
    pub rate: Option<u64>,
    /// Bytes of the export to use, from its start; all of it if `None`.
    pub size: Option<u64>,
    /// Chooses blocks and contents.
    pub seed: u64,
    /// Core to run on.
    pub cpu: Option<usize>,
    /// Root of the server's process tree, to account for its CPU time; found from a Unix socket
    /// if `None`.
    pub server: Option<u32>,
    /// Processes that belong to the measurement, and are neither server nor others.
    pub helpers: Vec<u32>,
}

/// What a measured load came to.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Requests that ended in the measured time.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The measured time.
    pub elapsed: Duration,
    /// Nanoseconds from request to reply.
    pub latency: Histogram<u64>,
    /// CPU time of this process.
    pub client_cpu: Duration,
    /// CPU time of the server's tree, and of everybody else.
    pub usage: Usage,
    /// The measured time in pieces.
    pub intervals: Vec<Interval>,
    /// Requests of an open loop that were due and never sent.
    pub unsent: u64,
}

/// A piece of the measured time.
#[derive(Clone, Debug)]
pub struct Interval {
    /// When it began, after the measured time did.
    pub begin: Duration,
    /// How long it was.
    pub length: Duration,
    /// Requests that ended in it.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Nanoseconds from request to reply.
    pub latency: Histogram<u64>,
    /// CPU time of the server's tree, where it is known.
    pub server_cpu: Option<Duration>,
    /// CPU time of this process.
    pub client_cpu: Duration,
}

/// How long to load before measuring, how long to measure, and in which pieces.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Before.
    pub warmup: Duration,
    /// The measured time.
    pub measured: Duration,
    /// Of one piece; longer if there were more than a thousand.
    pub interval: Duration,
}

impl Times {
    /// Pieces of a second.
    pub fn new(warmup: Duration, measured: Duration) -> Times {
        let interval = Duration::from_secs(1);
        Times {
            warmup,
            measured,
            interval,
        }
    }
}

/// What a verification came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Blocks written and read back.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Loads for a while, then measures. Runs in a thread of its own, since a core it is pinned to
/// stays with the thread. Errors: [`LoadError`]; an error reply of the server is one.
pub fn measure(plan: &Plan, times: Times) -> Result<Measured, LoadError> {
    in_thread(plan.cpu, || {
        let visits = |size| Visits::endless(&plan.load, size, plan.seed);
        generator::Generator::open(plan, generator::Check::Nothing, visits)?.measure(times)
    })
}

/// Writes every block of the range once, scattered, and reads all of them back, each compared
/// with what was written. Errors: as for [`measure`], and the first difference.
pub fn verify(plan: &Plan) -> Result<Verified, LoadError> {
    let (check, is_scattered) = (generator::Check::Contents, true);
    one_pass(plan, Kind::Write, check, is_scattered)?;
    let (blocks, bytes) = one_pass(plan, Kind::Read, check, is_scattered)?;
    Ok(Verified { blocks, bytes })
}

/// Bytes of the export, as the server tells. Errors: it does not let a client in.
pub fn size_of(uri: &NbdUri) -> Result<u64, LoadError> {
    let credentials = tls::Credentials::of(uri)?;
    Ok(connect::connect(uri, credentials.as_ref())?.agreed.size)
}

/// Writes every block of the range once, in sequence, so that all of it is really there. Gives
/// the bytes written.
pub fn precondition(plan: &Plan) -> Result<u64, LoadError> {
    Ok(one_pass(plan, Kind::Write, generator::Check::Nothing, false)?.1)
}

/// Visits every block once. Gives blocks and bytes.
fn one_pass(
    plan: &Plan,
    kind: Kind,
    check: generator::Check,
    is_scattered: bool,
) -> Result<(u64, u64), LoadError> {
    let block = plan.load.sizes.single().ok_or(LoadError::OneSize)?;
    let load = Load {
        kinds: Weighted::only(kind),
        ..plan.load.clone()
    };
    let plan = Plan {
        load,
        rate: None,
        ..plan.clone()
    };
    in_thread(plan.cpu, || {
        let visits = |size| Visits::once(kind, block, is_scattered, size, plan.seed);
        generator::Generator::open(&plan, check, visits)?.finish()
    })
}

fn in_thread<T: Send>(
    cpu: Option<usize>,
    work: impl FnOnce() -> Result<T, LoadError> + Send,
) -> Result<T, LoadError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Some(cpu) = cpu {
                let refused = |source| LoadError::Pin { cpu, source };
                engine_ring::sys::cpu::pin(cpu).map_err(refused)?;
            }
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
