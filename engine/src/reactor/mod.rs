//! A reactor: one thread, one ring, one arena, the volumes it owns whole.
//!
//! ```text
//!  enter ─► completions ─► connections · volumes · links ─► mailbox ─► timers
//!    ▲                                                                   │
//!    │      flush links ◄─ flush connections ◄─ on_room ◄─ run volumes ◄─┘ until nothing is left
//!    └─────────────── one system call carries all of it
//! ```
//! Nothing here blocks. What a turn leaves over (bounded rounds) makes the next turn not sleep.

mod clients;
mod commands;
mod departure;
mod nodes;
mod salvage;
mod sleep;
#[cfg(test)]
mod tests;
mod volumes;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
#[cfg(feature = "etcd")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

use engine_core::time::Instant;
use engine_core::vote::Ballot;
use engine_ring::{Completion, Wait};

use crate::control::VolumeSpec;
#[cfg(feature = "etcd")]
use crate::control_store::Ask;
use crate::link::Links;
use crate::mailbox::Message;
use crate::meta_io::Lengthening;
use crate::peers::When;
use crate::salvage::Step;
use crate::share;
use crate::shell::Shell;
use crate::table::Table;
use crate::token::{Kind, Token};
use clients::Client;
use sleep::{Plan, Sleep};
use volumes::Volume;

pub(crate) use sleep::Sleep as SleepPolicy;

/// Clients of one reactor.
const CLIENTS_MAX: usize = 15_000;
/// Bits a session id has for the place of its client.
const SEAT_BITS: u32 = 14;
const _: () = assert!(CLIENTS_MAX <= 1 << SEAT_BITS);
/// Operations that stay for disks, metadata and links when every client waits in both directions.
const OPERATIONS_MIN: usize = 2048;
const _: () = assert!(2 * CLIENTS_MAX + OPERATIONS_MIN <= engine_ring::DEPTH_MAX as usize);
/// Volumes of one reactor.
const VOLUMES_MAX: usize = 1 << 16;
/// Passes over volumes and connections in one turn.
const PASSES_MAX: usize = 8;
/// Messages taken from the mailbox in one turn.
const MESSAGES_PER_TURN: usize = 64;
/// Whoever waits for room or a buffer looks again after this time at the latest.
const ROOM_POLL: std::time::Duration = std::time::Duration::from_millis(5);

/// Asks for a link: peer's name, volume, how soon. Never waits.
pub(crate) type Redial = Box<dyn Fn(&str, &str, When) + Send>;

/// Says something about the votes of a volume: peer's name, volume, what. Never waits.
pub(crate) type Say = Box<dyn Fn(&str, &str, Ballot) + Send>;

/// Gives the thread that writes salvages a step for a volume; `Message::Salvaged` answers. Never
/// waits.
pub(crate) type Salvage = Box<dyn Fn(&str, engine_core::event::Token, Step) + Send>;
/// Makes the backing of a volume longer on another thread; `Message::BackingGrown` follows.
pub(crate) type Lengthen = Box<dyn Fn(VolumeSpec, Lengthening) + Send>;

/// What a reactor needs besides its shell.
pub(crate) struct Parts {
    /// Name of this node.
    pub(crate) node: String,
    pub(crate) inbox: Receiver<Message>,
    pub(crate) sleep: Sleep,
    /// Counter of sessions, shared by all reactors, and the process's random number above it.
    pub(crate) sessions: Arc<AtomicU64>,
    pub(crate) process: u32,
    pub(crate) redial: Redial,
    pub(crate) say: Say,
    pub(crate) salvage: Salvage,
    /// Where salvages go.
    pub(crate) salvage_folder: PathBuf,
    pub(crate) lengthen: Lengthen,
    /// Asks the register, once there is one.
    #[cfg(feature = "etcd")]
    pub(crate) ask: Arc<OnceLock<Ask>>,
    /// This reactor's number.
    #[cfg(feature = "etcd")]
    pub(crate) index: usize,
    /// Counts this reactor's system calls.
    pub(crate) turns: Arc<Turns>,
}

/// A count that one reactor writes and others may read; no two share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Turns(AtomicU64);

