//! Waking a sleeping ring from another thread.
//!
//! ```text
//!              wake()                     wake(): one write to the eventfd
//!   Awake ───────────────► Notified ◄───────────────── Sleeping
//!     ▲                       │                            ▲
//!     └────── enter() ────────┘     enter() about to sleep ┘
//! ```
//! While the reactor runs (or spins) a wake-up is one atomic exchange and no system call; any
//! number of them before the next turn are one.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::event::{EventfdFlags, eventfd};

const AWAKE: u8 = 0;
const SLEEPING: u8 = 1;
const NOTIFIED: u8 = 2;

/// Makes the ring's current or next [`crate::Ring::enter`] return soon and say `woken`.
/// Put the message into its mailbox first, then wake.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

struct Shared {
    state: AtomicU8,
    eventfd: Option<OwnedFd>,
}

impl Waker {
    /// Wakes the ring. Never blocks, never fails; cheap when the ring is awake.
    pub fn wake(&self) {
        if self.shared.state.swap(NOTIFIED, Ordering::AcqRel) == SLEEPING
            && let Some(fd) = &self.shared.eventfd
        {
            // A full counter (EAGAIN) means that a wake-up is already on its way.
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// The ring's end of its wakers.
pub(crate) struct Sleeper {
    shared: Arc<Shared>,
}

impl Sleeper {
    /// A sleeper with an eventfd; `nonblocking` where epoll is used, blocking where io_uring
    /// itself waits for it.
    pub(crate) fn with_eventfd(nonblocking: bool) -> io::Result<Sleeper> {
        let mut flags = EventfdFlags::CLOEXEC;
        flags.set(EventfdFlags::NONBLOCK, nonblocking);
        Ok(Sleeper::new(Some(eventfd(0, flags)?)))
    }

    /// A sleeper that only counts: its ring never really sleeps.
    pub(crate) fn virtual_one() -> Sleeper {
        Sleeper::new(None)
    }

    fn new(eventfd: Option<OwnedFd>) -> Sleeper {
        Sleeper {
            shared: Arc::new(Shared {
                state: AtomicU8::new(AWAKE),
                eventfd,
            }),
        }
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The eventfd. Panics for a virtual sleeper, which has none.
    pub(crate) fn eventfd(&self) -> BorrowedFd<'_> {
        self.shared
            .eventfd
            .as_ref()
            .expect("a real ring's sleeper is made with an eventfd")
            .as_fd()
    }

    /// Announces sleep. False when a wake-up came first: then do not sleep.
    pub(crate) fn try_sleep(&self) -> bool {
        let exchange = self.shared.state.compare_exchange(
            AWAKE,
            SLEEPING,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        exchange.is_ok()
    }

    /// Whether a wake-up came since the last [`Sleeper::awake`].
    pub(crate) fn is_notified(&self) -> bool {
        self.shared.state.load(Ordering::Acquire) == NOTIFIED
    }

    /// Ends sleep or a spinning turn; true when a wake-up came since the last call.
    pub(crate) fn awake(&self) -> bool {
        if self.shared.state.load(Ordering::Acquire) == AWAKE {
            return false;
        }
        self.shared.state.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }
}
