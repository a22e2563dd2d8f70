//! A blocking NBD client that keeps several requests in flight.
//!
//! ```text
//!  send ─► socket ─► server        any number, then
//!  receive ◄─ replies ◄─ server    in the order the server answers
//! ```
//! Simple replies only, one thread. It does not reconnect: who uses it decides what a lost
//! connection means.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nbd_proto::{
    Agreed, ClientError, ClientNegotiation, ClientStep, CommandFlags, CommandKind, Cookie,
    NbdError, NbdUri, Replies, Reply, ReplyError, Request, Transport, Wish,
};

/// Bytes taken from the socket at once.
const INBOX: usize = 256 << 10;

/// Why a connection is of no more use. Requests without an answer may have happened or not.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The socket failed, was closed by the server, or stayed silent too long.
    #[error("the connection was lost")]
    Socket(#[from] io::Error),
    /// The server refused the export, or does not speak NBD.
    #[error("the server did not let us in")]
    Refused(#[from] ClientError),
    /// A reply cannot be understood.
    #[error("the server's replies make no sense")]
    Reply(#[from] ReplyError),
    /// A reply to a request that was not sent, or of a kind that was not agreed on.
    #[error("the server sent a reply nobody waits for")]
    Unexpected,
}

impl Broken {
    /// The words of the whole chain of causes.
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            text.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        text
    }
}

/// A request of a client.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is asked.
    pub kind: CommandKind,
    /// FUA and the like.
    pub flags: CommandFlags,
    /// First byte.
    pub offset: u64,
    /// Bytes concerned.
    pub length: u32,
    /// Data of a WRITE, `length` bytes; else empty.
    pub payload: Vec<u8>,
}

impl Ask {
    /// A request without payload and flags.
    pub fn plain(kind: CommandKind, offset: u64, length: u32) -> Ask {
        Ask {
            kind,
            flags: CommandFlags::NONE,
            offset,
            length,
            payload: Vec::new(),
        }
    }

    /// A write of these bytes. Panics: more than 4 GiB.
    pub fn write(offset: u64, payload: Vec<u8>) -> Ask {
        let length = u32::try_from(payload.len()).expect("a request is shorter than 4 GiB");
        Ask {
            payload,
            ..Ask::plain(CommandKind::WRITE, offset, length)
        }
    }
}

/// An answer of the server.
#[derive(Debug)]
pub struct Answer {
    /// The request, as [`Connection::send`] named it.
    pub request: u64,
    /// How it ended.
    pub result: Result<(), NbdError>,
    /// Data of a READ that succeeded.
    pub data: Vec<u8>,
    /// From the request's first byte to the answer's last.
    pub took: Duration,
}

struct Waiting {
    since: Instant,
    read_bytes: u32,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// An attachment to an export.
pub struct Connection {
    stream: Box<dyn Stream>,
    agreed: Agreed,
    replies: Replies,
    inbox: Vec<u8>,
    parsed: usize,
    filled: usize,
    outbox: Vec<u8>,
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
    partial: Option<Answer>,
}

impl Connection {
    /// Attaches to an export. `silence` is how long to wait for the server at any point.
    pub fn attach(uri: &NbdUri, silence: Duration) -> Result<Connection, Broken> {
        let mut stream = open(&uri.transport, silence)?;
        let mut negotiation = ClientNegotiation::new(Wish::simple(uri.export.clone()));
        let (mut inbox, mut outbox) = (vec![0; INBOX], Vec::new());
        loop {
            let filled = read_some(&mut stream, &mut inbox)?;
            let step = negotiation.feed(&inbox[..filled], &mut outbox);
            stream.write_all(&std::mem::take(&mut outbox))?;
            if let ClientStep::Ready { consumed, agreed } = step? {
                return Ok(Connection {
                    stream,
                    agreed: *agreed,
                    replies: Replies::new(),
                    inbox,
                    parsed: consumed,
                    filled,
                    outbox,
                    waiting: BTreeMap::new(),
                    next: 1,
                    partial: None,
                });
            }
        }
    }

    /// Size of the export, bytes.
    pub fn size(&self) -> u64 {
        self.agreed.size
    }

