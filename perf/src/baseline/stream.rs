//! A socket of either kind.

use std::io;

use bytes::{Buf, Bytes};
use tokio_uring::BufResult;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpStream, UnixStream};

/// What one vectored send may hold (IOV_MAX).
const SEGMENTS_MAX: usize = 1024;

/// A socket.
pub enum Stream {
    /// Of this machine.
    Unix(UnixStream),
    /// Of any machine.
    Tcp(TcpStream),
}

impl Stream {
    /// A socket of this machine.
    pub fn unix(socket: std::os::unix::net::UnixStream) -> Stream {
        Stream::Unix(UnixStream::from_std(socket))
    }

    /// A socket of any machine.
    pub fn tcp(socket: std::net::TcpStream) -> Stream {
        Stream::Tcp(TcpStream::from_std(socket))
    }

    /// Receives behind the first `filled` bytes. Gives how many came.
    pub async fn receive(&self, buffer: Vec<u8>, filled: usize) -> BufResult<usize, Vec<u8>> {
        let place = buffer.slice(filled..);
        let (result, place) = match self {
            Stream::Unix(stream) => stream.read(place).await,
            Stream::Tcp(stream) => stream.read(place).await,
        };
        (result, place.into_inner())
    }

    /// Sends everything, as much as possible at a time.
    pub async fn send(&self, mut all: Vec<Bytes>) -> io::Result<()> {
        while !all.is_empty() {
            let rest = all.split_off(all.len().min(SEGMENTS_MAX));
            let (result, mut part) = match self {
                Stream::Unix(stream) => stream.writev(all).await,
                Stream::Tcp(stream) => stream.writev(all).await,
            };
            let mut sent = result?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let mut whole = 0;
            for segment in &mut part {
                if sent < segment.len() {
                    segment.advance(sent);
                    break;
                }
                sent -= segment.len();
                whole += 1;
            }
            part.drain(..whole);
            part.extend(rest);
            all = part;
        }
        Ok(())
    }
}
