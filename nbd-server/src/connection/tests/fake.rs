//! A reactor for one connection: real buffers, a volume in a vector, a stream whose every receive
//! and send ends when and as short as the test wants.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::front_end::{BlockExtent, ExportLabel, ExtentKind};
use engine::log::{Line, Log};
use engine_core::action::Outcome;
use engine_core::event::{Op, ReqId};
use engine_core::time::Instant;
use engine_core::units::{self, ByteRange, GRANULE};
use engine_ring::{Arena, ArenaConfig, BufId, BufSlice, Class, Errno, Seg};
use nbd_proto::{
    BASE_ALLOCATION, BlockSizes, CommandFlags, CommandKind, Cookie, ExportInfo, ExportName,
    ExtendedRequest, Features, Negotiated, ReplyStyle, Request, SelectedContext, TransmissionFlags,
};

use crate::config::Limits;
use crate::connection::host::Host;
use crate::connection::{Early, NbdConnection, Who};

/// Bytes of the volume.
pub(super) const SIZE: u64 = 64 << 20;

/// The connection's half of the reactor.
pub(super) struct Fake {
    pub(super) arena: Arena,
    pub(super) now: Instant,
    pub(super) receive: Option<(BufSlice, bool)>,
    pub(super) is_cancelled: bool,
    pub(super) send: Option<Vec<Seg>>,
    pub(super) sends: usize,
    pub(super) submitted: VecDeque<(ReqId, Op)>,
    pub(super) queries: VecDeque<(u32, ByteRange, ExtentKind)>,
    /// What the volume knows to be zeroes, in order.
    pub(super) holes: Vec<ByteRange>,
    /// The volume is memory.
    pub(super) takes_views: bool,
    pub(super) room: usize,
    pub(super) wants_room: bool,
    pub(super) timer: Option<Instant>,
    pub(super) is_ended: bool,
    pub(super) is_finished: bool,
    pub(super) state: Option<Vec<u8>>,
}

impl Host for Fake {
    fn now(&self) -> Instant {
        self.now
    }

    fn arena(&mut self) -> &mut Arena {
        &mut self.arena
    }

    fn place(&mut self, from: BufSlice, to: BufSlice) {
        self.arena.copy(from, to);
    }

    fn takes_views(&self) -> bool {
        self.takes_views
    }

    fn receive(&mut self, into: BufSlice, all: bool) {
        assert!(self.receive.is_none(), "one receive is in flight at a time");
        assert!(!self.is_finished, "nothing is pushed after finish");
        assert!(into.len > 0, "a receive has room");
        self.arena.retain(into.buf);
        self.receive = Some((into, all));
        self.is_cancelled = false;
    }

    fn cancel_receive(&mut self) {
        self.is_cancelled = true;
    }

    fn send(&mut self, segments: &[Seg]) {
        assert!(self.send.is_none(), "one send is in flight at a time");
        assert!(!self.is_finished, "nothing is pushed after finish");
        assert!(!segments.is_empty() && segments.iter().all(|segment| segment.len() > 0));
        for segment in segments {
            self.arena.retain(slice(segment).buf);
        }
        self.send = Some(segments.to_vec());
        self.sends += 1;
    }

    fn room(&self) -> usize {
        self.room
    }

    fn want_room(&mut self) {
        self.wants_room = true;
    }

    fn submit(&mut self, req: ReqId, op: Op) {
        assert!(
            self.room > 0,
            "room is asked for before a request is submitted"
        );
        assert!(!self.is_ended, "nothing is submitted after end");
        self.room -= 1;
        self.submitted.push_back((req, op));
    }

    fn query_extents(&mut self, tag: u32, range: ByteRange, kind: ExtentKind) {
        self.queries.push_back((tag, range, kind));
    }

    fn first_hole(&mut self, range: ByteRange, min: u64) -> Option<ByteRange> {
        let end = range.offset + range.len;
        self.holes.iter().find_map(|hole| {
            let start = hole.offset.max(range.offset);
            let len = (hole.offset + hole.len).min(end).saturating_sub(start);
            (len >= min).then_some(ByteRange { offset: start, len })
        })
    }

    fn set_timer(&mut self, at: Instant) {
        self.timer = Some(at);
    }

    fn end(&mut self) {
        self.is_ended = true;
    }

