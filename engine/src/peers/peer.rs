//! The thread of one peer: keeps the control connection, dials, probes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine_core::vote::Ballot;
use engine_core::wire::ControlHello;
use engine_ring::sys::clock::boottime_ns;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::control::{self, Session};
use super::dial::Backoff;
use super::wire::{Wire, is_tls};
use super::{Common, LinkSocket, stream};
use crate::log::Level;

/// How often the accepting side probes a peer it has no connection to, and a standing session
/// tells volumes without a link that there is none.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Ballots of all volumes that may wait for a peer's thread.
const BALLOTS_MAX: usize = 1024;

/// What a peer's thread is told.
pub(crate) enum Order {
    /// A control connection was accepted from it.
    Accepted(Wire, ControlHello),
    /// This volume wants a link to it.
    Dial { volume: String, when: When },
    /// Say this about the votes of a volume.
    Say(Box<(String, Ballot)>),
    /// End.
    Stop,
}

/// How soon a volume wants its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Its last one stood for a while, or never was: soon.
    Soon,
    /// Its last one broke quickly: after a growing pause.
    Later,
    /// Somebody waits for an answer; without a connection to the node, for that too.
    Now,
}

/// Wakes a peer's thread; cheap to clone.
#[derive(Clone)]
pub(crate) struct Bell {
    orders: Sender<Order>,
    event: Arc<OwnedFd>,
    /// Ballots among the orders.
    ballots: Arc<AtomicUsize>,
}

impl Bell {
    /// Puts the order in and wakes the thread. Never waits.
    pub(crate) fn ring(&self, order: Order) {
        // A thread that has ended needs no orders; a full counter has woken it already.
        let _ = self.orders.send(order);
        let _ = rustix::io::write(&*self.event, &1u64.to_ne_bytes());
    }

    /// Puts a ballot in, unless too many wait. Never waits.
    pub(super) fn say(&self, volume: &str, ballot: Ballot) {
        let before = self.ballots.fetch_add(1, Ordering::AcqRel);
        if before >= BALLOTS_MAX {
            self.ballots.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        self.ring(Order::Say(Box::new((volume.to_owned(), ballot))));
    }
}

/// A volume that wants a link.
struct Wish {
    volume: String,
    at: u64,
    backoff: Backoff,
    is_due: bool,
}

/// State of the thread.
pub(super) struct PeerThread {
    common: Arc<Common>,
    name: String,
    address: String,
    orders: Receiver<Order>,
    event: Arc<OwnedFd>,
    /// This side dials.
    dials: bool,
    wishes: Vec<Wish>,
    accepted: Option<(Wire, ControlHello)>,
    /// Ballots to be sent, and how many the bell has counted.
    ballots: Vec<(String, Ballot)>,
    waiting: Arc<AtomicUsize>,
    is_over: bool,
    /// Somebody waits: the pause before the next attempt ends.
    is_urgent: bool,
    /// When the latest attempt to reach the peer began.
    began: u64,
    /// The last thing said about it, so that a state is logged once.
    said: String,
}

impl PeerThread {
    pub(super) fn start(
        common: &Arc<Common>,
        name: &str,
        address: &str,
    ) -> io::Result<(Bell, JoinHandle<()>)> {
        let (sender, orders) = mpsc::channel();
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let waiting = Arc::<AtomicUsize>::default();
        let bell = Bell {
            orders: sender,
            event: Arc::clone(&event),
            ballots: Arc::clone(&waiting),
        };
        let this = PeerThread {
            common: Arc::clone(common),
            name: name.to_owned(),
            address: address.to_owned(),
            orders,
            event,
            dials: *common.node < *name,
            wishes: Vec::new(),
            accepted: None,
            ballots: Vec::new(),
            waiting,
            is_over: false,
            is_urgent: false,
            began: 0,
            said: String::new(),
        };
        let thread = thread::Builder::new()
            .name(format!("peer-{name}"))
            .spawn(|| this.run())?;
        Ok((bell, thread))
    }

