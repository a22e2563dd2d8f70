//! A ring of any kind with the files and sockets its tests need.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use engine_ring::fake::{FakeRing, World};
use engine_ring::{
    Access, Addr, Arena, ArenaConfig, BufId, Class, Completion, Errno, FileId, Op, Refused, Region,
    RegionId, Ring, RingConfig, Turn, Wait, Waker, open_io_uring, open_posix,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    IoUring,
    Posix,
    Fake,
}

enum Machine {
    Real(Box<dyn Ring>),
    Fake(Box<FakeRing>, World),
}

pub struct Bed {
    machine: Machine,
    pub kind: Kind,
    pub arena: Arena,
    pub done: Vec<Completion>,
}

/// Long enough for the slowest machine; a test that works never waits it out.
const PATIENCE_NS: u64 = 20_000_000_000;

impl Bed {
    /// `None`, and a line that says so, where this machine has no such ring.
    pub fn new(kind: Kind) -> Option<Bed> {
        // Small on purpose: the laws hold when operations queue inside the ring.
        Bed::with_depth(kind, 32)
    }

    pub fn with_depth(kind: Kind, depth: u32) -> Option<Bed> {
        let arena = Arena::new(&ArenaConfig::with_bytes(1, 32 << 20)).unwrap();
        let config = RingConfig {
            depth,
            files: 64,
            workers: 2,
            fixed_bytes: 16 << 20,
        };
        let machine = match kind {
            Kind::IoUring => match open_io_uring(&config, &arena) {
                Ok(ring) => Machine::Real(ring),
                Err(why) => {
                    eprintln!("skipped: {why}");
                    return None;
                }
            },
            Kind::Posix => Machine::Real(open_posix(&config, &arena).unwrap()),
            Kind::Fake => {
                let world = World::new(42);
                Machine::Fake(Box::new(world.ring(&arena)), world)
            }
        };
        Some(Bed {
            machine,
            kind,
            arena,
            done: Vec::new(),
        })
    }

    pub fn ring(&mut self) -> &mut dyn Ring {
        match &mut self.machine {
            Machine::Real(ring) => &mut **ring,
            Machine::Fake(ring, _) => &mut **ring,
        }
    }

    pub fn file(&mut self, bytes: &[u8]) -> FileId {
        match &mut self.machine {
            Machine::Real(ring) => {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(bytes).unwrap();
                file.seek(SeekFrom::Start(0)).unwrap();
                ring.register(file.into())
            }
            Machine::Fake(ring, world) => ring.adopt(world.file(bytes.to_vec())),
        }
    }

    pub fn file_as(&mut self, file: File, access: Access) -> Result<FileId, Refused> {
        let ring: &mut dyn Ring = match &mut self.machine {
            Machine::Real(ring) => &mut **ring,
            Machine::Fake(ring, _) => &mut **ring,
        };
        ring.register_as(file.into(), access, &self.arena)
    }

    pub fn pair(&mut self) -> (FileId, FileId) {
        match &mut self.machine {
            Machine::Real(ring) => {
                let (a, b) = UnixStream::pair().unwrap();
                (ring.register(a.into()), ring.register(b.into()))
            }
            Machine::Fake(ring, world) => {
                let (a, b) = world.socket_pair();
                (ring.adopt(a), ring.adopt(b))
            }
        }
    }

