//! From received bytes to requests at the volume.
//!
//! ```text
//!  payload, and the volume is …   … memory                        … a disk
//!  in the receive buffer          a view of it is its buffer      copied to a buffer of its own
//!  the rest is still to come      received right behind (short)   received straight into that
//!                                 or into a buffer of its own     buffer, or copied (short)
//! ```
//! So a byte is copied at most once between socket and replica: to memory from where it was
//! received, or to an aligned buffer for a device. What a view needs is not received over: the next
//! receive goes behind it, or into a new buffer.

use engine_core::event::ReqId;
use engine_core::message::Zeroing;
use engine_core::units::GRANULE;
use engine_ring::{Arena, BufId, BufSlice, Class, Errno};
use nbd_proto::{Command, Cookie, Item, NbdError, Parsed};

use super::NbdConnection;
use super::ending::Life;
use super::host::Host;
use super::table::{Kind, Reply, Request, Status};

/// Receive buffer of a connection that is idle or reads only.
pub(super) const RECEIVE_MIN: u32 = 4 << 10;
/// Receive buffer of a connection that fills the smaller one.
pub(super) const RECEIVE_MAX: u32 = 256 << 10;
/// Payload of which so much is still missing is received straight into its own buffer; less is
/// received with the headers around it and copied once.
const DIRECT_MIN: u32 = 16 << 10;
/// Longest single receive into a payload's buffer, so that progress shows.
const DIRECT_MAX: u32 = 1 << 20;
/// Longest write whose rest is received behind what has come of it.
const IN_PLACE_MAX: u32 = 64 << 10;
/// Room behind bytes that are still needed for which a receive is worth its call; with less, a new
/// buffer is taken, or just the rest of a payload received.
const BEHIND_MIN: u32 = 32 << 10;
/// What a connection may hold before its share is looked at.
const SHARE_MIN: usize = 1 << 20;
/// What is left free by whoever holds something already or asks for more than [`MODEST`]...
const RESERVE: usize = 8 << 20;
/// ... and by whoever asks for more than a granule: a thousand clients that hold a block each do
/// not take the last one.
const LAST_RESERVE: usize = 2 << 20;
const MODEST: usize = 64 << 10;
const GRANULE_BYTES: usize = GRANULE as usize;

/// The receiving half of a connection.
#[derive(Debug)]
pub(super) struct Intake {
    buf: Option<BufId>,
    capacity: u32,
    /// Bytes `at..filled` of the buffer are not parsed yet.
    at: u32,
    filled: u32,
    pub(super) flight: Flight,
    /// The write whose payload is arriving.
    pub(super) write: Option<u16>,
    /// Its buffer is a view of this one: its payload is not parsed before it is complete.
    is_in_place: bool,
    /// Bytes of the last write in place; so much is kept free behind a receive, because its end
    /// may cut another one.
    behind: u32,
    pub(super) stalled: Option<Stalled>,
    /// The last receive filled the whole buffer.
    wants_more: bool,
    /// The last request was a large write.
    wants_less: bool,
    /// The receive in flight is being cancelled for a smaller buffer.
    pub(super) is_shrinking: bool,
    /// What came before the stream and is not in the buffer yet.
    early: Early,
}

/// Bytes that were received before this connection began: too far read by the negotiation, or by
/// another process.
#[derive(Debug, Default)]
pub(crate) struct Early {
    bytes: Vec<u8>,
    /// So many of them are taken.
    at: usize,
    /// So many bytes of the stream after them belong to a write that was refused already.
    skip: u32,
}

impl Early {
    /// `skip` bytes of the stream after `bytes` are dropped.
    pub(crate) fn new(bytes: Vec<u8>, skip: u32) -> Early {
        Early { bytes, at: 0, skip }
    }

    /// What is not taken yet.
    pub(crate) fn left(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    pub(crate) fn to_skip(&self) -> u32 {
        self.skip
    }

    fn is_over(&self) -> bool {
        self.at == self.bytes.len() && self.skip == 0
    }
}

impl From<Vec<u8>> for Early {
    fn from(bytes: Vec<u8>) -> Early {
        Early::new(bytes, 0)
    }
}

/// The receive in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flight {
    None,
    /// Into the receive buffer, so many bytes at most.
    Buffer(u32),
    /// So many bytes into the buffer of the write that is arriving.
    Payload,
}