    fn finish(&mut self) {
        self.is_finished = true;
    }

    fn hand_over(&mut self, state: Vec<u8>) {
        self.state = Some(state);
        self.is_finished = true;
    }
}

impl Fake {
    pub(super) fn new(arena_bytes: usize) -> Fake {
        let config = ArenaConfig::with_bytes(0, arena_bytes);
        Fake {
            arena: Arena::new(&config).unwrap(),
            now: Instant(1_000_000_000),
            receive: None,
            is_cancelled: false,
            send: None,
            sends: 0,
            submitted: VecDeque::new(),
            queries: VecDeque::new(),
            holes: Vec::new(),
            takes_views: false,
            room: 1000,
            wants_room: false,
            timer: None,
            is_ended: false,
            is_finished: false,
            state: None,
        }
    }

    /// Carries out what the volume was asked.
    pub(super) fn carry_out(&mut self, disk: &mut [u8], op: Op) {
        let part = |buf: units::BufId, range: ByteRange| {
            BufId::from_u64(buf.0).slice((range.offset % GRANULE) as u32, range.len as u32)
        };
        let span = |range: ByteRange| range.offset as usize..(range.offset + range.len) as usize;
        match op {
            Op::Read { range, buf } => {
                let to = self.arena.slice_mut(part(buf, range));
                to.copy_from_slice(&disk[span(range)]);
            }
            Op::Write { range, buf, .. } => {
                let from = self.arena.slice(part(buf, range));
                disk[span(range)].copy_from_slice(from);
            }
            Op::Zero { range, .. } => disk[span(range)].fill(0),
            Op::Flush => {}
        }
    }
}

pub(super) fn who(log: &Arc<Lines>) -> Who {
    Who {
        volume: "vm".to_owned(),
        export: ExportLabel::new("disk"),
        address: "unix:7".to_owned(),
        log: log.clone(),
        _seat: Default::default(),
    }
}

pub(super) fn slice(segment: &Seg) -> BufSlice {
    match segment {
        Seg::Arena(slice) => *slice,
        Seg::Region { .. } => unreachable!("replies come from the arena"),
    }
}

/// Keeps lines.
#[derive(Default)]
pub(super) struct Lines(pub(super) Mutex<Vec<String>>);

impl Log for Lines {
    fn line(&self, line: Line<'_>) {
        self.0.lock().unwrap().push(line.text.to_owned());
    }
}

/// A client, a connection and a volume.
pub(super) struct World {
    pub(super) host: Fake,
    pub(super) connection: NbdConnection,
    /// Client to server, not received yet.
    pub(super) input: VecDeque<u8>,
    pub(super) is_input_over: bool,
    /// Server to client.
    pub(super) output: Vec<u8>,
    pub(super) disk: Vec<u8>,
    pub(super) log: Arc<Lines>,
}

pub(super) fn negotiated(replies: ReplyStyle) -> Negotiated {
    let export = ExportInfo {
        name: ExportName::new("disk").unwrap(),
        description: String::new(),
        size: SIZE,
        read_only: false,
        features: Features {
            flush: true,
            fua: true,
            trim: true,
            write_zeroes: true,
            fast_zero: true,
            multi_conn: true,
            cache: true,
            ..Features::default()
        },
        block_sizes: BlockSizes::USUAL,
        contexts: vec![BASE_ALLOCATION.to_owned()],
    };
    let contexts = match replies {
        ReplyStyle::Simple => Vec::new(),
        ReplyStyle::Structured => {
            vec![SelectedContext {
                id: 1,
                name: BASE_ALLOCATION.to_owned(),
            }]
        }
        ReplyStyle::Extended => {
            let names = [
                BASE_ALLOCATION,
                "x-pollux:replicated",
                "qemu:dirty-bitmap:m",
            ];
            let context = |(id, name): (u32, &str)| SelectedContext {
                id,
                name: name.to_owned(),
            };
            (1..).zip(names).map(context).collect()
        }
    };
    let filters = replies == ReplyStyle::Extended;
    Negotiated {
        flags: export
            .flags(replies)
            .with_if(TransmissionFlags::BLOCK_STATUS_PAYLOAD, filters),
        export,
        replies,
        contexts,
        no_zeroes: true,
    }
}

