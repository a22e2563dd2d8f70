//! The server's half of the small protocol: a front end as any other.

use std::collections::VecDeque;

use engine::front_end::{BlockExtent, Connection, Ctx, DrainReason, ExtentKind};
use engine_core::action::Outcome;
use engine_core::event::{Op, ReqId};
use engine_core::message::Zeroing;
use engine_core::units::{self, ByteRange};
use engine_ring::{BufId, Class, Errno, Op as RingOp, Seg};

use super::{Ask, FAILED, HEAD, NO_SPACE, OK, REPLY};

const RX: usize = 256 << 10;
const TX: usize = 64 << 10;
const RECV: u32 = 0;
const SEND: u32 = 1;
const REQUESTS: usize = 256;

#[derive(Clone, Copy)]
struct Request {
    id: u64,
    /// Payload buffer and where the reply's bytes lie in it.
    buf: Option<(BufId, u32, u32)>,
    is_read: bool,
}

enum Step {
    /// Not all of it is here yet.
    Wait,
    /// No room or buffer now.
    Full,
    Taken,
}

/// One connection.
pub struct Mini {
    rx: BufId,
    start: usize,
    end: usize,
    /// A write whose payload is under way: id, buffer, offset in it, length, received, op.
    filling: Option<(u64, BufId, u32, u32, u32, Op)>,
    requests: Vec<Option<Request>>,
    free: Vec<u32>,
    /// Replies that wait for the end of the turn, and their headers.
    tx: BufId,
    used: usize,
    queue: VecDeque<(Seg, Option<BufId>)>,
    segments: Vec<Seg>,
    sent: usize,
    is_sending: bool,
    is_receiving: bool,
    is_over: bool,
    is_quiet: bool,
    in_flight: usize,
}

impl Mini {
    pub fn start(ctx: &mut Ctx<'_>) -> Box<dyn Connection> {
        let rx = ctx.arena().alloc(Class::Net, RX).unwrap();
        let tx = ctx.arena().alloc(Class::Net, TX).unwrap();
        let mut this = Mini {
            rx,
            start: 0,
            end: 0,
            filling: None,
            requests: (0..REQUESTS).map(|_| None).collect(),
            free: (0..REQUESTS as u32).rev().collect(),
            tx,
            used: 0,
            queue: VecDeque::with_capacity(2 * REQUESTS),
            segments: Vec::with_capacity(2 * REQUESTS),
            sent: 0,
            is_sending: false,
            is_receiving: false,
            is_over: false,
            is_quiet: false,
            in_flight: 0,
        };
        this.go_on(ctx);
        Box::new(this)
    }

    /// Parses what is here, then receives more.
    fn go_on(&mut self, ctx: &mut Ctx<'_>) {
        if self.is_over || self.is_receiving {
            return;
        }
        loop {
            match self.step(ctx) {
                Step::Taken => {}
                Step::Full => return ctx.want_room(),
                Step::Wait => break,
            }
        }
        let file = ctx.socket();
        self.is_receiving = true;
        if let Some((_, buf, offset, len, got, _)) = &self.filling {
            let slice = buf.slice(offset + got, len - got);
            return ctx.push(
                RECV,
                RingOp::Recv {
                    file,
                    buf: slice,
                    all: true,
                },
            );
        }
        let rest = self.end - self.start;
        let from = self.rx.slice(self.start as u32, rest as u32);
        ctx.arena().copy(from, self.rx.slice(0, rest as u32));
        (self.start, self.end) = (0, rest);
        let buf = self.rx.slice(rest as u32, (RX - rest) as u32);
        ctx.push(
            RECV,
            RingOp::Recv {
                file,
                buf,
                all: false,
            },
        );
    }

