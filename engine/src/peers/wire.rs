//! A connection between two nodes while it is in a thread's hands: in the clear or under TLS.
//!
//! A node with certificates uses TLS on all its links, one without on none; whoever meets the other
//! kind says so on both sides: a Refuse in the clear to who came without, a TLS alert to who came
//! with.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use engine_core::wire::{HEADER_LEN, Header, parse_header};
use engine_ring::sys::clock::boottime_ns;
use rustls::Connection;

use super::stream::{invalid, is_no_news};
use crate::tls::{LinkTls, NO_TLS_ALERT, words_of};

/// First byte of a connection that begins with TLS: a record with a handshake. Frames begin
/// otherwise. Source: RFC 8446, 5.1.
const TLS_HANDSHAKE: u8 = 22;
/// Longest body of a first frame: half-open connections cost little (law F27).
const FIRST_BODY_MAX: u32 = 16 << 10;
/// Time the other side has to read why it was refused, before the connection is reset.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A connection with its TLS.
pub(crate) struct Wire {
    stream: TcpStream,
    session: Option<Box<Connection>>,
}

/// TLS of the two sides does not fit; in words about the other side.
#[derive(Debug)]
pub(super) struct NoTls(pub(super) String);

impl fmt::Display for NoTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoTls {}

/// It was TLS that an attempt failed for.
pub(super) fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<NoTls>())
}

/// A stream whose reads and writes end by `deadline`.
struct Timed<'a>(&'a TcpStream, u64);

impl Wire {
    /// A connection that was dialled to `node`. Errors: TLS does not come up until `deadline`.
    pub(super) fn dialled(
        stream: TcpStream,
        tls: Option<&LinkTls>,
        node: &str,
        deadline: u64,
    ) -> io::Result<Wire> {
        let session = tls.map(|tls| tls.dial(node)).transpose();
        Wire::shaken(stream, session.map_err(io::Error::other)?, deadline)
    }

    /// A connection that was accepted. Errors: TLS does not come up until `deadline`.
    pub(super) fn accepted(
        stream: TcpStream,
        tls: Option<&LinkTls>,
        deadline: u64,
    ) -> io::Result<Wire> {
        let comes_with = first_byte(&stream, deadline)? == TLS_HANDSHAKE;
        let session = match (tls, comes_with) {
            (Some(tls), true) => Some(tls.accept().map_err(io::Error::other)?),
            (None, true) => {
                say_last(&stream, &NO_TLS_ALERT);
                let text = "it uses TLS, and this node has no certificates for replication";
                return Err(io::Error::other(NoTls(text.to_owned())));
            }
            // What it says is heard, to name it; who asks for TLS refuses it then.
            (_, false) => None,
        };
        Wire::shaken(stream, session, deadline)
    }

    fn shaken(stream: TcpStream, session: Option<Connection>, deadline: u64) -> io::Result<Wire> {
        let mut session = session.map(Box::new);
        if let Some(session) = &mut session {
            let mut timed = Timed(&stream, deadline);
            if let Err(error) = session.complete_io(&mut timed) {
                // The alert may be in the last of several pieces.
                while session.wants_write() && session.write_tls(&mut timed).is_ok() {}
                let error = explained(error);
                if is_tls(&error) {
                    linger(&stream);
                }
                return Err(error);
            }
        }
        Ok(Wire { stream, session })
    }

    /// It is under TLS.
    pub(super) fn session(&self) -> Option<&Connection> {
        self.session.as_deref()
    }

    /// The socket, and the state of its TLS.
    pub(super) fn into_parts(self) -> (OwnedFd, Option<Box<Connection>>) {
        (self.stream.into(), self.session)
    }

