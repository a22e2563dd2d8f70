//! Files, pipes and sockets in memory, as POSIX has them.

use std::collections::VecDeque;

use super::{Object, xorshift};
use crate::op::{Addr, Errno, FallocateMode, ShutdownHow};

/// Bytes a socket buffers before its sender has to wait.
const PIPE_BYTES: usize = 256 << 10;
const SECTOR: usize = 512;

#[derive(Default)]
pub(super) struct Objects {
    table: Vec<Kind>,
    pipes: Vec<Pipe>,
}

enum Kind {
    File(FileData),
    /// `None` until connected.
    Socket(Option<Ends>),
    Listener {
        at: Addr,
        waiting: VecDeque<Object>,
        closed: bool,
    },
}

#[derive(Clone, Copy)]
struct Ends {
    receive: usize,
    send: usize,
}

#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    sender_gone: bool,
    receiver_gone: bool,
}

/// A file: what reads see, and what a power cut leaves.
pub(super) struct FileData {
    pub(super) live: Vec<u8>,
    durable: Vec<u8>,
}

/// What came of a try.
pub(super) enum Tried<T> {
    /// It has to wait for the other side.
    Later,
    Ended(Result<T, Errno>),
}

impl FileData {
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> u32 {
        let start = usize::try_from(at)
            .unwrap_or(usize::MAX)
            .min(self.live.len());
        let count = into.len().min(self.live.len() - start);
        into[..count].copy_from_slice(&self.live[start..start + count]);
        count as u32
    }

    pub(super) fn write(&mut self, at: u64, bytes: &[u8], durable: bool) -> Result<u32, Errno> {
        let range = grow(&mut self.live, at, bytes.len() as u64)?;
        self.live[range.clone()].copy_from_slice(bytes);
        if durable {
            grow(&mut self.durable, at, bytes.len() as u64)?;
            self.durable[range].copy_from_slice(bytes);
        }
        Ok(bytes.len() as u32)
    }

    pub(super) fn sync(&mut self) {
        self.durable.clone_from(&self.live);
    }

    pub(super) fn fallocate(
        &mut self,
        mode: FallocateMode,
        at: u64,
        len: u64,
    ) -> Result<u32, Errno> {
        let keep = matches!(
            mode,
            FallocateMode::PunchHole | FallocateMode::ZeroRangeKeepSize
        );
        let size = self.live.len() as u64;
        let end = at
            .checked_add(len)
            .filter(|_| len > 0)
            .ok_or(Errno::INVAL)?;
        if !keep && end > size {
            grow(&mut self.live, at, len)?;
        }
        if mode != FallocateMode::Allocate {
            let end = end.min(self.live.len() as u64);
            if at < end {
                self.live[at as usize..end as usize].fill(0);
            }
        }
        Ok(0)
    }

    pub(super) fn crash(&mut self, random: &mut u64) {
        self.live.resize(self.durable.len(), 0);
        for (live, durable) in self
            .live
            .chunks_mut(SECTOR)
            .zip(self.durable.chunks_mut(SECTOR))
        {
            if live != durable {
                if xorshift(random) & 1 == 0 {
                    live.copy_from_slice(durable);
                } else {
                    durable.copy_from_slice(live);
                }
            }
        }
    }
}

/// Files of this world end at 16 GiB.
const FILE_MAX: u64 = 16 << 30;

fn grow(bytes: &mut Vec<u8>, at: u64, len: u64) -> Result<std::ops::Range<usize>, Errno> {
    let end = at
        .checked_add(len)
        .filter(|end| *end <= FILE_MAX)
        .ok_or(Errno(libc::EFBIG))?;
    if end as usize > bytes.len() {
        bytes.resize(end as usize, 0);
    }
    Ok(at as usize..end as usize)
}

impl Objects {
    pub(super) fn add_file(&mut self, bytes: Vec<u8>) -> Object {
        self.add(Kind::File(FileData {
            durable: bytes.clone(),
            live: bytes,
        }))
    }

    pub(super) fn add_socket(&mut self) -> Object {
        self.add(Kind::Socket(None))
    }

    pub(super) fn add_listener(&mut self, at: Addr) -> Object {
        self.add(Kind::Listener {
            at,
            waiting: VecDeque::new(),
            closed: false,
        })
    }

    pub(super) fn add_pair(&mut self) -> (Object, Object) {
        let (a, b) = (self.add_socket(), self.add_socket());
        self.join(a, b);
        (a, b)
    }

    fn add(&mut self, kind: Kind) -> Object {
        self.table.push(kind);
        Object(self.table.len() as u32 - 1)
    }

    fn join(&mut self, a: Object, b: Object) {
        let first = self.pipes.len();
        self.pipes.extend([Pipe::default(), Pipe::default()]);
        self.table[a.0 as usize] = Kind::Socket(Some(Ends {
            receive: first,
            send: first + 1,
        }));
        self.table[b.0 as usize] = Kind::Socket(Some(Ends {
            receive: first + 1,
            send: first,
        }));
    }

