//! A few volumes, with a tag per granule as their data.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::action::{
    Action, Answer, CommandError, Job, MetaBlock, Outcome, PageRead, ReadInto, SalvageStep,
};
use crate::checksums::Table as Sums;
use crate::event::{
    Command, CommandId, DiskError, Event, JobOutcome, LinkId, Op, Payload, ReqId, SessionId,
    SumsFound,
};
use crate::message::Message;
use crate::meta::{self, Backing, BackingKind, Checksums, Expect, Loaded, Params, Peek};
use crate::quorum::{Quorum, QuorumLoss};
use crate::record::Choice;
use crate::register::{Access, Found, Holding};
use crate::table::Table;
use crate::time::Instant;
use crate::units::{BufId, ByteRange, GRANULE, NodeIdx};
use crate::verdict::Policy;
use crate::volume::{Setup, Status, Volume};

pub struct Node {
    pub volume: Volume,
    pub disk: Vec<u64>,
    pub meta: Vec<Box<MetaBlock>>,
    /// Metadata writes since somebody cleared this, in order.
    pub written: Vec<(u64, Box<MetaBlock>)>,
    /// What the newest salvage holds, by granule, and whether it ended.
    pub salvage: (BTreeMap<u64, u64>, bool),
    /// There is no room for one.
    pub is_salvage_full: bool,
    /// Its backing cannot be made longer.
    pub is_short: bool,
    buffers: HashMap<u64, Vec<u64>>,
    events: VecDeque<Event>,
    lives: u128,
    table: Option<Sums>,
    /// Actions carried out since somebody cleared this.
    pub actions: usize,
    /// Of these, reads and writes of pages of checksums.
    pub pages: usize,
}

pub struct World {
    pub nodes: Vec<Node>,
    pub size: u64,
    now: Instant,
    shape: Shape,
    links: u64,
    /// Connections that stand, by pair, the lower index first.
    link: BTreeMap<(usize, usize), LinkId>,
    /// Cables that are plugged in: a dropped link comes up again, and ballots pass.
    plugged: BTreeSet<(usize, usize)>,
    /// Nodes whose process is not running.
    down: BTreeSet<usize>,
    /// What the register holds, with its revision.
    pub register: Option<(u64, Holding)>,
    /// Its answers are lost; a swap happens all the same.
    pub is_register_mute: bool,
    /// Nodes that do not reach it.
    pub far: BTreeSet<usize>,
    /// Feature bits that somebody of an earlier version does not offer.
    pub features_missing: u64,
    /// Frames and bytes that went over any link, as they stand on the wire.
    pub sent: Sent,
    /// Words of resync go no further while this holds.
    pub is_resync_stuck: bool,
    /// So many hellos of node 0 are lost.
    pub hellos_lost: u32,
    next: u64,
    outcomes: HashMap<u64, Outcome>,
    answers: HashMap<u64, Result<Answer, CommandError>>,
}

/// What went over the links.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    pub frames: u64,
    /// Heads, fields, lists and payload.
    pub bytes: u64,
    /// Granules of resync that travelled.
    pub resynced: u64,
}

impl Sent {
    fn note(&mut self, message: &Message, granules: u64) {
        let mut frame = Vec::new();
        let sums = vec![0; granules as usize];
        let payload = granules * GRANULE;
        crate::wire::encode(message, 1, &sums, payload as u32, &mut frame);
        self.frames += 1;
        self.bytes += frame.len() as u64 + payload;
        if matches!(message, Message::ResyncData { .. }) {
            self.resynced += granules;
        }
    }
}

/// How many of whom, and who chooses.
#[derive(Clone, Copy)]
pub struct Shape {
    pub replicas: usize,
    pub witnesses: usize,
    pub quorum: Quorum,
    pub auto_promote: bool,
    pub on_quorum_loss: QuorumLoss,
    /// Pages of checksums in memory; 0: none are stored.
    pub sum_pages: usize,
}

