//! Clients of a reactor: from attachment to the last completion of their socket.
//!
//! ```text
//!  Open ─ drain ─► Draining ─ end ─► Closing ─ SessionQuiet ─► Quiet ─ finish ─► Finished ─► gone
//!    └───────────────── end ──────────┘                        └ hand_over ─► with its successor
//! ```

use std::sync::atomic::Ordering;
use std::time::Duration;

use engine_core::event::{Event, SessionId};
use engine_core::time::Instant;
use engine_ring::{Errno, FileId, Op, Ring, ShutdownHow};

use crate::control::{ClientStatus, Clients};
use crate::driver::Ended;
use crate::driver::extents::ExtentsAnswer;
use crate::front_end::{
    Attachment, ClientInfo, Connection, Ctx, DRAIN_MAX, DrainReason, Ending, MakeConnection, Seat,
};
use crate::handover::HandedClient;
use crate::reactor::{Reactor, SEAT_BITS};
use crate::share::Share;
use crate::token::{Kind, SHUTDOWN_TAG, Token};

/// Bits of the session counter between the process's number and the seat.
const COUNTER_BITS: u32 = 26;

/// One client.
pub(super) struct Client {
    pub(super) seat: Seat,
    /// `None` while it is being made, and after it was finished.
    handler: Option<Box<dyn Connection>>,
    pub(super) volume: u32,
    info: ClientInfo,
    since: Instant,
    is_touched: bool,
    is_hungry: bool,
    /// Its socket is closed.
    is_closed: bool,
}

impl Client {
    pub(super) fn status(&self, now: Instant) -> ClientStatus {
        ClientStatus {
            id: self.id(),
            export: self.info.export.name(),
            address: self.info.address.clone(),
            tls: self.info.tls.as_deref().cloned(),
            age_seconds: self.age(now).as_secs(),
            io: self.seat.counters,
        }
    }

    /// Counts the sessions of this node, from 1: names it for people.
    pub(super) fn id(&self) -> u64 {
        1 + (self.seat.session.0 >> SEAT_BITS & ((1 << COUNTER_BITS) - 1))
    }

    pub(super) fn address(&self) -> &str {
        &self.info.address
    }

    fn age(&self, now: Instant) -> Duration {
        self.seat.age + now.since(self.since)
    }
}

impl Reactor {
    /// A new client of the volume in `slot`. Its socket is closed when the table is full.
    pub(super) fn seat(&mut self, volume: u32, attachment: Attachment) {
        let Attachment {
            socket,
            client,
            make,
        } = attachment;
        self.seat_at(volume, |ring| ring.register(socket), client, make);
    }

    /// As [`Reactor::seat`], with a socket that `register` puts into the ring's table.
    pub(super) fn seat_at(
        &mut self,
        volume: u32,
        register: impl FnOnce(&mut dyn Ring) -> FileId,
        client: ClientInfo,
        make: MakeConnection,
    ) {
        let Some(slot) = self.clients.next_slot() else {
            return;
        };
        let counter = self.parts.sessions.fetch_add(1, Ordering::Relaxed);
        let counter = (counter & ((1 << COUNTER_BITS) - 1)) << SEAT_BITS;
        let process = u64::from(self.parts.process) << (COUNTER_BITS + SEAT_BITS);
        let socket = register(&mut *self.shell.ring);
        let seat = Seat {
            slot: slot as u16,
            session: SessionId(process | counter | u64::from(slot)),
            socket,
            in_flight: 0,
            wants_room: false,
            outstanding: 0,
            share: Share::new(self.turn),
            timer: None,
            ending: Ending::Open,
            asks_end: false,
            asks_finish: false,
            bequest: None,
            age: Duration::ZERO,
            counters: Default::default(),
        };
        let client = Client {
            seat,
            handler: None,
            volume,
            info: client,
            since: self.shell.now,
            is_touched: false,
            is_hungry: false,
            is_closed: false,
        };
        assert!(
            self.clients.insert(client).is_ok(),
            "the slot was free a moment ago"
        );
        let owner = self.volumes.get_mut(volume).expect("the caller found it");
        owner.clients += 1;
        owner.publish_clients();
        let client = self.clients.get_mut(slot).expect("it was inserted");
        let mut ctx = Ctx {
            core: &owner.driver.core,
            store: &mut owner.driver.store,
            ring: &mut *self.shell.ring,
            arena: &mut self.shell.arena,
            now: self.shell.now,
            intake: &mut owner.driver.intake,
            seat: &mut client.seat,
        };
        client.handler = Some(make(&mut ctx));
        self.after_callback(slot);
    }

