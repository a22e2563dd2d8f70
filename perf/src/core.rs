//! `perf core`: what one request costs inside the pure core, without disk, socket or buffers.
//!
//! ```text
//!  Submit ─► Volume ─► DiskRead | DiskWrite      depth times, then
//!  DiskDone ─► Volume ─► Complete                depth times
//! ```
//! One replica, its disk in memory; actions are looked at but nothing is done for them. The time
//! is the CPU time of both calls and of taking the actions out.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use engine_core::action::{Action, Outcome};
use engine_core::event::{Event, Op, ReqId, SessionId, Token};
use engine_core::meta::{self, Backing, BackingKind, Checksums, Expect, Params};
use engine_core::quorum::Quorum;
use engine_core::record::Choice;
use engine_core::table::Table;
use engine_core::time::Instant;
use engine_core::units::{BufId, ByteRange, GRANULE, NodeIdx};
use engine_core::verdict::Policy;
use engine_core::volume::{RoleStatus, Setup, Volume};
use serde::Serialize;

use crate::figures::Spread;
use crate::usage;

/// Requests are spread over a volume of 1 GiB.
const SIZE_GRANULES: u64 = 1 << 18;
/// Odd, so that no granule comes twice in a row of `SIZE_GRANULES`.
const STRIDE: u64 = 0x9e37_79b1;
/// What the design allows for both calls.
const BUDGET_NS: f64 = 100.0;
/// As the engine sets it.
const REQUESTS_MAX: usize = 1024;

/// Measure the pure core: nanoseconds from submit to complete
#[derive(Debug, Args)]
pub struct Core {
    /// Rounds; the median is told
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Requests of a round
    #[arg(long, default_value_t = 500_000)]
    requests: u64,
    /// Core to run on
    #[arg(long)]
    cpu: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    op: &'static str,
    depth: u64,
    ns_per_request: f64,
    ns_min: f64,
    ns_max: f64,
}

/// Measures and prints.
pub fn run(core: &Core) -> anyhow::Result<()> {
    ensure!(
        core.rounds > 0 && core.requests > 0,
        "there is nothing to measure"
    );
    if let Some(cpu) = core.cpu {
        engine_ring::sys::cpu::pin(cpu)?;
    }
    let mut rows = Vec::new();
    for (op, is_write) in [("read", false), ("write", true)] {
        for depth in [1, 64] {
            let mut bench = Bench::new();
            bench.time(core.requests.min(50_000), depth, is_write);
            let each = (0..core.rounds).map(|_| {
                bench.time(core.requests, depth, is_write).as_nanos() as f64 / core.requests as f64
            });
            let spread = Spread::of(each).expect("at least one round was asked for");
            let Spread { median, min, max } = spread;
            rows.push(Row {
                op,
                depth,
                ns_per_request: median,
                ns_min: min,
                ns_max: max,
            });
        }
    }
    if core.json {
        let report = serde_json::json!({
            "rounds": core.rounds, "requests": core.requests, "budget_ns": BUDGET_NS, "core": rows,
        });
        println!("{report}");
        return Ok(());
    }
    println!(
        "submit to complete through the core, ns, median of {} rounds (least, most):",
        core.rounds
    );
    for Row {
        op,
        depth,
        ns_per_request,
        ns_min,
        ns_max,
    } in &rows
    {
        let word = if *ns_per_request <= BUDGET_NS {
            "within"
        } else {
            "OVER"
        };
        println!(
            "  {op:<5} depth {depth:>2}  {ns_per_request:6.1} ({ns_min:.1}, {ns_max:.1})  \
             {word} the budget of {BUDGET_NS:.0}"
        );
    }
    Ok(())
}

/// A founded volume with one replica, and the places a loop reuses.
struct Bench {
    volume: Volume,
    now: u64,
    number: u64,
    actions: Vec<Action>,
    tokens: Vec<Token>,
}

impl Bench {
    fn new() -> Bench {
        let params = params();
        let blocks = meta::format(&params).expect("these parameters are in range");
        let mut area: Vec<u8> = Vec::new();
        for (block, bytes) in blocks {
            let begin = block as usize * bytes.len();
            area.resize(area.len().max(begin + bytes.len()), 0);
            area[begin..begin + bytes.len()].copy_from_slice(&bytes[..]);
        }
        let loaded = meta::load(&area, &expect(params)).expect("it was just formatted");
        let volume = Volume::attach(setup(), loaded);
        let (actions, tokens) = (Vec::with_capacity(256), Vec::with_capacity(REQUESTS_MAX));
        let mut bench = Bench {
            volume,
            now: 1,
            number: 0,
            actions,
            tokens,
        };
        bench.found();
        bench
    }

