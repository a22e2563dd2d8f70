//! Data connections to peers on a reactor: one per (volume, peer), FIFO.
//!
//! ```text
//!  core ── Send ──► encode ─► staging ┐                      ┌─► Event::Peer
//!               payload buffer ───────┴─► one Send per turn  │
//!  socket ── Recv ─► rx buffer ─► frames ─► small payload copied ┤
//!                         └─ large payload: Recv straight into its slot
//! ```
//! Under TLS the bytes pass through a session on their way: what is sent is sealed from where it
//! lies, what arrives is opened to where it would have been received.
//!
//! Checksums of payload are computed once when it is first sent and kept beside the buffer; on
//! arrival every granule is verified (law M6). What this does not do: dial, accept, agree on
//! anything, or decide what a message means.
//!
//! Memory is bounded: the queue of a link holds what the core sends within the peer's credits.
//! A link whose socket does not move for the peer's timeout is dropped by the control connection.

mod receive;
mod secure;
mod send;

use engine_core::event::{Event, LinkId};
use engine_core::message::Message;
use engine_core::time::Instant;
use engine_core::units::NodeIdx;
use engine_ring::{Arena, BufId, BufSlice, Class, Errno, FileId, Op, Ring, Seg, ShutdownHow};

use crate::shell::Shell;
use crate::table::Table;
use crate::tls::{Opened, words_of};
use crate::token::{Kind, Token};
use receive::Receiver;
use secure::{NoBuffer, Secure};
use send::Sender;

/// Links of one reactor at a time, old ones on their way out included.
const LINKS_MAX: usize = 1 << 12;
/// Time a link that is being closed may take to send what was queued on it.
const CLOSING_MAX: std::time::Duration = std::time::Duration::from_secs(2);

const TAG_RECV: u32 = 0;
const TAG_SEND: u32 = 1;
const TAG_SHUTDOWN: u32 = 2;
const TAG_CLOSE: u32 = 3;

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The core closed it, or a newer one took its place.
    Ours,
    /// End of stream, reset, or silence.
    Lost,
    /// The peer broke the protocol.
    Breach,
}

/// A link that is no more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone {
    pub(crate) volume: u32,
    pub(crate) peer: NodeIdx,
    /// It stood for at least a second: dialling again at once is fair.
    pub(crate) was_useful: bool,
    /// The peer ended it without having said anything.
    pub(crate) was_silent: bool,
    /// When it began.
    pub(crate) since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    /// Sends what is queued, then ends; at this moment at the latest.
    Closing(Instant),
    /// Its end was reported; waits for the last completions.
    Dead,
}

struct Link {
    id: LinkId,
    slot: u32,
    volume: u32,
    peer: NodeIdx,
    /// Which path to the peer it takes.
    path: u8,
    /// Name of the peer, for the log.
    name: String,
    socket: FileId,
    since: Instant,
    state: State,
    in_flight: u32,
    is_close_pushed: bool,
    receiver: Receiver,
    sender: Sender,
    secure: Option<Secure>,
}

impl Link {
    /// Everything queued was sent.
    fn is_idle(&self) -> bool {
        self.sender.is_idle() && self.secure.as_ref().is_none_or(Secure::is_idle)
    }
}

/// All links of a reactor.
pub(crate) struct Links {
    table: Table<Link>,
    serial: u64,
    /// Slots with something queued to send.
    dirty: Vec<u32>,
    /// Those of them that had no buffer to seal it.
    stuck: Vec<u32>,
    /// For the volumes: slot of the volume, event.
    pub(crate) events: Vec<(u32, Event)>,
    /// For the dialler.
    pub(crate) gone: Vec<Gone>,
    /// Reused by every frame.
    scratch: Scratch,
    /// Some links could not get a buffer for what arrives.
    starved: usize,
    closing: usize,
}

/// Storage that every frame uses again.
#[derive(Default)]
struct Scratch {
    frame: Vec<u8>,
    segments: Vec<Seg>,
}

impl Links {
    pub(crate) fn new() -> Links {
        Links {
            table: Table::new(16, LINKS_MAX),
            serial: 1,
            dirty: Vec::with_capacity(64),
            stuck: Vec::new(),
            events: Vec::with_capacity(1024),
            gone: Vec::with_capacity(16),
            scratch: Scratch::default(),
            starved: 0,
            closing: 0,
        }
    }

