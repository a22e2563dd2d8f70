//! The loop: all connections of a load on one thread and one ring.

use std::time::Duration;

use engine_ring::{Arena, ArenaConfig, Class, Completion, Ring, RingConfig, Wait, open_ring};
use nbd_proto::TransmissionFlags;

use super::arrivals::Arrivals;
use super::connect::{Connected, connect};
use super::connection::{Connection, Finished, buffer_bytes, whose};
use super::recorder::Recorder;
use super::tls::{Credentials, Seal};
use super::{DRAIN_MAX, INTERVALS_MAX, LoadError, Measured, Plan, Times};
use crate::usage::{self, Sample};
use crate::workload::{Kind, Visits};

/// Most memory for buffers.
const BUFFERS_MAX: u64 = 8 << 30;

/// Longest a server may take for a reply, nanoseconds.
const REPLY_MAX_NS: u64 = 30_000_000_000;

/// Requests of an open loop that are due sooner are waited for without sleeping: timers are late.
const SLEEP_MIN_NS: u64 = 80_000;

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
    depth: u32,
    /// When requests are due; a closed loop if `None`.
    arrivals: Option<Arrivals>,
    rate: Option<u64>,
    /// The connection that gets the next request of an open loop, if it has room.
    turn_of: usize,
    server: Option<u32>,
    helpers: Vec<u32>,
    done: Vec<Completion>,
    finished: Vec<Finished>,
    /// Clock of this turn, nanoseconds.
    now: u64,
    /// When the last reply came.
    progress: u64,
    /// No more requests are issued.
    is_draining: bool,
    count: u64,
    bytes: u64,
    /// What taking the accounts at the end took, nanoseconds: no reply was looked at meanwhile, and
    /// those that came then do not count as that much slower.
    pause: u64,
    recorder: Option<Recorder>,
}

impl Generator {
    /// Connects as often as the plan says, and prepares everything.
    pub fn open(
        plan: &Plan,
        check: Check,
        visits: impl FnOnce(u64) -> Option<Visits>,
    ) -> Result<Generator, LoadError> {
        let load = &plan.load;
        let credentials = Credentials::of(&plan.uri)?;
        let connected = (0..load.connections).map(|_| connect(&plan.uri, credentials.as_ref()));
        let connected: Vec<Connected> = connected.collect::<Result<_, _>>()?;
        let size = judge(plan, &connected)?;
        let block = load.block_max();
        let visits = visits(size).ok_or(LoadError::NoBlocks { size, block })?;
        let writes = load.has(Kind::Write);
        let each = buffer_bytes(load.depth, block, writes, credentials.is_some());
        let bytes = u64::from(load.connections) * each;
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
        for (index, connected) in connected.into_iter().enumerate() {
            let Connected {
                socket, session, ..
            } = connected;
            let file = ring.register(socket);
            let (shape, is_checked) = ((load.depth, block, writes), check == Check::Contents);
            let seal = match session {
                Some(session) => {
                    let seal = Seal::new(session, &mut arena);
                    Some(seal.ok_or(LoadError::Buffers(bytes as u64))?)
                }
                None => None,
            };
            let made = Connection::new(
                (index, file, seal),
                &mut arena,
                shape,
                is_checked,
                plan.seed,
            );
            connections.push(made.ok_or(LoadError::Buffers(bytes as u64))?);
        }
        let now = ring.now();
        Ok(Generator {
            ring,
            arena,
            connections,
            visits,
            depth: load.depth,
            arrivals: None,
            rate: plan.rate,
            turn_of: 0,
            server,
            helpers: plan.helpers.clone(),
            done: Vec::with_capacity(64),
            finished: Vec::with_capacity(load.depth as usize),
            now,
            progress: now,
            is_draining: false,
            count: 0,
            bytes: 0,
            pause: 0,
            recorder: None,
        })
    }

