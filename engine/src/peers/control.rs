//! The control connection of a node pair: greetings and keepalives.

use std::fmt;
use std::io;

use engine_core::message::{Message, Refusal};
use engine_core::vote::Ballot;
use engine_core::wire::{
    Control, ControlHello, HEADER_LEN, Header, Kind, Numbers, Parsed, encode_control, parse_body,
    parse_control, parse_header,
};
use engine_ring::sys::clock::boottime_ns;

use super::wire::{Wire, is_tls};
use super::{Common, stream};
use crate::words::why_refused;

/// Bytes that may wait for the rest of their frame: control frames are short.
const BUFFER_MAX: usize = 4096;

/// What this node says of itself.
fn own_hello(common: &Common, to: &str) -> Control {
    Control::Hello(ControlHello {
        protocol_min: *common.protocol.start(),
        protocol_max: *common.protocol.end(),
        cluster: common.cluster.clone(),
        from: common.node.clone(),
        to: to.to_owned(),
        process: common.process,
        keepalive_ms: u32::try_from(common.keepalive.as_millis()).unwrap_or(u32::MAX),
    })
}

/// Says who this node is on a connection that is not taken further.
pub(super) fn say_hello(common: &Common, wire: Wire, to: &str) {
    let mut frame = Vec::new();
    encode_control(&own_hello(common, to), 1, &mut frame);
    wire.part(&frame);
}

/// A version of the protocol that both sides speak. Errors: in words, what they speak instead.
pub(super) fn common_version(common: &Common, hello: &ControlHello) -> Result<u16, String> {
    let (min, max) = (*common.protocol.start(), *common.protocol.end());
    let version = max.min(hello.protocol_max);
    if version >= min.max(hello.protocol_min) {
        return Ok(version);
    }
    Err(format!(
        "no common protocol version: it speaks {} to {}, this node {min} to {max}",
        hello.protocol_min, hello.protocol_max
    ))
}

/// The other side is not what it should be, with the words for the log.
#[derive(Debug)]
struct Refused(Refusal, String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1)
    }
}

impl std::error::Error for Refused {}

/// The cause, if an attempt failed because one of the nodes refused the other.
pub(super) fn refusal_of(error: &io::Error) -> Option<Refusal> {
    if is_tls(error) {
        return Some(Refusal::Tls);
    }
    let refused = error.get_ref()?.downcast_ref::<Refused>()?;
    Some(refused.0)
}

/// The cause, if the other side refuses this one instead of greeting.
fn refused_by(header: &Header, body: &[u8]) -> Option<Refusal> {
    if Kind::from_number(header.kind) != Some(Kind::Refuse) {
        return None;
    }
    match parse_body(header, body) {
        Ok(Parsed::Message {
            message: Message::Refuse(why),
            ..
        }) => Some(why),
        _ => None,
    }
}

/// A control connection both sides have greeted on.
pub(super) struct Session {
    pub(super) wire: Wire,
    numbers_out: Numbers,
    numbers_in: Numbers,
    buffer: Vec<u8>,
    pings: u64,
    /// What the peer said about votes of volumes.
    pub(super) heard: Vec<(String, Ballot)>,
    /// When the peer was last heard, CLOCK_BOOTTIME in nanoseconds.
    pub(super) heard_at: u64,
}