impl Shape {
    fn nodes(self) -> usize {
        self.replicas + self.witnesses
    }
}

const NAMES: [&str; 6] = ["alpha", "beta", "gamma", "delta", "eps", "zeta"];

fn params(node: usize, shape: Shape, size: u64) -> Params {
    let nodes = shape.replicas;
    Params {
        volume: "v".into(),
        slice: 0,
        incarnation: 100 + node as u128,
        self_node: NodeIdx(node as u8),
        node_count: nodes as u8,
        nodes_digest: 1,
        size_granules: size,
        size_granules_max: 2 * 32_256 * 3,
        grain: 1,
        activity_log_slots: 64,
        boot_id: 1,
        backing: Backing {
            kind: BackingKind::File,
            identity: [0; 32],
            size: size * GRANULE,
        },
        checksums: match shape.sum_pages {
            0 => Checksums::Off,
            _ => Checksums::On { is_zeroed: true },
        },
    }
}

impl Node {
    /// Attaches at the size its metadata says.
    fn attach(&mut self, node: usize, shape: Shape) {
        let Peek::Ours(found) = meta::peek(&self.meta[0], &self.meta[1]) else {
            panic!("the metadata is whole");
        };
        let p = params(node, shape, found.size_granules);
        self.disk.resize(found.size_granules as usize, 0);
        let expect = Expect {
            volume: p.volume,
            slice: 0,
            node: NAMES[node].into(),
            self_node: p.self_node,
            node_count: p.node_count,
            nodes_digest: 1,
            size_granules: found.size_granules,
            granule_bytes: GRANULE as u32,
            backing: p.backing,
        };
        let bytes: Vec<u8> = self.meta.iter().flat_map(|b| b.iter().copied()).collect();
        let mut loaded = meta::load(&bytes, &expect).expect("the metadata is whole");
        let read = |block: u64, buffer: &mut [u8]| {
            let at = (block as usize * 4096).min(bytes.len());
            let there = buffer.len().min(bytes.len() - at);
            buffer[..there].copy_from_slice(&bytes[at..at + there]);
            buffer[there..].fill(0);
            Ok::<(), ()>(())
        };
        meta::load_marks(&mut loaded, read).expect("it is memory");
        self.lives += 1;
        self.table = table(&loaded, shape);
        self.volume = Volume::attach(setup(node, shape, self.lives), loaded);
        self.events.clear();
        self.events.push_back(Event::Start);
    }
}

/// The checksum of a granule is its tag.
fn table(loaded: &Loaded, shape: Shape) -> Option<Sums> {
    let region = loaded.sum_region?;
    let life = region.incarnation();
    Some(Sums::new(shape.sum_pages, life, 0, region.zeroed()))
}

fn setup(node: usize, shape: Shape, life: u128) -> Setup {
    let names = NAMES.map(str::to_owned);
    Setup {
        node: NodeIdx(node as u8),
        table: Table::of_file(&names[..shape.nodes()], shape.replicas),
        quorum: shape.quorum,
        lease: Duration::from_secs(2),
        auto_promote: shape.auto_promote,
        on_quorum_loss: shape.on_quorum_loss,
        cluster: "lab".into(),
        volume: "v".into(),
        config_digest: 1,
        config_digest_unnamed: 2,
        policy: Policy::Written,
        read_margin: None,
        discards_unchanged: false,
        min_copies: 1,
        member_timeout: Duration::from_secs(5),
        has_volatile_cache: true,
        is_memory: false,
        resync_rate: 0,
        boot_id: 1,
        entropy: 12345 + 1000 * life + node as u128,
        requests_max: 32,
        peer_requests_max: 32,
        peer_bytes_max: 64 << 20,
        sum_pages: shape.sum_pages,
        #[cfg(feature = "planted")]
        bug: None,
    }
}

