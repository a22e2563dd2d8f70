//! The world of one run: nodes, wires, clients and operators, driven by one queue of happenings
//! in virtual time. Nothing here depends on anything but the plan.
//!
//! ```text
//!  plan ─► happenings ─► feed(node, event) ─► core ─► actions ─► shell ─► happenings …
//!                                   └─► laws, after every event
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use engine_core::action::MetaBlock;
use engine_core::event::{Event, LinkId, Token};
use engine_core::record::Choice;
use engine_core::time::Instant;
use engine_core::units::{BufId, ByteRange, Extent};

use crate::buffers::Ledger;
use crate::clients::Clients;
use crate::disk::{Disk, Image};
use crate::engine::{Bug, Engine, NodeSpec, recover};
use crate::laws::Laws;
use crate::metadisk::MetaDisk;
use crate::net::Net;
use crate::operator::Operator;
use crate::plan::{Plan, Step};
use crate::rng::Rng;
use crate::swarm::{MS, spots};

/// A member that does not answer for this long leaves S.
pub const MEMBER_TIMEOUT: Duration = Duration::from_millis(500);
/// A dead wire is noticed within this.
pub const PEER_TIMEOUT_NS: u64 = 300 * MS;

/// What waits for a data-disk operation.
#[derive(Clone, Copy, Debug)]
pub enum Pending {
    /// `DiskRead` into a buffer the core named.
    Read(Token, BufId),
    /// `DiskRead` into one the shell allocates.
    ReadAlloc(Token),
    /// `DiskWrite`.
    Write(Token, BufId),
    /// `DiskZero` or `DiskFlush`.
    Plain(Token),
    /// `Job::Merge`: fill what the range leaves free.
    Merge(Token, BufId, ByteRange),
    /// `Job::MergeZeros`: one granule with a hole.
    MergeZeros(Token, ByteRange),
    /// `Job::Sums`.
    Sums(Token, Extent),
}

/// Something that will happen.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the fields name nodes, lives of processes and operations
pub enum Happening {
    /// A step of the plan.
    Step(usize),
    /// kill -9, back after so long.
    Kill { node: usize, life: u64, down: u64 },
    /// A data-disk operation ends.
    DiskIo { node: usize, life: u64, io: u64 },
    /// A metadata write ends.
    MetaIo {
        node: usize,
        life: u64,
        io: u64,
        token: Token,
    },
    /// The control store answers.
    Chosen { node: usize, life: u64 },
    /// The oldest message on its way to this end arrives.
    Arrive { connection: u64, end: usize },
    /// The bytes of a send left the buffer.
    Sent { node: usize, life: u64, buf: BufId },
    /// A copy between buffers ends.
    Copied {
        node: usize,
        life: u64,
        token: Token,
        from: BufId,
        to: BufId,
        count: usize,
    },
    /// An end learns of its connection.
    LinkUp { connection: u64, end: usize },
    /// An end learns of its loss.
    LinkDown { connection: u64, end: usize },
    /// Nodes look for peers they have no connection to.
    Connect,
    /// A deadline of the core.
    Wake { node: usize, life: u64 },
    /// A paused process goes on.
    Resume { node: usize },
    /// A fault ends.
    Mend(Mend),
    /// The operator looks around.
    Operate,
}

/// The end of a fault.
#[derive(Clone, Copy, Debug)]
pub enum Mend {
    /// A cut.
    Wire(usize, usize),
    /// Slowness and damage of a wire.
    Calm(usize, usize),
    /// Reads work again.
    Reads(usize),
    /// There is room again.
    Room(usize),
    /// Data-disk operations complete again.
    Hang(usize),
    /// The disk is as fast as before.
    Speed(usize),
    /// Metadata writes complete again.
    MetaHang(usize),
    /// The operator connects a peer again.
    Reconnect(usize, usize),
    /// The operator lets resync go on.
    Resync(usize),
}

/// A node's disks as they once were.
pub struct DiskImage {
    /// Life of the process then, or before its next one.
    pub life: u64,
    /// Content.
    pub data: Image,
    /// Metadata.
    pub meta: BTreeMap<u64, Box<MetaBlock>>,
}

