//! A blocking stream of frames, with deadlines.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use engine_core::message::{Message, Refusal};
use engine_core::wire::{HEADER_LEN, Header, encode, parse_header};
use engine_ring::sys::clock::boottime_ns;

/// Longest body of a first frame: half-open connections cost little (law F27).
const FIRST_BODY_MAX: u32 = 16 << 10;

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

/// Reads the first frame of a connection until `deadline`: its head, and all its bytes.
pub(super) fn first_frame(stream: &TcpStream, deadline: u64) -> io::Result<(Header, Vec<u8>)> {
    let mut bytes = vec![0; HEADER_LEN];
    read_until(stream, &mut bytes, deadline)?;
    let head = bytes
        .first_chunk()
        .expect("it was made as long as a header");
    let header = parse_header(head).map_err(invalid)?;
    if header.body_len > FIRST_BODY_MAX || header.payload_len > 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    bytes.resize(HEADER_LEN + header.body_len as usize, 0);
    read_until(stream, &mut bytes[HEADER_LEN..], deadline)?;
    Ok((header, bytes))
}

fn read_until(mut stream: &TcpStream, mut into: &mut [u8], deadline: u64) -> io::Result<()> {
    while !into.is_empty() {
        let left = deadline.saturating_sub(boottime_ns());
        if left == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(Duration::from_nanos(left.max(1_000_000))))?;
        match stream.read(into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => into = &mut into[read..],
            Err(e) if is_no_news(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The read ended without anything being wrong with the stream.
pub(super) fn is_no_news(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// Says why a data connection is refused, as far as the other side still listens.
pub(super) fn refuse(mut stream: &TcpStream, why: Refusal) {
    let mut frame = Vec::new();
    encode(&Message::Refuse(why), 1, &[], 0, &mut frame);
    // It is being closed either way.
    let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
    let _ = stream.write_all(&frame);
}

pub(super) fn invalid(error: engine_core::wire::WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
