//! TLS between a client's socket and its connection: a byte transform on the same reactor.
//!
//! ```text
//!  socket ─ receive ─► sealed bytes ─► rustls ─► plaintext, where the connection wants it
//!  socket ◄─── send ◄─ sealed bytes ◄─ rustls ◄─ replies, where they lie
//! ```
//!
//! [`NbdConnection`] runs inside and knows nothing of it: its receive and its send end when their
//! bytes have passed through here. What waits is bounded: one receive of [`RECEIVE_MAX`], and two
//! buffers of [`SEND_MAX`], one on its way and one being filled; nothing is opened that the
//! connection does not ask for, nothing is sealed that has no place. That also bounds the work of a
//! turn, because each of its completions frees or brings at most one such buffer.
//!
//! While nothing comes there is one receive buffer, not two: an idle connection receives into the
//! one that its plaintext waits for, and what came is moved out of there before it is opened.
//!
//! The session is rustls' buffered one: its vectored write seals a header and its data into one
//! record without copying them together first, which the unbuffered one would need. Key updates
//! and alerts are its matter; what it refuses ends the connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::time::Duration;

use engine::front_end::{BlockExtent, Connection, Ctx, DrainReason, ExtentKind};
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
/// Sealed bytes of one send: short replies, and long ones.
const SEND_MIN: usize = 16 << 10;
const SEND_MAX: usize = 128 << 10;
/// What a record adds to its plaintext, at most: header, nonce or content type, tag.
const RECORD_EXTRA: usize = 64;
/// Pieces sealed by one call.
const PIECES: usize = 64;
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
    session: Box<ServerConnection>,
    /// The receive the inner connection waits for.
    wish: Option<Wish>,
    /// Where the receive of an idle connection goes, which holds a reference: into the buffer of the
    /// wish, for lack of a buffer of its own.
    lent: Option<BufSlice>,
    /// Sealed bytes that came; those in `at..filled` have not been taken in.
    sealed: Option<BufId>,
    at: u32,
    filled: u32,
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
    /// On its way.
    flying: Option<Outgoing>,
    /// Being filled.
    next: Option<Outgoing>,
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

