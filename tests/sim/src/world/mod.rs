//! The world of one run: nodes, wires, clients and operators, driven by one queue of happenings
//! in virtual time. Nothing here depends on anything but the plan.
//!
//! ```text
//!  plan ─► happenings ─► feed(node, event) ─► core ─► actions ─► shell ─► happenings …
//!                                   └─► laws, after every event
//! ```

mod happening;
mod links;
mod machines;
mod node;
mod register;
mod turn;
mod votes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use engine_core::quorum::{Quorum, QuorumLoss};
use engine_core::units::NodeSet;

use crate::buffers::Ledger;
use crate::clients::Clients;
use crate::disk::Disk;
use crate::engine::{Bug, NodeSpec};
use crate::laws::Laws;
use crate::metadisk::MetaDisk;
use crate::net::Net;
use crate::operator::Operator;
use crate::plan::{Plan, Step};
use crate::rng::Rng;
use crate::swarm::{MS, granules_max, spots};

pub use happening::{Happening, Mend, Pending};
pub use node::{DiskImage, Doom, Fate, Node, Struck};
pub use register::Register;

/// A member that does not answer for this long leaves S.
pub const MEMBER_TIMEOUT: Duration = Duration::from_millis(500);

/// A voter that granted a lease promises nobody else for this long.
pub const LEASE: Duration = Duration::from_millis(400);

/// A dead wire is noticed within this.
pub const PEER_TIMEOUT_NS: u64 = 300 * MS;

/// One run.
pub struct World {
    /// What is done.
    pub plan: Plan,
    /// Virtual time.
    pub now: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    order: u64,
    /// Machines.
    pub nodes: Vec<Node>,
    /// Wires.
    pub net: Net,
    /// The register, if the plan has one.
    pub register: Register,
    /// Clients and their history.
    pub clients: Clients,
    /// Who promotes and repairs.
    pub operator: Operator,
    /// What must hold.
    pub laws: Laws,
    /// First granule of each hot spot.
    pub spots: Vec<u64>,
    hot: Rc<[u64]>,
    /// Chance of everything that has no stream of its own.
    pub rng: Rng,
    /// Print every event.
    pub is_verbose: bool,
    /// What the laws keep from event to event is also computed anew, and compared.
    pub is_thorough: bool,
    /// Fault planted in the core.
    pub bug: Option<Bug>,
    /// The first broken law.
    pub failure: Option<Failure>,
    /// What happened, to see that a run was not vacuous.
    pub coverage: BTreeMap<&'static str, u64>,
    /// Events handled by all cores.
    pub events: u64,
    /// The first doom that came.
    pub struck: Option<Struck>,
}

/// A broken law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub law: String,
    /// How.
    pub text: String,
    /// When.
    pub at: u64,
}

impl World {
    /// The world at time zero: blank replicas, all processes running.
    pub fn new(plan: Plan, bug: Option<Bug>, is_verbose: bool) -> World {
        let (seed, settings) = (plan.seed, plan.settings.clone());
        let count = settings.nodes + settings.witnesses + settings.spares + settings.newcomers;
        let count = count as usize;
        let nodes = (0..count)
            .map(|i| Node {
                engine: None,
                life: 0,
                boot_id: Rng::fork(seed, "boot", i as u64).next_u128(),
                formats: 0,
                disk: Disk::new(
                    settings.granules,
                    settings.volatile_nodes >> i & 1 == 1,
                    Rng::fork(seed, "disk", i as u64),
                ),
                meta: MetaDisk::new(Rng::fork(seed, "meta", i as u64)),
                buffers: Ledger::default(),
                sums: None,
                pending: BTreeMap::new(),
                stalled: Vec::new(),
                paused_until: 0,
                backlog: VecDeque::new(),
                restart_at: Some(0),
                wake_at: u64::MAX,
                events: 0,
                doom: None,
                meta_doom: None,
                lost_power: false,
                is_stopping: false,
                is_condemned: false,
                has_failed_flush: false,
                is_gone: false,
                image: None,
                record_life: 0,
                brings_back: false,
                is_rolled_back: false,
                put_back: None,
                lonely: 0,
                stop_for: 0,
                was_in_touch: false,
                rng: Rng::fork(seed, "latency", i as u64),
            })
            .collect();
        let mut net = Net::new(count, Rng::fork(seed, "net", 0));
        for (a, b) in net.pairs() {
            net.wire(a, b).double_one_in = settings.double_one_in;
        }
        let spots = spots(&plan);
        let size_max = granules_max(&plan);
        let mut world = World {
            now: 0,
            queue: BTreeMap::new(),
            order: 0,
            nodes,
            net,
            register: Register::new(count),
            clients: Clients::new(settings.sessions as usize),
            operator: Operator::new(Rng::fork(seed, "operator", 0)),
            laws: Laws::new(count, settings.granules),
            hot: hot_granules(&spots, settings.spot_granules, size_max),
            spots,
            rng: Rng::fork(seed, "world", 0),
            is_verbose,
            is_thorough: false,
            bug,
            failure: None,
            coverage: BTreeMap::new(),
            events: 0,
            struck: None,
            plan,
        };
        (0..count).for_each(|node| world.format(node));
        for index in 0..world.plan.steps.len() {
            let at = world.plan.steps[index].0;
            world.schedule_at(at, Happening::Step(index));
        }
        world.schedule(0, Happening::Operate);
        world.schedule(MS, Happening::Connect);
        world
    }

