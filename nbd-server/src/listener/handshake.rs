//! One client from its first byte to its volume's reactor.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use engine::front_end::{Attachment, ClientInfo, Connection, Ctx};
use engine::log::Level;
use nbd_proto::{CloseReason, Negotiated, Negotiation, Policy, Step};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use super::Shared;
use crate::connection::{NbdConnection, Who};
use crate::exports::ClientExports;

/// Bytes read at a time. With the longest option this is all a negotiating client can occupy.
const READ: usize = 2048;
/// Longest option, bytes: a name and a query of full length fit. A client holds no more than
/// 16 KiB, the next power of two.
const OPTION_MAX: u32 = 12 << 10;
/// Most options: a client that lists and asks about each of a hundred exports stays below.
const OPTIONS_MAX: u32 = 1000;
/// Idle time, period and number of probes after which a silent TCP peer is found dead.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 6);
/// Send buffer of a Unix socket, bytes. A reply of 1 MiB takes 2 wake-ups of the reactor, not 5, at
/// the same CPU time (depth 8; the default is 208 KiB).
const UNIX_SEND_BUFFER: usize = 512 << 10;
/// What half-open clients are told while the server stops.
const STOPPING: &str = "the server is shutting down";

/// A client's stream.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Where a client comes from.
pub(super) struct Origin {
    /// Its address, if it came over TCP.
    pub(super) ip: Option<IpAddr>,
    /// For people.
    pub(super) address: String,
}

impl Origin {
    pub(super) fn tcp(address: SocketAddr) -> Origin {
        let ip = address.ip().to_canonical();
        let address = SocketAddr::new(ip, address.port()).to_string();
        Origin {
            ip: Some(ip),
            address,
        }
    }

    pub(super) fn unix(pid: Option<i32>) -> Origin {
        let address = match pid {
            Some(pid) => format!("unix:{pid}"),
            None => "unix".to_owned(),
        };
        Origin { ip: None, address }
    }
}

/// How a handshake ended without transmission.
enum Ended {
    /// The client left, in good order or not.
    Left,
    /// It took too long.
    Late,
    /// It broke the protocol.
    Closed(CloseReason),
}

/// Negotiates and attaches. The stream is closed if that fails.
pub(super) async fn run(
    mut stream: Stream,
    origin: Origin,
    shared: &Arc<Shared>,
    stopping: watch::Receiver<bool>,
) {
    stream.prepare(&origin, shared.limits.stalled_max);
    let talk = negotiate(&mut stream, &origin, shared, stopping);
    let ended = match tokio::time::timeout(shared.limits.handshake_max, talk).await {
        Ok(Ok((negotiated, early))) => return attach(stream, origin, shared, negotiated, early),
        Ok(Err(ended)) => ended,
        Err(_) => Ended::Late,
    };
    let address = &origin.address;
    match ended {
        Ended::Left | Ended::Closed(CloseReason::Aborted) => {}
        Ended::Closed(reason) => {
            shared.complain(
                Level::Info,
                &format!("client {address} is closed: {reason}"),
            );
        }
        Ended::Late => {
            let text = format!("client {address} is closed: it did not choose an export in time");
            shared.complain(Level::Info, &text);
        }
    }
}

/// Talks until an export is chosen; gives what was agreed and the bytes that came after it.
async fn negotiate(
    stream: &mut Stream,
    origin: &Origin,
    shared: &Shared,
    mut stopping: watch::Receiver<bool>,
) -> Result<(Box<Negotiated>, Vec<u8>), Ended> {
    let mut negotiation = Negotiation::new(Policy {
        option_length_max: OPTION_MAX,
        options_max: OPTIONS_MAX,
        ..Policy::default()
    });
    stream.write_all(&negotiation.greeting()).await?;
    let exports = ClientExports {
        catalogue: &shared.catalogue,
        address: origin.ip,
    };
    let mut bytes = vec![0; READ];
    let mut out = Vec::new();
    let mut is_stopping = false;
    loop {
        let count = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop), if !is_stopping => {
                negotiation.shut_down(STOPPING);
                is_stopping = true;
                continue;
            }
            count = stream.read(&mut bytes) => count?,
        };
        if count == 0 {
            return Err(Ended::Left);
        }
        let mut at = 0;
        loop {
            let step = negotiation.feed(&bytes[at..count], &exports, &mut out);
            stream.write_all(&out).await?;
            // An answer with many exports is not kept for the rest of the negotiation.
            out = Vec::new();
            match step {
                Step::NeedMore => break,
                Step::Continue { consumed } => at += consumed,
                Step::EnterTransmission {
                    consumed,
                    negotiated,
                } => {
                    return Ok((negotiated, bytes[at + consumed..count].to_vec()));
                }
                // This listener offers no TLS.
                Step::StartTls { .. } => return Err(Ended::Left),
                Step::Close(reason) => {
                    // The last answer should be read: say that nothing follows.
                    stream.shutdown().await?;
                    return Err(Ended::Closed(reason));
                }
            }
        }
    }
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Ended {
        Ended::Left
    }
}

/// Moves the client to its volume's reactor.
fn attach(
    stream: Stream,
    origin: Origin,
    shared: &Arc<Shared>,
    negotiated: Box<Negotiated>,
    early: Vec<u8>,
) {
    let Some(volume) = shared
        .catalogue
        .volume(&negotiated.export.name)
        .map(str::to_owned)
    else {
        return;
    };
    let (export, address) = (negotiated.export.name.as_str().to_owned(), origin.address);
    let socket = match stream.into_fd() {
        Ok(socket) => socket,
        Err(error) => {
            let text = format!("client {address} of export `{export}` is closed: {error}");
            return shared.complain(Level::Error, &text);
        }
    };
    let limits = shared.limits;
    let who = Who {
        volume: volume.clone(),
        export: export.clone(),
        address: address.clone(),
        log: shared.client_log.clone(),
    };
    let make = move |ctx: &mut Ctx<'_>| {
        Box::new(NbdConnection::open(
            &negotiated,
            early.into(),
            who,
            limits,
            ctx,
        )) as Box<dyn Connection>
    };
    let client = ClientInfo {
        export: export.clone(),
        address: address.clone(),
    };
    let attachment = Attachment {
        socket,
        client,
        make: Box::new(make),
    };
    if let Err(error) = shared.catalogue.volumes().attach(&volume, attachment) {
        let text = format!("client {address} of export `{export}` is closed: {error}");
        shared.complain(Level::Warn, &text);
    }
}

impl Stream {
    /// Socket options. What a kernel does not know is left as it is.
    fn prepare(&self, origin: &Origin, stalled_max: Duration) {
        let stream = match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => {
                let _ = SockRef::from(stream).set_send_buffer_size(UNIX_SEND_BUFFER);
                return;
            }
        };
        let socket = SockRef::from(stream);
        let (idle, period, probes) = KEEPALIVE;
        let keepalive = TcpKeepalive::new()
            .with_time(idle)
            .with_interval(period)
            .with_retries(probes);
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_tcp_keepalive(&keepalive);
        let _ = socket.set_tcp_user_timeout(Some(stalled_max));
        if origin.ip.is_some_and(is_near) {
            // Pacing by timers costs large transfers half their speed where no path is long.
            let _ = socket.set_tcp_congestion(b"cubic");
        }
    }

    /// The descriptor, no longer watched by this runtime.
    fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(match self {
            Stream::Tcp(stream) => stream.into_std()?.into(),
            Stream::Unix(stream) => stream.into_std()?.into(),
        })
    }
}

/// On this machine or in a private network.
fn is_near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
