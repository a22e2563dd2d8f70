//! Node pairs: who is there, and sockets for the links of volumes. Own threads, never a reactor.
//!
//! ```text
//!  listeners ─► handshake (one thread each, bounded) ─┬─ ControlHello ─► path thread
//!                                                     └─ Hello ─► Router::link ─► reactor
//!  path thread (one per address of the accepting node): control connection, keepalives; the
//!      smaller name dials, the other side accepts and probes ─► Router::unreachable
//!  dial thread (one per node that is dialled): data connections over the paths that are up,
//!      each volume's over the least used ─► Router::link
//!  reactor ─► Peers::say ─► bounded queue ─► a path that is up ─► Router::vote
//! ```
//! Silence on a path's control connection for `peer_timeout` ends all links over it, which are made
//! anew over another: a half-open connection is found within that bound (law F16). A ballot for which there is no connection or no room is lost:
//! who asks asks again. What this does not do: move data, or decide whether two replicas fit; each
//! volume's core does.

mod accept;
mod bell;
mod control;
mod data;
mod dial;
mod paths;
mod peer;
mod stream;
mod wire;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use engine_core::message::Refusal;
use engine_core::vote::Ballot;

use crate::log::{Level, Line, Log};
use crate::tls::LinkTls;
use paths::Paths;
use peer::Way;

/// Where sockets and news go; made by the node.
pub(crate) trait Router: Send + Sync {
    /// A data connection. `false`: the volume is not here.
    fn link(&self, volume: &str, peer: &str, socket: LinkSocket) -> bool;
    /// A dial or probe that began at this moment of CLOCK_BOOTTIME failed.
    fn unreachable(&self, peer: &str, began: u64);
    /// One of the two nodes refused the other; told anew with every attempt.
    fn refused(&self, peer: &str, why: Refusal);
    /// There is a control connection to it.
    fn connected(&self, peer: &str);
    /// It said this about the votes of a volume.
    fn vote(&self, volume: &str, peer: &str, ballot: Ballot);
    /// Its last control connection broke: everything that stood is broken.
    fn gone(&self, peer: &str);
    /// The control connection of one of its paths broke, and another stands: so is what went over
    /// this one.
    fn path_gone(&self, peer: &str, path: u8);
    /// It is connected, and who has no link to it still does not get one.
    fn unlinked(&self, peer: &str);
    /// Names of the volumes attached here that `peer` has a replica of too.
    fn shared(&self, peer: &str) -> Vec<String>;
    /// Whether `volume` is configured here with a replica on `peer`.
    fn is_shared(&self, volume: &str, peer: &str) -> bool;
}

/// A data connection on its way to a reactor.
pub(crate) struct LinkSocket {
    pub(crate) socket: OwnedFd,
    /// State of its TLS after the handshake.
    pub(crate) session: Option<Box<rustls::Connection>>,
    /// What was received on it, opened.
    pub(crate) unread: Vec<u8>,
    /// Which path to the peer it takes.
    pub(crate) path: u8,
}

/// What all threads know.
pub(crate) struct Common {
    pub(crate) cluster: String,
    pub(crate) node: String,
    pub(crate) process: u64,
    /// Versions of the protocol that this node speaks.
    pub(crate) protocol: RangeInclusive<u16>,
    pub(crate) keepalive: Duration,
    pub(crate) peer_timeout: Duration,
    pub(crate) router: Arc<dyn Router>,
    pub(crate) log: Arc<dyn Log>,
    /// Certificates of this node: links are under TLS with them, and in the clear without.
    pub(crate) tls: RwLock<Option<LinkTls>>,
    pub(crate) is_stopping: AtomicBool,
}

impl Common {
    /// The certificates in force now.
    fn tls(&self) -> Option<LinkTls> {
        let tls = self.tls.read();
        tls.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn warn(&self, code: &'static str, text: &str) {
        self.say(Level::Warn, code, text);
    }

    fn say(&self, level: Level, code: &'static str, text: &str) {
        self.log.line(Line {
            level,
            code,
            volume: None,
            text,
        });
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }
}

/// The threads of all peers.
pub(crate) struct Peers {
    common: Arc<Common>,
    bells: Bells,
    threads: Vec<JoinHandle<()>>,
    /// The threads that accept, what from, and where that listens, to wake them at the end.
    accepting: Vec<(JoinHandle<()>, SocketAddr)>,
    listeners: Vec<TcpListener>,
}

/// Listens at `address`. Errors: it is in use, or no address of this machine.
pub(crate) fn listen(address: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address)
}

impl Peers {
    /// Starts the threads for each `(name, addresses)` and one for each listener.
    pub(crate) fn start(
        common: Common,
        listeners: Vec<TcpListener>,
        peers: &[(String, Vec<String>)],
    ) -> io::Result<Peers> {
        let common = Arc::new(common);
        let mut this = Peers {
            common: Arc::clone(&common),
            bells: Bells::default(),
            threads: Vec::new(),
            accepting: Vec::new(),
            listeners: Vec::new(),
        };
        for listener in &listeners {
            this.listeners.push(listener.try_clone()?);
        }
        this.add(peers)?;
        for (path, listener) in listeners.into_iter().enumerate() {
            let address = listener.local_addr()?;
            let bells = this.bells.clone();
            let thread = accept::start(&common, (listener, path), bells)?;
            this.accepting.push((thread, address));
        }
        Ok(this)
    }

