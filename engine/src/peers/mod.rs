//! Node pairs: who is there, and sockets for the links of volumes. Own threads, never a reactor.
//!
//! ```text
//!  listener ─► handshake (one thread each, bounded) ─┬─ ControlHello ─► peer thread
//!                                                    └─ Hello ─► Router::link ─► reactor
//!  peer thread (one per node): control connection, keepalives; the smaller name dials it and
//!      the data connections, the other side accepts and probes ─► Router::link, ::unreachable
//!  reactor ─► Peers::say ─► bounded queue ─► peer thread ─► control connection ─► Router::vote
//! ```
//! Silence on the control connection for `peer_timeout` ends all links to that node: a half-open
//! connection is found within that bound (law F16). A ballot for which there is no connection or no room is lost:
//! who asks asks again. What this does not do: move data, or decide whether two replicas fit; each
//! volume's core does.

mod accept;
mod control;
mod dial;
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
use peer::{Bell, Order, PeerThread};

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
    /// Its control connection broke: everything that stood is broken.
    fn gone(&self, peer: &str);
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
    bells: Vec<(String, Bell)>,
    threads: Vec<JoinHandle<()>>,
    /// The thread that accepts.
    accepting: Option<JoinHandle<()>>,
    /// What it accepts from.
    listener: Option<TcpListener>,
    /// Where that listens, to wake it at the end.
    address: Option<SocketAddr>,
}

/// Listens at `address`. Errors: it is in use, or no address of this machine.
pub(crate) fn listen(address: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address)
}

impl Peers {
    /// Starts a thread for each `(name, address)` and one that accepts.
    pub(crate) fn start(
        common: Common,
        listener: Option<TcpListener>,
        peers: &[(String, String)],
    ) -> io::Result<Peers> {
        let common = Arc::new(common);
        let mut this = Peers {
            common: Arc::clone(&common),
            bells: Vec::new(),
            threads: Vec::new(),
            accepting: None,
            listener: None,
            address: None,
        };
        for (name, address) in peers {
            let (bell, thread) = PeerThread::start(&common, name, address)?;
            this.bells.push((name.clone(), bell));
            this.threads.push(thread);
        }
        if let Some(listener) = listener {
            this.address = Some(listener.local_addr()?);
            this.listener = Some(listener.try_clone()?);
            let bells = this.bells.clone();
            this.accepting = Some(accept::start(&common, listener, bells)?);
        }
        Ok(this)
    }

    /// A link of `volume` to `peer` ended, or the volume is new: dial, if dialling is ours.
    /// Never waits.
    pub(crate) fn redial(bells: &[(String, Bell)], peer: &str, volume: &str, when: When) {
        if let Some((_, bell)) = bells.iter().find(|(name, _)| name == peer) {
            bell.ring(Order::Dial {
                volume: volume.to_owned(),
                when,
            });
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

    /// How to reach the peers' threads.
    pub(crate) fn bells(&self) -> Vec<(String, Bell)> {
        self.bells.clone()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The listener, for a successor. Errors: no descriptor is left.
    pub(crate) fn listener(&self) -> Option<io::Result<TcpListener>> {
        Some(self.listener.as_ref()?.try_clone())
    }

    /// Tells all threads to end, and returns once nothing is accepted any more. Connections end
    /// within moments; only a dial to a node that does not answer may take longer.
    pub(crate) fn retire(&mut self) {
        self.common.is_stopping.store(true, Ordering::Release);
        self.bells
            .iter()
            .for_each(|(_, bell)| bell.ring(Order::Stop));
        if let (Some(accepting), Some(address)) = (self.accepting.take(), self.address) {
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

pub(crate) use peer::{Bell as PeerBell, When};

#[cfg(test)]
mod tests;
