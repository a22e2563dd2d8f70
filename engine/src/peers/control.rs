//! The control connection of a node pair: greetings and keepalives.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use engine_core::message::{PROTOCOL_MAX, PROTOCOL_MIN, Refusal};
use engine_core::vote::Ballot;
use engine_core::wire::{
    Control, ControlHello, HEADER_LEN, Numbers, encode_control, parse_control, parse_header,
};
use engine_ring::sys::clock::boottime_ns;

use super::{Common, stream};

/// Bytes that may wait for the rest of their frame: control frames are short.
const BUFFER_MAX: usize = 4096;

/// What this node says of itself.
fn own_hello(common: &Common, to: &str) -> Control {
    Control::Hello(ControlHello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        cluster: common.cluster.clone(),
        from: common.node.clone(),
        to: to.to_owned(),
        process: common.process,
        keepalive_ms: u32::try_from(common.keepalive.as_millis()).unwrap_or(u32::MAX),
    })
}

/// Says who this node is on a connection that is not taken further.
pub(super) fn say_hello(common: &Common, mut stream: &TcpStream, to: &str) {
    let mut frame = Vec::new();
    encode_control(&own_hello(common, to), 1, &mut frame);
    // It is being closed either way.
    let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
    let _ = stream.write_all(&frame);
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

/// The cause, if an attempt failed because this node refused the other.
pub(super) fn refusal_of(error: &io::Error) -> Option<Refusal> {
    let refused = error.get_ref()?.downcast_ref::<Refused>()?;
    Some(refused.0)
}

/// A control connection both sides have greeted on.
pub(super) struct Session {
    pub(super) stream: TcpStream,
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
    pub(super) fn dialled(common: &Common, stream: TcpStream, peer: &str) -> io::Result<Session> {
        let mut session = Session::new(stream, common)?;
        session.say(&own_hello(common, peer))?;
        let deadline = boottime_ns() + common.peer_timeout.as_nanos() as u64;
        let (header, bytes) = stream::first_frame(&session.stream, deadline)?;
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
        if hello.protocol_min > PROTOCOL_MAX || hello.protocol_max < PROTOCOL_MIN {
            let text = "no common protocol version".to_owned();
            return Err(io::Error::other(Refused(Refusal::Protocol, text)));
        }
        Ok(session)
    }

    /// Greets on a connection that was accepted with `hello`.
    pub(super) fn accepted(
        common: &Common,
        stream: TcpStream,
        hello: &ControlHello,
    ) -> io::Result<Session> {
        let mut session = Session::new(stream, common)?;
        session.numbers_in.take();
        session.say(&own_hello(common, &hello.from))?;
        Ok(session)
    }

    fn new(stream: TcpStream, common: &Common) -> io::Result<Session> {
        stream.set_write_timeout(Some(common.peer_timeout))?;
        Ok(Session {
            stream,
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
        self.stream.write_all(&frame)
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
        self.stream.write_all(&frames)
    }

    /// Takes what is readable without waiting, and answers; votes are put into `heard`. Errors end
    /// the session.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let mut bytes = [0; BUFFER_MAX];
        self.stream.set_nonblocking(true)?;
        let read = self.stream.read(&mut bytes);
        self.stream.set_nonblocking(false)?;
        match read {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.buffer.extend_from_slice(&bytes[..read]),
            Err(e) if stream::is_no_news(&e) => return Ok(()),
            Err(e) => return Err(e),
        }
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
