//! What a volume says of itself. Read-only, for people and checkers.

use crate::action::VerifyFigures;
use crate::generation::Chain;
use crate::message::{Disk, Refusal};
use crate::record::Record;
use crate::session::Session;
use crate::units::{GRANULE, NodeIdx, NodeSet, Seq};

use super::Volume;
use super::role::Role;
use super::voters::RECENT;
use super::window::PIECE;

/// A volume as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What this node does for it.
    pub role: RoleStatus,
    /// State of this node's copy.
    pub disk: Disk,
    /// It lost no stored write.
    pub is_whole: bool,
    /// Metadata could not be written: nothing is promised any more.
    pub has_meta_failed: bool,
    /// The last copy is full.
    pub is_full: bool,
    /// Identity, 0 before founding.
    pub volume_id: u128,
    /// Record in force here.
    pub record: Option<Record>,
    /// Reigns whose data this copy holds.
    pub chain: Chain,
    /// Members of S.
    pub in_sync: NodeSet,
    /// Newest seq stamped here.
    pub seq: Seq,
    /// Everything up to here is confirmed by all of S.
    pub stable: Seq,
    /// Every other configured node.
    pub peers: Vec<PeerStatus>,
    /// A verify runs.
    pub is_verifying: bool,
    /// What the newest verify found so far.
    pub verify: VerifyFigures,
    /// Verifies that compared everything, since this process began.
    pub verifies_completed: u64,
    /// Granules per second of the verify that runs; `None` while it is too early.
    pub verify_rate: Option<u64>,
    /// An operator paused resync on this node.
    pub is_resync_paused: bool,
    /// Reads that went from one node to the other, since it was attached.
    pub reads: ReadCounts,
    /// What this node knows of votes; `None` where nobody votes.
    pub votes: Option<VotesStatus>,
    /// Stored checksums; `None` where there are none.
    pub checksums: Option<super::ChecksumStatus>,
}

/// Votes as one node knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VotesStatus {
    /// Who votes, by the newest record this node voted for; nobody before founding.
    pub voters: NodeSet,
    /// Nodes that have a vote and used it lately, this one among them. Only who reigns, or wants
    /// to, asks all of them.
    pub heard: NodeSet,
    /// S of the newest record this node voted for.
    pub in_sync: NodeSet,
    /// This node serves, and nobody else can have been chosen now.
    pub holds_lease: bool,
    /// Who serves, as [`Volume::reigning`].
    pub reigning: Option<NodeIdx>,
}

/// Reads that went from one node to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// Reads of clients here that another node answered.
    pub by_peers: u64,
    /// Reads of another node's clients that this node answered.
    pub for_peers: u64,
}

/// Role as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleStatus {
    /// Does not serve.
    Secondary,
    /// On its way to serve.
    Promoting,
    /// Serves clients.
    Primary,
    /// On its way to serve no more.
    Demoting,
    /// On its way to stop.
    Stopping,
    /// Stopped; nothing follows.
    Stopped,
}

/// One other node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub node: NodeIdx,
    /// State of the session.
    pub session: Session,
    /// State of its copy, as last heard in this session; `None` without one.
    pub disk: Option<Disk>,
    /// It serves clients.
    pub is_primary: bool,
    /// Granules it lacks, as far as this node knows; on a target: granules still to pull.
    pub out_of_sync: u64,
    /// The resync under way.
    pub resync: Option<ResyncStatus>,
    /// Figures of the resync towards it that ended last, since this process began.
    pub last_resync: Option<ResyncFigures>,
    /// Why it was last refused, by either side.
    pub last_refusal: Option<Refusal>,
    /// Waits for an operator after a verify.
    pub is_held: bool,
    /// Its operator paused the resync.
    pub is_paused: bool,
}

/// A resync under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResyncStatus {
    /// What it does now.
    pub state: ResyncState,
    /// What it took so far, in this session.
    pub figures: ResyncFigures,
    /// Mean over about half a minute in which it could move; `None` while it is too early.
    pub granules_per_second: Option<u64>,
}

