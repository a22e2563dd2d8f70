//! An NBD client that sends any bytes: for what no well-behaved client can be made to do.
//!
//! It shares nothing with the server's own codec; numbers are written out as the protocol has
//! them, so that a mistake made twice does not cancel out.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, sockopt};
use rustls::{ClientConnection, StreamOwned};

use crate::Trust;

/// Longest wait for an answer, on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Magic of a compact request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Magic of an extended request.
pub const EXTENDED_MAGIC: u32 = 0x21e4_1c71;
/// Option numbers.
pub mod opt {
    #![allow(missing_docs)]
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
    pub const EXTENDED_HEADERS: u32 = 11;
}
/// Option reply types.
pub mod rep {
    #![allow(missing_docs)]
    pub const ACK: u32 = 1;
    pub const ERR_UNSUP: u32 = 0x8000_0001;
    pub const ERR_POLICY: u32 = 0x8000_0002;
    pub const ERR_INVALID: u32 = 0x8000_0003;
    pub const ERR_UNKNOWN: u32 = 0x8000_0006;
    pub const ERR_SHUTDOWN: u32 = 0x8000_0007;
    pub const ERR_TOO_BIG: u32 = 0x8000_0009;
}
/// Command numbers.
pub mod cmd {
    #![allow(missing_docs)]
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
    pub const RESIZE: u16 = 8;
}
/// Transmission flag: CACHE is served.
pub const SEND_CACHE: u16 = 1 << 10;

/// Transmission flag: BLOCK_STATUS takes a filter.
pub const BLOCK_STATUS_PAYLOAD: u16 = 1 << 12;

/// Errors on the wire.
pub mod err {
    #![allow(missing_docs)]
    pub const EINVAL: u32 = 22;
    pub const ENOSPC: u32 = 28;
    pub const EOVERFLOW: u32 = 75;
    pub const ENOTSUP: u32 = 95;
    pub const ESHUTDOWN: u32 = 108;
}

/// One option as bytes, with this length field whatever the data is.
pub fn option_of_length(code: u32, length: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend_from_slice(&code.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// One option as bytes.
pub fn option(code: u32, data: &[u8]) -> Vec<u8> {
    option_of_length(code, data.len() as u32, data)
}

/// Data of INFO and GO.
pub fn info(name: &str, kinds: &[u16]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(&(kinds.len() as u16).to_be_bytes());
    kinds
        .iter()
        .for_each(|kind| data.extend_from_slice(&kind.to_be_bytes()));
    data
}

/// Data of LIST_META_CONTEXT and SET_META_CONTEXT.
pub fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(&(queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend_from_slice(&(query.len() as u32).to_be_bytes());
        data.extend_from_slice(query.as_bytes());
    }
    data
}

/// Header of a compact request.
pub fn request(flags: u16, kind: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&cookie.to_be_bytes());
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes
}

/// Header of an extended request.
pub fn extended_request(flags: u16, kind: u16, cookie: u64, offset: u64, length: u64) -> Vec<u8> {
    let mut bytes = EXTENDED_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&cookie.to_be_bytes());
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes
}

/// A write with its payload.
pub fn write(cookie: u64, offset: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = request(0, cmd::WRITE, cookie, offset, payload.len() as u32);
    bytes.extend_from_slice(payload);
    bytes
}

/// A write in extended headers with its payload.
pub fn extended_write(cookie: u64, offset: u64, payload: &[u8]) -> Vec<u8> {
    const PAYLOAD_LEN: u16 = 1 << 5;
    let length = payload.len() as u64;
    let mut bytes = extended_request(PAYLOAD_LEN, cmd::WRITE, cookie, offset, length);
    bytes.extend_from_slice(payload);
    bytes
}

/// How replies are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// 16 bytes, and data after a read.
    Simple,
    /// Chunks.
    Structured,
    /// Chunks with 64-bit lengths.
    Extended,
}

/// A reply, its chunks put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Whose it is.
    pub cookie: u64,
    /// 0, or the error on the wire.
    pub error: u32,
    /// Bytes of content in all its chunks, without those of error chunks.
    pub content: usize,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// One connection. Every read on it ends after 20 s.
#[derive(Debug)]
pub struct Raw {
    stream: Stream,
    /// The greeting came before TLS.
    is_greeted: bool,
    /// How the server's replies are framed; set by [`Raw::go`].
    pub style: Style,
    /// Size of the export; set by [`Raw::go`].
    pub size: u64,
    /// Transmission flags of the export; set by [`Raw::go`].
    pub flags: u16,
}