    /// Starts the threads of those `(name, addresses)` that have none yet. Errors: a thread, or a
    /// descriptor, cannot be had.
    pub(crate) fn add(&mut self, peers: &[(String, Vec<String>)]) -> io::Result<()> {
        if self.common.is_stopping() {
            return Ok(());
        }
        let mut own = Vec::new();
        for listener in &self.listeners {
            own.push(listener.local_addr()?.to_string());
        }
        for (name, addresses) in peers {
            if self.bells.now().iter().all(|(known, _)| known != name) {
                let bell = self.start_peer(name, addresses, &own)?;
                self.bells.add(name, bell);
            }
        }
        Ok(())
    }

    /// The threads of one peer: the addresses of the accepting side are the paths.
    fn start_peer(&mut self, name: &str, theirs: &[String], own: &[String]) -> io::Result<Bell> {
        let common = Arc::clone(&self.common);
        let dials = *common.node < *name;
        let addresses = if dials { theirs } else { own };
        let paths = Arc::new(Paths::new(name, addresses));
        let mut bell = Bell {
            paths: Arc::clone(&paths),
            posts: Vec::new(),
            dialler: None,
        };
        if dials {
            let (post, thread) = data::start(&common, name, &paths)?;
            bell.dialler = Some(post);
            self.threads.push(thread);
        }
        for path in 0..addresses.len() {
            let way = Way {
                name: name.to_owned(),
                paths: Arc::clone(&paths),
                path,
                addresses: match dials {
                    true => vec![theirs[path].clone()],
                    false => probed(theirs, path, addresses.len()),
                },
                dialler: bell.dialler.clone(),
            };
            let (post, thread) = peer::start(&common, way)?;
            bell.posts.push(post);
            self.threads.push(thread);
        }
        Ok(bell)
    }

    /// A link of `volume` to `peer` ended, or the volume is new: dial, if dialling is ours.
    /// Never waits.
    pub(crate) fn redial(bells: &[(String, Bell)], peer: &str, volume: &str, when: When) {
        if let Some((_, bell)) = bells.iter().find(|(name, _)| name == peer) {
            bell.dial(volume, when);
        }
    }

    /// Says this about the votes of `volume`, if there is a control connection to `peer` and room
    /// in its queue. Never waits.
    pub(crate) fn say(bells: &[(String, Bell)], peer: &str, volume: &str, ballot: Ballot) {
        if let Some((_, bell)) = bells.iter().find(|(name, _)| name == peer) {
            bell.say(volume, ballot);
        }
    }

    /// Uses these certificates for connections from now on. One that stands keeps its own.
    pub(crate) fn set_tls(&self, tls: LinkTls) {
        let now = self.common.tls.write();
        let mut now = now.unwrap_or_else(PoisonError::into_inner);
        let is_other = |now: &LinkTls| now.fingerprint() != tls.fingerprint();
        if now.as_ref().is_none_or(is_other) {
            let text = format!("new links use the certificate {}", tls.fingerprint());
            self.common.say(Level::Info, "I164", &text);
        }
        *now = Some(tls);
    }

    /// How to reach the peers' threads, of those too that are added later.
    pub(crate) fn bells(&self) -> Bells {
        self.bells.clone()
    }

    /// Where it listens first.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listeners.first()?.local_addr().ok()
    }

    /// The listeners, for a successor. Errors: no descriptor is left.
    pub(crate) fn listeners(&self) -> io::Result<Vec<TcpListener>> {
        self.listeners.iter().map(TcpListener::try_clone).collect()
    }

    /// Tells all threads to end, and returns once nothing is accepted any more. Connections end
    /// within moments; only a dial to a node that does not answer may take longer.
    pub(crate) fn retire(&mut self) {
        self.common.is_stopping.store(true, Ordering::Release);
        self.bells.now().iter().for_each(|(_, bell)| bell.stop());
        for (accepting, address) in self.accepting.drain(..) {
            // A last connection ends the listener's wait.
            let _ =
                std::net::TcpStream::connect_timeout(&reachable(address), Duration::from_secs(1));
            let _ = accepting.join();
        }
    }

    /// Ends all threads and their connections.
    pub(crate) fn stop(&mut self) {
        self.retire();
        for thread in self.threads.drain(..) {
            // A panic was printed by its thread; nothing is left to do about it.
            let _ = thread.join();
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Which of a peer's addresses the accepting side probes for the path of this index: each of them
/// for some path, and some for each path.
fn probed(theirs: &[String], path: usize, paths: usize) -> Vec<String> {
    let own: Vec<String> = theirs.iter().skip(path).step_by(paths).cloned().collect();
    match own.is_empty() {
        true => theirs.iter().take(1).cloned().collect(),
        false => own,
    }
}

/// The wildcard address is listened on, but not connected to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

pub(crate) use bell::{Bell, Bells, When};

#[cfg(test)]
mod tests;