    fn step(&mut self, ctx: &mut Ctx<'_>) -> Step {
        if let Some((id, buf, offset, len, got, op)) = self.filling {
            let here = ((self.end - self.start) as u32).min(len - got);
            let from = self.rx.slice(self.start as u32, here);
            ctx.arena().copy(from, buf.slice(offset + got, here));
            self.start += here as usize;
            self.filling = Some((id, buf, offset, len, got + here, op));
            if got + here < len {
                return Step::Wait;
            }
            if ctx.room() == 0 || self.free.is_empty() {
                return Step::Full;
            }
            self.filling = None;
            self.submit(
                ctx,
                Request {
                    id,
                    buf: Some((buf, 0, 0)),
                    is_read: false,
                },
                op,
            );
            return Step::Taken;
        }
        if self.end - self.start < HEAD {
            return Step::Wait;
        }
        if ctx.room() == 0 || self.free.is_empty() {
            return Step::Full;
        }
        let mut head = [0; HEAD];
        head.copy_from_slice(
            ctx.arena()
                .slice(self.rx.slice(self.start as u32, HEAD as u32)),
        );
        let at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        let (id, range) = (
            at(1),
            ByteRange {
                offset: at(9),
                len: at(17),
            },
        );
        let bytes = range.cover().map_or(0, |cover| cover.bytes() as usize);
        let inside = (range.offset % units::GRANULE) as u32;
        let kind = head[0];
        let is = |ask: Ask| kind == ask as u8;
        let needs = is(Ask::Read) || is(Ask::Write) || is(Ask::WriteFua);
        let buf = if needs {
            ctx.arena().alloc(Class::Client, bytes)
        } else {
            None
        };
        if needs && buf.is_none() {
            return Step::Full;
        }
        self.start += HEAD;
        match (buf, kind) {
            (Some(buf), _) if is(Ask::Read) => {
                let op = Op::Read {
                    range,
                    buf: units::BufId(buf.to_u64()),
                };
                let buf = Some((buf, inside, range.len as u32));
                self.submit(
                    ctx,
                    Request {
                        id,
                        buf,
                        is_read: true,
                    },
                    op,
                );
            }
            (Some(buf), _) => {
                let fua = is(Ask::WriteFua);
                let op = Op::Write {
                    range,
                    buf: units::BufId(buf.to_u64()),
                    fua,
                };
                self.filling = Some((id, buf, inside, range.len as u32, 0, op));
            }
            _ if is(Ask::Extents) => {
                let slot = self.keep(Request {
                    id,
                    buf: None,
                    is_read: false,
                });
                ctx.query_extents(slot, range, ExtentKind::Allocation);
            }
            _ => {
                let op = match () {
                    () if is(Ask::Flush) => Op::Flush,
                    () if is(Ask::Trim) => Op::Zero {
                        range,
                        zeroing: Zeroing::Trim,
                        fua: false,
                    },
                    () => Op::Zero {
                        range,
                        zeroing: Zeroing::MayTrim,
                        fua: false,
                    },
                };
                self.submit(
                    ctx,
                    Request {
                        id,
                        buf: None,
                        is_read: false,
                    },
                    op,
                );
            }
        }
        Step::Taken
    }

    fn keep(&mut self, request: Request) -> u32 {
        let slot = self.free.pop().unwrap();
        self.requests[slot as usize] = Some(request);
        self.in_flight += 1;
        slot
    }

    fn submit(&mut self, ctx: &mut Ctx<'_>, request: Request, op: Op) {
        let slot = self.keep(request);
        ctx.submit(ReqId(u64::from(slot)), op);
    }

    fn answered(&mut self, slot: u32) -> Request {
        self.in_flight -= 1;
        self.free.push(slot);
        self.requests[slot as usize].take().unwrap()
    }

    fn reply(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: u64,
        status: u8,
        payload: Option<(BufId, u32, u32)>,
    ) {
        let mut head = [0; REPLY];
        head[..8].copy_from_slice(&id.to_le_bytes());
        head[8] = status;
        head[9..].copy_from_slice(&u64::from(payload.map_or(0, |p| p.2)).to_le_bytes());
        let at = self.tx.slice(self.used as u32, REPLY as u32);
        ctx.arena().slice_mut(at).copy_from_slice(&head);
        self.used = (self.used + REPLY) % (TX - REPLY);
        self.queue.push_back((Seg::Arena(at), None));
        if let Some((buf, offset, len)) = payload {
            self.queue
                .push_back((Seg::Arena(buf.slice(offset, len)), Some(buf)));
        }
    }

