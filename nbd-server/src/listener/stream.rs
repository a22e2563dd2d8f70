//! A client's socket while it negotiates: where it comes from, its options, and TLS around it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConnection;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// Idle time, period and number of probes after which a silent TCP peer is found dead.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 6);
/// Send buffer of a Unix socket, bytes. A reply of 1 MiB takes 2 wake-ups of the reactor, not 5, at
/// the same CPU time (depth 8; the default is 208 KiB).
const UNIX_SEND_BUFFER: usize = 512 << 10;

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

impl Stream {
    /// Socket options. What a kernel does not know is left as it is.
    pub(super) fn prepare(&self, origin: &Origin, stalled_max: Duration) {
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

/// A client's stream, in the clear or under TLS.
pub(super) enum Wire {
    Plain(Stream),
    Tls(Box<TlsStream<Stream>>),
}

impl Wire {
    /// The descriptor and the state of its TLS, no longer watched by this runtime.
    pub(super) fn into_parts(self) -> io::Result<(OwnedFd, Option<Box<ServerConnection>>)> {
        match self {
            Wire::Plain(stream) => Ok((stream.into_fd()?, None)),
            Wire::Tls(stream) => {
                let (stream, session) = stream.into_inner();
                Ok((stream.into_fd()?, Some(Box::new(session))))
            }
        }
    }
}

/// Reads and writes through whichever stream it is.
macro_rules! forward {
    ($kind:ident: $($stream:ident),+) => {
        impl AsyncRead for $kind {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($kind::$stream(stream) => Pin::new(stream).poll_read(cx, buf),)+
                }
            }
        }

        impl AsyncWrite for $kind {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $($kind::$stream(stream) => Pin::new(stream).poll_write(cx, bytes),)+
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($kind::$stream(stream) => Pin::new(stream).poll_flush(cx),)+
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($kind::$stream(stream) => Pin::new(stream).poll_shutdown(cx),)+
                }
            }
        }
    };
}

forward!(Stream: Tcp, Unix);
forward!(Wire: Plain, Tls);
