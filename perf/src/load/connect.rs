//! From a URI to a socket in the transmission phase.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nbd_proto::{Agreed, ClientNegotiation, ClientStep, NbdUri, ReplyStyle, Transport, Wish};
use rustls::ClientConnection;

use super::LoadError;
use super::tls::Credentials;

/// Longest a server may take for one step of the negotiation.
const STEP_MAX: Duration = Duration::from_secs(10);

/// A socket whose next byte belongs to the first reply.
pub struct Connected {
    /// The socket, blocking and without time limits.
    pub socket: OwnedFd,
    /// What was agreed.
    pub agreed: Box<Agreed>,
    /// The session, if the server is spoken to under TLS.
    pub session: Option<Box<ClientConnection>>,
    /// The process that listens, as a Unix socket tells.
    pub listener: Option<u32>,
}

/// Connects and negotiates, under TLS if there are credentials. Errors: nobody there, no agreement,
/// a step took too long.
pub fn connect(uri: &NbdUri, credentials: Option<&Credentials>) -> Result<Connected, LoadError> {
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
            let (agreed, session) = negotiate(&mut stream, uri, credentials)?;
            stream.set_read_timeout(None).map_err(failed)?;
            Ok(Connected {
                socket: stream.into(),
                agreed,
                session,
                listener: None,
            })
        }
        Transport::Unix { socket } => {
            let mut stream = UnixStream::connect(socket).map_err(failed)?;
            stream.set_read_timeout(Some(STEP_MAX)).map_err(failed)?;
            let (agreed, session) = negotiate(&mut stream, uri, credentials)?;
            stream.set_read_timeout(None).map_err(failed)?;
            let credentials = rustix::net::sockopt::socket_peercred(&stream).ok();
            let listener =
                credentials.and_then(|c| u32::try_from(c.pid.as_raw_nonzero().get()).ok());
            Ok(Connected {
                socket: stream.into(),
                agreed,
                session,
                listener,
            })
        }
    }
}

type Negotiated = (Box<Agreed>, Option<Box<ClientConnection>>);

fn negotiate(
    stream: &mut (impl Read + Write),
    uri: &NbdUri,
    credentials: Option<&Credentials>,
) -> Result<Negotiated, LoadError> {
    let wish = Wish {
        tls: credentials.is_some(),
        ..Wish::simple(uri.export.clone())
    };
    let mut negotiation = ClientNegotiation::new(wish);
    let mut session: Option<Box<ClientConnection>> = None;
    let mut received = [0; 4096];
    loop {
        let count = match session.as_deref_mut() {
            Some(session) => rustls::Stream::new(session, stream).read(&mut received),
            None => stream.read(&mut received),
        };
        let count = count.map_err(LoadError::Handshake)?;
        if count == 0 {
            return Err(LoadError::Handshake(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut out = Vec::new();
        let mut step = negotiation.feed(&received[..count], &mut out);
        if let (Ok(ClientStep::StartTls { consumed }), Some(credentials)) = (&step, credentials) {
            // What lies behind came in the clear.
            step = negotiation.feed(&received[*consumed..count], &mut out);
            if step.is_ok() {
                session = Some(shake_hands(stream, credentials)?);
                negotiation.secured(&mut out);
            }
        }
        let sent = match session.as_deref_mut() {
            Some(session) => rustls::Stream::new(session, stream).write_all(&out),
            None => stream.write_all(&out),
        };
        match step.map_err(LoadError::Negotiate)? {
            ClientStep::NeedMore | ClientStep::StartTls { .. } => {
                sent.map_err(LoadError::Handshake)?;
            }
            // Without a request there is no reply, so nothing lies behind the negotiation.
            ClientStep::Ready { consumed, agreed }
                if consumed == count && agreed.replies == ReplyStyle::Simple =>
            {
                return Ok((agreed, session));
            }
            ClientStep::Ready { .. } => return Err(LoadError::Structured),
        }
    }
}

fn shake_hands(
    stream: &mut (impl Read + Write),
    credentials: &Credentials,
) -> Result<Box<ClientConnection>, LoadError> {
    let mut session = credentials.session()?;
    while session.is_handshaking() {
        session.complete_io(stream).map_err(LoadError::Handshake)?;
    }
    Ok(session)
}
