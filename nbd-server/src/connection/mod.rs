//! One client on its volume's reactor: requests in, replies out.
//!
//! ```text
//!  receive ─► receive buffer ─► Transmission ─► admit ─► table ─► submit ─► volume
//!    ▲           (large payload straight into its own buffer)                 │
//!    └─ not while something waits for room or a buffer                        ▼
//!  send ◄─ one per turn: headers + data where it lies ◄─ replies ◄─ on_complete
//! ```
//!
//! A turn handles everything one receive brought, and `flush` answers everything that completed by
//! one send. In the steady state nothing is allocated from the heap: the table of requests, the
//! reply queue and the segments keep the size that the client once needed. What it can hold is
//! bounded: requests by the table, payload by [`Limits::payload_bytes_max`] and by what is left for
//! others (a connection holds at most as much as is still free), and whoever neither reads its
//! replies nor completes a payload for a while is cut off.
//!
//! Not here: negotiation, the order of requests, durability (the core decides both).

mod ending;
mod host;
mod intake;
mod moving;
mod parts;
mod replies;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use engine::front_end::{BlockExtent, Connection, Ctx, DrainReason, ExportLabel, ExtentKind};
use engine::log::{Level, Line, Log};
use engine_core::action::Outcome;
use engine_core::event::ReqId;
use engine_core::time::Instant;
use engine_ring::Errno;
use nbd_proto::{NbdError, Negotiated, Transmission};

use crate::config::Limits;
use crate::contexts;
use crate::exports::Seat;
use ending::Life;
use host::Host;
pub(crate) use intake::Early;
use intake::Intake;
use replies::{Replies, Sent};
use table::{Kind, Reply, Table};
pub(crate) use tls::TlsConnection;

/// How soon a connection without a buffer looks again, should nothing else wake it.
const RETRY: Duration = Duration::from_millis(5);

/// Who is connected, for log lines.
#[derive(Clone)]
pub(crate) struct Who {
    pub(crate) volume: String,
    pub(crate) export: ExportLabel,
    pub(crate) address: String,
    pub(crate) log: Arc<dyn Log>,
    /// Its place at the export.
    pub(crate) _seat: Arc<Seat>,
}

/// The transmission phase of one client.
pub(crate) struct NbdConnection {
    who: Who,
    limits: Limits,
    /// What a successor would have to know.
    agreed: Negotiated,
    transmission: Transmission,
    /// Id and meaning of the selected contexts, in their order.
    contexts: Vec<(u32, ExtentKind)>,
    table: Table,
    replies: Replies,
    intake: Intake,
    /// Requests the volume was too busy for.
    busy: VecDeque<u16>,
    /// Bytes of buffers the requests hold.
    held: usize,
    life: Life,
    /// The volume leaves for good: say so.
    is_gone: bool,
    /// What is sent no longer matters.
    is_broken: bool,
    /// Another process goes on with the client.
    is_moving: bool,
    /// A buffer was refused: look again after [`RETRY`].
    is_starved: bool,
    timer: Option<Instant>,
    /// When bytes last moved, or began to.
    moved: Instant,
}

impl NbdConnection {
    /// Takes over a stream after negotiation; `early` is what came with its last option, or what
    /// another process had received.
    pub(crate) fn open(
        negotiated: &Negotiated,
        early: Early,
        who: Who,
        limits: Limits,
        host: &mut impl Host,
    ) -> NbdConnection {
        let contexts = negotiated.contexts.iter().map(|context| {
            // One that means nothing any more is a mark that cannot be found.
            let kind = contexts::kind(&context.name);
            (context.id, kind.unwrap_or(ExtentKind::Mark("".into())))
        });
        let mut connection = NbdConnection {
            who,
            agreed: negotiated.clone(),
            transmission: Transmission::new(negotiated),
            contexts: contexts.collect(),
            table: Table::new(limits.requests_max),
            replies: Replies::new(negotiated.replies),
            intake: Intake::new(early),
            busy: VecDeque::new(),
            held: 0,
            life: Life::Serving,
            is_gone: false,
            is_broken: false,
            is_moving: false,
            is_starved: false,
            timer: None,
            moved: host.now(),
            limits,
        };
        connection.take_early(host);
        connection.turn_ends(host);
        connection
    }

    /// The volume answered.
    fn complete(&mut self, host: &mut impl Host, slot: u16, outcome: Outcome) {
        let is_leaving = self.life != Life::Serving;
        if self.is_moving && NbdConnection::is_undone(outcome) {
            return;
        }
        let request = self.table.get_mut(slot);
        let changes = matches!(request.kind, Kind::Write { .. } | Kind::Zero { .. });
        let error = match outcome {
            Outcome::Ok if matches!(request.kind, Kind::Read { .. }) => {
                return self.answer(host, slot, Reply::Data);
            }
            Outcome::Ok => return self.answer(host, slot, Reply::Ok),
            Outcome::Busy if !is_leaving => {
                self.busy.push_back(slot);
                return host.want_room();
            }
            Outcome::Busy | Outcome::NotPrimary | Outcome::Stopping if self.is_gone => {
                (NbdError::Shutdown, "the volume is no longer served here")
            }
            // Answered by silence: the client tries again elsewhere, where an error would reach
            // its file system (kernel clients pass every error on).
            Outcome::Busy | Outcome::NotPrimary | Outcome::Stopping => {
                self.forget(host, slot);
                return self.leave(host);
            }
            Outcome::Aborted => return self.forget(host, slot),
            // Somebody else may serve already: nothing that this node says counts any more.
            Outcome::Superseded => {
                self.forget(host, slot);
                return self.cut_off(host);
            }
            Outcome::OutOfRange if changes => (
                NbdError::NoSpace,
                "the request reaches beyond the end of the volume",
            ),
            Outcome::OutOfRange => (
                NbdError::Invalid,
                "the request reaches beyond the end of the volume",
            ),
            Outcome::Io => (NbdError::Io, "no copy could serve the request"),
            Outcome::NoSpace => (NbdError::NoSpace, "the last copy of the volume is full"),
        };
        self.answer(host, slot, Reply::Error(error.0, error.1));
    }

