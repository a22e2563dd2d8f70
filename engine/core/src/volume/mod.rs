//! One slice of one volume on one node: everything that happens to it, in one place in time.
//!
//! ```text
//!            ┌ client.rs    admit · order · warm · stamp · fan out · acknowledge
//!            ├ member.rs    what a primary sends us: order · warm · write · confirm
//!  handle ───┼ link.rs      sessions begin and end          (session.rs, agree.rs: pure)
//!            ├ handshake.rs two hellos      ├ exchange.rs   what may differ
//!            ├ answer.rs    how a request ends      ├ wishes.rs     of a resync: pause, rate
//!            ├ source.rs / target.rs   pulled resync        ├ flush.rs   rounds, epochs
//!            ├ role.rs, promote.rs, drain.rs   who serves   ├ record.rs  S, superblock
//!            ├ log.rs       activity log and bitmap pages   ├ disk.rs    completions, failures
//!            ├ marks/       what changed since a point      ├ attributes.rs  SetAttr
//!            ├ remote.rs    reads through another member    ├ balance.rs    who reads
//!            ├ checksums.rs pages in memory         ├ repair.rs, scrub.rs   what does not match
//!            ├ grow.rs      a larger volume         ├ votes.rs     this node as a voter
//!            ├ nodes.rs, newcomers.rs   the table; bitmaps of who came
//!            ├ voters.rs    who votes; polls        ├ election.rs, lease.rs  who may serve
//!            └ register.rs  what votes in their place
//! ```
//!
//! What it does not do: touch bytes, sockets, clocks. See `action.rs` for who owns a buffer.

mod adopt;
mod allowance;
mod answer;
mod attributes;
mod back_off;
mod balance;
mod checksums;
mod client;
mod disk;
mod drain;
mod election;
mod exchange;
mod extents;
mod flush;
mod give_up;
mod grow;
mod hand_over;
mod handshake;
mod lease;
mod link;
mod log;
mod majority;
mod marks;
mod member;
mod meta_watch;
mod meter;
mod newcomers;
mod nodes;
mod older;
mod ops;
mod pace;
mod parting;
mod peer;
mod promote;
mod record;
mod register;
mod remote;
mod repair;
mod role;
mod scrub;
mod source;
mod status;
mod target;
mod timers;
mod verify;
mod voters;
mod votes;
mod window;
mod wishes;

use std::collections::VecDeque;
use std::time::Duration;

use crate::action::{ACTIONS_PER_TURN, Action, Notice, Outcome};
use crate::activity_log::ActivityLog;
use crate::event::{Command, Event, ReqId, SessionId};
use crate::message::Disk;
use crate::meta::Loaded;
use crate::overlap::Overlap;
#[cfg(feature = "planted")]
use crate::planted::Bug;
use crate::quorum::{Quorum, QuorumLoss};
use crate::table::Table;
use crate::time::Instant;
use crate::units::{NODES_MAX, NodeIdx, NodeSet, Seq};
use crate::verdict::Policy;

use adopt::Adopting;
use attributes::Store;
use checksums::Checksums;
use flush::{Flushing, MemberFlushes};
use give_up::GivingUp;
use grow::{Growing, Lengthening};
use log::PageWrites;
use marks::Marks;
use newcomers::Newcomer;
use nodes::Nodes;
use ops::Ops;
use peer::Peers;
use record::Durable;
use repair::Repairs;
use role::Role;
use scrub::Scrubbing;
use verify::Verifying;
use votes::Votes;

pub use extents::Run;
pub use marks::MarkStatus;
pub use parting::{PartingStatus, SideStatus};
pub use scrub::{ChecksumStatus, ScrubFigures};
pub use status::{
    PeerStatus, ReadCounts, ResyncFigures, ResyncState, ResyncStatus, RoleStatus, Status,
    VotesStatus,
};

