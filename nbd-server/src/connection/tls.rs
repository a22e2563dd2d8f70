//! TLS between a client's socket and its connection: a byte transform on the same reactor.
//!
//! ```text
//!  socket ─ receive ─► sealed bytes ─► rustls ─► plaintext, where the connection wants it
//!  socket ◄─── send ◄─ sealed bytes ◄─ rustls ◄─ replies, where they lie
//! ```
//!
//! [`NbdConnection`] runs inside and knows nothing of it: its receive and its send end when their
//! bytes have passed through here. What waits is bounded: one receive of [`RECEIVE_MAX`], and the two
//! buffers of a [`Sealer`]; nothing is opened that the connection does not ask for. That also bounds
//! the work of a turn, because each of its completions frees or brings at most one such buffer.
//!
//! While nothing comes there is one receive buffer, not two: an idle connection receives into the
//! one that its plaintext waits for, and what came is moved out of there before it is opened.
//! What the session refuses ends the connection.

use std::collections::VecDeque;
use std::time::Duration;

use engine::front_end::{BlockExtent, Connection, Ctx, DrainReason, ExtentKind};
use engine::tls::{Opened, Opener, Sealer};
use engine_core::action::Outcome;
use engine_core::event::{Op, ReqId};
use engine_core::time::Instant;
use engine_core::units::ByteRange;
use engine_ring::{Arena, BufId, BufSlice, Class, Errno, Seg};
use nbd_proto::Negotiated;
use rustls::ServerConnection;

use super::ending::Life;
use super::host::{self, Host};
use super::{Early, NbdConnection, RETRY, Who};
use crate::config::Limits;

/// Sealed bytes received at a time by a connection that is idle.
const RECEIVE_MIN: u32 = 4 << 10;
/// The same by one that filled the smaller buffer.
const RECEIVE_MAX: u32 = 128 << 10;
/// Silence after which the larger receive buffer is given back.
const IDLE: Duration = Duration::from_secs(10);
/// How long the last bytes may take once the connection has finished; less than the engine allows.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One client under TLS on its volume's reactor.
pub(crate) struct TlsConnection {
    inner: NbdConnection,
    side: Side,
}

/// What lies between the inner connection and the socket.
pub(super) struct Side {
    session: Box<rustls::Connection>,
    /// The receive the inner connection waits for.
    wish: Option<Wish>,
    /// Where the receive of an idle connection goes, which holds a reference: into the buffer of the
    /// wish, for lack of a buffer of its own.
    lent: Option<BufSlice>,
    /// Sealed bytes that came, of which the opener knows how far they have been taken in.
    sealed: Option<BufId>,
    opener: Opener,
    is_receiving: bool,
    /// Bytes of the receive in flight or of the last one.
    asked: u32,
    /// The receive in flight is being cancelled for a smaller buffer.
    is_shrinking: bool,
    /// The last receive filled its buffer.
    wants_more: bool,
    /// Nothing is taken in any more.
    is_deaf: bool,
    /// What the inner connection sends and is not sealed yet; each piece holds a reference.
    plain: VecDeque<BufSlice>,
    /// The inner connection waits for the end of a send.
    is_sending: bool,
    /// Bytes of that send that were sealed and not told yet.
    told_next: u32,
    sealer: Sealer,
    /// What is sent no longer matters.
    is_dead: bool,
    /// The inner connection has finished, at this moment.
    finished: Option<Instant>,
    /// The engine was told.
    is_over: bool,
    is_starved: bool,
    inner_timer: Option<Instant>,
    timer: Option<Instant>,
    /// When bytes last moved at the socket, or began to.
    moved: Instant,
}

/// Plaintext the inner connection waits for.
#[derive(Clone, Copy, Debug)]
struct Wish {
    into: BufSlice,
    all: bool,
    filled: u32,
    is_cancelled: bool,
}

/// What came of a wish.
enum Fetched {
    /// So many bytes; 0 is the end of the stream.
    Bytes(u32),
    /// More must be received first.
    Nothing,
    /// What was received is no TLS.
    Broken(String),
}

/// The reactor as the inner connection sees it.
struct Inside<'a, H> {
    host: &'a mut H,
    side: &'a mut Side,
}