/// A buffer of sealed bytes; those in `at..filled` are still to be sent.
#[derive(Clone, Copy, Debug)]
struct Outgoing {
    buf: BufId,
    size: usize,
    at: usize,
    filled: usize,
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
        let mut side = Side::new(session, host.now());
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
                (side.at, side.filled) = (0, count);
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
        let Some(mut out) = side.flying.take() else {
            return;
        };
        match result {
            Ok(count) if count > 0 => {
                side.moved = host.now();
                out.at += count as usize;
                if out.at < out.filled {
                    side.fly(host, out);
                } else {
                    host.arena().release(out.buf);
                }
                // Also a part of a long reply is progress.
                self.seal(host);
                self.tell(host);
            }
            Ok(_) | Err(_) => {
                host.arena().release(out.buf);
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
            let sealed = side.fill(host);
            has_moved |= sealed;
            match side.next.take() {
                Some(next) if side.flying.is_none() && next.filled > 0 => {
                    side.moved = host.now();
                    side.fly(host, next);
                }
                next => {
                    side.next = next;
                    return has_moved;
                }
            }
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
        if is_done || side.is_deaf || side.wish.is_none() || side.at < side.filled {
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
        let has_words = !side.is_dead && (side.flying.is_some() || side.session.wants_write());
        if has_words && !is_late {
            return;
        }
        side.is_over = true;
        if let Some(wish) = side.wish.take() {
            host.arena().release(wish.into.buf);
        }
        side.release_sealed(host.arena());
        side.drop_outgoing(host.arena());
        if let Some(out) = side.flying.take() {
            host.arena().release(out.buf);
        }
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
            side.flying
                .map(|_| side.moved.after(self.inner.limits.stalled_max)),
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
        if side.flying.is_some() && silence >= self.inner.limits.stalled_max {
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
    fn new(session: Box<ServerConnection>, now: Instant) -> Side {
        Side {
            session,
            wish: None,
            lent: None,
            sealed: None,
            at: 0,
            filled: 0,
            is_receiving: false,
            asked: 0,
            is_shrinking: false,
            wants_more: false,
            is_deaf: false,
            plain: VecDeque::new(),
            is_sending: false,
            told_next: 0,
            flying: None,
            next: None,
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
        let len = self.filled;
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
        loop {
            let BufSlice { buf, offset, len } = wish.into;
            let rest = buf.slice(offset + wish.filled, len - wish.filled);
            match self.session.reader().read(arena.slice_mut(rest)) {
                // The client said that nothing follows; or it did not, and is gone.
                Ok(0) => return Fetched::Bytes(0),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Fetched::Bytes(0);
                }
                Ok(count) => wish.filled += count as u32,
                Err(_) => {}
            }
            if wish.filled == len {
                return Fetched::Bytes(len);
            }
            if self.at == self.filled {
                return match wish.filled {
                    count if count > 0 && !wish.all => Fetched::Bytes(count),
                    _ => Fetched::Nothing,
                };
            }
            let sealed = self
                .sealed
                .expect("bytes that were not taken in lie in the buffer");
            let mut bytes = arena.slice(sealed.slice(self.at, self.filled - self.at));
            match self.session.read_tls(&mut bytes) {
                Ok(count) => self.at += count as u32,
                Err(error) => return Fetched::Broken(error.to_string()),
            }
            if let Err(error) = self.session.process_new_packets() {
                return Fetched::Broken(error.to_string());
            }
        }
    }

    /// Seals into the next buffer as long as it has room. Whether anything was sealed.
    fn fill(&mut self, host: &mut impl Host) -> bool {
        let mut has_sealed = false;
        loop {
            if !self.session.wants_write() {
                let count = self.write_plain(host.arena());
                if count == 0 {
                    return has_sealed;
                }
                self.told_next += count;
            }
            let Some(next) = self.place(host.arena()) else {
                self.is_starved = true;
                return has_sealed;
            };
            if next.filled == next.size {
                return has_sealed;
            }
            let out = &mut host.arena().bytes_mut(next.buf)[next.filled..next.size];
            let mut cursor = io::Cursor::new(out);
            // Writing to memory does not fail.
            let count = self.session.write_tls(&mut cursor).unwrap_or(0);
            if count == 0 {
                return has_sealed;
            }
            has_sealed = true;
            self.next = Some(Outgoing {
                filled: next.filled + count,
                ..next
            });
        }
    }

    /// The buffer to fill: one is made if there is none.
    fn place(&mut self, arena: &mut Arena) -> Option<Outgoing> {
        if self.next.is_some() {
            return self.next;
        }
        let plain: usize = self.plain.iter().map(|piece| piece.len as usize).sum();
        let is_short = plain == 0 && self.told_next as usize + RECORD_EXTRA * 4 <= SEND_MIN;
        let size = if is_short { SEND_MIN } else { SEND_MAX };
        let buf = arena.alloc(Class::Net, size);
        // A short one makes some progress when memory is scarce.
        let (buf, size) = match buf {
            Some(buf) => (buf, size),
            None => (arena.alloc(Class::Net, SEND_MIN)?, SEND_MIN),
        };
        self.next = Some(Outgoing {
            buf,
            size,
            at: 0,
            filled: 0,
        });
        self.next
    }

    /// Hands plaintext to the session, as much as it takes at once.
    fn write_plain(&mut self, arena: &mut Arena) -> u32 {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let count = self.plain.len().min(PIECES);
        for (piece, slice) in pieces.iter_mut().zip(&self.plain) {
            *piece = IoSlice::new(arena.slice(*slice));
        }
        // It fails after the session did, which ends the connection elsewhere.
        let written = self
            .session
            .writer()
            .write_vectored(&pieces[..count])
            .unwrap_or(0);
        let mut left = written as u32;
        while left > 0 {
            let Some(first) = self.plain.front_mut() else {
                break;
            };
            let take = left.min(first.len);
            left -= take;
            first.offset += take;
            first.len -= take;
            if first.len == 0 {
                let buf = first.buf;
                self.plain.pop_front();
                arena.release(buf);
            }
        }
        written as u32
    }

    fn fly(&mut self, host: &mut impl Host, out: Outgoing) {
        let slice = out.buf.slice(out.at as u32, (out.filled - out.at) as u32);
        host.send(&[slice.into()]);
        self.flying = Some(out);
    }

    fn release_sealed(&mut self, arena: &mut Arena) {
        (self.at, self.filled) = (0, 0);
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
        if let Some(next) = self.next.take() {
            arena.release(next.buf);
        }
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