/// What a volume is told when it is attached. Fixed for its life.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This node's index.
    pub node: NodeIdx,
    /// The nodes as the file lists them: what counts until the volume has a table of its own.
    pub table: Table,
    /// Who chooses records.
    pub quorum: Quorum,
    /// With a majority: how long a voter that granted a lease promises nobody else (law T7).
    pub lease: Duration,
    /// With a majority: a member of S promotes itself when who reigned does not any more.
    pub auto_promote: bool,
    /// With a majority: what becomes of requests while there is none.
    pub on_quorum_loss: QuorumLoss,
    /// Cluster name.
    pub cluster: String,
    /// Volume name.
    pub volume: String,
    /// Digest of the volume's part of the configuration, names of its nodes among it.
    pub config_digest: u64,
    /// The same without those names: once the volume has a table of its own.
    pub config_digest_unnamed: u64,
    /// When a write is acknowledged.
    pub policy: Policy,
    /// Reads outstanding on the own disk beyond those of a member of S from which on that member
    /// is given some, if it answers sooner; 0 looks at the numbers alone. `None`: the own disk
    /// reads all it can.
    pub read_margin: Option<u32>,
    /// Fewest members of S with which writes are acknowledged (law R4).
    pub min_copies: u32,
    /// In a split brain a copy in which nothing was written is given up without an operator.
    pub discards_unchanged: bool,
    /// Age of an unanswered request after which a member leaves S (law L4).
    pub member_timeout: Duration,
    /// A write that the disk calls done may be lost with power.
    pub has_volatile_cache: bool,
    /// The backing is memory: blank after every restart.
    pub is_memory: bool,
    /// Limit of resync and verify in bytes per second, until a command sets another; 0: none.
    pub resync_rate: u64,
    /// Boot id of this machine.
    pub boot_id: u128,
    /// Fresh randomness: branch ids and volume ids are made of it.
    pub entropy: u128,
    /// Client requests admitted at once.
    pub requests_max: usize,
    /// Writes of a primary accepted at once; granted to it as credit.
    pub peer_requests_max: usize,
    /// Payload bytes of a primary accepted at once; granted to it as credit.
    pub peer_bytes_max: u64,
    /// Pages of checksums held in memory, where they are stored: at least [`SUM_PAGES_MIN`].
    pub sum_pages: usize,
    /// The planted fault, if any.
    #[cfg(feature = "planted")]
    pub bug: Option<Bug>,
}

/// The replica of one volume on this node.
pub struct Volume {
    setup: Setup,
    me: NodeIdx,
    now: Instant,
    size: u64,
    /// Superblock as it should be, and how much of it is durable.
    durable: Durable,
    role: Role,
    ops: Ops,
    overlap: Overlap,
    log: ActivityLog,
    pages: PageWrites,
    peers: Peers,
    flush: Flushing,
    /// Flushes under way for a primary.
    flushes: MemberFlushes,
    /// A record told by a primary, until it is durable here.
    adopting: Option<Adopting>,
    attributes: Store,
    /// Who belongs to the volume.
    nodes: Nodes,
    /// Bitmaps of newcomers that are not committed yet, in the order of their regions.
    newcomers: Vec<Newcomer>,
    marks: Marks,
    growing: Option<Growing>,
    giving_up: Option<GivingUp>,
    /// Number of the newest salvage.
    salvages: u32,
    /// Clients attached, as the shell says.
    clients: u32,
    /// When a client last wrote here.
    last_write: Option<Instant>,
    lengthening: Lengthening,
    checksums: Checksums,
    repairs: Repairs,
    scrub: Scrubbing,
    verify: Verifying,
    votes: Votes,
    /// By node: the superblock that carries which run of it was met last.
    peers_run: [u64; NODES_MAX],
    /// Reads whose bytes are there, and whose answer waits for the lease (law T7).
    wait_lease: Vec<u32>,
    /// Peers that are about to join S: their confirmation is needed already (law T4).
    joining: NodeSet,
    /// Sessions being closed, until nothing of them runs.
    closing: Vec<SessionId>,
    /// Newest seq given out; seqs stay dense while this process reigns.
    seq: Seq,
    /// Everything up to here is confirmed by all of S.
    stable: Seq,
    /// Everything up to here is durable on all of S and on connected sync targets.
    durable_seq: Seq,
    /// Operations whose range was granted in this turn.
    granted: Vec<u32>,
    /// Operations that wait for room in the activity log, in order of arrival.
    wait_log: VecDeque<u32>,
    /// Operations that wait for credit, a record or the seq window, in order of arrival.
    wait_dispatch: VecDeque<u32>,
    /// Actions of this turn, and those that did not fit into the last ones.
    actions: Vec<Action>,
    backlog: VecDeque<Action>,
    /// Reads given to the own disk.
    local_reads: balance::Leg,
    read_counts: ReadCounts,
    resync_paused: bool,
    resync_rate: u64,
    /// How fast resync and verify read here beside clients, and when one of them looks again.
    pace: pace::Pace,
    pace_at: Option<Instant>,
    /// Whose request is begun next.
    source_turn: usize,
    /// Flushes begun as a sync target, over all sessions.
    resync_flushes: u32,
    /// The last copy said it is full; cleared by the next write that succeeds.
    is_full: bool,
    /// Events handled.
    turn: u64,
    tick_at: Option<Instant>,
    /// It is only for what ages: what begins meanwhile wants one sooner.
    is_tick_slow: bool,
    aged_at: Instant,
    /// Writes of metadata under way.
    meta_watch: meta_watch::MetaWatch,
}