impl<H: Host> Host for Inside<'_, H> {
    fn now(&self) -> Instant {
        self.host.now()
    }

    fn arena(&mut self) -> &mut Arena {
        self.host.arena()
    }

    fn place(&mut self, from: BufSlice, to: BufSlice) {
        self.host.place(from, to);
    }

    fn takes_views(&self) -> bool {
        self.host.takes_views()
    }

    fn receive(&mut self, into: BufSlice, all: bool) {
        assert!(
            self.side.wish.is_none(),
            "one receive is in flight at a time"
        );
        self.host.arena().retain(into.buf);
        self.side.wish = Some(Wish {
            into,
            all,
            filled: 0,
            is_cancelled: false,
        });
    }

    fn cancel_receive(&mut self) {
        if let Some(wish) = &mut self.side.wish {
            wish.is_cancelled = true;
        }
    }

    fn send(&mut self, segments: &[Seg]) {
        assert!(!self.side.is_sending, "one send is in flight at a time");
        self.side.is_sending = true;
        for segment in segments {
            let Seg::Arena(slice) = *segment else {
                unreachable!("replies lie in the arena");
            };
            self.host.arena().retain(slice.buf);
            self.side.plain.push_back(slice);
        }
    }

    fn room(&self) -> usize {
        self.host.room()
    }

    fn want_room(&mut self) {
        self.host.want_room();
    }

    fn submit(&mut self, req: ReqId, op: Op) {
        self.host.submit(req, op);
    }

    fn query_extents(&mut self, tag: u32, range: ByteRange, kind: ExtentKind) {
        self.host.query_extents(tag, range, kind);
    }

    fn first_hole(&mut self, range: ByteRange, min: u64) -> Option<ByteRange> {
        self.host.first_hole(range, min)
    }

    fn set_timer(&mut self, at: Instant) {
        self.side.inner_timer = Some(at);
    }

    fn end(&mut self) {
        self.host.end();
    }

    fn finish(&mut self) {
        self.side.finished = Some(self.host.now());
    }

    fn hand_over(&mut self, _state: Vec<u8>) {
        unreachable!("a connection under TLS is never told to move");
    }
}

impl TlsConnection {
    /// Takes over a stream after negotiation under TLS; `early` are bytes that were opened with its
    /// last option.
    pub(crate) fn open(
        negotiated: &Negotiated,
        early: Early,
        session: Box<ServerConnection>,
        who: Who,
        limits: Limits,
        host: &mut impl Host,
    ) -> TlsConnection {
        let mut side = Side::new(*session, host.now());
        let mut inside = Inside {
            host,
            side: &mut side,
        };
        let inner = NbdConnection::open(negotiated, early, who, limits, &mut inside);
        let mut connection = TlsConnection { inner, side };
        connection.turn_ends(host);
        connection
    }

