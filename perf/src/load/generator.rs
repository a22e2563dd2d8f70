//! The loop: all connections of a load on one thread and one ring.

use std::time::Duration;

use engine_ring::{Arena, ArenaConfig, Class, Completion, Ring, RingConfig, Wait, open_ring};
use hdrhistogram::Histogram;
use nbd_proto::TransmissionFlags;

use super::connect::{Connected, connect};
use super::connection::{Connection, Finished, buffer_bytes, whose};
use super::{LATENCY_MAX_NS, LoadError, Measured, Plan};
use crate::usage::{self, Sample};
use crate::workload::Visits;

/// Most memory for buffers.
const BUFFERS_MAX: u64 = 8 << 30;

/// Longest a server may take for a reply, nanoseconds.
const REPLY_MAX_NS: u64 = 30_000_000_000;

/// Whether what is read is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// No.
    Nothing,
    /// Contents follow place and seed, and are compared.
    Contents,
}

/// A load over open connections. Lives in one thread.
pub struct Generator {
    ring: Box<dyn Ring>,
    arena: Arena,
    connections: Vec<Connection>,
    visits: Visits,
    block: u32,
    depth: u32,
    server: Option<u32>,
    done: Vec<Completion>,
    finished: Vec<Finished>,
    /// Clock of this turn, nanoseconds.
    now: u64,
    /// When the last reply came.
    progress: u64,
    /// No more requests are issued.
    is_draining: bool,
    count: u64,
    /// Latencies of requests issued from then on, once that is known.
    recording: Option<(u64, Histogram<u64>)>,
}

impl Generator {
    /// Connects as often as the plan says, and prepares everything.
    pub fn open(
        plan: &Plan,
        check: Check,
        visits: impl FnOnce(u64) -> Option<Visits>,
    ) -> Result<Generator, LoadError> {
        let point = plan.point;
        let connected = (0..point.connections).map(|_| connect(&plan.uri));
        let connected: Vec<Connected> = connected.collect::<Result<_, _>>()?;
        let size = judge(plan, &connected)?;
        let visits = visits(size).ok_or(LoadError::NoBlocks {
            size,
            block: point.block,
        })?;
        let writes = point.rw.writes() || check == Check::Contents;
        let each = buffer_bytes(point.depth, point.block, writes);
        let bytes = u64::from(point.connections) * each;
        if bytes > BUFFERS_MAX {
            return Err(LoadError::Buffers(bytes));
        }
        // Below 8 GiB, checked above; everything is for one class.
        let bytes = bytes as usize;
        let mut guaranteed = [0; Class::COUNT];
        guaranteed[Class::Net as usize] = bytes;
        let config = ArenaConfig {
            reactor: 0,
            bytes,
            guaranteed,
        };
        let mut arena = Arena::new(&config).map_err(LoadError::Memory)?;
        let config = RingConfig {
            depth: 256,
            files: 64,
            workers: 1,
            fixed_bytes: 32 << 20,
        };
        let (mut ring, _) = open_ring(&config, &arena)?;
        let server = plan
            .server
            .or(connected[0].listener.filter(|pid| *pid != 0));
        let mut connections = Vec::new();
        for (index, Connected { socket, .. }) in connected.into_iter().enumerate() {
            let file = ring.register(socket);
            let (shape, is_checked) =
                ((point.depth, point.block, writes), check == Check::Contents);
            let made = Connection::new(index, file, &mut arena, shape, is_checked, plan.seed);
            connections.push(made.ok_or(LoadError::Buffers(bytes as u64))?);
        }
        let now = ring.now();
        Ok(Generator {
            ring,
            arena,
            connections,
            visits,
            block: point.block,
            depth: point.depth,
            server,
            done: Vec::with_capacity(64),
            finished: Vec::with_capacity(point.depth as usize),
            now,
            progress: now,
            is_draining: false,
            count: 0,
            recording: None,
        })
    }