/// What must go on before anything else is parsed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stalled {
    /// No buffer for this command; with the offset that came with it.
    Command(Cookie, u64, Command),
    /// This write is complete, the volume has no room.
    Write(u16),
}

impl Intake {
    pub(super) fn new(early: Early) -> Intake {
        Intake {
            buf: None,
            capacity: 0,
            at: 0,
            filled: 0,
            flight: Flight::None,
            write: None,
            is_in_place: false,
            behind: 0,
            stalled: None,
            wants_more: false,
            wants_less: false,
            is_shrinking: false,
            early,
        }
    }

    /// There is something to parse, or to go on with.
    fn is_due(&self) -> bool {
        self.at < self.filled || self.stalled.is_some()
    }

    /// What was received and not parsed: first what lies in the buffer, then what came early.
    pub(super) fn unparsed(&self) -> (Option<BufSlice>, &Early) {
        let buffered = self
            .buf
            .map(|buf| buf.slice(self.at, self.filled - self.at));
        (buffered, &self.early)
    }

    /// The last receive, of a connection that reads no more, brought `count` bytes.
    pub(super) fn keep(&mut self, count: u32) {
        self.filled += count;
    }

    /// It holds more than an idle connection needs.
    pub(super) fn is_large(&self) -> bool {
        self.capacity > RECEIVE_MIN
    }

    /// Everything in the buffer is parsed, but for the beginning of a write in place of which
    /// `payload_left` bytes are not.
    fn is_used_up(&self, payload_left: u32) -> bool {
        self.at == self.filled || self.lacks(payload_left) > 0
    }

    /// Bytes that a write in place waits for before it is parsed, `payload_left` of which are not.
    fn lacks(&self, payload_left: u32) -> u32 {
        match self.write {
            Some(_) if self.is_in_place => payload_left.saturating_sub(self.filled - self.at),
            _ => 0,
        }
    }

    /// The payload of `length` bytes that follows a header just parsed, if it may stay where it is
    /// received.
    fn stays(&self, length: u64) -> Option<BufSlice> {
        let (buf, length) = (self.buf?, u32::try_from(length).ok()?);
        let is_there = length <= self.filled - self.at;
        let has_room =
            length <= IN_PLACE_MAX && length <= self.capacity - self.at && self.early.is_over();
        (is_there || has_room).then(|| buf.slice(self.at, length))
    }

    /// Where to receive at most `most` bytes, everything being parsed.
    fn space(&mut self, host: &mut impl Host, most: u32) -> Option<BufSlice> {
        let buf = self.buffer(host)?;
        let behind = match self.capacity {
            RECEIVE_MAX => self.behind,
            _ => 0,
        };
        let length = (self.capacity - self.filled - behind).min(most);
        Some(buf.slice(self.filled, length))
    }

    /// Where to receive the rest of a write in place, which lacks so many bytes, and whether it
    /// must be all of it.
    fn space_behind(&self, lacks: u32) -> (BufSlice, bool) {
        let buf = self.buf.expect("the beginning of the write lies in it");
        let room = self.capacity - self.filled;
        let more = room.saturating_sub(self.behind);
        if more >= lacks + BEHIND_MIN {
            (buf.slice(self.filled, more), false)
        } else {
            (buf.slice(self.filled, lacks), true)
        }
    }

    /// A receive buffer with room behind `filled`, larger if the last one was filled. Bytes that
    /// views need stay; without any it begins anew. `None` if there is no memory.
    fn buffer(&mut self, host: &mut impl Host) -> Option<BufId> {
        let is_viewed = self.buf.is_some_and(|buf| host.arena().references(buf) > 1);
        if !is_viewed {
            (self.at, self.filled) = (0, 0);
        }
        let wanted = if self.wants_more {
            RECEIVE_MAX
        } else {
            RECEIVE_MIN
        };
        let has_room = !is_viewed || self.capacity - self.filled >= self.behind + BEHIND_MIN;
        if self.capacity >= wanted && has_room {
            return self.buf;
        }
        let Some(buf) = host.arena().alloc(Class::Net, wanted as usize) else {
            return self.buf.filter(|_| has_room);
        };
        self.release(host);
        (self.buf, self.capacity) = (Some(buf), wanted);
        self.buf
    }

    /// Gives the receive buffer back; a receive in flight keeps its own reference.
    pub(super) fn release(&mut self, host: &mut impl Host) {
        (self.at, self.filled, self.capacity) = (0, 0, 0);
        if let Some(buf) = self.buf.take() {
            host.arena().release(buf);
        }
    }
}

