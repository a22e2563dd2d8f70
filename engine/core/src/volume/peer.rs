//! What we know of each peer beside the state of its session.

use std::collections::VecDeque;

use crate::bitmap::Bitmap;
use crate::event::LinkId;
use crate::message::{Disk, Hello, Refusal, Status};
use crate::meta::{PageWriter, PeerBitmap};
use crate::session::{Plan, Session};
use crate::time::Instant;
use crate::units::{Extent, NODES_MAX, NodeIdx, Seq};

/// One other node.
pub(super) struct Peer {
    pub node: NodeIdx,
    pub session: Session,
    /// Its hello of this session.
    pub hello: Option<Box<Hello>>,
    /// Our own hello of this session: the facts that were judged.
    pub said: Option<Box<Hello>>,
    /// State of its copy as last heard in this session.
    pub disk: Disk,
    /// It serves clients, as last heard in this session.
    pub is_primary: bool,
    /// What it lacks, as far as we know.
    pub dirty: Bitmap,
    pub writer: PageWriter,
    /// Pages of bits that the metadata has room for.
    pub pages_max: usize,
    /// We wait with our hello until a record under way is settled.
    pub hello_owed: bool,
    /// Exchange: where our runs go on; `None` once all are said.
    pub runs_from: Option<u64>,
    pub runs_received: bool,
    /// Exchange: each has said that it judged the other's hello: they began to say runs.
    pub began: Began,
    /// Exchange: what must be durable here before it ends.
    pub gate: Gate,
    /// It waits for our word that its identity is durable here.
    pub adoption_owed: bool,
    /// We made our disk durable for it in this session.
    pub flushed_here: bool,
    /// Law T9: it was in S with us, in an unbroken session of this process, until it vanished.
    pub vanished_in_sync: bool,
    /// A dial or probe failed since the link went down.
    pub unreachable: bool,
    /// When the session entered its state; handshakes have a deadline (law L3).
    pub since: Instant,
    /// Why it was last refused.
    pub last_refusal: Option<Refusal>,
    /// Split brain: what the two told each other, until they fit again.
    pub parting: Option<Box<super::parting::Parting>>,
    /// Credit that it granted and we used.
    pub operations_out: u32,
    pub bytes_out: u64,
    /// Reads of clients that it was given.
    pub reads: super::balance::Leg,
    /// Writes of it above its `stable` mark: may differ there after it vanished.
    pub unstable: VecDeque<(Seq, Extent)>,
    /// Newest seq it stamped.
    pub seen: Seq,
    /// Everything up to here is durable on all of S, as it said.
    pub durable: Seq,
    pub source: super::source::Source,
    pub target: super::target::Target,
    /// Figures of the resync towards it that ended last.
    pub last_resync: Option<super::status::ResyncFigures>,
    /// Pause and rate as its operator set them.
    pub wish: Wish,
    /// Its pause after it was too late.
    pub back_off: super::back_off::BackOff,
    /// That pause goes on: it is given nothing yet, and what is written is marked for it.
    pub is_held_back: bool,
    /// A record was sent and not yet acknowledged.
    pub record_pending: bool,
    /// Attributes and marks, as told in this session.
    pub told: super::attributes::Told,
    /// Whether it has room for a larger volume, as it says in this session.
    pub room: Room,
    /// Pages of marks that a target is still to be told: the next slot and page.
    pub mark_pages: Option<(u8, usize)>,
}

/// What a peer says of its room to grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Room {
    #[default]
    Unasked,
    /// For so many granules.
    Asked(u64),
    /// It has it, durably.
    Ready(u64),
    /// It has none, and why; so many granules are the most its metadata can hold.
    Lacking(Status, u64),
}

/// What an operator wants of the resync on the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub paused: bool,
    /// Bytes per second; 0 is no limit.
    pub rate: u64,
}

/// What an exchange still needs on our own disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Nothing.
    Open,
    /// The superblock of this version.
    Superblock(u64),
    /// Every bitmap page of the peer, then the superblock with its incarnation (law S11).
    AllDirty,
}

/// Who has begun an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Began {
    pub here: bool,
    pub there: bool,
}

/// All of them, by node index.
pub(super) struct Peers {
    peers: Vec<Option<Peer>>,
}

impl Peers {
    pub fn new(me: NodeIdx, bitmaps: Vec<PeerBitmap>) -> Peers {
        let mut peers: Vec<Option<Peer>> = (0..NODES_MAX).map(|_| None).collect();
        for PeerBitmap {
            peer,
            bitmap,
            writer,
            pages_max,
        } in bitmaps
        {
            // The volume's table may have given this node an index that was another's.
            if peer != me {
                peers[usize::from(peer.0)] = Some(Peer::new(peer, bitmap, writer, pages_max));
            }
        }
        Peers { peers }
    }