    /// A new connection to `peer`, put into the ring's table by `register` if there is room;
    /// under TLS `session` has done its handshake, and `unread` was received and opened already.
    /// A standing one of the same volume and peer ends first. Closed again when there is no room.
    pub(crate) fn add(
        &mut self,
        shell: &mut Shell,
        volume: u32,
        (peer, name, path): (NodeIdx, &str, u8),
        register: impl FnOnce(&mut dyn Ring) -> FileId,
        (session, unread): (Option<Box<rustls::Connection>>, &[u8]),
    ) -> Option<LinkId> {
        self.end_where(shell, End::Ours, |link| {
            link.volume == volume && link.peer == peer
        });
        let slot = self.table.next_slot()?;
        let receiver = Receiver::new(&mut shell.arena, unread)?;
        let Some(sender) = Sender::new(&mut shell.arena) else {
            receiver.free(&mut shell.arena);
            return None;
        };
        let secure = match session.map(|session| Secure::new(session, &mut shell.arena)) {
            Some(None) => {
                receiver.free(&mut shell.arena);
                sender.free(&mut shell.arena);
                return None;
            }
            secure => secure.flatten(),
        };
        let id = LinkId(self.serial << 16 | u64::from(slot));
        self.serial += 1;
        let socket = register(&mut *shell.ring);
        let link = Link {
            id,
            slot,
            volume,
            peer,
            path,
            name: name.to_owned(),
            socket,
            since: shell.now,
            state: State::Up,
            in_flight: 0,
            is_close_pushed: false,
            receiver,
            sender,
            secure,
        };
        assert!(
            self.table.insert(link).is_ok(),
            "the slot was free a moment ago"
        );
        self.events.push((volume, Event::LinkUp { peer, link: id }));
        self.go_on_receiving(shell, slot);
        Some(id)
    }

    /// Queues a message; dropped if the link is gone.
    pub(crate) fn send(
        &mut self,
        shell: &mut Shell,
        id: LinkId,
        message: &Message,
        payload: Option<BufId>,
    ) {
        let Some(link) = find(&mut self.table, id) else {
            return;
        };
        if link.state != State::Up {
            return;
        }
        let is_first = link.sender.is_idle();
        if link
            .sender
            .queue(&mut shell.arena, &mut self.scratch, message, payload)
        {
            if is_first {
                self.dirty.push(link.slot);
            }
        } else {
            // No buffer for a header within its budget: as if the connection broke.
            self.end(shell, id, End::Lost);
        }
    }

    /// `Action::Drop`: the link ends once everything queued on it was sent.
    pub(crate) fn close_after_sending(&mut self, shell: &mut Shell, id: LinkId) {
        let Some(link) = find(&mut self.table, id) else {
            return;
        };
        if link.state == State::Up {
            link.state = State::Closing(shell.now.after(CLOSING_MAX));
            self.closing += 1;
            if link.is_idle() {
                self.end(shell, id, End::Ours);
            }
        }
    }

    /// Ends all links of a volume once everything queued on them was sent.
    pub(crate) fn end_after_sending(&mut self, shell: &mut Shell, volume: u32) {
        let is_its = |(_, link): (u32, &Link)| (link.volume == volume).then_some(link.id);
        let ids: Vec<LinkId> = self.table.iter().filter_map(is_its).collect();
        ids.into_iter()
            .for_each(|id| self.close_after_sending(shell, id));
    }

    /// Whether a link of this volume to this peer stands.
    pub(crate) fn has_peer(&self, volume: u32, peer: NodeIdx) -> bool {
        let is_it = |link: &Link| (link.volume, link.peer) == (volume, peer);
        self.table
            .iter()
            .any(|(_, link)| is_it(link) && link.state == State::Up)
    }

    /// Whether this peer has said anything on the link of this volume that stands.
    pub(crate) fn has_heard(&self, volume: u32, peer: NodeIdx) -> bool {
        let is_it = |link: &Link| (link.volume, link.peer) == (volume, peer);
        let mut links = self.table.iter().map(|(_, link)| link);
        links.any(|link| is_it(link) && link.state == State::Up && link.receiver.has_heard())
    }

    /// Ends all links of one volume to one peer, or those that take this path.
    pub(crate) fn end_of_peer(
        &mut self,
        shell: &mut Shell,
        volume: u32,
        peer: NodeIdx,
        path: Option<u8>,
    ) {
        self.end_where(shell, End::Lost, |link| {
            let is_its = link.volume == volume && link.peer == peer;
            is_its && path.is_none_or(|path| link.path == path)
        });
    }

    /// Whether links of this volume still wait for something in the ring.
    pub(crate) fn has_volume(&self, volume: u32) -> bool {
        self.table.iter().any(|(_, link)| link.volume == volume)
    }