impl NbdConnection {
    /// Parses what came before the stream, a buffer at a time.
    pub(super) fn take_early(&mut self, host: &mut impl Host) {
        while self.life == Life::Serving && !self.intake.early.is_over() && !self.intake.is_due() {
            let left = self.intake.early.left().len();
            if left == 0 {
                self.transmission
                    .skip(std::mem::take(&mut self.intake.early.skip));
                self.intake.early = Early::default();
                return;
            }
            self.intake.wants_more |= left > RECEIVE_MIN as usize;
            let Some(buf) = self.intake.buffer(host) else {
                self.is_starved = true;
                return host.want_room();
            };
            let intake = &mut self.intake;
            let count = left.min((intake.capacity - intake.filled) as usize);
            host.arena()
                .slice_mut(buf.slice(intake.filled, count as u32))
                .copy_from_slice(&intake.early.left()[..count]);
            intake.early.at += count;
            intake.filled += count as u32;
            self.take(host);
        }
    }

    /// Pushes the next receive, unless one is in flight or what has come is not done with.
    pub(super) fn receive(&mut self, host: &mut impl Host) {
        let intake = &mut self.intake;
        if self.life != Life::Serving
            || intake.flight != Flight::None
            || intake.stalled.is_some()
            || !intake.is_used_up(self.transmission.payload_left())
            || !intake.early.is_over()
        {
            return;
        }
        let left = self.transmission.payload_left();
        let lacks = intake.lacks(left);
        if lacks > 0 {
            let (space, all) = intake.space_behind(lacks);
            host.receive(space, all);
            intake.flight = Flight::Buffer(space.len);
        } else if let Some(slot) = intake.write
            && left >= DIRECT_MIN
        {
            let request = self.table.get(slot);
            let buf = request
                .buf
                .expect("a write has a buffer from its header on");
            let have = request.length as u32 - left;
            host.receive(request.payload(buf, have, left.min(DIRECT_MAX)), true);
            intake.flight = Flight::Payload;
            self.moved = host.now();
        } else {
            // Large payload is not to come with its header: it would be copied.
            let most = match intake.wants_less {
                true if intake.write.is_none() && self.transmission.to_skip() == 0 => {
                    self.transmission.header_len() as u32
                }
                _ => RECEIVE_MAX,
            };
            let Some(space) = intake.space(host, most) else {
                self.is_starved = true;
                return host.want_room();
            };
            host.receive(space, false);
            intake.flight = Flight::Buffer(space.len);
        }
    }

    pub(super) fn receive_ended(&mut self, host: &mut impl Host, result: Result<u32, Errno>) {
        let flight = std::mem::replace(&mut self.intake.flight, Flight::None);
        let was_shrinking = std::mem::take(&mut self.intake.is_shrinking);
        if self.is_moving {
            return self.last_received(host, flight, result);
        }
        if self.life != Life::Serving {
            return;
        }
        match (flight, result) {
            (Flight::Buffer(_), Err(Errno::CANCELED)) if was_shrinking => {
                self.intake.wants_more = false;
                self.intake.release(host);
            }
            (_, Ok(0) | Err(_)) => self.close(host),
            (Flight::Buffer(length), Ok(count)) => {
                let was_arriving = self.intake.write.is_some();
                self.intake.wants_more |= count == length && count == self.intake.capacity;
                self.intake.filled += count;
                self.take(host);
                self.progress(host, was_arriving);
            }
            (Flight::Payload | Flight::None, Ok(count)) => {
                self.moved = host.now();
                self.transmission.payload_received(count);
                self.end_payload(host);
            }
        }
    }

    /// Bytes of payload that arrive around headers count as progress once their write is complete:
    /// who drips would hold its buffer for ever.
    fn progress(&mut self, host: &mut impl Host, was_arriving: bool) {
        if !was_arriving || self.intake.write.is_none() {
            self.moved = host.now();
        }
    }

