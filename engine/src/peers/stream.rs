//! Sockets of replication, and what is said on them before anything else.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use engine_core::message::{Message, Refusal};
use engine_core::wire::encode;

/// Options of every replication socket: no Nagle, and a congestion control made for LANs.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    // The system's choice stays where neither is built in.
    let _ = socket
        .set_tcp_congestion(b"cubic")
        .or_else(|_| socket.set_tcp_congestion(b"reno"));
    Ok(())
}

/// Connects to the first address that answers.
pub(super) fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in std::net::ToSocketAddrs::to_socket_addrs(address)? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) if is_self_connect(&stream, address) => {
                last = io::ErrorKind::ConnectionRefused.into();
            }
            Ok(stream) => {
                tune(&stream)?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// A connect to a free ephemeral port of this machine may meet itself.
fn is_self_connect(stream: &TcpStream, address: SocketAddr) -> bool {
    stream.local_addr().is_ok_and(|own| own == address)
}

/// The read ended without anything being wrong with the stream.
pub(super) fn is_no_news(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// The frame that says why a connection is refused.
pub(super) fn refusal(why: Refusal) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(&Message::Refuse(why), 1, &[], 0, &mut frame);
    frame
}

pub(super) fn invalid(error: engine_core::wire::WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