    fn end_where(&mut self, shell: &mut Shell, end: End, which: impl Fn(&Link) -> bool) {
        let found =
            |(_, link): (u32, &Link)| (link.state != State::Dead && which(link)).then_some(link.id);
        let ids: Vec<LinkId> = self.table.iter().filter_map(found).collect();
        ids.into_iter().for_each(|id| self.end(shell, id, end));
    }

    /// The core hears of the end now; the socket and its buffers go with their last completion.
    fn end(&mut self, shell: &mut Shell, id: LinkId, end: End) {
        let Some(link) = find(&mut self.table, id) else {
            return;
        };
        if link.state == State::Dead {
            return;
        }
        if matches!(link.state, State::Closing(_)) {
            self.closing -= 1;
        }
        if link.receiver.is_starved() {
            self.starved -= 1;
        }
        link.state = State::Dead;
        let was_useful = shell.now.since(link.since).as_secs() >= 1;
        let was_silent = end == End::Lost && !link.receiver.has_heard();
        self.gone.push(Gone {
            volume: link.volume,
            peer: link.peer,
            was_useful,
            was_silent,
            since: link.since,
        });
        self.events
            .push((link.volume, Event::LinkDown { link: id }));
        link.in_flight += 1;
        let op = Op::Shutdown {
            file: link.socket,
            how: ShutdownHow::Both,
        };
        shell
            .ring
            .push(&mut shell.arena, token(link.slot, TAG_SHUTDOWN), op);
        self.settle(shell, id);
    }

    /// One operation of a link ended.
    pub(crate) fn on_io(
        &mut self,
        shell: &mut Shell,
        slot: u32,
        tag: u32,
        result: Result<u32, Errno>,
    ) {
        let link = self
            .table
            .get_mut(slot)
            .expect("a slot is freed with its last completion");
        link.in_flight -= 1;
        let id = link.id;
        match tag {
            TAG_RECV => {
                link.receiver.is_receiving = false;
                if link.state != State::Dead {
                    match result {
                        Ok(received) if received > 0 => self.received(shell, slot, received),
                        _ => self.end(shell, id, End::Lost),
                    }
                }
            }
            TAG_SEND => {
                let sent = result.unwrap_or(0);
                let rest = match &mut link.secure {
                    Some(secure) => secure.sent(sent, &mut shell.arena),
                    None => {
                        link.sender.sent(&mut shell.arena, sent);
                        None
                    }
                };
                if link.state != State::Dead && result.is_err() {
                    self.end(shell, id, End::Lost);
                } else if let Some(rest) = rest.filter(|_| link.state != State::Dead) {
                    push_send(shell, link, &[Seg::Arena(rest)]);
                } else if link.state != State::Dead {
                    match (link.is_idle(), link.state) {
                        (true, State::Closing(_)) => self.end(shell, id, End::Ours),
                        (true, _) => {}
                        (false, _) => self.dirty.push(slot),
                    }
                }
            }
            _ => {}
        }
        self.settle(shell, id);
    }

    /// Closes the socket of a dead link and frees it, as far as its operations allow.
    fn settle(&mut self, shell: &mut Shell, id: LinkId) {
        let Some(link) = find(&mut self.table, id) else {
            return;
        };
        if link.state != State::Dead || link.in_flight > 0 {
            return;
        }
        if !link.is_close_pushed {
            link.is_close_pushed = true;
            link.in_flight += 1;
            let close = Op::Close { file: link.socket };
            shell
                .ring
                .push(&mut shell.arena, token(link.slot, TAG_CLOSE), close);
            return;
        }
        let slot = link.slot;
        if let Some(link) = self.table.remove(slot) {
            link.receiver.free(&mut shell.arena);
            link.sender.free(&mut shell.arena);
            if let Some(secure) = link.secure {
                secure.free(&mut shell.arena);
            }
        }
    }

    fn received(&mut self, shell: &mut Shell, slot: u32, received: u32) {
        let link = self.table.get_mut(slot).expect("the caller found it");
        match &mut link.secure {
            Some(secure) => secure.received(received),
            None => link.receiver.take(received),
        }
        self.go_on_receiving(shell, slot);
    }

    /// Handles every whole frame that is here, then receives more.
    fn go_on_receiving(&mut self, shell: &mut Shell, slot: u32) {
        loop {
            if !self.parse(shell, slot) {
                return;
            }
            let link = self.table.get_mut(slot).expect("the caller found it");
            let id = link.id;
            let (place, all) = link.receiver.next(&mut shell.arena);
            let Some(secure) = &mut link.secure else {
                return push_receive(shell, link, place, all);
            };
            match secure.open(place, &mut shell.arena) {
                Opened::Bytes(count) => link.receiver.take(count),
                Opened::Nothing => {
                    let sealed = secure.place();
                    return push_receive(shell, link, sealed, false);
                }
                Opened::End => return self.end(shell, id, End::Lost),
                Opened::Broken(error) => {
                    let text = format!("the link to {} broke: {}", link.name, words_of(&error));
                    warn(shell, &text);
                    return self.end(shell, id, End::Breach);
                }
            }
        }
    }