    /// Parses and submits until the bytes are used up or something must be waited for.
    pub(super) fn take(&mut self, host: &mut impl Host) {
        while self.life == Life::Serving && self.intake.is_due() && self.go_on(host) {
            if self.intake.is_used_up(self.transmission.payload_left()) {
                return;
            }
            let intake = &self.intake;
            let buf = intake
                .buf
                .expect("bytes that are not parsed lie in the buffer");
            let from = intake.at;
            let bytes = host.arena().slice(buf.slice(from, intake.filled - from));
            let Parsed { consumed, item } = match self.transmission.next(bytes) {
                Ok(parsed) => parsed,
                Err(fatal) => {
                    self.log(format_args!("{fatal}"));
                    return self.close(host);
                }
            };
            self.intake.at += consumed as u32;
            match item {
                Item::Request {
                    cookie,
                    offset,
                    command,
                } => self.admit(host, cookie, offset, command),
                Item::Payload => self.copy_payload(host, buf, from, consumed as u32),
                Item::Reject {
                    cookie,
                    offset,
                    refused,
                    ..
                } => {
                    let reply = Reply::Error(refused.error, refused.text);
                    self.reply_at_once(host, cookie, offset, reply);
                }
                Item::Disconnect => return self.leave(host),
                Item::More => {}
            }
        }
    }

    /// Whether the next item may be parsed; what was stalled goes first.
    fn go_on(&mut self, host: &mut impl Host) -> bool {
        if self.intake.write.is_some() {
            return true;
        }
        if !self.busy.is_empty() || host.room() == 0 {
            host.want_room();
            return false;
        }
        if let Some(Stalled::Write(slot)) = self.intake.stalled {
            self.intake.stalled = None;
            self.submit(host, slot);
            return self.go_on(host);
        }
        // A full table empties as replies are sent.
        if self.table.is_full() {
            return false;
        }
        if let Some(Stalled::Command(cookie, origin, command)) = self.intake.stalled.take() {
            self.admit(host, cookie, origin, command);
            return self.intake.stalled.is_none() && self.go_on(host);
        }
        true
    }

    /// Enters a request that passed the gate and whose header said `origin`. The table has a slot
    /// and the volume has room.
    fn admit(&mut self, host: &mut impl Host, cookie: Cookie, origin: u64, command: Command) {
        self.intake.wants_less = false;
        let (kind, offset, length) = match command {
            Command::Read {
                offset,
                length,
                in_one,
            } => {
                if !in_one && self.admit_sparse(host, cookie, offset, length) {
                    return;
                }
                (Kind::Read { whole: in_one }, offset, u64::from(length))
            }
            Command::Write {
                offset,
                length,
                fua,
            } => {
                self.intake.wants_less = match host.takes_views() {
                    true => length > IN_PLACE_MAX,
                    false => length >= DIRECT_MIN,
                };
                (Kind::Write { fua }, offset, u64::from(length))
            }
            Command::Flush => (Kind::Flush, 0, 0),
            Command::Trim {
                offset,
                length,
                fua,
            } => {
                let zeroing = Zeroing::Trim;
                (Kind::Zero { zeroing, fua }, offset, length)
            }
            Command::WriteZeroes {
                no_hole: true,
                fast: true,
                ..
            } => {
                let text = "zeroes that keep their blocks may take as long as a write";
                let reply = Reply::Error(NbdError::NotSupported, text);
                return self.reply_at_once(host, cookie, origin, reply);
            }
            Command::WriteZeroes {
                offset,
                length,
                fua,
                no_hole,
                ..
            } => {
                let zeroing = if no_hole {
                    Zeroing::Allocate
                } else {
                    Zeroing::MayTrim
                };
                (Kind::Zero { zeroing, fua }, offset, length)
            }
            Command::BlockStatus {
                offset,
                length,
                one,
                contexts,
            } => (Kind::Status(Status::new(one, contexts)), offset, length),
            // Nothing is cached between disk and client; an empty request is done.
            Command::Cache { .. } | Command::Nothing | Command::Disconnect => {
                return self.reply_at_once(host, cookie, origin, Reply::Ok);
            }
        };
        let view = self.view_for(host, kind, offset, length);
        let buf = match view {
            Some(_) => Ok(view),
            None => self.buffer_for(host, kind, offset, length),
        };
        let Ok(buf) = buf else {
            self.intake.stalled = Some(Stalled::Command(cookie, origin, command));
            self.is_starved = true;
            return host.want_room();
        };
        let slot = self.table.insert(Request {
            buf,
            origin,
            ..Request::new(cookie, kind, offset, length)
        });
        match kind {
            Kind::Write { .. } => {
                self.intake.write = Some(slot);
                self.intake.is_in_place = view.is_some();
                self.moved = host.now();
            }
            Kind::Status(_) => self.ask_next(host, slot),
            _ => self.submit(host, slot),
        }
    }

