//! What a connection needs of its reactor: the engine's [`Ctx`], or a table of a test.

use engine::front_end::{Ctx, ExtentKind};
use engine_core::event::{Op, ReqId};
use engine_core::time::Instant;
use engine_core::units::ByteRange;
use engine_ring::{Arena, BufSlice, Op as RingOp, Seg};

/// Tag of the one receive in flight.
pub(crate) const RECEIVE: u32 = 1;
/// Tag of the one send in flight.
pub(crate) const SEND: u32 = 2;

/// The reactor as one connection sees it; each call as in [`Ctx`].
pub(crate) trait Host {
    /// The turn's time.
    fn now(&self) -> Instant;
    /// The reactor's buffers.
    fn arena(&mut self) -> &mut Arena;
    /// Copies payload to the buffer of its request.
    fn place(&mut self, from: BufSlice, to: BufSlice);
    /// Whether a write of whole granules may lie in what was received, wherever it begins.
    fn takes_views(&self) -> bool;
    /// Receives; `all` waits until the slice is full.
    fn receive(&mut self, into: BufSlice, all: bool);
    /// Ends the receive in flight soon.
    fn cancel_receive(&mut self);
    /// Sends.
    fn send(&mut self, segments: &[Seg]);
    /// Requests the volume takes now.
    fn room(&self) -> usize;
    /// `on_room` once something completed.
    fn want_room(&mut self);
    /// Hands a request to the volume.
    fn submit(&mut self, req: ReqId, op: Op);
    /// Asks what blocks are; answered by `on_extents`.
    fn query_extents(&mut self, tag: u32, range: ByteRange, kind: ExtentKind);
    /// The first run of known zeroes of at least `min` bytes in the range.
    fn first_hole(&mut self, range: ByteRange, min: u64) -> Option<ByteRange>;
    /// `on_timer` at this moment.
    fn set_timer(&mut self, at: Instant);
    /// Nothing more will be submitted.
    fn end(&mut self);
    /// Close and drop.
    fn finish(&mut self);
    /// Leave open for a successor, and drop. A stream whose state cannot move is finished instead.
    fn hand_over(&mut self, state: Vec<u8>);
}

impl Host for Ctx<'_> {
    fn now(&self) -> Instant {
        Ctx::now(self)
    }

    fn arena(&mut self) -> &mut Arena {
        Ctx::arena(self)
    }

    fn place(&mut self, from: BufSlice, to: BufSlice) {
        Ctx::place(self, from, to);
    }

    fn takes_views(&self) -> bool {
        Ctx::takes_views(self)
    }

    fn receive(&mut self, into: BufSlice, all: bool) {
        let file = self.socket();
        self.push(
            RECEIVE,
            RingOp::Recv {
                file,
                buf: into,
                all,
            },
        );
    }

    fn cancel_receive(&mut self) {
        self.cancel(RECEIVE);
    }

    fn send(&mut self, segments: &[Seg]) {
        let file = self.socket();
        self.push(SEND, RingOp::Send { file, segments });
    }

    fn room(&self) -> usize {
        Ctx::room(self)
    }

    fn want_room(&mut self) {
        Ctx::want_room(self);
    }

    fn submit(&mut self, req: ReqId, op: Op) {
        Ctx::submit(self, req, op);
    }

    fn query_extents(&mut self, tag: u32, range: ByteRange, kind: ExtentKind) {
        Ctx::query_extents(self, tag, range, kind);
    }

    fn first_hole(&mut self, range: ByteRange, min: u64) -> Option<ByteRange> {
        Ctx::first_hole(self, range, min)
    }

    fn set_timer(&mut self, at: Instant) {
        Ctx::set_timer(self, Some(at));
    }

    fn end(&mut self) {
        Ctx::end(self);
    }

    fn finish(&mut self) {
        Ctx::finish(self);
    }

    fn hand_over(&mut self, state: Vec<u8>) {
        Ctx::hand_over(self, state);
    }
}