impl World {
    pub(super) fn new(replies: ReplyStyle) -> World {
        World::with(replies, Limits::default(), 256 << 20, Vec::new())
    }

    pub(super) fn with(
        replies: ReplyStyle,
        limits: Limits,
        arena_bytes: usize,
        early: impl Into<Early>,
    ) -> World {
        let mut host = Fake::new(arena_bytes);
        let negotiated = negotiated(replies);
        let log = Arc::new(Lines::default());
        let connection =
            NbdConnection::open(&negotiated, early.into(), who(&log), limits, &mut host);
        World {
            host,
            connection,
            input: VecDeque::new(),
            is_input_over: false,
            output: Vec::new(),
            disk: vec![0; SIZE as usize],
            log,
        }
    }

    /// The client sends a request.
    pub(super) fn ask(&mut self, kind: CommandKind, cookie: u64, offset: u64, length: u32) {
        self.ask_with(CommandFlags::NONE, kind, cookie, offset, length);
    }

    pub(super) fn ask_with(
        &mut self,
        flags: CommandFlags,
        kind: CommandKind,
        cookie: u64,
        offset: u64,
        length: u32,
    ) {
        if self.connection.agreed.replies == ReplyStyle::Extended {
            let is_write = kind == CommandKind::WRITE;
            let flags = flags.with_if(CommandFlags::PAYLOAD_LEN, is_write);
            return self.ask_wide(flags, kind, cookie, offset, length.into());
        }
        let request = Request {
            flags,
            kind,
            cookie: Cookie(cookie),
            offset,
            length,
        };
        self.input.extend(request.encode());
    }

    /// The client sends an extended header.
    pub(super) fn ask_wide(
        &mut self,
        flags: CommandFlags,
        kind: CommandKind,
        cookie: u64,
        offset: u64,
        length: u64,
    ) {
        let request = ExtendedRequest {
            flags,
            kind,
            cookie: Cookie(cookie),
            offset,
            length,
        };
        self.input.extend(request.encode());
    }

    /// The client sends a write.
    pub(super) fn ask_write(&mut self, cookie: u64, offset: u64, data: &[u8]) {
        self.ask(CommandKind::WRITE, cookie, offset, data.len() as u32);
        self.input.extend(data);
    }

    /// The receive in flight ends: with at most `max` bytes, or by end of stream or cancellation.
    /// `false` if it does not end.
    pub(super) fn deliver(&mut self, max: usize) -> bool {
        let Some((into, all)) = self.host.receive else {
            return false;
        };
        let there = self.input.len().min(into.len as usize);
        let is_full = there == into.len as usize;
        let count = if all { there } else { there.min(max) };
        let is_cut = self.host.is_cancelled && there > 0;
        let result = if all && (is_full || is_cut) || !all && count > 0 || self.is_input_over {
            let bytes: Vec<u8> = self.input.drain(..count).collect();
            let part = into.buf.slice(into.offset, count as u32);
            self.host.arena.slice_mut(part).copy_from_slice(&bytes);
            Ok(count as u32)
        } else if self.host.is_cancelled {
            Err(Errno::CANCELED)
        } else {
            return false;
        };
        self.host.receive = None;
        self.host.arena.release(into.buf);
        if !self.host.is_finished {
            self.connection.receive_ended(&mut self.host, result);
        }
        true
    }

    /// The send in flight ends after at most `max` bytes. `false` if there is none.
    pub(super) fn sent(&mut self, max: usize) -> bool {
        let Some(segments) = self.host.send.take() else {
            return false;
        };
        let mut count = 0;
        for segment in &segments {
            let slice = slice(segment);
            let take = (slice.len as usize).min(max - count);
            let part = slice.buf.slice(slice.offset, take as u32);
            self.output.extend_from_slice(self.host.arena.slice(part));
            count += take;
        }
        self.send_ended(&segments, Ok(count as u32));
        true
    }

    /// The send in flight fails.
    pub(super) fn send_fails(&mut self) {
        let segments = self.host.send.take().unwrap();
        self.send_ended(&segments, Err(Errno::PIPE));
    }

    fn send_ended(&mut self, segments: &[Seg], result: Result<u32, Errno>) {
        for segment in segments {
            self.host.arena.release(slice(segment).buf);
        }
        if !self.host.is_finished {
            self.connection.send_ended(&mut self.host, result);
        }
    }