/// Confirmation windows are this much larger than the tables, so that one slow operation does
/// not hold up the rest.
const SEQ_WINDOW_FACTOR: usize = 4;
/// Fewest pages of checksums in memory: the largest operation touches 18, and others go on beside.
pub const SUM_PAGES_MIN: usize = 24;
/// Operations of our own that hold ranges: resync, verify, reads for peers.
const INTERNAL_OPS: usize = 512;

impl Volume {
    /// A volume on what was found on disk. Feed `Event::Start` first.
    pub fn attach(setup: Setup, mut loaded: Loaded) -> Volume {
        let slots = setup.requests_max + setup.peer_requests_max + INTERNAL_OPS;
        let recovered: Vec<_> = loaded.activity_log.iter().flatten().copied().collect();
        let log_slots = loaded.superblock.activity_log_slots as usize;
        let size = loaded.superblock.size_granules;
        let me = setup.node;
        let table = nodes::stored(&loaded.attributes.attributes);
        let table = table.unwrap_or_else(|| setup.table.clone());
        let own = table.entry(me).map_or_else(String::new, |e| e.name.clone());
        let marks = Marks::new(&mut loaded);
        let checksums = Checksums::new(loaded.sum_region, setup.sum_pages);
        let pages = PageWrites::new(loaded.activity_log_writer, loaded.bitmaps.len());
        let mut volume = Volume {
            me,
            now: Instant::default(),
            size,
            durable: Durable::new(loaded.superblock, loaded.superblock_writer),
            role: Role::Secondary,
            ops: Ops::new(slots, setup.requests_max, slots * SEQ_WINDOW_FACTOR),
            overlap: Overlap::new(slots),
            log: ActivityLog::new(&recovered[..log_slots]),
            pages,
            peers: Peers::new(me, loaded.bitmaps),
            flush: Flushing::new(),
            flushes: MemberFlushes::default(),
            adopting: None,
            attributes: Store::new(loaded.attributes),
            marks,
            growing: None,
            giving_up: None,
            salvages: 0,
            clients: 0,
            last_write: None,
            lengthening: Lengthening::default(),
            checksums,
            repairs: Repairs::default(),
            scrub: Scrubbing::default(),
            verify: Verifying::default(),
            votes: Votes::new(table.digest(setup.quorum == Quorum::Register)),
            nodes: Nodes::new(table.clone(), own),
            newcomers: Vec::new(),
            peers_run: [0; NODES_MAX],
            wait_lease: Vec::new(),
            joining: NodeSet::EMPTY,
            closing: Vec::new(),
            seq: Seq(0),
            stable: Seq(0),
            durable_seq: Seq(0),
            granted: Vec::with_capacity(slots),
            wait_log: VecDeque::with_capacity(slots),
            wait_dispatch: VecDeque::with_capacity(slots),
            actions: Vec::with_capacity(ACTIONS_PER_TURN),
            backlog: VecDeque::with_capacity(slots),
            local_reads: Default::default(),
            read_counts: ReadCounts::default(),
            resync_paused: false,
            resync_rate: setup.resync_rate,
            pace: pace::Pace::default(),
            pace_at: None,
            source_turn: 0,
            resync_flushes: 0,
            is_full: false,
            turn: 0,
            tick_at: None,
            is_tick_slow: false,
            aged_at: Instant::default(),
            meta_watch: Default::default(),
            setup,
        };
        volume.account_for(&table);
        volume.recover();
        volume
    }