    /// Panics when it is none: a test asks for what it made itself.
    pub(super) fn file(&mut self, object: Object) -> &mut FileData {
        self.try_file(object).expect("a file of this world")
    }

    pub(super) fn try_file(&mut self, object: Object) -> Result<&mut FileData, Errno> {
        match &mut self.table[object.0 as usize] {
            Kind::File(file) => Ok(file),
            _ => Err(Errno(libc::ESPIPE)),
        }
    }

    fn ends(&self, object: Object) -> Result<Ends, Errno> {
        match self.table[object.0 as usize] {
            Kind::Socket(Some(ends)) => Ok(ends),
            Kind::Socket(None) | Kind::Listener { .. } => Err(Errno(libc::ENOTCONN)),
            Kind::File(_) => Err(Errno(libc::ENOTSOCK)),
        }
    }

    /// Takes up to `into.len()` bytes; 0 at the end of the stream.
    pub(super) fn receive(&mut self, object: Object, into: &mut [u8]) -> Tried<u32> {
        let pipe = match self.ends(object) {
            Ok(ends) => &mut self.pipes[ends.receive],
            Err(errno) => return Tried::Ended(Err(errno)),
        };
        if pipe.bytes.is_empty() && !pipe.sender_gone && !pipe.receiver_gone {
            return Tried::Later;
        }
        let count = into.len().min(pipe.bytes.len());
        for (to, from) in into.iter_mut().zip(pipe.bytes.drain(..count)) {
            *to = from;
        }
        Tried::Ended(Ok(count as u32))
    }

    /// How many bytes a send could place now.
    pub(super) fn room(&mut self, object: Object) -> Tried<usize> {
        let pipe = match self.ends(object) {
            Ok(ends) => &mut self.pipes[ends.send],
            Err(errno) => return Tried::Ended(Err(errno)),
        };
        if pipe.sender_gone || pipe.receiver_gone {
            return Tried::Ended(Err(Errno::PIPE));
        }
        match PIPE_BYTES - pipe.bytes.len() {
            0 => Tried::Later,
            room => Tried::Ended(Ok(room)),
        }
    }

    /// Places bytes that `room` said there is room for.
    pub(super) fn send(&mut self, object: Object, bytes: &[u8]) {
        if let Ok(ends) = self.ends(object) {
            self.pipes[ends.send].bytes.extend(bytes);
        }
    }

    pub(super) fn accept(&mut self, object: Object) -> Tried<Object> {
        match &mut self.table[object.0 as usize] {
            Kind::Listener { waiting, .. } => match waiting.pop_front() {
                Some(socket) => Tried::Ended(Ok(socket)),
                None => Tried::Later,
            },
            _ => Tried::Ended(Err(Errno::INVAL)),
        }
    }

    pub(super) fn connect(&mut self, object: Object, to: &Addr) -> Result<u32, Errno> {
        match self.table[object.0 as usize] {
            Kind::Socket(None) => {}
            Kind::Socket(Some(_)) => return Err(Errno(libc::EISCONN)),
            _ => return Err(Errno(libc::ENOTSOCK)),
        }
        let listening =
            |kind: &Kind| matches!(kind, Kind::Listener { at, closed: false, .. } if at == to);
        let found = self
            .table
            .iter()
            .position(listening)
            .ok_or(Errno::CONNREFUSED)?;
        let other = self.add_socket();
        self.join(object, other);
        if let Kind::Listener { waiting, .. } = &mut self.table[found] {
            waiting.push_back(other);
        }
        Ok(0)
    }

    pub(super) fn readable(&self, object: Object) -> bool {
        match &self.table[object.0 as usize] {
            Kind::File(_) => true,
            Kind::Socket(None) => false,
            Kind::Socket(Some(ends)) => {
                let pipe = &self.pipes[ends.receive];
                !pipe.bytes.is_empty() || pipe.sender_gone
            }
            Kind::Listener { waiting, .. } => !waiting.is_empty(),
        }
    }

    pub(super) fn shutdown(&mut self, object: Object, how: ShutdownHow) -> Result<u32, Errno> {
        let ends = self.ends(object)?;
        if how != ShutdownHow::Write {
            self.pipes[ends.receive].receiver_gone = true;
        }
        if how != ShutdownHow::Read {
            self.pipes[ends.send].sender_gone = true;
        }
        Ok(0)
    }

    pub(super) fn close(&mut self, object: Object) {
        match &mut self.table[object.0 as usize] {
            Kind::File(_) | Kind::Socket(None) => {}
            Kind::Socket(Some(_)) => {
                let _ = self.shutdown(object, ShutdownHow::Both);
            }
            Kind::Listener {
                waiting, closed, ..
            } => {
                *closed = true;
                for socket in std::mem::take(waiting) {
                    self.close(socket);
                }
            }
        }
    }
}