/// Granules of one resync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResyncFigures {
    /// Durable and equal on the target now, as it confirmed; on a target: stored or equal.
    pub moved: u64,
    /// Of those, sent as bytes. Known to the source, like those that follow.
    pub sent: u64,
    /// Sent as zeros: no bytes.
    pub zeroed: u64,
}

impl ResyncFigures {
    /// Granules that were found equal and never travelled.
    pub fn equal(&self) -> u64 {
        self.moved.saturating_sub(self.sent + self.zeroed)
    }
}

/// What a resync does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResyncState {
    /// It moves, and not for long enough to say how fast.
    Estimating,
    /// It moves.
    Moving,
    /// An operator of this node paused it.
    PausedHere,
    /// An operator of the other node paused it.
    PausedThere,
    /// It was too late before, and waits until it is let in again.
    BackingOff,
    /// A verify found differences, and nobody said whose data is kept.
    AwaitsOperator,
    /// As fast as the configured rate.
    HeldByRate,
    /// Slowed down because clients would suffer.
    HeldByClients,
    /// It could move, and did not for a while.
    Stalled,
    /// Nothing is left to move; the target is about to join S.
    Joining,
}

impl ResyncState {
    /// Somebody wants it to wait: time without movement says nothing about its speed. What waits for
    /// its rate has the speed it is to have.
    pub(super) fn is_held(self) -> bool {
        !matches!(
            self,
            ResyncState::Estimating
                | ResyncState::Moving
                | ResyncState::Stalled
                | ResyncState::HeldByRate
        )
    }
}

impl Volume {
    /// What this volume says of itself now.
    pub fn status(&self) -> Status {
        let sb = &self.durable.sb;
        let (is_verifying, verify) = self.verify.state();
        Status {
            role: match self.role {
                Role::Secondary => RoleStatus::Secondary,
                Role::Promoting(_) => RoleStatus::Promoting,
                Role::Primary => RoleStatus::Primary,
                Role::Demoting(_) => RoleStatus::Demoting,
                Role::Stopping(_) => RoleStatus::Stopping,
                Role::Stopped => RoleStatus::Stopped,
            },
            disk: sb.disk,
            is_whole: sb.whole,
            has_meta_failed: self.durable.has_failed,
            is_full: self.is_full,
            volume_id: sb.volume_id,
            record: self.record(),
            chain: sb.chain.clone(),
            in_sync: self.in_sync(),
            seq: self.seq,
            stable: self.stable,
            peers: self
                .peers
                .nodes()
                .map(|node| self.peer_status(node))
                .collect(),
            is_verifying,
            verify: verify.clone(),
            verifies_completed: self.verify.completed,
            verify_rate: self.verify.rate(),
            is_resync_paused: self.resync_paused,
            reads: self.read_counts,
            votes: self.has_votes().then(|| self.votes_status()),
            checksums: self.checksum_status(),
        }
    }

    /// Who may serve now, as far as this voter knows: it holds the lease itself, or granted one to
    /// that node which has not run out. Costs nothing.
    #[inline]
    pub fn reigning(&self) -> Option<NodeIdx> {
        if self.role.is_serving() && self.holds_lease() {
            return Some(self.me);
        }
        let grant = self.votes.grant;
        let is_other = grant.term.0 != 0 && grant.term.author() != self.me;
        (is_other && self.now < grant.until).then(|| grant.term.author())
    }

    /// Nodes with a vote of this volume that said something lately, this one among them.
    fn heard_voters(&self) -> NodeSet {
        let own = self.durable.sb.volume_id;
        let is_near = |node: &NodeIdx| {
            let met = self.votes.met(*node, self.now, RECENT);
            met.is_some_and(|met| met.has_vote && met.volume_id == own)
        };
        let heard = self.others().iter().filter(is_near);
        heard.fold(NodeSet::only(self.me), NodeSet::with)
    }