    /// Loads for a while, measures, drains.
    pub fn measure(mut self, times: Times) -> Result<Measured, LoadError> {
        self.begin()?;
        self.run_until(self.now.saturating_add(nanoseconds(times.warmup)))?;
        let before = Sample::take_with(self.server, &self.helpers)?;
        let client_before = usage::own();
        self.now = self.ring.now();
        let (begun, counted) = (self.now, (self.count, self.bytes));
        let end = begun.saturating_add(nanoseconds(times.measured));
        self.recorder = Some(Recorder::new((begun, end), counted, before.meter()));
        let interval = nanoseconds(times.interval.max(times.measured / INTERVALS_MAX)).max(1);
        let mut cut = begun;
        while self.now < end {
            cut = cut.saturating_add(interval).min(end);
            self.run_until(cut)?;
            if let Some(recorder) = &mut self.recorder {
                recorder.cut(self.now, self.count, self.bytes);
            }
        }
        let elapsed = Duration::from_nanos(self.now - begun);
        let client_cpu = usage::own().saturating_sub(client_before);
        let usage = before.until(&Sample::take_with(self.server, &self.helpers)?);
        let requests = self.count - counted.0;
        let bytes = self.bytes - counted.1;
        self.is_draining = true;
        let ended = std::mem::replace(&mut self.now, self.ring.now());
        self.pause = self.now - ended;
        self.progress = self.now;
        let unsent = self.send_the_rest(end, DRAIN_MAX.min(times.measured))?;
        self.drain()?;
        let recorder = self.recorder.take();
        let recorder = recorder.expect("it was set above and nothing else takes it");
        let (latency, intervals) = recorder.finish();
        Ok(Measured {
            requests,
            bytes,
            elapsed,
            latency,
            client_cpu,
            usage,
            intervals,
            unsent,
        })
    }

