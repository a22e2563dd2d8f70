//! The load generator for NBD: one thread, one ring, every connection a closed loop.
//!
//! ```text
//!  Visits ─► free slots ─► one vectored send per connection and turn ─► server
//!    ▲                                                                   │
//!    └── finished slots ◄── Replies ◄── one receive of 256 KiB in flight ┘
//! ```
//! A run warms up, measures for a fixed time, and drains. A request's latency begins when its
//! slot became free (waiting for the socket counts) and ends when the turn that brought the last
//! byte of its reply began to be handled: the clock is read once per turn. Requests in flight
//! when the measured time begins count as requests but not as latencies.
//!
//! What it does not do: structured replies, TLS, open-loop arrival.

mod connect;
mod connection;
mod error;
mod generator;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub mod toy;

use std::time::Duration;

use hdrhistogram::Histogram;
use nbd_proto::NbdUri;

use crate::usage::Usage;
use crate::workload::{Point, Rw, Visits};

pub use error::LoadError;

/// Longest latency the histogram tells apart, nanoseconds.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// A load to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom to load.
    pub uri: NbdUri,
    /// What with.
    pub point: Point,
    /// Bytes of the export to use, from its start; all of it if `None`.
    pub size: Option<u64>,
    /// Chooses blocks and contents.
    pub seed: u64,
    /// Core to run on.
    pub cpu: Option<usize>,
    /// Root of the server's process tree, to account for its CPU time; found from a Unix socket
    /// if `None`.
    pub server: Option<u32>,
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
}

/// What a verification came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Blocks written and read back.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Loads for `warmup`, then measures for `time`. Runs in a thread of its own, since a core it is
/// pinned to stays with the thread. Errors: [`LoadError`]; an error reply of the server is one.
pub fn measure(plan: &Plan, warmup: Duration, time: Duration) -> Result<Measured, LoadError> {
    in_thread(plan, |plan| {
        let visits = |size| Visits::endless(plan.point.rw, plan.point.block, size, plan.seed);
        generator::Generator::open(plan, generator::Check::Nothing, visits)?.measure(warmup, time)
    })
}

/// Writes every block of the range once, scattered, and reads all of them back, each compared
/// with what was written. Errors: as for [`measure`], and the first difference.
pub fn verify(plan: &Plan) -> Result<Verified, LoadError> {
    in_thread(plan, |plan| {
        let once = |rw| move |size| Visits::once(rw, plan.point.block, size, plan.seed);
        let check = generator::Check::Contents;
        generator::Generator::open(plan, check, once(Rw::RandWrite))?.finish()?;
        let (blocks, bytes) =
            generator::Generator::open(plan, check, once(Rw::RandRead))?.finish()?;
        Ok(Verified { blocks, bytes })
    })
}

/// Bytes of the export, as the server tells. Errors: it does not let a client in.
pub fn size_of(uri: &NbdUri) -> Result<u64, LoadError> {
    Ok(connect::connect(uri)?.agreed.size)
}

/// Writes every block of the range once, in sequence, so that all of it is really there. Gives
/// the bytes written.
pub fn precondition(plan: &Plan) -> Result<u64, LoadError> {
    in_thread(plan, |plan| {
        let visits = |size| Visits::once(Rw::Write, plan.point.block, size, plan.seed);
        let check = generator::Check::Nothing;
        Ok(generator::Generator::open(plan, check, visits)?.finish()?.1)
    })
}

fn in_thread<T: Send>(
    plan: &Plan,
    work: impl FnOnce(&Plan) -> Result<T, LoadError> + Send,
) -> Result<T, LoadError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Some(cpu) = plan.cpu {
                let refused = |source| LoadError::Pin { cpu, source };
                engine_ring::sys::cpu::pin(cpu).map_err(refused)?;
            }
            work(plan)
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