impl Session {
    /// Greets on a connection that was dialled. Errors name what the other side is.
    pub(super) fn dialled(common: &Common, wire: Wire, peer: &str) -> io::Result<Session> {
        let mut session = Session::new(wire, common)?;
        session.say(&own_hello(common, peer))?;
        let deadline = boottime_ns() + common.peer_timeout.as_nanos() as u64;
        let (header, bytes) = session.wire.first_frame(deadline)?;
        if let Some(why) = refused_by(&header, &bytes[HEADER_LEN..]) {
            let text = format!("it refuses this node: {}", why_refused(why));
            return Err(io::Error::other(Refused(why, text)));
        }
        session
            .numbers_in
            .expect(&header)
            .map_err(stream::invalid)?;
        let parsed = parse_control(&header, &bytes[HEADER_LEN..]).map_err(stream::invalid)?;
        let Some(Control::Hello(hello)) = parsed else {
            return Err(other("it does not begin with a greeting"));
        };
        if hello.cluster != common.cluster {
            let text = format!("it belongs to cluster `{}`", hello.cluster);
            return Err(io::Error::other(Refused(Refusal::Cluster, text)));
        }
        if hello.from != peer || hello.to != common.node {
            return Err(other(format!(
                "it is node `{}`, talking to `{}`",
                hello.from, hello.to
            )));
        }
        common_version(common, &hello)
            .map_err(|text| io::Error::other(Refused(Refusal::Protocol, text)))?;
        Ok(session)
    }

    /// Greets on a connection that was accepted with `hello`.
    pub(super) fn accepted(
        common: &Common,
        wire: Wire,
        hello: &ControlHello,
    ) -> io::Result<Session> {
        let mut session = Session::new(wire, common)?;
        session.numbers_in.take();
        session.say(&own_hello(common, &hello.from))?;
        Ok(session)
    }

    fn new(wire: Wire, common: &Common) -> io::Result<Session> {
        wire.set_write_timeout(common.peer_timeout)?;
        Ok(Session {
            wire,
            numbers_out: Numbers::default(),
            numbers_in: Numbers::default(),
            buffer: Vec::with_capacity(BUFFER_MAX),
            pings: 0,
            heard: Vec::new(),
            heard_at: boottime_ns(),
        })
    }

    fn say(&mut self, control: &Control) -> io::Result<()> {
        let mut frame = Vec::with_capacity(64);
        encode_control(control, self.numbers_out.take(), &mut frame);
        self.wire.write_all(&frame)
    }

    /// Asks whether the peer is there.
    pub(super) fn ping(&mut self) -> io::Result<()> {
        self.pings += 1;
        self.say(&Control::Ping { n: self.pings })
    }

    /// Says all of it, and leaves nothing.
    pub(super) fn say_votes(&mut self, ballots: &mut Vec<(String, Ballot)>) -> io::Result<()> {
        if ballots.is_empty() {
            return Ok(());
        }
        let mut frames = Vec::with_capacity(256 * ballots.len());
        for (volume, ballot) in ballots.drain(..) {
            let vote = Control::Vote { volume, ballot };
            encode_control(&vote, self.numbers_out.take(), &mut frames);
        }
        self.wire.write_all(&frames)
    }

    /// Takes what is readable without waiting, and answers; votes are put into `heard`. Errors end
    /// the session.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let mut bytes = [0; BUFFER_MAX];
        loop {
            match self.wire.read_ready(&mut bytes)? {
                None => return Ok(()),
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(count) => self.take(&bytes[..count])?,
            }
            if self.wire.session().is_none() {
                // What is left wakes the next wait; what a session holds does not.
                return Ok(());
            }
        }
    }

    /// Handles what was read.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.heard_at = boottime_ns();
        while let Some(head) = self.buffer.first_chunk::<HEADER_LEN>() {
            let header = parse_header(head).map_err(stream::invalid)?;
            let len = HEADER_LEN + header.body_len as usize;
            if len > BUFFER_MAX {
                return Err(other("a control message is too long"));
            }
            if self.buffer.len() < len {
                break;
            }
            self.numbers_in.expect(&header).map_err(stream::invalid)?;
            let parsed = parse_control(&header, &self.buffer[HEADER_LEN..len]);
            let control = parsed.map_err(stream::invalid)?;
            self.buffer.drain(..len);
            match control {
                Some(Control::Ping { n }) => self.say(&Control::Pong { n })?,
                Some(Control::Vote { volume, ballot }) => self.heard.push((volume, ballot)),
                Some(Control::Hello(_) | Control::Pong { .. }) | None => {}
            }
        }
        Ok(())
    }
}

fn other(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}
