//! A connection that another process goes on with.
//!
//! ```text
//!  Serving ── drain(HandOver) ──► Ended: receive cancelled, core told ── on_quiet ──► Quiet
//!  Quiet ── replies sent, receive over ──► state: agreed | undone requests | bytes not parsed
//! ```
//!
//! Nothing is waited for but what the disks have been given: a request that the core gives back
//! undone, one that was never submitted, and a write of which a part has come become bytes again,
//! as if they had just been received. The successor parses them first.
//!
//! A client that does not read its replies in time, or left, is not handed over.

use engine_core::action::Outcome;
use engine_core::message::Zeroing;
use engine_ring::Errno;
use nbd_proto::{
    Command, CommandFlags as F, CommandKind, ContextSet, Cookie, ExtendedRequest, ReplyStyle,
    Request as Header,
};

use super::NbdConnection;
use super::ending::Life;
use super::host::Host;
use super::intake::{Flight, Stalled};
use super::table::{Kind, Reply, Request, Status};
use crate::handover;

impl NbdConnection {
    /// Reads no more; what is not answered goes to the successor.
    pub(super) fn move_out(&mut self, host: &mut impl Host) {
        if self.life != Life::Serving {
            return;
        }
        self.is_moving = true;
        self.moved = host.now();
        self.life = Life::Ended;
        if self.intake.flight != Flight::None {
            host.cancel_receive();
        }
        host.end();
    }

    /// There will be no successor: what was kept for it is dropped, and the stream closed.
    pub(super) fn stay(&mut self, host: &mut impl Host) {
        if std::mem::take(&mut self.is_moving) {
            self.stop_reading(host);
        }
    }

    /// The request had no effect; it is the successor's.
    pub(super) fn is_undone(outcome: Outcome) -> bool {
        matches!(
            outcome,
            Outcome::Aborted | Outcome::Busy | Outcome::NotPrimary | Outcome::Stopping
        )
    }

    /// The receive in flight ended after the move began.
    pub(super) fn last_received(
        &mut self,
        host: &mut impl Host,
        flight: Flight,
        result: Result<u32, Errno>,
    ) {
        match (flight, result) {
            (_, Err(Errno::CANCELED)) => {}
            (_, Ok(0) | Err(_)) => self.stay(host),
            (Flight::Buffer(_), Ok(count)) => self.intake.keep(count),
            (Flight::Payload | Flight::None, Ok(count)) => {
                self.transmission.payload_received(count);
            }
        }
    }

    /// Hands over once nothing moves any more.
    pub(super) fn settle_move(&mut self, host: &mut impl Host) {
        if !self.replies.is_empty() || self.intake.flight != Flight::None {
            return;
        }
        let (early, skip) = self.remainder(host);
        let state = handover::encode(&self.agreed, skip, &early);
        self.life = Life::Finished;
        while let Some(slot) = self.table.first() {
            self.drop_slot(host, slot);
        }
        self.intake.release(host);
        self.replies.release_headers(host);
        host.hand_over(state);
    }

    /// Everything received that is not answered, as bytes of the stream; then so many of the next
    /// bytes belong to a refused write.
    fn remainder(&mut self, host: &mut impl Host) -> (Vec<u8>, u32) {
        let mut out = Vec::new();
        let arriving = self.intake.write;
        for slot in self.table.slots().filter(|slot| Some(*slot) != arriving) {
            let request = self.table.get(slot);
            if request.is_part {
                // All of the read is asked for again: nothing of it was sent.
                continue;
            }
            assert!(
                request.reply == Reply::Pending,
                "what was answered was sent"
            );
            self.put(request, request.length, host, &mut out);
        }
        if let Some(Stalled::Command(cookie, origin, command)) = self.intake.stalled {
            let request = Request {
                origin,
                ..stalled(cookie, command)
            };
            self.put(&request, 0, host, &mut out);
        }
        if let Some(slot) = arriving {
            let request = self.table.get(slot);
            let have = request.length - u64::from(self.transmission.payload_left());
            self.put(request, have, host, &mut out);
        }
        let (buffered, early) = self.intake.unparsed();
        let mut unparsed = self.transmission.unfinished();
        if let Some(slice) = buffered.filter(|slice| slice.len > 0) {
            unparsed.extend(host.arena().slice(slice));
        }
        unparsed.extend(early.left());
        let skip = self.transmission.to_skip();
        let skipped = (skip as usize).min(unparsed.len());
        out.extend(&unparsed[skipped..]);
        (out, skip - skipped as u32 + early.to_skip())
    }