    fn run(mut self) {
        let mut backoff = Backoff::new(boottime_ns() ^ self.common.process);
        while !self.is_over {
            let session = if self.dials {
                self.dial()
            } else {
                self.await_session()
            };
            match session {
                Ok(Some(session)) => {
                    backoff.reset();
                    self.keep(session);
                    if !self.is_over {
                        self.common.router.gone(&self.name);
                    }
                }
                Ok(None) => {}
                Err(e) => {
                    let code = if is_tls(&e) { "W123" } else { "W101" };
                    let text = format!("node {} at {}: {e}", self.name, self.address);
                    self.say_once(code, &text);
                    self.common.router.unreachable(&self.name, self.began);
                    if let Some(why) = control::refusal_of(&e) {
                        self.common.router.refused(&self.name, why);
                    }
                    self.pause(backoff.pause());
                }
            }
        }
    }

    fn say_once(&mut self, code: &'static str, text: &str) {
        if self.said != text {
            self.common.warn(code, text);
            self.said = text.to_owned();
        }
    }

    fn dial(&mut self) -> io::Result<Option<Session>> {
        self.began = boottime_ns();
        let wire = self.connect()?;
        Session::dialled(&self.common, wire, &self.name).map(Some)
    }

    /// A new connection to the peer, its TLS up.
    fn connect(&self) -> io::Result<Wire> {
        let timeout = self.common.peer_timeout.min(PROBE_EVERY);
        let stream = stream::connect(&self.address, timeout)?;
        let deadline = boottime_ns() + timeout.as_nanos() as u64;
        Wire::dialled(stream, self.common.tls().as_ref(), &self.name, deadline)
    }

    /// The accepting side: waits for the peer and probes meanwhile.
    fn await_session(&mut self) -> io::Result<Option<Session>> {
        self.pause(PROBE_EVERY);
        match self.accepted.take() {
            Some((wire, hello)) => Session::accepted(&self.common, wire, &hello).map(Some),
            None if self.is_over => Ok(None),
            None => {
                self.began = boottime_ns();
                let timeout = self.common.peer_timeout.min(PROBE_EVERY);
                stream::connect(&self.address, timeout).map(|_probe| None)
            }
        }
    }

    /// Sleeps, less if an order comes that ends the pause.
    fn pause(&mut self, pause: Duration) {
        let until = boottime_ns() + pause.as_nanos() as u64;
        self.take_orders();
        while !(self.is_over || self.is_urgent) && self.accepted.is_none() && boottime_ns() < until
        {
            self.wait(None, until);
            self.take_orders();
            // Nobody hears them.
            self.ballots.clear();
        }
        self.is_urgent = false;
    }

    /// Until an order, readable bytes, or `until`.
    fn wait(&self, wire: Option<&Wire>, until: u64) -> bool {
        let left = Duration::from_nanos(until.saturating_sub(boottime_ns()));
        let Ok(timeout) = rustix::time::Timespec::try_from(left) else {
            return false;
        };
        let mut fds = vec![PollFd::from_borrowed_fd(self.event.as_fd(), PollFlags::IN)];
        fds.extend(wire.map(|s| PollFd::from_borrowed_fd(s.as_fd(), PollFlags::IN)));
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, Some(&timeout));
        let mut count = [0; 8];
        // Nothing to read means that nobody rang.
        let _ = rustix::io::read(&*self.event, &mut count);
        fds.get(1).is_some_and(|fd| !fd.revents().is_empty())
    }