impl World {
    pub fn new(nodes: usize) -> World {
        World::of(Shape {
            replicas: nodes,
            witnesses: 0,
            quorum: Quorum::Off,
            auto_promote: false,
            on_quorum_loss: QuorumLoss::Freeze,
            sum_pages: 0,
        })
    }

    pub fn of(shape: Shape) -> World {
        let size = 5000;
        let nodes = shape.replicas;
        let make = |node: usize| {
            let blocks = meta::format(&params(node, shape, size)).expect("the parameters fit");
            let mut disk: Vec<Box<MetaBlock>> = Vec::new();
            for (block, bytes) in blocks {
                disk.resize_with(disk.len().max(block as usize + 1), || Box::new([0; 4096]));
                disk[block as usize] = bytes;
            }
            let expect = Expect {
                volume: "v".into(),
                slice: 0,
                node: NAMES[node].into(),
                self_node: NodeIdx(node as u8),
                node_count: nodes as u8,
                nodes_digest: 1,
                size_granules: size,
                granule_bytes: GRANULE as u32,
                backing: params(node, shape, size).backing,
            };
            let bytes: Vec<u8> = disk.iter().flat_map(|b| b.iter().copied()).collect();
            let loaded = meta::load(&bytes, &expect).expect("a fresh replica loads");
            Node {
                table: table(&loaded, shape),
                volume: Volume::attach(setup(node, shape, 0), loaded),
                disk: vec![0; size as usize],
                meta: disk,
                written: Vec::new(),
                salvage: Default::default(),
                is_salvage_full: false,
                is_short: false,
                buffers: HashMap::new(),
                events: VecDeque::from([Event::Start]),
                lives: 0,
                actions: 0,
                pages: 0,
            }
        };
        let mut world = World {
            nodes: (0..shape.nodes()).map(make).collect(),
            shape,
            size,
            now: Instant(1),
            links: 0,
            link: BTreeMap::new(),
            plugged: BTreeSet::new(),
            down: BTreeSet::new(),
            register: None,
            is_register_mute: false,
            far: BTreeSet::new(),
            features_missing: 0,
            sent: Sent::default(),
            is_resync_stuck: false,
            hellos_lost: 0,
            next: 1000,
            outcomes: HashMap::new(),
            answers: HashMap::new(),
        };
        world.settle();
        world
    }

    pub fn status(&self, node: usize) -> Status {
        self.nodes[node].volume.status()
    }

    /// Runs until nothing moves for a while; links that were dropped come up again.
    pub fn settle(&mut self) {
        self.settle_for(100);
    }