    /// Requests without an answer.
    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// Sends a request and names it. Errors: the connection was lost; the request may have
    /// arrived.
    pub fn send(&mut self, ask: &Ask) -> Result<u64, Broken> {
        let name = self.next;
        self.next += 1;
        let is_read = ask.kind == CommandKind::READ;
        let waiting = Waiting {
            since: Instant::now(),
            read_bytes: if is_read { ask.length } else { 0 },
        };
        self.waiting.insert(name, waiting);
        let request = Request {
            flags: ask.flags,
            kind: ask.kind,
            cookie: Cookie(name),
            offset: ask.offset,
            length: ask.length,
        };
        self.outbox.clear();
        self.outbox.extend_from_slice(&request.encode());
        self.outbox.extend_from_slice(&ask.payload);
        self.stream.write_all(&self.outbox)?;
        Ok(name)
    }

    /// Waits for the next answer. Errors: the connection was lost or cannot be followed.
    pub fn receive(&mut self) -> Result<Answer, Broken> {
        loop {
            let step = self.replies.next(&self.inbox[self.parsed..self.filled])?;
            let bytes = self.parsed..self.parsed + step.consumed;
            self.parsed += step.consumed;
            match step.reply {
                Reply::Simple { cookie, result } => {
                    let waiting = self.waiting.remove(&cookie.0).ok_or(Broken::Unexpected)?;
                    let answer = Answer {
                        request: cookie.0,
                        result,
                        data: Vec::new(),
                        took: waiting.since.elapsed(),
                    };
                    if result.is_err() || waiting.read_bytes == 0 {
                        return Ok(answer);
                    }
                    self.replies.expect_data(waiting.read_bytes);
                    self.partial = Some(answer);
                }
                Reply::Data => {
                    let partial = self.partial.as_mut().ok_or(Broken::Unexpected)?;
                    partial.data.extend_from_slice(&self.inbox[bytes]);
                    if self.replies.data_left() == 0 {
                        return self.partial.take().ok_or(Broken::Unexpected);
                    }
                }
                Reply::More => {
                    self.parsed = 0;
                    self.filled = 0;
                    self.filled = read_some(&mut self.stream, &mut self.inbox)?;
                }
                _ => return Err(Broken::Unexpected),
            }
        }
    }

    /// Sends all requests, at most `depth` in flight, and hands each answer with its request to
    /// `answered`. Errors: the connection was lost.
    pub fn pipeline(
        &mut self,
        depth: usize,
        asks: impl Iterator<Item = Ask>,
        mut answered: impl FnMut(&Ask, Answer),
    ) -> Result<(), Broken> {
        let mut open: BTreeMap<u64, Ask> = BTreeMap::new();
        let mut asks = asks.peekable();
        while asks.peek().is_some() || !open.is_empty() {
            while open.len() < depth
                && let Some(ask) = asks.next()
            {
                open.insert(self.send(&ask)?, ask);
            }
            let answer = self.receive()?;
            let ask = open.remove(&answer.request).ok_or(Broken::Unexpected)?;
            answered(&ask, answer);
        }
        Ok(())
    }

    /// One request and its answer, when nothing else is in flight.
    pub fn exchange(&mut self, ask: &Ask) -> Result<Answer, Broken> {
        self.send(ask)?;
        self.receive()
    }

    /// Ends the session in order.
    pub fn detach(mut self) -> Result<(), Broken> {
        let end = Ask::plain(CommandKind::DISC, 0, 0);
        self.send(&end)?;
        Ok(())
    }
}

fn open(transport: &Transport, silence: Duration) -> io::Result<Box<dyn Stream>> {
    match transport {
        Transport::Unix { socket } => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(silence))?;
            stream.set_write_timeout(Some(silence))?;
            Ok(Box::new(stream))
        }
        Transport::Tcp { host, port } => {
            let mut addresses = (host.as_str(), *port).to_socket_addrs()?;
            let address = addresses.next().ok_or(io::ErrorKind::NotFound)?;
            let stream = TcpStream::connect_timeout(&address, silence)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(silence))?;
            stream.set_write_timeout(Some(silence))?;
            Ok(Box::new(stream))
        }
    }
}

/// At least one byte. Errors: the end of the stream, and what the socket says.
fn read_some(stream: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            // A signal; sockets with a time limit are not resumed by the kernel.
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
