//! From a URI to a socket in the transmission phase.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nbd_proto::{Agreed, ClientNegotiation, ClientStep, NbdUri, ReplyStyle, Transport, Wish};

use super::LoadError;

/// Longest a server may take for one step of the negotiation.
const STEP_MAX: Duration = Duration::from_secs(10);

/// A socket whose next byte belongs to the first reply.
pub struct Connected {
    /// The socket, blocking and without time limits.
    pub socket: OwnedFd,
    /// What was agreed.
    pub agreed: Box<Agreed>,
    /// The process that listens, as a Unix socket tells.
    pub listener: Option<u32>,
}

/// Connects and negotiates. Errors: nobody there, no agreement, a step took too long.
pub fn connect(uri: &NbdUri) -> Result<Connected, LoadError> {
    let at = uri.to_string();
    let failed = |source| LoadError::Connect {
        at: at.clone(),
        source,
    };
    match &uri.transport {
        Transport::Tcp { host, port } => {
            let mut stream = TcpStream::connect((host.as_str(), *port)).map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            stream.set_read_timeout(Some(STEP_MAX)).map_err(failed)?;
            let agreed = negotiate(&mut stream, uri)?;
            stream.set_read_timeout(None).map_err(failed)?;
            Ok(Connected {
                socket: stream.into(),
                agreed,
                listener: None,
            })
        }
        Transport::Unix { socket } => {
            let mut stream = UnixStream::connect(socket).map_err(failed)?;
            stream.set_read_timeout(Some(STEP_MAX)).map_err(failed)?;
            let agreed = negotiate(&mut stream, uri)?;
            stream.set_read_timeout(None).map_err(failed)?;
            let credentials = rustix::net::sockopt::socket_peercred(&stream).ok();
            let listener =
                credentials.and_then(|c| u32::try_from(c.pid.as_raw_nonzero().get()).ok());
            Ok(Connected {
                socket: stream.into(),
                agreed,
                listener,
            })
        }
    }
}

fn negotiate(stream: &mut (impl Read + Write), uri: &NbdUri) -> Result<Box<Agreed>, LoadError> {
    let mut negotiation = ClientNegotiation::new(Wish::simple(uri.export.clone()));
    let mut received = [0; 4096];
    loop {
        let count = stream.read(&mut received).map_err(LoadError::Handshake)?;
        if count == 0 {
            return Err(LoadError::Handshake(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut out = Vec::new();
        let step = negotiation.feed(&received[..count], &mut out);
        let sent = stream.write_all(&out);
        match step.map_err(LoadError::Negotiate)? {
            ClientStep::NeedMore => sent.map_err(LoadError::Handshake)?,
            // Without a request there is no reply, so nothing lies behind the negotiation.
            ClientStep::Ready { consumed, agreed }
                if consumed == count && agreed.replies == ReplyStyle::Simple =>
            {
                return Ok(agreed);
            }
            ClientStep::Ready { .. } => return Err(LoadError::Structured),
        }
    }
}