    /// Calls a client, if it still takes calls, and acts on what it asks for.
    fn call(&mut self, slot: u32, f: impl FnOnce(&mut dyn Connection, &mut Ctx<'_>)) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let Some(handler) = &mut client.handler else {
            return;
        };
        client.seat.share.refill(self.turn, self.quantum);
        let volume = self.volumes.get_mut(client.volume);
        let volume = volume.expect("a volume leaves after its last client");
        let mut ctx = Ctx {
            core: &volume.driver.core,
            store: &mut volume.driver.store,
            ring: &mut *self.shell.ring,
            arena: &mut self.shell.arena,
            now: self.shell.now,
            intake: &mut volume.driver.intake,
            seat: &mut client.seat,
        };
        f(&mut **handler, &mut ctx);
    }

    /// Calls a client and has it flushed at the end of the turn.
    pub(super) fn touch(&mut self, slot: u32, f: impl FnOnce(&mut dyn Connection, &mut Ctx<'_>)) {
        self.call(slot, f);
        self.after_callback(slot);
    }

    fn after_callback(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        if !client.is_touched {
            client.is_touched = true;
            self.touched.push(slot);
        }
        if client.seat.wants_room && !client.is_hungry {
            client.is_hungry = true;
            self.hungry.push(slot);
        }
        if let Some(at) = client.seat.timer {
            self.client_timer = self.client_timer.min(at);
        }
        if client.seat.asks_end && matches!(client.seat.ending, Ending::Open | Ending::Draining(_))
        {
            client.seat.ending = Ending::Closing;
            let session = client.seat.session;
            let volume = self.volumes.get_mut(client.volume);
            let volume = volume.expect("a volume leaves after its last client");
            volume
                .driver
                .intake
                .events
                .push(Event::CloseSession { session });
        }
        if client.seat.asks_finish && matches!(client.seat.ending, Ending::Quiet(_)) {
            client.seat.ending = Ending::Finished;
            client.handler = None;
            if client.seat.bequest.is_some() {
                return self.leave_if_done(slot);
            }
            let token = Token::new(Kind::Seat, slot, 0).0;
            let close = Op::Close {
                file: client.seat.socket,
            };
            self.shell.ring.push(&mut self.shell.arena, token, close);
        }
    }

    pub(super) fn client_io(
        &mut self,
        slot: u32,
        tag: u32,
        result: Result<u32, Errno>,
        more: bool,
    ) {
        let client = self
            .clients
            .get_mut(slot)
            .expect("a seat is freed with its last completion");
        if !more {
            client.seat.in_flight -= 1;
        }
        if client.seat.ending == Ending::Finished || tag == SHUTDOWN_TAG {
            return self.leave_if_done(slot);
        }
        self.touch(slot, |connection, ctx| {
            connection.on_io(ctx, tag, result, more);
        });
    }

    /// The socket of a finished client is closed.
    pub(super) fn socket_closed(&mut self, slot: u32) {
        let client = self
            .clients
            .get_mut(slot)
            .expect("a seat is freed with its last completion");
        client.is_closed = true;
        self.leave_if_done(slot);
    }

    fn leave_if_done(&mut self, slot: u32) {
        let Some(client) = self.clients.get(slot) else {
            return;
        };
        let is_over = client.is_closed || client.seat.bequest.is_some();
        if !is_over || client.seat.in_flight > 0 {
            return;
        }
        let client = self.clients.remove(slot).expect("it was just found");
        if let Some(volume) = self.volumes.get_mut(client.volume) {
            volume.clients -= 1;
            volume.publish_clients();
            let age = client.age(self.shell.now);
            if let Some(state) = client.seat.bequest {
                let socket = self.shell.ring.unregister(client.seat.socket);
                volume.entry.bequeath(HandedClient {
                    volume: volume.spec.name.clone(),
                    client: client.info,
                    age,
                    socket: socket.expect("nothing is in flight on it"),
                    state,
                });
            }
        }
    }

    /// Requests that ended, sessions that are quiet, block status: to whom they belong.
    pub(super) fn deliver(&mut self, slot: u32) {
        let Some(volume) = self.volumes.get_mut(slot) else {
            return;
        };
        let driver = &mut volume.driver;
        if driver.ended.is_empty() && driver.quiet.is_empty() && driver.extents.is_empty() {
            return;
        }
        let mut ended = std::mem::take(&mut driver.ended);
        let mut quiet = std::mem::take(&mut driver.quiet);
        let mut extents = std::mem::take(&mut driver.extents);
        for Ended {
            session,
            req,
            outcome,
        } in ended.drain(..)
        {
            if let Some(slot) = self.seat_of(session) {
                let client = self.clients.get_mut(slot).expect("it was just found");
                client.seat.outstanding -= 1;
                self.touch(slot, |connection, ctx| {
                    connection.on_complete(ctx, req, outcome);
                });
            }
        }
        for ExtentsAnswer { seat, tag, result } in extents.drain(..) {
            self.extents_answered(u32::from(seat), tag, &result);
        }
        for session in quiet.drain(..) {
            self.session_quiet(session);
        }
        // Their storage is used again.
        if let Some(volume) = self.volumes.get_mut(slot) {
            (volume.driver.ended, volume.driver.quiet) = (ended, quiet);
            volume.driver.extents = extents;
        }
    }

    fn seat_of(&self, session: SessionId) -> Option<u32> {
        let slot = session.0 as u32 & ((1 << SEAT_BITS) - 1);
        self.clients
            .get(slot)
            .filter(|client| client.seat.session == session)
            .map(|_| slot)
    }

    fn extents_answered(
        &mut self,
        slot: u32,
        tag: u32,
        result: &Result<Vec<crate::front_end::BlockExtent>, Errno>,
    ) {
        let client = self
            .clients
            .get_mut(slot)
            .expect("a question keeps its seat");
        client.seat.in_flight -= 1;
        if client.seat.ending == Ending::Finished {
            return self.leave_if_done(slot);
        }
        self.touch(slot, |connection, ctx| {
            connection.on_extents(ctx, tag, result.as_deref().map_err(|errno| *errno));
        });
    }

    fn session_quiet(&mut self, session: SessionId) {
        let Some(slot) = self.seat_of(session) else {
            return;
        };
        let until = self.shell.now.after(DRAIN_MAX);
        self.client_timer = self.client_timer.min(until);
        let client = self.clients.get_mut(slot).expect("it was just found");
        client.seat.ending = Ending::Quiet(until);
        self.touch(slot, |connection, ctx| connection.on_quiet(ctx));
    }

    /// `on_room` for those who wait, once something completed.
    pub(super) fn feed_hungry(&mut self) {
        if self.hungry.is_empty() {
            return;
        }
        let mut hungry = std::mem::replace(&mut self.hungry, std::mem::take(&mut self.spare));
        // Who is still hungry queues up anew; another one is the first then.
        for slot in hungry.drain(..) {
            let Some(client) = self.clients.get_mut(slot) else {
                continue;
            };
            client.seat.share.refill(self.turn, self.quantum);
            if client.seat.share.is_spent() {
                // Its share of the next turn lets it go on; that turn does not sleep.
                self.hungry.push(slot);
                self.is_pressed = true;
                continue;
            }
            client.is_hungry = false;
            client.seat.wants_room = false;
            self.touch(slot, |connection, ctx| connection.on_room(ctx));
        }
        if self.hungry.len() > 1 {
            self.hungry.rotate_left(1);
        }
        self.spare = hungry;
    }

    /// One `flush` for every client that was called in this turn.
    pub(super) fn flush_clients(&mut self) {
        let mut touched = std::mem::replace(&mut self.touched, std::mem::take(&mut self.spare));
        self.busy = self.busy.max(touched.len() + self.hungry.len());
        for slot in touched.drain(..) {
            self.call(slot, |connection, ctx| connection.flush(ctx));
            // Still counted as touched: what it asks for is done, another flush is not due.
            self.after_callback(slot);
            if let Some(client) = self.clients.get_mut(slot) {
                client.is_touched = false;
            }
        }
        self.spare = touched;
    }

    /// Timers of connections, and endings that take too long.
    pub(super) fn client_timers(&mut self) {
        let now = self.shell.now;
        self.client_timer = Instant(u64::MAX);
        for slot in 0..self.clients.slots() {
            let Some(client) = self.clients.get_mut(slot) else {
                continue;
            };
            let timer = client.seat.timer.filter(|at| *at <= now);
            if timer.is_some() {
                client.seat.timer = None;
            }
            let is_late = matches!(client.seat.ending, Ending::Draining(until) if until <= now);
            client.seat.asks_end |= is_late;
            if matches!(client.seat.ending, Ending::Quiet(until) if until <= now) {
                // Its sends fail from now on; that makes it finish.
                client.seat.ending = Ending::Quiet(now.after(Duration::from_secs(1)));
                client.seat.in_flight += 1;
                let op = Op::Shutdown {
                    file: client.seat.socket,
                    how: ShutdownHow::Both,
                };
                let token = Token::connection(slot as u16, SHUTDOWN_TAG).0;
                self.shell.ring.push(&mut self.shell.arena, token, op);
            }
            if timer.is_some() {
                self.touch(slot, |connection, ctx| connection.on_timer(ctx));
            } else if is_late {
                self.after_callback(slot);
            }
            if let Some(client) = self.clients.get(slot) {
                let ending = match client.seat.ending {
                    Ending::Draining(until) | Ending::Quiet(until) => Some(until),
                    _ => None,
                };
                let next = client.seat.timer.into_iter().chain(ending).min();
                self.client_timer = self.client_timer.min(next.unwrap_or(Instant(u64::MAX)));
            }
        }
    }

    /// Asks all clients of a volume to go.
    pub(super) fn drain_clients(&mut self, volume: u32, why: DrainReason) {
        self.drain_those(volume, why, |_| true);
    }

    /// Cuts off the clients an operator named, and tells their addresses.
    pub(super) fn cut_off(&mut self, volume: u32, clients: &Clients) -> Vec<String> {
        self.drain_those(volume, DrainReason::Operator, |client| match clients {
            Clients::Id(id) => client.id() == *id,
            Clients::Address(address) => client.info.address == *address,
            Clients::Export(export) => client.info.export == *export,
        })
    }

    fn drain_those(
        &mut self,
        volume: u32,
        why: DrainReason,
        is_meant: impl Fn(&Client) -> bool,
    ) -> Vec<String> {
        let mut drained = Vec::new();
        let until = self.shell.now.after(DRAIN_MAX);
        self.client_timer = self.client_timer.min(until);
        for slot in 0..self.clients.slots() {
            let Some(client) = self.clients.get_mut(slot) else {
                continue;
            };
            if client.volume == volume && client.seat.ending == Ending::Open && is_meant(client) {
                drained.push(client.info.address.clone());
                client.seat.ending = Ending::Draining(until);
                self.touch(slot, |connection, ctx| connection.drain(ctx, why));
            }
        }
        drained
    }
}
