//! The shell on the fake ring: the n-th operation fails, for every n. Whatever fails, nothing
//! panics, every request ends, and every buffer comes back.

mod fair;

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine_core::action::{META_BLOCK, Outcome};
use engine_core::event::{Op, ReqId};
use engine_core::message::Zeroing;
use engine_core::meta::{self, Expect, Params};
use engine_core::quorum::Quorum;
use engine_core::units::{ByteRange, GRANULE, NodeIdx};
use engine_core::verdict::Policy;
use engine_core::volume::Setup;
use engine_ring::fake::{FakeRing, Fault, Object, World};
use engine_ring::{Arena, ArenaConfig, BufId, Class, Errno, FileId};

use super::volumes::Arrival;
use super::*;
use crate::backend::{Disk, DiskKind, Store};
use crate::control::{
    Allocation, Backing, Cache, Checksums, Completion, Done, Outcome as Answer, Polling, Reads,
    Request, State, VolumeSpec, Votes, WritePolicy,
};
use crate::driver::to_core;
use crate::entry::Entry;
use crate::front_end::{
    BlockExtent, ClientInfo, Connection, Ctx, DrainReason, ExportLabel, Service, VolumeView,
};
use crate::layer::faulty::Faults;
use crate::log::Silent;
use crate::mailbox::Leave;
use crate::shell::{Shell, ZEROS_BYTES};

const SIZE: u64 = 1 << 20;
const NAMES: [&str; 2] = ["alpha", "beta"];
const PAIRS: usize = 24;
const REQUESTS: usize = 8;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u64, u64, u8),
    Read(u64, u64),
    Zero(u64, u64),
    Trim(u64, u64),
    Flush,
}

const SCRIPT: [Step; 12] = [
    Step::Write(0, 4096, 1),
    Step::Write(8192, 65536, 2),
    Step::Read(0, 16384),
    Step::Write(10_000, 5000, 3),
    Step::Flush,
    Step::Zero(4096, 40_000),
    Step::Write(5_000, 100, 4),
    Step::Trim(70_000, 300_001),
    Step::Read(8000, 50_000),
    Step::Write(500_000, 12_345, 5),
    Step::Write(0, 4096, 6),
    Step::Flush,
];

/// What the script leaves behind when nothing fails.
fn model() -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    let part = |at: u64, len: u64| at as usize..(at + len) as usize;
    for step in SCRIPT {
        match step {
            Step::Write(at, len, byte) => bytes[part(at, len)].fill(byte),
            Step::Zero(at, len) | Step::Trim(at, len) => bytes[part(at, len)].fill(0),
            Step::Read(..) | Step::Flush => {}
        }
    }
    bytes
}

/// A front end that submits a script, three requests at a time.
struct Scripted {
    steps: VecDeque<Step>,
    buffers: Vec<Option<BufId>>,
    out: usize,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
}

impl Scripted {
    fn go_on(&mut self, ctx: &mut Ctx<'_>) {
        while self.out < 3 && ctx.room() > 0 {
            let Some(step) = self.steps.pop_front() else {
                return;
            };
            let range = |offset, len| ByteRange { offset, len };
            let mut buffer = |range: ByteRange| {
                let bytes = range.cover().unwrap().bytes() as usize;
                ctx.arena().alloc(Class::Client, bytes).unwrap()
            };
            let (op, buf) = match step {
                Step::Read(at, len) => {
                    let buf = buffer(range(at, len));
                    (
                        Op::Read {
                            range: range(at, len),
                            buf: to_core(buf),
                        },
                        Some(buf),
                    )
                }
                Step::Write(at, len, byte) => {
                    let buf = buffer(range(at, len));
                    let inside = buf.slice((at % GRANULE) as u32, len as u32);
                    ctx.arena().slice_mut(inside).fill(byte);
                    (
                        Op::Write {
                            range: range(at, len),
                            buf: to_core(buf),
                            fua: false,
                        },
                        Some(buf),
                    )
                }
                Step::Zero(at, len) => {
                    let zeroing = Zeroing::Allocate;
                    (
                        Op::Zero {
                            range: range(at, len),
                            zeroing,
                            fua: true,
                        },
                        None,
                    )
                }
                Step::Trim(at, len) => {
                    let zeroing = Zeroing::Trim;
                    (
                        Op::Zero {
                            range: range(at, len),
                            zeroing,
                            fua: false,
                        },
                        None,
                    )
                }
                Step::Flush => (Op::Flush, None),
            };
            let req = ReqId(self.buffers.len() as u64);
            self.buffers.push(buf);
            self.out += 1;
            ctx.submit(req, op);
        }
        if ctx.room() == 0 {
            ctx.want_room();
        }
    }
}