    /// One more, of which nothing is known.
    pub fn add(&mut self, node: NodeIdx, dirty: Bitmap, writer: PageWriter, pages_max: usize) {
        self.peers[usize::from(node.0)] = Some(Peer::new(node, dirty, writer, pages_max));
    }

    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.peers.iter_mut().flatten()
    }

    pub fn find(&self, node: NodeIdx) -> Option<&Peer> {
        self.peers.get(usize::from(node.0))?.as_ref()
    }

    pub fn find_mut(&mut self, node: NodeIdx) -> Option<&mut Peer> {
        self.peers.get_mut(usize::from(node.0))?.as_mut()
    }

    /// The peer, which the caller knows to exist.
    pub fn get(&self, node: NodeIdx) -> &Peer {
        self.find(node).expect("the node is a peer of this volume")
    }

    /// The peer, which the caller knows to exist.
    pub fn get_mut(&mut self, node: NodeIdx) -> &mut Peer {
        self.find_mut(node)
            .expect("the node is a peer of this volume")
    }

    /// Who speaks on `link`. Others are late words of a session that is over (law R10).
    pub fn by_link(&self, link: LinkId) -> Option<NodeIdx> {
        self.iter()
            .find(|p| p.session.link() == Some(link))
            .map(|p| p.node)
    }

    /// Indexes of all peers: for loops that need the whole volume meanwhile.
    pub fn nodes(&self) -> impl Iterator<Item = NodeIdx> + use<> {
        let known: crate::units::NodeSet = self
            .iter()
            .fold(Default::default(), |set, p| set.with(p.node));
        (0..NODES_MAX as u8)
            .map(NodeIdx)
            .filter(move |n| known.has(*n))
    }
}

impl Peer {
    fn new(node: NodeIdx, dirty: Bitmap, writer: PageWriter, pages_max: usize) -> Peer {
        Peer {
            node,
            session: Session::Connecting,
            hello: None,
            said: None,
            disk: Disk::Blank,
            is_primary: false,
            dirty,
            writer,
            pages_max,
            hello_owed: false,
            runs_from: None,
            runs_received: false,
            began: Began::default(),
            gate: Gate::Open,
            adoption_owed: false,
            flushed_here: false,
            vanished_in_sync: false,
            unreachable: false,
            since: Instant(0),
            last_refusal: None,
            parting: None,
            operations_out: 0,
            bytes_out: 0,
            reads: Default::default(),
            unstable: VecDeque::new(),
            seen: Seq(0),
            durable: Seq(0),
            source: Default::default(),
            target: Default::default(),
            last_resync: None,
            wish: Wish::default(),
            back_off: Default::default(),
            is_held_back: false,
            record_pending: false,
            told: Default::default(),
            room: Room::Unasked,
            mark_pages: None,
        }
    }

    /// Its hello fits and its session goes on: its words of role and disk can be used.
    pub fn is_connected(&self) -> bool {
        !self.is_parted()
            && !matches!(
                self.session,
                Session::Standalone(_) | Session::Connecting | Session::Handshake(_)
            )
    }

    /// Split brain, and the link stands.
    pub fn is_parted(&self) -> bool {
        matches!(
            self.session,
            Session::Parted(..) | Session::Exchange(_, Plan::Parted(_))
        )
    }

    /// The connection on which it is given what it lacks.
    pub fn source_link(&self) -> Option<LinkId> {
        match self.session {
            Session::Source(link) => Some(link),
            _ => None,
        }
    }

    /// It speaks in strong hashes.
    pub fn knows_hashes(&self) -> bool {
        let offers = |h: &Hello| h.features_offered & crate::agree::FEATURE_HASHES != 0;
        self.hello.as_deref().is_some_and(offers)
    }

    /// A member by its session, or one whose joining was offered in this session.
    pub fn takes_part(&self) -> bool {
        match self.session {
            Session::InSync(_) => true,
            Session::Source(_) => self.source.is_joining(),
            _ => false,
        }
    }

    /// Application writes are sent to it.
    #[inline]
    pub fn takes_data(&self) -> bool {
        self.session.data_link().is_some() && self.disk != Disk::Failed && !self.is_held_back
    }

    /// Room for one more write of `bytes` within what it granted. A write larger than the whole
    /// grant goes alone.
    pub fn has_credit(&self, bytes: u64) -> bool {
        let Some(hello) = &self.hello else {
            return false;
        };
        self.operations_out < hello.credit_operations
            && (self.bytes_out == 0 || self.bytes_out + bytes <= hello.credit_bytes)
    }

    /// A write was sent.
    pub fn use_credit(&mut self, bytes: u64) {
        self.operations_out += 1;
        self.bytes_out += bytes;
    }

    /// A write was answered.
    pub fn return_credit(&mut self, bytes: u64) {
        self.operations_out = self.operations_out.saturating_sub(1);
        self.bytes_out = self.bytes_out.saturating_sub(bytes);
    }
}
