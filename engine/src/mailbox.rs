//! Bounded messages to a reactor: put in, then wake.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use engine_core::event::DiskError;
use engine_core::event::Token;
use engine_core::message::Refusal as PeerRefusal;
use engine_core::meta::Loaded;
#[cfg(feature = "etcd")]
use engine_core::register::Found;
use engine_core::time::Instant;
use engine_core::units::NodeIdx;
use engine_core::volume::Setup;
use engine_core::vote::Ballot;
use engine_ring::Waker;

use crate::backend::Opened;
use crate::control::{Outcome, Refusal, Request, VolumeSpec, VolumeStatus};
use crate::entry::Entry;
use crate::front_end::Attachment;
use crate::layer::faulty::Faults;
use crate::meta_io::Lengthening;
use crate::peers::LinkSocket;
use crate::salvage::Stored;

/// Messages that wait at most; the sender of one more is told "full".
pub(crate) const MESSAGES_MAX: usize = 4096;

/// A replica on its way to its reactor.
pub(crate) struct NewVolume {
    pub(crate) entry: Arc<Entry>,
    pub(crate) setup: Setup,
    pub(crate) loaded: Loaded,
    pub(crate) store: Opened,
    /// The metadata file.
    pub(crate) meta: OwnedFd,
    /// With the size it really has.
    pub(crate) spec: VolumeSpec,
    /// What the configuration says of it.
    pub(crate) declared_bytes: u64,
    pub(crate) faults: Faults,
    /// Hears once when negotiation knows how it is served.
    pub(crate) settled: SyncSender<()>,
}

/// Called once with the answer.
pub(crate) type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// Why a volume is to leave its reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The node stops.
    NodeStops,
    /// Another process takes the node over, and its clients with it.
    HandOver,
    /// It is deleted: only from the secondary role and without clients.
    Delete,
}

/// What the thread of a peer found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerNews {
    /// A dial or probe failed that began at this moment.
    Unreachable { began: Instant },
    /// Its last control connection broke: all links to it end.
    Gone,
    /// That of this path broke: links that take it end.
    PathGone(u8),
    /// It is connected, and volumes without a link still have none.
    Unlinked,
    /// One of the two nodes does not take the other for what it should be.
    Refused(PeerRefusal),
}

/// Everything a reactor is told.
pub(crate) enum Message {
    /// Attach this volume.
    Attach(Box<NewVolume>),
    /// A negotiated client.
    Client(String, Attachment),
    /// A connection to a peer, by its name.
    Link {
        volume: String,
        peer: String,
        socket: LinkSocket,
    },
    /// A node said this about the votes of a volume.
    Vote {
        volume: String,
        from: NodeIdx,
        ballot: Box<Ballot>,
    },
    /// The register answered a question of a volume.
    #[cfg(feature = "etcd")]
    Register {
        volume: String,
        number: u64,
        found: Box<Found>,
    },
    /// What is known of the way to a node.
    Peer { node: String, news: PeerNews },
    /// An operator's request.
    Request {
        volume: String,
        request: Request,
        reply: Reply<Outcome>,
    },
    /// May this volume have so many bytes? What its backing needs, if there is something to do.
    MayGrow(String, u64, Reply<Result<Option<Lengthening>, Refusal>>),
    /// The backing of this volume is to hold so many bytes: does it, or why not?
    BackingGrown(String, u64, Result<u64, (DiskError, String)>),
    /// Status of one volume, `None` when it is not here; and the nodes that are connected.
    Status(String, Arc<BTreeSet<String>>, Reply<Option<VolumeStatus>>),
    /// Stop the volume cleanly and let go of its files.
    Leave(String, Leave, Reply<Outcome>),
    /// A step of a salvage ended.
    Salvaged {
        volume: String,
        token: Token,
        stored: Stored,
    },
    /// Planted faults of a volume.
    Faults(String, Faults),
    /// End the thread; no volume is left.
    Exit,
}

/// The sender's end; cheap to clone.
#[derive(Clone)]
pub(crate) struct Mailbox {
    sender: SyncSender<Message>,
    waker: Waker,
}

impl Mailbox {
    pub(crate) fn new(sender: SyncSender<Message>, waker: Waker) -> Mailbox {
        Mailbox { sender, waker }
    }

    /// Puts it in; gives it back when the box is full or its reactor has ended.
    pub(crate) fn send(&self, message: Message) -> Result<(), Message> {
        match self.sender.try_send(message) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => Err(message),
        }
    }

    /// Puts it in, and waits for room; lost only if its reactor has ended. Not for reactors.
    pub(crate) fn send_patiently(&self, message: Message) {
        if let Ok(()) = self.sender.send(message) {
            self.waker.wake();
        }
    }
}