    /// Sends what was due before `end`, for at most `time`. Gives how many are then left; each of these
    /// counts as having waited until now.
    fn send_the_rest(&mut self, end: u64, time: Duration) -> Result<u64, LoadError> {
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.stop_at(end);
        }
        let patience = self.now.saturating_add(nanoseconds(time));
        while self.now < patience && self.arrivals.as_ref().is_some_and(|a| a.due().is_some()) {
            self.turn(patience)?;
        }
        let mut unsent = 0;
        if let Some(mut arrivals) = self.arrivals.take() {
            while let Some(since) = arrivals.take(self.now) {
                unsent += 1;
                if let Some(recorder) = &mut self.recorder {
                    recorder.record(since, self.now);
                }
            }
        }
        Ok(unsent)
    }

    /// Loads until all visits are done. Gives requests and bytes.
    pub fn finish(mut self) -> Result<(u64, u64), LoadError> {
        self.begin()?;
        self.drain()?;
        assert_eq!(
            self.count,
            self.visits.blocks(),
            "every block was to be visited once"
        );
        Ok((self.count, self.bytes))
    }

    /// Starts the receives, and fills all slots or the schedule.
    fn begin(&mut self) -> Result<(), LoadError> {
        self.now = self.ring.now();
        self.progress = self.now;
        self.arrivals = self.rate.map(|rate| Arrivals::new(rate, self.now));
        for slot in 0..self.depth {
            for connection in &mut self.connections {
                if self.arrivals.is_some() {
                    connection.give_free(slot);
                } else if let Some(next) = self.visits.next() {
                    connection.issue(slot, next, self.now);
                }
            }
        }
        self.issue_due();
        for connection in &mut self.connections {
            connection.receive(&mut *self.ring, &mut self.arena);
            connection.send(&mut *self.ring, &mut self.arena)?;
        }
        Ok(())
    }

    /// Gives free slots what is due, the connections in turn.
    #[inline]
    fn issue_due(&mut self) {
        let Some(arrivals) = &mut self.arrivals else {
            return;
        };
        while arrivals.due().is_some_and(|due| due <= self.now) {
            let count = self.connections.len();
            let mut order = (self.turn_of..self.turn_of + count).map(|index| index % count);
            let Some(index) = order.find(|index| self.connections[*index].has_free()) else {
                return;
            };
            self.turn_of = (index + 1) % count;
            let connection = &mut self.connections[index];
            let (slot, since) = (connection.take_free(), arrivals.take(self.now));
            if let (Some(slot), Some(since), Some(next)) = (slot, since, self.visits.next()) {
                connection.issue(slot, next, since);
            }
        }
    }

    /// Until when a turn may sleep, at most until `end`: not beyond the moment that a request is
    /// due for which there is room, and short of it since timers are late.
    #[inline]
    fn wait(&self, end: u64) -> Wait {
        let due = self.arrivals.as_ref().and_then(Arrivals::due);
        match due.filter(|_| self.connections.iter().any(Connection::has_free)) {
            Some(due) if due < self.now.saturating_add(SLEEP_MIN_NS) => Wait::No,
            Some(due) => Wait::Until(end.min(due - SLEEP_MIN_NS)),
            None => Wait::Until(end),
        }
    }

    fn run_until(&mut self, end: u64) -> Result<(), LoadError> {
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
            connection.say_goodbye(&mut *self.ring, &mut self.arena)?;
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
        let patience = match self.outstanding() {
            0 => u64::MAX,
            _ => self.progress.saturating_add(REPLY_MAX_NS),
        };
        let wait = self.wait(end.min(patience));
        let mut done = std::mem::take(&mut self.done);
        self.ring.enter(&mut self.arena, wait, &mut done);
        self.now = self.ring.now();
        for completion in &done {
            self.complete(completion)?;
        }
        done.clear();
        self.done = done;
        self.issue_due();
        for connection in &mut self.connections {
            connection.send(&mut *self.ring, &mut self.arena)?;
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
            return connection.sent(count, &mut *self.ring, &mut self.arena);
        }
        connection.received(count, &self.arena, &mut self.finished)?;
        connection.receive(&mut *self.ring, &mut self.arena);
        if !self.finished.is_empty() {
            self.progress = self.now;
        }
        self.count += self.finished.len() as u64;
        for Finished { slot, since, bytes } in self.finished.drain(..) {
            self.bytes += u64::from(bytes);
            if let Some(recorder) = &mut self.recorder {
                recorder.record(since, self.now - self.pause);
            }
            if self.arrivals.is_some() {
                connection.give_free(slot);
            } else if !self.is_draining
                && let Some(next) = self.visits.next()
            {
                connection.issue(slot, next, self.now);
            }
        }
        Ok(())
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Bytes to use. Errors: what the export or its block sizes do not allow.
fn judge(plan: &Plan, connected: &[Connected]) -> Result<u64, LoadError> {
    let load = &plan.load;
    let exported = connected.iter().map(|c| c.agreed.size).min().unwrap_or(0);
    let asked = plan.size.unwrap_or(exported);
    if asked > exported {
        return Err(LoadError::TooSmall { exported, asked });
    }
    let needed = [
        (Kind::Trim, TransmissionFlags::SEND_TRIM, "trim"),
        (
            Kind::Zeroes,
            TransmissionFlags::SEND_WRITE_ZEROES,
            "write zeroes",
        ),
        (Kind::Flush, TransmissionFlags::SEND_FLUSH, "flush"),
    ];
    for Connected { agreed, .. } in connected {
        if load.changes() && agreed.flags.contains(TransmissionFlags::READ_ONLY) {
            return Err(LoadError::ReadOnly);
        }
        for (kind, flag, what) in needed {
            if load.has(kind) && !agreed.flags.contains(flag) {
                return Err(LoadError::NotOffered(what));
            }
        }
        let Some(sizes) = agreed.block_sizes else {
            continue;
        };
        let (minimum, maximum) = (sizes.minimum(), sizes.maximum());
        for block in load.sizes.items() {
            if !block.is_multiple_of(minimum) || block > maximum {
                return Err(LoadError::BlockSize {
                    block,
                    minimum,
                    maximum,
                });
            }
        }
    }
    Ok(asked)
}