    /// Loads for `warmup`, measures for `time`, drains.
    pub fn measure(mut self, warmup: Duration, time: Duration) -> Result<Measured, LoadError> {
        self.begin();
        self.run_for(warmup)?;
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3);
        let mut histogram = histogram.expect("one to a minute in nanoseconds are fine bounds");
        histogram.auto(false);
        let before = Sample::take(self.server)?;
        let client_before = usage::own();
        self.now = self.ring.now();
        let (begun, requests_before) = (self.now, self.count);
        self.recording = Some((begun, histogram));
        self.run_for(time)?;
        let elapsed = Duration::from_nanos(self.now - begun);
        let client_cpu = usage::own().saturating_sub(client_before);
        let usage = before.until(&Sample::take(self.server)?);
        let requests = self.count - requests_before;
        let latency = self.recording.take().map(|(_, histogram)| histogram);
        let latency = latency.expect("it was set above and nothing else takes it");
        let bytes = requests * u64::from(self.block);
        self.is_draining = true;
        self.now = self.ring.now();
        self.progress = self.now;
        self.drain()?;
        Ok(Measured {
            requests,
            bytes,
            elapsed,
            latency,
            client_cpu,
            usage,
        })
    }

    /// Loads until all visits are done. Gives requests and bytes.
    pub fn finish(mut self) -> Result<(u64, u64), LoadError> {
        self.begin();
        self.drain()?;
        assert_eq!(
            self.count,
            self.visits.blocks(),
            "every block was to be visited once"
        );
        Ok((self.count, self.count * u64::from(self.block)))
    }

    /// Fills all slots and starts the receives.
    fn begin(&mut self) {
        self.now = self.ring.now();
        self.progress = self.now;
        for slot in 0..self.depth {
            for connection in &mut self.connections {
                if let Some(next) = self.visits.next() {
                    connection.issue(slot, next, self.now);
                }
            }
        }
        for connection in &mut self.connections {
            connection.receive(&mut *self.ring, &mut self.arena);
            connection.send(&mut *self.ring, &mut self.arena);
        }
    }

    fn run_for(&mut self, time: Duration) -> Result<(), LoadError> {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let end = self.now.saturating_add(nanoseconds);
        while self.now < end {
            self.turn(end)?;
        }
        Ok(())
    }

    /// Until every request has its reply; then says goodbye.
    fn drain(&mut self) -> Result<(), LoadError> {
        while self.outstanding() > 0 || self.connections.iter().any(Connection::is_sending) {
            self.turn(u64::MAX)?;
        }
        for connection in &mut self.connections {
            connection.say_goodbye(&mut *self.ring, &mut self.arena);
        }
        // The server may close before it was told; either way the load is over.
        while self.connections.iter().any(Connection::is_sending) {
            if self.turn(u64::MAX).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn outstanding(&self) -> usize {
        self.connections.iter().map(Connection::outstanding).sum()
    }

    /// One turn: everything that came is handled, then each connection sends once.
    #[inline]
    fn turn(&mut self, end: u64) -> Result<(), LoadError> {
        let patience = self.progress.saturating_add(REPLY_MAX_NS);
        let mut done = std::mem::take(&mut self.done);
        self.ring
            .enter(&mut self.arena, Wait::Until(end.min(patience)), &mut done);
        self.now = self.ring.now();
        for completion in &done {
            self.complete(completion)?;
        }
        done.clear();
        self.done = done;
        for connection in &mut self.connections {
            connection.send(&mut *self.ring, &mut self.arena);
        }
        if self.now >= patience {
            let (seconds, outstanding) = (REPLY_MAX_NS / 1_000_000_000, self.outstanding());
            return Err(LoadError::Stalled {
                seconds,
                outstanding,
            });
        }
        Ok(())
    }

    #[inline]
    fn complete(&mut self, completion: &Completion) -> Result<(), LoadError> {
        let (index, is_send) = whose(completion.token);
        let connection = &mut self.connections[index];
        let doing = if is_send { "sending" } else { "receiving" };
        let count = completion
            .result
            .map_err(|source| LoadError::Broken { doing, source })?;
        if is_send {
            connection.sent(count, &mut *self.ring, &mut self.arena);
            return Ok(());
        }
        connection.received(count, &self.arena, &mut self.finished)?;
        connection.receive(&mut *self.ring, &mut self.arena);
        if !self.finished.is_empty() {
            self.progress = self.now;
        }
        self.count += self.finished.len() as u64;
        for Finished { slot, since } in self.finished.drain(..) {
            if let Some((from, histogram)) = &mut self.recording
                && since >= *from
            {
                histogram.saturating_record(self.now - since);
            }
            if !self.is_draining
                && let Some(next) = self.visits.next()
            {
                connection.issue(slot, next, self.now);
            }
        }
        Ok(())
    }
}

/// Bytes to use. Errors: what the export or its block sizes do not allow.
fn judge(plan: &Plan, connected: &[Connected]) -> Result<u64, LoadError> {
    let point = plan.point;
    let exported = connected.iter().map(|c| c.agreed.size).min().unwrap_or(0);
    let asked = plan.size.unwrap_or(exported);
    if asked > exported {
        return Err(LoadError::TooSmall { exported, asked });
    }
    for Connected { agreed, .. } in connected {
        if point.rw.writes() && agreed.flags.contains(TransmissionFlags::READ_ONLY) {
            return Err(LoadError::ReadOnly);
        }
        let Some(sizes) = agreed.block_sizes else {
            continue;
        };
        let (minimum, maximum) = (sizes.minimum(), sizes.maximum());
        if !point.block.is_multiple_of(minimum) || point.block > maximum {
            return Err(LoadError::BlockSize {
                block: point.block,
                minimum,
                maximum,
            });
        }
    }
    Ok(asked)
}