    /// So many tenths of a second.
    pub fn settle_for(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.drain();
            self.connect_once();
            self.tick();
        }
        self.drain();
    }

    fn tick(&mut self) {
        self.now = self.now.after(Duration::from_millis(100));
        for node in &mut self.nodes {
            node.events.push_back(Event::Tick);
        }
    }

    fn drain(&mut self) {
        while let Some(node) = (0..self.nodes.len()).find(|n| !self.nodes[*n].events.is_empty()) {
            let Some(event) = self.nodes[node].events.pop_front() else {
                return;
            };
            if self.down.contains(&node) {
                continue;
            }
            let mut actions = Vec::new();
            self.nodes[node]
                .volume
                .handle(self.now, event, &mut actions);
            while self.nodes[node].volume.next_deadline() == Some(self.now) {
                self.nodes[node]
                    .volume
                    .handle(self.now, Event::Tick, &mut actions);
            }
            actions
                .into_iter()
                .for_each(|action| self.act(node, action));
        }
    }

    /// Data connections where a cable is plugged in and none stands; a witness has none.
    fn connect_once(&mut self) {
        for (a, b) in self.plugged.clone() {
            let runs = !self.down.contains(&a) && !self.down.contains(&b);
            if self.link.contains_key(&(a, b)) || b >= self.shape.replicas || !runs {
                continue;
            }
            self.links += 1;
            let link = LinkId(self.links);
            self.link.insert((a, b), link);
            for (node, peer) in [(a, b), (b, a)] {
                let peer = NodeIdx(peer as u8);
                self.nodes[node]
                    .events
                    .push_back(Event::LinkUp { peer, link });
            }
        }
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.nodes.len();
        (0..count)
            .flat_map(|a| (a + 1..count).map(move |b| (a, b)))
            .collect()
    }

    pub fn connect(&mut self) {
        self.connect_for(100);
    }

    /// And watches for so many tenths of a second.
    pub fn connect_for(&mut self, ticks: u32) {
        self.plugged = self.pairs().into_iter().collect();
        self.connect_once();
        self.settle_for(ticks);
    }

    /// The other node of a pair says this.
    pub fn inject(&mut self, node: usize, message: Message) {
        let link = self.link[&(0, 1)];
        let payload = None;
        self.nodes[node].events.push_back(Event::Peer {
            link,
            message,
            payload,
        });
        self.drain();
    }

    fn unplug(&mut self, pair: (usize, usize)) {
        self.plugged.remove(&pair);
        if let Some(link) = self.link.remove(&pair) {
            for node in [pair.0, pair.1] {
                self.nodes[node].events.push_back(Event::LinkDown { link });
            }
        }
    }

    pub fn cut(&mut self) {
        self.pairs().into_iter().for_each(|pair| self.unplug(pair));
        self.settle();
    }

    /// Every cable of one node.
    pub fn isolate(&mut self, node: usize) {
        let of = |pair: &(usize, usize)| pair.0 == node || pair.1 == node;
        let cables: Vec<_> = self.pairs().into_iter().filter(of).collect();
        cables.into_iter().for_each(|pair| self.unplug(pair));
    }

    /// Its process runs.
    pub fn runs(&self, node: usize) -> bool {
        !self.down.contains(&node)
    }

    /// kill -9; `settle` to see what follows.
    pub fn kill(&mut self, node: usize) {
        let plugged = self.plugged.clone();
        self.isolate(node);
        self.plugged = plugged;
        self.down.insert(node);
        self.nodes[node].events.clear();
    }

    /// Starts a killed process again.
    pub fn start(&mut self, node: usize) {
        self.down.remove(&node);
        let shape = self.shape;
        self.nodes[node].attach(node, shape);
        self.settle();
    }

    /// `node` cannot be reached by the other one.
    pub fn gone(&mut self, node: usize) {
        let peer = NodeIdx(node as u8);
        self.nodes[1 - node]
            .events
            .push_back(Event::Unreachable { peer });
        self.drain();
    }

    /// The process ends at once and starts again in the same boot.
    pub fn restart(&mut self, node: usize) {
        self.cut();
        let shape = self.shape;
        self.nodes[node].attach(node, shape);
        self.settle();
    }

    /// Data and metadata as they stand now.
    pub fn snapshot(&self, node: usize) -> (Vec<u64>, Vec<Box<MetaBlock>>) {
        (self.nodes[node].disk.clone(), self.nodes[node].meta.clone())
    }

    /// The node starts again on an older state.
    pub fn put_back(&mut self, node: usize, old: (Vec<u64>, Vec<Box<MetaBlock>>)) {
        self.cut();
        (self.nodes[node].disk, self.nodes[node].meta) = old;
        self.restart(node);
    }

    /// Something happens to a node.
    pub fn event(&mut self, node: usize, event: Event) {
        self.nodes[node].events.push_back(event);
    }

    pub fn command(&mut self, node: usize, command: Command) -> Result<Answer, CommandError> {
        let id = self.ask(node, command);
        self.await_answer(id)
    }

    /// Puts a command in front of a node.
    pub fn ask(&mut self, node: usize, command: Command) -> CommandId {
        self.next += 1;
        let id = CommandId(self.next);
        self.nodes[node]
            .events
            .push_back(Event::Command { id, command });
        id
    }

    pub fn await_answer(&mut self, id: CommandId) -> Result<Answer, CommandError> {
        for _ in 0..200 {
            self.drain();
            if let Some(answer) = self.answers.remove(&id.0) {
                return answer;
            }
            self.connect_once();
            self.tick();
        }
        panic!("a command is answered");
    }

    pub fn client(&mut self, node: usize, op: Op) -> Outcome {
        self.next += 1;
        let (session, req) = (SessionId(node as u64), ReqId(self.next));
        self.nodes[node]
            .events
            .push_back(Event::Submit { session, req, op });
        for _ in 0..100 {
            self.drain();
            if let Some(outcome) = self.outcomes.remove(&req.0) {
                return outcome;
            }
            self.connect_once();
            self.tick();
        }
        panic!("a request is answered");
    }

    /// What a client reads of so many granules.
    pub fn read(&mut self, node: usize, first: u64, count: u64) -> Result<Vec<u64>, Outcome> {
        self.next += 1;
        let buf = BufId(self.next);
        self.nodes[node]
            .buffers
            .insert(buf.0, vec![u64::MAX; count as usize]);
        let range = ByteRange {
            offset: first * GRANULE,
            len: count * GRANULE,
        };
        let outcome = self.client(node, Op::Read { range, buf });
        let bytes = self.nodes[node].buffers.remove(&buf.0);
        match outcome {
            Outcome::Ok => Ok(bytes.expect("the client holds its buffer")),
            other => Err(other),
        }
    }

    pub fn write(&mut self, node: usize, first: u64, count: u64, tag: u64) -> Outcome {
        self.next += 1;
        let buf = BufId(self.next);
        self.nodes[node]
            .buffers
            .insert(buf.0, vec![tag; count as usize]);
        let range = ByteRange {
            offset: first * GRANULE,
            len: count * GRANULE,
        };
        let outcome = self.client(
            node,
            Op::Write {
                range,
                buf,
                fua: false,
            },
        );
        self.nodes[node].buffers.remove(&buf.0);
        outcome
    }

    fn act(&mut self, at: usize, action: Action) {
        self.next += 1;
        let fresh = BufId(self.next);
        let node = &mut self.nodes[at];
        node.actions += 1;
        match action {
            Action::SumsRead(read) => {
                let PageRead {
                    token,
                    slot,
                    page,
                    block,
                    forget,
                } = read;
                node.pages += 1;
                let blank = Box::new([0; 4096]);
                let block_of = |b: u64| node.meta.get(b as usize).unwrap_or(&blank);
                let life = 100 + at as u128;
                let found = meta::judge_sums(block_of(block), block_of(block + 1), block, life);
                let table = node.table.as_mut().expect("checksums are stored");
                table.load(slot, page, found.values.as_ref(), found.is_lost, forget);
                let found = SumsFound {
                    counter: found.counter,
                    is_second: found.is_second,
                    is_lost: found.is_lost,
                };
                node.events.push_back(Event::SumsRead { token, found });
            }
            Action::SumsWrite {
                token,
                slot,
                block,
                counter,
            } => {
                node.pages += 1;
                let table = node.table.as_ref().expect("checksums are stored");
                let life = 100 + at as u128;
                let bytes = meta::encode_sums_page(life, table.values(slot), block, counter);
                self.act(
                    at,
                    Action::MetaWrite {
                        token,
                        block,
                        bytes,
                    },
                );
            }
            Action::Complete { req, outcome, .. } => {
                self.outcomes.insert(req.0, outcome);
            }
            Action::GrowBacking { from, size } => {
                let result = match node.is_short {
                    true => Err(DiskError::NoSpace),
                    false => {
                        node.disk.truncate(from as usize);
                        node.disk.resize(size as usize, 0);
                        Ok(size * GRANULE)
                    }
                };
                let event = Event::BackingGrown { size, result };
                node.events.push_back(event);
            }
            Action::Answer { id, result } => {
                self.answers.insert(id.0, result);
            }
            Action::DiskRead {
                token,
                extent,
                into,
            } => {
                let bytes = node.disk[extent.start as usize..extent.end as usize].to_vec();
                let is_zero = bytes.iter().all(|g| *g == 0);
                let checked = node.table.as_ref().map(|t| t.check(extent, &bytes));
                let result = checked.unwrap_or(Ok(())).map_err(DiskError::Checksum);
                let buf = match into {
                    ReadInto::Buf(buf) => {
                        node.buffers.insert(buf.0, bytes);
                        None
                    }
                    ReadInto::Alloc => {
                        node.buffers.insert(fresh.0, bytes);
                        Some(fresh)
                    }
                };
                node.events.push_back(Event::DiskDone {
                    token,
                    result,
                    buf,
                    is_zero,
                });
            }
            Action::DiskWrite {
                token, extent, buf, ..
            } => {
                let bytes = node.buffers[&buf.0].clone();
                assert_eq!(
                    bytes.len() as u64,
                    extent.granules(),
                    "a buffer covers its extent"
                );
                node.disk[extent.start as usize..extent.end as usize].copy_from_slice(&bytes);
                if let Some(table) = &mut node.table {
                    table.set(extent, &bytes);
                }
                let (result, buf) = (Ok(()), None);
                node.events.push_back(Event::DiskDone {
                    token,
                    result,
                    buf,
                    is_zero: false,
                });
            }
            Action::DiskZero { token, extent, .. } => {
                node.disk[extent.start as usize..extent.end as usize].fill(0);
                if let Some(table) = &mut node.table {
                    table.set_zeros(extent);
                }
                let (result, buf) = (Ok(()), None);
                node.events.push_back(Event::DiskDone {
                    token,
                    result,
                    buf,
                    is_zero: false,
                });
            }
            Action::DiskFlush { token } => {
                let (result, buf) = (Ok(()), None);
                node.events.push_back(Event::DiskDone {
                    token,
                    result,
                    buf,
                    is_zero: false,
                });
            }
            Action::MetaWrite {
                token,
                block,
                bytes,
            } => {
                let room = node.meta.len().max(block as usize + 1);
                node.meta.resize_with(room, || Box::new([0; 4096]));
                node.written.push((block, bytes.clone()));
                node.meta[block as usize] = bytes;
                node.events.push_back(Event::MetaDone {
                    token,
                    result: Ok(()),
                });
            }
            Action::Job { token, job } => {
                if let Job::Copy { from, to, .. } = job {
                    let bytes = node.buffers[&from.0].clone();
                    node.buffers.insert(to.0, bytes);
                }
                let outcome = match job {
                    Job::Merge { .. } | Job::Copy { .. } | Job::Covers { .. } => JobOutcome::Done,
                    Job::Scrub { extent } => {
                        let table = node.table.as_mut().expect("checksums are stored");
                        let bytes = &node.disk[extent.start as usize..extent.end as usize];
                        JobOutcome::Scrubbed(table.scrub(extent, bytes))
                    }
                    Job::MergeZeros { .. } => JobOutcome::Buffer(fresh),
                    Job::Hashes { extent, each } => JobOutcome::Hashes(
                        node.disk[extent.start as usize..extent.end as usize]
                            .chunks(each as usize)
                            .map(|tags| {
                                tags.iter()
                                    .fold(1u128, |all, tag| all.wrapping_mul(31) + u128::from(*tag))
                            })
                            .collect(),
                    ),
                    Job::Sums { extent } => JobOutcome::Sums(
                        node.disk[extent.start as usize..extent.end as usize].to_vec(),
                    ),
                };
                node.events.push_back(Event::JobDone { token, outcome });
            }
            Action::Send {
                link,
                message,
                payload,
            } => {
                let bytes = payload.map(|buf| node.buffers[&buf.0].clone());
                let pair = self.link.iter().find(|(_, l)| **l == link).map(|(p, _)| *p);
                let Some(pair) = pair else { return };
                if matches!(message, Message::Hello(_)) && at == 0 && self.hellos_lost > 0 {
                    self.hellos_lost -= 1;
                    return;
                }
                let granules = bytes.as_ref().map_or(0, |tags| tags.len() as u64);
                self.sent.note(&message, granules);
                let is_data = matches!(
                    message,
                    Message::ResyncData { .. }
                        | Message::ResyncEqual { .. }
                        | Message::ResyncDiffer { .. }
                );
                if self.is_resync_stuck && is_data {
                    return;
                }
                let mut message = message;
                if let Message::Hello(hello) = &mut message {
                    hello.features_offered &= !self.features_missing;
                }
                let other = &mut self.nodes[pair.0 + pair.1 - at];
                let payload = bytes.map(|bytes| {
                    other.buffers.insert(fresh.0, bytes);
                    Payload {
                        buf: fresh,
                        is_intact: true,
                    }
                });
                other.events.push_back(Event::Peer {
                    link,
                    message,
                    payload,
                });
            }
            Action::Drop { link } => {
                let pair = self.link.iter().find(|(_, l)| **l == link).map(|(p, _)| *p);
                if let Some(pair) = pair {
                    self.link.remove(&pair);
                    for node in [pair.0, pair.1] {
                        self.nodes[node].events.push_back(Event::LinkDown { link });
                    }
                }
            }
            Action::Release { buf } => {
                assert!(
                    node.buffers.remove(&buf.0).is_some(),
                    "{buf:?} is released once"
                );
            }
            Action::ProposeRecord(_) => node.events.push_back(Event::Record(Choice::Chosen)),
            Action::Vote { to, ballot } => {
                let to = usize::from(to.0);
                if self.plugged.contains(&(at.min(to), at.max(to))) {
                    let from = NodeIdx(at as u8);
                    self.nodes[to]
                        .events
                        .push_back(Event::Vote { from, ballot });
                }
            }
            Action::Register { number, access } => {
                let found = self.access(at, access);
                let answer = Event::Register { number, found };
                self.nodes[at].events.push_back(answer);
            }
            Action::Notice(_) => {}
            Action::SessionQuiet { .. } => {}
            Action::Salvage { token, step } => {
                match step {
                    SalvageStep::Begin { .. } | SalvageStep::Drop => {
                        node.salvage = (BTreeMap::new(), false);
                    }
                    SalvageStep::Put { extent, buf } => {
                        let zeros = vec![0; extent.granules() as usize];
                        let tags = buf.map_or(zeros, |buf| node.buffers[&buf.0].clone());
                        assert_eq!(tags.len() as u64, extent.granules());
                        node.salvage.0.extend((extent.start..extent.end).zip(tags));
                    }
                    SalvageStep::Commit => node.salvage.1 = true,
                }
                let result = match node.is_salvage_full {
                    true => Err(DiskError::NoSpace),
                    false => Ok(()),
                };
                if step != SalvageStep::Drop {
                    node.events.push_back(Event::SalvageDone { token, result });
                }
            }
        }
    }
}

impl World {
    fn access(&mut self, at: usize, access: Access) -> Found {
        let revision = self.register.map_or(0, |(revision, _)| revision);
        if self.far.contains(&at) {
            return Found::Unknown;
        }
        let found = match access {
            Access::Swap { expected, next } if expected == revision => {
                let revision = revision + 1;
                self.register = Some((revision, next));
                Found::Swapped { revision }
            }
            Access::Swap { .. } | Access::Read => Found::Stands {
                revision,
                holding: self.register.map(|(_, holding)| holding),
            },
        };
        if self.is_register_mute {
            Found::Unknown
        } else {
            found
        }
    }
}