impl Turns {
    /// So many more. There is one writer, so this takes no locked instruction.
    fn count(&self, calls: u32) {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before + u64::from(calls), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One reactor; made and run on its own thread.
pub(crate) struct Reactor {
    shell: Shell,
    links: Links,
    volumes: Table<Volume>,
    clients: Table<Client>,
    parts: Parts,
    completions: Vec<Completion>,
    /// Clients to be flushed at the end of the turn.
    touched: Vec<u32>,
    /// Clients whose `on_room` is due when something completes.
    hungry: Vec<u32>,
    /// Empty; storage that either of them takes while it is gone through.
    spare: Vec<u32>,
    /// The earliest timer or ending of a client; may be too early, never too late.
    client_timer: Instant,
    /// Turns so far.
    turn: u64,
    /// Most connections that had something to do in one pass of this turn.
    busy: usize,
    /// What a connection may spend in this turn.
    quantum: i64,
    /// Something was left for the next turn.
    is_pressed: bool,
    is_exiting: bool,
    /// Where the thread's context switches are counted.
    status: Option<File>,
}

impl Reactor {
    pub(crate) fn new(shell: Shell, parts: Parts) -> Reactor {
        Reactor {
            shell,
            links: Links::new(),
            volumes: Table::new(16, VOLUMES_MAX),
            clients: Table::new(64, CLIENTS_MAX),
            parts,
            completions: Vec::with_capacity(4096),
            touched: Vec::with_capacity(256),
            hungry: Vec::with_capacity(256),
            spare: Vec::with_capacity(256),
            client_timer: Instant(u64::MAX),
            turn: 0,
            busy: 0,
            quantum: share::quantum(0, 0),
            is_pressed: false,
            is_exiting: false,
            status: File::open("/proc/thread-self/status").ok(),
        }
    }

    /// Runs until told to exit.
    pub(crate) fn run(mut self) {
        while !self.is_exiting {
            let woken = self.wait();
            self.turn(woken);
        }
    }

    /// Submits, and waits for something to do; true when a mailbox message may be there.
    fn wait(&mut self) -> bool {
        let deadline = self.next_moment();
        let before = self.shell.now;
        if self.is_pressed || deadline <= before {
            return self.enter(Wait::No);
        }
        let mut woken = false;
        if let Plan::SpinUntil(until) = self.parts.sleep.plan(before) {
            self.look_at_switches(before);
            while !woken && self.completions.is_empty() && self.shell.now < until.min(deadline) {
                woken = self.enter(Wait::No);
            }
        }
        if !woken && self.completions.is_empty() && self.shell.now < deadline {
            woken = self.enter(Wait::Until(deadline.0));
        }
        self.parts.sleep.ended(self.shell.now.since(before));
        woken
    }

    fn enter(&mut self, wait: Wait) -> bool {
        let turn = self
            .shell
            .ring
            .enter(&mut self.shell.arena, wait, &mut self.completions);
        self.parts.turns.count(turn.calls);
        self.shell.refresh_now();
        turn.woken
    }

    fn look_at_switches(&mut self, now: Instant) {
        if !self.parts.sleep.wants_look(now) {
            return;
        }
        let mut text = [0; 4096];
        let Some(Ok(len)) = self.status.as_ref().map(|file| file.read_at(&mut text, 0)) else {
            return;
        };
        let switches = std::str::from_utf8(&text[..len]).ok().and_then(|text| {
            let line = text
                .lines()
                .find_map(|l| l.strip_prefix("nonvoluntary_ctxt_switches:"));
            line?.trim().parse().ok()
        });
        if let Some(switches) = switches {
            self.parts.sleep.look(now, switches);
        }
    }

    /// Everything between two system calls.
    fn turn(&mut self, woken: bool) {
        self.turn += 1;
        self.quantum = share::quantum(self.clients.len(), std::mem::take(&mut self.busy));
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.dispatch(completion);
        }
        self.completions = completions;
        let was_pressed = std::mem::take(&mut self.is_pressed);
        if woken || was_pressed {
            self.is_pressed = self.take_messages();
        }
        if self.client_timer <= self.shell.now {
            self.client_timers();
        }
        for pass in 0..PASSES_MAX {
            if !self.pass(pass == 0) {
                break;
            }
            self.is_pressed |= pass + 1 == PASSES_MAX;
        }
        self.links.flush(&mut self.shell);
        self.link_events();
        self.gone_links();
        self.settle_volumes();
    }

    /// Runs what is due and delivers what came of it; false when nothing was due.
    fn pass(&mut self, is_first: bool) -> bool {
        self.link_events();
        let mut worked = is_first;
        for slot in 0..self.volumes.slots() {
            let now = self.shell.now;
            let Some(volume) = self.volumes.get_mut(slot) else {
                continue;
            };
            if volume.driver.is_due(now) || is_first && volume.driver.is_waiting() {
                volume.driver.run(&mut self.shell, &mut self.links);
                worked = true;
            }
            self.deliver(slot);
        }
        if worked {
            self.feed_hungry();
            self.flush_clients();
        }
        worked
    }

    fn dispatch(&mut self, completion: Completion) {
        let token = Token(completion.token);
        match token.kind() {
            Kind::Connection => {
                self.client_io(
                    token.slot(),
                    token.tag(),
                    completion.result,
                    completion.more,
                );
            }
            Kind::Seat => self.socket_closed(token.slot()),
            Kind::Volume => {
                let op = self.shell.ops.get(token.slot());
                let slot = op.expect("a slot is freed with its last completion").volume;
                let volume = self.volumes.get_mut(slot);
                let volume = volume.expect("a volume leaves after its last operation");
                let (slot, tag) = (token.slot(), token.tag());
                volume
                    .driver
                    .on_io(&mut self.shell, slot, tag, completion.result);
            }
            Kind::Link => {
                self.links.on_io(
                    &mut self.shell,
                    token.slot(),
                    token.tag(),
                    completion.result,
                );
            }
            Kind::File => self.file_closed(token.slot()),
        }
    }

    fn link_events(&mut self) {
        for (slot, event) in self.links.events.drain(..) {
            match self.volumes.get_mut(slot) {
                Some(volume) => volume.driver.local.push_back(event),
                // The volume has left; nobody holds the payload but us.
                None => {
                    if let engine_core::event::Event::Peer {
                        payload: Some(payload),
                        ..
                    } = event
                    {
                        self.shell
                            .arena
                            .release(crate::driver::to_ring(payload.buf));
                    }
                }
            }
        }
    }

    fn take_messages(&mut self) -> bool {
        for _ in 0..MESSAGES_PER_TURN {
            match self.parts.inbox.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => return false,
            }
        }
        true
    }

    /// When the reactor must run again even if nothing happens.
    fn next_moment(&self) -> Instant {
        let volumes = self
            .volumes
            .iter()
            .filter_map(|(_, volume)| volume.next_moment())
            .min();
        let is_short = !self.hungry.is_empty()
            || self
                .volumes
                .iter()
                .any(|(_, volume)| volume.driver.is_waiting());
        let room = is_short.then(|| self.shell.now.after(ROOM_POLL));
        let links = self.links.next_moment(self.shell.now);
        let all = [volumes, room, links, Some(self.client_timer)];
        all.into_iter().flatten().min().unwrap_or(Instant(u64::MAX))
    }
}
