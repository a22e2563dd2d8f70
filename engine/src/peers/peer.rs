//! The thread of one path to a peer: keeps the control connection, dials it or probes.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine_core::vote::Ballot;
use engine_core::wire::ControlHello;
use engine_ring::sys::clock::boottime_ns;

use super::bell::{Inbox, Order, Post, post};
use super::control::{self, Session};
use super::dial::Backoff;
use super::paths::Paths;
use super::wire::{Wire, is_tls};
use super::{Common, stream};
use crate::log::Level;

/// How often the accepting side probes a peer it has no connection to, and a standing session
/// tells volumes without a link that there is none.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A session that ended sooner counts as an attempt that failed: the next one waits.
const STOOD_MIN: Duration = Duration::from_secs(1);

/// Which path of which peer a thread is for.
pub(super) struct Way {
    pub(super) name: String,
    pub(super) paths: Arc<Paths>,
    pub(super) path: usize,
    /// Where this side tries to reach the peer: by dialling, or by probing.
    pub(super) addresses: Vec<String>,
    /// The thread that dials data connections, where dialling is ours.
    pub(super) dialler: Option<Post>,
}

/// State of the thread.
struct PathThread {
    common: Arc<Common>,
    way: Way,
    inbox: Inbox,
    accepted: Option<(Wire, ControlHello)>,
    /// Ballots to be sent.
    ballots: Vec<(String, Ballot)>,
    is_over: bool,
    /// Somebody waits: the pause before the next attempt ends.
    is_urgent: bool,
    /// When the latest attempt to reach the peer began.
    began: u64,
    /// The last thing said about it, so that a state is logged once.
    said: String,
}

/// A new connection to a peer, its TLS up.
pub(super) fn connect(common: &Common, peer: &str, address: &str) -> io::Result<Wire> {
    let timeout = common.peer_timeout.min(PROBE_EVERY);
    let stream = stream::connect(address, timeout)?;
    let deadline = boottime_ns() + timeout.as_nanos() as u64;
    Wire::dialled(stream, common.tls().as_ref(), peer, deadline)
}

/// Starts the thread of a path.
pub(super) fn start(common: &Arc<Common>, way: Way) -> io::Result<(Post, JoinHandle<()>)> {
    let (post, inbox) = post()?;
    let name = format!("peer-{}", way.name);
    let this = PathThread {
        common: Arc::clone(common),
        way,
        inbox,
        accepted: None,
        ballots: Vec::new(),
        is_over: false,
        is_urgent: false,
        began: 0,
        said: String::new(),
    };
    let thread = thread::Builder::new().name(name).spawn(|| this.run())?;
    Ok((post, thread))
}

impl PathThread {
    fn run(mut self) {
        let mut backoff = Backoff::new(boottime_ns() ^ self.common.process);
        while !self.is_over {
            let session = match self.way.dialler {
                Some(_) => self.dial(),
                None => self.await_session(),
            };
            match session {
                Ok(Some(session)) => {
                    let began = boottime_ns();
                    self.keep(session);
                    // Who is not configured there hears a greeting, and is let go at once.
                    let stood = Duration::from_nanos(boottime_ns().saturating_sub(began));
                    match stood >= STOOD_MIN || self.way.dialler.is_none() {
                        true => backoff.reset(),
                        false => self.pause(backoff.pause()),
                    }
                }
                Ok(None) => {}
                Err(e) => {
                    self.failed(&e);
                    self.pause(backoff.pause());
                }
            }
        }
    }

    fn failed(&mut self, why: &io::Error) {
        let Way {
            name, paths, path, ..
        } = &self.way;
        let text = format!("node {name} at {}: {why}", self.way.addresses.join(", "));
        let left = paths.failed(&*self.common.router, *path, self.began);
        if let (0, Some(why)) = (left, control::refusal_of(why)) {
            self.common.router.refused(name, why);
        }
        let code = match left {
            _ if is_tls(why) => "W123",
            0 => "W101",
            _ => "W126",
        };
        self.say_once(code, &text);
    }