    /// Lets the inner connection act.
    fn inside<H: Host>(
        &mut self,
        host: &mut H,
        act: impl FnOnce(&mut NbdConnection, &mut Inside<'_, H>),
    ) {
        let side = &mut self.side;
        if side.finished.is_none() {
            act(&mut self.inner, &mut Inside { host, side });
        }
    }

    /// The volume answered.
    pub(super) fn completed(&mut self, host: &mut impl Host, slot: u16, outcome: Outcome) {
        self.inside(host, |inner, inside| inner.complete(inside, slot, outcome));
    }

    pub(super) fn received(&mut self, host: &mut impl Host, result: Result<u32, Errno>) {
        let side = &mut self.side;
        side.is_receiving = false;
        let was_shrinking = std::mem::take(&mut side.is_shrinking);
        match result {
            Ok(count) if count > 0 => {
                side.moved = host.now();
                side.wants_more = count == side.asked;
                side.opener.received(count);
            }
            Err(Errno::CANCELED) if was_shrinking => {
                side.wants_more = false;
                side.release_sealed(host.arena());
            }
            Ok(_) | Err(_) => {
                side.release_sealed(host.arena());
                side.is_deaf = true;
                if self.inner.life == Life::Serving {
                    self.fail(host);
                }
            }
        }
    }

    /// Nothing more can be understood: the session ends, what is sealed may still leave.
    fn fail(&mut self, host: &mut impl Host) {
        self.side.is_deaf = true;
        self.inside(host, |inner, inside| inner.close(inside));
    }

    pub(super) fn sent(&mut self, host: &mut impl Host, result: Result<u32, Errno>) {
        let side = &mut self.side;
        if !side.sealer.is_flying() {
            return;
        }
        match result {
            Ok(count) if count > 0 => {
                side.moved = host.now();
                if let Some(rest) = side.sealer.landed(count, host.arena()) {
                    host.send(&[rest.into()]);
                }
                // Also a part of a long reply is progress.
                self.seal(host);
                self.tell(host);
            }
            Ok(_) | Err(_) => {
                side.sealer.free(host.arena());
                self.die(host);
            }
        }
    }

    /// Nothing can be sent any more.
    fn die(&mut self, host: &mut impl Host) {
        self.side.is_dead = true;
        self.side.is_deaf = true;
        self.inside(host, |inner, inside| inner.cut_off(inside));
        self.side.drop_outgoing(host.arena());
    }

    /// Seals what there is a place for, and sends it. Whether anything moved.
    fn seal(&mut self, host: &mut impl Host) -> bool {
        let side = &mut self.side;
        if side.is_dead {
            return false;
        }
        let mut has_moved = false;
        loop {
            let sealed = side
                .sealer
                .seal(&mut side.session, &mut side.plain, host.arena());
            side.told_next += sealed.taken;
            side.is_starved |= sealed.is_starved;
            has_moved |= sealed.has_moved;
            let Some(slice) = side.sealer.fly() else {
                return has_moved;
            };
            side.moved = host.now();
            host.send(&[slice.into()]);
        }
    }

    /// Tells the inner connection how much of its send has left it.
    fn tell(&mut self, host: &mut impl Host) -> bool {
        let side = &mut self.side;
        let count = std::mem::take(&mut side.told_next);
        if count == 0 || !side.is_sending {
            return false;
        }
        side.is_sending = false;
        // What is left it sends again.
        side.drop_plain(host.arena());
        self.inside(host, |inner, inside| inner.send_ended(inside, Ok(count)));
        true
    }

    /// Opens what was received, as far as the inner connection wants it. Whether anything moved.
    fn open_sealed(&mut self, host: &mut impl Host) -> bool {
        let mut has_moved = false;
        while let Some(wish) = self.side.wish {
            let result = if wish.is_cancelled {
                Err(Errno::CANCELED)
            } else {
                match self.side.fetch(host.arena()) {
                    Fetched::Bytes(count) => Ok(count),
                    Fetched::Nothing => break,
                    Fetched::Broken(why) => {
                        self.inner.log(format_args!("TLS: {why}"));
                        self.fail(host);
                        continue;
                    }
                }
            };
            has_moved = true;
            self.side.wish = None;
            host.arena().release(wish.into.buf);
            self.inside(host, |inner, inside| {
                inner.receive_ended(inside, result);
                inner.receive(inside);
            });
        }
        has_moved
    }

    /// What the end of a turn asks for: everything that can move moves, one send, one receive, the
    /// next step of an ending.
    pub(super) fn turn_ends(&mut self, host: &mut impl Host) {
        if self.side.is_over {
            return;
        }
        loop {
            self.inside(host, |inner, inside| inner.turn_ends(inside));
            let mut has_moved = self.open_sealed(host);
            has_moved |= self.seal(host);
            // A send that is not whole goes on when the socket takes more.
            has_moved |= self.side.plain.is_empty() && self.tell(host);
            if !has_moved {
                break;
            }
        }
        self.ask(host);
        self.settle(host);
        self.arm(host);
    }

    /// Receives, if the inner connection waits for more than there is; ends the receive once it
    /// waits for nothing any more.
    fn ask(&mut self, host: &mut impl Host) {
        let side = &mut self.side;
        let is_done = side.finished.is_some() || self.inner.life != Life::Serving;
        if side.is_receiving {
            if is_done && !side.is_deaf {
                host.cancel_receive();
            }
            side.is_deaf |= is_done;
            return;
        }
        if is_done || side.is_deaf || side.wish.is_none() || !side.opener.is_empty() {
            return;
        }
        let wanted = if side.wants_more {
            RECEIVE_MAX
        } else {
            RECEIVE_MIN
        };
        let lendable = side.lendable().filter(|_| wanted == RECEIVE_MIN);
        if lendable.is_some() || side.sealed.is_none() || side.asked != wanted {
            side.release_sealed(host.arena());
        }
        let into = match lendable {
            Some(lent) => {
                host.arena().retain(lent.buf);
                side.lent = Some(lent);
                lent
            }
            None => {
                let alloc = || host.arena().alloc(Class::Net, wanted as usize);
                side.sealed = side.sealed.or_else(alloc);
                let Some(buf) = side.sealed else {
                    side.is_starved = true;
                    return;
                };
                buf.slice(0, wanted)
            }
        };
        side.asked = wanted;
        side.is_receiving = true;
        host.receive(into, false);
    }

    /// Says goodbye and finishes, once the inner connection has.
    fn settle(&mut self, host: &mut impl Host) {
        let side = &mut self.side;
        let Some(since) = side.finished else {
            return;
        };
        if self.inner.is_broken {
            // What it sent no longer matters.
            side.is_dead = true;
            side.drop_outgoing(host.arena());
        }
        if !side.is_dead {
            side.session.send_close_notify();
            self.seal(host);
        }
        let side = &mut self.side;
        let is_late = host.now().since(since) >= LAST_WORDS;
        let has_words = !side.is_dead && (side.sealer.is_flying() || side.session.wants_write());
        if has_words && !is_late {
            return;
        }
        side.is_over = true;
        if let Some(wish) = side.wish.take() {
            host.arena().release(wish.into.buf);
        }
        side.release_sealed(host.arena());
        side.drop_outgoing(host.arena());
        side.sealer.free(host.arena());
        host.finish();
    }

    /// The one timer: the inner connection's, and what must not take for ever here.
    fn arm(&mut self, host: &mut impl Host) {
        let side = &self.side;
        if side.is_over {
            return;
        }
        let is_large = side.is_receiving && side.asked > RECEIVE_MIN && !side.is_shrinking;
        let at = [
            side.inner_timer,
            side.is_starved.then(|| host.now().after(RETRY)),
            side.finished.map(|since| since.after(LAST_WORDS)),
            side.sealer
                .is_flying()
                .then(|| side.moved.after(self.inner.limits.stalled_max)),
            is_large.then(|| side.moved.after(IDLE)),
        ];
        let at = at.into_iter().flatten().min();
        if let Some(at) = at.filter(|at| side.timer.is_none_or(|set| *at < set)) {
            self.side.timer = Some(at);
            host.set_timer(at);
        }
    }

    pub(super) fn timer_fired(&mut self, host: &mut impl Host) {
        let now = host.now();
        let side = &mut self.side;
        side.timer = None;
        side.is_starved = false;
        let silence = now.since(side.moved);
        if side.sealer.is_flying() && silence >= self.inner.limits.stalled_max {
            let seconds = silence.as_secs();
            self.inner.log(format_args!("no progress for {seconds} s"));
            return self.die(host);
        }
        let is_large = side.is_receiving && side.asked > RECEIVE_MIN;
        if is_large && !side.is_shrinking && !side.is_deaf && silence >= IDLE {
            side.is_shrinking = true;
            host.cancel_receive();
        }
        if side.inner_timer.is_some_and(|at| at <= now) {
            side.inner_timer = None;
            self.inside(host, |inner, inside| inner.timer_fired(inside));
        }
    }
}

impl Side {
    fn new(session: ServerConnection, now: Instant) -> Side {
        Side {
            session: Box::new(session.into()),
            wish: None,
            lent: None,
            sealed: None,
            opener: Opener::default(),
            is_receiving: false,
            asked: 0,
            is_shrinking: false,
            wants_more: false,
            is_deaf: false,
            plain: VecDeque::new(),
            is_sending: false,
            told_next: 0,
            sealer: Sealer::default(),
            is_dead: false,
            finished: None,
            is_over: false,
            is_starved: false,
            inner_timer: None,
            timer: None,
            moved: now,
        }
    }

