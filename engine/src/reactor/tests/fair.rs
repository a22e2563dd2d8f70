//! Connections share a reactor: counted in turns and bytes, never in wall-clock time.

use super::*;

/// Reads the same bytes again and again, `depth` at a time, as fast as it may.
struct Looping {
    depth: usize,
    len: u64,
    buf: Option<BufId>,
    out: usize,
    count: u64,
    done: Arc<AtomicU64>,
}

impl Looping {
    fn go_on(&mut self, ctx: &mut Ctx<'_>) {
        while self.out < self.depth {
            if ctx.room() == 0 {
                return ctx.want_room();
            }
            let range = ByteRange {
                offset: 0,
                len: self.len,
            };
            let buf = to_core(self.buf.expect("it is kept until the end"));
            self.count += 1;
            self.out += 1;
            ctx.submit(ReqId(self.count), Op::Read { range, buf });
        }
    }
}

impl Connection for Looping {
    fn on_io(&mut self, _: &mut Ctx<'_>, _: u32, _: Result<u32, Errno>, _: bool) {}
    fn on_complete(&mut self, _: &mut Ctx<'_>, _: ReqId, outcome: Outcome) {
        assert_eq!(outcome, Outcome::Ok);
        self.out -= 1;
        self.done.fetch_add(1, Ordering::Relaxed);
    }
    fn on_extents(&mut self, _: &mut Ctx<'_>, _: u32, _: Result<&[BlockExtent], Errno>) {}
    fn on_room(&mut self, ctx: &mut Ctx<'_>) {
        self.go_on(ctx);
    }
    fn on_timer(&mut self, _: &mut Ctx<'_>) {}
    /// As a client does: it sends the next requests once it was sent the replies.
    fn flush(&mut self, ctx: &mut Ctx<'_>) {
        ctx.want_room();
    }
    fn drain(&mut self, ctx: &mut Ctx<'_>, _: DrainReason) {
        ctx.end();
    }
    fn on_quiet(&mut self, ctx: &mut Ctx<'_>) {
        let buf = self.buf.take().expect("it is kept until the end");
        ctx.arena().release(buf);
        ctx.finish();
    }
}

/// A served memory volume with these loads on it: depth and bytes of a read.
struct Loads {
    bench: Bench,
    done: Vec<Arc<AtomicU64>>,
    lens: Vec<u64>,
}

impl Loads {
    fn new(memory: bool, loads: &[(usize, u64)]) -> Loads {
        let mut bench = Bench::new(1, memory);
        bench.until("primary", |b| b.nodes[0].is_primary());
        let mut done = Vec::new();
        for (depth, len) in loads {
            let counter: Arc<AtomicU64> = Arc::default();
            done.push(Arc::clone(&counter));
            let node = &mut bench.nodes[0];
            let socket = node.links.pop_front().unwrap();
            let client = ClientInfo {
                export: ExportLabel::new("v"),
                address: "test".into(),
                tls: None,
            };
            let (depth, len) = (*depth, *len);
            let make = Box::new(move |ctx: &mut Ctx<'_>| {
                let mut looping = Looping {
                    depth,
                    len,
                    buf: ctx.arena().alloc(Class::Client, len as usize),
                    out: 0,
                    count: 0,
                    done: counter,
                };
                looping.go_on(ctx);
                Box::new(looping) as Box<dyn Connection>
            });
            node.reactor.seat_at(0, |_| socket, client, make);
        }
        let lens = loads.iter().map(|(_, len)| *len).collect();
        Loads { bench, done, lens }
    }

    fn turn(&mut self) {
        let reactor = &mut self.bench.nodes[0].reactor;
        reactor.enter(Wait::No);
        reactor.turn(false);
    }

    fn bytes(&self, load: usize) -> u64 {
        self.done[load].load(Ordering::Relaxed) * self.lens[load]
    }
}

#[test]
fn a_greedy_client_is_given_no_more_than_its_share_of_a_turn() {
    for (depth, len) in [(256, 4096), (256, 128 << 10), (1024, 512 << 10)] {
        let mut loads = Loads::new(true, &[(depth, len), (1, 4096)]);
        (0..4).for_each(|_| loads.turn());
        let share = share::quantum(2, 2) as u64 + len;
        let mut slowest = 0;
        for _ in 0..200 {
            let before = (loads.bytes(0), loads.bytes(1));
            loads.turn();
            assert!(
                loads.bytes(0) - before.0 <= share,
                "{} bytes in one turn of {depth} x {len}",
                loads.bytes(0) - before.0
            );
            // Depth 1: answered in every turn, whatever the other one asked for.
            assert!(loads.bytes(1) > before.1, "{depth} x {len}");
            slowest = slowest.max(loads.bytes(0) - before.0);
        }
        assert!(slowest > 0, "the greedy one is served too");
        loads.bench.stop();
    }
}

#[test]
fn a_client_alone_is_served_in_every_turn_and_the_reactor_does_not_sleep() {
    let mut loads = Loads::new(true, &[(256, 128 << 10)]);
    (0..2).for_each(|_| loads.turn());
    for _ in 0..50 {
        let before = loads.bytes(0);
        loads.turn();
        assert!(loads.bytes(0) - before >= 4 << 20);
        assert!(loads.bench.nodes[0].reactor.is_pressed);
    }
    loads.bench.stop();
}

#[test]
fn clients_that_want_all_get_equal_parts_whatever_the_size_of_their_requests() {
    let lens = [4096, 64 << 10, 512 << 10];
    let mut loads = Loads::new(true, &lens.map(|len| (256, len)));
    (0..4000).for_each(|_| loads.turn());
    // A request costs 4096 besides its bytes.
    let cost = |load: usize| {
        let bytes = loads.bytes(load);
        bytes + bytes / lens[load] * 4096
    };
    let costs = [cost(0), cost(1), cost(2)];
    let (least, most) = (costs.iter().min().unwrap(), costs.iter().max().unwrap());
    assert!(most * 100 <= least * 105, "{costs:?}");
    loads.bench.stop();
}

#[test]
fn a_client_that_fills_the_table_leaves_room_for_another() {
    // On a disk that does not answer before time moves.
    let mut loads = Loads::new(false, &[(1000, 4096), (1, 4096)]);
    let room = loads.bench.nodes[0].reactor.volumes.get(0).unwrap();
    assert!(room.driver.in_ring <= REQUESTS);
    for _ in 0..100 {
        let now = loads.bench.world.now();
        loads
            .bench
            .until("time passed", |b| b.world.now() > now + 1_000_000);
    }
    let (greedy, small) = (loads.bytes(0), loads.bytes(1));
    assert!(
        small > 0 && greedy <= small * (REQUESTS as u64),
        "{greedy} {small}"
    );
    loads.bench.stop();
}