    /// The volume carries out the request at this place of its queue.
    pub(super) fn complete(&mut self, index: usize) {
        let (req, op) = self.host.submitted.remove(index).unwrap();
        self.host.carry_out(&mut self.disk, op);
        self.ends(req, Outcome::Ok);
    }

    /// The oldest request ends like this, and nothing happened.
    pub(super) fn fail(&mut self, outcome: Outcome) {
        let (req, _) = self.host.submitted.pop_front().unwrap();
        self.ends(req, outcome);
    }

    pub(super) fn ends(&mut self, req: ReqId, outcome: Outcome) {
        self.host.room += 1;
        self.connection
            .complete(&mut self.host, req.0 as u16, outcome);
    }

    /// The volume answers the oldest question.
    pub(super) fn tell(&mut self, result: Result<&[BlockExtent], Errno>) {
        let (tag, ..) = self.host.queries.pop_front().unwrap();
        self.connection
            .extents_came(&mut self.host, tag as u16, result);
    }

    pub(super) fn room_came(&mut self) {
        self.host.wants_room = false;
        self.connection.room_came(&mut self.host);
    }

    pub(super) fn flush(&mut self) {
        if !self.host.is_finished {
            self.connection.turn_ends(&mut self.host);
        }
    }

    /// Time passes; the timer fires if it is due.
    pub(super) fn pass(&mut self, time: Duration) {
        self.host.now = self.host.now.after(time);
        if self.host.timer.is_some_and(|at| at <= self.host.now) && !self.host.is_finished {
            self.host.timer = None;
            self.connection.timer_fired(&mut self.host);
            self.flush();
        }
    }

    /// Turns until nothing moves: receives and sends whole, the volume serves at once.
    pub(super) fn run(&mut self) {
        loop {
            let mut has_moved = self.deliver(usize::MAX);
            while !self.host.submitted.is_empty() {
                self.complete(0);
                has_moved = true;
            }
            while !self.host.queries.is_empty() {
                self.tell(Err(Errno::OPNOTSUPP));
                has_moved = true;
            }
            if std::mem::take(&mut self.host.wants_room) {
                self.connection.room_came(&mut self.host);
            }
            self.flush();
            has_moved |= self.sent(usize::MAX);
            self.flush();
            if !has_moved {
                return;
            }
        }
    }

    /// Another process goes on with the client: the stream, what the client has received, the
    /// disk and the log stay. What the volume has not carried out yet is given back undone.
    pub(super) fn move_to_successor(&mut self, limits: Limits, arena_bytes: usize) {
        self.connection.move_out(&mut self.host);
        self.flush();
        while let Some((req, _)) = self.host.submitted.pop_front() {
            self.ends(req, Outcome::Aborted);
        }
        self.flush();
        self.quiet();
        while !self.host.is_finished {
            let has_moved = self.deliver(usize::MAX) | self.sent(usize::MAX);
            self.flush();
            assert!(has_moved || self.host.is_finished, "the move goes on");
        }
        self.assert_nothing_is_held();
        let state = self.host.state.take().expect("there is a successor's part");
        let (agreed, early) = crate::handover::decode("disk", &state).unwrap();
        let next = World::with(agreed.replies, limits, arena_bytes, early);
        let old = std::mem::replace(self, next);
        self.input.extend(old.input);
        self.output = [old.output, std::mem::take(&mut self.output)].concat();
        (self.disk, self.is_input_over) = (old.disk, old.is_input_over);
    }

    /// The core is done with the session.
    pub(super) fn quiet(&mut self) {
        assert!(self.host.is_ended, "a session is quiet after it was ended");
        self.connection.quiet_came(&mut self.host);
        self.flush();
    }

    /// Everything is over: the socket is closed, and no buffer is left.
    pub(super) fn assert_nothing_is_held(&mut self) {
        assert!(self.host.is_finished, "the connection finished");
        if let Some((into, _)) = self.host.receive.take() {
            self.host.arena.release(into.buf);
        }
        for segment in self.host.send.take().unwrap_or_default() {
            self.host.arena.release(slice(&segment).buf);
        }
        for class in [Class::Client, Class::Net] {
            assert_eq!(
                self.host.arena.used(class),
                0,
                "buffers of {class:?} came back"
            );
        }
    }
}