    /// Answers whatever the volume asks until it is primary.
    fn found(&mut self) {
        let mut events = vec![Event::Start];
        while let Some(event) = events.pop() {
            self.now += 1_000_000;
            self.volume
                .handle(Instant(self.now), event, &mut self.actions);
            for action in self.actions.drain(..) {
                match action {
                    Action::MetaWrite { token, .. } => {
                        events.push(Event::MetaDone {
                            token,
                            result: Ok(()),
                        });
                    }
                    Action::DiskFlush { token } => events.push(done(token)),
                    Action::ProposeRecord(_) => events.push(Event::Record(Choice::Chosen)),
                    _ => {}
                }
            }
            if events.is_empty() && self.volume.status().role != RoleStatus::Primary {
                assert!(self.now < 10_000_000_000, "a single replica founds itself");
                events.push(Event::Tick);
            }
        }
    }

    /// The CPU time `requests` take with `depth` of them in flight.
    fn time(&mut self, requests: u64, depth: u64, is_write: bool) -> Duration {
        let begun = usage::thread();
        let mut left = requests;
        while left > 0 {
            let batch = left.min(depth);
            self.turn(batch, is_write);
            left -= batch;
        }
        usage::thread().saturating_sub(begun)
    }

    fn turn(&mut self, batch: u64, is_write: bool) {
        self.now += 1000;
        let now = Instant(self.now);
        for _ in 0..batch {
            self.number += 1;
            let granule = self.number.wrapping_mul(STRIDE) % SIZE_GRANULES;
            let range = ByteRange {
                offset: granule * GRANULE,
                len: GRANULE,
            };
            let buf = BufId(self.number);
            let op = match is_write {
                true => Op::Write {
                    range,
                    buf,
                    fua: false,
                },
                false => Op::Read { range, buf },
            };
            let (session, req) = (SessionId(1), ReqId(self.number));
            self.volume
                .handle(now, Event::Submit { session, req, op }, &mut self.actions);
            for action in self.actions.drain(..) {
                match action {
                    Action::DiskRead { token, .. } | Action::DiskWrite { token, .. } => {
                        self.tokens.push(token);
                    }
                    other => panic!("{other:?} does not belong to a request on one replica"),
                }
            }
        }
        assert_eq!(
            self.tokens.len() as u64,
            batch,
            "each request goes to the disk at once"
        );
        let mut completed = 0;
        for token in self.tokens.drain(..) {
            self.volume.handle(now, done(token), &mut self.actions);
            for action in self.actions.drain(..) {
                match action {
                    Action::Complete {
                        outcome: Outcome::Ok,
                        ..
                    } => completed += 1,
                    other => panic!("{other:?} does not belong to a disk that answered"),
                }
            }
        }
        assert_eq!(completed, batch, "each request is answered once");
    }
}

fn done(token: Token) -> Event {
    Event::DiskDone {
        token,
        result: Ok(()),
        buf: None,
        is_zero: false,
    }
}

fn params() -> Params {
    Params {
        volume: "bench".to_owned(),
        slice: 0,
        incarnation: 1,
        self_node: NodeIdx(0),
        node_count: 1,
        nodes_digest: 1,
        size_granules: SIZE_GRANULES,
        size_granules_max: SIZE_GRANULES,
        grain: 1,
        activity_log_slots: 1024,
        boot_id: 1,
        backing: Backing {
            kind: BackingKind::Memory,
            identity: [0; 32],
            size: SIZE_GRANULES * GRANULE,
        },
        checksums: Checksums::Off,
    }
}

fn expect(params: Params) -> Expect {
    Expect {
        volume: params.volume,
        slice: params.slice,
        node: "alpha".to_owned(),
        self_node: params.self_node,
        node_count: params.node_count,
        nodes_digest: params.nodes_digest,
        size_granules: params.size_granules,
        granule_bytes: GRANULE as u32,
        backing: params.backing,
    }
}

fn setup() -> Setup {
    Setup {
        node: NodeIdx(0),
        table: Table::of_file(&["alpha".to_owned()], 1),
        quorum: Quorum::Off,
        lease: Duration::from_secs(2),
        auto_promote: false,
        on_quorum_loss: Default::default(),
        cluster: "bench".to_owned(),
        volume: "bench".to_owned(),
        config_digest: 1,
        config_digest_unnamed: 1,
        policy: Policy::Written,
        read_margin: None,
        discards_unchanged: false,
        min_copies: 1,
        resync_rate: 0,
        member_timeout: Duration::from_secs(5),
        has_volatile_cache: false,
        is_memory: true,
        boot_id: 1,
        entropy: 7,
        requests_max: REQUESTS_MAX,
        peer_requests_max: REQUESTS_MAX,
        peer_bytes_max: 64 << 20,
        sum_pages: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_of_the_loop_is_answered() {
        let mut bench = Bench::new();
        for (depth, is_write) in [(1, false), (1, true), (64, false), (64, true)] {
            let before = bench.number;
            let time = bench.time(1000, depth, is_write);
            assert!(bench.number - before == 1000 && time > Duration::ZERO);
        }
    }
}