impl Raw {
    /// Connects over TCP; nothing is read or sent.
    pub fn tcp(address: &str) -> io::Result<Raw> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Raw::of(Stream::Tcp(stream))
    }

    /// Connects over TCP from `source`, an address of this machine.
    pub fn tcp_from(source: IpAddr, address: &str) -> io::Result<Raw> {
        let target: SocketAddr = address.parse().map_err(io::Error::other)?;
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        rustix::net::bind(&socket, &SocketAddr::new(source, 0))?;
        rustix::net::connect(&socket, &target)?;
        Raw::of(Stream::Tcp(TcpStream::from(socket)))
    }

    /// Connects over a Unix socket.
    pub fn unix(path: &Path) -> io::Result<Raw> {
        Raw::of(Stream::Unix(UnixStream::connect(path)?))
    }

    /// Connects over TCP, asks for TLS and completes its handshake; nothing is agreed on then.
    pub fn tls(address: &str, trust: &Trust) -> io::Result<Raw> {
        let mut raw = Raw::tcp(address)?;
        raw.hello(3);
        let replies = raw.ask(opt::STARTTLS, &[])?;
        if replies != [(rep::ACK, Vec::new())] {
            return Err(io::Error::other(format!("STARTTLS: {replies:x?}")));
        }
        let Stream::Tcp(mut socket) = raw.stream else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut session = trust.session()?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        let mut raw = Raw::of(Stream::Tls(Box::new(StreamOwned::new(session, socket))))?;
        raw.is_greeted = true;
        Ok(raw)
    }

    fn of(stream: Stream) -> io::Result<Raw> {
        let raw = Raw {
            stream,
            is_greeted: false,
            style: Style::Simple,
            size: 0,
            flags: 0,
        };
        raw.set_patience(ANSWER_MAX)?;
        Ok(raw)
    }

    /// Reads and writes end after this time.
    pub fn set_patience(&self, time: Duration) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(time))?;
                stream.set_write_timeout(Some(time))
            }
            Stream::Tls(stream) => {
                stream.sock.set_read_timeout(Some(time))?;
                stream.sock.set_write_timeout(Some(time))
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(time))?;
                stream.set_write_timeout(Some(time))
            }
        }
    }

    /// Reads the greeting; the handshake flags. Panics: there is none.
    pub fn greeting(&mut self) -> u16 {
        let mut greeting = [0; 18];
        self.read_exact(&mut greeting).expect("a greeting comes");
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        u16::from_be_bytes([greeting[16], greeting[17]])
    }

    /// Reads the greeting and answers with these client flags.
    pub fn hello(&mut self, flags: u32) {
        self.greeting();
        self.send(&flags.to_be_bytes()).expect("flags are taken");
    }

    /// Sends an option and reads its replies up to the final one: (type, data).
    pub fn ask(&mut self, code: u32, data: &[u8]) -> io::Result<Vec<(u32, Vec<u8>)>> {
        self.send(&option(code, data))?;
        self.option_replies(code)
    }

    /// Reads replies to an option up to the final one: (type, data).
    pub fn option_replies(&mut self, code: u32) -> io::Result<Vec<(u32, Vec<u8>)>> {
        let mut replies = Vec::new();
        loop {
            let mut header = [0; 20];
            self.read_exact(&mut header)?;
            assert_eq!(header[..8], 0x0003_e889_0455_65a9u64.to_be_bytes());
            let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("4"));
            assert_eq!(word(8), code, "the reply echoes its option");
            let mut data = vec![0; word(16) as usize];
            self.read_exact(&mut data)?;
            replies.push((word(12), data));
            if word(12) == rep::ACK || word(12) >> 31 == 1 {
                return Ok(replies);
            }
        }
    }

    /// The final reply to an option. Panics: the connection ends first.
    pub fn verdict(&mut self, code: u32, data: &[u8]) -> u32 {
        let replies = self.ask(code, data).expect("an option is answered");
        replies.last().expect("the final one is there").0
    }

    /// Greets and chooses `export` with this framing of replies and, unless they are simple,
    /// `base:allocation`. Panics: it is not granted.
    pub fn go(&mut self, export: &str, style: Style) {
        self.try_go(export, style).expect("the export is granted");
    }

    /// As [`Raw::go`]; errors: the connection ended, or the export was refused.
    pub fn try_go(&mut self, export: &str, style: Style) -> io::Result<()> {
        if !self.is_greeted {
            self.skip(18)?;
            self.send(&3u32.to_be_bytes())?;
        }
        let agree = match style {
            Style::Simple => None,
            Style::Structured => Some(opt::STRUCTURED_REPLY),
            Style::Extended => Some(opt::EXTENDED_HEADERS),
        };
        if let Some(code) = agree {
            self.granted(code, &[])?;
            self.granted(opt::SET_META_CONTEXT, &meta(export, &["base:allocation"]))?;
        }
        let replies = self.granted(opt::GO, &info(export, &[]))?;
        let export = replies
            .iter()
            .find(|(kind, data)| *kind == 3 && data[..2] == [0, 0]);
        let (_, data) = export.ok_or_else(|| io::Error::other("GO without its export"))?;
        self.size = u64::from_be_bytes(data[2..10].try_into().expect("8 bytes"));
        self.flags = u16::from_be_bytes([data[10], data[11]]);
        self.style = style;
        Ok(())
    }

    fn granted(&mut self, code: u32, data: &[u8]) -> io::Result<Vec<(u32, Vec<u8>)>> {
        let replies = self.ask(code, data)?;
        match replies.last() {
            Some((rep::ACK, _)) => Ok(replies),
            other => Err(io::Error::other(format!("option {code}: {other:x?}"))),
        }
    }

    /// Sends all of `bytes`.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes),
        }
    }

    /// Reads exactly as much.
    pub fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read_exact(bytes),
            Stream::Unix(stream) => stream.read_exact(bytes),
            Stream::Tls(stream) => stream.read_exact(bytes),
        }
    }

    /// Reads one whole reply; `data` is what a successful simple reply brings.
    pub fn reply(&mut self, data: usize) -> io::Result<Reply> {
        match self.style {
            Style::Simple => self.simple_reply(data),
            Style::Structured | Style::Extended => self.chunks(),
        }
    }

    fn simple_reply(&mut self, data: usize) -> io::Result<Reply> {
        let mut header = [0; 16];
        self.read_exact(&mut header)?;
        assert_eq!(header[..4], 0x6744_6698u32.to_be_bytes(), "{header:x?}");
        let error = u32::from_be_bytes(header[4..8].try_into().expect("4 bytes"));
        let content = if error == 0 { data } else { 0 };
        self.skip(content)?;
        Ok(Reply {
            cookie: u64::from_be_bytes(header[8..].try_into().expect("8 bytes")),
            error,
            content,
        })
    }

    fn chunks(&mut self) -> io::Result<Reply> {
        let mut reply = Reply {
            cookie: 0,
            error: 0,
            content: 0,
        };
        loop {
            let is_extended = self.style == Style::Extended;
            let mut header = [0; 32];
            let head = &mut header[..if is_extended { 32 } else { 20 }];
            self.read_exact(head)?;
            let magic: u32 = if is_extended {
                0x6e8a_278c
            } else {
                0x668e_33ef
            };
            assert_eq!(head[..4], magic.to_be_bytes(), "{head:x?}");
            let length = match is_extended {
                true => u64::from_be_bytes(head[24..32].try_into().expect("8 bytes")),
                false => u32::from_be_bytes(head[16..20].try_into().expect("4 bytes")).into(),
            };
            let kind = u16::from_be_bytes([head[6], head[7]]);
            let is_done = head[5] & 1 == 1;
            reply.cookie = u64::from_be_bytes(head[8..16].try_into().expect("8 bytes"));
            if kind >> 15 == 1 {
                let mut error = [0; 4];
                self.read_exact(&mut error)?;
                reply.error = u32::from_be_bytes(error);
                self.skip(length as usize - 4)?;
            } else {
                self.skip(length as usize)?;
                reply.content += length as usize;
            }
            if is_done {
                return Ok(reply);
            }
        }
    }

    /// Reads and forgets so many bytes.
    pub fn skip(&mut self, mut count: usize) -> io::Result<()> {
        let mut bytes = [0; 64 << 10];
        while count > 0 {
            let part = count.min(bytes.len());
            self.read_exact(&mut bytes[..part])?;
            count -= part;
        }
        Ok(())
    }

    /// Whether the server ends this connection within `limit`; what it sends before is dropped.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.all_until_closed(limit).is_some()
    }

    /// What the server sends until it ends this connection; `None` if it does not within `limit`.
    pub fn all_until_closed(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let began = std::time::Instant::now();
        let mut all = Vec::new();
        let mut bytes = [0; 4096];
        loop {
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() || self.set_patience(left).is_err() {
                return None;
            }
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(&mut bytes),
                Stream::Unix(stream) => stream.read(&mut bytes),
                Stream::Tls(stream) => stream.read(&mut bytes),
            };
            match read {
                Ok(0) => return Some(all),
                Ok(count) => all.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => return Some(all),
            }
        }
    }

    /// Says that nothing more will be sent.
    pub fn end_sending(&self) {
        let _ = match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => stream.sock.shutdown(Shutdown::Write),
        };
    }

    /// Closes with a reset instead of an end of stream. A Unix socket knows no reset of its own:
    /// there it is an ordinary close.
    pub fn reset(self) {
        if let Stream::Tcp(stream) = &self.stream {
            sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("a socket lingers");
        }
    }

    /// Room for so many received bytes in the kernel, at most: a small one fills soon.
    pub fn set_receive_buffer(&self, bytes: usize) {
        sockopt::set_socket_recv_buffer_size(self, bytes).expect("a socket has a buffer");
    }
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tls(stream) => stream.sock.as_fd(),
        }
    }
}
