//! A small client protocol over a socket pair, and nodes to serve it: what every test here uses.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod front;
pub mod nodes;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// What the client asks; the wire is `kind u8 | id u64 | offset u64 | len u64`, then payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ask {
    Read = 0,
    Write = 1,
    Flush = 2,
    Zero = 3,
    WriteFua = 4,
    Trim = 5,
    Extents = 6,
}

pub const HEAD: usize = 25;
/// `id u64 | status u8 | len u64`, then payload.
pub const REPLY: usize = 17;

/// The other end of an attached connection; blocking.
pub struct Client {
    pub stream: UnixStream,
    next: u64,
}

impl Client {
    pub fn new(stream: UnixStream) -> Client {
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(20)))
            .unwrap();
        Client { stream, next: 1 }
    }

    pub fn send(&mut self, ask: Ask, offset: u64, len: u64, payload: &[u8]) -> u64 {
        let id = self.next;
        self.next += 1;
        let mut head = [0; HEAD];
        head[0] = ask as u8;
        head[1..9].copy_from_slice(&id.to_le_bytes());
        head[9..17].copy_from_slice(&offset.to_le_bytes());
        head[17..25].copy_from_slice(&len.to_le_bytes());
        self.stream.write_all(&head).unwrap();
        self.stream.write_all(payload).unwrap();
        id
    }

    /// (id, status, payload); `None` at the end of the stream.
    pub fn receive(&mut self) -> Option<(u64, u8, Vec<u8>)> {
        let mut head = [0; REPLY];
        self.stream.read_exact(&mut head).ok()?;
        let id = u64::from_le_bytes(head[..8].try_into().unwrap());
        let len = u64::from_le_bytes(head[9..].try_into().unwrap());
        let mut payload = vec![0; len as usize];
        self.stream.read_exact(&mut payload).ok()?;
        Some((id, head[8], payload))
    }

    fn ask(&mut self, ask: Ask, offset: u64, len: u64, payload: &[u8]) -> (u8, Vec<u8>) {
        let id = self.send(ask, offset, len, payload);
        let (found, status, payload) = self.receive().expect("the server answers");
        assert_eq!(found, id);
        (status, payload)
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> u8 {
        self.ask(Ask::Write, offset, bytes.len() as u64, bytes).0
    }

    pub fn write_fua(&mut self, offset: u64, bytes: &[u8]) -> u8 {
        self.ask(Ask::WriteFua, offset, bytes.len() as u64, bytes).0
    }

    pub fn read(&mut self, offset: u64, len: u64) -> (u8, Vec<u8>) {
        self.ask(Ask::Read, offset, len, &[])
    }

    pub fn flush(&mut self) -> u8 {
        self.ask(Ask::Flush, 0, 0, &[]).0
    }

    pub fn zero(&mut self, offset: u64, len: u64) -> u8 {
        self.ask(Ask::Zero, offset, len, &[]).0
    }

    pub fn trim(&mut self, offset: u64, len: u64) -> u8 {
        self.ask(Ask::Trim, offset, len, &[]).0
    }

    /// (length, is a hole) of each run.
    pub fn extents(&mut self, offset: u64, len: u64) -> Vec<(u64, bool)> {
        let (status, payload) = self.ask(Ask::Extents, offset, len, &[]);
        assert_eq!(status, OK);
        let run = |c: &[u8]| (u64::from_le_bytes(c[..8].try_into().unwrap()), c[8] == 1);
        payload.chunks(9).map(run).collect()
    }
}

pub const OK: u8 = 0;
pub const FAILED: u8 = 1;
pub const NO_SPACE: u8 = 2;

/// Bytes that differ from place to place and from seed to seed.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