    /// Takes one event and says what follows.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        self.now = self.now.max(now);
        self.turn += 1;
        self.actions = std::mem::take(out);
        let first = self.actions.len();
        self.take(event);
        self.settle();
        let emitted = self.actions.len() - first;
        if emitted > ACTIONS_PER_TURN || !self.backlog.is_empty() {
            self.backlog.extend(self.actions.drain(first..));
            let now = self.backlog.len().min(ACTIONS_PER_TURN);
            self.actions.extend(self.backlog.drain(..now));
        }
        *out = std::mem::take(&mut self.actions);
    }

    /// When `Event::Tick` is due at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.backlog.is_empty() {
            Some(self.now)
        } else {
            self.deadline()
        }
    }

    /// Client requests that would be admitted now.
    #[inline]
    pub fn room(&self) -> usize {
        self.ops.client_room()
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Submit { session, req, op } => self.submit(session, req, op),
            Event::DiskDone {
                token,
                result,
                buf,
                is_zero,
            } => {
                self.disk_done(token, result, buf, is_zero);
            }
            Event::Peer {
                link,
                message,
                payload,
            } => self.peer_message(link, message, payload),
            Event::MetaDone { token, result } => self.meta_done(token, result),
            Event::JobDone { token, outcome } => self.job_done(token, outcome),
            Event::SumsRead { token, found } => self.sums_read(token, found),
            Event::Abort { session, req } => self.abort(session, req),
            Event::CloseSession { session } => self.close_session(session),
            Event::Start => self.start_up(),
            Event::Tick => self.tick(),
            Event::LinkUp { peer, link } => self.link_up(peer, link),
            Event::LinkDown { link } => self.link_down(link),
            Event::Unreachable { peer } => self.unreachable(peer),
            Event::Vote { from, ballot } => self.ballot(from, &ballot),
            Event::BackingGrown { size, result } => self.backing_grown(size, result),
            Event::Record(choice) => self.record_choice(choice),
            Event::SalvageDone { token, result } => {
                if let Some((ops::Purpose::Salvage, number, _)) = ops::parts(token) {
                    self.salvage_done(number, result);
                }
            }
            Event::Clients(count) => self.clients = count,
            Event::Register { number, found } => self.register_answered(number, found),
            Event::Command { id, command } => match command {
                Command::Promote { force, wait } => self.promote(id, force, wait),
                Command::TakeOver { wait } => self.take_over(id, wait),
                Command::Demote => self.demote(id),
                Command::Stop => self.stop(id),
                Command::Connect(peer) => self.connect(id, peer),
                Command::Disconnect(peer) => self.disconnect(id, peer),
                Command::ResyncStart { from } => self.resync_start(id, from),
                Command::ResyncPause => self.resync_pause(id, true),
                Command::ResyncResume => self.resync_pause(id, false),
                Command::ResyncRate(rate) => self.set_resync_rate(id, rate),
                Command::GiveUp { to, token } => self.give_up(id, to, token),
                Command::Verify(repair) => self.start_verify(id, repair),
                Command::Scrub { rate } => self.start_scrub(id, rate),
                Command::MarkCreate { name, created_ms } => self.create_mark(id, name, created_ms),
                Command::MarkDelete { name } => self.delete_mark(id, name),
                Command::Nodes(wanted) => self.want_nodes(id, wanted),
                Command::Grow {
                    size,
                    backing_bytes,
                } => self.grow(id, size, backing_bytes),
            },
        }
    }

    /// Lets everything go on whose condition may have come true in this turn.
    fn settle(&mut self) {
        self.start_granted();
        while std::mem::take(&mut self.ops.attention) {
            self.settle_round_of_conditions();
            self.start_granted();
        }
        if self.tick_at.is_none() || self.is_tick_slow {
            self.arm_tick();
        }
    }

    /// Each step looks at its own condition, does what it allows, and asks for another look if
    /// that may let something else go on. Writes of metadata come last, so that they carry all.
    fn settle_round_of_conditions(&mut self) {
        if self.durable.has_failed {
            return self.settle_failed();
        }
        self.settle_votes();
        self.settle_register();
        self.settle_adopting();
        self.settle_poll();
        self.settle_record();
        self.settle_membership();
        for node in self.peers.nodes() {
            self.settle_hello(node);
            self.settle_adoption(node);
            self.settle_exchange(node);
            self.settle_waiting(node);
            self.settle_target(node);
            self.settle_mark_pages(node);
            self.settle_told(node);
            self.settle_join(node);
        }
        self.settle_giving_up();
        self.settle_sources();
        self.settle_role();
        self.settle_voters();
        self.settle_nodes();
        self.settle_newcomers();
        self.settle_verify();
        self.settle_repairs();
        self.settle_scrub();
        self.settle_checksums();
        self.settle_marks();
        self.settle_growth();
        self.begin_round();
        self.dispatch_waiting();
        self.settle_log();
        self.write_sums();
        self.write_attributes();
        self.write_superblock();
    }

    /// What waited for credit, a record or the seq window, in order of arrival.
    fn dispatch_waiting(&mut self) {
        while let Some(slot) = self.wait_dispatch.front().copied() {
            let is_client = self.ops.get(slot).is_client();
            let may_go = match is_client {
                true => self.may_dispatch(slot),
                false => self.may_write_as_member(slot),
            };
            if !may_go {
                return;
            }
            self.wait_dispatch.pop_front();
            match is_client {
                true => self.fan_out(slot),
                false => self.warm(slot),
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.actions.push(Action::Notice(notice));
    }

    fn complete(&mut self, session: SessionId, req: ReqId, outcome: Outcome) {
        self.actions.push(Action::Complete {
            session,
            req,
            outcome,
        });
    }

    /// Several replicas are configured: there is a log, bitmaps and sessions.
    fn is_mirrored(&self) -> bool {
        self.nodes.replicas().count() > 1
    }

    /// Records are chosen: by a majority of voters, or by a register in their place.
    #[inline]
    fn has_votes(&self) -> bool {
        self.setup.quorum != Quorum::Off
    }

    fn disk(&self) -> Disk {
        self.durable.sb.disk
    }

    /// This node's disk may be written and read.
    #[inline]
    fn is_disk_usable(&self) -> bool {
        self.durable.sb.disk != Disk::Failed && !self.durable.has_failed
    }

    /// This node is all of S and its disk has failed: every request fails, and no round of flushes
    /// can ever be durable (table F, the last member).
    #[inline]
    fn has_lost_last_copy(&self) -> bool {
        !self.is_disk_usable() && self.required() == NodeSet::only(self.me)
    }

    #[cfg(feature = "planted")]
    #[inline]
    fn planted(&self, bug: Bug) -> bool {
        self.setup.bug == Some(bug)
    }
}

/// `if planted!(self, Name)`: is this fault planted? Constant `false` without the feature.
macro_rules! planted {
    ($volume:expr, $bug:ident) => {{
        #[cfg(feature = "planted")]
        let is = $volume.planted($crate::planted::Bug::$bug);
        #[cfg(not(feature = "planted"))]
        let is = false;
        is
    }};
}
use planted;

#[cfg(test)]
mod tests;