    pub fn listener(&mut self) -> (FileId, Addr) {
        match &mut self.machine {
            Machine::Real(ring) => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let addr = Addr::Ip(listener.local_addr().unwrap());
                (ring.register(listener.into()), addr)
            }
            Machine::Fake(ring, world) => {
                let addr = Addr::Ip("127.0.0.1:10809".parse().unwrap());
                (ring.adopt(world.listener(addr.clone())), addr)
            }
        }
    }

    /// An address nobody listens at.
    pub fn nobody(&mut self) -> Addr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Addr::Ip(listener.local_addr().unwrap())
    }

    /// A TCP socket to be connected.
    pub fn socket(&mut self) -> FileId {
        match &mut self.machine {
            Machine::Real(ring) => {
                let family = rustix::net::AddressFamily::INET;
                let kind = rustix::net::SocketType::STREAM;
                let fd: OwnedFd = rustix::net::socket(family, kind, None).unwrap();
                ring.register(fd)
            }
            Machine::Fake(ring, world) => ring.adopt(world.socket()),
        }
    }

    /// A connected stream that can be unregistered again, where the back end has such a thing.
    pub fn real_stream(&mut self) -> Option<(FileId, TcpStream)> {
        let Machine::Real(ring) = &mut self.machine else {
            return None;
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        Some((ring.register(ours.into()), theirs))
    }

    pub fn buf(&mut self, bytes: usize) -> BufId {
        self.arena
            .alloc(Class::Client, bytes)
            .expect("the tests' arena is large enough")
    }

    /// A buffer that begins with these bytes.
    pub fn buf_of(&mut self, bytes: &[u8]) -> BufId {
        let buf = self.buf(bytes.len());
        self.arena.bytes_mut(buf)[..bytes.len()].copy_from_slice(bytes);
        buf
    }

    pub fn push(&mut self, token: u64, op: Op<'_>) {
        let ring: &mut dyn Ring = match &mut self.machine {
            Machine::Real(ring) => &mut **ring,
            Machine::Fake(ring, _) => &mut **ring,
        };
        ring.push(&mut self.arena, token, op);
    }

    pub fn turn(&mut self, wait: Wait) -> Turn {
        let ring: &mut dyn Ring = match &mut self.machine {
            Machine::Real(ring) => &mut **ring,
            Machine::Fake(ring, _) => &mut **ring,
        };
        ring.enter(&mut self.arena, wait, &mut self.done)
    }

    pub fn now(&mut self) -> u64 {
        self.ring().now()
    }

    pub fn cancel(&mut self, token: u64) {
        self.ring().cancel(token);
    }

    pub fn waker(&mut self) -> Waker {
        self.ring().waker()
    }

    pub fn lend(&mut self, region: &Region) -> RegionId {
        self.ring().lend(region)
    }

    /// Turns until a completion of this token is there; takes it.
    pub fn wait(&mut self, token: u64) -> Completion {
        let deadline = self.now() + PATIENCE_NS;
        loop {
            if let Some(at) = self.done.iter().position(|c| c.token == token) {
                return self.done.remove(at);
            }
            assert!(
                self.now() < deadline,
                "operation {token} never completed: {:?}",
                self.done
            );
            self.turn(Wait::Until(deadline));
        }
    }

    /// Pushes, waits, gives the result.
    pub fn run(&mut self, op: Op<'_>) -> Result<u32, Errno> {
        const TOKEN: u64 = 0xFFFF_0000;
        self.push(TOKEN, op);
        self.wait(TOKEN).result
    }

    /// Bytes of a file by way of the ring.
    pub fn read(&mut self, file: FileId, at: u64, len: u32) -> Vec<u8> {
        let buf = self.buf(len as usize);
        let count = self
            .run(Op::ReadAt {
                file,
                buf: buf.slice(0, len),
                at,
            })
            .unwrap();
        let bytes = self.arena.bytes(buf)[..count as usize].to_vec();
        self.arena.release(buf);
        bytes
    }

    /// Makes a stream deliver everything that was sent: exactly `len` bytes.
    pub fn receive(&mut self, file: FileId, len: u32) -> Vec<u8> {
        let buf = self.buf(len as usize);
        let count = self
            .run(Op::Recv {
                file,
                buf: buf.slice(0, len),
                all: true,
            })
            .unwrap();
        let bytes = self.arena.bytes(buf)[..count as usize].to_vec();
        self.arena.release(buf);
        bytes
    }

    /// The ring goes, the arena stays.
    pub fn drop_ring(self) -> Arena {
        drop(self.machine);
        self.arena
    }
}
