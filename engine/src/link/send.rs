//! What waits to be sent on a link: headers in staging buffers, payload where it lies.

use std::collections::VecDeque;

use engine_core::message::{Message, Status};
use engine_core::units::GRANULE;
use engine_core::wire::{Numbers, encode};
use engine_ring::{Arena, BufId, BufSlice, SEGMENTS_MAX, Seg};

use super::{Scratch, net_buffer};
use crate::sums;

/// Bytes of a staging buffer; a longer frame gets one of its own.
const STAGING_BYTES: usize = 32 << 10;
/// Bytes of headers that may wait; a peer that lets more pile up is cut off.
const STAGED_MAX: usize = 8 << 20;

pub(super) struct Sender {
    /// Pieces in order; each holds a reference to its buffer.
    queue: VecDeque<BufSlice>,
    /// How many of them are in the ring.
    in_ring: usize,
    /// Where the next header goes, and from which byte on.
    staging: BufId,
    used: usize,
    staged: usize,
    numbers: Numbers,
}

impl Sender {
    pub(super) fn new(arena: &mut Arena) -> Option<Sender> {
        let staging = net_buffer(arena, STAGING_BYTES)?;
        let (queue, numbers) = (VecDeque::with_capacity(256), Numbers::default());
        Some(Sender {
            queue,
            in_ring: 0,
            staging,
            used: 0,
            staged: 0,
            numbers,
        })
    }

    /// Nothing waits and nothing is being sent.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn is_sending(&self) -> bool {
        self.in_ring > 0
    }

    /// `false` when there is no room for its header.
    pub(super) fn queue(
        &mut self,
        arena: &mut Arena,
        scratch: &mut Scratch,
        message: &Message,
        payload: Option<BufId>,
    ) -> bool {
        let len = payload.map_or(0, |buf| payload_len(arena, message, buf));
        scratch.frame.clear();
        let number = self.numbers.take();
        let none: &[u64] = &[];
        let sums = payload.map_or(none, |buf| sums::of_buffer(arena, buf, len));
        encode(message, number, sums, len as u32, &mut scratch.frame);
        if !self.stage(arena, &scratch.frame) {
            return false;
        }
        if let Some(buf) = payload {
            arena.retain(buf);
            self.queue.push_back(buf.slice(0, len as u32));
        }
        true
    }

    fn stage(&mut self, arena: &mut Arena, frame: &[u8]) -> bool {
        let capacity = arena.capacity(self.staging);
        if self.used + frame.len() > capacity {
            if self.staged + frame.len() > STAGED_MAX {
                return false;
            }
            let Some(fresh) = net_buffer(arena, frame.len().max(STAGING_BYTES)) else {
                return false;
            };
            arena.release(self.staging);
            (self.staging, self.used) = (fresh, 0);
        }
        let slice = self.staging.slice(self.used as u32, frame.len() as u32);
        arena.slice_mut(slice).copy_from_slice(frame);
        self.used += frame.len();
        self.staged += frame.len();
        // Headers that lie side by side go out as one piece.
        let is_free = self.queue.len() > self.in_ring;
        match self.queue.back_mut() {
            Some(last)
                if is_free && last.buf == slice.buf && last.offset + last.len == slice.offset =>
            {
                last.len += slice.len;
            }
            _ => {
                arena.retain(self.staging);
                self.queue.push_back(slice);
            }
        }
        true
    }

    /// The pieces of the next send, now in the ring.
    pub(super) fn fill(&mut self, segments: &mut Vec<Seg>) {
        segments.clear();
        segments.extend(
            self.queue
                .iter()
                .take(SEGMENTS_MAX)
                .map(|slice| Seg::Arena(*slice)),
        );
        self.in_ring = segments.len();
    }

    /// The send ended after `bytes`.
    pub(super) fn sent(&mut self, arena: &mut Arena, bytes: u32) {
        let mut left = bytes;
        self.in_ring = 0;
        while let Some(front) = self.queue.front_mut() {
            if left < front.len {
                front.offset += left;
                front.len -= left;
                break;
            }
            left -= front.len;
            let buf = front.buf;
            self.queue.pop_front();
            arena.release(buf);
        }
        self.were_taken(arena);
    }

    /// What waits, in order, to be taken from its front; [`Sender::were_taken`] follows.
    pub(super) fn pieces(&mut self) -> &mut VecDeque<BufSlice> {
        &mut self.queue
    }

    /// Pieces have gone: staging begins anew after the last.
    pub(super) fn were_taken(&mut self, arena: &Arena) {
        if self.queue.is_empty() {
            self.staged = 0;
            // Nobody else looks into the staging buffer now: begin again at its start.
            if arena.references(self.staging) == 1 {
                self.used = 0;
            }
        }
    }

    pub(super) fn free(self, arena: &mut Arena) {
        self.queue.iter().for_each(|slice| arena.release(slice.buf));
        arena.release(self.staging);
    }
}

/// Bytes of the payload that goes with a message.
fn payload_len(arena: &Arena, message: &Message, buf: BufId) -> usize {
    match message {
        Message::Data { extent, .. } | Message::ResyncData { extent, .. } => {
            extent.bytes() as usize
        }
        // The only message whose payload says its length: it was read for this, and its
        // checksums were taken then.
        Message::ReadReply {
            status: Status::Ok, ..
        } => arena.sums(buf).map_or(0, <[u64]>::len) * GRANULE as usize,
        other => unreachable!("{other:?} has no payload"),
    }
}