    /// How many nodes the file of this one lists: one that comes is in its own.
    pub fn listed(&self, node: usize) -> usize {
        let settings = &self.plan.settings;
        ((settings.nodes + settings.witnesses) as usize).max(node + 1)
    }

    fn listed_replicas(&self, node: usize) -> usize {
        match self.plan.settings.newcomers {
            0 => self.plan.settings.nodes as usize,
            _ => self.listed(node),
        }
    }

    /// Tables of nodes may change.
    pub fn has_newcomers(&self) -> bool {
        self.plan.settings.spares + self.plan.settings.newcomers > 0
    }

    /// Parameters of a node's replica.
    pub fn spec(&self, node: usize) -> NodeSpec {
        let settings = &self.plan.settings;
        NodeSpec {
            node: node as u8,
            replicas: self.listed_replicas(node),
            witnesses: self.listed(node) - self.listed_replicas(node),
            on_quorum_loss: match settings.fails_without_quorum {
                1 => QuorumLoss::Fail,
                _ => QuorumLoss::Freeze,
            },
            quorum: match (settings.has_votes, settings.has_register) {
                (0, _) => Quorum::Off,
                (_, 0) => Quorum::Majority,
                (_, _) => Quorum::Register,
            },
            granules: settings.granules,
            disk_granules: self.nodes[node].disk.granules(),
            log_slots: settings.log_slots as u32,
            requests_max: settings.requests_max as usize,
            is_durable_policy: settings.is_durable_policy == 1,
            sum_pages: settings.sum_pages as usize,
            read_margin: settings
                .read_margin
                .checked_sub(1)
                .map(|margin| margin as u32),
            discards_unchanged: Rng::fork(self.plan.seed, "discards", 0).one_in(3),
            has_volatile_cache: self.nodes[node].disk.has_volatile_cache(),
            boot_id: self.nodes[node].boot_id,
            incarnation: Rng::fork(
                self.plan.seed,
                "incarnation",
                (node as u64) << 32 | self.nodes[node].formats,
            )
            .next_u128(),
            entropy: Rng::fork(
                self.plan.seed,
                "entropy",
                (node as u64) << 32 | self.nodes[node].life,
            )
            .next_u128(),
        }
    }

    /// Queues a happening.
    pub fn schedule(&mut self, delay: u64, what: Happening) {
        self.schedule_at(self.now + delay, what);
    }

    /// Queues a happening at a time.
    pub fn schedule_at(&mut self, at: u64, what: Happening) {
        self.order += 1;
        self.queue.insert((at.max(self.now), self.order), what);
    }

    /// Counts something that happened.
    pub fn count(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_default() += 1;
    }

    /// A law is broken; the first one stands.
    pub fn fail(&mut self, law: &str, text: impl Into<String>) {
        if self.failure.is_none() {
            let failure = Failure {
                law: law.into(),
                text: text.into(),
                at: self.now,
            };
            self.say(|| format!("BROKEN {}: {}", failure.law, failure.text));
            self.failure = Some(failure);
        }
    }

    /// Prints in verbose runs.
    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.is_verbose {
            println!("{:>13} {}", format_time(self.now), text());
        }
    }

    /// The node's process runs and is not paused.
    pub fn is_alive(&self, node: usize) -> bool {
        self.nodes[node].engine.is_some() && self.nodes[node].paused_until <= self.now
    }

    /// There is one replica, and nobody to lean on.
    pub fn is_alone(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Indices of all nodes with data, and of those that may come to hold some.
    pub fn all(&self) -> std::ops::Range<usize> {
        0..(self.plan.settings.nodes + self.plan.settings.newcomers) as usize
    }

    /// Indices of all nodes, witnesses behind the others.
    pub fn everybody(&self) -> std::ops::Range<usize> {
        0..self.nodes.len()
    }

    /// Nodes with data, as a set.
    pub fn replicas(&self) -> NodeSet {
        NodeSet::first(self.all().len())
    }

    /// It votes and holds no data.
    pub fn is_witness(&self, node: usize) -> bool {
        !self.all().contains(&node)
    }

    /// Records are chosen, by a majority or by a register.
    pub fn has_votes(&self) -> bool {
        self.plan.settings.has_votes == 1
    }

    /// A register chooses them.
    pub fn has_register(&self) -> bool {
        self.has_votes() && self.plan.settings.has_register == 1
    }

    /// A step of the plan.
    pub fn step(&mut self, step: Step) {
        if !self.client_step(step) {
            self.say(|| format!("plan: {:?}", step));
            self.trouble(step);
        }
    }

    /// Granules clients may touch, lowest first.
    pub fn hot(&self) -> Rc<[u64]> {
        Rc::clone(&self.hot)
    }
}

fn hot_granules(spots: &[u64], each: u64, size: u64) -> Rc<[u64]> {
    let all: BTreeSet<u64> = spots
        .iter()
        .flat_map(|s| *s..(*s + each).min(size))
        .collect();
    all.into_iter().collect()
}

/// Seconds with nanoseconds.
pub fn format_time(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

/// An event or action without the bytes of metadata.
pub fn brief(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    match text.find("bytes: [") {
        Some(at) => format!("{}bytes: … }}", &text[..at]),
        None if text.len() > 700 => format!("{}…", text.chars().take(700).collect::<String>()),
        None => text,
    }
}