impl Connection for Scripted {
    fn on_io(&mut self, _: &mut Ctx<'_>, _: u32, _: Result<u32, Errno>, _: bool) {}
    fn on_complete(&mut self, ctx: &mut Ctx<'_>, req: ReqId, outcome: Outcome) {
        if let Some(buf) = self.buffers[req.0 as usize].take() {
            ctx.arena().release(buf);
        }
        self.out -= 1;
        lock(&self.outcomes).push(outcome);
        self.go_on(ctx);
    }
    fn on_extents(&mut self, _: &mut Ctx<'_>, _: u32, _: Result<&[BlockExtent], Errno>) {}
    fn on_room(&mut self, ctx: &mut Ctx<'_>) {
        self.go_on(ctx);
    }
    fn on_timer(&mut self, _: &mut Ctx<'_>) {}
    fn flush(&mut self, _: &mut Ctx<'_>) {}
    fn drain(&mut self, ctx: &mut Ctx<'_>, _: DrainReason) {
        ctx.end();
    }
    fn on_quiet(&mut self, ctx: &mut Ctx<'_>) {
        assert_eq!(
            self.out, 0,
            "every request ends before its session is quiet"
        );
        ctx.finish();
    }
}

/// One node: its reactor, and what was put into its ring's table beforehand.
struct Node {
    reactor: Reactor,
    inbox: SyncSender<Message>,
    entry: Arc<Entry>,
    data: Option<Object>,
    links: VecDeque<FileId>,
    client: FileId,
    redial: Arc<AtomicBool>,
}

struct Bench {
    world: World,
    nodes: Vec<Node>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
}

fn spec(names: &[&str], memory: bool) -> VolumeSpec {
    VolumeSpec {
        name: "v".into(),
        size_bytes: SIZE,
        backing: Some(if memory {
            Backing::Memory
        } else {
            Backing::Path("/data".into())
        }),
        replicas: names.iter().map(|name| (*name).to_owned()).collect(),
        votes: Votes::default(),
        write_policy: WritePolicy::Written,
        allocation: Allocation::Thin,
        cache: Cache::Direct,
        completion: Completion::Interrupt,
        splitbrain: Default::default(),
        min_copies: 1,
        polling: Polling::Cpu,
        reads: Reads::Local,
        resync_rate: None,
        checksums: Checksums::Off,
        nbd: Vec::new(),
    }
}

fn formatted(node: u8, count: usize, memory: bool) -> (Vec<u8>, meta::Loaded) {
    let kind = if memory {
        meta::BackingKind::Memory
    } else {
        meta::BackingKind::File
    };
    let backing = meta::Backing {
        kind,
        identity: [0; 32],
        size: SIZE,
    };
    let size_granules = SIZE / GRANULE;
    let params = Params {
        volume: "v".into(),
        slice: 0,
        incarnation: u128::from(node) + 7,
        self_node: NodeIdx(node),
        node_count: count as u8,
        nodes_digest: 1,
        size_granules,
        size_granules_max: 4 * size_granules,
        grain: 1,
        activity_log_slots: 64,
        boot_id: 5,
        backing,
        checksums: meta::Checksums::Off,
    };
    let mut bytes = vec![0; meta::layout(&params).unwrap().bytes() as usize];
    for (block, content) in meta::format(&params).unwrap() {
        bytes[block as usize * META_BLOCK..][..META_BLOCK].copy_from_slice(&content[..]);
    }
    let expect = Expect {
        volume: "v".into(),
        slice: 0,
        node: "a".into(),
        self_node: NodeIdx(node),
        node_count: count as u8,
        nodes_digest: 1,
        size_granules,
        granule_bytes: GRANULE as u32,
        backing,
    };
    let loaded = meta::load(&bytes, &expect).unwrap();
    (bytes, loaded)
}

fn setup(node: u8, names: &[&str], is_memory: bool) -> Setup {
    Setup {
        node: NodeIdx(node),
        table: spec(names, is_memory).table(),
        quorum: Quorum::Off,
        lease: Duration::from_secs(2),
        auto_promote: false,
        on_quorum_loss: Default::default(),
        cluster: "test".into(),
        volume: "v".into(),
        config_digest: 3,
        config_digest_unnamed: 4,
        policy: Policy::Written,
        read_margin: None,
        discards_unchanged: false,
        resync_rate: 0,
        min_copies: 1,
        member_timeout: Duration::from_secs(2),
        has_volatile_cache: true,
        is_memory,
        boot_id: 5,
        entropy: 11 + u128::from(node),
        // A single node in memory has as many as a real one.
        requests_max: if is_memory && names.len() == 1 {
            1024
        } else {
            REQUESTS
        },
        peer_requests_max: 8,
        peer_bytes_max: 40 << 20,
        sum_pages: 0,
    }
}

impl Bench {
    fn new(count: usize, memory: bool) -> Bench {
        let world = World::new(1);
        let pairs: Vec<_> = (0..PAIRS).map(|_| world.socket_pair()).collect();
        let names = &NAMES[..count];
        let nodes = (0..count as u8).map(|node| {
            let ends = pairs
                .iter()
                .map(|pair| if node == 0 { pair.0 } else { pair.1 });
            Node::new(&world, node, names, memory, ends.collect())
        });
        Bench {
            nodes: nodes.collect(),
            world,
            outcomes: Arc::default(),
        }
    }

    /// Lets everything happen until `is_so`, moving time when nothing else can.
    fn until(&mut self, what: &str, is_so: impl Fn(&Bench) -> bool) {
        for _ in 0..20_000 {
            for _ in 0..4 {
                self.connect();
                for node in &mut self.nodes {
                    node.reactor.enter(Wait::No);
                    node.reactor.turn(true);
                }
            }
            if is_so(self) {
                return;
            }
            let next = self
                .nodes
                .iter()
                .map(|node| node.reactor.next_moment().0)
                .min()
                .unwrap();
            let now = self.world.now();
            self.world
                .advance_to(next.clamp(now + 1000, now + 50_000_000));
        }
        for node in &self.nodes {
            let volume = node.reactor.volumes.get(0);
            println!(
                "now {} client_timer {:?} pressed {} volume {:?} status {:?} in_ring {:?} clients {:?}",
                self.world.now(),
                node.reactor.client_timer,
                node.reactor.is_pressed,
                volume.map(|v| v.next_moment()),
                volume.map(|v| v.driver.core.status()),
                volume.map(|v| v.driver.in_ring),
                volume.map(|v| v.clients),
            );
        }
        panic!("never came true: {what}");
    }

    /// What the threads of peers do: a new connection where one is wanted.
    fn connect(&mut self) {
        let [alpha, beta] = &mut self.nodes[..] else {
            return;
        };
        // The smaller name dials.
        if !alpha.redial.swap(false, Ordering::SeqCst) {
            return;
        }
        for (node, peer) in [(alpha, NodeIdx(1)), (beta, NodeIdx(0))] {
            let (Some(socket), Some(slot)) = (node.links.pop_front(), node.volume()) else {
                continue;
            };
            let reactor = &mut node.reactor;
            reactor.links.add(
                &mut reactor.shell,
                slot,
                (peer, "peer", 0),
                |_| socket,
                (None, &[]),
            );
        }
    }

    fn send(&mut self, node: usize, message: Message) {
        assert!(
            self.nodes[node].inbox.try_send(message).is_ok(),
            "the mailbox has room"
        );
    }

    fn ask(&mut self, node: usize, request: Request) -> Answer {
        let answer: Arc<Mutex<Option<Answer>>> = Arc::default();
        let put = Arc::clone(&answer);
        let reply = Box::new(move |outcome| *lock(&put) = Some(outcome));
        self.send(
            node,
            Message::Request {
                volume: "v".into(),
                request,
                reply,
            },
        );
        self.until("an answer", |_| lock(&answer).is_some());
        let answer = lock(&answer).take();
        answer.unwrap()
    }

    fn state(&mut self, node: usize) -> State {
        self.nodes[node]
            .reactor
            .status(0, &Default::default())
            .state
    }

    /// Runs the script on alpha until every request has ended.
    fn play(&mut self) -> Vec<Outcome> {
        let outcomes = Arc::clone(&self.outcomes);
        let node = &mut self.nodes[0];
        let socket = node.client;
        let client = ClientInfo {
            export: ExportLabel::new("v"),
            address: "test".into(),
            tls: None,
        };
        let make = Box::new(move |ctx: &mut Ctx<'_>| {
            let mut scripted = Scripted {
                steps: SCRIPT.into(),
                buffers: Vec::new(),
                out: 0,
                outcomes,
            };
            scripted.go_on(ctx);
            Box::new(scripted) as Box<dyn Connection>
        });
        node.reactor.seat_at(0, |_| socket, client, make);
        self.until("every request ended", |b| {
            lock(&b.outcomes).len() == SCRIPT.len()
        });
        lock(&self.outcomes).clone()
    }

    /// Stops every volume; every buffer must be back then.
    fn stop(&mut self) {
        for node in 0..self.nodes.len() {
            let is_gone: Arc<AtomicBool> = Arc::default();
            let put = Arc::clone(&is_gone);
            let reply = Box::new(move |_: Answer| put.store(true, Ordering::SeqCst));
            self.send(node, Message::Leave("v".into(), Leave::NodeStops, reply));
            self.until("the volume left", |_| is_gone.load(Ordering::SeqCst));
        }
        self.until("links are gone", |b| {
            b.nodes.iter().all(|node| !node.reactor.links.has_volume(0))
        });
        for node in &self.nodes {
            for class in Class::ALL {
                let kept = if class == Class::Meta { ZEROS_BYTES } else { 0 };
                assert_eq!(node.reactor.shell.arena.used(class), kept, "{class:?}");
            }
            assert_eq!(node.reactor.shell.ops.iter().count(), 0);
        }
    }
}

impl Node {
    fn new(world: &World, node: u8, names: &[&str], memory: bool, ends: Vec<Object>) -> Node {
        let arena = Arena::new(&ArenaConfig::with_bytes(u16::from(node), 16 << 20)).unwrap();
        let mut ring: FakeRing = world.ring(&arena);
        let links = ends.into_iter().map(|end| ring.adopt(end)).collect();
        let client = ring.adopt(world.socket_pair().0);
        let (bytes, loaded) = formatted(node, names.len(), memory);
        let meta = ring.adopt(world.file(bytes));
        let data = (!memory).then(|| world.file(vec![0; SIZE as usize]));
        let store = match data {
            Some(data) => Store::Disk(Disk::new(
                ring.adopt(data),
                DiskKind::File,
                Allocation::Thin,
                SIZE,
            )),
            None => Store::Memory(crate::backend::memory::Memory::new(SIZE, 0).unwrap()),
        };
        let (inbox, receiver) = sync_channel(64);
        let redial = Arc::new(AtomicBool::new(names.len() > 1));
        let wants = Arc::clone(&redial);
        let parts = Parts {
            node: names[usize::from(node)].to_owned(),
            inbox: receiver,
            sleep: Sleep::new(Polling::Cpu, false),
            sessions: Arc::default(),
            process: 1,
            turns: Arc::default(),
            say: Box::new(|_, _, _| {}),
            salvage: Box::new(|_, _, _| {}),
            salvage_folder: Default::default(),
            lengthen: Box::new(|_, _| {}),
            #[cfg(feature = "etcd")]
            ask: Arc::default(),
            #[cfg(feature = "etcd")]
            index: 0,
            redial: Box::new(move |_, _, _| wants.store(true, Ordering::SeqCst)),
        };
        let shell = Shell::new(Box::new(ring), arena, Arc::new(Silent)).unwrap();
        let mut reactor = Reactor::new(shell, parts);
        let reason = String::new();
        let entry = Arc::new(Entry::new(VolumeView {
            name: "v".into(),
            size_bytes: SIZE,
            service: Service::Unavailable { reason },
            trims: true,
            clients: 0,
            contexts: VolumeView::usual_contexts(names.len()),
        }));
        let arrival = Arrival {
            setup: setup(node, names, memory),
            loaded,
            store,
            meta,
            spec: spec(names, memory),
            faults: Faults::default(),
            declared_bytes: SIZE,
            settled: sync_channel(1).0,
            notes: Vec::new(),
        };
        reactor.install(Arc::clone(&entry), arrival);
        Node {
            reactor,
            inbox,
            entry,
            data,
            links,
            client,
            redial,
        }
    }

    fn volume(&self) -> Option<u32> {
        self.reactor.volumes.get(0).map(|_| 0)
    }

    fn is_primary(&self) -> bool {
        self.entry.view().service == Service::Primary
    }
}

/// A front end that another process goes on with: it says so once its request is over.
struct Moving(Arc<Mutex<Vec<Outcome>>>);

impl Connection for Moving {
    fn on_io(&mut self, _: &mut Ctx<'_>, _: u32, _: Result<u32, Errno>, _: bool) {}
    fn on_complete(&mut self, _: &mut Ctx<'_>, _: ReqId, outcome: Outcome) {
        lock(&self.0).push(outcome);
    }
    fn on_extents(&mut self, _: &mut Ctx<'_>, _: u32, _: Result<&[BlockExtent], Errno>) {}
    fn on_room(&mut self, _: &mut Ctx<'_>) {}
    fn on_timer(&mut self, _: &mut Ctx<'_>) {}
    fn flush(&mut self, _: &mut Ctx<'_>) {}
    fn drain(&mut self, ctx: &mut Ctx<'_>, why: DrainReason) {
        assert_eq!(why, DrainReason::HandOver);
        ctx.end();
    }
    fn on_quiet(&mut self, ctx: &mut Ctx<'_>) {
        assert_eq!(
            lock(&self.0).len(),
            1,
            "every request ends before its session is quiet"
        );
        ctx.hand_over(b"state".to_vec());
    }
}

#[test]
fn a_client_that_is_handed_over_keeps_its_stream_and_the_volume_stops_cleanly() {
    let mut bench = Bench::new(1, false);
    bench.until("primary", |b| b.nodes[0].is_primary());
    let (mine, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let outcomes = Arc::clone(&bench.outcomes);
    let client = ClientInfo {
        export: ExportLabel::new("v"),
        address: "unix:7".into(),
        tls: None,
    };
    let make = Box::new(move |ctx: &mut Ctx<'_>| {
        ctx.set_age(Duration::from_secs(100));
        ctx.submit(ReqId(0), Op::Flush);
        Box::new(Moving(outcomes)) as Box<dyn Connection>
    });
    let node = &mut bench.nodes[0];
    let seat = client.clone();
    node.reactor
        .seat_at(0, |ring| ring.register(mine.into()), seat, make);
    let is_gone: Arc<AtomicBool> = Arc::default();
    let put = Arc::clone(&is_gone);
    let reply = Box::new(move |_: Answer| put.store(true, Ordering::SeqCst));
    bench.send(0, Message::Leave("v".into(), Leave::HandOver, reply));
    bench.until("the volume left", |_| is_gone.load(Ordering::SeqCst));
    let mut legacy = bench.nodes[0].entry.take_legacy();
    assert!(legacy.was_primary);
    let handed = legacy.clients.pop().expect("the client is handed over");
    assert_eq!((handed.client, &*handed.state), (client, &b"state"[..]));
    assert_eq!((&*handed.volume, handed.age.as_secs()), ("v", 100));
    let mut socket = std::os::unix::net::UnixStream::from(handed.socket);
    std::io::Write::write_all(&mut socket, b"on").unwrap();
    let mut heard = [0; 2];
    std::io::Read::read_exact(&mut theirs, &mut heard).unwrap();
    assert_eq!(&heard, b"on");
}

const FAULTS: [Fault; 4] = [
    Fault::Fail(Errno::IO),
    Fault::Fail(Errno::NOSPC),
    Fault::FailAfter(Errno::IO),
    Fault::Short(700),
];

#[test]
fn without_faults_the_script_leaves_what_the_model_says() {
    let mut bench = Bench::new(1, false);
    bench.until("primary", |b| b.nodes[0].is_primary());
    assert!(bench.play().iter().all(|outcome| *outcome == Outcome::Ok));
    bench.stop();
    assert!(bench.world.contents(bench.nodes[0].data.unwrap()) == model());
}

#[test]
fn whichever_operation_of_a_lone_replica_fails_every_request_ends_and_every_buffer_returns() {
    let operations = {
        let mut bench = Bench::new(1, false);
        bench.until("primary", |b| b.nodes[0].is_primary());
        bench.play();
        bench.stop();
        bench.world.operations()
    };
    assert!(operations > 15, "{operations}");
    for fault in FAULTS {
        for nth in 1..=operations {
            let mut bench = Bench::new(1, false);
            println!("{fault:?} at {nth}");
            bench.world.plan(nth, fault);
            bench.until("started", |b| {
                b.nodes[0].is_primary() || b.world.operations() >= nth
            });
            bench.play();
            bench.stop();
            if matches!(fault, Fault::Short(_)) {
                // A short transfer is carried on: nobody notices.
                assert!(
                    bench.world.contents(bench.nodes[0].data.unwrap()) == model(),
                    "{nth}"
                );
            }
        }
    }
}

fn pair(memory: bool) -> Bench {
    let mut bench = Bench::new(2, memory);
    bench.until("connected", |b| {
        b.nodes.iter().all(|n| {
            n.reactor.links.has_peer(0, NodeIdx(0)) || n.reactor.links.has_peer(0, NodeIdx(1))
        })
    });
    let request = Request::Promote {
        force: false,
        wait: Duration::from_secs(10),
    };
    assert!(matches!(bench.ask(0, request), Ok(Done::Ok(_))));
    for _ in 0..200 {
        if [0, 1]
            .iter()
            .all(|node| bench.state(*node) == State::Healthy)
        {
            return bench;
        }
        let now = bench.world.now();
        bench.until("time passed", |b| b.world.now() > now + 100_000_000);
    }
    panic!("the pair never became healthy");
}

#[test]
fn whichever_operation_of_a_pair_fails_nothing_is_lost_and_every_buffer_returns() {
    let (before, after) = {
        let mut bench = pair(false);
        let before = bench.world.operations();
        assert!(bench.play().iter().all(|outcome| *outcome == Outcome::Ok));
        let now = bench.world.now();
        bench.until("quiet", |b| b.world.now() > now + 3_000_000_000);
        let after = bench.world.operations();
        bench.stop();
        let contents = |node: usize| bench.world.contents(bench.nodes[node].data.unwrap());
        assert!(contents(0) == model() && contents(1) == model());
        (before, after)
    };
    assert!(after - before > 40, "{before} {after}");
    for fault in [
        Fault::Fail(Errno::CONNRESET),
        Fault::FailAfter(Errno::IO),
        Fault::Short(700),
    ] {
        for nth in before + 1..=after {
            println!("{fault:?} at {nth}");
            let mut bench = pair(false);
            bench.world.plan(nth, fault);
            let outcomes = bench.play();
            let now = bench.world.now();
            bench.until("quiet", |b| b.world.now() > now + 3_000_000_000);
            let states = [bench.state(0), bench.state(1)];
            bench.stop();
            let contents = |node: usize| bench.world.contents(bench.nodes[node].data.unwrap());
            if states == [State::Healthy, State::Healthy] {
                assert!(
                    contents(0) == contents(1),
                    "{fault:?} at {nth}: the copies differ"
                );
            }
            if outcomes.iter().all(|outcome| *outcome == Outcome::Ok) {
                let whole = [contents(0) == model(), contents(1) == model()];
                assert!(
                    whole[0] || whole[1],
                    "{fault:?} at {nth}: acknowledged writes are lost"
                );
            }
        }
    }
}

#[test]
fn a_memory_pair_holds_the_same_bytes() {
    let mut bench = pair(true);
    assert!(bench.play().iter().all(|outcome| *outcome == Outcome::Ok));
    let now = bench.world.now();
    bench.until("quiet", |b| b.world.now() > now + 1_000_000_000);
    for node in &mut bench.nodes {
        let volume = node.reactor.volumes.get_mut(0).unwrap();
        let Store::Memory(memory) = &volume.driver.store else {
            panic!("it is memory")
        };
        assert!(memory.slice(0, SIZE as usize) == model());
    }
    bench.stop();
}
