//! One connection: slots in flight, the send being built, the replies being followed.

use engine_ring::{Arena, BufId, Class, FileId, Op, Ring, SEGMENTS_MAX, Seg};
use nbd_proto::{CommandFlags, CommandKind, Cookie, Replies, Reply, Request};

use super::LoadError;
use super::tls::{SEALED, Seal};
use crate::workload::{Kind, Next, fill};

/// Bytes of the one receive in flight.
const INBOX: u32 = 256 << 10;

/// A place for one request.
#[derive(Clone, Copy, Debug)]
struct Slot {
    next: Next,
    /// From when its latency counts, nanoseconds.
    since: u64,
    /// Number of the request, so that a late or doubled reply is recognised.
    round: u32,
    is_busy: bool,
}

/// A request that ended.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// Its place, free again.
    pub slot: u32,
    /// From when its latency counts, nanoseconds.
    pub since: u64,
    /// Its bytes.
    pub bytes: u32,
}

/// A connection in the transmission phase.
pub struct Connection {
    file: FileId,
    tokens: Tokens,
    inbox: BufId,
    /// Encoded headers of the send in flight or being built.
    headers: BufId,
    /// Payload of each slot; empty if nothing is written.
    payload: Vec<BufId>,
    slots: Vec<Slot>,
    /// Slots without a request that wait for one; used by open loops only.
    free: Vec<u32>,
    busy: usize,
    /// Slots whose requests are not sent yet, in order.
    queue: Vec<u32>,
    /// What the send in flight still has to do.
    segments: Vec<Seg>,
    is_sending: bool,
    replies: Replies,
    /// The slot whose data are coming.
    reading: Option<u32>,
    checking: Option<Checking>,
    /// What lies between this and the socket, under TLS.
    seal: Option<Seal>,
}

/// What contents are compared with.
struct Checking {
    seed: u64,
    expected: Vec<u8>,
}

/// How completions of a connection are told apart.
#[derive(Clone, Copy, Debug)]
struct Tokens {
    receive: u64,
    send: u64,
}

/// Which of its operations a completion belongs to, and whose.
pub fn whose(token: u64) -> (usize, bool) {
    ((token / 2) as usize, token % 2 == 1)
}

/// Memory a connection needs.
pub fn buffer_bytes(depth: u32, block: u32, writes: bool, tls: bool) -> u64 {
    let rounded = |bytes: u64| bytes.next_power_of_two().max(4096);
    let headers = rounded(u64::from(depth) * Request::LEN as u64);
    let payload = if writes {
        u64::from(depth) * rounded(block.into())
    } else {
        0
    };
    let sealed = if tls { u64::from(SEALED) } else { 0 };
    u64::from(INBOX) + headers + payload + sealed
}

impl Connection {
    /// A connection over a socket in the transmission phase, the `index`-th of its load. With
    /// `check`, contents follow the seed and are compared; else they are chosen once. `None` if
    /// the arena is too small.
    pub fn new(
        (index, file, seal): (usize, FileId, Option<Seal>),
        arena: &mut Arena,
        (depth, block, writes): (u32, u32, bool),
        check: bool,
        seed: u64,
    ) -> Option<Connection> {
        let inbox = arena.alloc(Class::Net, INBOX as usize)?;
        let headers = arena.alloc(Class::Net, depth as usize * Request::LEN)?;
        let mut payload = Vec::new();
        for slot in 0..if writes { depth } else { 0 } {
            let buf = arena.alloc(Class::Net, block as usize)?;
            fill(arena.slice_mut(buf.slice(0, block)), u64::from(slot), seed);
            payload.push(buf);
        }
        let idle = Slot {
            next: Next {
                kind: Kind::Flush,
                offset: 0,
                length: 0,
            },
            since: 0,
            round: 0,
            is_busy: false,
        };
        let checking = check.then(|| Checking {
            seed,
            expected: vec![0; block as usize],
        });
        Some(Connection {
            file,
            tokens: Tokens {
                receive: index as u64 * 2,
                send: index as u64 * 2 + 1,
            },
            inbox,
            headers,
            payload,
            slots: vec![idle; depth as usize],
            free: Vec::with_capacity(depth as usize),
            busy: 0,
            queue: Vec::with_capacity(depth as usize),
            segments: Vec::with_capacity(SEGMENTS_MAX),
            is_sending: false,
            replies: Replies::new(),
            reading: None,
            checking,
            seal,
        })
    }

    /// Requests without a reply.
    pub fn outstanding(&self) -> usize {
        self.busy
    }