    /// Voters that said nothing lately.
    pub(super) fn unheard_voters(&self) -> NodeSet {
        let voters = self.newest_known().map_or(NodeSet::EMPTY, |r| r.voters);
        voters.minus(self.heard_voters())
    }

    fn votes_status(&self) -> VotesStatus {
        let voted = self.newest_known();
        VotesStatus {
            voters: voted.map_or(NodeSet::EMPTY, |r| r.voters),
            heard: self.heard_voters(),
            in_sync: voted.map_or(NodeSet::EMPTY, |r| r.in_sync),
            holds_lease: self.role.is_serving() && self.holds_lease(),
            reigning: self.reigning(),
        }
    }

    fn resync_status(&self, node: NodeIdx) -> Option<ResyncStatus> {
        let peer = self.peers.get(node);
        let (figures, meter, state) = match peer.session {
            Session::Source(_) => {
                let source = &peer.source;
                let state = source.state(self.pace.is_limiting());
                (source.figures, source.meter, state)
            }
            Session::Target(_) => {
                let target = &peer.target;
                (target.figures(), target.meter, target.state())
            }
            _ => return None,
        };
        let rate = meter.rate();
        let limit = self.resync_limit(node);
        // A rate that is nearly its limit is held by it, and so is one of which a piece takes about as
        // long as what is called a stall.
        let is_near = rate.is_some_and(|r| r * GRANULE >= limit / 4 * 3);
        let is_limited = limit > 0 && (is_near || limit < PIECE / 8);
        let state = match state {
            _ if self.durable.sb.held.has(node) => ResyncState::AwaitsOperator,
            _ if peer.is_held_back => ResyncState::BackingOff,
            _ if peer.wish.paused => ResyncState::PausedThere,
            _ if self.resync_paused => ResyncState::PausedHere,
            ResyncState::Moving | ResyncState::Stalled if is_limited => ResyncState::HeldByRate,
            state => state,
        };
        Some(ResyncStatus {
            state,
            figures,
            granules_per_second: rate,
        })
    }

    fn peer_status(&self, node: NodeIdx) -> PeerStatus {
        let peer = self.peers.get(node);
        let out_of_sync = match peer.session {
            Session::Target(_) => {
                let progress = peer.target.progress;
                progress.total.saturating_sub(progress.moved)
            }
            _ => peer.dirty.count_granules(),
        };
        PeerStatus {
            node,
            session: peer.session,
            disk: peer.is_connected().then_some(peer.disk),
            is_primary: peer.is_connected() && peer.is_primary,
            out_of_sync,
            resync: self.resync_status(node),
            last_resync: peer.last_resync,
            last_refusal: peer.last_refusal,
            is_held: self.durable.sb.held.has(node),
            is_paused: peer.wish.paused,
        }
    }

    /// What `peer` lacks, as this node knows, if it keeps account of it: for checkers.
    #[cfg(feature = "inspect")]
    pub fn dirty(&self, peer: NodeIdx) -> Option<&crate::bitmap::Bitmap> {
        self.peers.find(peer).map(|p| &p.dirty)
    }

    /// Open runs of the activity log in memory: for checkers.
    #[cfg(feature = "inspect")]
    pub fn open_extents(&self) -> Vec<crate::units::Extent> {
        let size = self.size;
        self.log
            .open()
            .filter_map(|r| crate::activity_log::granules_of(r, size))
            .collect()
    }

    /// Extents written for a primary that are not known to be stable: for checkers.
    #[cfg(feature = "inspect")]
    pub fn unstable(&self, peer: NodeIdx) -> Vec<crate::units::Extent> {
        self.peers
            .get(peer)
            .unstable
            .iter()
            .map(|(_, extent)| *extent)
            .collect()
    }

    /// Operations in the table: for checkers.
    #[cfg(feature = "inspect")]
    pub fn operations(&self) -> usize {
        self.ops.each().count()
    }
}