    /// The buffer of the wish, if it may be received into: a whole one of an idle connection, which
    /// is not given up before the wish has ended.
    fn lendable(&self) -> Option<BufSlice> {
        let wish = self.wish.filter(|wish| !wish.all && wish.filled == 0)?;
        (wish.into.len == RECEIVE_MIN).then_some(wish.into)
    }

    /// Moves what came into the buffer of the wish to one of its own. False: there is none.
    fn move_out(&mut self, arena: &mut Arena) -> bool {
        let Some(lent) = self.lent else {
            return true;
        };
        let Some(buf) = arena.alloc(Class::Net, RECEIVE_MIN as usize) else {
            self.is_starved = true;
            return false;
        };
        let len = self.opener.filled();
        arena.copy(BufSlice { len, ..lent }, buf.slice(0, len));
        arena.release(lent.buf);
        (self.lent, self.sealed) = (None, Some(buf));
        true
    }

    /// Plaintext for the wish: as much as there is, or all of it.
    fn fetch(&mut self, arena: &mut Arena) -> Fetched {
        if self.is_deaf || self.is_receiving || !self.move_out(arena) {
            return Fetched::Nothing;
        }
        let Some(wish) = &mut self.wish else {
            return Fetched::Nothing;
        };
        let BufSlice { buf, offset, len } = wish.into;
        let rest = buf.slice(offset + wish.filled, len - wish.filled);
        match self
            .opener
            .open(&mut self.session, self.sealed, rest, arena)
        {
            Opened::Bytes(count) => wish.filled += count,
            Opened::Nothing => return Fetched::Nothing,
            Opened::End => return Fetched::Bytes(0),
            Opened::Broken(error) => return Fetched::Broken(error.to_string()),
        }
        match wish.filled == len || !wish.all {
            true => Fetched::Bytes(wish.filled),
            false => Fetched::Nothing,
        }
    }

