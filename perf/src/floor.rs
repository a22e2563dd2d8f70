//! `perf floor`: what the kernel alone takes for sending blocks to another node over TCP.
//!
//! ```text
//!  sender (core 0): depth blocks, each with a header ─► one writev ─► 127.0.0.1 ─► receiver (core 1)
//!                   until depth answers are back  ◄──── answers for what is whole, one write
//! ```
//! The least that a mirror's leg can cost the primary on this machine: the same bytes in the same
//! pieces, batched as well as they can be, and nothing done about them. Loopback runs the
//! receiver's half of the stack in the sender's call, so both halves are counted.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::figures::Spread;
use crate::nbd::parse_seconds;

/// Payload of a write.
const BLOCK: usize = 4096;
/// Header, fields and checksum of the frame around it, and its answer (`docs/wire.md`).
const HEAD: usize = 104;
const ANSWER: usize = 48;
/// Deepest load: two pieces a block are within what one call takes.
const DEPTH_MAX: u32 = 256;

/// Measure the socket below a mirror: CPU for sending blocks to another core over TCP
#[derive(Debug, Args)]
pub struct Floor {
    /// Blocks outstanding, one figure for each
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,16,64",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(DEPTH_MAX))
    )]
    depths: Vec<u32>,
    /// Rounds; the median is told
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each
    #[arg(long, default_value = "1", value_parser = parse_seconds)]
    seconds: Duration,
    /// Core of the sender
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// Core of the receiver
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Blocks outstanding, and CPU of the sender for each block.
#[derive(Clone, Copy, Debug, Serialize)]
struct Row {
    depth: u32,
    cpu_us: f64,
    cpu_us_min: f64,
    cpu_us_max: f64,
}

/// Measures and prints.
pub fn run(floor: &Floor) -> anyhow::Result<()> {
    ensure!(floor.rounds > 0, "there is nothing to measure");
    let mut rows = Vec::new();
    for depth in &floor.depths {
        let rounds = (0..floor.rounds).map(|_| round(floor, *depth as usize));
        let found: Vec<f64> = rounds.collect::<Result<_, _>>()?;
        let spread = Spread::of(found).expect("at least one round was asked for");
        rows.push(Row {
            depth: *depth,
            cpu_us: spread.median,
            cpu_us_min: spread.min,
            cpu_us_max: spread.max,
        });
    }
    if floor.json {
        println!("{}", serde_json::json!({ "block": BLOCK, "floor": rows }));
        return Ok(());
    }
    println!(
        "{BLOCK} bytes and a header over TCP loopback, CPU of the sender, median of {} rounds \
         (least, most):",
        floor.rounds
    );
    for row in rows {
        println!(
            "depth {:>3}  {:>6.2} µs per block  ({:.2}, {:.2})",
            row.depth, row.cpu_us, row.cpu_us_min, row.cpu_us_max
        );
    }
    Ok(())
}

/// CPU of the sender for each block, in microseconds.
fn round(floor: &Floor, depth: usize) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (sender_cpu, receiver_cpu) = (floor.server_cpu, floor.client_cpu);
    let receiver = thread::spawn(move || receive(TcpStream::connect(address)?, receiver_cpu));
    let (stream, _) = listener.accept()?;
    let seconds = floor.seconds;
    let sender = thread::spawn(move || send(&stream, depth, seconds, sender_cpu));
    let found = sender.join().expect("the sender does not panic")?;
    receiver
        .join()
        .expect("the receiver does not panic")
        .context("the receiver")?;
    Ok(found)
}

fn send(mut stream: &TcpStream, depth: usize, time: Duration, cpu: usize) -> anyhow::Result<f64> {
    engine_ring::sys::cpu::pin(cpu)?;
    stream.set_nodelay(true)?;
    let heads = vec![1; HEAD * depth];
    // As in a server, payload lies in few buffers that are used again.
    let blocks = vec![2; BLOCK * depth];
    let mut answers = vec![0; ANSWER * depth];
    let (began, mut first, mut sent) = (Instant::now(), None, 0u64);
    while began.elapsed() < time {
        let pieces = heads.chunks(HEAD).zip(blocks.chunks(BLOCK));
        let mut pieces: Vec<IoSlice<'_>> = pieces
            .flat_map(|(head, block)| [IoSlice::new(head), IoSlice::new(block)])
            .collect();
        let mut rest = pieces.as_mut_slice();
        while !rest.is_empty() {
            let written = stream.write_vectored(rest)?;
            IoSlice::advance_slices(&mut rest, written);
        }
        stream.read_exact(&mut answers)?;
        // The first batch found buffers and caches cold.
        match first {
            None => first = Some(cpu_time()),
            Some(_) => sent += depth as u64,
        }
    }
    let first = first.context("no batch was answered")?;
    ensure!(sent > 0, "one batch took all the time");
    Ok((cpu_time() - first).as_secs_f64() * 1e6 / sent as f64)
}

/// Answers every block that is whole until the stream ends.
fn receive(mut stream: TcpStream, cpu: usize) -> anyhow::Result<()> {
    engine_ring::sys::cpu::pin(cpu)?;
    stream.set_nodelay(true)?;
    let mut bytes = vec![0; 128 << 10];
    let answers = vec![3; ANSWER * DEPTH_MAX as usize];
    let mut have = 0;
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(read) => have += read,
            // The sender ended with answers unread.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        let whole = have / (HEAD + BLOCK);
        have %= HEAD + BLOCK;
        if whole > 0 {
            stream.write_all(&answers[..whole * ANSWER])?;
        }
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).expect("a clock that counts from zero is never negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_depth_is_answered_and_costs_something() {
        let cpu = engine_ring::sys::cpu::allowed().unwrap()[0];
        let floor = Floor {
            depths: vec![],
            rounds: 1,
            seconds: Duration::from_millis(100),
            server_cpu: cpu,
            client_cpu: cpu,
            json: false,
        };
        for depth in [1, 16, DEPTH_MAX as usize] {
            assert!(round(&floor, depth).unwrap() > 0.0, "depth {depth}");
        }
    }
}
