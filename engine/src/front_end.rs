//! What a client protocol implements, and what it may use: [`Connection`] and [`Ctx`].
//!
//! ```text
//!  listener, negotiation (any thread) ── NodeHandle::attach(volume, Attachment) ──► reactor
//!      reactor: make(ctx) ─► Connection
//!        on_io / on_complete / on_extents / on_room / on_timer   any number per turn
//!        flush                                                   once, at the end of that turn
//!        drain ─► (answer what was submitted) ─► ctx.end()       the node wants it gone
//!        drain(HandOver) ─► ctx.end() ─► on_quiet ─► ctx.hand_over(state)    another process goes on
//!        ctx.end() ─► core drops what is not dispatched ─► on_quiet ─► ctx.finish() ─► dropped
//! ```
//!
//! The engine knows no protocol: a connection owns its parser, its buffers and its replies. It
//! lives on its volume's reactor and is called from that thread only. Callbacks are never nested:
//! what `Ctx::submit` causes is delivered after the callback returned.
//!
//! Buffers: a connection takes them from `ctx.arena()` (`Class::Client` for payload, `Class::Net`
//! for headers and receive buffers), keeps its own reference to the buffer of a submitted request
//! until `on_complete`, and releases every one of them before it calls [`Ctx::finish`].

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use engine_core::action::Outcome;
use engine_core::event::{Event, Op, ReqId, SessionId};
use engine_core::time::Instant;
use engine_core::units::ByteRange;
use engine_core::volume::Volume;
use engine_ring::{Arena, BufSlice, Errno, FileId, Op as RingOp, Ring};

use crate::backend::Store;
pub use crate::label::ExportLabel;
use crate::share::Share;
use crate::token::{SHUTDOWN_TAG, Token};