    fn say_once(&mut self, code: &'static str, text: &str) {
        if self.said != text {
            self.common.warn(code, text);
            self.said = text.to_owned();
        }
    }

    fn dial(&mut self) -> io::Result<Option<Session>> {
        self.began = boottime_ns();
        let wire = connect(&self.common, &self.way.name, &self.way.addresses[0])?;
        Session::dialled(&self.common, wire, &self.way.name).map(Some)
    }

    /// The accepting side: waits for the peer and probes meanwhile.
    fn await_session(&mut self) -> io::Result<Option<Session>> {
        self.pause(PROBE_EVERY);
        match self.accepted.take() {
            Some((wire, hello)) => Session::accepted(&self.common, wire, &hello).map(Some),
            None if self.is_over => Ok(None),
            None => {
                self.began = boottime_ns();
                self.probe()?;
                self.way.paths.answers(self.way.path);
                Ok(None)
            }
        }
    }

    /// Whether anybody answers at any of the addresses.
    fn probe(&self) -> io::Result<()> {
        let timeout = self.common.peer_timeout.min(PROBE_EVERY);
        let mut last = Err(io::ErrorKind::NotFound.into());
        for address in &self.way.addresses {
            last = stream::connect(address, timeout).map(drop);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// Sleeps, less if an order comes that ends the pause.
    fn pause(&mut self, pause: Duration) {
        let until = boottime_ns() + pause.as_nanos() as u64;
        self.take_orders();
        while !(self.is_over || self.is_urgent) && self.accepted.is_none() && boottime_ns() < until
        {
            self.inbox.wait(None, until);
            self.take_orders();
            // Nobody hears them.
            self.ballots.clear();
        }
        self.is_urgent = false;
    }

    fn take_orders(&mut self) {
        while let Some(order) = self.inbox.take() {
            match order {
                Order::Stop => self.is_over = true,
                Order::Accepted(wire, hello) => self.accepted = Some((wire, hello)),
                Order::Hurry => self.is_urgent = true,
                Order::Say(ballot) => self.ballots.push(*ballot),
                Order::Dial { .. } | Order::Connected => {}
            }
        }
    }

    /// Lives with a session until it breaks or a newer one comes.
    fn keep(&mut self, mut session: Session) {
        self.said.clear();
        self.ballots.clear();
        self.is_urgent = false;
        let Way {
            name,
            paths,
            path,
            dialler,
            ..
        } = &self.way;
        let (paths, path, name) = (Arc::clone(paths), *path, name.clone());
        if paths.came_up(&*self.common.router, path) {
            let text = format!("node {name} is connected");
            self.common.say(Level::Info, "W101", &text);
            if let Some(dialler) = dialler {
                dialler.ring(Order::Connected);
            }
        } else {
            let text = format!("node {name}: the path {} is up", paths.address(path));
            self.common.say(Level::Info, "I165", &text);
        }
        let ended = self.live(&mut session);
        if self.is_over {
            return;
        }
        let why = ended.map_or_else(|e| e.to_string(), |()| "it connected anew".to_owned());
        match paths.went_down(&*self.common.router, path) {
            0 => self.say_once("W101", &format!("node {name} is lost: {why}")),
            left => {
                let (address, all) = (paths.address(path), paths.count());
                let text = format!(
                    "node {name}: the path {address} is lost: {why}; {left} of {all} paths are up"
                );
                self.say_once("W126", &text);
            }
        }
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
                self.common.router.unlinked(&self.way.name);
                tell_at = now + ns(PROBE_EVERY);
            }
            session.say_votes(&mut self.ballots)?;
            let until = ping_at.min(tell_at).min(session.heard_at + silence);
            if self.inbox.wait(Some(&session.wire), until) {
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
            self.common.router.vote(&volume, &self.way.name, ballot);
        }
        Ok(())
    }
}