    /// Gives out every whole frame that is here. False: the link ended, or waits for a buffer.
    fn parse(&mut self, shell: &mut Shell, slot: u32) -> bool {
        let link = self.table.get_mut(slot).expect("the caller found it");
        let (id, volume) = (link.id, link.volume);
        let was_starved = link.receiver.is_starved();
        let events = &mut self.events;
        let parsed = link.receiver.parse(&mut shell.arena, |message, payload| {
            events.push((
                volume,
                Event::Peer {
                    link: id,
                    message,
                    payload,
                },
            ));
        });
        let is_starved = link.receiver.is_starved();
        match (was_starved, is_starved) {
            (false, true) => self.starved += 1,
            (true, false) => self.starved -= 1,
            _ => {}
        }
        if let Err(breach) = parsed {
            let text = format!("{} broke the link protocol: {breach}", link.name);
            warn(shell, &text);
            self.end(shell, id, End::Breach);
            return false;
        }
        !is_starved
    }

    /// End of a turn: one send per link that has something queued, and what waited for buffers.
    pub(crate) fn flush(&mut self, shell: &mut Shell) {
        if self.starved > 0 {
            let is_starved = |(slot, link): (u32, &Link)| {
                (link.receiver.is_starved() && link.state != State::Dead).then_some(slot)
            };
            let slots: Vec<u32> = self.table.iter().filter_map(is_starved).collect();
            slots
                .into_iter()
                .for_each(|slot| self.go_on_receiving(shell, slot));
        }
        self.dirty.append(&mut self.stuck);
        while let Some(slot) = self.dirty.pop() {
            let Some(link) = self.table.get_mut(slot) else {
                continue;
            };
            if link.state == State::Dead || link.sender.is_sending() || link.is_idle() {
                continue;
            }
            let segments = &mut self.scratch.segments;
            match &mut link.secure {
                None => link.sender.fill(segments),
                Some(secure) if secure.is_sending() => continue,
                Some(secure) => match secure.seal(&mut link.sender, &mut shell.arena) {
                    Ok(Some(slice)) => {
                        segments.clear();
                        segments.push(Seg::Arena(slice));
                    }
                    Ok(None) => continue,
                    Err(NoBuffer) => {
                        self.stuck.push(slot);
                        continue;
                    }
                },
            }
            push_send(shell, link, segments);
        }
        if self.closing > 0 {
            let now = shell.now;
            self.end_where(
                shell,
                End::Ours,
                |link| matches!(link.state, State::Closing(until) if until <= now),
            );
        }
    }

    /// When `flush` should run again even if nothing happens.
    pub(crate) fn next_moment(&self, now: Instant) -> Option<Instant> {
        let without_buffer = self.starved + self.stuck.len();
        let poll = std::time::Duration::from_millis(if without_buffer > 0 { 2 } else { 100 });
        (without_buffer + self.closing > 0).then(|| now.after(poll))
    }
}

fn push_receive(shell: &mut Shell, link: &mut Link, buf: BufSlice, all: bool) {
    link.in_flight += 1;
    link.receiver.is_receiving = true;
    let file = link.socket;
    let op = Op::Recv { file, buf, all };
    shell
        .ring
        .push(&mut shell.arena, token(link.slot, TAG_RECV), op);
}

fn push_send(shell: &mut Shell, link: &mut Link, segments: &[Seg]) {
    link.in_flight += 1;
    let file = link.socket;
    let op = Op::Send { file, segments };
    shell
        .ring
        .push(&mut shell.arena, token(link.slot, TAG_SEND), op);
}

fn warn(shell: &Shell, text: &str) {
    shell.log.line(crate::log::Line {
        level: crate::log::Level::Warn,
        code: "W108",
        volume: None,
        text,
    });
}

fn token(slot: u32, tag: u32) -> u64 {
    Token::new(Kind::Link, slot, tag).0
}

fn find(table: &mut Table<Link>, id: LinkId) -> Option<&mut Link> {
    table
        .get_mut(id.0 as u32 & 0xffff)
        .filter(|link| link.id == id)
}

/// A buffer of the connections' share.
fn net_buffer(arena: &mut Arena, bytes: usize) -> Option<BufId> {
    arena.alloc(Class::Net, bytes)
}
