//! The thread that dials the data connections of a peer: of each volume one, over the paths that
//! are up. It may wait for a path that is dead; keepalives do not wait for it.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use engine_ring::sys::clock::boottime_ns;

use super::bell::{Inbox, Order, Post, When, post};
use super::dial::Backoff;
use super::paths::Paths;
use super::peer::connect;
use super::{Common, LinkSocket};

/// A volume that wants a link.
struct Wish {
    volume: String,
    at: u64,
    backoff: Backoff,
    is_due: bool,
}

struct DataThread {
    common: Arc<Common>,
    name: String,
    paths: Arc<Paths>,
    inbox: Inbox,
    wishes: Vec<Wish>,
}

/// Starts the thread for a peer that this node dials.
pub(super) fn start(
    common: &Arc<Common>,
    name: &str,
    paths: &Arc<Paths>,
) -> io::Result<(Post, JoinHandle<()>)> {
    let (post, inbox) = post()?;
    let this = DataThread {
        common: Arc::clone(common),
        name: name.to_owned(),
        paths: Arc::clone(paths),
        inbox,
        wishes: Vec::new(),
    };
    let thread = thread::Builder::new()
        .name(format!("dial-{name}"))
        .spawn(|| this.run())?;
    Ok((post, thread))
}

impl DataThread {
    fn run(mut self) {
        loop {
            while let Some(order) = self.inbox.take() {
                match order {
                    Order::Stop => return,
                    Order::Dial { volume, when } => self.wish(&volume, when),
                    Order::Connected => {
                        self.wishes.clear();
                        let shared = self.common.router.shared(&self.name);
                        shared
                            .iter()
                            .for_each(|volume| self.wish(volume, When::Now));
                    }
                    Order::Accepted(..) | Order::Hurry | Order::Say(_) => {}
                }
            }
            self.dial_due();
            let due = self.wishes.iter().filter(|wish| wish.is_due);
            let until = due.map(|wish| wish.at).min().unwrap_or(u64::MAX);
            self.inbox.wait(None, until);
        }
    }

    fn wish(&mut self, volume: &str, when: When) {
        let now = boottime_ns();
        let found = self.wishes.iter().position(|wish| wish.volume == volume);
        let index = found.unwrap_or_else(|| {
            self.wishes.push(Wish {
                volume: volume.to_owned(),
                at: now,
                backoff: Backoff::new(now),
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

    /// Opens the connections that are due.
    fn dial_due(&mut self) {
        for index in 0..self.wishes.len() {
            let wish = &mut self.wishes[index];
            if !wish.is_due || wish.at > boottime_ns() {
                continue;
            }
            wish.is_due = false;
            let volume = wish.volume.clone();
            if !self.dial(&volume) {
                self.wish(&volume, When::Later);
            }
        }
    }

    /// Tries the paths that are up, the least used first. False: none of them leads there. Without
    /// any the wish ends: all volumes wish anew when the node is there.
    fn dial(&self, volume: &str) -> bool {
        let mut tried = Vec::new();
        while let Some(path) = self.paths.choose(volume, &tried) {
            if self.common.is_stopping() {
                return true;
            }
            if let Ok(wire) = connect(&self.common, &self.name, &self.paths.address(path)) {
                self.paths.uses(volume, path);
                let (socket, session) = wire.into_parts();
                let socket = LinkSocket {
                    socket,
                    session,
                    unread: Vec::new(),
                    path: path as u8,
                };
                self.common.router.link(volume, &self.name, socket);
                return true;
            }
            tried.push(path);
        }
        tried.is_empty()
    }
}
