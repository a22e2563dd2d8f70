//! What a ring costs per request: 28-byte requests in batches of `depth`, answered with a 16-byte
//! header and 4 KiB, as an NBD read over a Unix socket would be.
//!
//! `cargo run --release -p engine-ring --example echo -- [io_uring|posix] [depth] [spin] [region]`

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use engine_ring::{
    Arena, ArenaConfig, BufId, Class, FileId, Op, Region, RegionId, Ring, RingConfig, Seg, Wait,
    open_io_uring, open_posix, sys,
};

const REQUEST: usize = 28;
const HEADER: usize = 16;
const BLOCK: usize = 4096;
const RUN: Duration = Duration::from_secs(3);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|a| a == word);
    let depth = arguments
        .iter()
        .find_map(|a| a.parse().ok())
        .unwrap_or(64usize);
    let cpus = sys::cpu::allowed().expect("the kernel tells the mask");
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let client = std::thread::spawn({
        let cpu = cpus[cpus.len() - 1];
        move || load(theirs, depth, cpu)
    });
    sys::cpu::pin(cpus[0]).expect("an allowed CPU");
    let mut arena = Arena::new(&ArenaConfig::with_bytes(0, 64 << 20)).expect("memory");
    let config = RingConfig::default();
    let mut ring = match has("posix") {
        true => open_posix(&config, &arena).expect("descriptors"),
        false => open_io_uring(&config, &arena).expect("io_uring"),
    };
    println!(
        "{:?}: {}",
        ring.features().backend,
        ring.features().on().collect::<Vec<_>>().join(" ")
    );
    println!("arena on {:?} pages", arena.pages());
    let mut region = Region::new(1 << 30).expect("memory");
    // Untouched memory would be one page of zeroes, hot in every cache.
    region.slice_mut(0, 1 << 30).fill(7);
    let lent = ring.lend(&region);
    let file = ring.register(ours.into());
    let mut server = Server {
        file,
        region,
        lent: has("region").then_some(lent),
        blocks: Vec::new(),
    };
    let before = cpu_time();
    let requests = server.run(&mut *ring, &mut arena, has("spin"));
    let cpu = cpu_time() - before;
    drop(ring);
    client.join().expect("the client ends");
    let per = cpu.as_secs_f64() * 1e6 / requests as f64;
    let rate = requests as f64 / RUN.as_secs_f64();
    println!("depth {depth}: {rate:.0} requests/s, {per:.3} µs CPU each");
}

struct Server {
    file: FileId,
    region: Region,
    lent: Option<RegionId>,
    blocks: Vec<BufId>,
}

impl Server {
    /// Until the client closes.
    fn run(&mut self, ring: &mut dyn Ring, arena: &mut Arena, spin: bool) -> u64 {
        let inbox = arena.alloc(Class::Net, 256 << 10).expect("room");
        let headers = arena.alloc(Class::Net, 64 << 10).expect("room");
        let (mut done, mut segments) = (Vec::with_capacity(64), Vec::with_capacity(1024));
        let (mut requests, mut pending, mut rest) = (0u64, 0usize, 0usize);
        let (mut sending, mut position) = (false, 1u64);
        let file = self.file;
        ring.push(
            arena,
            1,
            Op::Recv {
                file,
                buf: inbox.slice(0, 256 << 10),
                all: false,
            },
        );
        loop {
            ring.enter(
                arena,
                if spin {
                    Wait::No
                } else {
                    Wait::Until(u64::MAX)
                },
                &mut done,
            );
            for completion in done.drain(..) {
                let count = completion.result.expect("the client is there") as usize;
                if completion.token == 1 {
                    if count == 0 {
                        return requests;
                    }
                    pending += (rest + count) / REQUEST;
                    rest = (rest + count) % REQUEST;
                    let buf = inbox.slice(0, 256 << 10);
                    ring.push(
                        arena,
                        1,
                        Op::Recv {
                            file,
                            buf,
                            all: false,
                        },
                    );
                } else {
                    // The client takes what was sent, so that sends are whole here.
                    assert_eq!(count, segments.iter().map(|s: &Seg| s.len() as usize).sum());
                    for block in self.blocks.drain(..) {
                        arena.release(block);
                    }
                    sending = false;
                }
            }
            if !sending && pending > 0 {
                let batch = pending.min(512);
                segments.clear();
                for number in 0..batch {
                    position = position
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let offset = (position >> 33) % ((1 << 30) / BLOCK as u64) * BLOCK as u64;
                    segments.push(
                        headers
                            .slice((number * HEADER) as u32, HEADER as u32)
                            .into(),
                    );
                    segments.push(self.block(arena, offset));
                }
                ring.push(
                    arena,
                    2,
                    Op::Send {
                        file,
                        segments: &segments,
                    },
                );
                (sending, pending) = (true, pending - batch);
                requests += batch as u64;
            }
        }
    }

    fn block(&mut self, arena: &mut Arena, offset: u64) -> Seg {
        if let Some(region) = self.lent {
            return Seg::Region {
                region,
                offset,
                len: BLOCK as u32,
            };
        }
        let buf = arena
            .alloc(Class::Client, BLOCK)
            .expect("room for 512 blocks");
        self.region
            .read(offset, arena.slice_mut(buf.slice(0, BLOCK as u32)));
        self.blocks.push(buf);
        buf.slice(0, BLOCK as u32).into()
    }
}

/// Keeps `depth` requests outstanding, in one write and as many reads as it takes.
fn load(mut stream: UnixStream, depth: usize, cpu: usize) {
    sys::cpu::pin(cpu).expect("an allowed CPU");
    let requests = vec![0; REQUEST * depth];
    let mut answers = vec![0; 256 << 10];
    stream.write_all(&requests).expect("the server is there");
    let (begun, mut bytes) = (Instant::now(), 0);
    while begun.elapsed() < RUN {
        bytes += stream.read(&mut answers).expect("the server is there");
        let whole = bytes / (HEADER + BLOCK);
        bytes %= HEADER + BLOCK;
        stream
            .write_all(&requests[..whole * REQUEST])
            .expect("the server is there");
    }
    stream
        .shutdown(std::net::Shutdown::Write)
        .expect("an open socket");
    while stream.read(&mut answers).is_ok_and(|count| count > 0) {}
}

/// Of this thread, user and system.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