    /// Queues the reply; the buffer stays only if it is sent.
    fn answer(&mut self, host: &mut impl Host, slot: u16, reply: Reply) {
        if self.is_broken {
            return self.forget(host, slot);
        }
        let request = self.table.get_mut(slot);
        request.reply = reply;
        let part_of = request.part_of;
        if !matches!(reply, Reply::Data | Reply::Chunks(_))
            && let Some(buf) = request.buf.take()
        {
            self.held -= host.arena().capacity(buf);
            host.arena().release(buf);
        }
        match part_of {
            None => self.replies.push(slot),
            Some(whole) => self.part_ended(host, whole, false),
        }
    }

    /// The request is over; nothing more is said about it.
    fn forget(&mut self, host: &mut impl Host, slot: u16) {
        match self.table.get(slot).part_of {
            None => self.drop_slot(host, slot),
            Some(whole) => self.part_ended(host, whole, true),
        }
    }

    /// Gives back the slot and its buffer.
    fn drop_slot(&mut self, host: &mut impl Host, slot: u16) {
        if let Some(buf) = self.table.remove(slot).buf {
            self.held -= host.arena().capacity(buf);
            host.arena().release(buf);
        }
    }

    fn send_ended(&mut self, host: &mut impl Host, result: Result<u32, Errno>) {
        if self.is_broken {
            return;
        }
        match result {
            Ok(count) if count > 0 => {
                self.moved = host.now();
                if let Sent::Whole(replies) = self.replies.sent(count, host) {
                    for _ in 0..replies {
                        let slot = self
                            .replies
                            .pop()
                            .expect("a batch is the front of the queue");
                        self.forget(host, slot);
                    }
                    self.take(host);
                }
            }
            Ok(_) | Err(_) => self.cut_off(host),
        }
    }

    fn room_came(&mut self, host: &mut impl Host) {
        while host.room() > 0
            && let Some(slot) = self.busy.pop_front()
        {
            self.submit(host, slot);
        }
        self.take(host);
    }

    /// What the end of a turn asks for: one send, one receive, and the next step of an ending.
    fn turn_ends(&mut self, host: &mut impl Host) {
        if self.life == Life::Finished {
            return;
        }
        self.take_early(host);
        if !self.is_broken && !self.replies.is_sending() && !self.replies.is_empty() {
            self.moved = host.now();
            self.is_starved |= !self.replies.start(&self.table, host);
        }
        self.receive(host);
        self.settle(host);
        self.set_timer(host);
    }

    /// The node wants the client gone.
    fn drained(&mut self, host: &mut impl Host, why: DrainReason) {
        match why {
            // At once: somebody else may be waiting for its place.
            DrainReason::Operator | DrainReason::Superseded => self.cut_off(host),
            DrainReason::VolumeLeaves => {
                self.is_gone = true;
                self.leave(host);
            }
            DrainReason::NodeStops | DrainReason::HandOver => self.leave(host),
        }
    }

    /// One line about this client.
    fn log(&self, text: std::fmt::Arguments<'_>) {
        let Who {
            volume,
            export,
            address,
            log,
            ..
        } = &self.who;
        let text = format!("nbd: client {address} of export `{export}` is cut off: {text}");
        log.line(Line {
            level: Level::Warn,
            code: "",
            volume: Some(volume),
            text: &text,
        });
    }
}

impl Connection for NbdConnection {
    fn on_io(&mut self, ctx: &mut Ctx<'_>, tag: u32, result: Result<u32, Errno>, _more: bool) {
        match tag {
            host::RECEIVE => self.receive_ended(ctx, result),
            _ => self.send_ended(ctx, result),
        }
    }

    fn on_complete(&mut self, ctx: &mut Ctx<'_>, req: ReqId, outcome: Outcome) {
        self.complete(ctx, req.0 as u16, outcome);
    }

    fn on_extents(&mut self, ctx: &mut Ctx<'_>, tag: u32, result: Result<&[BlockExtent], Errno>) {
        self.extents_came(ctx, tag as u16, result);
    }

    fn on_room(&mut self, ctx: &mut Ctx<'_>) {
        self.room_came(ctx);
    }

    fn on_timer(&mut self, ctx: &mut Ctx<'_>) {
        self.timer_fired(ctx);
    }

    fn flush(&mut self, ctx: &mut Ctx<'_>) {
        self.turn_ends(ctx);
    }

    fn drain(&mut self, ctx: &mut Ctx<'_>, why: DrainReason) {
        if why == DrainReason::HandOver {
            return self.move_out(ctx);
        }
        self.drained(ctx, why);
    }

    fn on_quiet(&mut self, ctx: &mut Ctx<'_>) {
        self.quiet_came(ctx);
    }
}
