//! Orders to the threads of a peer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use engine_core::vote::Ballot;
use engine_core::wire::ControlHello;
use engine_ring::sys::clock::boottime_ns;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::paths::Paths;
use super::wire::Wire;

/// Ballots of all volumes that may wait for a thread.
const BALLOTS_MAX: usize = 1024;

/// What a thread is told.
pub(super) enum Order {
    /// A control connection was accepted.
    Accepted(Wire, ControlHello),
    /// This volume wants a link.
    Dial { volume: String, when: When },
    /// Somebody waits: try now.
    Hurry,
    /// The node is there: all volumes want their links.
    Connected,
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

/// Where a thread gets its orders.
pub(super) struct Inbox {
    orders: Receiver<Order>,
    event: Arc<OwnedFd>,
    ballots: Arc<AtomicUsize>,
}

/// Wakes one thread; cheap to clone.
#[derive(Clone)]
pub(super) struct Post {
    orders: Sender<Order>,
    event: Arc<OwnedFd>,
    /// Ballots among the orders.
    ballots: Arc<AtomicUsize>,
}

/// Reaches all threads of a peer; cheap to clone.
#[derive(Clone)]
pub(crate) struct Bell {
    pub(crate) paths: Arc<Paths>,
    /// One for each path.
    pub(super) posts: Vec<Post>,
    /// The one that dials data connections, where dialling is ours.
    pub(super) dialler: Option<Post>,
}

/// The threads of all peers, by name; peers are added while the node runs.
#[derive(Clone, Default)]
pub(crate) struct Bells(Arc<RwLock<Named>>);

type Named = Arc<Vec<(String, Bell)>>;

impl Bells {
    /// Those there are now.
    pub(crate) fn now(&self) -> Named {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn add(&self, name: &str, bell: Bell) {
        let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::clone(&now);
        all.push((name.to_owned(), bell));
        *now = Arc::new(all);
    }
}

/// Both ends of a thread's orders.
pub(super) fn post() -> io::Result<(Post, Inbox)> {
    let (sender, orders) = mpsc::channel();
    let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let ballots = Arc::<AtomicUsize>::default();
    let post = Post {
        orders: sender,
        event: Arc::clone(&event),
        ballots: Arc::clone(&ballots),
    };
    let inbox = Inbox {
        orders,
        event,
        ballots,
    };
    Ok((post, inbox))
}

impl Post {
    /// Puts the order in and wakes the thread. Never waits.
    pub(super) fn ring(&self, order: Order) {
        // A thread that has ended needs no orders; a full counter has woken it already.
        let _ = self.orders.send(order);
        let _ = rustix::io::write(&*self.event, &1u64.to_ne_bytes());
    }

    /// Puts a ballot in, unless too many wait. Never waits.
    fn say(&self, volume: &str, ballot: Ballot) {
        let before = self.ballots.fetch_add(1, Ordering::AcqRel);
        if before >= BALLOTS_MAX {
            self.ballots.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        self.ring(Order::Say(Box::new((volume.to_owned(), ballot))));
    }
}

impl Bell {
    /// This volume wants a link. Never waits.
    pub(super) fn dial(&self, volume: &str, when: When) {
        let volume = volume.to_owned();
        if let Some(dialler) = &self.dialler {
            dialler.ring(Order::Dial { volume, when });
        }
        if when == When::Now {
            self.posts.iter().for_each(|post| post.ring(Order::Hurry));
        }
    }

    /// Says it on a path that is up; without one it is lost. Never waits.
    pub(super) fn say(&self, volume: &str, ballot: Ballot) {
        if let Some(path) = self.paths.any() {
            self.posts[path].say(volume, ballot);
        }
    }

    /// A control connection was accepted on this path.
    pub(super) fn accepted(&self, path: usize, wire: Wire, hello: ControlHello) {
        if let Some(post) = self.posts.get(path) {
            post.ring(Order::Accepted(wire, hello));
        }
    }

    pub(super) fn stop(&self) {
        let all = self.posts.iter().chain(&self.dialler);
        all.for_each(|post| post.ring(Order::Stop));
    }
}

impl Inbox {
    /// The next order, if there is one.
    pub(super) fn take(&self) -> Option<Order> {
        let order = self.orders.try_recv().ok()?;
        if let Order::Say(_) = order {
            self.ballots.fetch_sub(1, Ordering::AcqRel);
        }
        Some(order)
    }

    /// Until an order, readable bytes, or `until`. True: there are bytes.
    pub(super) fn wait(&self, wire: Option<&Wire>, until: u64) -> bool {
        let left = Duration::from_nanos(until.saturating_sub(boottime_ns()));
        let timeout = rustix::time::Timespec::try_from(left).ok();
        let mut fds = vec![PollFd::from_borrowed_fd(self.event.as_fd(), PollFlags::IN)];
        fds.extend(wire.map(|wire| PollFd::from_borrowed_fd(wire.as_fd(), PollFlags::IN)));
        // An interrupted wait is a short one; one that is too long for the system has no end.
        let _ = poll(&mut fds, timeout.as_ref());
        let mut count = [0; 8];
        // Nothing to read means that nobody rang.
        let _ = rustix::io::read(&*self.event, &mut count);
        fds.get(1).is_some_and(|fd| !fd.revents().is_empty())
    }
}