    /// How long a write may wait.
    pub(super) fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.stream.set_write_timeout(Some(timeout))
    }

    /// Reads the first frame until `deadline`: its head, and all its bytes.
    pub(super) fn first_frame(&mut self, deadline: u64) -> io::Result<(Header, Vec<u8>)> {
        let mut bytes = vec![0; HEADER_LEN];
        self.read_exact(&mut bytes, deadline)?;
        let head = bytes
            .first_chunk()
            .expect("it was made as long as a header");
        let header = parse_header(head).map_err(invalid)?;
        if header.body_len > FIRST_BODY_MAX || header.payload_len > 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.resize(HEADER_LEN + header.body_len as usize, 0);
        self.read_exact(&mut bytes[HEADER_LEN..], deadline)?;
        Ok((header, bytes))
    }

    fn read_exact(&mut self, into: &mut [u8], deadline: u64) -> io::Result<()> {
        let mut timed = Timed(&self.stream, deadline);
        match &mut self.session {
            None => timed.read_exact(into),
            Some(session) => read_opened(session, &mut timed, into),
        }
    }

    /// Writes all of it.
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.session {
            None => self.stream.write_all(bytes),
            Some(session) => write_sealed(session, &mut self.stream, bytes),
        }
    }

    /// Reads what is there without waiting, at most as much as fits: `None` if there is nothing,
    /// `Some(0)` at the end of the stream.
    pub(super) fn read_ready(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        self.stream.set_nonblocking(true)?;
        let read = match &mut self.session {
            None => self.stream.read(into),
            Some(session) => opened(session, &mut self.stream, into),
        };
        self.stream.set_nonblocking(false)?;
        match read {
            Ok(count) => Ok(Some(count)),
            Err(e) if is_no_news(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Says a last thing, and gives the other side the time to read it.
    pub(super) fn part(mut self, last_words: &[u8]) {
        // It is being closed either way.
        let _ = self.set_write_timeout(LAST_WORDS);
        let _ = self.write_all(last_words);
        linger(&self.stream);
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            self.0.set_read_timeout(Some(left(self.1)?))?;
            match self.0.read(into) {
                Err(e) if is_no_news(&e) => {}
                read => return read,
            }
        }
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.0.set_write_timeout(Some(left(self.1)?))?;
            match self.0.write(bytes) {
                Err(e) if is_no_news(&e) => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Time until `deadline`. Errors: it is over.
fn left(deadline: u64) -> io::Result<Duration> {
    match deadline.saturating_sub(boottime_ns()) {
        0 => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(Duration::from_nanos(left.max(1_000_000))),
    }
}

/// The first byte that comes, which stays to be read.
fn first_byte(stream: &TcpStream, deadline: u64) -> io::Result<u8> {
    let mut byte = [0];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.peek(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(byte[0]),
            Err(e) if is_no_news(&e) => {}
            Err(e) => return Err(e),
        }
    }
}

fn read_opened(
    session: &mut Connection,
    from: &mut impl Read,
    mut into: &mut [u8],
) -> io::Result<()> {
    while !into.is_empty() {
        match opened(session, from, into)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => into = &mut into[count..],
        }
    }
    Ok(())
}

fn write_sealed(session: &mut Connection, to: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    loop {
        let taken = session.writer().write(bytes)?;
        bytes = &bytes[taken..];
        while session.wants_write() {
            session.write_tls(to)?;
        }
        if bytes.is_empty() {
            return Ok(());
        }
    }
}

/// Plaintext that is here, or what comes of the next sealed bytes.
fn opened(session: &mut Connection, stream: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match session.reader().read(into) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            // The end of the socket without the session's is one all the same.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            read => return read,
        }
        if session.read_tls(stream)? == 0 {
            return Ok(0);
        }
        session
            .process_new_packets()
            .map_err(|why| io::Error::other(NoTls(words_of(&why))))?;
    }
}

/// An error of rustls in its words; any other as it is.
fn explained(error: io::Error) -> io::Error {
    let inner = error.get_ref();
    match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(why) => io::Error::other(NoTls(words_of(why))),
        None => error,
    }
}

fn say_last(mut stream: &TcpStream, bytes: &[u8]) {
    // It is being closed either way.
    let _ = stream.set_write_timeout(Some(LAST_WORDS));
    let _ = stream.write_all(bytes);
    linger(stream);
}

/// Reads on until the other side closes: were its bytes left unread, the system would reset the
/// connection, and what was said last be lost.
fn linger(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let mut timed = Timed(stream, boottime_ns() + LAST_WORDS.as_nanos() as u64);
    let mut bytes = [0; 1024];
    while matches!(timed.read(&mut bytes), Ok(1..)) {}
}