    /// A write to memory whose payload may stay where it is received: its buffer.
    fn view_for(
        &mut self,
        host: &mut impl Host,
        kind: Kind,
        offset: u64,
        length: u64,
    ) -> Option<BufId> {
        let is_whole = offset.is_multiple_of(GRANULE) && length.is_multiple_of(GRANULE);
        if !matches!(kind, Kind::Write { .. }) || !is_whole || !host.takes_views() {
            return None;
        }
        let payload = self.intake.stays(length)?;
        let after = self.held + payload.len as usize;
        if after > SHARE_MIN && after > self.limits.payload_bytes_max {
            return None;
        }
        let view = host.arena().view(payload)?;
        self.held = after;
        self.intake.behind = payload.len.min(IN_PLACE_MAX);
        Some(view)
    }

    /// The buffer a request needs, if it needs one. `Err` if there is none for it now.
    pub(super) fn buffer_for(
        &mut self,
        host: &mut impl Host,
        kind: Kind,
        offset: u64,
        length: u64,
    ) -> Result<Option<BufId>, ()> {
        let (class, bytes) = match kind {
            Kind::Read { .. } | Kind::Write { .. } => {
                (Class::Client, Request::buffer_bytes(offset, length as u32))
            }
            Kind::Status(status) => (Class::Net, self.status_bytes(status.wanted, length)),
            Kind::Zero { .. } | Kind::Flush | Kind::Parts(_) | Kind::Answer => return Ok(None),
        };
        let arena = host.arena();
        let after = self.held + bytes.next_power_of_two();
        if self.held > 0
            && after > SHARE_MIN
            && after > self.limits.payload_bytes_max.min(arena.available(class))
        {
            return Err(());
        }
        if class == Class::Client && !self.leaves_enough(arena, bytes.next_power_of_two()) {
            return Err(());
        }
        let buf = arena.alloc(class, bytes).ok_or(())?;
        self.held += arena.capacity(buf);
        Ok(Some(buf))
    }

    /// Whether others still find a buffer after this one is taken. Who holds nothing and asks for
    /// little is served to the last; a request of any size is served when nobody holds anything.
    fn leaves_enough(&self, arena: &Arena, bytes: usize) -> bool {
        let reserve = match bytes {
            ..=GRANULE_BYTES if self.held == 0 => 0,
            ..=MODEST if self.held == 0 => LAST_RESERVE,
            _ => RESERVE,
        };
        arena.used(Class::Client) == 0 || arena.available(Class::Client) >= bytes + reserve
    }

    /// Answers a request that asks nothing of the volume; its header said `origin`.
    pub(super) fn reply_at_once(
        &mut self,
        host: &mut impl Host,
        cookie: Cookie,
        origin: u64,
        reply: Reply,
    ) {
        let request = Request::new(cookie, Kind::Answer, origin, 0);
        let slot = self.table.insert(request);
        self.answer(host, slot, reply);
    }

    /// Copies payload that came with its header to its place, unless that is where it is.
    fn copy_payload(&mut self, host: &mut impl Host, from: BufId, at: u32, count: u32) {
        let slot = self
            .intake
            .write
            .expect("payload follows the header of a write");
        if self.intake.is_in_place {
            return self.end_payload(host);
        }
        let request = self.table.get(slot);
        let buf = request
            .buf
            .expect("a write has a buffer from its header on");
        let have = request.length as u32 - self.transmission.payload_left() - count;
        host.place(from.slice(at, count), request.payload(buf, have, count));
        self.end_payload(host);
    }

    /// Submits the write that was arriving if it is complete.
    fn end_payload(&mut self, host: &mut impl Host) {
        if self.transmission.payload_left() > 0 {
            return;
        }
        let Some(slot) = self.intake.write.take() else {
            return;
        };
        if host.room() > 0 {
            self.submit(host, slot);
        } else {
            self.intake.stalled = Some(Stalled::Write(slot));
            host.want_room();
        }
    }

    /// Hands a request to the volume, which has room.
    pub(super) fn submit(&mut self, host: &mut impl Host, slot: u16) {
        let op = self
            .table
            .get(slot)
            .op()
            .expect("what is submitted is a request to the volume");
        host.submit(ReqId(slot.into()), op);
    }
}