/// One client connection on its volume's reactor.
pub trait Connection {
    /// An operation pushed with `tag` ended. `more` says that further completions follow.
    fn on_io(&mut self, ctx: &mut Ctx<'_>, tag: u32, result: Result<u32, Errno>, more: bool);

    /// The request ended; its buffer is the connection's alone again. Once per submitted request.
    /// With `Outcome::Superseded` the session is dead: nothing of it is answered any more (law B9).
    fn on_complete(&mut self, ctx: &mut Ctx<'_>, req: ReqId, outcome: Outcome);

    /// Answer to [`Ctx::query_extents`]. Errors: `INVAL` for a range the volume does not have,
    /// `NOENT` for a mark it does not have (any more), else why the answer could not be found.
    fn on_extents(&mut self, ctx: &mut Ctx<'_>, tag: u32, result: Result<&[BlockExtent], Errno>);

    /// Something completed since [`Ctx::want_room`]: look at [`Ctx::room`] and the arena again.
    fn on_room(&mut self, ctx: &mut Ctx<'_>);

    /// The moment given to [`Ctx::set_timer`] has come.
    fn on_timer(&mut self, ctx: &mut Ctx<'_>);

    /// End of a turn in which any other callback ran: send everything gathered, in one operation.
    fn flush(&mut self, ctx: &mut Ctx<'_>);

    /// The node wants this connection gone: read no more, answer what was submitted, then call
    /// [`Ctx::end`]. The engine ends it by itself after [`DRAIN_MAX`].
    fn drain(&mut self, ctx: &mut Ctx<'_>, why: DrainReason);

    /// After [`Ctx::end`]: nothing of the session runs any more, every request was completed.
    /// Send what is left to send, release all buffers, then call [`Ctx::finish`].
    /// Call it at once, or from a later callback.
    fn on_quiet(&mut self, ctx: &mut Ctx<'_>);
}

/// Longest time a connection may take from `drain` to `end`, and from `on_quiet` to `finish`,
/// before the engine does it.
pub const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Why a connection is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainReason {
    /// The node stops, or hands its role over: close without a word, clients reconnect elsewhere or
    /// later.
    NodeStops,
    /// The volume leaves for good (deleted, or demoted by force): an answer that says so is right.
    VolumeLeaves,
    /// An operator cut off this client.
    Operator,
    /// Another node may serve the volume already: the session is dead. Answer nothing more, and
    /// call [`Ctx::end`] at once.
    Superseded,
    /// Another process goes on with the client: read no more, call [`Ctx::end`] at once, send the
    /// replies whole, and give the rest to [`Ctx::hand_over`] instead of calling [`Ctx::finish`].
    /// Requests that end with `Outcome::Aborted` had no effect: they belong to the rest.
    HandOver,
}

/// What is asked of the blocks of a volume; each kind has its own flags in [`BlockExtent`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// What is allocated and what reads as zeros: [`BlockExtent::HOLE`], [`BlockExtent::ZERO`].
    /// Every volume offers it.
    Allocation,
    /// What at least one peer is known to lack: [`BlockExtent::LACKING`]. Mirrored volumes offer it.
    Replicated,
    /// What was written since the mark of this name was made: [`BlockExtent::DIRTY`].
    Mark(Arc<str>),
}

/// A run of bytes of one kind, in the answer to [`Ctx::query_extents`]. Runs are adjacent and
/// cover the range asked for from its start, perhaps not to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockExtent {
    /// Bytes.
    pub len: u64,
    /// What holds for all of them, in the bits of the kind that was asked for; 0 is always true
    /// of an allocation.
    pub flags: u32,
}

impl BlockExtent {
    /// Allocation: not allocated, a later write may meet a full disk.
    pub const HOLE: u32 = 1;
    /// Allocation: reads as zeros.
    pub const ZERO: u32 = 2;
    /// Replicated: at least one peer lacks some of it.
    pub const LACKING: u32 = 1;
    /// Mark: written since the mark was made.
    pub const DIRTY: u32 = 1;
}

/// Who is attached, for status and log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Export or target it attached to.
    pub export: ExportLabel,
    /// Its address, or `unix:<pid>`.
    pub address: String,
    /// TLS of its connection.
    pub tls: Option<Box<crate::control::ClientTls>>,
}

/// Makes the connection object on the reactor. It may already push operations and submit; bytes
/// that were read during negotiation are carried in the closure.
pub type MakeConnection = Box<dyn FnOnce(&mut Ctx<'_>) -> Box<dyn Connection> + Send>;

/// A negotiated client on its way to its volume's reactor.
pub struct Attachment {
    /// The stream.
    pub socket: OwnedFd,
    /// Who it is.
    pub client: ClientInfo,
    /// Makes its connection object.
    pub make: MakeConnection,
}

/// Why a client was not attached. The socket is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// No such volume is configured on this node.
    #[error("no volume `{0}`")]
    NotFound(String),
    /// It does not serve clients here now.
    #[error("{0}")]
    NotServed(String),
    /// The reactor's mailbox or table of connections is full.
    #[error("too many connections")]
    Full,
}

/// What negotiation may say of a volume right now. A copy; ask again for each client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeView {
    /// Name in the configuration.
    pub name: String,
    /// Bytes, a multiple of 4096.
    pub size_bytes: u64,
    /// Whether it serves clients.
    pub service: Service,
    /// Releases blocks on trim (thin backings); zeros are promised in any case.
    pub trims: bool,
    /// Clients attached now.
    pub clients: usize,
    /// What it tells of its blocks, in the order offered; [`ExtentKind::Allocation`] is first.
    pub contexts: Vec<ExtentKind>,
}

impl VolumeView {
    /// What a volume with so many replicas tells of its blocks before it has marks.
    pub fn usual_contexts(replicas: usize) -> Vec<ExtentKind> {
        match replicas {
            0 | 1 => vec![ExtentKind::Allocation],
            _ => vec![ExtentKind::Allocation, ExtentKind::Replicated],
        }
    }
}

/// Whether a volume serves clients on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// It is primary here.
    Primary,
    /// It is secondary here; the name of the primary, if known.
    Secondary {
        /// Node that serves it.
        primary: Option<String>,
    },
    /// Not attached, draining, or suspended; the sentence says why.
    Unavailable {
        /// For people.
        reason: String,
    },
}

/// A question for block status.
#[derive(Debug)]
pub(crate) struct Query {
    /// Slot of the connection.
    pub(crate) seat: u16,
    pub(crate) tag: u32,
    pub(crate) range: ByteRange,
    pub(crate) kind: ExtentKind,
}

/// A volume's intake: what connections put in during a turn, before the core sees it.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Requests and the like, in order of arrival.
    pub(crate) events: Vec<Event>,
    /// Block status asked for.
    pub(crate) queries: Vec<Query>,
    /// Requests the core takes now, less those in `events`.
    pub(crate) room: usize,
    /// Size of the volume.
    pub(crate) size_bytes: u64,
    /// Written bytes are read by a device, and by nobody else.
    pub(crate) is_for_device: bool,
    /// Requests taken since attach.
    pub(crate) counters: crate::control::IoCounters,
}

/// How far a connection is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Not at all.
    Open,
    /// `drain` was called; the engine ends it at this moment.
    Draining(Instant),
    /// The core was told to close the session.
    Closing,
    /// The core is done; the engine closes the socket at this moment.
    Quiet(Instant),
    /// The socket is being closed; dropped with the last completion.
    Finished,
}

/// The engine's half of a connection.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) slot: u16,
    pub(crate) session: SessionId,
    pub(crate) socket: FileId,
    /// Ring operations whose last completion is out.
    pub(crate) in_flight: u32,
    pub(crate) wants_room: bool,
    /// Requests submitted and not completed.
    pub(crate) outstanding: usize,
    /// What it may still submit in this turn.
    pub(crate) share: Share,
    pub(crate) timer: Option<Instant>,
    pub(crate) ending: Ending,
    /// `end` or `finish` was called in the current callback.
    pub(crate) asks_end: bool,
    pub(crate) asks_finish: bool,
    /// What a successor needs to go on; set with `asks_finish`.
    pub(crate) bequest: Option<Vec<u8>>,
    /// How long the client had been attached elsewhere before.
    pub(crate) age: Duration,
    /// Requests taken from this client.
    pub(crate) counters: crate::control::IoCounters,
}