    /// A request as it came, with the first `have` bytes of its payload.
    fn put(&self, request: &Request, have: u64, host: &mut impl Host, out: &mut Vec<u8>) {
        let (kind, flags) = command(&request.kind);
        let Request {
            cookie,
            origin,
            length,
            buf,
            ..
        } = *request;
        if self.agreed.replies != ReplyStyle::Extended {
            let header = Header {
                flags,
                kind,
                cookie,
                offset: origin,
                length: length as u32,
            };
            out.extend(header.encode());
        } else {
            let filter = self.filter(request);
            let has_payload = kind == CommandKind::WRITE || !filter.is_empty();
            let header = ExtendedRequest {
                flags: flags.with_if(F::PAYLOAD_LEN, has_payload),
                kind,
                cookie,
                offset: origin,
                length: match filter.len() {
                    0 => length,
                    bytes => bytes as u64,
                },
            };
            out.extend(header.encode());
            out.extend(filter);
        }
        if let (CommandKind::WRITE, Some(buf)) = (kind, buf) {
            out.extend(host.arena().slice(request.payload(buf, 0, have as u32)));
        }
    }

    /// The payload of a block status in some of the contexts; empty for all.
    fn filter(&self, request: &Request) -> Vec<u8> {
        let mut out = Vec::new();
        if let Kind::Status(status) = request.kind
            && status.wanted != ContextSet::first(self.contexts.len())
        {
            out.extend(request.length.to_be_bytes());
            for context in status.wanted.iter() {
                out.extend(self.contexts[context].0.to_be_bytes());
            }
        }
        out
    }
}

/// Command and flags that lead to this kind.
fn command(kind: &Kind) -> (CommandKind, F) {
    match *kind {
        Kind::Read { whole } => (CommandKind::READ, F::NONE.with_if(F::DF, whole)),
        Kind::Parts(_) => (CommandKind::READ, F::NONE),
        Kind::Write { fua } => (CommandKind::WRITE, F::NONE.with_if(F::FUA, fua)),
        Kind::Zero { zeroing, fua } => {
            let flags = F::NONE.with_if(F::FUA, fua);
            match zeroing {
                Zeroing::Trim => (CommandKind::TRIM, flags),
                Zeroing::MayTrim => (CommandKind::WRITE_ZEROES, flags),
                Zeroing::Allocate => (CommandKind::WRITE_ZEROES, flags.with(F::NO_HOLE)),
            }
        }
        Kind::Flush => (CommandKind::FLUSH, F::NONE),
        Kind::Status(status) => (
            CommandKind::BLOCK_STATUS,
            F::NONE.with_if(F::REQ_ONE, status.one),
        ),
        Kind::Answer => unreachable!("an answer at once is never pending"),
    }
}

/// A command that found no buffer, as a request of the table.
fn stalled(cookie: Cookie, command: Command) -> Request {
    let (kind, offset, length) = match command {
        Command::Read {
            offset,
            length,
            in_one,
        } => (Kind::Read { whole: in_one }, offset, u64::from(length)),
        Command::Write {
            offset,
            length,
            fua,
        } => (Kind::Write { fua }, offset, u64::from(length)),
        Command::BlockStatus {
            offset,
            length,
            one,
            contexts,
        } => (Kind::Status(Status::new(one, contexts)), offset, length),
        _ => unreachable!("a command without a buffer is never stalled for one"),
    };
    Request::new(cookie, kind, offset, length)
}