    fn take_orders(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Stop => self.is_over = true,
                Order::Accepted(wire, hello) => self.accepted = Some((wire, hello)),
                Order::Dial { volume, when } => {
                    self.is_urgent |= when == When::Now;
                    self.wish(&volume, when);
                }
                Order::Say(ballot) => {
                    self.waiting.fetch_sub(1, Ordering::AcqRel);
                    self.ballots.push(*ballot);
                }
            }
        }
    }

    fn wish(&mut self, volume: &str, when: When) {
        let now = boottime_ns();
        let found = self.wishes.iter().position(|wish| wish.volume == volume);
        let index = found.unwrap_or_else(|| {
            let (volume, backoff) = (volume.to_owned(), Backoff::new(now));
            self.wishes.push(Wish {
                volume,
                at: now,
                backoff,
                is_due: false,
            });
            self.wishes.len() - 1
        });
        let wish = &mut self.wishes[index];
        if when != When::Later {
            wish.backoff.reset();
        }
        // The first attempt is made at once.
        let is_now = found.is_none() || when == When::Now;
        wish.at = now
            + if is_now {
                0
            } else {
                wish.backoff.pause().as_nanos() as u64
            };
        wish.is_due = true;
    }

    /// Lives with a session until it breaks or a newer one comes.
    fn keep(&mut self, mut session: Session) {
        let text = format!("node {} is connected", self.name);
        self.common.say(Level::Info, "W101", &text);
        self.said.clear();
        self.wishes.clear();
        self.ballots.clear();
        self.is_urgent = false;
        self.common.router.connected(&self.name);
        if self.dials {
            let shared = self.common.router.shared(&self.name);
            shared
                .iter()
                .for_each(|volume| self.wish(volume, When::Now));
        }
        let ended = self.live(&mut session);
        if self.is_over {
            return;
        }
        let why = ended.map_or_else(|e| e.to_string(), |()| "it connected anew".to_owned());
        self.say_once("W101", &format!("node {} is lost: {why}", self.name));
    }

    fn live(&mut self, session: &mut Session) -> io::Result<()> {
        let ns = |d: Duration| d.as_nanos() as u64;
        let (keepalive, silence) = (ns(self.common.keepalive), ns(self.common.peer_timeout));
        let mut ping_at = boottime_ns();
        let mut tell_at = ping_at + ns(PROBE_EVERY);
        // What came with the greeting lies in the session, and wakes no wait.
        self.hear(session)?;
        loop {
            let now = boottime_ns();
            if now >= session.heard_at + silence {
                return Err(io::Error::other(format!(
                    "silent for {:?}",
                    self.common.peer_timeout
                )));
            }
            if now >= ping_at {
                session.ping()?;
                ping_at = now + keepalive;
            }
            if now >= tell_at {
                // Volumes that still have no link learn that the peer has none for them.
                self.common.router.unlinked(&self.name);
                tell_at = now + ns(PROBE_EVERY);
            }
            session.say_votes(&mut self.ballots)?;
            self.dial_due(now);
            // The accepting side dials nothing: a wish of its own must not end its waits.
            let due = self
                .wishes
                .iter()
                .filter(|w| w.is_due && self.dials)
                .map(|w| w.at)
                .min();
            let until = ping_at.min(tell_at).min(session.heard_at + silence);
            if self.wait(Some(&session.wire), until.min(due.unwrap_or(u64::MAX))) {
                self.hear(session)?;
            }
            self.take_orders();
            if self.is_over || self.accepted.is_some() {
                return Ok(());
            }
        }
    }

    /// Takes what the peer said.
    fn hear(&self, session: &mut Session) -> io::Result<()> {
        session.read()?;
        for (volume, ballot) in session.heard.drain(..) {
            self.common.router.vote(&volume, &self.name, ballot);
        }
        Ok(())
    }

    /// Opens the data connections that are due.
    fn dial_due(&mut self, now: u64) {
        if !self.dials {
            return;
        }
        for index in 0..self.wishes.len() {
            let wish = &mut self.wishes[index];
            if !wish.is_due || wish.at > now {
                continue;
            }
            wish.is_due = false;
            match self.connect() {
                Ok(wire) => {
                    let volume = &self.wishes[index].volume;
                    let (socket, session) = wire.into_parts();
                    let socket = LinkSocket {
                        socket,
                        session,
                        unread: Vec::new(),
                    };
                    self.common.router.link(volume, &self.name, socket);
                }
                Err(_) => {
                    let volume = self.wishes[index].volume.clone();
                    self.wish(&volume, When::Later);
                }
            }
        }
    }
}