/// What a connection may use during a callback.
pub struct Ctx<'a> {
    pub(crate) core: &'a Volume,
    pub(crate) store: &'a mut Store,
    pub(crate) ring: &'a mut dyn Ring,
    pub(crate) arena: &'a mut Arena,
    pub(crate) now: Instant,
    pub(crate) intake: &'a mut Intake,
    pub(crate) seat: &'a mut Seat,
}

impl Ctx<'_> {
    /// The turn's time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The reactor's buffers.
    pub fn arena(&mut self) -> &mut Arena {
        self.arena
    }

    /// The client's stream. The engine closes it after [`Ctx::finish`].
    pub fn socket(&self) -> FileId {
        self.seat.socket
    }

    /// This connection's session; unique in the cluster.
    pub fn session(&self) -> SessionId {
        self.seat.session
    }

    /// Bytes of the volume.
    pub fn size_bytes(&self) -> u64 {
        self.intake.size_bytes
    }

    /// Queues an operation of the ring; it starts with this turn's one system call. `tag` comes
    /// back in `on_io`; below 2^28 - 1. Rules as [`Ring::push`]: one receive and one send per
    /// socket. Nothing may be pushed after [`Ctx::finish`].
    pub fn push(&mut self, tag: u32, op: RingOp<'_>) {
        assert!(tag < SHUTDOWN_TAG, "tag {tag} lies below {SHUTDOWN_TAG}");
        assert!(
            !self.seat.asks_finish,
            "a finished connection pushes nothing"
        );
        self.seat.in_flight += 1;
        self.ring
            .push(self.arena, Token::connection(self.seat.slot, tag).0, op);
    }

    /// Asks that the operations pushed with `tag` end soon; their end is still `on_io`.
    pub fn cancel(&mut self, tag: u32) {
        self.ring.cancel(Token::connection(self.seat.slot, tag).0);
    }

    /// Copies payload that came with its header to the buffer of its request (another one), as
    /// [`Arena::copy`]; past the cache where only a device will read it. There it is seldom in
    /// the cache: the buffer was last read by the device.
    pub fn place(&mut self, from: BufSlice, to: BufSlice) {
        self.intake.counters.copied_bytes += u64::from(from.len);
        self.seat.counters.copied_bytes += u64::from(from.len);
        if self.intake.is_for_device {
            self.arena.copy_past_cache(from, to);
        } else {
            self.arena.copy(from, to);
        }
    }

    /// Whether the buffer of a write of whole granules may begin at any byte, as a
    /// [view](Arena::view) of what was received does: no device reads from it.
    pub fn takes_views(&self) -> bool {
        matches!(self.store, Store::Memory(_))
    }

    /// Requests that may be submitted now: what the volume takes, or 0 once this connection has
    /// had its share of the turn, or while it holds more of the volume's table than is free for
    /// others. At 0 read no further: call [`Ctx::want_room`].
    pub fn room(&self) -> usize {
        let room = self.intake.room;
        if self.seat.share.is_spent() || self.seat.outstanding > room {
            0
        } else {
            room
        }
    }

    /// `on_room` once something completed, or the next turn begins.
    pub fn want_room(&mut self) {
        self.seat.wants_room = true;
    }

    /// Hands a request to the volume, with a name that no other request in flight of this
    /// connection has. Its `on_complete` comes later, never from within this call. The range may
    /// be unaligned and of any length the volume has; the buffer of a read or write starts at the
    /// granule border at or below the range and spans whole granules.
    ///
    /// Panics when [`Ctx::room`] is 0.
    pub fn submit(&mut self, req: ReqId, op: Op) {
        assert!(
            self.intake.room > 0,
            "room is asked for before a request is submitted"
        );
        self.intake.room -= 1;
        self.seat.outstanding += 1;
        self.seat.share.pay(&op);
        if let (Op::Read { range, .. }, Store::Memory(memory)) = (&op, &*self.store) {
            memory.prefetch(*range);
        }
        count(&mut self.intake.counters, &op);
        count(&mut self.seat.counters, &op);
        self.intake.events.push(Event::Submit {
            session: self.seat.session,
            req,
            op,
        });
    }

    /// The client does not want this request any more; it still ends with `on_complete`.
    pub fn abort(&mut self, req: ReqId) {
        self.intake.events.push(Event::Abort {
            session: self.seat.session,
            req,
        });
    }

    /// What the blocks of the range are. Answered by `on_extents` with `tag`.
    pub fn query_extents(&mut self, tag: u32, range: ByteRange, kind: ExtentKind) {
        // It keeps the seat until it is answered.
        self.seat.in_flight += 1;
        self.intake.queries.push(Query {
            seat: self.seat.slot,
            tag,
            range,
            kind,
        });
    }

    /// The first run of at least `min` bytes in the range of which the volume knows, without
    /// looking at any disk, that a read submitted now would find zeros. `None` also where it does
    /// not know: it costs little, and says less than [`Ctx::query_extents`].
    pub fn first_hole(&mut self, range: ByteRange, min: u64) -> Option<ByteRange> {
        let within = range.cover()?;
        if range.len < min || !self.core.reads_own_disk() {
            return None;
        }
        let hole = self.store.first_hole(range, min)?;
        // A write may be answered before it lies on this disk.
        let mut is_quiet = true;
        self.core.each_being_written(within, |_| is_quiet = false);
        is_quiet.then_some(hole)
    }

    /// `on_timer` at this moment; `None` takes it back. One timer per connection.
    pub fn set_timer(&mut self, at: Option<Instant>) {
        self.seat.timer = at;
    }

    /// Nothing more will be submitted: end of stream, error, or drained. Requests that were not
    /// dispatched are dropped; the rest ends; then `on_quiet` (law B3).
    pub fn end(&mut self) {
        self.seat.asks_end = true;
    }

    /// Closes the stream and drops the connection once its last operation has ended. Only after
    /// `on_quiet`, with all buffers released (operations in flight hold their own reference).
    pub fn finish(&mut self) {
        self.seat.asks_finish = true;
    }

    /// As [`Ctx::finish`], but the stream stays open: it goes to the process that takes over, with
    /// `state`. Only after a drain for [`DrainReason::HandOver`], with no operation in flight.
    pub fn hand_over(&mut self, state: Vec<u8>) {
        self.seat.bequest = Some(state);
        self.finish();
    }

    /// The client had been attached for this long when it came here from another process.
    pub fn set_age(&mut self, age: Duration) {
        self.seat.age = age;
    }
}

impl Intake {
    pub(crate) fn new(size_bytes: u64, requests_max: usize, is_for_device: bool) -> Intake {
        Intake {
            events: Vec::with_capacity(requests_max + 64),
            queries: Vec::with_capacity(16),
            room: 0,
            size_bytes,
            is_for_device,
            counters: crate::control::IoCounters::default(),
        }
    }
}

fn count(counters: &mut crate::control::IoCounters, op: &Op) {
    match op {
        Op::Read { range, .. } => {
            counters.reads += 1;
            counters.read_bytes += range.len;
        }
        Op::Write { range, .. } => {
            counters.writes += 1;
            counters.written_bytes += range.len;
        }
        Op::Zero { .. } => counters.writes += 1,
        Op::Flush => counters.flushes += 1,
    }
}