    fn release_sealed(&mut self, arena: &mut Arena) {
        self.opener = Opener::default();
        if let Some(buf) = self.sealed.take() {
            arena.release(buf);
        }
        if let Some(lent) = self.lent.take() {
            arena.release(lent.buf);
        }
    }

    fn drop_plain(&mut self, arena: &mut Arena) {
        for slice in self.plain.drain(..) {
            arena.release(slice.buf);
        }
    }

    /// What is not on its way yet.
    fn drop_outgoing(&mut self, arena: &mut Arena) {
        self.drop_plain(arena);
        self.sealer.drop_waiting(arena);
    }
}

impl Connection for TlsConnection {
    fn on_io(&mut self, ctx: &mut Ctx<'_>, tag: u32, result: Result<u32, Errno>, _more: bool) {
        match tag {
            host::RECEIVE => self.received(ctx, result),
            _ => self.sent(ctx, result),
        }
    }

    fn on_complete(&mut self, ctx: &mut Ctx<'_>, req: ReqId, outcome: Outcome) {
        self.completed(ctx, req.0 as u16, outcome);
    }

    fn on_extents(&mut self, ctx: &mut Ctx<'_>, tag: u32, result: Result<&[BlockExtent], Errno>) {
        self.inside(ctx, |inner, inside| {
            inner.extents_came(inside, tag as u16, result);
        });
    }

    fn on_room(&mut self, ctx: &mut Ctx<'_>) {
        self.inside(ctx, |inner, inside| inner.room_came(inside));
    }

    fn on_timer(&mut self, ctx: &mut Ctx<'_>) {
        self.timer_fired(ctx);
    }

    fn flush(&mut self, ctx: &mut Ctx<'_>) {
        self.turn_ends(ctx);
    }

    fn drain(&mut self, ctx: &mut Ctx<'_>, why: DrainReason) {
        // Also on a hand-over: the keys stay here, the client comes again.
        self.inside(ctx, |inner, inside| inner.drained(inside, why));
    }

    fn on_quiet(&mut self, ctx: &mut Ctx<'_>) {
        self.inside(ctx, |inner, inside| inner.quiet_came(inside));
    }
}