    /// A slot that waits for a request, if there is one.
    #[inline]
    pub fn take_free(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Lets a slot wait for a request.
    #[inline]
    pub fn give_free(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// Some slot waits for a request.
    pub fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Gives a free slot its next request; sent by the next [`Connection::send`].
    /// Its latency counts from `since`.
    #[inline]
    pub fn issue(&mut self, slot: u32, next: Next, since: u64) {
        let place = &mut self.slots[slot as usize];
        assert!(!place.is_busy, "slot {slot} has a request in flight");
        *place = Slot {
            next,
            since,
            round: place.round.wrapping_add(1),
            is_busy: true,
        };
        self.busy += 1;
        self.queue.push(slot);
    }

    /// Starts the next receive.
    pub fn receive(&self, ring: &mut dyn Ring, arena: &mut Arena) {
        let buf = self.inbox.slice(0, INBOX);
        ring.push(
            arena,
            self.tokens.receive,
            Op::Recv {
                file: self.file,
                buf,
                all: false,
            },
        );
    }

    /// Sends what is queued, unless a send is in flight: all of it goes in one call. Errors: of TLS.
    #[inline]
    pub fn send(&mut self, ring: &mut dyn Ring, arena: &mut Arena) -> Result<(), LoadError> {
        let has_words = self.seal.as_ref().is_some_and(Seal::has_words);
        if self.is_sending || (self.queue.is_empty() && !has_words) {
            return Ok(());
        }
        let mut taken = 0;
        let mut header = 0;
        while taken < self.queue.len() && self.segments.len() + 2 <= SEGMENTS_MAX {
            let slot = self.queue[taken];
            self.append(slot, header, arena);
            header += Request::LEN as u32;
            taken += 1;
        }
        self.queue.drain(..taken);
        self.push_send(ring, arena)
    }

    /// Encodes a request; neighbouring headers share a segment.
    #[inline]
    fn append(&mut self, slot: u32, at: u32, arena: &mut Arena) {
        let Slot { next, round, .. } = self.slots[slot as usize];
        let request = Request {
            flags: CommandFlags::NONE,
            kind: match next.kind {
                Kind::Read => CommandKind::READ,
                Kind::Write => CommandKind::WRITE,
                Kind::Trim => CommandKind::TRIM,
                Kind::Zeroes => CommandKind::WRITE_ZEROES,
                Kind::Flush => CommandKind::FLUSH,
            },
            cookie: Cookie(u64::from(round) << 32 | u64::from(slot)),
            offset: next.offset,
            length: next.length,
        };
        let place = self.headers.slice(at, Request::LEN as u32);
        arena.slice_mut(place).copy_from_slice(&request.encode());
        match self.segments.last_mut() {
            Some(Seg::Arena(last)) if last.buf == place.buf => last.len += place.len,
            _ => self.segments.push(place.into()),
        }
        if next.kind == Kind::Write {
            let payload = self.payload[slot as usize].slice(0, next.length);
            if let Some(checking) = &self.checking {
                fill(arena.slice_mut(payload), next.offset, checking.seed);
            }
            self.segments.push(payload.into());
        }
    }

    /// Sends what the segments say, or what they were sealed to.
    fn push_send(&mut self, ring: &mut dyn Ring, arena: &mut Arena) -> Result<(), LoadError> {
        let (file, token) = (self.file, self.tokens.send);
        let sealed;
        let segments = match &mut self.seal {
            None => &self.segments[..],
            Some(seal) => {
                sealed = seal.seal(&mut self.segments, arena)?.map(Seg::from);
                sealed.as_slice()
            }
        };
        self.is_sending = !segments.is_empty();
        if self.is_sending {
            ring.push(arena, token, Op::Send { file, segments });
        }
        Ok(())
    }

    /// `count` bytes of the send in flight are gone; the rest follows. Errors: of TLS.
    pub fn sent(
        &mut self,
        count: u32,
        ring: &mut dyn Ring,
        arena: &mut Arena,
    ) -> Result<(), LoadError> {
        match &mut self.seal {
            None => skip(&mut self.segments, count),
            Some(seal) => seal.sent(count),
        }
        self.push_send(ring, arena)
    }

    /// Takes `count` received bytes and appends what they finish. Errors: an error reply, a
    /// stream that cannot be followed, contents that differ.
    #[inline]
    pub fn received(
        &mut self,
        count: u32,
        arena: &Arena,
        finished: &mut Vec<Finished>,
    ) -> Result<(), LoadError> {
        if count == 0 {
            return Err(LoadError::Closed(self.busy));
        }
        let bytes = arena.slice(self.inbox.slice(0, count));
        let Some(mut seal) = self.seal.take() else {
            return self.take(bytes, finished);
        };
        let opened = seal.open(bytes, |plain| self.take(plain, finished));
        self.seal = Some(seal);
        opened
    }

    /// Follows the stream of replies through these bytes.
    #[inline]
    fn take(&mut self, mut rest: &[u8], finished: &mut Vec<Finished>) -> Result<(), LoadError> {
        loop {
            if let Some(slot) = self.reading {
                let take = (self.replies.data_left() as usize).min(rest.len());
                let (data, after) = rest.split_at(take);
                self.data(slot, data)?;
                rest = after;
                if self.replies.data_left() > 0 {
                    return Ok(());
                }
                self.reading = None;
                self.finish(slot, finished);
            }
            let parsed = self.replies.next(rest)?;
            rest = &rest[parsed.consumed..];
            match parsed.reply {
                Reply::Simple { cookie, result } => self.reply(cookie, result, finished)?,
                Reply::More => return Ok(()),
                _ => return Err(LoadError::Structured),
            }
        }
    }

    #[inline]
    fn reply(
        &mut self,
        cookie: Cookie,
        result: Result<(), nbd_proto::NbdError>,
        finished: &mut Vec<Finished>,
    ) -> Result<(), LoadError> {
        let (slot, round) = (cookie.0 as u32, (cookie.0 >> 32) as u32);
        let place = self
            .slots
            .get(slot as usize)
            .filter(|s| s.is_busy && s.round == round);
        let Some(&Slot { next, .. }) = place else {
            return Err(LoadError::Cookie(cookie.0));
        };
        if let Err(error) = result {
            let Next {
                kind,
                offset,
                length,
            } = next;
            return Err(LoadError::Refused {
                kind: kind.name(),
                offset,
                length,
                error,
            });
        }
        if next.kind == Kind::Read {
            self.replies.expect_data(next.length);
            self.reading = Some(slot);
        } else {
            self.finish(slot, finished);
        }
        Ok(())
    }

    /// More data of the reply being read.
    #[inline]
    fn data(&mut self, slot: u32, data: &[u8]) -> Result<(), LoadError> {
        let Next { offset, length, .. } = self.slots[slot as usize].next;
        let begin = length - self.replies.data_left();
        // At most as much as was expected, which is a u32.
        self.replies.data_received(data.len() as u32);
        let Some(Checking { seed, expected }) = &mut self.checking else {
            return Ok(());
        };
        let expected = &mut expected[..length as usize];
        if begin == 0 {
            fill(expected, offset, *seed);
        }
        let expected = &expected[begin as usize..][..data.len()];
        match expected
            .iter()
            .zip(data)
            .position(|(expected, found)| expected != found)
        {
            None => Ok(()),
            Some(at) => Err(LoadError::Differs {
                at: offset + u64::from(begin) + at as u64,
                expected: expected[at],
                found: data[at],
            }),
        }
    }

    #[inline]
    fn finish(&mut self, slot: u32, finished: &mut Vec<Finished>) {
        let place = &mut self.slots[slot as usize];
        place.is_busy = false;
        self.busy -= 1;
        finished.push(Finished {
            slot,
            since: place.since,
            bytes: place.next.length,
        });
    }

    /// Queues the farewell, once nothing is outstanding.
    pub fn say_goodbye(&mut self, ring: &mut dyn Ring, arena: &mut Arena) -> Result<(), LoadError> {
        assert!(
            self.busy == 0 && !self.is_sending,
            "a request is still on its way"
        );
        let request = Request {
            flags: CommandFlags::NONE,
            kind: CommandKind::DISC,
            cookie: Cookie(0),
            offset: 0,
            length: 0,
        };
        let place = self.headers.slice(0, Request::LEN as u32);
        arena.slice_mut(place).copy_from_slice(&request.encode());
        self.segments.push(place.into());
        self.push_send(ring, arena)
    }

    /// A send is in flight.
    pub fn is_sending(&self) -> bool {
        self.is_sending
    }
}

/// Takes `count` bytes off the front.
pub fn skip(segments: &mut Vec<Seg>, mut count: u32) {
    let mut whole = 0;
    for segment in segments.iter_mut() {
        if count < segment.len() {
            if let Seg::Arena(slice) = segment {
                *slice = slice.buf.slice(slice.offset + count, slice.len - count);
            }
            break;
        }
        count -= segment.len();
        whole += 1;
    }
    segments.drain(..whole);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_send_goes_on_where_it_stopped() {
        let buf = BufId::from_u64(0);
        let (first, second) = (buf.slice(0, 28), buf.slice(100, 4096));
        let all = [Seg::from(first), Seg::from(second)];
        for (count, left) in [
            (0, vec![first, second]),
            (5, vec![buf.slice(5, 23), second]),
            (28, vec![second]),
            (29, vec![buf.slice(101, 4095)]),
            (4124, vec![]),
        ] {
            let mut segments = all.to_vec();
            skip(&mut segments, count);
            assert_eq!(
                segments,
                left.into_iter().map(Seg::from).collect::<Vec<_>>(),
                "{count}"
            );
        }
    }
}