    fn leave_if_done(&mut self, ctx: &mut Ctx<'_>) {
        if self.is_quiet && !self.is_sending && self.queue.is_empty() {
            self.is_quiet = false;
            ctx.arena().release(self.rx);
            ctx.arena().release(self.tx);
            if let Some((_, buf, ..)) = self.filling.take() {
                ctx.arena().release(buf);
            }
            ctx.finish();
        }
    }

    fn over(&mut self, ctx: &mut Ctx<'_>) {
        self.is_over = true;
        ctx.end();
    }

    fn drop_queue(&mut self, ctx: &mut Ctx<'_>) {
        for (_, buf) in self.queue.drain(..) {
            buf.into_iter().for_each(|buf| ctx.arena().release(buf));
        }
        self.sent = 0;
    }
}

impl Connection for Mini {
    fn on_io(&mut self, ctx: &mut Ctx<'_>, tag: u32, result: Result<u32, Errno>, _more: bool) {
        if tag == RECV {
            self.is_receiving = false;
            match result {
                Ok(got) if got > 0 => {
                    match &mut self.filling {
                        Some(filling) if filling.4 < filling.3 => filling.4 += got,
                        _ => self.end += got as usize,
                    }
                    self.go_on(ctx);
                }
                _ => self.over(ctx),
            }
        } else {
            self.is_sending = false;
            let mut left = result.unwrap_or(0);
            while let Some((seg, buf)) = self.queue.front_mut() {
                let Seg::Arena(slice) = seg else {
                    unreachable!()
                };
                if left < slice.len {
                    slice.offset += left;
                    slice.len -= left;
                    break;
                }
                left -= slice.len;
                buf.take()
                    .into_iter()
                    .for_each(|buf| ctx.arena().release(buf));
                self.queue.pop_front();
            }
            if result.is_err() {
                self.drop_queue(ctx);
                self.over(ctx);
            }
            self.leave_if_done(ctx);
        }
    }

    fn on_complete(&mut self, ctx: &mut Ctx<'_>, req: ReqId, outcome: Outcome) {
        let request = self.answered(req.0 as u32);
        let status = match outcome {
            Outcome::Ok => OK,
            Outcome::NoSpace => NO_SPACE,
            _ => FAILED,
        };
        let payload = request.buf.filter(|_| request.is_read && status == OK);
        if let (None, Some((buf, ..))) = (payload, request.buf) {
            ctx.arena().release(buf);
        }
        self.reply(ctx, request.id, status, payload);
        self.go_on(ctx);
    }

    fn on_extents(&mut self, ctx: &mut Ctx<'_>, tag: u32, result: Result<&[BlockExtent], Errno>) {
        let request = self.answered(tag);
        let runs = result.unwrap_or(&[]);
        let buf = ctx
            .arena()
            .alloc(Class::Client, 9 * runs.len().max(1))
            .unwrap();
        for (index, run) in runs.iter().enumerate() {
            let at = buf.slice(9 * index as u32, 9);
            let bytes = ctx.arena().slice_mut(at);
            bytes[..8].copy_from_slice(&run.len.to_le_bytes());
            bytes[8] = run.flags as u8 & 1;
        }
        let status = if result.is_ok() { OK } else { FAILED };
        self.reply(
            ctx,
            request.id,
            status,
            Some((buf, 0, 9 * runs.len() as u32)),
        );
        self.go_on(ctx);
    }

    fn on_room(&mut self, ctx: &mut Ctx<'_>) {
        self.go_on(ctx);
    }

    fn on_timer(&mut self, _ctx: &mut Ctx<'_>) {}

    fn flush(&mut self, ctx: &mut Ctx<'_>) {
        if self.is_sending || self.queue.is_empty() {
            return;
        }
        self.is_sending = true;
        self.segments.clear();
        self.segments
            .extend(self.queue.iter().take(512).map(|(seg, _)| *seg));
        let file = ctx.socket();
        ctx.push(
            SEND,
            RingOp::Send {
                file,
                segments: &self.segments,
            },
        );
    }

    fn drain(&mut self, ctx: &mut Ctx<'_>, _why: DrainReason) {
        self.over(ctx);
    }

    fn on_quiet(&mut self, ctx: &mut Ctx<'_>) {
        assert_eq!(self.in_flight, 0, "every request was completed");
        self.is_quiet = true;
        self.leave_if_done(ctx);
    }
}