/// One machine.
pub struct Node {
    /// The process, if it runs.
    pub engine: Option<Engine>,
    /// How often a process was started or died here.
    pub life: u64,
    /// Boot of the machine.
    pub boot_id: u128,
    /// Number of the format on the disk.
    pub formats: u64,
    /// Data.
    pub disk: Disk,
    /// Metadata.
    pub meta: MetaDisk,
    /// Memory of the process.
    pub buffers: Ledger,
    /// Who waits for data-disk operations.
    pub pending: BTreeMap<u64, Pending>,
    /// Completed on hung disks: operation numbers, and metadata ones with their token.
    pub stalled: Vec<Happening>,
    /// The process is stopped until then.
    pub paused_until: u64,
    /// What arrived while it was stopped.
    pub backlog: VecDeque<Event>,
    /// Started again at this time.
    pub restart_at: Option<u64>,
    /// The deadline a `Wake` is queued for.
    pub wake_at: u64,
    /// Events handled since the process started.
    pub events: u64,
    /// Dies at this event: number, power cut with these blocks kept, down for.
    pub doom: Option<(u64, Option<u64>, u64)>,
    /// Dies during a metadata write: how many from now, down for.
    pub meta_doom: Option<(u64, u64)>,
    /// Power failed since the volume was last promoted or joined; for the history's facts.
    pub lost_power: bool,
    /// The operator said stop.
    pub is_stopping: bool,
    /// A fault of the plan made this copy fail; the operator replaces it.
    pub is_condemned: bool,
    /// A flush failed here since the process started.
    pub has_failed_flush: bool,
    /// Taken out of service until it left S and can be replaced.
    pub is_gone: bool,
    /// An image of its disks, kept earlier: data and metadata.
    pub image: Option<DiskImage>,
    /// Life of the process that last wrote a record down.
    pub record_life: u64,
    /// The image is put back once it left S.
    pub brings_back: bool,
    /// Its data is older than its peers remember, and nobody noticed yet.
    pub is_rolled_back: bool,
    /// How long it stays down after it was told to stop.
    pub stop_for: u64,
    /// The process had a connection since it started.
    pub was_in_touch: bool,
    /// Chance of latencies.
    pub rng: Rng,
}

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
    /// Fault planted in the core.
    pub bug: Option<Bug>,
    /// The first broken law.
    pub failure: Option<Failure>,
    /// What happened, to see that a run was not vacuous.
    pub coverage: BTreeMap<&'static str, u64>,
    /// Events handled by all cores.
    pub events: u64,
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
        let count = settings.nodes as usize;
        let nodes = (0..count)
            .map(|i| Node {
                engine: None,
                life: 0,
                boot_id: Rng::fork(seed, "boot", i as u64).next_u128(),
                formats: 0,
                disk: Disk::new(
                    settings.volatile_nodes >> i & 1 == 1,
                    Rng::fork(seed, "disk", i as u64),
                ),
                meta: MetaDisk::new(Rng::fork(seed, "meta", i as u64)),
                buffers: Ledger::default(),
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
                stop_for: 0,
                was_in_touch: false,
                rng: Rng::fork(seed, "latency", i as u64),
            })
            .collect();
        let mut net = Net::new(count, Rng::fork(seed, "net", 0));
        for (a, b) in net.pairs() {
            net.wire(a, b).double_one_in = settings.double_one_in;
        }
        let spots = spots(seed, &settings);
        let mut world = World {
            now: 0,
            queue: BTreeMap::new(),
            order: 0,
            nodes,
            net,
            clients: Clients::new(settings.sessions as usize),
            operator: Operator::new(Rng::fork(seed, "operator", 0)),
            laws: Laws::new(count),
            hot: hot_granules(&spots, settings.spot_granules, settings.granules),
            spots,
            rng: Rng::fork(seed, "world", 0),
            is_verbose,
            bug,
            failure: None,
            coverage: BTreeMap::new(),
            events: 0,
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

    /// Parameters of a node's replica.
    pub fn spec(&self, node: usize) -> NodeSpec {
        let settings = &self.plan.settings;
        NodeSpec {
            node: node as u8,
            nodes: settings.nodes as usize,
            granules: settings.granules,
            log_slots: settings.log_slots as u32,
            requests_max: settings.requests_max as usize,
            is_durable_policy: settings.is_durable_policy == 1,
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

    /// Indices of all nodes.
    pub fn all(&self) -> std::ops::Range<usize> {
        0..self.nodes.len()
    }

    /// Carries out happenings until nothing is left before `until`, or a law is broken.
    pub fn run_until(&mut self, until: u64) {
        while self.failure.is_none() {
            let Some((&(at, order), _)) = self.queue.first_key_value() else {
                break;
            };
            if at > until {
                break;
            }
            let what = self.queue.remove(&(at, order)).expect("it was just seen");
            self.now = at;
            self.happen(what);
        }
        self.now = self.now.max(until);
    }

    fn is_current(&self, node: usize, life: u64) -> bool {
        self.nodes[node].engine.is_some() && self.nodes[node].life == life
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Step(index) => {
                let step = self.plan.steps[index].1;
                self.step(step);
            }
            Happening::DiskIo { node, life, io } if self.is_current(node, life) => {
                if self.nodes[node].disk.faults.is_hung {
                    self.nodes[node].stalled.push(what);
                } else {
                    self.disk_ended(node, io);
                }
            }
            Happening::MetaIo {
                node,
                life,
                io,
                token,
            } if self.is_current(node, life) => {
                if self.nodes[node].meta.is_hung {
                    self.nodes[node].stalled.push(what);
                } else {
                    self.meta_ended(node, io, token);
                }
            }
            Happening::Kill { node, life, down } if self.is_current(node, life) => {
                self.kill(node, Some(down));
            }
            Happening::Chosen { node, life } if self.is_current(node, life) => {
                self.feed(node, Event::Record(Choice::Chosen));
            }
            Happening::Arrive { connection, end } => self.arrive(connection, end),
            Happening::Sent { node, life, buf } if self.is_current(node, life) => {
                self.nodes[node].buffers.end_read(buf);
            }
            Happening::Copied {
                node,
                life,
                token,
                from,
                to,
                count,
            } if self.is_current(node, life) => {
                self.copied(node, token, from, to, count);
            }
            Happening::LinkUp { connection, end } => self.link_up(connection, end),
            Happening::LinkDown { connection, end } => self.link_down(connection, end),
            Happening::Connect => self.connect_all(),
            Happening::Wake { node, life } if self.is_current(node, life) => {
                self.nodes[node].wake_at = u64::MAX;
                self.feed(node, Event::Tick);
            }
            Happening::Resume { node } => self.resume(node),
            Happening::Mend(mend) => self.mend(mend),
            Happening::Operate => self.operate(),
            Happening::DiskIo { .. }
            | Happening::Kill { .. }
            | Happening::MetaIo { .. }
            | Happening::Chosen { .. }
            | Happening::Sent { .. }
            | Happening::Copied { .. }
            | Happening::Wake { .. } => {}
        }
    }

    /// Gives an event to a node's core, carries its actions out, and checks the laws.
    pub fn feed(&mut self, node: usize, event: Event) {
        if self.nodes[node].engine.is_none() || self.failure.is_some() {
            return;
        }
        if self.nodes[node].paused_until > self.now {
            if !matches!(event, Event::Tick) {
                self.nodes[node].backlog.push_back(event);
            }
            return;
        }
        let mut event = Some(event);
        for turn in 0.. {
            let Some(next) = event.take() else { break };
            self.turn(node, next);
            if self.failure.is_some() || self.nodes[node].engine.is_none() {
                break;
            }
            let now = Instant(self.now);
            let deadline = self.nodes[node]
                .engine
                .as_ref()
                .and_then(Engine::next_deadline);
            if deadline.is_some_and(|d| d <= now) {
                event = Some(Event::Tick);
            }
            if turn > 20_000 {
                self.fail(
                    "L2",
                    format!("node {node} has a deadline in the past for ever"),
                );
            }
        }
        self.arm(node);
        self.check_laws(node);
    }

    fn turn(&mut self, node: usize, event: Event) {
        self.say(|| format!("n{node} <- {}", brief(&event)));
        self.before(node, &event);
        let is_late = matches!(&event, Event::Peer { link, .. } if self.is_dropped(node, *link));
        let mut actions = Vec::new();
        let now = Instant(self.now);
        self.events += 1;
        let machine = &mut self.nodes[node];
        machine.events += 1;
        let doom = machine.doom.filter(|(at, ..)| machine.events >= *at);
        let engine = machine.engine.as_mut().expect("the process runs");
        engine.handle(now, event, &mut actions);
        if actions.len() > engine_core::action::ACTIONS_PER_TURN {
            self.fail("D2", format!("{} actions in one turn", actions.len()));
        }
        if is_late {
            self.law_late_words_count_not(node, &actions);
        }
        if let Some((_, keep, down)) = doom {
            self.nodes[node].doom = None;
            self.carry_out(node, actions, true);
            match keep {
                None => self.kill(node, Some(down)),
                Some(keep) => self.cut_power_exactly(node, keep, down),
            }
            return;
        }
        self.carry_out(node, actions, false);
        if self.failure.is_none() && self.nodes[node].engine.is_some() {
            self.after(node);
        }
    }

    fn arm(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let Some(engine) = &self.nodes[node].engine else {
            return;
        };
        let Some(deadline) = engine.next_deadline() else {
            return;
        };
        if deadline.0 < self.nodes[node].wake_at {
            self.nodes[node].wake_at = deadline.0;
            self.schedule_at(deadline.0, Happening::Wake { node, life });
        }
    }

    fn link_up(&mut self, connection: u64, end: usize) {
        let Some(found) = self.net.connection(connection) else {
            return;
        };
        if found.ends[end].is_down || found.is_dead {
            return;
        }
        found.ends[end].is_up = true;
        self.nodes[found.ends[end].node].was_in_touch = true;
        let link = found.ends[end].link;
        let (node, peer) = (found.ends[end].node, found.ends[1 - end].node);
        let waiting = found.ends[end].inbox.len();
        let peer = engine_core::units::NodeIdx(peer as u8);
        self.feed(node, Event::LinkUp { peer, link });
        for _ in 0..waiting {
            self.schedule(1, Happening::Arrive { connection, end });
        }
    }

    fn link_down(&mut self, connection: u64, end: usize) {
        let Some(found) = self.net.connection(connection) else {
            return;
        };
        if found.ends[end].is_down {
            return;
        }
        let side = &found.ends[end];
        let (node, link, was_up) = (side.node, side.link, side.is_up);
        self.net.down(connection, end);
        if was_up {
            self.lost_link(node, link);
        }
    }

    fn lost_link(&mut self, node: usize, link: LinkId) {
        self.count("link losses");
        self.feed(node, Event::LinkDown { link });
    }

    fn arrive(&mut self, connection: u64, end: usize) {
        let now = self.now;
        let Some(frame) = self.net.take(now, connection, end) else {
            return;
        };
        let Some(found) = self.net.connection(connection) else {
            return;
        };
        let (node, link) = (found.ends[end].node, found.ends[end].link);
        if frame.is_damaged {
            // The head's checksum fails: this side drops the connection (F19).
            self.count("damaged heads");
            self.break_connection(connection, end);
            return;
        }
        self.deliver(node, link, frame);
    }

    /// One side closes: it learns at once, the other after what was sent before.
    pub fn break_connection(&mut self, connection: u64, end: usize) {
        let late = self.net.rng().between(1, 2_000_000);
        let own_max = *self.net.rng().pick(&[1, 200_000, 8_000_000]);
        let own = self.net.rng().between(1, own_max);
        let now = self.now;
        let Some(found) = self.net.connection(connection) else {
            return;
        };
        // What was received before may still reach the core: late words (law R10).
        found.is_dead = true;
        let last = found.ends[1 - end].inbox.back().map_or(now, |f| f.at);
        self.schedule(own, Happening::LinkDown { connection, end });
        self.schedule_at(
            last.max(now) + late,
            Happening::LinkDown {
                connection,
                end: 1 - end,
            },
        );
    }

    fn connect_all(&mut self) {
        for (a, b) in self.net.pairs() {
            let doubles = self.net.wire(a, b).double_one_in;
            let open = self.net.between(a, b).len();
            let runs = |n: usize| self.nodes[n].engine.is_some() && !self.nodes[n].is_stopping;
            if !runs(a) || !runs(b) || self.net.is_cut(a, b) {
                self.probe_in_vain(a, b);
                continue;
            }
            let again = open == 1 && doubles > 0 && self.net.rng().one_in(doubles * 8);
            if open == 0 || again {
                let ends = [(a, self.nodes[a].life), (b, self.nodes[b].life)];
                let connection = self.net.connect(ends[0], ends[1]);
                for end in 0..2 {
                    let delay = self.net.rng().between(10_000, 2_000_000);
                    self.schedule(delay, Happening::LinkUp { connection, end });
                }
            }
        }
        let delay = self.net.rng().between(5 * MS, 30 * MS);
        self.schedule(delay, Happening::Connect);
    }

    /// Whoever runs dials the other, and nobody answers.
    fn probe_in_vain(&mut self, a: usize, b: usize) {
        for (node, peer) in [(a, b), (b, a)] {
            let believes = self.net.between(a, b).iter().any(|id| {
                self.net
                    .peek(*id)
                    .is_some_and(|c| c.ends.iter().any(|e| e.node == node && !e.is_down))
            });
            if self.is_alive(node) && !believes {
                let peer = engine_core::units::NodeIdx(peer as u8);
                self.feed(node, Event::Unreachable { peer });
            }
        }
    }

    /// Nothing passes between these any more; each side notices in its own time.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.net.wire(a, b).is_cut = true;
        self.count("cuts");
        for connection in self.net.between(a, b) {
            self.net.kill(connection);
            for end in 0..2 {
                let delay = self.net.rng().between(100_000, PEER_TIMEOUT_NS);
                self.schedule(delay, Happening::LinkDown { connection, end });
            }
        }
    }

    /// The process does nothing for a while; peers give up on it if that is long.
    pub fn pause(&mut self, node: usize, span: u64) {
        if !self.is_alive(node) {
            return;
        }
        self.count("pauses");
        let until = self.now + span;
        self.nodes[node].paused_until = until;
        self.schedule(span, Happening::Resume { node });
        if span < PEER_TIMEOUT_NS {
            return;
        }
        for connection in self.net.of(node) {
            let Some(found) = self.net.connection(connection) else {
                continue;
            };
            let other = usize::from(found.ends[0].node == node);
            let delay = self.net.rng().between(PEER_TIMEOUT_NS / 2, PEER_TIMEOUT_NS);
            self.schedule(
                delay,
                Happening::LinkDown {
                    connection,
                    end: other,
                },
            );
            let delay = delay + self.net.rng().between(1, PEER_TIMEOUT_NS);
            self.schedule(
                delay,
                Happening::LinkDown {
                    connection,
                    end: 1 - other,
                },
            );
        }
    }

    fn resume(&mut self, node: usize) {
        if self.nodes[node].paused_until > self.now {
            return;
        }
        self.nodes[node].paused_until = 0;
        let backlog = std::mem::take(&mut self.nodes[node].backlog);
        for event in backlog {
            self.feed(node, event);
        }
        self.feed(node, Event::Tick);
    }

    /// Everything that is under way at the process's end ends with it.
    pub fn end_process(&mut self, node: usize, is_abrupt: bool) {
        let machine = &mut self.nodes[node];
        machine.engine = None;
        machine.life += 1;
        machine.buffers.clear();
        machine.pending.clear();
        machine.stalled.clear();
        machine.backlog.clear();
        machine.paused_until = 0;
        machine.wake_at = u64::MAX;
        machine.is_stopping = false;
        for connection in self.net.of(node) {
            self.net.kill(connection);
            let Some(found) = self.net.connection(connection) else {
                continue;
            };
            let own = usize::from(found.ends[1].node == node);
            let last = found.ends[1 - own].inbox.back().map_or(self.now, |f| f.at);
            let bound = if is_abrupt { PEER_TIMEOUT_NS } else { 2 * MS };
            let delay = self.net.rng().between(1, bound);
            self.net.down(connection, own);
            let at = last.max(self.now) + delay;
            self.schedule_at(
                at,
                Happening::LinkDown {
                    connection,
                    end: 1 - own,
                },
            );
        }
    }

    /// kill -9.
    pub fn kill(&mut self, node: usize, down: Option<u64>) {
        if self.nodes[node].engine.is_none() {
            return;
        }
        self.count("kills");
        self.say(|| format!("n{node} killed"));
        let before = self.found(node).ok();
        self.process_ends(node);
        self.end_process(node, false);
        self.nodes[node].disk.kill();
        self.nodes[node].meta.crash();
        self.nodes[node].restart_at = down.map(|d| self.now + d);
        self.check_crashed(node);
        self.law_metadata_never_goes_back(node, before);
    }

    /// Power cut; also of a node whose process is down.
    pub fn cut_power(&mut self, node: usize, down: u64) {
        self.cut_power_with(node, down, None);
    }

    fn cut_power_exactly(&mut self, node: usize, keep: u64, down: u64) {
        self.cut_power_with(node, down, Some(keep));
    }

    fn cut_power_with(&mut self, node: usize, down: u64, keep: Option<u64>) {
        self.count("power cuts");
        self.say(|| format!("n{node} loses power"));
        let before = self.found(node).ok();
        if self.nodes[node].engine.is_some() {
            self.process_ends(node);
            self.end_process(node, true);
        }
        let machine = &mut self.nodes[node];
        match keep {
            Some(keep) => machine.disk.cut_power_exactly(keep),
            None => machine.disk.cut_power(),
        }
        machine.meta.crash();
        machine.boot_id = machine.rng.next_u128();
        machine.lost_power |= machine.disk.has_volatile_cache();
        machine.restart_at = Some(self.now + down);
        self.power_lost(node);
        self.check_crashed(node);
        self.law_metadata_never_goes_back(node, before);
    }

    /// The node's replica is made anew: blank metadata, and whatever lies on the new disk.
    pub fn format(&mut self, node: usize) {
        self.nodes[node].formats += 1;
        let blocks = crate::engine::format(&self.spec(node));
        let machine = &mut self.nodes[node];
        machine.meta.exchange(blocks);
        machine.disk.exchange(Image::default());
        machine.lost_power = false;
        machine.is_condemned = false;
        machine.is_rolled_back = false;
        self.formatted(node);
    }

    /// The image is from an earlier run of the process than the one that last wrote a record
    /// down: peers remember that run. An image of the same run could be told from the present
    /// only by stored checksums.
    pub fn image_is_older(&mut self, node: usize) -> bool {
        let spec = self.spec(node);
        let machine = &self.nodes[node];
        let Some(image) = machine
            .image
            .as_ref()
            .filter(|i| i.life < machine.record_life)
        else {
            return false;
        };
        let image = recover(&spec, &image.meta).ok();
        let now = self.found(node).ok();
        image.zip(now).is_some_and(|(image, now)| {
            (image.volume_id, image.incarnation) == (now.volume_id, now.incarnation)
        })
    }

    /// The image kept earlier is put back, data and metadata.
    pub fn bring_back(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        let Some(image) = machine.image.take() else {
            return;
        };
        machine.disk.exchange(image.data);
        machine.meta.exchange(image.meta);
        machine.is_rolled_back = true;
        machine.is_condemned = false;
        self.count("old disks brought back");
        self.formatted(node);
    }

    /// The process starts.
    pub fn start(&mut self, node: usize) {
        let spec = self.spec(node);
        let engine = match Engine::attach(&spec, self.nodes[node].meta.blocks(), self.bug) {
            Ok(engine) => engine,
            Err(why) => {
                self.fail("M3", format!("node {node} cannot attach: {why}"));
                return;
            }
        };
        self.say(|| format!("n{node} starts"));
        let machine = &mut self.nodes[node];
        machine.engine = Some(engine);
        machine.life += 1;
        machine.events = 0;
        machine.was_in_touch = false;
        machine.has_failed_flush = false;
        machine.restart_at = None;
        self.process_begins(node);
        self.feed(node, Event::Start);
    }

    /// Ends a fault.
    pub fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Wire(a, b) => self.net.wire(a, b).is_cut = false,
            Mend::Calm(a, b) => {
                let wire = self.net.wire(a, b);
                wire.slowness = 1;
                wire.damage_one_in = 0;
            }
            Mend::Reads(node) => self.nodes[node].disk.faults.read_error = false,
            Mend::Room(node) => self.nodes[node].disk.faults.is_full = false,
            Mend::Speed(node) => self.nodes[node].disk.faults.slowness = 1,
            Mend::Hang(node) => {
                self.nodes[node].disk.faults.is_hung = false;
                self.unstall(node);
            }
            Mend::MetaHang(node) => {
                self.nodes[node].meta.is_hung = false;
                self.unstall(node);
            }
            Mend::Reconnect(node, peer) => {
                let peer = engine_core::units::NodeIdx(peer as u8);
                self.command(node, engine_core::event::Command::Connect(peer));
            }
            Mend::Resync(node) => {
                self.command(node, engine_core::event::Command::ResyncResume);
            }
        }
    }

    fn unstall(&mut self, node: usize) {
        for what in std::mem::take(&mut self.nodes[node].stalled) {
            let delay = self.nodes[node].rng.between(1, 100_000);
            self.schedule(delay, what);
        }
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
